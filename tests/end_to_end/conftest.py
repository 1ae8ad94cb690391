"""The service and its PACS (tests/peers/hospital.py)."""

from __future__ import annotations

from tests.peers.hospital import Hospital, Open, Sections

__all__ = ["Hospital", "Open", "Sections"]

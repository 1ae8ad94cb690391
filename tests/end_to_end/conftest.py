"""The service and its PACS (peers/hospital.py)."""

from __future__ import annotations

from peers.hospital import Hospital, Open, Sections

__all__ = ["Hospital", "Open", "Sections"]

"""What publishers that are reached over DICOM have in common: where they are called, and C-ECHO."""

from __future__ import annotations

from pathlib import Path

from mkiso.config.settings import Publisher as PublisherSettings
from mkiso.publishers.association import Address
from mkiso.publishers.echo import echo


class DicomPublisher:
    """One publisher under its configured name. `orders_dir` remembers when which patient was sent there."""

    needs_image = False

    def __init__(self, name: str, settings: PublisherSettings, receiver_ae_title: str, orders_dir: Path) -> None:
        self.name = name
        self._settings = settings
        self._orders_dir = orders_dir
        self._address = Address(
            settings.host,
            settings.port,
            settings.ae_title,
            settings.calling_ae_title or receiver_ae_title,
            settings.connect_timeout_seconds,
            settings.response_timeout_seconds,
        )

    def check(self) -> str:
        """C-ECHO (PS3.4 A.4)."""
        return echo(self.name, self._address)

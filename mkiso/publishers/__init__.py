"""Disc publishers: one module a kind behind one small protocol."""

from __future__ import annotations

from collections.abc import Mapping

from mkiso.config.publishers import MediaCreation, Robot
from mkiso.config.robots import RobotKind
from mkiso.config.settings import Settings
from mkiso.errors import ConfigurationError
from mkiso.publishers.cstore import CStorePublisher
from mkiso.publishers.desk import cancel, follow, give, may_be_given, require_same_discs
from mkiso.publishers.epson import EpsonPublisher
from mkiso.publishers.folder import JsonFolderPublisher
from mkiso.publishers.hotfolder import FolderPublisher
from mkiso.publishers.mcm import McmPublisher
from mkiso.publishers.orderbook import OrderBook
from mkiso.publishers.primera import PrimeraPublisher
from mkiso.publishers.protocol import Order, Publisher, Receipt, Watch
from mkiso.publishers.rimage import RimagePublisher

__all__ = [
    "Order",
    "OrderBook",
    "Publisher",
    "Receipt",
    "Watch",
    "cancel",
    "follow",
    "give",
    "may_be_given",
    "publisher_of",
    "require_same_discs",
]


ROBOTS: Mapping[RobotKind, type[FolderPublisher]] = {
    "epson": EpsonPublisher,
    "primera": PrimeraPublisher,
    "rimage": RimagePublisher,
    "folder": JsonFolderPublisher,
}


def publisher_of(name: str, settings: Settings) -> Publisher:
    """The configured publisher of this name. Raises ConfigurationError where there is none."""
    configured = settings.publishers.get(name)
    if configured is None:
        raise ConfigurationError(
            f"There is no publisher {name!r}; configured are {', '.join(sorted(settings.publishers)) or 'none'}."
        )
    if isinstance(configured, Robot):
        return ROBOTS[configured.kind](name, configured)
    ours, orders_dir = settings.receiver.ae_title, settings.storage.orders_dir
    if isinstance(configured, MediaCreation):
        return McmPublisher(name, configured, ours, orders_dir)
    return CStorePublisher(name, configured, ours, orders_dir)

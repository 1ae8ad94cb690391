"""Disc publishers: one module a kind behind one small protocol."""

from __future__ import annotations

from mkiso.config.settings import Settings
from mkiso.errors import ConfigurationError
from mkiso.publishers.cstore import CStorePublisher
from mkiso.publishers.desk import cancel, follow, give
from mkiso.publishers.epson import EpsonPublisher
from mkiso.publishers.folder import JsonFolderPublisher
from mkiso.publishers.mcm import McmPublisher
from mkiso.publishers.orderbook import OrderBook
from mkiso.publishers.primera import PrimeraPublisher
from mkiso.publishers.protocol import Order, Publisher, Receipt, Watch
from mkiso.publishers.rimage import RimagePublisher

__all__ = ["Order", "OrderBook", "Publisher", "Receipt", "Watch", "cancel", "follow", "give", "publisher_of"]


def publisher_of(name: str, settings: Settings) -> Publisher:
    """The configured publisher of this name. Raises ConfigurationError where there is none."""
    configured = settings.publishers.get(name)
    if configured is None:
        raise ConfigurationError(
            f"There is no publisher {name!r}; configured are {', '.join(sorted(settings.publishers)) or 'none'}."
        )
    match configured.kind:
        case "cstore":
            return CStorePublisher(name, configured, settings.receiver.ae_title, settings.storage.orders_dir)
        case "mcm":
            return McmPublisher(name, configured, settings.receiver.ae_title, settings.storage.orders_dir)
        case "epson":
            return EpsonPublisher(name, configured)
        case "primera":
            return PrimeraPublisher(name, configured)
        case "rimage":
            return RimagePublisher(name, configured)
        case "folder":
            return JsonFolderPublisher(name, configured)

"""Disc publishers: one module a kind behind one small protocol."""

from __future__ import annotations

from mkiso.config import Settings
from mkiso.errors import ConfigurationError
from mkiso.publishers.cstore import CStorePublisher
from mkiso.publishers.desk import cancel, follow, give
from mkiso.publishers.orderbook import question_of
from mkiso.publishers.protocol import Order, Publisher, Receipt, Watch

__all__ = ["Order", "Publisher", "Receipt", "Watch", "cancel", "follow", "give", "publisher_of", "question_of"]


def publisher_of(name: str, settings: Settings) -> Publisher:
    """The configured publisher of this name. Raises ConfigurationError where there is none."""
    configured = settings.publishers.get(name)
    if configured is None:
        raise ConfigurationError(f"There is no publisher {name!r}; configured are {', '.join(sorted(settings.publishers)) or 'none'}.")
    return CStorePublisher(name, configured, settings.receiver.ae_title, settings.storage.orders_dir)

"""What leaves for a publisher stands in the audit (PS3.15 A.5.3.4) before its first byte has left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mkiso.audit import messages as audit
from mkiso.config.publishers import DicomPublisher
from mkiso.config.settings import Settings
from mkiso.publishers.protocol import Order, Publisher

log = logging.getLogger("mkiso.publishers.export")


@contextmanager
def audited(
    settings: Settings, publisher: Publisher, order: Order, left: audit.Left, job_id: str
) -> Iterator[Callable[[], None]]:
    """Write an export down when what is given is called, so that no crash hides it; and once more where it breaks off.
    Whatever goes wrong with the message, the order is given and followed.
    """
    has_begun = False

    def tell(outcome: str) -> None:
        try:
            audit.exported(settings, left, *_destination(settings, publisher, order), job_id, outcome=outcome)
        except Exception as fault:
            log.error("The audit message of this order couldn't be made: %s", type(fault).__name__)

    def leaves() -> None:
        nonlocal has_begun
        has_begun = True
        tell(audit.SUCCESS)

    try:
        yield leaves
    except BaseException:  # also a cancelled job's
        if has_begun:
            tell(audit.SERIOUS_FAILURE)
        raise


def _destination(settings: Settings, publisher: Publisher, order: Order) -> tuple[audit.Party, audit.Party]:
    """Who gets it, and the medium: a disc, or where a publisher is whose disc nobody has seen."""
    configured = settings.publishers[publisher.name]
    if isinstance(configured, DicomPublisher):
        address = f"dicom://{configured.host}:{configured.port}/{configured.ae_title}"
        return (
            audit.Party(publisher.name, audit.DESTINATION, configured.host),
            audit.Party(address, audit.DESTINATION_MEDIA, configured.host, media_type=audit.BY_ADDRESS),
        )
    return (
        audit.Party(publisher.name, audit.DESTINATION),
        audit.Party(order.volume_id, audit.DESTINATION_MEDIA, media_type=audit.MEDIA[order.medium]),
    )

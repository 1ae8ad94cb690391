"""What publishers that are reached over DICOM have in common: where they are called, and C-ECHO."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

from pydicom import Dataset

from mkiso.config.publishers import DicomPublisher as DicomSettings
from mkiso.errors import PublisherUnavailable
from mkiso.network.pdu import AssociationLost
from mkiso.network.requestor import VERIFYING, Address, Requestor
from mkiso.publishers.protocol import Order
from mkiso.study.models import Arrival

ECHO_LIMIT_SECONDS = 2.0  # the health check answers within two seconds
RELEASE_TIMEOUT_SECONDS = 5.0


S = TypeVar("S", bound=DicomSettings)


class DicomPublisher(Generic[S]):
    """One publisher under its configured name. `orders_dir` remembers when which patient was sent there."""

    needs_image = False

    def __init__(self, name: str, settings: S, receiver_ae_title: str, orders_dir: Path) -> None:
        self.name = name
        self.where = settings.where
        self._settings = settings
        self._orders_dir = orders_dir
        self._address = Address(
            settings.host,
            settings.port,
            settings.ae_title,
            settings.calling_ae_title or receiver_ae_title,
            settings.connect_timeout_seconds,
            settings.response_timeout_seconds,
            settings.response_timeout_seconds,
            min(settings.response_timeout_seconds, RELEASE_TIMEOUT_SECONDS),
        )

    def rewrites(self, order: Order) -> bool:
        """It has text as Unicode, or makes its label from the images."""
        return False

    def tells_part(self) -> bool:
        """What makes disc and label by itself knows nothing of what was chosen."""
        return False

    def check(self) -> str:
        """Whether it answers C-ECHO, in words."""
        where = f"{self.name} ({self._address})"
        try:
            with Requestor.open(self._address.within(ECHO_LIMIT_SECONDS), [VERIFYING]) as association:
                status = association.echo()
        except AssociationLost as error:
            raise PublisherUnavailable(f"{where} {error}") from None
        if status != 0x0000:
            raise PublisherUnavailable(f"{where} answers C-ECHO with {status:04X}")
        return f"{where} answers C-ECHO"


def reference_to(instance: Arrival) -> Dataset:
    """An item of a Referenced SOP Sequence (PS3.3 10.8)."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = instance.sop_class_uid
    reference.ReferencedSOPInstanceUID = instance.sop_instance_uid
    return reference

"""C-ECHO: whether a DICOM publisher answers (PS3.4 A.4)."""

from __future__ import annotations

from dataclasses import replace

from mkiso.errors import PublisherUnavailable
from mkiso.publishers.association import VERIFICATION, Address, AssociationLost, AssociationRejected, StoreAssociation

LIMIT_SECONDS = 2.0  # the health check answers within two seconds


def echo(publisher: str, address: Address) -> str:
    """The answer in words. Raises PublisherUnavailable with what is wrong."""
    where = f"{publisher} ({address.called_ae_title} at {address.host}:{address.port})"
    hurried = replace(
        address,
        connect_timeout_seconds=min(address.connect_timeout_seconds, LIMIT_SECONDS),
        response_timeout_seconds=min(address.response_timeout_seconds, LIMIT_SECONDS),
    )
    try:
        with StoreAssociation.open(hurried, [VERIFICATION]) as association:
            status = int(association.echo().Status)
    except AssociationRejected as error:
        raise PublisherUnavailable(f"{where} rejects the association: {error}") from None
    except AssociationLost as error:
        raise PublisherUnavailable(f"{where} doesn't answer C-ECHO: {error}") from None
    except OSError as error:
        raise PublisherUnavailable(f"{where} can't be reached: {error.strerror or error}") from None
    if status != 0x0000:
        raise PublisherUnavailable(f"{where} answers C-ECHO with {status:04X}")
    return f"{where} answers C-ECHO"

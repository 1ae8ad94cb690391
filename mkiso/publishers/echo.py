"""C-ECHO: whether a DICOM publisher answers (PS3.4 A.4)."""

from __future__ import annotations

from pynetdicom import AE, build_context

from mkiso.errors import PublisherUnavailable
from mkiso.publishers.association import Address

VERIFICATION = "1.2.840.10008.1.1"
LIMIT_SECONDS = 2.0  # the health check answers within two seconds


def echo(publisher: str, address: Address) -> str:
    """The answer in words. Raises PublisherUnavailable with what is wrong."""
    client = AE(ae_title=address.calling_ae_title)
    client.connection_timeout = min(address.connect_timeout_seconds, LIMIT_SECONDS)
    client.acse_timeout = client.dimse_timeout = client.network_timeout = min(address.response_timeout_seconds, LIMIT_SECONDS)
    where = f"{publisher} ({address.called_ae_title} at {address.host}:{address.port})"
    association = client.associate(address.host, address.port, [build_context(VERIFICATION)], ae_title=address.called_ae_title)
    if association.is_rejected:
        answer = association.acceptor.primitive
        raise PublisherUnavailable(f"{where} rejects the association: {answer.reason_str if answer else 'no reason given'}")
    if not association.is_established:
        raise PublisherUnavailable(f"{where} can't be reached, or accepts no C-ECHO")
    try:
        status = association.send_c_echo().get("Status")
    finally:
        association.release()
    if status != 0x0000:
        raise PublisherUnavailable(f"{where} answers C-ECHO with {'nothing' if status is None else f'{status:04X}'}")
    return f"{where} answers C-ECHO"

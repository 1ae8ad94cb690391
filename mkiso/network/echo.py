"""Whether the PACS answers: C-ECHO (PS3.4 A.4, PS3.7 9.1.5), for health and doctor."""

from __future__ import annotations

import time

from pydicom.uid import UID

from mkiso.config.settings import Settings
from mkiso.errors import PacsRefused
from mkiso.network import dimse
from mkiso.network.association import Association, peer_of

VERIFICATION = UID("1.2.840.10008.1.1")
LIMIT_SECONDS = 2.0


def echo(settings: Settings, limit_seconds: float = LIMIT_SECONDS) -> float:
    """How many seconds the PACS took to connect, negotiate and answer; whatever it does, this returns or raises within
    about `limit_seconds`.

    Raises PacsUnreachable, PacsRefused, PacsBusy, PacsSilent.
    """
    begun = time.monotonic()
    share = limit_seconds / 3  # the connection, the negotiation and the answer each have a limit of their own
    pacs = settings.pacs.model_copy(update={"connect_timeout_seconds": share, "response_timeout_seconds": share})
    with Association(settings.model_copy(update={"pacs": pacs}), [VERIFICATION]) as association:
        association.request({dimse.COMMAND_FIELD: dimse.C_ECHO_RQ}, VERIFICATION)
        response = association.must_receive()
        if response.status != 0:
            raise PacsRefused(
                f"{peer_of(pacs)} answers a C-ECHO with status {response.status:04X}. Look at the PACS's log."
            )
        return time.monotonic() - begun

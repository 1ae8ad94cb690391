"""One C-MOVE after another over one association, to our one AE title (PS3.4 C.4.2, C.6.2.2)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from pydicom import Dataset
from pydicom.uid import UID

from mkiso.config.settings import Receiver
from mkiso.config.sources import Pacs
from mkiso.errors import PacsBusy, PacsRefused, PacsSilent, PacsUnreachable
from mkiso.network import dimse
from mkiso.sources.move_outcome import MoveResult
from mkiso.sources.pacs import ConnectionLost, PacsAssociation
from mkiso.sources.protocol import Target

STUDY_ROOT_MOVE = UID("1.2.840.10008.5.1.4.1.2.2.2")  # PS3.4 C.6.2.3
RESPONSES_AT_ONCE = 1000
"""After so many the caller does its other work, even if the PACS never stops answering."""
MAX_LOST = 3  # associations in a row
CANCEL_TIMEOUT_SECONDS = 2.0  # dcmqrscp and Orthanc obey a C-CANCEL within milliseconds (docs/peers.md)


def identifier(target: Target) -> Dataset:
    """Unique keys only, one value at each level but the lowest (PS3.4 C.4.2.2.1)."""
    dataset = Dataset()
    dataset.QueryRetrieveLevel = target.level
    dataset.StudyInstanceUID = target.study_instance_uid
    if target.series:
        dataset.SeriesInstanceUID = list(target.series)
    if target.instances:
        dataset.SOPInstanceUID = list(target.instances)
    return dataset


class Move:
    """C-MOVEs of `wanted`, each begun when the one before has ended; nothing of it runs while nobody calls `poll`.

    A context manager: leaving it early cancels (C-CANCEL, PS3.7 9.3.4.3), waits briefly for the PACS to obey, and
    closes the association. Entering raises what PacsAssociation raises.
    """

    def __init__(self, pacs: Pacs, receiver: Receiver, wanted: Sequence[Target]) -> None:
        self._pacs, self._receiver = pacs, receiver
        self._association = PacsAssociation(pacs, receiver, [STUDY_ROOT_MOVE])
        self._wanted = wanted
        self._open = False
        self.results: list[MoveResult] = []
        self.counted = 0
        """The most sub-operations that a response has told of, pending ones too: a C-MOVE that is cut off has
        no other.
        """
        self.last_response = time.monotonic()
        """When the PACS said something last, by time.monotonic."""

    def __enter__(self) -> Move:
        self._association.__enter__()
        self._open = True
        self._begin_next()
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            self._cancel()

    def poll(self, timeout_seconds: float) -> bool:
        """Take in what the PACS has said, waiting at most so long; whether every C-MOVE has ended. Lost is an end:
        status None; the next C-MOVE has another association then. Raises PacsRefused where a response is to another
        request.
        """
        deadline = time.monotonic() + timeout_seconds
        try:
            for _ in range(RESPONSES_AT_ONCE):
                if (
                    not self._open
                    or (response := self._association.receive(max(deadline - time.monotonic(), 0))) is None
                ):
                    break
                self.last_response = time.monotonic()
                self._count(response)
                if not response.is_pending:
                    self.results.append(result_of(response))
                    self._begin_next()
        except (ConnectionLost, PacsSilent) as error:
            self._association.abort()
            self._open = False
            self.results.append(MoveResult(None, error.words))
            self._begin_anew()
        return not self._open

    def _begin_anew(self) -> None:
        """Go on after a loss with what hasn't been asked for, unless the PACS is gone, or goes each time."""
        lost = [result.status is None for result in self.results]
        if len(self._wanted) == len(self.results) or (all(lost[-MAX_LOST:]) and len(lost) >= MAX_LOST):
            return
        self._association = PacsAssociation(self._pacs, self._receiver, [STUDY_ROOT_MOVE])
        with suppress(PacsUnreachable, PacsSilent, PacsRefused, PacsBusy):
            self._association.__enter__()
            self._open = True
            self._begin_next()

    def _begin_next(self) -> None:
        if len(self.results) == len(self._wanted):
            self._association.release()
            self._open = False
            return
        target = self._wanted[len(self.results)]
        command: dict[int, dimse.Value] = {
            dimse.COMMAND_FIELD: dimse.C_MOVE_RQ,
            dimse.PRIORITY: 0,
            dimse.MOVE_DESTINATION: self._receiver.ae_title,
        }
        self._association.request(command, STUDY_ROOT_MOVE, identifier(target))

    def _count(self, response: dimse.Response) -> None:
        total = result_of(response).total
        # The final response knows best: what a pending one counted too much, it corrects.
        self.counted = total if total and not response.is_pending else max(self.counted, total)

    def _cancel(self) -> None:
        deadline = time.monotonic() + CANCEL_TIMEOUT_SECONDS
        try:
            self._association.cancel(STUDY_ROOT_MOVE)
            while (
                time.monotonic() < deadline
                and (response := self._association.receive(deadline - time.monotonic())) is not None
            ):
                self._count(response)
                if not response.is_pending:
                    break
        except (PacsUnreachable, PacsSilent, PacsRefused):
            pass
        finally:
            self._association.abort()
            self._open = False


def result_of(response: dimse.Response) -> MoveResult:
    return MoveResult(
        response.status, response.comment, response.remaining, response.completed, response.failed, response.warning
    )

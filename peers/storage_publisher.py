"""A simulated publisher with a Storage SCP: it keeps what it is sent, groups it into discs, and fails on request.

with StoragePublisher(folder, abort_after=2) as publisher:
    ... publisher.port, publisher.discs()
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

from pydicom import Dataset
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

COMMITMENT = UID("1.2.840.10008.1.20.1")
COMMITMENT_INSTANCE = UID("1.2.840.10008.1.20.1.1")
VERIFICATION = UID("1.2.840.10008.1.1")


@dataclass
class Faults:
    """How it misbehaves. Numbers count instances from the first; `busy_times` is how often it answers A700 before it
    takes an instance.

    `commitment`: same (report on the association of the request), new (on one that it opens to `report_to`), missing
    (one instance isn't held), silent (no report).
    """

    refuse_after: int | None = None
    refuse_with: int = 0xC000
    abort_after: int | None = None
    busy_times: int = 0
    disk_full_after: int | None = None
    warn_with: int | None = None
    answer_after_seconds: float = 0
    transfer_syntaxes: Sequence[str] = tuple(AllTransferSyntaxes)
    commitment: Literal["", "same", "new", "missing", "silent"] = ""
    report_to: tuple[str, int] | None = None


@dataclass
class StoragePublisher:
    """A publisher's Storage SCP in this process. What came lies in `folder`/<association>/<SOP Instance UID>.dcm, an
    association is a disc.
    """

    folder: Path
    ae_title: str = "RIMAGE"
    port: int = 0
    faults: Faults = field(default_factory=Faults)
    called_by: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0
        self._busy_left = self.faults.busy_times
        self._associations: dict[Association, Path] = {}  # kept: a later one would have the same id()
        self._finished: list[Path] = []

    def discs(self) -> list[list[str]]:
        """The SOP Instance UIDs of each disc that it would make, in order; an association that came to no proper end
        counts too.
        """
        with self._lock:
            return [
                sorted(file.stem for file in folder.glob("*.dcm"))
                for folder in self._associations.values()
                if any(folder.glob("*.dcm"))
            ]

    def whole_discs(self) -> int:
        """How many associations were released rather than aborted."""
        return len([folder for folder in self._finished if any(folder.glob("*.dcm"))])

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*/*.dcm"))

    def contexts(self) -> list[UID]:
        """The SOP classes that it has beside Storage."""
        return [VERIFICATION, *([COMMITMENT] if self.faults.commitment else [])]

    def handlers(self) -> list[Any]:
        """What answers each kind of message."""
        return [
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_C_STORE, self._stored),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_N_ACTION, self._asked_for_commitment),
        ]

    def __enter__(self) -> Self:
        self._ae = AE(ae_title=self.ae_title)
        self._ae.maximum_pdu_size = 131_072
        for sop_class in self.contexts():
            self._ae.add_supported_context(sop_class)
        for context in AllStoragePresentationContexts:
            if context.abstract_syntax:
                self._ae.add_supported_context(context.abstract_syntax, list(self.faults.transfer_syntaxes))
        server: Any = self._ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=self.handlers())
        self.port = server.socket.getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ae.shutdown()

    def _accepted(self, event: evt.Event) -> None:
        with self._lock:
            self.called_by.append(event.assoc.requestor.ae_title)
            self._associations[event.assoc] = self.folder / f"{len(self._associations):03}"

    def _stored(self, event: evt.Event) -> int | Dataset:
        faults = self.faults
        time.sleep(faults.answer_after_seconds)
        with self._lock:
            if faults.abort_after is not None and self._taken >= faults.abort_after:
                event.assoc.abort()
                return 0xC000
            if self._busy_left:
                self._busy_left -= 1
                return 0xA700
            if faults.refuse_after is not None and self._taken >= faults.refuse_after:
                return _status(faults.refuse_with, "cannot make this")
            if faults.disk_full_after is not None and self._taken >= faults.disk_full_after:
                return _status(0xA700, "disk full")
            folder, request = self._associations[event.assoc], cast(C_STORE, event.request)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{request.AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
            self._taken += 1
            return 0x0000 if faults.warn_with is None else faults.warn_with

    def _released(self, event: evt.Event) -> None:
        with self._lock:
            self._finished.append(self._associations[event.assoc])

    def _asked_for_commitment(self, event: evt.Event) -> tuple[int, None]:
        request = event.action_information
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        held = list(request.ReferencedSOPSequence)
        if self.faults.commitment == "missing":
            failed = held.pop()
            failed.FailureReason = 0x0112
            report.FailedSOPSequence = [failed]
        report.ReferencedSOPSequence = held
        if self.faults.commitment != "silent":
            threading.Thread(
                target=self._report, args=(event.assoc, report, 2 if "FailedSOPSequence" in report else 1), daemon=True
            ).start()
        return 0x0000, None

    def _report(self, association: Any, report: Dataset, event_type: int) -> None:
        time.sleep(0.2)
        if self.faults.commitment != "new" or self.faults.report_to is None:
            association.send_n_event_report(report, event_type, COMMITMENT, COMMITMENT_INSTANCE)
            return
        caller = AE(ae_title=self.ae_title)
        caller.add_requested_context(COMMITMENT)
        role = build_role(COMMITMENT, scp_role=True, scu_role=False)
        own = caller.associate(*self.faults.report_to, ext_neg=[role])
        if own.is_established:
            own.send_n_event_report(report, event_type, COMMITMENT, COMMITMENT_INSTANCE)
            own.release()

    def clear(self) -> None:
        """Throw the discs away."""
        with self._lock:
            for folder in self._associations.values():
                shutil.rmtree(folder, ignore_errors=True)


def _status(status: int, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status = status
    answer.ErrorComment = comment
    return answer

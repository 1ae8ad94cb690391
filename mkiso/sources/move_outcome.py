"""What the end of an attempt means, as a table (PS3.4 C.4.2.1.5, PS3.7 C): never judged by its status alone, but by
what has arrived.

    status                    complete     not complete
    0000                      DONE, PROVE  AGAIN where everything that the PACS counts as sent has arrived: the rest
                              failed
                                           or it doesn't know it; WAIT where it counts more than has arrived, or not
                                           reliably: it may answer before it sends (Orthanc)
    B000, 0000 with failures  PROVE        the same
    connection lost           PROVE        WAIT, for a short while: the outcome is unknown (PS3.4 C.4.2.3) and images
                              may
                                           still come
    A701, A702                PROVE        BACK_OFF, then PacsBusy
    Cxxx                      PROVE        SPLIT: one instance may have ended it for all, so the rest is asked for in
                                           smaller pieces; BACK_OFF where a study was asked for and none of it came,
                                           then StudyIncomplete
    A900, 0120, 0122          PROVE        COARSER where less than a study was asked for: not every PACS moves series or
                                           instances; FAIL at STUDY level, PacsRefused
    A801                      PROVE        BACK_OFF where images came or were counted: the PACS knows our AE title, and
                                           means a transfer that failed; else FAIL, PacsRefused
    FE00, any other           FAIL         PacsRefused: nobody cancelled, or nobody knows what it means

"Complete" is that everything arrived which the PACS listed before the C-MOVE, and it may hold more by now. DONE needs
the PACS's own word for it: a C-MOVE of the whole study that ended 0000 without failures and counted as many as were
listed. Without that word PROVE: a fresh query has to list the same. Where the PACS tells counts alone, a number proves
nothing after a failure (which of the images failed, and which came?): then what is complete goes on as what isn't, but
for a PACS that counts more than it listed, which is asked at once.

"Complete" is None where the PACS tells neither instances nor counts (pacs.require_counts is false): then DONE is a
success without failures, whose counted images have all arrived, and PROVE one that counts nothing and after which
nothing came for the quiet limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from mkiso.config.settings import Receiver
from mkiso.errors import PacsBusy, PacsRefused
from mkiso.study.identity import without_patient
from mkiso.study.models import CountSource, Expected, Patient, Study, images_words

Level = Literal["STUDY", "SERIES", "IMAGE"]
_COARSE_TO_FINE: tuple[CountSource, ...] = ("none", "study", "series", "image")

SUCCESS, WARNING = 0x0000, 0xB000
OUT_OF_RESOURCES = (0xA701, 0xA702)  # to count matches; to perform sub-operations
DESTINATION_UNKNOWN = 0xA801
IDENTIFIER_REFUSED = (0xA900, 0x0120, 0x0122)  # doesn't match the SOP class; missing attribute; SOP class not supported


class Step(Enum):
    """What to do after a C-MOVE."""

    DONE = auto()
    PROVE = auto()
    WAIT = auto()
    AGAIN = auto()
    BACK_OFF = auto()
    COARSER = auto()
    SPLIT = auto()
    FAIL = auto()


@dataclass(frozen=True, slots=True)
class MoveResult:
    """How a C-MOVE ended: its final status and the PACS's comment; or None where the connection was lost before, and
    our own words for that; and the sub-operations where the PACS counts them.
    """

    status: int | None
    comment: str = ""
    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None

    @property
    def sent(self) -> int | None:
        """How many the PACS counts as sent; None where it counts none."""
        return None if self.completed is None else self.completed + (self.warning or 0)

    @property
    def succeeded(self) -> bool:
        """Whether the PACS says that nothing failed."""
        return self.status == SUCCESS and not self.failed and not self.remaining

    @property
    def total(self) -> int:
        """How many sub-operations the PACS counts in all."""
        return sum(count or 0 for count in (self.remaining, self.completed, self.failed, self.warning))


def merged(results: Sequence[MoveResult]) -> MoveResult:
    """The ends of one attempt as one: the first status that is no success, a warning last; the sums of what is
    counted."""
    unlike = [result for result in results if result.status != SUCCESS]
    decisive = next((result for result in unlike if result.status != WARNING), (unlike or results)[-1])
    return MoveResult(
        decisive.status,
        decisive.comment,
        *(
            _sum([getattr(result, count) for result in results])
            for count in ("remaining", "completed", "failed", "warning")
        ),
    )


def next_step(
    result: MoveResult,
    *,
    expected: Expected,
    complete: bool | None,
    arrived: int,
    level: Level,
    grew: bool,
    refused: int = 0,
    came: bool = False,
) -> Step:
    """The table above. `arrived`: instances that came since this attempt began, `refused`: those of them that aren't
    here because we refused them; `came`: whether any has come in this attempt or those before; `level`: the finest
    level that it asked for; `grew`: whether the PACS has counted more of the study than it listed."""
    status = result.status
    ended = status is None or status in (SUCCESS, WARNING)
    unable = status is not None and status >> 12 == 0xC
    out_of_resources = status in OUT_OF_RESOURCES or (
        status == DESTINATION_UNKNOWN and (came or arrived > 0 or result.total > 0)
    )
    if not (ended or unable or out_of_resources or status in IDENTIFIER_REFUSED):
        return Step.FAIL
    if complete and (expected.source == "image" or result.succeeded or grew):
        return Step.DONE if level == "STUDY" and result.succeeded and result.sent == expected.count else Step.PROVE
    if ended:
        return _by_arrivals(result, complete, arrived, refused, level)
    if out_of_resources:
        return Step.BACK_OFF
    if level == "STUDY":
        splits = came and complete is False and expected.source == "image"
        return Step.FAIL if not unable else Step.SPLIT if splits else Step.BACK_OFF
    return Step.SPLIT if unable else Step.COARSER


def after_quiet(result: MoveResult, *, complete: bool | None) -> Step:
    """What follows when nothing came for the quiet limit after WAIT."""
    return Step.PROVE if complete is None and result.succeeded and result.sent is None else Step.AGAIN


def is_coarser(fresh: Expected, expected: Expected) -> bool:
    """Whether the PACS tells less than it did before: that proves nothing about what it told then."""
    return _COARSE_TO_FINE.index(fresh.source) < _COARSE_TO_FINE.index(expected.source)


def comment_words(result: MoveResult, study: Study) -> str:
    """The PACS's Error Comment (PS3.7 C) in brackets, without the patient; empty where it made none."""
    comment = without_patient(result.comment, Patient(study.patient_id, study.patient_name, study.patient_birth_date))
    return f" ({comment})" if comment else ""


def failure(
    result: MoveResult, peer: str, receiver: Receiver, study: Study, arrived: int = 0
) -> PacsRefused | PacsBusy | None:
    """The error that a final status of `peer` stands for, where it had sent `arrived` images; None where what arrived
    says more."""
    if result.status is None or result.status in (SUCCESS, WARNING) or result.status >> 12 == 0xC:
        return None
    comment = comment_words(result, study)
    details = {"accession_number": study.accession_number, "status": f"{result.status:04X}"}
    if arrived and result.status in (DESTINATION_UNKNOWN, *OUT_OF_RESOURCES):
        of_how_many = f" of {study.expected.count}" if study.expected.count else ""
        return PacsBusy(
            f"{peer} sent {images_words(arrived)}{of_how_many} and then ended with status {result.status:04X}"
            f"{comment}. Try again in a few minutes; if it stays, look at the PACS's log.",
            **details,
        )
    if result.status == DESTINATION_UNKNOWN:
        return PacsRefused(
            f"{peer} doesn't know the destination {receiver.ae_title}. Have it added there, with this machine's "
            f"address and port {receiver.port}.",
            **details,
        )
    if result.status == 0xA702:
        return PacsBusy(
            f"{peer} can't send{comment}. Often it can't reach this machine: check the address and port "
            f"{receiver.port} that it has for "
            f"{receiver.ae_title}, and the firewall.",
            **details,
        )
    if result.status == 0xA701:
        return PacsBusy(f"{peer} is out of resources{comment}. Try again in a few minutes.", **details)
    return PacsRefused(
        f"{peer} ended the retrieval with status {result.status:04X}{comment}. Look at the PACS's log.", **details
    )


def _by_arrivals(result: MoveResult, complete: bool | None, arrived: int, refused: int, level: Level) -> Step:
    # A lost connection counts nothing. Below STUDY level a count may be of what was asked instead of what is sent: an
    # asynchronous Orthanc counts a list of instances as one. What is counted with a warning isn't under way: we answer
    # no C-STORE with one.
    countable = level == "STUDY" or bool(result.failed) or result.sent == 0
    if result.completed is None or result.completed > arrived + refused or not countable:
        return Step.WAIT
    return Step.DONE if complete is None and result.succeeded and (result.sent or 0) <= arrived else Step.AGAIN


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None

"""The seam to what holds the studies. Finding, retrieving, the proof and the gate use a source through it alone and
don't know its kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from mkiso.config.sources import AnySource
from mkiso.errors import MkisoError
from mkiso.sources.answers import Answers
from mkiso.sources.move_outcome import Level, MoveResult
from mkiso.sources.sink import Sink
from mkiso.study.models import Study

UIDS_IN_A_LIST = 500  # 65 bytes each, and a value of VR UI has at most 65,534 (PS3.5 7.1.2)


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `keys` by DICOM keyword: what is matched, and empty what is to be told (PS3.4 C.4.1.1.3.2)."""

    level: Level
    keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """What is retrieved at once: a study, some series of it, or some instances of one series."""

    study_instance_uid: str
    series: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()

    @property
    def level(self) -> Level:
        return "IMAGE" if self.instances else "SERIES" if self.series else "STUDY"


class Search(Protocol):
    """Asks one question."""

    def __call__(self, query: Query, most: int | None = None, /) -> Answers:
        """The answers say whether they were cut; with `most` no more are taken, and no further question follows. Raises
        PacsUnreachable, PacsRefused, PacsBusy, PacsSilent."""


class Retrieval(Protocol):
    """One study on its way into a sink, over several attempts."""

    @property
    def quiet_seconds(self) -> float:
        """How long an instance may still come after an attempt has ended; 0 where none does."""

    def retrieve(self, wanted: Sequence[Target]) -> Sequence[MoveResult]:
        """One attempt: what comes goes into the sink. How each of `wanted` ended, in order; status None where that
        isn't known, and nothing is told of those after it.

        Raises PacsUnreachable, PacsRefused, PacsBusy, PacsSilent, InstanceConflict, ReceiverUnavailable, StorageFull,
        JobStopped.
        """

    def take(self, timeout_seconds: float) -> bool:
        """Wait at most so long for an instance that comes after an attempt; whether one came into the sink."""

    def catch_up(self) -> None:
        """Have everything in the sink that has come by now."""


class Source(Protocol):
    """What studies are found in and retrieved from. One association, or whatever it uses, serves the questions of one
    `with`; what takes instances in stays open from the first attempt at a study to the last, since one may come after
    the attempt that asked for it.
    """

    @property
    def name(self) -> str:
        """Which it is, for people: at the beginning of a sentence."""

    @property
    def settings(self) -> AnySource:
        """What holds for each kind."""

    @property
    def hint(self) -> str:
        """What to look at where nothing came."""

    def searching(self) -> AbstractContextManager[Search]:
        """Begin to ask. Entering raises what a question raises."""

    def retrieving(self, sink: Sink) -> AbstractContextManager[Retrieval]:
        """Begin to retrieve the sink's study."""

    def failure(self, result: MoveResult, study: Study, arrived: int) -> MkisoError | None:
        """The error that the end of an attempt stands for, where `arrived` images of the study had come; None where
        what arrived says more."""

    def check(self, limit_seconds: float, *, inside: bool = False) -> str:
        """What is well, in words, within about so long; `inside`: addresses may stand in them. Raises PacsUnreachable,
        PacsRefused, PacsBusy, PacsSilent.
        """

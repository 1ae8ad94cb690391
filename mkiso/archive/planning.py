"""Which studies a night owes. Pure: what the PACS says and what the ledger has go in, the work comes out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from mkiso.archive.catalogue import FailedStudy
from mkiso.errors import (
    MkisoError,
    NotAskedEverywhere,
    OrchestratorUnavailable,
    PacsBusy,
    PacsRefused,
    PacsUnreachable,
    PublisherRefused,
    PublisherUnavailable,
    ReceiverUnavailable,
    StorageFull,
)
from mkiso.study.models import Study, as_day

HOPELESS = 3
"""So many studies in a row that fail for a reason which isn't theirs, and the others would only wait for the same."""


@dataclass(frozen=True, slots=True)
class StudyToArchive:
    """A study whose instances aren't all archived.

    `wanted` are the SOP Instance UIDs to archive, None where the PACS doesn't name them: then the whole study is
    retrieved, and what the ledger has is left out.
    """

    study: Study
    wanted: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A night's work, in the order of the PACS's answers; each study found stands in exactly one of the four."""

    to_archive: tuple[StudyToArchive, ...] = ()
    complete: tuple[Study, ...] = ()
    empty: tuple[Study, ...] = ()
    given_up: tuple[Study, ...] = ()

    @property
    def images(self) -> int | None:
        """How many images are to be archived; None where the PACS doesn't count those of each study."""
        counts = [work.study.expected.count if work.wanted is None else len(work.wanted) for work in self.to_archive]
        return None if None in counts else sum(count or 0 for count in counts)


def to_try_again(
    failed: Iterable[FailedStudy], max_attempts: int, *, by_hand: Collection[date] | None
) -> dict[str, Study]:
    """The studies that failed and are tried again, by StudyInstanceUID. `by_hand`: the days that a person asks for, of
    which what was given up is tried too, and what has no date; None where the schedule asks.
    """
    again = (each for each in failed if each.attempts < max_attempts or _is_asked_for(each, by_hand))
    return {
        each.study_instance_uid: Study(each.accession_number, each.study_instance_uid, "", study_date=each.study_date)
        for each in again
    }


def _is_asked_for(failed: FailedStudy, by_hand: Collection[date] | None) -> bool:
    return by_hand is not None and ((day := as_day(failed.study_date)) is None or day in by_hand)


def patient_by_patient(studies: Iterable[Study]) -> list[Study]:
    """A patient's studies one after another, so that they wait for a volume together."""
    return sorted(studies, key=lambda study: (study.patient_id, study.study_date, study.study_instance_uid))


def plan(
    studies: Iterable[Study], archived: Mapping[str, frozenset[str]], attempts: Mapping[str, int], max_attempts: int
) -> Plan:
    """Sort studies by what they need. Each one carries what the PACS expects it to hold; one that is answered twice is
    taken once.

    `archived` maps a StudyInstanceUID to the SOP Instance UIDs on volumes, `attempts` to how often it failed since it
    was last archived.
    """
    to_archive, complete, empty, given_up = [], [], [], []
    for study in {study.study_instance_uid: study for study in studies}.values():
        on_volumes = archived.get(study.study_instance_uid, frozenset())
        if study.expected.count == 0:
            empty.append(study)
        elif is_complete(study, on_volumes):
            complete.append(study)
        elif attempts.get(study.study_instance_uid, 0) >= max_attempts:
            given_up.append(study)
        else:
            named = study.expected.instances
            to_archive.append(StudyToArchive(study, None if named is None else named - on_volumes))
    return Plan(tuple(to_archive), tuple(complete), tuple(empty), tuple(given_up))


def is_complete(study: Study, on_volumes: frozenset[str]) -> bool:
    """Whether every instance that the PACS has of a study lies on a volume; by number where it names none, and then
    what another source names, too.

    Where it tells not even a number, growth can't be seen: what was archived once counts as complete.
    """
    if study.expected.instances is not None:
        return study.expected.instances <= on_volumes
    enough = max(1, study.expected.count or 0)
    return len(on_volumes) >= enough and on_volumes.issuperset(study.listed_elsewhere)


def needs_a_look(study: Study, on_volumes: int, compared: Collection[date]) -> bool:
    """Whether to ask the PACS for the instances of a study that C-FIND at STUDY level found.

    Always where its date is one of those that are `compared` tonight, or none. For the other dates, which are looked
    through again, NumberOfStudyRelatedInstances (PS3.4 C.6.2.1.2) decides: a few questions for each of a month's
    studies, every night, would take longer than the archive.
    """
    day = study.day
    return day is None or day in compared or study.expected.count is None or study.expected.count != on_volumes


def says_something_of_the_study(error: MkisoError) -> bool:
    """Whether a failure counts against archive.max_attempts: one that would have met every study says nothing of this
    one.
    """
    elsewhere = (
        PacsUnreachable
        | NotAskedEverywhere
        | PacsBusy
        | PacsRefused
        | ReceiverUnavailable
        | StorageFull
        | PublisherUnavailable
        | PublisherRefused
    )
    return not isinstance(error, elsewhere | OrchestratorUnavailable)


def is_hopeless(failed_in_a_row: Sequence[MkisoError]) -> bool:
    """Whether a night had better end: the last studies all failed, and none for a reason of its own (no PACS)."""
    return len(failed_in_a_row) >= HOPELESS and not any(map(says_something_of_the_study, failed_in_a_row[-HOPELESS:]))

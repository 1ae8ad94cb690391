"""Which source a study is taken from: the first in order that holds it wholly; those come first whose rules are for it
(docs/decisions/several-sources.md).

Nothing is mixed: a study is one source's, and what the others tell of it only decides whether that may be. All here is
pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from mkiso.config.disc import Identity
from mkiso.errors import CountsUnknown, PatientApiUnavailable, StudyIncomplete
from mkiso.study import gate
from mkiso.study.completeness import provable
from mkiso.study.identity import one_study, significant
from mkiso.study.models import Patient, Study, listed_words
from mkiso.study.selection import EVERYTHING, Selection
from mkiso.study.values import Found

SOURCES_DIFFER = "sources_differ"
"""What a disc may be made without beside SOURCE_DOWN, followed by a colon and the source's name."""
MAX_NAMED = 3
"""So many instances that a source lacks are named."""
_COMPARED = ("patient_name", "patient_birth_date", "patient_sex", "accession_number", "study_date", "study_description")


@dataclass(frozen=True, slots=True)
class FoundStudies:
    """The studies of one question, each from one source; `degraded` names which sources weren't heard or tell
    otherwise, `reasons` says why they weren't heard. `beside`: what else has the accession numbers of studies that
    were asked for by UID; nothing is expected of these.
    """

    studies: tuple[Study, ...]
    degraded: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    beside: tuple[Study, ...] = ()


def found_together(
    accession_numbers: tuple[str, ...],
    answers: Sequence[FoundStudies],
    looked_up: Sequence[Patient | PatientApiUnavailable | None],
    rules: Identity,
    selection: Selection = EVERYTHING,
    without: Sequence[str] = (),
) -> Found:
    """What all questions of a job were answered, and what the patient API said to each number, as one: `without` is
    what the job does without from the beginning. A study that two questions found in two sources is taken from the one
    that holds it wholly. Raises what mkiso.study.gate.found and `chosen` raise.
    """
    patients = [answer for answer in looked_up if not isinstance(answer, PatientApiUnavailable)]
    together = chosen(studies_of(answers), selection=selection)
    return gate.found(
        accession_numbers,
        together.studies,
        patients,
        rules,
        degraded=len(patients) < len(looked_up),
        without=(*without, *(lack for each in (*answers, together) for lack in each.degraded)),
        selection=selection,
        beside=[study for each in answers for study in each.beside],
        named=studies_of(answers),
    )


def studies_of(answers: Iterable[FoundStudies]) -> list[Study]:
    """All of them, in order."""
    return [study for each in answers for study in each.studies]


def chosen(
    studies: Iterable[Study],
    degraded: Sequence[str] = (),
    selection: Selection = EVERYTHING,
    is_for: Callable[[Study], bool] = lambda study: True,
) -> FoundStudies:
    """Each study once, from the source that it is taken from; `studies` are in the order of the sources, each with what
    is expected of it. Before the others come those that `is_for` is true of: it decides between copies that are whole,
    and leaves none out. Of a study that isn't chosen nothing is expected. Raises PatientMismatch, StudyIncomplete,
    CountsUnknown.
    """
    by_uid: dict[str, dict[str, list[Study]]] = {}
    for study in studies:
        by_uid.setdefault(study.study_instance_uid, {}).setdefault(study.origin.source, []).append(study)
    taken: list[Study] = []
    lacks = list(degraded)
    for uid, copies in by_uid.items():
        one_study(list(chain.from_iterable(copies.values())))
        each_first = sorted(map(_as_one, copies.values()), key=is_for, reverse=True)
        if selection.studies and uid not in selection.studies:
            taken += copies[each_first[0].origin.source]
            continue
        candidates = _with_chosen(each_first)
        first, known = _whole(candidates), _listed(candidates)
        # What one source says twice is for the gate to judge.
        taken += [
            replace(copy, listed_elsewhere=tuple(sorted(known.difference(copy.expected.instances or ()))))
            for copy in copies[first.origin.source]
        ]
        lacks += [
            f"{SOURCES_DIFFER}:{name}"
            for name, each in copies.items()
            if name != first.origin.source and any(differs(copy, first) for copy in each)
        ]
    return FoundStudies(tuple(taken), tuple(dict.fromkeys(lacks)))


def differs(copy: Study, other: Study) -> bool:
    """Whether two sources contradict each other in what they tell of one study; what one keeps to itself is no
    contradiction.
    """
    pairs: list[tuple[object, object]] = [
        (significant(getattr(copy, name)).rstrip("^"), significant(getattr(other, name)).rstrip("^"))
        for name in _COMPARED
    ]
    pairs.append((set(copy.modalities_in_study), set(other.modalities_in_study)))
    told = any(one and another and one != another for one, another in pairs)
    lists = copy.expected.instances, other.expected.instances
    listed = None not in lists and lists[0] != lists[1]
    return told or listed or None in (counts := (copy.expected.count, other.expected.count)) or counts[0] != counts[1]


def _with_chosen(copies: Sequence[Study]) -> list[Study]:
    """Those that have any of the chosen series, the most first; a source that has none would mean its whole study. One
    that has fewer of them counts too: it may have more images of these. Raises CountsUnknown for one that tells no
    series: it may, too.
    """
    most_first = sorted(copies, key=lambda copy: len(copy.chosen), reverse=True)
    if not most_first[0].chosen:
        return most_first
    for copy in most_first:
        if not copy.chosen and copy.expected.source in ("study", "none"):
            raise CountsUnknown(
                f"{copy.origin.source} has {copy.called} too and tells none of its series, so it may have more images "
                "of the chosen ones. Have SERIES level queries enabled there, or ask for the whole study.",
                accession_number=copy.accession_number,
            )
    return [copy for copy in most_first if copy.chosen]


def _whole(copies: Sequence[Study]) -> Study:
    """The first that holds all that any of them holds. Raises StudyIncomplete, CountsUnknown."""
    for copy in copies if len(copies) > 1 else ():
        if copy.expected.count is None:  # it may hold more than another, and nobody can say
            provable(copy, require_counts=copy.origin.require_counts)
    listed = _listed(copies)
    counted = [(copy.expected.count, copy) for copy in copies if copy.expected.count is not None]
    most = max([len(listed), *(count for count, _ in counted)])
    for count, copy in counted:
        instances = copy.expected.instances
        if count >= most and (instances is None or instances >= listed):
            return copy
    if not counted:
        return copies[0]
    number = copies[0].accession_number
    had = ", ".join(f"{copy.origin.source} {copy.expected.count}" for copy in copies)
    raise StudyIncomplete(
        f"No source holds all images of {copies[0].called} ({had}, together {len(listed)}), and images of two sources "
        f"aren't mixed, so no disc was made. {''.join(_lacking(copies, listed))}Have the missing ones sent to one of "
        "them.",
        accession_number=number,
        expected=len(listed),
    )


def _as_one(copies: Sequence[Study]) -> Study:
    """Of what one source tells of a study, the first, with all that others were found to list beside any of it."""
    elsewhere = frozenset(chain.from_iterable(copy.listed_elsewhere for copy in copies))
    return replace(copies[0], listed_elsewhere=tuple(elsewhere))


def _listed(copies: Iterable[Study]) -> frozenset[str]:
    """What any of them lists, or was found to be listed elsewhere."""
    return frozenset[str]().union(*((*(copy.expected.instances or ()), *copy.listed_elsewhere) for copy in copies))


def _lacking(copies: Iterable[Study], listed: frozenset[str]) -> Iterator[str]:
    """What each source that lists its instances lacks of those that any of them lists, in words."""
    for copy in copies:
        if copy.expected.instances is not None and (lacks := sorted(listed - copy.expected.instances)):
            yield f"{copy.origin.source} lacks {listed_words(lacks, MAX_NAMED)}. "

"""Several sources: a question is asked of all at once, and a study is taken from the first in order that holds it
wholly; those come first whose rules are for it (docs/decisions/several-sources.md).

Nothing is mixed: a study is one source's, and what the others tell of it only decides whether that may be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import chain
from typing import Generic, TypeVar

from mkiso.config.disc import Identity
from mkiso.errors import (
    CountsUnknown,
    MkisoError,
    NotAskedEverywhere,
    PacsBusy,
    PatientApiUnavailable,
    RetriableError,
    StudyIncomplete,
    StudyNotFound,
)
from mkiso.sources.protocol import Source
from mkiso.sources.query import HAS_IT, find_by_uid, find_studies, named_studies, unknown_uid
from mkiso.sources.search import MAX_STUDIES, Criteria, Hits, newest_first, search
from mkiso.study import gate
from mkiso.study.completeness import provable
from mkiso.study.gate import SOURCE_DOWN
from mkiso.study.identity import one_study, significant
from mkiso.study.models import Patient, Study
from mkiso.study.selection import EVERYTHING, Selection, numbers_of
from mkiso.study.values import Found

T = TypeVar("T")

SOURCES_DIFFER = "sources_differ"
"""What a disc may be made without beside SOURCE_DOWN, followed by a colon and the source's name."""
MAX_NAMED = 3
"""So many instances that a source lacks are named."""
BUSY_PAUSES_SECONDS = (1.0, 3.0)
_COMPARED = ("patient_name", "patient_birth_date", "patient_sex", "accession_number", "study_date", "study_description")


@dataclass(frozen=True, slots=True)
class Told(Generic[T]):
    """What each source answered, by its name, and which can't be asked now, and why."""

    answers: Mapping[str, T]
    down: Mapping[str, RetriableError] = field(default_factory=dict)

    @property
    def degraded(self) -> tuple[str, ...]:
        return tuple(f"{SOURCE_DOWN}:{name}" for name in self.down)


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


def rules_of(sources: Iterable[Source], today: date) -> Callable[[Study], bool]:
    """Whether the rules of the source that a study is from are for this study."""
    rules = {source.settings.name: source.settings for source in sources}
    return lambda study: rules[study.origin.source].is_for(study.modalities_in_study, study.day, today)


def ask_all(sources: Sequence[Source], ask: Callable[[Source], T]) -> Told[T]:
    """Ask all sources at once. One that can't be asked now is told, unless it is the only one, must answer, has named a
    study and doesn't list it, or none answers; what else goes wrong is raised: a source that answers and can't be
    understood may hold what is asked for. One that has no time is asked again, since it will soon have some.
    """
    if len(sources) == 1:
        return Told({sources[0].settings.name: ask(sources[0])})
    answers: dict[str, T] = {}
    down: dict[str, RetriableError] = {}
    failed: list[MkisoError] = []
    with ThreadPoolExecutor(len(sources), "source") as threads:
        for source, asked in [(source, threads.submit(_patiently, ask, source)) for source in sources]:
            try:
                answers[source.settings.name] = asked.result()
            except RetriableError as error:
                down[source.settings.name] = error
                failed += [error] if source.settings.must_answer or HAS_IT in error.details else []
            except MkisoError as error:
                failed.append(error)
    if failed:
        raise failed[0]
    if not answers:
        raise NotAskedEverywhere(f"No source can be asked now. {' '.join(_reasons(down))}", not_asked=list(down))
    return Told(answers, down)


def _patiently(ask: Callable[[Source], T], source: Source) -> T:
    for pause in BUSY_PAUSES_SECONDS:
        try:
            return ask(source)
        except PacsBusy:
            time.sleep(pause)
    return ask(source)


def find_everywhere(
    sources: Sequence[Source], accession_number: str, selection: Selection = EVERYTHING
) -> FoundStudies:
    """Every study of an accession number, from the first source that holds wholly what is chosen of it.

    Raises StudyNotFound, NotAskedEverywhere, PatientMismatch, StudyIncomplete (no source holds a study wholly),
    CountsUnknown, and what a source raises that mustn't be left out.
    """
    asked = [source for source in sources if source.settings.is_asked_for(accession_number)]
    if not asked:
        raise StudyNotFound(
            f"No source is asked for the accession number {accession_number}. Check the number, and "
            "accession_numbers of the sources.",
            accession_number=accession_number,
        )
    if len(sources) == 1:
        return FoundStudies(tuple(find_studies(sources[0], accession_number, selection)))
    told = ask_all(asked, lambda source: _known(find_studies, source, accession_number, selection))
    studies = list(chain.from_iterable(told.answers.values()))
    if not studies:
        raise _nowhere(accession_number, told, [source.settings.name for source in sources if source not in asked])
    others = _under_other_numbers(asked, told.answers, studies, selection)
    told = replace(told, down={**told.down, **others.down})
    copies = [replace(copy, accession_number=accession_number) for copy in chain.from_iterable(others.answers.values())]
    return _first_of(sources, [*studies, *copies], told, selection)


def _under_other_numbers(
    asked: Sequence[Source], answers: Mapping[str, list[Study]], named: Iterable[Study], selection: Selection
) -> Told[list[Study]]:
    """The same studies in sources that answered and have them under another number: one may hold more of them. Raises
    what ask_all raises but for a source that can't be asked now, which is told.
    """
    uids = dict.fromkeys(study.study_instance_uid for study in named)
    lacking = {
        name: [uid for uid in uids if uid not in {study.study_instance_uid for study in studies}]
        for name, studies in answers.items()
    }

    def look(source: Source) -> list[Study]:
        found = [_known(find_by_uid, source, uid, selection) for uid in lacking[source.settings.name]]
        return list(chain.from_iterable(found))

    def ask(source: Source) -> list[Study] | RetriableError:
        try:
            return _patiently(look, source)
        except RetriableError as error:
            if source.settings.must_answer or HAS_IT in error.details:
                raise
            return error

    again = [source for source in asked if lacking.get(source.settings.name)]
    told = ask_all(again, ask).answers if again else {}
    return Told(
        {name: answer for name, answer in told.items() if not isinstance(answer, RetriableError)},
        {name: answer for name, answer in told.items() if isinstance(answer, RetriableError)},
    )


def find_everywhere_by_uid(
    sources: Sequence[Source], study_instance_uid: str, selection: Selection = EVERYTHING
) -> FoundStudies:
    """What there is under a Study Instance UID, from the first source that holds wholly what is chosen of it; more than
    one where patients share it. Where no source knows it: none, or StudyNotFound where it is chosen. Raises what
    find_everywhere raises besides.
    """
    told = ask_all(sources, lambda source: _known(find_by_uid, source, study_instance_uid, selection))
    studies = list(chain.from_iterable(told.answers.values()))
    if not studies and told.down:
        raise NotAskedEverywhere(f"No source that answers has the study. {' '.join(_reasons(told.down))}")
    if not studies and selection:
        raise unknown_uid(study_instance_uid)
    return _first_of(sources, studies, told, selection)


def _first_of(
    sources: Sequence[Source], studies: Iterable[Study], told: Told[list[Study]], selection: Selection
) -> FoundStudies:
    found = chosen(studies, told.degraded, selection, rules_of(sources, date.today()))
    return replace(found, reasons=tuple(_reasons(told.down)))


def find_beside(
    sources: Sequence[Source], found: Iterable[FoundStudies], on_asking: Callable[[str], None]
) -> FoundStudies:
    """What the accession numbers of studies that were found by UID have beside them, so that a disc that carries a
    number can say that it isn't all of it. A number is asked for where its study is from, and wherever it may be.
    `on_asking` hears each number. Raises what find_everywhere raises, but for StudyNotFound.
    """
    studies = studies_of(found)
    answers = []
    for number in numbers_of(studies):
        on_asking(number)
        origins = {study.origin.source for study in studies if study.accession_number == number}
        answers.append(_beside(sources, number, origins, Selection(tuple(each.study_instance_uid for each in studies))))
    return FoundStudies(
        (),
        tuple(dict.fromkeys(lack for each in answers for lack in each.degraded)),
        tuple(dict.fromkeys(words for each in answers for words in each.reasons)),
        tuple(studies_of(answers)),
    )


def _beside(sources: Sequence[Source], number: str, origins: Collection[str], known: Selection) -> FoundStudies:
    asked = [source for source in sources if source.settings.name in origins or source.settings.is_asked_for(number)]
    told = ask_all(asked, lambda source: named_studies(source, number))
    others = [
        study for study in chain.from_iterable(told.answers.values()) if study.study_instance_uid not in known.studies
    ]
    return _first_of(sources, others, told, known)


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
    that holds it wholly. Raises what mkiso.study.gate.found and `chosen` raise. Pure.
    """
    patients = [answer for answer in looked_up if not isinstance(answer, PatientApiUnavailable)]
    together = FoundStudies(tuple(studies_of(answers)))
    if len({study.origin.source for study in together.studies}) > 1:
        together = chosen(together.studies, selection=selection)
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
    CountsUnknown. Pure.
    """
    by_uid: dict[str, dict[str, list[Study]]] = {}
    for study in studies:
        by_uid.setdefault(study.study_instance_uid, {}).setdefault(study.origin.source, []).append(study)
    taken: list[Study] = []
    lacks = list(degraded)
    for uid, copies in by_uid.items():
        one_study(list(chain.from_iterable(copies.values())))
        each_first = sorted((each[0] for each in copies.values()), key=is_for, reverse=True)
        if selection.studies and uid not in selection.studies:
            taken += copies[each_first[0].origin.source]
            continue
        first = _whole(_with_chosen(each_first))
        taken += copies[first.origin.source]  # what one source says twice is for the gate to judge
        lacks += [
            f"{SOURCES_DIFFER}:{name}"
            for name, each in copies.items()
            if name != first.origin.source and any(differs(copy, first) for copy in each)
        ]
    return FoundStudies(tuple(taken), tuple(dict.fromkeys(lacks)))


def differs(copy: Study, other: Study) -> bool:
    """Whether two sources contradict each other in what they tell of one study; what one keeps to itself is no
    contradiction. Pure.
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


def search_everywhere(
    sources: Sequence[Source], criteria: Criteria, most: int = MAX_STUDIES
) -> tuple[Hits, Mapping[str, RetriableError]]:
    """At most `most` studies of all sources, the newest first, a study of two sources twice; and which sources can't be
    asked. Raises what `ask_all` raises.
    """
    number = criteria.accession_number.strip()
    asked = [source for source in sources if not number or source.settings.is_asked_for(number)]
    if not asked:
        return Hits("", (), cut=False), {}
    told = ask_all(asked, lambda source: search(source, criteria, most))
    answers = list(told.answers.values())
    studies = newest_first(chain.from_iterable(hits.studies for hits in answers))
    name = answers[0].source if len(sources) == 1 else ""
    return Hits(name, studies[:most], any(hits.cut for hits in answers) or len(studies) > most), told.down


def _known(
    find: Callable[[Source, str, Selection], list[Study]], source: Source, asked: str, selection: Selection
) -> list[Study]:
    try:
        return find(source, asked, selection)
    except StudyNotFound:
        return []


def _nowhere(
    accession_number: str, told: Told[list[Study]], left_out: Sequence[str]
) -> StudyNotFound | NotAskedEverywhere:
    answered = ", ".join(told.answers)
    by_rule = f"; not asked, because of its accession_numbers: {', '.join(left_out)}" if left_out else ""
    if not told.down:
        return StudyNotFound(
            f"No source knows a study of accession number {accession_number} (asked: {answered}{by_rule}). Check the "
            "number, and whether the examination was sent.",
            accession_number=accession_number,
        )
    return NotAskedEverywhere(
        f"No study of accession number {accession_number} is in {answered}{by_rule}, and not every source could be "
        f"asked, so it may be there. Ask again when it answers. {' '.join(_reasons(told.down))}",
        accession_number=accession_number,
        not_asked=list(told.down),
    )


def _reasons(down: Mapping[str, MkisoError]) -> Iterator[str]:
    return (f"{name}: {error.words}" for name, error in down.items())


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
    listed = frozenset[str]().union(*(copy.expected.instances or () for copy in copies))
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


def _lacking(copies: Iterable[Study], listed: frozenset[str]) -> Iterator[str]:
    """What each source that lists its instances lacks of those that any of them lists, in words."""
    for copy in copies:
        if copy.expected.instances is not None and (lacks := sorted(listed - copy.expected.instances)):
            more = f" and {len(lacks) - MAX_NAMED} more" if len(lacks) > MAX_NAMED else ""
            yield f"{copy.origin.source} lacks {', '.join(lacks[:MAX_NAMED])}{more}. "

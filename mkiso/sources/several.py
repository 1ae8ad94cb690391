"""Several sources: a question is asked of all at once, and who doesn't answer is told or ends it
(docs/decisions/several-sources.md). Which answer counts mkiso.sources.choosing decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import chain
from typing import Generic, TypeVar

from mkiso.errors import MkisoError, NotAskedEverywhere, PacsBusy, RetriableError, StudyNotFound
from mkiso.sources.choosing import FoundStudies, chosen, studies_of
from mkiso.sources.protocol import Source
from mkiso.sources.query import HAS_IT, find_by_uid, find_studies, named_studies, unknown_uid
from mkiso.sources.search import MAX_STUDIES, Criteria, Hits, newest_first, search
from mkiso.study.gate import SOURCE_DOWN
from mkiso.study.models import Study
from mkiso.study.selection import EVERYTHING, Selection, numbers_of

T = TypeVar("T")

BUSY_PAUSES_SECONDS = (1.0, 3.0)


@dataclass(frozen=True, slots=True)
class Told(Generic[T]):
    """What each source answered, by its name, and which can't be asked now, and why."""

    answers: Mapping[str, T]
    down: Mapping[str, RetriableError] = field(default_factory=dict)

    @property
    def degraded(self) -> tuple[str, ...]:
        return tuple(f"{SOURCE_DOWN}:{name}" for name in self.down)


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

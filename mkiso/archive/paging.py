"""C-FIND in pages: where a PACS cuts a long answer, the same question for shorter times, until no answer is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from mkiso.errors import AnswerCut
from mkiso.study.models import Study

SUCCESS = 0x0000
ROUND_NUMBER = 100
"""Limits are round numbers: where a PACS's isn't known, an answer of 100, 200, … studies is asked for once more in
parts.
"""

_Key = tuple[str, str, str, str, str]

REST = {2: "5959.999999", 4: "59.999999", 6: ".999999"}
"""What the last moment of an hour, a minute, a second has after it (VR TM, PS3.5 6.2)."""


@dataclass(frozen=True, slots=True)
class Page:
    """A span of time to ask a PACS for: whole days, both included, or an hour, minute or second of one day.

    `time` is what the TM values of the span begin with (`08`: that hour), `time_from` where it begins. StudyTime stays
    out of the question for whole days, since a study without one matches no range. StudyDate and StudyTime are matched
    apart (PS3.4 C.2.2.2.5): times need one day.
    """

    date_from: date
    date_to: date
    time: str = ""
    time_from: str = ""

    @property
    def study_date(self) -> str:
        """The key StudyDate."""
        first, last = f"{self.date_from:%Y%m%d}", f"{self.date_to:%Y%m%d}"
        return first if first == last else f"{first}-{last}"

    @property
    def study_time(self) -> str:
        """The key StudyTime; empty where any time is meant."""
        return f"{self.time_from}-{self.time}{REST[len(self.time)]}" if self.time else ""

    def days(self) -> tuple[date, ...]:
        return tuple(
            self.date_from + timedelta(days=number) for number in range((self.date_to - self.date_from).days + 1)
        )

    def parts(self) -> tuple[Page, ...]:
        """The same span in shorter ones: days, hours, minutes, seconds; none of a second.

        No time falls between two parts, whether a PACS compares numbers or text: the first begins where the whole does
        (`08`, which as text is before `0800`), and each other as short as it can.
        """
        if self.date_from < self.date_to:
            return tuple(Page(day, day) for day in self.days())
        if len(self.time) == 6:
            return ()
        times = [f"{self.time}{number:02d}" for number in range(60 if self.time else 24)]
        begins = [self.time_from or times[0], *times[1:]]
        return tuple(Page(self.date_from, self.date_to, time, begin) for time, begin in zip(times, begins, strict=True))


@dataclass(frozen=True, slots=True)
class Answer:
    """What the PACS answered to one question. `sent` counts each answer as it came, also one that came twice or is
    `unusable`."""

    studies: Sequence[Study]
    sent: int
    status: int = SUCCESS
    unusable: Sequence[Study] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Every study found, once each, and the days of which more may be there than can be asked for (words in `AnswerCut`
    fit them).

    `unusable` are those that can't be archived as they are: their UID is none, or several patients have it.
    """

    studies: tuple[Study, ...]
    doubtful: tuple[date, ...]
    unusable: tuple[Study, ...] = ()


def was_cut(answer: Answer, limit: int) -> bool:
    """Whether the PACS left something out: a status other than success, or as many answers as it gives at most
    (`limit`, 0 where unknown).
    """
    return answer.status != SUCCESS or (limit > 0 and answer.sent >= limit)


def is_suspicious(answer: Answer) -> bool:
    """Whether an answer may have been cut at a limit that nobody has told us."""
    return answer.sent > 0 and answer.sent % ROUND_NUMBER == 0


def find_all(spans: Iterable[Page], ask: Callable[[Page], Answer], limit: int = 0) -> Found:
    """Ask for spans of time, in parts where an answer was cut or may have been.

    Nothing that was answered is left out. A study in a cut answer that none of its parts brings (it has no StudyTime,
    or one that is no time) is kept, and its day is doubtful, because others may have been cut off. A suspicion is
    dropped where the parts show nothing that the whole didn't. Raises AnswerCut where the answer for a second is cut.
    """
    doubtful: set[date] = set()
    usable: dict[_Key, Study] = {}
    unusable: dict[_Key, Study] = {}

    def collect(page: Page) -> set[_Key]:
        answer = ask(page)
        usable.update((_key(study), study) for study in answer.studies)
        unusable.update((_key(study), study) for study in answer.unusable)
        whole = {_key(study) for study in (*answer.studies, *answer.unusable)}
        cut, parts = was_cut(answer, limit), page.parts()
        if cut and not parts:
            raise _cut(page, answer)
        if not parts or not (cut or (not limit and is_suspicious(answer))):
            return whole
        found: set[_Key] = set().union(*map(collect, parts))
        if whole - found and (cut or found - whole):
            doubtful.update(page.days())
        return whole | found

    for span in spans:
        collect(span)
    studies, shared = once_each(usable.values())
    return Found(studies, tuple(sorted(doubtful)), (*unusable.values(), *shared))


def once_each(answers: Iterable[Study]) -> tuple[tuple[Study, ...], tuple[Study, ...]]:
    """Studies by UID, once each, and apart from them those whose UID several patients have."""
    answers = tuple(answers)
    shared = _of_several_patients(answers)
    # Of one study that was described twice, the description that names the issuer of its Patient ID.
    studies = {
        study.study_instance_uid: study for study in sorted(answers, key=lambda study: study.issuer_of_patient_id != "")
    }
    usable, unusable = (
        tuple(study for uid, study in studies.items() if (uid in shared) is is_shared) for is_shared in (False, True)
    )
    return usable, unusable


def _key(study: Study) -> _Key:
    patient = study.patient_id, study.issuer_of_patient_id
    return study.study_instance_uid, *patient, study.accession_number, study.study_date


def _of_several_patients(studies: Iterable[Study]) -> set[str]:
    """The UIDs that more than one patient has: what a C-MOVE of them brings is nobody's."""
    patients: dict[str, tuple[set[str], set[str]]] = {}
    for study in studies:
        ids, issuers = patients.setdefault(study.study_instance_uid, (set(), set()))
        ids.add(study.patient_id)
        issuers.update({study.issuer_of_patient_id} - {""})
    return {uid for uid, (ids, issuers) in patients.items() if len(ids) > 1 or len(issuers) > 1}


def _cut(page: Page, answer: Answer) -> AnswerCut:
    return AnswerCut(
        f"The PACS cuts its answer of {answer.sent} studies for {page.study_date} {page.study_time} "
        f"(status {answer.status:04X}): raise the number of answers that it allows to a query.",
        status=answer.status,
    )

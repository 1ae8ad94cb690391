"""Studies of the PACS that no night will look at, and of which nothing is archived. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date

from mkiso.archive.night_outcome import NAMED, listed
from mkiso.archive.paging import Answer, is_suspicious, was_cut
from mkiso.archive.schedule import Searched
from mkiso.study.models import Study, count_words


@dataclass(frozen=True, slots=True)
class Outside:
    """What lies outside of every range: studies without a date that is one, dated after today, of a day that the
    recheck has passed, without a usable UID, and how many from before the archive's first day.
    """

    undated: tuple[Study, ...] = ()
    ahead: tuple[Study, ...] = ()
    late: tuple[Study, ...] = ()
    unusable: tuple[Study, ...] = ()
    before: int = 0


def outside(answer: Answer, known: Collection[str], searched: Searched, recheck_days: int, today: date) -> Outside:
    """Sort what the PACS answered to a question without a date. `known`: the StudyInstanceUIDs that a night looks for
    by themselves, or of which something is archived.
    """
    studies = [study for study in answer.studies if study.study_instance_uid not in known]
    dated = [(study, day) for study in studies if (day := study.day) is not None]
    first = min(searched, default=None)
    passed = {day for day, when in searched.items() if when is not None and (when - day).days > recheck_days}
    return Outside(
        tuple(study for study in studies if study.day is None),
        tuple(study for study, day in dated if day > today),
        tuple(study for study, day in dated if day in passed),
        tuple(answer.unusable),
        sum(first is not None and day < first for _, day in dated),
    )


def lines(found: Outside, answer: Answer, limit: int) -> Iterator[str]:
    """In words, with what to do. Says so where the PACS may hold more than it told."""
    if was_cut(answer, limit) or (not limit and is_suspicious(answer)):
        yield (
            f"The PACS may hold more than the {answer.sent} studies that it told without a date (status "
            f"{answer.status:04X}): what else lies outside of every night can't be told."
        )
    kinds = (
        (found.undated, "without a Study Date that is one: no night asks for it. Have its date corrected in the PACS"),
        (found.ahead, "dated after today: no night asks for it before. Have its date corrected in the PACS"),
        (found.late, "came after its day was looked through for the last time: `mkiso archive --from` its date"),
        (found.unusable, "without a Study Instance UID that is one: have it corrected in the PACS"),
    )
    for studies, words in kinds:
        for study in studies[:NAMED]:
            name = study.accession_number or study.study_instance_uid or "(without accession number)"
            yield f"OUTSIDE  {name}  {study.study_date or '(no date)'}  {words}."
        if len(studies) > NAMED:
            yield f"OUTSIDE  and {count_words(len(studies) - NAMED, 'more study', 'more studies')} {words}."
    if found.before:
        yield (
            "Studies in the PACS that are dated before the archive's first day, and of which nothing is archived: "
            f"{found.before}. A wrong year may be among them; `mkiso archive --from D --to D` archives what is wanted."
        )


def owed_line(days: Iterable[date]) -> str:
    """The days that no night has searched wholly yet; empty where there is none."""
    owed = [day.isoformat() for day in days]
    return f"OWED  {listed(owed)}: the next night searches these days." if owed else ""

"""What a night came to, in the words that an operator reads in Prefect. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from mkiso.study.identity import iso_date
from mkiso.study.models import Study, count_words, images_words, listed_words, studies_words

NAMED = 50
"""How many accession numbers a message names; `mkiso archive report` has them all."""

SAID = 10
"""Of how many volumes it says what they wait for."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A night's numbers. Studies are named by accession number, or by UID where they have none; `volumes` are labels.

    `elsewhere`: another run works on so many. `undelivered` says in words what the publisher or the store didn't take,
    `owed` what no run can mend, `stopped` why the night ended before its end, `doubtful` are the days of which the PACS
    may hold more than it told, `not_asked` the sources that couldn't be asked and why, `unusable` the studies that the
    PACS describes so that they can't be archived, `searched_ahead` a day that hasn't come yet and at which the ledger
    was searched, `days_left` how many owed days are left to the next nights, `given_up` the studies that are no
    longer tried and that nobody has settled. `by_hand`: a person started this run; later nights don't repeat it.
    """

    found: int = 0
    archived: int = 0
    images: int = 0
    volumes: Sequence[str] = ()
    elsewhere: int = 0
    failed: Sequence[str] = ()
    given_up: Sequence[str] = ()
    undelivered: Sequence[str] = ()
    owed: Sequence[str] = ()
    doubtful: Sequence[date] = ()
    not_asked: Sequence[str] = ()
    unusable: Sequence[str] = ()
    searched_ahead: date | None = None
    days_left: int = 0
    stopped: str = ""
    by_hand: bool = False

    @property
    def is_good(self) -> bool:
        """Whether nobody needs to look."""
        wrong = (
            self.failed,
            self.given_up,
            self.undelivered,
            self.owed,
            self.doubtful,
            self.not_asked,
            self.unusable,
            self.searched_ahead,
            self.stopped,
        )
        return not any(wrong)


def words(outcome: Outcome) -> str:
    """The message of the run's final state: what is wrong first, and what to do about it."""
    said = [outcome.stopped] if outcome.stopped else []
    if outcome.failed:
        said.append(
            f"NOT ARCHIVED: {len(outcome.failed)} of {studies_words(outcome.found)}: {listed(outcome.failed)}. "
            "The table of this run has the reasons; the next night tries them again."
        )
    if outcome.unusable:
        said.append(
            f"NOT ARCHIVED, because the PACS gives {studies_words(len(outcome.unusable))} no Study Instance UID that "
            f"is one, or the same to several patients: {listed(outcome.unusable)}. Have it corrected."
        )
    if outcome.given_up:
        said.append(
            f"NOT ARCHIVED, and tried no more after archive.max_attempts: {listed(outcome.given_up)}. `mkiso archive "
            "report` says why. Have it mended and run the archive by hand for its date, or give it up: `mkiso archive "
            f"settle {outcome.given_up[0]} --forget`."
        )
    said += outcome.undelivered
    said += outcome.owed[:SAID]
    if len(outcome.owed) > SAID:
        waiting = count_words(len(outcome.owed) - SAID, "more volume waits", "more volumes wait")
        said.append(f"{waiting} for somebody: `mkiso archive report` names all.")
    if outcome.doubtful:
        days = ", ".join(f"{day:%Y-%m-%d}" for day in outcome.doubtful)
        said.append(
            f"The PACS cuts its answers for {days} and has studies without a time: there may be more than were found. "
            "Raise its limit."
        )
    if outcome.not_asked:
        said.append(
            f"NOT ASKED: {'; '.join(outcome.not_asked)}. The night went on with the other sources; "
            + (
                "when this one answers, ask for these days by hand again."
                if outcome.by_hand
                else "what this one may have of these days is still owed."
            )
        )
    if outcome.searched_ahead:
        said.append(
            f"An earlier night ran by a clock that said {outcome.searched_ahead}, which hasn't come yet: that clock "
            "or this one is wrong. Look at the machine's clock; what was searched too early is searched again."
        )
    if outcome.volumes:
        said.append(
            f"{studies_words(outcome.archived)} with {images_words(outcome.images)} archived on "
            f"{_volumes(outcome.volumes)}."
        )
    elif outcome.is_good:
        said.append(f"Nothing to archive: {studies_words(outcome.found)} found.")
    if outcome.elsewhere:
        said.append(f"Another archive run works on {studies_words(outcome.elsewhere)}.")
    if outcome.days_left:
        one, several = "is still owed: the next night searches it.", "are still owed: the next nights search them."
        said.append(count_words(outcome.days_left, f"earlier day {one}", f"earlier days {several}"))
    return " ".join(said)


def dry_run_words(
    found: int, owed: int, images: int | None, given_up: Sequence[str], untold: Sequence[str] = ()
) -> str:
    """What a dry run says; `images` None where the PACS doesn't count them. `untold`: the studies of which no source
    tells what it holds, or none has it wholly.
    """
    counted = "an unknown number of images" if images is None else images_words(images)
    untold_words = f" What the PACS holds of these couldn't be found out: {listed(untold)}." if untold else ""
    given_up_words = f" Given up after archive.max_attempts: {listed(given_up)}." if given_up else ""
    return (
        f"Dry run: {studies_words(found)} found, of which {owed} would be archived, with {counted}. Nothing was "
        f"archived.{given_up_words}{untold_words}"
    )


def described(study: Study) -> str:
    """What an operator finds a study by whose UID says nothing."""
    day = iso_date(study.study_date)
    return study.accession_number or (
        f"one of {day}" if day != study.study_date else "one without accession number and date"
    )


def _volumes(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{len(labels)} volumes ({labels[0]} to {labels[-1]})"


def listed(names: Sequence[str]) -> str:
    """NAMED of them, and how many more there are."""
    return listed_words(names, NAMED)

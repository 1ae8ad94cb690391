"""The order book: a question is written down when it is first asked, an order before it is given and its outcome after,
so that no crash, retry or second robot makes two discs or hides a half one.

    orders/<accession number or UID, hashed>.json   a page: what was asked and ordered of this accession number, or of
                                                    this study, at every publisher, oldest first
    orders/book.lock                                held while pages are changed

An order uses up every question about one of its accession numbers or studies that was asked before it: what is asked
later may be given, what was asked earlier may not (docs/decisions/orders.md). The place on the page tells which is
which, and no clock.

The book outlives the job's folder and lies beside the discs: a rerun may come after the folder is gone, or on another
machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, with_config

from mkiso.errors import OrderedMeanwhile, PrintUncertain
from mkiso.storage.files import Unreadable, descriptor_of, make_beside_discs, read_json, seconds_old, write_whole
from mkiso.study.selection import EVERYTHING, Selection

State = Literal[
    "asked",  # a question, not an order
    "giving",  # written down; whether the publisher got it is not
    "uncertain",  # the publisher may have it, or a part of it
    "not given",  # known not to have reached the publisher
    "given",  # the publisher has all of it
    "done",  # the publisher reported the disc as made, or will never report more
    "failed",  # the publisher reported that no disc was made
    "settled",  # was uncertain, and somebody has looked
]
Step = Literal["give", "find out", "follow", "rest"]
OPEN: frozenset[State] = frozenset({"giving", "uncertain"})
NOTHING_MADE: frozenset[State] = frozenset({"asked", "not given", "failed"})
LOCK = "book.lock"

MAY_BE_MADE = "This print may already have been made: look at the robot, then run with confirm_reprint."
ASK_AGAIN = "Look at the robot, and ask again if one more disc is wanted: a retry of this run prints none."
UNKNOWN = (
    "The order book doesn't know when this print was first asked for, so the same may have been printed since. "
    f"{ASK_AGAIN}"
)
TWICE = f"Another process of this run has ordered it meanwhile. {ASK_AGAIN}"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class Entry:
    """A job's question, or its order of one volume at a publisher.

    `time` is in seconds since the epoch, for words only; `confirmed`: asked under confirm_reprint; `words`: the
    outcome. `contents` says what the disc was to hold (mkiso.publishers.protocol.Order.contents). A question has no
    publisher, and the volume and the attempt 0. `selection`: what was chosen; `pages`: the names of all pages that an
    order is on, so that its outcome gets onto each.
    """

    job_id: str
    state: State
    time: float
    publisher: str = ""
    volume: int = 0
    attempt: int = 0
    instances: int = 0
    words: str = ""
    confirmed: bool = False
    contents: str = ""
    selection: Selection = EVERYTHING
    pages: tuple[str, ...] = ()

    @property
    def order_id(self) -> str:
        """Unique among all orders, and short enough for every robot (Primera: 32 characters)."""
        return f"{hashlib.sha256(self.job_id.encode()).hexdigest()[:20]}-{self.volume}-{self.attempt}"

    @property
    def key(self) -> tuple[str, int, int]:
        return self.job_id, self.volume, self.attempt


_PAGE = TypeAdapter(list[Entry])


Page = Sequence[Entry]


def latest(pages: Sequence[Page], job_id: str, volume: int) -> Entry | None:
    """The newest order of this job and volume, whichever page has it: the PACS may have named others when it was given.
    Of one order the first page knows best, since it is written first.
    """
    orders = (entry for page in pages for entry in page if entry.job_id == job_id and entry.state != "asked")
    return max((order for order in orders if order.volume == volume), key=lambda order: order.attempt, default=None)


def decide(pages: Sequence[Page], job_id: str, volume: int, publisher: str) -> Step:
    """What to do for this job's volume at this publisher after what the pages of its accession numbers say.

    `give` it (anew), `find out` whether the order on record reached the publisher, `follow` it to its end, or `rest`,
    for it is done. A confirmation settles what was unclear before it was asked for, and nothing that came later. Raises
    PrintUncertain where somebody has to look first.
    """
    mine = latest(pages, job_id, volume)
    if mine is not None and mine.state not in NOTHING_MADE:
        if mine.state == "settled":
            raise PrintUncertain(f"This print ended unclear, and another request has made it again since. {ASK_AGAIN}")
        if mine.publisher != publisher:
            raise PrintUncertain(f"This print was ordered at {mine.publisher} and not at {publisher}. {ASK_AGAIN}")
        return "find out" if mine.state in OPEN else "follow" if mine.state == "given" else "rest"
    for page in pages:
        require_unanswered(page, job_id)
    return "give"


def _asked(page: Page, job_id: str) -> int | None:
    """The place of the job's question."""
    return next((number for number, entry in enumerate(page) if (entry.job_id, entry.state) == (job_id, "asked")), None)


def _with_question(page: Page, question: Entry, known: Collection[tuple[str, int, int]], retried: bool) -> list[Entry]:
    """The page with a question at its end; of a retry before the first order of which it isn't known when it came."""
    unknown = (place for place, entry in enumerate(page) if entry.state not in NOTHING_MADE and entry.key not in known)
    place = next(unknown, len(page)) if retried else len(page)
    return [*page[:place], question, *page[place:]]


def asked_by(pages: Sequence[Page], job_id: str) -> Entry:
    """The job's question, confirmed where it is on any page."""
    asked = [entry for page in pages for entry in page if (entry.job_id, entry.state) == (job_id, "asked")]
    return max(asked, key=lambda entry: entry.confirmed, default=Entry(job_id, "asked", 0))


def require_unanswered(page: Page, job_id: str) -> None:
    """No order has used the job's question up, and none before it is unclear. Raises PrintUncertain."""
    asked = _asked(page, job_id)
    if asked is None:
        raise PrintUncertain(UNKNOWN)
    mine = page[asked]
    others = [(place, entry) for place, entry in enumerate(page) if entry.job_id != job_id and concerns(entry, mine)]
    if newer := [entry for place, entry in others if place > asked and entry.state not in NOTHING_MADE]:
        words = (
            f"A newer request has ordered {_called(newer[-1], mine)} at {newer[-1].publisher} since this one was asked "
            f"for. {ASK_AGAIN}"
        )
        raise PrintUncertain(words, newer_job_id=newer[-1].job_id)
    if unclear := [entry for _, entry in others if entry.state in OPEN and not mine.confirmed]:
        raise _unclear(unclear[-1], mine)


def _unclear(order: Entry, mine: Entry) -> PrintUncertain:
    words = f"An earlier print of {_called(order, mine)} at {order.publisher} ended unclear. {MAY_BE_MADE}"
    return PrintUncertain(words, earlier_job_id=order.job_id)


def concerns(one: Entry, other: Entry) -> bool:
    """Whether two entries of a page may be of the same images: they are not where each names other studies. Which
    series are of which study only the PACS knows, so that other series don't tell.
    """
    studies, others = one.selection.studies, other.selection.studies
    return not studies or not others or bool(set(studies) & set(others))


def _called(one: Entry, other: Entry) -> str:
    return "this study" if one.selection.series == other.selection.series else "this study or a part of it"


def begin(page: Page, entry: Entry) -> list[Entry]:
    """The page with a new order on it; under a confirmation everything of other jobs that was open before it is
    settled.
    """
    settled = [
        replace(old, state="settled")
        if entry.confirmed and old.state in OPEN and old.job_id != entry.job_id and concerns(old, entry)
        else old
        for old in page
    ]
    return [*settled, entry]


def settle(page: Page, outcome: Entry) -> list[Entry]:
    """The page with an order's outcome in its place; a page that a crash kept the order from gets it now."""
    if all(old.key != outcome.key for old in page):
        return [*page, outcome]
    return [outcome if old.key == outcome.key else old for old in page]


def precede(page: Page, entries: Sequence[Entry]) -> list[Entry]:
    """The page with these orders before everything else, where it doesn't have them yet."""
    known = {old.key for old in page}
    return [*(entry for entry in entries if entry.key not in known), *page]


def made_before(pages: Sequence[Page], mine: Entry) -> list[Entry]:
    """The orders of other jobs for the same that a publisher has taken whole, each once, the newest last: the answer
    says how long ago that was.
    """
    made = {
        entry.key: entry
        for page in pages
        for entry in page
        if entry.job_id != mine.job_id and entry.state in ("given", "done")
        if concerns(entry, mine) and entry.selection.series == mine.selection.series
    }
    return sorted(made.values(), key=lambda entry: entry.time)


def ordered_before(pages: Sequence[Page], mine: Entry) -> list[Entry]:
    """What a person is told of before they order the same: as made_before, and what is being given now or was when its
    job ended.
    """
    given = [[replace(each, state="given") if each.state == "giving" else each for each in page] for page in pages]
    return made_before(given, mine)


def unclear_before(pages: Sequence[Page], mine: Entry) -> list[Entry]:
    """The orders of other jobs that have ended unclear, each once, the newest last: somebody looks at the robot before
    they confirm that this is to be printed.
    """
    orders = (entry for page in pages for entry in page if entry.state == "uncertain")
    unclear = {entry.key: entry for entry in orders if entry.job_id != mine.job_id and concerns(entry, mine)}
    return sorted(unclear.values(), key=lambda entry: entry.time)


def jobs_of(orders: Collection[Entry]) -> int:
    """How many jobs have given these."""
    return len({order.job_id for order in orders})


def require_all_told(pages: Sequence[Page], question: Entry, told: int) -> None:
    """Who asks was told of as many jobs as have ordered the same by now (`told`; negative: nobody was). Raises
    OrderedMeanwhile.
    """
    if 0 <= told < jobs_of(ordered_before(pages, question)):
        raise OrderedMeanwhile(
            "The same disc was ordered after this question was shown, so it isn't made once more. Look it up again, "
            "and ask again if one more disc is wanted."
        )


@dataclass(frozen=True, slots=True)
class OrderBook:
    """The pages of a question (mkiso.publishers.protocol.pages_of). Every change has reached the disk when the method
    returns.
    """

    paths: tuple[Path, ...]

    @classmethod
    def of(cls, orders_dir: Path, of_question: Collection[str]) -> OrderBook:
        names = {hashlib.sha256(page.encode()).hexdigest()[:32] for page in of_question}
        return cls(tuple(orders_dir / f"{name}.json" for name in sorted(names)))

    def pages(self) -> list[list[Entry]]:
        """Each page, oldest entry first; one that can't be read is an error and never an empty one. Raises
        PrintUncertain.
        """
        return [_read(path) for path in self.paths]

    def ask(
        self,
        job_id: str,
        *,
        confirmed: bool = False,
        again: bool = False,
        selection: Selection = EVERYTHING,
        told: int = -1,
    ) -> None:
        """Write down that a job asks, once: the first attempt counts. `again`: this is not its first attempt, so it
        must be there. `told`: of how many orders of the same the person knows who asks, negative: nobody was told.

        Raises OrderedMeanwhile, PrintUncertain.
        """
        question = Entry(job_id, "asked", time.time(), confirmed=confirmed, selection=selection)
        with _held(self.paths[0].parent):
            pages = self.pages()
            if again and any(_asked(page, job_id) is None for page in pages):
                raise PrintUncertain(UNKNOWN)
            if not again:
                require_all_told(pages, question, told)
            self._write([[*page, question] if _asked(page, job_id) is None else page for page in pages])

    def ask_also(
        self, job_id: str, *, retried: bool, selection: Selection, confirmed: bool = False, told: int = -1
    ) -> None:
        """Write the question on those of the pages that it isn't on, once the PACS has named them. `retried`: this is a
        later attempt of the job, so what was ordered there counts as newer, unless a page that has the question says
        when. `told`: as of `ask`. Raises OrderedMeanwhile, and PrintUncertain also where an earlier order ended unclear
        and nobody has looked: before anything is retrieved for it.
        """
        question = Entry(job_id, "asked", time.time(), confirmed=confirmed, selection=selection)
        with _held(self.paths[0].parent):
            pages = self.pages()
            if not retried:
                require_all_told(pages, question, told)
                if not confirmed and (unclear := unclear_before(pages, question)):
                    raise _unclear(unclear[-1], question)
            known = {entry.key for page in pages if _asked(page, job_id) is not None for entry in page}
            self._write(
                [
                    _with_question(page, question, known, retried) if _asked(page, job_id) is None else page
                    for page in pages
                ]
            )

    def open(self, job_id: str, volume: int, publisher: str, *, contents: str = "") -> Entry:
        """A new order's entry, not yet written down."""
        pages = self.pages()
        earlier = latest(pages, job_id, volume)
        return replace(
            asked_by(pages, job_id),
            state="giving",
            time=time.time(),
            publisher=publisher,
            volume=volume,
            attempt=1 + (earlier.attempt if earlier else 0),
            contents=contents,
            pages=tuple(path.stem for path in self.paths),
        )

    def begin(self, entry: Entry) -> None:
        """Write an order down before it is given; of two that are given at once at two publishers one comes too late.
        Raises PrintUncertain.
        """
        with _held(self.paths[0].parent):
            pages = self.pages()
            if decide(pages, entry.job_id, entry.volume, entry.publisher) != "give":
                raise PrintUncertain(TWICE)
            self._write([begin(page, entry) for page in pages])

    def settle(self, entry: Entry, state: State, *, instances: int = 0, words: str = "") -> Entry:
        """Write the order's outcome down, on each page that it is on."""
        outcome = replace(
            entry, state=state, time=time.time(), instances=instances or entry.instances, words=words or entry.words
        )
        orders_dir = self.paths[0].parent
        book = OrderBook(tuple(sorted({*self.paths, *(orders_dir / f"{name}.json" for name in entry.pages)})))
        with _held(orders_dir):
            book._write([settle(page, outcome) for page in book.pages()])
        return outcome

    def precede(self, entries: Sequence[Entry]) -> None:
        """Write down what was ordered before everything else on the pages, once."""
        with _held(self.paths[0].parent):
            self._write([precede(page, entries) for page in self.pages()])

    def _write(self, pages: Sequence[list[Entry]]) -> None:
        for path, page in zip(self.paths, pages, strict=True):
            write_whole(path, _PAGE.dump_json(page, indent=1), durable=True)


def take_over(orders_dir: Path, accession_numbers: Collection[str], publishers: Collection[str]) -> None:
    """Move what a former version of mkiso has ordered under the same question to the pages: it had a book for each
    publisher and set of accession numbers, and its orders no publisher. Raises PrintUncertain.
    """
    for publisher in publishers:
        question = "\n".join([publisher, *sorted(set(accession_numbers))])
        path = orders_dir / f"{hashlib.sha256(question.encode()).hexdigest()[:32]}.json"
        if entries := [replace(entry, publisher=publisher) for entry in _read(path)]:
            OrderBook.of(orders_dir, accession_numbers).precede(entries)
            path.unlink(missing_ok=True)


def orders_of(pages: Sequence[Page], job_id: str) -> list[Entry]:
    """The newest order of each volume of a job."""
    volumes = {entry.volume for page in pages for entry in page}
    return [order for volume in sorted(volumes) if (order := latest(pages, job_id, volume))]


def require_not_ordered(pages: Sequence[Page], job_ids: Collection[str]) -> None:
    """None of these jobs has ordered a disc that may be there. Raises PrintUncertain."""
    for job_id in job_ids:
        if made := [order for order in orders_of(pages, job_id) if order.state not in NOTHING_MADE]:
            raise PrintUncertain(
                f"An earlier job has ordered a disc of the same at {made[-1].publisher}: no second one is ordered. "
                "Look at the robot, and retry that job's run, or print at the counter.",
                earlier_job_id=job_id,
            )


def _read(path: Path) -> list[Entry]:
    try:
        return read_json(path, _PAGE)
    except FileNotFoundError:
        return []
    except Unreadable as error:
        remedy = (
            "Have the administrator see to that, then ask again."  # and never remove what says that it was ordered
            if error.is_there
            else "Look at the robot, have the administrator remove that file, then ask again."
        )
        raise PrintUncertain(
            f"The order book's page orders/{path.name} can't be read ({error}), so this may have been printed before. "
            f"{remedy}"
        ) from None


@contextmanager
def _held(orders_dir: Path) -> Iterator[None]:
    """Nobody else changes a page meanwhile, on no machine; for milliseconds."""
    make_beside_discs(orders_dir)
    with descriptor_of(orders_dir / LOCK, os.O_RDWR | os.O_CREAT) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def forget_old(orders_dir: Path, keep_days: float, known: Callable[[Collection[str]], Collection[str]]) -> int:
    """Remove what nobody has touched for `keep_days`: pages whose every outcome is known and of which no job can be
    retried, and when which patient was sent; how many pages went.

    `known` tells which of these jobs there still are: as long as there is one, so is the page that knows when it was
    asked.
    """

    def is_old(path: Path) -> bool:
        return seconds_old(path) > keep_days * 86_400

    jobs: dict[Path, set[str]] = {}
    for path in list(orders_dir.iterdir()) if orders_dir.is_dir() else []:
        with suppress(OSError, PrintUncertain):  # replaced meanwhile; a page that can't be read stays
            if path.suffix == ".json" and is_old(path):
                page = _read(path)
                if all(entry.state not in OPEN for entry in page):
                    jobs[path] = {entry.job_id for entry in page}
            elif path.suffix in (".patient", ".new") and is_old(path):
                path.unlink()
    there = set(known(sorted(set().union(*jobs.values())))) if jobs else set()
    went = 0
    for path in (path for path, ids in jobs.items() if not ids & there):
        with _held(orders_dir), suppress(OSError):
            if is_old(path):
                path.unlink()
                went += 1
    return went

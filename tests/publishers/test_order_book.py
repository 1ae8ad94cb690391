"""The order book: every state, every place where a run can break off, and what the next run does."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from typing import Literal, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mkiso.config.publishers import CStore, MediaCreation, Robot
from mkiso.errors import OrderedMeanwhile, PrintUncertain, PublisherRefused, PublisherUnavailable
from mkiso.publishers.desk import cancel, follow
from mkiso.publishers.lock import Settling, lock_name, publisher_lock
from mkiso.publishers.orderbook import (
    Entry,
    OrderBook,
    State,
    begin,
    decide,
    forget_old,
    jobs_of,
    latest,
    made_before,
    ordered_before,
    orders_of,
    require_not_ordered,
    take_over,
    unclear_before,
)
from mkiso.publishers.protocol import Order, Receipt, Watch
from mkiso.study.models import Arrival, Patient, Volume
from mkiso.study.selection import EVERYTHING, Selection
from peers.patience import LONG
from peers.small_disk import no_descriptors
from tests.publishers.orders import give

STUDY, PART = Selection(("1.2.3",)), Selection(("1.2.3",), ("1.2.3.4",))
MINE, OTHER = "0b0a1b2c-0000-4000-8000-000000000001", "0b0a1b2c-0000-4000-8000-000000000002"


def entry(
    state: State,
    job_id: str = MINE,
    *,
    volume: int = 1,
    attempt: int = 1,
    confirmed: bool = False,
    publisher: str = "robot",
) -> Entry:
    return Entry(job_id, state, time.time(), publisher, volume, attempt, confirmed=confirmed)


def asked(job_id: str = MINE, *, confirmed: bool = False) -> Entry:
    return entry("asked", job_id, volume=0, attempt=0, confirmed=confirmed, publisher="")


MADE_OR_UNCLEAR: list[State] = ["giving", "uncertain", "given", "done", "settled"]
NOT_MADE: list[State] = ["asked", "not given", "failed"]


@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize(
    ("state", "step"),
    [
        ("giving", "find out"),
        ("uncertain", "find out"),
        ("not given", "give"),
        ("failed", "give"),
        ("given", "follow"),
        ("done", "rest"),
    ],
)
def test_what_a_rerun_of_the_same_job_does(state: State, confirmed: bool, step: str) -> None:
    assert decide([[asked(confirmed=confirmed), entry(state, confirmed=confirmed)]], MINE, 1, "robot") == step


def test_a_rerun_goes_by_the_newest_order_of_its_own_volume() -> None:
    page = [asked(), entry("failed"), entry("given", attempt=2), entry("failed", volume=2)]
    assert [decide([page], MINE, volume, "robot") for volume in (1, 2, 3)] == ["follow", "give", "give"]


@pytest.mark.parametrize("state", ["given", "done", "not given", "failed", "settled", "asked"])
def test_an_order_from_before_the_question_whose_outcome_is_known_is_no_hindrance(state: State) -> None:
    assert decide([[entry(state, OTHER), asked()]], MINE, 1, "robot") == "give"


@pytest.mark.parametrize("state", ["giving", "uncertain"])
def test_an_older_order_of_unknown_outcome_needs_a_look_at_the_robot(state: State) -> None:
    with pytest.raises(PrintUncertain, match=r"at robot ended unclear.*confirm_reprint") as raised:
        decide([[entry(state, "third"), entry(state, OTHER), asked()]], MINE, 1, "robot")
    assert raised.value.details["earlier_job_id"] == OTHER
    assert decide([[entry(state, OTHER), asked(confirmed=True)]], MINE, 1, "robot") == "give"


@pytest.mark.parametrize("state", MADE_OR_UNCLEAR)
@pytest.mark.parametrize("mine", [None, "failed", "not given"])
@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize("publisher", ["robot", "another"])
def test_an_order_uses_up_every_question_that_was_asked_before_it(
    state: State, mine: State | None, confirmed: bool, publisher: str
) -> None:
    """Whatever the first attempt came to, whichever robot made the newer disc, and whoever had looked before that."""
    page = [
        asked(confirmed=confirmed),
        *([entry(mine)] if mine else []),
        asked(OTHER),
        entry(state, OTHER, publisher=publisher),
    ]
    with pytest.raises(PrintUncertain, match=f"newer request.*at {publisher} since.*ask again") as raised:
        decide([page], MINE, 1, "robot")
    assert raised.value.details["newer_job_id"] == OTHER
    assert decide([[*page, asked("new", confirmed=True)]], "new", 1, "robot") == "give"


@pytest.mark.parametrize("state", NOT_MADE)
def test_an_order_of_which_no_disc_was_made_uses_nothing_up(state: State) -> None:
    assert decide([[asked(), asked(OTHER), entry(state, OTHER)]], MINE, 1, "robot") == "give"


def test_the_place_in_the_book_counts_and_not_the_clock() -> None:
    early, late = replace(asked(), time=9e9), replace(entry("given", OTHER), time=0)
    with pytest.raises(PrintUncertain, match="newer"):
        decide([[early, late]], MINE, 1, "robot")
    assert decide([[replace(late, time=9e9), replace(early, time=0)]], MINE, 1, "robot") == "give"


def test_one_page_is_enough_to_stop() -> None:
    """The pages are of the accession numbers that are asked for together: an order of one of them is on its
    page alone.
    """
    with pytest.raises(PrintUncertain, match="newer"):
        decide([[asked()], [asked(), entry("given", OTHER)]], MINE, 1, "robot")
    with pytest.raises(PrintUncertain, match="unclear"):
        decide([[asked()], [entry("giving", OTHER), asked()]], MINE, 1, "robot")


@pytest.mark.parametrize("pages", [[[]], [[entry("done", OTHER)]], [[asked()], []]])
def test_a_job_of_which_the_book_has_no_question_gives_nothing(pages: list[list[Entry]]) -> None:
    with pytest.raises(PrintUncertain, match="doesn't know when"):
        decide(pages, MINE, 1, "robot")


@pytest.mark.parametrize("state", ["giving", "uncertain", "given", "done"])
def test_a_retry_at_another_publisher_is_no_second_order(state: State) -> None:
    """The default publisher was changed between two attempts."""
    with pytest.raises(PrintUncertain, match="ordered at robot and not at another"):
        decide([[asked(), entry(state)]], MINE, 1, "another")
    assert decide([[asked(), entry("not given")]], MINE, 1, "another") == "give"


def test_a_confirmation_settles_what_was_open_but_no_other_volume_of_the_print() -> None:
    page = begin(
        [entry("uncertain", OTHER), entry("done", OTHER), entry("giving", volume=1)],
        entry("giving", volume=2, confirmed=True),
    )
    assert [old.state for old in page] == ["settled", "done", "giving", "giving"]
    page = begin([entry("uncertain", OTHER)], entry("giving"))
    assert [old.state for old in page] == ["uncertain", "giving"]


def test_the_pages_of_a_question_are_those_of_its_accession_numbers(tmp_path: Path) -> None:
    def names(*numbers: str) -> list[str]:
        return [path.name for path in OrderBook.of(tmp_path, numbers).paths]

    assert names("A", "B") == names("B", "A", "B") == sorted(names("A") + names("B"))
    assert len({*names("A"), *names("B"), *names("AB"), *names("a")}) == 4
    assert all(len(name) == 37 and "A" not in name for name in names("A", "B"))


def test_order_ids_fit_every_robot_and_differ_by_volume_and_attempt() -> None:
    ids = [entry("giving", volume=volume, attempt=attempt).order_id for volume in (1, 12) for attempt in (1, 11)]
    assert len(set(ids)) == 4
    assert all(1 <= len(order_id) <= 32 and set(order_id) <= set("0123456789abcdef-") for order_id in ids)
    # the same in every version: a robot is asked for it after an upgrade
    assert entry("giving", volume=3, attempt=2).order_id == "9410711a8262e2cb8897-3-2"


def test_the_newest_disc_of_another_job_is_remembered() -> None:
    entries = [
        replace(entry("done", OTHER), time=2),
        replace(entry("given", "third"), time=3),
        replace(entry("failed", "fourth"), time=4),
    ]
    mine = replace(entry("done"), time=5)
    assert made_before([[entries[0]], [*entries[1:], mine]], asked()) == entries[:2]
    assert made_before([[entries[1], entries[0]], [entries[0]]], asked()) == entries[:2]
    assert made_before([[mine]], asked()) == []


def test_the_newest_order_of_each_volume_is_asked_to_be_dropped() -> None:
    page = [asked(), entry("failed"), entry("given", attempt=2), entry("given", volume=2), entry("given", OTHER)]
    assert orders_of([page, []], MINE) == [page[2], page[3]]
    killed_between_two_pages = [[asked(), entry("given")], [asked(), entry("giving")]]
    assert orders_of(killed_between_two_pages, MINE) == [killed_between_two_pages[0][1]]


def test_a_question_is_written_down_once_and_its_first_attempt_counts(tmp_path: Path) -> None:
    book = OrderBook.of(tmp_path, ["A", "B"])
    book.ask(MINE, confirmed=True)
    OrderBook.of(tmp_path, ["B"]).ask(OTHER)
    book.ask(MINE, again=True)
    assert sorted([[each.job_id for each in page] for page in book.pages()]) == [[MINE], [MINE, OTHER]]
    assert all(
        page[0].confirmed and (page[0].state, page[0].volume, page[0].attempt) == ("asked", 0, 0)
        for page in book.pages()
    )
    assert book.open(MINE, 1, "robot").confirmed and not book.open(OTHER, 1, "robot").confirmed


def test_an_order_is_found_on_whichever_page_it_is_and_settled_on_all(tmp_path: Path) -> None:
    """The PACS told another accession number, or none, when it was given."""
    then, now = OrderBook.of(tmp_path, ["1.2.3", "B"]), OrderBook.of(tmp_path, ["1.2.3", "A"])
    then.ask(MINE)
    then.begin(then.open(MINE, 1, "robot"))
    for book in (now, OrderBook.of(tmp_path, ["A", "B"])):
        book.ask_also(MINE, retried=True, selection=EVERYTHING)
        [order] = orders_of(book.pages(), MINE)
        assert decide(book.pages(), MINE, 1, "robot") == "find out"
        with pytest.raises(PrintUncertain, match="at robot"):
            require_not_ordered(book.pages(), [MINE])
    now.settle(order, "not given")
    assert [page[-1].state for book in (then, now) for page in book.pages()] == ["not given"] * 4
    assert now.open(MINE, 1, "robot").attempt == 2


def test_what_a_retry_finds_on_a_new_page_is_newer_unless_a_page_says_when(tmp_path: Path) -> None:
    """The first attempt ended before the PACS had named the study."""
    number, both = OrderBook.of(tmp_path, ["A"]), OrderBook.of(tmp_path, ["A", "1.2.3"])

    def ordered(book: OrderBook, job_id: str) -> None:
        book.ask(job_id)
        order = book.open(job_id, 1, "robot")
        book.begin(order)
        book.settle(order, "done")

    ordered(both, "before")
    number.ask(MINE)
    both.ask_also(MINE, retried=True, selection=EVERYTHING)
    assert decide(both.pages(), MINE, 1, "robot") == "give"
    number.ask("third")
    OrderBook.of(tmp_path, ["1.2.3"]).ask("failed before")
    ordered(OrderBook.of(tmp_path, ["1.2.3"]), OTHER)
    both.ask_also("third", retried=True, selection=EVERYTHING)
    with pytest.raises(PrintUncertain, match="newer request"):
        decide(both.pages(), "third", 1, "robot")
    both.ask_also("new", retried=False, selection=EVERYTHING)
    assert decide(both.pages(), "new", 1, "robot") == "give"


def test_an_order_known_to_be_older_stays_older_behind_a_question(tmp_path: Path) -> None:
    number, study, both = (OrderBook.of(tmp_path, pages) for pages in (["A"], ["1.2.3"], ["A", "1.2.3"]))
    study.ask("stranger")
    both.ask(OTHER)
    order = both.open(OTHER, 1, "robot")
    both.begin(order)
    both.settle(order, "done")
    number.ask(MINE)
    both.ask_also(MINE, retried=True, selection=EVERYTHING)
    assert decide(both.pages(), MINE, 1, "robot") == "give"


def test_what_is_asked_on_further_pages_is_no_confirmation(tmp_path: Path) -> None:
    book = OrderBook.of(tmp_path, ["1.2.3"])
    book.ask(OTHER)
    book.begin(book.open(OTHER, 1, "robot"))
    book.ask_also(MINE, retried=False, selection=EVERYTHING)
    with pytest.raises(PrintUncertain, match="ended unclear"):
        decide(book.pages(), MINE, 1, "robot")


def test_what_ended_unclear_is_refused_early_unless_somebody_has_looked(tmp_path: Path) -> None:
    book = OrderBook.of(tmp_path, ["A"])
    ordered_by(book, OTHER, "uncertain")
    [unclear] = unclear_before(book.pages(), Entry("", "asked", 0))
    assert (unclear.job_id, unclear.publisher) == (OTHER, "robot")
    assert unclear_before(book.pages(), Entry(OTHER, "asked", 0)) == []  # its own retry finds out
    book.ask(MINE)
    with pytest.raises(PrintUncertain, match=r"at robot ended unclear.*confirm_reprint"):
        book.ask_also(MINE, retried=False, selection=EVERYTHING)
    book.ask("looked", confirmed=True)
    book.ask_also("looked", retried=False, selection=EVERYTHING, confirmed=True)
    book.begin(book.open("looked", 1, "robot"))
    assert unclear_before(book.pages(), Entry("", "asked", 0)) == []


def ordered_by(book: OrderBook, job_id: str, state: State, selection: Selection = EVERYTHING) -> None:
    book.ask(job_id, selection=selection)
    order = book.open(job_id, 1, "robot")
    book.begin(order)
    if state != "giving":
        book.settle(order, state)


def told_now(book: OrderBook) -> int:
    """What the preview tells."""
    return jobs_of(ordered_before(book.pages(), Entry("", "asked", 0)))


@pytest.mark.parametrize(
    ("state", "counts"), [(state, state in ("giving", "given", "done")) for state in get_args(State)]
)
def test_a_yes_on_a_page_that_is_old_by_now_orders_nothing(tmp_path: Path, state: State, counts: bool) -> None:
    """What is unclear is refused in other words when the order is given."""
    book = OrderBook.of(tmp_path, ["A"])
    told = told_now(book)
    if state != "asked":
        ordered_by(book, OTHER, state)
    with pytest.raises(OrderedMeanwhile) if counts else nullcontext():
        book.ask(MINE, told=told)
    assert (MINE in {entry.job_id for page in book.pages() for entry in page}) != counts
    book.ask("looked again", told=told_now(book))
    book.ask("a program")


def test_an_order_whose_job_died_is_told_of_and_needs_a_look_at_the_robot(tmp_path: Path) -> None:
    """A refusal isn't final: who looks the number up again is told of that order and may order once more."""
    book = OrderBook.of(tmp_path, ["A"])
    ordered_by(book, OTHER, "done")
    ordered_by(book, "died", "giving")
    assert told_now(book) == 2
    book.ask(MINE, told=2)
    with pytest.raises(PrintUncertain, match="ended unclear"):
        decide(book.pages(), MINE, 1, "robot")
    book.ask("looked", confirmed=True, told=2)
    assert decide(book.pages(), "looked", 1, "robot") == "give"


def test_orders_of_the_studies_that_were_found_count_too_and_those_of_a_part_not(tmp_path: Path) -> None:
    number, study = OrderBook.of(tmp_path, ["A"]), OrderBook.of(tmp_path, ["1.2.3"])
    both = OrderBook.of(tmp_path, ["A", "1.2.3"])
    ordered_by(study, "a part", "done", PART)
    number.ask(MINE, told=0)
    both.ask_also(MINE, retried=False, selection=EVERYTHING, told=0)
    ordered_by(study, OTHER, "done", STUDY)
    number.ask("new", told=0)
    with pytest.raises(OrderedMeanwhile):
        both.ask_also("new", retried=False, selection=EVERYTHING, told=0)
    both.ask_also("new", retried=False, selection=EVERYTHING, told=1)


def test_a_retry_goes_on_whatever_was_ordered_meanwhile(tmp_path: Path) -> None:
    """Its own order may be at the robot; what is newer than its question is refused when it gives one."""
    book = OrderBook.of(tmp_path, ["A"])
    book.ask(MINE, told=0)
    ordered_by(book, OTHER, "done")
    book.ask(MINE, again=True, told=0)
    book.ask_also(MINE, retried=True, selection=EVERYTHING, told=0)
    with pytest.raises(PrintUncertain, match="newer"):
        decide(book.pages(), MINE, 1, "robot")


def test_a_question_is_no_order() -> None:
    assert latest([[asked()]], MINE, 0) is None
    assert orders_of([[asked(), asked(OTHER), entry("given", OTHER)]], MINE) == []


@pytest.mark.parametrize("state", ["not given", "failed"])
def test_an_order_that_made_no_disc_keeps_no_later_job_of_an_inbox_from_ordering(state: State) -> None:
    require_not_ordered([[asked(), entry(state)]], [MINE])


@pytest.mark.parametrize(
    ("one", "other", "called"),
    [
        (EVERYTHING, STUDY, "this study"),
        (STUDY, EVERYTHING, "this study"),
        (STUDY, Selection(("1.2.3", "1.2.4")), "this study"),
        (EVERYTHING, Selection(series=("1.2.3.4",)), "this study or a part of it"),
        (PART, STUDY, "this study or a part of it"),
        (PART, Selection(("1.2.3",), ("1.2.3.5",)), "this study or a part of it"),
    ],
)
def test_a_study_is_one_however_it_is_asked_for(tmp_path: Path, one: Selection, other: Selection, called: str) -> None:
    """By accession number, by UID, or by its series: what is unclear or newer counts, and a confirmation settles it."""
    book = OrderBook.of(tmp_path, ["A", "1.2.3"])
    book.ask("failed", selection=other)
    book.ask(MINE, selection=one)
    mine = book.open(MINE, 1, "robot")
    book.begin(mine)
    with pytest.raises(PrintUncertain, match=f"ordered {called} at robot"):
        decide(book.pages(), "failed", 1, "robot")
    book.ask("clerk", selection=other)
    with pytest.raises(PrintUncertain, match=f"print of {called} at robot"):
        decide(book.pages(), "clerk", 1, "robot")
    book.ask("looked", confirmed=True, selection=other)
    book.begin(book.open("looked", 1, "robot"))
    assert [order.state for page in book.pages() for order in orders_of([page], MINE)] == ["settled", "settled"]


def test_other_studies_of_one_accession_number_are_no_hindrance(tmp_path: Path) -> None:
    book = OrderBook.of(tmp_path, ["A"])
    book.ask("failed", selection=Selection(("1.2.4",)))
    book.ask(MINE, selection=PART)
    order = book.open(MINE, 1, "robot")
    assert order.selection == PART
    book.begin(order)
    assert decide(book.pages(), "failed", 1, "robot") == "give"
    book.ask("clerk", confirmed=True, selection=Selection(("1.2.4",)))
    book.begin(book.open("clerk", 1, "robot"))
    assert [each.state for each in orders_of(book.pages(), MINE)] == ["giving"]


def test_a_disc_of_a_part_is_not_remembered_as_the_whole() -> None:
    def done(job_id: str, selection: Selection) -> Entry:
        return replace(entry("done", job_id), selection=selection)

    page = [done("whole", EVERYTHING), done("study", STUDY), done("part", PART), done("other", Selection(("1.2.4",)))]
    for selection, before in ((STUDY, ["whole", "study"]), (PART, ["part"])):
        question = replace(asked(), selection=selection)
        assert [order.job_id for order in made_before([page], question)] == before


def test_a_page_holds_what_was_asked_and_nothing_more(tmp_path: Path) -> None:
    orders_dir = tmp_path / "discs" / "orders"  # neither is there when the first print is asked for
    book = OrderBook.of(orders_dir, ["A"])
    book.ask(MINE)
    [[question]] = book.pages()
    assert question == Entry(MINE, "asked", question.time)
    assert question == Entry(MINE, "asked", question.time, "", 0, 0, 0, "", False, "")
    assert time.time() - 600 < question.time <= time.time()
    modes = [path.stat().st_mode & 0o777 for path in (orders_dir, orders_dir / "book.lock")]
    assert modes == [0o700, 0o600]


def test_a_retry_that_the_book_does_not_know_is_refused_at_once(tmp_path: Path) -> None:
    """Its page was removed by hand, restored from a backup, or its first attempt broke off before it had written
    anything.
    """
    book = OrderBook.of(tmp_path, ["A", "B"])
    with pytest.raises(PrintUncertain, match="doesn't know when"):
        book.ask(MINE, again=True)
    OrderBook.of(tmp_path, ["A"]).ask(MINE)  # killed between two pages
    with pytest.raises(PrintUncertain, match="doesn't know when"):
        book.ask(MINE, again=True)


def test_of_two_orders_at_once_at_two_publishers_one_comes_too_late(tmp_path: Path) -> None:
    """Each publisher has a lock of its own: the book decides once more when an order is written down."""
    book = OrderBook.of(tmp_path, ["A"])
    for job_id in (MINE, OTHER):
        book.ask(job_id)
    mine, other = book.open(MINE, 1, "robot"), book.open(OTHER, 1, "another")
    book.begin(mine)
    with pytest.raises(PrintUncertain, match=r"newer request.*at robot"):
        book.begin(other)
    assert [each.state for each in book.pages()[0]] == ["asked", "asked", "giving"]


def test_two_processes_of_one_run_give_one_order(tmp_path: Path) -> None:
    """A machine that had fallen silent goes on beside the one that took its run over, and its configuration leads to
    the publisher by another address, so each holds a publisher lock.
    """
    book = OrderBook.of(tmp_path, ["A"])
    book.ask(MINE)
    silent, other = book.open(MINE, 1, "robot"), book.open(MINE, 1, "robot")
    book.begin(silent)
    with pytest.raises(PrintUncertain, match="Another process"):
        book.begin(other)
    assert [each.state for each in book.pages()[0]] == ["asked", "giving"]
    book.begin(book.open(MINE, 2, "robot"))  # another disc of the same set


def former_book(orders_dir: Path, publisher: str, numbers: Collection[str], *orders: tuple[str, State]) -> Path:
    """A book as it was when there was one for each publisher and set of numbers."""
    name = hashlib.sha256("\n".join([publisher, *sorted(numbers)]).encode()).hexdigest()[:32]
    said = [
        {"job_id": job_id, "volume": 1, "attempt": 1, "state": state, "time": 1.5, "instances": 3, "words": "lost"}
        | {"confirmed": False, "contents": ""}
        for job_id, state in orders
    ]
    path = orders_dir / f"{name}.json"
    path.write_text(json.dumps(said))
    return path


def test_what_a_former_book_says_of_a_question_stands_before_it(tmp_path: Path) -> None:
    """An order that ended unclear before mkiso was upgraded isn't forgotten, and a run of before is never retried."""
    robots = ["robot", "another"]
    former = former_book(tmp_path, "another", ["A2", "A1"], ("third", "done"), (OTHER, "uncertain"))
    stranger = former_book(tmp_path, "robot", ["A3"], (OTHER, "uncertain"))
    OrderBook.of(tmp_path, ["A1"]).ask("fourth")
    for _ in range(2):
        take_over(tmp_path, ["A1", "A2", "A1"], robots)
        assert not former.exists() and stranger.exists()
        former_book(tmp_path, "another", ["A2", "A1"], ("third", "done"), (OTHER, "uncertain"))  # killed before it went
    take_over(tmp_path, ["A1", "A2"], robots)
    book = OrderBook.of(tmp_path, ["A1", "A2"])
    said = [[(each.job_id, each.state, each.publisher, each.words) for each in page[:2]] for page in book.pages()]
    assert said == [[("third", "done", "another", "lost"), (OTHER, "uncertain", "another", "lost")]] * 2
    assert sorted(len(page) for page in book.pages()) == [2, 3]
    with pytest.raises(PrintUncertain, match="doesn't know when"):
        book.ask(OTHER, again=True)
    book.ask(MINE)
    book.ask("looked", confirmed=True)
    with pytest.raises(PrintUncertain, match="earlier print of this study at another ended unclear"):
        decide(book.pages(), MINE, 1, "robot")
    book.begin(book.open("looked", 1, "robot"))
    former_book(tmp_path, "another", ["A2", "A1"], (OTHER, "uncertain"))
    take_over(tmp_path, ["A1", "A2"], robots)
    assert all(page[1].state == "settled" for page in book.pages())


def test_two_jobs_may_take_a_former_book_over_at_once(tmp_path: Path) -> None:
    former, taken = former_book(tmp_path, "robot", ["A1"], (OTHER, "done")), []

    def take() -> None:
        take_over(tmp_path, ["A1"], ["robot"])
        taken.append(True)

    with (tmp_path / "book.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        taking = Thread(target=take)
        taking.start()
        taking.join(0.3)
        former.unlink()
    taking.join(LONG)
    assert taken == [True]


def test_a_former_book_that_is_damaged_stops_its_question_and_no_other(tmp_path: Path) -> None:
    former = former_book(tmp_path, "robot", ["A1"])
    former.write_text("[{")
    with pytest.raises(PrintUncertain, match="can't be read"):
        take_over(tmp_path, ["A1"], ["robot"])
    assert former.exists()
    take_over(tmp_path, ["A2"], ["robot"])
    assert list(tmp_path.iterdir()) == [former]


def test_a_former_book_goes_when_it_is_old_and_nothing_in_it_is_open(tmp_path: Path) -> None:
    books = [former_book(tmp_path, "robot", [state], (OTHER, state)) for state in ("done", "uncertain")]
    for book in books:
        os.utime(book, (0, 0))
    assert forget_old(tmp_path, 30, lambda _: ()) == 1
    assert [book.exists() for book in books] == [False, True]


def test_an_order_without_its_question_is_no_question(tmp_path: Path) -> None:
    """Its page was removed by hand while a publisher was followed, and the outcome stands on a new one."""
    book = OrderBook.of(tmp_path, ["A"])
    book.settle(entry("failed"), "failed")
    with pytest.raises(PrintUncertain, match="doesn't know when"):
        book.ask(MINE, again=True)
    with pytest.raises(PrintUncertain, match="doesn't know when"):
        decide(book.pages(), MINE, 1, "robot")


def test_an_outcome_is_written_on_every_page_even_where_a_crash_left_its_order_out(tmp_path: Path) -> None:
    book = OrderBook.of(tmp_path, ["A", "B"])
    book.ask(MINE)
    order = book.open(MINE, 1, "robot")
    book.begin(order)
    book.paths[1].write_text("[]")
    settled = book.settle(order, "done", instances=3, words="made")
    assert [page[-1] for page in book.pages()] == [settled, settled]
    assert (settled.instances, settled.words, len(book.pages()[0])) == (3, "made", 2)
    assert book.settle(settled, "done") == replace(settled, time=book.pages()[0][-1].time)
    assert book.open(MINE, 1, "robot").attempt == 2 and book.open(MINE, 2, "robot").attempt == 1


def test_what_is_written_down_has_reached_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    book = OrderBook.of(tmp_path, ["A", "B"])
    book.ask(MINE)
    assert {path.stat().st_ino for path in (*book.paths, tmp_path)} <= set(synced)


def test_a_damaged_page_is_no_empty_one(tmp_path: Path) -> None:
    book = OrderBook.of(tmp_path, ["A", "B"])
    for text in ("[{", "{}x", '[{"job_id": 1}]', "[1]"):
        book.paths[1].write_text(text)
        with pytest.raises(PrintUncertain, match="can't be read"):
            book.pages()
        with pytest.raises(PrintUncertain, match=r"can't be read.*remove that file, then ask again") as raised:
            book.ask(MINE)
        assert "confirm_reprint" not in raised.value.words  # it would be refused as well
        assert not book.paths[0].exists()


def test_a_page_that_cant_be_read_just_now_is_not_to_be_removed(tmp_path: Path) -> None:
    """It may be what says that this was ordered."""
    book = OrderBook.of(tmp_path, ["A"])
    book.ask(MINE)
    with no_descriptors(), pytest.raises(PrintUncertain, match=r"can't be read \(Too many open files\)") as raised:
        book.pages()
    assert "remove" not in raised.value.words


def test_what_changes_a_page_waits_for_who_holds_the_book(tmp_path: Path) -> None:
    book = OrderBook.of(tmp_path, ["A"])
    book.ask(MINE)
    with (tmp_path / "book.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        asking = Thread(target=book.ask, args=(OTHER,))
        asking.start()
        asking.join(0.3)
        assert asking.is_alive() and len(book.pages()[0]) == 1
    asking.join(LONG)
    assert len(book.pages()[0]) == 2


def test_old_pages_go_unless_something_on_them_is_open_or_can_be_retried(tmp_path: Path) -> None:
    states: dict[str, State] = {
        "known": "done",
        "open": "uncertain",
        "giving": "giving",
        "young": "done",
        "retried": "failed",
    }
    pages = {name: OrderBook.of(tmp_path, [name]) for name in states}
    for name, state in states.items():
        pages[name].ask(f"the job of {name}")
        pages[name].settle(pages[name].open(f"the job of {name}", 1, "robot"), state)
        if name != "young":
            os.utime(pages[name].paths[0], (0, 0))
    for name in ("hash.patient", "left.new", "publisher.lock"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "now.patient").touch()
    told: list[list[str]] = []

    def known(job_ids: Collection[str]) -> Collection[str]:
        told.append(list(job_ids))
        return {"the job of retried"}

    assert forget_old(tmp_path, 30, known) == 1
    assert told == [["the job of known", "the job of retried"]]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {pages[name].paths[0].name for name in states if name != "known"} | {
        "now.patient",
        "publisher.lock",
        "book.lock",
    }
    assert forget_old(tmp_path, 30, lambda _: ()) == 1
    assert not pages["retried"].paths[0].exists()
    assert forget_old(tmp_path / "absent", 30, known) == 0
    assert len(told) == 1


def test_a_page_is_old_after_just_the_days_that_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = OrderBook.of(tmp_path, ["A"])
    book.ask(MINE)
    monkeypatch.setattr("time.time", lambda: 10 * 86_400.0)
    for age_days, went in ((2, 0), (2 + 1 / 86_400, 1)):
        os.utime(book.paths[0], ((10 - age_days) * 86_400,) * 2)
        assert forget_old(tmp_path, 2, lambda _: ()) == went


def test_a_page_on_which_somebody_asks_meanwhile_stays(tmp_path: Path) -> None:
    book = OrderBook.of(tmp_path, ["A"])
    book.ask(MINE)
    os.utime(book.paths[0], (0, 0))

    def ask(_: Collection[str]) -> Collection[str]:
        book.ask(OTHER)
        return ()

    assert forget_old(tmp_path, 30, ask) == 0
    assert len(book.pages()[0]) == 2


Ends = Literal["ok", "refused", "partly", "lost", "down"]
Break = Literal["no", "before giving", "after begin", "after giving"]


class _Killed(BaseException):
    """The process ends here."""


@dataclass
class FakePublisher:
    """Counts what it was given; breaks off where it is told; `can_tell` whether it knows afterwards."""

    can_tell: bool
    breaks: Break = "no"
    ends: Ends = "ok"
    given: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    begun: int = 0
    settles: list[float] = field(default_factory=list)
    name: str = "robot"
    where: str = "localhost:104"
    needs_image: bool = False

    def check(self) -> str:
        return "fine"

    def tells_part(self) -> bool:
        return True

    def rewrites(self, order: Order) -> bool:
        return False

    def settles_in_seconds(self, order: Order) -> float:
        return self.settles.pop(0) if self.settles else 0

    def place(self, order: Order, before_giving: Callable[[], None], watch: Watch) -> Receipt:
        if self.ends == "down":
            raise PublisherUnavailable("down")
        if self.breaks == "before giving":
            raise _Killed
        before_giving()
        self.begun += 1
        if self.breaks == "after begin":
            raise _Killed
        if self.ends == "refused":
            raise PublisherRefused("no")
        if self.ends == "partly":
            self.parts.append(order.order_id)
            raise PublisherRefused("2 of 3", accepted=2)
        self.given.append(order.order_id)
        if self.ends == "lost":
            raise PrintUncertain("lost")
        if self.breaks == "after giving":
            raise _Killed
        return Receipt(self.name, order.order_id, "queued", 3, "queued")

    def was_given(self, order: Order) -> bool | None:
        return (order.order_id in [*self.given, *self.parts]) if self.can_tell else None

    def follow(self, order: Order, receipt: Receipt, watch: Watch) -> Receipt:
        assert order.order_id in self.given
        return Receipt(self.name, order.order_id, "done", receipt.instances, "done")

    def cancel(self, order: Order) -> bool:
        return order.order_id in self.given


def order(job_id: str, *images: int, volume: Volume = Volume()) -> Order:  # noqa: B008  frozen
    instances = tuple(Arrival(f"1.2.{image}", "1", "1", "1.2", Path(), 1, "") for image in images)
    return Order(job_id, Patient("HN-1"), ("A1",), instances, volume=volume)


@pytest.mark.parametrize("breaks", ["before giving", "after begin", "after giving"])
@pytest.mark.parametrize("can_tell", [True, False])
def test_each_break_of_one_job(tmp_path: Path, breaks: Break, can_tell: bool) -> None:
    publisher = FakePublisher(can_tell, breaks)
    with pytest.raises(_Killed):
        give(publisher, order(MINE), tmp_path, Watch())
    publisher.breaks = "no"
    if can_tell or breaks == "before giving":
        give(publisher, order(MINE), tmp_path, Watch())
        assert follow(publisher, order(MINE), tmp_path, Watch()).proves == "done"
        assert len(publisher.given) == 1
    else:
        before = list(publisher.given)
        for _ in range(2):
            with pytest.raises(PrintUncertain, match="confirm_reprint"):
                give(publisher, order(MINE), tmp_path, Watch())
        assert publisher.given == before
        give(publisher, order(OTHER), tmp_path, Watch(), confirm_reprint=True)
        assert len(publisher.given) == len(before) + 1


def test_a_job_whose_print_another_request_has_made_anew_gives_no_second(tmp_path: Path) -> None:
    publisher = FakePublisher(can_tell=False, ends="lost")
    with pytest.raises(PrintUncertain):
        give(publisher, order(MINE), tmp_path, Watch())
    publisher.ends = "ok"
    give(publisher, order(OTHER), tmp_path, Watch(), confirm_reprint=True)
    with pytest.raises(PrintUncertain, match="another request has made it again"):
        give(publisher, order(MINE), tmp_path, Watch())


def test_an_unclear_outcome_stops_every_same_question_until_it_is_confirmed(tmp_path: Path) -> None:
    publisher = FakePublisher(can_tell=False, ends="lost")
    with pytest.raises(PrintUncertain):
        give(publisher, order(MINE), tmp_path, Watch())
    publisher.ends = "ok"
    with pytest.raises(PrintUncertain):
        give(publisher, order(OTHER), tmp_path, Watch())
    give(publisher, order("looked"), tmp_path, Watch(), confirm_reprint=True)
    for job_id in (MINE, OTHER):
        with pytest.raises(PrintUncertain, match="ask again"):
            give(publisher, order(job_id), tmp_path, Watch())
    third = give(publisher, order("third"), tmp_path, Watch())
    assert third.minutes_since_last == 0


def test_a_confirmation_is_spent_by_the_job_that_brings_it(tmp_path: Path) -> None:
    publisher = FakePublisher(can_tell=False, ends="lost")
    for job_id in (MINE, OTHER):
        with pytest.raises(PrintUncertain, match="lost"):
            give(publisher, order(job_id), tmp_path, Watch(), confirm_reprint=True)
        with pytest.raises(PrintUncertain, match="confirm_reprint"):
            give(publisher, order(job_id), tmp_path, Watch(), confirm_reprint=True)
    assert len(publisher.given) == 2


def test_a_study_that_grew_between_two_attempts_is_not_the_disc_of_the_first(tmp_path: Path) -> None:
    """Two volumes: the first was given as {1, 2}, the second was not taken; with image 0 in the study image 0 would be
    on no disc.
    """
    publisher = FakePublisher(can_tell=True)
    give(publisher, order(MINE, 1, 2, volume=Volume(1, 2)), tmp_path, Watch())
    publisher.ends = "down"
    with pytest.raises(PublisherUnavailable):
        give(publisher, order(MINE, 3, volume=Volume(2, 2)), tmp_path, Watch())
    publisher.ends = "ok"
    with pytest.raises(PrintUncertain, match=r"other images: the study has changed since\..*confirm_reprint"):
        give(publisher, order(MINE, 0, 1, volume=Volume(1, 2)), tmp_path, Watch())
    assert len(publisher.given) == 1
    give(publisher, order(OTHER, 0, 1, volume=Volume(1, 2)), tmp_path, Watch(), confirm_reprint=True)
    assert len(publisher.given) == 2


def test_a_first_disc_is_not_taken_for_that_of_another_set(tmp_path: Path) -> None:
    """It holds the same, but the set has another second disc by now: an image more, or one whose bytes have changed."""
    publisher, first = FakePublisher(can_tell=True), Volume(1, 2)

    def of_set(*numbers: int, sha256: str = "1") -> Order:
        others = order(MINE, *numbers).instances
        changed = tuple(replace(each, sha256=sha256) for each in others)
        return replace(order(MINE, 1, 2, volume=first), of_set=changed)

    give(publisher, of_set(1, 2, 3), tmp_path, Watch())
    for other in (of_set(1, 2, 3, 4), of_set(1, 2, 4), of_set(1, 2, 3, sha256="2")):
        with pytest.raises(PrintUncertain, match="other images"):
            give(publisher, other, tmp_path, Watch())
    give(publisher, of_set(3, 2, 1), tmp_path, Watch())
    assert len(publisher.given) == 1


@pytest.mark.parametrize("breaks", ["no", "after giving"])
@pytest.mark.parametrize("changed", [order(MINE, 1, 2, 3), order(MINE, 1), order(MINE, 1, 2, volume=Volume(1, 2))])
def test_a_retry_with_other_contents_needs_a_look_and_one_with_the_same_does_not(
    tmp_path: Path, breaks: Break, changed: Order
) -> None:
    publisher = FakePublisher(can_tell=True, breaks=breaks)
    with suppress(_Killed):
        give(publisher, order(MINE, 1, 2), tmp_path, Watch())
    publisher.breaks = "no"
    with pytest.raises(PrintUncertain, match="other images"):
        give(publisher, changed, tmp_path, Watch())
    give(publisher, order(MINE, 2, 1), tmp_path, Watch())
    assert len(publisher.given) == 1


def test_an_end_and_another_jobs_order_are_both_written_down(tmp_path: Path) -> None:
    """An end never waits for the publisher lock, and what another job writes at that moment isn't lost."""
    publisher = FakePublisher(can_tell=True)
    book = OrderBook.of(tmp_path, ["A1"])
    give(publisher, order(MINE), tmp_path, Watch())
    with publisher_lock(tmp_path / lock_name(publisher.where), "robot", Watch()):
        assert follow(publisher, order(MINE), tmp_path, Watch()).proves == "done"
        jobs = [f"job {number}" for number in range(8)]
        asking = [Thread(target=OrderBook.of(tmp_path, ["A1"]).ask, args=(job,)) for job in jobs]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(LONG)
    assert {entry.job_id for entry in book.pages()[0]} == {MINE, *jobs}


def test_an_order_that_is_withdrawn_before_the_publisher_had_it_is_no_hindrance(tmp_path: Path) -> None:
    publisher = FakePublisher(can_tell=True, breaks="after begin")
    with pytest.raises(_Killed):
        give(publisher, order(MINE), tmp_path, Watch())
    assert cancel(publisher, order(MINE), tmp_path) is True
    publisher.breaks = "no"
    assert give(publisher, order(OTHER), tmp_path, Watch()).proves == "queued"


def test_an_order_that_can_not_be_asked_for_stays_open_when_its_job_is_cancelled(tmp_path: Path) -> None:
    publisher = FakePublisher(can_tell=False, breaks="after begin")
    with pytest.raises(_Killed):
        give(publisher, order(MINE), tmp_path, Watch())
    assert cancel(publisher, order(MINE), tmp_path) is False
    assert unclear_now(tmp_path) == [MINE]
    with pytest.raises(PrintUncertain, match="confirm_reprint"):
        give(publisher, order(OTHER), tmp_path, Watch())


def test_who_is_refused_for_a_dead_jobs_order_may_say_next_that_they_looked(tmp_path: Path) -> None:
    """The page that asks offers that only for what the book calls unclear."""
    publisher = FakePublisher(can_tell=False, breaks="after begin")
    with pytest.raises(_Killed):
        give(publisher, order(MINE), tmp_path, Watch())
    publisher.breaks = "no"
    with pytest.raises(PrintUncertain, match="confirm_reprint"):
        give(publisher, order(OTHER), tmp_path, Watch())
    assert unclear_now(tmp_path) == [MINE]


def unclear_now(orders_dir: Path) -> list[str]:
    """The jobs whose orders a page tells as unclear before it asks."""
    return [entry.job_id for entry in unclear_before(OrderBook.of(orders_dir, ["A1"]).pages(), Entry("", "asked", 0))]


def test_only_what_may_be_at_the_publisher_is_cancelled(tmp_path: Path) -> None:
    publisher = FakePublisher(can_tell=True)
    assert cancel(publisher, order(MINE), tmp_path) is None
    give(publisher, order(MINE), tmp_path, Watch())
    assert cancel(publisher, order(MINE), tmp_path)
    follow(publisher, order(MINE), tmp_path, Watch())
    assert cancel(publisher, order(MINE), tmp_path) is None


def test_an_order_that_was_not_given_can_not_be_followed(tmp_path: Path) -> None:
    with pytest.raises(PrintUncertain, match="no given order"):
        follow(FakePublisher(True), order(MINE), tmp_path, Watch())


def test_a_patient_of_a_clock_that_was_ahead_settles_once(tmp_path: Path) -> None:
    settling = Settling(tmp_path, "robot", "P1", settle_seconds=90)
    assert settling.left_seconds() == 0
    settling.touch()
    assert settling.left_seconds() == pytest.approx(90, abs=20)
    [file] = tmp_path.iterdir()
    os.utime(file, (time.time() + 86_400,) * 2)
    assert settling.left_seconds() == 90
    assert settling.left_seconds() == pytest.approx(90, abs=20)  # it counts from when it was seen first
    os.utime(file, (time.time() - 91,) * 2)
    assert settling.left_seconds() == 0
    assert list(tmp_path.iterdir()) == [file]


def test_others_have_their_turn_while_one_patient_settles(tmp_path: Path) -> None:
    publisher = FakePublisher(can_tell=True, settles=[60])

    class Stop(Event):
        def wait(self, timeout: float | None = None) -> bool:
            give(publisher, replace(order(OTHER), accession_numbers=("A2",)), tmp_path, Watch())
            return False

    give(publisher, order(MINE), tmp_path, Watch(stop=Stop()))
    assert [given.split("-")[0] for given in publisher.given] == [
        entry("given", job_id).order_id.split("-")[0] for job_id in (OTHER, MINE)
    ]


def test_who_is_overtaken_while_its_patient_settles_gives_nothing(tmp_path: Path) -> None:
    publisher = FakePublisher(can_tell=True, settles=[60])

    class Stop(Event):
        def wait(self, timeout: float | None = None) -> bool:
            give(publisher, order(OTHER), tmp_path, Watch())
            return False

    with pytest.raises(PrintUncertain, match="newer request"):
        give(publisher, order(MINE), tmp_path, Watch(stop=Stop()))
    assert len(publisher.given) == 1


def test_a_print_can_be_stopped_while_its_patient_settles(tmp_path: Path) -> None:
    publisher, watch = FakePublisher(can_tell=True, settles=[60]), Watch()
    watch.stop.set()
    with pytest.raises(PublisherUnavailable, match="settled; nothing was sent"):
        give(publisher, order(MINE), tmp_path, watch)
    assert publisher.given == []


def test_two_names_of_one_publisher_are_one() -> None:
    where = CStore(host="Robot", port=104).where
    assert MediaCreation(host="robot", port=104, ae_title="ANOTHER").where == where
    assert CStore(host="robot", port=105).where != where
    watched = [Robot.model_validate({"kind": kind, "directory": "/jobs"}).where for kind in ("epson", "folder")]
    assert len({where, *watched}) == 2 and lock_name(where) != lock_name(watched[0])


JOBS = [
    ("job 1", ("A1",), False),
    ("job 2", ("A1", "A2"), False),
    ("job 3", ("A2",), True),
    ("job 4", ("A1", "A2"), True),
]
"""Each with the accession numbers that it asks for, and whether under confirm_reprint."""
ATTEMPTS = st.lists(
    st.tuples(
        st.sampled_from(JOBS),
        st.sampled_from(["robot", "another"]),
        st.sampled_from(["ask alone", "no", "before giving", "after begin", "after giving"]),
        st.sampled_from(["ok", "refused", "partly", "lost", "down"]),
    ),
    max_size=9,
)


@settings(max_examples=100, deadline=None)
@given(attempts=ATTEMPTS, can_tell=st.booleans())
def test_no_sequence_of_attempts_and_breaks_makes_a_disc_that_nobody_asked_for(
    attempts: list[tuple[tuple[str, tuple[str, ...], bool], str, Break | Literal["ask alone"], Ends]], can_tell: bool
) -> None:
    """A job makes one disc, or a part of one, at most, whatever is retried, and none where another job has made one of
    its numbers since it was first asked; while an outcome is unclear nothing is given without a confirmation. Judged by
    what lies at the robots.
    """
    with tempfile.TemporaryDirectory() as folder:
        robots = {name: FakePublisher(can_tell, name=name, where=name) for name in ("robot", "another")}
        asked: dict[str, int] = {}
        made: list[tuple[int, str, tuple[str, ...]]] = []
        unclear: dict[str, set[str]] = {"A1": set(), "A2": set()}
        for now, ((job_id, numbers, confirm), name, breaks, ends) in enumerate(attempts):
            asked.setdefault(job_id, now)
            if breaks == "ask alone":
                OrderBook.of(Path(folder), numbers).ask(job_id, confirmed=confirm)
                continue
            robot = robots[name]
            robot.breaks, robot.ends = breaks, ends
            begun, lay = robot.begun, len(robot.given) + len(robot.parts)
            with suppress(_Killed, PublisherRefused, PublisherUnavailable, PrintUncertain):
                give(
                    robot,
                    replace(order(job_id), accession_numbers=numbers),
                    Path(folder),
                    Watch(),
                    confirm_reprint=confirm,
                )
            if len(robot.given) + len(robot.parts) > lay:
                for when, other, of in made:
                    assert other != job_id
                    assert when < asked[job_id] or not set(of) & set(numbers)
                made.append((now, job_id, numbers))
            if robot.begun > begun and not can_tell:
                known = (ends == "refused" and breaks != "after begin") or (ends, breaks) == ("ok", "no")
                for number in numbers:
                    assert confirm or not unclear[number] - {job_id}
                    unclear[number] = (set() if confirm else unclear[number]) | (set() if known else {job_id})

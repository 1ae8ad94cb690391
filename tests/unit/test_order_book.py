"""The order book: every state, every place where a run can break off, and what the next run does."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mkiso.errors import PrintUncertain, PublisherRefused, PublisherUnavailable
from mkiso.publishers.desk import cancel, follow, give
from mkiso.publishers.lock import Settling, turn
from mkiso.publishers.orderbook import Entry, OrderBook, State, begin, decide, forget_old, made_before, question_of
from mkiso.publishers.protocol import Order, Receipt, Watch
from mkiso.study.models import Arrival, Patient, Volume

MINE, OTHER = "0b0a1b2c-0000-4000-8000-000000000001", "0b0a1b2c-0000-4000-8000-000000000002"


def entry(state: State, job_id: str = MINE, *, volume: int = 1, attempt: int = 1, confirmed: bool = False) -> Entry:
    return Entry(job_id, volume, attempt, state, time.time(), confirmed=confirmed)


@pytest.mark.parametrize(
    ("state", "confirmed_then", "confirm_now", "step"),
    [
        ("giving", False, False, "find out"),
        ("giving", False, True, "give"),
        ("giving", True, True, "find out"),
        ("uncertain", False, False, "find out"),
        ("uncertain", False, True, "give"),
        ("uncertain", True, True, "find out"),
        ("not given", False, False, "give"),
        ("failed", False, False, "give"),
        ("settled", False, True, "give"),
        ("given", False, False, "follow"),
        ("given", False, True, "follow"),
        ("done", False, False, "rest"),
        ("done", False, True, "rest"),
    ],
)
def test_what_a_rerun_of_the_same_job_does(state: State, confirmed_then: bool, confirm_now: bool, step: str) -> None:
    assert decide([entry(state, confirmed=confirmed_then)], MINE, 1, confirm_now) == step


@pytest.mark.parametrize("state", ["not given", "given", "done", "failed", "settled"])
def test_another_job_whose_outcome_is_known_is_no_hindrance(state: State) -> None:
    assert decide([entry(state, OTHER)], MINE, 1, False) == "give"


@pytest.mark.parametrize("state", ["giving", "uncertain"])
def test_another_job_whose_outcome_is_unknown_has_to_be_looked_at(state: State) -> None:
    with pytest.raises(PrintUncertain, match="confirm_reprint"):
        decide([entry(state, OTHER)], MINE, 1, False)
    assert decide([entry(state, OTHER)], MINE, 1, True) == "give"


def test_a_confirmation_settles_what_was_open_but_not_the_other_volumes_of_the_same_print() -> None:
    book = begin([entry("uncertain", OTHER), entry("giving", volume=1)], entry("giving", volume=2, confirmed=True))
    assert [old.state for old in book] == ["settled", "giving", "giving"]


def test_a_question_is_the_same_in_any_order_and_differs_by_publisher() -> None:
    assert question_of("rimage", ["A", "B"]) == question_of("rimage", ["B", "A", "B"])
    assert (
        len({question_of("rimage", ["A", "B"]), question_of("epson", ["A", "B"]), question_of("rimage", ["AB"])}) == 3
    )


def test_order_ids_fit_every_robot_and_differ_by_volume_and_attempt() -> None:
    ids = [Entry(MINE, volume, attempt, "giving", 0).order_id for volume in (1, 12) for attempt in (1, 11)]
    assert len(set(ids)) == 4
    assert all(1 <= len(order_id) <= 32 and set(order_id) <= set("0123456789abcdef-") for order_id in ids)


def test_the_newest_disc_of_another_job_is_remembered() -> None:
    book = [entry("done", OTHER), entry("given", "third"), entry("failed", "fourth"), entry("done")]
    assert made_before(book, MINE) == book[1]


def test_a_damaged_book_is_no_empty_one(tmp_path: Path) -> None:
    book = OrderBook.of(tmp_path, "question")
    book.path.write_text("[{")
    with pytest.raises(PrintUncertain, match="can't be read"):
        book.entries()


def test_old_books_go_unless_something_in_them_is_open(tmp_path: Path) -> None:
    for name, state in (("known", "done"), ("open", "uncertain"), ("young", "done")):
        OrderBook.of(tmp_path, name).begin(entry(state))
        if name != "young":
            os.utime(tmp_path / f"{name}.json", (0, 0))
    (tmp_path / "hash.patient").touch()
    os.utime(tmp_path / "hash.patient", (0, 0))
    assert forget_old(tmp_path, 30) == 1
    assert not (tmp_path / "hash.patient").exists()
    assert forget_old(tmp_path / "absent", 30) == 0
    assert sorted(file.stem for file in tmp_path.glob("*.json")) == ["open", "young"]


Break = Literal["no", "before giving", "after begin", "after giving"]


class _Killed(BaseException):
    """The process ends here."""


@dataclass
class FakePublisher:
    """Counts what it was given; breaks off where it is told; `can_tell` whether it knows afterwards."""

    can_tell: bool
    breaks: Break = "no"
    ends: Literal["ok", "refused", "partly", "lost", "down"] = "ok"
    given: list[str] = field(default_factory=list)
    parts: int = 0
    begun: int = 0
    name: str = "robot"
    needs_image: bool = False

    def check(self) -> str:
        return "fine"

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
            self.parts += 1
            raise PublisherRefused("2 of 3", accepted=2)
        self.given.append(order.order_id)
        if self.ends == "lost":
            raise PrintUncertain("lost")
        if self.breaks == "after giving":
            raise _Killed
        return Receipt(self.name, order.order_id, "queued", 3, "queued")

    def was_given(self, order: Order) -> bool | None:
        return (order.order_id in self.given) if self.can_tell else None

    def follow(self, order: Order, receipt: Receipt, watch: Watch) -> Receipt:
        assert order.order_id in self.given
        return Receipt(self.name, order.order_id, "done", receipt.instances, "done")

    def cancel(self, order: Order) -> bool:
        return order.order_id in self.given


def order(job_id: str, *images: int, volume: Volume = Volume()) -> Order:  # noqa: B008  frozen
    instances = tuple(Arrival(f"1.2.{image}", "1", "1", "1.2", Path(), 1, "") for image in images)
    return Order(job_id, "question", Patient("HN-1"), ("A1",), instances, volume=volume)


Run = tuple[str, bool, Break, Literal["ok", "refused", "partly", "lost", "down"]]
RUNS = st.lists(
    st.tuples(
        st.sampled_from([MINE, OTHER]),
        st.booleans(),
        st.sampled_from(["no", "before giving", "after begin", "after giving"]),
        st.sampled_from(["ok", "refused", "partly", "lost", "down"]),
    ),
    max_size=7,
)


@settings(max_examples=60, deadline=None)
@given(runs=RUNS, can_tell=st.booleans())
def test_no_sequence_of_runs_and_breaks_makes_a_disc_that_nobody_asked_for(runs: list[Run], can_tell: bool) -> None:
    """A job makes one disc, and one more only where its operator confirms; while an outcome is unclear nothing is given
    without a confirmation.
    """
    with tempfile.TemporaryDirectory() as folder:
        publisher = FakePublisher(can_tell)
        unclear = False
        made = {MINE: 0, OTHER: 0}
        confirmed = {MINE: False, OTHER: False}
        for job_id, confirm, publisher.breaks, publisher.ends in runs:
            before, begun = len(publisher.given) + publisher.parts, publisher.begun
            with suppress(_Killed, PublisherRefused, PublisherUnavailable, PrintUncertain):
                give(publisher, order(job_id), Path(folder), Watch(), confirm_reprint=confirm)
            new = len(publisher.given) + publisher.parts - before
            assert new <= 1
            if publisher.begun > begun and not can_tell:
                assert confirm or not unclear
                known = (publisher.ends == "refused" and publisher.breaks != "after begin") or (
                    publisher.ends,
                    publisher.breaks,
                ) == ("ok", "no")
                unclear = not known
            made[job_id] += new
            confirmed[job_id] |= confirm
        for job_id in made:
            assert made[job_id] <= 1 + confirmed[job_id] + (publisher.parts if can_tell else 0)


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
        give(publisher, order(MINE), tmp_path, Watch(), confirm_reprint=True)
        assert len(publisher.given) == len(before) + 1


def test_a_job_whose_print_another_request_has_made_anew_gives_no_second(tmp_path: Path) -> None:
    publisher = FakePublisher(can_tell=False, ends="lost")
    with pytest.raises(PrintUncertain):
        give(publisher, order(MINE), tmp_path, Watch())
    publisher.ends = "ok"
    give(publisher, order(OTHER), tmp_path, Watch(), confirm_reprint=True)
    with pytest.raises(PrintUncertain, match="made it anew"):
        give(publisher, order(MINE), tmp_path, Watch())


def test_an_unclear_outcome_counts_for_everybody_who_asks_the_same_until_somebody_confirms(tmp_path: Path) -> None:
    publisher = FakePublisher(can_tell=False, ends="lost")
    with pytest.raises(PrintUncertain):
        give(publisher, order(MINE), tmp_path, Watch())
    publisher.ends = "ok"
    with pytest.raises(PrintUncertain):
        give(publisher, order(OTHER), tmp_path, Watch())
    give(publisher, order(OTHER), tmp_path, Watch(), confirm_reprint=True)
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


def test_a_study_that_has_grown_between_two_attempts_is_not_taken_for_the_disc_of_the_first(tmp_path: Path) -> None:
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
    assert give(publisher, of_set(3, 2, 1), tmp_path, Watch()).given_before
    assert len(publisher.given) == 1


@pytest.mark.parametrize("breaks", ["no", "after giving"])
@pytest.mark.parametrize("changed", [order(MINE, 1, 2, 3), order(MINE, 1), order(MINE, 1, 2, volume=Volume(1, 2))])
def test_a_retry_with_other_contents_has_to_be_looked_at_and_one_with_the_same_has_not(
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


def test_a_receipt_says_whether_an_earlier_attempt_had_given_the_order(tmp_path: Path) -> None:
    publisher = FakePublisher(can_tell=True, breaks="after giving")
    with pytest.raises(_Killed):
        give(publisher, order(MINE), tmp_path, Watch())
    publisher.breaks = "no"
    assert not give(publisher, order(MINE), tmp_path, Watch()).given_before  # nobody has told of it yet
    assert give(publisher, order(MINE), tmp_path, Watch()).given_before
    assert not give(publisher, order(OTHER), tmp_path, Watch()).given_before


def test_an_end_is_written_down_in_the_publishers_turn(tmp_path: Path) -> None:
    """Another job that begins an order holds the turn: what it writes is not lost by an end that is written at the same
    time.
    """
    publisher = FakePublisher(can_tell=True)
    give(publisher, order(MINE), tmp_path, Watch())
    ended: list[str] = []
    following = Thread(target=lambda: ended.append(follow(publisher, order(MINE), tmp_path, Watch()).proves))
    with turn(tmp_path / "robot.turn", "robot", Watch()):
        following.start()
        following.join(0.5)
        book = OrderBook.of(tmp_path, "question")
        assert [entry.state for entry in book.entries()] == ["given"]
        book.begin(book.open(OTHER, 1, confirmed=False))
    following.join(10)
    assert ended == ["done"]
    assert [(entry.job_id, entry.state) for entry in book.entries()] == [(MINE, "done"), (OTHER, "giving")]


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
    with pytest.raises(PrintUncertain, match="confirm_reprint"):
        give(publisher, order(OTHER), tmp_path, Watch())


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


def test_a_patient_of_a_clock_that_was_ahead_settles_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settling = Settling(tmp_path, "robot", "P1", settle_seconds=90)
    settling.touch()
    [file] = tmp_path.iterdir()
    os.utime(file, (time.time() + 86_400,) * 2)
    clock, waited = [time.time()], [0.0]
    monkeypatch.setattr("time.time", lambda: clock[0])

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            clock[0] += timeout or 0
            waited[0] += timeout or 0
            assert waited[0] < 1000, "it waits for the clock to get there"
            return False

    settling.wait(Watch(stop=Stop()))
    assert waited[0] == pytest.approx(90, abs=1)

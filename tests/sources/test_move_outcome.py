"""The table of C-MOVE outcomes, row by row."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from mkiso.config.settings import Receiver
from mkiso.errors import MkisoError, PacsBusy, PacsRefused
from mkiso.sources.move import identifier
from mkiso.sources.move_outcome import Level, MoveResult, Step, after_quiet, failure, is_coarser, merged, next_step
from mkiso.sources.protocol import Target
from mkiso.sources.retrieve import targets
from mkiso.study.models import Expected, Study

ALL = MoveResult(0x0000, completed=3, failed=0, warning=0, remaining=0)
NO_COUNTS = MoveResult(0x0000)
ONE_FAILED = MoveResult(0xB000, completed=2, failed=1, warning=0, remaining=0)
ONE_FAILED_SUCCESS = MoveResult(0x0000, completed=2, failed=1, warning=0, remaining=0)
NONE_SENT = MoveResult(0x0000, completed=0, failed=0, warning=0, remaining=0)
LOST = MoveResult(None)
LISTED = Expected("image", 3, {"1": frozenset({"1.1", "1.2", "1.3"})})
NOTHING = Expected("none", None)
STUDY = Study("A1", "1.2.3", "HN-0001", "Canary^Name", "19700102")


@pytest.mark.parametrize(
    ("result", "complete", "arrived", "level", "step"),
    [
        (ALL, True, 3, "STUDY", Step.DONE),
        (ALL, False, 0, "STUDY", Step.WAIT),  # the final response before the images
        (ALL, False, 3, "STUDY", Step.AGAIN),  # it sent all it knows, and C-FIND knows more
        (ONE_FAILED, True, 2, "STUDY", Step.PROVE),  # what failed may have arrived before, or isn't listed
        (ONE_FAILED, False, 2, "STUDY", Step.AGAIN),
        (ONE_FAILED, False, 1, "STUDY", Step.WAIT),
        (ONE_FAILED_SUCCESS, False, 2, "STUDY", Step.AGAIN),
        (NO_COUNTS, True, 3, "STUDY", Step.PROVE),
        (NO_COUNTS, False, 2, "STUDY", Step.WAIT),
        (NONE_SENT, False, 0, "STUDY", Step.AGAIN),
        (MoveResult(0xB000), False, 0, "STUDY", Step.WAIT),
        (ALL, False, 3, "IMAGE", Step.WAIT),  # an asynchronous Orthanc counts a list as one
        (ONE_FAILED, False, 2, "IMAGE", Step.AGAIN),
        (NONE_SENT, False, 0, "IMAGE", Step.AGAIN),
        (LOST, True, 3, "STUDY", Step.PROVE),
        (LOST, False, 2, "STUDY", Step.WAIT),
        (MoveResult(0xA701), False, 0, "STUDY", Step.BACK_OFF),
        (MoveResult(0xA702), False, 2, "STUDY", Step.BACK_OFF),
        (MoveResult(0xA702), True, 3, "STUDY", Step.PROVE),
        (MoveResult(0xA801), False, 0, "STUDY", Step.FAIL),
        (MoveResult(0xA801), False, 0, "IMAGE", Step.FAIL),
        (MoveResult(0xA801), False, 2, "STUDY", Step.BACK_OFF),  # it knows where to: a transfer failed
        (MoveResult(0xA801), False, 1, "STUDY", Step.BACK_OFF),
        (MoveResult(0xA801, failed=3), False, 0, "STUDY", Step.BACK_OFF),
        (MoveResult(0xA801, failed=1), False, 0, "STUDY", Step.BACK_OFF),
        (MoveResult(0xA801), True, 3, "STUDY", Step.PROVE),
        (MoveResult(0xA900), False, 0, "STUDY", Step.FAIL),
        (MoveResult(0xA900), False, 0, "SERIES", Step.COARSER),
        (MoveResult(0xA900), False, 0, "IMAGE", Step.COARSER),
        (MoveResult(0x0120), False, 0, "STUDY", Step.FAIL),
        (MoveResult(0x0122), False, 0, "IMAGE", Step.COARSER),
        (MoveResult(0xC000), True, 3, "STUDY", Step.PROVE),
        (MoveResult(0xC123), False, 2, "STUDY", Step.BACK_OFF),
        (MoveResult(0xC000), False, 0, "IMAGE", Step.SPLIT),
        (MoveResult(0xC000), False, 0, "SERIES", Step.SPLIT),
        (MoveResult(0xC000), False, 0, "STUDY", Step.BACK_OFF),
        (MoveResult(0xFE00), True, 3, "STUDY", Step.FAIL),
        (MoveResult(0x1234), True, 3, "STUDY", Step.FAIL),
        (MoveResult(0x0110), False, 0, "STUDY", Step.FAIL),
        # nothing is known of what should come
        (ALL, None, 3, "STUDY", Step.DONE),
        (ALL, None, 2, "STUDY", Step.WAIT),
        (NO_COUNTS, None, 3, "STUDY", Step.WAIT),
        (ONE_FAILED, None, 2, "STUDY", Step.AGAIN),
        (ONE_FAILED_SUCCESS, None, 2, "STUDY", Step.AGAIN),
        (LOST, None, 3, "STUDY", Step.WAIT),
        (MoveResult(0xC000), None, 3, "STUDY", Step.BACK_OFF),
    ],
)
def test_the_table(result: MoveResult, complete: bool | None, arrived: int, level: Level, step: Step) -> None:
    expected = NOTHING if complete is None else LISTED
    assert step_after(result, expected=expected, complete=complete, arrived=arrived, level=level) is step


def step_after(
    result: MoveResult,
    *,
    complete: bool | None,
    arrived: int,
    level: Level,
    expected: Expected = LISTED,
    grew: bool = False,
) -> Step:
    return next_step(result, expected=expected, complete=complete, arrived=arrived, level=level, grew=grew)


STATUSES = (
    None,
    0x0000,
    0xB000,
    0xA701,
    0xA702,
    0xA900,
    0x0120,
    0x0122,
    0xC000,
    0xCFFF,
    0xA801,
    0xFE00,
    0x0110,
    0xD000,
)
COUNTS: tuple[dict[str, Any], ...] = (
    {}, {"completed": 3}, {"completed": 2, "warning": 1}, {"completed": 3, "failed": 0, "warning": 0, "remaining": 0},
    {"completed": 2}, {"completed": 4}, {"completed": 2, "failed": 1}, {"completed": 3, "failed": 1},
    {"completed": 3, "remaining": 1}, {"completed": 0, "failed": 3}, {"warning": 3},
)  # fmt: skip


LEVELS: tuple[Level, ...] = ("STUDY", "SERIES", "IMAGE")


@pytest.mark.parametrize("status", STATUSES)
def test_what_arrived_whole_is_done_only_by_the_pacs_own_word(status: int | None) -> None:
    """Every status, every count: 3 of 3 have arrived."""
    for counts, level, expected in product(COUNTS, LEVELS, (LISTED, Expected("series", 3), Expected("study", 3))):
        result = MoveResult(status, **counts)
        step = step_after(result, expected=expected, complete=True, arrived=3, level=level)
        if status in (0xFE00, 0x0110, 0xD000):
            assert step is Step.FAIL
        elif status == 0 and level == "STUDY" and counts in COUNTS[1:4]:
            assert step is Step.DONE
        elif expected is LISTED or (status == 0 and not counts.get("failed") and not counts.get("remaining")):
            assert step is Step.PROVE
        else:  # a number, and a failure
            assert step not in (Step.DONE, Step.PROVE)
            assert step is step_after(result, expected=expected, complete=False, arrived=3, level=level)


def test_what_failed_after_some_came_is_asked_for_in_pieces_where_it_is_listed() -> None:
    unable = MoveResult(0xC000)
    for expected, step in ((LISTED, Step.SPLIT), (Expected("series", 3), Step.BACK_OFF)):
        told = next_step(unable, expected=expected, complete=False, arrived=2, level="STUDY", grew=False, came=True)
        assert told is step


@pytest.mark.parametrize(
    ("result", "refused"),
    [
        (MoveResult(0x0000, completed=3, failed=0, warning=0), 1),
        (MoveResult(0x0000, completed=2, failed=0, warning=1), 0),
    ],
)
def test_what_was_refused_or_warned_of_isnt_waited_for(result: MoveResult, refused: int) -> None:
    told = next_step(
        result, expected=LISTED, complete=False, arrived=2, level="STUDY", grew=False, refused=refused, came=True
    )
    assert told is Step.AGAIN


@pytest.mark.parametrize("status", STATUSES)
def test_what_is_known_to_be_incomplete_is_never_done(status: int | None) -> None:
    for counts, level, expected, arrived in product(COUNTS, LEVELS, (LISTED, Expected("series", 3)), (0, 2, 3, 4)):
        result = MoveResult(status, **counts)
        step = step_after(result, expected=expected, complete=False, arrived=arrived, level=level, grew=True)
        assert step not in (Step.DONE, Step.PROVE)
        assert after_quiet(result, complete=False) is Step.AGAIN


@pytest.mark.parametrize("status", STATUSES)
def test_nothing_known_is_done_by_counted_success_alone(status: int | None) -> None:
    for counts in COUNTS:
        result = MoveResult(status, **counts)
        step = step_after(result, expected=NOTHING, complete=None, arrived=3, level="STUDY")
        succeeded = status == 0 and not counts.get("failed") and not counts.get("remaining")
        assert (step is Step.DONE) is (succeeded and counts.get("completed", 9) + counts.get("warning", 0) <= 3)
        assert step is not Step.PROVE
        assert (after_quiet(result, complete=None) is Step.PROVE) is (succeeded and "completed" not in counts)


@pytest.mark.parametrize("status", [None, 0xB000, 0xA702, 0xC000, 0xA900])
def test_who_counts_more_than_was_listed_is_asked_at_once(status: int | None) -> None:
    for grew in (False, True):
        step = step_after(
            MoveResult(status), expected=Expected("series", 3), complete=True, arrived=3, level="STUDY", grew=grew
        )
        assert (step is Step.PROVE) is grew


def test_what_is_told_less_of_is_coarser() -> None:
    told = [NOTHING, Expected("study", 3), Expected("series", 3), LISTED]
    for (place, fresh), (before, expected) in product(enumerate(told), repeat=2):
        assert is_coarser(fresh, expected) is (place < before)


@pytest.mark.parametrize(
    ("result", "complete", "step"),
    [
        (ALL, True, Step.AGAIN),  # a number after a failure: what is listed never waits when it is complete
        (ALL, False, Step.AGAIN),
        (LOST, False, Step.AGAIN),
        (NO_COUNTS, None, Step.PROVE),
        (ALL, None, Step.AGAIN),  # it counted more than came
        (LOST, None, Step.AGAIN),
        (MoveResult(0xB000), None, Step.AGAIN),
    ],
)
def test_after_quiet(result: MoveResult, complete: bool | None, step: Step) -> None:
    assert after_quiet(result, complete=complete) is step


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (0xA701, PacsBusy, "out of resources"),
        (0xA702, PacsBusy, "can't reach this machine"),
        (0xA801, PacsRefused, "CDRECORD"),
        (0xA801, PacsRefused, "10104"),
        (0xA900, PacsRefused, "A900"),
        (0xFE00, PacsRefused, "FE00"),
        (0x1234, PacsRefused, "1234"),
    ],
)
def test_failures_say_what_to_do(status: int, error: type[MkisoError], said: str) -> None:
    failed = failure(MoveResult(status), "The PACS", Receiver(), STUDY)
    assert type(failed) is error
    assert said in failed.words


@pytest.mark.parametrize("status", [0xA701, 0xA702, 0xA801])
@pytest.mark.parametrize(
    ("arrived", "count", "said"), [(1, None, "sent 1 image and"), (2, 5, "sent 2 images of 5 and")]
)
def test_a_pacs_that_gave_up_after_some_is_to_be_asked_again(
    status: int, arrived: int, count: int | None, said: str
) -> None:
    """It knows where to, so nothing is said of the destination."""
    study = replace(STUDY, expected=Expected("image", count))
    failed = failure(MoveResult(status, "no disk"), "The PACS", Receiver(), study, arrived)
    assert type(failed) is PacsBusy
    assert f"The PACS {said} then ended with status {status:04X} (no disk). Try again" in failed.words
    assert failed.details == {"accession_number": "A1", "status": f"{status:04X}"}


def test_another_failure_says_the_same_however_many_came() -> None:
    words = [failure(MoveResult(0xA900), "The PACS", Receiver(), STUDY, arrived) for arrived in (0, 3)]
    assert all(words) and len({error.words for error in words if error}) == 1


@pytest.mark.parametrize("status", [0xA701, 0xA702, 0x1234])
def test_the_comment_of_the_pacs_is_told_without_the_patient(status: int) -> None:
    failed = failure(MoveResult(status, "no disk for Canary, HN-0001, 19700102"), "The PACS", Receiver(), STUDY)
    assert failed is not None and "(no disk for …, …, …)" in failed.words


@pytest.mark.parametrize("result", [LOST, ALL, ONE_FAILED, MoveResult(0xC000)])
def test_no_failure_where_what_arrived_says_more(result: MoveResult) -> None:
    assert failure(result, "The PACS", Receiver(), STUDY) is None


def test_where_nothing_is_listed_all_that_was_counted_must_be_here() -> None:
    def told(result: MoveResult, arrived: int, refused: int = 0) -> Step:
        return next_step(result, expected=NOTHING, complete=None, arrived=arrived, level="STUDY", grew=False,
                         refused=refused)  # fmt: skip

    assert told(ALL, 3) is Step.DONE
    assert told(ALL, 2) is Step.WAIT
    assert told(ALL, 2, refused=1) is Step.AGAIN
    assert told(NONE_SENT, 0) is Step.DONE


def test_a_destination_to_which_something_came_before_is_known() -> None:
    for came, step in ((True, Step.BACK_OFF), (False, Step.FAIL)):
        unknown = MoveResult(0xA801)
        told = next_step(unknown, expected=LISTED, complete=False, arrived=0, level="STUDY", grew=False, came=came)
        assert told is step


def test_several_moves_as_one() -> None:
    assert merged([ONE_FAILED, ALL]).status == 0xB000
    assert merged([ALL, ONE_FAILED]) == MoveResult(0xB000, completed=5, failed=1, warning=0, remaining=0)
    assert merged([ALL, NO_COUNTS]) == MoveResult(0x0000)
    assert merged([ALL, LOST]).status is None
    assert merged([ONE_FAILED, MoveResult(0xC000)]).status == 0xC000
    assert merged([ALL]) == ALL


EXPECTED = Expected("image", 6, {"1": frozenset({"1.1", "1.2", "1.3", "1.4"}), "2": frozenset({"2.1", "2.2"})})


@pytest.mark.parametrize(
    ("missing", "finest", "wanted"),
    [
        ({"1.1", "1.2", "1.3", "1.4", "2.1", "2.2"}, "IMAGE", [Target("9")]),
        ({"1.1"}, "STUDY", [Target("9")]),
        ({"1.2", "1.1"}, "IMAGE", [Target("9", ("1",), ("1.1", "1.2"))]),
        ({"1.1", "1.2", "1.3"}, "IMAGE", [Target("9", ("1",), ("1.1", "1.2", "1.3"))]),
        ({"1.1", "1.2", "1.3", "1.4"}, "IMAGE", [Target("9", ("1",))]),
        ({"1.1"}, "SERIES", [Target("9", ("1",))]),
        ({"1.1", "2.1", "2.2"}, "IMAGE", [Target("9", ("2",)), Target("9", ("1",), ("1.1",))]),
    ],
)
def test_the_gap_is_asked_for_and_nothing_else(missing: set[str], finest: Level, wanted: list[Target]) -> None:
    assert targets("9", EXPECTED, frozenset(missing), finest) == wanted


@pytest.mark.parametrize(
    ("missing", "most", "wanted"),
    [
        ({"1.1", "1.2", "1.3", "1.4", "2.1", "2.2"}, 4, [Target("9", ("1",)), Target("9", ("2",))]),
        ({"1.1", "1.2", "1.3"}, 2, [Target("9", ("1",), ("1.1", "1.2")), Target("9", ("1",), ("1.3",))]),
        ({"1.1", "2.1", "2.2"}, 2, [Target("9", ("2",)), Target("9", ("1",), ("1.1",))]),
        ({"2.1", "2.2"}, 1, [Target("9", ("2",), ("2.1",)), Target("9", ("2",), ("2.2",))]),
    ],
)
def test_pieces_are_of_one_series_and_as_small_as_wanted(missing: set[str], most: int, wanted: list[Target]) -> None:
    assert targets("9", EXPECTED, frozenset(missing), "IMAGE", most) == wanted


def test_a_long_gap_is_asked_for_in_lists_that_one_value_can_hold() -> None:
    uids = [f"1.{number:04}" for number in range(1201)]
    lists = targets("9", Expected("image", 1201, {"1": frozenset(uids)}), frozenset(uids[1:]), "IMAGE")
    assert [len(target.instances) for target in lists] == [500, 500, 200]
    assert [uid for target in lists for uid in target.instances] == uids[1:]


def test_a_long_gap_is_asked_for_in_several_lists() -> None:
    series = frozenset(f"1.{number}" for number in range(1201))
    wanted = targets("9", Expected("image", 1201, {"1": series}), series - {"1.0"}, "IMAGE")
    assert [len(target.instances) for target in wanted] == [500, 500, 200]
    assert frozenset().union(*(target.instances for target in wanted)) == series - {"1.0"}


def test_counts_alone_mean_the_whole_study() -> None:
    assert targets("9", Expected("series", 3), frozenset(), "IMAGE") == [Target("9")]


def test_an_identifier_holds_unique_keys_only() -> None:
    unique = identifier(Target("9", ("1",), ("1.1", "1.2")))
    assert {element.keyword for element in unique} == {
        "QueryRetrieveLevel",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
    }
    assert unique.QueryRetrieveLevel == "IMAGE"
    assert list(unique.SOPInstanceUID) == ["1.1", "1.2"]


def test_an_identifier_that_lacks_something_is_asked_for_coarser() -> None:
    assert step_after(MoveResult(0x0120), expected=LISTED, complete=False, arrived=0, level="IMAGE") is Step.COARSER


def test_a_warning_that_counts_nothing_as_failed_proves_nothing() -> None:
    counted = MoveResult(0xB000, completed=3, failed=0, warning=0, remaining=0)
    assert step_after(counted, expected=NOTHING, complete=None, arrived=3, level="STUDY") is Step.AGAIN


def test_quiet_never_completes_what_is_known_to_be_incomplete() -> None:
    assert after_quiet(NO_COUNTS, complete=False) is Step.AGAIN


def test_counts_of_every_kind() -> None:
    assert (
        MoveResult(0, completed=1, warning=2).sent,
        MoveResult(0, completed=1).sent,
        MoveResult(0, warning=2).sent,
    ) == (3, 1, None)
    assert (MoveResult(0, "", 1, 2, 3, 4).total, MoveResult(0).total) == (10, 0)


def test_the_pacs_own_words_are_told() -> None:
    told, silent = (
        failure(MoveResult(0xA701, comment), "The PACS", Receiver(), STUDY) for comment in ("no memory", "")
    )
    assert told and silent
    assert "resources (no memory)." in told.words and "resources." in silent.words

"""The life of a volume, and who is dead."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mkiso.archive.holder import certainly_dead, this_process
from mkiso.archive.lifecycle import FOLLOWING, STATES, Remedy, State, remedy
from mkiso.archive.readback import compare


@pytest.mark.parametrize(
    ("state", "whole", "what"),
    [
        ("planned", False, Remedy.DISCARD),
        ("planned", True, Remedy.DISCARD),
        ("mastered", False, Remedy.DISCARD),
        ("mastered", True, Remedy.DELIVER),
        ("ordering", False, Remedy.ASK),
        ("ordering", True, Remedy.ASK),
        ("ordered", False, Remedy.AWAIT),
        ("done", False, None),
    ],
)
def test_the_remedy_of_each_state(state: State, whole: bool, what: Remedy | None) -> None:
    assert remedy(state, whole) is what


def test_every_state_leads_to_done() -> None:
    reached: set[State] = {"done"}
    for _ in STATES:
        reached |= {state for state in STATES if FOLLOWING[state] & reached}
    assert reached == set(STATES)


def test_this_process_is_alive_and_a_child_that_ended_is_dead() -> None:
    assert not certainly_dead(this_process())
    boot, namespace, pid, _ = this_process().split()
    assert certainly_dead(f"{boot} {namespace} {pid} 1")  # a later process with its number
    child = subprocess.Popen(["sleep", "60"])
    try:
        started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        name = f"{boot} {namespace} {child.pid} {started}"
        assert not certainly_dead(name)
    finally:
        child.kill()
        child.wait()
    assert certainly_dead(name)


@pytest.mark.parametrize("name", ["", "another-boot pid:[1] 1 1"])
def test_of_a_process_elsewhere_nothing_is_certain(name: str) -> None:
    assert not certainly_dead(name)


def test_files_are_compared_in_both_directions() -> None:
    recorded = {"A": (1, "aa"), "B": (2, "bb"), "C": (3, "cc")}
    outcome = compare("L", recorded, [("A", 1, "aa"), ("B", 2, "b0"), ("D", 4, "dd")])
    assert (outcome.good, outcome.damaged, outcome.missing, outcome.unexpected, outcome.is_good) == (1, ("B",), ("C",), ("D",), False)
    assert compare("L", recorded, [(path, *facts) for path, facts in recorded.items()]).is_good
    assert not compare("L", {}, []).is_good

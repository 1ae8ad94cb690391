"""The life of a volume, and who is dead."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from mkiso.archive.holder import certainly_dead, this_process
from mkiso.archive.lifecycle import (
    FOLLOWING,
    STATES,
    Claim,
    Evidence,
    Refused,
    Remedy,
    Settled,
    State,
    Stored,
    remedy,
    settled,
)
from mkiso.archive.readback import compare

EVIDENCE = [Evidence(*seen) for seen in product((True, False), (True, False), (True, False), Stored)]
HERE, ELSEWHERE, ALL = (True,), (False,), (True, False)
REMEDIES: list[
    tuple[State, tuple[bool, ...], tuple[bool, ...], tuple[bool, ...], tuple[Stored, ...], Remedy | None]
] = [
    # state, here, for the store, image whole here, in the store, what a run does; the first line that fits counts
    ("planned", HERE, ALL, ALL, tuple(Stored), Remedy.DISCARD),
    ("planned", ELSEWHERE, ALL, ALL, tuple(Stored), None),
    ("mastered", ALL, (True,), ALL, (Stored.WHOLE,), Remedy.CLOSE),
    ("mastered", ELSEWHERE, ALL, ALL, tuple(Stored), Remedy.LOOK),
    ("mastered", HERE, (True,), (True,), (Stored.OTHER,), Remedy.LOOK),
    ("mastered", HERE, ALL, (True,), tuple(Stored), Remedy.DELIVER),
    ("mastered", HERE, (True,), (False,), (Stored.UNSEEN,), Remedy.LOOK),
    ("mastered", HERE, ALL, (False,), tuple(Stored), Remedy.LOSE),
    ("ordering", HERE, ALL, ALL, tuple(Stored), Remedy.ASK),
    ("ordered", HERE, ALL, ALL, tuple(Stored), Remedy.AWAIT),
    ("ordering", ELSEWHERE, ALL, ALL, tuple(Stored), Remedy.LOOK),
    ("ordered", ELSEWHERE, ALL, ALL, tuple(Stored), Remedy.LOOK),
    ("done", ALL, (True,), ALL, (Stored.ABSENT, Stored.OTHER), Remedy.LOOK),
    ("done", ALL, ALL, ALL, tuple(Stored), None),
    ("gone", ALL, ALL, ALL, tuple(Stored), None),
]


@pytest.mark.parametrize("state", STATES)
def test_the_remedy_of_each_state_and_all_that_can_be_seen(state: State) -> None:
    for seen in EVIDENCE:
        fits = [
            what
            for of, here, for_store, image, stored, what in REMEDIES
            if of == state
            and seen.here in here
            and seen.for_store in for_store
            and seen.image in image
            and seen.stored in stored
        ]
        assert remedy(state, seen) is fits[0], seen


@pytest.mark.parametrize(("claim", "state"), list(product(Claim, STATES)))
def test_a_person_gives_up_nothing_that_is_whole_and_proves_what_can_be_proved(claim: Claim, state: State) -> None:
    for seen in EVIDENCE:
        outcome = settled(claim, state, seen)
        if isinstance(outcome, Refused):
            assert outcome.words[0].islower()
            assert outcome.words.endswith(".")
            continue
        if outcome.state == "done":
            assert seen.stored is Stored.WHOLE if claim is Claim.STORED else claim is Claim.MADE and not seen.for_store
        if outcome.state == "gone":
            assert claim is Claim.FORGET or not (seen.stored is Stored.WHOLE or (seen.image and state != "planned"))
            assert claim is Claim.LOST or state == "gone"
        if outcome.here:
            assert claim is Claim.HERE
            assert seen.image
            assert remedy(outcome.state, replace(seen, here=True)) is not Remedy.LOSE


@pytest.mark.parametrize("state", ["mastered", "ordering", "ordered", "done"])
def test_each_volume_that_no_run_can_mend_can_be_settled(state: State) -> None:
    """Whatever is seen of it: some claim leads to where a run goes on, or to an end."""
    for seen in EVIDENCE:
        if remedy(state, seen) is Remedy.LOOK and not (
            seen.here and seen.image and seen.stored is Stored.OTHER
        ):  # which a person moves away
            ends = [outcome for claim in Claim if isinstance(outcome := settled(claim, state, seen), Settled)]
            assert any(end.state in ("done", "gone") or end.here for end in ends), (state, seen)


@pytest.mark.parametrize(
    ("claim", "state", "seen", "outcome"),
    [
        (Claim.MADE, "ordering", Evidence(True, False, True, Stored.UNSEEN), Settled("done")),
        (Claim.MADE, "mastered", Evidence(False, False, False, Stored.UNSEEN), Settled("done")),
        (Claim.MADE, "mastered", Evidence(True, False, True, Stored.UNSEEN), None),
        (Claim.MADE, "mastered", Evidence(False, True, False, Stored.ABSENT), None),
        (Claim.AGAIN, "ordered", Evidence(True, False, True, Stored.UNSEEN), Settled("mastered")),
        (Claim.AGAIN, "mastered", Evidence(True, False, True, Stored.UNSEEN), None),
        (Claim.STORED, "mastered", Evidence(False, True, False, Stored.WHOLE), Settled("done")),
        (Claim.STORED, "done", Evidence(False, True, False, Stored.WHOLE), Settled("done")),
        (Claim.STORED, "gone", Evidence(False, True, False, Stored.WHOLE), None),
        (Claim.STORED, "mastered", Evidence(False, True, False, Stored.OTHER), None),
        (Claim.HERE, "mastered", Evidence(False, True, True, Stored.ABSENT), Settled("mastered", here=True)),
        (Claim.HERE, "ordered", Evidence(False, False, True, Stored.UNSEEN), Settled("ordered", here=True)),
        (Claim.HERE, "gone", Evidence(False, True, True, Stored.ABSENT), None),
        (Claim.HERE, "done", Evidence(True, True, True, Stored.ABSENT), Settled("mastered", here=True)),
        (Claim.HERE, "done", Evidence(True, True, True, Stored.WHOLE), None),
        (Claim.HERE, "mastered", Evidence(False, True, False, Stored.ABSENT), None),
        (Claim.HERE, "mastered", Evidence(True, True, True, Stored.ABSENT), None),
        (Claim.LOST, "mastered", Evidence(False, True, False, Stored.ABSENT), Settled("gone")),
        (Claim.LOST, "ordered", Evidence(False, False, False, Stored.UNSEEN), Settled("gone")),
        (Claim.LOST, "planned", Evidence(False, True, False, Stored.ABSENT), Settled("gone")),
        (Claim.LOST, "planned", Evidence(True, True, False, Stored.ABSENT), None),
        (Claim.LOST, "done", Evidence(True, True, False, Stored.ABSENT), Settled("gone")),
        (Claim.LOST, "done", Evidence(True, True, False, Stored.WHOLE), None),
        (Claim.LOST, "mastered", Evidence(True, True, True, Stored.ABSENT), None),
        (Claim.FORGET, "gone", Evidence(True, True, False, Stored.ABSENT), Settled("gone")),
        (Claim.FORGET, "done", Evidence(True, True, False, Stored.ABSENT), None),
    ],
)
def test_what_becomes_of_a_claim(claim: Claim, state: State, seen: Evidence, outcome: Settled | None) -> None:
    found = settled(claim, state, seen)
    assert found == outcome if outcome else isinstance(found, Refused)


def test_every_state_leads_to_done() -> None:
    reached: set[State] = {"done"}
    for _ in STATES:
        reached |= {state for state in STATES if FOLLOWING[state] & reached}
    assert reached == set(STATES) - {"gone"}


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
    assert (outcome.good, outcome.damaged, outcome.missing, outcome.unexpected, outcome.is_good) == (
        1,
        ("B",),
        ("C",),
        ("D",),
        False,
    )
    assert compare("L", recorded, [(path, *facts) for path, facts in recorded.items()]).is_good
    assert not compare("L", {}, []).is_good

"""What is decided of a volume that is to be stored or made: who makes it, and whether it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from mkiso.archive.delivery import is_certainly_not_made, is_nobodys, order_of
from mkiso.archive.lifecycle import State
from mkiso.archive.volumes import ArchiveVolume
from mkiso.config.settings import Settings
from mkiso.errors import MkisoError, PrintUncertain, ProofFailed, PublisherRefused, PublisherUnavailable
from mkiso.study.models import Patient, Volume


def volume(state: State, output: str = "robot") -> ArchiveVolume:
    return ArchiveVolume(
        "A20260213_0001",
        state,
        "dvd",
        output,
        2,
        3,
        9,
        100,
        "f" * 64,
        "A20260213_0001-12345678",
        Path("/v"),
        "here",
        "",
    )


REFUSED, AWAY, WRONG = PublisherRefused("No."), PublisherUnavailable("Away."), ProofFailed("Another image.")
ACCEPTED = PublisherRefused("The robot failed.", accepted=True)
UNCERTAIN = PrintUncertain("Look.")


@pytest.mark.parametrize(
    ("state", "error", "certain"),
    [
        ("mastered", REFUSED, True),
        ("mastered", AWAY, True),
        ("mastered", WRONG, True),
        ("mastered", ACCEPTED, False),
        ("mastered", UNCERTAIN, False),
        ("ordering", REFUSED, False),
        ("ordering", AWAY, False),
        ("ordered", REFUSED, True),
        ("ordered", ACCEPTED, False),
        ("ordered", AWAY, False),
        ("ordered", WRONG, False),
        ("ordered", UNCERTAIN, False),
    ],
)
def test_a_volume_is_owed_again_only_where_certainly_no_disc_was_made(
    state: State, error: MkisoError, certain: bool
) -> None:
    assert is_certainly_not_made(volume(state), error) is certain
    assert not is_certainly_not_made(volume(state, "store"), error)


@pytest.mark.parametrize(
    ("state", "output", "nobodys"),
    [
        ("mastered", "gone", True),
        ("mastered", "robot", False),
        ("mastered", "store", False),
        ("ordering", "gone", False),
        ("ordered", "gone", False),
    ],
)
def test_a_volume_changes_its_publisher_only_where_no_order_may_be_out(
    state: Literal["mastered", "ordering", "ordered"], output: str, nobodys: bool
) -> None:
    assert is_nobodys(volume(state, output), {"robot"}) is nobodys


def test_an_order_of_a_volume_is_its_own_job_and_names_no_patient() -> None:
    settings = Settings.model_validate(
        {
            "publishers": {"robot": {"kind": "rimage", "directory": "/r", "copies": 2}},
            "disc": {"institution": "H"},
            "print": {"publisher": "robot"},
        }
    )
    order = order_of(volume("mastered"), settings)
    assert (order.job_id, order.patient, order.accession_numbers) == (
        "A20260213_0001-12345678",
        Patient(""),
        ("A20260213_0001",),
    )
    assert (order.image, order.image_sha256, order.volume) == (Path("/v/disc.iso"), "f" * 64, Volume(2, 3))
    assert (order.copies, order.medium, order.institution) == (2, "dvd", "H")

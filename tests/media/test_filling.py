"""Which volumes are closed while studies still come: full ones, early enough that the disk never holds a whole
night.
"""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from mkiso.media.capacity import MEDIUM_SECTORS
from mkiso.media.filling import FULL, TOO_MANY, full_volumes, volume_room, volume_sectors
from mkiso.media.volumes import Parcel, pack, room_sectors

ROOM = 10_000


def parcels(*sizes: int) -> list[Parcel]:
    return [Parcel(f"1.{number}", f"P{number}", size) for number, size in enumerate(sizes)]


def filled(volume: tuple[Parcel, ...]) -> int:
    return sum(parcel.sectors for parcel in volume)


def test_nothing_is_closed_before_there_is_something_to_choose_from() -> None:
    assert full_volumes([], ROOM, "dvd") == ()
    assert full_volumes(parcels(*[ROOM // 2] * 3), ROOM, "dvd") == ()


def test_only_full_volumes_are_closed() -> None:
    closed = full_volumes(parcels(6000, 4000, 7000, 3000, 2000), ROOM, "dvd")
    assert sorted(map(filled, closed)) == [ROOM, ROOM]


def test_a_volume_that_can_not_be_filled_waits_but_not_for_ever() -> None:
    awkward = [6000] * 4
    assert full_volumes(parcels(*awkward), ROOM, "dvd") == ()
    assert [filled(volume) for volume in full_volumes(parcels(*awkward, 6000), ROOM, "dvd")] == [6000]


def test_a_disk_with_little_room_is_given_room() -> None:
    assert [filled(volume) for volume in full_volumes(parcels(6000, 6000), ROOM, "dvd", pressed=True)] == [6000]
    assert (
        full_volumes(parcels(6000, 3000), ROOM, "dvd", pressed=True) == ()
    )  # a few small volumes would only waste discs


@given(st.lists(st.integers(1, ROOM), max_size=200), st.booleans())
def test_what_waits_is_bounded_and_nothing_is_lost(sizes: list[int], pressed: bool) -> None:
    """As a night does it: study by study, closing what is to be closed."""
    pool: list[Parcel] = []
    closed: list[tuple[Parcel, ...]] = []
    for parcel in parcels(*sizes):
        pool.append(parcel)
        for volume in full_volumes(pool, ROOM, "dvd", pressed=pressed):
            closed.append(volume)
            pool = [each for each in pool if each not in volume]
        assert filled(tuple(pool)) < TOO_MANY * ROOM
    closed += pack(pool, ROOM, "dvd")
    assert all(filled(volume) <= ROOM for volume in closed)
    assert sorted(parcel.sectors for volume in closed for parcel in volume) == sorted(sizes)


def test_a_night_of_mixed_studies_fills_every_volume_but_the_last() -> None:
    """200 studies from a radiograph's to a cardiac CT's size, in the order in which they come, on DVDs."""
    room = MEDIUM_SECTORS["dvd"] - 1000
    kinds = [(8_000, 20_000), (40_000, 150_000), (150_000, 400_000), (500_000, 1_200_000)]
    for seed in range(8):
        mixed = random.Random(seed)
        pool: list[Parcel] = []
        closed: list[tuple[Parcel, ...]] = []
        for parcel in parcels(*(mixed.randint(*mixed.choices(kinds, (8, 6, 4, 1))[0]) for _ in range(200))):
            pool.append(parcel)
            for volume in full_volumes(pool, room, "dvd"):
                closed.append(volume)
                pool = [each for each in pool if each not in volume]
        closed += pack(pool, room, "dvd")
        assert sorted(map(filled, closed))[1] >= FULL * room


def test_a_limit_below_the_medium_is_kept_and_one_above_it_means_nothing() -> None:
    assert volume_sectors("cd", 0) == volume_sectors("cd", 5000) == MEDIUM_SECTORS["cd"]
    assert volume_sectors("cd", 64) == 64 * 512
    assert volume_room("cd", 0, ()) == room_sectors("cd", ())
    assert volume_room("cd", 64, ()) == 64 * 512 - (MEDIUM_SECTORS["cd"] - room_sectors("cd", ()))

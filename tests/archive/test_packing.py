"""Properties of packing and spanning: nothing over capacity, nothing twice, nothing lost, little wasted."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from mkiso.config.settings import Settings
from mkiso.errors import TooLargeForMedium
from mkiso.media.capacity import MEDIUM_SECTORS, SECTOR_BYTES
from mkiso.media.layout import LayoutOptions, lay_out
from mkiso.media.volumes import Parcel, pack, room_sectors, span, study_sectors
from mkiso.study.gate import Part
from mkiso.study.models import Arrival, Instance, Volume
from tests.media.discs import archived, passed

ROOM = 100_000
NOW = datetime(2026, 2, 13, 2, 0, tzinfo=UTC)
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"

PARCELS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, ROOM)), max_size=60).map(
    lambda values: [Parcel(f"1.{number}", f"P{patient}", sectors) for number, (patient, sectors) in enumerate(values)]
)


def filled(volume: tuple[Parcel, ...]) -> int:
    return sum(parcel.sectors for parcel in volume)


@given(PARCELS, st.randoms(use_true_random=False))
def test_every_study_is_packed_once_and_no_volume_is_over_its_room(parcels: list[Parcel], order: random.Random) -> None:
    volumes = pack(parcels, ROOM, "dvd")
    assert sorted(parcel.study_instance_uid for parcel in chain(*volumes)) == sorted(
        parcel.study_instance_uid for parcel in parcels
    )
    assert all(volume and filled(volume) <= ROOM for volume in volumes)
    shuffled = list(parcels)
    order.shuffle(shuffled)
    assert {frozenset(volume) for volume in pack(shuffled, ROOM, "dvd")} == {frozenset(volume) for volume in volumes}


@given(PARCELS)
def test_a_patient_that_fits_on_one_volume_is_on_one(parcels: list[Parcel]) -> None:
    volumes = pack(parcels, ROOM, "dvd")
    for patient in {parcel.patient_id for parcel in parcels}:
        own = tuple(parcel for parcel in parcels if parcel.patient_id == patient)
        if filled(own) <= ROOM:
            assert sum(any(parcel in volume for parcel in own) for volume in volumes) == 1


@pytest.mark.parametrize("seed", range(8))
def test_mixed_sizes_fill_every_volume_but_the_last(seed: int) -> None:
    """200 studies from a radiograph's to a cardiac CT's size on DVDs; most patients have one, some have two or
    three.
    """
    sizes = random.Random(seed)
    room = MEDIUM_SECTORS["dvd"] - 1000
    kinds = [(8_000, 20_000), (40_000, 150_000), (150_000, 400_000), (500_000, 1_200_000)]
    parcels = [
        Parcel(f"1.{number}", f"P{number * 4 // 5}", sizes.randint(*sizes.choices(kinds, (8, 6, 4, 1))[0]))
        for number in range(200)
    ]
    fills = [filled(volume) / room for volume in pack(parcels, room, "dvd")]
    assert min(fills[:-1]) >= 0.95
    assert len(fills) <= -(-sum(parcel.sectors for parcel in parcels) // int(room * 0.95)) + 1


def test_a_study_that_no_volume_holds_is_refused() -> None:
    with pytest.raises(TooLargeForMedium):
        pack([Parcel("1.1", "P", ROOM + 1)], ROOM, "cd")


def instance(study: int, series: int, number: int, size: int) -> Instance:
    """An instance by its header alone; its file isn't there."""
    uid = f"1.2.826.0.1.3680043.8.498.{study}.{series}.{number}"
    header = Dataset()
    header.PatientID, header.PatientName = f"P{study // 2}", f"Name^{study // 2}"
    header.AccessionNumber, header.StudyID, header.StudyDate, header.StudyTime = (
        f"A{study}",
        f"S{study}",
        "20260213",
        "091500",
    )
    header.StudyInstanceUID, header.SeriesInstanceUID = (
        uid.rpartition(".")[0].rpartition(".")[0],
        uid.rpartition(".")[0],
    )
    header.SOPClassUID, header.SOPInstanceUID = CT, uid
    header.Modality, header.SeriesNumber, header.InstanceNumber = "CT", series, number
    return Instance(
        Arrival(uid, CT, EXPLICIT_LITTLE, header.StudyInstanceUID, Path("/nowhere") / uid, size, f"{study:064d}"),
        header,
    )


STUDIES = st.lists(
    st.lists(st.tuples(st.integers(1, 40), st.integers(500, 3_000_000)), min_size=1, max_size=4), min_size=1, max_size=6
).map(
    lambda studies: [
        [
            instance(study, series, number, size)
            for series, (count, size) in enumerate(parts, 1)
            for number in range(1, count + 1)
        ]
        for study, parts in enumerate(studies)
    ]
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(STUDIES)
def test_a_disc_is_never_larger_than_what_its_studies_were_counted_as(
    tmp_path: Path, studies: list[list[Instance]]
) -> None:
    settings_ = Settings.model_validate({"storage": {"data_dir": tmp_path}})
    counted = sum(map(study_sectors, studies)) + MEDIUM_SECTORS["dvd"] - room_sectors("dvd", ())
    layout = lay_out(
        archived(chain(*studies)), LayoutOptions(settings_, NOW, "dvd"), tmp_path, volume_id="A20260213_0001"
    )
    assert layout.sectors <= counted
    assert counted - layout.sectors <= 100 + 60 * sum(
        len({entry.header.SeriesInstanceUID for entry in study}) for study in studies
    )


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(100_000, 30_000_000)), min_size=1, max_size=6))
def test_a_set_holds_each_instance_once_and_every_volume_fits(tmp_path: Path, series: list[tuple[int, int]]) -> None:
    settings_ = Settings.model_validate({"storage": {"data_dir": tmp_path}})
    study = [
        instance(1, place, number, size)
        for place, (count, size) in enumerate(series, 1)
        for number in range(1, count + 1)
    ]
    room = room_sectors("cd", ())
    volumes = span(study, room, "cd")
    uids = [entry.arrival.sop_instance_uid for entry in chain(*volumes)]
    assert sorted(uids) == sorted(entry.arrival.sop_instance_uid for entry in study)
    studies = passed(study)
    parts = {number: Part((studies,), volume) for number, volume in enumerate(volumes, 1)}
    for number, part in parts.items():
        elsewhere = {other: each for other, each in parts.items() if other != number}
        layout = lay_out(
            part,
            LayoutOptions(settings_, NOW, "cd"),
            tmp_path,
            volume=Volume(number, len(volumes)),
            elsewhere=elsewhere,
        )
        assert layout.sectors <= MEDIUM_SECTORS["cd"]
    needed = sum(size for count, size in series for _ in range(count)) / SECTOR_BYTES
    assert len(volumes) <= max(1, -(-needed // (room / 2)))  # a series kept whole may leave up to half a volume empty


@pytest.mark.parametrize("series", [1, 5])
def test_two_and_a_half_media_are_three_volumes(series: int) -> None:
    room = room_sectors("cd", ())
    size = 2_500_000
    count = int(2.5 * MEDIUM_SECTORS["cd"] * SECTOR_BYTES / size / series)
    study = [instance(1, place, number, size) for place in range(1, series + 1) for number in range(1, count + 1)]
    assert len(span(study, room, "cd")) == 3

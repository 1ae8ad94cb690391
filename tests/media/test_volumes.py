import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydicom import Dataset

from mkiso.config.section import Medium
from mkiso.errors import TooLargeForMedium
from mkiso.media.capacity import MEDIUM_SECTORS, sectors_of
from mkiso.media.layout import LayoutOptions, lay_out
from mkiso.media.volumes import Parcel, pack, room_sectors, span, study_sectors
from mkiso.study.gate import Part
from mkiso.study.models import Arrival, Instance, Volume
from tests.media.discs import CREATED, archived, passed, settings

CT = "1.2.840.10008.5.1.4.1.1.2"


def made(study: int, series: int, number: int, size: int, patient: int = 1) -> Instance:
    header = Dataset()
    header.PatientID, header.PatientName, header.StudyInstanceUID = f"P{patient}", "A^B", f"1.2.{study}"
    header.SeriesInstanceUID, header.SeriesNumber, header.InstanceNumber = f"1.2.{study}.{series}", series, number
    header.StudyDescription = header.SeriesDescription = 'A "long" <description> of all this & that'
    uid = header.SOPInstanceUID = f"1.2.{study}.{series}.{number}"
    return Instance(Arrival(uid, CT, "1.2.840.10008.1.2.1", f"1.2.{study}", Path(f"/{uid}"), size, "0" * 64), header)


def series_of(study: int, series: int, count: int, size: int) -> list[Instance]:
    return [made(study, series, number, size) for number in range(1, count + 1)]


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 40), st.integers(0, 9000)),
        min_size=1,
        max_size=8,
    )
)
@pytest.mark.parametrize("medium", ["dvd", "bd"])
@hypothesis_settings(max_examples=30, deadline=None)
def test_studies_together_never_need_more_than_their_sum(
    tmp_path_factory: pytest.TempPathFactory, medium: Medium, rows: list[tuple[int, ...]]
) -> None:
    studies: dict[int, dict[str, Instance]] = {}
    for patient, study, series, count, size in rows:
        for number in range(1, count + 1):
            one = made(patient * 10 + study, series, number, size, patient)
            studies.setdefault(patient * 10 + study, {}).setdefault(one.arrival.sop_instance_uid, one)
    everything = [one for study in studies.values() for one in study.values()]
    folder = tmp_path_factory.mktemp("d")
    layout = lay_out(
        archived(everything),
        LayoutOptions(settings(folder), CREATED, medium),
        folder / "disc",
        volume=Volume(1, 2),
        volume_id="A_1",
    )
    budget = sum(study_sectors(list(study.values()), medium=medium) for study in studies.values())
    assert layout.sectors <= budget + MEDIUM_SECTORS[medium] - room_sectors(medium, [])


def test_the_bound_is_close() -> None:
    found = series_of(1, 1, 500, 526_000)
    assert study_sectors(found) < 1.005 * 500 * sectors_of(526_000)


def test_span_keeps_series_whole_in_their_order() -> None:
    found = [one for series in range(1, 6) for one in series_of(1, series, 10, 20_480)]
    room = study_sectors(found[:20]) + 40  # each series is counted with directories of its own
    volumes = span(found, room, "cd")
    assert [len(volume) for volume in volumes] == [20, 20, 10]
    assert [one.arrival.sop_instance_uid for volume in volumes for one in volume] == [
        one.arrival.sop_instance_uid for one in found
    ]


def test_span_divides_a_series_that_no_volume_holds() -> None:
    found = series_of(1, 1, 250, 20_480)
    room = study_sectors(found[:100])
    volumes = span(found, room, "cd")
    assert len(volumes) == 3
    assert [one for volume in volumes for one in volume] == found
    assert all(study_sectors(volume) <= room for volume in volumes)


def test_span_leaves_the_order_where_that_saves_a_volume() -> None:
    found = [
        *series_of(1, 1, 60, 20_480),
        *series_of(1, 2, 70, 20_480),
        *series_of(1, 3, 40, 20_480),
        *series_of(1, 4, 30, 20_480),
    ]
    room = study_sectors([*found[:60], *found[130:170]]) + 50
    assert len(span(found, room, "cd")) == 2


def test_what_doesnt_fit_is_divided_and_each_volume_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study of 2.5 times the medium comes out as three volumes that hold each instance once."""
    found = series_of(1, 1, 250, 20_480)
    monkeypatch.setitem(MEDIUM_SECTORS, "cd", 1_250)
    parts = span(found, room_sectors("cd", []), "cd")
    assert [one for part in parts for one in part] == found
    assert len(parts) == 3
    studies = passed(found)
    discs = {number: Part((studies,), part) for number, part in enumerate(parts, 1)}
    for number, part in discs.items():
        elsewhere = {other: each for other, each in discs.items() if other != number}
        folder = tmp_path / str(number)
        layout = lay_out(
            part,
            LayoutOptions(settings(tmp_path), CREATED),
            folder,
            volume=Volume(number, len(parts)),
            elsewhere=elsewhere,
        )
        assert layout.sectors <= MEDIUM_SECTORS["cd"]
    with pytest.raises(TooLargeForMedium):
        lay_out(Part.whole(studies), LayoutOptions(settings(tmp_path), CREATED), tmp_path / "one")


def test_span_of_what_fits_is_one_volume_and_of_a_giant_is_refused() -> None:
    found = series_of(1, 1, 3, 20_480)
    assert span(found, 10_000, "cd") == (tuple(found),)
    with pytest.raises(TooLargeForMedium, match="One instance needs"):
        span([made(1, 1, 1, 10**9)], 10_000, "cd")


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 100)), max_size=60), st.randoms(use_true_random=False))
def test_pack_holds_each_study_once_and_is_never_over(rows: list[tuple[int, int]], chance: random.Random) -> None:
    parcels = [Parcel(f"1.{number}", f"P{patient}", sectors) for number, (patient, sectors) in enumerate(rows)]
    volumes = pack(parcels, 100, "cd")
    assert sorted(parcel.study_instance_uid for volume in volumes for parcel in volume) == sorted(
        parcel.study_instance_uid for parcel in parcels
    )
    assert all(sum(parcel.sectors for parcel in volume) <= 100 for volume in volumes)
    for patient in {parcel.patient_id for parcel in parcels}:
        theirs = [parcel for parcel in parcels if parcel.patient_id == patient]
        if sum(parcel.sectors for parcel in theirs) <= 100:
            assert sum(any(parcel in volume for parcel in theirs) for volume in volumes) == 1
    shuffled = parcels[:]
    chance.shuffle(shuffled)
    assert pack(shuffled, 100, "cd") == volumes


@pytest.mark.parametrize("seed", range(3))
def test_volumes_of_mixed_studies_are_nearly_full(seed: int) -> None:
    chance = random.Random(seed)
    room = MEDIUM_SECTORS["dvd"]
    parcels = [
        Parcel(f"1.{number}", f"P{number}", int(chance.lognormvariate(11, 1.2)) % (room // 2) + 500)
        for number in range(200)
    ]
    volumes = pack(parcels, room, "dvd")
    fills = sorted(sum(parcel.sectors for parcel in volume) / room for volume in volumes)
    assert all(fill >= 0.95 for fill in fills[1:])


def test_ten_thousand_studies_are_packed_in_seconds() -> None:
    chance = random.Random(1)
    parcels = [Parcel(f"1.{number}", f"P{number // 2}", chance.randrange(500, 400_000)) for number in range(10_000)]
    volumes = pack(parcels, MEDIUM_SECTORS["bd"], "bd")
    assert sum(map(len, volumes)) == 10_000


def test_a_study_that_must_be_spanned_first_is_refused() -> None:
    with pytest.raises(TooLargeForMedium, match="A study needs"):
        pack([Parcel("1.2", "P", 101)], 100, "cd")

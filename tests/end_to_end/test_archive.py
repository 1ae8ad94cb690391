"""Nights of the archive with a real Orthanc: complete, each instance once, whatever is killed (issue: Archive).

Every test archives a StudyDate of its own. MKISO_ARCHIVE_KILLS=100 makes a soak of the kills.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread

from mkiso.archive.ledger import Ledger
from mkiso.archive.nights import Night
from mkiso.config.file import load
from mkiso.errors import StudyIncomplete
from peers.archives import archive, assert_holds, contents, images, mkiso_archive, start
from peers.corpus import Person, make_ct_series
from peers.discs import assert_holds_exactly, extract, judge
from peers.orthanc import Orthanc
from tests.archive.discs import RANGE, study
from tests.end_to_end.conftest import Hospital, Open

pytestmark = [pytest.mark.end_to_end]

KILLS = int(os.environ.get("MKISO_ARCHIVE_KILLS", "5"))
VOLUME_MIB = 32
NIGHT, KILLED, UNPROVABLE, LARGE, BUSY = "2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"
CANARY = "Canaryname"


def studies_of(folder: Path, day: str, count: int, *, most: int = 20) -> dict[str, list[Path]]:
    """Studies of mixed size, 0.5 MB an image; every fifth patient has two."""
    mixed = random.Random(day)
    made = {}
    for number in range(count):
        patient = Person(f"{day}-{number * 4 // 5}", f"{CANARY}^{number * 4 // 5}")
        accession_number = f"{day[-2:]}N{number:04}"
        size = min(most, mixed.choices([1, 3, 8, 20], (8, 6, 4, 1))[0])
        made[accession_number] = make_ct_series(
            folder, accession_number, size, patient=patient, study_date=day.replace("-", "")
        )
    return made


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[Path]]]:
    """By day and accession number."""
    folder = tmp_path_factory.mktemp("studies")
    large = make_ct_series(
        folder, "LARGE1", 160, patient=Person("LARGE", f"{CANARY}^Large"), study_date=LARGE.replace("-", "")
    )
    return {
        NIGHT: studies_of(folder, NIGHT, 200),
        KILLED: studies_of(folder, KILLED, 60),
        UNPROVABLE: studies_of(folder, UNPROVABLE, 4, most=3),
        LARGE: {"LARGE1": large},
        BUSY: studies_of(folder, BUSY, 40),
    }


@pytest.fixture(scope="module")
def hospital(open_hospital: Open, studies: dict[str, dict[str, list[Path]]]) -> Hospital:
    files = [file for day in studies.values() for study in day.values() for file in study]
    # Whether a clerk's retrieval goes first is asked here, not how long its pictures take afterwards.
    disc = {"reuse_minutes": 0, "pictures": "none"}
    sections = {"archive": {"medium": "cd", "volume_mib": VOLUME_MIB}, "disc": disc}
    return open_hospital("orthanc", files, sections, verbose=False)


@pytest.fixture
def store(hospital: Hospital) -> Path:
    return hospital.service.data_dir / "archive"


def flat(day: dict[str, list[Path]]) -> list[Path]:
    return [file for files in day.values() for file in files]


def assert_nothing_is_left(hospital: Hospital) -> None:
    data = hospital.service.data_dir
    assert [entry.name for entry in (data / "volumes").iterdir()] == [".place"]
    assert [file for file in (data / "jobs").rglob("*") if file.is_file()] == []


@contextmanager
def watching(folder: Path) -> Iterator[list[int]]:
    """The largest size of a folder's files in bytes while it is watched, and now and then before."""
    largest, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            with suppress(FileNotFoundError):  # files come and go
                largest.append(max(largest[-1], sum(file.stat().st_size for file in folder.rglob("*.*.*"))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield largest
    finally:
        ended.set()
        watcher.join()


def test_a_night_archives_every_study_once_on_full_volumes(
    hospital: Hospital, studies: dict[str, dict[str, list[Path]]], store: Path, tmp_path: Path
) -> None:
    service, day = hospital.service, studies[NIGHT]
    dry = archive(service, date_from=NIGHT, dry_run=True)
    assert dry["state"]["message"].startswith(
        f"Dry run: 200 studies found, of which 200 would be archived, with {len(flat(day))} images."
    )
    assert not store.exists()

    with watching(service.data_dir / "jobs") as largest:
        run = archive(service, date_from=NIGHT)
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["state"]["message"].startswith(f"200 studies with {len(flat(day))} images archived on ")
    volumes = images(store)
    assert_holds(contents(volumes, tmp_path), flat(day))
    fills = [image.stat().st_size / (VOLUME_MIB << 20) for image in volumes]
    assert max(fills) <= 1
    assert sorted(fills)[1] >= 0.95, fills
    assert max(largest) < 3.5 * (VOLUME_MIB << 20) < sum(file.stat().st_size for file in flat(day)) / 3
    judge(volumes[0], tmp_path / volumes[0].stem)
    assert_nothing_is_left(hospital)

    again = archive(service, date_from=NIGHT)
    assert (again["state_type"], again["state"]["message"]) == ("COMPLETED", "Nothing to archive: 200 studies found.")
    assert images(store) == volumes

    accession_number = next(iter(day))
    found = mkiso_archive(service, "find", accession_number)
    label = next(line.split()[0] for line in found.stdout.splitlines()[1:])
    assert found.returncode == 0 and label in {image.stem for image in volumes}
    assert mkiso_archive(service, "verify", store / label / f"{label}.iso").returncode == 0
    assert (
        f"200 studies found, {len(flat(day))} instances on {len(volumes)} volumes"
        in mkiso_archive(service, "report").stdout
    )


def test_new_images_of_an_archived_study_go_onto_a_supplement(
    hospital: Hospital, studies: dict[str, dict[str, list[Path]]], store: Path, tmp_path: Path
) -> None:
    assert isinstance(hospital.pacs, Orthanc)
    before, (accession_number, files) = images(store), next(iter(studies[NIGHT].items()))
    patient = dcmread(files[0])
    grown = make_ct_series(
        tmp_path / "grown",
        accession_number,
        10,
        patient=Person(patient.PatientID, str(patient.PatientName)),
        study_date=NIGHT.replace("-", ""),
        first=5000,
    )
    hospital.pacs.store(grown)
    run = archive(hospital.service, date_from=NIGHT)
    assert run["state"]["message"].startswith("1 study with 10 images archived on ")
    [supplement] = set(images(store)) - set(before)
    folder = extract(supplement, tmp_path / "supplement")
    assert_holds_exactly(folder, grown)
    judge(supplement, folder)
    holdings = mkiso_archive(hospital.service, "find", accession_number).stdout.splitlines()[1:]
    assert [line.split()[2:4] for line in holdings] == [[str(len(files)), "instances"], ["10", "instances"]]


def test_killed_at_random_moments_the_archive_goes_on(
    hospital: Hospital, studies: dict[str, dict[str, list[Path]]], store: Path, tmp_path: Path
) -> None:
    service, before = hospital.service, set(images(store))
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    moments, killed = random.Random(seed), 0
    while killed < KILLS:
        run = start(service, date_from=KILLED)
        process = int(service.when(lambda: service.run(run)["infrastructure_pid"]).split("/")[1])  # noqa: B023
        time.sleep(moments.uniform(0.2, 0.7 + killed))  # the first early: a quick machine does the whole night in 2 s
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        ended = service.run_ended(run)
        if ended["state_type"] == "COMPLETED":  # killed too late: the night was done
            break
        assert ended["state_type"] == "CRASHED", ended["state"]
        killed += 1
    assert killed
    again = archive(service, date_from=KILLED)
    assert again["state_type"] == "COMPLETED", again["state"]["message"]
    volumes = sorted(set(images(store)) - before)
    assert_holds(contents(volumes, tmp_path), flat(studies[KILLED]))
    assert_nothing_is_left(hospital)
    for image in volumes:
        assert mkiso_archive(service, "verify", image).returncode == 0


def test_a_study_that_can_not_be_proved_stops_nobody(
    hospital: Hospital, studies: dict[str, dict[str, list[Path]]], store: Path, tmp_path: Path
) -> None:
    """One of its images is lost in the PACS, which still lists it; the next night it is back."""
    assert isinstance(hospital.pacs, Orthanc)
    service, before, (accession_number, files) = (
        hospital.service,
        set(images(store)),
        next(iter(studies[UNPROVABLE].items())),
    )
    own = next(iter(hospital.pacs.instances(accession_number).values()))
    uuid = hospital.pacs.http.get(f"/instances/{own}/attachments/dicom/info").json()["Uuid"]
    stored = hospital.pacs.log_file.parent / "storage" / uuid[:2] / uuid[2:4] / uuid
    stored.rename(stored.with_suffix(".lost"))

    run = archive(service, date_from=UNPROVABLE)
    assert run["state_type"] == "FAILED"
    assert run["state"]["message"].startswith(f"NOT ARCHIVED: 1 of 4 studies: {accession_number}.")
    assert "3 studies with" in run["state"]["message"]
    tables = service.prefect.post("/artifacts/filter", json={"artifacts": {"key": {"any_": ["not-archived"]}}}).json()
    assert accession_number in tables[0]["data"] and "didn't arrive from the PACS" in tables[0]["data"]
    others = [file for name, study in studies[UNPROVABLE].items() if name != accession_number for file in study]
    assert_holds(contents(set(images(store)) - before, tmp_path), others)
    report = mkiso_archive(service, "report").stdout
    assert f"NOT ARCHIVED  {accession_number}  {UNPROVABLE.replace('-', '')}  1 of 5 attempts" in report

    stored.with_suffix(".lost").rename(stored)
    run = archive(service, date_from="2024-01-20")  # it is tried again by every night, whatever its dates
    assert run["state"]["message"].startswith(f"1 study with {len(files)} images archived on ")
    assert_holds(contents(set(images(store)) - before, tmp_path), flat(studies[UNPROVABLE]))


def test_what_is_owed_is_found_by_its_uid(
    hospital: Hospital, studies: dict[str, dict[str, list[Path]]], store: Path, tmp_path: Path
) -> None:
    """What lay on a volume that is bad, a study whose date was corrected since it failed, and one that is gone."""
    service, before, accession_number = hospital.service, set(images(store)), next(iter(studies[UNPROVABLE]))
    lost = {line.split()[0] for line in mkiso_archive(service, "find", accession_number).stdout.splitlines()[1:]}
    bad = contents([image for image in before if image.stem in lost], tmp_path / "bad")
    moved = make_ct_series(
        tmp_path / "moved", "MOVED1", 2, patient=Person("MOVED", f"{CANARY}^Moved"), study_date="20240109"
    )
    assert isinstance(hospital.pacs, Orthanc)
    hospital.pacs.store(moved)
    corrected, gone = (
        study(dcmread(moved[0]).StudyInstanceUID, study_date="20240108"),
        study("1.2.840.99", accession_number="GONE1"),
    )
    with Ledger.open(load(service.configuration)) as ledger, Night.begin(ledger, "before", RANGE) as night:
        for one in (corrected, *[gone] * 4):
            night.failed(one, StudyIncomplete("An image is missing."))
    for label in lost:
        assert mkiso_archive(service, "withdraw", label, "--yes").returncode == 0

    run = archive(service, date_from="2024-01-20")
    assert run["state"]["message"].startswith("NOT ARCHIVED: 1 of "), run["state"]["message"]
    assert "studies: GONE1." in run["state"]["message"]
    assert contents(set(images(store)) - before, tmp_path).keys() == bad.keys() | {
        str(dcmread(file).SOPInstanceUID) for file in moved
    }
    assert (
        "GONE1  20260213  given up after 5 attempts: The PACS has nothing under"
        in mkiso_archive(service, "report").stdout
    )


def test_a_study_of_two_and_a_half_volumes_becomes_a_set_of_three(
    hospital: Hospital, studies: dict[str, dict[str, list[Path]]], store: Path, tmp_path: Path
) -> None:
    before = set(images(store))
    run = archive(hospital.service, date_from=LARGE)
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    volumes = sorted(set(images(store)) - before)
    assert len(volumes) == 3
    assert_holds(contents(volumes, tmp_path), studies[LARGE]["LARGE1"])
    for number, image in enumerate(volumes, start=1):
        assert image.stat().st_size <= VOLUME_MIB << 20
        judge(image, tmp_path / image.stem)
        assert f"{number} of 3" in (tmp_path / image.stem / "README.TXT").read_text(encoding="utf-8-sig")
        subprocess.run(["sha256sum", "--quiet", "-c", "SHA256.TXT"], cwd=tmp_path / image.stem, check=True)


def test_a_clerk_goes_first(
    hospital: Hospital, studies: dict[str, dict[str, list[Path]]], store: Path, tmp_path: Path
) -> None:
    """The archive lets go of the PACS for a download and goes on behind it; how long that takes is measured by
    bench/archive_download.py.
    """
    service, before = hospital.service, set(images(store))
    run = start(service, date_from=BUSY)
    service.when(lambda: list((service.data_dir / "jobs" / run).glob("*/instances/*")))
    answer: httpx.Response = service.download("LARGE1")
    assert answer.status_code == 200
    assert service.run(run)["state_type"] == "RUNNING"
    assert service.run_ended(run)["state_type"] == "COMPLETED"
    assert_holds(contents(set(images(store)) - before, tmp_path), flat(studies[BUSY]))


def test_two_runs_at_once_never_work_on_the_same_study(hospital: Hospital, store: Path) -> None:
    """One waits in its queue for the other, and finds nothing left to do."""
    runs = [start(hospital.service, date_from=day) for day in (BUSY, NIGHT, BUSY)]
    assert [hospital.service.run_ended(run)["state"]["message"].split(":")[0] for run in runs] == [
        "Nothing to archive"
    ] * 3


def test_wrong_dates_are_refused_in_words(hospital: Hospital) -> None:
    run = archive(hospital.service, date_to=NIGHT)
    assert run["state_type"] == "FAILED" and run["state"]["message"].startswith("Name the first date")
    started = mkiso_archive(hospital.service, "--from", "2024-02-01", "--to", "2024-02-03")
    assert started.returncode == 0 and "Completed. Nothing to archive: 0 studies found." in started.stdout


def test_no_patients_name_is_in_prefect_or_a_log(hospital: Hospital) -> None:
    prefect = [file.read_bytes() for file in (hospital.service.data_dir / "prefect").rglob("*") if file.is_file()]
    assert not any(CANARY.encode() in content for content in [*prefect, hospital.service.log_file.read_bytes()])

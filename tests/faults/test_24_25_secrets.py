"""Scenarios 24 and 25, after all others: nobody gets in without the key, and what every scenario had in its hands
stands nowhere it must not.

Each kind of wrong key against each route of the webhook alone is held in tests/webhook/test_doors.py.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import fromstring

import httpx
import pytest

from peers.corpus import Person
from peers.house import CANARY, KEY, THAI_CANARY, House
from peers.patience import LONG
from peers.scripted_pacs import MoveRequest
from tests.audit.test_audit import assert_schema

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("the_next_job_passes_and_nothing_is_left")]

TRAIL = "audit.xml"
GUARDED = (
    "download?accession_number=GOOD1",
    "download-multiple?accession_numbers=GOOD1,THAI1",
    "print?accession_number=GOOD1",
)


def test_24_no_key_or_a_wrong_one_on_every_route(house: House) -> None:
    made = house.disc("GOOD1", house.service.data_dir.parent / "made")
    job = "/".join(str(made.headers["content-location"]).split("/")[:5])
    connections, shelf = house.link.connections, house.shelf()
    with httpx.Client(base_url=house.service.http.base_url, timeout=LONG) as stranger:
        for path in (*(f"/api/iso/{question}" for question in GUARDED), job, f"{job}/disc", f"{job}/disc?part=1"):
            for headers in (
                {},
                {"X-API-Key": "wrong"},
                {"X-API-Key": KEY[:-1]},
                {"X-API-Key": KEY + "x"},
                {"Authorization": f"Bearer {KEY}"},
            ):
                answer = stranger.get(path, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), path
                assert KEY not in answer.text
        assert (house.shelf(), house.link.connections) == (shelf, connections)
        for path in ("/api/health", "/metrics", "/api/openapi.json", "/"):
            answer = stranger.get(path)
            assert answer.status_code == 200
            assert KEY not in answer.text
    assert (house.shelf(), house.link.connections) == (shelf, connections + 1), (
        "only /api/health asks the PACS (C-ECHO)"
    )


def needles(person: Person) -> set[bytes]:
    """What identifies a patient, in every encoding that it could stand in."""
    texts = [
        person.patient_id,
        person.birth_date,
        f"{person.birth_date[:4]}-{person.birth_date[4:6]}-{person.birth_date[6:]}",
    ]
    texts += [part for part in person.name.split("^") if part]
    encodings = ("utf-8", "utf-16-le", "utf-16-be", "iso8859_11", "unicode_escape")
    found = {
        text.encode(encoding) for text in texts for encoding in encodings if text.isascii() or encoding != "latin-1"
    }
    return found | {text.encode("ascii", "backslashreplace").replace(b"\\", b"\\\\") for text in texts}


NEEDLES = needles(CANARY) | needles(THAI_CANARY) | {KEY.encode()}


def hits(content: bytes) -> list[bytes]:
    lowered = content.lower()
    return [needle for needle in NEEDLES if needle.lower() in lowered]


def files_below(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def test_25_the_canaries_are_seen_where_they_may_be(house: House) -> None:
    """The search itself: a canary in a manifest or an image is found, so it would be found elsewhere."""
    house.disc("THAI1", house.service.data_dir.parent / "thai")
    image = next(file for file in files_below(house.service.data_dir / "discs") if file.name == "disc.iso")
    assert hits(image.read_bytes())


def test_25_a_fault_that_nobody_foresaw_tells_no_patients_data(house: House) -> None:
    """An exception whose text quotes the patient: the images are gone when they are to be mastered, and a name is no
    name.
    """

    def sends_and_removes(move: MoveRequest) -> None:
        move.store(move.files)
        for file in (house.service.data_dir / "jobs").glob("*/instances/*"):
            file.rename(file.with_name(f"{CANARY.name}-{CANARY.birth_date}-{CANARY.patient_id}"))
        move.end(0x0000)

    house.play("GOOD1", sends_and_removes)
    body = house.refused("GOOD1", 500, "unforeseen", "unexpected fault.*maintains mkiso")
    assert not hits(str(body).encode())


def test_25_no_canary_in_logs_prefect_metrics_jobs_or_temporary_files(house: House) -> None:
    service = house.service
    data_dir = service.data_dir
    house.patient_api.script = house.patient_api.answers(
        hn=CANARY.patient_id, name=CANARY.name, birth_date=CANARY.birth_date
    )
    house.disc("GOOD1", data_dir.parent / "with the patient API")
    searched = [
        service.log_file,
        *files_below(data_dir / "prefect", data_dir / "incoming"),
    ]
    searched += [
        *files_below(Path(service.environment["TMPDIR"])),
        *(file for file in data_dir.iterdir() if file.is_file() and file.name != TRAIL),
    ]
    assert any(file.name == "prefect.db" for file in searched)
    assert any(file.name == "prefect.db-wal" for file in searched), "what isn't in the database yet is searched too"
    assert {str(file): found for file in searched if (found := hits(file.read_bytes()))} == {}
    jobs = [file.stem for file in (data_dir / "discs" / "jobs").rglob("*-*-*-*-*.json")]
    assert jobs
    for path in ("/metrics", "/api/health"):
        assert not hits(service.http.get(path).content)
    for job in jobs:
        answer = service.http.get(f"/api/iso/jobs/{job}")
        told = answer.json()
        if answer.status_code != 200:  # scenario 22 damages a disc on the shelf, which then leaves it
            assert (answer.status_code, told["code"]) == (404, "job_not_found")
        for disc in told.get("discs", ()):
            del disc["filename"]  # what a browser saves it as: of several numbers the patient's name
        assert not hits(json.dumps(told, ensure_ascii=False).encode())
    asked: list[tuple[str, dict[str, object]]] = [
        (f"/{what}/filter", {"limit": 200}) for what in ("flow_runs", "task_runs", "logs", "artifacts")
    ]
    for path, body in asked:
        assert not hits(service.prefect.post(path, json=body).raise_for_status().content), path
    assert not list(files_below(Path(service.environment["TMPDIR"]))), "temporary files were left"
    assert not list(files_below(data_dir / "jobs", data_dir / "incoming"))


def test_25_the_audit_trail_has_patient_ids_and_no_names(house: House) -> None:
    """As it is configured here; every message keeps to the schema."""
    text = (house.service.data_dir / TRAIL).read_text(encoding="utf-8")
    for line in text.splitlines():
        assert_schema(fromstring(line))
    assert CANARY.patient_id in text and THAI_CANARY.patient_id in text
    assert not [
        part
        for person in (CANARY, THAI_CANARY)
        for part in (*person.name.split("^"), person.birth_date, KEY)
        if part in text
    ]
    assert {event in text for event in ("Begin Transferring", "Export", "Query", "Security Alert")} == {True}
    assert not (house.service.data_dir / "audit-undelivered.xml").exists()


def test_25_what_lies_on_the_disk_is_the_services_alone(house: House) -> None:
    """Files 0600, folders 0700, also those that Prefect makes."""
    loose = {}
    for path in (house.service.data_dir, *house.service.data_dir.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_IMODE(mode) & 0o077 and not stat.S_ISLNK(mode):
            loose[str(path.relative_to(house.service.data_dir))] = oct(stat.S_IMODE(mode))
    assert loose == {}

"""The same studies in each format, from a real PACS: the same files, each judged by other programs."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from mkiso.formats.disc_check import verify_disc
from mkiso.formats.registry import FORMATS, ISO
from peers.corpus import THAI, make_study
from peers.discs import assert_holds_exactly, extract, opened_as_its_readme_says
from tests.end_to_end.conftest import Hospital, Open

pytestmark = [pytest.mark.end_to_end]


def assert_nowhere_below(folder: Path, secret: str) -> None:
    """No file has it: no report, no log, and neither Prefect's database nor its journal."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert any(file.suffix == ".db" for file in files)
    assert not [file for file in files if secret.encode() in file.read_bytes()]


def test_each_format_holds_the_same_and_is_served_again_only_as_itself(
    open_hospital: Open, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = make_study(tmp_path_factory.mktemp("studies"), "F1", patient=THAI, kinds={"ct": 5, "sr": 1})
    hospital: Hospital = open_hospital("orthanc", files)
    http = hospital.service.http
    pixels: dict[str, list[str]] = {}
    for form in FORMATS.values():
        query = {"accession_number": "F1", **({} if form is ISO else {"format": form.name})}
        query |= {"password": "header"} if form.is_encrypted else {}
        answer = http.get("/api/iso/download", params=query)
        password = answer.headers.get("x-mkiso-password", "")
        assert bool(password) == form.is_encrypted
        assert (answer.status_code, answer.headers["content-type"]) == (200, form.media_type), answer.text
        assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
        image = tmp_path / f"F1{form.suffix}"
        image.write_bytes(answer.content)
        assert verify_disc(image, password=password).instances == len(files)
        folder = extract(image, tmp_path / form.name, password)
        subprocess.run(["sha256sum", "--quiet", "-c", "SHA256.TXT"], cwd=folder, check=True)
        if form.has_envelopes:
            folder = opened_as_its_readme_says(folder, password)
        assert_holds_exactly(folder, files)
        pixels[form.name] = sorted(
            hashlib.sha256(file.read_bytes()).hexdigest() for file in (folder / "DICOM").rglob("IM*")
        )
        if form.is_encrypted:
            assert_nowhere_below(hospital.service.data_dir, password)
            assert password not in hospital.service.log()
        else:
            assert http.get("/api/iso/download", params=query).headers["etag"] == answer.headers["etag"]
    assert len(set(map(tuple, pixels.values()))) == 1
    shelved = [json.loads(file.read_text()) for file in hospital.service.data_dir.glob("discs/*/manifest.json")]
    assert sorted(disc["format"] for disc in shelved) == sorted(FORMATS)

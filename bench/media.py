"""Rows of the disc's making: lay out, master and read back, against dcmmkdir and genisoimage, which read
nothing back.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.laboratory import Laboratory
from bench.processes import Watch
from bench.samples import Row, Sample, faster, within
from bench.studies import StudyFiles
from mkiso.config.settings import Settings
from mkiso.dataset.header import read_header
from mkiso.formats.iso import master
from mkiso.formats.proof import verify_image
from mkiso.formats.protocol import Format
from mkiso.formats.registry import FORMATS, ISO
from mkiso.formats.zip_encrypted import new_password
from mkiso.media.envelopes import Envelopes
from mkiso.media.layout import LayoutOptions, lay_out
from mkiso.storage.files import sha256_of
from mkiso.study.gate import CompleteStudies, Part
from mkiso.study.models import Arrival, Expected, Instance, Study
from mkiso.study.values import Found, Retrieved, StudyRetrieved


def media_rows(laboratory: Laboratory) -> Iterator[Row]:
    """1,000 CT and 10,000 small files."""
    for key, name, case in [("media-ct", "CT1000", "1,000 CT"), ("media-small", "SMALL10000", "10,000 small files")]:
        study = laboratory.studies.get(name)
        instances = [_instance(file) for file in study.files]
        ours, reference = Sample(), Sample()
        for _ in range(laboratory.runs):
            with laboratory.scratch("media") as folder:
                ours.add(*_in_child(_make, instances, folder))
            with laboratory.scratch("dcmtk") as folder:
                tool_disc(study, folder, reference)
        yield faster(key, f"lay out + master + read back, {case}; against dcmmkdir + genisoimage", ours, reference, 1)


def large_rows(laboratory: Laboratory) -> Iterator[Row]:
    """Memory of a file of 4.7 GB in each format, and whether 7-Zip finds it whole: ZIP64, and places in FAT32 beyond
    what 32 bits count. One run of each.
    """
    study = laboratory.studies.get("BIG5GB")
    instances = [_instance(file) for file in study.files]
    for name, form in FORMATS.items():
        password = new_password()
        with laboratory.scratch("large") as folder:
            seconds, peak_mb = _in_child(_write_and_prove, instances, folder, form, password)
            image = folder / f"disc{form.suffix}"
            judged = subprocess.run(["7z", "t", f"-p{password}", image], capture_output=True, text=True, check=True)
            assert "Everything is Ok" in judged.stdout
            remark = f"{image.stat().st_size / 1e9:.2f} GB written and read back in {seconds:.0f} s; 7z finds it whole"
        yield within(
            f"format-large-{name}",
            f"peak memory of the job's process, {len(instances):,} CT as {name}",
            Sample([peak_mb], peak_mb),
            peak_mb,
            300,
            "under 300 MB",
            unit="MB",
            remark=remark,
        )


def tool_disc(study: StudyFiles, folder: Path, sample: Sample) -> None:
    """One disc by dcmmkdir and genisoimage; the files lie under names of a file-set already."""
    for number, file in enumerate(study.files):
        target = folder / "disc" / "DICOM" / f"S{number // 500:07}" / f"I{number:07}"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, target)
    with Watch() as watch:
        watch.run(["dcmmkdir", "+r", "+id", ".", "+F", "MKISO", "DICOM"], folder=folder / "disc")
        watch.run(["genisoimage", "-quiet", "-J", "-r", "-V", "MKISO", "-o", folder / "disc.iso", folder / "disc"])
    sample.add(watch.seconds, watch.peak_mb)


def _instance(file: Path) -> Instance:
    header = read_header(file)
    uid = str(header.SOPInstanceUID)
    arrival = Arrival(
        uid,
        str(header.SOPClassUID),
        "1.2.840.10008.1.2.1",
        str(header.StudyInstanceUID),
        file,
        file.stat().st_size,
        sha256_of(file),
    )
    return Instance(arrival, header)


def _in_child(make: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    """Seconds and peak memory of one disc, made in a fork as a job is. Raises RuntimeError where none was made."""
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    child = multiprocessing.get_context("fork").Process(target=make, args=(*arguments, theirs))
    child.start()
    theirs.close()
    try:
        seconds, peak_mb = ours.recv()
    except EOFError:
        raise RuntimeError("no disc was made") from None
    finally:
        child.join()
    return seconds, peak_mb


def _complete(instances: list[Instance], settings: Settings) -> CompleteStudies:
    """Through the gate, as a job's instances go before they are laid out."""
    by_study: dict[str, list[Instance]] = {}
    for each in instances:
        by_study.setdefault(each.arrival.study_instance_uid, []).append(each)
    retrieved = tuple(StudyRetrieved(_study(uid, its), tuple(its)) for uid, its in by_study.items())
    studies = tuple(each.study for each in retrieved)
    whole = Retrieved(Found(tuple(study.accession_number for study in studies), studies), retrieved)
    return CompleteStudies(whole, settings.identity)


def _study(uid: str, instances: Sequence[Instance]) -> Study:
    header, uids = instances[0].header, frozenset(each.arrival.sop_instance_uid for each in instances)
    expected = Expected("image", len(uids), {"1": uids})
    return Study(str(header.AccessionNumber), uid, str(header.PatientID), expected=expected)


def _make(instances: list[Instance], folder: Path, answer: Connection) -> None:
    settings = Settings.model_validate({"disc": {"medium": "bd"}, "storage": {"data_dir": str(folder)}})
    began = time.perf_counter()
    layout = lay_out(
        Part.whole(_complete(instances, settings)), LayoutOptions(settings, datetime.now(UTC)), folder / "disc"
    )
    master(layout.files, layout.volume_id, folder / "disc.iso", created=layout.created)
    verify_image(folder / "disc.iso", layout.files, ISO)
    answer.send((time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def _write_and_prove(instances: list[Instance], folder: Path, form: Format, password: str, answer: Connection) -> None:
    form = form.opened(password)
    settings = Settings.model_validate({"disc": {"medium": "bd"}, "storage": {"data_dir": str(folder)}})
    began = time.perf_counter()
    part = Part.whole(_complete(instances, settings))
    envelopes = Envelopes(password) if form.has_envelopes else None
    medium = form.carrier or "bd"
    layout = lay_out(part, LayoutOptions(settings, datetime.now(UTC), medium, envelopes=envelopes), folder / "disc")
    form.write(layout, folder / f"disc{form.suffix}")
    verify_image(folder / f"disc{form.suffix}", layout.files, form)
    answer.send((time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))

"""Rows of the whole service: an HTTP request to `mkiso serve`, Orthanc as the PACS, until the last byte of the ISO is
here.
"""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from uuid import uuid4

from bench.laboratory import Laboratory
from bench.media import tool_disc
from bench.processes import Watch
from bench.receiving import by_orthanc, fraction, to_storescp
from bench.samples import Row, Sample, faster, within
from bench.studies import SEEN, StudyFiles
from mkiso.formats.registry import FORMATS, ISO
from peers.service import Service, job_at

STARTS = 20
JOBS = 8


def disc_rows(laboratory: Laboratory) -> Iterator[Row]:
    """Request to last byte, against movescu + storescp + dcmmkdir + genisoimage as they come, which send nothing to a
    client.
    """
    for name, modality, least in [("CT1000", "CT", 12.0), ("MR2000", "MR", 25.0)]:
        study = laboratory.stored(name)
        part, factor, remark = fraction(laboratory, name)
        ours, moved, made = Sample(), laboratory.moved_as_it_comes.get(name, Sample()), Sample()
        is_moved = bool(moved.values)
        for _ in range(laboratory.runs):
            download(laboratory, study, ours)
            if not is_moved:
                to_storescp(laboratory, by_orthanc(laboratory), part, moved, nodelay=False, options=[])
            with laboratory.scratch("seed") as folder:
                tool_disc(study, folder, made)
        reference = moved.scaled(factor).plus([made])
        case = f"HTTP request → last byte of the ISO, {modality}; against the seed stack"
        yield faster(f"disc-{modality.lower()}", case, ours, reference, least, remark)


def small_rows(laboratory: Laboratory) -> Iterator[Row]:
    """The same for four radiographs, where fixed costs are what counts."""
    study, ours, reference = laboratory.stored("DX4"), Sample(), Sample()
    for _ in range(laboratory.runs):
        download(laboratory, study, ours)
        moved, made = Sample(), Sample()
        to_storescp(laboratory, by_orthanc(laboratory), study, moved, nodelay=False, options=[])
        with laboratory.scratch("seed") as folder:
            tool_disc(study, folder, made)
        whole = moved.plus([made])
        reference.add(whole.values[0], whole.peak_mb)
    yield faster(
        "disc-dx", "HTTP request → last byte of the ISO, 4 DX; against the seed stack", ours, reference, 1 / 1.3
    )


def pictures_rows(laboratory: Laboratory) -> Iterator[Row]:
    """Discs with pictures against discs without, in turns: the time to the last byte, and what the pictures add to the
    disc. The ratio is the median of those of neighbours, so that a busy machine slows both.
    """
    with laboratory.serving(pictures="none") as without:
        for name, words, most in [("SEEN_CT1000", "1,000 CT", 1.25), ("SEEN_DX4", "4 DX", 1.5)]:
            study, ours, plain = laboratory.stored(name), Sample(), Sample()
            added = 0
            for _ in range(laboratory.runs):
                for service, sample, sign in ((laboratory.service, ours, 1), (without, plain, -1)):
                    laboratory.sends_to(service)
                    added += sign * download(laboratory, study, sample, service)
            ratio = median(one / other for one, other in zip(ours.values, plain.values, strict=True))
            added_mb = added / laboratory.runs / 1e6
            yield within(
                f"pictures-{name.removeprefix(SEEN).lower()}",
                f"HTTP request → last byte, {words} with pictures, against without",
                ours,
                ratio,
                most,
                f"within {most:g}×",
                remark=f"without: {plain.median:.2f} s; {added_mb:.1f} MB more; load {os.getloadavg()[0]:.0f}",
            )


def start_rows(laboratory: Laboratory) -> Iterator[Row]:
    """Request to the first line of the flow."""
    service, sample = laboratory.service, Sample()
    for _ in range(STARTS):
        sample.add(first_line(service, laboratory.stored("TINY")))
        time.sleep(0.3)
    words = f"{STARTS} starts"
    yield within(
        "start",
        "HTTP request → first line of the flow, median",
        sample,
        sample.median,
        0.7,
        "under 0.7 s",
        remark=words,
    )
    yield within("start-worst", "… worst", sample, max(sample.values), 2.0, "under 2 s", remark=words)


def scaling_rows(laboratory: Laboratory) -> Iterator[Row]:
    """Time per instance of a study ten times as long."""
    long, short = laboratory.stored("LONG20000"), laboratory.stored("LONG2000")
    of_long, of_short = Sample(), Sample()
    for _ in range(laboratory.runs):
        download(laboratory, short, of_short)
        download(laboratory, long, of_long)
    for name in ("LONG20000", "LONG2000"):
        laboratory.dismiss(name)
    per_long, per_short = of_long.scaled(1e3 / len(long.files)), of_short.scaled(1e3 / len(short.files))
    ratio = per_long.median / per_short.median
    remark = f"2,000: {per_short.median:.2f} ms; 8 KB each"
    yield within(
        "scaling",
        "time per instance, 20,000 against 2,000",
        per_long,
        ratio,
        1.3,
        "within 1.3×",
        unit="ms",
        remark=remark,
    )


def memory_rows(laboratory: Laboratory) -> Iterator[Row]:
    """The most memory that any process of the service has during a disc of 4 GB."""
    study, sample = laboratory.stored("BIG4GB"), Sample()
    download(laboratory, study, sample)
    laboratory.dismiss("BIG4GB")
    peaks = Sample([sample.peak_mb], sample.peak_mb)
    remark = f"{study_size(study)} in {sample.median:.1f} s, one run"
    yield within(
        "memory",
        "peak memory of any one process, 4 GB disc",
        peaks,
        sample.peak_mb,
        250,
        "under 250 MB",
        unit="MB",
        remark=remark,
    )


def jobs_rows(laboratory: Laboratory) -> Iterator[Row]:
    """Eight clerks at once against one."""
    studies = [laboratory.stored(f"JOB{number}") for number in range(JOBS)]
    alone, together = Sample(), Sample()
    sizes = [study.size for study in studies]
    for _ in range(laboratory.runs):
        download(laboratory, studies[0], alone)
        began = time.perf_counter()
        with ThreadPoolExecutor(JOBS) as clerks, Watch(laboratory.service.pid) as watch:
            made = list(clerks.map(lambda study: fetch(laboratory.service, study), studies))
        together.add(time.perf_counter() - began, watch.peak_mb)
        for _, job_id in made:
            laboratory.service.run_ended(job_id)
    for study in studies:
        laboratory.dismiss(study.accession_number)
    one, eight = sizes[0] / alone.median / 1e6, sum(sizes) / together.median / 1e6
    remark = f"{eight:.0f} MB/s against {one:.0f} MB/s; 250 CT each"
    yield Row(
        "jobs",
        "8 jobs at once, throughput against one job's",
        together,
        "at least 0.9×",
        eight / one,
        least=0.9,
        remark=remark,
    )


def study_size(study: StudyFiles) -> str:
    return f"{len(study.files):,} CT"


def formats_rows(laboratory: Laboratory) -> Iterator[Row]:
    """The same request in each other format, against the ISO image; in turns, so that a busy machine slows all. Without
    pictures, which encrypted DICOM files have none of.
    """
    study = laboratory.stored("CT1000")
    samples = {name: Sample() for name in FORMATS}
    with laboratory.serving(pictures="none") as service:
        for _ in range(laboratory.runs):
            for name, sample in samples.items():
                download(laboratory, study, sample, service, form=name)
    iso = samples.pop(ISO.name)
    for name, sample in samples.items():
        case = f"HTTP request → last byte as {name}, 1,000 CT; against the ISO image"
        yield faster(f"format-{name}", case, sample, iso, 1 / 1.5 if FORMATS[name].is_encrypted else 1)


def first_line(service: Service, study: StudyFiles) -> float:
    """Seconds from a request to the first line of its flow, seen by the job's folder that the flow's second line
    makes; returns when the run has ended.
    """
    jobs = service.data_dir / "jobs"
    before = {folder.name for folder in jobs.iterdir()}
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as client:
        asking = client.submit(service.ask, "/api/iso/download", accession_number=study.accession_number)
        while not {folder.name for folder in jobs.iterdir()} - before:
            time.sleep(0.001)
        seconds = time.perf_counter() - began
        service.run_ended(asking.result())
    return seconds


def download(
    laboratory: Laboratory, study: StudyFiles, sample: Sample, service: Service | None = None, form: str = ISO.name
) -> int:
    """One disc; the disc is forgotten afterwards, for its room. Its bytes; `sample` gets the seconds that it took."""
    service = service or laboratory.service
    with Watch(service.pid) as watch:
        size, job_id = fetch(service, study, form)
    service.run_ended(job_id)  # it ends a little after its disc was here, and would be joined until then
    if size < study.size:
        raise RuntimeError(f"a disc of {size} bytes can't hold {study.size} bytes of images")
    sample.add(watch.seconds, watch.peak_mb)
    for image in (service.data_dir / "discs").glob("*/disc.*"):
        image.unlink()
    return size


def fetch(service: Service, study: StudyFiles, form: str = ISO.name) -> tuple[int, str]:
    """Ask as a browser does and read to the last byte; how many came, and the job's id. Raises RuntimeError with the
    answer's words.
    """
    connection = http.client.HTTPConnection("127.0.0.1", service.http.base_url.port, timeout=900)
    buffer, size = bytearray(1 << 20), 0
    try:
        connection.request(
            "GET",
            f"/api/iso/download?accession_number={study.accession_number}&format={form}&password=header",
            headers={"X-Request-ID": f"bench-{uuid4()}"},
        )
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.read()!r}\n{service.log()[-3000:]}")
        while count := answer.readinto(buffer):
            size += count
        if size != int(answer.headers["Content-Length"]):
            raise RuntimeError("the ISO was cut short")
    finally:
        connection.close()
    return size, job_at(answer.headers["Content-Location"])

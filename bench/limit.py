"""Rows of what a question costs: a large study beside its bare transfer, many small ones, one that has its disc."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.discs import download, fetch
from bench.laboratory import Laboratory
from bench.receiving import by_orthanc, to_counting
from bench.samples import Row, Sample, within

ASKED, AT_ONCE, SMALL_STUDIES = 20, 60, 20


def limit_rows(laboratory: Laboratory) -> Iterator[Row]:
    """Request to last byte against the same Orthanc's sending to a receiver that only counts; without pictures."""
    with laboratory.serving(pictures="none") as service:
        for name, modality, most in [("CT1000", "CT", 1.6), ("MR2000", "MR", 1.4)]:
            study, ours, bare = laboratory.stored(name), Sample(), Sample()
            for _ in range(laboratory.runs):
                download(laboratory, study, ours, service)
                to_counting(laboratory, by_orthanc(laboratory), study, bare)
            yield Row(
                f"limit-{modality.lower()}",
                f"HTTP request → last byte of the ISO without pictures, {modality}; against the transfer alone",
                ours,
                f"at most {most:g}× its time",
                ours.median / bare.median,
                most=most,
                reference=bare,
            )


def small_jobs_rows(laboratory: Laboratory) -> Iterator[Row]:
    """Twenty clerks at once, each with a small study; then questions whose disc is on the shelf and still right."""
    studies = [laboratory.stored(f"FEW{number}") for number in range(SMALL_STUDIES)]
    together, again, at_once = Sample(), Sample(), Sample()
    with laboratory.serving(reuse_minutes=0) as service, ThreadPoolExecutor(SMALL_STUDIES) as clerks:
        for _ in range(laboratory.runs):
            began = time.perf_counter()
            made = list(clerks.map(lambda study: fetch(service, study), studies))
            together.add(time.perf_counter() - began)
            for _, job_id in made:
                service.run_ended(job_id)
    words = f"{SMALL_STUDIES} studies of {len(studies[0].files)} CT asked for at once, until the last disc is here"
    yield within("small-jobs", words, together, together.median, 6, "6 s")
    with laboratory.serving(reuse_minutes=600) as service:
        _, job_id = fetch(service, studies[0])
        service.run_ended(job_id)
        for _ in range(ASKED):
            began = time.perf_counter()
            told = fetch(service, studies[0])
            again.add(time.perf_counter() - began)
            _require_no_other(job_id, told[1])
        with ThreadPoolExecutor(AT_ONCE) as clerks:
            for _ in range(laboratory.runs):
                began = time.perf_counter()
                for told in list(clerks.map(lambda _: fetch(service, studies[0]), range(AT_ONCE))):
                    _require_no_other(job_id, told[1])
                at_once.add(time.perf_counter() - began)
    asked = "a question whose disc is on the shelf and still right"
    yield within("again", f"{asked}, until its last byte", again, again.median, 0.1, "0.1 s")
    yield within("again-at-once", f"… {AT_ONCE} of them at once", at_once, at_once.median, 4, "under 4 s")


def _require_no_other(job_id: str, told: str) -> None:
    if told != job_id:
        raise RuntimeError(f"job {told} made a disc that job {job_id} had made already")

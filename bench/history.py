"""Rows of a site that has made 200,000 discs: what starting, a small job and the pages take beside a site without a
past, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

from bench.discs import fetch, first_line
from bench.filling import Database, Postgresql, Sqlite, fill
from bench.laboratory import Laboratory
from bench.samples import Row, Sample
from mkiso.config.storage import Storage
from mkiso.storage.report_files import ASKED, REPORT, file_of, make_folder
from peers.postgresql import BIN, running_postgresql
from peers.process import Child, Process
from peers.service import Service

RUNS, RUNS_A_DAY = 200_000, 500
OLD = 100
"""Runs that a round of housekeeping finds too old."""
FEW = 1000
"""Runs of a site without a past: as many as housekeeping removes from it."""
MOST = 1.2
SITES: Mapping[str, int] = {"new": FEW, "old": RUNS}
JOBS = 3
"""Of each kind, after each start."""
HEALTH_SECONDS = 10.5
"""After this long no dependency's health is remembered."""
MEASURED: Mapping[str, tuple[str, str]] = {
    "start": ("`mkiso serve` until it is ready", "s"),
    "first-line": ("request → first line of a small job", "ms"),
    "small-job": ("request → last byte of a small job", "ms"),
    "jobs": ("the list of jobs", "ms"),
    "job": ("a job that has ended", "ms"),
    "metrics": ("what Prometheus asks", "ms"),
    "health": ("health, asked anew", "ms"),
    "ui": ("Prefect's own page of runs: a page and its counts", "ms"),
    "housekeeping": (f"a round of housekeeping that removes {OLD} runs", "s"),
}


LOOKS: Mapping[str, tuple[str, str]] = {
    "first": ("the list of jobs, first after a start", "s"),
    "jobs": ("the list of jobs", "ms"),
    "metrics": ("what Prometheus asks", "ms"),
}
LOOK_SECONDS = 0.6
"""So old what is known of the files may be, and a little more."""


def history_rows(laboratory: Laboratory) -> Iterator[Row]:
    """Both databases, one after the other: each takes 12 GB while it is measured."""
    yield from _rows(laboratory, "SQLite", lambda site: Sqlite.opened(site.data_dir / "prefect" / "prefect.db"))
    if not (BIN / "initdb").exists():
        laboratory.say("PostgreSQL isn't installed")
        return
    with running_postgresql() as server:
        urls = {name: server.database(name) for name in SITES}
        yield from _rows(laboratory, "PostgreSQL", lambda site: Postgresql.opened(urls[site.name]), urls)


class Site(Service):
    """`mkiso serve` that can be started again."""

    def __init__(self, name: str, folder: Path, pacs: tuple[str, int], url: str | None) -> None:
        sections: dict[str, dict[str, Any]] = {
            "disc": {"reuse_minutes": 0},
            "prefect": {"keep_runs_days": 2 * RUNS / RUNS_A_DAY},
        }
        super().__init__(folder, pacs, sections)
        self.name = name
        if url:
            driven = url.replace("postgresql:", "postgresql+asyncpg:")
            self.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = driven
        self.ready_seconds, self.poll_seconds = 600, 0.02

    def begin(self) -> Child:
        """Start it; what its log has so far is of earlier starts."""
        self._logged = self.log_file.stat().st_size if self.log_file.exists() else 0
        return super().begin()

    def is_ready(self) -> bool:
        """Not by the heartbeat of the worker of the last start."""
        return super().is_ready() and b"' started!" in self.log_file.read_bytes()[self._logged :]

    def end(self) -> None:
        """Its process, and not the clients."""
        Process.stop(self)

    def seconds_of(self, path: str) -> float:
        """Until an answer is here."""
        return _seconds(lambda: self.http.get(path).raise_for_status())


def reports_rows(laboratory: Laboratory) -> Iterator[Row]:
    """The reports of as many jobs, which are kept as long as their runs, on the disk."""
    pacs, sites = laboratory.orthanc, {}
    with ExitStack() as stack:
        for name, jobs in SITES.items():
            laboratory.say(f"the reports of {jobs:,} jobs are written")
            site = sites[name] = Site(name, laboratory.new_folder(f"reports-{name}"), (pacs.ae_title, pacs.port), None)
            stack.callback(site.stop)
            _keep_reports(laboratory, site, jobs)
        samples = {name: {what: Sample() for what in LOOKS} for name in sites}
        for _ in range(laboratory.runs):
            for name, site in sites.items():
                site.start()
                samples[name]["first"].add(site.seconds_of("/api/iso/jobs"))
                for what, path in (("jobs", "/api/iso/jobs"), ("metrics", "/metrics")) * JOBS:
                    time.sleep(LOOK_SECONDS)
                    samples[name][what].add(1000 * site.seconds_of(path))
                site.end()
        yield from _compared("reports", f"{RUNS:,} reports", LOOKS, samples)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _keep_reports(laboratory: Laboratory, site: Site, jobs: int) -> None:
    """Copies of what one job has left, each of another time."""
    site.start()
    laboratory.sends_to(site)
    _, made = fetch(site, laboratory.stored("TINY"))
    site.run_ended(made)
    site.end()
    storage = Storage(data_dir=site.data_dir)
    report, asked = (file_of(storage, made, suffix).read_text() for suffix in (REPORT, ASKED))
    now, said = time.time(), json.loads(asked)
    for number in range(jobs):
        seconds = now - (jobs - number) * 86_400 / RUNS_A_DAY
        copy, moment = _id_of(seconds), datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
        asked = json.dumps({**said, "time": moment}) + "\n"
        for suffix, content in ((REPORT, report.replace(made, copy)), (ASKED, asked)):
            file = file_of(storage, copy, suffix)
            make_folder(storage, file)
            file.write_text(content)
            for path in (file, file.parent):
                os.utime(path, (seconds, seconds))


def _id_of(seconds: float) -> str:
    """A job's id of then: a UUIDv7, as Prefect gives."""
    random = int.from_bytes(os.urandom(10)) & ~(0xF << 76) & ~(0x3 << 62)
    return str(UUID(int=int(seconds * 1000) << 80 | 0x7 << 76 | 0x2 << 62 | random))


Opened = Callable[[Site], AbstractContextManager[Database]]


def _rows(
    laboratory: Laboratory, kind: str, opened: Opened, urls: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Row]:
    pacs = laboratory.orthanc
    with ExitStack() as stack:
        sites = {}
        for name, runs in SITES.items():
            laboratory.say(f"{kind} of {runs:,} runs is made")
            folder = laboratory.new_folder(f"history-{name}")
            site = sites[name] = Site(name, folder, (pacs.ae_title, pacs.port), urls.get(name))
            stack.callback(site.stop)
            _make_past(laboratory, site, opened, runs)
        samples = {name: {what: Sample() for what in MEASURED} for name in sites}
        for turn in range(laboratory.runs):
            for name, site in sites.items():
                _measure(laboratory, site, opened, turn, samples[name])
        yield from _compared(f"history-{kind.lower()}", f"{RUNS:,} runs on {kind}", MEASURED, samples)
        with opened(sites["old"]) as database:
            size = database.size()
        days = RUNS / RUNS_A_DAY
        remark = f"{size / RUNS / 1e3:.0f} KB a job; {days:.0f} days of {RUNS_A_DAY} jobs"
        yield Row(
            f"history-{kind.lower()}-size",
            f"{kind} with {RUNS:,} runs",
            Sample([size / 1e9]),
            "",
            size / 1e9,
            unit="GB",
            remark=remark,
        )
    for file in [file for site in sites.values() for file in (site.data_dir / "prefect").glob("prefect.db*")]:
        file.unlink()


def _compared(
    key: str, words: str, measured: Mapping[str, tuple[str, str]], samples: Mapping[str, Mapping[str, Sample]]
) -> Iterator[Row]:
    for what, (case, unit) in measured.items():
        new, old = samples["new"][what], samples["old"][what]
        ratio, goal = old.median / new.median, f"within {MOST:g}×"
        words_of = f"{case}, {words}; against {FEW:,}"
        yield Row(f"{key}-{what}", words_of, old, goal, ratio, most=MOST, reference=new, unit=unit)


def _make_past(laboratory: Laboratory, site: Site, opened: Opened, runs: int) -> None:
    """One disc that is made and one that can't be, and copies of these runs."""
    site.start()
    laboratory.sends_to(site)
    _, completed = fetch(site, laboratory.stored("TINY"))
    failed = site.ask("/api/iso/download", accession_number="NOSUCHSTUDY")
    for job_id in (completed, failed):
        site.run_ended(job_id)
    time.sleep(3)  # steps' states and the log are written down a little later
    site.end()
    with opened(site) as database:
        fill(database, completed, failed, runs, RUNS_A_DAY)


def _measure(laboratory: Laboratory, site: Site, opened: Opened, turn: int, samples: Mapping[str, Sample]) -> None:
    study = laboratory.stored("TINY")

    def add(what: str, seconds: float) -> None:
        samples[what].add(seconds * (1000 if MEASURED[what][1] == "ms" else 1))

    add("start", _seconds(site.start))
    laboratory.sends_to(site)
    asked_health = time.perf_counter()
    for _ in range(JOBS):
        add("first-line", first_line(site, study))
        began = time.perf_counter()
        _, job_id = fetch(site, study)
        add("small-job", time.perf_counter() - began)
        site.run_ended(job_id)
        for what, path in (("jobs", "/api/iso/jobs"), ("job", f"/api/iso/jobs/{job_id}"), ("metrics", "/metrics")):
            add(what, site.seconds_of(path))
        add("ui", _seconds(lambda: _ask_as_its_ui(site)))
    time.sleep(max(0.0, HEALTH_SECONDS - (time.perf_counter() - asked_health)))
    add("health", site.seconds_of("/api/health"))
    add("housekeeping", _housekeeping(site, opened, turn))
    site.end()


def _ask_as_its_ui(site: Site) -> None:
    site.prefect.post("/flow_runs/paginate", json={"sort": "START_TIME_DESC", "limit": 10}).raise_for_status()
    site.prefect.post("/flow_runs/count", json={}).raise_for_status()


def _housekeeping(site: Site, opened: Opened, turn: int) -> float:
    """Seconds of a round that finds some runs too old."""
    names = ", ".join(f"'Disc H{number}'" for number in range(1 + turn * OLD, 1 + (turn + 1) * OLD))
    with opened(site) as database:
        database.run(f"UPDATE flow_run SET end_time = '2000-01-01 00:00:00.000000' WHERE name IN ({names})")
    deployment = site.prefect.get("/deployments/name/keep_house/housekeeping").raise_for_status().json()["id"]
    asked = site.prefect.post(f"/deployments/{deployment}/create_flow_run", json={"state": {"type": "SCHEDULED"}})
    run = site.run_ended(asked.raise_for_status().json()["id"])
    if run["state_type"] != "COMPLETED":
        raise RuntimeError(f"housekeeping ended as {run['state_name']}\n{site.log()[-3000:]}")
    return float(run["total_run_time"])

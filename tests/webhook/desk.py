"""What the HTTP layer is tested with: the real application under the real uvicorn, and jobs that a test ends as it
likes.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from mkiso.config.access import Auth
from mkiso.config.disc import Disc
from mkiso.config.publishers import CStore
from mkiso.config.section import TransferSyntax
from mkiso.config.settings import Server, Settings
from mkiso.config.storage import Storage
from mkiso.errors import JobNotFound, MkisoError, OrchestratorUnavailable, QueueFull
from mkiso.storage.marks import marks_of
from mkiso.storage.report import JobReport, write_report
from mkiso.storage.shelf import Manifest, manifests, new_disc_id, shelve, whole_sets
from mkiso.study.question import Kind, Question
from mkiso_service.prefect.orchestrator import Asked, Standing
from mkiso_service.webhook.server import serve
from peers.patience import LONG, until
from peers.ports import free_port

KEY = "correct-horse-battery"

Script = Callable[[str, Question], Standing]
"""What runs as the job: its id and its question in, how it stands after out."""


class Desk:
    """Jobs in memory, with the same manners as PrefectOrchestrator. `script(job_id, question)` runs as the job and
    returns how it stands after.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.anew(script)

    def anew(self, script: Script | None = None) -> None:
        """Nothing has been asked yet."""
        self.script: Script = script or (lambda job_id, question: "running")
        self.standings: dict[str, Standing] = {}
        self.why: dict[str, MkisoError] = {}
        self.in_flight: dict[str, str] = {}
        self.asked: list[Question] = []
        self.down = False
        self.full = False
        self.waiting = 0
        self.ended_before: datetime | None = None

    async def ask(self, question: Question, request_id: str = "") -> Asked:
        self._up()
        if self.full:
            raise QueueFull("50 jobs are waiting already.", retry_after_seconds=7)
        job_id = self.in_flight.get(question.key)
        if job_id and self.standings[job_id] in ("waiting", "running"):
            return Asked(job_id, joined=True)
        job_id = str(uuid4())
        self.asked.append(question)
        self.in_flight[question.key] = job_id
        self.standings[job_id] = "running"
        self.standings[job_id] = await asyncio.to_thread(self.script, job_id, question)
        return Asked(job_id, ended_before=self.ended_before)

    async def standing(self, job_id: str) -> Standing:
        self._up()
        if job_id not in self.standings:
            raise JobNotFound("There is no such job.")
        return self.standings[job_id]

    async def failure_of(self, job_id: str) -> tuple[Kind, MkisoError | None]:
        self._up()
        question = next(each for each in self.asked if self.in_flight[each.key] == job_id)
        return question.kind, self.why.get(job_id)

    async def failures_of(self, job_ids: Collection[str]) -> dict[str, MkisoError]:
        self._up()
        return {job_id: self.why[job_id] for job_id in job_ids if job_id in self.why}

    async def standings_of(self, job_ids: Collection[str]) -> dict[str, Standing]:
        self._up()
        return {job_id: self.standings[job_id] for job_id in job_ids if job_id in self.standings}

    async def cancel(self, job_id: str) -> None:
        self._up()
        self.standings[job_id] = "cancelled"

    async def wait(self, job_id: str, timeout_seconds: float) -> Standing | None:
        self.waiting += 1
        try:
            deadline = time.monotonic() + timeout_seconds
            while self.standings[job_id] in ("waiting", "running", "suspended"):
                if time.monotonic() > deadline:
                    return None
                await asyncio.sleep(0.01)
            return self.standings[job_id]
        finally:
            self.waiting -= 1

    async def queued(self) -> int:
        self._up()
        return sum(standing == "waiting" for standing in self.standings.values())

    async def why_jobs_wait(self) -> str:
        self._up()
        return ""

    async def silent_workers(self) -> list[str]:
        self._up()
        return []

    async def why_schedules_rest(self) -> str:
        self._up()
        return ""

    async def version(self) -> str:
        self._up()
        return "3.8.8"

    def _up(self) -> None:
        if self.down:
            raise OrchestratorUnavailable("Prefect can't be reached.")


class Client(httpx.Client):
    """A client of the webhook, and what tells the webhook to stop."""

    stop: threading.Event


def stored_as(question: Question) -> TransferSyntax:
    """What its disc's images are stored as, at a site that converts none unless it is asked to."""
    return "explicit-le" if question.transfer_syntax == "explicit-le" else "as-archived"


def report_of(job_id: str, question: Question) -> JobReport:
    """As the job's first one."""
    return JobReport(
        job_id,
        question.kind,
        question.accession_numbers,
        publisher=question.publisher,
        format=question.format,
        language=question.language or "en",
        transfer_syntax=stored_as(question),
        selection=question.selection,
        deidentified=question.deidentified,
    )


class Scripts:
    """Jobs that end in every way, with reports and discs in a real store."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def disc(
        self,
        job_id: str,
        question: Question,
        content: bytes = b"\0" * 32768 + b"CD001" + b"x" * 5000,
        number: int = 1,
        total: int = 1,
        filename: str = "สมชาย ใจดี.iso",
        degraded: tuple[str, ...] = (),
        minutes: float = 0,
        first_disc: str = "",
        fingerprint: str = "print",
    ) -> str:
        image = self.storage.data_dir / f"{uuid4()}.iso"
        image.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        created = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
        manifest = Manifest(
            new_disc_id(),
            job_id,
            created,
            "VOL",
            filename,
            question.accession_numbers,
            fingerprint,
            len(content),
            sha256,
            3,
            "cd",
            number,
            total,
            degraded,
            first_disc=first_disc,
            format=question.format,
            transfer_syntax=stored_as(question),
            selection=question.selection,
            deidentified=question.deidentified,
        )
        shelve(self.storage, image, manifest, marks_of(content))
        return manifest.disc_id

    def report(self, job_id: str, question: Question, **facts: Any) -> Standing:
        write_report(self.storage, replace(report_of(job_id, question), **facts))
        return "running"

    def done(self, job_id: str, question: Question, **disc: Any) -> Standing:
        discs = (self.disc(job_id, question, **disc),) if question.kind == "download" else ()
        self.report(
            job_id,
            question,
            status="done",
            stage="finished",
            expected=3,
            received=3,
            written=3,
            disc_ids=discs,
            proves="queued",
        )
        return "completed"

    def set_of(self, total: int, letter: str = "a") -> Script:
        """A set of so many discs, whose bytes tell which set it is."""

        def script(job_id: str, question: Question) -> Standing:
            discs: list[str] = []
            for number in range(1, total + 1):
                content = f"{letter}{number}".encode() * 50
                first = discs[0] if discs else ""
                discs.append(self.disc(job_id, question, content=content, number=number, total=total, first_disc=first))
            self.report(job_id, question, status="done", disc_ids=tuple(discs))
            return "completed"

        return script

    def failed(self, error: MkisoError) -> Script:
        def script(job_id: str, question: Question) -> Standing:
            write_report(self.storage, report_of(job_id, question).failed(error))
            return "failed"

        return script

    def reused(self, job_id: str, question: Question) -> Standing:
        """What make_disc does where a young disc of the same answer is there."""
        earlier = next(iter(self.storage.discs_dir.glob("*/manifest.json"))).parent.name
        self.report(job_id, question, status="done", disc_ids=(earlier,))
        return "completed"

    def again(self, job_id: str, question: Question) -> Standing:
        """As `reused`, of a set: the newest that answers the question."""
        asked = set(question.accession_numbers)
        discs = next(discs for discs in whole_sets(manifests(self.storage)) if set(discs[0].accession_numbers) == asked)
        self.report(job_id, question, status="done", disc_ids=tuple(disc.disc_id for disc in discs))
        return "completed"


def settings_in(folder: Path, *, auth: bool = False, **server: Any) -> Settings:
    storage = Storage(data_dir=folder, min_free_gib=0)
    storage.discs_dir.mkdir(parents=True, exist_ok=True)
    return Settings(
        server=Server(**{"port": free_port(), "request_timeout_seconds": LONG, "shutdown_grace_seconds": 5, **server}),
        auth=Auth(enabled=auth, api_key=KEY if auth else ""),
        storage=storage,
        disc=Disc(reuse_minutes=60),
        publishers={"rimage": CStore(port=free_port())},  # nobody, whatever runs on the default port of this machine
    )


@contextmanager
def served(settings: Settings, desk: Desk) -> Iterator[Client]:
    """The webhook in a thread; a client of it."""
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve(settings, desk, stop)))
    thread.start()
    try:
        with Client(base_url=f"http://127.0.0.1:{settings.server.port}", timeout=LONG, trust_env=False) as client:
            client.stop = stop
            _until_up(client, thread)
            yield client
    finally:
        stop.set()
        thread.join(settings.server.shutdown_grace_seconds + LONG)
        assert not thread.is_alive()


def _until_up(client: httpx.Client, thread: threading.Thread) -> None:
    def is_up() -> bool:
        if not thread.is_alive():
            raise RuntimeError("the webhook didn't start")
        try:
            return client.get("/page/disc.svg").is_success
        except httpx.TransportError:
            return False

    until(is_up, pause=0.03)

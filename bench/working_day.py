"""A working day of a hospital group: who asks for what and when, the clerks who do, and what is measured meanwhile."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import time
from bisect import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import quantiles
from typing import Any

from bench.filling import Postgresql
from bench.fleet import Fleet, Look, Watch
from bench.laboratory import upload
from bench.machine import Say
from bench.samples import Sample
from bench.studies import StudyFiles, looks
from mkiso_service.prefect.environment import NIGHTLY_ARCHIVE
from peers.corpus import Person, make_ct_series
from peers.patience import LONG, until

HOURS: Mapping[int, float] = {7: 4, 8: 13, 9: 16, 10: 15, 11: 10, 12: 5, 13: 8, 14: 11, 15: 10, 16: 7, 17: 4, 18: 2}
"""How many of a day's questions come in each hour, in shares: the morning's peak, noon, a lower one after it."""
KINDS: Mapping[str, tuple[str, int, int]] = {
    "2 DX": ("dx", 2, 1024),
    "20 CT": ("ct", 20, 512),
    "50 MR": ("mr", 50, 256),
    "250 CT": ("ct", 250, 512),
    "2 DX at once": ("dx", 2, 256),
}
"""Instances and rows of each kind of study; the last one lies in the scripted PACS, which answers without delay."""
SHARES: Mapping[str, float] = {"2 DX": 45, "20 CT": 20, "50 MR": 12, "250 CT": 5, "2 DX at once": 6}
AGAIN, WRONG = "again", "wrong number"
AGAIN_SHARE, WRONG_SHARE = 0.08, 0.04
AFTER = 0.12
"""A question comes again after this part of the day at the earliest, when its disc should be on the shelf."""
SCRIPTED, BURST = "2 DX at once", "2 DX"
NIGHT = "20 CT"
DAYS = ("20240102", "20240103")
"""StudyDates of what the archive takes: alone, and in the day."""
PATIENCE_SECONDS = 900
LONGEST_FOR_WORDS = 20
SECTOR = 2048
ENDED = ("COMPLETED", "FAILED")


@dataclass(frozen=True)
class Size:
    """How large the group is, and its day. The defaults are for two cores; each is an option of the command line."""

    sites: int = 30
    webhooks: int = 2
    workers: int = 3
    places: int = 2
    orthancs: int = 3
    jobs: int = 240
    minutes: float = 10.0
    archived: int = 16
    burst: int = 120
    quiet: int = 5
    seed: int = 1


@dataclass(frozen=True)
class Question:
    """What a clerk asks, `at` so many seconds of the day."""

    at: float
    site: int
    kind: str
    number: str


@dataclass
class Answer:
    """What came of it. `wrong`: why it isn't what was promised. `refused`: how often it was told to ask again later."""

    question: Question
    began: float
    seconds: float = 0.0
    status: int = 0
    code: str = ""
    job_id: str = ""
    wrong: str = ""
    refused: int = 0
    retry_after: str = ""


def plan(size: Size, hospital: Hospital) -> list[Question]:
    """The day's questions in their order; new studies are made as they are needed."""
    dice, whole = random.Random(size.seed), sum(HOURS.values())
    ends, day = [0.0, *accumulate(share / whole for share in HOURS.values())], 60 * size.minutes
    moments = []
    for _ in range(size.jobs):
        part = dice.random()
        hour = min(bisect(ends, part) - 1, len(HOURS) - 1)
        moments.append((hour + (part - ends[hour]) / (ends[hour + 1] - ends[hour])) / len(HOURS) * day)
    asked: list[Question] = []
    for at in sorted(moments):
        chance, site = dice.random(), dice.randrange(size.sites)
        before = [each for each in asked if each.at < at - AFTER * day and each.kind in KINDS]
        if chance < WRONG_SHARE:
            asked.append(Question(at, site, WRONG, f"{dice.choice(list(hospital.letters))}9{len(asked):05}"))
        elif chance < WRONG_SHARE + AGAIN_SHARE and before:
            asked.append(Question(at, site, AGAIN, dice.choice(before).number))
        else:
            [kind] = dice.choices(list(SHARES), list(SHARES.values()))
            asked.append(Question(at, site, kind, hospital.study(kind)))
    return asked


class Hospital:
    """The group's studies and what is asked for them."""

    def __init__(self, size: Size, fleet: Fleet, folder: Path) -> None:
        self.size = size
        self.fleet = fleet
        self.letters = "".join(fleet.pacs)
        self._folder = folder
        self._made = 0
        self._pixels: dict[str, dict[str, Any]] = {}

    def study(self, kind: str, study_date: str = "20240229") -> str:
        """Make a study that nobody has asked for yet, in one of the PACSs; its accession number."""
        modality, count, rows = KINDS[kind]
        self._made += 1
        letter = "S" if kind == SCRIPTED else self.letters[self._made % len(self.letters)]
        number = f"{letter}{self._made:06}"
        seen = self._pixels.setdefault(kind, looks(modality, rows))
        patient = Person(f"HN{self._made:06}", f"Example^Number{self._made}")
        files = make_ct_series(
            self._folder, number, count, size=rows, kind=modality, patient=patient, study_date=study_date, **seen
        )
        if letter == "S":
            self.fleet.scripted.files.extend(files)
        else:
            upload(self.fleet.pacs[letter], StudyFiles(number, "", files))
            for file in files:
                file.unlink()
        return number

    def ask(self, question: Question, *, patient: bool = True) -> Answer:
        """Ask as a site's program does and read to the last byte; `patient`: who is told to come back later does."""
        answer = Answer(question, time.time())
        until_when = answer.began + PATIENCE_SECONDS
        while True:
            try:
                self._ask_once(question, answer)
            except (OSError, http.client.HTTPException) as error:
                answer.wrong = f"{type(error).__name__}: {error}"
            if not (patient and answer.status == 503 and answer.retry_after and time.time() < until_when):
                break
            answer.refused += 1
            time.sleep(float(answer.retry_after))
        answer.seconds = time.time() - answer.began
        return answer

    def _ask_once(self, question: Question, answer: Answer) -> None:
        port = self.fleet.ports[question.site % len(self.fleet.ports)]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS + LONG)
        try:
            headers = {"X-API-Key": self.fleet.key(question.site)}
            connection.request("GET", f"/api/iso/download?accession_number={question.number}", headers=headers)
            told = connection.getresponse()
            answer.status, answer.retry_after = told.status, told.headers.get("Retry-After", "")
            if told.status == 200:
                answer.code, answer.job_id = "", told.headers["Content-Location"].split("/")[-2]
                answer.wrong = _whole(told)
                return
            body = json.loads(told.read())
            answer.code, answer.job_id = str(body.get("code")), str(body.get("job_id") or "")
            answer.wrong = "" if len(body.get("error", "")) >= LONGEST_FOR_WORDS else "no reason in words"
        finally:
            connection.close()

    def archive(self, day: str) -> str:
        """Begin an archive run of a day, as the Prefect UI does; its id."""
        deployment = self.fleet.prefect.get(f"/deployments/name/{NIGHTLY_ARCHIVE}").raise_for_status().json()
        asked = {"parameters": {"date_from": f"{day[:4]}-{day[4:6]}-{day[6:]}"}, "state": {"type": "SCHEDULED"}}
        run = self.fleet.prefect.post(f"/deployments/{deployment['id']}/create_flow_run", json=asked)
        return str(run.raise_for_status().json()["id"])

    def ended(self, run_id: str) -> dict[str, Any]:
        """A run once it has ended."""

        def final() -> dict[str, Any] | None:
            run: dict[str, Any] = self.fleet.prefect.get(f"/flow_runs/{run_id}").raise_for_status().json()
            return run if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        ended: dict[str, Any] = until(final, PATIENCE_SECONDS, pause=0.5)
        return ended


def _whole(told: http.client.HTTPResponse) -> str:
    """Why a disc's bytes aren't what was promised; empty where they are."""
    hashed, size, start = hashlib.sha256(), 0, b""
    while piece := told.read(1 << 18):
        start += piece[: max(0, 17 * SECTOR - size)]
        hashed.update(piece)
        size += len(piece)
    if size != int(told.headers["Content-Length"]):
        return f"{size} bytes of {told.headers['Content-Length']}"
    if told.headers["ETag"] != f'"{hashed.hexdigest()}"':
        return "other bytes than the ETag says"
    return "" if start[16 * SECTOR : 16 * SECTOR + 6] == b"\x01CD001" else "no volume descriptor"


@dataclass
class Measured:
    """A part of the measurement: what was answered meanwhile, and what it took."""

    answers: list[Answer]
    looks: list[Look]
    seconds: float
    processor: Counter[str]
    memory: Counter[str]
    transactions: int
    database_mb: float
    runs: dict[str, tuple[str, float]]
    """Of each run its state, and when it began (time.time)."""

    def discs(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status == 200]

    def lost(self) -> list[str]:
        """What was accepted and has neither its disc, whole, nor a reason; what was answered with neither."""
        lost = [f"{each.question.number}: {each.wrong}" for each in self.answers if each.wrong]
        lost += [f"run {run}: {state}" for run, (state, *_) in self.runs.items() if state not in ENDED]
        expected = {each.question.number for each in self.answers if each.question.kind != WRONG}
        refused = {"queue_full", "orchestrator_unavailable"}
        without = [each for each in self.answers if each.status != 200 and each.code not in refused]
        return lost + [f"{each.question.number}: {each.code}" for each in without if each.question.number in expected]


RUNS = "FROM flow_run r JOIN flow f ON f.id = r.flow_id WHERE f.name = 'make_disc'"


def part95(values: Sequence[float]) -> float:
    """The 95th percentile."""
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


def measured(hospital: Hospital, questions: Sequence[Question], *, patient: bool = True) -> Measured:
    """Ask each question at its time, and look meanwhile."""
    fleet = hospital.fleet
    watch = Watch(fleet.ports)
    fleet.roots["watch"] = [watch.pid]
    peak: Counter[str] = Counter()
    ended = threading.Event()

    def weigh() -> None:
        while not ended.wait(15):
            for kind, mb in fleet.memory().items():
                peak[kind] = max(peak[kind], mb)

    weighing = threading.Thread(target=weigh)
    with Postgresql.opened(fleet.database) as database, ThreadPoolExecutor(len(questions)) as clerks:
        count = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'prefect'"
        [(transactions,)], processor, began = database.rows(count), fleet.processor(), time.time()
        weighing.start()
        asked = []
        for question in questions:
            time.sleep(max(0.0, began + question.at - time.time()))
            asked.append(clerks.submit(hospital.ask, question, patient=patient))
        answers = [each.result() for each in asked]
        seconds = time.time() - began
        open_ones = f"{RUNS} AND r.created >= to_timestamp({began}) AND r.end_time IS NULL"
        with suppress(TimeoutError):  # what is open after that is told as lost
            until(lambda: not database.rows(f"SELECT 1 {open_ones}"), pause=0.5)
        taken = fleet.processor()
        ended.set()
        weighing.join()
        looked = watch.end()
        del fleet.roots["watch"]
        taken.subtract(processor)
        [(after,)], [(size,)] = database.rows(count), database.rows("SELECT pg_database_size('prefect')")
        begun = "coalesce(extract(epoch FROM r.start_time), 0)::float"
        found = database.rows(f"SELECT r.id::text, r.state_type, {begun} {RUNS} AND r.created >= to_timestamp({began})")
        runs = {run: (state, begun) for run, state, begun in found}
    return Measured(answers, looked, seconds, taken, peak, after - transactions, size / 1e6, runs)


def quiet_times(hospital: Hospital, runs: int, say: Say) -> dict[str, float]:
    """Seconds until the last byte with nothing else to do, by kind of question."""
    found: dict[str, Sample] = {kind: Sample() for kind in (*KINDS, AGAIN)}
    for _ in range(1 + runs):
        for kind in KINDS:
            number = hospital.study(kind)
            for asked in (kind, AGAIN) if kind == NIGHT else (kind,):
                answer = hospital.ask(Question(0, 0, asked, number))
                if answer.status != 200 or answer.wrong:
                    raise RuntimeError(f"{kind}: {answer.status} {answer.code} {answer.wrong}")
                hospital.ended(answer.job_id)
                found[asked].add(answer.seconds)
    for sample in found.values():
        del sample.values[0]  # the first of each kind warms what the others find warm
    say("quiet: " + ", ".join(f"{kind} {each.median:.2f} s" for kind, each in found.items()))
    return {kind: each.median for kind, each in found.items()}

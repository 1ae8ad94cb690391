"""mkiso of a hospital group, on this one computer: a front with PostgreSQL, Prefect's server and webhooks; "machines"
of a worker with its receiver, each with a host name, a configuration and a data folder of its own; the group's PACSs.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from bench.machine import Say
from bench.processes import family
from peers.orthanc import Orthanc
from peers.patience import LONG, until
from peers.ports import free_port
from peers.postgresql import running_postgresql
from peers.process import Process
from peers.scripted_pacs import MoveRequest, ScriptedPacs
from peers.storescu import store

KEY, PASSWORD = "key-of-the-whole-group", ("mkiso", "password-of-all-machines")
TICKS = os.sysconf("SC_CLK_TCK")
HEALTH_EACH, PAGES_EACH = 1.0, 5.0
PAGES = {"counter page": "/", "list of jobs": "/api/iso/jobs", "metrics": "/metrics"}


@dataclass(frozen=True)
class Look:
    """What one webhook answered: when (time.time), within how many seconds, and how many jobs waited where it says."""

    moment: float
    webhook: int
    what: str
    seconds: float
    status: int
    waiting: float | None = None


class Watch:
    """Asks each webhook's health every second and its pages every five, from a process of its own, which shares no lock
    with the clerks. It begins when each has been asked once: a hospital's monitoring asked before the day, too.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._here, there = spawn.Pipe()
        self._process = spawn.Process(target=_watch, args=(there, tuple(ports)))
        self._process.start()
        self._here.recv()

    @property
    def pid(self) -> int:
        return int(self._process.pid or 0)

    def end(self) -> list[Look]:
        """All looks so far, and no more."""
        self._here.send("end")
        looks: list[Look] = self._here.recv()
        self._process.join()
        return looks


def _watch(there: Connection, ports: Sequence[int]) -> None:
    looks: list[Look] = []
    for port in ports:
        httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=60)
    there.send("ready")
    ended = threading.Event()
    threads = [threading.Thread(target=_look, args=(ended, number, port, looks)) for number, port in enumerate(ports)]
    for thread in threads:
        thread.start()
    with suppress(EOFError):  # whoever wanted it is gone
        there.recv()
    ended.set()
    for thread in threads:
        thread.join()
    there.send(looks)


def _look(ended: threading.Event, number: int, port: int, looks: list[Look]) -> None:
    due, pages_due = time.monotonic(), time.monotonic()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, headers={"X-API-Key": KEY}) as http:
        while not ended.wait(max(0.0, due - time.monotonic())):
            due = max(due + HEALTH_EACH, time.monotonic())
            asked = {"health": "/api/health"}
            if time.monotonic() >= pages_due:
                asked, pages_due = asked | PAGES, time.monotonic() + PAGES_EACH
            for what, path in asked.items():
                moment, began, status, waiting = time.time(), time.perf_counter(), 0, None
                with suppress(httpx.TransportError):
                    answer = http.get(path)
                    status = answer.status_code
                    told = [line for line in answer.text.splitlines() if line.startswith("mkiso_jobs_queued ")]
                    waiting = float(told[0].split()[1]) if what == "metrics" and told else None
                looks.append(Look(moment, number, what, time.perf_counter() - began, status, waiting))


@dataclass
class Fleet:
    """A context manager: everything runs inside it, and nothing after it. `places`: jobs at a time on each machine."""

    folder: Path
    webhooks: int
    machines: int
    orthancs: int
    places: int
    sites: int
    say: Say
    pacs: dict[str, Orthanc] = field(default_factory=dict)
    """Orthancs by the letter with which the accession numbers of their studies begin."""
    scripted: ScriptedPacs = field(default_factory=lambda: ScriptedPacs([]))
    roots: dict[str, list[int]] = field(default_factory=dict)
    """The processes that were started, by kind."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        try:
            self._start(self._stack)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def key(self, site: int) -> str:
        """The API key of a site."""
        return f"key-of-the-site-number-{site:02}"

    def _start(self, stack: ExitStack) -> None:
        postgresql = stack.enter_context(running_postgresql())
        self.database, self._ledger = postgresql.database("prefect"), postgresql.database("ledger")
        self._receivers = {f"MKISO{number}": free_port() for number in range(self.machines)}
        for letter in "ABCDEFGHIJ"[: self.orthancs]:
            folder = self.folder / f"pacs-{letter}"
            options = {"SyncStorageArea": False}
            there = {name: ("127.0.0.1", port) for name, port in self._receivers.items()}
            orthanc = Orthanc(folder, ae_title=f"PACS_{letter}", verbose=False, options=options, destinations=there)
            self.pacs[letter] = stack.enter_context(orthanc)
        stack.enter_context(self.scripted)
        self.scripted.scripts.append(self._at_once)
        self._api_port = free_port()
        (self.folder / "shared").mkdir()
        self.ports = [free_port() for _ in range(self.webhooks)]
        self.prefect = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{self._api_port}/api", timeout=LONG, auth=PASSWORD)
        )
        environment = {
            "PREFECT_SERVER_API_PORT": str(self._api_port),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database.replace("postgresql:", "postgresql+asyncpg:"),
        }
        self.roots = {"PostgreSQL": [postgresql.pid], "Orthanc": [each.pid for each in self.pacs.values()]}
        self._run(stack, "prefect", "front", self._api_port, environment)
        until(lambda: self.prefect.get("/health").is_success, pause=0.2)
        for name, port in self._receivers.items():
            self._run(stack, "receiver", name, port)
            self._run(stack, "worker", name, 0)
        self.say(f"{self.machines} machines start")
        until(lambda: self._online() == self.machines, pause=0.5)
        for number, port in enumerate(self.ports):
            self._run(stack, "webhook", f"web{number}", port)

    def _run(self, stack: ExitStack, part: str, name: str, port: int, more: Mapping[str, str] | None = None) -> None:
        """One part of mkiso on a "machine" of this name: a host name of its own is what tells machines apart."""
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(self._configuration(name, port if part == "webhook" else 8080)))
        mapped = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
        inside = f'hostname {name.lower()} && exec "$0" -P -m mkiso_service {part}'
        command = ["unshare", *mapped, "--uts", "sh", "-c", inside, sys.executable]
        environment = {"MKISO_CONFIG": str(file), **(more or {})}
        process = Process(command, self.folder / f"{name}-{part}.log", port=port, environment=environment)
        stack.enter_context(process)
        self.roots.setdefault(part, []).append(process.pid)

    def _configuration(self, name: str, port: int) -> dict[str, Any]:
        place = {"host": "127.0.0.1", "patient_domain": "group", "kind": "cmove"}
        every: list[tuple[str, Orthanc | ScriptedPacs]] = [*self.pacs.items(), ("S", self.scripted)]
        sources = [
            {**place, "name": f"pacs-{letter.lower()}", "ae_title": pacs.ae_title, "port": pacs.port}
            | {"accession_numbers": [f"{letter}*"]}
            for letter, pacs in every
        ]
        keys = {f"site{site:02}": {"key": self.key(site), "rights": ["disc", "list"]} for site in range(self.sites)}
        archive = {
            "enabled": True,
            "directory": str(self.folder / "shared" / "archive"),
            "ledger_url": self._ledger.replace("postgresql:", "postgresql+psycopg:"),
        }
        return {
            "server": {"port": port, "max_running_jobs": self.places},
            "auth": {"enabled": True, "api_key": KEY, "keys": keys},
            "sources": sources,
            "receiver": {"ae_title": name.upper(), "host": "127.0.0.1", "port": self._receivers.get(name, 10104)},
            "storage": {
                "data_dir": str(self.folder / name),
                "shared_dir": str(self.folder / "shared"),
                "min_free_gib": 0,
            },
            "prefect": {
                "api_url": f"http://127.0.0.1:{self._api_port}/api",
                "api_auth_string": ":".join(PASSWORD),
            },
            "archive": archive,
            "publishers": {},
        }

    def _at_once(self, move: MoveRequest) -> None:
        """What the scripted PACS does: it sends what is asked for, without any delay of its own."""
        asked = move.asked()
        stored = store(self._receivers[move.destination], asked, called=move.destination)
        sent = len(asked) if stored.returncode == 0 else 0
        move.end(0x0000 if sent else 0xB000, completed=sent, failed=len(asked) - sent, warning=0, remaining=0)

    def _online(self) -> int:
        with suppress(httpx.HTTPError):
            found = self.prefect.post("/work_pools/mkiso/workers/filter", json={}).raise_for_status().json()
            return sum(worker["status"] == "ONLINE" for worker in found)
        return 0

    def logs(self) -> Iterator[tuple[str, str]]:
        """What each process wrote."""
        for file in sorted(self.folder.glob("*.log")):
            yield file.stem, file.read_text(errors="replace")

    def processor(self) -> Counter[str]:
        """Seconds of a processor that each kind of process has taken so far, ended ones too; `others` are those of
        everything else on this computer, this process apart.
        """
        taken: Counter[str] = Counter()
        for root, kind, pid in self._processes():
            own, waited_for = _processor_of(pid)
            taken[kind] += own  # type: ignore[assignment]
            under = "job" if root == "worker" and kind == "worker" else kind
            taken[under] += waited_for  # type: ignore[assignment]
        busy = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        total = (sum(map(int, busy[:3])) + sum(map(int, busy[5:8]))) / TICKS
        taken["others"] = total - sum(taken.values()) - sum(_processor_of(os.getpid()))  # type: ignore[assignment]
        return taken

    def memory(self) -> Counter[str]:
        """MB of each kind of process, shared pages divided among those that share them (PSS)."""
        held: Counter[str] = Counter()
        for _, kind, pid in self._processes():
            with suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                held[kind] += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024  # type: ignore[assignment]
        return held

    def _processes(self) -> Iterator[tuple[str, str, int]]:
        """Each process: what was started, what it is itself, its id."""
        for root, pids in self.roots.items():
            for pid in family(pids):
                yield root, _kind(root, pid), pid


def _kind(root: str, pid: int) -> str:
    if root != "worker":
        return root
    with suppress(OSError):
        if Path(f"/proc/{pid}/comm").read_text().startswith("mkiso job"):
            return "job"
        if b"pictures" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return "pictures"
    return root


def _processor_of(pid: int) -> tuple[float, float]:
    """Its own seconds, and those of its children that it has waited for (proc_pid_stat(5))."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS, (int(fields[13]) + int(fields[14])) / TICKS
    return 0.0, 0.0

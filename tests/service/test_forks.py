"""The processes of `mkiso serve` are forks of its supervisor, and as good as processes that were started anew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso_service.checks.check import Site, examine
from mkiso_service.checks.registry import checks_of
from mkiso_service.ending import started_of
from mkiso_service.process_states import process_states
from peers.patience import LONG, until

ROOT = "anon_inode:[pidfd]"
"""By which a process hears of the end of its supervisor (mkiso_service/ending.py)."""
PROGRAM = """
import asyncio, atexit, json, logging, os, random, signal, ssl, sys, threading, time, uuid
from functools import partial
from pathlib import Path
from mkiso.config.settings import Settings
from mkiso.errors import ConfigurationError
from mkiso_service import ending
from mkiso_service.processes import supervisor
from mkiso_service.processes.parts import Part

FOLDER = Path(sys.argv[1])
SETTINGS = Settings.model_validate(
    {
        "storage": {"data_dir": FOLDER / "data"},
        "prefect": {"api_auth_string": "a:of-sixteen-or-more"},
        "server": {"shutdown_grace_seconds": 1},
    }
)
supervisor.back_off_seconds = lambda restarts: 0.05

def tell(name, facts):
    (FOLDER / f"{name}.new").write_text(json.dumps(facts))
    (FOLDER / f"{name}.new").rename(FOLDER / f"{name}.{os.getpid()}")

def part(name, run, **more):
    return Part(name, lambda: run, **more)

logging.basicConfig(level=logging.INFO)
"""
FRESH = """
def facts(name, settings):
    atexit.register(tell, f"atexit-{name}", True)
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
    opened = [Path(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd") if int(each) > 2]
    targets = [os.readlink(each) for each in opened if each.is_symlink()]
    initial = Path("/proc/self/environ").read_bytes().split(b"\\0")
    tell(name, {
        "descriptors": [each for each in targets if not each.startswith("/proc/")],
        "input": os.read(0, 1).decode(),
        "session": os.getsid(0) == os.getpid(),
        "parent": os.getppid(),
        "root": ending.root.pid,
        "blocked": int(status["SigBlk"], 16),
        "sigterm": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        "title": Path("/proc/self/cmdline").read_bytes().rstrip(b"\\0").decode(),
        "name": Path("/proc/self/comm").read_text().strip(),
        "password": os.environ.get("PREFECT_API_AUTH_STRING"),
        "initial": [each.decode() for each in initial if b"PREFECT" in each],
        "umask": os.umask(0o077),
        "random": [random.random(), uuid.uuid4().hex, ssl.RAND_bytes(8).hex(), os.urandom(8).hex()],
        "loop": asyncio.run(asyncio.sleep(0, "ran")),
    })
    time.sleep(3600)

supervisor.parts = lambda settings: [
    part("alone", partial(facts, "alone"), knows_prefect=False), part("with", partial(facts, "with")),
]
"""
RUN = """
os.umask(0o077)
try:
    sys.exit(supervisor.run(SETTINGS))
except ConfigurationError as error:
    print("told:", *error.problems, file=sys.stderr)
    sys.exit(2)
"""


class Supervisor:
    """A supervisor of the parts that a program names."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        self.storage = Storage(data_dir=folder / "data")
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM + textwrap.dedent(program) + RUN, str(folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def told(self, name: str, beside: frozenset[Path] = frozenset()) -> Any:
        """What a part told when it ran."""
        found = until(lambda: set(self.folder.glob(f"{name}.[0-9]*")) - beside, LONG)
        return json.loads(found.pop().read_text())

    def pid_of(self, name: str) -> int:
        """Of a part, once the supervisor knows it: a fork may run before that."""
        return int(until(lambda: process_states(self.storage)[name]["pid"], LONG))

    def kill(self, name: str) -> None:
        os.kill(self.pid_of(name), signal.SIGKILL)

    def ended(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=LONG)
        return self.process.returncode, errors


Begin = Callable[[str], Supervisor]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    with ExitStack() as stack:

        def begun(program: str) -> Supervisor:
            supervisor = Supervisor(tmp_path, program)
            stack.callback(supervisor.process.communicate)
            stack.callback(supervisor.process.kill)
            return supervisor

        yield begun


def test_a_fork_has_nothing_of_its_supervisor_but_what_it_imported(begin: Begin, tmp_path: Path) -> None:
    supervisor = begin(FRESH)
    told = {name: supervisor.told(name) for name in ("alone", "with")}
    for name, facts in told.items():
        assert set(facts["descriptors"]) <= {ROOT}, name
        assert facts["input"] == ""
        assert facts["session"] and facts["sigterm"] and facts["blocked"] == 0
        assert facts["parent"] == facts["root"] == supervisor.process.pid
        assert facts["title"] == facts["name"] == f"mkiso {name}"
        assert facts["umask"] == 0o077
        assert facts["initial"] == []
        assert facts["loop"] == "ran"
    assert (told["alone"]["password"], told["with"]["password"]) == (None, "a:of-sixteen-or-more")
    assert not set(told["alone"]["random"]) & set(told["with"]["random"]), "each has randomness of its own"


def test_a_fork_that_is_killed_is_forked_again_and_remembered(begin: Begin, tmp_path: Path) -> None:
    supervisor = begin(FRESH)
    first = supervisor.told("alone")
    before = frozenset(tmp_path.glob("alone.[0-9]*"))
    supervisor.kill("alone")
    again = supervisor.told("alone", before)
    assert again["parent"] == first["parent"] and set(again["descriptors"]) <= {ROOT}
    assert not set(first["random"]) & set(again["random"])
    site = Site(Settings(storage=supervisor.storage), ask_nobody, 1)
    [check] = [each for each in checks_of(site.settings) if each.name == "processes"]
    until(lambda: "alone 1" in examine(check, site).words)  # the supervisor writes it down beside the fork


def test_who_starts_it_may_ignore_its_children_or_give_no_input(begin: Begin, tmp_path: Path) -> None:
    """As a shell's `trap '' CHLD` and `<&-` do."""
    supervisor = begin(f"{FRESH}\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nos.close(0)\n")
    assert supervisor.told("alone")["input"] == ""
    before = frozenset(tmp_path.glob("alone.[0-9]*"))
    supervisor.kill("alone")
    assert supervisor.told("alone", before)
    supervisor.process.terminate()
    assert supervisor.ended()[0] == 0


def ask_nobody(what: Any) -> Any:
    raise AssertionError("asks nobody")


def test_told_to_end_it_ends_its_forks_in_order_and_nothing_is_left(begin: Begin, tmp_path: Path) -> None:
    supervisor = begin(
        """
        def until_told(name, settings):
            stop = threading.Event()
            ending.on_signals(5, stop.set)
            tell(name, True)
            stop.wait()
            tell(f"end-{name}", time.monotonic())

        names = ("receiver", "prefect", "worker")
        supervisor.parts = lambda settings: [part(name, partial(until_told, name)) for name in names]
        """
    )
    for name in ("receiver", "prefect", "worker"):
        supervisor.told(name)
    supervisor.process.terminate()
    code, errors = supervisor.ended()
    assert code == 0, errors
    ends = [supervisor.told(f"end-{name}") for name in ("worker", "receiver", "prefect")]
    assert ends == sorted(ends)
    assert process_states(supervisor.storage) == {}
    assert errors.count("Stopping") == 1 and "started again" not in errors


def test_a_fork_that_hears_no_signal_is_killed_after_its_grace_time(begin: Begin) -> None:
    supervisor = begin(
        """
        ending.SERVER_GRACE_SECONDS = supervisor.SERVER_GRACE_SECONDS = 0.1
        Part.grace_seconds = lambda part, server: 0.1

        def deaf(settings):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            tell("deaf", True)
            while True:
                time.sleep(3600)

        supervisor.parts = lambda settings: [part("receiver", deaf)]
        """
    )
    supervisor.told("deaf")
    supervisor.process.terminate()
    code, errors = supervisor.ended()
    assert (code, "The receiver didn't end within 0.1 s: it is killed." in errors) == (0, True), errors


def test_a_second_signal_ends_all_at_once(begin: Begin) -> None:
    supervisor = begin(
        """
        supervisor.AT_ONCE_SECONDS = 0.1

        def busy(settings):
            signal.signal(signal.SIGTERM, lambda *_: tell("heard", True))
            tell("busy", True)
            while True:
                time.sleep(3600)

        supervisor.parts = lambda settings: [part("worker", busy, has_jobs=True)]
        """
    )
    supervisor.told("busy")
    supervisor.process.terminate()
    supervisor.told("heard")
    supervisor.process.terminate()
    code, errors = supervisor.ended()
    assert (code, "Ending at once" in errors) == (0, True), errors


@pytest.mark.parametrize(("name", "called"), [("worker", "The worker"), ("prefect", "Prefect's server")])
def test_a_configuration_that_a_fork_can_not_use_ends_all_with_2(begin: Begin, name: str, called: str) -> None:
    supervisor = begin(
        f"""
        def refuse(settings):
            raise ConfigurationError("This can't be used.")

        idle = part("receiver", lambda settings: time.sleep(3600))
        supervisor.parts = lambda settings: [idle, part("{name}", refuse)]
        """
    )
    code, errors = supervisor.ended()
    assert code == 2
    assert "told: This can't be used." in errors and f"{called} can't run with this configuration" in errors


def test_an_error_of_a_fork_is_told_and_its_last_words_are_said(begin: Begin) -> None:
    """It ends as an interpreter does: with its traceback, its threads joined, and what was to be done at its exit."""
    supervisor = begin(
        """
        def fail(settings):
            atexit.register(tell, "exit", True)
            threading.Thread(target=lambda: (time.sleep(0.2), tell("thread", True))).start()
            raise RuntimeError("broken")

        supervisor.parts = lambda settings: [part("worker", fail)]
        """
    )
    assert supervisor.told("thread") and supervisor.told("exit")
    until(lambda: process_states(supervisor.storage).get("worker", {}).get("ended"), LONG)
    supervisor.process.terminate()
    code, errors = supervisor.ended()
    assert code == 0
    assert "RuntimeError: broken" in errors and "The worker ended with 1: started again in 0.05 s." in errors


def test_nobody_outlives_a_supervisor_that_is_killed(begin: Begin) -> None:
    supervisor = begin(FRESH)
    supervisor.told("alone"), supervisor.told("with")
    forks = {pid: started_of(pid) for pid in map(supervisor.pid_of, ("alone", "with"))}
    assert all(forks.values())
    supervisor.process.kill()
    until(lambda: not [pid for pid, started in forks.items() if started_of(pid) == started], LONG)


def test_where_it_ends_already_for_the_configuration_the_first_signal_is_the_first(begin: Begin) -> None:
    supervisor = begin(
        """
        def until_told(settings):
            stop = threading.Event()
            ending.on_signals(5, stop.set)
            tell("ready", True)
            stop.wait()
            tell("ending", True)
            until(lambda: (FOLDER / "go on").exists())
            tell("ended", True)

        def until(true):
            while not true():
                time.sleep(0.01)

        def useless(settings):
            until(lambda: [*FOLDER.glob("ready.[0-9]*")])
            sys.exit(2)

        supervisor.parts = lambda settings: [part("worker", until_told), part("receiver", useless)]
        """
    )
    supervisor.told("ending")
    supervisor.process.terminate()
    assert (errors := supervisor.process.stderr) is not None
    assert any("Stopping: " in line for line in errors)
    (supervisor.folder / "go on").touch()
    code, rest = supervisor.ended()
    assert code == 2 and "Ending at once" not in rest
    assert supervisor.told("ended")


def test_told_where_an_import_can_not_be_ended_it_ends_without_a_word_behind_it(begin: Begin) -> None:
    """As in what C calls, whose exceptions Python tells of and drops."""
    supervisor = begin(
        """
        class Gone:
            def __del__(self):
                tell("importing", True)
                time.sleep(3600)

        def slow():
            Gone()
            return idle

        def idle(settings):
            tell("idle", True)
            time.sleep(3600)

        supervisor.parts = lambda settings: [part("receiver", idle), Part("worker", slow)]
        """
    )
    supervisor.told("idle"), supervisor.told("importing")
    supervisor.process.terminate()
    code, errors = supervisor.ended()
    assert (code, "Traceback" in errors, errors.count("Stopping")) == (0, False, 1), errors
    assert process_states(supervisor.storage) == {}


@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_while_it_imports_it_ends_before_the_import_does(
    begin: Begin, number: signal.Signals, swallowed: bool
) -> None:
    supervisor = begin(
        f"""
        def slow():
            tell("importing", True)
            try:
                time.sleep(3600)
            except BaseException as interrupted:
                if {swallowed}:
                    raise ImportError("not all of it") from None
                raise

        def idle(settings):
            tell("idle", True)
            time.sleep(3600)

        supervisor.parts = lambda settings: [part("receiver", idle), Part("worker", slow)]
        """
    )
    supervisor.told("idle"), supervisor.told("importing")
    supervisor.process.send_signal(number)
    code, errors = supervisor.ended()
    assert (code, "Traceback" in errors, errors.count("Stopping")) == (0, False, 1), errors
    assert process_states(supervisor.storage) == {}

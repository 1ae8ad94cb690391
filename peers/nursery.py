"""`mkiso serve`, other commands, and Prefect's own server, without their imports: forks of a program that has made them
once for all services of a test run. They are most of the processor time of a start.

A fork is a new start in all else: its environment, its output, the settings that Prefect reads from the environment.
Tests of a start itself, and of what the kernel tells of a process, begin an interpreter, and so do measurements.

Run as a program, it reads a line for each request and answers with one; it ends with its input.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from mkiso.config.settings import Settings

POLL_SECONDS = 0.02
PREFECT_SERVER = ("prefect", "server", "start")
"""In place of the arguments of a command of mkiso: Prefect's own server, with nothing of mkiso's."""


class Forked:
    """A service's process, as `subprocess.Popen` has it: a child of the nursery, which alone can wait for it."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        if self.returncode is None:
            self.returncode = self._nursery.ask(wait=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(["mkiso", "serve"], timeout or 0)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The program, started when the first service is asked for; `close` ends it."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._one_at_a_time = threading.Lock()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Forked:
        """Fork a command that writes to the end of this file."""
        return self._fork(arguments, environment, log, log)

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command without an input to its end, as `subprocess.run` does."""
        with tempfile.TemporaryDirectory() as folder:
            (out := Path(folder) / "out").touch()
            (err := Path(folder) / "err").touch()
            forked = self._fork(arguments, environment, out, err)
            try:
                code = forked.wait(seconds)
            finally:
                forked.kill()
            return subprocess.CompletedProcess(["mkiso", *arguments], code, out.read_text(), err.read_text())

    def _fork(self, arguments: Sequence[str], environment: Mapping[str, str], out: Path, err: Path) -> Forked:
        written = {"out": str(out), "err": str(err)}
        return Forked(self, int(self.ask(arguments=list(arguments), environment=dict(environment), **written)))

    def ask(self, **request: Any) -> Any:
        """What the program answers. Raises RuntimeError where it is gone."""
        with self._one_at_a_time:
            if self._child is None:
                command = [sys.executable, "-P", __file__]
                self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                atexit.register(self.close)
            assert self._child.stdin is not None and self._child.stdout is not None
            self._child.stdin.write(json.dumps(request) + "\n")
            self._child.stdin.flush()
            if not (answer := self._child.stdout.readline()):
                raise RuntimeError("the program that forks services is gone")
        return json.loads(answer)

    def close(self) -> int:
        """End it; 1 where a service of it still runs, which no process of the tests would have as its child."""
        with self._one_at_a_time:
            if self._child is None:
                return 0
            self._child.communicate()
            code, self._child = self._child.returncode, None
            return code


nursery = Nursery()


def _answer(request: dict[str, Any]) -> int | None:
    """The process id of a new fork, or how one has ended."""
    if "wait" in request:
        pid, status = os.waitpid(request["wait"], os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None
    return os.fork() or _end(_run(**request))


def _end(code: int) -> NoReturn:
    """End as an interpreter does, but for taking apart what was imported, which would copy most of it to free it."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _run(arguments: list[str], environment: dict[str, str], out: str, err: str) -> int:
    """What `python -P -m mkiso_service …` does, or PREFECT_SERVER, in a new fork."""
    from prefect.context import refresh_global_settings_context

    from mkiso_service import ending
    from mkiso_service.cli import main
    from mkiso_service.prefect import environment as prefect_environment
    from mkiso_service.processes import supervisor

    told = prefect_environment.begin_with

    to_the_end = os.O_WRONLY | os.O_APPEND
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, out, to_the_end), (2, err, to_the_end)):
        os.dup2(opened := os.open(path, flags), descriptor)
        os.close(opened)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    ending.root = ending.Root.of(os.getpid())

    def begin_with(settings: Settings) -> None:
        told(settings)
        refresh_global_settings_context()

    for module in (supervisor, prefect_environment):
        setattr(module, "begin_with", begin_with)  # noqa: B010
    if tuple(arguments) == PREFECT_SERVER:
        refresh_global_settings_context()
        return _serve_as_prefect_does()
    return main.run(arguments)


def _serve_as_prefect_does() -> int:
    """What `prefect server start` comes to. What mkiso's own server changes, it changes when it begins."""
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    api = get_current_settings().server.api
    uvicorn.run(create_app(final=True), host=api.host, port=api.port, timeout_keep_alive=api.keepalive_timeout)
    return 0


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which tells all of its group
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_text(
            json.dumps({"pacs": {"ae_title": "NOBODY"}, "storage": {"data_dir": folder}})
        )
        os.environ["MKISO_CONFIG"] = str(Path(folder) / "config.yaml")
        from mkiso.config.file import load
        from mkiso_service.prefect.environment import environment
        from mkiso_service.processes import supervisor
        from mkiso_service.processes.parts import importing

        settings = load()
        os.environ.update(environment(settings))
        with importing():
            for part in supervisor.parts(settings):
                part.load()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a fork of this would lack the other threads"
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        sys.exit("a service was left behind")


if __name__ == "__main__":
    _main()

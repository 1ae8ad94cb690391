"""A real PostgreSQL of a test or a measurement: its own data folder and Unix socket, no TCP port but where one is asked
for, run by an unprivileged user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers.process import Process

BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/bin"))


class PostgreSQL(Process):
    """PostgreSQL refuses to run as root, so a root that tests runs it as `postgres` (or `nobody`)."""

    def __init__(self, folder: Path, tcp_port: int = 0):
        self.directory = folder
        self.own_port = str(tcp_port or 5432)
        self.user = next((name for name in ("postgres", "nobody") if _exists(name)), "") if os.getuid() == 0 else ""
        self.owner = (
            ["setpriv", f"--reuid={self.user}", f"--regid={pwd.getpwnam(self.user).pw_gid}", "--clear-groups"]
            if self.user
            else []
        )
        data = folder / "data"
        command: list[str | Path] = [
            *self.owner,
            BIN / "postgres",
            "-D",
            data,
            "-k",
            folder,
            "-c",
            f"listen_addresses={'127.0.0.1' if tcp_port else ''}",
            "-p",
            self.own_port,
            "-c",
            "fsync=off",
        ]
        super().__init__(command, folder / "log", folder=folder)

    def initialize(self) -> None:
        if self.user:
            shutil.chown(self.directory, self.user)
        command: list[str | Path] = [
            *self.owner,
            BIN / "initdb",
            "-D",
            self.directory / "data",
            "-U",
            "mkiso",
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
        ]
        subprocess.run([str(part) for part in command], check=True, capture_output=True, cwd=self.directory)

    def is_ready(self) -> bool:
        return (
            subprocess.run(
                [BIN / "pg_isready", "-q", "-h", self.directory, "-p", self.own_port], check=False
            ).returncode
            == 0
        )

    def database(self, name: str) -> str:
        """Make a database; its URL."""
        subprocess.run([BIN / "createdb", "-h", self.directory, "-p", self.own_port, "-U", "mkiso", name], check=True)
        return f"postgresql://mkiso@/{name}?host={self.directory}"

    def where(self, url: str) -> list[str]:
        """The options by which PostgreSQL's own programs find a database of a URL that `database` gave."""
        return ["-h", str(self.directory), "-p", self.own_port, "-U", "mkiso", "-d", url.split("/")[3].split("?")[0]]

    def stop(self, seconds: float = 5) -> None:
        """SIGQUIT is PostgreSQL's immediate shutdown: no waiting for clients, no checkpoint of what is thrown away."""
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGQUIT)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def running_postgresql(tcp_port: int = 0) -> Iterator[PostgreSQL]:
    # A Unix socket's path has 107 bytes at most, which pytest's own folders may pass.
    with tempfile.TemporaryDirectory(prefix="mkiso-pg-", ignore_cleanup_errors=True) as folder:
        server = PostgreSQL(Path(folder), tcp_port)
        server.initialize()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True

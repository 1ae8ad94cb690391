"""The process whose forks make pictures."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mkiso.pictures.messages import LIMITS, Limits
from mkiso.pictures.pool import PicturePool
from mkiso.pictures.process import WorkerProcess
from mkiso.pictures.values import PictureRequest
from peers.fork_server import ForkServer
from peers.patience import LONG, until
from tests.conftest import children_of
from tests.pictures.objects import ramp, write


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ForkServer]:
    with ForkServer(tmp_path / "pictures.sock") as server:
        yield server


def pids_of(server: ForkServer) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def connected(server: ForkServer) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(LONG)
    client.connect(str(server.socket))
    return client


def test_the_socket_is_ours_alone(server: ForkServer) -> None:
    assert server.socket.stat().st_mode & 0o777 == 0o600


def test_its_forks_end_when_their_job_does(server: ForkServer) -> None:
    worker = WorkerProcess(Limits(), server.socket)
    assert pids_of(server) == [worker._process.pid]
    worker._process._connection.close()  # type: ignore[attr-defined]
    worker._process._told.close()  # type: ignore[attr-defined]
    until(lambda: not pids_of(server))
    worker._input.close()
    worker._output.close()


def test_its_forks_end_with_it(tmp_path: Path) -> None:
    with ForkServer(tmp_path / "pictures.sock") as server:
        worker = WorkerProcess(Limits(), server.socket)
    until(lambda: not Path(f"/proc/{worker._process.pid}").exists())
    assert worker._process.wait() == -signal.SIGKILL
    worker.end()


def test_pictures_are_made_though_it_is_killed(tmp_path: Path) -> None:
    server = ForkServer(tmp_path / "pictures.sock").__enter__()
    with PicturePool(tmp_path, tmp_path, 1, fork_server=server.socket) as pool:
        first = pool.begin(pool.render, PictureRequest(write(tmp_path / "image", ramp()), tmp_path)).result()
        server.process.kill()
        server.process.wait()
        assert server.process.stdin
        server.process.stdin.close()
        second = pool.begin(pool.render, PictureRequest(write(tmp_path / "image", ramp()), tmp_path, number=5)).result()
        third = pool.begin(pool.render, PictureRequest(write(tmp_path / "image", ramp()), tmp_path, number=9)).result()
    assert [len(each.pictures) for each in (first, second, third)] == [1, 1, 1]


def test_a_worker_starts_though_its_server_is_killed_before_it_has(tmp_path: Path) -> None:
    path = tmp_path / "pictures.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()

        def fork_and_be_killed() -> None:
            client, _ = listening.accept()
            with client:
                _, descriptors, _, _ = socket.recv_fds(client, 64 * 1024, 2)
                for descriptor in descriptors:
                    os.close(descriptor)
                client.sendall(b"1\n")

        thread = threading.Thread(target=fork_and_be_killed)
        thread.start()
        with PicturePool(tmp_path, tmp_path, 1, fork_server=path) as pool:
            made = pool.render(PictureRequest(write(tmp_path / "image", ramp()), tmp_path))
        thread.join()
    assert len(made.pictures) == 1


def test_who_asks_for_nothing_gets_nothing_and_others_are_served(server: ForkServer) -> None:
    for message in (b"", b"[", b'{"cpu_seconds": "x"}', LIMITS.dump_json(Limits())):  # the last without descriptors
        with connected(server) as client:
            client.sendall(message or b" ")
            assert client.recv(10) == b""
    with connected(server):  # says nothing, and hangs up
        pass
    worker = WorkerProcess(Limits(), server.socket)
    worker.end()
    until(lambda: not pids_of(server))


@pytest.mark.parametrize("first", ["worker", "asker"])
def test_a_worker_and_who_asked_for_it_may_end_at_once(server: ForkServer, first: str) -> None:
    worker, other = WorkerProcess(Limits(), server.socket), WorkerProcess(Limits(), server.socket)
    os.kill(server.process.pid, signal.SIGSTOP)  # it hears of both together, in this order
    until(lambda: "T" in state_of(server.process.pid))
    for name in sorted(("asker", "worker"), key=lambda name: name != first):
        if name == "asker":
            worker.kill()
        else:
            os.kill(worker._process.pid, signal.SIGSEGV)
            until(lambda: "Z" in state_of(worker._process.pid))
    os.kill(server.process.pid, signal.SIGCONT)
    until(lambda: pids_of(server) == [other._process.pid])
    WorkerProcess(Limits(), server.socket).end()
    assert server.process.poll() is None
    other.end()
    worker.end()


def test_a_new_one_takes_the_place_of_one_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "pictures.sock"
    with ForkServer(path):
        pass
    assert path.is_socket()
    with ForkServer(path) as server:
        until(lambda: _answers(server))


def _answers(server: ForkServer) -> bool:
    try:
        WorkerProcess(Limits(), server.socket).end()
    except OSError:
        return False
    return True


def test_it_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKISO__AUTH__API_KEY", "a-secret-of-a-test")
    with ForkServer(tmp_path / "pictures.sock") as server:
        worker = WorkerProcess(Limits(), server.socket)
        for pid in (server.process.pid, worker._process.pid):
            assert b"a-secret" not in Path(f"/proc/{pid}/environ").read_bytes()
        held = {str(file.readlink()) for file in Path(f"/proc/{worker._process.pid}/fd").iterdir()}
        assert not any("socket" in each for each in held), "no way to the server, nor to another worker"
        worker.end()
    assert not [child for child in children_of(os.getpid()) if str(server.socket) in child]

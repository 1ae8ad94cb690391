"""What jobs expect, and the Unix socket over which they say so: JSON lines, one connection an expectation.

    job:       {"expect": {"study_instance_uid": "1.2.3", "folder": "/…/jobs/<id>/instances", "instances": ["1.2.3.4"] or null}}
    receiver:  {"expecting": true}                        or {"refused": words}
               {"arrival": {…mkiso.models.Arrival…}}      one a stored instance
               {"conflict": {"sop_instance_uid": "…"}}    the same UID came with other bytes
               {"no_room": {"sop_instance_uid": "…"}}     it came, and the disk is full

    anybody:   {"status": true}
    receiver:  {"status": {"associations": 2, "expectations": 1, …}}

The expectation lives as long as its connection.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from time import sleep
from typing import Any

from mkiso.dicom.header import is_uid
from mkiso.dicom.receiver.hashing import Digest

MAX_REQUEST_BYTES = 32 * 1024 * 1024  # 400,000 SOP Instance UIDs
REQUEST_TIMEOUT_SECONDS = 10
ACCEPT_PAUSE_SECONDS = 0.1
BATCH_SECONDS = 0.005  # between two messages to a job: waking its thread and ours for each instance takes time from receiving

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Expected:
    """What one job expects of one study; `instances` None: any of the study.

    `arrived` maps the SOP Instance UIDs of the files in `folder` to their hashes; the job is told of each as soon as its hash is known.
    """

    study_instance_uid: str
    folder: Path
    instances: frozenset[str] | None
    arrived: dict[str, Digest] = field(default_factory=dict)
    told: SimpleQueue[dict[str, Any] | None] = field(default_factory=SimpleQueue)

    def wants(self, sop_instance_uid: str) -> bool:
        return self.instances is None or sop_instance_uid in self.instances

    def tell_arrival(self, sop_instance_uid: str, sop_class_uid: str, transfer_syntax_uid: str, size: int, sha256: str) -> None:
        """Tell the job of an instance that is in its folder now."""
        self.told.put({"arrival": {
            "sop_instance_uid": sop_instance_uid, "sop_class_uid": sop_class_uid, "transfer_syntax_uid": transfer_syntax_uid,
            "study_instance_uid": self.study_instance_uid, "path": f"{self.folder}/{sop_instance_uid}", "size": size, "sha256": sha256,
        }})  # fmt: skip

    def tell_conflict(self, sop_instance_uid: str) -> None:
        self.told.put({"conflict": {"sop_instance_uid": sop_instance_uid}})

    def tell_no_room(self, sop_instance_uid: str) -> None:
        self.told.put({"no_room": {"sop_instance_uid": sop_instance_uid}})


class Expectations:
    """Everything that is expected now. `lock` is held while an instance is given to jobs, so that an expectation is there or gone, not half."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._all: set[Expected] = set()

    def __len__(self) -> int:
        return len(self._all)

    def add(self, expected: Expected) -> None:
        with self.lock:
            self._all.add(expected)

    def remove(self, expected: Expected) -> None:
        with self.lock:
            self._all.discard(expected)

    def may_want(self, sop_instance_uid: str) -> bool:
        """Whether anybody may expect this instance, before its study is known."""
        with self.lock:
            return any(expected.wants(sop_instance_uid) for expected in self._all)

    def tell_no_room(self, sop_instance_uid: str) -> None:
        """Tell whoever may expect this instance that there is no room for it."""
        with self.lock:
            for expected in self._all:
                if expected.wants(sop_instance_uid):
                    expected.tell_no_room(sop_instance_uid)

    def of(self, study_instance_uid: str, sop_instance_uid: str) -> list[Expected]:
        """Who expects this instance. The caller holds `lock`."""
        return [one for one in self._all if one.study_instance_uid == study_instance_uid and one.wants(sop_instance_uid)]


class ExpectationServer:
    """Serves the Unix socket; a thread takes requests on each connection, and one more tells an expectation's job what arrives."""

    def __init__(self, listener: socket.socket, expectations: Expectations, jobs_dir: Path, status: Callable[[], dict[str, int]]) -> None:
        self._listener = listener
        self._expectations = expectations
        self._jobs_dir = jobs_dir.resolve()
        self._status = status
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._closing = False
        self._thread = threading.Thread(target=self._accept, name="expectations")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End every connection and wait for the threads."""
        self._closing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for connection in tuple(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in tuple(self._threads):
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
                self._take(connection)
            except (OSError, RuntimeError) as error:  # out of descriptors or threads: that passes, and without this socket no job ever would
                if self._closing:
                    return
                _log.warning("A job's connection couldn't be taken (%s): trying on.", error)
                sleep(ACCEPT_PAUSE_SECONDS)

    def _take(self, connection: socket.socket) -> None:
        thread = threading.Thread(target=self._serve, args=(connection,), name="expectation")
        self._open.add(connection)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self._open.discard(connection)
            self._threads.discard(thread)
            connection.close()
            raise

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._answer(connection)
        except (OSError, ValueError, RecursionError) as error:
            _log.debug("A connection to the receiver's socket ended: %s", error)
        finally:
            self._open.discard(connection)
            self._threads.discard(threading.current_thread())

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(REQUEST_TIMEOUT_SECONDS)
        request = json.loads(_line(connection))
        connection.settimeout(None)
        if not isinstance(request, dict) or "expect" not in request:
            _send(connection, [{"status": self._status()}])
            return
        try:
            expected = expected_of(request["expect"], self._jobs_dir)
        except ValueError as error:
            _send(connection, [{"refused": str(error)}])
            return
        self._hold(connection, expected)

    def _hold(self, connection: socket.socket, expected: Expected) -> None:
        """Keep the expectation until its connection ends."""
        expected.told.put({"expecting": True})
        self._expectations.add(expected)  # before the job hears of it and asks the PACS for images
        teller = threading.Thread(target=_tell, args=(connection, expected.told), name="expectation-teller")
        teller.start()
        try:
            while connection.recv(4096):
                pass
        finally:
            self._expectations.remove(expected)
            expected.told.put(None)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            teller.join()


def expected_of(request: Any, jobs_dir: Path) -> Expected:
    """An expectation from its JSON. Raises ValueError in words where it isn't one, or its folder isn't below `jobs_dir` (resolved)."""
    if not isinstance(request, dict) or not isinstance(request.get("study_instance_uid"), str) or not isinstance(request.get("folder"), str):
        raise ValueError("An expectation names a study_instance_uid and a folder.")
    instances = request.get("instances")
    if instances is not None and not (isinstance(instances, list) and all(isinstance(uid, str) for uid in instances)):
        raise ValueError("An expectation's instances are a list of SOP Instance UIDs, or null for any of the study.")
    if not is_uid(request["study_instance_uid"]):
        raise ValueError("An expectation's study_instance_uid is no UID.")
    folder = Path(request["folder"]).resolve()
    if folder == jobs_dir or not folder.is_relative_to(jobs_dir) or not folder.is_dir():
        raise ValueError(f"An expectation's folder is an existing one below {jobs_dir}.")
    return Expected(request["study_instance_uid"], folder, None if instances is None else frozenset(instances))


def _line(connection: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        chunk = connection.recv(262_144)
        if not chunk:
            raise ValueError("closed before a whole request")
        received += chunk
        if len(received) > MAX_REQUEST_BYTES:
            raise ValueError("a request that is too long")
    return bytes(received)


def _tell(connection: socket.socket, told: SimpleQueue[dict[str, Any] | None]) -> None:
    """Send what the job is told, several messages at once where they have queued up, so that a slow job delays nobody but itself."""
    while (message := told.get()) is not None:
        messages = [message]
        while not told.empty():
            more = told.get()
            if more is None:
                return
            messages.append(more)
        try:
            _send(connection, messages)
            sleep(BATCH_SECONDS)
        except OSError:  # the job is gone; the thread that reads from it notices too
            return


def _send(connection: socket.socket, messages: Iterable[dict[str, Any]]) -> None:
    connection.sendall("".join(json.dumps(message) + "\n" for message in messages).encode())

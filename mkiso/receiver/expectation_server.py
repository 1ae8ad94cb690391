"""The Unix socket over which jobs say what they expect: JSON lines, one connection an expectation.

    job:       {"expect": {"study_instance_uid": "1.2.3", "folder": "/…/jobs/<id>/instances", "instances": ["1.2.3.4"]
               or null}}
    receiver:  {"expecting": true}                        or {"declined": words}
               {"arrival": {…mkiso.study.models.Arrival…}}      one a stored instance
               {"refusal": {…client.Refusal…}}            an instance of the study came, or one that the job lists, and
                                                          it isn't in the folder
               {"association": {"words": "…"}}            a sender's association was refused or aborted, and why
               {"conflict": {"sop_instance_uid": "…"}}    the same UID came with other bytes
               {"no_room": {"sop_instance_uid": "…"}}     it came, and the disk is full
    job:       {"catch_up": true}
    receiver:  {"caught_up": true}                        after all that was told before

    anybody:   {"status": true}
    receiver:  {"status": {"associations": 2, "expectations": 1, …}}

The expectation lives as long as its connection. A refusal is told before the C-STORE is answered: a job that has the
C-MOVE's final response and catches up has heard of everything that the PACS was refused.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Any

from mkiso.receiver.expectations import Expectations, Expected
from mkiso.study.selection import is_uid

MAX_REQUEST_BYTES = 32 * 1024 * 1024  # 400,000 SOP Instance UIDs
REQUEST_TIMEOUT_SECONDS = 10
ACCEPT_PAUSE_SECONDS = 0.1
BATCH_SECONDS = 0.005
"""Between two messages to a job: waking its thread and ours for each instance takes time from receiving."""

_log = logging.getLogger(__name__)


class ExpectationServer:
    """Serves the Unix socket; a thread takes requests on each connection, and one more tells an expectation's job what
    arrives.
    """

    def __init__(
        self, listener: socket.socket, expectations: Expectations, jobs_dir: Path, status: Callable[[], dict[str, Any]]
    ) -> None:
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
            except (
                OSError,
                RuntimeError,
            ) as error:  # out of descriptors or threads: that passes, and without this socket no job ever would
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
            _send(connection, [{"declined": str(error)}])
            return
        self._hold(connection, expected)

    def _hold(self, connection: socket.socket, expected: Expected) -> None:
        """Keep the expectation until its connection ends."""
        expected.told.put({"expecting": True})
        self._expectations.add(expected)  # before the job hears of it and asks the PACS for images
        teller = threading.Thread(target=_tell, args=(connection, expected), name="expectation-teller")
        teller.start()
        try:
            while received := connection.recv(4096):
                for _ in range(received.count(b"\n")):  # a line is a catch_up: there is nothing else to say
                    expected.catch_up()
        finally:
            self._expectations.remove(expected)
            expected.told.put(None)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            teller.join()


def expected_of(request: Any, jobs_dir: Path) -> Expected:
    """An expectation from its JSON. Raises ValueError in words where it isn't one, or its folder isn't below `jobs_dir`
    (resolved).
    """
    if (
        not isinstance(request, dict)
        or not isinstance(request.get("study_instance_uid"), str)
        or not isinstance(request.get("folder"), str)
    ):
        raise ValueError("An expectation names a study_instance_uid and a folder.")
    instances = request.get("instances")
    if instances is not None and not (isinstance(instances, list) and all(isinstance(uid, str) for uid in instances)):
        raise ValueError("An expectation's instances are a list of SOP Instance UIDs, or null for any of the study.")
    if not is_uid(request["study_instance_uid"]):
        raise ValueError("An expectation's study_instance_uid is no UID.")
    folder = Path(request["folder"]).resolve()
    if folder == jobs_dir or not folder.is_relative_to(jobs_dir) or not folder.is_dir():
        raise ValueError(f"An expectation's folder is an existing one below {jobs_dir}.")
    calling = request.get("calling_ae_title", "")
    if not isinstance(calling, str):
        raise ValueError("An expectation's calling_ae_title is a text.")
    senders, strangers = request.get("senders", []), request.get("strangers", [])
    for named in (senders, strangers):
        if not (isinstance(named, list) and all(isinstance(sender, str) for sender in named)):
            raise ValueError("An expectation's senders and strangers are lists of AE titles and addresses.")
    series = request.get("series", [])
    if not (isinstance(series, list) and all(isinstance(uid, str) for uid in series)):
        raise ValueError("An expectation's series are a list of Series Instance UIDs.")
    return Expected(
        request["study_instance_uid"],
        folder,
        None if instances is None else frozenset(instances),
        calling,
        frozenset(senders),
        frozenset(strangers),
        frozenset(series),
    )


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


def _tell(connection: socket.socket, expected: Expected) -> None:
    """Send what the job is told, several messages at once where they have queued up, so that a slow job delays nobody
    but itself.
    """
    told = expected.told
    while (message := told.get()) is not None:
        messages = [message]
        while not told.empty():
            more = told.get()
            if more is None:
                return
            messages.append(more)
        try:
            _send(connection, messages)
        except OSError:  # the job is gone; the thread that reads from it notices too
            return
        if expected.in_haste.wait(BATCH_SECONDS):
            expected.in_haste.clear()


def _send(connection: socket.socket, messages: Iterable[dict[str, Any]]) -> None:
    connection.sendall("".join(json.dumps(message) + "\n" for message in messages).encode())

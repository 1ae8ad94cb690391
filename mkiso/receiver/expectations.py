"""What jobs expect, and the Unix socket over which they say so: JSON lines, one connection an expectation.

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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from time import sleep
from typing import Any

from mkiso.receiver.hashing import Digest
from mkiso.study.selection import is_uid

MAX_REQUEST_BYTES = 32 * 1024 * 1024  # 400,000 SOP Instance UIDs
REQUEST_TIMEOUT_SECONDS = 10
ACCEPT_PAUSE_SECONDS = 0.1
BATCH_SECONDS = 0.005
"""Between two messages to a job: waking its thread and ours for each instance takes time from receiving."""
NOT_EXPECTED = "no job expects it"
NOBODY: frozenset[str] = frozenset()
MAX_REASONS = 8  # why associations were refused, told to one job
MAX_REFUSALS = 10_000  # told to one job by their UIDs; further ones are told as one without

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Expected:
    """What one job expects of one study; `instances` None: any of the study. `calling_ae_title`: what the job calls
    itself when it asks for a C-MOVE; `senders`: the AE titles and addresses that the instances come from; `strangers`:
    those of other sources, whose instances aren't for this job even where they are of the study; `series`: of the study
    these alone, empty: any. What another job has asked of the same study is then none of this one's.

    `arrived` maps the SOP Instance UIDs of the files in `folder` to their hashes; the job is told of each as soon as
    its hash is known.
    """

    study_instance_uid: str
    folder: Path
    instances: frozenset[str] | None
    calling_ae_title: str = ""
    senders: frozenset[str] = frozenset()
    strangers: frozenset[str] = frozenset()
    series: frozenset[str] = frozenset()
    arrived: dict[str, Digest] = field(default_factory=dict)
    told: SimpleQueue[dict[str, Any] | None] = field(default_factory=SimpleQueue)
    in_haste: threading.Event = field(default_factory=threading.Event)
    being_given: int = 0
    _refused: set[tuple[str, bool]] = field(default_factory=set)
    _lost: set[str] = field(default_factory=set)

    def wants(self, sop_instance_uid: str) -> bool:
        return self.instances is None or sop_instance_uid in self.instances

    def takes_from(self, sender: frozenset[str]) -> bool:
        """Whether what comes from this sender (AE title and address) may be for this job."""
        return not self.strangers & sender

    def lists(self, sop_instance_uid: str) -> bool:
        return self.instances is not None and sop_instance_uid in self.instances

    def may_take(self, series_instance_uid: str) -> bool:
        """Whether an instance of this series may be meant; empty: its series isn't known."""
        return not self.series or not series_instance_uid or series_instance_uid in self.series

    def tell_arrival(
        self, sop_instance_uid: str, sop_class_uid: str, transfer_syntax_uid: str, size: int, sha256: str
    ) -> None:
        """Tell the job of an instance that is in its folder now."""
        self.told.put({"arrival": {
            "sop_instance_uid": sop_instance_uid, "sop_class_uid": sop_class_uid,
            "transfer_syntax_uid": transfer_syntax_uid, "study_instance_uid": self.study_instance_uid,
            "path": f"{self.folder}/{sop_instance_uid}", "size": size, "sha256": sha256,
        }})  # fmt: skip

    def tell_conflict(self, sop_instance_uid: str) -> None:
        self.told.put({"conflict": {"sop_instance_uid": sop_instance_uid}})

    def tell_no_room(self, sop_instance_uid: str) -> None:
        self.told.put({"no_room": {"sop_instance_uid": sop_instance_uid}})

    def tell_refusal(self, sop_instance_uid: str, words: str, move_originator: str) -> None:
        """Tell the job of an instance that came and isn't in its folder, each once: whoever sends such by the million
        fills no memory."""
        moved = move_originator != "" and move_originator == self.calling_ae_title
        uid = sop_instance_uid if is_uid(sop_instance_uid) and len(self._refused) < MAX_REFUSALS else ""
        if (sop_instance_uid, moved) in self._refused or (uid, moved) in self._refused:
            return
        self._refused.add((uid, moved))
        self.told.put({"refusal": {"sop_instance_uid": uid, "words": words, "moved": moved}})

    def tell_association(self, words: str) -> None:
        """Tell the job why a sender's association was refused or aborted, each reason once."""
        if words not in self._lost and len(self._lost) < MAX_REASONS:
            self._lost.add(words)
            self.told.put({"association": {"words": words}})

    def catch_up(self) -> None:
        """Say so when all that was told before has gone out, and let that go out at once."""
        self.told.put({"caught_up": True})
        self.in_haste.set()


class Expectations:
    """Everything that is expected now.

    The lock inside is held for a look and a mark and never while anything is read, hashed, linked or waited for, so
    that nobody waits for another's instance. What an instance needs to itself is its own SOP Instance UID and that the
    jobs it is given to stay: `giving`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._all: set[Expected] = set()
        self._under_way: set[str] = set()

    def __len__(self) -> int:
        return len(self._all)

    def add(self, expected: Expected) -> None:
        with self._changed:
            self._all.add(expected)

    def remove(self, expected: Expected) -> None:
        """Nothing is given to it any more when this returns."""
        with self._changed:
            self._all.discard(expected)
            self._changed.wait_for(lambda: not expected.being_given)

    def may_want(self, sop_instance_uid: str) -> bool:
        """Whether anybody may expect this instance, before its study is known."""
        with self._changed:
            return any(expected.wants(sop_instance_uid) for expected in self._all)

    @contextmanager
    def giving(
        self,
        study_instance_uid: str,
        sop_instance_uid: str,
        sender: frozenset[str],
        series_instance_uid: str,
    ) -> Iterator[list[Expected]]:
        """Who expects this instance from this sender. Until the `with` ends none of them is gone, and nobody else gives
        an instance of this UID."""
        with self._changed:
            self._changed.wait_for(lambda: sop_instance_uid not in self._under_way)
            self._under_way.add(sop_instance_uid)
            jobs = [
                one
                for one in self._all
                if one.study_instance_uid == study_instance_uid
                and one.wants(sop_instance_uid)
                and one.takes_from(sender)
                and (not one.series or series_instance_uid in one.series)
            ]
            for job in jobs:
                job.being_given += 1
        try:
            yield jobs
        finally:
            with self._changed:
                self._under_way.discard(sop_instance_uid)
                for job in jobs:
                    job.being_given -= 1
                self._changed.notify_all()

    def tell_no_room(self, sop_instance_uid: str) -> None:
        """Tell whoever may expect this instance that there is no room for it."""
        for expected in self._now():
            if expected.wants(sop_instance_uid):
                expected.tell_no_room(sop_instance_uid)

    def tell_association(self, calling_ae_title: str, address: str, words: str) -> None:
        """Tell the jobs that expect something of this sender why its association was refused or aborted."""
        for expected in self._now():
            if expected.senders & {calling_ae_title, address}:
                expected.tell_association(words)

    def tell_refusal(
        self,
        study_instance_uid: str,
        sop_instance_uid: str,
        words: str,
        move_originator: str,
        sender: frozenset[str] = NOBODY,
        series_instance_uid: str = "",
    ) -> None:
        """Tell the jobs that expect something of its study or list it, from this sender. Where neither is known,
        because it can't be read, it may be anybody's; of a series that isn't known it may be of each."""
        everybody = [one for one in self._now() if one.takes_from(sender)]
        concerned = [
            one
            for one in everybody
            if one.lists(sop_instance_uid)
            or (one.study_instance_uid == study_instance_uid and one.may_take(series_instance_uid))
        ]
        for expected in concerned if concerned or study_instance_uid else everybody:
            expected.tell_refusal(sop_instance_uid, words, move_originator)

    def tell_others(
        self,
        study_instance_uid: str,
        sop_instance_uid: str,
        move_originator: str,
        sender: frozenset[str],
        series_instance_uid: str,
    ) -> None:
        """Tell the jobs that expect something of the study from this sender and not this instance, which was given to
        others."""
        if len(self._all) > 1:
            for expected in self._now():
                is_of_study = expected.study_instance_uid == study_instance_uid and expected.takes_from(sender)
                if is_of_study and expected.may_take(series_instance_uid) and not expected.wants(sop_instance_uid):
                    expected.tell_refusal(sop_instance_uid, NOT_EXPECTED, move_originator)

    def _now(self) -> list[Expected]:
        with self._changed:
            return list(self._all)


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

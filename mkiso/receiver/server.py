"""The receiver's process: one Storage SCP for every job, and the Unix socket over which jobs say what they expect."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from mkiso.config.settings import Receiver, Settings
from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError
from mkiso.network.pdu import Connection
from mkiso.network.tls import acceptor_context
from mkiso.receiver.admission import Admission, Place
from mkiso.receiver.expectation_server import ExpectationServer
from mkiso.receiver.expectations import Expectations
from mkiso.receiver.inbox import InboxSpool
from mkiso.receiver.negotiation import receiver_offer
from mkiso.receiver.pushed import folder_of
from mkiso.receiver.spool import Spool
from mkiso.receiver.storage_scp import StorageScp, Tally
from mkiso.storage.room import unusable
from mkiso.tcp_address import bound, plain_address
from mkiso.unix_address import connected, listening

ACCEPT_TICK_SECONDS = 0.25
BACKLOG = 128

_log = logging.getLogger(__name__)


def run(settings: Settings, stop: threading.Event) -> None:
    """Receive until `stop` is set, then let instances on their way come in within server.shutdown_grace_seconds, and
    end.

    Raises ConfigurationError in plain words where the port or the socket can't be had, StorageFull where the disk is
    full.
    """
    _prepare_folders(settings)
    with ExitStack() as stack:
        context = acceptor_context(settings.receiver.tls) if settings.receiver.tls.enabled else None
        listener = stack.enter_context(_listener(settings.receiver))
        jobs = stack.enter_context(_listen_for_jobs(settings.storage.receiver_socket))
        _clear(settings.storage)
        _Server(settings, stop, context).serve(listener, jobs)


@dataclass(slots=True)
class InboxCount:
    """What came to an inbox since the receiver started; the last refusal in words, of whom, its cause (unknown_sender,
    no_room, two_versions, unusable) and when, in seconds since 1970.
    """

    stored: int = 0
    refused: int = 0
    last_refusal: str = ""
    last_refusal_sender: str = ""
    last_refusal_cause: str = ""
    last_refusal_time: float = 0.0

    def add(self, tally: Tally) -> None:
        """Count what one association did."""
        self.stored += tally.stored
        self.refused += tally.refused
        if words := tally.last_refusal or tally.rejected:
            self.last_refusal = f"{tally.sender}: {words}"
            self.last_refusal_sender = tally.sender
            self.last_refusal_cause, self.last_refusal_time = tally.refusal_cause, tally.refusal_time


class _Server:
    """What the connections of one receiver share."""

    def __init__(self, settings: Settings, stop: threading.Event, context: ssl.SSLContext | None) -> None:
        self._settings = settings
        self._stop = stop
        self._context = context
        self._expectations = Expectations()
        self._spool = Spool(settings.storage, settings.receiver.max_instance_gib, self._expectations)
        self._inboxes = {name: InboxSpool(settings, name) for name in settings.inboxes}
        self._offer = receiver_offer(settings.receiver, settings.inboxes)
        self._counts = {name: InboxCount() for name in settings.inboxes}
        self._admission = Admission(settings.receiver.max_associations, settings.receiver.max_associations_per_peer)
        self._threads: set[threading.Thread] = set()
        self._stored = self._refused = 0
        self._counting = threading.Lock()

    def serve(self, listener: socket.socket, jobs: socket.socket) -> None:
        receiver = self._settings.receiver
        expectation_server = ExpectationServer(jobs, self._expectations, self._settings.storage.jobs_dir, self.status)
        expectation_server.start()
        _log.info("The receiver %s listens on %s port %d.", receiver.ae_title, receiver.host, listener.getsockname()[1])
        try:
            self._accept(listener)
        finally:
            listener.close()
            self._join(monotonic() + self._settings.server.shutdown_grace_seconds)
            self._admission.end_all()
            self._join(monotonic() + self._settings.receiver.pdu_timeout_seconds)
            expectation_server.close()
            _log.info("The receiver has ended.")

    def status(self) -> dict[str, Any]:
        with self._counting:
            stored, refused = self._stored, self._refused
            inboxes = {name: asdict(count) for name, count in self._counts.items()}
        return {
            "associations": self._admission.associations,
            "expectations": len(self._expectations),
            "stored": stored,
            "refused": refused,
            "inboxes": inboxes,
        }

    def _accept(self, listener: socket.socket) -> None:
        listener.settimeout(ACCEPT_TICK_SECONDS)
        while not self._stop.is_set():
            try:
                connection, address = listener.accept()
            except TimeoutError:
                continue
            except OSError as error:  # too many open files, or a peer that was gone before we took it
                _log.warning("A connection couldn't be taken: %s", error.strerror)
                sleep(0.1)
                continue
            peer = plain_address(address[0])
            place = self._admission.admit(peer, connection)
            if place is None:
                connection.close()
                continue
            thread = threading.Thread(target=self._serve, args=(connection, place), name=f"association {peer}")
            self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError as error:  # the system gives no more threads
                _log.warning("A connection of %s couldn't be served: %s", peer, error)
                self._threads.discard(thread)
                self._admission.release(place)
                connection.close()

    def _serve(self, connection: socket.socket, place: Place) -> None:
        receiver = self._settings.receiver
        tally = Tally(place.peer)
        try:
            if self._context is not None:
                place.connection = connection = self._context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
                connection.settimeout(receiver.pdu_timeout_seconds)
                connection.do_handshake()
            peer = Connection(connection, receiver.max_pdu_bytes, receiver.pdu_timeout_seconds, self._stop)
            StorageScp(peer, receiver, self._offer, self._spool, self._inboxes, tally, place).serve()
        except OSError as error:
            _log.info("A connection of %s ended before it became an association: %s", place.peer, error)
        except Exception:
            _log.exception("An association with %s ended by an error of ours.", place.peer)
        finally:
            connection.close()
            self._admission.release(place)
            with self._counting:
                self._stored += tally.stored
                self._refused += tally.refused
                if (count := self._counts.get(tally.called_ae_title)) is not None:
                    count.add(tally)
            self._threads.discard(threading.current_thread())

    def _join(self, deadline: float) -> None:
        for thread in tuple(self._threads):
            thread.join(max(0.0, deadline - monotonic()))


def _prepare_folders(settings: Settings) -> None:
    storage = settings.storage
    try:
        inboxes = [storage.inboxes_dir, *(folder_of(storage, name) for name in settings.inboxes)]
        for folder in (
            storage.data_dir,
            storage.incoming_dir,
            storage.jobs_dir,
            *(inboxes if settings.inboxes else ()),
        ):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
    except OSError as error:
        raise unusable(f"The receiver can't use storage.data_dir {storage.data_dir}", error) from None


def _clear(storage: Storage) -> None:
    """Remove what a receiver has left that was killed, where the file system has no unnamed files: none lives now."""
    try:
        for left_over in storage.incoming_dir.iterdir():
            left_over.unlink()
    except OSError as error:
        raise unusable(f"The receiver can't use storage.data_dir {storage.data_dir}", error) from None


def _listener(receiver: Receiver) -> socket.socket:
    keys = "receiver.host", "receiver.port here and in the PACS"
    return bound("The receiver", receiver.host, receiver.port, keys, BACKLOG)


@contextmanager
def _listen_for_jobs(path: Path) -> Iterator[socket.socket]:
    """The Unix socket, mode 0600; a stale file of a receiver that is gone is replaced, a living receiver's isn't."""
    if _is_answered(path):
        raise ConfigurationError(f"Another receiver is running on this storage.data_dir: it answers at {path}.")
    try:
        listener = listening(path, BACKLOG)
    except OSError as error:
        raise unusable(f"The receiver can't make its socket {path}", error) from None
    with listener:
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _is_answered(path: Path) -> bool:
    with suppress(OSError), connected(path, None):
        return True
    return False

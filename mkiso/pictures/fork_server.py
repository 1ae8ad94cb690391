"""`python -m mkiso.pictures.fork_server SOCKET`: has imported the decoders, and forks a worker for whoever asks at the
socket, until its own input ends.

A worker that starts by itself takes most of a second of a processor, which is half of what a small job takes; a fork
takes milliseconds. This process never had a secret, so that no fork of it can tell one. Whoever asks sends the limits
and two descriptors (the worker's input and output), is told the worker's process id and how it ended, and ends it by
hanging up.
"""

from __future__ import annotations

import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.modules["requests"] = None  # type: ignore[assignment]  # as mkiso.pictures.worker has it

from mkiso.pictures.messages import LIMITS, Limits
from mkiso.pictures.worker import work
from mkiso.unix_address import listening

_BACKLOG = 64
_ASK_SECONDS = 5.0  # for the one message of who has connected
_MESSAGE_BYTES = 64 * 1024
_PR_SET_PDEATHSIG = 1  # prctl(2)
_INPUT = 0


@dataclass
class _Forked:
    """A worker, by a descriptor that tells of its end, and who asked for it."""

    pid: int
    ended: int
    asker: socket.socket


def main() -> None:
    """Fork workers until the input ends."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # jobs may go on for a while when a service is told to end
        signal.signal(ignored, signal.SIG_IGN)
    gc.freeze()  # what is imported stays, and is shared
    with listening(Path(sys.argv[1]), _BACKLOG) as listener, selectors.DefaultSelector() as ready:
        ready.register(listener, selectors.EVENT_READ)
        ready.register(_INPUT, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj == _INPUT:
                    return
                if key.fileobj is listener:
                    _fork(listener, ready)
                elif key.fileobj == key.data.ended:
                    _reap(key.data, ready)
                elif key.data.asker.fileno() >= 0:  # who asked has gone or wants the worker ended, and it still runs
                    ready.unregister(key.data.asker)
                    signal.pidfd_send_signal(key.data.ended, signal.SIGKILL)


def _fork(listener: socket.socket, ready: selectors.BaseSelector) -> None:
    """A worker for who has connected; nothing for who doesn't say what it is to be."""
    asker, _ = listener.accept()
    descriptors: list[int] = []
    try:
        asker.settimeout(_ASK_SECONDS)
        message, descriptors, _, _ = socket.recv_fds(asker, _MESSAGE_BYTES, 2)
        limits = LIMITS.validate_json(message)
        if len(descriptors) != 2:
            raise ValueError("no input and output")
        parent = os.getpid()
        if (pid := os.fork()) == 0:
            _become_worker(descriptors, limits, parent)
        forked = _Forked(pid, os.pidfd_open(pid), asker)
        ready.register(forked.ended, selectors.EVENT_READ, forked)
        ready.register(asker, selectors.EVENT_READ, forked)
        _tell(asker, pid)
    except (OSError, ValueError):
        asker.close()
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _become_worker(descriptors: Sequence[int], limits: Limits, parent: int) -> None:
    """Be the worker, and never return."""
    try:
        for number, descriptor in enumerate((*descriptors, os.open(os.devnull, os.O_WRONLY))):
            os.dup2(descriptor, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getppid() == parent:
            work(limits)
        os._exit(0)
    finally:
        os._exit(1)


def _reap(forked: _Forked, ready: selectors.BaseSelector) -> None:
    _, status = os.waitpid(forked.pid, 0)
    with suppress(KeyError):
        ready.unregister(forked.asker)
    ready.unregister(forked.ended)
    os.close(forked.ended)
    _tell(forked.asker, os.waitstatus_to_exitcode(status))
    forked.asker.close()


def _tell(asker: socket.socket, number: int) -> None:
    with suppress(OSError):
        asker.sendall(b"%d\n" % number)


if __name__ == "__main__":
    main()

"""Free ports, taken below the range that the system gives to outgoing connections, and by each process of tests from a
part of its own: no other process takes a port that a test has just found free.
"""

from __future__ import annotations

import os
import random
import socket

LOWEST, HIGHEST = 12_000, 32_000  # net.ipv4.ip_local_port_range begins at 32,768

_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PART = (HIGHEST - LOWEST) // _PROCESSES
_FIRST = LOWEST + _PART * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES)

_given: set[int] = set()
"""Those of this process's programs, which may not listen on them yet."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which no program listens now. Each call gives a different one."""
    for _ in range(1000):
        port = random.randrange(_FIRST, _FIRST + _PART)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError(f"no free port on {host} between {_FIRST} and {_FIRST + _PART}")


def is_open(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0

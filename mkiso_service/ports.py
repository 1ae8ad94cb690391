"""Whether a port of this machine is free; what is installed, what is examined and the demo ask this alike."""

from __future__ import annotations

import socket


def why_taken(host: str, port: int) -> OSError | None:
    """Why nobody can listen there now; None where somebody can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None

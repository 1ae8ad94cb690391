"""An association of ours over loopback, as if it had been negotiated, with a bare socket at its other end."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mkiso.network.negotiation import Answer, Context
from mkiso.network.pdu import Connection
from mkiso.network.requestor import MAX_PDU_BYTES, Address, Requestor
from peers.patience import LONG


@contextmanager
def requestor_to(
    contexts: Mapping[int, Context], peer_pdu_bytes: int = 16_384, timeout_seconds: float = LONG
) -> Iterator[tuple[Requestor, socket.socket]]:
    """The association and the peer's socket; both are closed afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        peer, _ = listener.accept()
        address = Address("127.0.0.1", 0, "PEER", "MKISO", *[timeout_seconds] * 4)
        with peer:
            peer.settimeout(LONG)
            connection = Connection(ours, MAX_PDU_BYTES, timeout_seconds, polled=True)
            yield Requestor(connection, Answer(dict(contexts), peer_pdu_bytes, frozenset()), address), peer

"""How many connections are served at once, in all and of one peer, so that nobody takes every place."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

# Connections beyond the limits that are still told so (PS3.8 9.3.4); more are closed without a word.
MAX_REJECTING = 16
# A connection that hasn't become an association by then gives way to a new one where places are short.
GRACE_SECONDS = 1.0

TEMPORARY_CONGESTION, LOCAL_LIMIT_EXCEEDED = 1, 2  # PS3.8 9.3.4, source 3 (presentation related)


@dataclass(eq=False, slots=True)
class Place:
    """One connection's place. `congested`: the reason to reject it with, None where it may associate."""

    peer: str
    connection: socket.socket
    congested: int | None
    associated: bool = False
    began: float = field(default_factory=monotonic)

    def end(self) -> None:
        """Cut the connection; its thread notices at once."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class Admission:
    """Gives places to connections; used from the accepting thread and from the associations' own."""

    def __init__(self, max_associations: int, max_associations_per_peer: int) -> None:
        self._limit, self._limit_per_peer = max_associations, max_associations_per_peer
        self._lock = threading.Lock()
        self._places: set[Place] = set()

    @property
    def associations(self) -> int:
        with self._lock:
            return sum(place.associated for place in self._places)

    def admit(self, peer: str, connection: socket.socket) -> Place | None:
        """A place for a new connection, perhaps only to be rejected in; None where it is to be closed without a
        word.
        """
        with self._lock:
            serving = [place for place in self._places if place.congested is None]
            of_peer = [place for place in serving if place.peer == peer]
            reason = None
            if len(of_peer) >= self._limit_per_peer:
                reason = LOCAL_LIMIT_EXCEEDED if not self._displace(of_peer) else None
            elif len(serving) >= self._limit:
                reason = TEMPORARY_CONGESTION if not self._displace(serving) else None
            if reason is not None and len(self._places) - len(serving) >= MAX_REJECTING:
                return None
            place = Place(peer, connection, reason)
            self._places.add(place)
            return place

    def release(self, place: Place) -> None:
        with self._lock:
            self._places.discard(place)

    def end_all(self) -> None:
        """Cut every connection."""
        with self._lock:
            for place in self._places:
                place.end()

    def _displace(self, places: list[Place]) -> bool:
        """Make room by ending the oldest connection that has had its time to ask for an association and hasn't."""
        silent = [place for place in places if not place.associated and monotonic() - place.began > GRACE_SECONDS]
        if not silent:
            return False
        oldest = min(silent, key=lambda place: place.began)
        oldest.end()
        self._places.discard(oldest)
        return True

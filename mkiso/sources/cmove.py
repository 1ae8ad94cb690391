"""A PACS that is asked by C-FIND and sends by C-MOVE: the images come over associations of their own to the receiver,
which tells of each.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mkiso.config.settings import Receiver
from mkiso.config.sources import CMove
from mkiso.errors import PacsBusy, PacsRefused
from mkiso.receiver.client import Expectation
from mkiso.sources.find import STUDY_ROOT_FIND, find
from mkiso.sources.move import STUDY_ROOT_MOVE, Move
from mkiso.sources.move_outcome import MoveResult, failure
from mkiso.sources.pacs import MAX_TIMEOUTS, PacsAssociation, calling_ae_title, echo, peer_of, silent
from mkiso.sources.protocol import Search, Target
from mkiso.sources.sink import Sink
from mkiso.study.models import Study

POLL_SECONDS = 0.05  # how late a final response or a stop may be noticed while no image comes
SETTLED_SECONDS = 5.0  # how long a final response is waited for when everything that is listed has arrived


@dataclass(frozen=True, slots=True)
class CMoveSource:
    """mkiso.sources.protocol.Source over C-FIND and C-MOVE."""

    settings: CMove
    receiver: Receiver
    receiver_socket: Path
    until: float | None = None
    others: tuple[CMove, ...] = ()
    """The other sources whose images come to the receiver too: none of them is for a study of this one."""

    @property
    def name(self) -> str:
        return peer_of(self.settings)

    @property
    def hint(self) -> str:
        return (
            f"Check that the PACS can reach this machine, and which address it has for {self.receiver.ae_title} (port "
            f"{self.receiver.port})."
        )

    @contextmanager
    def searching(self) -> Iterator[Search]:
        with PacsAssociation(self.settings, self.receiver, [STUDY_ROOT_FIND], until=self.until) as association:
            yield partial(find, association, self.settings)

    @contextmanager
    def retrieving(self, sink: Sink) -> Iterator[CMoveRetrieval]:
        """Entering raises ReceiverUnavailable."""
        senders = _senders(self.settings)
        strangers = frozenset[str]().union(*map(_senders, self.others)) - senders
        with Expectation(
            self.receiver_socket,
            sink.study.study_instance_uid,
            sink.folder,
            sink.study.expected.instances,
            calling_ae_title(self.settings, self.receiver),
            senders,
            strangers,
            sink.study.chosen,
        ) as expectation:
            sink.refusals, sink.lost_associations = expectation.refusals, expectation.lost_associations
            yield CMoveRetrieval(self, sink, expectation)

    def failure(self, result: MoveResult, study: Study, arrived: int) -> PacsRefused | PacsBusy | None:
        return failure(result, self.name, self.receiver, study, arrived)

    def check(self, limit_seconds: float, *, inside: bool = False) -> str:
        told = f"answers C-ECHO in {echo(self.settings, self.receiver, limit_seconds):.2f} s"
        if not inside:
            return told
        with PacsAssociation(self.settings, self.receiver, [STUDY_ROOT_MOVE], limit_seconds) as association:
            taken = association.pdu_words()  # it offers C-MOVE, or entering says that it doesn't
        knows = f"It has to know {self.receiver.ae_title} as this machine's port {self.receiver.port}"
        asked_as = calling_ae_title(self.settings, self.receiver)
        return f"{self.name} {told} to {asked_as}, offers C-MOVE, and takes {taken}. {knows}"


@dataclass(frozen=True, slots=True)
class CMoveRetrieval:
    """C-MOVEs of one study while the receiver tells of what arrives; one thread does both."""

    source: CMoveSource
    sink: Sink
    expectation: Expectation

    @property
    def quiet_seconds(self) -> float:
        return self.source.settings.quiet_timeout_seconds

    def retrieve(self, wanted: Sequence[Target]) -> Sequence[MoveResult]:
        self.sink.wait_anew()
        with Move(self.source.settings, self.source.receiver, wanted) as move:
            results = self._follow(move)
        if wanted[0].level == "STUDY":  # below it a count may be of what was asked (an asynchronous Orthanc)
            self.sink.counted = max(self.sink.counted, move.counted)
        return results

    def take(self, timeout_seconds: float) -> bool:
        arrival = self.expectation.next_arrival(timeout_seconds)
        if arrival is not None:
            self.sink.take(arrival)
        return arrival is not None

    def catch_up(self) -> None:
        self.expectation.catch_up()
        self._drain()

    def _follow(self, move: Move) -> Sequence[MoveResult]:
        pacs, sink = self.source.settings, self.sink
        # Counts alone don't tell the last image from the one before it: there only silence for the quiet limit does.
        settled = pacs.quiet_timeout_seconds if sink.only_counted else SETTLED_SECONDS
        while not move.poll(0):
            if sink.is_complete:
                # Nothing but the final response is missing, so it is waited for at once.
                if move.poll(POLL_SECONDS):
                    break
                self._drain()
                if self._silent_since(move) > settled:
                    return [*move.results, MoveResult(None)]
            else:
                self.take(POLL_SECONDS)
            if self._silent_since(move) > pacs.response_timeout_seconds:
                raise silent(pacs, sink.study, "neither answered nor sent an image", pacs.response_timeout_seconds)
            if sink.silent_seconds > pacs.response_timeout_seconds * MAX_TIMEOUTS:
                raise silent(
                    pacs, sink.study, "answered and sent no image", pacs.response_timeout_seconds * MAX_TIMEOUTS
                )
            sink.raise_if_stopped()
        return move.results

    def _drain(self) -> None:
        """Take in what has arrived already, also beyond what was counted or against what came before."""
        while self.take(0):
            pass

    def _silent_since(self, move: Move) -> float:
        return time.monotonic() - max(self.sink.last_arrival, move.last_response)


def _senders(pacs: CMove) -> frozenset[str]:
    return frozenset({pacs.ae_title, *_addresses(pacs.host)})


def _addresses(host: str) -> set[str]:
    try:
        return {str(address[0]) for *_, address in socket.getaddrinfo(host, None)}
    except OSError:  # then there is no C-MOVE either, and it says why
        return set()

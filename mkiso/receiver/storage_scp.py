"""One association from its first byte to its last: negotiate, then answer C-STORE and C-ECHO until the peer is done
(PS3.8 9.2, PS3.7 9).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from time import monotonic, time

from mkiso.config.settings import Receiver
from mkiso.dataset.header import MAX_BEGINNING_BYTES, begin_series, begin_study
from mkiso.network import dimse, pdu
from mkiso.network.association import Association, Gathered, Message, Sink, accept, gather
from mkiso.network.dimse import MESSAGE_ID, Command
from mkiso.network.negotiation import STORAGE_COMMITMENT, Acceptance, Context, Offer, Rejection
from mkiso.network.pdu import Connection, PeerGone, ProtocolError, Stalled, Stopping
from mkiso.receiver import commitment
from mkiso.receiver.admission import Place
from mkiso.receiver.hashing import Hashing
from mkiso.receiver.inbox import InboxSpool
from mkiso.receiver.spool import Incoming, NoRoom, Refused, Spool

LEAST_BYTES_PER_SECOND = 1024  # of a message, once it has taken the idle limit; slower is a peer that wants to hold us
DRAINED_TIMES = 10
"""So many times the largest instance that is stored is read of one that isn't, so that what comes after it in the
association is taken; what is longer has no end.
"""
REJECTING_SECONDS = 2.0  # a connection that will be rejected anyhow waits no longer for its request

_CAUSES = {dimse.OUT_OF_RESOURCES: "no_room", dimse.TWO_VERSIONS: "two_versions"}
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """What one association did, for the log and the receiver's counts."""

    peer: str
    calling_ae_title: str = ""
    called_ae_title: str = ""
    stored: int = 0
    refused: int = 0
    size: int = 0
    ended: str = ""
    last_refusal: str = ""
    rejected: str = ""
    refusal_cause: str = ""
    refusal_time: float = 0.0

    @property
    def sender(self) -> str:
        """Who sends, for people."""
        return f"{self.calling_ae_title}@{self.peer}"

    @property
    def names(self) -> frozenset[str]:
        """The sender's AE title and address, by which jobs know their source."""
        return frozenset({self.calling_ae_title, self.peer})


class StorageScp:
    """Serves one peer in the calling thread. `spool` takes what jobs expect; who calls an inbox gives to that inbox's
    spool.
    """

    def __init__(
        self,
        connection: Connection,
        settings: Receiver,
        offer: Offer,
        spool: Spool,
        inboxes: Mapping[str, InboxSpool],
        tally: Tally,
        place: Place,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._offer = offer
        self._spool: Spool = spool
        self._inboxes = inboxes
        self._tally = tally
        self._place = place
        self._hashing = Hashing()
        self._instance: Reception | None = None
        self._asked: commitment.Request | None = None
        self._reports = 0
        self._message_began = 0.0
        self._received_before = 0

    def serve(self) -> None:
        """Serve until the association ends, however it does. Raises nothing that a peer can cause."""
        began = monotonic()
        tally = self._tally
        try:
            if (acceptance := self._negotiate()) is not None:
                self._place.associated = True
                self._loop(Association(self._connection, acceptance.contexts, acceptance.peer_pdu_bytes, self._begin))
                tally.ended = "released"
        except PeerGone as error:
            tally.ended = f"the peer {error}"
        except (Stalled, ProtocolError) as error:
            tally.ended = f"aborted: the peer {error}"
            self._tell(f"was aborted: it {error}")
            self._connection.abort(error.reason if isinstance(error, ProtocolError) else pdu.NOT_SPECIFIED)
        except Stopping:
            tally.ended = "aborted: the receiver ends"
            self._connection.abort(pdu.NOT_SPECIFIED)
        finally:
            if self._instance is not None:
                self._instance.close()
            self._connection.close()
            self._hashing.close()
            _log.info(
                "Association with %s (%s)%s: %d stored, %d refused%s, %.1f MB in %.2f s, %s.",
                tally.peer,
                tally.calling_ae_title or "no AE title",
                f" at the inbox {tally.called_ae_title}" if tally.called_ae_title in self._inboxes else "",
                tally.stored,
                tally.refused,
                f" (last: {tally.last_refusal})" if tally.last_refusal else "",
                tally.size / 1e6,
                monotonic() - began,
                tally.ended or "ended by an error",
            )

    def _negotiate(self) -> Acceptance | None:
        congested = self._place.congested
        limit = self._settings.pdu_timeout_seconds if congested is None else REJECTING_SECONDS
        answer = accept(self._connection, self._offer, self._tally.peer, limit, congested)
        self._tally.calling_ae_title = answer.calling_ae_title
        self._tally.called_ae_title = answer.called_ae_title
        self._spool = self._inboxes.get(answer.called_ae_title, self._spool)
        if isinstance(answer, Rejection):
            self._tally.ended = f"rejected: {answer.words}"
            self._tally.rejected = answer.words
            self._tally.refusal_cause, self._tally.refusal_time = "unknown_sender", time()  # an inbox's only reason
            self._tell(f"was refused: {answer.words}")
            return None
        for oddity in answer.oddities:
            _log_once(answer.calling_ae_title, oddity)
        return answer

    def _tell(self, words: str) -> None:
        self._spool.expectations.tell_association(self._tally.calling_ae_title, self._tally.peer, words)

    def _loop(self, association: Association) -> None:
        def patience_seconds() -> float:
            if association.is_between_messages:
                self._message_began, self._received_before = monotonic(), association.received_bytes
                return self._settings.idle_timeout_seconds
            size = association.received_bytes - self._received_before
            if monotonic() - self._message_began > self._settings.idle_timeout_seconds + size / LEAST_BYTES_PER_SECOND:
                raise Stalled("sent a message too slowly")
            return self._settings.pdu_timeout_seconds

        while (message := association.next_message(patience_seconds)) is not None:
            status = self._status_of(message)
            if status is not None:
                association.answer(message, status)
            if status == dimse.SUCCESS and message.command.field == dimse.N_ACTION_RQ:
                self._commit(association, message)

    def _status_of(self, message: Message) -> int | None:
        """What a message is answered with; None where it has no answer."""
        field = message.command.field
        if field == dimse.N_EVENT_REPORT_RQ | dimse.RESPONSE and self._reports:
            self._reports -= 1
            return None
        if field & dimse.RESPONSE:
            raise ProtocolError("sent a response where a request was due", pdu.UNEXPECTED_PDU)
        instance, self._instance, spool = self._instance, None, self._spool
        if instance is not None:
            return instance.finish()
        if field == dimse.N_ACTION_RQ and isinstance(message.data_set, Gathered) and isinstance(spool, InboxSpool):
            most = spool.rules.max_instances
            self._asked = commitment.request_of(message.kept, most)
            return commitment.status_of(message.command, self._asked, most)
        if field == dimse.C_CANCEL_RQ:  # PS3.7 9.3.2.3: nothing of ours can be cancelled
            return None
        return dimse.SUCCESS if field == dimse.C_ECHO_RQ else dimse.UNRECOGNIZED_OPERATION

    def _commit(self, association: Association, message: Message) -> None:
        """Tell what is held of what was asked about: at once, or where the sender wants to be called."""
        spool, calling, request = self._spool, self._tally.calling_ae_title, self._asked
        assert isinstance(spool, InboxSpool) and request is not None
        event_type, report = commitment.report_on(request, spool.held([uid for _, uid in request.references]))
        place = spool.rules.reports.get(calling)
        if place is not None and commitment.report_later(spool.name, calling, place, event_type, report):
            return
        self._reports += 1
        command = {**commitment.event(event_type), MESSAGE_ID: self._reports}
        association.send(message.context_id, command, BytesIO(dimse.encode_data_set(report)))

    def _begin(self, command: Command, context: Context) -> Sink:
        if command.field == dimse.N_ACTION_RQ and context.abstract_syntax == STORAGE_COMMITMENT:
            return gather(command, context)
        self._instance = Reception(command, context, self._spool, self._hashing, self._tally)
        return self._instance


@lru_cache(maxsize=256)
def _log_once(calling_ae_title: str, oddity: str) -> None:
    _log.info("%s sends %s; mkiso takes it.", calling_ae_title, oddity)


class Reception:
    """A request whose data set is on its way: stored, or drained where it is refused, all but the beginning, which says
    whose it is."""

    def __init__(self, command: Command, context: Context, spool: Spool, hashing: Hashing, tally: Tally) -> None:
        self.command = command
        self._transfer_syntax = context.transfer_syntax
        self._tally = tally
        self._expectations = spool.expectations
        self._most_bytes = DRAINED_TIMES * spool.max_instance_bytes
        self.size = 0
        self._incoming: Incoming | None = None
        self._refusal: Refused | None = None
        self._beginning = bytearray()
        try:
            self._incoming = self._begin(context, spool, hashing)
        except Refused as refusal:
            self._refuse(refusal)

    def write(self, data: memoryview) -> None:
        self.size += len(data)
        self._tally.size += len(data)
        if self.size > self._most_bytes:
            raise ProtocolError("sent a data set without end")
        if len(self._beginning) < MAX_BEGINNING_BYTES:
            self._beginning += data[: MAX_BEGINNING_BYTES - len(self._beginning)]
        if self._incoming is not None:
            try:
                self._incoming.write(bytes(data))
            except Refused as refusal:
                self._refuse(refusal)

    def finish(self) -> int:
        """The status to answer with (PS3.4 B.2.3): Success means that every job that expects the instance has it,
        whole.

        A job that expects something of its study and hasn't got it has been told why.
        """
        if self._incoming is not None:
            try:
                told = self._incoming.deliver(self._tally.sender)
                self._tally.stored += 1
                originator, names = self.command.text(dimse.MOVE_ORIGINATOR), self._tally.names
                self._expectations.tell_others(
                    told.study_instance_uid, told.sop_instance_uid, originator, names, told.series_instance_uid
                )
            except Refused as refusal:
                self._refuse(refusal)
        status = dimse.SUCCESS if self._refusal is None else self._refusal.status
        self.close()
        return status

    def close(self) -> None:
        self._let_go()
        refusal, self._refusal = self._refusal, None
        if refusal is not None and self.command.field == dimse.C_STORE_RQ:
            beginning = bytes(self._beginning)
            study = begin_study(beginning, self._transfer_syntax)
            series = begin_series(beginning, self._transfer_syntax)
            uid, originator = self.command.affected_sop_instance_uid, self.command.text(dimse.MOVE_ORIGINATOR)
            self._expectations.tell_refusal(study, uid, str(refusal), originator, self._tally.names, series)

    def _let_go(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:  # once: its descriptor may be another image's afterwards
            incoming.close()

    def _begin(self, context: Context, spool: Spool, hashing: Hashing) -> Incoming:
        if self.command.field != dimse.C_STORE_RQ:
            raise Refused(dimse.UNRECOGNIZED_OPERATION, "a request that isn't C-STORE")
        if self.command.affected_sop_class_uid != context.abstract_syntax:
            raise Refused(dimse.DOES_NOT_MATCH_SOP_CLASS, "its SOP class isn't its presentation context's")
        return spool.open(
            self.command.affected_sop_class_uid,
            self.command.affected_sop_instance_uid,
            context.transfer_syntax,
            hashing,
            self._tally.names,
        )

    def _refuse(self, refusal: Refused) -> None:
        self._refusal = refusal
        self._tally.refused += 1
        self._tally.last_refusal = f"{refusal.status:04X}, {refusal}"
        self._tally.refusal_cause, self._tally.refusal_time = _CAUSES.get(refusal.status, "unusable"), time()
        if isinstance(refusal, NoRoom):
            self._expectations.tell_no_room(self.command.affected_sop_instance_uid)
        self._let_go()

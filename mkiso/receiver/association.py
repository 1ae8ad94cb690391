"""One association from its first byte to its last: negotiate, then answer C-STORE and C-ECHO until the peer is done
(PS3.8 9.2, PS3.7 9).
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from mkiso.config.settings import Receiver
from mkiso.dataset.header import MAX_BEGINNING_BYTES, begin_study
from mkiso.receiver import dimse, pdu
from mkiso.receiver.admission import Place
from mkiso.receiver.dimse import Command
from mkiso.receiver.hashing import Hashing
from mkiso.receiver.negotiation import Acceptance, Context, Rejection, decode_request, negotiate, rejection
from mkiso.receiver.pdu import Connection, Pdv, PeerGone, ProtocolError, Stalled, Stopping
from mkiso.receiver.spool import Incoming, NoRoom, Refused, Spool

LEAST_BYTES_PER_SECOND = 1024  # of a message, once it has taken the idle limit; slower is a peer that wants to hold us
REJECTING_SECONDS = 2.0  # a connection that will be rejected anyhow waits no longer for its request

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """What one association did, for the log and the receiver's counts."""

    peer: str
    calling_ae_title: str = ""
    stored: int = 0
    refused: int = 0
    size: int = 0
    ended: str = ""
    last_refusal: str = ""


class Association:
    """Serves one peer in the calling thread."""

    def __init__(self, connection: Connection, settings: Receiver, spool: Spool, tally: Tally, place: Place) -> None:
        self._connection = connection
        self._settings = settings
        self._spool = spool
        self._tally = tally
        self._place = place
        self._hashing = Hashing()
        self._contexts: dict[int, Context] = {}
        self._command = bytearray()
        self._message: _Message | None = None
        self._message_began = 0.0
        self._message_size = 0

    def serve(self) -> None:
        """Serve until the association ends, however it does. Raises nothing that a peer can cause."""
        began = monotonic()
        tally = self._tally
        try:
            if self._negotiate():
                self._place.associated = True
                self._loop()
        except PeerGone as error:
            tally.ended = f"the peer {error}"
        except Stalled as error:
            tally.ended = f"aborted: the peer {error}"
            self._abort(pdu.NOT_SPECIFIED)
        except ProtocolError as error:
            tally.ended = f"aborted: the peer sent {error}"
            self._abort(error.reason)
        except Stopping:
            tally.ended = "aborted: the receiver ends"
            self._abort(pdu.NOT_SPECIFIED)
        finally:
            if self._message is not None:
                self._message.close()
            self._connection.close()
            self._hashing.close()
            _log.info(
                "Association with %s (%s): %d stored, %d refused%s, %.1f MB in %.2f s, %s.",
                tally.peer,
                tally.calling_ae_title or "no AE title",
                tally.stored,
                tally.refused,
                f" (last: {tally.last_refusal})" if tally.last_refusal else "",
                tally.size / 1e6,
                monotonic() - began,
                tally.ended or "ended by an error",
            )

    def _negotiate(self) -> bool:
        kind, body = self._connection.next_pdu(
            self._settings.pdu_timeout_seconds if self._place.congested is None else REJECTING_SECONDS, associated=False
        )
        if kind == pdu.A_ABORT:
            raise PeerGone("aborted")
        request = decode_request(bytes((kind, 0)) + len(body).to_bytes(4, "big") + bytes(body))
        answer: Acceptance | Rejection
        if self._place.congested is not None:
            answer = rejection(
                str(request.calling_ae_title).strip(), "too many associations", 2, 3, self._place.congested
            )
        else:
            answer = negotiate(
                request,
                ae_title=self._settings.ae_title,
                address=self._tally.peer,
                allowed_peers=self._settings.allowed_peers,
                max_pdu_bytes=self._settings.max_pdu_bytes,
            )
        self._tally.calling_ae_title = answer.calling_ae_title
        self._connection.send(answer.pdu)
        if isinstance(answer, Rejection):
            self._tally.ended = f"rejected: {answer.words}"
            return False
        self._contexts = dict(answer.contexts)
        return True

    def _loop(self) -> None:
        settings = self._settings
        while True:
            between_messages = self._message is None and not self._command
            kind, body = self._connection.next_pdu(
                settings.idle_timeout_seconds if between_messages else settings.pdu_timeout_seconds
            )
            if kind == pdu.A_RELEASE_RQ:
                self._connection.send(pdu.RELEASE_RP)
                self._tally.ended = "released"
                return
            if kind == pdu.A_ABORT:
                raise PeerGone("aborted")
            if between_messages:
                self._message_began, self._message_size = monotonic(), 0
            for pdv in pdu.pdvs(body):
                self._take(pdv)
            self._message_size += len(body)
            if (
                monotonic() - self._message_began
                > settings.idle_timeout_seconds + self._message_size / LEAST_BYTES_PER_SECOND
            ):
                raise Stalled("sent a message too slowly")

    def _take(self, pdv: Pdv) -> None:
        context = self._contexts.get(pdv.context_id)
        if context is None:
            raise ProtocolError(f"a PDV in presentation context {pdv.context_id}, which isn't accepted")
        if pdv.is_command:
            self._take_command(pdv, context)
        elif self._message is None:
            raise ProtocolError("a data set without a command", pdu.UNEXPECTED_PDU)
        else:
            self._message.write(pdv.data)
            if pdv.is_last:
                message, self._message = self._message, None
                self._answer(pdv.context_id, message.command, message.finish())

    def _take_command(self, pdv: Pdv, context: Context) -> None:
        if self._message is not None:
            raise ProtocolError("a command before the data set of the last one", pdu.UNEXPECTED_PDU)
        self._command += pdv.data
        if len(self._command) > dimse.MAX_COMMAND_BYTES:
            raise ProtocolError("a command set without end")
        if not pdv.is_last:
            return
        command = dimse.parse_command(self._command)
        self._command = bytearray()
        if command.field == dimse.C_CANCEL_RQ:  # PS3.7 9.3.2.3: nothing of ours can be cancelled
            return
        if command.has_data_set:
            self._message = _Message(command, context, self._spool, self._hashing, self._tally)
        else:
            self._answer(
                pdv.context_id,
                command,
                dimse.SUCCESS if command.field == dimse.C_ECHO_RQ else dimse.UNRECOGNIZED_OPERATION,
            )

    def _answer(self, context_id: int, command: Command, status: int) -> None:
        self._connection.send(pdu.p_data_pdu(context_id, dimse.response(command, status)))

    def _abort(self, reason: int) -> None:
        with suppress(PeerGone, Stalled):
            self._connection.send(pdu.abort_pdu(reason))


class _Message:
    """A request whose data set is on its way: stored, or drained where it is refused, all but the beginning, which says
    whose it is."""

    def __init__(self, command: Command, context: Context, spool: Spool, hashing: Hashing, tally: Tally) -> None:
        self.command = command
        self._transfer_syntax = context.transfer_syntax
        self._tally = tally
        self._expectations = spool.expectations
        self._incoming: Incoming | None = None
        self._refusal: Refused | None = None
        self._beginning: list[bytes] = []
        self._begun = 0
        try:
            self._incoming = self._begin(context, spool, hashing)
        except Refused as refusal:
            self._refuse(refusal)

    def write(self, data: memoryview) -> None:
        self._tally.size += len(data)
        if self._incoming is None and self._begun >= MAX_BEGINNING_BYTES:
            return
        piece = bytes(data)
        if self._begun < MAX_BEGINNING_BYTES:
            self._beginning.append(piece)
            self._begun += len(piece)
        if self._incoming is not None:
            try:
                self._incoming.write(piece)
            except Refused as refusal:
                self._refuse(refusal)

    def finish(self) -> int:
        """The status to answer with (PS3.4 B.2.3): Success means that every job that expects the instance has it,
        whole.

        A job that expects something of its study and hasn't got it has been told why.
        """
        if self._incoming is not None:
            try:
                study_instance_uid = self._incoming.deliver()
                self._tally.stored += 1
                self._expectations.tell_others(
                    study_instance_uid, self.command.affected_sop_instance_uid, self.command.move_originator
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
            study_instance_uid = begin_study(b"".join(self._beginning)[:MAX_BEGINNING_BYTES], self._transfer_syntax)
            uid, originator = self.command.affected_sop_instance_uid, self.command.move_originator
            self._expectations.tell_refusal(study_instance_uid, uid, str(refusal), originator)

    def _let_go(self) -> None:
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None

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
        )

    def _refuse(self, refusal: Refused) -> None:
        self._refusal = refusal
        self._tally.refused += 1
        self._tally.last_refusal = f"{refusal.status:04X}, {refusal}"
        if isinstance(refusal, NoRoom):
            self._expectations.tell_no_room(self.command.affected_sop_instance_uid)
        self._let_go()

"""What is proposed and accepted at an association's beginning (PS3.8 9.3.2-9.3.4, PS3.7 D.3), in both roles."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from mkiso.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from mkiso.network.associate import (
    APPLICATION_CONTEXT_NAME,
    Associate,
    Proposal,
    Result,
    UserInformation,
    decode,
    encode,
    padded_ae_title,
    rejection_pdu,
)
from mkiso.network.pdu import (
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RQ,
    PDV_HEAD_BYTES,
    AssociationLost,
    ProtocolError,
)

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
STORAGE_COMMITMENT, STORAGE_COMMITMENT_PUSH = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
"""The SOP class and the SOP instance of the Storage Commitment Push Model (PS3.4 J)."""

MAX_CONTEXTS = 128  # odd IDs 1 to 255 (PS3.8 9.3.2.2)
ACCEPTED, ABSTRACT_SYNTAX_NOT_SUPPORTED, TRANSFER_SYNTAXES_NOT_SUPPORTED = 0, 3, 4  # PS3.8 9.3.3.2

_LEAST_PDU_BYTES = 512  # our longest response; PS3.8 D.1 lets a peer ask for less, and none does
_LEAST_FRAGMENT_BYTES = 10  # of what we send as requestor

# PS3.8 9.3.4, by source and reason
_REASONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}

Pair = tuple[str, str]
"""An abstract syntax and the one transfer syntax that is proposed with it."""


class Context(NamedTuple):
    """A presentation context: what it is for and how data sets in it are encoded."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What we accept of those who call us, by `ae_title` or, where it is None, by any name; who calls one of `others`
    has that offer.

    `may_call` is asked with a calling AE title and an address, `callers` names in words who may. `choose` gives an
    abstract syntax's transfer syntax out of the proposed ones, or the result to refuse it with; `roles`: whether a peer
    that asks may be SCU, and SCP (PS3.7 D.3.3.4); `extended`: what a SOP class that is negotiated further is answered,
    where it is (D.3.3.5); `operations`: how many of either side may be without an answer, where a peer asks for more
    than one (D.3.3.3).
    """

    ae_title: str | None
    max_pdu_bytes: int
    choose: Callable[[str, list[str]], str | int]
    may_call: Callable[[str, str], bool] = lambda ae_title, address: True
    callers: str = "the allowed peers"
    roles: tuple[bool, bool] = (True, False)
    extended: Callable[[str], bytes | None] = lambda abstract_syntax: None
    operations: int = 1
    others: Mapping[str, Offer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The A-ASSOCIATE-AC, encoded, the accepted contexts by ID, the longest PDU that the peer takes (0: any), and what
    was unusual about its request, in words."""

    calling_ae_title: str
    contexts: Mapping[int, Context]
    pdu: bytes
    peer_pdu_bytes: int
    oddities: tuple[str, ...] = ()
    called_ae_title: str = ""


@dataclass(frozen=True, slots=True)
class Rejection:
    """The A-ASSOCIATE-RJ, encoded, and why in words; `called_ae_title` where that is one of ours."""

    calling_ae_title: str
    words: str
    pdu: bytes
    called_ae_title: str = ""


class AssociationRejected(AssociationLost):
    """A peer's A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    def __init__(self, words: str, result: int, source: int, reason: int) -> None:
        super().__init__(f"rejects the association: {words}")
        self.result, self.source, self.reason = result, source, reason

    @property
    def lasting(self) -> bool:
        """Whether the same request will be rejected again."""
        return (self.result, self.source) == (1, 1) and self.reason in (2, 3, 7)


class Answer(NamedTuple):
    """What a peer accepts of our proposals, by context ID; the longest PDU that it takes (0: any); the SOP classes of
    which we may be SCP."""

    contexts: dict[int, Context]
    peer_pdu_bytes: int
    scp_of: frozenset[str]


def request_pdu(
    called_ae_title: str,
    calling_ae_title: str,
    proposed: Sequence[Pair],
    max_pdu_bytes: int,
    scp_of: Collection[str] = (),
) -> bytes:
    """An A-ASSOCIATE-RQ with a context for each proposal, so that the answer is about exactly that one; `scp_of`: the
    SOP classes of which we want to be SCP (PS3.7 D.3.3.4)."""
    request = Associate(1, padded_ae_title(called_ae_title), padded_ae_title(calling_ae_title))
    request.application_context_name = APPLICATION_CONTEXT_NAME
    request.proposals = [
        Proposal(2 * number + 1, abstract_syntax, [transfer_syntax])
        for number, (abstract_syntax, transfer_syntax) in enumerate(proposed)
    ]
    request.user = _ourselves(max_pdu_bytes)
    request.user.roles = dict.fromkeys(scp_of, (False, True))
    return encode(request, A_ASSOCIATE_RQ)


def accepted(body: memoryview, proposed: Sequence[Pair]) -> Answer:
    """What an A-ASSOCIATE-AC says. Raises ProtocolError with the cause where it can't be read."""
    answer = decode(body, A_ASSOCIATE_AC)
    peer_pdu_bytes = answer.user.max_pdu_bytes
    if 0 < peer_pdu_bytes < PDV_HEAD_BYTES + _LEAST_FRAGMENT_BYTES:
        raise ProtocolError(f"takes PDUs of {peer_pdu_bytes} bytes, which hold no data")
    results: dict[int, set[Result]] = {}
    for result in answer.results:
        results.setdefault(result.context_id, set()).add(result)
    contexts = {2 * number + 1: Context(*pair) for number, pair in enumerate(proposed)}
    return Answer(
        {
            number: context
            for number, context in contexts.items()
            if results.get(number) == {Result(number, ACCEPTED, context.transfer_syntax)}
        },
        peer_pdu_bytes,
        frozenset(uid for uid, (_, as_scp) in answer.user.roles.items() if as_scp),
    )


def rejected(body: memoryview) -> AssociationRejected:
    """What an A-ASSOCIATE-RJ says."""
    _, result, source, reason = body
    words = _REASONS.get((source, reason), f"source {source}, reason {reason}")
    return AssociationRejected(words, result, source, reason)


def decode_request(body: bytes | memoryview) -> Associate:
    """The body of an A-ASSOCIATE-RQ. Raises ProtocolError with the cause where it can't be read."""
    return decode(body, A_ASSOCIATE_RQ)


def negotiate(request: Associate, offer: Offer, address: str) -> Acceptance | Rejection:
    """Answer an A-ASSOCIATE-RQ that came from `address`."""
    calling = request.calling_ae_title
    if not request.protocol_version & 0x01:
        return rejection(calling, "its protocol version isn't supported", 1, 2, 2)
    if request.application_context_name != APPLICATION_CONTEXT_NAME:
        return rejection(calling, "its application context isn't DICOM's", 1, 1, 2)
    called = request.called_ae_title
    offer = offer.others.get(called, offer)
    if offer.ae_title not in (None, called):
        return rejection(calling, f"it calls {called!r}, and our AE title is {offer.ae_title!r}", 1, 1, 7)
    if not offer.may_call(calling, address):
        refused = rejection(calling, f"it isn't one of {offer.callers}", 1, 1, 3)
        return replace(refused, called_ae_title=called)
    peer_pdu_bytes = request.user.max_pdu_bytes
    if 0 < peer_pdu_bytes < _LEAST_PDU_BYTES:
        return rejection(calling, f"it takes PDUs of at most {peer_pdu_bytes} bytes", 1, 1, 1)
    if not request.proposals:
        return rejection(calling, "it proposes no presentation context", 1, 1, 1)
    results, contexts = [], {}
    for number, abstract_syntax, transfer_syntaxes in request.proposals:
        chosen = offer.choose(abstract_syntax, transfer_syntaxes)
        if isinstance(chosen, int):
            results.append(Result(number, chosen, IMPLICIT_VR_LITTLE_ENDIAN))
        else:
            results.append(Result(number, ACCEPTED, chosen))
            contexts[number] = Context(abstract_syntax, chosen)
    # PS3.8 9.3.3: the AE titles are sent back, tested by nobody
    answer = Associate(1, request.called, request.calling, APPLICATION_CONTEXT_NAME, results=results)
    answer.user = _answered(request.user, contexts, offer)
    encoded = encode(answer, A_ASSOCIATE_AC)
    return Acceptance(calling, contexts, encoded, peer_pdu_bytes, tuple(request.oddities), called)


def rejection(calling_ae_title: str, words: str, result: int, source: int, reason: int) -> Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4): `result` 1 permanent, 2 transient; `source` 1 user, 2 ACSE, 3 presentation."""
    return Rejection(calling_ae_title, words, rejection_pdu(result, source, reason))


def _ourselves(max_pdu_bytes: int) -> UserInformation:
    """What we say of ourselves in either role (PS3.8 D.1, PS3.7 D.3.3.2)."""
    return UserInformation(max_pdu_bytes, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)


def _answered(proposed: UserInformation, contexts: Mapping[int, Context], offer: Offer) -> UserInformation:
    """Our side of PS3.7 D.3.3. A user's identity is taken note of by nobody, so it gets no positive answer (D.3.3.7);
    common extended negotiation has no answer (D.3.3.6).
    """
    answer = _ourselves(offer.max_pdu_bytes)
    if proposed.window is not None:  # D.3.3.3, where 0 means without limit
        invoked, performed = (min(most or offer.operations, offer.operations) for most in proposed.window)
        answer.window = invoked, performed
    accepted = {context.abstract_syntax for context in contexts.values()}
    for uid, (as_scu, as_scp) in proposed.roles.items():  # D.3.3.4
        role = as_scu and offer.roles[0], as_scp and offer.roles[1]
        if uid in accepted and any(role):
            answer.roles[uid] = role
    for uid in proposed.extended:  # D.3.3.5
        information = offer.extended(uid) if uid in accepted else None
        if information is not None:
            answer.extended[uid] = information
    return answer

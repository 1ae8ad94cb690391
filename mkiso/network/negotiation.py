"""What is proposed and accepted at an association's beginning (PS3.8 9.3.2-9.3.4, PS3.7 D.3), in both roles, by
pynetdicom's codecs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_items import (
    ApplicationContextItem,
    AsynchronousOperationsWindowSubItem,
    ImplementationClassUIDSubItem,
    ImplementationVersionNameSubItem,
    MaximumLengthSubItem,
    PresentationContextItemAC,
    PresentationContextItemRQ,
    SCP_SCU_RoleSelectionSubItem,
    SOPClassExtendedNegotiationSubItem,
    UserInformationItem,
)
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context

from mkiso.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from mkiso.network.pdu import PDV_HEAD_BYTES, AssociationLost, ProtocolError, whole

APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"

MAX_CONTEXTS = 128  # odd IDs 1 to 255 (PS3.8 9.3.2.2)
ACCEPTED, ABSTRACT_SYNTAX_NOT_SUPPORTED, TRANSFER_SYNTAXES_NOT_SUPPORTED = 0, 3, 4  # PS3.8 9.3.3.2

_LEAST_PDU_BYTES = 512  # our longest response; PS3.8 D.1 lets a peer ask for less, and none does
_LEAST_FRAGMENT_BYTES = 10  # of what we send as requestor


Pair = tuple[str, str]
"""An abstract syntax and the one transfer syntax that is proposed with it."""


class Context(NamedTuple):
    """A presentation context: what it is for and how data sets in it are encoded."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What we accept of those who call us, by `ae_title` or, where it is None, by any name.

    `may_call` is asked with a calling AE title and an address. `choose` gives an abstract syntax's transfer syntax out
    of the proposed ones, or the result to refuse it with; `roles`: whether a peer that asks may be SCU, and SCP
    (PS3.7 D.3.3.4); `extended`: what a SOP class that is negotiated further is answered, where it is (D.3.3.5).
    """

    ae_title: str | None
    max_pdu_bytes: int
    choose: Callable[[str, list[str]], str | int]
    may_call: Callable[[str, str], bool] = lambda ae_title, address: True
    roles: tuple[bool, bool] = (True, False)
    extended: Callable[[str], bytes | None] = lambda abstract_syntax: None


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The A-ASSOCIATE-AC, encoded, the accepted contexts by ID, and the longest PDU that the peer takes (0: any)."""

    calling_ae_title: str
    contexts: Mapping[int, Context]
    pdu: bytes
    peer_pdu_bytes: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """The A-ASSOCIATE-RJ, encoded, and why in words."""

    calling_ae_title: str
    words: str
    pdu: bytes


class AssociationRejected(AssociationLost):
    """A peer's A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    def __init__(self, words: str, result: int, source: int, reason: int) -> None:
        super().__init__(f"rejects the association: {words}")
        self.result, self.source, self.reason = result, source, reason

    @property
    def lasting(self) -> bool:
        """Whether the same request will be rejected again."""
        return (self.result, self.source) == (1, 1) and self.reason in (2, 3, 7)


def request_pdu(called_ae_title: str, calling_ae_title: str, proposed: Sequence[Pair], max_pdu_bytes: int) -> bytes:
    """An A-ASSOCIATE-RQ with a context for each proposal, so that the answer is about exactly that one."""
    contexts = [build_context(*context) for context in proposed]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(APPLICATION_CONTEXT_NAME)
    primitive.calling_ae_title, primitive.called_ae_title = calling_ae_title, called_ae_title
    primitive.presentation_context_definition_list = contexts
    primitive.user_information = [primitive for _, primitive in _ourselves(max_pdu_bytes)]
    request = A_ASSOCIATE_RQ()
    request.from_primitive(primitive)
    return bytes(request.encode())


def accepted(body: memoryview, proposed: Sequence[Pair]) -> tuple[dict[int, Context], int]:
    """What an A-ASSOCIATE-AC accepts of our proposals, by context ID, and the longest PDU that the peer takes (0: any).

    Raises ProtocolError where it can't be read.
    """
    answer = A_ASSOCIATE_AC()
    try:
        answer.decode(whole(answer.pdu_type, body))
        primitive = answer.to_primitive()
        results = {
            one.context_id: (one.result, *one.transfer_syntax)
            for one in primitive.presentation_context_definition_results_list
        }
        peer_pdu_bytes = primitive.maximum_length_received or 0
    except Exception:  # pynetdicom raises many types for bytes that are no PDU
        raise ProtocolError("sent a malformed answer to the association request") from None
    if 0 < peer_pdu_bytes < PDV_HEAD_BYTES + _LEAST_FRAGMENT_BYTES:
        raise ProtocolError(f"takes PDUs of {peer_pdu_bytes} bytes, which hold no data")
    contexts = {2 * number + 1: Context(*pair) for number, pair in enumerate(proposed)}
    return {
        number: context
        for number, context in contexts.items()
        if results.get(number) == (ACCEPTED, context.transfer_syntax)
    }, peer_pdu_bytes


def rejected(body: memoryview) -> AssociationRejected:
    """What an A-ASSOCIATE-RJ says."""
    answer = A_ASSOCIATE_RJ()
    _, result, source, reason = body
    try:
        answer.decode(whole(answer.pdu_type, body))
        words = answer.reason_str
    except Exception:  # whatever is no reason of PS3.8
        words = f"source {source}, reason {reason}"
    return AssociationRejected(words, result, source, reason)


def decode_request(encoded: bytes) -> A_ASSOCIATE_RQ:
    """An A-ASSOCIATE-RQ, header included. Raises ProtocolError where it is malformed."""
    request = A_ASSOCIATE_RQ()
    try:
        request.decode(encoded)
        for item in request.variable_items:
            item.to_primitive() if isinstance(item, (PresentationContextItemRQ, UserInformationItem)) else None
        identifiers = [item.context_id for item in request.presentation_context]
        if request.user_information is None or len(set(identifiers)) < len(identifiers) or not identifiers:
            raise ValueError("user information or presentation contexts are missing or doubled")
    except (
        Exception
    ) as error:  # the codec raises whatever its parts happen to: struct, Unicode, Key, Type, Assertion, Value errors
        raise ProtocolError(f"sent an A-ASSOCIATE-RQ that can't be read ({type(error).__name__})") from None
    return request


def negotiate(request: A_ASSOCIATE_RQ, offer: Offer, address: str) -> Acceptance | Rejection:
    """Answer an A-ASSOCIATE-RQ that came from `address`."""
    calling = calling_ae_title_of(request)
    if not request.protocol_version & 0x01:
        return rejection(calling, "its protocol version isn't supported", 1, 2, 2)
    if request.application_context_name != APPLICATION_CONTEXT_NAME:
        return rejection(calling, "its application context isn't DICOM's", 1, 1, 2)
    called = str(request.called_ae_title).strip()
    if offer.ae_title not in (None, called):
        return rejection(calling, f"it calls {called!r}, and our AE title is {offer.ae_title!r}", 1, 1, 7)
    if not offer.may_call(calling, address):
        return rejection(calling, "it isn't one of the allowed peers", 1, 1, 3)
    user_information = request.user_information
    if user_information is None:
        return rejection(calling, "it sends no user information", 1, 1, 1)
    peer_pdu_bytes = user_information.maximum_length or 0
    if 0 < peer_pdu_bytes < _LEAST_PDU_BYTES:
        return rejection(calling, f"it takes PDUs of at most {peer_pdu_bytes} bytes", 1, 1, 1)
    answers, contexts = [], {}
    for item in request.presentation_context:
        abstract_syntax = str(item.abstract_syntax)
        chosen = offer.choose(abstract_syntax, [str(syntax) for syntax in item.transfer_syntax])
        if isinstance(chosen, int):
            answers.append(_context_item(item.context_id, chosen, IMPLICIT_VR_LITTLE_ENDIAN))
            continue
        answers.append(_context_item(item.context_id, ACCEPTED, chosen))
        if item.context_id is not None:
            contexts[item.context_id] = Context(abstract_syntax, chosen)
    return Acceptance(
        calling,
        contexts,
        _acceptance_pdu(request, answers, _user_information(user_information, contexts, offer)),
        peer_pdu_bytes,
    )


def calling_ae_title_of(request: A_ASSOCIATE_RQ) -> str:
    return str(request.calling_ae_title).strip()


def rejection(calling_ae_title: str, words: str, result: int, source: int, reason: int) -> Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4): `result` 1 permanent, 2 transient; `source` 1 user, 2 ACSE, 3 presentation."""
    pdu = A_ASSOCIATE_RJ()
    pdu.result, pdu.source, pdu.reason_diagnostic = result, source, reason
    return Rejection(calling_ae_title, words, bytes(pdu.encode()))


def _acceptance_pdu(
    request: A_ASSOCIATE_RQ, contexts: list[PresentationContextItemAC], user_information: UserInformationItem
) -> bytes:
    pdu = A_ASSOCIATE_AC()
    pdu.reserved_aet, pdu.reserved_aec = (
        request.called_ae_title,
        request.calling_ae_title,
    )  # PS3.8 9.3.3: sent back, tested by nobody
    application = ApplicationContextItem()
    application.application_context_name = APPLICATION_CONTEXT_NAME
    pdu.variable_items = [application, *contexts, user_information]
    return bytes(pdu.encode())


def _context_item(identifier: int | None, result: int, transfer_syntax: str) -> PresentationContextItemAC:
    context = PresentationContext()
    context.context_id = identifier
    context.transfer_syntax = [transfer_syntax]
    context.result = result
    item = PresentationContextItemAC()
    item.from_primitive(context)
    return item


def _ourselves(max_pdu_bytes: int) -> list[tuple[Any, Any]]:
    """What we say of ourselves in either role (PS3.8 D.1, PS3.7 D.3.3.2)."""
    maximum, implementation, version = (
        MaximumLengthNotification(),
        ImplementationClassUIDNotification(),
        ImplementationVersionNameNotification(),
    )
    maximum.maximum_length_received = max_pdu_bytes
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [
        (MaximumLengthSubItem, maximum),
        (ImplementationClassUIDSubItem, implementation),
        (ImplementationVersionNameSubItem, version),
    ]


def _user_information(
    proposed: UserInformationItem, contexts: Mapping[int, Context], offer: Offer
) -> UserInformationItem:
    """Our side of PS3.7 D.3.3. A user's identity is taken note of by nobody, so it gets no positive answer (D.3.3.7);
    common extended negotiation has no answer (D.3.3.6).
    """
    answers = _ourselves(offer.max_pdu_bytes)
    if proposed.async_ops_window is not None:  # D.3.3.3: one operation at a time
        window = AsynchronousOperationsWindowNegotiation()
        window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 1
        answers.append((AsynchronousOperationsWindowSubItem, window))
    accepted = {context.abstract_syntax for context in contexts.values()}
    for uid, role in proposed.role_selection.items():  # D.3.3.4
        as_scu, as_scp = role.scu_role and offer.roles[0], role.scp_role and offer.roles[1]
        if str(uid) in accepted and (as_scu or as_scp):
            selection = SCP_SCU_RoleSelectionNegotiation()
            selection.sop_class_uid, selection.scu_role, selection.scp_role = uid, bool(as_scu), bool(as_scp)
            answers.append((SCP_SCU_RoleSelectionSubItem, selection))
    for extended in proposed.ext_neg:  # D.3.3.5
        information = offer.extended(str(extended.uid)) if str(extended.uid) in accepted else None
        if information is not None:
            negotiation = SOPClassExtendedNegotiation()
            negotiation.sop_class_uid, negotiation.service_class_application_information = extended.uid, information
            answers.append((SOPClassExtendedNegotiationSubItem, negotiation))
    item = UserInformationItem()
    for kind, primitive in answers:
        sub_item = kind()
        sub_item.from_primitive(primitive)
        item.user_data.append(sub_item)
    return item

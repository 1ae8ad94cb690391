"""What a peer proposes and what we accept of it (PS3.8 9.3.2, PS3.7 D.3): a pure function from A-ASSOCIATE-RQ to
A-ASSOCIATE-AC or -RJ.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom._uid_dict import UID_dictionary
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
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
)
from pynetdicom.presentation import PresentationContext

from mkiso.dataset.header import is_uid
from mkiso.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from mkiso.receiver.pdu import ProtocolError

APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

ACCEPTED, ABSTRACT_SYNTAX_NOT_SUPPORTED, TRANSFER_SYNTAXES_NOT_SUPPORTED = 0, 3, 4  # PS3.8 9.3.3.2

# Of names with "Storage" in them, those that no C-STORE carries: a media directory, and Storage Commitment Push and
# Pull.
_NOT_STORED = frozenset({"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"})

# PS3.4 B.3.1: Level 2 (every attribute kept), digital signatures survive bit by bit (level 3), no coercion of elements.
_STORAGE_INFORMATION = bytes((2, 0, 3, 0, 0, 0))
_LEAST_PDU_BYTES = 512  # our longest response; PS3.8 D.1 lets a peer ask for less, and none does


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The A-ASSOCIATE-AC, encoded, and the accepted contexts by their ID."""

    calling_ae_title: str
    contexts: Mapping[int, Context]
    pdu: bytes


@dataclass(frozen=True, slots=True)
class Rejection:
    """The A-ASSOCIATE-RJ, encoded, and why in words."""

    calling_ae_title: str
    words: str
    pdu: bytes


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
        raise ProtocolError(f"an A-ASSOCIATE-RQ that can't be read ({type(error).__name__})") from None
    return request


def negotiate(
    request: A_ASSOCIATE_RQ, *, ae_title: str, address: str, allowed_peers: Collection[str], max_pdu_bytes: int
) -> Acceptance | Rejection:
    """Answer an A-ASSOCIATE-RQ.

    Accepted are Verification and every SOP class that is or may be a Storage class, private and unknown ones too, in
    whichever syntax is proposed: what is received is stored as it came.
    """
    calling = str(request.calling_ae_title).strip()
    if not request.protocol_version & 0x01:
        return rejection(calling, "its protocol version isn't supported", 1, 2, 2)
    if request.application_context_name != APPLICATION_CONTEXT_NAME:
        return rejection(calling, "its application context isn't DICOM's", 1, 1, 2)
    called = str(request.called_ae_title).strip()
    if called != ae_title:
        return rejection(calling, f"it calls {called!r}, and receiver.ae_title is {ae_title!r}", 1, 1, 7)
    if not is_allowed(calling, address, allowed_peers):
        return rejection(calling, "receiver.allowed_peers doesn't name it", 1, 1, 3)
    user_information = request.user_information
    if user_information is None:
        return rejection(calling, "it sends no user information", 1, 1, 1)
    if 0 < (user_information.maximum_length or 0) < _LEAST_PDU_BYTES:
        return rejection(calling, f"it takes PDUs of at most {user_information.maximum_length} bytes", 1, 1, 1)
    answers, contexts = [], {}
    for item in request.presentation_context:
        result, transfer_syntax = _answer(str(item.abstract_syntax), [str(syntax) for syntax in item.transfer_syntax])
        answers.append(_context_item(item.context_id, result, transfer_syntax))
        if result == ACCEPTED and item.context_id is not None:
            contexts[item.context_id] = Context(str(item.abstract_syntax), transfer_syntax)
    return Acceptance(
        calling,
        contexts,
        _acceptance_pdu(request, answers, _user_information(user_information, contexts, max_pdu_bytes)),
    )


def rejection(calling_ae_title: str, words: str, result: int, source: int, reason: int) -> Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4): `result` 1 permanent, 2 transient; `source` 1 user, 2 ACSE, 3 presentation."""
    pdu = A_ASSOCIATE_RJ()
    pdu.result, pdu.source, pdu.reason_diagnostic = result, source, reason
    return Rejection(calling_ae_title, words, bytes(pdu.encode()))


def is_allowed(ae_title: str, address: str, allowed_peers: Collection[str]) -> bool:
    """Whether a peer is named by receiver.allowed_peers: `AE`, an address, a network such as 10.1.0.0/16, or
    `AE@address`. Empty: everybody is.

    An AE title proves nothing, so it lets nobody put an image on a disc; what isn't expected is refused whoever sends
    it.
    """
    return not allowed_peers or any(_matches(entry, ae_title, address) for entry in allowed_peers)


def _matches(entry: str, ae_title: str, address: str) -> bool:
    title, at, network = entry.rpartition("@")
    if at and title != ae_title:
        return False
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return not at and entry == ae_title


def is_storage(abstract_syntax: str) -> bool:
    """Whether a SOP class is stored by C-STORE, as far as its UID tells: an unknown or private one may be."""
    known = UID_dictionary.get(abstract_syntax)
    return known is None or (known[1] == "SOP Class" and "Storage" in known[0] and abstract_syntax not in _NOT_STORED)


def preferred(transfer_syntaxes: list[str]) -> str:
    """The peer's first choice; of uncompressed ones Explicit VR Little Endian, which alone meets STD-GEN-CD and PDI's
    base profile untouched.
    """
    first = transfer_syntaxes[0]
    uncompressed = first in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
    return EXPLICIT_VR_LITTLE_ENDIAN if uncompressed and EXPLICIT_VR_LITTLE_ENDIAN in transfer_syntaxes else first


def _answer(abstract_syntax: str, transfer_syntaxes: list[str]) -> tuple[int, str]:
    if not is_uid(abstract_syntax) or (abstract_syntax != VERIFICATION and not is_storage(abstract_syntax)):
        return ABSTRACT_SYNTAX_NOT_SUPPORTED, IMPLICIT_VR_LITTLE_ENDIAN
    transfer_syntaxes = [uid for uid in transfer_syntaxes if is_uid(uid)]
    if not transfer_syntaxes:
        return TRANSFER_SYNTAXES_NOT_SUPPORTED, IMPLICIT_VR_LITTLE_ENDIAN
    return ACCEPTED, preferred(transfer_syntaxes)


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


def _user_information(
    proposed: UserInformationItem, contexts: Mapping[int, Context], max_pdu_bytes: int
) -> UserInformationItem:
    """Our side of PS3.7 D.3.3. A user's identity is taken note of by nobody, so it gets no positive answer (D.3.3.7);
    common extended negotiation has no answer (D.3.3.6).
    """
    maximum, implementation, version = (
        MaximumLengthNotification(),
        ImplementationClassUIDNotification(),
        ImplementationVersionNameNotification(),
    )
    maximum.maximum_length_received = max_pdu_bytes
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    answers: list[tuple[Any, Any]] = [
        (MaximumLengthSubItem, maximum),
        (ImplementationClassUIDSubItem, implementation),
        (ImplementationVersionNameSubItem, version),
    ]
    if proposed.async_ops_window is not None:  # D.3.3.3: one operation at a time
        window = AsynchronousOperationsWindowNegotiation()
        window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 1
        answers.append((AsynchronousOperationsWindowSubItem, window))
    accepted = {context.abstract_syntax for context in contexts.values()}
    for uid, role in proposed.role_selection.items():  # D.3.3.4: the peer stays the SCU
        if str(uid) in accepted and role.scu_role:
            selection = SCP_SCU_RoleSelectionNegotiation()
            selection.sop_class_uid, selection.scu_role, selection.scp_role = uid, True, False
            answers.append((SCP_SCU_RoleSelectionSubItem, selection))
    for extended in proposed.ext_neg:  # D.3.3.5
        if str(extended.uid) in accepted - {VERIFICATION}:
            negotiation = SOPClassExtendedNegotiation()
            negotiation.sop_class_uid, negotiation.service_class_application_information = (
                extended.uid,
                _STORAGE_INFORMATION,
            )
            answers.append((SOPClassExtendedNegotiationSubItem, negotiation))
    item = UserInformationItem()
    for kind, primitive in answers:
        sub_item = kind()
        sub_item.from_primitive(primitive)
        item.user_data.append(sub_item)
    return item

"""What the Storage SCP accepts, and of whom (PS3.4 B)."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import replace

from pydicom._uid_dict import UID_dictionary

from mkiso.config.inboxes import Inbox
from mkiso.config.section import title_and_network
from mkiso.config.settings import Receiver
from mkiso.network.negotiation import (
    ABSTRACT_SYNTAX_NOT_SUPPORTED,
    IMPLICIT_VR_LITTLE_ENDIAN,
    STORAGE_COMMITMENT,
    TRANSFER_SYNTAXES_NOT_SUPPORTED,
    VERIFICATION,
    Offer,
)
from mkiso.study.selection import is_uid

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

# Of names with "Storage" in them, those that no C-STORE carries: a media directory, and Storage Commitment Push and
# Pull.
_NOT_STORED = frozenset({"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"})

OPERATIONS = 64
"""What a sender may send ahead of the answers, if it asks for that. It lies in the connection's buffers until its turn
comes, so its bytes are bounded by these, and what is decided of an instance is what is decided of it alone."""

# PS3.4 B.3.1: Level 2 (every attribute kept), digital signatures survive bit by bit (level 3), no coercion of elements.
_STORAGE_INFORMATION = bytes((2, 0, 3, 0, 0, 0))


def receiver_offer(settings: Receiver, inboxes: Mapping[str, Inbox]) -> Offer:
    """What is accepted of those who call the receiver, and of those who call an inbox."""
    jobs = storage_offer(settings)
    return replace(jobs, others={name: _inbox_offer(jobs, name, inbox) for name, inbox in inboxes.items()})


def _inbox_offer(jobs: Offer, name: str, inbox: Inbox) -> Offer:
    """As that of jobs, of the inbox's own senders."""

    def may_call(ae_title: str, address: str) -> bool:
        return is_allowed(ae_title, address, inbox.senders)

    callers = f"inboxes.{name}.senders"
    return replace(jobs, ae_title=name, may_call=may_call, callers=callers, choose=_choose_of_inbox)


def _choose_of_inbox(abstract_syntax: str, transfer_syntaxes: list[str]) -> str | int:
    """As of jobs, and Storage Commitment."""
    if abstract_syntax == STORAGE_COMMITMENT:
        implicit = IMPLICIT_VR_LITTLE_ENDIAN in transfer_syntaxes  # which everybody proposes (PS3.5 10.1)
        return IMPLICIT_VR_LITTLE_ENDIAN if implicit else TRANSFER_SYNTAXES_NOT_SUPPORTED
    return choose(abstract_syntax, transfer_syntaxes)


def storage_offer(settings: Receiver) -> Offer:
    """Verification, and every SOP class that is or may be a Storage class, private and unknown ones too, in whichever
    syntax is proposed: what is received is stored as it came.
    """
    return Offer(
        settings.ae_title,
        settings.max_pdu_bytes,
        choose,
        lambda ae_title, address: is_allowed(ae_title, address, settings.allowed_peers),
        extended=lambda abstract_syntax: (
            None if abstract_syntax in (VERIFICATION, STORAGE_COMMITMENT) else _STORAGE_INFORMATION
        ),
        operations=OPERATIONS,
    )


def is_allowed(ae_title: str, address: str, allowed_peers: Collection[str]) -> bool:
    """Whether a peer is named by receiver.allowed_peers: `AE`, an address, a network such as 10.1.0.0/16, or
    `AE@address`. Empty: everybody is.

    An AE title proves nothing, so it lets nobody put an image on a disc; what isn't expected is refused whoever sends
    it.
    """
    return not allowed_peers or any(_matches(entry, ae_title, address) for entry in allowed_peers)


def _matches(entry: str, ae_title: str, address: str) -> bool:
    title, network = title_and_network(entry)
    if title is not None and title != ae_title:
        return False
    if network is None:
        return True
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


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


def choose(abstract_syntax: str, transfer_syntaxes: list[str]) -> str | int:
    """The transfer syntax of an abstract syntax, or the result to refuse it with (PS3.8 9.3.3.2)."""
    if not is_uid(abstract_syntax) or (abstract_syntax != VERIFICATION and not is_storage(abstract_syntax)):
        return ABSTRACT_SYNTAX_NOT_SUPPORTED
    transfer_syntaxes = [uid for uid in transfer_syntaxes if is_uid(uid)]
    if not transfer_syntaxes:
        return TRANSFER_SYNTAXES_NOT_SUPPORTED
    return preferred(transfer_syntaxes)

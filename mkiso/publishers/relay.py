"""What a relay has to decide, without a connection: contexts, statuses, words (PS3.4 B.2.3, PS3.7 C)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import uid_to_sop_class
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from mkiso.network.negotiation import MAX_CONTEXTS, Pair
from mkiso.study.models import Arrival

Verdict = Literal["accepted", "warning", "busy", "refused"]


def verdict(status: int) -> Verdict:
    """What a C-STORE status means for the job: 0000 and Bxxx count, A7xx may pass in a moment, anything else is a
    failure (PS3.4 B.2.3).
    """
    if status == 0x0000:
        return "accepted"
    if 0xB000 <= status <= 0xBFFF:
        return "warning"
    return "busy" if 0xA700 <= status <= 0xA7FF else "refused"


def status_words(status: int, comment: str = "") -> str:
    """A status by its number, its name in the standard and the peer's Error Comment."""
    name = STORAGE_SERVICE_CLASS_STATUS.get(status, ("", "unknown status"))[1]
    return f"{status:04X} {name}{f' ({comment})' if comment else ''}"


def pair_of(arrival: Arrival) -> Pair:
    return arrival.sop_class_uid, arrival.transfer_syntax_uid


def transcoded(pair: Pair) -> Pair:
    """What an instance becomes where `transcode` is set: uncompressed, in the syntax that every disc profile has."""
    return pair[0], str(ExplicitVRLittleEndian)


def plainest(pair: Pair) -> Pair:
    """The pair that every peer of its SOP class takes (PS3.5 10.1)."""
    return pair[0], str(ImplicitVRLittleEndian)


def can_be_plainest(pair: Pair, transcode: bool) -> bool:
    """Whether an instance can be sent as the plainest: the uncompressed ones without a change of any value."""
    return transcode or pair[1] in (ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian)


def in_place_of(unaccepted: Collection[Pair], pairs: Iterable[Pair], transcode: bool) -> list[Pair]:
    """What is proposed to a publisher that doesn't take some of these pairs: the plainest in their place."""
    return list(
        dict.fromkeys(
            plainest(pair) if pair in unaccepted and can_be_plainest(pair, transcode) else pair for pair in pairs
        )
    )


def wanted_pairs(instances: Iterable[Arrival], transcode: bool) -> list[Pair]:
    """Every pair that is really there, in the order of first appearance, and with `transcode` what it can be turned
    into.
    """
    pairs = [pair_of(arrival) for arrival in instances]
    return list(dict.fromkeys([*pairs, *map(transcoded, pairs)] if transcode else pairs))


def by_association(instances: Sequence[Arrival], transcode: bool) -> list[list[Arrival]]:
    """The instances of each association: one for all, or as few as their presentation contexts need (PS3.8 9.3.2.2: at
    most 128).
    """
    groups: list[list[Arrival]] = []
    pairs: list[set[Pair]] = []
    by_pair: dict[Pair, list[Arrival]] = {}
    for arrival in instances:
        by_pair.setdefault(pair_of(arrival), []).append(arrival)
    for same in by_pair.values():
        needed = set(wanted_pairs(same[:1], transcode))
        if not groups or len(pairs[-1] | needed) > MAX_CONTEXTS:
            groups.append([])
            pairs.append(set())
        groups[-1] += same
        pairs[-1] |= needed
    return groups


def sent_as(pair: Pair, accepted: Collection[Pair], transcode: bool) -> Pair | None:
    """The accepted pair that an instance is sent as; None where there is none."""
    if pair in accepted:
        return pair
    if transcode and transcoded(pair) in accepted:
        return transcoded(pair)
    return plainest(pair) if can_be_plainest(pair, transcode) and plainest(pair) in accepted else None


def unaccepted_words(publisher: str, instances: Iterable[Arrival], so_far: str) -> str:
    """Which SOP classes and transfer syntaxes a publisher doesn't take, how many instances each has, and what it has
    got `so_far`.
    """
    counts = Counter(pair_of(arrival) for arrival in instances)
    named = [
        f"{uid_to_sop_class(UID(pair[0])).name} in {UID(pair[1]).name} ({count})"
        for pair, count in sorted(counts.items())
    ]
    named = [words.replace("[unknown]", "an unknown SOP class") for words in named]
    return (
        f"{publisher} doesn't take {', '.join(named)}; {so_far}. Let the publisher accept it"
        ", or set transcode: true for images that it takes uncompressed."
    )

"""A publisher with a Storage SCP: the study is relayed by C-STORE, one association a job, byte for byte as it came
(PS3.4 B).

The publisher groups by calling AE and patient and starts after a quiet time, so there is no pause inside an
association, and a part of a study that it has accepted may become a disc. That all were accepted proves `queued`, not
burned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydicom.uid import UID

from mkiso.config.publishers import CStore
from mkiso.config.publishers import DicomPublisher as DicomSettings
from mkiso.dataset import part10
from mkiso.errors import (
    DamagedInstance,
    NoDicomData,
    NotConvertible,
    PrintUncertain,
    ProofFailed,
    PublisherRefused,
    PublisherUnavailable,
)
from mkiso.network import dimse
from mkiso.network.dimse import Command
from mkiso.network.negotiation import AssociationRejected, Pair
from mkiso.network.pdu import AssociationLost
from mkiso.network.requestor import Address, Requestor
from mkiso.publishers.commitment import commit
from mkiso.publishers.dicom import DicomPublisher
from mkiso.publishers.lock import Settling, lock_name, publisher_lock
from mkiso.publishers.orderbook import MAY_BE_MADE
from mkiso.publishers.protocol import Order, Receipt, Watch
from mkiso.publishers.relay import (
    by_association,
    in_place_of,
    pair_of,
    sent_as,
    status_words,
    unaccepted_words,
    verdict,
    wanted_pairs,
)
from mkiso.publishers.transcode import Transcoder, transcoding
from mkiso.storage.files import sha256_of
from mkiso.study.identity import without_patient
from mkiso.study.models import Arrival, instances_words


class CStorePublisher(DicomPublisher[CStore]):
    """A relay to one publisher."""

    def place(self, order: Order, before_giving: Callable[[], None], watch: Watch) -> Receipt:
        """Send every instance and read every status.

        Nothing is sent before each file is what was received and each context is accepted. From the first byte on an
        association that is lost is an unknown outcome (PrintUncertain), a refused instance a failed job
        (PublisherRefused, `accepted` instances before it), and so is one that changes while it is sent (ProofFailed).
        """
        prove(order.instances)
        receipt = Relay(self.name, self._settings, self._address, order, watch).send(
            before_giving, self._settling(order)
        )
        if self._settings.storage_commitment:
            watch.sent()
            with self._turn_at_port(order, watch):
                commit(self.name, self._settings, self._address, order, watch)
        return receipt

    def settles_in_seconds(self, order: Order) -> float:
        return self._settling(order).left_seconds()

    def was_given(self, order: Order) -> bool | None:
        """A Storage SCP can't be asked what it made."""
        return None

    def follow(self, order: Order, receipt: Receipt, watch: Watch) -> Receipt:
        """There is nothing to follow: `queued` is all that C-STORE proves."""
        return receipt

    def cancel(self, order: Order) -> bool:
        return False

    @contextmanager
    def _turn_at_port(self, order: Order, watch: Watch) -> Iterator[None]:
        """One job after another, where reports come to a port of ours."""
        if self._settings.commitment_port is None:
            yield
            return
        try:
            with publisher_lock(self._orders_dir / lock_name(self.where, "commitment"), self.name, watch):
                yield
        except PublisherUnavailable:
            raise PrintUncertain(
                f"{self.name} accepted {instances_words(len(order.instances))}, and the print was stopped before it "
                f"was asked for its storage commitment. {MAY_BE_MADE}",
                accepted=len(order.instances),
            ) from None

    def _settling(self, order: Order) -> Settling:
        return Settling(self._orders_dir, self.where, order.patient.patient_id, self._settings.settle_seconds)


class Relay:
    """One order on its way to one publisher. `makes_of_part`: it makes a disc of what it has without an order."""

    def __init__(
        self,
        name: str,
        settings: DicomSettings,
        address: Address,
        order: Order,
        watch: Watch,
        *,
        makes_of_part: bool = True,
    ) -> None:
        self._name = name
        self._settings = settings
        self._address = address
        self._order = order
        self._watch = watch
        self._makes_of_part = makes_of_part
        self._accepted = 0
        self._warnings: list[str] = []
        self._unaccepted: set[Pair] = set()

    def send(self, before_giving: Callable[[], None], settling: Settling) -> Receipt:
        """Send the order; raises as CStorePublisher.place does."""
        try:
            self._send(before_giving, settling)
        except ProofFailed as error:
            may = f"{self._name} may make a disc of the {self._accepted} before it: throw that disc away."
            words = may if self._may_make else "Nothing was printed."
            raise ProofFailed(f"{error.words} {words}", accepted=self._accepted) from None
        return Receipt(
            self._name,
            self._order.order_id,
            "queued",
            self._accepted,
            f"{self._name} accepted {instances_words(self._accepted)}.",
            tuple(sorted(self._warnings)),
        )

    def _send(self, before_giving: Callable[[], None], settling: Settling) -> None:
        groups = by_association(self._order.instances, self._settings.transcode)
        with transcoding(self._order.instances[0].path.parent.parent) as transcoder:
            if len(groups) > 1 or self._settings.transcode:
                # What is refused or can't be decoded must be known before the first byte, and nobody may wait for it
                # inside an association.
                for group in groups:
                    association = self._open(group)
                    association.release()
                    self._sent_for(group, association, transcoder)
            for number, group in enumerate(groups):
                association, sent = self._prepared(group, transcoder)
                with association:
                    if number == 0:
                        settling.touch()
                        before_giving()
                        self._watch.leaves()
                    for instance in sent:
                        self._store(association, instance)
                        settling.touch()

    def _prepared(self, group: list[Arrival], transcoder: Transcoder) -> tuple[Requestor, list[Arrival]]:
        """An association, and what is sent over it: made before it was opened."""
        while True:
            association, made = self._open(group), len(transcoder.made)
            try:
                sent = self._sent_for(group, association, transcoder)
            except BaseException:
                association.abort()
                raise
            if len(transcoder.made) == made:
                return association, sent
            association.release()

    def _open(self, group: list[Arrival]) -> Requestor:
        """An association for these instances; what the publisher doesn't take is proposed as the plainest instead."""
        transcode = self._settings.transcode
        pairs = wanted_pairs(group, transcode)
        association = self._associate(in_place_of(self._unaccepted, pairs, transcode))
        unaccepted = {pair for pair in map(pair_of, group) if sent_as(pair, association.ids, transcode) is None}
        if unaccepted <= self._unaccepted or in_place_of(unaccepted, pairs, transcode) == pairs:
            return association
        self._unaccepted |= unaccepted
        association.release()
        return self._associate(in_place_of(self._unaccepted, pairs, transcode))

    def _associate(self, pairs: list[Pair]) -> Requestor:
        """An association for these pairs, after as many attempts as are configured: nothing was sent, so each is
        free.
        """
        for attempt in range(self._settings.attempts):
            try:
                return Requestor.open(self._address, pairs)
            except AssociationLost as error:
                reason = f"{self._name} ({self._address}) {error}"
                if isinstance(error, AssociationRejected) and error.lasting:
                    words = (
                        f"{reason}. Make {self._address.calling_ae_title} known to it, or correct "
                        f"publishers.{self._name}.ae_title."
                    )
                    raise PublisherRefused(words, accepted=self._accepted) from None
            if attempt + 1 < self._settings.attempts and self._watch.stop.wait(back_off_seconds(attempt)):
                break
        if self._accepted:
            raise PublisherRefused(
                f"{reason}, after it had accepted {self._accepted} of {len(self._order.instances)}.",
                accepted=self._accepted,
            )
        raise PublisherUnavailable(f"{reason}; nothing was sent.")

    def _sent_for(self, group: list[Arrival], association: Requestor, transcoder: Transcoder) -> list[Arrival]:
        """What is sent for each instance. Raises PublisherRefused, naming every SOP class and syntax that the publisher
        doesn't take.
        """
        pairs = [sent_as(pair_of(arrival), association.ids, self._settings.transcode) for arrival in group]
        if unaccepted := [arrival for arrival, pair in zip(group, pairs, strict=True) if pair is None]:
            association.abort()
            raise PublisherRefused(unaccepted_words(self._name, unaccepted, self._so_far), accepted=self._accepted)
        return [self._as(arrival, pair, transcoder) for arrival, pair in zip(group, pairs, strict=True) if pair]

    def _as(self, arrival: Arrival, pair: Pair, transcoder: Transcoder) -> Arrival:
        if pair == pair_of(arrival):
            return arrival
        try:
            return transcoder.transcoded(arrival, pair[1])
        except NotConvertible as error:
            raise PublisherRefused(
                f"{self._name} doesn't take {UID(arrival.transfer_syntax_uid).name}, and it can't be made "
                f"{UID(pair[1]).name} here: {error.why.removesuffix('.')}; {self._so_far}.",
                accepted=self._accepted,
            ) from None

    @property
    def _so_far(self) -> str:
        """What the publisher has of the order before the next association."""
        if not self._accepted:
            return "nothing was sent"
        sent = f"it has accepted {self._accepted} of {len(self._order.instances)}"
        return f"{sent}: throw a disc of these away" if self._may_make else f"{sent}, and no disc was started"

    @property
    def _may_make(self) -> bool:
        """Whether it may make a disc of what it has accepted."""
        return self._makes_of_part and self._accepted > 0

    def _store(self, association: Requestor, instance: Arrival) -> None:
        """One C-STORE; a publisher out of resources is asked again, on the same association, for it said that it stored
        nothing.
        """
        total = len(self._order.instances)
        so_far = f"after it had accepted {self._accepted} of {total}"
        for attempt in range(self._settings.attempts):
            try:
                uid, path = instance.sop_instance_uid, instance.path
                answer = store(association, pair_of(instance), uid, path, data_set_offset(path), instance.sha256)
            except AssociationLost as error:
                words = f"The association with {self._name} was lost {so_far}: it {error}. {MAY_BE_MADE}"
                raise PrintUncertain(words, accepted=self._accepted) from None
            reason = status_words(answer.status, without_patient(answer.comment, self._order.patient))
            match verdict(answer.status):
                case "accepted" | "warning" as outcome:
                    self._accepted += 1
                    if outcome == "warning":
                        self._warnings.append(f"{instance.sop_instance_uid}: {reason}")
                    self._watch.progress(f"sent to {self._name}", self._accepted, total)
                    return
                case "refused":
                    break
                case "busy" if attempt + 1 < self._settings.attempts and self._watch.stop.wait(
                    back_off_seconds(attempt)
                ):
                    break
        words = f"{self._name} refused an instance {so_far}: {reason}."
        if self._may_make:
            raise PublisherRefused(
                f"{words} It may make a disc of a part: look at the robot and throw that disc away.",
                accepted=self._accepted,
            )
        if verdict(answer.status) == "busy":
            raise PublisherUnavailable(f"{words} Nothing was printed.")
        raise PublisherRefused(f"{words} Nothing was printed.")


def store(association: Requestor, pair: Pair, sop_instance_uid: str, path: Path, offset: int, sha256: str) -> Command:
    """C-STORE the data set that lies in a file from `offset` to its end (PS3.7 9.1.1); the response's command set.

    The file is hashed as it leaves: its last fragment goes only where all of it is what `sha256` says. Raises
    AssociationLost, ProofFailed.
    """
    command: dict[int, dimse.Value] = {
        dimse.COMMAND_FIELD: dimse.C_STORE_RQ,
        dimse.AFFECTED_SOP_CLASS_UID: pair[0],
        dimse.AFFECTED_SOP_INSTANCE_UID: sop_instance_uid,
        dimse.PRIORITY: 0,
    }
    with path.open("rb") as file:
        return association.ask(pair, command, _Proved(file, offset, sha256)).command


def data_set_offset(path: Path) -> int:
    """Where the data set of a stored instance begins. Raises ProofFailed where it is no instance any more."""
    with path.open("rb") as file:
        head = file.read(part10.HEAD_BYTES)
    try:
        return part10.data_set_offset(head, path.stat().st_size)
    except DamagedInstance as error:
        raise ProofFailed(
            f"{path.name} in the job's folder: {error.words} The study must be retrieved again."
        ) from None


class _Proved:
    """A file from `offset` on, which has no end unless all of it is what its hash says. Reading raises ProofFailed."""

    def __init__(self, file: BinaryIO, offset: int, sha256: str) -> None:
        self._file = file
        self._sha256 = sha256
        self._hash = hashlib.sha256(file.read(offset))

    def read(self, size: int, /) -> bytes:
        piece = self._file.read(size)
        self._hash.update(piece)
        if not piece and self._hash.hexdigest() != self._sha256:
            raise ProofFailed("A stored instance changed while it was sent; it was not sent whole.")
        return piece


def back_off_seconds(attempt: int) -> float:
    """1, 3, 9, … seconds after the attempts 0, 1, 2, …, 30 at most: shorter in sum than a publisher's quiet time with
    three attempts.
    """
    return min(3.0**attempt, 30.0)


def prove(instances: tuple[Arrival, ...]) -> None:
    """Every file is byte for byte what was received, and there is something to print at all."""
    if not instances:
        raise NoDicomData("There is nothing to print.")
    for arrival in instances:
        if not arrival.path.is_file() or sha256_of(arrival.path) != arrival.sha256:
            raise ProofFailed(
                f"The stored instance {arrival.sop_instance_uid} is not what was received; nothing was sent."
            )

"""A PACS that is asked by C-FIND and sends by C-GET: the images come in the same association, in which we are their
Storage SCP (PS3.4 C.4.3, PS3.7 D.3.3.4). For networks where nothing may connect to us.

What comes goes through the receiver's own checks into the job's folder, so that the proof is the same.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from pydicom.uid import UID

from mkiso.config.settings import Receiver
from mkiso.config.sources import CGet
from mkiso.config.storage import Storage
from mkiso.errors import PacsBusy, PacsRefused, PacsSilent
from mkiso.network import dimse
from mkiso.network.association import Gathered
from mkiso.network.association import Sink as DataSink
from mkiso.network.negotiation import MAX_CONTEXTS, Context
from mkiso.receiver.hashing import Hashing
from mkiso.receiver.storage_scp import LEAST_BYTES_PER_SECOND, Reception, Tally
from mkiso.sources.find import STUDY_ROOT_FIND, find
from mkiso.sources.move import identifier, result_of
from mkiso.sources.move_outcome import SUCCESS, MoveResult, failure, merged
from mkiso.sources.pacs import MAX_TIMEOUTS, ConnectionLost, PacsAssociation, calling_ae_title, echo, peer_of, silent
from mkiso.sources.protocol import UIDS_IN_A_LIST, Query, Search, Target
from mkiso.sources.sink import AnsweredRetrieval, Sink
from mkiso.study.models import Study
from mkiso.study.selection import is_uid

STUDY_ROOT_GET = UID("1.2.840.10008.5.1.4.1.2.2.3")  # PS3.4 C.6.2.3
POLL_SECONDS = 0.05
SOP_CLASS_UID, SOP_INSTANCE_UID = 0x00080016, 0x00080018

# A context each, so that each instance can come as it lies there; the commonest first.
TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, SV1
    "1.2.840.10008.1.2.4.90",  # JPEG 2000, lossless only
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
    "1.2.840.10008.1.2.1.99",  # Deflated
    "1.2.840.10008.1.2.4.100",  # MPEG-2
    "1.2.840.10008.1.2.4.102",  # MPEG-4 AVC
    "1.2.840.10008.1.2.4.201",  # HTJ2K Lossless
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
)
CLASSES_AT_ONCE = (MAX_CONTEXTS - 1) // len(TRANSFER_SYNTAXES)
COMMON_CLASSES = (  # where the PACS tells none: CT, MR, secondary capture, US, CR, DX, SR
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.88.33",
)


@dataclass(frozen=True, slots=True)
class CGetSource:
    """mkiso.sources.protocol.Source over C-FIND and C-GET."""

    settings: CGet
    receiver: Receiver
    storage: Storage
    until: float | None = None

    @property
    def name(self) -> str:
        return peer_of(self.settings)

    @property
    def hint(self) -> str:
        return (
            "Check that the PACS allows C-GET (Orthanc: DicomAlwaysAllowGet), and may send these images in the "
            "association that asks for them."
        )

    @contextmanager
    def searching(self) -> Iterator[Search]:
        with PacsAssociation(self.settings, self.receiver, [STUDY_ROOT_FIND], until=self.until) as association:
            yield partial(find, association, self.settings)

    @contextmanager
    def retrieving(self, sink: Sink) -> Iterator[CGetRetrieval]:
        yield CGetRetrieval(self, sink)

    def failure(self, result: MoveResult, study: Study, arrived: int) -> PacsRefused | PacsBusy | None:
        # What we refuse and what it can't send end alike here: nothing has to reach us.
        return None if result.status == 0xA702 else failure(result, self.name, self.receiver, study, arrived)

    def check(self, limit_seconds: float, *, inside: bool = False) -> str:
        receiver = self.receiver
        told = f"answers C-ECHO in {echo(self.settings, receiver, limit_seconds / 2):.2f} s"
        with PacsAssociation(self.settings, receiver, [STUDY_ROOT_GET], limit_seconds / 2) as association:
            taken = association.pdu_words()  # it offers C-GET, or entering says that it doesn't
        if not inside:
            return told
        return f"{self.name} {told} to {calling_ae_title(self.settings, receiver)}, offers C-GET, and takes {taken}."


class CGetRetrieval(AnsweredRetrieval):
    """C-GETs of one study."""

    def __init__(self, source: CGetSource, sink: Sink) -> None:
        super().__init__(sink, source.storage, source.receiver, calling_ae_title(source.settings, source.receiver))
        self._source = source
        self._classes: Mapping[str, str] | None = None

    def retrieve(self, wanted: Sequence[Target]) -> Sequence[MoveResult]:
        self._sink.wait_anew()
        if self._classes is None:
            self._classes = self._sop_classes()
        classes = sorted(set(self._classes.values()))
        if not classes or self._untold:
            classes += [each for each in COMMON_CLASSES if each not in classes]
        groups = [classes[start : start + CLASSES_AT_ONCE] for start in range(0, len(classes), CLASSES_AT_ONCE)]
        ends: list[list[MoveResult]] = [[] for _ in wanted]
        for group in groups:
            # Some PACSs end the association at an instance that has no context in it.
            asked = [self._within(target, set(group)) if len(groups) > 1 else [target] for target in wanted]
            told = iter(self._group([piece for pieces in asked for piece in pieces], group))
            for end, pieces in zip(ends, asked, strict=True):
                end += [next(told, MoveResult(None)) for _ in pieces]
        results = [merged(each) if each else MoveResult(SUCCESS) for each in ends]
        if len(groups) > 1:
            # Only what is listed was asked for by name: nobody has counted the whole study.
            return [replace(result, completed=None) for result in results]
        if wanted[0].level == "STUDY":
            self._sink.counted = max(self._sink.counted, results[0].total)
        return results

    def _within(self, target: Target, classes: Collection[str]) -> list[Target]:
        """Of a target the instances of these classes, by series; last those whose class isn't told, which may be of
        any."""
        told, series = self._classes or {}, self._sink.study.expected.series
        known, unknown = [], []
        for uid in target.series or series:
            lacking = sorted(set(target.instances or series[uid]) - self._sink.arrived)
            known += _pieces(target, uid, [instance for instance in lacking if told.get(instance) in classes])
            unknown += _pieces(target, uid, [instance for instance in lacking if instance not in told])
        return known + unknown

    @property
    def _untold(self) -> bool:
        """Whether the PACS lists instances and not what they are."""
        listed = self._sink.study.expected.instances or frozenset()
        return not listed <= (self._classes or {}).keys()

    def _group(self, wanted: Sequence[Target], classes: Sequence[str]) -> list[MoveResult]:
        """Everything that is wanted in one association with contexts for these classes."""
        if not wanted:
            return []
        contexts = [Context(*pair) for pair in product(classes, TRANSFER_SYNTAXES)]
        pacs, tally, hashing = self._source.settings, Tally(self._source.name), Hashing()
        receiving: list[Reception] = []

        def sink_for(command: dimse.Command, context: Context) -> DataSink:
            if command.field != dimse.C_STORE_RQ:
                return Gathered()
            receiving[:] = [Reception(command, context, self._spool, hashing, tally)]
            return receiving[0]

        results: list[MoveResult] = []
        try:
            with PacsAssociation(
                pacs, self._source.receiver, [STUDY_ROOT_GET], stored=contexts, sink_for=sink_for
            ) as association:
                results.extend(self._get(association, target, receiving) for target in wanted)
        except ConnectionLost:
            results.append(MoveResult(None))
        finally:
            for reception in receiving:
                reception.close()
            hashing.close()
            self.catch_up()
        return results

    def _get(self, association: PacsAssociation, target: Target, receiving: list[Reception]) -> MoveResult:
        command: dict[int, dimse.Value] = {dimse.COMMAND_FIELD: dimse.C_GET_RQ, dimse.PRIORITY: 0}
        association.request(command, STUDY_ROOT_GET, identifier(target))
        patience = _Patience(association, self._source.settings, self._sink.study)
        while True:
            message = association.receive_message(POLL_SECONDS)
            self.catch_up()
            self._sink.raise_if_stopped()
            if receiving and receiving[0].size > self._spool.max_instance_bytes:
                raise PacsRefused(
                    f"{self._source.name} sends an instance that is larger than receiver.max_instance_gib. Look at its "
                    "log."
                )
            if message is None:
                patience.wait()
                continue
            patience.begin_anew()
            if message.command.field == dimse.C_STORE_RQ:
                reception = message.data_set
                status = reception.finish() if isinstance(reception, Reception) else dimse.CANNOT_UNDERSTAND
                association.answer(message, status)
                receiving.clear()
                patience.take_image()
                continue
            response = association.response_in(message)
            if not response.is_pending:
                return result_of(response)
            patience.take_answer()

    def _sop_classes(self) -> Mapping[str, str]:
        """The SOP class of each instance that is listed, where the PACS tells it (PS3.4 C.6.2.1.4: optional)."""
        study = self._sink.study
        told: dict[str, str] = {}
        with self._source.searching() as search:
            for series in study.expected.series:
                keys = {
                    "StudyInstanceUID": study.study_instance_uid,
                    "SeriesInstanceUID": series,
                    "SOPInstanceUID": "",
                    "SOPClassUID": "",
                }
                for answer in search(Query("IMAGE", keys)).responses:
                    if is_uid(sop_class := answer.uid(SOP_CLASS_UID)):
                        told[answer.uid(SOP_INSTANCE_UID)] = sop_class
        return told


class _Patience:
    """How long the PACS may be silent, be at one message, and answer without an image. Its functions raise PacsSilent
    where that is over.
    """

    def __init__(self, association: PacsAssociation, pacs: CGet, study: Study) -> None:
        self._association, self._pacs, self._study = association, pacs, study
        self._limit = pacs.response_timeout_seconds
        self.begin_anew()
        self.take_image()

    def begin_anew(self) -> None:
        """A message is whole."""
        self._message_came = self._heard = time.monotonic()
        self._bytes_before = self._bytes = self._association.received_bytes

    def take_image(self) -> None:
        """The message that came last is an image."""
        self._image_came = self._message_came

    def take_answer(self) -> None:
        """The message that came last only says how far the PACS is."""
        if self._message_came - self._image_came > self._limit * MAX_TIMEOUTS:
            raise self._silent("answered and sent no image", self._limit * MAX_TIMEOUTS)

    def wait(self) -> None:
        """No further message is whole."""
        now = time.monotonic()
        if self._association.received_bytes > self._bytes:  # an image that is under way
            self._bytes, self._heard = self._association.received_bytes, now
        if now - self._heard > self._limit:
            raise self._silent("neither answered nor sent an image", self._limit)
        at_it = now - self._message_came
        if at_it > self._limit + (self._bytes - self._bytes_before) / LEAST_BYTES_PER_SECOND:
            raise self._silent(f"sent less than {LEAST_BYTES_PER_SECOND} bytes a second of an image", at_it)

    def _silent(self, what: str, seconds: float) -> PacsSilent:
        return silent(self._pacs, self._study, what, seconds)


def _pieces(target: Target, series: str, instances: Sequence[str]) -> list[Target]:
    return [
        Target(target.study_instance_uid, (series,), tuple(instances[start : start + UIDS_IN_A_LIST]))
        for start in range(0, len(instances), UIDS_IN_A_LIST)
    ]

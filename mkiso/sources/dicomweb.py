"""A server that is asked by QIDO-RS and sends by WADO-RS (PS3.18 10.4, 10.6): images as a multipart stream, each
straight into the job's folder, in whatever transfer syntax it lies there.

What comes goes through the receiver's own checks, so that the proof is the same. What a cut stream has brought whole is
kept: the next attempt asks for the rest, instance by instance.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain

import httpx

from mkiso.config.settings import Receiver
from mkiso.config.sources import DicomWeb
from mkiso.config.storage import Storage
from mkiso.connections import Connections
from mkiso.dataset.elements import EXPLICIT_LITTLE, unpadded, value_so_far
from mkiso.dataset.part10 import HEAD_BYTES, MAX_META_BYTES, data_set_offset, transfer_syntax_uid_in
from mkiso.errors import DamagedInstance, PacsBusy, PacsRefused, PacsSilent
from mkiso.network import dimse
from mkiso.network.negotiation import Context
from mkiso.receiver.hashing import Hashing
from mkiso.receiver.storage_scp import LEAST_BYTES_PER_SECOND, Reception, Tally
from mkiso.sources.move_outcome import SUCCESS, WARNING, MoveResult, failure, merged
from mkiso.sources.multipart import Broken, Malformed, Multipart, boundary_of
from mkiso.sources.protocol import Search, Target
from mkiso.sources.qido import UNABLE, ask
from mkiso.sources.sink import AnsweredRetrieval, Sink
from mkiso.sources.web import Lost, asking, named, no_answers, open_client
from mkiso.study.models import Study

POLL_SECONDS = 0.05
ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'  # PS3.18 8.7.3.5.2
MAX_STRANGERS = 1000
"""Parts beyond what is expected: a stream that doesn't end is ended."""
_MEDIA_STORAGE_SOP_CLASS_UID, _MEDIA_STORAGE_SOP_INSTANCE_UID = 0x00020002, 0x00020003


class Stopped(Exception):
    """Somebody wants the end of it."""


@dataclass(frozen=True, slots=True)
class DicomWebSource:
    """mkiso.sources.protocol.Source over QIDO-RS and WADO-RS."""

    settings: DicomWeb
    receiver: Receiver
    storage: Storage
    until: float | None = None

    @property
    def name(self) -> str:
        return f"The {named(self.settings).removeprefix('the ')}"

    @property
    def hint(self) -> str:
        return "Check that the DICOMweb server may send these images, and look at its log."

    @contextmanager
    def searching(self) -> Iterator[Search]:
        with open_client(self.settings, self.until) as client:
            yield partial(ask, client, self.settings, self.until)

    @contextmanager
    def retrieving(self, sink: Sink) -> Iterator[WadoRetrieval]:
        connections = Connections()
        with open_client(self.settings, connections=connections) as client:
            yield WadoRetrieval(self, sink, client, connections)

    def failure(self, result: MoveResult, study: Study, arrived: int) -> PacsRefused | PacsBusy | None:
        # What it can't send is told by its instances.
        return None if result.status == UNABLE else failure(result, self.name, self.receiver, study, arrived)

    def check(self, limit_seconds: float, *, inside: bool = False) -> str:
        begun = time.monotonic()
        accept = "application/dicom+json"
        with (
            open_client(self.settings, limit_seconds=limit_seconds) as client,
            asking(client, self.settings, "/studies", accept, [("limit", "1")]) as answer,
        ):
            status, version = answer.status_code, answer.http_version
        if status not in (200, 204, 206):
            raise no_answers(self.settings, status)
        told = f"answers QIDO-RS in {time.monotonic() - begun:.2f} s"
        return f"{self.name} {told} by {version}" if inside else told


class WadoRetrieval(AnsweredRetrieval):
    """WADO-RS requests of one study, some at a time."""

    def __init__(self, source: DicomWebSource, sink: Sink, client: httpx.Client, connections: Connections) -> None:
        super().__init__(sink, source.storage, source.receiver)
        self._source = source
        self._settings = source.settings
        self._client = client
        self._connections = connections
        self._stop = threading.Event()

    def retrieve(self, wanted: Sequence[Target]) -> Sequence[MoveResult]:
        self._sink.wait_anew()
        paths = [_paths(target) for target in wanted]
        with ThreadPoolExecutor(self._settings.parallel, "wado") as threads:
            futures = [[threads.submit(self._request, path) for path in each] for each in paths]
            try:
                self._wait_for([future for each in futures for future in each])
            except BaseException:
                self._stop.set()
                self._connections.end()
                raise
            finally:
                for future in (future for each in futures for future in each):
                    future.cancel()
        self.catch_up()
        results = [merged([future.result() for future in each]) for each in futures]
        if wanted[0].level == "STUDY" and results[0].status == SUCCESS:
            self._sink.counted = max(self._sink.counted, results[0].completed or 0)
        return results

    def _wait_for(self, futures: Sequence[Future[MoveResult]]) -> None:
        left = set(futures)
        while left:
            done, left = wait(left, POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                future.result()
            self.catch_up()
            self._sink.raise_if_stopped()

    def _request(self, path: str) -> MoveResult:
        """One request; what was whole before it broke is kept. Raises what mkiso.sources.web.asking does."""
        if self._stop.is_set():
            return MoveResult(None)
        try:
            with asking(self._client, self._settings, path, ACCEPT) as answer:
                if answer.status_code == 204:
                    return MoveResult(SUCCESS, completed=0)
                if answer.status_code not in (200, 206):
                    return MoveResult(UNABLE, f"HTTP {answer.status_code}")
                count = self._take_parts(answer)
                return MoveResult(SUCCESS if answer.status_code == 200 else WARNING, completed=count)
        except (Lost, Broken, Stopped):
            return MoveResult(None)
        except Malformed as error:
            raise PacsRefused(f"{self._source.name} {error}. Look at its log.") from None

    def _take_parts(self, answer: httpx.Response) -> int:
        """Store each part; how many there were."""
        stream = Multipart(self._chunks(answer), boundary_of(answer.headers.get("content-type", "")))
        hashing, tally = Hashing(), Tally(self._source.name)
        most = (self._sink.study.expected.count or 0) * 2 + MAX_STRANGERS
        count = 0
        with closing(hashing):
            while (fields := stream.next_part()) is not None:
                count += 1
                if count > most:
                    raise Malformed("sends a multipart stream without end")
                if not fields.get("content-type", "application/dicom").lower().startswith("application/dicom"):
                    raise Malformed("sends a part that is no DICOM instance")
                self._take(stream.pieces(), hashing, tally)
        return count

    def _chunks(self, answer: httpx.Response) -> Iterator[bytes]:
        """As they come, at a bearable pace. Raises Stopped, PacsSilent."""
        began, size, limit = time.monotonic(), 0, self._settings.response_timeout_seconds
        for chunk in answer.iter_raw():
            if self._stop.is_set():
                raise Stopped
            size += len(chunk)
            if time.monotonic() - began > limit + size / LEAST_BYTES_PER_SECOND:
                raise PacsSilent(
                    f"{self._source.name} sent less than {LEAST_BYTES_PER_SECOND} bytes a second. Try again; if it "
                    "stays, it hangs."
                )
            yield chunk

    def _take(self, pieces: Iterator[bytes], hashing: Hashing, tally: Tally) -> None:
        """One part: a Part 10 file whose data set goes on as it comes. Raises Malformed, Broken."""
        beginning = bytearray()
        offset = None
        for piece in pieces:
            beginning += piece
            if len(beginning) >= HEAD_BYTES:
                offset = _offset(bytes(beginning[:HEAD_BYTES]))
                if len(beginning) > offset:
                    break
        if offset is None or len(beginning) <= offset:
            raise Malformed("sends a part that is no DICOM file")
        command, context = _named_in(bytes(beginning[HEAD_BYTES:offset]))
        reception = Reception(command, context, self._spool, hashing, tally)
        size, most = 0, self._spool.max_instance_bytes
        with closing(reception):
            for piece in chain([bytes(beginning[offset:])], pieces):
                size += len(piece)
                if size > most:
                    raise Malformed("sends an instance that is larger than receiver.max_instance_gib")
                reception.write(memoryview(piece))
            reception.finish()


def _paths(target: Target) -> list[str]:
    study = f"/studies/{target.study_instance_uid}"
    if target.instances:
        [series] = target.series
        return [f"{study}/series/{series}/instances/{uid}" for uid in target.instances]
    return [f"{study}/series/{series}" for series in target.series] or [study]


def _offset(head: bytes) -> int:
    try:
        return data_set_offset(head, HEAD_BYTES + MAX_META_BYTES)
    except DamagedInstance:
        raise Malformed("sends a part that is no DICOM file") from None


def _named_in(meta: bytes) -> tuple[dimse.Command, Context]:
    """What the File Meta Information says, as a C-STORE request and its context would. Raises Malformed."""
    try:
        syntax = transfer_syntax_uid_in(meta)
        uids = [
            unpadded(value_so_far(meta, EXPLICIT_LITTLE, tag) or b"")
            for tag in (_MEDIA_STORAGE_SOP_CLASS_UID, _MEDIA_STORAGE_SOP_INSTANCE_UID)
        ]
    except DamagedInstance:
        raise Malformed("sends a part whose meta information can't be read") from None
    values = {
        dimse.AFFECTED_SOP_CLASS_UID: uids[0].encode("ascii", "replace"),
        dimse.AFFECTED_SOP_INSTANCE_UID: uids[1].encode("ascii", "replace"),
    }
    return dimse.Command(dimse.C_STORE_RQ, 0, True, values), Context(uids[0], syntax)

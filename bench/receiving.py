"""Rows of the receiver: storescu and Orthanc send whole studies to mkiso's and to dcmtk's storescp."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from pydicom import dcmread

from bench.counting_receiver import CountingReceiver
from bench.laboratory import Laboratory, Receiver
from bench.processes import Watch
from bench.samples import Row, Sample, beside, faster
from bench.studies import StudyFiles
from mkiso.network.pdu import p_data_pdus
from mkiso.receiver.client import Expectation
from mkiso.receiver.negotiation import OPERATIONS
from peers.corpus import dataset_bytes
from peers.dcmtk import OWN, write_profiles
from peers.link import far_away
from peers.raw_peer import RawPeer, command, p_data, window
from peers.storescp import EVERYTHING, Storescp

Send = Callable[[Watch, StudyFiles, int, str], None]
STORESCP = "STORESCP"
AWAY_SECONDS = 0.01  # another site's PACS, one way
PDU_BYTES = 131_066
PARTS = {"CT1000": "CTPART", "MR2000": "MRPART"}


def by_storescu(laboratory: Laboratory) -> Send:
    """storescu with TCP_NODELAY=1 and dcmtk's largest PDU."""

    def send(watch: Watch, study: StudyFiles, port: int, called: str) -> None:
        profile = study.files[0].parent / "profile.cfg"
        if not profile.exists():
            write_profiles(profile, study.files[:1])
        options: list[str | Path] = [
            "-aec",
            called,
            "-xf",
            profile,
            OWN,
            "--max-send-pdu",
            "131072",
            "+sd",
            "+sp",
            "*.dcm",
        ]
        watch.run(
            ["storescu", *options, "127.0.0.1", str(port), study.files[0].parent], environment={"TCP_NODELAY": "1"}
        )

    return send


def by_orthanc(laboratory: Laboratory) -> Send:
    """Orthanc, told by movescu to send."""

    def send(watch: Watch, study: StudyFiles, port: int, called: str) -> None:
        laboratory.orthanc.know(called, "127.0.0.1", port)
        watch.run(move_command(laboratory, study, called))

    return send


def move_command(laboratory: Laboratory, study: StudyFiles, destination: str) -> list[str]:
    pacs = laboratory.orthanc
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.study_instance_uid}"]
    return [
        "movescu",
        "-S",
        "-aet",
        STORESCP,
        "-aec",
        pacs.ae_title,
        "-aem",
        destination,
        *keys,
        "127.0.0.1",
        str(pacs.port),
    ]


@dataclass
class Job:
    """What a job does while images come: it hears of each. `done` is when it heard of the last."""

    wanted: int
    heard: int = 0
    done: float = 0.0
    all_there: threading.Event = field(default_factory=threading.Event)

    def listen(self, expectation: Expectation) -> None:
        while self.heard < self.wanted and not self.all_there.is_set():
            if expectation.next_arrival(1) is not None:
                self.heard += 1
        self.done = time.perf_counter()
        self.all_there.set()


def to_counting(laboratory: Laboratory, send: Send, study: StudyFiles, sample: Sample) -> None:
    """One run with a receiver that only counts."""
    with laboratory.scratch("counting") as folder, CountingReceiver(folder) as receiver:
        with Watch(receiver.pid) as watch:
            send(watch, study, receiver.port, STORESCP)
        if receiver.stored != len(study.files):
            raise RuntimeError(f"{receiver.stored} of {len(study.files)} instances were counted")
        sample.add(watch.seconds, watch.peak_mb)


@contextmanager
def expecting(receiver: Receiver, study: StudyFiles) -> Iterator[Job]:
    """A job that expects this study."""
    folder = receiver.data_dir / "jobs" / "1" / "instances"
    folder.mkdir(parents=True, mode=0o700)
    with Expectation(receiver.data_dir / "receiver.sock", study.study_instance_uid, folder) as expectation:
        job = Job(len(study.files))
        thread = threading.Thread(target=job.listen, args=(expectation,))
        thread.start()
        try:
            yield job
        finally:
            job.all_there.set()
            thread.join()


def to_mkiso(laboratory: Laboratory, send: Send, study: StudyFiles, sample: Sample) -> None:
    """One run; its end is when every file is in the job's folder and the job knows."""
    with laboratory.scratch("receiver") as folder, Receiver(folder) as receiver, expecting(receiver, study) as job:
        began = time.perf_counter()
        with Watch(receiver.pid) as watch:
            send(watch, study, receiver.port, "CDRECORD")
            if not job.all_there.wait(10):
                raise RuntimeError(f"{job.heard} of {job.wanted} instances arrived")
        sample.add(job.done - began, watch.peak_mb)


def to_storescp(
    laboratory: Laboratory, send: Send, study: StudyFiles, sample: Sample, *, nodelay: bool, options: list[str]
) -> None:
    """One run with dcmtk's receiver."""
    with (
        laboratory.scratch("storescp") as folder,
        Storescp(folder, ae_title=STORESCP, nodelay=nodelay, options=options) as storescp,
    ):
        with Watch(storescp.pid) as watch:
            send(watch, study, storescp.port, STORESCP)
        if len(storescp.files()) != len(study.files):
            raise RuntimeError(f"storescp has {len(storescp.files())} of {len(study.files)} instances")
        sample.add(watch.seconds, watch.peak_mb)


def storescu_rows(laboratory: Laboratory) -> Iterator[Row]:
    """storescu to mkiso, to storescp with TCP_NODELAY=1, and to storescp with all that makes it faster besides."""
    for name, modality, least in [("CT1000", "ct", 1.3), ("MR2000", "mr", 1.6)]:
        study, send = laboratory.studies.get(name), by_storescu(laboratory)
        ours, nodelay, tuned = Sample(), Sample(), Sample()
        for _ in range(laboratory.runs + 1):
            to_mkiso(laboratory, send, study, ours)
            to_storescp(laboratory, send, study, nodelay, nodelay=True, options=[])
            to_storescp(laboratory, send, study, tuned, nodelay=True, options=list(EVERYTHING))
        for sample in (ours, nodelay, tuned):
            del sample.values[0]
        case = f"storescu → receiver, {modality.upper()}; TCP_NODELAY=1 at both ends"
        yield faster(f"storescu-{modality}", case, ours, nodelay, least)
        yield beside(f"storescu-tuned-{modality}", f"{case}, and storescp's largest PDU and bit by bit", ours, tuned)


def move_rows(laboratory: Laboratory) -> Iterator[Row]:
    """Orthanc to mkiso, to storescp as it comes, with TCP_NODELAY=1, and with all that makes it faster besides."""
    for name, modality, least, least_nodelay in [("CT1000", "ct", 25, 6), ("MR2000", "mr", 40, 15)]:
        study, send = laboratory.stored(name), by_orthanc(laboratory)
        part, factor, remark = fraction(laboratory, name)
        ours, plain, nodelay, tuned = Sample(), Sample(), Sample(), Sample()
        for _ in range(laboratory.runs):
            to_mkiso(laboratory, send, study, ours)
            to_storescp(laboratory, send, part, plain, nodelay=False, options=[])
            to_storescp(laboratory, send, study, nodelay, nodelay=True, options=[])
            to_storescp(laboratory, send, study, tuned, nodelay=True, options=list(EVERYTHING))
        laboratory.moved_as_it_comes[name] = plain
        case = f"Orthanc C-MOVE → receiver, {modality.upper()}; against storescp"
        yield faster(f"move-{modality}", f"{case} as it comes", ours, plain.scaled(factor), least, remark)
        yield faster(f"move-nodelay-{modality}", f"{case} with TCP_NODELAY=1", ours, nodelay, least_nodelay)
        yield beside(
            f"move-tuned-{modality}", f"{case} with TCP_NODELAY=1, its largest PDU and bit by bit", ours, tuned
        )


def window_rows(laboratory: Laboratory) -> Iterator[Row]:
    """One sender, far away: with the window that it is given, and waiting for each answer."""
    study = laboratory.studies.get("MRPART")
    ahead, waiting = Sample(), Sample()
    for _ in range(laboratory.runs):
        to_mkiso(laboratory, from_far_away(OPERATIONS), study, ahead)
        to_mkiso(laboratory, from_far_away(1), study, waiting)
    case = f"{len(study.files)} MR → receiver, {2000 * AWAY_SECONDS:g} ms there and back"
    yield beside("window", f"{case}; {OPERATIONS} operations at once, and one", ahead, waiting)


def from_far_away(operations: int) -> Send:
    """A sender with a window of so many operations."""

    def send(watch: Watch, study: StudyFiles, port: int, called: str) -> None:
        first = dcmread(study.files[0], stop_before_pixels=True)
        contexts = {str(first.SOPClassUID): [str(first.file_meta.TransferSyntaxUID)]}
        with far_away(port, AWAY_SECONDS) as near, RawPeer(near) as peer:
            peer.associate(contexts, [window(operations, 1)])
            for number, file in enumerate(study.files):
                if number >= operations:
                    peer.answer()
                uid = str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
                head = command(1, sop_class=first.SOPClassUID, sop_instance=uid, message_id=number + 1)
                parts = p_data_pdus(1, False, BytesIO(dataset_bytes(file)), PDU_BYTES)
                peer.send(b"".join((p_data(head, control=3), *parts)))
            for _ in study.files[-operations:]:
                peer.answer()
            peer.release()

    return send


def fraction(laboratory: Laboratory, name: str) -> tuple[StudyFiles, float, str]:
    """What storescp as it comes gets, what its time is multiplied by, and how the table says so."""
    if laboratory.full:
        return laboratory.stored(name), 1.0, ""
    part, whole = laboratory.stored(PARTS[name]), laboratory.studies.get(name)
    factor = len(whole.files) / len(part.files)
    return part, factor, f"reference: {len(part.files)} instances, times {factor:g}"

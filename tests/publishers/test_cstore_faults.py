"""A relay to a publisher that misbehaves: never sent, the reason in words, and a rerun that does right."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AllStoragePresentationContexts

import mkiso.publishers.cstore as cstore
from mkiso.errors import PrintUncertain, ProofFailed, PublisherRefused, PublisherUnavailable
from mkiso.media.explicit import not_convertible
from mkiso.publishers import OrderBook, Receipt, Watch, publisher_of
from mkiso.publishers.transcode import Transcoder
from mkiso.storage.files import sha256_of
from mkiso.study.models import Arrival, Patient
from peers.patience import LONG, until
from peers.ports import free_port
from peers.storage_publisher import Faults, StoragePublisher
from peers.storescp import Storescp
from tests.publishers.orders import give, order_of, settings_of, study

pytestmark = [pytest.mark.peer, pytest.mark.usefixtures("forked_decoders")]

CT = {"ct": 3}
JOB = "0b0a1b2c-0000-4000-8000-000000000001"
OTHER_JOB = "0b0a1b2c-0000-4000-8000-000000000002"
THIRD_JOB = "0b0a1b2c-0000-4000-8000-000000000003"
LISTENING = free_port()


def send(
    folder: Path, port: int, instances: tuple[Arrival, ...], *, confirm: bool = False, watch: Watch | None = None,
    job_id: str = JOB, number: str = "A1001", **publisher: Any,
) -> Receipt:  # fmt: skip
    settings = settings_of(folder, port=port, **publisher)
    order = order_of(instances, job_id, accession_numbers=(number,))
    return give(
        publisher_of("robot", settings), order, settings.storage.orders_dir, watch or Watch(), confirm_reprint=confirm
    )


def test_two_of_three_accepted_is_a_failure_and_a_rerun_waits_for_somebody_to_look(tmp_path: Path) -> None:
    instances = study(tmp_path, CT)
    with StoragePublisher(tmp_path / "robot", faults=Faults(refuse_after=2)) as robot:
        with pytest.raises(
            PublisherRefused, match=r"after it had accepted 2 of 3: C000 Cannot Understand \(cannot make this\)"
        ):
            send(tmp_path, robot.port, instances)
        robot.faults.refuse_after = None
        with pytest.raises(PrintUncertain, match="confirm_reprint"):
            send(tmp_path, robot.port, instances)
        with pytest.raises(PrintUncertain, match="confirm_reprint"):
            send(tmp_path, robot.port, instances, job_id=OTHER_JOB)
        assert [len(disc) for disc in robot.discs()] == [2]
        assert (
            robot.whole_discs() == 0
        )  # the association was aborted, which tells the publisher that this is no whole job
        assert send(tmp_path, robot.port, instances, confirm=True, job_id=THIRD_JOB).instances == 3
        assert [len(disc) for disc in robot.discs()] == [2, 3]
        assert send(tmp_path, robot.port, instances, job_id=THIRD_JOB).instances == 3  # it rests: the job has its disc
        assert [len(disc) for disc in robot.discs()] == [2, 3]


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("place", ["pixels", "preamble"])
def test_an_instance_that_changes_after_its_proof_is_never_sent_whole(
    tmp_path: Path, number: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances = study(tmp_path, CT)
    proving = cstore.prove

    def proves_and_flips(proved: tuple[Arrival, ...]) -> None:
        proving(proved)
        if len(proved) == 3:
            file = instances[number].path
            content = bytearray(file.read_bytes())
            content[-1 if place == "pixels" else 5] ^= 1
            file.write_bytes(content)

    monkeypatch.setattr(cstore, "prove", proves_and_flips)
    with StoragePublisher(tmp_path / "robot") as robot:
        with pytest.raises(ProofFailed, match="throw that disc away" if number else "Nothing was printed") as failed:
            send(tmp_path, robot.port, instances)
        assert failed.value.details == {"accepted": number}
        assert [len(disc) for disc in robot.discs()] == ([number] if number else [])
        assert robot.whole_discs() == 0
        monkeypatch.undo()
        again = study(tmp_path / "again", CT)
        if number:  # somebody has to look
            with pytest.raises(PrintUncertain, match="confirm_reprint"):
                send(tmp_path, robot.port, again)
        job_id = OTHER_JOB if number else JOB
        assert send(tmp_path, robot.port, again, confirm=bool(number), job_id=job_id).instances == 3


def many_classes(folder: Path) -> tuple[Arrival, ...]:
    """Of more SOP classes than one association's presentation contexts have room for."""
    [ct] = study(folder, {"ct": 1})
    classes = [context.abstract_syntax for context in AllStoragePresentationContexts[:130]]
    return tuple(
        replace(ct, sop_class_uid=str(sop_class), sop_instance_uid=f"1.2.826.{number}")
        for number, sop_class in enumerate(classes)
    )


def test_what_was_made_and_proved_is_sent_though_its_original_changes_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second association, to a publisher that takes Implicit VR alone."""
    instances = many_classes(tmp_path)
    storing = cstore.store

    def stores_and_damages(*arguments: Any) -> Any:
        instances[0].path.write_bytes(b"damaged")
        return storing(*arguments)

    monkeypatch.setattr(cstore, "store", stores_and_damages)
    with StoragePublisher(tmp_path / "robot", faults=Faults(transfer_syntaxes=[ImplicitVRLittleEndian])) as robot:
        assert send(tmp_path, robot.port, instances).instances == len(instances)


@contextmanager
def failing_late(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Arrival], Exception]
) -> Iterator[StoragePublisher]:
    """A publisher that takes Implicit VR alone; what would be made for a second association fails."""
    transcoding = Transcoder.transcoded
    with StoragePublisher(folder, faults=Faults(transfer_syntaxes=[ImplicitVRLittleEndian])) as robot:

        def fails_late(self: Transcoder, arrival: Arrival, target: str) -> Arrival:
            if robot.files():
                raise fault(arrival)
            return transcoding(self, arrival, target)

        monkeypatch.setattr(Transcoder, "transcoded", fails_late)
        yield robot


def test_what_fails_its_proof_before_a_second_association_leaves_somebody_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances = many_classes(tmp_path)
    with failing_late(tmp_path / "robot", monkeypatch, lambda _: ProofFailed("An image isn't what it was.")) as robot:
        with pytest.raises(ProofFailed, match="disc of the 128 before it: throw that disc away"):
            send(tmp_path, robot.port, instances)
        monkeypatch.undo()
        with pytest.raises(PrintUncertain, match="confirm_reprint"):
            send(tmp_path, robot.port, instances)


def test_what_cant_be_made_before_a_second_association_is_said_with_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances = many_classes(tmp_path)
    with (
        failing_late(tmp_path / "robot", monkeypatch, lambda arrival: not_convertible(arrival, "Read-only.")) as robot,
        pytest.raises(PublisherRefused, match="it has accepted 128 of 130: throw a disc of these away") as raised,
    ):
        send(tmp_path, robot.port, instances)
    assert "nothing was sent" not in raised.value.words


def test_the_first_refused_leaves_nothing_to_look_for(tmp_path: Path) -> None:
    instances = study(tmp_path, CT)
    with StoragePublisher(tmp_path / "robot", faults=Faults(refuse_after=0, refuse_with=0x0122)) as robot:
        with pytest.raises(PublisherRefused, match="0122 Refused: SOP Class Not Supported"):
            send(tmp_path, robot.port, instances)
        robot.faults.refuse_after = None
        assert send(tmp_path, robot.port, instances).proves == "queued"
        assert [len(disc) for disc in robot.discs()] == [3]


@pytest.mark.parametrize("after", [0, 2])
def test_an_abort_is_an_unknown_outcome(tmp_path: Path, after: int) -> None:
    instances = study(tmp_path, CT)
    with StoragePublisher(tmp_path / "robot", faults=Faults(abort_after=after)) as robot:
        with pytest.raises(PrintUncertain, match=f"after it had accepted {after} of 3"):
            send(tmp_path, robot.port, instances)
        robot.faults.abort_after = None
        with pytest.raises(PrintUncertain, match="confirm_reprint"):
            send(tmp_path, robot.port, instances)
        assert send(tmp_path, robot.port, instances, confirm=True, job_id=THIRD_JOB).instances == 3


def test_out_of_resources_is_tried_again_with_the_same_instance(tmp_path: Path) -> None:
    instances = study(tmp_path, CT)
    with StoragePublisher(tmp_path / "robot", faults=Faults(busy_times=1)) as robot:
        assert send(tmp_path, robot.port, instances).instances == 3
        assert [len(disc) for disc in robot.discs()] == [3]


def test_a_full_disk_at_the_publisher(tmp_path: Path) -> None:
    instances = study(tmp_path, CT)
    with StoragePublisher(tmp_path / "robot", faults=Faults(disk_full_after=0)) as robot:
        with pytest.raises(PublisherUnavailable, match="A700 Refused: Out of Resources"):
            send(tmp_path, robot.port, instances)
        robot.faults.disk_full_after = 2
        with pytest.raises(PublisherRefused, match=r"accepted 2 of 3.*disk full.*throw that disc away"):
            send(tmp_path, robot.port, instances)


def test_warnings_count_and_are_named(tmp_path: Path) -> None:
    instances = study(tmp_path, CT)
    with StoragePublisher(tmp_path / "robot", faults=Faults(warn_with=0xB007)) as robot:
        receipt = send(tmp_path, robot.port, instances)
    assert receipt.instances == 3
    assert all("B007 Data Set Does Not Match SOP Class" in warning for warning in receipt.warnings)
    assert len(receipt.warnings) == 3


def test_a_syntax_that_is_not_taken_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    instances = study(tmp_path)
    with StoragePublisher(tmp_path / "robot", faults=Faults(transfer_syntaxes=[ExplicitVRLittleEndian])) as robot:
        with pytest.raises(
            PublisherRefused, match=r"X-Ray Angiographic Image Storage in JPEG 2000.*\(1\); nothing was sent"
        ):
            send(tmp_path, robot.port, instances)
        assert robot.discs() == []
        with pytest.raises(PublisherRefused, match="nothing was sent"):  # a rerun is free, and ends the same
            send(tmp_path, robot.port, instances)


def test_transcoding_happens_only_where_it_is_asked_for(tmp_path: Path) -> None:
    instances = study(tmp_path, {"ct": 1, "rle": 1})
    with StoragePublisher(tmp_path / "robot", faults=Faults(transfer_syntaxes=[ExplicitVRLittleEndian])) as robot:
        with pytest.raises(PublisherRefused, match="RLE"):
            send(tmp_path, robot.port, instances)
        assert send(tmp_path, robot.port, instances, transcode=True).instances == 2
        sent = {file.stem: dcmread(file, force=True) for file in robot.files()}
    original = dcmread(instances[1].path)
    assert (
        len(sent[original.SOPInstanceUID].PixelData) == original.Rows * original.Columns * original.BitsAllocated // 8
    )
    assert not list(instances[0].path.parent.parent.glob("transcoded-*"))


def test_what_can_not_be_decoded_is_named(tmp_path: Path) -> None:
    broken = study(tmp_path, {"rle": 1})
    content = broken[0].path.read_bytes()
    broken[0].path.write_bytes(content[: len(content) // 2])
    cut = (replace(broken[0], sha256=sha256_of(broken[0].path)),)
    with StoragePublisher(tmp_path / "robot", faults=Faults(transfer_syntaxes=[ExplicitVRLittleEndian])) as robot:
        with pytest.raises(PublisherRefused, match="RLE Lossless, and it can't be made Explicit VR Little Endian here"):
            send(tmp_path, robot.port, cut, transcode=True)
        assert robot.discs() == []


@pytest.mark.parametrize(
    ("faults", "fails", "has_left"),
    [
        (Faults(), None, True),
        (Faults(abort_after=1), PrintUncertain, True),
        (Faults(refuse_after=0, refuse_with=0x0122), PublisherRefused, True),
        (Faults(transfer_syntaxes=[ImplicitVRLittleEndian]), PublisherRefused, False),
    ],
)
def test_it_is_told_before_anything_of_a_patient_leaves(
    tmp_path: Path, faults: Faults, fails: type[Exception] | None, has_left: bool
) -> None:
    left: list[int] = []
    with StoragePublisher(tmp_path / "robot", faults=faults) as robot:
        watch = Watch(leaves=lambda: left.append(len(robot.files())))
        with pytest.raises(fails) if fails else nullcontext():
            send(tmp_path, robot.port, study(tmp_path, {"jpeg_2000": 2}), watch=watch)
    assert left == [0] * has_left


def test_a_publisher_that_is_down(tmp_path: Path) -> None:
    instances = study(tmp_path, CT)
    port = free_port()
    with pytest.raises(PublisherUnavailable, match=r"can't be reached.*nothing was sent"):
        send(tmp_path, port, instances)
    with pytest.raises(PublisherUnavailable, match="can't be reached"):
        publisher_of("robot", settings_of(tmp_path, port=port)).check()
    with StoragePublisher(tmp_path / "robot", port=port) as robot:
        assert send(tmp_path, robot.port, instances).instances == 3


def test_it_comes_up_while_it_is_tried(tmp_path: Path) -> None:
    instances = study(tmp_path, CT)
    port = free_port()
    result: list[Receipt] = []
    thread = threading.Thread(target=lambda: result.append(send(tmp_path, port, instances, attempts=6)))
    thread.start()
    time.sleep(0.3)
    with StoragePublisher(tmp_path / "robot", port=port):
        thread.join(LONG)
    assert result[0].instances == 3


def test_a_rejected_association_names_what_to_do(tmp_path: Path) -> None:
    instances = study(tmp_path, CT)
    with Storescp(tmp_path / "scp", options=["--refuse"]) as peer:
        with pytest.raises(PublisherUnavailable, match=r"rejects the association.*nothing was sent"):
            send(tmp_path, peer.port, instances)
        with pytest.raises(PublisherUnavailable, match="rejects the association"):
            publisher_of("robot", settings_of(tmp_path, port=peer.port)).check()


@pytest.mark.parametrize("options", [["--abort-during"], ["--abort-after"]])
def test_storescp_aborts(tmp_path: Path, options: list[str]) -> None:
    instances = study(tmp_path, CT)
    with (
        Storescp(tmp_path / "scp", options=["+xa", *options]) as peer,
        pytest.raises(PrintUncertain, match=r"aborted|connection"),
    ):
        send(tmp_path, peer.port, instances)


def test_a_silent_publisher_is_an_unknown_outcome_within_the_limit(tmp_path: Path) -> None:
    instances = study(tmp_path, CT)
    with StoragePublisher(tmp_path / "robot", faults=Faults(answer_after_seconds=20)) as robot:
        start = time.monotonic()
        with pytest.raises(PrintUncertain, match="didn't answer in time"):
            send(tmp_path, robot.port, instances, response_timeout_seconds=5)
        assert time.monotonic() - start < LONG


def test_a_file_that_changed_is_not_sent(tmp_path: Path) -> None:
    instances = study(tmp_path, CT)
    content = bytearray(instances[2].path.read_bytes())
    content[-1] ^= 1
    instances[2].path.write_bytes(content)
    with StoragePublisher(tmp_path / "robot") as robot:
        with pytest.raises(ProofFailed):
            send(tmp_path, robot.port, instances)
        assert robot.discs() == []


def test_the_same_patient_comes_again_after_the_quiet_time_only(tmp_path: Path) -> None:
    instances = study(tmp_path, CT)
    with StoragePublisher(tmp_path / "robot") as robot:
        send(tmp_path, robot.port, instances, settle_seconds=1.5)
        start = time.monotonic()
        receipt = send(tmp_path, robot.port, instances, settle_seconds=1.5, job_id=OTHER_JOB)
        assert time.monotonic() - start > 1.2
        assert receipt.minutes_since_last is not None and 0 <= receipt.minutes_since_last < LONG
        assert [len(disc) for disc in robot.discs()] == [3, 3]


def test_jobs_to_one_publisher_come_one_after_another(tmp_path: Path) -> None:
    instances = study(tmp_path, CT)
    with StoragePublisher(tmp_path / "robot", faults=Faults(answer_after_seconds=0.1)) as robot:
        jobs = [f"0b0a1b2c-0000-4000-8000-00000000001{number}" for number in range(3)]
        threads = [
            threading.Thread(
                target=send, args=(tmp_path, robot.port, instances), kwargs={"job_id": job, "number": job[-1]}
            )
            for job in jobs
        ]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - start > 0.85  # nine instances of 0.1 s each
        assert [len(disc) for disc in robot.discs()] == [3, 3, 3]


def test_a_job_that_waits_can_be_stopped(tmp_path: Path) -> None:
    instances = study(tmp_path, CT)
    watch = Watch()
    with StoragePublisher(tmp_path / "robot") as robot:
        send(tmp_path, robot.port, instances)
        threading.Timer(0.2, watch.stop.set).start()
        with pytest.raises(PublisherUnavailable, match="stopped"):
            send(tmp_path, robot.port, instances, settle_seconds=60, job_id=OTHER_JOB, watch=watch)


@pytest.mark.parametrize("way", ["same", "new"])
def test_storage_commitment_is_awaited(tmp_path: Path, way: Literal["same", "new"]) -> None:
    instances = study(tmp_path, CT)
    faults = Faults(commitment=way, report_to=("127.0.0.1", LISTENING) if way == "new" else None)
    with StoragePublisher(tmp_path / "robot", faults=faults) as robot:
        port = LISTENING if way == "new" else None
        assert send(tmp_path, robot.port, instances, storage_commitment=True, commitment_port=port).instances == 3


@pytest.mark.parametrize(
    ("way", "error", "words"),
    [
        ("missing", PublisherRefused, "commits itself to only 2"),
        ("silent", PrintUncertain, "sent no storage commitment"),
        ("", PrintUncertain, "gives no association for storage commitment|storage commitment"),
    ],
)
def test_a_commitment_that_does_not_come_is_not_sent(
    tmp_path: Path, way: Literal["missing", "silent", ""], error: type[Exception], words: str
) -> None:
    instances = study(tmp_path, CT)
    with StoragePublisher(tmp_path / "robot", faults=Faults(commitment=way)) as robot:
        with pytest.raises(error, match=words):
            send(tmp_path, robot.port, instances, storage_commitment=True, silent_minutes=0.02)
        with pytest.raises(PrintUncertain, match="confirm_reprint"):
            send(tmp_path, robot.port, instances, storage_commitment=True, silent_minutes=0.02)


def test_who_waits_for_a_commitment_keeps_only_its_own_patient_waiting(tmp_path: Path) -> None:
    words: dict[str, list[str]] = {"one": [], "other": [], "same": []}
    stop = threading.Event()
    settings = settings_of(tmp_path)

    def ordered(name: str, patient_id: str) -> threading.Thread:
        watch = Watch(stop, lambda told, *_: words[name].append(told))
        order = replace(
            order_of(study(tmp_path / name, CT, name), f"{name} job", accession_numbers=(name,)),
            patient=Patient(patient_id),
        )
        robot_settings = settings_of(tmp_path, port=robot.port, storage_commitment=True)

        def run() -> None:
            with suppress(PrintUncertain, PublisherUnavailable):
                give(publisher_of("robot", robot_settings), order, settings.storage.orders_dir, watch)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with StoragePublisher(tmp_path / "robot", faults=Faults(commitment="silent")) as robot:
        threads = [ordered("one", "HN-1")]
        try:
            until(lambda: robot.whole_discs() == 1, LONG)
            threads.append(ordered("other", "HN-2"))
            until(lambda: robot.whole_discs() == 2, LONG)
            threads.append(ordered("same", "HN-1"))
            until(lambda: "waiting for another print (at robot)" in words["same"], LONG)
            assert threads[0].is_alive() and [len(disc) for disc in robot.discs() if disc] == [3, 3]
        finally:
            stop.set()
            for thread in threads:
                thread.join(LONG)
    [entry] = OrderBook.of(settings.storage.orders_dir, ["one"]).pages()[0][1:]
    assert entry.state == "uncertain"
    assert [entry.state for entry in OrderBook.of(settings.storage.orders_dir, ["same"]).pages()[0]] == ["asked"]


def test_commitments_at_one_port_come_one_after_another(tmp_path: Path) -> None:
    faults = Faults(commitment="new", report_to=("127.0.0.1", LISTENING))
    with StoragePublisher(tmp_path / "robot", faults=faults) as robot, ThreadPoolExecutor() as threads:
        settings = settings_of(tmp_path, port=robot.port, storage_commitment=True, commitment_port=LISTENING)
        orders = [
            replace(
                order_of(study(tmp_path / name, CT, name), f"{name} job", accession_numbers=(name,)),
                patient=Patient(f"HN-{name}"),
            )
            for name in ("1", "2", "3")
        ]
        given = [
            threads.submit(give, publisher_of("robot", settings), order, settings.storage.orders_dir, Watch())
            for order in orders
        ]
        assert [each.result(LONG).instances for each in given] == [3, 3, 3]

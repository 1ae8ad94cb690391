"""Senders that know nothing of mkiso: storescu, pynetdicom and Orthanc, in plain and over TLS; what arrives is what
they had, byte by byte.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import threading
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context

from mkiso.config.settings import Settings
from mkiso.dataset.header import read_header
from mkiso.demo.steady import steady
from mkiso.errors import ConfigurationError, ReceiverUnavailable
from mkiso.receiver.client import receiver_status
from mkiso.receiver.server import run
from mkiso.storage.spare_files import LOOK_SECONDS, clear_away
from mkiso.study.models import Arrival
from peers.certificates import write_certificates
from peers.corpus import EVERY_KIND, THAI, dataset_bytes, make_ct_series, make_study
from peers.orthanc import Orthanc
from peers.patience import LONG, until
from peers.raw_peer import CT, RawPeer, command, data_set, p_data
from peers.storescu import store
from tests.receiver.conftest import Running, Start, eventually

pytestmark = pytest.mark.peer


def study_of(file: Path) -> str:
    return str(dcmread(file, stop_before_pixels=True).StudyInstanceUID)


def arrivals(receiver: Running, files: list[Path], send: object) -> dict[str, Arrival]:
    """What the receiver tells while `send` sends; every claim about it checked."""
    with receiver.expect(
        study_of(files[0]), frozenset(str(dcmread(file).SOPInstanceUID) for file in files)
    ) as expectation:
        assert callable(send)
        send()
        told = [expectation.next_arrival(LONG) for _ in files]
        assert expectation.next_arrival(0.1) is None
    found = {arrival.sop_instance_uid: arrival for arrival in told if arrival}
    for arrival in found.values():
        content = arrival.path.read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (arrival.size, arrival.sha256)
        assert content[:132] == bytes(128) + b"DICM"
        meta = dcmread(arrival.path).file_meta
        assert (meta.MediaStorageSOPInstanceUID, meta.MediaStorageSOPClassUID) == (
            arrival.sop_instance_uid,
            arrival.sop_class_uid,
        )
        assert meta.TransferSyntaxUID == arrival.transfer_syntax_uid
        assert read_header(arrival.path).StudyInstanceUID == arrival.study_instance_uid
    assert len(found) == len(files)
    return found


def as_sent(file: Path) -> tuple[str, bytes]:
    return str(dcmread(file, stop_before_pixels=True).file_meta.TransferSyntaxUID), dataset_bytes(file)


def as_stored(arrival: Arrival) -> tuple[str, bytes]:
    return arrival.transfer_syntax_uid, dataset_bytes(arrival.path)


def test_orthanc_sends_every_kind_and_the_bytes_stay_the_same(receiver: Running, tmp_path: Path) -> None:
    files = make_study(tmp_path / "files", "A1", kinds=EVERY_KIND, patient=THAI)
    with Orthanc(tmp_path / "orthanc", destinations={"CDRECORD": ("127.0.0.1", receiver.port)}) as orthanc:
        orthanc.store(files)
        move = ["movescu", "-S", "-aec", "ORTHANC", "-aem", "CDRECORD", "-k", "QueryRetrieveLevel=STUDY"]
        found = arrivals(
            receiver,
            files,
            lambda: subprocess.run(
                [*move, "-k", f"StudyInstanceUID={study_of(files[0])}", "127.0.0.1", str(orthanc.port)],
                check=True,
                timeout=LONG,
            ),
        )
        orthanc.http.close()
    for file in files:
        assert as_stored(found[str(dcmread(file).SOPInstanceUID)]) == as_sent(file)


def test_storescu_sends_every_kind(receiver: Running, tmp_path: Path) -> None:
    files = make_study(tmp_path / "files", "A1", kinds=EVERY_KIND)

    def send() -> None:
        sent = store(receiver.port, files)
        assert sent.returncode == 0, sent.stderr

    found = arrivals(receiver, files, send)
    for file in files:
        whole, arrival = dcmread(file), found[str(dcmread(file).SOPInstanceUID)]
        assert arrival.transfer_syntax_uid == whole.file_meta.TransferSyntaxUID
        if "PixelData" in whole:
            assert dcmread(arrival.path).PixelData == whole.PixelData


def test_files_of_a_job_before_are_filled_anew_and_hold_nothing_of_it(receiver: Running, tmp_path: Path) -> None:
    large, small = (
        make_ct_series(tmp_path / "large", "A1", 6, size=256),
        make_ct_series(tmp_path / "small", "A2", 8, size=64),
    )
    of_large = arrivals(receiver, large, lambda: store(receiver.port, large))
    inodes = {arrival.path.stat().st_ino for arrival in of_large.values()}
    clear_away(receiver.folder(), receiver.settings.storage.spares_dir)
    time.sleep(LOOK_SECONDS)
    of_small = arrivals(receiver, small, lambda: store(receiver.port, small))
    assert inodes < {arrival.path.stat().st_ino for arrival in of_small.values()}
    for file in small:
        assert as_stored(of_small[str(dcmread(file).SOPInstanceUID)]) == as_sent(file)
    assert not list(receiver.settings.storage.spares_dir.iterdir())
    assert not list(receiver.settings.storage.incoming_dir.iterdir())


@pytest.mark.parametrize(
    ("options", "syntax"),
    [
        (["-xe"], ExplicitVRLittleEndian),
        (["-xb"], "1.2.840.10008.1.2.2"),
        (["-xi"], ImplicitVRLittleEndian),
        (["-xd"], "1.2.840.10008.1.2.1.99"),
    ],
)
@pytest.mark.parametrize(
    "more", [[], ["--max-pdu", "4096"], ["--max-send-pdu", "5000"], ["-usr", "somebody"], ["-R"]], ids=str
)
def test_storescu_with_its_options(
    receiver: Running, tmp_path: Path, options: list[str], syntax: str, more: list[str]
) -> None:
    files = make_ct_series(tmp_path / "files", "A1", 2, size=128)
    line = ["storescu", "-aec", "CDRECORD", *options, *more, "127.0.0.1", str(receiver.port), *map(str, files)]

    def send() -> None:
        done = subprocess.run(line, capture_output=True, text=True, timeout=LONG)
        assert done.returncode == 0, done.stderr

    # -xb proposes Explicit VR Little Endian and Implicit too, in the same context: of uncompressed syntaxes Explicit VR
    # Little Endian is taken.
    chosen = ExplicitVRLittleEndian if syntax == "1.2.840.10008.1.2.2" else syntax
    assert {arrival.transfer_syntax_uid for arrival in arrivals(receiver, files, send).values()} == {chosen}


def test_pynetdicom_echoes_and_stores(receiver: Running, tmp_path: Path) -> None:
    files = make_study(tmp_path / "files", "A1", kinds={"ct": 3})
    entity = AE("PYNETDICOM")

    def send() -> None:
        contexts = [
            build_context(CT, [ImplicitVRLittleEndian, ExplicitVRLittleEndian]),
            build_context("1.2.840.10008.1.1"),
        ]
        association = steady(entity.associate("127.0.0.1", receiver.port, contexts, "CDRECORD", max_pdu=0))
        assert association.is_established
        assert association.send_c_echo().Status == 0
        for file in files:
            assert association.send_c_store(file).Status == 0
        association.release()

    found = arrivals(receiver, files, send)
    assert {as_stored(arrival)[0] for arrival in found.values()} == {ExplicitVRLittleEndian}


def test_status_counts(receiver: Running) -> None:
    socket_path = receiver.settings.storage.receiver_socket
    assert receiver_status(socket_path) == {
        "associations": 0,
        "expectations": 0,
        "stored": 0,
        "refused": 0,
        "inboxes": {},
    }
    with receiver.expect("1.2.3"), RawPeer(receiver.port) as peer:
        peer.associate().store("1.2.3.1", data_set("1.2.3.1", "1.2.3"))
        status = receiver_status(socket_path)
        assert (status["associations"], status["expectations"]) == (1, 1)
        peer.release()
    eventually(
        lambda: (
            receiver_status(socket_path)
            == {"associations": 0, "expectations": 0, "stored": 1, "refused": 0, "inboxes": {}}
        )
    )


def test_a_receiver_that_goes_away_is_told(start: Start) -> None:
    receiver = start()
    with receiver.expect("1.2.3") as expectation:
        receiver.end()
        with pytest.raises(ReceiverUnavailable):
            expectation.next_arrival(LONG)
    with pytest.raises(ReceiverUnavailable):
        receiver_status(receiver.settings.storage.receiver_socket)


def test_an_instance_on_its_way_is_let_in_when_the_receiver_ends(start: Start) -> None:
    receiver = start(grace_seconds=LONG)
    conversation = data_set("1.2.3.1", "1.2.3", pixels=bytes(100_000))
    with receiver.expect("1.2.3") as expectation, RawPeer(receiver.port) as peer:
        peer.associate().send(
            p_data(command(1, sop_instance="1.2.3.1"), control=3) + p_data(conversation, control=2)[:50_000]
        )
        receiver.stop.set()
        time.sleep(0.7)
        peer.send(p_data(conversation, control=2)[50_000:])
        assert peer.status() == 0
        assert expectation.next_arrival(LONG) is not None
        assert peer.receive()[0] == 7  # then the association is aborted


def test_the_port_or_folder_of_another_receiver_is_refused_in_words(start: Start, tmp_path: Path) -> None:
    receiver = start()
    elsewhere = {"storage": {"data_dir": tmp_path / "other"}, "receiver": {"host": "127.0.0.1", "port": receiver.port}}
    with pytest.raises(ConfigurationError, match="another program has it"):
        run(Settings.model_validate(elsewhere), threading.Event())
    same = {
        "storage": {"data_dir": receiver.settings.storage.data_dir},
        "receiver": {"host": "127.0.0.2", "port": receiver.port},
    }
    on_its_way = receiver.settings.storage.incoming_dir / "1.2.3"
    on_its_way.touch()
    with pytest.raises(ConfigurationError, match="Another receiver is running"):
        run(Settings.model_validate(same), threading.Event())
    on_its_way.unlink()


def test_a_stale_socket_file_is_replaced(start: Start, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "data" / "receiver.sock"))
    receiver = start()
    assert receiver_status(receiver.settings.storage.receiver_socket)["expectations"] == 0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificates(tmp_path_factory.mktemp("certificates"))


def test_tls_with_certificates_on_both_sides(start: Start, tmp_path: Path, certificates: Path) -> None:
    tls = {
        "enabled": True,
        "certificate": certificates / "own.pem",
        "key": certificates / "own.key",
        "authority": certificates / "ca.pem",
    }
    receiver = start(tls=tls)
    files = make_ct_series(tmp_path / "files", "A1", 5)

    def line(name: str) -> list[str]:
        own = [str(certificates / f"{name}.key"), str(certificates / f"{name}.pem")]
        told = ["storescu", "-aec", "CDRECORD", "+tls", *own, "+cf", str(certificates / "ca.pem")]
        return [*told, "127.0.0.1", str(receiver.port), *map(str, files)]

    refused = subprocess.run(line("stranger"), capture_output=True, text=True, timeout=LONG)
    assert refused.returncode != 0

    def send() -> None:
        done = subprocess.run(line("peer"), capture_output=True, text=True, timeout=LONG)
        assert done.returncode == 0, done.stderr

    with RawPeer(receiver.port), RawPeer(receiver.port):  # silent TLS clients hold nobody up
        arrivals(receiver, files, send)

    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    context.check_hostname = False
    with (
        socket.create_connection(("127.0.0.1", receiver.port)) as plain,
        pytest.raises(OSError),
        context.wrap_socket(plain) as secured,
    ):
        secured.sendall(b"\1")
        assert secured.recv(1) == b""
        raise OSError


def test_nagle_at_the_sender_costs_no_forty_milliseconds(receiver: Running, tmp_path: Path) -> None:
    files = make_ct_series(tmp_path / "files", "A1", 50, size=64)  # of larger ones some need no wait
    waits: list[float] = []

    def quick() -> bool:
        """Whether most images came sooner after the one before; the wait would come with every one, every time."""
        clear_away(receiver.folder(), receiver.settings.storage.spares_dir)
        sending = threading.Thread(target=store, args=(receiver.port, files), kwargs={"nodelay": False})
        with receiver.expect(study_of(files[0])) as expectation:
            sending.start()
            came = [(expectation.next_arrival(LONG), time.monotonic())[1] for _ in files]
            sending.join()
        waits.append(median(later - earlier for earlier, later in pairwise(came)))
        return waits[-1] < 0.04

    until(quick, told=lambda: f": {waits}")

"""Scenarios 15 to 20: what comes to the receiver while a job runs, honest and not.

The receiver alone under every attack is held in tests/receiver/test_attacks.py and tests/receiver/test_fuzz.py; two
jobs at once with each PACS in tests/sources/test_peers.py and tests/end_to_end/test_download.py.
"""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import UID

from peers.corpus import make_study
from peers.discs import extract, instances_on
from peers.house import THAI_CANARY, House
from peers.patience import LONG
from peers.raw_peer import RawPeer, associate_rq, command, data_set, p_data
from peers.scripted_pacs import MoveRequest
from peers.standing import standing_of
from peers.storescu import store
from tests.receiver.test_attacks import ASSOCIATED_GARBAGE, GARBAGE

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("the_next_job_passes_and_nothing_is_left")]


@pytest.mark.parametrize("pacs", ["orthanc", "dcmqrscp"])
def test_15_compressed_pixels_stay_as_they_are(house: House, pacs: str, tmp_path: Path) -> None:
    house.ask_of(pacs)
    house.disc("JPEG1", tmp_path / "disc")
    on_disc = instances_on(tmp_path / "disc" / "extracted")
    for source in map(dcmread, house.studies["JPEG1"]):
        copy = dcmread(on_disc[str(source.SOPInstanceUID)])
        assert copy.PixelData == source.PixelData
        assert copy.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID


def test_16_a_stranger_stores_during_a_job(house: House, tmp_path: Path) -> None:
    """Another study, another instance of the expected study, and an expected UID in another study: none of them is on
    the disc.
    """
    foreign = make_study(tmp_path / "foreign", "FOREIGN1", patient=THAI_CANARY)
    good = house.studies["GOOD1"]
    unlisted, moved = dcmread(good[0]), dcmread(good[1])
    unlisted.SOPInstanceUID = unlisted.file_meta.MediaStorageSOPInstanceUID = UID(f"{unlisted.SOPInstanceUID[:50]}.77")
    moved.StudyInstanceUID = "1.2.3.77"
    returned: list[int] = []

    def interrupted(move: MoveRequest) -> None:
        move.store(good[:1])
        returned.append(store(house.back.port, foreign).returncode)
        for number, dataset in enumerate((unlisted, moved)):
            dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
            returned.append(store(house.back.port, [tmp_path / f"{number}.dcm"]).returncode)
        move.store(good[1:])
        move.end(0x0000)

    house.play("GOOD1", interrupted)
    house.disc("GOOD1", tmp_path / "disc")
    assert len(returned) == 3 and 0 not in returned


def test_16_nobody_stores_while_no_job_expects_it(house: House) -> None:
    shelf = house.shelf()
    assert store(house.back.port, house.studies["GOOD1"]).returncode != 0
    assert house.shelf() == shelf


def test_17_a_uid_with_a_path_in_it(house: House, tmp_path: Path) -> None:
    study = str(dcmread(house.studies["GOOD1"][0], stop_before_pixels=True).StudyInstanceUID)
    statuses: list[int] = []
    parent = house.service.data_dir.parent

    def below() -> set[str]:
        return {
            str(path.relative_to(parent))
            for path in parent.rglob("*")
            if not {"prefect", "instances"} & set(path.parts)
        }

    def interrupted(move: MoveRequest) -> None:
        before = below()
        for uid in ("../x", "../../x", "/tmp/x", "1.2/../../x", ".", "1.2.3\\4"):
            with RawPeer(house.service.receiver_port) as peer:
                statuses.append(peer.associate().store(uid, data_set(uid, study)))
        assert below() == before, "a file was written"
        move.store(move.files)
        move.end(0x0000)

    house.play("GOOD1", interrupted)
    house.disc("GOOD1", tmp_path / "disc")
    assert len(statuses) == 6 and 0 not in statuses


def test_18_garbage_of_every_kind_during_a_job(house: House, tmp_path: Path) -> None:
    ended: list[bool] = []

    def interrupted(move: MoveRequest) -> None:
        for garbage in GARBAGE.values():
            with RawPeer(house.service.receiver_port) as peer:
                peer.send(garbage)
                ended.append(peer.ended_within(LONG))
            move.pending(remaining=3, completed=0, failed=0, warning=0)
        for garbage in ASSOCIATED_GARBAGE.values():
            with RawPeer(house.service.receiver_port) as peer:
                peer.associate().send(garbage)
                ended.append(peer.ended_within(LONG))
            move.pending(remaining=3, completed=0, failed=0, warning=0)
        move.store(move.files)
        move.end(0x0000)

    house.play("GOOD1", interrupted)
    house.disc("GOOD1", tmp_path / "disc")
    assert len(ended) >= 7 and all(ended)


def test_19_stalls_inside_a_pdu_are_freed_within_the_limit(house: House, tmp_path: Path) -> None:
    """No other limit of the receiver's would have ended them by then."""
    receiver = house.service.processes()["receiver"]
    before = standing_of(receiver)
    stalls = [
        associate_rq()[:3],
        associate_rq()[:40],
        associate_rq() + p_data(command(1, sop_instance="1.2.3.4"), control=3)[:30],
    ]
    peers = [RawPeer(house.service.receiver_port) for _ in stalls]
    for peer, stall in zip(peers, stalls, strict=True):
        peer.send(stall)
    house.disc("GOOD1", tmp_path / "disc")
    for peer in peers:
        with peer:
            assert peer.ended_within(LONG)
    house.service.when(lambda: standing_of(receiver).is_within(before))


def test_20_jobs_at_once_never_cross(house: House, tmp_path: Path) -> None:
    """Four questions, two of them the same, while moves interleave."""
    house.ask_of("dcmqrscp")
    answers: list[tuple[str, httpx.Response]] = []
    threads = [
        threading.Thread(target=lambda number=number: answers.append((number, house.service.download(number))))
        for number in ("GOOD1", "THAI1", "JPEG1", "THAI1")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert len(answers) == 4
    for place, (number, answer) in enumerate(answers):
        assert answer.status_code == 200, answer.text
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "disc.iso").write_bytes(answer.content)
        found = instances_on(extract(folder / "disc.iso", folder / "x"))
        assert found.keys() == {
            str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in house.studies[number]
        }

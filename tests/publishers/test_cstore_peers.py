"""Publishers that are real Storage SCPs hold exactly the study after a print, dataset bytes identical."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from mkiso.publishers import Watch, publisher_of
from peers.corpus import dataset_bytes, make_ct_series, make_study
from peers.dcmqrscp import Dcmqrscp
from peers.dcmtk import OWN, QUERIES, VERIFICATION, write_profiles
from peers.orthanc import Orthanc
from peers.storescp import Storescp
from tests.publishers.orders import MIXED, arrival_of, give, order_of, settings_of, study

pytestmark = pytest.mark.peer


def by_uid(files: list[Path]) -> dict[str, bytes]:
    return {str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID): dataset_bytes(file) for file in files}


def print_at(folder: Path, peer: Storescp | Orthanc | Dcmqrscp) -> dict[str, bytes]:
    """Print the mixed study; what should be there now."""
    instances = study(folder)
    settings = settings_of(folder, port=peer.port, ae_title=peer.ae_title)
    publisher = publisher_of("robot", settings)
    assert "answers C-ECHO" in publisher.check()
    receipt = give(publisher, order_of(instances), settings.storage.orders_dir, Watch())
    assert (receipt.proves, receipt.instances) == ("queued", len(instances))
    return {arrival.sop_instance_uid: dataset_bytes(arrival.path) for arrival in instances}


def test_storescp_holds_exactly_the_study(tmp_path: Path) -> None:
    with Storescp(tmp_path / "scp") as peer:
        expected = print_at(tmp_path, peer)
        assert len(peer.files()) == len(expected)
        assert by_uid(peer.files()) == expected
        assert peer.log().count("Association Acknowledged") == 2  # the C-ECHO, and one for the job


def accepting(folder: Path, files: list[Path]) -> Dcmqrscp:
    """A dcmqrscp that takes what these files are, each pair of class and syntax in a context of its own, and C-ECHO."""
    peer = Dcmqrscp(folder, [], ae_title="RIMAGE")
    profiles = write_profiles(folder / "profiles.cfg", files)
    profiles.write_text(
        profiles.read_text().replace("[[Profiles]]", f"PresentationContext127 = {VERIFICATION}\\Plain\n[[Profiles]]")
    )
    peer.command[peer.command.index(QUERIES)] = OWN
    return peer


def test_dcmqrscp_holds_exactly_the_study(tmp_path: Path) -> None:
    with accepting(tmp_path / "scp", make_study(tmp_path / "like", "A1001", kinds=MIXED)) as peer:
        expected = print_at(tmp_path, peer)
        files = [file for file in peer.storage.iterdir() if file.name != "index.dat"]
        assert by_uid(files) == expected
        assert len(files) == len(expected)


def test_orthanc_holds_exactly_the_study(tmp_path: Path) -> None:
    with Orthanc(tmp_path / "scp") as peer:
        expected = print_at(tmp_path, peer)
        assert {uid: dataset_bytes(content) for uid, content in peer.files("A1001").items()} == expected


def test_a_big_series_is_streamed(tmp_path: Path) -> None:
    files = make_ct_series(tmp_path / "job" / "instances", "B1", count=100)
    instances = tuple(arrival_of(file) for file in files)
    with Storescp(tmp_path / "scp") as peer:
        settings = settings_of(tmp_path, port=peer.port)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        give(publisher_of("robot", settings), order_of(instances), settings.storage.orders_dir, Watch())
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert len(peer.files()) == 100
        assert grown_kib < 20_000  # the series is 52 MB


def test_over_128_presentation_contexts_take_two_associations(tmp_path: Path) -> None:
    """Each instance under a SOP class of its own; the later association is tried before the first byte is sent."""
    [ct] = study(tmp_path, {"ct": 1})
    instances = tuple(
        replace(ct, sop_class_uid=f"{ct.sop_class_uid}.{number}", sop_instance_uid=f"1.2.826.{number}")
        for number in range(1, 131)
    )
    with Storescp(tmp_path / "scp") as peer:
        settings = settings_of(tmp_path, port=peer.port)
        receipt = give(publisher_of("robot", settings), order_of(instances), settings.storage.orders_dir, Watch())
        assert receipt.instances == 130
        assert peer.log().count("Received Store Request") == 130
        assert peer.log().count("Association Acknowledged") == 4  # both tried, both used

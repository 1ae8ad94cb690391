"""Publishers that are real Storage SCPs hold exactly the study after a print, dataset bytes identical."""

from __future__ import annotations

import resource
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from mkiso.dataset import header
from mkiso.errors import NotConvertible, PublisherRefused
from mkiso.publishers import Watch, publisher_of
from mkiso.publishers.transcode import transcoding
from mkiso.storage.files import sha256_of
from peers.corpus import EVERY_KIND, dataset_bytes, make_ct_series, make_study, values_of
from peers.dcmqrscp import Dcmqrscp
from peers.dcmtk import OWN, QUERIES, VERIFICATION, write_profiles
from peers.orthanc import Orthanc
from peers.patience import LONG
from peers.storescp import Storescp
from tests.publishers.orders import MIXED, arrival_of, give, order_of, settings_of, study

pytestmark = [pytest.mark.peer, pytest.mark.usefixtures("forked_decoders")]


def by_uid(files: list[Path]) -> dict[str, bytes]:
    return {str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID): dataset_bytes(file) for file in files}


def print_at(folder: Path, peer: Storescp | Orthanc | Dcmqrscp) -> dict[str, bytes]:
    """Print the mixed study; what should be there now."""
    instances = study(folder)
    settings = settings_of(folder, port=peer.port, ae_title=peer.ae_title)
    publisher = publisher_of("robot", settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mkiso.publishers.dicom.ECHO_LIMIT_SECONDS", LONG)
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


UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")


def test_a_publisher_that_takes_implicit_vr_alone_gets_every_value(tmp_path: Path) -> None:
    """dcmtk's own conversion says what each data set is in Implicit VR."""
    made = make_study(tmp_path / "job" / "instances", "A1001", kinds=EVERY_KIND)
    files = [file for file in made if str(dcmread(file).file_meta.TransferSyntaxUID) in UNCOMPRESSED]
    assert {str(dcmread(file).file_meta.TransferSyntaxUID) for file in files} >= set(UNCOMPRESSED[1:])
    instances = tuple(map(arrival_of, files))
    with Storescp(tmp_path / "scp", options=("+xi", "+B", "-pm")) as peer:
        settings = settings_of(tmp_path, port=peer.port)
        receipt = give(publisher_of("robot", settings), order_of(instances), settings.storage.orders_dir, Watch())
        assert receipt.instances == len(files)
        held = {str((dataset := dcmread(file)).SOPInstanceUID): dataset for file in peer.files()}
    assert len(held) == len(files)
    for file in files:
        judged = tmp_path / "judged.dcm"
        subprocess.run(["dcmconv", "+ti", "-e", file, judged], check=True, capture_output=True)
        expected = dcmread(judged)
        got = held[str(expected.SOPInstanceUID)]
        assert got.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        assert values_of(got) == values_of(expected)
        assert got == expected


@pytest.mark.parametrize("kind", ["big_endian", "deflated"])
@pytest.mark.parametrize("wanted", UNCOMPRESSED[:2])
def test_what_isnt_compressed_becomes_little_endian_word_by_word(tmp_path: Path, kind: str, wanted: str) -> None:
    """Where `transcode` finds a publisher that takes it: dcmtk's own conversion is the judge."""
    (file,) = make_study(tmp_path / "files", "A1001", kinds={kind: 1})
    judged = tmp_path / "judged.dcm"
    option = "+ti" if wanted == ImplicitVRLittleEndian else "+te"
    subprocess.run(["dcmconv", option, "-e", file, judged], check=True, capture_output=True)
    with transcoding(tmp_path) as transcoder:
        made = transcoder.transcoded(arrival_of(file), wanted).path
        assert dcmread(made).file_meta.TransferSyntaxUID == wanted
        assert dcmread(made) == dcmread(judged) and values_of(dcmread(made)) == values_of(dcmread(judged))


def test_a_deflated_instance_is_inflated_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = make_study(tmp_path / "files", "A1001", kinds={"deflated": 1})
    monkeypatch.setattr(header, "MAX_INFLATED_BYTES", 1000)
    with transcoding(tmp_path) as transcoder:
        for wanted in UNCOMPRESSED[:2]:
            with pytest.raises(NotConvertible, match="inflates to more than"):
                transcoder.transcoded(arrival_of(file), wanted)
        assert not transcoder.made
    assert not list(tmp_path.glob("transcoded-*"))


@pytest.mark.parametrize("kind", ["rle", "jpeg_ls", "jpeg_2000"])
def test_a_compressed_instance_is_made_once_for_each_syntax(tmp_path: Path, kind: str) -> None:
    """GDCM's own conversion is the judge."""
    (file,) = make_study(tmp_path / "files", "A1001", kinds={kind: 1})
    judged = tmp_path / "judged.dcm"
    subprocess.run(["gdcmconv", "--raw", file, judged], check=True, capture_output=True)
    with transcoding(tmp_path) as transcoder:
        made = [transcoder.transcoded(arrival_of(file), wanted) for wanted in UNCOMPRESSED[:2] * 2]
        assert made[:2] == made[2:] and [each.transfer_syntax_uid for each in made[:2]] == list(UNCOMPRESSED[:2])
        assert [sha256_of(each.path) for each in made] == [each.sha256 for each in made]
        for each in made[:2]:
            dataset = dcmread(each.path)
            assert dataset.file_meta.TransferSyntaxUID == each.transfer_syntax_uid
            assert dataset.SOPInstanceUID == each.sop_instance_uid == dcmread(file).SOPInstanceUID
            assert dataset.PixelData == dcmread(judged).PixelData


@pytest.mark.parametrize("transcode", [False, True])
def test_what_is_compressed_becomes_implicit_vr_only_where_it_is_asked_for(tmp_path: Path, transcode: bool) -> None:
    instances = study(tmp_path, {"ct": 1, "rle": 1})
    with Storescp(tmp_path / "scp", options=("+xi", "+B", "-pm")) as peer:
        settings = settings_of(tmp_path, port=peer.port, transcode=transcode)
        publisher, orders_dir = publisher_of("robot", settings), settings.storage.orders_dir
        if not transcode:
            with pytest.raises(PublisherRefused, match="RLE"):
                give(publisher, order_of(instances), orders_dir, Watch())
            assert not peer.files()
            return
        assert give(publisher, order_of(instances), orders_dir, Watch()).instances == 2
        held = {str((dataset := dcmread(file)).SOPInstanceUID): dataset for file in peer.files()}
    original = dcmread(instances[1].path)
    assert (held[original.SOPInstanceUID].pixel_array == original.pixel_array).all()


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

import hashlib
import os
import shutil
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from mkiso.dataset.part10 import file_head
from mkiso.errors import PatientMismatch, ProofFailed
from mkiso.formats.disc_check import check_disc, verify_disc
from mkiso.formats.iso import master
from mkiso.formats.iso_reader import JOLIET, SECTOR_BYTES
from mkiso.formats.proof import verify_image
from mkiso.formats.protocol import Extent
from mkiso.formats.registry import ISO
from mkiso.media.layout import Layout, LayoutOptions, checksums, lay_out
from mkiso.study.models import DiscFile
from mkiso.study.text import Text
from peers.corpus import make_study
from peers.discs import flip
from tests.media.discs import CREATED, archived, contents_of, disc, instances, settings

INSTANCE = PurePosixPath("DICOM/PT000001/ST000001/SE000001/IM000002")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Path]:
    folder = tmp_path_factory.mktemp("disc")
    viewer = folder / "viewer"
    viewer.mkdir()
    (viewer / "Viewer for images.exe").write_bytes(bytes(range(256)) * 30)
    (viewer / "empty.cfg").write_bytes(b"")
    paths = make_study(folder / "instances", "ACC1", kinds={"ct": 3, "sr": 1})
    return disc(paths, folder, viewer={"directory": str(viewer)})


@pytest.fixture
def copy(made: tuple[Layout, Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(made[1], tmp_path / "copy.iso"))


def test_a_good_image_is_proved(made: tuple[Layout, Path]) -> None:
    layout, iso = made
    proof = verify_image(iso, layout.files, ISO)
    assert (proof.size, proof.files) == (iso.stat().st_size, len(layout.files))
    assert proof.size == layout.size
    report = verify_disc(iso)
    assert (report.sha256, report.instances, report.patients, report.volume_id) == (proof.sha256, 4, 1, "ACC1")


@pytest.mark.parametrize(
    "path", [INSTANCE, PurePosixPath("DICOMDIR"), PurePosixPath("VIEWER_F.EXE"), PurePosixPath("README.TXT")], ids=str
)
def test_a_flipped_bit_is_caught(made: tuple[Layout, Path], copy: Path, path: PurePosixPath) -> None:
    extent = _extent(copy, path)
    flip(copy, extent.start + extent.size // 2)
    with pytest.raises(ProofFailed, match=str(path)):
        verify_image(copy, made[0].files, ISO)
    with pytest.raises(ProofFailed, match="not what it was"):
        verify_disc(copy)


@pytest.mark.parametrize("patient_id", [b"HN\t1", b"HN-1\r\n", b"9" * 70])
def test_an_image_is_its_patients_whose_id_no_record_can_have(patient_id: bytes, tmp_path: Path) -> None:
    paths = make_study(tmp_path / "in", "ACC1", kinds={"ct": 1})
    for path in paths:
        data_set = dcmread(path)
        tag = BaseTag(tag_for_keyword("PatientID") or 0)
        data_set[tag] = RawDataElement(tag, "LO", len(patient_id), patient_id, 0, False, True)
        data_set.save_as(path)
    made = disc(paths, tmp_path)[1]
    assert check_disc(made).findings == ()
    made.write_bytes(made.read_bytes().replace(patient_id, b"X" + patient_id[1:]))
    [image] = [path for path in contents_of(ISO, made).files if path.parts[0] == "DICOM"]
    assert f"{image} is of another patient than DICOMDIR says." in check_disc(made).findings


def test_a_flipped_bit_anywhere_in_the_directories_is_caught(made: tuple[Layout, Path], copy: Path) -> None:
    """Every bit of the trees counts but for what no reader uses: dates, flags of the system, and the empty space behind
    the last record.
    """
    whole = made[1].read_bytes()
    first_file = min(extent.start // SECTOR_BYTES for extent in contents_of(ISO, copy).files.values() if extent.size)
    missed = 0
    for position in range(20 * SECTOR_BYTES, first_file * SECTOR_BYTES, 37):
        if not whole[position]:
            continue
        flip(copy, position)
        try:
            verify_image(copy, made[0].files, ISO)
            missed += 1
        except ProofFailed:
            pass
        flip(copy, position)
    assert missed < 120
    assert verify_image(copy, made[0].files, ISO)


@pytest.mark.parametrize("cut", [1, SECTOR_BYTES, 40 * SECTOR_BYTES])
def test_a_truncated_image_is_caught(made: tuple[Layout, Path], copy: Path, cut: int) -> None:
    os.truncate(copy, copy.stat().st_size - cut)
    with pytest.raises(ProofFailed, match=r"bytes|cut short"):
        verify_image(copy, made[0].files, ISO)
    with pytest.raises(ProofFailed, match="cut short"):
        verify_disc(copy)


def test_an_image_that_goes_on_behind_its_end_is_caught(made: tuple[Layout, Path], copy: Path) -> None:
    with copy.open("ab") as file:
        file.write(bytes(SECTOR_BYTES))
    size = copy.stat().st_size
    with pytest.raises(ProofFailed, match=f"has {size} bytes and says that it has {size - SECTOR_BYTES}"):
        verify_image(copy, made[0].files, ISO)


@pytest.mark.parametrize(("lost", "said"), [(5, "lacks 5 .*N5. "), (6, "lacks 6 .*N5 …")])
def test_a_few_of_many_are_named(tmp_path: Path, lost: int, said: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    names = [f"N{number}" for number in range(1, lost + 1)]
    files = [DiscFile(PurePosixPath(name), 1, digest, source) for name in (*names, "THERE")]
    master(files[-1:], "V", tmp_path / "x.iso", created=CREATED)
    with pytest.raises(ProofFailed, match=said):
        verify_image(tmp_path / "x.iso", files, ISO)


@pytest.mark.parametrize(("broken", "said"), [(5, r"SHA256.TXT[^.]*\.$"), (7, "And 2 more.$")])
def test_a_few_of_many_findings_are_told(tmp_path: Path, broken: int, said: str) -> None:
    layout, iso = disc(make_study(tmp_path / "instances", "ACC1", kinds={"ct": 8}), tmp_path)
    for file in [file for file in layout.files if file.sop_instance_uid][:broken]:
        extent = _extent(iso, file.path)
        flip(iso, extent.start + extent.size - 1)
    with pytest.raises(ProofFailed) as failed:
        verify_disc(iso)
    assert len(failed.value.details["findings"]) == broken  # type: ignore[arg-type]
    assert failed.value.words.endswith(" And 2 more.") if broken == 7 else "more" not in failed.value.words


def test_a_disc_of_two_patients_is_no_patients_disc(tmp_path: Path) -> None:
    paths = make_study(tmp_path / "one", "ACC1", "HN-1") + make_study(tmp_path / "two", "ACC2", "HN-2")
    iso = tmp_path / "disc.iso"
    with pytest.raises(PatientMismatch):
        disc(paths, tmp_path)
    layout = lay_out(
        archived(instances(paths)), LayoutOptions(settings(tmp_path), CREATED), tmp_path / "disc", volume_id="A_0001"
    )
    master(layout.files, layout.volume_id, iso, created=CREATED)
    with pytest.raises(ProofFailed, match="patients"):
        verify_disc(iso)
    assert verify_disc(iso, one_patient=False).patients == 2


def test_two_patients_of_one_id_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PS3.3 F.5.1: whose studies they are can't be told on such a disc, whoever made it."""
    paths = make_study(tmp_path / "one", "ACC1", "HN-1") + make_study(tmp_path / "two", "ACC2", "HN-2")
    monkeypatch.setattr("mkiso.media.dicomdir.patient_ids", lambda tree, notes: [Text(b"HN-1") for _ in tree])
    layout = lay_out(
        archived(instances(paths)), LayoutOptions(settings(tmp_path), CREATED), tmp_path / "disc", volume_id="A_0001"
    )
    master(layout.files, layout.volume_id, tmp_path / "disc.iso", created=CREATED)
    for one_patient in (True, False):
        with pytest.raises(ProofFailed, match="several patients of one Patient ID"):
            verify_disc(tmp_path / "disc.iso", one_patient=one_patient)


def test_no_descriptor_is_left(made: tuple[Layout, Path], tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    verify_image(made[1], made[0].files, ISO)
    with pytest.raises(ProofFailed):
        verify_image(made[1], made[0].files[1:], ISO)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def _swapped(files: list[DiscFile]) -> list[DiscFile]:
    one, two = (next(file for file in files if file.path.name == name) for name in ("IM000001", "IM000002"))
    exchange = {
        one.path: replace(one, source=two.source, size=two.size),
        two.path: replace(two, source=one.source, size=one.size),
    }
    return [exchange.get(file.path, file) for file in files]


def _without(path: PurePosixPath) -> Callable[[list[DiscFile]], list[DiscFile]]:
    return lambda files: [file for file in files if file.path != path]


def _with_another(files: list[DiscFile]) -> list[DiscFile]:
    return [*files, replace(next(file for file in files if file.path == INSTANCE), path=INSTANCE.with_name("IM000009"))]


@pytest.mark.parametrize(
    ("change", "words", "disc_words"),
    [
        (_swapped, "IM000001.*IM000002", "not what it was"),
        (_without(INSTANCE), f"lacks 1 file.*{INSTANCE}", "is missing"),
        (_without(PurePosixPath("README.TXT")), "lacks 1 file.*README.TXT", "README.TXT is missing"),
        (_with_another, "nobody put there.*IM000009", "not in SHA256.TXT"),
    ],
    ids=["swapped", "missing instance", "missing page", "additional"],
)
def test_other_files_than_meant_are_caught(
    made: tuple[Layout, Path],
    tmp_path: Path,
    change: Callable[[list[DiscFile]], list[DiscFile]],
    words: str,
    disc_words: str,
) -> None:
    layout, _ = made
    master(change(list(layout.files)), layout.volume_id, tmp_path / "x.iso", created=CREATED)
    with pytest.raises(ProofFailed, match=words):
        verify_image(tmp_path / "x.iso", layout.files, ISO)
    with pytest.raises(ProofFailed, match=disc_words):
        verify_disc(tmp_path / "x.iso")


@pytest.mark.parametrize(
    "change",
    [lambda content: content[:-1000], lambda content: content + b"more", lambda content: content[:-1] + b"\xff"],
)
def test_a_source_that_changes_while_it_is_mastered_is_caught(
    made: tuple[Layout, Path], tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    layout, _ = made
    victim = next(file for file in layout.files if file.path == INSTANCE)
    assert victim.source
    changed = tmp_path / "changed"
    changed.write_bytes(change(victim.source.read_bytes()))
    files = [replace(file, source=changed) if file.path == INSTANCE else file for file in layout.files]
    master(files, layout.volume_id, tmp_path / "x.iso", created=CREATED)
    with pytest.raises(ProofFailed):
        verify_image(tmp_path / "x.iso", layout.files, ISO)


def test_a_disc_that_lies_consistently_about_its_images_is_caught(made: tuple[Layout, Path], tmp_path: Path) -> None:
    """Checksums that match what is there don't help: DICOMDIR must name each instance and be right about it."""
    layout, _ = made
    files = [file for file in _swapped(list(layout.files)) if file.path.name not in ("SHA256.TXT", "IM000003")]
    real = [replace(file, sha256=_sha256(file)) for file in files]
    sums = tmp_path / "SHA256.TXT"
    sums.write_bytes(checksums(real))
    files.append(DiscFile(PurePosixPath("SHA256.TXT"), sums.stat().st_size, "", sums))
    master(files, layout.volume_id, tmp_path / "x.iso", created=CREATED)
    findings = " ".join(check_disc(tmp_path / "x.iso").findings)
    assert "IM000003, which is missing" in findings
    assert "IM000001 differ in SOP class, SOP instance or transfer syntax" in findings


def _rewritten(path: str, change: Callable[[bytes], bytes], folder: Path) -> Callable[[list[DiscFile]], list[DiscFile]]:
    def rewrite(files: list[DiscFile]) -> list[DiscFile]:
        [old] = [file for file in files if str(file.path) == path]
        assert old.source
        source = folder / "rewritten"
        source.write_bytes(change(old.source.read_bytes()))
        return [replace(old, source=source, size=source.stat().st_size) if file is old else file for file in files]

    return rewrite


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        ("DICOMDIR", lambda content: content[:400], "DICOMDIR can't be read"),
        ("DICOMDIR", lambda content: b"MZ" + content[2:], "DICOMDIR has a preamble"),
        ("DICOMDIR", lambda content: content.replace(b"ACC1", b"ACC2", 1), "is not the volume identifier"),
        (
            "DICOMDIR",
            lambda content: content.replace(b"IM000003", b"IM000002"),
            "names DICOM/PT000001/ST000001/SE000001/IM000002 twice",
        ),
        (
            "DICOMDIR",
            lambda content: content.replace(b"IM000003", b"IM000002"),
            "IM000003 is a DICOM file that DICOMDIR doesn't name",
        ),
        ("DICOMDIR", lambda content: _with_offset(content, 0x1420, 1), "lead nowhere"),
        ("DICOMDIR", lambda content: _with_offset(content, 0x1420, 0), "no offset leads to"),
        ("DICOMDIR", lambda content: _with_offset(content, 0x1202, 1), "another last record"),
        ("DICOMDIR", lambda content: content.replace(b"STUDY ", b"SERIES", 1), "of type SERIES below PATIENT"),
        (str(INSTANCE), lambda content: b"MZ" + content[2:], "IM000002 has a preamble"),
        (str(INSTANCE), lambda content: b"", "differ in SOP class"),
        (str(INSTANCE), lambda content: content[:500], "no DICOM file that can be read"),
        (
            str(INSTANCE),
            lambda content: content.replace(b"\x08\x00\x18\x00UI", b"\x08\x00\x17\x00UI"),
            "names another instance than its data set",
        ),
    ],
)
def test_a_disc_that_was_made_wrongly_is_caught(
    made: tuple[Layout, Path], tmp_path: Path, path: str, change: Callable[[bytes], bytes], words: str
) -> None:
    """With checksums that match, so that only what is said about the files is wrong."""
    files = _rewritten(path, change, tmp_path)([file for file in made[0].files if file.path.name != "SHA256.TXT"])
    sums = tmp_path / "SHA256.TXT"
    sums.write_bytes(checksums(replace(file, sha256=_sha256(file)) for file in files))
    files.append(DiscFile(PurePosixPath("SHA256.TXT"), sums.stat().st_size, "", sums))
    master(files, made[0].volume_id, tmp_path / "x.iso", created=CREATED)
    findings = " ".join(check_disc(tmp_path / "x.iso").findings)
    assert words in findings


def _bomb(sop_class_uid: str, uid: str, mebibytes: int) -> bytes:
    """A deflated file, whose transfer syntax stands behind more than most readers look at."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = struct.pack("<HH2sHI", 0x0009, 0x1010, b"OB", 0, mebibytes << 20)
    data = [packer.compress(element), *(packer.compress(bytes(1 << 20)) for _ in range(mebibytes)), packer.flush()]
    head = file_head(sop_class_uid, uid, "1.2.840.10008.1.2.1.99")
    beginning, meta = head[:132], head[144:]
    filling = struct.pack("<HH2sHI", 0x0002, 0x0102, b"OB", 0, 20_000) + bytes(20_000)
    return b"".join([beginning, filling, meta, *data])


@pytest.mark.parametrize("path", ["DICOMDIR", str(INSTANCE)])
def test_a_file_that_inflates_without_end_isnt_inflated(made: tuple[Layout, Path], tmp_path: Path, path: str) -> None:
    for file in made[0].files:
        target = tmp_path / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.source.read_bytes() if file.source else b"")
    (tmp_path / path).write_bytes(_bomb("1.2.840.10008.1.3.10", "1.2.3", 64))
    tracemalloc.start()
    report = check_disc(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not report.sound and peak < 32 << 20


def test_what_isnt_there_is_missed(made: tuple[Layout, Path], tmp_path: Path) -> None:
    files = [file for file in made[0].files if file.path.name not in ("SHA256.TXT", "DICOMDIR")]
    master([*files, replace(files[0], path=PurePosixPath("IHE"))], "lower case", tmp_path / "x.iso", created=CREATED)
    findings = " ".join(check_disc(tmp_path / "x.iso").findings)
    for words in ("no SHA256.TXT", "no DICOMDIR", "IHE PDI", "no file-set ID"):
        assert words in findings


def test_images_that_changed_places_where_systems_look_are_named(made: tuple[Layout, Path], copy: Path) -> None:
    """In the Joliet tree alone, and SHA256.TXT says so too: DICOMDIR was compared with the ISO 9660 tree alone."""
    other = INSTANCE.with_name("IM000003")
    content, tree = bytearray(copy.read_bytes()), contents_of(ISO, copy).trees[JOLIET]
    for path, place in ((INSTANCE, tree[other]), (other, tree[INSTANCE])):
        record = content.index(path.name.encode("utf-16-be")) - 33
        for at, number in ((2, place.start // SECTOR_BYTES), (10, place.size)):
            content[record + at : record + at + 8] = struct.pack("<I", number) + struct.pack(">I", number)
    sums = tree[PurePosixPath("SHA256.TXT")]
    listed = content[sums.start : sums.start + sums.size]
    one, two = (_sha256_of(made[0], path).encode() for path in (INSTANCE, other))
    content[sums.start : sums.start + sums.size] = listed.replace(one, b"?").replace(two, one).replace(b"?", two)
    copy.write_bytes(content)
    findings = check_disc(copy).findings
    assert sorted(findings) == [f"{path} is another file in the Joliet tree." for path in (INSTANCE, other)]


def _sha256_of(layout: Layout, path: PurePosixPath) -> str:
    [file] = [file for file in layout.files if file.path == path]
    return file.sha256


def test_a_joliet_tree_that_points_elsewhere_is_caught(made: tuple[Layout, Path], copy: Path) -> None:
    """What Linux and a workstation read may be another tree than Windows does."""
    content = bytearray(copy.read_bytes())
    name = "IM000002".encode("utf-16-be")
    record = content.index(name) - 33
    other = _extent(copy, INSTANCE.with_name("IM000001"))
    sector = other.start // SECTOR_BYTES
    content[record + 2 : record + 10] = sector.to_bytes(4, "little") + sector.to_bytes(4, "big")
    copy.write_bytes(content)
    with pytest.raises(ProofFailed, match=str(INSTANCE)):
        verify_image(copy, made[0].files, ISO)
    with pytest.raises(ProofFailed, match="different files"):
        verify_disc(copy)


def test_no_patients_name_in_the_words(made: tuple[Layout, Path], copy: Path) -> None:
    flip(copy, _extent(copy, INSTANCE).start + 200)
    report = check_disc(copy)
    assert not report.sound
    assert "Anna" not in str(report) and "HN-0001" not in str(report)


def _extent(path: Path, name: PurePosixPath) -> Extent:
    return contents_of(ISO, path).files[name]


def _with_offset(content: bytes, element: int, value: int) -> bytes:
    """With the first element (0004,xxxx) of this number changed."""
    at = content.index(b"\x04\x00" + element.to_bytes(2, "little") + b"UL\x04\x00") + 8
    return content[:at] + value.to_bytes(4, "little") + content[at + 4 :]


def _sha256(file: DiscFile) -> str:
    assert file.source
    return hashlib.sha256(file.source.read_bytes()).hexdigest()


def test_a_pipe_that_nobody_writes_to_is_no_disc(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not check_disc(tmp_path / "pipe").sound

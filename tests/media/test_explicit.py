"""Instances made Explicit VR Little Endian: each frame is what a second decoder makes of it, each other value what it
was.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mkiso.errors import NotConvertible, ProofFailed
from mkiso.formats.disc_check import check_disc
from mkiso.formats.proven_set import prove, write_set
from mkiso.formats.registry import ISO
from mkiso.media import explicit
from mkiso.media.disc_set import lay_out_set
from mkiso.media.explicit import AS_ARCHIVED, CONVERTIBLE, Conversion, convert, converted, reckoned
from mkiso.pictures.decoders import DECODED
from mkiso.pictures.pool import DecompressPool
from mkiso.pictures.process import WorkerProcess
from mkiso.storage.files import sha256_of
from mkiso.study.models import Arrival
from peers.corpus import BUNDLED, EVERY_KIND, make_study, values_of
from peers.discs import extract, instances_on, judge
from tests.media.discs import CREATED, instances, passed, settings
from tests.pictures.objects import item, ramp, rgb, write
from tests.pictures.test_decoders import LOSSLESS

pytestmark = pytest.mark.usefixtures("forked_decoders")

JUDGES = {
    **dict.fromkeys((".50", ".51", ".57", ".70"), "dcmdjpeg"),
    **dict.fromkeys((".80", ".81"), "dcmdjpls"),
    "2.5": "dcmdrle",
}
COMPRESSED = (
    "693_J2KI.dcm", "GDCMJ2K_TextGBR.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG-lossy.dcm", "JPEG2000.dcm",
    "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "JPGExtended.dcm", "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_jpeg_no_color_transform.dcm",
    "SC_jpeg_no_color_transform_2.dcm", "SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm",
    "SC_rgb_dcmtk_+eb+cy+n2.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_dcmtk_+eb+cy+s2.dcm",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm", "SC_rgb_gdcm_KY.dcm", "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm",
    "SC_rgb_jpeg_app14_dcmd.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm",
    "SC_rgb_rle.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_rle_2frame.dcm",
    "SC_rgb_rle_32bit.dcm", "SC_rgb_rle_32bit_2frame.dcm", "SC_rgb_small_odd_jpeg.dcm", "examples_jpeg2k.dcm",
    "examples_ybr_color.dcm", "rtdose_rle.dcm", "rtdose_rle_1frame.dcm",
)  # fmt: skip
CHANGED = ("PixelData", "PhotometricInterpretation", "PlanarConfiguration")
LOSSES = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
OTHER_ENCODINGS = (
    "ExplVR_BigEnd.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm",
    "SC_rgb_small_odd_big_endian.dcm", "empty_charset_LEI.dcm", "image_dfl.dcm", "liver_expb_1frame.dcm",
    "rtdose.dcm", "rtdose_1frame.dcm", "rtplan.dcm",
)  # fmt: skip


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecompressPool]:
    with DecompressPool(tmp_path_factory.getbasetemp(), tmp_path_factory.getbasetemp(), 2) as processes:
        yield processes


def arrival_of(file: Path) -> Arrival:
    """Some of pydicom's files have no UIDs in their data sets."""
    header = dcmread(file, stop_before_pixels=True)
    meta, study = header.file_meta, str(header.get("StudyInstanceUID", ""))
    syntax = str(meta.TransferSyntaxUID)
    uids = (
        str(meta.get("MediaStorageSOPInstanceUID", "1.2")),
        str(meta.get("MediaStorageSOPClassUID", "1.2")),
        syntax,
        study,
    )
    return Arrival(*uids, file, file.stat().st_size, sha256_of(file))


def made_of(file: Path, folder: Path, pool: DecompressPool) -> Dataset:
    """The file in Explicit VR Little Endian, whole and under its own name."""
    arrival = arrival_of(file)
    made = converted(arrival, folder / "made.dcm", pool)
    assert made == replace(arrival_of(made.path), path=made.path)
    assert (made.sop_instance_uid, made.transfer_syntax_uid) == (arrival.sop_instance_uid, ExplicitVRLittleEndian)
    assert list(folder.glob("made*")) == [made.path]
    return dcmread(made.path)


def stored(dataset: Dataset, bits: int) -> NDArray[Any]:
    """The stored values, frame by frame, each pixel's samples together, as far as Bits Stored reach."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    shape = (frames, int(dataset.Rows), int(dataset.Columns))
    samples: NDArray[Any] = np.frombuffer(dataset.PixelData, f"<u{dataset.BitsAllocated // 8}")
    count = int(np.prod(shape)) * int(dataset.SamplesPerPixel)
    assert 0 <= samples.nbytes - count * samples.itemsize <= 1
    samples = samples[:count] & samples.dtype.type((1 << bits) - 1)
    if dataset.SamplesPerPixel == 3 and dataset.PlanarConfiguration == 1:
        return np.moveaxis(samples.reshape(frames, 3, *shape[1:]), 1, 3)
    return np.reshape(samples, shape if dataset.SamplesPerPixel == 1 else (*shape, 3))


def other_values(file: Path) -> list[tuple[int, object]]:
    """All but what may change with the pixels, and what was lost before."""
    but = {tag_for_keyword(keyword) for keyword in (*CHANGED, *LOSSES)}
    return [value for value in values_of(dcmread(file)) if value[0] not in but]


@pytest.mark.peer
@pytest.mark.parametrize("name", COMPRESSED)
def test_each_frame_is_what_a_second_decoder_makes_of_it(tmp_path: Path, pool: DecompressPool, name: str) -> None:
    file, judged = BUNDLED / name, tmp_path / "judged.dcm"
    made, original = made_of(file, tmp_path, pool), dcmread(file)
    syntax = str(original.file_meta.TransferSyntaxUID)
    judge = next((program for end, program in JUDGES.items() if syntax.endswith(end)), "")
    subprocess.run([judge, file, judged] if judge else ["gdcmconv", "--raw", file, judged], check=True)
    expected = dcmread(judged)
    assert (stored(made, original.BitsStored) == stored(expected, original.BitsStored)).all()
    assert made.PhotometricInterpretation == expected.PhotometricInterpretation
    assert len(made.PixelData) % 2 == 0 and ("OB" if made.BitsAllocated <= 8 else "OW") == made["PixelData"].VR
    if "LossyImageCompression" in original or syntax.endswith((".70", ".80", ".90", "2.5")):
        assert [made.get(keyword) for keyword in LOSSES] == [original.get(keyword) for keyword in LOSSES]
    else:
        assert (made.LossyImageCompression, made.LossyImageCompressionMethod) == ("01", "ISO_14495_1")
    assert made.get("PlanarConfiguration", 0) == 0
    assert other_values(tmp_path / "made.dcm") == other_values(file)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("kind", ["grey", "colour", "signed", "frames"])
def test_what_was_compressed_without_loss_is_again_what_it_was(
    tmp_path: Path, pool: DecompressPool, syntax: str, kind: str
) -> None:
    form: dict[str, Any] = {}
    pixels, bits = ramp(), 12
    if kind == "colour":
        pixels, bits = rgb()[:63, :95].copy(), 8
    elif kind == "signed":
        pixels, bits = ramp(low=-2000, high=3000, kind="<i2"), 16
    elif kind == "frames":
        form["NumberOfFrames"] = 3
    encoded = pixels
    if kind == "signed" and not syntax.endswith((".90", ".201", ".203")):  # only JPEG 2000 has a sign
        encoded = pixels.view(np.uint16)
    frames = [encoded[::step].copy() for step in (1, -1, 1)][: 3 if kind == "frames" else 1]
    fragments = [LOSSLESS[syntax](frame, bits) for frame in frames]
    file = write(tmp_path / "packed", pixels, syntax=syntax, fragments=fragments, BitsStored=bits, **form)
    made = made_of(file, tmp_path, pool)
    frames = [frame if kind != "signed" else pixels for frame in frames]
    data = b"".join(frame.tobytes() for frame in frames)
    assert made.PixelData == data + b"\0" * (len(data) % 2)
    assert "LossyImageCompression" not in made or syntax.endswith(".203")


@pytest.mark.peer
@pytest.mark.parametrize("name", OTHER_ENCODINGS)
def test_another_encoding_keeps_every_value(tmp_path: Path, pool: DecompressPool, name: str) -> None:
    """dcmtk's own conversion is the judge."""
    same_as_dcmtk(BUNDLED / name, tmp_path, pool)


@pytest.mark.peer
def test_every_kind_of_object_keeps_every_value(tmp_path: Path, pool: DecompressPool) -> None:
    files = make_study(tmp_path / "study", "A1001", kinds=EVERY_KIND)
    chosen = [file for file in files if dcmread(file).file_meta.TransferSyntaxUID not in DECODED]
    for number, file in enumerate(chosen):
        (folder := tmp_path / str(number)).mkdir()
        implicit = folder / "implicit.dcm"
        subprocess.run(["dcmconv", "+ti", file, implicit], check=True)
        same_as_dcmtk(implicit, folder, pool)


def same_as_dcmtk(file: Path, folder: Path, pool: DecompressPool) -> None:
    judged = folder / "judged.dcm"
    subprocess.run(["dcmconv", "+te", "-e", file, judged], check=True, capture_output=True)
    made, expected = made_of(file, folder, pool), dcmread(judged)
    assert values_of(made) == values_of(expected)
    for element in expected:
        if not element.tag.is_private and element.VR != "UN" and element.tag.element:
            assert {made[element.tag].VR, element.VR} in ({element.VR}, {"OB", "OW"}), element.tag


def test_what_stands_out_of_order_is_changed_and_not_told_twice(tmp_path: Path, pool: DecompressPool) -> None:
    """Readers take the last: YBR_FULL_422 behind RGB would show other colours."""
    data = (BUNDLED / "SC_rgb_jpeg_dcmtk.dcm").read_bytes()
    start = data.index(b"\x28\x00\x04\x00CS")
    end = start + 8 + data[start + 6]
    pixels = data.index(b"\xe0\x7f\x10\x00OB")
    file = tmp_path / "disordered.dcm"
    file.write_bytes(data[:start] + data[end:pixels] + data[start:end] + data[pixels:])
    (folder := tmp_path / "ordered").mkdir()
    made, expected = made_of(file, tmp_path, pool), made_of(BUNDLED / "SC_rgb_jpeg_dcmtk.dcm", folder, pool)
    assert made.PhotometricInterpretation == expected.PhotometricInterpretation == "RGB"
    assert (tmp_path / "made.dcm").read_bytes().count(b"\x28\x00\x04\x00CS") == 1


def test_private_values_stay_what_they_are(tmp_path: Path, pool: DecompressPool) -> None:
    """Implicit VR doesn't say of what VR they are, so that they become UN (PS3.5 6.2.2)."""
    for name in ("nested_priv_SQ.dcm", "priv_SQ.dcm"):
        made, original = made_of(BUNDLED / name, tmp_path, pool), dcmread(BUNDLED / name)
        assert values_of(made) == values_of(original)


def test_a_long_value_of_a_short_representation_becomes_unknown(tmp_path: Path, pool: DecompressPool) -> None:
    dataset = dcmread(make_study(tmp_path, "A1", kinds={"implicit": 1})[0])
    dataset.add_new(0x00283002, "US", [1, 0, 16])
    dataset.add_new(0x00080070, "LO", "x" * 70_000)
    dataset.save_as(tmp_path / "long")
    made = made_of(tmp_path / "long", tmp_path, pool)
    assert made.get_item(0x00080070).value == b"x" * 70_000 and made.get_item(0x00080070).VR == "UN"


@pytest.mark.parametrize(("representation", "vr"), [(0, "US"), (1, "SS")])
def test_what_is_signed_is_told_by_its_own_image(
    tmp_path: Path, pool: DecompressPool, representation: int, vr: str
) -> None:
    """PS3.5 A.1: what Implicit VR leaves open follows Pixel Representation, of an icon the icon's own."""
    dataset = dcmread(make_study(tmp_path, "A1", kinds={"implicit": 1})[0])
    dataset.PixelRepresentation = representation
    icon = item(PixelRepresentation=1 - representation)
    icon.add_new(0x00280106, "US", 7)
    dataset.add_new(0x00280106, "US", 9)
    dataset.IconImageSequence = [icon]
    dataset.save_as(tmp_path / "signed")
    made = made_of(tmp_path / "signed", tmp_path, pool)
    assert vr == made[0x00280106].VR
    assert ("SS" if vr == "US" else "US") == made.IconImageSequence[0][0x00280106].VR


def test_negative_values_of_few_bits_have_their_sign_in_the_whole_word(tmp_path: Path, pool: DecompressPool) -> None:
    pixels = ramp(low=-2000, high=2000, kind="<i2")
    twelve = (pixels & 0xFFF).astype(np.uint16)
    encoded = LOSSLESS["1.2.840.10008.1.2.4.80"](twelve, 12)
    file = write(
        tmp_path / "packed", pixels, syntax="1.2.840.10008.1.2.4.80", fragments=[encoded], BitsStored=12, HighBit=11
    )
    assert made_of(file, tmp_path, pool).PixelData == pixels.tobytes()


@pytest.mark.parametrize(
    ("syntax", "said", "expected"),
    [
        (".50", None, ("01", "ISO_10918_1")),
        (".50", "00", ("01", "ISO_10918_1")),
        (".81", None, ("01", "ISO_14495_1")),
        (".81", "00", ("00", None)),
        (".80", None, (None, None)),
    ],
)
def test_that_something_was_lost_is_told_where_nothing_else_would(
    tmp_path: Path, pool: DecompressPool, syntax: str, said: str | None, expected: tuple[str | None, str | None]
) -> None:
    """PS3.3 C.7.6.1.1.5: once compressed with loss, always. Neither DCT nor near-lossless JPEG-LS shows afterwards."""
    pixels = ramp(high=255, kind="u1")
    encode = LOSSLESS["1.2.840.10008.1.2.4.80"] if syntax != ".50" else _jpeg
    attributes = {} if said is None else {"LossyImageCompression": said}
    full = f"1.2.840.10008.1.2.4{syntax}"
    made = made_of(
        write(tmp_path / "p", pixels, syntax=full, fragments=[encode(pixels, 8)], **attributes), tmp_path, pool
    )
    assert (made.get("LossyImageCompression"), made.get("LossyImageCompressionMethod")) == expected
    assert ("LossyImageCompressionRatio" in made) == (expected[1] is not None)


def _jpeg(pixels: NDArray[Any], _: int) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpeg8_encode(pixels, 90))


def jpeg_ls(folder: Path, **attributes: Any) -> Path:
    return write(
        folder / "packed",
        ramp(),
        syntax="1.2.840.10008.1.2.4.80",
        fragments=[LOSSLESS["1.2.840.10008.1.2.4.80"](ramp(), 12)],
        **{"BitsStored": 12, **attributes},
    )


def changed(folder: Path, change: Callable[[Dataset], object]) -> Path:
    dataset = dcmread(jpeg_ls(folder))
    change(dataset)
    dataset.save_as(folder / "packed")
    return folder / "packed"


def _cut(dataset: Dataset) -> None:
    dataset.PixelData = encapsulate([LOSSLESS["1.2.840.10008.1.2.4.80"](ramp(), 12)[:-900]])


def _two_images(dataset: Dataset) -> None:
    dataset.PixelData = encapsulate([LOSSLESS["1.2.840.10008.1.2.4.80"](ramp(), 12)] * 2)


def _with_icon(dataset: Dataset) -> None:
    icon = item(PixelData=encapsulate([LOSSLESS["1.2.840.10008.1.2.4.80"](ramp(), 12)]))
    icon["PixelData"].VR, icon["PixelData"].is_undefined_length = "OB", True
    dataset.IconImageSequence = [icon]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_cut, "damaged or cut short"),
        (_two_images, "damaged or cut short"),
        (lambda dataset: setattr(dataset, "NumberOfFrames", 2), "damaged or cut short"),
        (lambda dataset: setattr(dataset, "Rows", 65), "damaged or cut short"),
        (lambda dataset: setattr(dataset, "HighBit", 15), "no picture that is known"),
        (lambda dataset: setattr(dataset, "BitsAllocated", 8), "no picture that is known|damaged"),
        (lambda dataset: setattr(dataset, "PhotometricInterpretation", "YBR_PARTIAL_422"), "no picture that is known"),
        (lambda dataset: dataset.add_new(0xFFFAFFFA, "SQ", [item(MACIDNumber=1)]), "digital signature"),
        (_with_icon, "is compressed"),
    ],
)
def test_what_cant_be_had_whole_is_refused(
    tmp_path: Path, pool: DecompressPool, change: Callable[[Dataset], object], why: str
) -> None:
    file = changed(tmp_path, change)
    with pytest.raises(NotConvertible, match=why) as refused:
        converted(arrival_of(file), tmp_path / "made.dcm", pool)
    assert "Ask for the disc as it is archived" in refused.value.words
    assert "JPEG-LS Lossless" in refused.value.words and str(dcmread(file).SOPInstanceUID) in refused.value.words
    assert not list(tmp_path.glob("made*"))


def test_big_endian_pixels_that_programs_read_in_two_ways_are_refused(tmp_path: Path, pool: DecompressPool) -> None:
    with pytest.raises(NotConvertible, match="Programs differ"):
        converted(arrival_of(BUNDLED / "rtdose_expb.dcm"), tmp_path / "made.dcm", pool)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.94", "1.2.840.113619.5.2", "1.2.3"])
def test_a_syntax_without_a_decoder_is_refused_before_anything_is_made(tmp_path: Path, syntax: str) -> None:
    [file] = make_study(tmp_path / "study", "A1", kinds={"implicit": 1})
    arrival = arrival_of(file)
    with pytest.raises(NotConvertible, match="video" if syntax.endswith(".102") else "no decoder"):
        convert([arrival, replace(arrival, transfer_syntax_uid=syntax)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_decoder_that_dies_costs_the_disc_and_not_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(self: WorkerProcess, _: object) -> Iterator[object]:
        self.kill()
        yield from ask(self, _)

    ask: Callable[..., Iterator[object]] = WorkerProcess.ask
    monkeypatch.setattr(WorkerProcess, "ask", asked)
    with pytest.raises(NotConvertible, match="decoder failed"):
        convert([arrival_of(jpeg_ls(tmp_path))], tmp_path / "out")
    monkeypatch.undo()
    assert len(convert([arrival_of(jpeg_ls(tmp_path))], tmp_path / "out").of) == 1


def test_what_isnt_what_arrived_any_more_is_never_used(tmp_path: Path, pool: DecompressPool) -> None:
    arrival = arrival_of(jpeg_ls(tmp_path))
    dataset = dcmread(arrival.path)
    dataset.PatientID = "2"
    dataset.save_as(arrival.path)
    with pytest.raises(ProofFailed, match="isn't what it was when it arrived"):
        converted(arrival, tmp_path / "made.dcm", pool)
    assert not (tmp_path / "made.dcm").exists()


@pytest.mark.parametrize("kind", ["implicit", "big_endian", "deflated", "rt_plan", "jpeg_ls"])
def test_a_writer_that_changes_a_value_is_found_out(tmp_path: Path, pool: DecompressPool, kind: str) -> None:
    """A bit here and there, in each value that may not change."""
    [file] = make_study(tmp_path / "study", "A1", kinds={kind: 1})
    made = tmp_path / "made.dcm"
    arrival, good = arrival_of(file), converted(arrival_of(file), made, pool).path.read_bytes()
    may = frozenset(tag for name in CHANGED if (tag := tag_for_keyword(name))) if kind == "jpeg_ls" else frozenset()
    places = [place for tag, place in _places(dcmread(made)) if tag not in may]
    assert len(places) > 20
    for place in places:
        made.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises((ProofFailed, NotConvertible)):
            explicit._prove(arrival, made, may)
    made.write_bytes(good)
    explicit._prove(arrival, made, may)


def _places(dataset: Dataset) -> Iterator[tuple[int, int]]:
    """Where each value begins in the file, that has any."""
    for tag in set(dataset.keys()):
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement):
            if element.length:
                yield tag, element.value_tell
        elif element.VR == "SQ":
            for part in element.value:
                yield from _places(part)


def test_many_are_converted_and_what_is_right_already_stays(tmp_path: Path) -> None:
    files = make_study(tmp_path / "study", "A1001", kinds={**EVERY_KIND, "ct": 2})
    arrivals = [arrival_of(file) for file in files]
    told: list[tuple[int, int]] = []
    made = convert(arrivals, tmp_path / "out", lambda done, of: told.append((done, of)))
    others = [each for each in arrivals if each.transfer_syntax_uid != ExplicitVRLittleEndian]
    assert {each.transfer_syntax_uid for each in others} >= {ImplicitVRLittleEndian, ExplicitVRBigEndian}
    assert set(made.of) == {each.sha256 for each in others}
    assert told == [(number, len(others)) for number in range(1, len(others) + 1)]
    assert {each.transfer_syntax_uid for each in made.of.values()} == {ExplicitVRLittleEndian}
    assert {file.name for file in (tmp_path / "out").iterdir()} == {f"{each.sha256}.dcm" for each in others}
    for file in (tmp_path / "out").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    assert convert([each for each in arrivals if each not in others], tmp_path / "none") is AS_ARCHIVED


def test_each_transfer_syntax_that_is_converted_has_its_proof_here() -> None:
    judged = {str(dcmread(BUNDLED / name, stop_before_pixels=True).file_meta.TransferSyntaxUID) for name in
              (*COMPRESSED, *OTHER_ENCODINGS)}  # fmt: skip
    unproved = CONVERTIBLE - judged - LOSSLESS.keys() - {ExplicitVRLittleEndian}
    lossy = {f"1.2.840.10008.1.2.4.{number}" for number in (53, 55, 202, 111, 112)}
    assert unproved == lossy, "same decoders as others: retired JPEG, HTJ2K with another progression, JPEG XL with loss"


def test_a_disc_of_them_meets_the_base_profile(tmp_path: Path) -> None:
    """Every kind of image that there is, but for a retired SOP class."""
    files = make_study(tmp_path / "study", "A1001", kinds={kind: 1 for kind in EVERY_KIND if kind != "jpeg_ls"})
    studies = passed(instances(files))
    wanted = settings(tmp_path, disc={"transfer_syntax": "explicit-le"})
    with pytest.raises(ProofFailed, match="would have an image that isn't"):
        lay_out_set(studies, wanted, tmp_path / "none", created=CREATED, medium="cd")
    conversion = convert([each.arrival for each in studies.instances], tmp_path / "converted")
    disc_set = lay_out_set(studies, wanted, tmp_path / "disc", created=CREATED, medium="cd", conversion=conversion)
    [layout] = disc_set.layouts
    assert "meets the DICOM application profile STD-GEN-CD (PS3.11), and IHE Portable" in layout.conformance
    assert f"{len(conversion.of)} of {len(files)} images were stored otherwise" in layout.conformance
    image = tmp_path / "disc.iso"
    [proven] = prove(write_set(disc_set, ISO, [image])).discs
    assert proven.proof.files == len(layout.files)
    folder = extract(image, tmp_path / "extracted")
    report = check_disc(image)
    assert (report.findings, report.instances) == ((), len(files))
    assert {str(entry.file_meta.TransferSyntaxUID) for entry in map(dcmread, instances_on(folder).values())} == {
        ExplicitVRLittleEndian
    }
    records = dcmread(folder / "DICOMDIR").DirectoryRecordSequence
    told = {record.ReferencedTransferSyntaxUIDInFile for record in records if "ReferencedFileID" in record}
    assert told == {ExplicitVRLittleEndian}
    judge(image, folder)


def test_a_disc_is_divided_by_the_room_that_converted_images_take(tmp_path: Path) -> None:
    """12 images of 70 MB that came in a few kilobytes each."""
    frames = np.zeros((8448, 4096), np.uint16)
    encoded = LOSSLESS["1.2.840.10008.1.2.4.80"](frames, 16)
    files = []
    for number in range(12):
        file = write(tmp_path / f"{number}", frames, syntax="1.2.840.10008.1.2.4.80", fragments=[encoded])
        dataset = dcmread(file)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.InstanceNumber = "1.2.3", "1.2.3.4", number
        dataset.save_as(file)
        files.append(file)
    studies = passed(instances(files))
    conversion = Conversion(
        {each.arrival.sha256: replace(each.arrival, size=frames.nbytes) for each in studies.instances}
    )
    disc_set = lay_out_set(
        studies, settings(tmp_path), tmp_path / "disc", created=CREATED, medium="cd", conversion=conversion
    )
    assert [layout.instances for layout in disc_set.layouts] == [10, 2]
    laid_out = [file for layout in disc_set.layouts for file in layout.files if file.sop_instance_uid]
    assert {file.size for file in laid_out} == {frames.nbytes}


def test_the_size_is_reckoned_before_anything_is_converted(tmp_path: Path) -> None:
    """Never less than it becomes, and not much more."""
    found = instances(make_study(tmp_path / "study", "A1001", kinds=EVERY_KIND))
    made = convert([each.arrival for each in found], tmp_path / "converted").applied(found)
    for before, after in zip(reckoned(found), made, strict=True):
        if after.converted is None:
            assert before.converted is None
        else:
            assert after.converted.size <= before.on_disc.size < after.converted.size * 3

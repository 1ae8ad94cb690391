"""Every transfer syntax gives the picture that the same pixels give uncompressed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from mkiso.pictures.pool import PicturePool
from mkiso.pictures.render import render
from mkiso.pictures.values import NotShown, Picture, PictureRequest, Reason
from peers.corpus import BUNDLED
from tests.pictures.objects import ramp, rgb, write

Encoder = Callable[[NDArray[Any], int], bytes]
WINDOW: dict[str, Any] = {"WindowCenter": 1800, "WindowWidth": 2500}
GREY: dict[str, Any] = {"BitsStored": 12, **WINDOW}
YBR_FULL = {"PhotometricInterpretation": "YBR_FULL"}
SIGNED: dict[str, Any] = {"BitsStored": 16, "WindowCenter": 300, "WindowWidth": 2000}


def pixels_of(path: Path, folder: Path) -> list[NDArray[np.uint8]]:
    """Each frame's picture, decoded; every frame has one."""
    _, *found = render(PictureRequest(path, folder))
    assert all(isinstance(each, Picture) for each in found), found
    names = [each.file.name for each in found if isinstance(each, Picture)]
    return [np.asarray(imagecodecs.jpeg8_decode((folder / name).read_bytes())) for name in names]


def same(path: Path, other: Path, folder: Path, tolerance: float = 0) -> bool:
    """Whether two objects have the same picture, within a mean difference in grey levels."""
    (ours,), (theirs,) = pixels_of(path, folder), pixels_of(other, folder)
    assert theirs.std() > 5, "a flat picture proves nothing"
    return float(np.abs(ours.astype(float) - theirs.astype(float)).mean()) <= tolerance


def lossless_jpeg(pixels: NDArray[Any], bits: int) -> bytes:
    colours: dict[str, Any] = {"colorspace": "RGB", "outcolorspace": "RGB"} if pixels.ndim == 3 else {}
    return bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=bits, **colours))


def raw_deflate(pixels: NDArray[Any], bits: int) -> bytes:
    squeezer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeezer.compress(pixels.tobytes()) + squeezer.flush()


def jpeg_2000(pixels: NDArray[Any], bits: int) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, bitspersample=bits))


def lossy_jpeg_2000(pixels: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, 80, codecformat="j2k", reversible=False))


LOSSLESS: dict[str, Encoder] = {
    "1.2.840.10008.1.2.1.98": lambda pixels, bits: pixels.tobytes(),
    "1.2.840.10008.1.2.8.1": raw_deflate,
    "1.2.840.10008.1.2.4.57": lossless_jpeg,
    "1.2.840.10008.1.2.4.70": lossless_jpeg,
    "1.2.840.10008.1.2.4.80": lambda pixels, bits: bytes(imagecodecs.jpegls_encode(pixels)),
    "1.2.840.10008.1.2.4.90": jpeg_2000,
    "1.2.840.10008.1.2.4.110": lambda pixels, bits: bytes(imagecodecs.jpegxl_encode(pixels, lossless=True)),
    "1.2.840.10008.1.2.4.201": lambda pixels, bits: bytes(imagecodecs.htj2k_encode(pixels, reversible=True)),
    "1.2.840.10008.1.2.4.203": lambda pixels, bits: bytes(imagecodecs.htj2k_encode(pixels, reversible=True)),
}


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_a_lossless_syntax_changes_nothing(tmp_path: Path, syntax: str) -> None:
    encode = LOSSLESS[syntax]
    for number, (pixels, stored, attributes) in enumerate([(ramp(), 12, GREY), (rgb(), 8, {})]):
        plain = write(tmp_path / f"plain{number}", pixels, **attributes)
        packed = write(
            tmp_path / f"packed{number}", pixels, syntax=syntax, fragments=[encode(pixels, stored)], **attributes
        )
        assert same(packed, plain, tmp_path), attributes
    signed = ramp(low=-2000, high=3000, kind="<i2")
    plain = write(tmp_path / "plain", signed, **SIGNED)
    words = signed if syntax.endswith((".90", ".201", ".203")) else signed.view(np.uint16)  # only JPEG 2000 has a sign
    packed = write(tmp_path / "packed", signed, syntax=syntax, fragments=[encode(words, 16)], **SIGNED)
    assert same(packed, plain, tmp_path)


@pytest.mark.parametrize(
    ("syntax", "encode", "pixels", "attributes"),
    [
        (".50", lambda pixels: imagecodecs.jpeg8_encode(pixels, 95), ramp(high=255, kind="u1"), {}),
        (".50", lambda pixels: imagecodecs.jpeg8_encode(pixels, 95, subsampling="444"), rgb(), YBR_FULL),
        (".51", lambda pixels: imagecodecs.jpeg8_encode(pixels, 95, bitspersample=12), ramp(), GREY),
        (".81", lambda pixels: imagecodecs.jpegls_encode(pixels, 2), ramp(), GREY),
        (".91", lossy_jpeg_2000, ramp(), GREY),
        (".91", lossy_jpeg_2000, rgb(), {"PhotometricInterpretation": "YBR_ICT"}),
        (".112", lambda pixels: imagecodecs.jpegxl_encode(pixels, 98), rgb(), {}),
    ],
)  # fmt: skip
def test_a_lossy_syntax_changes_little(
    tmp_path: Path,
    syntax: str,
    encode: Callable[[NDArray[Any]], bytes],
    pixels: NDArray[Any],
    attributes: dict[str, Any],
) -> None:
    plain = write(
        tmp_path / "plain",
        pixels,
        **{**attributes, "PhotometricInterpretation": "RGB" if pixels.ndim == 3 else "MONOCHROME2"},
    )
    packed = write(
        tmp_path / "packed",
        pixels,
        syntax=f"1.2.840.10008.1.2.4{syntax}",
        fragments=[bytes(encode(pixels))],
        **attributes,
    )
    assert same(packed, plain, tmp_path, tolerance=4)


@pytest.mark.parametrize("kind", ["u1", "<u2"])
def test_rle_changes_nothing(tmp_path: Path, kind: str) -> None:
    top = int(np.iinfo(kind).max)
    plain = write(tmp_path / "plain", ramp(high=top, kind=kind), WindowCenter=top / 2, WindowWidth=top)
    dataset = dcmread(plain)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "packed")
    assert same(tmp_path / "packed", plain, tmp_path)


def test_rle_segments_may_be_padded(tmp_path: Path) -> None:
    """An odd plane is often padded to an even length before it is packed."""
    pixels = rgb()[:63, :95].copy()
    segments = [imagecodecs.packbits_encode(pixels[:, :, sample].tobytes() + b"\0") for sample in range(3)]
    starts = np.cumsum([64, *map(len, segments)])[:3]
    head = np.array([3, *starts, *[0] * 12], "<u4").tobytes()
    packed = write(tmp_path / "packed", pixels, syntax=RLELossless, fragments=[head + b"".join(segments)])
    assert same(packed, write(tmp_path / "plain", pixels), tmp_path)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, "1.2.840.10008.1.2.1.99"])
def test_the_encoding_of_a_data_set_changes_nothing(tmp_path: Path, syntax: str) -> None:
    plain = write(tmp_path / "plain", ramp(), **GREY)
    pixels = ramp().byteswap() if syntax == ExplicitVRBigEndian else ramp()
    assert same(write(tmp_path / "other", pixels, syntax=syntax, **GREY), plain, tmp_path)


def test_bytes_in_big_endian_words_are_put_right(tmp_path: Path) -> None:
    plain, big = BUNDLED / "SC_rgb_small_odd.dcm", BUNDLED / "SC_rgb_small_odd_big_endian.dcm"
    assert dcmread(big)["PixelData"].VR == "OW"
    assert same(big, plain, tmp_path)


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_floats_are_windowed(tmp_path: Path, kind: str) -> None:
    values = ramp().astype(kind) / 4096
    keyword = "FloatPixelData" if kind == "<f4" else "DoubleFloatPixelData"
    attributes: dict[str, Any] = {
        keyword: values.tobytes(),
        "WindowCenter": 0.5,
        "WindowWidth": 0.5,
        "VOILUTFunction": "LINEAR_EXACT",
    }
    floats = write(tmp_path / "floats", values, **attributes)
    integers = write(tmp_path / "integers", ramp(), WindowCenter=2048, WindowWidth=2048, VOILUTFunction="LINEAR_EXACT")
    assert same(floats, integers, tmp_path)


def test_what_is_not_a_number_is_black(tmp_path: Path) -> None:
    values = ramp().astype("<f4")
    values[:32] = np.nan
    path = write(tmp_path / "image", values, FloatPixelData=values.tobytes(), **WINDOW)
    (pixels,) = pixels_of(path, tmp_path)
    assert pixels[:24].max() < 16
    assert pixels[40:].mean() > 50


def fragmented(path: Path, frames: list[bytes], offsets: str) -> None:
    """Each frame in two fragments, found by a Basic Offset Table, an Extended one, or the ends of the images."""
    dataset = dcmread(path)
    if offsets == "extended":
        dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(
            frames
        )
    else:
        dataset.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=offsets == "basic")
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)


@pytest.mark.parametrize("offsets", ["basic", "extended", "none"])
def test_frames_are_found_in_their_fragments(tmp_path: Path, offsets: str) -> None:
    frames = [ramp(), ramp()[::-1].copy(), ramp()[:, ::-1].copy()]
    form: dict[str, Any] = {
        "Rows": 64,
        "Columns": 96,
        "NumberOfFrames": 3,
        "BitsAllocated": 16,
        "PixelRepresentation": 0,
        **GREY,
    }
    plain = write(tmp_path / "plain", np.stack(frames).tobytes(), **form)
    encoded = [bytes(imagecodecs.jpegls_encode(frame)) for frame in frames]
    packed = write(tmp_path / "packed", b"", syntax="1.2.840.10008.1.2.4.80", fragments=encoded, **form)
    fragmented(packed, encoded, offsets)
    for ours, theirs in zip(pixels_of(packed, tmp_path), pixels_of(plain, tmp_path), strict=True):
        assert (ours == theirs).all()


@pytest.mark.parametrize("syntax", [*LOSSLESS, "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_stream_that_is_cut_short_is_damaged(tmp_path: Path, syntax: str, part: float) -> None:
    """Some decoders show what is there and say nothing."""
    pixels = ramp() if syntax.endswith(".51") else ramp(high=255, kind="u1")
    bits: dict[str, Any] = {"bitspersample": 12} if syntax.endswith(".51") else {}
    encoded = LOSSLESS[syntax](pixels, 8) if syntax in LOSSLESS else bytes(imagecodecs.jpeg8_encode(pixels, 90, **bits))
    whole = write(tmp_path / "whole", pixels, syntax=syntax, fragments=[encoded])
    cut = write(tmp_path / "cut", pixels, syntax=syntax, fragments=[encoded[: int(len(encoded) * part)]])
    assert pixels_of(whole, tmp_path)
    *_, found = render(PictureRequest(cut, tmp_path))
    assert found == NotShown(1, Reason.DAMAGED)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "twin", "tolerance"),
    [
        ("MR_small_jp2klossless.dcm", "MR_small.dcm", 0),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm", 0),
        ("MR_small_RLE.dcm", "MR_small.dcm", 0),
        ("rtdose_expb_1frame.dcm", "rtdose_1frame.dcm", 0),
        ("SC_rgb_gdcm_KY.dcm", "SC_rgb_rle.dcm", 1),
    ],
)
def test_bundled_twins_look_alike(tmp_path: Path, name: str, twin: str, tolerance: float) -> None:
    assert same(BUNDLED / name, BUNDLED / twin, tmp_path, tolerance)


def test_every_decoder_works_within_a_workers_limits(tmp_path: Path) -> None:
    """768 MiB of address space are enough for a radiograph of 16 million pixels."""
    large = np.tile(ramp(512, 512), (8, 8))
    with PicturePool(tmp_path, tmp_path, 1) as pool:
        for number, (syntax, encode) in enumerate(LOSSLESS.items()):
            path = write(tmp_path / "image", large, syntax=syntax, fragments=[encode(large, 12)], **GREY)
            result = pool.begin(pool.render, PictureRequest(path, tmp_path, number=number + 1)).result()
            assert [picture.shrunk for picture in result.pictures] == [2], (syntax, result.not_shown)

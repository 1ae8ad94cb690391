"""Pictures beside dcmtk's of the same object in the same window."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import config, dcmread
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from mkiso.pictures import jpeg
from mkiso.pictures.render import render
from mkiso.pictures.values import Function, NotShown, ObjectFacts, Picture, PictureRequest, Shown
from peers.corpus import BUNDLED
from peers.patience import LONG
from tests.pictures.objects import item, ramp, rgb, sequence, write

pytestmark = pytest.mark.peer

GREY_LEVELS = 1.0  # the mean difference allowed: JPEG at quality 100 alone makes about 0.3
COLOUR_LEVELS = 1.0  # YCbCr in JPEG is rounded twice: at most 0.7

IS_OLD = shutil.which("dcm2img") is None  # dcmtk before 3.6.9; it shows 1 bit otherwise than later ones
JPEG_LS = (JPEGLSLossless, JPEGLSNearLossless)
Judged = tuple[Picture, NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(autouse=True)
def finest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged is the grey values, not the loss of a small JPEG."""
    monkeypatch.setattr(jpeg, "QUALITY", 100)
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)


def judged(path: Path, folder: Path, **wanted: Any) -> list[Judged]:
    """Each frame's picture, its pixels, and dcmtk's."""
    found = list(render(PictureRequest(path, folder, **wanted)))
    assert isinstance(found[0], ObjectFacts)
    pictures = [picture for picture in found[1:] if isinstance(picture, Picture)]
    assert len(pictures) == len(found) - 1, [each.reason for each in found[1:] if isinstance(each, NotShown)]
    return [(picture, decoded(folder / picture.file.name), dcmtk_pixels(path, picture, folder)) for picture in pictures]


def decoded(path: Path) -> NDArray[np.uint8]:
    return np.asarray(imagecodecs.jpeg8_decode(path.read_bytes()))


def dcmtk_pixels(path: Path, picture: Picture, folder: Path) -> NDArray[np.uint8]:
    """What dcm2img (before dcmtk 3.6.9 dcmj2pnm, and dcml2pnm for JPEG-LS) makes of a frame in the window that the
    picture says it has.
    """
    window = picture.look.window
    options = ["+Wl", "1"] if picture.look.shown is Shown.VOI_LUT else []
    if window and picture.look.shown is not Shown.FULL_RANGE:
        options = [
            "+Ww",
            str(window.centre),
            str(window.width),
            "+Wfs" if window.function is Function.SIGMOID else "+Wfl",
        ]
    target = folder / "dcmtk.pnm"
    program = "dcm2img"
    if IS_OLD:
        syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
        program = "dcml2pnm" if syntax in JPEG_LS else "dcmj2pnm"
    command = [program, "-q", "+F", str(picture.frame), "+op", *options, str(path), str(target)]
    done = subprocess.run(command, capture_output=True, timeout=LONG, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return pnm(target.read_bytes())


def pnm(content: bytes) -> NDArray[np.uint8]:
    """A binary PGM or PPM (P5, P6)."""
    fields: list[bytes] = []
    position = 0
    while len(fields) < 4:
        line_end = content.index(b"\n", position)
        line = content[position:line_end]
        position = line_end + 1
        if not line.startswith(b"#"):
            fields += line.split()
    columns, rows = int(fields[1]), int(fields[2])
    pixels = np.frombuffer(content, np.uint8, offset=position)
    return pixels.reshape((rows, columns) if fields[0] == b"P5" else (rows, columns, 3))


def difference(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> float:
    if theirs.ndim == 3 and ours.ndim == 2:
        ours = np.repeat(ours[:, :, None], 3, axis=2)
    if ours.ndim == 3 and theirs.ndim == 2:
        theirs = np.repeat(theirs[:, :, None], 3, axis=2)
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(float) - theirs.astype(float)).mean())


# Files of pydicom's whose pictures dcmtk can't judge, and why.
NOT_JUDGED = {
    **dict.fromkeys(
        (
            "693_J2KI.dcm",
            "GDCMJ2K_TextGBR.dcm",
            "J2K_pixelrep_mismatch.dcm",
            "JPEG2000.dcm",
            "MR_small_jp2klossless.dcm",
            "SC_rgb_gdcm_KY.dcm",
            "examples_jpeg2k.dcm",
            "JPEG2000-embedded-sequence-delimiter.dcm",
        ),
        "dcmtk has no JPEG 2000: test_decoders.py",
    ),
    "SC_rgb_jpeg.dcm": "its data set is implicit in an explicit transfer syntax; dcmtk doesn't read it",
    "rtdose_expb.dcm": "dcmtk swaps the halves of big endian words of 32 bits; its little endian twin is judged",
    "rtdose_expb_1frame.dcm": "as rtdose_expb.dcm",
    "MR_truncated.dcm": "its pixels are cut short; dcmtk shows what is left",
}


def bundled() -> list[Path]:
    return sorted(
        file for file in BUNDLED.rglob("*") if file.is_file() and file.name not in NOT_JUDGED and has_pixels(file)
    )


def has_pixels(file: Path) -> bool:
    try:
        dataset = dcmread(file)
    except Exception:
        return False
    return (
        "TransferSyntaxUID" in dataset.file_meta
        and "Rows" in dataset
        and any(keyword in dataset for keyword in ("PixelData", "FloatPixelData"))
    )


@pytest.mark.filterwarnings("ignore")
def test_every_bundled_image_looks_as_dcmtk_shows_it(tmp_path: Path) -> None:
    files = bundled()
    assert len(files) >= 78
    frames = 0
    for file in files:
        if IS_OLD and dcmread(file, stop_before_pixels=True).BitsAllocated == 1:
            continue
        for picture, ours, theirs in judged(file, tmp_path):
            frames += 1
            allowed = COLOUR_LEVELS if ours.ndim == 3 else GREY_LEVELS
            assert difference(ours, theirs) < allowed, (file.name, picture.frame, difference(ours, theirs))
    assert frames >= 140 or IS_OLD


def test_not_judged_is_only_what_there_is() -> None:
    assert {file.name for file in BUNDLED.rglob("*")} >= set(NOT_JUDGED)


def reds() -> dict[str, Any]:
    """A palette from black over red to white, in 16 bits."""
    red = np.minimum(np.arange(256) * 2, 255).astype("<u2") * 257
    other = np.maximum(np.arange(256) * 2 - 256, 0).astype("<u2") * 257
    return palette(256, 16, red.tobytes(), other.tobytes(), other.tobytes())


def palette(entries: int, bits: int, red: bytes, green: bytes, blue: bytes, first: int = 0) -> dict[str, Any]:
    colours: dict[str, Any] = {"Red": red, "Green": green, "Blue": blue}
    descriptors = {f"{colour}PaletteColorLookupTableDescriptor": [entries, first, bits] for colour in colours}
    return descriptors | {f"{colour}PaletteColorLookupTableData": data for colour, data in colours.items()}


def gamma(entries: int, bits: int) -> bytes:
    """A table that brightens, of words of so many bits."""
    return (
        np.minimum(np.rint((1 << bits) * (np.arange(entries) / entries) ** 0.5), (1 << bits) - 1)
        .astype("<u2")
        .tobytes()
    )


def overlay_bits(rows: int, columns: int) -> bytes:
    bits = np.zeros((rows, columns), np.uint8)
    bits[rows // 4 : rows // 2, columns // 4 : columns // 2] = 1
    return np.packbits(bits.reshape(-1), bitorder="little").tobytes()


def ybr_422(rows: int, columns: int) -> bytes:
    pairs = np.empty((rows, columns // 2, 4), np.uint8)
    pairs[:, :, 0] = pairs[:, :, 1] = np.linspace(20, 230, columns // 2)
    pairs[:, :, 2], pairs[:, :, 3] = np.linspace(60, 200, rows)[:, None], np.linspace(200, 60, rows)[:, None]
    return pairs.tobytes()


PLAIN = {"Rows": 64, "Columns": 96, "PixelRepresentation": 0}
BYTES = {**PLAIN, "BitsAllocated": 8, "BitsStored": 8, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
BIT = {"BitsAllocated": 1, "BitsStored": 1, "PixelRepresentation": 0}
PALETTE = {"PhotometricInterpretation": "PALETTE COLOR"}
CT = {"RescaleIntercept": -1024, "RescaleSlope": 1, "BitsStored": 12}
TWELVE = {"BitsStored": 12}
WINDOW: dict[str, Any] = {"BitsStored": 12, "WindowCenter": 1800, "WindowWidth": 2500}
EIGHT_BITS = palette(256, 8, bytes(range(256)), bytes(reversed(range(256))), bytes(256))
LATE = palette(256, 8, bytes(range(256)), bytes(reversed(range(256))), bytes(256), first=1000)


def in_bits(*frames: NDArray[Any]) -> bytes:
    return np.packbits(np.concatenate([frame.reshape(-1) for frame in frames]), bitorder="little").tobytes()


def lut(first: int, bits: int, data: bytes, **attributes: Any) -> Any:
    return sequence(LUTDescriptor=[len(data) // 2, first, bits], LUTData=data, **attributes)


def smooth() -> NDArray[Any]:
    """Colour without edges, which JPEG keeps."""
    down, across = np.mgrid[0:64, 0:96]
    return np.ascontiguousarray(np.stack([down * 3, across * 2, (down + across) * 3 // 2], axis=2).astype("u1"))


def jpeg_of(pixels: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(pixels, level=95, subsampling="444"))


def lossless(pixels: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=16))


def jpeg_ls(pixels: NDArray[Any], near: int = 0) -> bytes:
    return bytes(imagecodecs.jpegls_encode(pixels, level=near))


def rle(pixels: NDArray[Any]) -> bytes:
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    form: dict[str, Any] = {
        **{"rows": pixels.shape[0], "columns": pixels.shape[1], "samples_per_pixel": samples, "number_of_frames": 1},
        **{"bits_allocated": 8, "bits_stored": 8, "pixel_representation": 0, "planar_configuration": 0},
        "photometric_interpretation": "RGB" if samples == 3 else "MONOCHROME2",
    }
    return get_encoder(RLELossless).encode(pixels, **form)


SMOOTH: dict[str, Any] = {"syntax": JPEGBaseline8Bit}

MADE: dict[str, tuple[NDArray[Any] | bytes, dict[str, Any]]] = {
    "12 bits": (ramp(), WINDOW),
    "12 bits, at the upper end of the word": (ramp() << 4, {**WINDOW, "HighBit": 15}),
    "MONOCHROME1": (ramp(), {**WINDOW, "PhotometricInterpretation": "MONOCHROME1"}),
    "MONOCHROME1, no window": (ramp(), {**TWELVE, "PhotometricInterpretation": "MONOCHROME1"}),
    "signed, 16 bits": (ramp(low=-2000, high=3000, kind="<i2"), {"WindowCenter": 300, "WindowWidth": 2000}),
    "signed, 12 bits in 16": (
        ramp(low=-2000, high=2000, kind="<i2") & 0x0FFF,
        {**WINDOW, "WindowCenter": 0, "PixelRepresentation": 1},
    ),
    "signed, 8 bits": (ramp(low=-128, high=127, kind="i1"), {}),
    "rescaled": (ramp(), {**CT, "WindowCenter": 40, "WindowWidth": 400}),
    "rescaled by a fraction": (ramp(), {**WINDOW, "RescaleIntercept": -12.5, "RescaleSlope": "0.73"}),
    "width of 1": (ramp(), {**TWELVE, "WindowCenter": 2000, "WindowWidth": 1}),
    "SIGMOID": (ramp(), {**WINDOW, "VOILUTFunction": "SIGMOID"}),
    "several windows": (ramp(), {**TWELVE, "WindowCenter": [1800, 400], "WindowWidth": [2500, 100]}),
    "Modality LUT": (
        ramp(high=255, kind="u1"),
        {
            "ModalityLUTSequence": lut(0, 16, gamma(256, 15), ModalityLUTType="US"),
            "WindowCenter": 16000,
            "WindowWidth": 30000,
        },
    ),
    "VOI LUT of 12 bits": (ramp(), {**TWELVE, "VOILUTSequence": lut(0, 12, gamma(4096, 12))}),
    "VOI LUT that begins late": (ramp(), {**TWELVE, "VOILUTSequence": lut(1500, 16, gamma(1000, 16))}),
    "VOI LUT of rescaled values": (ramp(), {**CT, "VOILUTSequence": lut(0x10000 - 1024, 8, gamma(2048, 8))}),
    "1 bit": (in_bits(ramp(high=1, kind="u1")), {**PLAIN, **BIT}),
    "32 bits": (ramp(high=2**31, kind="<u4"), {"WindowCenter": 2**30, "WindowWidth": 2**30}),
    "PALETTE COLOR of 16 bits": (ramp(high=255, kind="u1"), {**PALETTE, **reds()}),
    "PALETTE COLOR of 8 bits": (ramp(high=255, kind="u1"), {**PALETTE, **EIGHT_BITS}),
    "PALETTE COLOR, a late first entry": (ramp(high=4095), {**PALETTE, **TWELVE, **LATE}),
    "RGB": (rgb(), {}),
    "RGB by planes": (
        np.moveaxis(rgb(), 2, 0).tobytes(),
        {**BYTES, "PlanarConfiguration": 1, "PhotometricInterpretation": "RGB"},
    ),
    "RGB of 16 bits": (rgb("<u2"), {}),
    "YBR_FULL": (rgb(), {"PhotometricInterpretation": "YBR_FULL"}),
    "YBR_FULL_422": (ybr_422(64, 96), {**BYTES, "PhotometricInterpretation": "YBR_FULL_422"}),
    "several frames": (
        np.stack([ramp(), ramp()[::-1], ramp()[:, ::-1]]).tobytes(),
        {**PLAIN, **WINDOW, "BitsAllocated": 16, "NumberOfFrames": 3},
    ),
    "frames of 1 bit that begin within a byte": (
        in_bits(*[ramp(5, 7, high=1, kind="u1")] * 3),
        {**BIT, "Rows": 5, "Columns": 7, "NumberOfFrames": 3},
    ),
    "overlay": (ramp(), {**WINDOW, "Overlay": overlay_bits(64, 96)}),
    "10 bits": (ramp(high=1023), {"BitsStored": 10, "WindowCenter": 500, "WindowWidth": 800}),
    "16 bits": (ramp(high=65535), {"WindowCenter": 30000, "WindowWidth": 50000}),
    "LINEAR_EXACT": (ramp(), {**WINDOW, "VOILUTFunction": "LINEAR_EXACT"}),
    "Presentation LUT Shape INVERSE": (
        ramp(),
        {**WINDOW, "PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    ),
    "pixels that aren't square": (ramp(), {**WINDOW, "PixelAspectRatio": [2, 1]}),
    "implicit VR": (ramp(), {**WINDOW, "syntax": ImplicitVRLittleEndian}),
    "big endian": (
        ramp().byteswap().tobytes(),
        {**PLAIN, **WINDOW, "BitsAllocated": 16, "syntax": ExplicitVRBigEndian},
    ),
    "deflated": (ramp(), {**WINDOW, "syntax": DeflatedExplicitVRLittleEndian}),
    "JPEG Baseline, grey": (ramp(high=255, kind="u1"), {"fragments": [jpeg_of(ramp(high=255, kind="u1"))], **SMOOTH}),
    "JPEG Baseline, colour": (
        rgb(),
        {"fragments": [jpeg_of(smooth())], **SMOOTH, "PhotometricInterpretation": "YBR_FULL"},
    ),
    "JPEG Lossless, 16 bits": (
        ramp(high=65535),
        {
            "fragments": [lossless(ramp(high=65535))],
            "syntax": JPEGLosslessSV1,
            "WindowCenter": 30000,
            "WindowWidth": 50000,
        },
    ),
    "JPEG-LS Lossless": (ramp(), {**WINDOW, "fragments": [jpeg_ls(ramp())], "syntax": JPEGLSLossless}),
    "JPEG-LS Near-Lossless": (ramp(), {**WINDOW, "fragments": [jpeg_ls(ramp(), 3)], "syntax": JPEGLSNearLossless}),
    "RLE": (ramp(high=255, kind="u1"), {"fragments": [rle(ramp(high=255, kind="u1"))], "syntax": RLELossless}),
    "RLE, colour": (rgb(), {"fragments": [rle(rgb())], "syntax": RLELossless}),
    "overlay in the pixels' unused bits": (ramp() | (ramp(high=1) << 15), {**WINDOW, "Overlay": b""}),
}


@pytest.mark.parametrize("kind", MADE)
def test_every_pixel_form_looks_as_dcmtk_shows_it(tmp_path: Path, kind: str) -> None:
    pixels, attributes = MADE[kind]
    if IS_OLD and attributes.get("BitsAllocated") == 1:
        pytest.skip("this dcmtk shows 1 bit otherwise than later ones")
    overlay = attributes.get("Overlay")
    path = write(
        tmp_path / "image", pixels, **{keyword: value for keyword, value in attributes.items() if keyword != "Overlay"}
    )
    if overlay is not None:
        add_overlay(path, overlay)
    frames = judged(path, tmp_path)
    assert len(frames) == attributes.get("NumberOfFrames", 1)
    for _, ours, theirs in frames:
        assert theirs.std() > 5, "a flat picture judges nothing"
        assert difference(ours, theirs) < (COLOUR_LEVELS if theirs.ndim == 3 else GREY_LEVELS)


def test_the_corpus_has_at_least_forty_kinds() -> None:
    assert len(MADE) >= 40


def add_overlay(path: Path, bits: bytes) -> None:
    dataset = dcmread(path)
    dataset.add_new(0x60000010, "US", dataset.Rows)
    dataset.add_new(0x60000011, "US", dataset.Columns)
    dataset.add_new(0x60000040, "CS", "G")
    dataset.add_new(0x60000050, "SS", [1, 1])
    dataset.add_new(0x60000100, "US", 1 if bits else 16)
    dataset.add_new(0x60000102, "US", 0 if bits else 15)
    if bits:
        dataset.add_new(0x60003000, "OW", bits)
    dataset.save_as(path)


def test_the_judge_sees_a_wrong_window(tmp_path: Path) -> None:
    path = write(tmp_path / "image", ramp(), **WINDOW)
    ((picture, ours, _),) = judged(path, tmp_path)
    other = write(tmp_path / "other", ramp(), BitsStored=12, WindowCenter=1750, WindowWidth=2500)
    assert difference(ours, dcmtk_pixels(other, picture, tmp_path)) < GREY_LEVELS, "the same values in the same window"
    ((_, shifted, _),) = judged(other, tmp_path)
    assert difference(ours, shifted) > GREY_LEVELS


def test_a_window_of_each_frame(tmp_path: Path) -> None:
    """Enhanced: a functional group each, and dcmtk judges by the window given."""
    groups = [item(FrameVOILUTSequence=sequence(WindowCenter=centre, WindowWidth=500)) for centre in (600, 2600)]
    path = write(
        tmp_path / "image",
        np.stack([ramp(), ramp()]).tobytes(),
        Rows=64,
        Columns=96,
        BitsAllocated=16,
        BitsStored=12,
        PixelRepresentation=0,
        NumberOfFrames=2,
        PerFrameFunctionalGroupsSequence=groups,
        SharedFunctionalGroupsSequence=sequence(
            PixelValueTransformationSequence=sequence(RescaleSlope=1, RescaleIntercept=0)
        ),
    )
    frames = judged(path, tmp_path)
    assert [picture.look.window.centre for picture, _, _ in frames if picture.look.window] == [600, 2600]
    for _, ours, theirs in frames:
        assert difference(ours, theirs) < GREY_LEVELS

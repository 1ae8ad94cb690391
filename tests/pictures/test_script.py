"""The values of a frame as a script: read back as a browser reads them, from a page opened as a file."""

from __future__ import annotations

import base64
import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from mkiso.pictures import jpeg
from mkiso.pictures.grey import windowed
from mkiso.pictures.render import render
from mkiso.pictures.values import Picture, PictureRequest
from peers.chromium import Chromium
from peers.corpus import BUNDLED
from tests.pictures.objects import ramp, rgb, sequence, write
from tests.pictures.test_judged import decoded
from tests.pictures.test_presentation import state_for

PAGE = """<!doctype html><script>
var result = null;
async function mkisoPixels(frame) {
  var bytes = Uint8Array.from(atob(frame.data), function (c) { return c.charCodeAt(0); });
  var stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  var flat = new Uint8Array(await new Response(stream).arrayBuffer()), count = frame.rows * frame.columns;
  var values = frame.signed ? new Int16Array(count) : new Uint16Array(count);
  for (var i = 0; i < count; i++) {
    var word = flat[i] | flat[count + i] << 8;
    var before = i % frame.columns ? values[i - 1] : i ? values[i - frame.columns] : 0;
    values[i] = before + ((word >>> 1) ^ -(word & 1));
  }
  result = Array.from(values, function (value) { return value * frame.slope + frame.intercept; });
}
</script><script src="D0000001.JS"></script>"""


def made(path: Path, folder: Path, state: Path | None = None) -> dict[str, Any]:
    """What the script hands over."""
    _, picture = render(PictureRequest(path, folder, script=True, presentation=state))
    assert isinstance(picture, Picture) and picture.script
    content = (folder / picture.script.name).read_bytes()
    assert picture.script.size == len(content)
    match = re.fullmatch(rb"mkisoPixels\((\{.*\})\);\n", content)
    assert match and content.isascii()
    frame: dict[str, Any] = json.loads(match[1])
    return frame


def values_of(frame: dict[str, Any]) -> NDArray[np.float64]:
    """The values as windows see them."""
    flat = np.frombuffer(zlib.decompress(base64.b64decode(frame["data"])), np.uint8).reshape(2, -1).astype(np.int32)
    words = flat[0] | flat[1] << 8
    differences = ((words >> 1) ^ -(words & 1)).reshape(frame["rows"], frame["columns"])
    first = np.cumsum(differences[:, 0])
    values = np.cumsum(np.column_stack([first, differences[:, 1:]]), axis=1)
    wrapped = values.astype(np.int16 if frame["signed"] else np.uint16).astype(np.float64)
    result: NDArray[np.float64] = wrapped * frame["slope"] + frame["intercept"]
    return result


@pytest.mark.parametrize(
    ("pixels", "attributes", "expected"),
    [
        (ramp(), {"BitsStored": 12, "RescaleSlope": 2, "RescaleIntercept": -1024}, ramp() * 2.0 - 1024),
        (ramp(low=-32768, high=32767, kind="<i2"), {}, ramp(low=-32768, high=32767, kind="<i2")),
        (ramp(high=65535), {}, ramp(high=65535)),
        (ramp() << 4, {"BitsStored": 12, "HighBit": 15}, ramp()),
        (ramp(high=255, kind="u1"), {}, ramp(high=255, kind="u1")),
        (ramp(low=-128, high=127, kind="i1"), {}, ramp(low=-128, high=127, kind="i1")),
        (
            ramp(high=255, kind="u1"),
            {
                "ModalityLUTSequence": sequence(
                    LUTDescriptor=[256, 0, 16], LUTData=(np.arange(256, dtype="<u2") * 200).tobytes()
                )
            },
            ramp(high=255, kind="u1") * 200.0,
        ),
    ],
    ids=["rescaled", "signed", "all 16 bits", "shifted", "8 bits", "signed 8 bits", "Modality LUT"],
)
def test_a_script_holds_every_value(
    tmp_path: Path, pixels: NDArray[Any], attributes: dict[str, Any], expected: NDArray[Any]
) -> None:
    frame = made(write(tmp_path / "image", pixels, **attributes), tmp_path)
    assert (values_of(frame) == expected).all()
    assert frame["name"] == "D0000001.JS"


def test_a_script_says_how_to_show_its_values(tmp_path: Path) -> None:
    path = write(
        tmp_path / "image", ramp(), BitsStored=12, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=7
    )
    frame = made(path, tmp_path)
    assert (frame["inverse"], frame["padding"]) == (True, [7, 7])


@pytest.mark.parametrize("pixels", [rgb(), ramp(high=2**31, kind="<u4")], ids=["colour", "32 bits"])
def test_what_a_script_cannot_hold_has_none(tmp_path: Path, pixels: NDArray[Any]) -> None:
    _, picture = render(PictureRequest(write(tmp_path / "image", pixels), tmp_path, script=True))
    assert isinstance(picture, Picture) and picture.script is None


STATES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "turned": {"ImageRotation": 90, "ImageHorizontalFlip": "N"},
    "turned and mirrored": {"ImageRotation": 270, "ImageHorizontalFlip": "Y"},
    "inverse": {"PresentationLUTShape": "INVERSE"},
    "of other values": {"RescaleSlope": 2, "RescaleIntercept": -500, "RescaleType": "US"},
}


@pytest.mark.parametrize("state", STATES)
def test_values_shown_by_a_state_give_the_picture_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(jpeg, "QUALITY", 100)
    image = write(tmp_path / "image", ramp(), BitsStored=12, WindowCenter=1500, WindowWidth=2000)
    shown = state_for(image, **STATES[state])
    frame = made(image, tmp_path, shown)
    _, picture = render(PictureRequest(image, tmp_path, presentation=shown))
    assert isinstance(picture, Picture) and picture.look.window
    assert (frame["columns"], frame["rows"]) == (picture.file.width, picture.file.height)
    grey = np.clip(windowed(values_of(frame), picture.look.window), 0, 1) * 255
    found = decoded(tmp_path / picture.file.name)
    assert np.abs((255 - grey if frame["inverse"] else grey) - found).mean() < 1


@pytest.mark.parametrize("painted", ["a table", "an overlay of the image", "an overlay of the state"])
def test_what_values_alone_do_not_show_has_none(tmp_path: Path, painted: str) -> None:
    """A viewer would show another picture than that of the disc."""
    image = write(tmp_path / "image", ramp(), BitsStored=12, WindowCenter=1500, WindowWidth=2000)
    table = sequence(LUTDescriptor=[256, 0, 16], LUTData=(np.arange(256, dtype="<u2")[::-1] * 257).tobytes())
    state = state_for(image, **({"PresentationLUTSequence": table} if painted == "a table" else {}))
    if "overlay" in painted:
        path = image if "image" in painted else state
        drawn = dcmread(path)
        for element, value in ((0x0010, 64), (0x0011, 96)):
            drawn.add_new(0x60000000 | element, "US", value)
        drawn.add_new(0x60000050, "SS", [1, 1])
        drawn.add_new(0x60001001, "CS", "LAYER")
        drawn.add_new(0x60003000, "OW", b"\xff" * (64 * 96 // 8))
        drawn.save_as(path)
    _, picture = render(PictureRequest(image, tmp_path, script=True, presentation=state))
    assert isinstance(picture, Picture) and picture.script is None


@pytest.mark.peer
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_a_browser_reads_the_values_from_a_file(tmp_path: Path) -> None:
    path = BUNDLED / "CT_small.dcm"
    made(path, tmp_path)
    (tmp_path / "INDEX.HTM").write_text(PAGE)
    with Chromium(tmp_path / "browser") as browser:
        browser.open((tmp_path / "INDEX.HTM").as_uri())
        browser.until("result !== null")
        found = browser.run("result")
    dataset = dcmread(path)
    expected = dataset.pixel_array.astype(float) * dataset.RescaleSlope + dataset.RescaleIntercept
    assert found == expected.reshape(-1).tolist()

"""Overlays of a frame, from attributes that say impossible things."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite

from mkiso.dataset.elements import EXPLICIT_LITTLE, elements
from mkiso.pictures.attributes import WANTED, Attributes
from mkiso.pictures.overlays import overlay_mask
from mkiso.pictures.render import render
from mkiso.pictures.values import Picture, PictureRequest
from tests.pictures.objects import write
from tests.pictures.test_judged import decoded

WORDS = np.zeros((2, 4), np.uint16)


@pytest.mark.parametrize("frames", [b"1 ", b"", b"x ", b"-1", b"9" * 12, b"9" * 5000, b"1e99"])
def test_a_number_of_frames_that_is_none_draws_the_first(frames: bytes) -> None:
    image = Dataset()
    for element, value in ((0x0010, 2), (0x0011, 4), (0x0051, 1)):
        image.add_new(0x60000000 | element, "US", value)
    image.add_new(0x60000015, "IS", "77")
    image.add_new(0x60003000, "OW", b"\x81\x00")
    encoded = BytesIO()
    dcmwrite(encoded, image, implicit_vr=False, little_endian=True)
    data = encoded.getvalue().replace(b"IS\x02\x0077", b"IS" + struct.pack("<H", len(frames)) + frames)
    found = elements(data, 0, len(data), EXPLICIT_LITTLE, WANTED)
    mask = overlay_mask(Attributes(data, found, WANTED, b"", len(data)), 0, WORDS)
    assert mask is not None and mask.nonzero()[1].tolist() == [0, 3]


def test_an_overlay_is_drawn_over_colour_as_it_lies_in_the_file(tmp_path: Path) -> None:
    image = write(tmp_path / "image", np.full((64, 96, 3), 40, np.uint8))
    dataset = dcmread(image)
    for element, value in ((0x0010, 64), (0x0011, 96)):
        dataset.add_new(0x60000000 | element, "US", value)
    dataset.add_new(0x60003000, "OW", b"\xff" * (32 * 96 // 8) + bytes(32 * 96 // 8))
    dataset.save_as(image)
    _, picture = render(PictureRequest(image, tmp_path))
    assert isinstance(picture, Picture)
    found = decoded(tmp_path / picture.file.name)
    assert found[:24].min() > 245 and found[40:].max() < 50

"""Where a site's list says that a device writes, its images are blackened; everywhere else nothing changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from pydicom import Dataset, dcmread, uid
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pixel_array

from mkiso.config.disc import Deidentified
from mkiso.deidentify import copies, regions
from mkiso.errors import NotDeidentifiable, ProofFailed
from mkiso.media.explicit import convert
from mkiso.study.gate import CompleteStudies
from peers.corpus import make_study
from tests.media.discs import instances, passed
from tests.pictures.test_decoders import LOSSLESS

pytestmark = pytest.mark.usefixtures("forked_decoders")

ROWS, COLUMNS = 48, 64
DEVICE = {
    "sop_class_uid": uid.UltrasoundMultiFrameImageStorage,
    "manufacturer": "Acme Ultrasound",
    "manufacturer_model_name": "U 7",
    "rows": ROWS,
    "columns": COLUMNS,
}
BOXES = [[0, 0, COLUMNS, 8], [50, 40, 14, 8]]


def site(*devices: Mapping[str, object]) -> Deidentified:
    return Deidentified.model_validate({"secret": "s" * 32, "regions": devices or [{**DEVICE, "blacken": BOXES}]})


def clip(folder: Path, change: Callable[[Dataset], object] = lambda _: None, **attributes: Any) -> Path:
    """A colour clip of three frames, with a pattern everywhere and no two equal pixels beside each other."""
    [file] = make_study(folder, "A1", kinds={"ct": 1})
    image = dcmread(file)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = uid.UltrasoundMultiFrameImageStorage
    image.Manufacturer, image.ManufacturerModelName, image.Modality = "Acme Ultrasound", "U 7", "US"
    image.Rows, image.Columns, image.NumberOfFrames, image.SamplesPerPixel = ROWS, COLUMNS, 3, 3
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PhotometricInterpretation, image.PlanarConfiguration = "RGB", 0
    image.BurnedInAnnotation, image.ImageType = "YES", ["ORIGINAL", "PRIMARY", "ABDOMINAL", "0001"]
    for keyword in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "RescaleType"):
        image.pop(keyword, None)
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 8
    image.SequenceOfUltrasoundRegions = [region]
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    kind = {8: np.uint8, 16: np.int16 if image.PixelRepresentation else np.uint16}[image.BitsAllocated]
    count = ROWS * COLUMNS * image.SamplesPerPixel * int(image.NumberOfFrames)
    image.PixelData = (np.arange(count) % 251 + 1).astype(kind).tobytes()
    change(image)
    image.save_as(file)
    return file


def copied(file: Path, folder: Path, wanted: Deidentified) -> Dataset:
    def uncompress(arrivals: Any) -> Any:
        return convert(arrivals, folder / "plain").of

    studies: CompleteStudies = copies.deidentified(passed(instances([file])), folder / "copies", wanted, uncompress)
    return dcmread(studies.instances[0].arrival.path)


def frames(image: Dataset) -> np.ndarray[Any, Any]:
    found = pixel_array(image, raw=True)
    return found.reshape(-1, ROWS, COLUMNS, int(image.SamplesPerPixel))


def turned(image: Dataset) -> None:
    image.Rows, image.Columns = COLUMNS, ROWS


def within() -> np.ndarray[Any, Any]:
    boxes = np.zeros((ROWS, COLUMNS), bool)
    boxes[:8], boxes[40:, 50:] = True, True
    return boxes


@pytest.mark.parametrize(
    ("attributes", "black"),
    [
        ({}, [0, 0, 0]),
        ({"PlanarConfiguration": 1}, [0, 0, 0]),
        ({"PhotometricInterpretation": "YBR_FULL"}, [0, 128, 128]),
        ({"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}, [0]),
        ({"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME1"}, [255]),
        ({"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME1", "BitsAllocated": 16, "BitsStored": 12,
          "HighBit": 11}, [4095]),
        ({"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 12,
          "HighBit": 11, "PixelRepresentation": 1}, [-2048]),
        ({"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "NumberOfFrames": 1}, [0]),
    ],
    ids=["RGB", "planar", "YBR", "grey", "inverted", "inverted, 12 bit", "signed", "one frame"],
)  # fmt: skip
def test_each_frame_is_black_there_and_as_it_was_elsewhere(
    tmp_path: Path, attributes: dict[str, Any], black: list[int]
) -> None:
    file = clip(tmp_path, **attributes)
    image, boxes = copied(file, tmp_path, site()), within()
    before, after = frames(dcmread(file)), frames(image)
    assert (after[:, boxes] == black).all() and not (before[:, boxes] == black).all()
    assert (after[:, ~boxes] == before[:, ~boxes]).all()
    assert image.BurnedInAnnotation == "NO"
    assert [code.CodeValue for code in image.DeidentificationMethodCodeSequence] == ["113100", "113101"]


def test_what_is_compressed_is_blackened_too(tmp_path: Path) -> None:
    def compress(image: Dataset) -> None:
        image.PixelData = encapsulate([LOSSLESS[uid.JPEGLSLossless](frame, 8) for frame in frames(image)[..., 0]])
        image.file_meta.TransferSyntaxUID = uid.JPEGLSLossless

    grey: dict[str, Any] = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    file, plain = clip(tmp_path / "1", compress, **grey), clip(tmp_path / "2", **grey)
    after, boxes = frames(copied(file, tmp_path, site())), within()
    assert not after[:, boxes].any()
    assert (after[:, ~boxes] == frames(dcmread(plain))[:, ~boxes]).all()


def test_a_ct_that_its_device_writes_into_is_blackened(tmp_path: Path) -> None:
    [file] = make_study(tmp_path, "A1", kinds={"ct": 1})
    image = dcmread(file)
    image.BurnedInAnnotation, image.Manufacturer, image.ManufacturerModelName = "YES", "M", "N"
    image.save_as(file)
    device = {"sop_class_uid": uid.CTImageStorage, "manufacturer": "M", "manufacturer_model_name": "N",
              "rows": image.Rows, "columns": image.Columns, "blacken": [[0, 0, 8, 8]]}  # fmt: skip
    with pytest.raises(NotDeidentifiable, match="says of itself"):
        copied(file, tmp_path, site())
    after = copied(file, tmp_path, site(device)).pixel_array
    assert not after[:8, :8].any() and (after[8:] == image.pixel_array[8:]).all()
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.save_as(file)
    with pytest.raises(NotDeidentifiable, match="examination's own"):
        copied(file, tmp_path, site(device))


@pytest.mark.parametrize(
    ("listed", "copies_it"),
    [
        ({}, True),
        ({"rows": 65}, False),
        ({"columns": 65}, False),
        ({"software_versions": "9"}, False),
        ({"manufacturer": "m"}, False),
        ({"manufacturer_model_name": "N  x"}, False),
        ({"rows": 65, "image_type": "DERIVED"}, True),
        ({"rows": 65, "image_type": "original\\PRIMARY"}, False),
        ({"rows": 65, "sop_class_uid": str(uid.MRImageStorage)}, True),
        ({"rows": 65, "manufacturer_model_name": "O"}, True),
    ],
)
def test_a_ct_of_a_listed_device_in_a_size_that_isnt_listed_is_refused(
    tmp_path: Path, listed: dict[str, Any], copies_it: bool
) -> None:
    """It is known to write into such images, and nobody has said where."""
    [file] = make_study(tmp_path, "A1", kinds={"ct": 1})
    image = dcmread(file)
    image.Manufacturer, image.ManufacturerModelName = "M", "N x"
    image.save_as(file)
    device = {"sop_class_uid": str(uid.CTImageStorage), "manufacturer": "M", "manufacturer_model_name": "N x",
              "rows": image.Rows, "columns": image.Columns, "blacken": [[0, 0, 8, 8]]}  # fmt: skip
    refused: Any = (
        nullcontext() if copies_it else pytest.raises(NotDeidentifiable, match="device that writes into such")
    )
    with refused:
        copied(file, tmp_path, site({**device, **listed}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: setattr(image, "Manufacturer", "Acme Ultrasound Ltd"), "nor of a device"),
        (lambda image: setattr(image, "ManufacturerModelName", "U 70"), "nor of a device"),
        (lambda image: setattr(image, "ManufacturerModelName", None), "nor of a device"),
        (turned, "nor of a device"),
        (lambda image: image.pop("SequenceOfUltrasoundRegions"), "a page with words"),
        (lambda image: setattr(image, "SequenceOfUltrasoundRegions", []), "a page with words"),
        (lambda image: setattr(image, "ImageType", ["ORIGINAL", "PRIMARY", "REPORT"]), "a page with words"),
        (lambda image: setattr(image, "RecognizableVisualFeatures", "YES"), "says of itself"),
        (lambda image: image.add_new(0x60000010, "US", 5), "overlay among its pixels"),
        (lambda image: setattr(image, "PhotometricInterpretation", "HSV"), "no regions are blackened"),
        (lambda image: setattr(image, "BitsStored", None), "no regions are blackened"),
        (lambda image: setattr(image, "BitsStored", 16), "no regions are blackened"),
        (lambda image: setattr(image, "PixelRepresentation", None), "no regions are blackened"),
        (lambda image: setattr(image, "PixelRepresentation", [0, 0]), "no regions are blackened"),
        (lambda image: image.pop("PlanarConfiguration"), "no regions are blackened"),
        (lambda image: setattr(image, "PlanarConfiguration", 2), "no regions are blackened"),
        (lambda image: setattr(image, "PixelData", image.PixelData[:-ROWS]), "than its rows, columns and frames say"),
    ],
)  # fmt: skip
def test_what_the_list_doesnt_cover_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(NotDeidentifiable, match=said):
        copied(clip(tmp_path, change), tmp_path, site())


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"software_versions": "2.1"}, True),
        ({"software_versions": "2.1", "image_type": "ORIGINAL\\PRIMARY"}, True),
        ({"image_type": "ORIGINAL\\PRIMARY\\ABDOMINAL\\0001"}, True),
        ({"software_versions": "2"}, False),
        ({"image_type": "ORIGINAL\\PRI"}, False),
        ({"image_type": "DERIVED"}, False),
    ],
)
def test_a_version_or_a_kind_of_image_must_agree_where_it_is_named(
    tmp_path: Path, said: dict[str, str], found: bool
) -> None:
    file, wanted = clip(tmp_path, SoftwareVersions="2.1"), site({**DEVICE, **said, "blacken": BOXES})
    if found:
        assert not frames(copied(file, tmp_path, wanted))[:, within()].any()
    else:
        with pytest.raises(NotDeidentifiable):
            copied(file, tmp_path, wanted)


@pytest.mark.parametrize("wrong", ["a pixel stays", "a pixel beside changes", "a frame is missing"])
def test_a_copy_that_isnt_black_there_and_the_same_elsewhere_is_not_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    true = regions.blackened

    def damaged(*given: Any) -> Iterator[bytes]:
        made = [bytearray(piece) for piece in true(*given)]
        if wrong == "a frame is missing":
            made[1] = made[0]
        else:
            made[2][5 if wrong == "a pixel stays" else ROWS * COLUMNS * 3 // 2] ^= 1
        yield from map(bytes, made)

    monkeypatch.setattr(copies, "blackened", damaged)
    with pytest.raises(ProofFailed, match="regions"):
        copied(clip(tmp_path), tmp_path, site())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blacken": []}, "blacken"),
        ({"blacken": [[0, 0, COLUMNS + 1, 8]]}, "isn't within an image of 64 columns and 48 rows"),
        ({"blacken": [[0, 0, 0, 8]]}, "isn't within"),
        ({"blacken": [[-1, 0, 5, 8]]}, "isn't within"),
        ({"blacken": [[0, 45, 5, 8]]}, "isn't within"),
        ({"manufacturer": " "}, "manufacturer"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.77.1.4"}, "none of the SOP classes"),
    ],
)
def test_a_list_that_cant_be_meant_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        site({**DEVICE, "blacken": BOXES, **change})

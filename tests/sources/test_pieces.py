"""What a PACS can't send as a whole comes in pieces: Orthanc as it is installed ends a C-MOVE at the first image that
it can't transcode into what its association negotiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, UID, JPEG2000Lossless, generate_uid

from mkiso.config.settings import Settings
from mkiso.sources.query import find_studies
from mkiso.sources.registry import source_of
from mkiso.sources.retrieve import retrieve
from mkiso.study.models import Arrival
from peers.corpus import dataset_bytes, make_study
from peers.orthanc import Orthanc

pytestmark = pytest.mark.peer
MakeSettings = Callable[..., Settings]


@pytest.fixture
def transcoding(tmp_path: Path, receiver_port: int) -> Iterator[Orthanc]:
    """Orthanc with its default transcoding."""
    with Orthanc(tmp_path / "pacs", destinations={"CDRECORD": ("127.0.0.1", receiver_port)}, transcode=True) as orthanc:
        yield orthanc


def compress(file: Path, syntax: UID) -> None:
    """Encode an image's pixels anew as JPEG 2000."""
    dataset = dcmread(file)
    lossless = syntax == JPEG2000Lossless
    level = 0 if lossless else 40
    encoded = imagecodecs.jpeg2k_encode(dataset.pixel_array, level=level, codecformat="j2k", reversible=lossless)
    dataset.PixelData = encapsulate([bytes(encoded)])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    if not lossless:
        dataset.LossyImageCompression, dataset.LossyImageCompressionMethod = "01", "ISO_15444_1"
        dataset.LossyImageCompressionRatio = "10"
    dataset.save_as(file)


def three_syntaxes(folder: Path, *, by_series: bool) -> dict[str, Path]:
    """20 CT images, uncompressed, lossless and lossy, by SOP Instance UID: a series each or in turn."""
    files = make_study(folder, "A1", kinds={"ct": 20})
    for number, file in enumerate(files):
        kind = number // 7 if by_series else number % 3
        if by_series:
            dataset = dcmread(file)
            dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[str(folder), str(kind)])
            dataset.save_as(file)
        if kind:
            compress(file, JPEG2000Lossless if kind == 1 else JPEG2000)
    return {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID): file for file in files}


def fetched(settings: Settings, folder: Path) -> list[Arrival]:
    arrivals: list[Arrival] = []
    (study,) = find_studies(source_of(settings), "A1")
    retrieve(source_of(settings), settings.identity, study, folder, [], arrivals.append)
    return arrivals


@pytest.mark.parametrize("by_series", [True, False])
def test_a_study_of_three_syntaxes_comes_whole_from_a_transcoding_orthanc(
    settings_for: MakeSettings, folder: Path, tmp_path: Path, transcoding: Orthanc, by_series: bool
) -> None:
    held = three_syntaxes(tmp_path / "files", by_series=by_series)
    transcoding.store(held.values())
    arrivals = fetched(settings_for(transcoding), folder)
    assert "Cannot transcode" in transcoding.log() or transcoding.is_old
    assert sorted(arrival.sop_instance_uid for arrival in arrivals) == sorted(held)
    for arrival in arrivals:
        assert dataset_bytes(arrival.path) == dataset_bytes(held[arrival.sop_instance_uid])

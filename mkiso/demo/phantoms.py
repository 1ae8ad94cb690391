"""A study worth looking at, of nobody: a head as CT and MR in one frame of reference, a chest radiograph, an ultrasound
clip, an ECG, a report and a letter, and a key image of the CT with what its reader drew on it, computed from ellipsoids
in a second. The same on each call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, Sequence
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComprehensiveSRStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    GeneralECGWaveformStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    MRImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

ACCESSION_NUMBER = "PHANTOM"

Ellipsoid = tuple[float, tuple[float, float, float], tuple[float, float, float], float]
"""A value, the half axes in mm (to the left, back, up), the centre in mm, and a turn in the axial plane in degrees."""

_KEY_IMAGE = 35
"""The number of the section through the bleeding."""

_HEAD: tuple[Ellipsoid, ...] = (  # Hounsfield units, later ones over earlier ones
    (20, (74, 92, 98), (0, 0, 0), 0),  # skin
    (900, (70, 88, 93), (0, 0, 0), 0),  # skull
    (36, (64, 82, 87), (0, 0, 0), 0),  # brain
    (28, (46, 64, 62), (0, 0, 0), 0),  # white matter
    (6, (9, 27, 17), (-13, -4, 8), 14),  # ventricles
    (6, (9, 27, 17), (13, -4, 8), -14),
    (6, (4, 11, 12), (0, 8, -4), 0),
    (70, (9, 8, 9), (30, 26, 14), 20),  # a bleeding
    (-1000, (14, 12, 16), (-17, -68, -58), 0),  # sinuses
    (-1000, (14, 12, 16), (17, -68, -58), 0),
    (10, (13, 13, 13), (-32, -76, -34), 0),  # eyes
    (10, (13, 13, 13), (32, -76, -34), 0),
)
_AS_IT_IS: dict[float, float] = {}
_T1: dict[float, float] = {
    20: 620.0,
    900: 60.0,
    36: 330.0,
    28: 470.0,
    6: 110.0,
    70: 640.0,
    -1000: 10.0,
    10: 130.0,
}  # what CT values look like in MR


def write_phantoms(folder: Path) -> list[Path]:
    """Write the study into a folder that exists; its files."""
    frame = _uid("frame of reference")
    return [
        *_sections(folder, 1, "CT", "Head, axial", 60, 256, 0.8, 3.0, frame),
        *_sections(folder, 2, "MR", "Head T1, axial", 30, 224, 0.9, 6.0, frame),
        _radiograph(folder, 3),
        _clip(folder, 4),
        _report(folder, 5),
        _letter(folder, 6),
        _ecg(folder, 7),
        _key_image(folder, 8),
    ]


def _uid(name: str) -> UID:
    return UID(generate_uid(entropy_srcs=["mkiso.demo.phantoms", name]))


def _object(folder: Path, series: int, number: int, sop_class: UID, modality: str, description: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, sop_class
    path = folder / f"phantom{series}{number:04}.dcm"
    made = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID = sop_class
    made.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = _uid(f"{series} {number}")
    made.StudyInstanceUID, made.SeriesInstanceUID = _uid("study"), _uid(f"series {series}")
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = (
        "Phantom^Ada^^Dr.",
        "DEMO-0001",
        "19640229",
        "F",
    )
    made.StudyDate, made.StudyTime, made.StudyID, made.AccessionNumber = "20260112", "093000", "1", ACCESSION_NUMBER
    made.StudyDescription, made.ReferringPhysicianName = "Head and chest after a fall", "Example^Otto^^Dr."
    made.Modality, made.SeriesDescription, made.SeriesNumber, made.InstanceNumber = (
        modality,
        description,
        series,
        number,
    )
    made.ContentDate, made.ContentTime, made.Manufacturer = "20260112", f"0930{number % 60:02}", "mkiso demo"
    return made


def _with_pixels(made: FileDataset, pixels: NDArray[Any], bits: int) -> Path:
    rows, columns = pixels.shape[-2:]
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
    made.BitsAllocated = pixels.dtype.itemsize * 8
    made.BitsStored, made.HighBit, made.PixelRepresentation = bits, bits - 1, 0
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OW" if made.BitsAllocated == 16 else "OB"
    return _saved(made)


def _saved(made: FileDataset) -> Path:
    path = Path(str(made.filename))
    made.save_as(path, enforce_file_format=True)
    return path


def _section(
    x: NDArray[Any], y: NDArray[Any], z: float, noise: NDArray[Any], values: dict[float, float]
) -> NDArray[Any]:
    """One axial section of the head, `values` in place of its Hounsfield units."""
    section = np.full(x.shape, values.get(-1000, -1000.0))
    for value, (a, b, c), (x0, y0, z0), turn in _HEAD:
        cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        across, back = (x - x0) * cos + (y - y0) * sin, (y - y0) * cos - (x - x0) * sin
        inside = (across / a) ** 2 + (back / b) ** 2 + ((z - z0) / c) ** 2 <= 1
        section[inside] = values.get(value, value)
    section += noise
    return section


def _sections(
    folder: Path,
    series: int,
    modality: str,
    description: str,
    count: int,
    edge: int,
    pixel: float,
    gap: float,
    frame: str,
) -> list[Path]:
    """Axial sections from the feet up, each pixel `pixel` and each gap `gap` mm."""
    at = (np.arange(edge) - edge / 2 + 0.5) * pixel
    x, y = np.meshgrid(at, at)
    random = np.random.default_rng(series)
    files = []
    for number in range(1, count + 1):
        z = (number - (count + 1) / 2) * gap
        ct = modality == "CT"
        noise = random.normal(0, 9 if ct else 12, x.shape)
        section = _section(x, y, z, noise, _AS_IT_IS if ct else _T1)
        made = _object(folder, series, number, CTImageStorage if ct else MRImageStorage, modality, description)
        made.BodyPartExamined, made.ImageType = "HEAD", ["ORIGINAL", "PRIMARY", "AXIAL"]
        made.FrameOfReferenceUID, made.PatientPosition = frame, "HFS"
        made.ImagePositionPatient, made.ImageOrientationPatient = [at[0], at[0], z], [1, 0, 0, 0, 1, 0]
        made.PixelSpacing, made.SliceThickness = [pixel, pixel], gap
        if ct:
            made.RescaleIntercept, made.RescaleSlope, made.RescaleType = -1024, 1, "HU"
            made.WindowCenter, made.WindowWidth = 40, 90
            section = section + 1024
        else:
            made.WindowCenter, made.WindowWidth = 340, 680
        files.append(_with_pixels(made, np.clip(section, 0, 4095).astype("<u2"), 12))
    return files


def _radiograph(folder: Path, series: int) -> Path:
    """A chest from behind: what lies along the beam adds up."""
    rows, columns, pixel = 1024, 896, 0.4
    x, y = np.meshgrid((np.arange(columns) - columns / 2) * pixel, (np.arange(rows) - rows / 2) * pixel)

    def thickness(a: float, b: float, depth: float, x0: float, y0: float) -> NDArray[Any]:
        return np.asarray(depth * np.sqrt(np.clip(1 - ((x - x0) / a) ** 2 - ((y - y0) / b) ** 2, 0, None)))

    body = thickness(172, 260, 210, 0, 60)
    lungs = thickness(56, 118, 150, -72, -20) + thickness(52, 112, 150, 72, -24)
    heart = thickness(52, 62, 110, 22, 46)
    bones = thickness(15, 250, 34, 0, 60) + thickness(70, 7, 10, -80, -142) + thickness(70, 7, 10, 80, -142)
    for rib in range(9):
        for side in (-1, 1):
            radius = np.hypot((x - side * 62) / 68, (y + 150 - rib * 34 - (x / 28) ** 2) / 22)
            bones = bones + 7 * np.exp(-(((radius - 1) / 0.10) ** 2)) * (body > 60)
    beam = body - 0.82 * lungs + 0.45 * heart + 2.6 * bones
    grey = 4095 * (1 - np.exp(-beam / 120)) + np.random.default_rng(series).normal(0, 12, x.shape)
    made = _object(folder, series, 1, DigitalXRayImageStorageForPresentation, "DX", "Chest, PA")
    made.BodyPartExamined, made.ViewPosition, made.PatientOrientation = "CHEST", "PA", ["L", "F"]
    made.ImagerPixelSpacing, made.ImageLaterality, made.ImageType = [pixel, pixel], "U", ["ORIGINAL", "PRIMARY"]
    made.PresentationIntentType, made.PixelIntensityRelationship = "FOR PRESENTATION", "LOG"
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType, made.PresentationLUTShape = 0, 1, "US", "IDENTITY"
    made.WindowCenter, made.WindowWidth = 2200, 3600
    return _with_pixels(made, np.clip(grey, 0, 4095).astype("<u2"), 12)


def _clip(folder: Path, series: int) -> Path:
    """An ultrasound sector in which something beats."""
    rows, columns, frames = 360, 480, 30
    x, y = np.meshgrid(np.arange(columns) - columns / 2, np.arange(rows) + 20.0)
    radius, angle = np.hypot(x, y), np.arctan2(x, y)
    sector = (np.abs(angle) < 0.62) & (radius > 40) & (radius < 360)
    speckle = np.random.default_rng(series).rayleigh(1, x.shape) * (0.7 + 0.3 * np.sin(radius / 9))
    pixels = np.zeros((frames, rows, columns), np.uint8)
    for frame in range(frames):
        beat = 1 + 0.16 * np.sin(2 * np.pi * frame / frames)
        chamber = np.hypot((x + 20) / (62 * beat), (y - 190) / (78 * beat))
        wall = np.exp(-(((chamber - 1) / 0.14) ** 2))
        grey = (26 + 95 * wall) * speckle * np.where(chamber < 0.9, 0.12, 1) * np.exp(-radius / 500) * 1.6
        pixels[frame] = np.clip(np.where(sector, grey, 0), 0, 255).astype(np.uint8)
    made = _object(folder, series, 1, UltrasoundMultiFrameImageStorage, "US", "Heart")
    made.NumberOfFrames, made.FrameTime, made.ImageType = frames, "40", ["ORIGINAL", "PRIMARY"]
    made.FrameIncrementPointer, made.LossyImageCompression = 0x00181063, "00"
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = columns - 1, rows - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.045
    made.SequenceOfUltrasoundRegions = Sequence([region])
    return _with_pixels(made, pixels, 8)


def _report(folder: Path, series: int) -> Path:
    """Findings with a measurement that leads to the section that it was made in."""
    made = _object(folder, series, 1, ComprehensiveSRStorage, "SR", "Report")
    made.CompletionFlag, made.VerificationFlag, made.ValueType = "COMPLETE", "VERIFIED", "CONTAINER"
    made.ContinuityOfContent = "SEPARATE"
    made.ConceptNameCodeSequence = Sequence([_code("18748-4", "LN", "Diagnostic imaging report")])
    observer = Dataset()
    observer.VerifyingObserverName, observer.VerifyingOrganization = "Reader^Rosa^^Dr.", "Demo Hospital"
    observer.VerificationDateTime, observer.VerifyingObserverIdentificationCodeSequence = "20260112101500", Sequence([])
    made.VerifyingObserverSequence = Sequence([observer])
    seen = Dataset()
    seen.ReferencedSOPClassUID, seen.ReferencedSOPInstanceUID = CTImageStorage, _uid(f"1 {_KEY_IMAGE}")
    image = _item("IMAGE", "INFERRED FROM")
    image.ReferencedSOPSequence = Sequence([seen])
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "18", Sequence([_code("mm", "UCUM", "millimeter")])
    width = _item("NUM", "CONTAINS", _code("103339001", "SCT", "Long axis"))
    width.MeasuredValueSequence, width.ContentSequence = Sequence([measured]), Sequence([image])
    findings = _item("CONTAINER", "CONTAINS", _code("121070", "DCM", "Findings"))
    findings.ContinuityOfContent = "SEPARATE"
    findings.ContentSequence = Sequence(
        [
            _text("121071", "Finding", "CT and MR: a small bleeding on the left."),
            width,
            _text("121071", "Finding", "Chest: nothing remarkable."),
        ]
    )
    conclusion = _text("121077", "Conclusion", "Control in a week. All of this is computed and of nobody.")
    made.ContentSequence = Sequence([findings, conclusion])
    of_series, of_study = Dataset(), Dataset()
    of_series.SeriesInstanceUID, of_series.ReferencedSOPSequence = _uid("series 1"), Sequence([seen])
    of_study.StudyInstanceUID, of_study.ReferencedSeriesSequence = _uid("study"), Sequence([of_series])
    made.CurrentRequestedProcedureEvidenceSequence = Sequence([of_study])
    made.ReferencedPerformedProcedureStepSequence = made.PerformedProcedureCodeSequence = Sequence([])
    return _saved(made)


def _key_image(folder: Path, series: int) -> Path:
    """A presentation state: the section through the bleeding, with a circle, an arrow and words."""
    made = _object(folder, series, 1, GrayscaleSoftcopyPresentationStateStorage, "PR", "Key image")
    made.ContentLabel, made.ContentDescription, made.ContentCreatorName = "KEY", "Key image", "Reader^Rosa^^Dr."
    made.PresentationCreationDate, made.PresentationCreationTime = "20260112", "101000"
    image, of_series, area, layer, drawn = (Dataset() for _ in range(5))
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = CTImageStorage, _uid(f"1 {_KEY_IMAGE}")
    of_series.SeriesInstanceUID, of_series.ReferencedImageSequence = _uid("series 1"), Sequence([image])
    made.ReferencedSeriesSequence = Sequence([of_series])
    area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner = [1, 1], [256, 256]
    area.PresentationSizeMode, area.PresentationPixelSpacing = "SCALE TO FIT", ["0.8", "0.8"]
    made.DisplayedAreaSelectionSequence = Sequence([area])
    window = Dataset()
    window.WindowCenter, window.WindowWidth = 40, 90
    made.SoftcopyVOILUTSequence, made.PresentationLUTShape = Sequence([window]), "IDENTITY"
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType = -1024, 1, "HU"
    layer.GraphicLayer, layer.GraphicLayerOrder = "READER", 1
    made.GraphicLayerSequence = Sequence([layer])
    words = Dataset()
    words.UnformattedTextValue, words.BoundingBoxTextHorizontalJustification = "Bleeding, 18 mm", "LEFT"
    words.BoundingBoxAnnotationUnits, words.AnchorPointAnnotationUnits = "PIXEL", "PIXEL"
    words.BoundingBoxTopLeftHandCorner, words.BoundingBoxBottomRightHandCorner = [186, 182], [250, 196]
    drawn.GraphicLayer, drawn.TextObjectSequence = "READER", Sequence([words])
    drawn.GraphicObjectSequence = Sequence(
        [
            _line("CIRCLE", 165.5, 160.5, 165.5, 176.5),
            _line("POLYLINE", 214, 180, 181, 167),
            _line("POLYLINE", 190, 165, 181, 167, 187, 174),
        ]
    )
    made.GraphicAnnotationSequence = Sequence([drawn])
    return _saved(made)


def _line(kind: str, *data: float) -> Dataset:
    line = Dataset()
    line.GraphicAnnotationUnits, line.GraphicDimensions, line.GraphicType = "PIXEL", 2, kind
    line.NumberOfGraphicPoints, line.GraphicData, line.GraphicFilled = len(data) // 2, list(data), "N"
    return line


def _letter(folder: Path, series: int) -> Path:
    made = _object(folder, series, 1, EncapsulatedPDFStorage, "DOC", "Letter")
    made.ConversionType, made.BurnedInAnnotation, made.AcquisitionDateTime = "WSD", "YES", "20260112103000"
    made.DocumentTitle, made.ConceptNameCodeSequence = "Letter to the family doctor", Sequence([])
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    content = _pdf(
        "Dear Dr. Example,",
        "Ada Phantom was examined after a fall. CT and MR show a small",
        "bleeding on the left; the chest is unremarkable.",
        "We ask for a control in a week.",
        "",
        "All of this is computed and of nobody.",
    )
    made.EncapsulatedDocumentLength, made.EncapsulatedDocument = len(content), content
    return _saved(made)


def _pdf(*lines: str) -> bytes:
    """A page with these lines (ISO 32000-1, 7.5); ASCII without brackets."""
    text = "BT /F1 13 Tf 72 740 Td 20 TL " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
    objects = (
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(text)}>>stream\n{text}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    )
    content, places = "%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(content))
        content += f"{number} 0 obj{each}endobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    count = len(objects) + 1
    trailer = f"trailer<</Size {count}/Root 1 0 R>>\nstartxref\n{len(content)}\n%%EOF\n"
    return f"{content}xref\n0 {count}\n0000000000 65535 f \n{table}{trailer}".encode("ascii")


def _ecg(folder: Path, series: int) -> Path:
    """Ten seconds of three leads, each beat a sum of bells."""
    made = _object(folder, series, 1, GeneralECGWaveformStorage, "ECG", "ECG")
    made.AcquisitionDateTime, made.AcquisitionContextSequence = "20260112094500", Sequence([])
    hertz, seconds = 500, 10
    beat = np.arange(hertz * seconds) / hertz % 0.86
    waves = ((0.10, 0.16, 0.025), (-0.12, 0.265, 0.010), (1.1, 0.29, 0.012), (-0.25, 0.32, 0.012), (0.28, 0.52, 0.05))
    curve = sum(height * np.exp(-(((beat - at) / width) ** 2)) for height, at, width in waves)
    leads = {"I": 0.7, "II": 1.0, "III": 0.45}
    random = np.random.default_rng(series)
    values = np.column_stack([factor * curve * 1000 + random.normal(0, 6, len(beat)) for factor in leads.values()])
    group = Dataset()
    group.MultiplexGroupLabel, group.WaveformOriginality = "RHYTHM", "ORIGINAL"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = len(leads), len(beat)
    group.SamplingFrequency, group.WaveformBitsAllocated, group.WaveformSampleInterpretation = str(hertz), 16, "SS"
    channels = []
    for number, lead in enumerate(leads, 1):
        channel = Dataset()
        channel.ChannelLabel, channel.ChannelSourceSequence = (
            lead,
            Sequence([_code(f"2:{number}", "MDC", f"Lead {lead}")]),
        )
        channel.ChannelSensitivity, channel.ChannelSensitivityUnitsSequence = (
            "1",
            Sequence([_code("uV", "UCUM", "microvolt")]),
        )
        channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = "1", "0"
        channel.ChannelSampleSkew, channel.WaveformBitsStored = "0", 16
        channels.append(channel)
    group.ChannelDefinitionSequence = Sequence(channels)
    group.add_new("WaveformData", "OW", np.rint(values).astype("<i2").tobytes())
    made.WaveformSequence = Sequence([group])
    return _saved(made)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _item(value_type: str, relationship: str, name: Dataset | None = None) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, value_type
    if name:
        item.ConceptNameCodeSequence = Sequence([name])
    return item


def _text(value: str, meaning: str, words: str) -> Dataset:
    item = _item("TEXT", "CONTAINS", _code(value, "DCM", meaning))
    item.TextValue = words
    return item

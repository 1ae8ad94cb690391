"""DICOM objects of no real patient: every kind, transfer syntax and alphabet that a disc has to cope with, the same on
each call.

files = make_study(folder, "A1001", kinds={"ct": 5, "sr": 1, "ko": 1}, patient=THAI)
files = make_study(folder, "A1002", kinds=EVERY_KIND)
files = make_ct_series(folder, "B1", count=1000)          # 512 x 512, quick
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import DataElement, Dataset, dcmread, uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, generate_uid

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"


@dataclass(frozen=True)
class Person:
    """An invented patient; `character_set` is the Specific Character Set (PS3.3 C.12.1.1.2) that the name needs."""

    patient_id: str
    name: str
    birth_date: str = "19700102"
    sex: str = "O"
    character_set: str | list[str] = "ISO_IR 100"


PLAIN = Person("HN-0001", "Example^Anna", sex="F")
UMLAUT = Person("HN-0002", "Müller^Jörg^^Dr.", sex="M")
THAI = Person("HN-0003", "ตัวอย่าง^สมชาย", sex="M", character_set="ISO_IR 166")
JAPANESE = Person("HN-0004", "Yamada^Tarou=山田^太郎=やまだ^たろう", sex="M", character_set=["", "ISO 2022 IR 87"])
CYRILLIC = Person("HN-0005", "Люкceмбypг^Анна", sex="F", character_set="ISO_IR 144")
KOREAN = Person("HN-0006", "Hong^Gildong=洪^吉洞=홍^길동", sex="M", character_set=["", "ISO 2022 IR 149"])
UNICODE = Person("HN-0007", "Łoś^Zażółć=山田^太郎", character_set="ISO_IR 192")
EVERYBODY = (PLAIN, UMLAUT, THAI, JAPANESE, CYRILLIC, KOREAN, UNICODE)

Kind = Callable[[Dataset, int], Dataset]


def make_study(
    folder: Path,
    accession_number: str,
    patient_id: str = "",
    *,
    patient: Person = PLAIN,
    kinds: Mapping[str, int] | None = None,
    study_date: str = "20240229",
    description: str = "Made for a test",
    number: int = 1,
) -> list[Path]:
    """Write one study and return its files in the order of their series; 3 CT slices where `kinds` is absent.

    `kinds` maps a name of KINDS to how many instances its series gets. `number` tells apart several studies of one
    accession number and patient. The UIDs follow from the arguments. `patient_id` replaces that of `patient`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    patient_id = patient_id or patient.patient_id
    study_uid = _uid(accession_number, patient_id, number)
    files = []
    for series_number, (kind, count) in enumerate((kinds or {"ct": 3}).items(), 1):
        for instance_number in range(1, count + 1):
            base = Dataset()
            base.SpecificCharacterSet = patient.character_set
            base.PatientID, base.PatientName, base.PatientBirthDate, base.PatientSex = (
                patient_id,
                patient.name,
                patient.birth_date,
                patient.sex,
            )
            base.AccessionNumber, base.StudyInstanceUID, base.StudyID = accession_number, study_uid, f"S{number}"
            base.StudyDate, base.StudyTime, base.StudyDescription, base.ReferringPhysicianName = (
                study_date,
                "101500",
                description,
                "Referrer^Rita",
            )
            base.SeriesInstanceUID, base.SeriesNumber = _uid(study_uid, series_number), series_number
            base.SOPInstanceUID, base.InstanceNumber = _uid(study_uid, series_number, instance_number), instance_number
            base.SeriesDescription, base.ContentDate, base.ContentTime = kind.replace("_", " "), study_date, "101600"
            dataset = KINDS[kind](base, instance_number)
            file = folder / f"{accession_number}-{number}-{series_number:02}-{instance_number:04}.dcm"
            write(dataset, file)
            files.append(file)
    return files


def make_ct_series(
    folder: Path,
    accession_number: str,
    count: int = 1000,
    *,
    size: int = 512,
    patient: Person = PLAIN,
    kind: str = "ct",
    first: int = 1,
    study_date: str = "20240229",
    pixels: NDArray[np.uint16] | None = None,
    **attributes: Any,
) -> list[Path]:
    """Write one big series quickly: a single encoded file whose UID, instance number and position are replaced for each
    instance.

    The pixels are noise, so that nothing on the way gains from compressing; each file is 2 x size² bytes and a little
    more; `pixels` are in place of the noise: `ramp` where pictures are made and nothing is measured. `kind` is ct or
    mr.
    """
    folder.mkdir(parents=True, exist_ok=True)
    [template] = make_study(folder, accession_number, patient=patient, kinds={kind: 1}, study_date=study_date)
    dataset = dcmread(template)
    dataset.Rows = dataset.Columns = size
    noise = np.random.default_rng(1).integers(0, 4096, size * size, dtype=np.uint16)
    dataset.PixelData = (noise if pixels is None else pixels).tobytes()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    root = str(dataset.SOPInstanceUID)[:50]
    holes: dict[str, str] = {"uid": f"{root}.8888888", "number": "9999999", "position": "-7777777"}
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(holes["uid"])
    dataset.InstanceNumber, dataset.ImagePositionPatient = holes["number"], [0, 0, holes["position"]]
    encoded = BytesIO()
    dataset.save_as(encoded, enforce_file_format=True)
    head, rest = _split_before_pixels(encoded.getvalue())
    template.unlink()
    files = []
    for number in range(first, first + count):
        values = {"uid": f"{root}.{1_000_000 + number}", "number": f"{number:07}", "position": f"{number:08}"}
        filled = head
        for name, hole in holes.items():
            filled = filled.replace(hole.encode(), values[name].encode())
        file = folder / f"{accession_number}-{number:06}.dcm"
        with file.open("wb") as target:
            target.writelines((filled, rest))
        files.append(file)
    return files


def ramp(size: int) -> NDArray[np.uint16]:
    """Grey from left to right, size x size pixels of 12 bits: its pictures take a third of the time that those of noise
    take, and a hundredth of the room.
    """
    return np.tile(np.arange(size, dtype=np.uint32) * 4096 // size, (size, 1)).astype(np.uint16)


def write(dataset: Dataset, file: Path) -> Path:
    """Write a dataset whose file_meta names its transfer syntax as a Part 10 file (PS3.10 7)."""
    meta = dataset.file_meta
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.save_as(file, enforce_file_format=True)
    return file


def dataset_bytes(file: Path | bytes) -> bytes:
    """The dataset's bytes of a Part 10 file: what follows group 0002 (PS3.10 7.1)."""
    content = file if isinstance(file, bytes) else file.read_bytes()
    if content[128:132] != b"DICM" or content[132:138] != b"\x02\x00\x00\x00UL":
        raise ValueError("no Part 10 file with a group length")
    return content[144 + int.from_bytes(content[140:144], "little") :]


def values_of(dataset: Dataset) -> list[tuple[int, object]]:
    """The bytes of each value in order, of nested ones too, group lengths apart."""
    told: list[tuple[int, object]] = []
    raw = {tag: dataset.get_item(tag) for tag in sorted(dataset.keys())}  # first: looking at one value decodes others
    for tag, element in raw.items():
        if tag.element == 0:
            continue
        if isinstance(element, RawDataElement) and element.VR not in ("SQ", None) and dataset[tag].VR != "SQ":
            told.append((int(tag), element.value))
        elif dataset[tag].VR == "SQ":
            told.append((int(tag), [values_of(item) for item in dataset[tag].value]))
        else:
            told.append((int(tag), element.value))
    return told


def _split_before_pixels(content: bytes) -> tuple[bytes, bytes]:
    at = content.rindex(b"\xe0\x7f\x10\x00OW")
    return content[:at], content[at:]


def _uid(*parts: object) -> UID:
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def _of(base: Dataset, sop_class: UID, modality: str, syntax: UID = uid.ExplicitVRLittleEndian) -> Dataset:
    base.SOPClassUID, base.Modality = sop_class, modality
    base.file_meta = FileMetaDataset()
    base.file_meta.TransferSyntaxUID = syntax
    base.Manufacturer = "mkiso tests"
    return base


def _pixels(dataset: Dataset, seed: int, rows: int = 64, columns: int = 64, frames: int = 1, bits: int = 16) -> Dataset:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.Rows, dataset.Columns = (
        1,
        "MONOCHROME2",
        rows,
        columns,
    )
    stored = 12 if bits == 16 else 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
        bits,
        stored,
        stored - 1,
        0,
    )
    if frames > 1:
        dataset.NumberOfFrames = frames
    big = dataset.file_meta.TransferSyntaxUID == uid.ExplicitVRBigEndian
    depth = (">" if big else "<") + ("u2" if bits == 16 else "u1")
    dataset.PixelData = np.random.default_rng(seed).integers(0, 200, rows * columns * frames).astype(depth).tobytes()
    dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    return dataset


def _slice(dataset: Dataset, number: int) -> Dataset:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PixelSpacing, dataset.SliceThickness = ["0.5", "0.5"], "2"
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = (
        ["1", "0", "0", "0", "1", "0"],
        ["0", "0", str(2 * number)],
    )
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = _uid(dataset.StudyInstanceUID, "frame"), ""
    dataset.AcquisitionNumber, dataset.PatientPosition = 1, "HFS"
    return _pixels(dataset, number)


def _ct(base: Dataset, number: int) -> Dataset:
    dataset = _slice(_of(base, uid.CTImageStorage, "CT"), number)
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.KVP = "-1024", "1", "120"
    return dataset


def _mr(base: Dataset, number: int) -> Dataset:
    dataset = _slice(_of(base, uid.MRImageStorage, "MR"), number)
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions, dataset.MRAcquisitionType = (
        "SE",
        "NONE",
        "",
        "2D",
    )
    dataset.EchoTime, dataset.RepetitionTime, dataset.EchoTrainLength = "10", "500", "1"
    return dataset


def _dx(base: Dataset, number: int) -> Dataset:
    dataset = _of(base, uid.DigitalXRayImageStorageForPresentation, "DX")
    dataset.ImageType, dataset.PresentationIntentType, dataset.BodyPartExamined = (
        ["ORIGINAL", "PRIMARY"],
        "FOR PRESENTATION",
        "CHEST",
    )
    return _pixels(dataset, number, rows=128, columns=96)


def _projection(sop_class: UID, modality: str, syntax: UID) -> Kind:
    def kind(base: Dataset, number: int) -> Dataset:
        dataset = _of(base, sop_class, modality, syntax)
        dataset.ImageType, dataset.PatientOrientation = ["ORIGINAL", "PRIMARY"], ""
        return _pixels(dataset, number)

    return kind


def _multiframe(base: Dataset, number: int) -> Dataset:
    dataset = _of(base, uid.UltrasoundMultiFrameImageStorage, "US")
    dataset.FrameTime, dataset.FrameIncrementPointer = "40", 0x00181063
    return _pixels(dataset, number, frames=12, bits=8)


def _private(base: Dataset, number: int) -> Dataset:
    dataset = _ct(base, number)
    innermost = Dataset()
    innermost.CodeMeaning = "the innermost item"
    for depth in range(12):
        item = Dataset()
        block = item.private_block(0x0029, "MKISO TEST", create=True)
        block.add_new(0x10, "LO", f"depth {depth}")
        block.add_new(0x20, "SQ", Sequence([innermost]))
        innermost = item
    block = dataset.private_block(0x0029, "MKISO TEST", create=True)
    block.add_new(0x30, "SQ", Sequence([innermost]))
    block.add_new(0x40, "OB", bytes(range(256)))
    return dataset


def _referenced(dataset: Dataset) -> Sequence:
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = (
        uid.CTImageStorage,
        _uid(dataset.StudyInstanceUID, 1, 1),
    )
    return Sequence([image])


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return Sequence([code])


def _document(dataset: Dataset, title: Sequence) -> Dataset:
    text = Dataset()
    text.RelationshipType, text.ValueType, text.TextValue = "CONTAINS", "TEXT", "Nothing of note."
    text.ConceptNameCodeSequence = _code("121071", "DCM", "Finding")
    dataset.ValueType, dataset.ContinuityOfContent, dataset.ConceptNameCodeSequence = "CONTAINER", "SEPARATE", title
    dataset.ContentSequence = Sequence([text])
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = _uid(dataset.StudyInstanceUID, 1), _referenced(dataset)
    study = Dataset()
    study.StudyInstanceUID, study.ReferencedSeriesSequence = dataset.StudyInstanceUID, Sequence([series])
    dataset.CurrentRequestedProcedureEvidenceSequence = Sequence([study])
    dataset.ReferencedPerformedProcedureStepSequence = Sequence([])
    return dataset


def _sr(base: Dataset, number: int) -> Dataset:
    dataset = _document(_of(base, uid.BasicTextSRStorage, "SR"), _code("18748-4", "LN", "Diagnostic Imaging Report"))
    dataset.CompletionFlag, dataset.VerificationFlag, dataset.PerformedProcedureCodeSequence = (
        "COMPLETE",
        "UNVERIFIED",
        Sequence([]),
    )
    return dataset


def _ko(base: Dataset, number: int) -> Dataset:
    return _document(_of(base, uid.KeyObjectSelectionDocumentStorage, "KO"), _code("113000", "DCM", "Of Interest"))


def _pr(base: Dataset, number: int) -> Dataset:
    dataset = _of(base, uid.GrayscaleSoftcopyPresentationStateStorage, "PR")
    dataset.ContentLabel, dataset.ContentDescription, dataset.ContentCreatorName = (
        "WINDOW",
        "Bone window",
        "Creator^Carl",
    )
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = "20240229", "110000"
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedImageSequence = _uid(dataset.StudyInstanceUID, 1), _referenced(dataset)
    dataset.ReferencedSeriesSequence = Sequence([series])
    area = Dataset()
    area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner = [1, 1], [64, 64]
    area.PresentationSizeMode, area.PresentationPixelAspectRatio = "SCALE TO FIT", [1, 1]
    dataset.DisplayedAreaSelectionSequence = Sequence([area])
    dataset.PresentationLUTShape = "IDENTITY"
    return dataset


def _pdf(base: Dataset, number: int) -> Dataset:
    dataset = _of(base, uid.EncapsulatedPDFStorage, "DOC")
    dataset.ConversionType, dataset.BurnedInAnnotation, dataset.DocumentTitle, dataset.AcquisitionDateTime = (
        "WSD",
        "NO",
        "Letter",
        "20240229",
    )
    dataset.MIMETypeOfEncapsulatedDocument, dataset.ConceptNameCodeSequence = "application/pdf", Sequence([])
    dataset.EncapsulatedDocument = (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]>>endobj\n%%EOF\n"
    )
    dataset.EncapsulatedDocumentLength = len(dataset.EncapsulatedDocument)
    return dataset


def _raw(base: Dataset, number: int) -> Dataset:
    dataset = _of(base, uid.RawDataStorage, "MR")
    dataset.CreatorVersionUID = _uid("creator")
    block = dataset.private_block(0x0071, "MKISO TEST", create=True)
    block.add_new(0x01, "OB", bytes(4096))
    return dataset


def _waveform(base: Dataset, number: int) -> Dataset:
    dataset = _of(base, uid.GeneralECGWaveformStorage, "ECG")
    channel = Dataset()
    channel.ChannelSourceSequence = _code("2:1", "MDC", "Lead I")
    channel.ChannelSampleSkew, channel.WaveformBitsStored = "0", 16
    group = Dataset()
    (
        group.WaveformOriginality,
        group.NumberOfWaveformChannels,
        group.NumberOfWaveformSamples,
        group.SamplingFrequency,
    ) = "ORIGINAL", 1, 500, "500"
    group.ChannelDefinitionSequence = Sequence([channel])
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group.add_new("WaveformData", "OW", np.random.default_rng(number).integers(-500, 500, 500).astype("<i2").tobytes())
    dataset.WaveformSequence, dataset.AcquisitionDateTime, dataset.AcquisitionContextSequence = (
        Sequence([group]),
        "20240229101500",
        Sequence([]),
    )
    return dataset


def _bundled(name: str, sop_class: UID | None = None, modality: str = "") -> Kind:
    """An object that pydicom's wheel brings (compressed pixels, radiotherapy), given to our patient and, where named,
    another SOP class.
    """

    def kind(base: Dataset, number: int) -> Dataset:
        source = dcmread(BUNDLED / name, force=True)  # rtstruct.dcm has no group 0002
        source.remove_private_tags()
        dataset = Dataset()
        dataset.update(
            {element.tag: element for element in source if element.tag.element != 0}
        )  # group lengths are retired (PS3.5 7.2)
        dataset.walk(_mend)
        dataset.pop("DataSetTrailingPadding", None)
        if "PixelData" in dataset and source.file_meta.TransferSyntaxUID.is_encapsulated:
            dataset["PixelData"].VR = "OB"  # PS3.5 A.4; some of them say OW
        dataset.update(base)
        syntax = source.file_meta.get("TransferSyntaxUID", uid.ImplicitVRLittleEndian)
        return _of(dataset, sop_class or source.SOPClassUID, modality or source.Modality, syntax)

    return kind


def _mend(_: Dataset, element: DataElement) -> None:
    """What the bundled objects have that a peer would change: an invalid UID (rtstruct.dcm) and sequences of undefined
    length.
    """
    if element.VR == "UI" and element.VM == 1 and not UID(element.value).is_valid:
        element.value = _uid(element.value)
    if element.VR == "SQ":
        element.is_undefined_length = False
        for item in element.value:
            item.is_undefined_length_sequence_item = False


# Each transfer syntax has a SOP class of its own, for dcmqrscp picks its presentation context by the class alone.
KINDS: Mapping[str, Kind] = {
    "ct": _ct,
    "ct_private": _private,
    "mr": _mr,
    "dx": _dx,
    "multiframe": _multiframe,
    "implicit": _projection(uid.ComputedRadiographyImageStorage, "CR", uid.ImplicitVRLittleEndian),
    "big_endian": _projection(uid.XRayRadiofluoroscopicImageStorage, "RF", uid.ExplicitVRBigEndian),
    "deflated": _projection(uid.UltrasoundImageStorage, "US", uid.DeflatedExplicitVRLittleEndian),
    "jpeg": _bundled("SC_rgb_jpeg_dcmtk.dcm"),
    "jpeg_ls": _bundled("MR_small_jpeg_ls_lossless.dcm", uid.NuclearMedicineImageStorage, "NM"),
    "jpeg_2000": _bundled("MR_small_jp2klossless.dcm", uid.XRayAngiographicImageStorage, "XA"),
    "rle": _bundled("MR_small_RLE.dcm", uid.PositronEmissionTomographyImageStorage, "PT"),
    "sr": _sr,
    "ko": _ko,
    "pr": _pr,
    "rt_plan": _bundled("rtplan.dcm"),
    "rt_structure_set": _bundled("rtstruct.dcm"),
    "rt_dose": _bundled("rtdose_1frame.dcm"),
    "pdf": _pdf,
    "raw": _raw,
    "waveform": _waveform,
}
EVERY_KIND: Mapping[str, int] = {"ct": 3, **{kind: 1 for kind in KINDS if kind != "ct"}}

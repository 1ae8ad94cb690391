"""Documents of nobody: structured reports, recordings and encapsulated files, put together content item by content
item.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread, uid
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, generate_uid

SERIES = 90


def code(meaning: str, value: str = "121071", scheme: str = "DCM") -> Items:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    return Items([made])


def item(
    value_type: str,
    name: str = "",
    relationship: str = "CONTAINS",
    inside: Iterable[Dataset] = (),
    **values: Any,
) -> Dataset:
    """A content item; `inside` are its own."""
    made = Dataset()
    made.RelationshipType, made.ValueType = relationship, value_type
    if name:
        made.ConceptNameCodeSequence = code(name)
    for keyword, value in values.items():
        setattr(made, keyword, value)
    if contained := list(inside):
        made.ContentSequence = Items(contained)
    return made


def text(name: str, words: str, **more: Any) -> Dataset:
    return item("TEXT", name, TextValue=words, **more)


def number(name: str, value: str, unit: str, **more: Any) -> Dataset:
    measured = Dataset()
    measured.NumericValue = value
    measured.MeasurementUnitsCodeSequence = code(f"meaning of {unit}", unit, "UCUM")
    return item("NUM", name, MeasuredValueSequence=Items([measured]), **more)


def reference(to: Dataset | None, frames: Sequence[int] = (), **more: Any) -> Dataset:
    """An IMAGE item; to nothing on the disc where `to` is None."""
    referred = Dataset()
    referred.ReferencedSOPClassUID = to.SOPClassUID if to else uid.CTImageStorage
    referred.ReferencedSOPInstanceUID = to.SOPInstanceUID if to else "1.2.3.4.5.6.7.8.9"
    if frames:
        referred.ReferencedFrameNumber = list(frames)
    return item("IMAGE", ReferencedSOPSequence=Items([referred]), **more)


def report(
    content: Iterable[Dataset], sop_class: UID = uid.ComprehensiveSRStorage, title: str = "CT report"
) -> Dataset:
    made = of_class(sop_class, "KO" if sop_class == uid.KeyObjectSelectionDocumentStorage else "SR")
    made.ValueType, made.ContinuityOfContent, made.ConceptNameCodeSequence = "CONTAINER", "SEPARATE", code(title)
    made.ContentSequence = Items(list(content))
    if made.Modality == "SR":
        made.CompletionFlag, made.VerificationFlag = "COMPLETE", "UNVERIFIED"
    return made


def encapsulated(content: bytes, mime_type: str, sop_class: UID, length: int | None = None) -> Dataset:
    made = of_class(sop_class, "DOC")
    made.MIMETypeOfEncapsulatedDocument, made.DocumentTitle = mime_type, "A letter"
    made.EncapsulatedDocument = content
    made.ConceptNameCodeSequence = Items([])
    if length is not None:
        made.EncapsulatedDocumentLength = length
    return made


def recording(
    values: NDArray[np.int16],
    hertz: float,
    unit: str = "uV",
    sensitivity: float = 1.0,
    sop_class: UID = uid.GeneralECGWaveformStorage,
    labels: Sequence[str] = (),
) -> Dataset:
    """`values` has a row a sample and a column a channel."""
    made = of_class(sop_class, "ECG")
    group = Dataset()
    samples, channels = values.shape
    group.MultiplexGroupLabel, group.WaveformOriginality = "RHYTHM", "ORIGINAL"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = channels, samples
    group.SamplingFrequency = f"{hertz:g}"
    group.ChannelDefinitionSequence = Items(
        [_channel(labels[place] if labels else f"C{place + 1}", unit, sensitivity) for place in range(channels)]
    )
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group.add_new("WaveformData", "OW", values.astype("<i2").tobytes())
    made.WaveformSequence, made.AcquisitionDateTime = Items([group]), "20240229101500"
    return made


def of_class(sop_class: UID, modality: str) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SpecificCharacterSet, made.SOPClassUID, made.Modality = "ISO_IR 192", sop_class, modality
    made.ContentDate, made.ContentTime = "20240301", "101500"
    return made


def written(made: Dataset, file: Path, beside: Path | None = None, series: int = SERIES) -> Path:
    """Write a document as Part 10, of the patient and study of the file that it stands `beside`."""
    study = dcmread(beside, stop_before_pixels=True) if beside else None
    for keyword, otherwise in (
        ("PatientID", "HN-0001"),
        ("PatientName", "Example^Anna"),
        ("PatientBirthDate", "19700102"),
        ("PatientSex", "F"),
        ("StudyInstanceUID", "1.2.826.0.1.1"),
        ("StudyDate", "20240229"),
        ("StudyTime", "101500"),
        ("StudyID", "S1"),
        ("AccessionNumber", "ACC1"),
        ("StudyDescription", ""),
    ):
        setattr(made, keyword, study[keyword].value if study and keyword in study else otherwise)
    made.SeriesInstanceUID = generate_uid(entropy_srcs=[made.StudyInstanceUID, str(series)])
    made.SOPInstanceUID = generate_uid(entropy_srcs=[made.SeriesInstanceUID, file.name])
    made.SeriesNumber, made.InstanceNumber = series, 1
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    file.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(file, enforce_file_format=True)
    return file


def _channel(label: str, unit: str, sensitivity: float) -> Dataset:
    channel = Dataset()
    channel.ChannelLabel, channel.ChannelSourceSequence = label, code(f"Lead {label}")
    channel.ChannelSensitivity, channel.ChannelSensitivityUnitsSequence = f"{sensitivity:g}", code(unit, unit, "UCUM")
    channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = "1", "0"
    channel.ChannelSampleSkew, channel.WaveformBitsStored = "0", 16
    return channel

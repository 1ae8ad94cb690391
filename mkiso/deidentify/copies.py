"""De-identified copies of complete studies, which pass the gate a second time under their pseudonyms."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydicom import Dataset
from pydicom.errors import BytesLengthException
from pydicom.filebase import DicomFileLike
from pydicom.filereader import read_partial
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mkiso.config.disc import Deidentified, DeidentifiedOption, Identity
from mkiso.dataset.header import read_header
from mkiso.dataset.part10 import file_head
from mkiso.deidentify.admission import CHOOSE, admitted, series_of
from mkiso.deidentify.cleaning import clean
from mkiso.deidentify.judge import require_clean
from mkiso.deidentify.pseudonyms import Pseudonyms
from mkiso.deidentify.regions import Box, blackened, require_black
from mkiso.deidentify.strings import Strings
from mkiso.errors import NotConvertible, NotDeidentifiable
from mkiso.storage.files import private
from mkiso.study.gate import CompleteStudies
from mkiso.study.identity import significant
from mkiso.study.models import Arrival, Expected, Instance, Study
from mkiso.study.selection import Selection
from mkiso.study.values import Found, Retrieved, StudyRetrieved

_UNCOMPRESSED = frozenset({ExplicitVRLittleEndian, ImplicitVRLittleEndian})
_PIXEL_DATA = 0x7FE00010
_FIRST_PIXELS = 0x7FE00000
_PIECE_BYTES = 1024 * 1024

Uncompress = Callable[[Collection[Arrival]], Mapping[str, Arrival]]
"""Writes instances anew in Explicit VR Little Endian, without loss; by the SHA-256 of each that arrived. Raises
NotConvertible."""


class _Read(NamedTuple):
    """A data set without its pixels, and where in its file these are: at which byte, and how many."""

    data_set: Dataset
    offset: int
    length: int


def deidentified(
    studies: CompleteStudies,
    folder: Path,
    wanted: Deidentified,
    uncompress: Uncompress,
    tell: Callable[[int], None] = lambda _: None,
) -> CompleteStudies:
    """Copies of these studies without their identity, whose files are written into `folder`. What is compressed is
    copied as `uncompress` makes it, so that nothing but its pixels is left of what lay in its stream. `tell` hears how
    many are done.

    Raises NotDeidentifiable where an image may show whose it is, ProofFailed where something would be left that says
    so, and what the gate raises.
    """
    who = studies.identity
    pseudonyms = Pseudonyms(wanted.secret.get_secret_value(), who.patient_id, who.universal or who.issuer)
    strings = Strings()
    for study in (*studies.studies, *studies.retrieved.found.left_out):
        strings.of_study(study, studies.known)
    boxes: dict[str, tuple[Box, ...]] = {}
    for instance in studies.instances:
        arrival = instance.arrival
        try:
            read = _read(arrival)
            boxes[arrival.sop_instance_uid] = admitted(read.data_set, arrival.sop_class_uid, wanted.regions)
            strings.gather(read.data_set)
        except (BytesLengthException, ValueError, TypeError, LookupError, OverflowError):
            raise NotDeidentifiable(
                "An image has an attribute that can't be read, so nobody knows what it says. Choose other series, or "
                "have the PACS's image checked."
            ) from None
    plain = _uncompressed(studies.instances, uncompress)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    copied: list[StudyRetrieved] = []
    done = 0
    for each in studies.retrieved.studies:
        instances = []
        for instance in each.instances:
            arrival = plain.get(instance.arrival.sha256, instance.arrival)
            instances.append(
                _copy(arrival, boxes[arrival.sop_instance_uid], folder, strings, pseudonyms, wanted.options)
            )
            tell(done := done + 1)
        copied.append(StudyRetrieved(_study(each.study, pseudonyms, instances), tuple(instances)))
    found = Found(
        (),
        tuple(each.study for each in copied),
        None,
        studies.degraded,
        _selection(studies.selection, pseudonyms),
        tuple(_study(study, pseudonyms) for study in studies.retrieved.found.left_out),
        deidentified=True,
    )
    return CompleteStudies(Retrieved(found, tuple(copied)), Identity())


def _uncompressed(instances: Collection[Instance], uncompress: Uncompress) -> Mapping[str, Arrival]:
    others = {
        each.arrival.sop_instance_uid: each
        for each in instances
        if each.arrival.transfer_syntax_uid not in _UNCOMPRESSED
    }
    try:
        return uncompress([each.arrival for each in others.values()]) if others else {}
    except NotConvertible as error:
        series = series_of(others[str(error.details["sop_instance_uid"])].header)
        raise NotDeidentifiable(
            f"{series} has an image that can't be uncompressed without a doubt, and what a compressed image carries "
            f"beside its pixels isn't looked at. {CHOOSE}"
        ) from error


def _read(arrival: Arrival) -> _Read:
    """The pixels are none where they are compressed."""
    with arrival.path.open("rb") as file:
        data_set = read_partial(file, stop_when=lambda tag, vr, length: tag >= _FIRST_PIXELS)
        at = file.tell()
        begin = file.read(12)
    is_explicit = arrival.transfer_syntax_uid == ExplicitVRLittleEndian
    if arrival.transfer_syntax_uid not in _UNCOMPRESSED:
        return _Read(data_set, 0, 0)
    group, element = struct.unpack("<HH", begin[:4].ljust(4, b"\0"))
    offset, length = (at + 12, begin[8:12]) if is_explicit else (at + 8, begin[4:8])
    return _Read(data_set, offset, int.from_bytes(length, "little") if group << 16 | element == _PIXEL_DATA else 0)


def _copy(
    arrival: Arrival,
    boxes: Sequence[Box],
    folder: Path,
    strings: Strings,
    pseudonyms: Pseudonyms,
    options: Collection[DeidentifiedOption],
) -> Instance:
    data_set, offset, length = _read(arrival)
    if length not in ((size := _pixel_bytes(data_set)), size + size % 2) or not length:
        raise NotDeidentifiable(
            "An image has other pixel data than its rows, columns and frames say, and nobody knows what they are. "
            "Choose other series."
        )
    days = _days(data_set)
    original, data_set = data_set, Dataset(data_set)
    clean(data_set, pseudonyms, options, is_blackened=bool(boxes))
    uid = str(data_set.SOPInstanceUID)
    head = file_head(arrival.sop_class_uid, uid, ExplicitVRLittleEndian) + _encoded(data_set)
    vr = b"OB" if data_set.BitsAllocated <= 8 else b"OW"
    head += struct.pack("<HH2sHI", 0x7FE0, 0x0010, vr, 0, length)
    target = folder / uid
    sha256 = hashlib.sha256(head)
    with open(target, "wb", opener=private) as copy, arrival.path.open("rb") as source:
        copy.write(head)
        source.seek(offset)
        for piece in blackened(source, original, length, boxes) if boxes else _pieces(source, length):
            sha256.update(piece)
            copy.write(piece)
    require_clean(target, len(head), strings, days, pseudonyms, options, is_blackened=bool(boxes))
    if boxes:
        require_black(target, arrival.path, boxes)
    made = Arrival(
        uid,
        arrival.sop_class_uid,
        ExplicitVRLittleEndian,
        str(data_set.StudyInstanceUID),
        target,
        len(head) + length,
        sha256.hexdigest(),
    )
    return Instance(made, read_header(target))


def _pieces(source: BinaryIO, length: int) -> Iterator[bytes]:
    while length:
        piece = source.read(min(length, _PIECE_BYTES))
        if not piece:
            raise NotDeidentifiable("An image ends before its pixels do. Have the PACS checked.")
        length -= len(piece)
        yield piece


def _encoded(data_set: Dataset) -> bytes:
    encoded = BytesIO()
    buffer = DicomFileLike(encoded)
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, data_set)
    return encoded.getvalue()


def _pixel_bytes(image: Dataset) -> int:
    """The size of the pixel data that an image's attributes say (PS3.5 8.2)."""
    try:
        frames = int(image.get("NumberOfFrames") or 1)
        samples = int(image.get("SamplesPerPixel", 1))
        return int(image.Rows) * int(image.Columns) * samples * frames * int(image.BitsAllocated) // 8
    except (AttributeError, TypeError, ValueError):
        return 0


def _days(item: Dataset) -> frozenset[str]:
    """All days that stand in an item and below it."""
    days: set[str] = set()
    for element in item.iterall():
        if element.VR in ("DA", "DT") and element.value:
            several = element.value if hasattr(element.value, "append") else [element.value]
            days |= {str(value)[:8] for value in several}
    return frozenset(days)


def _study(study: Study, pseudonyms: Pseudonyms, instances: Collection[Instance] = ()) -> Study:
    series: dict[str, set[str]] = {}
    for each in instances:
        series.setdefault(significant(each.header.get("SeriesInstanceUID")), set()).add(each.arrival.sop_instance_uid)
    held = {uid: frozenset(uids) for uid, uids in series.items()}
    return Study(
        "",
        pseudonyms.uid(study.study_instance_uid),
        pseudonyms.patient_id,
        pseudonyms.patient_name,
        modalities_in_study=study.modalities_in_study,
        expected=Expected("image", len(instances), held, study.expected.of_series),
        chosen=tuple(pseudonyms.uid(uid) for uid in study.chosen),
    )


def _selection(selection: Selection, pseudonyms: Pseudonyms) -> Selection:
    return replace(
        selection,
        studies=tuple(pseudonyms.uid(uid) for uid in selection.studies),
        series=tuple(pseudonyms.uid(uid) for uid in selection.series),
    )

"""Instances as a disc of Explicit VR Little Endian holds them (`disc.transfer_syntax: explicit-le`): all that came in
another transfer syntax, converted without loss, or refused.

A decoder runs in a process of its own and gives nothing but frames. The data set is written here, value by value, and
read back by pydicom, which shares nothing with that writer: it must be what it was in all but the pixels and the
attributes that say how these are encoded. The SOP Instance UID stays: decompression makes no new instance (PS3.4
B.4.1.3), and the values of the pixels are those that each reader of the compressed image would see.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from mkiso.dataset.elements import EXPLICIT_BIG, Element, Encoded, elements, unpadded
from mkiso.dataset.header import encoded_data_set
from mkiso.dataset.part10 import file_head
from mkiso.dataset.reencode import ENCODINGS, PIECE_BYTES, WORD_BYTES, Changes, Value, reencode
from mkiso.errors import DamagedInstance, NotConvertible, ProofFailed
from mkiso.pictures.decoders import DECODED
from mkiso.pictures.pool import DecompressPool
from mkiso.pictures.values import Decompressed, DecompressRequest, NotDisplayable, Reason
from mkiso.storage.files import private, sha256_of
from mkiso.study.gate import CompleteStudies, without_priors
from mkiso.study.models import Arrival, Instance
from mkiso.study.priors import NOT_CONVERTIBLE

EXPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
UNCOMPRESSED = frozenset({*ENCODINGS, DeflatedExplicitVRLittleEndian})
CONVERTIBLE = UNCOMPRESSED | DECODED
"""The transfer syntaxes that are made Explicit VR Little Endian: those whose pixels aren't compressed, and those that
mkiso.pictures.decoders decodes."""
_VIDEO = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in range(100, 109))
_THREADS = os.cpu_count() or 1

_SAMPLES, _PHOTOMETRIC, _PLANAR, _FRAMES = 0x00280002, 0x00280004, 0x00280006, 0x00280008
_ROWS, _COLUMNS, _BITS_ALLOCATED = 0x00280010, 0x00280011, 0x00280100
_LOSSY, _RATIO, _METHOD = 0x00282110, 0x00282112, 0x00282114
_PIXELS, _OFFSETS, _LENGTHS, _TOTAL, _SIGNATURES = 0x7FE00010, 0x7FE00001, 0x7FE00002, 0x7FE00003, 0xFFFAFFFA
_WANTED = frozenset({_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _BITS_ALLOCATED, _LOSSY, _RATIO, _METHOD})
_WANTED |= {_PIXELS, _SIGNATURES}
_DCT = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 53, 55, 111))  # there is no lossless one
_METHODS = {  # PS3.3 C.7.6.1.1.5.1
    **dict.fromkeys(_DCT, "ISO_10918_1"),
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
    "1.2.840.10008.1.2.4.112": "ISO_18181_1",
}
_MAX_TEXT, _MAX_DIGITS = 1024, 8
_EXTENT = ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames")

Elements = Mapping[int, Element]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was converted, by the SHA-256 of the file that arrived: it belongs to those bytes and to no others."""

    of: Mapping[str, Arrival] = field(default_factory=dict)

    def applied(self, instances: Iterable[Instance]) -> tuple[Instance, ...]:
        """The same instances with the files that lie on a disc."""
        if not self.of:
            return tuple(instances)
        return tuple(replace(each, converted=self.of.get(each.arrival.sha256)) for each in instances)


AS_ARCHIVED = Conversion()


def reckoned(instances: Iterable[Instance]) -> tuple[Instance, ...]:
    """The same instances with about the size that they will have, by their headers, before anything is converted."""
    return tuple(
        replace(each, converted=replace(each.arrival, size=_reckoned_size(each)))
        if each.arrival.transfer_syntax_uid != EXPLICIT_LITTLE_ENDIAN
        else each
        for each in instances
    )


def _reckoned_size(instance: Instance) -> int:
    """Of what isn't compressed lengths and representations grow a little."""
    arrival, header = instance.arrival, instance.header
    if arrival.transfer_syntax_uid not in (DeflatedExplicitVRLittleEndian, *DECODED):
        return arrival.size + arrival.size // 8
    pixels = math.prod(_said(header, keyword) or 1 for keyword in _EXTENT) if "Rows" in header else 0
    return arrival.size + pixels * (_said(header, "BitsAllocated") or 8) // 8


def _said(header: Dataset, keyword: str) -> int:
    """0 where there is none that can be read."""
    try:
        return int(header.get(keyword) or 0)
    except Exception:  # what pydicom raises for a malformed value is any exception at all
        return 0


def convert(
    arrivals: Collection[Arrival],
    folder: Path,
    tell: Callable[[int, int], None] = lambda done, of: None,
    *,
    fork_server: Path | None = None,
) -> Conversion:
    """Make of these instances, which lie in the job's folder, what isn't Explicit VR Little Endian, into `folder`, one
    of its own, several at a time; `tell` hears how many are done, and of how many.

    Raises NotConvertible where one of them can't be, before any other is made if its transfer syntax tells;
    StorageFull; and ProofFailed where one isn't what arrived, or what was made of it isn't what it was.
    """
    others = [each for each in arrivals if each.transfer_syntax_uid != EXPLICIT_LITTLE_ENDIAN]
    for arrival in others:
        _require_decoder(arrival)
    if not others:
        return AS_ARCHIVED
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made: dict[str, Arrival] = {}
    with (
        DecompressPool(folder.parent, folder, _THREADS, fork_server=fork_server) as pool,
        ThreadPoolExecutor(_THREADS) as threads,
    ):
        begun = {threads.submit(converted, each, folder / f"{each.sha256}.dcm", pool): each for each in others}
        try:
            for done in as_completed(begun):
                made[begun[done].sha256] = done.result()
                tell(len(made), len(others))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            pool.close(at_once=True)
            raise
    return Conversion(made)


def convert_studies(
    studies: CompleteStudies,
    folder: Path,
    tell: Callable[[int, int], None] = lambda done, of: None,
    *,
    fork_server: Path | None = None,
) -> tuple[CompleteStudies, Conversion, Mapping[str, NotConvertible]]:
    """As `convert`, of all that these studies have; without the priors of which something can't be converted, which
    says so in `degraded`. Why is told by the Study Instance UID of each.
    """
    of_study: dict[str, list[Arrival]] = {study.study_instance_uid: [] for study in (*studies.asked, *studies.priors)}
    for instance in studies.instances:
        of_study[instance.arrival.study_instance_uid].append(instance.arrival)
    priors = {study.study_instance_uid: of_study.pop(study.study_instance_uid) for study in studies.priors}
    made = dict(
        convert([each for those in of_study.values() for each in those], folder, tell, fork_server=fork_server).of
    )
    refused: dict[str, NotConvertible] = {}
    for study in studies.priors:
        try:
            made |= convert(priors[study.study_instance_uid], folder, tell, fork_server=fork_server).of
        except NotConvertible as error:
            refused[study.study_instance_uid] = error
    left_out = [study for study in studies.priors if study.study_instance_uid in refused]
    if left_out:
        studies = CompleteStudies(without_priors(studies.retrieved, left_out, NOT_CONVERTIBLE), studies.rules)
    return studies, Conversion(made), refused


def converted(arrival: Arrival, target: Path, pool: DecompressPool) -> Arrival:
    """One instance in Explicit VR Little Endian, written to `target` and proved. Raises what `convert` raises."""
    _require_decoder(arrival)
    pixels = target.with_suffix(".pixels")
    try:
        out, changed = _write(arrival, target, pixels, pool)
        require_unchanged(arrival)
        _prove(arrival, target, changed)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        pixels.unlink(missing_ok=True)
    made = replace(arrival, path=target, size=out.size, sha256=out.sha256.hexdigest())
    return replace(made, transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN)


def _write(arrival: Arrival, target: Path, pixels: Path, pool: DecompressPool) -> tuple[_Hashed, frozenset[int]]:
    """What was written to `target`, and which elements had to change; what is decompressed lies in `pixels` meanwhile.
    Raises NotConvertible.
    """
    try:
        with encoded_data_set(arrival.path) as (data, offset, encoding):
            found = elements(data, offset, len(data), encoding, _WANTED)
            _refuse_doubtful(arrival, data, found, is_big=encoding is EXPLICIT_BIG)
            changes: Changes = {}
            if arrival.transfer_syntax_uid in DECODED and _PIXELS in found:
                told = pool.submit(DecompressRequest(arrival.path, pixels)).result()
                if told.size != _size(data, found) or told.size != pixels.stat().st_size:
                    raise NotDisplayable(Reason.DECODER_CRASHED)
                changes = _changes(arrival, data, found, told, pixels)
            with open(target, "wb", buffering=PIECE_BYTES, opener=private) as file:
                out = _Hashed(file)
                out.write(file_head(arrival.sop_class_uid, arrival.sop_instance_uid, EXPLICIT_LITTLE_ENDIAN))
                reencode(data, offset, encoding, out, explicit=True, changes=changes)
    except NotDisplayable as error:
        raise not_convertible(arrival, error.reason.words) from None
    except DamagedInstance as error:
        raise not_convertible(arrival, error.words) from None
    return out, frozenset(changes)


def require_unchanged(arrival: Arrival) -> None:
    """Raise ProofFailed where an instance isn't what arrived: for after something was made of it."""
    if sha256_of(arrival.path) != arrival.sha256:
        raise ProofFailed(
            "An image isn't what it was when it arrived. Nothing was made of it. Ask for the disc again, and check "
            "the memory and the disk of mkiso.",
            sop_instance_uid=arrival.sop_instance_uid,
        )


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha256, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self.sha256.update(data)
        self.size += len(data)
        self._file.write(data)


def not_convertible(arrival: Arrival, why: str) -> NotConvertible:
    """The error for an instance that can't be had uncompressed; `why` is a sentence."""
    syntax = UID(arrival.transfer_syntax_uid)
    stored = f"{syntax.name} ({syntax})" if syntax.name != syntax else syntax
    error = NotConvertible(
        f"The image {arrival.sop_instance_uid}, which is stored as {stored}, can't be made Explicit VR Little Endian. "
        f"{why} No disc was made. Ask for the disc as it is archived (transfer_syntax=as-archived).",
        sop_instance_uid=arrival.sop_instance_uid,
        transfer_syntax_uid=arrival.transfer_syntax_uid,
    )
    error.why = why
    return error


def _require_decoder(arrival: Arrival) -> None:
    if arrival.transfer_syntax_uid in _VIDEO:
        raise not_convertible(arrival, "It is a video, which has no uncompressed form.")
    if arrival.transfer_syntax_uid not in CONVERTIBLE:
        raise not_convertible(arrival, "There is no decoder for it here.")


def _refuse_doubtful(arrival: Arrival, data: Encoded, found: Elements, *, is_big: bool) -> None:
    """Raise NotConvertible for what readers of the standard understand in more than one way."""
    if _PIXELS not in found:
        return
    if is_big and _number(data, found, _BITS_ALLOCATED, "big") > 16:
        raise not_convertible(
            arrival, "Programs differ in how big endian pixels of more than 16 bits are turned round."
        )
    if arrival.transfer_syntax_uid in DECODED and _SIGNATURES in found:
        raise not_convertible(arrival, "It has a digital signature, which would be wrong afterwards.")


def _changes(arrival: Arrival, data: Encoded, found: Elements, told: Decompressed, pixels: Path) -> Changes:
    """What decompressed pixels change in a data set: how they are encoded, and that they were compressed with loss
    where nothing else would tell it any more (PS3.3 C.7.6.1.1.5).
    """
    changes = {
        **dict.fromkeys((_OFFSETS, _LENGTHS, _TOTAL)),
        _PIXELS: Value(b"OB" if told.bits_allocated <= 8 else b"OW", pixels),
    }
    if _text(data, found, _PHOTOMETRIC) != told.photometric:
        changes[_PHOTOMETRIC] = _code(told.photometric)
    if told.samples > 1:
        changes[_PLANAR] = Value(b"US", b"\0\0")
    syntax, said = arrival.transfer_syntax_uid, _text(data, found, _LOSSY)
    if syntax in _METHODS and said != "01" and (syntax in _DCT or not said):
        changes[_LOSSY] = _code("01")
        if not _text(data, found, _RATIO) and not _text(data, found, _METHOD):
            ratio = told.size / max(1, found[_PIXELS].length)
            changes[_RATIO], changes[_METHOD] = Value(b"DS", b"%.2f" % ratio), _code(_METHODS[syntax])
    return changes


def _code(text: str) -> Value:
    return Value(b"CS", text.encode("ascii"))


def _text(data: Encoded, found: Elements, tag: int) -> str:
    element = found.get(tag)
    return unpadded(data[element.offset : element.offset + min(element.length, _MAX_TEXT)]) if element else ""


def _number(data: Encoded, found: Elements, tag: int, order: Literal["little", "big"] = "little") -> int:
    element = found.get(tag)
    return int.from_bytes(data[element.offset : element.offset + min(element.length, 2)], order) if element else 0


def _size(data: Encoded, found: Elements) -> int:
    """Of the pixels in bytes, by the attributes."""
    rows, columns, bits = (_number(data, found, tag) for tag in (_ROWS, _COLUMNS, _BITS_ALLOCATED))
    frames = _text(data, found, _FRAMES)
    frames_said = int(frames) if frames.isdecimal() and len(frames) < _MAX_DIGITS else 1
    return rows * columns * (_number(data, found, _SAMPLES) or 1) * bits * frames_said // 8


def _prove(arrival: Arrival, made: Path, changed: frozenset[int]) -> None:
    """Raise ProofFailed where an element of the data set that nothing had to change isn't what it was, NotConvertible
    where pydicom can't read what arrived.
    """
    is_big = arrival.transfer_syntax_uid == EXPLICIT_BIG_ENDIAN
    try:
        one, other = _read(arrival.path, arrival.transfer_syntax_uid), _read(made, EXPLICIT_LITTLE_ENDIAN)
        is_same = _same(one, other, arrival.path, made, is_big, changed)
    except (OSError, MemoryError):
        raise
    except Exception:  # what pydicom makes of broken bytes is any exception at all
        raise not_convertible(arrival, "Its data set can't be read without doubt.") from None
    if not is_same:
        raise ProofFailed(
            "What was made of an image isn't what it was. It is not used, and no disc was made. Ask for the disc as it "
            "is archived (transfer_syntax=as-archived), and tell who maintains mkiso.",
            sop_instance_uid=arrival.sop_instance_uid,
        )


def _read(path: Path, transfer_syntax_uid: str) -> Dataset:
    """Of what is long only its place, so that an object of any size costs little memory; a deflated one is bounded."""
    return dcmread(path, defer_size=None if transfer_syntax_uid == DeflatedExplicitVRLittleEndian else PIECE_BYTES)


def _same(
    one: Dataset,
    other: Dataset,
    path: Path,
    made: Path,
    is_big: bool,
    changed: frozenset[int] = frozenset(),
) -> bool:
    """Whether each element has the same value in both, group lengths and `changed` ones apart."""
    tags, others = ({tag for tag in set(each.keys()) if tag.element and tag not in changed} for each in (one, other))
    if tags != others:
        return False
    for tag in tags:
        found, again = (each.get_item(tag, keep_deferred=True) for each in (one, other))
        if isinstance(found, RawDataElement) and isinstance(again, RawDataElement) and again.VR != "SQ":
            if found.VR not in (None, again.VR) and again.VR != "UN":
                return False
            word_bytes = WORD_BYTES.get((again.VR or "").encode(), 1) if is_big else 1
            if found.length != again.length or not all(
                piece == np.frombuffer(swapped, f"u{word_bytes}").byteswap().tobytes()
                if word_bytes > 1
                else piece == swapped
                for piece, swapped in zip(_pieces(found, path), _pieces(again, made), strict=True)
            ):
                return False
        elif one[tag].VR != other[tag].VR:
            return False
        elif one[tag].VR != "SQ":  # pydicom has read it already: the Specific Character Set
            if one[tag].value != other[tag].value:
                return False
        elif not _same_items(one[tag].value, other[tag].value, path, made, is_big):
            return False
    return True


def _same_items(items: Sequence[Dataset], others: Sequence[Dataset], path: Path, made: Path, is_big: bool) -> bool:
    return len(items) == len(others) and all(
        _same(item, other, path, made, is_big) for item, other in zip(items, others, strict=True)
    )


def _pieces(element: RawDataElement, path: Path) -> Iterator[bytes]:
    """The bytes of a value, from its file where they weren't read."""
    if (value := element.value) is not None or not element.length:
        yield from ((value or b"")[start : start + PIECE_BYTES] for start in range(0, element.length, PIECE_BYTES))
        return
    with path.open("rb") as file:
        file.seek(element.value_tell)
        for left in range(element.length, 0, -PIECE_BYTES):
            yield file.read(min(left, PIECE_BYTES))

"""Reading the UDF volume that an image has beside ISO 9660, independent of what wrote it, bounded against whatever it
may hold.

UDF 1.02 to 2.60 on one partition, with or without a metadata partition: every descriptor's checksum, CRC and place,
both volume descriptor sequences, two anchors, and the metadata file with its mirror. Sections are those of ECMA-167,
third edition, and of OSTA UDF 2.60.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from mkiso.errors import ProofFailed
from mkiso.formats.protocol import Extent, read_extent
from mkiso.media.names import told_by

UDF = "UDF"
SECTOR_BYTES = 2048
_FIRST_STRUCTURE, _MAX_STRUCTURES = 16, 64  # 2/8.3
_STRUCTURES = (b"CD001", b"BEA01", b"NSR02", b"NSR03", b"TEA01", b"BOOT2", b"CDW02")  # that systems pass over, too
_FIRST_ANCHOR = 256
_MAX_SEQUENCE_SECTORS = 64
_MAX_DIRECTORY_BYTES = 256 * 1024 * 1024  # of all directories: more than a million files
_MAX_ENTRIES = 1_000_000  # deleted ones too
_MAX_DEPTH = 16
_PRIMARY, _ANCHOR, _PARTITION, _LOGICAL, _TERMINATOR, _INTEGRITY = 1, 2, 5, 6, 8, 9  # 3/7.2.1
_FILE_SET, _RECORD, _ENTRY, _EXTENDED_ENTRY = 256, 257, 261, 266  # 4/7.2.1
_DIRECTORY, _FILE, _METADATA_FILE, _METADATA_MIRROR = 4, 5, 250, 251  # 4/14.6.6, UDF 2.2.13.1
_IS_DIRECTORY, _IS_DELETED, _IS_PARENT = 0x02, 0x04, 0x08  # 4/14.4.3
_SHORT, _LONG, _EMBEDDED = 0, 1, 3  # 4/14.6.8


class _Place(NamedTuple):
    """A logical block in a partition (4/7.1)."""

    block: int
    partition: int


class _Run(NamedTuple):
    """Sectors of the image, one behind the other."""

    sector: int
    sectors: int


class _Entry(NamedTuple):
    """What a file entry says: its kind, where its bytes lie in the image, and the place of the first of them."""

    kind: int
    extent: Extent
    first: _Place


def read_udf(descriptor: int, sectors: int) -> dict[PurePosixPath, Extent] | None:
    """The files of the UDF volume of an image of so many sectors; None where it has none. Raises ProofFailed where it
    has anything of one that isn't sound.
    """
    recognised = _recognised(descriptor)
    anchors = [
        found
        for sector in sorted({_FIRST_ANCHOR, sectors - 1 - _FIRST_ANCHOR, sectors - 1})
        if 0 <= sector < sectors and (found := _anchor(descriptor, sector))
    ]
    if not recognised and not anchors:
        return None
    if not recognised:
        raise ProofFailed("The image's UDF tree isn't announced: systems would not find it.")
    # That at _FIRST_ANCHOR is what all systems try first.
    if len(anchors) < 2 or len(set(anchors)) > 1 or not _anchor(descriptor, _FIRST_ANCHOR):
        raise ProofFailed("The image has not two anchors of its UDF tree that are the same.")
    return _Volume(descriptor, sectors, anchors[0]).files()


def _recognised(descriptor: int) -> bool:
    """Whether the volume recognition sequence has UDF's whole structures (2/8.3, UDF 2.1.7)."""
    found = []
    for sector in range(_FIRST_STRUCTURE, _FIRST_STRUCTURE + _MAX_STRUCTURES):
        block = read_extent(descriptor, Extent(sector * SECTOR_BYTES, 7))
        if block[1:6] not in _STRUCTURES:
            break
        if block[1:6] != b"CD001":
            found.append(block)
    if found and found not in ([b"\0BEA01\1", b"\0NSR0" + version + b"\1", b"\0TEA01\1"] for version in (b"2", b"3")):
        raise ProofFailed("The image announces a UDF tree in a broken way.")
    return bool(found)


def _anchor(descriptor: int, sector: int) -> bytes:
    """The extents that an anchor names; nothing where there is none."""
    try:
        return _tagged(descriptor, Extent(sector * SECTOR_BYTES, 512), sector, _ANCHOR)[16:32]
    except ProofFailed:
        return b""


def _tagged(descriptor: int, extent: Extent, location: int, *identifiers: int) -> bytes:
    """A descriptor whose tag is sound (3/7.2) and says that it is one of these, at this place."""
    return _checked(read_extent(descriptor, extent), location, *identifiers)


def _checked(data: bytes, location: int, *identifiers: int) -> bytes:
    identifier, version, checksum, reserved, _, crc, length, place = struct.unpack_from("<HHBBHHHI", data)
    if (
        identifier not in identifiers
        or version not in (2, 3)
        or reserved
        or (sum(data[:4]) + sum(data[5:16])) % 256 != checksum
        or 16 + length > len(data)
        or crc_hqx(data[16 : 16 + length], 0) != crc
        or place != location
    ):
        raise ProofFailed("The image has a damaged descriptor in its UDF tree.")
    return data


class _Volume:
    """A UDF volume while it is read."""

    def __init__(self, descriptor: int, sectors: int, anchor: bytes) -> None:
        self._descriptor, self._sectors = descriptor, sectors
        self._maps: list[tuple[_Run, ...]] = []
        self._read_bytes = self._records_read = 0
        main, reserve = (self._sequence(*struct.unpack_from("<II", anchor, position)) for position in (0, 8))
        if not {_PRIMARY, _PARTITION, _LOGICAL} <= main.keys() & reserve.keys():
            raise ProofFailed("The image's UDF volume lacks a descriptor.")
        if any(main[kind][4:] != reserve[kind][4:] for kind in (_PARTITION, _LOGICAL)):  # but for their numbers
            raise ProofFailed("The image's two sequences of UDF volume descriptors differ.")
        logical = main[_LOGICAL]
        if _number(logical, 212 - 16) != SECTOR_BYTES or logical[216 - 16 + 1 :][:19] != b"*OSTA UDF Compliant":
            raise ProofFailed("The image's UDF volume is of another kind than UDF's.")
        self._integrity(*struct.unpack_from("<II", logical, 432 - 16))
        self._map_partitions(logical, main[_PARTITION])
        self._file_set = _place(logical, 248 - 16)

    def _sequence(self, size: int, start: int) -> dict[int, bytes]:
        """The volume descriptors by their kind, without their tags, up to the one that ends them."""
        found: dict[int, bytes] = {}
        for sector in range(start, start + min(size // SECTOR_BYTES, _MAX_SEQUENCE_SECTORS)):
            data = _tagged(self._descriptor, self._within(Extent(sector * SECTOR_BYTES, 512)), sector, 1, 4, 5, 6, 7, 8)
            kind = struct.unpack_from("<H", data)[0]
            if kind == _TERMINATOR:
                return found
            if kind in found:
                raise ProofFailed("The image's UDF volume has several descriptors of a kind.")
            found[kind] = data[16:]
        raise ProofFailed("The image's UDF volume descriptors don't end.")

    def _integrity(self, size: int, sector: int) -> None:
        data = _tagged(self._descriptor, self._within(Extent(sector * SECTOR_BYTES, 512)), sector, _INTEGRITY)
        if size < SECTOR_BYTES or _number(data, 28) != 1:
            raise ProofFailed("The image's UDF volume was never closed.")

    def _map_partitions(self, logical: bytes, partition: bytes) -> None:
        """3/10.7, UDF 2.2.8 to 2.2.10."""
        start, length = struct.unpack_from("<II", partition, 188 - 16)
        self._within(Extent(start * SECTOR_BYTES, length * SECTOR_BYTES))
        number = struct.unpack_from("<H", partition, 22 - 16)[0]
        count, maps = _number(logical, 268 - 16), logical[440 - 16 :]
        simple = struct.pack("<BBHH", 1, 6, 1, number)
        if maps[:6] != simple or count not in (1, 2):
            raise ProofFailed("The image's UDF partitions are of a kind that isn't known here.")
        self._maps.append((_Run(start, length),))
        if count == 2:
            kind = struct.pack("<BBH", 2, 64, 0) + b"\0*UDF Metadata Partition"
            if maps[6 : 6 + len(kind)] != kind or struct.unpack_from("<HH", maps, 42) != (1, number):
                raise ProofFailed("The image's UDF partitions are of a kind that isn't known here.")
            first, second = struct.unpack_from("<II", maps, 46)
            entry = self._entry(_Place(first, 0), _METADATA_FILE)
            if entry[1:] != self._entry(_Place(second, 0), _METADATA_MIRROR)[1:] or entry.extent.size % SECTOR_BYTES:
                raise ProofFailed("The image's UDF metadata file and its mirror differ.")
            self._maps.append((_Run(entry.extent.start // SECTOR_BYTES, entry.extent.size // SECTOR_BYTES),))

    def files(self) -> dict[PurePosixPath, Extent]:
        data = _tagged(self._descriptor, self._blocks(self._file_set, 512), self._file_set.block, _FILE_SET)
        root = _place(data, 400)
        found: dict[PurePosixPath, Extent] = {}
        seen = {root}
        waiting = [(PurePosixPath(), root, root)]
        while waiting:
            folder, place, above = waiting.pop()
            if len(folder.parts) > _MAX_DEPTH:
                raise ProofFailed("The image's UDF directories go too deep.")
            names: set[str] = set()
            for number, (flags, identifier, icb) in enumerate(self._records(self._entry(place, _DIRECTORY))):
                if bool(flags & _IS_PARENT) != (number == 0):
                    raise ProofFailed("The image has a UDF directory without its parent's record.")
                if flags & _IS_PARENT:
                    if icb != above:
                        raise ProofFailed("The image has a UDF directory whose parent is another.")
                    continue
                if flags & _IS_DELETED:
                    continue
                path = folder / (name := _name(identifier))
                if flags & ~_IS_DIRECTORY:
                    raise ProofFailed(f"The image's UDF tree hides {path}.")
                if told_by(name) in names:  # also of two directories: a system goes into one of them
                    raise ProofFailed(f"The image's UDF tree has {path} twice.")
                names.add(told_by(name))
                if icb in seen or len(seen) > _MAX_ENTRIES:
                    raise ProofFailed("The image's UDF directories name something twice, or too much.")
                seen.add(icb)
                if flags & _IS_DIRECTORY:
                    waiting.append((path, icb, place))
                else:
                    found[path] = self._entry(icb, _FILE).extent
        return found

    def _records(self, entry: _Entry) -> Iterator[tuple[int, bytes, _Place]]:
        """Characteristics, identifier and file entry of each file identifier descriptor (4/14.4)."""
        self._read_bytes += entry.extent.size
        if self._read_bytes > _MAX_DIRECTORY_BYTES:
            raise ProofFailed("The image's UDF directories are larger than any disc needs.")
        data = read_extent(self._descriptor, entry.extent)
        position = 0
        within = entry.extent.start % SECTOR_BYTES  # of an embedded directory
        while position < len(data):
            if position + 38 > len(data):
                raise ProofFailed("The image has a broken UDF directory.")
            used = struct.unpack_from("<H", data, position + 36)[0]
            size = 38 + used + data[position + 19]
            record = data[position : position + size + -size % 4]
            if len(record) < size:
                raise ProofFailed("The image has a broken UDF directory.")
            _checked(record, entry.first.block + (within + position) // SECTOR_BYTES, _RECORD)
            self._records_read += 1
            if self._records_read > _MAX_ENTRIES:
                raise ProofFailed("The image's UDF directories name more than any disc needs.")
            yield record[18], record[38 + used : size], _place(record, 20)
            position += len(record)

    def _entry(self, place: _Place, kind: int) -> _Entry:
        """A file entry of this kind (4/14.9, 4/14.17), whose bytes lie one behind the other."""
        block = self._blocks(place, SECTOR_BYTES)
        data = _tagged(self._descriptor, block, place.block, _ENTRY, _EXTENDED_ENTRY)
        extended = struct.unpack_from("<H", data)[0] == _EXTENDED_ENTRY
        size = struct.unpack_from("<Q", data, 56)[0]
        recorded = struct.unpack_from("<Q", data, 72 if extended else 64)[0]
        attributes, length = struct.unpack_from("<II", data, 208 if extended else 168)
        start = (216 if extended else 176) + attributes
        flags = struct.unpack_from("<H", data, 34)[0]
        if data[27] != kind or struct.unpack_from("<H", data, 20)[0] != 4 or start + length > SECTOR_BYTES:
            raise ProofFailed("The image has a UDF file entry of a kind that isn't known here.")
        if flags & 7 == _EMBEDDED:
            if size != length:
                raise ProofFailed("The image has a UDF file entry of another length than its file.")
            return _Entry(kind, Extent(block.start + start, size) if size else Extent(0, 0), place)
        pieces = list(_pieces(data[start : start + length], flags & 7, place.partition))
        if sum(piece for piece, _ in pieces) != size or recorded != -(-size // SECTOR_BYTES):
            raise ProofFailed("The image has a UDF file entry of another length than its file.")
        if not size:
            return _Entry(kind, Extent(0, 0), place)
        begin = self._blocks(pieces[0][1], pieces[0][0])
        end = begin.start + begin.size
        for length, piece in pieces[1:]:
            following = self._blocks(piece, length)
            if following.start != end:
                raise ProofFailed("The image has a file in pieces in its UDF tree.")
            end += following.size
        return _Entry(kind, Extent(begin.start, size), pieces[0][1])

    def _blocks(self, place: _Place, size: int) -> Extent:
        """The bytes that begin with a block of a partition, all of them in it."""
        if place.partition < len(self._maps):
            [run] = self._maps[place.partition]
            if place.block + -(-size // SECTOR_BYTES) <= run.sectors:
                return Extent((run.sector + place.block) * SECTOR_BYTES, size)
        raise ProofFailed("The image's UDF tree has something outside its partition.")

    def _within(self, extent: Extent) -> Extent:
        if extent.start + extent.size > self._sectors * SECTOR_BYTES:
            raise ProofFailed("The image's UDF tree has something outside the image.")
        return extent


def _pieces(descriptors: bytes, kind: int, partition: int) -> Sequence[tuple[int, _Place]]:
    """The allocation descriptors of recorded bytes (4/14.14)."""
    pieces = []
    width = {_SHORT: 8, _LONG: 16}.get(kind)
    if width is None or len(descriptors) % width:
        raise ProofFailed("The image has a UDF file entry of a kind that isn't known here.")
    for position in range(0, len(descriptors), width):
        length, block = struct.unpack_from("<II", descriptors, position)
        if not length:
            break
        if length >> 30:
            raise ProofFailed("The image has a file in its UDF tree that isn't wholly recorded.")
        there = partition if kind == _SHORT else struct.unpack_from("<H", descriptors, position + 8)[0]
        pieces.append((length, _Place(block, there)))
    return pieces


def _place(data: bytes, position: int) -> _Place:
    """Where a long allocation descriptor begins (4/14.14.2)."""
    return _Place(*struct.unpack_from("<IH", data, position + 4))


def _number(data: bytes, position: int) -> int:
    return int(struct.unpack_from("<I", data, position)[0])


def _name(identifier: bytes) -> str:
    """UDF 2.1.1; also bounded to what a path's component may be."""
    encoding = {b"\x08": "latin-1", b"\x10": "utf-16-be"}.get(identifier[:1])
    try:
        name = identifier[1:].decode(encoding) if encoding else ""
    except UnicodeDecodeError:
        name = ""
    if not name or name in (".", "..") or "/" in name or "\x00" in name:
        raise ProofFailed("The image's UDF tree has a name that leads elsewhere.")
    return name

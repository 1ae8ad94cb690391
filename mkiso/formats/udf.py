"""UDF 2.60 beside ISO 9660, over the same files' bytes, as PS3.12 X.2 asks for on Blu-ray discs; read by
mkiso.formats.udf_reader.

The volume is closed and read-only: one physical partition, which holds the trees of ISO 9660 and all files, and in it a
metadata partition (UDF 2.2.10). That stands before them: 7-Zip takes anything but the last anchor behind the files for
damage. Sections are those of ECMA-167, third edition, and of OSTA UDF 2.60.
"""

from __future__ import annotations

import hashlib
import struct
from binascii import crc_hqx
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

from mkiso.formats.protocol import Extent
from mkiso.media.capacity import (
    SECTOR_BYTES,
    UDF_FIRST_METADATA_SECTORS,
    UDF_PARTITION_SECTOR,
    UDF_UNIT_SECTORS,
    below,
    names_by_folder,
    sectors_of,
    udf_identifier,
    udf_record_bytes,
    whole_units,
)

_RECOGNITION, _MAIN, _RESERVE, _INTEGRITY, _ANCHOR = 19, 32, 48, 64, 256  # sectors
_SEQUENCE_BYTES = 16 * SECTOR_BYTES  # the least of a volume descriptor sequence (3/8.4.2.2)
_INTEGRITY_BYTES = 4 * SECTOR_BYTES
_METADATA_SECTOR = UDF_PARTITION_SECTOR + UDF_UNIT_SECTORS
_PHYSICAL, _METADATA = 0, 1  # partition references
_LONGEST_EXTENT = 0x3FFFF800  # 30 bits, in whole sectors (4/14.14.1.1)
_REVISION, _LEAST_TO_READ = 0x0260, 0x0250  # UDF 2.60 has nothing new for a read-only volume
_FIRST_UNIQUE_ID = 16  # those before are reserved (UDF 3.2.1.1)
_DIRECTORY, _FILE, _METADATA_FILE, _METADATA_MIRROR = 4, 5, 250, 251  # 4/14.6.6, UDF 2.2.13.1
_EVERYBODY = 0b00001_00001_00001  # others, the group and the owner have five bits each (4/14.9.5)
_FILE_PERMISSIONS = 0b10110 * _EVERYBODY  # delete, read, write: PS3.12 X.2.1.5 wants everybody to have them
_DIRECTORY_PERMISSIONS = 0b10111 * _EVERYBODY  # and search
_NO_OWNER = 2**32 - 1
_CHARACTERS = b"\0" + b"OSTA Compressed Unicode".ljust(63, b"\0")  # UDF 2.1.2
_NOWHERE = bytes(16)  # a long allocation descriptor of nothing
_DEVELOPER = b"\0" + b"*MKISO".ljust(23, b"\0") + bytes(8)  # UDF 2.1.5


class _Node(NamedTuple):
    """A file or directory: its place in the metadata partition, and its number."""

    block: int
    unique_id: int


def add_udf(image: BinaryIO, files: Mapping[PurePosixPath, Extent], label: str, moment: datetime, end: int) -> None:
    """Write the UDF volume into an ISO 9660 image whose trees begin behind mkiso.media.capacity.udf_head_sectors and
    whose last file ends before the sector `end`. What was before and behind them is overwritten.
    """
    tree = _Tree.of(files)
    mirror = _METADATA_SECTOR + whole_units(tree.blocks)
    partition_end = whole_units(end)
    last = partition_end + UDF_UNIT_SECTORS - 1
    volume = _Volume(tree, label, _timestamp(moment), moment, mirror, partition_end)

    def put(sector: int, *descriptors: bytes) -> None:
        image.seek(sector * SECTOR_BYTES)
        for descriptor in descriptors:
            image.write(_whole(descriptor))

    put(_RECOGNITION, bytes((_METADATA_SECTOR - _RECOGNITION) * SECTOR_BYTES))
    put(_RECOGNITION, *(b"\0" + name + b"\1" for name in (b"BEA01", b"NSR03", b"TEA01")))  # 2/9.2, 3/9.1, 2/9.3
    for sequence in (_MAIN, _RESERVE):
        put(sequence, *volume.descriptors(sequence))
    put(_INTEGRITY, volume.integrity(), _tagged(8, _INTEGRITY + 1, bytes(496)))
    put(_ANCHOR, _anchor(_ANCHOR))
    put(UDF_PARTITION_SECTOR, volume.metadata_file(_METADATA_FILE, UDF_PARTITION_SECTOR))
    put(_METADATA_SECTOR, *volume.metadata())
    put(mirror, volume.metadata_file(_METADATA_MIRROR, mirror))
    put(end, bytes((last - end) * SECTOR_BYTES), _anchor(last))


@dataclass(frozen=True, slots=True)
class _Tree:
    """The directories with what is in each, by name, and where each one's file entry stands in the metadata. Paths are
    those of names_by_folder.
    """

    files: Mapping[str, Extent]
    children: Mapping[str, list[str]]
    nodes: Mapping[str, _Node]
    blocks: int

    @classmethod
    def of(cls, files: Mapping[PurePosixPath, Extent]) -> _Tree:
        names = names_by_folder(files)
        placed = {str(path): extent for path, extent in files.items()}
        children = {
            folder: [below(folder, name) for name in sorted(names[folder])] for folder in sorted(names, key=_parts)
        }
        nodes: dict[str, _Node] = {}
        block, unique_id = UDF_FIRST_METADATA_SECTORS, 0
        for path in (*children, *(child for those in children.values() for child in those if child in placed)):
            nodes[path] = _Node(block, unique_id)
            block += 1
            if path in children:
                block += sectors_of(udf_record_bytes(names[path]))
            unique_id = max(_FIRST_UNIQUE_ID, unique_id + 1)
        return cls(placed, children, nodes, block)


@dataclass(frozen=True, slots=True)
class _Volume:
    """The volume's structures; `mirror` and `partition_end` are sectors."""

    tree: _Tree
    label: str
    recorded: bytes
    moment: datetime
    mirror: int
    partition_end: int

    def descriptors(self, first: int) -> Iterator[bytes]:
        """A volume descriptor sequence from the sector `first` (3/8.4.2)."""
        label = _text(self.label, 128)
        unique = hashlib.sha256("\n".join([self.label, *sorted(self.tree.files, key=_parts)]).encode()).hexdigest()[:8]
        primary = struct.pack("<II", 0, 0) + _text(self.label, 32) + struct.pack("<HHHHII", 1, 1, 2, 2, 1, 1)
        primary += _text(f"{int(self.moment.timestamp()):08X}{unique.upper()}{self.label}", 128)  # UDF 2.2.2.5
        primary += _CHARACTERS * 2 + bytes(16) + bytes(32) + self.recorded + _DEVELOPER + bytes(64 + 4 + 2 + 22)
        information = _CHARACTERS + label + bytes(3 * 36) + _DEVELOPER + bytes(128)  # UDF 2.2.7
        partition = struct.pack("<IHH", 2, 1, 0) + _identifier(b"+NSR03", b"") + bytes(128)
        length = self.partition_end - UDF_PARTITION_SECTOR
        partition += struct.pack("<III", 1, UDF_PARTITION_SECTOR, length) + _DEVELOPER + bytes(128 + 156)
        metadata = struct.pack("<BBH", 2, 64, 0) + _identifier(b"*UDF Metadata Partition", _UDF_SUFFIX)
        mirror = self.mirror - UDF_PARTITION_SECTOR
        metadata += struct.pack("<HHIIIIHB", 1, 0, 0, mirror, 2**32 - 1, UDF_UNIT_SECTORS, UDF_UNIT_SECTORS, 0)
        maps = struct.pack("<BBHH", 1, 6, 1, 0) + metadata + bytes(5)
        logical = struct.pack("<I", 3) + _CHARACTERS + label + struct.pack("<I", SECTOR_BYTES) + _DOMAIN
        logical += _long(2 * SECTOR_BYTES, 0, _METADATA) + struct.pack("<II", len(maps), 2) + _DEVELOPER + bytes(128)
        logical += struct.pack("<II", _INTEGRITY_BYTES, _INTEGRITY) + maps
        yield _tagged(1, first, primary)
        yield _tagged(4, first + 1, struct.pack("<I", 1) + _identifier(b"*UDF LV Info", _UDF_SUFFIX) + information)
        yield _tagged(5, first + 2, partition)
        yield _tagged(6, first + 3, logical)
        yield _tagged(7, first + 4, struct.pack("<II", 4, 0))
        yield _tagged(8, first + 5, bytes(496))

    def integrity(self) -> bytes:
        """The logical volume integrity descriptor of a closed volume (3/10.10, UDF 2.2.6)."""
        next_id = max(_FIRST_UNIQUE_ID, len(self.tree.nodes) + _FIRST_UNIQUE_ID - 1)
        sizes = (0, 0, self.partition_end - UDF_PARTITION_SECTOR, self.mirror - _METADATA_SECTOR)
        counts = (len(self.tree.files), len(self.tree.children), _LEAST_TO_READ, _REVISION, _REVISION)
        use = _DEVELOPER + struct.pack("<IIHHH", *counts)
        content = self.recorded + struct.pack("<I", 1) + bytes(8) + struct.pack("<Q", next_id) + bytes(24)
        return _tagged(9, _INTEGRITY, content + struct.pack("<II4I", 2, len(use), *sizes) + use)

    def metadata_file(self, kind: int, sector: int) -> bytes:
        """The file entry of the metadata file or of its mirror, which has the same extent (UDF 2.2.13.1)."""
        size = (self.mirror - _METADATA_SECTOR) * SECTOR_BYTES
        block, first = sector - UDF_PARTITION_SECTOR, _METADATA_SECTOR - UDF_PARTITION_SECTOR
        places = b"".join(
            struct.pack("<II", min(_LONGEST_EXTENT, size - at), first + at // SECTOR_BYTES)
            for at in range(0, size, _LONGEST_EXTENT)
        )
        return self._entry(block, kind, size, places, _Node(block, 0), links=0, permissions=0)

    def metadata(self) -> Iterator[bytes]:
        """What is in the metadata partition, each in blocks of its own."""
        root = _long(SECTOR_BYTES, self.tree.nodes[""].block, _METADATA)
        content = self.recorded + struct.pack("<HHIIII", 3, 3, 1, 1, 0, 0) + _CHARACTERS + _text(self.label, 128)
        content += _CHARACTERS + _text(self.label, 32) + bytes(64) + root + _DOMAIN + _NOWHERE * 2 + bytes(32)
        yield _tagged(256, 0, content)
        yield _tagged(8, 1, bytes(496))
        for folder, children in self.tree.children.items():
            yield from self._directory(folder, children)
        for children in self.tree.children.values():
            for path in children:
                if extent := self.tree.files.get(path):
                    yield self._file(self.tree.nodes[path], extent)

    def _directory(self, folder: str, children: list[str]) -> Iterator[bytes]:
        node = self.tree.nodes[folder]
        records = self._record(node.block + 1, 0x0A, self.tree.nodes[folder.rpartition("/")[0]], b"")
        for child in children:
            block = node.block + 1 + len(records) // SECTOR_BYTES
            flags = 0x02 if child in self.tree.children else 0
            records += self._record(block, flags, self.tree.nodes[child], udf_identifier(child.rpartition("/")[2]))
        links = 1 + sum(child in self.tree.children for child in children)
        place = struct.pack("<II", len(records), node.block + 1)
        yield self._entry(node.block, _DIRECTORY, len(records), place, node, links, _DIRECTORY_PERMISSIONS)
        yield records

    def _record(self, block: int, flags: int, node: _Node, identifier: bytes) -> bytes:
        """A file identifier descriptor that begins in this block (4/14.4)."""
        icb = _long(SECTOR_BYTES, node.block, _METADATA, node.unique_id)
        content = struct.pack("<HBB", 1, flags, len(identifier)) + icb + struct.pack("<H", 0) + identifier
        return _tagged(257, block, content + bytes(-(16 + len(content)) % 4))

    def _file(self, node: _Node, extent: Extent) -> bytes:
        first = extent.start // SECTOR_BYTES - UDF_PARTITION_SECTOR
        places = b"".join(
            _long(min(_LONGEST_EXTENT, extent.size - at), first + at // SECTOR_BYTES, _PHYSICAL)
            for at in range(0, extent.size, _LONGEST_EXTENT)
        )
        return self._entry(node.block, _FILE, extent.size, places, node, 1, _FILE_PERMISSIONS, long=True)

    def _entry(
        self,
        block: int,
        kind: int,
        size: int,
        places: bytes,
        node: _Node,
        links: int,
        permissions: int,
        long: bool = False,
    ) -> bytes:
        """An extended file entry (4/14.17) with these allocation descriptors, short or long ones."""
        content = struct.pack("<IHHHBB6sH", 0, 4, 0, 1, 0, kind, bytes(6), int(long))
        content += struct.pack("<IIIHBBI", _NO_OWNER, _NO_OWNER, permissions, links, 0, 0, 0)
        content += struct.pack("<QQQ", size, size, sectors_of(size)) + self.recorded * 4 + struct.pack("<II", 1, 0)
        content += _NOWHERE * 2 + _DEVELOPER + struct.pack("<QII", node.unique_id, 0, len(places))
        return _tagged(266, block, content + places)


def _parts(path: str) -> list[str]:
    return path.split("/")


def _tagged(identifier: int, location: int, content: bytes) -> bytes:
    """A descriptor with its tag (3/7.2); those of volumes have 512 bytes."""
    if identifier < 256:
        content = content.ljust(496, b"\0")
    crc = crc_hqx(content, 0)
    tag = struct.pack("<HHBBHHHI", identifier, 3, 0, 0, 1, crc, len(content), location)
    return tag[:4] + bytes([sum(tag) % 256]) + tag[5:] + content


def _whole(descriptor: bytes) -> bytes:
    """In sectors of its own."""
    return descriptor + bytes(-len(descriptor) % SECTOR_BYTES)


def _anchor(sector: int) -> bytes:
    return _tagged(2, sector, struct.pack("<4I", _SEQUENCE_BYTES, _MAIN, _SEQUENCE_BYTES, _RESERVE))


def _identifier(name: bytes, suffix: bytes) -> bytes:
    """An entity identifier (1/7.4)."""
    return b"\0" + name.ljust(23, b"\0") + suffix.ljust(8, b"\0")


def _long(size: int, block: int, partition: int, unique_id: int = 0) -> bytes:
    """A long allocation descriptor (4/14.14.2, UDF 2.3.4.3)."""
    return struct.pack("<IIHHI", size, block, partition, 0, unique_id)


def _text(text: str, size: int) -> bytes:
    """A text in a field of `size` bytes, of which the last is its length (1/7.2.12)."""
    content = udf_identifier(text)[: size - 1]
    return content.ljust(size - 1, b"\0") + bytes([len(content)])


def _timestamp(moment: datetime) -> bytes:
    """1/7.3, in UTC."""
    at = moment.astimezone(UTC)
    return struct.pack("<HHBBBBBBBB", 0x1000, at.year, at.month, at.day, at.hour, at.minute, at.second, 0, 0, 0)


_UDF_SUFFIX = struct.pack("<HBB", _REVISION, 0, 0)  # UDF 2.1.5.3
_DOMAIN = _identifier(b"*OSTA UDF Compliant", struct.pack("<HB", _REVISION, 0))

"""Reading an ISO 9660 image with Joliet, independent of what wrote it, bounded against whatever an image may hold. UDF
beside them is read by mkiso.formats.udf_reader.

Both trees are walked from their descriptors; every extent lies within the volume; every number that the standard has in
both byte orders is compared. What some systems go by and others don't is refused, so that all of them show the same: a
second descriptor of a kind, extended attributes, Rock Ridge, anything before the descriptors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from mkiso.errors import ProofFailed
from mkiso.formats.protocol import Contents, Extent, read_extent
from mkiso.formats.udf_reader import UDF, read_udf
from mkiso.media.names import told_by

SECTOR_BYTES = 2048
PRIMARY, JOLIET = "ISO 9660", "Joliet"
_FIRST_DESCRIPTOR = 16  # Ecma-119 6.2.1
_MAX_DESCRIPTORS = 64
_MAX_DIRECTORY_BYTES = 256 * 1024 * 1024  # of one tree
_MAX_ENTRIES = 1_000_000  # of one tree; each takes 1 KB of memory here
_MAX_DEPTH = 16
_PRIMARY_DESCRIPTOR, _SUPPLEMENTARY_DESCRIPTOR, _TERMINATOR = 1, 2, 255  # Ecma-119 8.1.1
_JOLIET_ESCAPES = (b"%/@", b"%/C", b"%/E")
_DIRECTORY, _ASSOCIATED, _MULTI_EXTENT = 0x02, 0x04, 0x80  # Ecma-119 9.1.6
_XA_BYTES = 14  # of a CD-ROM XA system use field, which says nothing of names or places


def read_image(descriptor: int) -> Contents:
    """Read the directories of an image or disc that is open for reading. Raises ProofFailed where it is no sound ISO
    9660 image with Joliet.
    """
    primary, joliet = _descriptors(descriptor)
    sectors = _both_endian(primary, 80)
    if _both_endian(joliet, 80) != sectors:
        raise ProofFailed("The image's two volume descriptors give different sizes.")
    if struct.unpack_from("<H", primary, 128)[0] != SECTOR_BYTES:
        raise ProofFailed("The image's blocks are not of 2,048 bytes.")
    trees = {
        PRIMARY: _Tree(descriptor, sectors, "ascii").files(primary),
        JOLIET: _Tree(descriptor, sectors, "utf-16-be").files(joliet),
    }
    if (udf := read_udf(descriptor, sectors)) is not None:
        trees[UDF] = udf
    return Contents(primary[40:72].decode("ascii", "replace").rstrip(), sectors * SECTOR_BYTES, trees)


def _descriptors(descriptor: int) -> tuple[bytes, bytes]:
    """The one primary and the one supplementary descriptor, which is Joliet's: of several each system takes another."""
    if any(read_extent(descriptor, _extent_at(0, _FIRST_DESCRIPTOR * SECTOR_BYTES))):  # HFS, or a partition table
        raise ProofFailed("The image has something before its volume descriptors, which some systems would show.")
    primary = joliet = b""
    for sector in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + _MAX_DESCRIPTORS):
        block = read_extent(descriptor, _extent_at(sector, SECTOR_BYTES))
        if block[1:6] != b"CD001" or block[0] == _TERMINATOR:
            break
        if (block[0] == _PRIMARY_DESCRIPTOR and primary) or (block[0] == _SUPPLEMENTARY_DESCRIPTOR and joliet):
            raise ProofFailed("The image has several volume descriptors of a kind.")
        if block[0] == _PRIMARY_DESCRIPTOR:
            primary = block
        elif block[0] == _SUPPLEMENTARY_DESCRIPTOR:
            joliet = block
    if not primary:
        raise ProofFailed("This is no ISO 9660 image with Joliet.")
    if joliet[88:91] not in _JOLIET_ESCAPES:
        raise ProofFailed("The image has no Joliet tree.")
    if block[:6] != bytes([_TERMINATOR]) + b"CD001":
        raise ProofFailed("The image's volume descriptors don't end.")
    return primary, joliet


@dataclass(slots=True)
class _Tree:
    """One of the two directory trees while it is walked."""

    descriptor: int
    sectors: int
    encoding: str
    read_bytes: int = 0
    read_records: int = 0

    def files(self, volume_descriptor: bytes) -> dict[PurePosixPath, Extent]:
        found: dict[PurePosixPath, Extent] = {}
        seen: set[int] = set()
        if not _is_plain(volume_descriptor[156:190]):
            raise ProofFailed("The image has a directory record that systems understand in different ways.")
        root = self._extent(volume_descriptor[156:190])
        waiting = [(PurePosixPath(), root)]
        directories: dict[int, tuple[bytes, int]] = {}
        while waiting:
            folder, extent = waiting.pop()
            if extent.start in seen or len(folder.parts) > _MAX_DEPTH:
                raise ProofFailed("The image's directories lead back to themselves or go too deep.")
            seen.add(extent.start)
            names: set[str] = set()
            for record in self._records(extent):
                identifier, flags = record[33 : 33 + record[32]], record[25]
                name = self._name(identifier, bool(flags & _DIRECTORY))
                path = folder / name
                if told_by(name) in names:  # also of two directories: a system goes into one of them
                    raise ProofFailed(f"The image has {path} twice.")
                names.add(told_by(name))
                entry = self._extent(record)
                if flags == _DIRECTORY:
                    directories[entry.start] = identifier, extent.start
                    waiting.append((path, entry))
                elif flags & (_ASSOCIATED | _MULTI_EXTENT):
                    raise ProofFailed(f"The image's {path} is in pieces.")
                elif flags:
                    raise ProofFailed(f"The image's {path} is hidden, or of a kind that isn't known here.")
                else:
                    found[path] = entry if entry.size else Extent(0, 0)  # nothing lies anywhere
        self._same_path_tables(volume_descriptor, root.start, directories)
        return found

    def _records(self, extent: Extent) -> list[bytes]:
        """The records of a directory but for its own, by which some systems read it, and its parent's (Ecma-119
        6.8.1).
        """
        self.read_bytes += extent.size
        if self.read_bytes > _MAX_DIRECTORY_BYTES:
            raise ProofFailed("The image's directories are larger than any disc needs.")
        data = read_extent(self.descriptor, extent)
        records: list[bytes] = []
        for start in range(0, len(data), SECTOR_BYTES):
            block, position, before = data[start : start + SECTOR_BYTES], 0, len(records)
            while position < len(block) and block[position]:
                record = block[position : position + block[position]]
                if len(record) < 34 or len(record) < block[position] or not record[32] or 33 + record[32] > len(record):
                    raise ProofFailed("The image has a broken directory record.")
                if not _is_plain(record):
                    raise ProofFailed("The image has a directory record that systems understand in different ways.")
                records.append(record)
                position += len(record)
            self.read_records += len(records) - before
            if self.read_records > _MAX_ENTRIES:
                raise ProofFailed("The image's directories name more than any disc needs.")
        if [record[33 : 33 + record[32]] for record in records[:2]] != [b"\x00", b"\x01"]:
            raise ProofFailed("The image has a directory without its own record and its parent's.")
        if self._extent(records[0]) != extent:
            raise ProofFailed("The image has a directory whose own record is another's.")
        return records[2:]

    def _extent(self, record: bytes) -> Extent:
        extent = _extent_at(_both_endian(record, 2), _both_endian(record, 10))
        if not self._holds(extent):
            raise ProofFailed("The image has a file or directory outside itself.")
        return extent

    def _holds(self, extent: Extent) -> bool:
        return extent.start + extent.size <= self.sectors * SECTOR_BYTES

    def _name(self, identifier: bytes, directory: bool) -> str:
        try:
            name = identifier.decode(self.encoding)
        except UnicodeDecodeError:
            raise ProofFailed("The image has a name that is no text.") from None
        if not directory:
            name = name.partition(";")[0]
            if self.encoding == "ascii":
                name = name.removesuffix(".")
        if not name or name in (".", "..") or "/" in name or "\x00" in name:
            raise ProofFailed("The image has a name that leads elsewhere.")
        return name

    def _same_path_tables(
        self, volume_descriptor: bytes, root_start: int, directories: Mapping[int, tuple[bytes, int]]
    ) -> None:
        """Both path tables name exactly the directories of the tree (Ecma-119 6.9); some systems find files by them."""
        size = _both_endian(volume_descriptor, 132)
        for position, order in ((140, "<"), (148, ">")):
            extent = _extent_at(struct.unpack_from(f"{order}I", volume_descriptor, position)[0], size)
            if not self._holds(extent) or size > _MAX_DIRECTORY_BYTES:
                raise ProofFailed("The image has a path table outside itself.")
            table = _path_table(read_extent(self.descriptor, extent), order, root_start)
            found = list(islice(table, len(directories) + 1))
            if len(found) != len(directories) or dict(found) != directories:
                raise ProofFailed("The image's path tables and directories differ.")


def _is_plain(record: bytes) -> bool:
    """Whether a directory record has neither an extended attribute record before its file, nor an interleaved file, nor
    anything for one system, such as other names by Rock Ridge (Ecma-119 9.1.2, 9.1.7, 9.1.8, 9.1.13).
    """
    system_use = record[33 + record[32] + (record[32] + 1) % 2 :]
    is_known = not system_use or (len(system_use) == _XA_BYTES and system_use[6:8] == b"XA")
    return is_known and not (record[1] or record[26] or record[27])


def _extent_at(sector: int, size: int) -> Extent:
    return Extent(sector * SECTOR_BYTES, size)


def _path_table(data: bytes, order: str, root_start: int) -> Iterator[tuple[int, tuple[bytes, int]]]:
    """Where each directory but the root begins, with its identifier and where its parent begins (Ecma-119 9.4)."""
    starts: list[int] = []
    position = 0
    while position + 8 < len(data):
        length, attributes, sector, parent = struct.unpack_from(f"{order}BBIH", data, position)
        identifier = data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
        start = (sector + attributes) * SECTOR_BYTES
        if starts:
            if not 1 <= parent <= len(starts):
                raise ProofFailed("The image has a broken path table.")
            yield start, (identifier, starts[parent - 1])
        elif start != root_start:
            raise ProofFailed("The image's path table begins with another root.")
        starts.append(start)


def _both_endian(data: bytes, position: int) -> int:
    """A 32-bit number recorded in both byte orders (Ecma-119 7.3.3)."""
    little, big = struct.unpack_from("<I", data, position)[0], struct.unpack_from(">I", data, position + 4)[0]
    if little != big:
        raise ProofFailed("The image has a number whose two byte orders differ.")
    return int(little)

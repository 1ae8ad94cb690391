"""Reading an image of a stick with FAT32 in its first partition, independent of what wrote it, bounded against whatever
it may hold.

Every cluster is either free or of the one file that has it, both allocation tables say the same, and every file lies in
one piece.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mkiso.errors import ProofFailed
from mkiso.formats.protocol import Contents, Extent, read_extent
from mkiso.media.names import told_by

SHORT, LONG = "8.3 names", "long names"
_BYTES = 512
_BOOT_SECTORS = (0, 1, 2, 6, 7, 8, 12)  # with the copies, and where Windows goes on
_EXT, _HFS = b"\x53\xef", (b"BD", b"H+", b"HX")
_MAX_START = 65_536  # 32 MiB; sticks have 1 to 4
_MAX_TABLE_BYTES = 128 * 1024 * 1024
_MAX_DIRECTORY_BYTES = 256 * 1024 * 1024  # of all together
_MAX_FILES = 1_000_000  # each takes 1 KB of memory here
_MAX_DEPTH = 16
_MAX_LONG_PIECES = 20
_END = 0x0FFFFFF8
_READ_ONLY_TO_ARCHIVE, _IS_LABEL, _IS_DIRECTORY, _IS_LONG = 0x3F, 0x08, 0x10, 0x0F
_LABEL_CHARACTERS = 11
_FORBIDDEN = frozenset('"*/:<>?\\|')


def read_fat(descriptor: int) -> Contents:
    """Read the partition table, the boot sector, the allocation tables and all directories of an image that is open
    for reading. Raises ProofFailed.
    """
    start, sectors = _partition(descriptor)
    volume = _Volume.read(descriptor, start, sectors)
    volume.walk()
    volume.require_tables()
    label = volume.label if len(volume.label) < _LABEL_CHARACTERS else ""  # a longer one may be cut off
    return Contents(label, (start + sectors) * _BYTES, {SHORT: volume.short, LONG: volume.long})


def _partition(descriptor: int) -> tuple[int, int]:
    """The first sector and the number of sectors of the only partition."""
    table = read_extent(descriptor, Extent(0, _BYTES))
    kind, start, sectors = table[450], *struct.unpack_from("<2I", table, 454)
    if table[510:] != b"\x55\xaa" or kind not in (0x0B, 0x0C) or not start or any(table[462:510]):
        raise ProofFailed("This is no image of a stick with one partition of FAT32.")
    if start > _MAX_START or any(read_extent(descriptor, Extent(_BYTES, (start - 1) * _BYTES))):  # ext2, HFS, UDF
        raise ProofFailed("The stick has something before its partition, which some systems would show.")
    return start, sectors


def _require_fat_alone(reserved: bytes) -> None:
    """What stands before the tables is FAT32's, with the code that some formatters put there, and no other file system,
    which some systems would show. Raises ProofFailed.
    """
    sectors = (reserved[at : at + _BYTES] for at in range(0, len(reserved), _BYTES))
    others = (sector for number, sector in enumerate(sectors) if number not in _BOOT_SECTORS)
    if any(map(any, others)) or reserved[1024:1026] in _HFS or reserved[1080:1082] == _EXT:
        raise ProofFailed("The stick has something before its tables, which some systems would show.")


@dataclass(slots=True)
class _Volume:
    descriptor: int
    tables: list[NDArray[np.uint32]]
    data: int
    cluster: int
    clusters: int
    root: int
    label: str = ""
    short: dict[PurePosixPath, Extent] = field(default_factory=dict)
    long: dict[PurePosixPath, Extent] = field(default_factory=dict)
    runs: list[tuple[int, int]] = field(default_factory=list)
    read_bytes: int = 0

    @classmethod
    def read(cls, descriptor: int, start: int, sectors: int) -> _Volume:
        boot = read_extent(descriptor, Extent(start * _BYTES, _BYTES))
        size, per_cluster, reserved, count = struct.unpack_from("<HBHB", boot, 11)
        hidden, total, table_sectors, flags, version, root, _, backup = struct.unpack_from("<3I2HI2H", boot, 28)
        if boot[510:] != b"\x55\xaa" or size != _BYTES or any(boot[17:21]) or any(boot[22:24]) or flags or version:
            raise ProofFailed("The stick's partition is no FAT32.")
        if not per_cluster or per_cluster & per_cluster - 1 or count != 2 or not 0 < backup < reserved:
            raise ProofFailed("The stick's boot sector is broken.")
        if read_extent(descriptor, Extent((start + backup) * _BYTES, _BYTES)) != boot:
            raise ProofFailed("The stick's boot sector and its copy differ.")
        _require_fat_alone(read_extent(descriptor, Extent(start * _BYTES, reserved * _BYTES)))
        clusters = (total - reserved - 2 * table_sectors) // per_cluster
        table_bytes = table_sectors * _BYTES
        if total != sectors or hidden != start or clusters < 65_525 or not (clusters + 2) * 4 <= table_bytes:
            raise ProofFailed("The stick's boot sector and its partition table differ.")
        if table_bytes > _MAX_TABLE_BYTES or os.lseek(descriptor, 0, os.SEEK_END) < (start + sectors) * _BYTES:
            raise ProofFailed("The image is cut short, or larger than any stick needs.")
        at = (start + reserved) * _BYTES
        tables = [
            np.frombuffer(read_extent(descriptor, Extent(at + number * table_bytes, table_bytes)), np.uint32)
            & np.uint32(0x0FFFFFFF)
            for number in range(2)
        ]
        return cls(descriptor, tables, at + 2 * table_bytes, per_cluster * _BYTES, clusters, root)

    def walk(self) -> None:
        waiting = [(PurePosixPath(), PurePosixPath(), self.root, 0)]
        seen: set[int] = set()
        while waiting:
            short, long, first, above = waiting.pop()
            if first in seen or len(short.parts) > _MAX_DEPTH:
                raise ProofFailed("The stick's directories lead back to themselves or go too deep.")
            seen.add(first)
            names: set[str] = set()
            for name, long_name, kind, cluster, size in self._entries(first, above, is_root=not short.parts):
                if not names.isdisjoint(told := {told_by(name), told_by(long_name)}):
                    raise ProofFailed(f"The stick has {long / long_name} twice.")
                names |= told
                if kind & _IS_DIRECTORY:
                    waiting.append((short / name, long / long_name, cluster, 0 if not short.parts else first))
                else:
                    self.short[short / name] = self.long[long / long_name] = self._extent(cluster, size)
                if len(self.short) + len(waiting) > _MAX_FILES:
                    raise ProofFailed("The stick has more files than any disc needs.")

    def _extent(self, first: int, size: int) -> Extent:
        count = -(-size // self.cluster)
        if bool(first) != bool(size):
            raise ProofFailed("The stick has a file whose size and place differ.")
        if not size:
            return Extent(0, 0)
        self._take(first, count)
        return Extent(self.data + (first - 2) * self.cluster, size)

    def _take(self, first: int, count: int) -> None:
        if first < 2 or first + count > self.clusters + 2:
            raise ProofFailed("The stick has a file or directory outside itself.")
        self.runs.append((first, count))

    def _directory(self, first: int) -> bytes:
        table, count = self.tables[0], 1
        most = _MAX_DIRECTORY_BYTES // self.cluster
        while 2 <= first <= len(table) - count and count <= most and table[first + count - 1] == first + count:
            count += 1
        self._take(first, count)
        self.read_bytes += count * self.cluster
        if self.read_bytes > _MAX_DIRECTORY_BYTES:
            raise ProofFailed("The stick's directories are larger than any disc needs.")
        return read_extent(self.descriptor, Extent(self.data + (first - 2) * self.cluster, count * self.cluster))

    def _entries(self, first: int, above: int, *, is_root: bool) -> Iterator[tuple[str, str, int, int, int]]:
        """Each entry's name, long name, attributes, first cluster and size."""
        data = self._directory(first)
        records = [data[at : at + 32] for at in range(0, len(data), 32)]
        end = next((number for number, record in enumerate(records) if not record[0]), len(records))
        if any(any(record) for record in records[end:]):
            raise ProofFailed("The stick has entries behind the end of a directory.")
        records = records[:end]
        if not is_root:
            own = [(record[:11], _cluster(record), record[11]) for record in records[:2]]
            if own != [(b".".ljust(11), first, _IS_DIRECTORY), (b"..".ljust(11), above, _IS_DIRECTORY)]:
                raise ProofFailed("The stick has a directory without its own entry and its parent's.")
            records = records[2:]
        pieces: list[bytes] = []
        for record in records:
            kind = record[11]
            if record[0] == 0xE5:  # deleted
                pieces = []
                continue
            if kind == _IS_LONG:
                pieces.append(record)
                continue
            if kind & ~_READ_ONLY_TO_ARCHIVE or (kind & _IS_LABEL and (not is_root or self.label or pieces)):
                raise ProofFailed("The stick has a broken directory entry.")
            if kind & _IS_LABEL:
                self.label = record[:11].decode("ascii", "replace").rstrip()
                continue
            name = _short_name(record[:11])
            size = int.from_bytes(record[28:], "little")
            if kind & _IS_DIRECTORY and size:
                raise ProofFailed("The stick has a directory with a size.")
            yield name, _long_name(record[:11], pieces) if pieces else name, kind, _cluster(record), size
            pieces = []
        if pieces:
            raise ProofFailed("The stick has a long name of no file.")

    def require_tables(self) -> None:
        """Both tables say just what the directories say: a lost cluster, a shared one or a file in pieces is wrong."""
        expected = np.zeros(len(self.tables[0]), np.uint32)
        position = 0
        for first, count in sorted(self.runs):
            if first < position:
                raise ProofFailed("The stick has files that overlap.")
            position = first + count
            expected[first : first + count] = np.arange(first + 1, first + count + 1, dtype=np.uint32)
            expected[first + count - 1] = _END
        for table in self.tables:
            found = np.where(table >= _END, np.uint32(_END), table)
            if not np.array_equal(found[2:], expected[2:]):
                raise ProofFailed(
                    "The stick's allocation tables and directories differ, or its files lie in pieces: check the "
                    "files on it."
                )


def _cluster(record: bytes) -> int:
    high, low = struct.unpack_from("<H4xH", record, 20)
    return int(high << 16 | low)


def _short_name(raw: bytes) -> str:
    stem, extension = raw[:8].rstrip(b" "), raw[8:].rstrip(b" ")
    try:
        name = (stem + b"." * bool(extension) + extension).decode("ascii")
    except UnicodeDecodeError:
        raise ProofFailed("The stick has a name that is no text.") from None
    return _leads_nowhere(name)


def _long_name(short: bytes, pieces: list[bytes]) -> str:
    check = 0
    for byte in short:
        check = (((check & 1) << 7) + (check >> 1) + byte) % 256
    numbers = [piece[0] for piece in pieces]
    expected = [len(pieces) | 0x40, *range(len(pieces) - 1, 0, -1)]
    if len(pieces) > _MAX_LONG_PIECES or numbers != expected or any(piece[13] != check for piece in pieces):
        raise ProofFailed("The stick has a long name that belongs to another file.")
    units = b"".join(piece[1:11] + piece[14:26] + piece[28:32] for piece in reversed(pieces))
    try:
        name, _, padding = units.decode("utf-16-le").partition("\0")
    except UnicodeDecodeError:
        raise ProofFailed("The stick has a name that is no text.") from None
    if padding.strip("\uffff"):
        raise ProofFailed("The stick has a long name that goes on behind its end.")
    return _leads_nowhere(name)


def _leads_nowhere(name: str) -> str:
    if not name or name in (".", "..") or _FORBIDDEN & set(name) or not name.isprintable():
        raise ProofFailed("The stick has a name that leads elsewhere.")
    return name

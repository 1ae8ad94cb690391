"""An image of a USB stick (PS3.12 annex R): one partition of FAT32, as large as its files need, read by
mkiso.formats.fat_reader.

Every file lies in one piece. The sources: Microsoft's FAT32 File System Specification 1.03, by its section.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from mkiso.errors import TooLargeForMedium
from mkiso.formats.fat_reader import LONG, SHORT, read_fat
from mkiso.formats.protocol import Contents, Format
from mkiso.languages import N_
from mkiso.media.layout import Layout
from mkiso.storage.files import replacing
from mkiso.storage.pack import opened
from mkiso.study.models import DiscFile

SECTOR = 512
_PARTITION = 2048  # sectors before it: 1 MiB, on which sticks' pages begin
_RESERVED, _BACKUP, _FATS = 32, 6, 2
_LEAST_CLUSTERS = 65_525  # fewer are FAT16 to every driver ("FAT Type Determination")
_CLUSTER_SECTORS = (32, 8, 4, 2, 1)
_ENTRY = 32
_MOST_DIRECTORY_BYTES = 65_536 * _ENTRY
_END = 0x0FFFFFFF
_FILE, _DIRECTORY, _LABEL, _LONG_NAME = 0x20, 0x10, 0x08, 0x0F
_LAST_PIECE, _PIECE_CHARACTERS = 0x40, 13
_FAT32_LBA = 0x0C
_BEYOND_CHS = b"\xfe\xff\xff"
_ROOT = PurePosixPath()
_COPY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Run:
    """Clusters one after another; a file without bytes has none."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where everything lies. `children` are each directory's entries: its name, its long name, and the file."""

    cluster: int
    clusters: int
    used: int
    fat_sectors: int
    children: dict[PurePosixPath, list[tuple[str, str, DiscFile | None]]]
    runs: dict[PurePosixPath, _Run]

    @property
    def sectors(self) -> int:
        """Of the partition."""
        return _RESERVED + _FATS * self.fat_sectors + self.clusters * self.cluster // SECTOR

    def place(self, run: _Run) -> int:
        """Where its bytes begin in the image."""
        data = (_PARTITION + _RESERVED + _FATS * self.fat_sectors) * SECTOR
        return data + (run.first - 2) * self.cluster


class Usb(Format):
    """The format of sticks: what `dd` and duplicators write."""

    name = "usb"
    suffix = ".img"
    media_type = "application/x-raw-disk-image"
    title = N_("A USB stick image, for a duplicator")
    carrier = "usb"
    checks = ("partition table, boot sectors, both allocation tables and all directories", "names: each once")

    def size(self, disc: Layout) -> int:
        return (_PARTITION + _planned(disc.files).sectors) * SECTOR

    def write(self, disc: Layout, target: Path) -> None:
        plan = _planned(disc.files)
        with replacing(target) as image:
            image.truncate((_PARTITION + plan.sectors) * SECTOR)
            for position, content in _system_areas(plan, disc):
                image.seek(position)
                image.write(content)
            for file in disc.files:
                image.seek(plan.place(plan.runs[file.path]))
                with opened(file) as source:
                    shutil.copyfileobj(source, image, _COPY_BYTES)
            image.truncate((_PARTITION + plan.sectors) * SECTOR)

    def recognises(self, head: bytes) -> bool:
        return head[510:512] == b"\x55\xaa" and head[450:451] == bytes([_FAT32_LBA])

    def read(self, descriptor: int) -> Contents:
        return read_fat(descriptor)

    def paths(self, file: DiscFile) -> dict[str, PurePosixPath]:
        return {SHORT: file.path, LONG: file.joliet_path or file.path}


def _planned(files: Sequence[DiscFile]) -> _Plan:
    children: dict[PurePosixPath, list[tuple[str, str, DiscFile | None]]] = {_ROOT: []}
    for file in files:
        long = file.joliet_path or file.path
        for depth in range(1, len(file.path.parts)):
            folder = PurePosixPath(*file.path.parts[:depth])
            if folder not in children:
                children[folder] = []
                children[folder.parent].append((folder.name, long.parts[depth - 1], None))
        children[file.path.parent].append((file.path.name, long.name, file))
    sizes = {folder: _directory_bytes(folder, entries) for folder, entries in children.items()}
    if max(sizes.values()) > _MOST_DIRECTORY_BYTES:
        raise TooLargeForMedium("A series has more images than a folder of a USB stick can hold. Ask for a ZIP file.")
    things = [*sizes.items(), *((file.path, file.size) for file in files)]
    for sectors in _CLUSTER_SECTORS:
        cluster = sectors * SECTOR
        used = sum(-(-size // cluster) for _, size in things)
        if used >= _LEAST_CLUSTERS:
            break
    clusters = max(used, _LEAST_CLUSTERS)
    runs, first = {}, 2
    for path, size in things:
        count = -(-size // cluster)
        runs[path] = _Run(first if count else 0, count)
        first += count
    return _Plan(cluster, clusters, used, -(-(clusters + 2) * 4 // SECTOR), children, runs)


def _directory_bytes(folder: PurePosixPath, entries: Sequence[tuple[str, str, DiscFile | None]]) -> int:
    own = 1 if folder == _ROOT else 2  # the label, or itself and its parent
    return _ENTRY * (own + sum(1 + len(_pieces(name, long)) for name, long, _ in entries))


def _system_areas(plan: _Plan, disc: Layout) -> Iterator[tuple[int, bytes]]:
    """Everything that is no file, with its place in the image."""
    boot = _boot_sector(plan, disc)
    free = plan.clusters - plan.used
    information = struct.pack(
        "<4s480x4s2I12x4s", b"RRaA", b"rrAa", free, plan.used + 2 if free else 0xFFFFFFFF, b"\0\0\x55\xaa"
    )
    yield 0, _partition_table(plan, disc)
    for sector in (_PARTITION, _PARTITION + _BACKUP):
        yield sector * SECTOR, boot + information
    table = array("I", range(1, plan.used + 3))
    table[0], table[1] = 0x0FFFFFF8, _END
    for run in plan.runs.values():
        if run.count:
            table[run.first + run.count - 1] = _END
    content = table.tobytes()
    for number in range(_FATS):
        yield (_PARTITION + _RESERVED + number * plan.fat_sectors) * SECTOR, content
    for folder, entries in plan.children.items():
        yield plan.place(plan.runs[folder]), _directory(plan, folder, entries, disc)


def _partition_table(plan: _Plan, disc: Layout) -> bytes:
    entry = struct.pack("<B3sB3sII", 0, _BEYOND_CHS, _FAT32_LBA, _BEYOND_CHS, _PARTITION, plan.sectors)
    return struct.pack("<440xI2x16s48x2s", _serial(disc), entry, b"\x55\xaa")


def _boot_sector(plan: _Plan, disc: Layout) -> bytes:
    """ "Boot Sector and BPB"."""
    return struct.pack(
        "<3s8sHBHBHHBHHHIIIHHIHH12xBBBI11s8s420x2s",
        b"\xeb\x58\x90", b"MSWIN4.1", SECTOR, plan.cluster // SECTOR, _RESERVED, _FATS, 0, 0, 0xF8, 0, 63, 255,
        _PARTITION, plan.sectors, plan.fat_sectors, 0, 0, 2, 1, _BACKUP,
        0x80, 0, 0x29, _serial(disc), _label(disc), b"FAT32   ", b"\x55\xaa",
    )  # fmt: skip


def _directory(
    plan: _Plan, folder: PurePosixPath, entries: Sequence[tuple[str, str, DiscFile | None]], disc: Layout
) -> bytes:
    if folder == _ROOT:
        content = [_entry(_label(disc), _LABEL, 0, 0, disc.created)]
    else:
        above = 0 if folder.parent == _ROOT else plan.runs[folder.parent].first
        own = ((b".", plan.runs[folder].first), (b"..", above))
        content = [_entry(name.ljust(11), _DIRECTORY, cluster, 0, disc.created) for name, cluster in own]
    for name, long, file in entries:
        stem, _, extension = name.partition(".")
        short = f"{stem:8}{extension:3}".encode("ascii")
        content += _long_entries(short, _pieces(name, long))
        run, kind = plan.runs[folder / name], _FILE if file else _DIRECTORY
        content.append(_entry(short, kind, run.first, file.size if file else 0, disc.created))
    return b"".join(content)


def _entry(name: bytes, kind: int, cluster: int, size: int, moment: datetime) -> bytes:
    date = (moment.year - 1980) << 9 | moment.month << 5 | moment.day
    time = moment.hour << 11 | moment.minute << 5 | moment.second // 2
    return struct.pack(
        "<11sBBBHHHHHHHI", name, kind, 0, 0, time, date, date, cluster >> 16, time, date, cluster & 0xFFFF, size
    )


def _pieces(name: str, long: str) -> list[bytes]:
    """A long name in pieces of 13 characters, none where the short one is the same ("Long Directory Entries")."""
    if name == long:
        return []
    units = long.encode("utf-16-le")
    if len(units) % (2 * _PIECE_CHARACTERS):
        units += b"\0\0"
    width = 2 * _PIECE_CHARACTERS
    return [units[start : start + width].ljust(width, b"\xff") for start in range(0, len(units), width)]


def _long_entries(short: bytes, pieces: Sequence[bytes]) -> list[bytes]:
    check = 0
    for byte in short:
        check = ((check & 1) << 7 | check >> 1) + byte & 0xFF
    return [
        struct.pack(
            "<B10sBBB12sH4s",
            number | (_LAST_PIECE if number == len(pieces) else 0), piece[:10], _LONG_NAME, 0, check, piece[10:22], 0,
            piece[22:],
        )
        for number, piece in reversed(list(enumerate(pieces, start=1)))
    ]  # fmt: skip


def _label(disc: Layout) -> bytes:
    return disc.volume_id[:11].encode("ascii").ljust(11)


def _serial(disc: Layout) -> int:
    digest = hashlib.sha256(f"{disc.volume_id} {disc.created.isoformat()}".encode()).digest()
    return int.from_bytes(digest[:4], "little")

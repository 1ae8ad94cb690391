"""What fits on a medium: the sectors of the image that a set of files becomes, exactly, before it is mastered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import get_args

from mkiso.config.section import Carrier, Medium
from mkiso.errors import TooLargeForMedium
from mkiso.study.models import Arrival, DiscFile

SECTOR_BYTES = 2048
LARGEST_FILE_BYTES = 2**32 - 1  # Ecma-119 9.1.4 and 10.1: one extent with a 32-bit length at interchange level 1
MEDIUM_SECTORS: Mapping[Carrier, int] = {
    "cd": 359_844,  # 80 minutes less lead-in and run-out blocks
    "dvd": 2_295_104,  # DVD+R, the smaller of the two
    "dvd-dl": 4_173_824,
    "bd": 12_219_392,
    "bd-dl": 24_438_784,
    "zip": 24_438_784,
    "zip-encrypted": 24_438_784,
    "usb": 24_438_784,
}
"""A file may hold what the largest disc does."""
MEDIUM_NAMES: Mapping[Carrier, str] = {
    "cd": "CD",
    "dvd": "DVD",
    "dvd-dl": "dual-layer DVD",
    "bd": "Blu-ray",
    "bd-dl": "dual-layer Blu-ray",
    "zip": "ZIP file",
    "zip-encrypted": "encrypted ZIP file",
    "usb": "USB image",
}
_DESCRIPTOR_SECTORS = (
    20  # system area, primary and Joliet descriptors, terminator, and the empty sector that pycdlib adds (Ecma-119 6.2)
)
_ROOT_PATH_TABLE_BYTES = 10
_DOT_AND_DOTDOT_BYTES = 2 * 34


def sectors_of(size: int) -> int:
    """How many sectors this many bytes take."""
    return -(-size // SECTOR_BYTES)


def image_sectors(files: Collection[DiscFile]) -> int:
    """The exact size in sectors of the image that mkiso.formats.iso makes of these files."""
    primary = _tree_sectors((file.path for file in files), iso_identifier)
    joliet = _tree_sectors((file.joliet_path or file.path for file in files), joliet_identifier)
    return _DESCRIPTOR_SECTORS + primary + joliet + sum(sectors_of(file.size) for file in files)


def fit(files: Collection[DiscFile], medium: Carrier) -> int:
    """The image's sectors. Raises TooLargeForMedium, which names both sizes and the medium that would do, where they
    are too many.
    """
    holdable(files)
    sectors = image_sectors(files)
    capacity = MEDIUM_SECTORS[medium]
    if sectors > capacity:
        larger = next((name for name in get_args(Medium) if MEDIUM_SECTORS[name] >= sectors), None)
        remedy = (
            f"it would fit on a {MEDIUM_NAMES[larger]} (disc.medium: {larger})"
            if larger
            else "no single medium holds it"
        )
        raise TooLargeForMedium(
            f"The disc needs {_readable(sectors * SECTOR_BYTES)} and a {MEDIUM_NAMES[medium]} has "
            f"{_readable(capacity * SECTOR_BYTES)}: {remedy}.",
            needed_bytes=sectors * SECTOR_BYTES,
            medium_bytes=capacity * SECTOR_BYTES,
            medium=medium,
            fitting_medium=larger,
        )
    return sectors


def holdable(files: Iterable[DiscFile | Arrival]) -> None:
    """Raise TooLargeForMedium for a file that no medium can hold."""
    for file in files:
        if file.size > LARGEST_FILE_BYTES:
            raise TooLargeForMedium(
                f"One instance has {_readable(file.size)}, and a file on a disc has at most 4 GiB (ISO 9660 level 1).",
                sop_instance_uid=file.sop_instance_uid,
            )


def iso_identifier(name: str, directory: bool) -> bytes:
    """The identifier of a file or directory in the primary tree (Ecma-119 7.5.1: both separators and the version are
    part of a file's).
    """
    if directory:
        return name.encode("ascii")
    return f"{name};1".encode("ascii") if "." in name else f"{name}.;1".encode("ascii")


def joliet_identifier(name: str, _directory: bool) -> bytes:
    """The identifier of a file or directory in the Joliet tree: UCS-2 big endian, no version."""
    return name.encode("utf-16-be")


def _tree_sectors(paths: Iterable[PurePosixPath], identifier: Callable[[str, bool], bytes]) -> int:
    """The sectors of one tree's directories and of its two path tables."""
    root = PurePosixPath(".")
    children: dict[PurePosixPath, set[bytes]] = {root: set()}
    table_bytes = _ROOT_PATH_TABLE_BYTES
    for path in paths:
        folder = path.parent
        if folder not in children:
            for directory in (folder, *folder.parents):
                if directory in children:
                    continue
                children[directory] = set()
                name = identifier(directory.name, True)
                table_bytes += 8 + len(name) + len(name) % 2  # Ecma-119 9.4
            for directory in (folder, *list(folder.parents)[:-1]):
                children[directory.parent].add(identifier(directory.name, True))
        children[folder].add(identifier(path.name, False))
    table_sectors = 2 * -(-sectors_of(table_bytes) // 2)  # pycdlib gives each table pairs of sectors
    return 2 * table_sectors + sum(map(_directory_sectors, children.values()))


def _directory_sectors(identifiers: Iterable[bytes]) -> int:
    """Ecma-119 6.8.1.1 and 9.1: a record of 33 bytes and its identifier, even, and never across a sector's end."""
    sectors, used = 1, _DOT_AND_DOTDOT_BYTES
    for name in sorted(identifiers):
        length = 33 + len(name) + (len(name) + 1) % 2
        if used + length > SECTOR_BYTES:
            sectors, used = sectors + 1, 0
        used += length
    return sectors


def _readable(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"

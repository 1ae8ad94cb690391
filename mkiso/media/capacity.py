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
_DESCRIPTOR_SECTORS = 20
"""System area, primary and Joliet descriptors, terminator, and the empty sector that pycdlib adds (Ecma-119 6.2)."""
UDF_MEDIA: frozenset[Carrier] = frozenset({"bd", "bd-dl"})
"""Whose images have a UDF tree beside those of ISO 9660 and Joliet (PS3.12 X.2)."""
UDF_UNIT_SECTORS = 32
"""Of an ECC block of a BD, by which UDF 2.2.10 has metadata begin and end."""
UDF_PARTITION_SECTOR = 288
"""Where the UDF partition begins: behind the anchor at 256, at a whole unit. A unit has the metadata file's entry, then
comes the metadata, then a unit with the entry of the metadata file's mirror."""
UDF_FIRST_METADATA_SECTORS = 2
"""The file set descriptor and its terminator."""
_ROOT_PATH_TABLE_BYTES = 10
_DOT_AND_DOTDOT_BYTES = 2 * 34


def sectors_of(size: int) -> int:
    """How many sectors this many bytes take."""
    return -(-size // SECTOR_BYTES)


def whole_units(sectors: int) -> int:
    """As many sectors, up to a whole UDF_UNIT_SECTORS."""
    return -(-sectors // UDF_UNIT_SECTORS) * UDF_UNIT_SECTORS


def image_sectors(files: Collection[DiscFile], medium: Carrier = "cd") -> int:
    """The exact size in sectors of the image that mkiso.formats.iso makes of these files for this medium."""
    primary = _tree_sectors((file.path for file in files), iso_identifier)
    joliet = _tree_sectors((file.joliet_path or file.path for file in files), joliet_identifier)
    content = primary + joliet + sum(sectors_of(file.size) for file in files)
    if medium not in UDF_MEDIA:
        return _DESCRIPTOR_SECTORS + content
    return whole_units(udf_head_sectors(files) + content) + UDF_UNIT_SECTORS


def udf_head_sectors(files: Iterable[DiscFile]) -> int:
    """What an image with UDF has before the trees of ISO 9660."""
    metadata = whole_units(UDF_FIRST_METADATA_SECTORS + udf_entry_sectors(files))
    return UDF_PARTITION_SECTOR + metadata + 2 * UDF_UNIT_SECTORS


def udf_entry_sectors(files: Iterable[DiscFile]) -> int:
    """Of the file entries of files and directories in the UDF tree, and of the directories' records."""
    paths = [file.joliet_path or file.path for file in files]
    folders = names_by_folder(paths).values()
    return len(paths) + sum(1 + sectors_of(udf_record_bytes(names)) for names in folders)


def names_by_folder(paths: Iterable[PurePosixPath]) -> dict[str, set[str]]:
    """The names of files and folders in each folder, by its path; the root's is empty. Text, since paths are far slower
    to take apart and to look up.
    """
    folders: dict[str, set[str]] = {"": set()}
    for path in paths:
        folder, _, name = str(path).rpartition("/")
        while folder not in folders:
            folders[folder] = {name}
            folder, _, name = folder.rpartition("/")
        folders[folder].add(name)
    return folders


def below(folder: str, name: str) -> str:
    """The path of what has this name in a folder of names_by_folder."""
    return f"{folder}/{name}" if folder else name


def fit(files: Collection[DiscFile], medium: Carrier) -> int:
    """The image's sectors. Raises TooLargeForMedium, which names both sizes and the medium that would do, where they
    are too many.
    """
    holdable(files)
    sectors = image_sectors(files, medium)
    capacity = MEDIUM_SECTORS[medium]
    if sectors > capacity:
        larger = next((name for name in get_args(Medium) if MEDIUM_SECTORS[name] >= image_sectors(files, name)), None)
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
                f"One instance has {_readable(file.size)}, and a file on a disc has at most "
                f"{_readable(LARGEST_FILE_BYTES)} (ISO 9660 level 1).",
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


def udf_identifier(name: str) -> bytes:
    """A name in UDF: OSTA Compressed Unicode of 8 or 16 bits (UDF 2.1.1)."""
    narrow = name.isascii() or all(ord(each) < 256 for each in name)
    return b"\x08" + name.encode("latin-1") if narrow else b"\x10" + name.encode("utf-16-be")


def udf_record_bytes(names: Iterable[str]) -> int:
    """Of a directory's file identifier descriptors: its parent's and one for each name, in fours (ECMA-167 4/14.4)."""
    return 40 + sum(-(-(38 + len(udf_identifier(name))) // 4) * 4 for name in names)


def _tree_sectors(paths: Iterable[PurePosixPath], identifier: Callable[[str, bool], bytes]) -> int:
    """The sectors of one tree's directories and of its two path tables."""
    folders = names_by_folder(paths)
    table_bytes, sectors = _ROOT_PATH_TABLE_BYTES, 0
    for folder, names in folders.items():
        if folder:
            size = len(identifier(folder.rpartition("/")[2], True))
            table_bytes += 8 + size + size % 2  # Ecma-119 9.4
        sectors += _directory_sectors(identifier(name, below(folder, name) in folders) for name in names)
    table_sectors = 2 * -(-sectors_of(table_bytes) // 2)  # pycdlib gives each table pairs of sectors
    return 2 * table_sectors + sectors


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

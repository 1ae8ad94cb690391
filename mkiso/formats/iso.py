"""ISO 9660 level 1 with Joliet, written by pycdlib and read by mkiso.formats.iso_reader; for Blu-ray with UDF beside
them (mkiso.formats.udf).
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from pycdlib import PyCdlib
from pycdlib.dates import DirectoryRecordDate, VolumeDescriptorDate

from mkiso.formats.iso_reader import JOLIET, PRIMARY, read_image
from mkiso.formats.protocol import Contents, Extent, Format
from mkiso.formats.udf import add_udf
from mkiso.formats.udf_reader import UDF
from mkiso.languages import N_
from mkiso.media.capacity import SECTOR_BYTES, UDF_MEDIA, image_sectors, iso_identifier, udf_head_sectors
from mkiso.media.layout import Layout
from mkiso.media.names import d_characters, is_file_set_id
from mkiso.storage.files import replacing
from mkiso.storage.pack import opened
from mkiso.study.models import DiscFile

APPLICATION = "MKISO"
_SHORT = re.compile(r"[A-Z0-9_]{1,8}(\.[A-Z0-9_]{1,3})?")
_MAX_DEPTH = 8  # Ecma-119 6.8.2.1
_IDENTIFIER = SECTOR_BYTES * 16 + 1  # of the first volume descriptor (Ecma-119 8.1.2)
_COPY_BYTES = 1024 * 1024
_PRIMARY_DESCRIPTOR, _JOLIET_DESCRIPTOR = 16, 17  # sectors (Ecma-119 6.7.1)
_MODIFICATION_DATE = 830  # byte position in both (Ecma-119 8.4.27)


class Iso(Format):
    """The format of discs: what a drive reads."""

    name = "iso"
    suffix = ".iso"
    media_type = "application/vnd.efi.iso"
    title = N_("A file to burn onto a disc (ISO)")
    checks = (
        "the directory trees and their path tables, and UDF where there is any",
        "names: ISO 9660 level 1, file-set ID",
    )

    def size(self, disc: Layout) -> int:
        return image_sectors(disc.files, disc.medium) * SECTOR_BYTES

    def write(self, disc: Layout, target: Path) -> None:
        master(
            disc.files,
            disc.volume_id,
            target,
            created=disc.created,
            publisher=disc.institution,
            udf=disc.medium in UDF_MEDIA,
        )
        gc.collect()  # pycdlib's records refer to each other, 3 KB a file: room that reading back needs

    def recognises(self, head: bytes) -> bool:
        return head[_IDENTIFIER:].startswith(b"CD001")

    def read(self, descriptor: int) -> Contents:
        return read_image(descriptor)

    def faults(self, contents: Contents) -> Iterator[str]:
        """PS3.12 F, Ecma-119 6.8.2.1 and 10.1."""
        for name, tree in contents.trees.items():
            if sorted(contents.files.values()) != sorted(tree.values()):
                yield f"The ISO 9660 tree and the {name} tree hold different files."
        if contents.trees.get(UDF, contents.trees[JOLIET]) != contents.trees[JOLIET]:
            yield "The UDF tree and the Joliet tree have different names for the same files."
        for path in contents.files:
            if not all(map(_SHORT.fullmatch, path.parts)) or len(path.parts) > _MAX_DEPTH:
                yield f"{path} is no name of ISO 9660 level 1."
        if not is_file_set_id(contents.label):
            yield "The volume identifier is no file-set ID: at most 16 of A-Z, 0-9 and _."

    def paths(self, file: DiscFile) -> dict[str, PurePosixPath]:
        shown = file.joliet_path or file.path
        return {PRIMARY: file.path, JOLIET: shown, UDF: shown}


def master(
    files: Collection[DiscFile],
    volume_id: str,
    target: Path,
    *,
    created: datetime | None = None,
    publisher: str = "",
    udf: bool = False,
) -> None:
    """Write the image of these files to `target`, with a UDF tree beside the others if `udf`; it appears there whole or
    not at all, mode 0600.

    The same files, volume identifier, `created` and `publisher` give the same bytes. A source that changes meanwhile
    isn't noticed here but by the proof (mkiso.formats.proof).
    """
    image = _WithRoom(udf_head_sectors(files)) if udf else PyCdlib()
    image.new(
        interchange_level=1,
        joliet=3,
        vol_ident=volume_id,
        pub_ident_str=d_characters(publisher).replace("_", " ")[:64],
        preparer_ident_str=APPLICATION,
        app_ident_str=APPLICATION,
        udf="2.60" if udf else None,
    )
    try:
        _add(image, files)
        moment = created or datetime.now(UTC)
        _date(image, moment)
        end = _resized(image, image_sectors(files, "bd")) if udf else 0
        with replacing(target) as file:
            image.write_fp(file, _COPY_BYTES)
            if udf:
                add_udf(file, _places(image, files), volume_id, moment, end)
            file.flush()
            _date_modification(file.fileno(), moment)
    finally:
        image.close()


class _WithRoom(PyCdlib):
    """An image whose trees begin further behind. What pycdlib calls UDF 2.60 is 1.02 by another name: its structures
    only keep the places of ours.
    """

    def __init__(self, head_sectors: int) -> None:
        super().__init__()
        self._head_sectors = head_sectors

    def _udf_assign_extents(self, files: list[Any], sector: int) -> tuple[int, int]:
        _, partition = super()._udf_assign_extents(files, sector)
        return self._head_sectors, partition


def _resized(image: PyCdlib, sectors: int) -> int:
    """Have the volume descriptors say the size with UDF; the sector behind the last file."""
    image.force_consistency()
    end = int(image.pvd.space_size) - 1  # of pycdlib's own anchor
    for descriptor in (image.pvd, *image.svds):
        descriptor.space_size = sectors
    return end


def _places(image: PyCdlib, files: Collection[DiscFile]) -> dict[PurePosixPath, Extent]:
    """By the names of Joliet. pycdlib has an inode for each file in the order of `_add`; an empty one has no place."""
    return {
        file.joliet_path or file.path: Extent(inode.extent_location() * SECTOR_BYTES if file.size else 0, file.size)
        for file, inode in zip(files, image.inodes, strict=True)
    }


def _add(image: PyCdlib, files: Collection[DiscFile]) -> None:
    made: set[PurePosixPath] = {PurePosixPath(".")}
    for file in files:
        joliet_path = file.joliet_path or file.path
        folder = file.path.parent
        if folder not in made:
            _add_directories(image, folder, joliet_path.parent, made)
        identifier = iso_identifier(file.path.name, False).decode("ascii")
        name, joliet = f"/{folder}/{identifier}", f"/{joliet_path}"
        if file.offset is None:
            image.add_file(str(file.source), name, joliet_path=joliet)
        else:
            image.add_fp(cast(BinaryIO, opened(file)), file.size, name, joliet_path=joliet)


def _add_directories(image: PyCdlib, path: PurePosixPath, joliet_path: PurePosixPath, made: set[PurePosixPath]) -> None:
    if path in made:
        return
    _add_directories(image, path.parent, joliet_path.parent, made)
    image.add_directory(f"/{path}", joliet_path=f"/{joliet_path}")
    made.add(path)


def _date(image: PyCdlib, moment: datetime) -> None:
    """pycdlib dates everything by its own clock; one moment for all makes the image reproducible."""
    recorded, described = DirectoryRecordDate(), VolumeDescriptorDate()
    recorded.new(moment.timestamp())
    described.new(moment.timestamp())
    for descriptor in (image.pvd, *image.svds):
        descriptor.volume_creation_date = described
        descriptor.volume_effective_date = described
        waiting = [descriptor.root_directory_record()]
        while waiting:
            record = waiting.pop()
            record.date = recorded
            waiting += record.children


def _date_modification(descriptor: int, moment: datetime) -> None:
    """The one date that pycdlib takes while it writes."""
    date = VolumeDescriptorDate()
    date.new(moment.timestamp())
    for sector in (_PRIMARY_DESCRIPTOR, _JOLIET_DESCRIPTOR):
        os.pwrite(descriptor, date.record(), sector * SECTOR_BYTES + _MODIFICATION_DATE)

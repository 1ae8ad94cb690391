"""The whole file-set in a ZIP file (PS3.12 annex V), written by zipfile and read by mkiso.formats.zip_reader.

Stored, not deflated: docs/decisions/formats.md has what deflating would gain and cost.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path, PurePosixPath
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from mkiso.formats.protocol import Contents, Format
from mkiso.formats.zip_reader import TREE, begins_encrypted, read_zip
from mkiso.languages import N_
from mkiso.media.layout import Layout
from mkiso.storage.files import replacing
from mkiso.storage.pack import opened
from mkiso.study.models import DiscFile

_COPY_BYTES = 1024 * 1024
_LOCAL_BYTES, _CENTRAL_BYTES, _END_BYTES, _END_64_BYTES = 30, 46, 22, 56 + 20  # APPNOTE 4.3.7, 4.3.12, 4.3.14 to 4.3.16
_LIMIT = 2**31 - 1  # beyond which zipfile writes ZIP64
_ENTRIES = 2**16 - 1
_UNIX, _READABLE = 3, 0o100644  # APPNOTE 4.4.2.2, 4.4.15


class Zip(Format):
    """The format of files: what any computer opens without a drive."""

    name = "zip"
    suffix = ".zip"
    media_type = "application/zip"
    title = N_("A ZIP file, for any computer")
    carrier = "zip"
    checks = ("the directory of the ZIP file against each file's own header", "names: relative, each once")

    def size(self, disc: Layout) -> int:
        position = central = 0
        for file in disc.files:
            name = len(name_in_zip(file).encode())
            wide = 1.05 * file.size > _LIMIT
            central_values = 2 * (file.size > _LIMIT) + (position > _LIMIT)
            central += _CENTRAL_BYTES + name + (4 + 8 * central_values if central_values else 0)
            position += _LOCAL_BYTES + name + 20 * wide + file.size
        many = len(disc.files) > _ENTRIES or position > _LIMIT or central > _LIMIT
        return position + central + _END_64_BYTES * many + _END_BYTES + len(disc.volume_id)

    def write(self, disc: Layout, target: Path) -> None:
        with replacing(target) as file, ZipFile(file, "w", ZIP_STORED) as archive:
            archive.comment = disc.volume_id.encode("ascii")
            for each in disc.files:
                _add(archive, each, disc.created)

    def recognises(self, head: bytes) -> bool:
        return head.startswith((b"PK\x03\x04", b"PK\x05\x06")) and not begins_encrypted(head)

    def read(self, descriptor: int) -> Contents:
        return read_zip(descriptor)

    def paths(self, file: DiscFile) -> dict[str, PurePosixPath]:
        return {TREE: PurePosixPath(name_in_zip(file))}


def _add(archive: ZipFile, file: DiscFile, moment: datetime) -> None:
    entry = ZipInfo(name_in_zip(file), moment.timetuple()[:6])
    entry.create_system, entry.external_attr, entry.file_size = _UNIX, _READABLE << 16, file.size
    with opened(file) as source, archive.open(entry, "w") as target:
        shutil.copyfileobj(source, target, _COPY_BYTES)


def name_in_zip(file: DiscFile) -> str:
    """Where it stands in any ZIP file of ours."""
    return str(file.joliet_path or file.path)

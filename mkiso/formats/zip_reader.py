"""Reading a ZIP file, independent of what wrote it, bounded against whatever it may hold (APPNOTE.TXT,
ISO/IEC 21320-1).

Two programs must never see two different ZIP files in one: there is one directory, its entries lie one after another
from the first byte on without a gap, and each file's own header says what the directory says.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from mkiso.errors import ProofFailed
from mkiso.formats.protocol import Contents, Extent, read_extent
from mkiso.media.names import is_file_set_id

TREE = "ZIP"
_END = struct.Struct("<4s4H2IH")  # APPNOTE 4.3.16
_END_64 = struct.Struct("<4sQ2H2I4Q")  # 4.3.14
_LOCATOR_64 = struct.Struct("<4sIQI")  # 4.3.15
_CENTRAL = struct.Struct("<4s6H3I5H2I")  # 4.3.12
_LOCAL = struct.Struct("<4s5H3I2H")  # 4.3.7
_MAX_COMMENT_BYTES = 2**16 - 1
_MAX_DIRECTORY_BYTES = 256 * 1024 * 1024
_MAX_FILES = 1_000_000  # a long study has 20,000 images; each file takes 1 KB of memory here
_ENCRYPTED, _STREAMED, _UTF_8 = 0x0001, 0x0008, 0x0800  # 4.4.4
_NO_EXTRA = {0x7075: "a second name", 0x9901: "encrypted files"}  # 4.6.9, AE-2
_SIZES_64 = 0x0001  # 4.5.3
_MAX_VERSION = 45  # 4.4.3.2: ZIP64


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    flags: int
    method: int
    moment: tuple[int, int]
    crc32: int
    size: int
    position: int


def read_zip(descriptor: int) -> Contents:
    """Read the directory of a ZIP file that is open for reading, and each file's own header. Raises ProofFailed."""
    size = os.fstat(descriptor).st_size
    comment, directory, count = _directory_of(descriptor, size)
    if count > _MAX_FILES:
        raise ProofFailed("The ZIP file has more files than any disc needs.")
    entries = list(islice(_entries(read_extent(descriptor, directory)), count + 1))
    if len(entries) != count:
        raise ProofFailed("The ZIP file has another number of files than it says.")
    files: dict[PurePosixPath, Extent] = {}
    crc32: dict[Extent, int] = {}
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.position):
        if entry.position != position:
            raise ProofFailed("The ZIP file has bytes that belong to no file, or files that overlap.")
        extent = _extent(descriptor, entry, directory.start)
        position = extent.start + extent.size
        if not entry.name.endswith("/"):
            path = PurePosixPath(entry.name)
            if path in files:
                raise ProofFailed(f"The ZIP file has {path} twice.")
            files[path] = extent
            crc32[extent] = entry.crc32
        elif extent.size:
            raise ProofFailed("The ZIP file has a directory with bytes.")
    if position != directory.start:
        raise ProofFailed("The ZIP file has bytes that belong to no file.")
    if folders := {parent for path in files for parent in path.parents} & files.keys():
        raise ProofFailed(f"The ZIP file has {min(folders)} as a file and as a folder.")
    return Contents(comment if is_file_set_id(comment) else "", size, {TREE: files}, crc32)


def _directory_of(descriptor: int, size: int) -> tuple[str, Extent, int]:
    """The comment, where the directory lies, and how many entries it has."""
    tail = os.pread(descriptor, _END.size + _MAX_COMMENT_BYTES, max(size - _END.size - _MAX_COMMENT_BYTES, 0))
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + _END.size:
        raise ProofFailed("The ZIP file is cut short: it has no end.")
    _, disk, first_disk, here, count, length, start, comment_bytes = _END.unpack_from(tail, at)
    comment, end = tail[at + _END.size :], size - len(tail) + at
    if len(comment) != comment_bytes:
        raise ProofFailed("The ZIP file is cut short, or goes on behind its end.")
    locator_at = end - _LOCATOR_64.size
    if locator_at >= 0 and os.pread(descriptor, 4, locator_at) == b"PK\x06\x07":
        _, on_disk, end_64, disks = _LOCATOR_64.unpack(read_extent(descriptor, Extent(locator_at, _LOCATOR_64.size)))
        if end_64 != locator_at - _END_64.size or on_disk or disks != 1:
            raise ProofFailed("The ZIP file has a broken end.")
        wide = _END_64.unpack(read_extent(descriptor, Extent(end_64, _END_64.size)))
        narrow = (disk, first_disk, here, count, length, start)
        limits = (2**16 - 1,) * 4 + (2**32 - 1,) * 2
        if wide[:2] != (b"PK\x06\x06", _END_64.size - 12) or wide[3] > _MAX_VERSION:
            raise ProofFailed("The ZIP file has a broken end.")
        if any(few not in (many, limit) for few, many, limit in zip(narrow, wide[4:], limits, strict=True)):
            raise ProofFailed("The ZIP file says two things of itself.")
        disk, first_disk, here, count, length, start = wide[4:]
        end = end_64
    if disk or first_disk or here != count or start + length != end or length > _MAX_DIRECTORY_BYTES:
        raise ProofFailed("The ZIP file has a broken end.")
    return comment.decode("ascii", "replace"), Extent(start, length), count


def _entries(data: bytes) -> Iterator[_Entry]:
    position = 0
    while position < len(data):
        if len(data) < position + _CENTRAL.size:
            raise _broken()
        signature, made_by, version, flags, method, time, date, crc32, packed, size, *rest = _CENTRAL.unpack_from(
            data, position
        )
        name_bytes, extra_bytes, comment_bytes, disk, _, attributes, start = rest
        name_at = position + _CENTRAL.size
        extra_at = name_at + name_bytes
        position = extra_at + extra_bytes + comment_bytes
        if signature != b"PK\x01\x02" or position > len(data) or disk or version > _MAX_VERSION:
            raise _broken()
        if flags & (_ENCRYPTED | _STREAMED) or flags & ~_UTF_8 or method or packed != size:
            raise ProofFailed("Files in this ZIP file are compressed, encrypted or streamed: unpack it and check that.")
        if made_by >> 8 == 3 and stat.S_IFMT(attributes >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ProofFailed("The ZIP file has a link or something else that is no file.")
        size, packed, start = _wide(data[extra_at : extra_at + extra_bytes], (size, packed, start))
        if packed != size:
            raise _broken()
        name = _decoded(data[name_at:extra_at], flags)
        yield _Entry(name, flags, method, (time, date), crc32, size, start)


def _extent(descriptor: int, entry: _Entry, end: int) -> Extent:
    """Where a file's bytes lie, once its own header says what the directory says."""
    head = os.pread(descriptor, _LOCAL.size, entry.position)
    if len(head) < _LOCAL.size:
        raise _broken()
    signature, version, flags, method, time, date, crc32, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(head)
    named = os.pread(descriptor, name_bytes + extra_bytes, entry.position + _LOCAL.size)
    if signature != b"PK\x03\x04" or len(named) < name_bytes + extra_bytes or version > _MAX_VERSION:
        raise _broken()
    size, packed = _wide(named[name_bytes:], (size, packed))
    said = (_decoded(named[:name_bytes], flags), flags, method, (time, date), crc32, size)
    if said != (entry.name, entry.flags, entry.method, entry.moment, entry.crc32, entry.size) or packed != size:
        raise ProofFailed(f"The ZIP file's directory and the header of {entry.name} differ.")
    extent = Extent(entry.position + _LOCAL.size + len(named), size)
    if extent.start + extent.size > end:
        raise ProofFailed("The ZIP file has a file outside itself.")
    return extent


def _wide(extra: bytes, narrow: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of 32 bits, or where they are all ones of 64 bits from the extra field, in their order (4.5.3)."""
    wide, position = b"", 0
    while position < len(extra):
        if len(extra) < position + 4:
            raise _broken()
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind in _NO_EXTRA:
            raise ProofFailed(f"The ZIP file has {_NO_EXTRA[kind]}.")
        if kind == _SIZES_64:
            wide = extra[position + 4 : position + 4 + length]
        position += 4 + length
    numbers = []
    for number in narrow:
        if number == 2**32 - 1 and len(wide) >= 8:
            number, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        numbers.append(number)
    if position != len(extra) or wide:
        raise _broken()
    return tuple(numbers)


def _decoded(name: bytes, flags: int) -> str:
    try:
        text = name.decode("utf-8" if flags & _UTF_8 else "ascii")
    except UnicodeDecodeError:
        raise ProofFailed("The ZIP file has a name that isn't marked as UTF-8.") from None
    parts = text.removesuffix("/").split("/")
    if not all(parts) or {".", ".."} & set(parts) or any(mark in text for mark in "\\:") or not text.isprintable():
        raise ProofFailed("The ZIP file has a name that leads elsewhere.")
    return text


def _broken() -> ProofFailed:
    return ProofFailed("The ZIP file has a broken directory.")

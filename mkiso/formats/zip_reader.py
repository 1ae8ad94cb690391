"""Reading a ZIP file, independent of what wrote it, bounded against whatever it may hold (APPNOTE.TXT,
ISO/IEC 21320-1).

Two programs must never see two different ZIP files in one: there is one directory, its entries lie one after another
from the first byte on without a gap, and each file's own header says what the directory says.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from mkiso.errors import ProofFailed
from mkiso.formats.ae2 import AROUND_BYTES, CHECK_BYTES, MAC_BYTES, SALT_BYTES, Lock, Password
from mkiso.formats.protocol import Contents, Extent, PasswordNeeded, read_extent
from mkiso.media.names import HOWTO, is_file_set_id, told_by

TREE = "ZIP"
_END = struct.Struct("<4s4H2IH")  # APPNOTE 4.3.16
_END_64 = struct.Struct("<4sQ2H2I4Q")  # 4.3.14
_LOCATOR_64 = struct.Struct("<4sIQI")  # 4.3.15
_CENTRAL = struct.Struct("<4s6H3I5H2I")  # 4.3.12
_LOCAL = struct.Struct("<4s5H3I2H")  # 4.3.7
_MAX_COMMENT_BYTES = 2**16 - 1
_MAX_DIRECTORY_BYTES = 256 * 1024 * 1024
_MAX_DEPTH = 16  # else a name of 64 KB has 32,000 parents, which take gigabytes
_MAX_NAME = 255  # which systems have
_MAX_FILES = 1_000_000  # a long study has 20,000 images; each file takes 1 KB of memory here
_ENCRYPTED, _STREAMED, _UTF_8 = 0x0001, 0x0008, 0x0800  # 4.4.4
_SIZES_64, _AES = 0x0001, 0x9901  # 4.5.3, AE-2
_TIMES_AND_OWNERS = (0x000A, 0x5455, 0x5855, 0x7855, 0x7875)  # 4.5.5, 4.6.1
_GONE_BY = {0x7075: "a second name of a file", 0x6C78: "what makes a link of a file"}
_METHODS = _STORED, _LOCKED = 0, 99  # 4.4.5
_AE_2 = struct.pack("<H2sBH", 2, b"AE", 3, _STORED)  # version 2, AES-256, and the method within
_MAX_VERSION, _MAX_LOCKED_VERSION = 45, 51  # 4.4.3.2: ZIP64, AES


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    flags: int
    method: int
    moment: tuple[int, int]
    crc32: int
    size: int
    position: int

    @property
    def is_locked(self) -> bool:
        return self.method == _LOCKED


def read_zip(descriptor: int, password: Password | None = None) -> Contents:
    """Read the directory of a ZIP file that is open for reading, and each file's own header. Where files are encrypted
    (AE-2), the password opens them, and the places are those of their encrypted bytes.

    Raises ProofFailed, and PasswordNeeded where the password isn't given or isn't the right one.
    """
    size = os.fstat(descriptor).st_size
    comment, directory, count = _directory_of(descriptor, size)
    if count > _MAX_FILES:
        raise ProofFailed("The ZIP file has more files than any disc needs.")
    entries = list(islice(_entries(read_extent(descriptor, directory)), count + 1))
    if len(entries) != count:
        raise ProofFailed("The ZIP file has another number of files than it says.")
    files: dict[PurePosixPath, Extent] = {}
    crc32: dict[Extent, int] = {}
    locked: list[Extent] = []
    folders: set[PurePosixPath] = set()
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.position):
        if entry.position != position:
            raise ProofFailed("The ZIP file has bytes that belong to no file, or files that overlap.")
        extent = _extent(descriptor, entry, directory.start)
        position = extent.start + extent.size + MAC_BYTES * entry.is_locked
        if not entry.name.endswith("/"):
            path = PurePosixPath(entry.name)
            if path in files:
                raise ProofFailed(f"The ZIP file has {path} twice.")
            files[path] = extent
            if entry.is_locked:
                locked.append(extent)
            else:
                crc32[extent] = entry.crc32
        elif extent.size or entry.is_locked:
            raise ProofFailed("The ZIP file has a directory with bytes.")
        else:
            folders.add(PurePosixPath(entry.name))
    if position != directory.start:
        raise ProofFailed("The ZIP file has bytes that belong to no file.")
    folders.update(parent for path in (*files, *folders) for parent in path.parents)
    if both := folders & files.keys():
        raise ProofFailed(f"The ZIP file has {min(both)} as a file and as a folder.")
    _require_told_apart((*folders, *files))
    locks = _locks(descriptor, locked, password)
    return Contents(comment if is_file_set_id(comment) else "", size, {TREE: files}, crc32, locks)


def _require_told_apart(paths: Iterable[PurePosixPath]) -> None:
    """Each has a name of its own in its folder on every system. Raises ProofFailed."""
    told: set[tuple[PurePosixPath, str]] = set()
    for path in paths:
        if (name := (path.parent, told_by(path.name))) in told:
            raise ProofFailed(f"The ZIP file has {path} twice.")
        told.add(name)


def begins_encrypted(head: bytes) -> bool:
    """Whether a ZIP file that begins with these bytes is an encrypted one: its first file is, or says how to open the
    others.
    """
    if not head.startswith(b"PK\x03\x04") or len(head) < _LOCAL.size:
        return False
    _, _, flags, *_, name_bytes, _ = _LOCAL.unpack_from(head)
    name = head[_LOCAL.size : _LOCAL.size + name_bytes].decode("utf-8", "replace")
    return bool(flags & _ENCRYPTED) or PurePosixPath(name) in HOWTO


def _locks(descriptor: int, extents: Sequence[Extent], password: Password | None) -> dict[Extent, Lock]:
    """What opens each encrypted file: its salt and the check of the password stand before its bytes, its authentication
    code behind them.
    """
    if not extents:
        return {}
    if password is None:
        raise PasswordNeeded("The ZIP file is encrypted: it takes its password to check it.")
    before = SALT_BYTES + CHECK_BYTES
    heads = [read_extent(descriptor, Extent(extent.start - before, before)) for extent in extents]
    if password.keys_of(heads[0][:SALT_BYTES]).check != heads[0][SALT_BYTES:]:
        raise PasswordNeeded("This isn't the password of the ZIP file.")
    password.derive(head[:SALT_BYTES] for head in heads)
    locks = {}
    for extent, head in zip(extents, heads, strict=True):
        keys = password.keys_of(head[:SALT_BYTES])
        if keys.check != head[SALT_BYTES:]:
            raise ProofFailed("The ZIP file has files of several passwords, or is damaged.")
        locks[extent] = Lock(keys, read_extent(descriptor, Extent(extent.start + extent.size, MAC_BYTES)))
    return locks


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
        signature, _, version, flags, method, time, date, crc32, packed, size, *rest = _CENTRAL.unpack_from(
            data, position
        )
        name_bytes, extra_bytes, comment_bytes, disk, _, attributes, start = rest
        name_at = position + _CENTRAL.size
        extra_at = name_at + name_bytes
        position = extra_at + extra_bytes + comment_bytes
        if signature != b"PK\x01\x02" or position > len(data) or disk or version > _version(method):
            raise _broken()
        if flags & ~(_UTF_8 | _ENCRYPTED) or bool(flags & _ENCRYPTED) != (method == _LOCKED) or method not in _METHODS:
            raise ProofFailed("Files in this ZIP file are compressed, encrypted or streamed: unpack it and check that.")
        name = _decoded(data[name_at:extra_at], flags)
        if not _is_plain(attributes, is_folder=name.endswith("/")):
            raise ProofFailed("The ZIP file has a link or something else that is no file.")
        size, packed, start = _wide(data[extra_at : extra_at + extra_bytes], method, (size, packed, start))
        if packed != _packed(size, method) or (method == _LOCKED and crc32):
            raise _broken()
        yield _Entry(name, flags, method, (time, date), crc32, size, start)


def _extent(descriptor: int, entry: _Entry, end: int) -> Extent:
    """Where a file's bytes lie, once its own header says what the directory says."""
    head = os.pread(descriptor, _LOCAL.size, entry.position)
    if len(head) < _LOCAL.size:
        raise _broken()
    signature, version, flags, method, time, date, crc32, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(head)
    named = os.pread(descriptor, name_bytes + extra_bytes, entry.position + _LOCAL.size)
    if signature != b"PK\x03\x04" or len(named) < name_bytes + extra_bytes or version > _version(method):
        raise _broken()
    size, packed = _wide(named[name_bytes:], method, (size, packed))
    said = (_decoded(named[:name_bytes], flags), flags, method, (time, date), crc32, size)
    agreed = (entry.name, entry.flags, entry.method, entry.moment, entry.crc32, entry.size)
    if said != agreed or packed != _packed(size, method):
        raise ProofFailed(f"The ZIP file's directory and the header of {entry.name} differ.")
    if entry.position + _LOCAL.size + len(named) + packed > end:
        raise ProofFailed("The ZIP file has a file outside itself.")
    before = (SALT_BYTES + CHECK_BYTES) * entry.is_locked
    return Extent(entry.position + _LOCAL.size + len(named) + before, size)


def _is_plain(attributes: int, *, is_folder: bool) -> bool:
    """Whether attributes are those of a file or folder, as the name says (APPNOTE 4.4.15). Which system they are of
    isn't asked: programs read some systems' as others'.
    """
    kind = stat.S_IFMT(attributes >> 16)
    if is_folder:
        return kind in (0, stat.S_IFDIR)
    return kind in (0, stat.S_IFREG) and not attributes & stat.FILE_ATTRIBUTE_DIRECTORY


def _version(method: int) -> int:
    return _MAX_LOCKED_VERSION if method == _LOCKED else _MAX_VERSION


def _packed(size: int, method: int) -> int:
    return size + AROUND_BYTES * (method == _LOCKED)


def _wide(extra: bytes, method: int, narrow: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of 32 bits, or where they are all ones of 64 bits from the extra field, in their order (4.5.3); what it
    says of encryption has to be AE-2 with AES-256, of encrypted files alone.
    """
    fields: dict[int, bytes] = {}
    position = 0
    while position < len(extra):
        if len(extra) < position + 4:
            raise _broken()
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind in fields:
            raise _broken()
        fields[kind] = extra[position + 4 : position + 4 + length]
        position += 4 + length
    if unknown := fields.keys() - {_SIZES_64, _AES, *_TIMES_AND_OWNERS}:
        kind = min(unknown)
        what = _GONE_BY.get(kind, "something that mkiso doesn't know")
        raise ProofFailed(
            f"The ZIP file has {what} (extra field 0x{kind:04X}), by which some programs go: unpack it and check that."
        )
    if fields.get(_AES) != (_AE_2 if method == _LOCKED else None):
        raise ProofFailed("The ZIP file is encrypted in another way than mkiso reads: unpack it and check that.")
    wide = fields.get(_SIZES_64, b"")
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
    if len(parts) > _MAX_DEPTH:
        raise ProofFailed("The ZIP file's folders go too deep.")
    if max(map(len, parts)) > _MAX_NAME:
        raise ProofFailed("The ZIP file has a name that is longer than any system's.")
    if not all(parts) or {".", ".."} & set(parts) or any(mark in text for mark in "\\:") or not text.isprintable():
        raise ProofFailed("The ZIP file has a name that leads elsewhere.")
    return text


def _broken() -> ProofFailed:
    return ProofFailed("The ZIP file has a broken directory.")

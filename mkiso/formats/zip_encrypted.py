"""The whole file-set in a ZIP file of which every file is encrypted with AES-256 (AE-2), but for those that say how to
open it; read by mkiso.formats.zip_reader.

Python's zipfile writes no encrypted files, so the container is written here (APPNOTE.TXT; AE-2's specification at
https://www.winzip.com/en/support/aes-encryption/).
"""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath

from mkiso.errors import ProofFailed
from mkiso.formats.ae2 import AROUND_BYTES, MAC_BYTES, PIECE_BYTES, SALT_BYTES, KeyStream, Password, authentication_of
from mkiso.formats.protocol import Contents, Format, PasswordNeeded
from mkiso.formats.zip_file import name_in_zip
from mkiso.formats.zip_reader import TREE, begins_encrypted, read_zip
from mkiso.languages import N_
from mkiso.media.layout import Layout
from mkiso.media.names import HOWTO
from mkiso.storage.files import replacing, write_at
from mkiso.storage.pack import opened
from mkiso.study.models import DiscFile

_LIMIT, _ENTRIES = 2**32 - 1, 2**16 - 1  # from which on a number has 64 bits elsewhere (APPNOTE 4.5.3, 4.3.14)
_ELSEWHERE, _ENTRIES_ELSEWHERE = 2**32 - 1, 2**16 - 1  # what stands in its place then
_ENCRYPTED, _UTF_8 = 0x0001, 0x0800  # 4.4.4
_STORED, _LOCKED = 0, 99  # 4.4.5; the second is AE-2's
_AE_2 = struct.pack("<HHH2sBH", 0x9901, 7, 2, b"AE", 3, _STORED)  # version 2, AES-256
_VERSION, _WIDE_VERSION, _LOCKED_VERSION = 20, 45, 51  # 4.4.3.2
_UNIX, _READABLE = 3, 0o100644  # 4.4.2.2, 4.4.15
_DIGITS = 25
_THREADS = os.cpu_count() or 1


def new_password() -> str:
    """A password of 25 random digits, 83 bits: `04815-16234-…`. It is read aloud and typed with its hyphens."""
    digits = f"{secrets.randbelow(10**_DIGITS):0{_DIGITS}d}"
    return "-".join(digits[at : at + 5] for at in range(0, _DIGITS, 5))


class ZipEncrypted(Format):
    """The format of files that mustn't be read by whoever finds them."""

    name = "zip-encrypted"
    suffix = ".zip"
    media_type = "application/zip"
    title = N_("An encrypted ZIP file, which opens with a password")
    carrier = "zip-encrypted"
    is_encrypted = True
    checks = (
        "the directory of the ZIP file against each file's own header",
        "names: relative, each once; that all but what says how to open it is encrypted",
    )

    def __init__(self, password: Password | None = None) -> None:
        self._password = password

    def opened(self, password: str) -> ZipEncrypted:
        return ZipEncrypted(Password(password))

    def size(self, disc: Layout) -> int:
        plan = _Plan.of(disc)
        return plan.directory_start + len(plan.directory)

    def write(self, disc: Layout, target: Path) -> None:
        if self._password is None:
            raise PasswordNeeded("An encrypted ZIP file needs a password.")
        plan = _Plan.of(disc)
        with replacing(target) as file:
            write = partial(_write, self._password, file.fileno())
            with ThreadPoolExecutor(_THREADS, thread_name_prefix="encryption") as pool:
                list(pool.map(write, plan.files, plan.headers, plan.places))
            file.seek(plan.directory_start)
            file.write(plan.directory)

    def recognises(self, head: bytes) -> bool:
        return begins_encrypted(head)

    def read(self, descriptor: int) -> Contents:
        contents = read_zip(descriptor, self._password)
        if bare := [path for path, extent in contents.files.items() if extent not in contents.locks]:
            if unexpected := sorted(set(bare) - set(HOWTO)):
                raise ProofFailed(f"The ZIP file has {unexpected[0]}, which isn't encrypted.")
            if len(bare) == len(contents.files):
                raise ProofFailed("Nothing in the ZIP file is encrypted.")
        return contents

    def paths(self, file: DiscFile) -> dict[str, PurePosixPath]:
        return {TREE: PurePosixPath(name_in_zip(file))}


_LOCAL = struct.Struct("<4s5H3I2H")  # APPNOTE 4.3.7
_CENTRAL = struct.Struct("<4s6H3I5H2I")  # 4.3.12


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is written beside the files' own bytes, known before them: each file's header and place, and the
    directory with the end. What says how to open the ZIP file comes first.
    """

    files: tuple[DiscFile, ...]
    headers: tuple[bytes, ...]
    places: tuple[int, ...]
    directory_start: int
    directory: bytes

    @classmethod
    def of(cls, disc: Layout) -> _Plan:
        files = tuple(sorted(disc.files, key=lambda file: file.path not in HOWTO))
        headers, places, entries, position = [], [], [], 0
        for file in files:
            facts = _Facts.of(file, disc.created)
            headers.append(facts.local())
            places.append(position)
            entries.append(facts.central(position))
            position += len(headers[-1]) + facts.packed
        central = b"".join(entries)
        return cls(files, tuple(headers), tuple(places), position, central + _end(len(files), len(central), position))


@dataclass(frozen=True, slots=True)
class _Facts:
    """What stands of a file in its header and in the directory."""

    name: bytes
    flags: int
    method: int
    moment: tuple[int, int]
    crc32: int
    size: int

    @classmethod
    def of(cls, file: DiscFile, moment: datetime) -> _Facts:
        name = name_in_zip(file)
        flags = 0 if name.isascii() else _UTF_8
        date = (moment.year - 1980) << 9 | moment.month << 5 | moment.day
        time = moment.hour << 11 | moment.minute << 5 | moment.second // 2
        if file.path in HOWTO:
            with opened(file) as source:
                return cls(name.encode(), flags, _STORED, (time, date), zlib.crc32(source.readall()), file.size)
        return cls(name.encode(), flags | _ENCRYPTED, _LOCKED, (time, date), 0, file.size)

    @property
    def packed(self) -> int:
        return self.size + AROUND_BYTES * (self.method == _LOCKED)

    def local(self) -> bytes:
        is_wide = self.packed >= _LIMIT
        extra = _wide(self.size, self.packed) if is_wide else b""
        return self._header(_LOCAL, b"PK\x03\x04", (self._version(wide=is_wide),), is_wide, extra, ())

    def central(self, position: int) -> bytes:
        is_wide = self.packed >= _LIMIT
        numbers = [self.size, self.packed] if is_wide else []
        extra = _wide(*numbers, *([position] if position >= _LIMIT else []))
        versions = (_UNIX << 8 | _LOCKED_VERSION, self._version(wide=bool(extra)))
        more = (0, 0, 0, _READABLE << 16, _ELSEWHERE if position >= _LIMIT else position)
        return self._header(_CENTRAL, b"PK\x01\x02", versions, is_wide, extra, more)

    def _version(self, *, wide: bool) -> int:
        if self.method == _LOCKED:
            return _LOCKED_VERSION
        return _WIDE_VERSION if wide else _VERSION

    def _header(
        self,
        kind: struct.Struct,
        signature: bytes,
        versions: tuple[int, ...],
        is_wide: bool,
        extra: bytes,
        more: tuple[int, ...],
    ) -> bytes:
        extra += _AE_2 if self.method == _LOCKED else b""
        sizes = (_ELSEWHERE, _ELSEWHERE) if is_wide else (self.packed, self.size)
        told = (*versions, self.flags, self.method, *self.moment, self.crc32, *sizes, len(self.name), len(extra))
        return kind.pack(signature, *told, *more) + self.name + extra


def _wide(*numbers: int) -> bytes:
    return struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""


def _end(count: int, length: int, start: int) -> bytes:
    """The end of the directory, and before it that of ZIP64 where a number needs it (APPNOTE 4.3.14 to 4.3.16)."""
    wide = b""
    if count >= _ENTRIES or length >= _LIMIT or start >= _LIMIT:
        versions = (_UNIX << 8 | _LOCKED_VERSION, _WIDE_VERSION)
        wide = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, *versions, 0, 0, count, count, length, start)
        wide += struct.pack("<4sIQI", b"PK\x06\x07", 0, start + length, 1)
        count, length, start = _ENTRIES_ELSEWHERE, _ELSEWHERE, _ELSEWHERE
    return wide + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, length, start, 0)


def _write(password: Password, target: int, file: DiscFile, header: bytes, place: int) -> None:
    """A file at its place: its header, salt, check, encrypted bytes, authentication code; as it is where it says how to
    open the others. Several threads write files, each at its place.
    """
    with opened(file) as source:
        if file.path in HOWTO:
            write_at(target, header + source.readall(), place)
            return
        salt = os.urandom(SALT_BYTES)
        keys = password.keys_of(salt)
        stream, authentication = KeyStream(keys), authentication_of(keys)
        head = header + salt + keys.check
        write_at(target, head, place)
        begin, at, buffer = place + len(head), 0, memoryview(bytearray(PIECE_BYTES))
        while count := source.readinto(buffer):
            for piece in stream.applied(buffer[:count], at):
                authentication.update(piece)
                write_at(target, piece, begin + at)
                at += len(piece)
        if at != file.size:
            raise ProofFailed(f"{file.path} has another size than when it was laid out.")
        write_at(target, authentication.digest()[:MAC_BYTES], begin + at)

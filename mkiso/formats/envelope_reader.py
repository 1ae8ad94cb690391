"""Reading secure DICOM files (PS3.15 D.1.1): the envelopes of the Cryptographic Message Syntax that the DICOM files of
a disc are in; independent of what wrote them, and bounded against whatever they may hold.

What is read is DER: every value lies in the one around it and fills it, and nothing stands behind the last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mkiso.errors import ProofFailed
from mkiso.formats.protocol import Contents, Extent, PasswordNeeded

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

DICOMDIR = PurePosixPath("DICOMDIR")
_ENVELOPED = bytes.fromhex("06092a864886f70d010703")
_DIGESTED, _DATA = bytes.fromhex("06092a864886f70d010705"), bytes.fromhex("06092a864886f70d010701")
_PBKDF2, _PWRI_KEK = bytes.fromhex("06092a864886f70d01050c"), bytes.fromhex("060b2a864886f70d0109100309")
_RSA, _SHA_256 = bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("0609608648016503040201")
_AES = {bytes.fromhex(f"06096086480165030401{last}"): size for last, size in (("02", 16), ("16", 24), ("2a", 32))}
_BLOCK_BYTES = 16
_DIGEST_BYTES = 34  # an OCTET STRING of a SHA-256
_MOST_HEAD_BYTES = 64 * 1024  # some hundred recipients
_FEW_HEAD_BYTES = 2048
_MOST_INNER_BYTES = 96  # of what stands before the file in its envelope, rounded up
_MOST_ROUNDS, _MOST_ROUNDS_IN_ALL = 10_000_000, 1_000_000_000  # of one key, and of all of a disc: some minutes
_ROUNDS_OF_RSA = 2000  # take as long as one use of a key of 2048 bits
_PIECE_BYTES = 128 * 1024  # larger ones would be new memory for each file
_Contents = TypeVar("_Contents", bound=Contents)


class _Broken(Exception):
    """It is no envelope that can be read."""


class _NotOurs(Exception):
    """What was given doesn't open it."""


class _TooSlow(Exception):
    """The keys of a disc's files take more time than a disc can be worth."""


class Opener:
    """What opens a disc's envelopes: a password, a recipient's private key, or both. A key that was derived is kept:
    all files of a disc of ours have one.
    """

    def __init__(self, password: str = "", key: RSAPrivateKey | None = None) -> None:
        self._password, self._key = password.encode(), key
        self._derived: dict[tuple[bytes, int], bytes] = {}
        self._rounds = 0

    @property
    def has_something(self) -> bool:
        return bool(self._password or self._key)

    def candidates(self, infos: bytes) -> Iterator[bytes]:
        """What the content's key may be by each recipient's information. RSA gives something for every other's, too."""
        cursor = _Cursor(infos)
        while not cursor.at_end:
            tag, value = cursor.any()
            if tag == 0x30 and self._key:
                yield from self._by_key(_Cursor(value))
            elif tag == 0xA3 and self._password:
                yield from self._by_password(_Cursor(value))

    def _spend(self, rounds: int) -> None:
        """Raises _TooSlow where a disc takes more of them than it can be worth."""
        self._rounds += rounds
        if self._rounds > _MOST_ROUNDS_IN_ALL:
            raise _TooSlow

    def _by_key(self, info: _Cursor) -> Iterator[bytes]:
        assert self._key
        info.take(0x02)
        info.any()  # whose it is; the certificate isn't needed
        algorithm = info.take(0x30)
        encrypted = info.last(0x04)
        if algorithm.startswith(_RSA) and len(encrypted) == self._key.key_size // 8:
            self._spend(_ROUNDS_OF_RSA)
            try:
                yield self._key.decrypt(encrypted, PKCS1v15())
            except ValueError:
                return

    def _by_password(self, info: _Cursor) -> Iterator[bytes]:
        info.take(0x02)
        derivation, wrapping = _Cursor(info.take(0xA0)), _Cursor(info.take(0x30))
        wrapped = info.last(0x04)
        derivation.expect(_PBKDF2)
        parameters = _Cursor(derivation.last(0x30))
        salt, rounds = parameters.take(0x04), int.from_bytes(parameters.last(0x02), "big")
        wrapping.expect(_PWRI_KEK)
        size, vector = _cipher(_Cursor(wrapping.last(0x30)))
        if not 1 <= rounds <= _MOST_ROUNDS or len(wrapped) % _BLOCK_BYTES or len(wrapped) < 2 * _BLOCK_BYTES:
            raise _Broken
        if (known := self._derived.get((salt, rounds))) is None:
            self._spend(rounds)
            known = self._derived[salt, rounds] = hashlib.pbkdf2_hmac("sha1", self._password, salt, rounds, 32)
        block = _unwrapped(known[:size], vector, wrapped)
        key = block[4 : 4 + block[0]]
        if bytes(byte ^ 0xFF for byte in block[1:4]) == key[:3] and len(key) == block[0]:
            yield key


def _unwrapped(key: bytes, vector: bytes, wrapped: bytes) -> bytes:
    """RFC 3211 2.3.2: the last block gives what the outer chain began with."""

    def decrypted(data: bytes, vector: bytes) -> bytes:
        return Cipher(AES(key), CBC(vector)).decryptor().update(data)

    last = decrypted(wrapped[-_BLOCK_BYTES:], wrapped[-2 * _BLOCK_BYTES : -_BLOCK_BYTES])
    inner = decrypted(wrapped[:-_BLOCK_BYTES], last) + last
    return decrypted(inner, vector)


def private_key_of(file: Path) -> RSAPrivateKey:
    """A recipient's RSA key from a PEM file that no password protects. Raises ProofFailed, and OSError."""
    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ProofFailed(f"{file} is no RSA private key in PEM format without a password (openssl pkey writes one).")
    return key


@dataclass(frozen=True, slots=True)
class Envelope:
    """One that opens: the `size` bytes of the file in it begin `skip` bytes behind the beginning of its content, which
    is encrypted from its byte `start` on.
    """

    key: bytes = field(repr=False)
    vector: bytes
    start: int
    encrypted: int
    skip: int
    size: int

    def opened(self) -> OpenedEnvelope:
        return OpenedEnvelope(self)

    def decryptor(self, vector: bytes) -> CipherContext:
        return Cipher(AES(self.key), CBC(vector)).decryptor()

    def read(self, stored: Callable[[int, int], bytes], at: int, size: int) -> bytes:
        """A piece of the file in it, as far as it goes; `stored` reads the envelope. Whether it is genuine isn't
        known.
        """
        begin = self.skip + at
        end = min(begin + size, self.skip + self.size)
        if end <= begin:
            return b""
        first, last = begin // _BLOCK_BYTES, -(-end // _BLOCK_BYTES)
        before = stored(self.start + (first - 1) * _BLOCK_BYTES, _BLOCK_BYTES) if first else self.vector
        data = stored(self.start + first * _BLOCK_BYTES, (last - first) * _BLOCK_BYTES)
        offset = first * _BLOCK_BYTES
        return self.decryptor(before).update(data)[begin - offset : end - offset]


class OpenedEnvelope:
    """An envelope while it is read from its beginning to its end."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope, self._cipher = envelope, envelope.decryptor(envelope.vector)
        self._before, self._inner, self._tail = envelope.start, -envelope.skip, b""
        self._buffer = bytearray(_PIECE_BYTES + _BLOCK_BYTES)

    def decrypted(self, data: ReadableBuffer) -> Iterator[memoryview]:
        """What the next bytes of the envelope have of the file, in pieces that last until the next one."""
        view = memoryview(data)
        skipped = min(self._before, len(view))
        self._before -= skipped
        view = view[skipped:]
        for begin in range(0, len(view), _PIECE_BYTES):
            count = self._cipher.update_into(view[begin : begin + _PIECE_BYTES], self._buffer)
            piece = memoryview(self._buffer)[:count]
            here = piece[max(-self._inner, 0) : max(self._envelope.size - self._inner, 0)]
            self._tail += piece[max(self._envelope.size - self._inner, 0) :]
            self._inner += count
            if here:
                yield here

    def is_genuine(self, sha256: bytes) -> bool:
        """Whether the file has the digest that stands behind it, and the padding is as it must be."""
        padding = self._envelope.encrypted - self._envelope.skip - self._envelope.size - _DIGEST_BYTES
        return self._tail == b"\x04\x20" + sha256 + bytes([padding]) * padding


def with_envelopes(contents: _Contents, descriptor: int, opener: Opener) -> tuple[_Contents, list[str]]:
    """What a disc holds with its envelopes opened, and what is wrong with some, in sentences; as it is where DICOMDIR
    is in none. Raises PasswordNeeded where nothing opens any.
    """
    directory = contents.files.get(DICOMDIR)
    if directory is None or not _begins(contents.stored(descriptor, directory, 0, 32)):
        return contents, []
    if not opener.has_something:
        raise PasswordNeeded("The DICOM files of this disc are encrypted: it takes the password or a recipient's key.")
    envelopes: dict[Extent, Envelope] = {}
    findings: list[str] = []
    refused = 0
    for path, extent in contents.files.items():
        if path != DICOMDIR and path.parts[0] != "DICOM":
            continue
        try:
            envelopes[extent] = _opened(contents, descriptor, extent, opener)
        except _NotOurs:
            refused += 1
            findings.append(f"{path} doesn't open as others do: it was changed, or isn't of this disc.")
        except _Broken:
            findings.append(f"{path} is no encrypted DICOM file that can be read.")
        except _TooSlow:
            findings.append(f"{path} and what follows wasn't opened: the keys of this disc take too long to make.")
            refused = 0  # it may be the password
            break
        except OSError:  # of a folder's file, which is told
            continue
    if refused and not envelopes:
        raise PasswordNeeded("This isn't the password of this disc, or the key of somebody whom it was made for.")
    return replace(contents, envelopes=envelopes), findings


def _opened(contents: Contents, descriptor: int, extent: Extent, opener: Opener) -> Envelope:
    head = contents.stored(descriptor, extent, 0, _FEW_HEAD_BYTES)
    try:
        infos, vector, size, start = _parsed(head, extent.size)
    except _Broken:
        head = contents.stored(descriptor, extent, 0, _MOST_HEAD_BYTES)
        infos, vector, size, start = _parsed(head, extent.size)
    encrypted = extent.size - start
    first = contents.stored(descriptor, extent, start, _MOST_INNER_BYTES)
    for key in opener.candidates(infos):
        if len(key) != size:
            continue
        inner = Cipher(AES(key), CBC(vector)).decryptor().update(first[: len(first) // _BLOCK_BYTES * _BLOCK_BYTES])
        try:
            skip, file_size = _inner(inner, encrypted)
        except _Broken:
            continue
        return Envelope(key, vector, start, encrypted, skip, file_size)
    raise _NotOurs


def _begins(head: bytes) -> bool:
    """Whether a file that begins so claims to be an envelope: no DICOM file begins with such a byte of a preamble that
    is zero.
    """
    return head[:1] == b"\x30" and _ENVELOPED in head


def _parsed(head: bytes, size: int) -> tuple[bytes, bytes, int, int]:
    """The recipients' information, the content's initialization vector, the size of its key, and where its encrypted
    bytes begin, which go on to the end.
    """
    cursor = _Cursor(head, size)
    cursor.enter(0x30)
    cursor.expect(_ENVELOPED)
    cursor.enter(0xA0)
    cursor.enter(0x30)
    if cursor.take(0x02) not in (b"\x00", b"\x02", b"\x03"):
        raise _Broken
    infos = cursor.take(0x31)
    cursor.enter(0x30)
    cursor.expect(_DIGESTED)
    key_size, vector = _cipher(_Cursor(cursor.take(0x30)))
    cursor.enter(0x80)
    if (size - cursor.at) % _BLOCK_BYTES or size == cursor.at:
        raise _Broken
    return infos, vector, key_size, cursor.at


def _inner(begin: bytes, encrypted: int) -> tuple[int, int]:
    """How many bytes of DigestedData stand before the file, and the file's size. `encrypted`: with what stands behind
    it, the padding included.
    """
    outer = _Cursor(begin, None)
    whole = outer.enter(0x30)
    if not 1 <= encrypted - outer.at - whole <= _BLOCK_BYTES:
        raise _Broken
    cursor = _Cursor(begin, outer.at + whole - _DIGEST_BYTES, outer.at)
    if cursor.take(0x02) != b"\x00" or cursor.take(0x30) not in (_SHA_256, _SHA_256 + b"\x05\x00"):
        raise _Broken
    cursor.enter(0x30)
    cursor.expect(_DATA)
    cursor.enter(0xA0)
    size = cursor.enter(0x04)
    return cursor.at, size


def _cipher(algorithm: _Cursor) -> tuple[int, bytes]:
    """The size of the key and the initialization vector of AES-CBC (RFC 3565 4.1)."""
    oid = algorithm.data[algorithm.at : algorithm.at + 11]
    if oid not in _AES:
        raise _Broken
    algorithm.expect(oid)
    vector = algorithm.last(0x04)
    if len(vector) != _BLOCK_BYTES:
        raise _Broken
    return _AES[oid], vector


class _Cursor:
    """Where the reading of DER has come to. What is entered ends where `end` is, which may lie behind the bytes at
    hand; None: it isn't known.
    """

    def __init__(self, data: bytes, end: int | None = -1, at: int = 0) -> None:
        self.data, self.at = data, at
        self.end = len(data) if end == -1 else end

    @property
    def at_end(self) -> bool:
        return self.at == self.end

    def enter(self, tag: int) -> int:
        """Go into a value that goes on to the end; its length."""
        found, length = self._head()
        if found != tag or (self.end is not None and self.at + length != self.end):
            raise _Broken
        return length

    def any(self) -> tuple[int, bytes]:
        """The next value whole, and its tag."""
        tag, length = self._head()
        if self.at + length > min(len(self.data), self.end if self.end is not None else len(self.data)):
            raise _Broken
        self.at += length
        return tag, self.data[self.at - length : self.at]

    def take(self, tag: int) -> bytes:
        found, value = self.any()
        if found != tag:
            raise _Broken
        return value

    def last(self, tag: int) -> bytes:
        value = self.take(tag)
        if not self.at_end:
            raise _Broken
        return value

    def expect(self, encoded: bytes) -> None:
        if self.data[self.at : self.at + len(encoded)] != encoded:
            raise _Broken
        self.at += len(encoded)

    def _head(self) -> tuple[int, int]:
        head = self.data[self.at : self.at + 7]
        if len(head) < 2 or head[0] & 0x1F == 0x1F:
            raise _Broken
        count = head[1] & 0x7F if head[1] & 0x80 else 0
        length = int.from_bytes(head[2 : 2 + count], "big") if count else head[1]
        is_shortest = not count or (length >= 0x80 and length >> 8 * (count - 1))
        if count > 5 or len(head) < 2 + count or not is_shortest or head[1] == 0x80:
            raise _Broken
        self.at += 2 + count
        return head[0], length

"""AES-256 of ZIP files as WinZip specifies it (AE-2, https://www.winzip.com/en/support/aes-encryption/): keys from a
password, the key stream, and what an encrypted file is before it is read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SALT_BYTES, CHECK_BYTES, MAC_BYTES = 16, 2, 10
AROUND_BYTES = SALT_BYTES + CHECK_BYTES + MAC_BYTES
"""What an encrypted file has beside its bytes: the salt and the password check before them, the authentication code
behind.
"""
_KEY_BYTES = 32
_ROUNDS = 1000
_BLOCK_BYTES = 16
PIECE_BYTES = 128 * 1024
_THREADS = os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Keys:
    """What a password and the salt of one file give. `check` says whether a password is likely to be the right one."""

    encryption: bytes = field(repr=False)
    authentication: bytes = field(repr=False)
    check: bytes = field(repr=False)


class Password:
    """A password with the keys that were derived from it: each takes some milliseconds, and a file that is written is
    read back with the same ones.
    """

    def __init__(self, text: str) -> None:
        self._text = text.encode()
        self._keys: dict[bytes, Keys] = {}

    def derive(self, salts: Iterable[bytes]) -> None:
        """Derive the keys of many salts, with every core."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="keys") as pool:
            list(pool.map(self.keys_of, salts))

    def keys_of(self, salt: bytes) -> Keys:
        """The keys of one file (RFC 8018 5.2 with HMAC-SHA-1; the rounds are the specification's)."""
        if (keys := self._keys.get(salt)) is None:
            made = hashlib.pbkdf2_hmac("sha1", self._text, salt, _ROUNDS, 2 * _KEY_BYTES + CHECK_BYTES)
            keys = Keys(made[:_KEY_BYTES], made[_KEY_BYTES : 2 * _KEY_BYTES], made[2 * _KEY_BYTES :])
            self._keys[salt] = keys
        return keys


class KeyStream:
    """AES in counter mode as AE-2 has it: the counter is little-endian and begins at 1, so no library's counter mode
    is it. Not safe to use from two threads.
    """

    def __init__(self, keys: Keys) -> None:
        self._cipher: CipherContext = Cipher(AES(keys.encryption), ECB()).encryptor()  # noqa: S305  of counters

    def applied(self, data: ReadableBuffer, at: int) -> Iterator[memoryview]:
        """Data that lies `at` so many bytes from the file's beginning, encrypted or decrypted, in pieces of at most
        PIECE_BYTES; each lasts until the next one.
        """
        view = memoryview(data)
        own, begin = _own(), 0
        while begin < len(view):
            skipped = (at + begin) % _BLOCK_BYTES
            piece = view[begin : begin + PIECE_BYTES - skipped]
            blocks = -(-(skipped + len(piece)) // _BLOCK_BYTES)
            np.add(own.numbers[:blocks], (at + begin) // _BLOCK_BYTES + 1, out=own.counters[:blocks, 0])
            self._cipher.update_into(own.counters[:blocks].data.cast("B"), own.stream)
            stream = np.frombuffer(own.stream, np.uint8, len(piece), skipped)
            np.bitwise_xor(np.frombuffer(piece, np.uint8), stream, out=own.result[: len(piece)])
            yield own.result[: len(piece)].data
            begin += len(piece)


class _Own(threading.local):
    """What a thread needs for a piece of a key stream. To have it made for each piece costs several times the AES."""

    def __init__(self) -> None:
        blocks = PIECE_BYTES // _BLOCK_BYTES
        self.numbers = np.arange(blocks, dtype="<u8")
        self.counters = np.zeros((blocks, 2), "<u8")
        self.stream = bytearray(PIECE_BYTES + _BLOCK_BYTES - 1)  # what update_into asks for
        self.result = np.empty(PIECE_BYTES, np.uint8)


@cache
def _own() -> _Own:
    return _Own()


def authentication_of(keys: Keys) -> hmac.HMAC:
    """What takes the encrypted bytes of one file; the first MAC_BYTES of its digest stand behind them."""
    return hmac.new(keys.authentication, digestmod="sha1")


@dataclass(frozen=True, slots=True)
class Lock:
    """Of one encrypted file: its keys, and the authentication code that stands behind its bytes."""

    keys: Keys
    mac: bytes

    def opened(self) -> Opened:
        return Opened(self)

    def decrypted(self, data: ReadableBuffer, at: int) -> bytes:
        """A piece of the file that lies `at` so many bytes from its beginning; whether it is genuine isn't known."""
        return b"".join(map(bytes, KeyStream(self.keys).applied(data, at)))


class Opened:
    """An encrypted file while it is read from its beginning to its end."""

    def __init__(self, lock: Lock) -> None:
        self._mac, self._stream = authentication_of(lock.keys), KeyStream(lock.keys)
        self._lock, self._at = lock, 0

    def decrypted(self, data: ReadableBuffer) -> Iterator[memoryview]:
        """The next bytes, in pieces that last until the next one."""
        view = memoryview(data)
        self._mac.update(view)
        yield from self._stream.applied(view, self._at)
        self._at += len(view)

    def is_genuine(self, sha256: bytes) -> bool:
        """Whether what was read is what was encrypted, byte for byte; by its authentication code, whatever the hash
        is.
        """
        return hmac.compare_digest(self._mac.digest()[:MAC_BYTES], self._lock.mac)

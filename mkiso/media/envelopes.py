"""Secure DICOM files: each DICOM file of a disc in an envelope of the Cryptographic Message Syntax (PS3.10 7.4, PS3.15
D.1.1), written while the file streams by; read by mkiso.formats.envelope_reader.

EnvelopedData (RFC 5652 6) with AES-256-CBC (RFC 3565), of which the content is DigestedData (RFC 5652 7) with SHA-256,
of which the content is the DICOM file. The content's key is encrypted by a password (RFC 5652 6.2.4, RFC 3211: PBKDF2)
and for each recipient by RSA (RFC 3370 4.2.1).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.x509 import Certificate, ExtensionNotFound, KeyUsage, load_pem_x509_certificate

from mkiso.errors import ConfigurationError, ProofFailed, TooLargeForMedium
from mkiso.storage.files import private
from mkiso.storage.pack import opened
from mkiso.study.models import DiscFile, Inside

LARGEST_BYTES = 2**31 - 1
"""Of an envelope: OpenSSL and others read one whole, and no more than this."""
_ROUNDS = 100_000  # once for a disc; who opens it file by file waits for them at each
_SALT_BYTES, _KEY_BYTES, _BLOCK_BYTES = 16, 32, 16
_PIECE_BYTES = 128 * 1024  # larger ones would be new memory for each file
_LEAST_RSA_BITS = 2048
_THREADS = os.cpu_count() or 1
_SEQUENCE, _SET, _INTEGER, _OCTETS, _OID = 0x30, 0x31, 0x02, 0x04, 0x06
_EXPLICIT_0, _IMPLICIT_0, _PASSWORD_RECIPIENT = 0xA0, 0x80, 0xA3
_NULL = b"\x05\x00"


def recipients_of(files: Iterable[Path]) -> tuple[Certificate, ...]:
    """The certificates (PEM) of those who can open a secure disc with their own key. Raises ConfigurationError for one
    that doesn't serve.
    """
    return tuple(map(_recipient, files))


def _recipient(file: Path) -> Certificate:
    try:
        certificate = load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"disc.recipients: {file} can't be read: {error.strerror}.") from None
    except ValueError:
        raise ConfigurationError(f"disc.recipients: {file} is no certificate in PEM format.") from None
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey) or key.key_size < _LEAST_RSA_BITS:
        raise ConfigurationError(f"disc.recipients: {file} has no RSA key of {_LEAST_RSA_BITS} bits or more.")
    try:
        usage = certificate.extensions.get_extension_for_class(KeyUsage).value
        if not usage.key_encipherment:
            raise ConfigurationError(f"disc.recipients: {file} isn't for encryption by its key usage.")
    except ExtensionNotFound:
        pass
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        raise ConfigurationError(f"disc.recipients: {file} isn't valid today: replace it, or take it out.")
    return certificate


class Envelopes:
    """What the DICOM files of a disc are put into: with a password, with the keys of recipients, or with both."""

    def __init__(self, password: str, recipients: Sequence[Certificate] = ()) -> None:
        """`password`: ASCII (PS3.15 D.1.1). One key is derived of it for all files: each has its own beneath that."""
        self._salt = os.urandom(_SALT_BYTES)
        self._key = hashlib.pbkdf2_hmac("sha1", password.encode("ascii"), self._salt, _ROUNDS, _KEY_BYTES)
        self._recipients = tuple(recipients)
        self._recipients_bytes = len(self._infos(bytes(_KEY_BYTES)))

    def size_of(self, size: int) -> int:
        """The bytes of the envelope of a file of so many."""
        padded = _padded(len(_digested_head(size)) + size + len(_digested_tail(bytes(32))))
        return len(_enveloped_head(bytes(self._recipients_bytes), bytes(_BLOCK_BYTES), padded)) + padded

    def sealed(self, files: Collection[DiscFile], folder: Path) -> tuple[DiscFile, ...]:
        """The same files in envelopes, which are written below `folder`, several at a time. Raises TooLargeForMedium,
        and ProofFailed for one that isn't what it was.
        """
        for file in files:
            if self.size_of(file.size) > LARGEST_BYTES:
                raise TooLargeForMedium(
                    "One instance has more than 2.1 GB, and programs that open encrypted DICOM files read no more of "
                    "one. Ask for an encrypted ZIP file.",
                    sop_instance_uid=file.sop_instance_uid,
                )
        for parent in {(folder / file.path).parent for file in files}:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="envelopes") as pool:
            return tuple(pool.map(self._sealed, files, [folder / file.path for file in files]))

    def _sealed(self, file: DiscFile, target: Path) -> DiscFile:
        key, vector = os.urandom(_KEY_BYTES), os.urandom(_BLOCK_BYTES)
        encryptor = Cipher(AES(key), CBC(vector)).encryptor()
        head, tail = _digested_head(file.size), _digested_tail(bytes.fromhex(file.sha256))
        length = len(head) + file.size + len(tail)
        padded = _padded(length)
        sha256, count = hashlib.sha256(), 0
        with open(target, "wb", opener=private) as sealed, opened(file) as source:

            def write(data: bytes | memoryview) -> None:
                sha256.update(data)
                sealed.write(data)

            write(_enveloped_head(self._infos(key), vector, padded))
            write(encryptor.update(head))
            buffer, out = memoryview(bytearray(_PIECE_BYTES)), memoryview(bytearray(_PIECE_BYTES + _BLOCK_BYTES))
            while read := source.readinto(buffer):
                write(out[: encryptor.update_into(buffer[:read], out)])
                count += read
            if count != file.size:
                raise ProofFailed(f"{file.path} has another size than when it was laid out.")
            write(encryptor.update(tail + bytes([padded - length]) * (padded - length)) + encryptor.finalize())
        return replace(
            file,
            size=self.size_of(file.size),
            sha256=sha256.hexdigest(),
            source=target,
            offset=None,
            inside=Inside(file.size, file.sha256),
        )

    def _infos(self, key: bytes) -> bytes:
        """RecipientInfos (RFC 5652 6.2): of a SET OF the order is that of the encoded elements (X.690 11.6)."""
        infos = [_for_certificate(each, key) for each in self._recipients]
        infos.append(_for_password(self._key, self._salt, key))
        return b"".join(sorted(infos))


def _for_password(wrapping: bytes, salt: bytes, key: bytes) -> bytes:
    """PasswordRecipientInfo: the key is wrapped as RFC 3211 2.3.1 says, encrypted twice, as one chain. The function of
    PBKDF2 is its default, HMAC with SHA-1 (RFC 2898 A.2).
    """
    vector = os.urandom(_BLOCK_BYTES)
    block = bytes([len(key), *(byte ^ 0xFF for byte in key[:3])]) + key
    block += os.urandom(-len(block) % _BLOCK_BYTES)
    encryptor = Cipher(AES(wrapping), CBC(vector)).encryptor()
    wrapped = encryptor.update(encryptor.update(block))
    derivation = _der(_SEQUENCE, _der(_OCTETS, salt), _integer(_ROUNDS))
    cipher = _algorithm("2.16.840.1.101.3.4.1.42", _der(_OCTETS, vector))
    return _der(
        _PASSWORD_RECIPIENT,
        _integer(0),
        _der(_EXPLICIT_0, _oid("1.2.840.113549.1.5.12"), derivation),
        _algorithm("1.2.840.113549.1.9.16.3.9", cipher),
        _der(_OCTETS, wrapped),
    )


def _for_certificate(certificate: Certificate, key: bytes) -> bytes:
    """KeyTransRecipientInfo, by issuer and serial number."""
    public_key = certificate.public_key()
    assert isinstance(public_key, RSAPublicKey)
    return _der(
        _SEQUENCE,
        _integer(0),
        _der(_SEQUENCE, certificate.issuer.public_bytes(), _integer(certificate.serial_number)),
        _algorithm("1.2.840.113549.1.1.1", _NULL),
        _der(_OCTETS, public_key.encrypt(key, PKCS1v15())),
    )


def _enveloped_head(infos: bytes, vector: bytes, length: int) -> bytes:
    """ContentInfo with EnvelopedData up to its encrypted content of `length` bytes, the last thing in it. Version 3, as
    there is a password (RFC 5652 6.1).
    """
    algorithm = _algorithm("2.16.840.1.101.3.4.1.42", _der(_OCTETS, vector))
    content = _open(_SEQUENCE, _oid("1.2.840.113549.1.7.5") + algorithm + _open(_IMPLICIT_0, b"", length), length)
    enveloped = _open(_SEQUENCE, _integer(3) + _der(_SET, infos) + content, length)
    return _open(_SEQUENCE, _oid("1.2.840.113549.1.7.3") + _open(_EXPLICIT_0, enveloped, length), length)


def _digested_head(size: int) -> bytes:
    """DigestedData up to its content of `size` bytes, which is data."""
    data = _open(_EXPLICIT_0, _open(_OCTETS, b"", size), size)
    encapsulated = _open(_SEQUENCE, _oid("1.2.840.113549.1.7.1") + data, size)
    return _open(
        _SEQUENCE,
        _integer(0) + _algorithm("2.16.840.1.101.3.4.2.1") + encapsulated,
        size + len(_digested_tail(bytes(32))),
    )


def _digested_tail(digest: bytes) -> bytes:
    return _der(_OCTETS, digest)


def _padded(length: int) -> int:
    """RFC 5652 6.3."""
    return length - length % _BLOCK_BYTES + _BLOCK_BYTES


def _algorithm(oid: str, parameters: bytes = b"") -> bytes:
    return _der(_SEQUENCE, _oid(oid), parameters)


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    content = b""
    for number in (40 * first + second, *rest):
        digits = bytes([number & 0x7F])
        while number := number >> 7:
            digits = bytes([0x80 | number & 0x7F]) + digits
        content += digits
    return _der(_OID, content)


def _integer(number: int) -> bytes:
    return _der(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _der(tag: int, *parts: bytes) -> bytes:
    return _open(tag, b"".join(parts), 0)


def _open(tag: int, begin: bytes, rest: int) -> bytes:
    """The beginning of a value (X.690 8.1) that goes on for `rest` bytes behind it."""
    length = len(begin) + rest
    if length < 0x80:
        return bytes([tag, length]) + begin
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + begin

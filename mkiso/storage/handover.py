"""A disc's password on its way from the job that made it to who asked for the disc, and to nobody else.

Who asks is given a claim. The job is given what can be sealed with it, and leaves the sealed password beside its
report; with the claim it is opened, once (docs/decisions/encryption.md).
"""

from __future__ import annotations

import base64
import re

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from mkiso.config.storage import Storage
from mkiso.errors import PasswordGone, WrongClaim
from mkiso.storage.files import Unreadable, read_whole
from mkiso.storage.report_files import SEALED, file_of, write_file

CLAIM_PATTERN = "^[A-Za-z0-9_-]{43}$"
"""Of a claim, and of what is made from it to seal with: 32 bytes in base64url."""
_CLAIM = re.compile(CLAIM_PATTERN)
_SEAL = {"alg": "ECDH-ES", "enc": "A256GCM"}  # RFC 7516, RFC 7518 4.6, RFC 8037


def new_claim() -> str:
    """A claim: an X25519 private key. It is told to who asked, and kept nowhere."""
    return _text(X25519PrivateKey.generate().private_bytes_raw())


def seal_of(claim: str) -> str:
    """What belongs to a claim and tells nothing of it: its public key. Raises WrongClaim."""
    try:
        key = X25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(f"{claim}="))
    except ValueError:
        raise _wrong() from None
    return _text(key.public_key().public_bytes_raw())


def hand_over(storage: Storage, job_id: str, seal: str, password: str) -> None:
    """Leave a password beside a job's report, sealed."""
    key = OKPKey.import_key({"kty": "OKP", "crv": "X25519", "x": seal})
    sealed = jwe.encrypt_compact(_SEAL, password.encode(), key)
    write_file(storage, job_id, SEALED, sealed, durable=True)


def claimed(storage: Storage, job_id: str, claim: str) -> str:
    """The password that a job has left for this claim; it stays there until it is `taken`. Raises WrongClaim,
    PasswordGone, StorageUnreadable.
    """
    if not _CLAIM.fullmatch(claim):
        raise _wrong()
    try:
        sealed = read_whole(file_of(storage, job_id, SEALED))
    except FileNotFoundError:
        raise _gone() from None
    except Unreadable as error:
        error.refuse_if_there("The password")
        raise _gone() from None
    try:
        key = OKPKey.import_key({"kty": "OKP", "crv": "X25519", "x": seal_of(claim), "d": claim})
        opened = jwe.decrypt_compact(sealed, key, algorithms=[*_SEAL.values()]).plaintext or b""
    except (JoseError, ValueError):
        raise _wrong() from None
    return opened.decode()


def taken(storage: Storage, job_id: str) -> None:
    """From now on nobody is told the password. Raises PasswordGone where somebody was told it meanwhile."""
    try:
        file_of(storage, job_id, SEALED).unlink()
    except FileNotFoundError:
        raise _gone() from None


def _text(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


def _wrong() -> WrongClaim:
    return WrongClaim("This isn't the claim that was told with the job: its password is told to nobody else.")


def _gone() -> PasswordGone:
    return PasswordGone("The password was told already, and is kept nowhere. Ask for another disc if it is lost.")

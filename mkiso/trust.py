"""Whose certificates are trusted where mkiso connects by TLS."""

from __future__ import annotations

import ssl
from pathlib import Path


def trusting(authority: Path | str | None = None) -> ssl.SSLContext:
    """Trust for what this authority (PEM) has signed, where None: for what the system trusts; names are compared.

    Python 3.13 also refuses certificates that don't follow RFC 5280 in every form (VERIFY_X509_STRICT), such as those
    of many hospitals' own authorities, which name no Authority Key Identifier. Whether they are trusted must not depend
    on the Python. Raises OSError, ssl.SSLError.
    """
    context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def why_unusable(error: OSError, **files: Path | str | None) -> str:
    """Why TLS can't use these files, in words with their names, where OpenSSL's own say little. RFC 7468 is PEM."""
    wrong = []
    for name, file in files.items():
        if file is None:
            continue
        try:
            if b"-----BEGIN " not in Path(file).read_bytes():
                wrong.append(f"{name} {file} is no PEM file, which has -----BEGIN in it")
        except OSError as unread:
            wrong.append(f"{name} {file} can't be read ({unread.strerror})")
    if not wrong and getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
        return "the key is of another certificate"
    return "; ".join(wrong) or str(error.strerror or error)


def why_unreachable(error: BaseException) -> str:
    """Why nobody is reached, in words; the class's name, where its causes tell no more."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.strerror):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate isn't trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS fails: {cause.reason}"
    return cause.strerror or "" if isinstance(cause, OSError) else type(error).__name__


def is_plain(url: str) -> bool:
    """Whether an address is of HTTP without TLS, so that there is nobody to trust; schemes have no case (RFC 3986
    3.1).
    """
    return url.lower().startswith("http:")

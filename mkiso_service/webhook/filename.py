"""Content-Disposition for names in any script: a safe ASCII `filename` for old clients and `filename*` for the others
(RFC 6266, RFC 8187).
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

from mkiso.formats.registry import FORMATS, ISO
from mkiso.storage.report import JobReport
from mkiso.storage.shelf import Manifest

_ATTR_CHAR = "!#$&+-.^_`|~"  # RFC 8187 3.2.1, besides letters and digits
_MAX_LENGTH = 120
MAX_NAME = 1000
"""What is read of a name: normalizing takes quadratic time for some."""


def content_disposition(name: str, suffix: str = ISO.suffix) -> str:
    """The header's value for a file of this name; whatever could be a path, a quote, a line break or a hidden file is
    replaced.
    """
    safe = _safe(name, suffix)
    ascii_name = re.sub(
        r"[^A-Za-z0-9._-]+", "_", unicodedata.normalize("NFKD", safe).encode("ascii", "ignore").decode()
    ).strip("._")
    if not re.search(r"[A-Za-z0-9]", ascii_name.removesuffix(suffix).removesuffix(suffix[1:])):
        ascii_name = f"disc{suffix}"
    return f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(safe, safe=_ATTR_CHAR)}"


def name_of(report: JobReport, manifest: Manifest) -> str:
    """What a disc is saved as: its accession number, or, for several, what the manifest says (the patient's name).

    In a set n of N and the beginning of the set's id, so that anybody sees which discs belong together.
    """
    suffix = FORMATS[manifest.format].suffix
    stem = report.accession_numbers[0] if len(report.accession_numbers) == 1 else manifest.filename.removesuffix(suffix)
    part = f"-{manifest.number}of{manifest.total}-{short(manifest.set_id)}" if manifest.total > 1 else ""
    return f"{stem}{part}{suffix}"


def short(set_id: str) -> str:
    """A set's id as people see it."""
    return set_id[:8]


def _safe(name: str, suffix: str) -> str:
    stem = name[:MAX_NAME].removesuffix(suffix)
    printable = "".join(
        "_" if unicodedata.category(mark)[0] in "CZ" and mark != " " else mark
        for mark in unicodedata.normalize("NFC", stem)
    )
    cleaned = re.sub(r"_{2,}", "_", re.sub(r'[/\\:*?"<>|%;]', "_", printable)).strip(" ._")
    return f"{cleaned[:_MAX_LENGTH] or 'disc'}{suffix}"

"""What is counted before it has come, in words: its modalities alone tell images from reports."""

from __future__ import annotations

from collections.abc import Collection

REPORTS = frozenset({"SR", "DOC"})  # PS3.3 C.7.3.1.1.1


def counted(number: int, modalities: Collection[str], of: int | None = None) -> str:
    """Instances of these modalities: 412 images, 1 report, 3 of 413 images and reports."""
    reports = REPORTS & set(modalities)
    what = "image"
    if reports:
        what = "report" if reports == set(modalities) else "images and reports"
    total = number if of is None else of
    plural = "" if total == 1 or what.endswith("s") else "s"
    return f"{number if of is None else f'{number} of {of}'} {what}{plural}"

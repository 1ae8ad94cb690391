"""How long ago something was, and what is counted before it has come, in words: its modalities alone tell images from
reports and other objects.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from mkiso.languages import SOURCE, Language, language

REPORTS = frozenset({"SR", "DOC"})  # PS3.3 C.7.3.1.1.1
OTHERS = frozenset(
    {"AU", "ECG", "EEG", "EMG", "EOG", "EPS", "FID", "HD", "KO", "PR", "REG", "RESP", "RTPLAN", "RTRECORD", "RTSTRUCT"}
)
"""Modalities of which nothing is an image or a report."""


def minutes_since(seconds: float) -> int:
    """Whole minutes since a time in seconds since 1970; 0 also for what another machine's clock takes for later than
    now.
    """
    return max(0, int((time.time() - seconds) // 60))


def ago(minutes: int, spoken: Language) -> str:
    """How long ago, in words: 25 minutes ago. As the counter page's script has it."""
    if minutes < 1:
        return spoken.gettext("less than a minute ago")
    if minutes < 120:
        return spoken.ngettext("%(number)s minute ago", "%(number)s minutes ago", minutes)
    if minutes < 2880:
        return spoken.ngettext("%(number)s hour ago", "%(number)s hours ago", round(minutes / 60))
    return spoken.ngettext("%(number)s day ago", "%(number)s days ago", round(minutes / 1440))


def counted(number: int, modalities: Collection[str], of: int | None = None, spoken: Language | None = None) -> str:
    """Instances of these modalities: 412 images, 1 report, 2 objects, 3 of 413 images and reports. In English, or as
    `spoken`.
    """
    spoken = spoken or language(SOURCE)
    total = number if of is None else of
    reports, others = REPORTS & set(modalities), OTHERS & set(modalities)
    if others and others | reports == set(modalities):
        things = spoken.ngettext("%(number)s object", "%(number)s objects", total)
    elif not reports:
        things = spoken.ngettext("%(number)s image", "%(number)s images", total)
    elif reports == set(modalities):
        things = spoken.ngettext("%(number)s report", "%(number)s reports", total)
    elif total == 1:
        things = spoken.gettext("1 image or report")
    else:
        things = spoken.gettext("%(number)s images and reports", number=spoken.number(total))
    if of is None:
        return things
    return spoken.gettext("%(number)s of %(things)s", number=spoken.number(number), things=things)

"""PyAV, which decodes videos, is there where mkiso is installed with its extra `video`."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

HOW_TO_GET_IT = (
    "Install '.[video]' from mkiso's clone by pip, and restart it, to have pictures of videos (docs/operating.md)."
)


def is_installed() -> bool:
    """Whether videos can be decoded here."""
    return find_spec("av") is not None


def in_words() -> str:
    """For an administrator: whether videos become pictures, and where not, what to install."""
    return f"become pictures, by PyAV {version('av')}" if is_installed() else f"get no pictures. {HOW_TO_GET_IT}"

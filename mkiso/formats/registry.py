"""The formats that there are, by name."""

from __future__ import annotations

from collections.abc import Mapping

from mkiso.formats.iso import Iso
from mkiso.formats.protocol import Format

ISO: Format = Iso()
FORMATS: Mapping[str, Format] = {each.name: each for each in (ISO,)}

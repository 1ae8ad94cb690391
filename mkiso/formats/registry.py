"""The formats that there are, by name."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mkiso.formats.iso import Iso
from mkiso.formats.protocol import HEAD_BYTES, Format
from mkiso.formats.usb import Usb
from mkiso.formats.zip_file import Zip

ISO: Format = Iso()
"""What robots and the archive take, and who asks for no format."""
_ALL: tuple[Format, ...] = (ISO, Zip(), Usb())
FORMATS: Mapping[str, Format] = {each.name: each for each in _ALL}


def format_of(descriptor: int) -> Format:
    """The format that an open image or device claims to be of; ISO, which says what is wrong, where it claims none."""
    head = os.pread(descriptor, HEAD_BYTES, 0)
    return next((form for form in FORMATS.values() if form.recognises(head)), ISO)

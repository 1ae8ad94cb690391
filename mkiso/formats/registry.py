"""The formats that there are, by name."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mkiso.config.section import Encryption
from mkiso.errors import EncryptionRequired
from mkiso.formats.cms import Cms
from mkiso.formats.iso import Iso
from mkiso.formats.protocol import HEAD_BYTES, Format
from mkiso.formats.usb import Usb
from mkiso.formats.zip_encrypted import ZipEncrypted
from mkiso.formats.zip_file import Zip

ISO: Format = Iso()
"""What robots and the archive take, and who asks for no format."""
_LOCKED = ZipEncrypted()
_ALL: tuple[Format, ...] = (ISO, Zip(), _LOCKED, Usb(), Cms(ISO), Cms(Zip()), Cms(Usb()))
FORMATS: Mapping[str, Format] = {each.name: each for each in _ALL}


def require_allowed(form: Format, encryption: Encryption, *, is_printed: bool = False) -> None:
    """Raise EncryptionRequired where a site doesn't hand this out, by its disc.encryption. What a robot writes is open;
    the archive stays in the house and isn't asked about.
    """
    if form.is_encrypted or encryption == "allowed":
        return
    if not is_printed:
        raise EncryptionRequired(
            f"This site hands out encrypted files only (disc.encryption): ask for the format {_LOCKED.name}."
        )
    if encryption == "required":
        raise EncryptionRequired(
            "This site prints no discs, since anybody could read them (disc.encryption): ask for a file of the format "
            f"{_LOCKED.name}."
        )


def claimed_format(descriptor: int) -> Format | None:
    """The format that an open image or device claims to be of."""
    head = os.pread(descriptor, HEAD_BYTES, 0)
    return next((form for form in FORMATS.values() if form.recognises(head)), None)


def format_of(descriptor: int) -> Format:
    """As `claimed_format`; ISO, which says what is wrong, where it claims none."""
    return claimed_format(descriptor) or ISO

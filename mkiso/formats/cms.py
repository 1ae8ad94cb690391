"""A format of which the DICOM files are encrypted, each by itself, as DICOM's own media security has it (PS3.15 D.1):
laid out in envelopes (mkiso.media.envelopes), in whatever container.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from mkiso.errors import ProofFailed
from mkiso.formats.envelope_reader import Opener, with_envelopes
from mkiso.formats.protocol import Contents, Format
from mkiso.languages import N_
from mkiso.media.layout import Layout
from mkiso.study.models import DiscFile

TITLES = {
    "iso": N_("A file to burn onto a disc, of encrypted DICOM files, for DICOM programs alone"),
    "zip": N_("A ZIP file of encrypted DICOM files, for DICOM programs alone"),
    "usb": N_("A USB stick image of encrypted DICOM files, for DICOM programs alone"),
}


class Cms(Format):
    """A container of encrypted DICOM files. Nothing recognises it from outside: its DICOMDIR says what it is."""

    is_encrypted = True
    has_envelopes = True

    def __init__(self, container: Format, opener: Opener = Opener()) -> None:  # noqa: B008  it opens nothing
        self._container, self._opener = container, opener
        self.name, self.title = f"{container.name}-cms", TITLES[container.name]
        self.suffix, self.media_type = container.suffix, container.media_type
        self.carrier, self.checks = container.carrier, container.checks

    def opened(self, password: str) -> Cms:
        return Cms(self._container, Opener(password))

    def size(self, disc: Layout) -> int:
        return self._container.size(disc)

    def write(self, disc: Layout, target: Path) -> None:
        bare = [file.path for file in disc.files if file.path.parts[0] in ("DICOM", "DICOMDIR") and not file.inside]
        if bare or not any(file.inside for file in disc.files):
            raise ProofFailed(
                "The DICOM files of the disc aren't encrypted: nothing was made. Tell the administrator of mkiso."
            )
        self._container.write(disc, target)

    def recognises(self, head: bytes) -> bool:
        return False

    def read(self, descriptor: int) -> Contents:
        contents, findings = with_envelopes(self._container.read(descriptor), descriptor, self._opener)
        if findings:
            raise ProofFailed(f"{findings[0]} The image is not used.")
        return contents

    def faults(self, contents: Contents) -> Iterator[str]:
        return self._container.faults(contents)

    def paths(self, file: DiscFile) -> Mapping[str, PurePosixPath]:
        return self._container.paths(file)

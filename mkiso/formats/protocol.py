"""What every format is to mkiso: a writer of a laid-out disc, and a reader that knows nothing of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mkiso.config.section import Carrier
from mkiso.errors import ProofFailed
from mkiso.formats.ae2 import Lock
from mkiso.media.layout import Layout
from mkiso.study.models import DiscFile

if TYPE_CHECKING:
    from mkiso.formats.envelope_reader import Envelope

HEAD_BYTES = 40 * 1024
"""Of an image, by which its format is recognised."""


class PasswordNeeded(ProofFailed):
    """What is read is encrypted, and its password isn't given or isn't the right one."""


class Extent(NamedTuple):
    """Where a file's bytes lie in an image: the first byte's place and their number."""

    start: int
    size: int


def read_extent(descriptor: int, extent: Extent) -> bytes:
    """A file's bytes. Raises ProofFailed where the image ends before they do."""
    data = os.pread(descriptor, extent.size, extent.start)
    if len(data) != extent.size:
        raise ProofFailed(f"The image is cut short: byte {extent.start} and what follows can't be read.")
    return data


Tree = Mapping[PurePosixPath, Extent]


@dataclass(frozen=True, slots=True)
class Contents:
    """What an image was found to hold: its label, its size in bytes by its own words, and each of its trees by name.

    An image has several trees where systems may show its files in several ways, as ISO 9660 and Joliet do. `crc32` is
    what it says of its files' bytes, where its format does. `locks` open the files that are encrypted: their places are
    those of as many encrypted bytes. `envelopes` are the encrypted DICOM files that were opened
    (mkiso.formats.envelope_reader): a place is that of the whole envelope.
    """

    label: str
    size: int
    trees: Mapping[str, Tree]
    crc32: Mapping[Extent, int] = field(default_factory=dict)
    locks: Mapping[Extent, Lock] = field(default_factory=dict)
    envelopes: Mapping[Extent, Envelope] = field(default_factory=dict)

    @property
    def files(self) -> Tree:
        """The first tree, which the standard's own names stand in."""
        return next(iter(self.trees.values()))

    @property
    def shown(self) -> Tree:
        """The last tree, under whose names today's systems show the files."""
        return list(self.trees.values())[-1]

    def size_of(self, extent: Extent) -> int:
        """The bytes of a file, without its envelope."""
        envelope = self.envelopes.get(extent)
        return envelope.size if envelope else extent.size

    def read(self, descriptor: int, extent: Extent, at: int = 0, size: int | None = None) -> bytes:
        """A file's bytes, out of its envelope: all, or `size` of them from `at`, as far as they go. Raises ProofFailed
        where the image ends before they do.
        """
        if (envelope := self.envelopes.get(extent)) is None:
            return self.stored(descriptor, extent, at, size)
        wanted = envelope.size if size is None else size
        return envelope.read(lambda begin, count: self.stored(descriptor, extent, begin, count), at, wanted)

    def stored(self, descriptor: int, extent: Extent, at: int = 0, size: int | None = None) -> bytes:
        """As `read`, with the envelope."""
        left = max(extent.size - at, 0)
        data = read_extent(descriptor, Extent(extent.start + at, left if size is None else min(size, left)))
        lock = self.locks.get(extent)
        return lock.decrypted(data, at) if lock else data


class Format(Protocol):
    """One way to hand out a disc. The same layout gives the same bytes."""

    name: str
    suffix: str
    """Of a file's name, with its dot."""
    media_type: str
    title: str
    """What it is for a person, a message of mkiso.languages."""
    carrier: Carrier | None = None
    """What it is laid out for; None: the disc that it is written to."""
    is_encrypted: bool = False
    """Whether only a password opens it. Such a format has to be given one before it writes or reads, by `opened`, and
    gives other bytes each time.
    """
    has_envelopes: bool = False
    """Whether the DICOM files have to be laid out in envelopes (mkiso.media.envelopes)."""
    checks: tuple[str, str]
    """What `read` has checked, and what `faults` looks for, in words."""

    def opened(self, password: str) -> Format:
        """This format with a password; itself where it takes none."""
        return self

    def size(self, disc: Layout) -> int:
        """The exact size in bytes of what `write` makes, before anything is written."""
        ...

    def write(self, disc: Layout, target: Path) -> None:
        """Write the image; it appears at `target` whole or not at all, mode 0600."""
        ...

    def recognises(self, head: bytes) -> bool:
        """Whether something that begins with these HEAD_BYTES bytes, or all that it has, claims to be one of these."""
        ...

    def read(self, descriptor: int) -> Contents:
        """What an open image holds, bounded against whatever it may say of itself. Raises ProofFailed."""
        ...

    def faults(self, contents: Contents) -> Iterator[str]:
        """What a sound patient disc of this format hasn't, in sentences."""
        yield from ()

    def paths(self, file: DiscFile) -> Mapping[str, PurePosixPath]:
        """Where a file of the layout stands in each tree."""
        ...

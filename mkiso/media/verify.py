"""Reading an image back: every file's SHA-256 against what was received or made, both ways, in both trees, before a
byte of it leaves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mkiso.errors import ProofFailed
from mkiso.media.disc_check import DiscReport, check_disc
from mkiso.media.image_hash import hash_extents
from mkiso.media.iso_reader import SECTOR_BYTES, Extent, read_image
from mkiso.study.models import DiscFile

_NAMED = 5  # how many differing files the words of an error name


@dataclass(frozen=True, slots=True)
class ImageProof:
    """What was proved: the image's SHA-256 and size in bytes, how many files were compared; its marks
    (mkiso.storage.marks).
    """

    sha256: str
    size: int
    files: int
    marks: bytes


def verify_image(iso: Path, files: Collection[DiscFile]) -> ImageProof:
    """Prove that an image holds exactly these files, byte for byte, in the ISO 9660 and in the Joliet tree.

    One pass over the image. Raises ProofFailed, which names what is missing, unexpected or different.
    """
    descriptor = os.open(iso, os.O_RDONLY)
    try:
        image = read_image(descriptor)
        size = os.fstat(descriptor).st_size
        if size != image.sectors * SECTOR_BYTES:
            raise ProofFailed(f"The image has {size} bytes and says that it has {image.sectors * SECTOR_BYTES}.")
        _same_names({file.path for file in files}, image.primary, "ISO 9660")
        _same_names({file.joliet_path or file.path for file in files}, image.joliet, "Joliet")
        differing = [
            file.path for file in files if image.primary[file.path] != image.joliet[file.joliet_path or file.path]
        ]
        differing += [file.path for file in files if image.primary[file.path].size != file.size]
        if not differing:
            hashes = hash_extents(descriptor, image)
            differing = [file.path for file in files if hashes.files[image.primary[file.path]] != file.sha256]
    finally:
        os.close(descriptor)
    if differing:
        raise ProofFailed(
            f"{len(differing)} file(s) of the image are not what was received or made: {_listed(differing)}. The "
            "image is not used."
        )
    return ImageProof(hashes.sha256, size, len(files), hashes.marks)


def verify_disc(
    disc: Path, *, one_patient: bool = True, progress: Callable[[int, int], None] | None = None
) -> DiscReport:
    """Prove a disc by what is on it (mkiso.media.disc_check), without a manifest: an image, or a device.

    Raises ProofFailed, whose `findings` are all that is wrong, and OSError where `disc` can't be opened.
    """
    report = check_disc(disc, one_patient=one_patient, progress=progress)
    if not report.sound:
        more = f" And {len(report.findings) - _NAMED} more." if len(report.findings) > _NAMED else ""
        raise ProofFailed(
            f"The disc is not sound. {' '.join(report.findings[:_NAMED])}{more}", findings=list(report.findings)
        )
    return report


def _same_names(expected: set[PurePosixPath], found: Mapping[PurePosixPath, Extent], tree: str) -> None:
    missing, unexpected = expected - found.keys(), found.keys() - expected
    if missing or unexpected:
        raise ProofFailed(
            f"The image's {tree} tree "
            + " and ".join(
                [f"lacks {len(missing)} file(s): {_listed(missing)}"] * bool(missing)
                + [f"has {len(unexpected)} that nobody put there: {_listed(unexpected)}"] * bool(unexpected)
            )
            + ". The image is not used."
        )


def _listed(paths: Collection[PurePosixPath]) -> str:
    named = ", ".join(str(path) for path in sorted(set(paths))[:_NAMED])
    return f"{named} …" if len(paths) > _NAMED else named

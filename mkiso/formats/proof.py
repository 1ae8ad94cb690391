"""Reading an image back: every file's SHA-256 against what was received or made, both ways, in each of its trees,
before a byte of it leaves.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from mkiso.errors import ProofFailed
from mkiso.formats.image_hash import hash_extents
from mkiso.formats.protocol import Extent, Format, Tree
from mkiso.storage.files import descriptor_of
from mkiso.study.models import DiscFile, count_words

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


def verify_image(image: Path, files: Collection[DiscFile], form: Format) -> ImageProof:
    """Prove that an image holds exactly these files, byte for byte, in each of its trees.

    One pass over the image. Raises ProofFailed, which names what is missing, unexpected or different.
    """
    with descriptor_of(image) as descriptor:
        contents = form.read(descriptor)
        size = os.fstat(descriptor).st_size
        if size != contents.size:
            raise ProofFailed(f"The image has {size} bytes and says that it has {contents.size}.")
        places = [_places(files, name, tree, form) for name, tree in contents.trees.items()]
        found = list(zip(files, *places, strict=True))
        contents = replace(contents, trees={"": contents.files})  # of 8,000 images the others take 10 MB
        differing = [str(file.path) for file, *extents in found if {extent.size for extent in extents} != {file.size}]
        differing += [str(file.path) for file, *extents in found if len(set(extents)) > 1]
        if not differing:
            hashes = hash_extents(descriptor, contents)
            differing = [
                str(file.path)
                for file, extent, *_ in found
                if hashes.files[extent] != file.sha256
                or extent in hashes.wrong
                or (file.inside.sha256 if file.inside else None) != hashes.inside.get(extent)
            ]
    if differing:
        raise ProofFailed(
            f"{count_words(len(differing), 'file of the image is', 'files of the image are')} not what was received or "
            f"made: {_listed(differing)}. The image is not used."
        )
    return ImageProof(hashes.sha256, size, len(files), hashes.marks)


def _places(files: Collection[DiscFile], name: str, tree: Tree, form: Format) -> list[Extent]:
    """Where the files lie by one tree, which has exactly these. Raises ProofFailed."""
    expected = [form.paths(file)[name] for file in files]
    missing, unexpected = set(expected) - tree.keys(), tree.keys() - set(expected)
    if missing or unexpected:
        raise ProofFailed(
            f"The image's {name} tree "
            + " and ".join(
                [f"lacks {count_words(len(missing), 'file')}: {_listed(missing)}"] * bool(missing)
                + [f"has {len(unexpected)} that nobody put there: {_listed(unexpected)}"] * bool(unexpected)
            )
            + ". The image is not used."
        )
    return [tree[path] for path in expected]


def _listed(paths: Collection[object]) -> str:
    named = ", ".join(sorted(set(map(str, paths)))[:_NAMED])
    return f"{named} …" if len(paths) > _NAMED else named

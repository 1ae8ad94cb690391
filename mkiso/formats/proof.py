"""Reading an image back: every file's SHA-256 against what was received or made, both ways, in each of its trees,
before a byte of it leaves.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mkiso.errors import ProofFailed
from mkiso.formats.image_hash import hash_extents
from mkiso.formats.protocol import Extent, Format
from mkiso.storage.files import descriptor_of
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


def verify_image(image: Path, files: Collection[DiscFile], form: Format) -> ImageProof:
    """Prove that an image holds exactly these files, byte for byte, in each of its trees.

    One pass over the image. Raises ProofFailed, which names what is missing, unexpected or different.
    """
    with descriptor_of(image) as descriptor:
        contents = form.read(descriptor)
        size = os.fstat(descriptor).st_size
        if size != contents.size:
            raise ProofFailed(f"The image has {size} bytes and says that it has {contents.size}.")
        places = [(file, form.paths(file)) for file in files]
        trees = {name: {str(path): extent for path, extent in tree.items()} for name, tree in contents.trees.items()}
        names = {tree: [str(paths[tree]) for _, paths in places] for tree in trees}
        for name, tree in trees.items():
            _same_names(set(names[name]), tree, name)
        extents_of = zip(*([tree[path] for path in names[name]] for name, tree in trees.items()), strict=True)
        found = [(file, set(extents)) for (file, _), extents in zip(places, extents_of, strict=True)]
        differing = [str(file.path) for file, extents in found if {extent.size for extent in extents} != {file.size}]
        differing += [str(file.path) for file, extents in found if len(extents) > 1]
        if not differing:
            hashes = hash_extents(descriptor, contents)
            differing = [
                str(file.path)
                for file, [extent] in found
                if hashes.files[extent] != file.sha256
                or extent in hashes.wrong
                or (file.inside.sha256 if file.inside else None) != hashes.inside.get(extent)
            ]
    if differing:
        raise ProofFailed(
            f"{len(differing)} file(s) of the image are not what was received or made: {_listed(differing)}. The image "
            "is not used."
        )
    return ImageProof(hashes.sha256, size, len(files), hashes.marks)


def _same_names(expected: set[str], found: Mapping[str, Extent], tree: str) -> None:
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


def _listed(paths: Collection[str]) -> str:
    named = ", ".join(sorted(set(paths))[:_NAMED])
    return f"{named} …" if len(paths) > _NAMED else named

"""Names on a disc: File IDs, file-set IDs, 8.3 names for viewer files, and the name under which a browser saves an
image.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from mkiso.errors import ConfigurationError
from mkiso.study.models import Volume
from mkiso.study.writing import without_accents

MAX_PARTS = 7  # of a path: Ecma-119 6.8.2.1 has eight levels, the root being one; pycdlib counts a file as one, too
MAX_JOLIET_BYTES = 64  # of a name in UTF-8: Joliet has 64 characters, and pycdlib counts these
HOWTO = (PurePosixPath("OPEN_ZIP.TXT"), PurePosixPath("OPEN_ZIP.HTM"))
"""What says in an encrypted file how to open it; nothing else in it isn't encrypted."""
PART = "-selected"
"""At the end of a file's name where the disc doesn't hold whole studies."""
_PART = "_SEL"
FILE_SET_ID_CHARACTERS = 16  # PS3.10 8.1
_FILE_SET_ID = re.compile(r"[A-Z0-9_]{1,16}")
_FILE_ID_COMPONENTS = 8  # PS3.10 8.2
_COMPONENT = re.compile(r"[A-Z0-9_]{1,8}")
_OUTSIDE_D_CHARACTERS = re.compile(r"[^A-Z0-9_]+")
_FORBIDDEN_IN_JOLIET = re.compile(r"[\x00-\x1f*/:;?\\\x7f]")
_BEYOND_UCS_2 = re.compile(r"[\U00010000-\U0010ffff\ud800-\udfff]")


def component(prefix: str, number: int) -> str:
    """One component of a File ID: two letters and six digits, at most 8 characters (PS3.10 8.2)."""
    if not 1 <= number <= 999_999:
        raise ValueError(f"{prefix}{number} is more than a component of a File ID can count")
    return f"{prefix}{number:06d}"


def file_set_id(base: str, volume: Volume = Volume(), *, is_part: bool = False) -> str:  # noqa: B008  frozen
    """A file-set ID, which is also the volume identifier: at most 16 of `A-Z 0-9 _` (PS3.10 8.1, 8.5, Ecma-119 8.4.6).

    Of several volumes each has its number at the end, of one width, so that labels sort. `is_part`: of selected series
    or studies, which it says before that.
    """
    suffix = set_suffix(volume, is_part=is_part)
    kept = d_characters(base)[: FILE_SET_ID_CHARACTERS - len(suffix)].rstrip("_") or "MKISO"
    return kept + suffix


def set_suffix(volume: Volume, *, is_part: bool) -> str:
    """What a file-set ID says of its disc at its end."""
    number = f"_{volume.number:0{len(str(volume.total))}d}OF{volume.total}" if volume.total > 1 else ""
    return _PART * is_part + number


def is_file_set_id(text: str) -> bool:
    """PS3.10 8.1, 8.5."""
    return _FILE_SET_ID.fullmatch(text) is not None


def is_file_id(path: PurePosixPath) -> bool:
    """Whether a file may be referenced by this path (PS3.10 8.2): at most eight components of eight characters."""
    return len(path.parts) <= _FILE_ID_COMPONENTS and all(map(_COMPONENT.fullmatch, path.parts))


def d_characters(text: str) -> str:
    """Text in the d-characters of ISO 9660 (Ecma-119 7.4.1): accents dropped, everything else as one underscore, none
    at the ends.
    """
    return _OUTSIDE_D_CHARACTERS.sub("_", without_accents(text).upper()).strip("_")


def told_by(name: str) -> str:
    """What systems tell a name by: names are one to Windows and macOS that differ in case, in how an accent is written,
    or in dots and spaces at the end.
    """
    return unicodedata.normalize("NFC", name).upper().casefold().rstrip(". ")


def path_told_by(path: PurePosixPath) -> tuple[str, ...]:
    """told_by, of each name on the way to a file."""
    return tuple(map(told_by, path.parts))


def short_names(
    paths: Iterable[PurePosixPath],
    place: PurePosixPath = PurePosixPath(),  # noqa: B008  immutable
) -> dict[PurePosixPath, PurePosixPath]:
    """For long paths their unique 8.3 upper-case paths, the same for the same set (Ecma-119 10.1: interchange level 1).

    A name that is 8.3 already keeps itself but for its case. `place` is the folder on the disc that they go into.
    Raises ConfigurationError for a path that Joliet can't hold or that is nested too deep there, and for two that are
    one to some systems.
    """
    paths = sorted(paths)
    shortened: dict[PurePosixPath, PurePosixPath] = {PurePosixPath("."): PurePosixPath(".")}
    taken: set[PurePosixPath] = set()
    told: dict[tuple[PurePosixPath, str], PurePosixPath] = {}
    directories = {parent for path in paths for parent in path.parents} - {PurePosixPath(".")}
    entries = sorted(directories | set(paths), key=lambda path: (len(path.parts), not _is_short(path.name), path))
    for path in entries:
        _holdable(path, place)
        if (other := told.setdefault((path.parent, told_by(path.name)), path)) != path:
            raise ConfigurationError(
                f"The viewer's {str(other)!r} and {str(path)!r} are one name to some systems, which would show one of "
                "them: rename one, or take it out of viewer.directory."
            )
        folder = shortened[path.parent]
        shortened[path] = next(
            name for name in _candidates(path, folder, directory=path in directories) if name not in taken
        )
        taken.add(shortened[path])
    return {path: shortened[path] for path in paths}


def filename(base: str) -> str:
    """A file name without a folder or control characters, fit for RFC 8187's `filename*`; never empty, never hidden, at
    most 120 characters.

    The caller adds the extension. `base` may be a patient's name in any script.
    """
    kept = "".join(
        " " if unicodedata.category(character)[0] in "CZ" or character in '/\\:*?"<>|^=' else character
        for character in base
    )
    return " ".join(kept.split()).strip(". ")[:120].strip(". ") or "disc"


def _candidates(path: PurePosixPath, folder: PurePosixPath, *, directory: bool) -> Iterable[PurePosixPath]:
    stem, extension = (path.name, "") if directory else (path.stem, path.suffix[1:])
    stem, extension = d_characters(stem) or "_", d_characters(extension)[:3]
    if _is_short(path.name):
        stem = path.stem.upper()
        extension = path.suffix[1:].upper()
    yield folder / _joined(stem[:8], extension)
    for number in range(1, 10_000_000):
        tail = f"_{number}"
        yield folder / _joined(stem[: 8 - len(tail)] + tail, extension)


def _joined(stem: str, extension: str) -> str:
    return f"{stem}.{extension}" if extension else stem


def _is_short(name: str) -> bool:
    return re.fullmatch(r"[A-Z0-9_]{1,8}(\.[A-Z0-9_]{1,3})?", name.upper()) is not None and name.isascii()


def _holdable(path: PurePosixPath, place: PurePosixPath) -> None:
    problem = ""
    if len(path.name.encode("utf-8", "surrogatepass")) > MAX_JOLIET_BYTES:
        problem = f"its name is longer than {MAX_JOLIET_BYTES} letters; one that isn't English counts as two or three"
    elif _FORBIDDEN_IN_JOLIET.search(path.name) or _BEYOND_UCS_2.search(path.name):
        problem = "its name has characters that a disc can't hold"
    elif len((place / path).parts) > MAX_PARTS:
        problem = f"it lies deeper than {MAX_PARTS - 1} folders"
    if problem:
        raise ConfigurationError(
            f"The viewer's file {str(path)!r} can't go onto a disc: {problem}. Rename it or take it out of "
            "viewer.directory."
        )

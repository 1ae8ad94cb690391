"""The viewer that goes onto a disc: an unpacked folder, its files under unique 8.3 names with their real names in
Joliet.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import TypeAdapter

from mkiso.config.disc import Viewer
from mkiso.errors import ConfigurationError
from mkiso.media.names import HOWTO, short_names, told_by
from mkiso.storage.files import find_json, sha256_of, write_whole
from mkiso.study.models import DiscFile

OWN_ROOT_NAMES = frozenset(
    {"DICOMDIR", "DICOM", "IHE_PDI", "REPORTS", "VIEW", "README.TXT", "INDEX.HTM", "AUTORUN.INF", "SHA256.TXT"}
) | frozenset(map(str, HOWTO))
_LEFT_OUT = frozenset({"AUTORUN.INF", "DICOMDIR"})  # a viewer's own would contradict the disc's


@dataclass(frozen=True, slots=True)
class BundledViewer:
    """The viewer's files on a disc and its executable there (Joliet path); none of either where no viewer is
    configured.
    """

    files: tuple[DiscFile, ...] = ()
    executable: PurePosixPath | None = None


def bundle_viewer(viewer: Viewer, hashes_file: Path) -> BundledViewer:
    """The configured viewer's files with their hashes.

    `hashes_file` remembers hashes from disc to disc, since a viewer of 100 MB isn't to be hashed for each; a file
    counts as unchanged while its size, inode and both times stay the same. Raises ConfigurationError where the folder
    is missing, names clash with the disc's own, or a link leads outside the folder.
    """
    if not viewer.directory:
        return BundledViewer()
    directory = Path(viewer.directory)
    if not directory.is_dir():
        raise ConfigurationError(
            f"The viewer's folder {directory} doesn't exist: unpack the portable viewer there or leave "
            "viewer.directory empty."
        )
    place = PurePosixPath() if viewer.place == "root" else PurePosixPath(viewer.place)
    inside = _files_below(directory)
    short = short_names(inside, place)
    paths = {path: place / name for path, name in short.items()}
    _refuse_clashes({name for path in inside for name in (paths[path].parts[0], (place / path).parts[0])})
    hashes = _hashes(inside, directory, hashes_file)
    files = tuple(
        DiscFile(paths[path], source.stat().st_size, hashes[path], source, joliet_path=place / path)
        for path, source in sorted(inside.items())
    )
    return BundledViewer(files, _executable(viewer, place, inside))


def _files_below(directory: Path) -> dict[PurePosixPath, Path]:
    """Every file of the folder by its path below it. Links are followed to files of the folder only."""
    root = directory.resolve()
    found: dict[PurePosixPath, Path] = {}
    for folder, folders, names in os.walk(directory, onerror=_unreadable):
        for name in (*names, *(name for name in folders if (Path(folder) / name).is_symlink())):
            source = Path(folder) / name
            path = PurePosixPath(source.relative_to(directory))
            target = source.resolve()
            if not target.is_relative_to(root) or not target.is_file():
                raise ConfigurationError(
                    f"The viewer's {str(path)!r} is no file of its folder: it can't go onto a disc. Replace it by a "
                    "file."
                )
            if not (len(path.parts) == 1 and name.upper() in _LEFT_OUT):
                found[path] = source
    return found


def _unreadable(error: OSError) -> None:
    raise ConfigurationError(f"The viewer's folder {error.filename} can't be read: {error.strerror}.")


def _refuse_clashes(root_names: set[str]) -> None:
    # IHE PDI: IHE* is reserved.
    own = set(map(told_by, OWN_ROOT_NAMES))
    clashes = sorted(name for name in root_names if told_by(name) in own or name.upper().startswith("IHE"))
    if clashes:
        raise ConfigurationError(
            f"The viewer would put {', '.join(clashes)} into the root, where a disc has its own: set viewer.place to "
            "a folder such as VIEWER."
        )


def _executable(viewer: Viewer, place: PurePosixPath, inside: Mapping[PurePosixPath, Path]) -> PurePosixPath | None:
    """The configured executable, else the only .exe that stands at the top of the folder."""
    if viewer.executable:
        executable = PurePosixPath(viewer.executable.replace("\\", "/"))
        if executable not in inside:
            raise ConfigurationError(
                f"viewer.executable is {viewer.executable!r}, and viewer.directory has no such file."
            )
        return place / executable
    programs = [path for path in inside if len(path.parts) == 1 and path.suffix.lower() == ".exe"]
    return place / programs[0] if len(programs) == 1 else None


def _hashes(inside: Mapping[PurePosixPath, Path], directory: Path, hashes_file: Path) -> dict[PurePosixPath, str]:
    remembered = find_json(hashes_file, TypeAdapter(dict[str, str])) or {}
    known: dict[str, str] = {}
    hashes: dict[PurePosixPath, str] = {}
    for path, source in inside.items():
        facts = source.stat()
        key = f"{directory / path} {facts.st_size} {facts.st_ino} {facts.st_mtime_ns} {facts.st_ctime_ns}"
        hashes[path] = known[key] = remembered.get(key) or sha256_of(source)
    if known != remembered:
        hashes_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(OSError):  # no disc is refused for what is only remembered
            write_whole(hashes_file, json.dumps(known))
    return hashes

"""A disk that is small, and full when a test wants it: a file system in memory, which only root may mount."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_AT_ONCE = bytes(1 << 16)


@contextmanager
def small_disk(folder: Path, *options: str) -> Iterator[Path]:
    """Mounted at a folder, with options of tmpfs(5) such as `size=1m` or `nr_inodes=30`."""
    folder.mkdir(parents=True, exist_ok=True)
    told = ",".join(("mode=700", *options))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", told, "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room that is left; without it there is room again."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(_AT_ONCE)
    return filler


def use_up_names(folder: Path) -> list[Path]:
    """Files that take every inode that is left."""
    made: list[Path] = []
    with suppress(OSError):
        while True:
            file = folder / f"name{len(made)}"
            file.touch(exist_ok=False)
            made.append(file)
    return made

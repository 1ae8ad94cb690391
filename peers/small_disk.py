"""File systems that a test mounts, which only root may: a small one in memory, full when the test wants it; one that
hangs, as a share does whose server is away.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from peers.patience import until

_AT_ONCE = bytes(1 << 16)
_READ_WITH_AN_ERROR = "/proc/self/mem"  # at its beginning, where nothing lies


def small_disk(folder: Path, *options: str) -> AbstractContextManager[Path]:
    """Mounted at a folder, with options of tmpfs(5) such as `size=1m` or `nr_inodes=30`."""
    return _mounted(folder, "-t", "tmpfs", "-o", ",".join(("mode=700", *options)), "tmpfs")


def mounted(image: Path, folder: Path) -> AbstractContextManager[Path]:
    """The file system in a file, at a folder."""
    return _mounted(folder, "-o", "loop", image)


@contextmanager
def _mounted(folder: Path, *what: str | Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *what, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


class Share:
    """A mounted folder. While it is `away` whatever touches it waits, until it is `back`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def away(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def back(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def share(folder: Path) -> Iterator[Share]:
    """A share, mounted at a folder."""
    if os.getuid() or not Path("/dev/fuse").exists():
        pytest.skip("no share can be mounted here (it takes root and FUSE)")
    behind = folder.with_name(f"{folder.name}-behind")
    for each in (folder, behind):
        each.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(["bindfs", "-f", behind, folder])
    try:
        until(lambda: os.path.ismount(folder) or process.poll() is not None)
        yield Share(process)
    finally:
        process.send_signal(signal.SIGCONT)
        subprocess.run(["umount", "--lazy", folder], check=True)
        process.wait()


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


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A file system that takes nothing for a while: EROFS, as the kernel makes one whose disk fails."""
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)


@contextmanager
def failing(file: Path) -> Iterator[None]:
    """A file that the system can't read for a while: EIO."""
    kept = file.rename(file.with_name(f"{file.name}.kept"))
    file.symlink_to(_READ_WITH_AN_ERROR)
    try:
        yield
    finally:
        kept.replace(file)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing more: EMFILE."""
    os.close(first := os.dup(0))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

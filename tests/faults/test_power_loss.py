"""A crash or a power cut while a disc is shelved leaves a whole disc or none (issue: Faults, item 5), and a disc that
was called finished is there.

A crash is a process that kills itself before each line of what it does in turn. A power cut is a copy of the block
device, taken at that moment: it has what has reached the disk and nothing else, and is mounted as it would be after the
cut.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import mkiso.storage.files
import mkiso.storage.report
import mkiso.storage.report_files
import mkiso.storage.shelf
from mkiso.config.storage import Storage
from mkiso.errors import JobNotFound
from mkiso.storage.marks import marks_of
from mkiso.storage.report import JobReport, read_report, write_report
from mkiso.storage.reread import read_whole
from mkiso.storage.shelf import Manifest, image_of, manifests, new_disc_id, remove_old, shelve
from peers.lines import at_each_line
from peers.small_disk import mounted

JOB = "019aca32-6c00-7000-8000-000000000000"  # UUIDv7: its report lies in the folder of a day
FORK = multiprocessing.get_context("fork")
CONTENT = b"\0" * 32768 + b"CD001" + os.urandom(300_000)
MARKS = marks_of(CONTENT)
WATCHED = {
    mkiso.storage.shelf.__file__,
    mkiso.storage.files.__file__,
    mkiso.storage.report.__file__,
    mkiso.storage.report_files.__file__,
    shutil.__file__,
}


def manifest_for(content: bytes) -> Manifest:
    sha256 = hashlib.sha256(content).hexdigest()
    return Manifest(
        new_disc_id(),
        new_disc_id(),
        "2024-02-29T10:00:00+00:00",
        "V",
        "x.iso",
        ("A1",),
        "f",
        len(content),
        sha256,
        1,
        "cd",
    )


def prepared(folder: Path) -> tuple[Storage, Path]:
    """A store with a disc on it, and a new image in a job's folder."""
    storage = Storage(data_dir=folder / "data", min_free_gib=0)
    image = storage.jobs_dir / "job" / "disc1.iso"
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(CONTENT)
    return storage, image


def whole_discs(storage: Storage) -> int:
    """How many discs are there; each must be whole, whatever happened."""
    found = manifests(storage)
    for manifest in found:
        content = image_of(storage, manifest).read_bytes()
        read_whole(storage, manifest)
        assert (len(content), hashlib.sha256(content).hexdigest()) == (manifest.size, manifest.sha256), (
            "a disc that isn't whole"
        )
    return len(found)


def told_of(storage: Storage) -> bool:
    """Whether the job's report says that it is done; it says so whole or not at all."""
    try:
        return read_report(storage, JOB).status == "done"
    except JobNotFound:
        return False


def killed_before_line(storage: Storage, image: Path, number: int) -> None:
    at_each_line(
        lambda: shelve(storage, image, manifest_for(CONTENT), MARKS),
        lambda line: os.kill(os.getpid(), signal.SIGKILL) if line == number else None,
        WATCHED,
    )


def test_a_crash_before_each_step_leaves_a_whole_disc_or_none(tmp_path: Path) -> None:
    outcomes: list[int] = []
    for number in range(1, 500):
        storage, image = prepared(tmp_path / str(number))
        child = FORK.Process(target=killed_before_line, args=(storage, image, number))
        child.start()
        child.join()
        outcomes.append(whole_discs(storage))
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(CONTENT)  # the rerun masters it anew
        shelve(storage, image, manifest_for(CONTENT), MARKS)
        assert whole_discs(storage) == outcomes[-1] + 1
        for leftover in storage.discs_dir.glob(".unfinished-*"):
            os.utime(leftover, (0, 0))
        remove_old(storage, 1_000_000)
        assert not list(storage.discs_dir.glob(".unfinished-*"))
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert number > 20 and outcomes == sorted(outcomes) and outcomes[0] == 0 and outcomes[-1] == 1


@pytest.mark.peer
def test_a_power_cut_before_each_step_leaves_a_whole_disc_or_none(tmp_path: Path) -> None:
    device, cuts = tmp_path / "device", tmp_path / "cuts"
    cuts.mkdir()
    with device.open("wb") as file:
        file.truncate(12 << 20)
    made = subprocess.run(["mkfs.ext4", "-q", "-O", "^resize_inode", device], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system can be made here: {made.stderr.strip()}")

    def cut_the_power(number: int | str) -> None:
        subprocess.run(["cp", "--sparse=always", device, cuts / str(number)], check=True)

    with mounted(device, tmp_path / "mount") as mount:
        storage, image = prepared(mount)
        image.unlink()
        os.sync()
        image.write_bytes(CONTENT)  # as mastering leaves it: nothing of it need have reached the disk

        def shelve_and_tell() -> None:
            disc = shelve(storage, image, manifest_for(CONTENT), MARKS)
            write_report(storage, JobReport(JOB, "download", ("A1",), status="done", disc_ids=(disc.disc_id,)))

        lines = at_each_line(shelve_and_tell, cut_the_power, WATCHED)
        cut_the_power("told")  # whoever called this has heard that it is done
    outcomes = []
    for cut in (*range(1, lines + 1), "told"):
        with mounted(cuts / str(cut), tmp_path / "after") as mount:
            after = Storage(data_dir=mount / "data")
            outcomes.append((whole_discs(after), told_of(after)))
    assert outcomes == sorted(outcomes) and outcomes[0] == (0, False) and outcomes[-1] == (1, True)

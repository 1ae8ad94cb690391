"""What is on a finished disc, read by tools that mkiso doesn't use."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from pydicom import dcmread

from peers.corpus import dataset_bytes


def extract(image: Path, folder: Path, password: str = "") -> Path:
    """Everything on the disc as 7z extracts it."""
    subprocess.run(["7z", "x", "-y", f"-p{password}", f"-o{folder}", image], check=True, capture_output=True)
    return folder


def opened_as_its_readme_says(folder: Path, password: str) -> Path:
    """A disc of encrypted DICOM files, opened by OpenSSL with the lines of its README.TXT; where they then lie."""
    text = (folder / "README.TXT").read_text("utf-8-sig")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    end = lines.index("rm inner") + 1  # the lines stand there once for each language
    script = "set -e\n" + "\n".join(lines[:end])
    subprocess.run(["sh", "-c", script], cwd=folder, input=f"{password}\n".encode(), check=True, capture_output=True)
    return folder / "OPENED"


def flip(file: Path, position: int) -> None:
    """Flip one bit in place."""
    with file.open("r+b", buffering=0) as opened:
        opened.seek(position)
        [byte] = opened.read(1)
        opened.seek(position)
        opened.write(bytes([byte ^ 0x10]))


def instances_on(folder: Path) -> dict[str, Path]:
    """Maps the SOP Instance UID of each DICOM file below DICOM/ to the file."""
    found: dict[str, Path] = {}
    for file in (folder / "DICOM").rglob("*"):
        if file.is_file():
            uid = str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
            assert uid not in found, f"{uid} is on the disc twice"
            found[uid] = file
    return found


def assert_holds_exactly(folder: Path, sources: Iterable[Path]) -> None:
    """The disc has each of these instances, byte for byte, and no other."""
    expected = {str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID): file for file in sources}
    found = instances_on(folder)
    assert found.keys() == expected.keys()
    for uid, file in found.items():
        assert dataset_bytes(file) == dataset_bytes(expected[uid]), f"{uid} differs from its source"
        assert file.read_bytes()[:128] == bytes(128)


def judge(image: Path, folder: Path) -> None:
    """Every tool that judges a disc (shared standards): each must be content."""
    listing = subprocess.run(
        ["isoinfo", "-R", "-J", "-l", "-i", image], check=True, capture_output=True, text=True
    ).stdout
    assert "DICOMDIR" in listing
    commands: list[list[str | Path]] = [
        ["xorriso", "-indev", image, "-find"],
        ["7z", "t", image],
        ["dcmdump", "-q", folder / "DICOMDIR"],
    ]
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    for program in ("dcdirdmp", "dciodvfy"):
        judged = subprocess.run([program, folder / "DICOMDIR"], capture_output=True, text=True)
        complaints = [line for line in judged.stderr.splitlines() if line.startswith("Error")]
        assert judged.returncode == 0 or not complaints, complaints[:5]
        assert not complaints, complaints[:5]

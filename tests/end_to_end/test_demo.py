"""What a newcomer sees: `mkiso demo` makes a disc, proves and lists it, and leaves nothing behind but files."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from peers.patience import LONG
from peers.ports import is_open
from tests.media.links import dead_links

pytestmark = [pytest.mark.end_to_end]


def test_the_demo_makes_a_disc_and_ends_what_it_started(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mkiso_service", "demo", "--folder", folder],
        capture_output=True,
        text=True,
        timeout=10 * LONG,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"DICOM/PT000001/ST000001/SE000001/IM000001", done.stdout)
    assert "patient_mismatch" in done.stdout
    assert "rimage has them all" in done.stdout
    assert "A disc of it lies on the shelf: 4 instances" in done.stdout
    assert re.search(r"^134 .*\n +Doe, Peter +born", done.stdout, re.MULTILINE), done.stdout
    assert sorted(file.name for file in folder.glob("*.iso")) == ["134.iso", "PHANTOM.iso"]
    assert (folder / "PHANTOM" / "INDEX.HTM").as_uri() in done.stdout
    assert (folder / "PHANTOM.pdf").read_bytes().startswith(b"%PDF-")
    assert not list(dead_links(folder / "PHANTOM"))
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    ports = [settings[section]["port"] for section in ("server", "pacs", "receiver")] + [
        settings["prefect"]["server_port"]
    ]
    assert [port for port in ports if is_open(port)] == []


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[list[str]]:
    """What a demo prints that stays up, line by line until it does."""
    command = [sys.executable, "-P", "-m", "mkiso_service", "demo", "--keep", "--folder", str(tmp_path / "demo")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        told: list[str] = []
        for line in demo.stdout:
            told.append(line.rstrip("\n"))
            if line.startswith("and http"):  # the last one
                break
        try:
            yield told
        finally:
            demo.send_signal(signal.SIGINT)
            rest = demo.stdout.read()
    assert demo.returncode == 0, rest


def typed(hint: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a hint says. The doctor waits a second for the robot, which may need longer on a busy machine."""
    until = time.monotonic() + LONG
    while True:
        done = subprocess.run(["bash", "-c", hint], cwd=folder, capture_output=True, text=True, timeout=10 * LONG)
        if not (done.returncode and hint.endswith("doctor")) or time.monotonic() > until:
            return done


def test_every_hint_of_the_demo_works_when_it_is_typed(kept: list[str], tmp_path: Path) -> None:
    beginning = next(number for number, line in enumerate(kept) if "To try" in line)
    hints = [line for line in kept[beginning + 1 :] if line.startswith("  ")]
    (folder := tmp_path / "elsewhere").mkdir()
    told = [typed(hint, folder) for hint in hints]
    for hint, each in zip(hints, told, strict=True):
        assert each.returncode == 0 and '"error"' not in each.stdout, (hint, each.stdout, each.stderr)
    by_hint = {hint.strip(): each.stdout for hint, each in zip(hints, told, strict=True)}
    said = {word: next(out for hint, out in by_hint.items() if word in hint) for word in ("print?", "health", "find")}
    assert json.loads(said["print?"])["status"] == "sent"
    assert json.loads(said["health"])["status"] == "ok"
    assert "Phantom, Ada" in said["find"]
    assert sum(file.suffix == ".iso" for file in folder.iterdir()) == 3
    key = httpx.get(url := re.findall(r"http://\S+", kept[-2])[0], trust_env=False, timeout=LONG)
    assert key.status_code == 200 and "key" in key.text
    signed_in = httpx.post(f"{url}session", data={"key": kept[-2].split()[-1]}, trust_env=False, timeout=LONG)
    assert signed_in.status_code == 303
    runs = httpx.get(re.findall(r"http://\S+", kept[-1])[0], trust_env=False, timeout=LONG)
    assert runs.headers["location"] == "/runs"

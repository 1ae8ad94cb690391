"""What a newcomer sees: `mkiso demo` makes a disc, proves and lists it, and leaves nothing behind but files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from peers.ports import is_open
from tests.media.links import dead_links

pytestmark = [pytest.mark.end_to_end]


def test_the_demo_makes_a_disc_and_ends_what_it_started(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "mkiso_service", "demo", "--folder", folder], capture_output=True, text=True, timeout=220
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"DICOM/PT000001/ST000001/SE000001/IM000001", done.stdout)
    assert "patient_mismatch" in done.stdout
    assert "rimage has them all" in done.stdout
    assert sorted(file.name for file in folder.glob("*.iso")) == ["134.iso", "PHANTOM.iso"]
    assert (folder / "PHANTOM" / "INDEX.HTM").as_uri() in done.stdout
    assert (folder / "PHANTOM.pdf").read_bytes().startswith(b"%PDF-")
    assert not list(dead_links(folder / "PHANTOM"))
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    ports = [settings[section]["port"] for section in ("server", "pacs", "receiver")] + [
        settings["prefect"]["server_port"]
    ]
    assert [port for port in ports if is_open(port)] == []

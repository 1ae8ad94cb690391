"""Discs for tests: instances from files, laid out and mastered in one call."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mkiso.config import Settings
from mkiso.dicom.header import read_header
from mkiso.files import sha256_of
from mkiso.media.iso import master
from mkiso.media.layout import Layout, lay_out
from mkiso.models import Arrival, Instance

CREATED = datetime(2026, 2, 13, 9, 30, tzinfo=UTC)


def instance(path: Path) -> Instance:
    """An instance as the receiver and the header reader hand it on."""
    header = read_header(path)
    meta = _meta(path)
    arrival = Arrival(meta[0x0003], meta[0x0002], meta[0x0010], str(header.StudyInstanceUID), path, path.stat().st_size, sha256_of(path))
    return Instance(arrival, header)


def instances(paths: Iterable[Path]) -> list[Instance]:
    return [instance(path) for path in paths]


def settings(folder: Path, **sections: dict[str, Any]) -> Settings:
    return Settings.model_validate({"storage": {"data_dir": folder / "data"}, "disc": {"institution": "Example Hospital"}, **sections})


def disc(paths: Iterable[Path], folder: Path, **sections: dict[str, Any]) -> tuple[Layout, Path]:
    """A mastered disc of these files: its layout and its image."""
    chosen = settings(folder, **sections)
    layout = lay_out(instances(paths), chosen, folder / "disc", created=CREATED)
    master(layout.files, layout.volume_id, folder / "disc.iso", created=CREATED, publisher=chosen.disc.institution)
    return layout, folder / "disc.iso"


def _meta(path: Path) -> dict[int, str]:
    content = path.read_bytes()[132 : 132 + 2048]
    values: dict[int, str] = {}
    position = 0
    while content[position : position + 2] == b"\x02\x00":
        element, long = int.from_bytes(content[position + 2 : position + 4], "little"), content[position + 4 : position + 6] in (b"OB", b"UN")
        start = position + (12 if long else 8)
        length = int.from_bytes(content[position + 8 : start] if long else content[position + 6 : start], "little")
        values[element] = content[start : start + length].decode("latin-1").rstrip("\0 ")
        position = start + length
    return values

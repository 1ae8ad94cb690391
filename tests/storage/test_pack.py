from __future__ import annotations

import errno
from io import BufferedReader
from pathlib import Path

import pytest

from mkiso.storage import files, pack
from mkiso.storage.pack import Pack, Part


def test_each_part_is_read_as_a_file_of_its_own(tmp_path: Path) -> None:
    contents = [b"", b"first", bytes(range(256)) * 300, b"last"]
    written = Pack(tmp_path / "pack")
    places = [written.add(content) for content in contents]
    written.close()
    for place, content in zip(places, contents, strict=True):
        part = Part(tmp_path / "pack", place, len(content))
        assert part.readall() == content and part.read(1) == b""
        part.seek(3)
        assert part.read(2) == content[3:5]
        part.seek(0)
        assert BufferedReader(part).read() == content


def test_what_is_in_a_pack_stays_when_it_is_opened_again(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        written = Pack(tmp_path / "pack")
        written.add(content)
        written.close()
    assert (tmp_path / "pack").read_bytes() == b"onetwo"


def test_what_a_full_disk_broke_off_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Pack(tmp_path / "pack")
    whole = files.write_at

    def half(descriptor: int, data: bytes, place: int) -> None:
        whole(descriptor, data[:3], place)
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(pack, "write_at", half)
    with pytest.raises(OSError, match="no space"):
        written.add(b"broken")
    monkeypatch.setattr(pack, "write_at", whole)
    place = written.add(b"whole")
    written.close()
    assert Part(tmp_path / "pack", place, 5).readall() == b"whole"


def test_a_link_in_the_place_of_a_pack_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "pack").symlink_to(tmp_path / "other")
    with pytest.raises(OSError):
        Pack(tmp_path / "pack")
    assert not (tmp_path / "other").exists()

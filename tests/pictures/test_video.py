"""Videos become pictures where PyAV is installed: each frame that is shown is the one that it says it is."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mkiso.pictures import jpeg, pyav, video
from mkiso.pictures.pool import PicturePool
from mkiso.pictures.render import render
from mkiso.pictures.values import MOST_CHOSEN, NotShown, ObjectFacts, Picture, PictureRequest, Reason
from peers.patience import LONG
from tests.pictures.objects import write
from tests.pictures.test_judged import decoded

ROWS, COLUMNS, BITS = 96, 160, 12
STREAMS = {  # encoder, container, transfer syntax
    "MPEG-2": ("mpeg2video", "mpegts", "1.2.840.10008.1.2.4.100"),
    "H.264 in MP4": ("libx264", "mp4", "1.2.840.10008.1.2.4.102"),
    "H.264 in a transport stream": ("libx264", "mpegts", "1.2.840.10008.1.2.4.103"),
    "H.264 alone": ("libx264", "h264", "1.2.840.10008.1.2.4.106"),
    "HEVC": ("libx265", "mp4", "1.2.840.10008.1.2.4.107"),
    "HEVC of 10 bits": ("libx265", "mpegts", "1.2.840.10008.1.2.4.108"),
}
FORM: dict[str, Any] = {
    "Rows": ROWS,
    "Columns": COLUMNS,
    "SamplesPerPixel": 3,
    "PlanarConfiguration": 0,
    "PhotometricInterpretation": "YBR_PARTIAL_420",
    "BitsAllocated": 8,
    "BitsStored": 8,
    "PixelRepresentation": 0,
}


def frame(number: int) -> NDArray[np.uint8]:
    """A frame that says its number by bars of black and white, beside red, green and blue."""
    made = np.full((ROWS, COLUMNS, 3), 128, np.uint8)
    for bit in range(BITS):
        made[8:40, 8 + 12 * bit : 20 + 12 * bit] = 235 if number >> bit & 1 else 16
    for place, colour in enumerate(((200, 30, 30), (30, 180, 30), (30, 30, 200))):
        made[48:88, 8 + 48 * place : 56 + 48 * place] = colour
    return made


def number_in(picture: NDArray[np.uint8]) -> int:
    return sum(int(picture[16:32, 11 + 12 * bit : 17 + 12 * bit].mean() > 128) << bit for bit in range(BITS))


def stream(codec: str, container: str, frames: int, *, deep: bool = False, **options: str) -> bytes:
    """As PyAV's encoders make one, of two B frames between others."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        made = output.add_stream(codec, rate=25, options={"g": "12", "bf": "2", **options})
        assert isinstance(made, av.VideoStream)
        made.width, made.height, made.pix_fmt = COLUMNS, ROWS, "yuv420p10le" if deep else "yuv420p"
        made.bit_rate = 4_000_000
        if codec == "libx265":
            made.options = {**made.options, "x265-params": "log-level=none:pools=1"}
        for number in range(1, frames + 1):
            output.mux(made.encode(av.VideoFrame.from_ndarray(frame(number), format="rgb24")))
        output.mux(made.encode(None))
    return target.getvalue()


def object_of(path: Path, encoded: bytes, syntax: str, said: int, parts: int = 1, **attributes: Any) -> Path:
    size = -(-len(encoded) // parts) // 2 * 2 + 2
    fragments = [encoded[at : at + size] for at in range(0, len(encoded), size)]
    form = {**FORM, "NumberOfFrames": said, **attributes}
    return write(path, b"", syntax=syntax, fragments=[part + b"\0" * (len(part) % 2) for part in fragments], **form)


def shown(path: Path) -> tuple[ObjectFacts, list[Picture], list[NotShown]]:
    facts, *found = render(PictureRequest(path, path.parent))
    assert isinstance(facts, ObjectFacts)
    return (
        facts,
        [each for each in found if isinstance(each, Picture)],
        [each for each in found if isinstance(each, NotShown)],
    )


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("parts", [1, 5])
def test_each_frame_is_shown_as_it_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, parts: int
) -> None:
    monkeypatch.setattr(jpeg, "QUALITY", 95)
    codec, container, syntax = STREAMS[kind]
    encoded = stream(codec, container, 30, deep="10" in kind)
    facts, pictures, lost = shown(object_of(tmp_path / "video", encoded, syntax, 30, parts))
    assert (facts.frames, facts.chosen, lost) == (30, (), [])
    assert facts.frame_time_ms == pytest.approx(40)
    for picture in pictures:
        seen = decoded(tmp_path / picture.file.name)
        assert number_in(seen) == picture.frame
        for place, colour in enumerate(((200, 30, 30), (30, 180, 30), (30, 30, 200))):
            patch = seen[56:80, 16 + 48 * place : 48 + 48 * place].astype(int)
            assert np.abs(patch.mean(axis=(0, 1)) - colour).max() < 8, (picture.frame, place)
    assert [picture.frame for picture in pictures] == list(range(1, 31))


def planes(number: int) -> list[NDArray[np.uint8]]:
    """A frame as Y, Cb and Cr of BT.601, the last two of half its size (ITU-T H.273)."""
    red, green, blue = np.moveaxis(frame(number).astype(float), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = [(blue - luma) / 1.772, (red - luma) / 1.402]
    halves = [128 + each.reshape(ROWS // 2, 2, COLUMNS // 2, 2).mean(axis=(1, 3)) * 224 / 255 for each in chroma]
    return [np.rint(plane).astype(np.uint8) for plane in (16 + luma * 219 / 255, *halves)]


def x265(folder: Path, frames: int) -> bytes:
    raw, target = folder / "raw", folder / "hevc"
    raw.write_bytes(b"".join(plane.tobytes() for number in range(1, frames + 1) for plane in planes(number)))
    form = ["--input-res", f"{COLUMNS}x{ROWS}", "--fps", "25", "--keyint", "16", "--qp", "20"]
    subprocess.run(["x265", "--input", raw, "--output", target, *form], check=True, capture_output=True, timeout=LONG)
    return target.read_bytes()


def mpeg2enc(folder: Path, frames: int) -> bytes:
    target = folder / "m2v"
    raw = b"YUV4MPEG2 W%d H%d F25:1 Ip A1:1 C420mpeg2\n" % (COLUMNS, ROWS)
    for number in range(1, frames + 1):
        raw += b"FRAME\n" + b"".join(plane.tobytes() for plane in planes(number))
    command = ["mpeg2enc", "-f", "3", "-b", "6000", "-R", "2", "-v", "0", "-o", str(target)]
    subprocess.run(command, input=raw, check=True, capture_output=True, timeout=LONG)
    return target.read_bytes()


@pytest.mark.peer
@pytest.mark.parametrize(("encoder", "syntax"), [(x265, "107"), (mpeg2enc, "100")])
def test_what_other_encoders_made_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: Callable[[Path, int], bytes], syntax: str
) -> None:
    """They share nothing with the decoder."""
    monkeypatch.setattr(jpeg, "QUALITY", 95)
    path = object_of(tmp_path / "video", encoder(tmp_path, 40), f"1.2.840.10008.1.2.4.{syntax}", 40)
    facts, pictures, lost = shown(path)
    assert (facts.frames, len(pictures), lost) == (40, 40, [])
    assert facts.frame_time_ms == pytest.approx(40)
    for picture in pictures:
        seen = decoded(tmp_path / picture.file.name)
        assert number_in(seen) == picture.frame
        assert np.abs(seen[56:80, 16:48].astype(int).mean(axis=(0, 1)) - (200, 30, 30)).max() < 8


def test_of_a_long_video_frames_spread_evenly_are_shown(tmp_path: Path) -> None:
    path = object_of(tmp_path / "video", stream("mpeg2video", "mpegts", 600), STREAMS["MPEG-2"][2], 600, FrameTime="50")
    facts, pictures, lost = shown(path)
    assert facts.frames == 600 and not lost
    assert [picture.frame for picture in pictures] == list(facts.chosen)
    assert len(facts.chosen) == MOST_CHOSEN and (facts.chosen[0], facts.chosen[-1]) == (1, 600)
    assert set(np.diff(facts.chosen)) == {2, 3}
    assert facts.frame_time_ms == pytest.approx(125)  # as fast as it was recorded
    for picture in pictures[::20]:
        assert number_in(decoded(tmp_path / picture.file.name)) == picture.frame


@pytest.mark.parametrize("kind", ["MPEG-2", "H.264 in MP4", "HEVC"])
def test_of_a_very_long_video_frames_that_need_no_other_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(video, "_ALL_DECODED", 250)
    monkeypatch.setattr(video, "MOST_CHOSEN", 10)
    codec, container, syntax = STREAMS[kind]
    facts, pictures, lost = shown(object_of(tmp_path / "video", stream(codec, container, 300), syntax, 300))
    assert facts.frames == 300 and not lost and len(pictures) == 10
    assert max(np.diff(facts.chosen)) <= 48
    assert [number_in(decoded(tmp_path / picture.file.name)) for picture in pictures] == list(facts.chosen)


def test_a_process_shows_a_video_within_its_limits(tmp_path: Path) -> None:
    """Also what is left after a frame that cost it its life."""
    path = object_of(tmp_path / "video", stream("libx264", "mp4", 300), STREAMS["H.264 in MP4"][2], 300)
    with PicturePool(tmp_path, tmp_path, 1) as pool:
        whole = pool.begin(pool.render, PictureRequest(path, tmp_path)).result()
        some = pool.begin(pool.render, PictureRequest(path, tmp_path, number=1001, frames=(7, 250))).result()
    assert len(whole.pictures) == MOST_CHOSEN and not whole.not_shown
    assert [number_in(decoded(tmp_path / picture.file.name)) for picture in some.pictures] == [7, 250]


@pytest.mark.parametrize(("said", "frames"), [(23, 23), (17, 20)])
def test_frames_that_the_stream_lacks_are_counted_as_not_shown(tmp_path: Path, said: int, frames: int) -> None:
    """What the object says is often a few off."""
    path = object_of(tmp_path / "video", stream("libx264", "mp4", 20), STREAMS["H.264 in MP4"][2], said)
    facts, pictures, lost = shown(path)
    assert (facts.frames, len(pictures), lost) == (frames, 20, [])
    assert facts.chosen == (tuple(range(1, 21)) if said > 20 else ())


@pytest.mark.parametrize("length", [30, 300, 1500])
def test_damage_costs_its_frames_and_what_is_shown_was_recorded(tmp_path: Path, length: int) -> None:
    """A decoder would make up what is damaged, and go on from that."""
    codec, container, syntax = STREAMS["H.264 in MP4"]
    encoded = bytearray(stream(codec, container, 60))
    at = int(len(encoded) * 0.4)
    encoded[at : at + length] = bytes(length)
    facts, pictures, lost = shown(object_of(tmp_path / "video", bytes(encoded), syntax, 60))
    assert {each.reason for each in lost} == {Reason.DAMAGED}
    assert len(pictures) + len(lost) == facts.frames == 60 and 20 < len(pictures) < 60
    assert [number_in(decoded(tmp_path / picture.file.name)) for picture in pictures] == [
        picture.frame for picture in pictures
    ]


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n%s\n#EXT-X-ENDLIST\n"
CONCATENATION = b"ffconcat version 1.0\nfile '%s'\n"


@pytest.mark.parametrize("content", [b"1234", b"", PLAYLIST, CONCATENATION, bytes(100_000)])
def test_what_is_no_video_shows_nothing_and_reads_nothing_else(tmp_path: Path, content: bytes) -> None:
    other = tmp_path / "other.ts"
    other.write_bytes(stream("mpeg2video", "mpegts", 5))
    content = content % str(other).encode() if b"%s" in content else content
    path = object_of(tmp_path / "video", content, STREAMS["MPEG-2"][2], 5)
    assert list(render(PictureRequest(path, tmp_path))) == [NotShown(0, Reason.DAMAGED)]


def test_a_stream_of_another_size_than_the_object_says_is_not_shown(tmp_path: Path) -> None:
    encoded = stream("libx264", "mp4", 3)
    _, pictures, lost = shown(object_of(tmp_path / "video", encoded, STREAMS["H.264 in MP4"][2], 3, Rows=90))
    assert not pictures and {each.reason for each in lost} == {Reason.MALFORMED}


def test_without_the_extra_it_is_said_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyav, "find_spec", lambda name: None)
    assert "get no pictures. Install '.[video]'" in pyav.in_words()
    path = object_of(tmp_path / "video", stream("libx264", "mp4", 3), STREAMS["H.264 in MP4"][2], 3)
    facts, *found = render(PictureRequest(path, tmp_path))
    assert isinstance(facts, ObjectFacts) and found == [NotShown(0, Reason.VIDEO)]

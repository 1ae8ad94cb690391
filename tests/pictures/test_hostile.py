"""Whatever a file does to a decoder costs that picture, with a reason, and nothing else."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import struct
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from mkiso.errors import StorageFull, Unforeseen
from mkiso.pictures import process
from mkiso.pictures.messages import ANSWER, Answer, Limits
from mkiso.pictures.pool import PicturePool
from mkiso.pictures.values import ObjectFacts, PictureRequest, PictureResult, Reason
from peers.corpus import BUNDLED
from peers.patience import LONG, until
from tests.conftest import children_of
from tests.pictures.objects import noise, ramp, saying, write

FRAMES: dict[str, Any] = {
    "Rows": 516,
    "Columns": 512,
    "NumberOfFrames": 4,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "PixelRepresentation": 0,
}


@pytest.fixture(scope="module", params=["interpreter", "fork"], autouse=True)
def begun_as(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every worker of this module, and that it is what it should be."""
    real, made = process._forked, []

    def forked(limits: Limits, _: Path | None) -> Any:
        server = request.getfixturevalue("fork_server") if request.param == "fork" else None
        made.append(real(limits, server.socket if server else None))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_forked", forked)
        yield request.param
    assert made and all((each is not None) == (request.param == "fork") for each in made)


@pytest.fixture(scope="module")
def pool(begun_as: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PicturePool]:
    with PicturePool(tmp_path_factory.getbasetemp(), tmp_path_factory.getbasetemp(), 1) as pool:
        yield pool


def reasons(result: PictureResult) -> dict[int, Reason]:
    return {each.frame: each.reason for each in result.not_shown}


def shown(result: PictureResult) -> list[int]:
    return [picture.frame for picture in result.pictures]


def worker_of(pool: PicturePool) -> int:
    """The process of a pool of one."""
    (worker,) = pool._running
    return worker._process.pid


def has_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def blocked_at(folder: Path, name: str) -> int:
    """A pipe in a picture's place: once this returns the worker is in the midst of writing it, and goes no further. The
    end to close.
    """
    pipe = os.open(folder / name, os.O_RDONLY)
    assert os.read(pipe, 1)
    return pipe


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_costs_the_frame_that_it_was_at(tmp_path: Path, death: signal.Signals) -> None:
    path = write(tmp_path / "image", noise(frames=4).tobytes(), **FRAMES)
    os.mkfifo(tmp_path / "P0000012.JPG")
    with PicturePool(tmp_path, tmp_path, 1) as pool:
        rendering = pool.begin(pool.render, PictureRequest(path, tmp_path, number=10))
        pipe = blocked_at(tmp_path, "P0000012.JPG")
        os.kill(worker_of(pool), death)
        result = rendering.result()
    os.close(pipe)
    assert reasons(result) == {3: Reason.DECODER_CRASHED}
    assert shown(result) == [1, 2, 4]
    assert sorted(file.name for file in tmp_path.glob("*.JPG")) == [
        f"{letter}00000{number}.JPG" for letter in "PT" for number in (10, 11, 13)
    ]


@pytest.mark.parametrize(("compressed", "deaths"), [(True, 1), (False, 2)])
def test_of_several_asked_for_at_once_one_is_lost(tmp_path: Path, compressed: bool, deaths: int) -> None:
    """Of what isn't compressed the answers are held back: they are asked for once more, one by one, to know which."""
    form: dict[str, Any] = {**FRAMES, "NumberOfFrames": 1}
    if compressed:
        encoded = bytes(imagecodecs.jpeg8_encode(noise()[0]))
        path = write(tmp_path / "image", b"", syntax=JPEGBaseline8Bit, fragments=[encoded], **form)
    else:
        path = write(tmp_path / "image", noise().tobytes(), **form)
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    os.mkfifo(folders[1] / "P0000001.JPG")
    with PicturePool(tmp_path, tmp_path, 1) as pool:
        each = pool.begin(lambda: list(pool.each([PictureRequest(path, folder) for folder in folders])))
        for _ in range(deaths):
            pipe, worker = blocked_at(folders[1], "P0000001.JPG"), worker_of(pool)
            os.kill(worker, signal.SIGSEGV)
            until(partial(has_gone, worker))  # what it wrote is gone with it
            os.close(pipe)
        first, lost, last = each.result()
    assert isinstance(first, PictureResult) and isinstance(lost, PictureResult) and isinstance(last, PictureResult)
    assert (shown(first), shown(last)) == ([1], [1]) and not (reasons(first) or reasons(last) or shown(lost))
    assert list(reasons(lost).values()) == [Reason.DECODER_CRASHED]


def test_a_frame_left_over_is_not_lost_for_a_later_object(tmp_path: Path) -> None:
    """It is asked for once more, together with the objects behind it: each may be the end of the process."""
    paths = [
        write(tmp_path / f"image{frames}", noise(frames=frames).tobytes(), **{**FRAMES, "NumberOfFrames": frames})
        for frames in (2, 1)
    ]
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        os.mkfifo(folder / "P0000001.JPG")
    with PicturePool(tmp_path, tmp_path, 1) as pool:
        requests = [PictureRequest(path, folder) for path, folder in zip(paths, folders, strict=True)]
        each = pool.begin(lambda: list(pool.each(requests)))
        for folder in folders:
            pipe, worker = blocked_at(folder, "P0000001.JPG"), worker_of(pool)
            (folder / "P0000001.JPG").unlink()
            os.kill(worker, signal.SIGSEGV)
            until(partial(has_gone, worker))
            os.close(pipe)
        first, _ = each.result()
    assert isinstance(first, PictureResult) and (shown(first), list(reasons(first))) == ([2], [1])


def test_who_wants_no_more_ends_the_rest(tmp_path: Path) -> None:
    """A process that goes on with what nobody waits for would answer the next question with it."""
    path = write(tmp_path / "image", noise(frames=4).tobytes(), **FRAMES)
    with PicturePool(tmp_path, tmp_path, 1) as pool:
        some = pool.each([PictureRequest(path, tmp_path, number=number) for number in (1, 11)])
        assert isinstance(next(some), PictureResult)
        some.close()  # type: ignore[attr-defined]
        again = pool.begin(pool.render, PictureRequest(path, tmp_path, number=21)).result()
    assert [picture.file.name for picture in again.pictures] == [f"P000002{number}.JPG" for number in (1, 2, 3, 4)]


def test_a_frame_that_takes_too_long_costs_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "image", noise(frames=4).tobytes(), **FRAMES)
    os.mkfifo(tmp_path / "P0000002.JPG")  # nobody reads it
    with PicturePool(tmp_path, tmp_path, 1, Limits(seconds=5)) as pool:
        result = pool.begin(pool.render, PictureRequest(path, tmp_path)).result()
    assert reasons(result) == {2: Reason.TOO_SLOW}
    assert shown(result) == [1, 3, 4]


def test_a_worker_that_is_stopped_is_killed(tmp_path: Path) -> None:
    path = write(tmp_path / "image", noise(frames=4).tobytes(), **FRAMES)
    os.mkfifo(tmp_path / "P0000002.JPG")
    with PicturePool(tmp_path, tmp_path, 1, Limits(seconds=5, grace_seconds=1)) as pool:
        rendering = pool.begin(pool.render, PictureRequest(path, tmp_path))
        pipe = blocked_at(tmp_path, "P0000002.JPG")
        os.kill(worker_of(pool), signal.SIGSTOP)
        result = rendering.result()
    os.close(pipe)
    assert reasons(result) == {2: Reason.TOO_SLOW}
    assert shown(result) == [1, 3, 4]


def test_an_object_that_kills_worker_after_worker_is_given_up(tmp_path: Path) -> None:
    path = write(
        tmp_path / "image", noise(frames=4).tobytes() + noise(frames=2).tobytes(), **{**FRAMES, "NumberOfFrames": 6}
    )
    for number in (2, 3, 4, 5, 6):
        os.mkfifo(tmp_path / f"P000000{number}.JPG")
    pipes = []
    with PicturePool(tmp_path, tmp_path, 1) as pool:
        rendering = pool.begin(pool.render, PictureRequest(path, tmp_path))
        for number in (2, 3, 4):
            pipes.append(blocked_at(tmp_path, f"P000000{number}.JPG"))
            os.kill(worker_of(pool), signal.SIGKILL)
        result = rendering.result()
    for pipe in pipes:
        os.close(pipe)
    assert reasons(result) == dict.fromkeys((2, 3, 4, 5, 6), Reason.DECODER_CRASHED)
    assert shown(result) == [1]


@pytest.mark.parametrize(
    "limits", [Limits(seconds=0.0001), Limits(cpu_seconds=0.0001)], ids=["in all", "of a processor"]
)
def test_an_object_that_takes_too_long_is_not_shown(tmp_path: Path, limits: Limits) -> None:
    """Whether it is being read or shown when the kernel notices, which looks every few milliseconds."""
    with PicturePool(tmp_path, tmp_path, 1, limits) as pool:
        path = write(tmp_path / "image", ramp(2000, 2000))
        result = pool.begin(pool.render, PictureRequest(path, tmp_path)).result()
    assert set(reasons(result).values()) == {Reason.TOO_SLOW}
    assert not result.pictures


def test_closing_at_once_ends_what_runs_and_what_waits(tmp_path: Path) -> None:
    path = write(tmp_path / "image", noise(frames=4).tobytes(), **FRAMES)
    os.mkfifo(tmp_path / "P0000001.JPG")
    before = set(children_of(os.getpid()))
    pool = PicturePool(tmp_path, tmp_path, 1)
    running, waiting = (
        pool.begin(pool.render, PictureRequest(path, tmp_path)),
        pool.begin(pool.render, PictureRequest(path, tmp_path, number=10)),
    )
    pipe = blocked_at(tmp_path, "P0000001.JPG")
    pool.close(at_once=True)
    os.close(pipe)
    with pytest.raises(CancelledError):
        running.result()
    assert waiting.cancelled()
    assert [child for child in set(children_of(os.getpid())) - before if "fork_server" not in child] == []


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """By the end of its input: nobody has to kill it."""
    with PicturePool(tmp_path, tmp_path, 1) as pool:
        pool.begin(pool.render, PictureRequest(write(tmp_path / "image", ramp()), tmp_path)).result()
        (worker,) = pool._running
        worker._input.close()
        assert worker._process.wait() == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_is_no_fault_of_the_picture(tmp_path: Path, pool: PicturePool) -> None:
    path = write(tmp_path / "image", ramp())
    os.mknod(tmp_path / "P0000001.JPG", 0o600 | stat.S_IFCHR, os.makedev(1, 7)) if os.geteuid() == 0 else pytest.skip(
        "only root makes devices"
    )
    with pytest.raises(StorageFull, match="Make room"):
        pool.begin(pool.render, PictureRequest(path, tmp_path)).result()


def test_pictures_leave_room_for_saying_how_it_ended(tmp_path: Path) -> None:
    path = write(tmp_path / "image", ramp())
    with (
        PicturePool(tmp_path, tmp_path, 1, Limits(spare_mib=1 << 40)) as pool,
        pytest.raises(StorageFull, match="Make room"),
    ):
        pool.begin(pool.render, PictureRequest(path, tmp_path)).result()
    assert [file.name for file in tmp_path.iterdir()] == ["image"]


def test_a_folder_that_is_not_there_is_no_fault_of_the_picture(tmp_path: Path, pool: PicturePool) -> None:
    path = write(tmp_path / "image", ramp())
    with pytest.raises(OSError, match="No such file"):
        pool.begin(pool.render, PictureRequest(path, tmp_path / "nowhere")).result()
    (tmp_path / "P0000001.JPG").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        pool.begin(pool.render, PictureRequest(path, tmp_path)).result()
    assert not (tmp_path / "elsewhere").exists()


def test_a_fault_of_one_object_leaves_the_others_alone(tmp_path: Path, pool: PicturePool) -> None:
    path = write(tmp_path / "image", ramp())
    (tmp_path / "there").mkdir()
    requests = [PictureRequest(path, tmp_path / name) for name in ("there", "nowhere", "there")]
    first, fault, last = pool.begin(lambda: list(pool.each(requests))).result()
    assert isinstance(first, PictureResult) and isinstance(last, PictureResult)
    assert isinstance(fault, FileNotFoundError) and (shown(first), shown(last)) == ([1], [1])


@pytest.mark.parametrize(
    "answers",
    [
        (Answer(done=True),),
        (Answer(facts=ObjectFacts(frames=-1)), Answer(done=True)),
        (Answer(facts=ObjectFacts(frames=1), done=True),),
    ],
)
def test_no_picture_is_missing_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: tuple[Answer, ...]
) -> None:
    """Whatever a process says that an image has taken over."""
    said = tmp_path / "said"
    said.write_bytes(b"".join(ANSWER.dump_json(each) + b"\n" for each in (Answer(), *answers, *answers)))

    monkeypatch.setattr(process, "_forked", lambda *_: None)
    monkeypatch.setattr(process, "_begun", saying(said))
    with PicturePool(tmp_path, tmp_path, 1) as pool:
        each = pool.begin(lambda: list(pool.each([PictureRequest(said, tmp_path), PictureRequest(said, tmp_path)])))
        for result in each.result(LONG):
            assert isinstance(result, PictureResult) and reasons(result) and not shown(result)


def test_a_worker_that_cannot_start_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_forked", lambda *_: None)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with PicturePool(tmp_path, tmp_path, 1) as pool, pytest.raises(Unforeseen, match="doesn't start"):
        pool.begin(pool.render, PictureRequest(write(tmp_path / "image", ramp()), tmp_path)).result()


def test_secrets_stay_with_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKISO__AUTH__API_KEY", "secret-of-a-test")
    with PicturePool(tmp_path, tmp_path, 1) as pool:
        pool.begin(pool.render, PictureRequest(write(tmp_path / "image", ramp()), tmp_path)).result()
        environment = Path(f"/proc/{worker_of(pool)}/environ").read_bytes()
    assert b"secret" not in environment
    assert b"PATH=" in environment


HUGE: dict[str, Any] = {"BitsStored": 16, "BitsAllocated": 16, "PixelRepresentation": 0}


def as_large(encoded: bytes, rows: int, columns: int) -> bytes:
    """A JPEG whose frame header (SOF0) says another size."""
    at = encoded.index(b"\xff\xc0") + 5
    return encoded[:at] + struct.pack(">HH", rows, columns) + encoded[at + 4 :]


def hostile(folder: Path) -> dict[str, tuple[Path, set[Reason]]]:
    grey = ramp(high=255, kind="u1")
    jpeg = bytes(imagecodecs.jpeg8_encode(grey))
    j2k = bytes(imagecodecs.jpeg2k_encode(grey, codecformat="j2k"))
    size = j2k.index(b"\xff\x51") + 6
    vast = j2k[:size] + struct.pack(">II", 60000, 60000) + j2k[size + 8 :]
    rle_bomb = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 2_000_000
    form: dict[str, Any] = {"Rows": 64, "Columns": 96, "BitsAllocated": 8, "BitsStored": 8, "PixelRepresentation": 0}
    too_large, damaged = {Reason.TOO_LARGE}, {Reason.DAMAGED}
    return {
        "rows × columns": (write(folder / "a", b"\0\0", Rows=65535, Columns=65535, **HUGE), too_large),
        "frames": (write(folder / "b", b"\0\0", Rows=1, Columns=1, NumberOfFrames=2**31 - 1, **HUGE), too_large),
        "no frames": (write(folder / "c", b"\0\0", Rows=1, Columns=1, NumberOfFrames=0, **HUGE), {Reason.MALFORMED}),
        "no rows": (write(folder / "d", b"\0\0", Rows=0, Columns=1, **HUGE), {Reason.MALFORMED}),
        "more bits stored than allocated": (
            write(folder / "e", b"\0\0", Rows=1, Columns=1, **{**HUGE, "BitsStored": 17}),
            {Reason.MALFORMED},
        ),
        "a JPEG that says 65,500²": (
            write(folder / "f", b"", syntax=JPEGBaseline8Bit, fragments=[as_large(jpeg, 65500, 65500)], **form),
            too_large | damaged,
        ),
        "a JPEG 2000 that says 60,000²": (
            write(folder / "g", b"", syntax=JPEG2000Lossless, fragments=[vast], **form),
            too_large | damaged,
        ),
        "an RLE frame a thousand times too long": (
            write(folder / "h", b"", syntax=RLELossless, fragments=[rle_bomb], **form),
            damaged | {Reason.TOO_LARGE},
        ),
        "a deflated bomb": (deflated_bomb(folder / "i"), {Reason.UNREADABLE}),
        "an element of 4 GB": (with_an_endless_element(folder / "m"), {Reason.UNREADABLE}),
        "an unknown transfer syntax": (
            write(folder / "j", b"", syntax="1.2.3", fragments=[b"1234"], **form),
            {Reason.TRANSFER_SYNTAX},
        ),
        "video": (
            write(folder / "k", b"", syntax="1.2.840.10008.1.2.4.102", fragments=[b"1234"], **form),
            damaged,
        ),
        "no pixels": (write(folder / "l", b"", **form), damaged),
    }


def with_an_endless_element(path: Path) -> Path:
    write(path, ramp(), ImageComments="x" * 10)
    content = path.read_bytes()
    at = content.index(b"\x20\0\0\x40LT")
    path.write_bytes(content[:at] + b"\x20\0\0\x40UT\0\0\xfe\xff\xff\xff" + content[at + 8 :])
    return path


def deflated_bomb(path: Path) -> Path:
    """Two GB of zeros behind the beginning of a data set."""
    write(path, ramp(), syntax="1.2.840.10008.1.2.1.99")
    content = path.read_bytes()
    meta = 132 + 12 + struct.unpack_from("<I", content, 140)[0]
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    beginning = squeezer.compress(zlib.decompress(content[meta:], -zlib.MAX_WBITS)) + squeezer.flush(zlib.Z_FULL_FLUSH)
    megabyte = squeezer.compress(bytes(2**20)) + squeezer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(content[:meta] + beginning + megabyte * 2048 + squeezer.flush())
    return path


def test_bombs_end_in_a_reason(tmp_path: Path, pool: PicturePool) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for what, (path, expected) in hostile(tmp_path).items():
        result = pool.begin(pool.render, PictureRequest(path, folder)).result()
        assert not result.pictures, what
        assert set(reasons(result).values()) <= expected, (what, reasons(result))
    good = pool.begin(pool.render, PictureRequest(write(tmp_path / "good", ramp()), folder)).result()
    assert shown(good) == [1]


@pytest.mark.filterwarnings("ignore")
def test_files_cut_short_or_changed_end_in_pictures_or_reasons(tmp_path: Path, pool: PicturePool) -> None:
    """Every frame is accounted for, and nothing is a surprise to us."""
    chance = random.Random(1)
    path = tmp_path / "image"
    for file in sorted(BUNDLED.glob("*.dcm")):
        content = file.read_bytes()
        if len(content) > 200_000:
            continue
        for trial in range(6):
            changed = bytearray(
                content[: chance.randrange(200, len(content))] if trial < 2 and len(content) > 400 else content
            )
            for _ in range(trial * 4):
                changed[chance.randrange(132, len(changed))] = chance.randrange(256)
            path.write_bytes(changed)
            result = pool.begin(pool.render, PictureRequest(path, tmp_path, script=True)).result()
            assert Reason.UNFORESEEN not in reasons(result).values(), (file.name, trial, keep(path))
            frames = sorted([*shown(result), *reasons(result)])
            assert 0 in frames or frames == list(range(1, result.facts.frames + 1)), (file.name, trial, keep(path))


def keep(path: Path) -> Path:
    """Where a file that surprised us can be looked at."""
    return Path(shutil.copy(path, path.with_name("surprise")))


def test_what_is_cut_short_is_damaged_and_nothing_of_it_is_shown(tmp_path: Path, pool: PicturePool) -> None:
    path = write(tmp_path / "image", noise(frames=4).tobytes(), **FRAMES)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 516 * 512 - 1])
    result = pool.begin(pool.render, PictureRequest(path, tmp_path)).result()
    assert shown(result) == [1, 2]
    assert reasons(result) == {3: Reason.DAMAGED, 4: Reason.DAMAGED}


def test_two_workers_work_side_by_side(tmp_path: Path) -> None:
    """Each is held within a picture of its own until both are there."""
    path = write(tmp_path / "image", noise().tobytes(), **{**FRAMES, "NumberOfFrames": 1})
    with PicturePool(tmp_path, tmp_path, 2) as pool:
        for number in (1, 2):
            os.mkfifo(tmp_path / f"P000000{number}.JPG")
        renderings = [pool.begin(pool.render, PictureRequest(path, tmp_path, number=number)) for number in (1, 2)]
        pipes = [blocked_at(tmp_path, f"P000000{number}.JPG") for number in (1, 2)]
        readers = [threading.Thread(target=drain, args=(pipe,)) for pipe in pipes]
        for reader in readers:
            reader.start()
        assert [shown(rendering.result()) for rendering in renderings] == [[1], [1]]
        for reader in readers:
            reader.join()


def drain(pipe: int) -> None:
    while os.read(pipe, 65536):
        pass
    os.close(pipe)

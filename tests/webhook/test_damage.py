"""An image that is damaged after its proof: not one wrong byte leaves, however it is asked for, and its set is gone."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from starlette.types import Message

from mkiso.config.settings import Settings
from mkiso.storage.marks import MARK_BYTES, Marker, ProvedImage, ProvedPiece, ProvedSpan
from mkiso.storage.shelf import manifests
from mkiso_service.webhook.discs import disc_bytes
from mkiso_service.webhook.discs.disc_bytes import DiscResponse, ImageDamaged, Span
from peers.patience import LONG
from tests.webhook.desk import Desk, Scripts

ONE = "/api/iso/download?accession_number=A1"
CONTENT = os.urandom(5 * MARK_BYTES + 12_345)
MIDDLE = 3 * MARK_BYTES + 100


@pytest.fixture
def address(client: httpx.Client, desk: Desk, scripts: Scripts) -> str:
    """A disc's own address."""
    desk.script = lambda job_id, question: scripts.done(job_id, question, content=CONTENT)
    return client.get(ONE).headers["content-location"]  # wholly: what is still sent would meet the damage first


@pytest.mark.parametrize("content", [b"", b'{"job_id": "', b"[]", bytes(300), b"\xff\xfe"])
def test_a_report_and_a_manifest_that_a_power_cut_has_torn(
    client: httpx.Client, settings: Settings, address: str, content: bytes
) -> None:
    job = address.partition("/disc")[0]
    assert client.get(job).json()["state"] == "done"
    [manifest] = settings.storage.discs_dir.glob("*/manifest.json")
    whole = manifest.read_bytes()
    manifest.write_bytes(content)
    gone = [client.get(place) for place in (job, address)]
    assert [(answer.status_code, answer.json()["code"]) for answer in gone] == [(404, "job_not_found")] * 2
    assert client.get("/metrics").status_code == 200
    assert client.get(ONE).status_code == 200, "asked for anew, it is made anew"
    manifest.write_bytes(whole)
    [report] = settings.storage.reports_dir.rglob(f"{job.rpartition('/')[2]}.json")
    report.write_bytes(content)
    metrics = client.get("/metrics")
    assert (metrics.status_code, "mkiso_jobs{" in metrics.text) == (200, True)
    assert (client.get(address).json()["code"], client.get(job).json()["error"]["code"]) == (
        "job_crashed",
        "job_crashed",
    )
    assert client.get(f"{ONE}&part=1").status_code == 200


def flip(settings: Settings, position: int, number: int = 0) -> None:
    """Flip a bit of the n-th disc on the shelf."""
    image = sorted(settings.storage.discs_dir.glob("*/disc.iso"))[number]
    with image.open("r+b", buffering=0) as file:
        [byte] = os.pread(file.fileno(), 1, position)
        os.pwrite(file.fileno(), bytes([byte ^ 4]), position)


def received(client: httpx.Client, path: str, **headers: str) -> bytes:
    """What came of an answer of 200 or 206 before it broke off."""
    got = bytearray()
    with client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code in (200, 206)
        with pytest.raises(httpx.RemoteProtocolError):
            for piece in answer.iter_raw():
                got += piece
    return bytes(got)


@pytest.mark.parametrize("position", [MIDDLE, len(CONTENT) - 1])
def test_a_download_breaks_off_before_the_first_wrong_byte(
    client: httpx.Client, settings: Settings, address: str, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    flip(settings, position)
    got = received(client, address)
    assert got == CONTENT[: min(position // MARK_BYTES, 4) * MARK_BYTES]  # the few bytes at the end go with the fifth
    assert manifests(settings.storage) == []
    assert "taken off the shelf" in caplog.text
    gone = client.get(address)
    assert (gone.status_code, gone.json()["code"]) == (404, "job_not_found")


def test_what_is_wrong_from_the_beginning_is_an_answer_in_words(
    client: httpx.Client, settings: Settings, address: str
) -> None:
    flip(settings, 0)
    answer = client.get(address)
    assert (answer.status_code, answer.json()["code"]) == (500, "proof_failed")
    assert manifests(settings.storage) == []


@pytest.mark.parametrize("headers", [{}, {"If-Range": "the etag"}])
def test_the_rest_of_a_broken_download_is_proved_as_well(
    client: httpx.Client, settings: Settings, address: str, headers: dict[str, str]
) -> None:
    etag = client.head(address).headers["etag"]
    headers = dict.fromkeys(headers, etag)
    flip(settings, MIDDLE)
    right = client.get(address, headers={"Range": f"bytes=5-{2 * MARK_BYTES}", **headers})
    assert (right.status_code, right.content) == (206, CONTENT[5 : 2 * MARK_BYTES + 1])
    assert received(client, address, Range="bytes=1000-", **headers) == CONTENT[1000 : 3 * MARK_BYTES]
    assert client.get(address).status_code == 404


def test_a_range_that_begins_where_it_is_wrong(client: httpx.Client, settings: Settings, address: str) -> None:
    flip(settings, MIDDLE)
    for _ in range(2):
        answer = client.get(address, headers={"Range": f"bytes={MIDDLE + 10}-{MIDDLE + 20}"})
        assert (answer.status_code, answer.json()["code"]) in ((500, "proof_failed"), (404, "job_not_found"))
    assert manifests(settings.storage) == []


def test_damage_that_comes_while_it_is_sent(
    client: httpx.Client, desk: Desk, scripts: Scripts, settings: Settings
) -> None:
    content = os.urandom(MARK_BYTES) * 120
    desk.script = lambda job_id, question: scripts.done(job_id, question, content=content)
    got = bytearray()
    with client.stream("GET", ONE) as answer, pytest.raises(httpx.RemoteProtocolError):
        for piece in answer.iter_raw():
            if not got:  # what the sockets hold is far less than the image
                flip(settings, len(content) - 100)
            got += piece
    assert got == content[: 119 * MARK_BYTES]


GET = {"type": "http", "method": "GET"}


async def nothing_more() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def files_of_a_piece(count: int) -> list[bytes]:
    """A file of 512 KiB and a little is sent in one piece."""
    return [os.urandom(MARK_BYTES + 1000 + number) for number in range(count)]


def imaged(folder: Path, files: list[bytes]) -> tuple[Path, Path]:
    """An image of these files and its marks."""
    image, marks, marker = folder / "disc.iso", folder / "marks", Marker()
    for content in files:
        marker.begin_chain()
        marker.update(content)
    marks.write_bytes(marker.marks())
    image.write_bytes(b"".join(files))
    return image, marks


def answer_of(image: Path, marks: Path, damaged: Callable[[], Awaitable[None]]) -> DiscResponse:
    size, digest = image.stat().st_size, hashlib.sha256(marks.read_bytes()).hexdigest()
    proved = ProvedSpan(ProvedImage(image, marks, size, digest), 0, size)
    return DiscResponse(proved, Span(200, 0, size), {}, "application/octet-stream", damaged)


@pytest.mark.parametrize("wrong", [0, 1, 6, 12])
def test_pieces_that_are_proved_beside_each_other_leave_in_order_up_to_a_wrong_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    """Twelve follow the first, two by two at once."""
    files = files_of_a_piece(13)
    image, marks = imaged(tmp_path, files)
    image.write_bytes(b"".join(files[:wrong]) + bytes(len(files[wrong])) + b"".join(files[wrong + 1 :]))
    two, read, sent = threading.Barrier(2), ProvedPiece.read, list[bytes]()

    def together(piece: ProvedPiece) -> bytes:
        if threading.current_thread() is not threading.main_thread():
            two.wait(LONG)
        return read(piece)

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    async def damaged() -> None:
        two.abort()  # who would be the next one's partner isn't begun any more

    monkeypatch.setattr(ProvedPiece, "read", together)
    with pytest.raises(ImageDamaged):
        asyncio.run(answer_of(image, marks, damaged)(GET, nothing_more, send))
    assert [piece for piece in sent if piece] == files[:wrong]


def test_what_is_read_ahead_is_bounded_however_many_clients_stand_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five that take nothing two have a piece read ahead; once they take what there is, each gets all of it."""
    files = files_of_a_piece(5)
    image, marks = imaged(tmp_path, files)
    read, reads = ProvedPiece.read, list[ProvedPiece]()

    def counted(piece: ProvedPiece) -> bytes:
        reads.append(piece)
        return read(piece)

    async def harmless() -> None:
        raise AssertionError

    async def five() -> list[list[bytes]]:
        taken, standing, goes_on = [list[bytes]() for _ in range(5)], asyncio.Semaphore(0), asyncio.Event()

        async def download(into: list[bytes]) -> None:
            async def send(message: Message) -> None:
                if message.get("body"):
                    standing.release()
                    await goes_on.wait()
                    into.append(message["body"])

            await answer_of(image, marks, harmless)(GET, nothing_more, send)

        downloads = [asyncio.create_task(download(into)) for into in taken]
        for _ in downloads:
            await standing.acquire()
        while len(disc_bytes._AHEAD) < 2 or not all(task.done() for task in disc_bytes._AHEAD):
            await asyncio.sleep(0)
        assert len(reads) == 5 + 2, "the first piece of each, and two more"
        goes_on.set()
        await asyncio.gather(*downloads)
        return taken

    monkeypatch.setattr(disc_bytes, "MOST_AHEAD", 2)
    monkeypatch.setattr(ProvedPiece, "read", counted)
    assert asyncio.run(five()) == [files] * 5
    assert not disc_bytes._AHEAD


def test_no_damaged_disc_is_served_again(
    client: httpx.Client, desk: Desk, scripts: Scripts, settings: Settings, address: str
) -> None:
    flip(settings, 0)
    desk.script = scripts.reused
    assert client.get(ONE).json()["code"] == "proof_failed"
    desk.script = lambda job_id, question: scripts.done(job_id, question, content=CONTENT)
    assert client.get(ONE).content == CONTENT


def test_the_whole_set_goes(client: httpx.Client, desk: Desk, scripts: Scripts, settings: Settings) -> None:
    desk.script = scripts.set_of(3)
    job = client.get(f"/api/iso/jobs/{client.get(ONE).json()['job_id']}").json()
    second = next(disc for disc in manifests(settings.storage) if disc.number == 2)
    (settings.storage.discs_dir / second.disc_id / "disc.iso").write_bytes(b"3" * 100)
    assert client.get(job["discs"][0]["href"]).status_code == 200
    assert client.get(job["discs"][1]["href"]).status_code == 500
    for disc in job["discs"]:
        assert client.get(disc["href"]).status_code == 404
    assert manifests(settings.storage) == []


@pytest.mark.parametrize("name", ["disc.iso", "marks"])
def test_a_disc_without_its_image_or_its_marks_is_taken_off(
    client: httpx.Client, settings: Settings, address: str, name: str
) -> None:
    next(settings.storage.discs_dir.glob(f"*/{name}")).unlink()
    assert client.get(address).status_code == 404
    assert manifests(settings.storage) == []


def test_the_marks_of_another_disc_prove_nothing(client: httpx.Client, settings: Settings, address: str) -> None:
    marks = next(settings.storage.discs_dir.glob("*/marks"))
    marks.write_bytes(marks.read_bytes()[:-1] + b"x")
    assert client.get(address).json()["code"] == "proof_failed"
    assert manifests(settings.storage) == []

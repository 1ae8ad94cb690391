"""A DICOMweb server of a folder of files that can also do wrong: cut its streams and answers, and send what nobody
wants. Its JSON is pydicom's own.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from pydicom import Dataset, dcmread

BOUNDARY = b"made-for-a-test"
LEVELS = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}


class DicomWebServer:
    """Listens on a free port. `cuts`: after how many bytes each of the next streams ends; `wrong`: what the streams do
    wrong; `shares`: how much of each of the next JSON answers a relay lets through, which ends them in order all the
    same; `statuses`: how the next requests are answered instead; `page`: how many answers it gives at once at most;
    `same_page`: it ignores `offset`; `token`: what it wants to see; `body`: what it answers instead of JSON, a byte
    each 50 ms where `wrong` is "slow". `sent` counts how often it sent the whole of each instance, `asked` are the
    targets of its requests.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.held = [(file.read_bytes(), dcmread(file, stop_before_pixels=True)) for file in files]
        self.cuts: list[int] = []
        self.shares: list[float] = []
        self.statuses: list[int] = []
        self.with_length = True
        self.wrong = ""
        self.page = 0
        self.same_page = False
        self.token = ""
        self.expires_in: float = 3600
        self.body = b""
        self.sent: Counter[str] = Counter()
        self.asked: list[str] = []
        self.told: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.get(self)

            def do_POST(self) -> None:
                server.grant(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def grant(self, handler: BaseHTTPRequestHandler) -> None:
        """A token of an authorization server (RFC 6749 4.4.3)."""
        form = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        self.told.append(f"{handler.headers['Authorization']} {form}")
        if self.statuses:
            self._empty(handler, self.statuses.pop(0))
            return
        self._json(handler, {"access_token": self.token, "token_type": "bearer", "expires_in": self.expires_in})

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        if self.statuses and (status := self.statuses.pop(0)) != 200:
            self._empty(handler, status)
            return
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            self.told.append(handler.headers.get("Authorization", ""))
            self._empty(handler, 401)
            return
        if self.wrong == "redirect":
            self._empty(handler, 307, {"Location": "http://127.0.0.1:1/elsewhere"})
            return
        if self.wrong == "headers":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 1_000_000 + b"\r\n\r\n")
            handler.close_connection = True
            return
        address = urlsplit(handler.path)
        parts = unquote(address.path).removeprefix("/dicom-web/").split("/")
        if "json" in handler.headers.get("Accept", ""):
            self._find(handler, parts, parse_qs(address.query))
        else:
            self._send(handler, self._of(dict(zip(parts[::2], parts[1::2], strict=True))))

    def _of(self, uids: dict[str, str]) -> list[tuple[bytes, Dataset]]:
        return [
            (content, head)
            for content, head in self.held
            if all(head[LEVELS[level]].value == uid for level, uid in uids.items())
        ]

    def _find(self, handler: BaseHTTPRequestHandler, parts: list[str], query: dict[str, list[str]]) -> None:
        level = parts[-1]
        held = self._of(dict(zip(parts[:-1:2], parts[1:-1:2], strict=True)))
        answers: dict[str, dict[str, Any]] = {}
        for _, head in held:
            if all(
                str(head.get(name, "")) == query[name][0] for name in query if name in ("AccessionNumber", "PatientID")
            ):
                uid = head[LEVELS[level]].value
                told = {tag: value for tag, value in head.to_json_dict().items() if "Value" in value}
                count = sum(each[LEVELS[level]].value == uid for _, each in self.held)
                number = "00201208" if level == "studies" else "00201209"
                answers[uid] = told | {number: {"vr": "IS", "Value": [count]}}
        offset, limit = (int(query.get(name, [plain])[0]) for name, plain in (("offset", "0"), ("limit", "9999")))
        offset = 0 if self.same_page else offset
        self._json(handler, list(answers.values())[offset : offset + min(limit, self.page or limit)])

    def _send(self, handler: BaseHTTPRequestHandler, held: list[tuple[bytes, Dataset]]) -> None:
        pieces = [(self._head(content), content, str(head.SOPInstanceUID)) for content, head in held]
        size = sum(len(head) + len(content) for head, content, _ in pieces) + len(BOUNDARY) + 8
        cut = self.cuts.pop(0) if self.cuts else size
        handler.send_response(200)
        named = "other" if self.wrong == "boundary" else BOUNDARY.decode()
        handler.send_header("Content-Type", f'multipart/related; type="application/dicom"; boundary={named}')
        if self.with_length and self.wrong not in ("endless", "large"):
            handler.send_header("Content-Length", str(size))
        handler.end_headers()
        handler.close_connection = True
        left = cut
        for head, content, uid in pieces:
            for piece in (head, content):
                handler.wfile.write(piece[:left])
                left = max(0, left - len(piece))
            if left < len(BOUNDARY) + 6:  # nobody can tell that it is whole before the next delimiter
                handler.wfile.write(self._head(b"")[:left])
                return
            self.sent[uid] += 1
        for piece in self._endless():
            try:
                handler.wfile.write(piece)
            except OSError:
                return
        handler.wfile.write((b"\r\n--" + BOUNDARY + b"--\r\n\r\n")[:left])

    def _head(self, content: bytes) -> bytes:
        return b"\r\n--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n"

    def _endless(self) -> Iterator[bytes]:
        while self.wrong == "endless":
            yield self._head(b"") + self.held[0][0]
        while self.wrong == "large":
            yield bytes(65_536)
        while self.wrong == "slow":
            time.sleep(0.05)
            yield b"."

    def _json(self, handler: BaseHTTPRequestHandler, told: object) -> None:
        body = self.body or json.dumps(told).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/dicom+json")
        if self.shares and (share := self.shares.pop(0)) < 1:
            part = body[: int(len(body) * share)]
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write((b"%x\r\n%s\r\n" % (len(part), part) if part else b"") + b"0\r\n\r\n")
            return
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        slow = self.wrong == "slow" and self.body != b""
        for piece in [bytes([each]) for each in body] if slow else [body]:
            time.sleep(0.05 if slow else 0)
            try:
                handler.wfile.write(piece)
            except OSError:
                return

    def _empty(self, handler: BaseHTTPRequestHandler, status: int, fields: dict[str, str] | None = None) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": "0", **(fields or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()

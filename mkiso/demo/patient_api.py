"""A hospital's patient-data API to try mkiso with: GET /patients/by-accession/{accession number} answers JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from mkiso.demo.library import holding

PREFIX = "/patients/by-accession/"


@dataclass(frozen=True)
class Faults:
    """How it misbehaves: `status` answers everything with this status, for the first `times` requests where given;
    `pause_seconds` before each answer; `redirect_to` sends everybody elsewhere; `drop` closes the connection without a
    word.
    """

    status: int = 0
    times: int | None = None
    pause_seconds: float = 0
    redirect_to: str = ""
    drop: bool = False


@dataclass
class DemoPatientApi:
    """`patients` maps an accession number to the JSON it is answered with. A context manager; `asked` lists the paths
    that were asked for.
    """

    patients: Mapping[str, Mapping[str, Any]]
    host: str = "127.0.0.1"
    port: int = 0
    faults: Faults = Faults()
    asked: list[str] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self) -> Self:
        """Listen; with `port` 0 on a free port, which stands in `port` afterwards."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.answer(self)

            do_HEAD = do_GET  # noqa: N815  the name that http.server calls

            def log_message(self, format: str, *args: Any) -> None:
                """Patients' accession numbers are nobody's business on a terminal."""

        self._server = ThreadingHTTPServer((self.host, self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="demo-patient-api", daemon=True
        ).start()
        return self

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request, or misbehave as told."""
        self.asked.append(request.path)
        time.sleep(self.faults.pause_seconds)
        if self.faults.drop:
            return
        if self.faults.redirect_to:
            request.send_response(302)
            request.send_header("Location", self.faults.redirect_to)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        patient = (
            self.patients.get(unquote(request.path.removeprefix(PREFIX))) if request.path.startswith(PREFIX) else None
        )
        status = 200 if patient else 404
        if self.faults.status and (self.faults.times is None or len(self.asked) <= self.faults.times):
            status = self.faults.status
        body = json.dumps(patient if status == 200 else {"error": "no such patient"}).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def patients_of(files: Iterable[Path]) -> dict[str, dict[str, str]]:
    """The patient of each accession number in these files; of two that share one, the first."""
    patients: dict[str, dict[str, str]] = {}
    for header in (holding(path).header for path in files):
        members = {"hn": "PatientID", "name": "PatientName", "birth_date": "PatientBirthDate", "sex": "PatientSex"}
        patients.setdefault(
            header.AccessionNumber, {member: str(header.get(keyword) or "") for member, keyword in members.items()}
        )
    return patients

"""A hospital's patient-data API to try mkiso with: GET /patients/by-accession/{accession number} answers JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import unquote

from mkiso.demo.library import holding

PREFIX = "/patients/by-accession/"


@dataclass
class DemoPatientApi:
    """`patients` maps an accession number to the JSON it is answered with. A context manager; with `port` 0 it
    listens on a free one, which stands in `port` afterwards.
    """

    patients: Mapping[str, Mapping[str, Any]]
    host: str = "127.0.0.1"
    port: int = 0

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def __enter__(self) -> Self:
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
        """Answer one request."""
        patient = (
            self.patients.get(unquote(request.path.removeprefix(PREFIX))) if request.path.startswith(PREFIX) else None
        )
        status = 200 if patient else 404
        body = json.dumps(patient if status == 200 else {"error": "no such patient"}).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def patients_of(files: Iterable[Path]) -> dict[str, dict[str, str]]:
    """The patient of each accession number in these files; of two that share one, the first."""
    patients: dict[str, dict[str, str]] = {}
    for header in (holding(path).header for path in files):
        members = {"hn": "PatientID", "name": "PatientName", "birth_date": "PatientBirthDate", "sex": "PatientSex"}
        patients.setdefault(
            header.AccessionNumber, {member: str(header.get(keyword) or "") for member, keyword in members.items()}
        )
    return patients

"""A search that selects 100,000 studies: as many are told as a person looks through, it says that there are more, and
it takes no more memory than a small one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydicom import Dataset

from mkiso.sources.search import MAX_STUDIES
from peers.scripted_pacs import Peer, ScriptedPacs

pytestmark = pytest.mark.peer
MANY = 100_000
MOST_GROWN_KIB = 16 * 1024
"""A third of what 100,000 answers have in bytes alone."""
SEARCH = """
import json, resource, sys
from mkiso.config.settings import Settings
from mkiso.sources.registry import sources_of
from mkiso.sources.search import Criteria
from mkiso.sources.several import search_everywhere

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

few, many = (sources_of(Settings.model_validate({"pacs": pacs})) for pacs in json.loads(sys.argv[1]))
search_everywhere(few, Criteria(study_date="20240229"))
before = peak()
hits, down = search_everywhere(many, Criteria(study_date="20240229"))
print(json.dumps([len(hits.studies), hits.cut, len(down), peak() - before]))
"""


class CrowdedPacs(ScriptedPacs):
    """Answers every question with so many studies of one day; `told` counts what it could send."""

    def __init__(self, studies: int) -> None:
        super().__init__([])
        self.studies, self.told = studies, 0

    def _find(self, peer: Peer, command: Dataset, identifier: Dataset) -> None:
        for number in range(self.studies):
            answer = Dataset()
            answer.QueryRetrieveLevel, answer.StudyDate, answer.PatientID = "STUDY", "20240229", f"P{number}"
            answer.StudyInstanceUID, answer.AccessionNumber = f"1.2.3.{number}", f"A{number}"
            answer.StudyDescription = "A description as it may be " * 10
            peer.respond(command, 0xFF00, answer)
            self.told += 1
        peer.respond(command, 0x0000)


@contextmanager
def crowded_web(studies: int, *, heeds_limit: bool) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """The same by QIDO-RS: its settings, and how many it has sent."""
    told: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            first, limit = (int(asked[name][0]) for name in ("offset", "limit"))
            last = min(first + limit, studies) if heeds_limit else studies
            self.send_response(200)
            self.send_header("Content-Type", "application/dicom+json")
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(b"[")
                for number in range(first if heeds_limit else 0, last):
                    values = {"00080020": "20240229", "00100020": f"P{number}", "0020000D": f"1.2.3.{number}"}
                    values["00081030"] = "A description as it may be " * 10
                    study = {tag: {"vr": "LO", "Value": [value]} for tag, value in values.items()}
                    self.wfile.write(json.dumps(study).encode() + (b"," if number + 1 < last else b""))
                    told.append(number)
                self.wfile.write(b"]")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield {"kind": "dicomweb", "base_url": f"http://127.0.0.1:{server.server_address[1]}/dicom-web"}, told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def searched(few: dict[str, Any], many: dict[str, Any]) -> tuple[int, bool, int]:
    """In a process of its own: how many studies are told, whether more are said to be, and how much the peak of its
    memory (KiB) grew beyond that of a small search.
    """
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, json.dumps([few, many])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    studies, cut, down, grown = json.loads(done.stdout)
    assert down == 0
    return studies, cut, grown


def test_by_c_find() -> None:
    def settings_of(pacs: ScriptedPacs) -> dict[str, Any]:
        return {"kind": "cmove", "ae_title": pacs.ae_title, "port": pacs.port}

    with CrowdedPacs(MAX_STUDIES) as small, CrowdedPacs(MANY) as large:
        studies, cut, grown = searched(settings_of(small), settings_of(large))
        assert searched(settings_of(large), settings_of(small))[:2] == (MAX_STUDIES, False)
    assert (studies, cut) == (MAX_STUDIES, True)
    assert MAX_STUDIES < large.told < MANY
    assert grown < MOST_GROWN_KIB


@pytest.mark.parametrize("heeds_limit", [True, False])
def test_by_qido_rs(heeds_limit: bool) -> None:
    with crowded_web(MAX_STUDIES, heeds_limit=True) as (few, _), crowded_web(MANY, heeds_limit=heeds_limit) as large:
        many, told = large
        studies, cut, grown = searched(few, many)
        assert searched(many, few)[:2] == (MAX_STUDIES, False)
    assert (studies, cut) == (MAX_STUDIES, True)
    assert len(told) == 2 * (MAX_STUDIES + 1) if heeds_limit else MAX_STUDIES < len(told) < MANY
    assert grown < MOST_GROWN_KIB

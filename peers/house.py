"""One mkiso, its PACS, and a network between them that is in the test's hands.

Every patient here is a canary: the last scenario looks for their names, birth dates and IDs, and for the API key, where
they must not be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from peers.corpus import Person, make_ct_series, make_study, ramp
from peers.dcmqrscp import Dcmqrscp
from peers.discs import assert_holds_exactly, extract
from peers.link import Link
from peers.orthanc import Orthanc
from peers.patience import LONG
from peers.patient_api import ScriptedPatientApi
from peers.ports import free_port
from peers.scripted_pacs import Script, ScriptedPacs
from peers.service import AE_TITLE, Service
from peers.standing import Standing, standing_of

CANARY = Person("CANARYID7391", "Zzcanary^Wilhelmina", birth_date="19310517", sex="F")
THAI_CANARY = Person("CANARYID7392", "นกขมิ้น^เหลืองอ่อน", birth_date="19320618", sex="M", character_set="ISO_IR 166")
KEY = "canary-key-5f1c9e"
PACS_AE = "ABPACS"
SLICES = 40


@dataclass
class House:
    """`link` leads from mkiso to the PACS, `back` from the PACS to the receiver; `others` are the peers that `ask` can
    be led to.
    """

    service: Service
    link: Link
    back: Link
    patient_api: ScriptedPatientApi
    pacs: dict[str, Dcmqrscp | Orthanc]
    studies: dict[str, list[Path]]
    scripted: ScriptedPacs
    warm: dict[str, Standing] = field(default_factory=dict)

    def ask_of(self, name: str) -> None:
        """Lead mkiso to this PACS: orthanc, asynchronous, dcmqrscp, stranger (which doesn't know us), scripted."""
        self.link.target = self.scripted.port if name == "scripted" else self.pacs[name].port

    def play(self, accession_number: str, *scripts: Script) -> ScriptedPacs:
        """A scripted PACS that has this study and answers its C-MOVEs so; the last script is repeated."""
        self.scripted.files, self.scripted.scripts = list(self.studies[accession_number]), list(scripts)
        self.scripted.moves.clear()
        self.scripted.finds.clear()
        self.ask_of("scripted")
        return self.scripted

    def shelf(self) -> set[str]:
        """Everything below the data folder that is, or could become, a disc or an instance of one."""
        data_dir = self.service.data_dir
        return {
            str(path.relative_to(data_dir))
            for folder in ("discs", "jobs", "incoming", "volumes")
            for path in (data_dir / folder).rglob("*")
            if folder != "discs" or path.relative_to(data_dir / folder).parts[0] not in ("jobs", "orders")
        }

    def refused(self, accession_number: str, status: int, code: str, words: str) -> dict[str, Any]:
        """Ask, and hold everything to "fail closed": the answer, the run in Prefect, the disk. Returns the answer's
        body.
        """
        shelf = self.shelf()
        answer = self.service.download(accession_number)
        body = dict(answer.json())
        assert (answer.status_code, body["code"]) == (status, code), body
        assert answer.headers["content-type"] == "application/json"
        assert re.search(words, body["error"]), body["error"]
        run = self.service.run_ended(body["job_id"])
        assert (run["state_type"], run["state"]["message"]) == ("FAILED", f"{body['error']} [{body['code']}]")
        assert self.service.job(body["job_id"])["error"]["code"] == code
        assert self.shelf() == shelf, "something of a failed job was kept"
        return body

    def disc(self, accession_number: str, folder: Path) -> httpx.Response:
        """Ask, and hold the disc to exactly the study; the run ended well."""
        answer = self.service.download(accession_number)
        assert answer.status_code == 200, answer.text
        folder.mkdir(exist_ok=True, parents=True)
        (folder / "disc.iso").write_bytes(answer.content)
        assert_holds_exactly(extract(folder / "disc.iso", folder / "extracted"), self.studies[accession_number])
        return answer

    def standing(self) -> dict[str, Standing]:
        return {name: standing_of(process) for name, process in self.service.processes().items() if name != "prefect"}


@contextmanager
def open_house(folder: Path, *, warm: bool = False) -> Iterator[House]:
    """Everything started, and ended after the `with`."""
    studies = {
        "GOOD1": make_study(folder / "s", "GOOD1", patient=CANARY),
        "THAI1": make_study(folder / "s", "THAI1", patient=THAI_CANARY, kinds={"ct": 2, "sr": 1}),
        "THAI2": make_study(folder / "s", "THAI2", patient=THAI_CANARY, kinds={"mr": 1}),
        "JPEG1": make_study(
            folder / "s",
            "JPEG1",
            patient=CANARY,
            kinds={"jpeg_2000": 1, "jpeg_ls": 1, "jpeg": 1, "rle": 1, "deflated": 1},
        ),
        "MANY1": make_ct_series(folder / "s", "MANY1", SLICES, patient=CANARY, pixels=ramp(512)),
        "TWO1": make_study(folder / "a", "TWO1", patient=CANARY)
        + make_study(folder / "b", "TWO1", patient=THAI_CANARY),
    }
    files = [file for study in studies.values() for file in study]
    receiver_port = free_port()
    with ExitStack() as stack:
        link, back = stack.enter_context(Link()), stack.enter_context(Link(receiver_port))
        known = {AE_TITLE: ("127.0.0.1", back.port)}
        pacs: dict[str, Dcmqrscp | Orthanc] = {
            "orthanc": stack.enter_context(Orthanc(folder / "orthanc", destinations=known)),
            "asynchronous": stack.enter_context(
                Orthanc(folder / "asynchronous", destinations=known, synchronous=False)
            ),
            "dcmqrscp": stack.enter_context(Dcmqrscp(folder / "dcmqrscp", files, destinations=known)),
            "stranger": stack.enter_context(
                Dcmqrscp(folder / "stranger", files, destinations={"ANOTHER": ("127.0.0.1", back.port)})
            ),
        }
        for peer in pacs.values():
            if isinstance(peer, Orthanc):
                peer.store(files)
        patient_api = stack.enter_context(ScriptedPatientApi())
        scripted = stack.enter_context(ScriptedPacs([], [], back.port))
        link.target = pacs["orthanc"].port
        sections: dict[str, dict[str, Any]] = {
            "auth": {"enabled": True, "api_key": KEY},
            "disc": {"reuse_minutes": 0, "institution": "Test Hospital"},
            "pacs": {"quiet_timeout_seconds": 1, "response_timeout_seconds": 3},
            "receiver": {"pdu_timeout_seconds": 5, "idle_timeout_seconds": 10 * LONG},
            "patient_api": {"base_url": patient_api.url, "timeout_seconds": 1, "retries": 1},
            "storage": {"keep_failed_hours": 0},
            "audit": {"enabled": True, "patient_names": False},
        }
        service = Service(folder / "mkiso", (PACS_AE, link.port), sections, receiver_port=receiver_port, warm=warm)
        service.environment["TMPDIR"] = str(_made(folder / "tmp"))
        service.http.headers["X-API-Key"] = KEY
        stack.enter_context(service)
        yield House(service, link, back, patient_api, pacs, studies, scripted)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder

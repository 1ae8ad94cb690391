"""Orthanc as a PACS: answers C-FIND, obeys C-MOVE, and gives back each file as it lies in its store, for comparison
byte by byte.

What was seen with Orthanc 1.12.7 and is relied on: files that come over REST are stored as they are; with transcoding
off each is sent in its own transfer syntax, Big Endian and Deflated ones too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx

from peers.patience import LONG
from peers.ports import free_port
from peers.process import Process

PROGRAM = shutil.which("Orthanc") or "/usr/sbin/Orthanc"


class Orthanc(Process):
    """`destinations` maps an AE title that C-MOVE may name to its (host, port). `options` are Orthanc's own keys and
    win.

    `synchronous` False: it answers Success before it has sent anything (SynchronousCMove).
    """

    def __init__(
        self,
        folder: Path,
        *,
        destinations: Mapping[str, tuple[str, int]] | None = None,
        ae_title: str = "ORTHANC",
        synchronous: bool = True,
        transcode: bool = False,
        verbose: bool = True,
        options: Mapping[str, Any] | None = None,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.ae_title = ae_title
        self.http_port = free_port()
        self.storage = folder / "storage"
        port = free_port()
        configuration = {
            "Name": "test",
            "StorageDirectory": str(self.storage),
            "IndexDirectory": str(self.storage),
            "TemporaryDirectory": str(folder),
            "Plugins": [],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": ae_title,
            "DicomPort": port,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowMove": True,
            "DicomAlwaysAllowStore": True,
            "UnknownSopClassAccepted": True,
            "TranscodeDicomProtocol": transcode,
            "SynchronousCMove": synchronous,
            "DicomAssociationCloseDelay": 0,
            "StorageAccessOnFind": "Always",
            "OverwriteInstances": False,
            "ConcurrentJobs": 4,
            "DicomModalities": {name: _modality(name, host, at) for name, (host, at) in (destinations or {}).items()},
            **(options or {}),
        }
        file = folder / "orthanc.json"
        file.write_text(json.dumps(configuration, indent=1))
        super().__init__([PROGRAM, *(["--verbose"] if verbose else []), file], folder / "orthanc.log", port=port)
        # Orthanc closes a connection that was idle for a second, maybe while the next request is on its way: each has
        # its own.
        once = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.http_port}", timeout=LONG, trust_env=False, limits=once
        )

    @property
    def is_old(self) -> bool:
        """Whether it is that of Debian 12 (1.10)."""
        return str(self.http.get("/system").json()["Version"]).startswith("1.10.")

    def is_ready(self) -> bool:
        try:
            return super().is_ready() and self.http.get("/system").is_success
        except httpx.TransportError:
            return False

    def __exit__(self, *exc: object) -> None:
        """By force: its own way to end takes seconds, and nobody needs what it would still write."""
        self.kill()

    def know(self, ae_title: str, host: str, port: int) -> None:
        """Add or change a C-MOVE destination while it runs."""
        self.http.put(f"/modalities/{ae_title}", json=_modality(ae_title, host, port)).raise_for_status()

    def forget(self, ae_title: str) -> None:
        """Remove a C-MOVE destination while it runs."""
        self.http.delete(f"/modalities/{ae_title}").raise_for_status()

    def store(self, files: Iterable[Path]) -> None:
        """Take files in as they are, over REST."""
        for file in files:
            answer = self.http.post(
                "/instances", content=file.read_bytes(), headers={"Content-Type": "application/dicom"}
            )
            answer.raise_for_status()
            if answer.json()["Status"] not in ("Success", "AlreadyStored"):
                raise RuntimeError(f"Orthanc refused {file.name}: {answer.text}")

    def instances(self, accession_number: str) -> dict[str, str]:
        """Maps each SOP Instance UID of this accession number to Orthanc's own id."""
        query = {
            "Level": "Instance",
            "Query": {"AccessionNumber": accession_number},
            "Expand": True,
            "CaseSensitive": True,
        }
        found = self.http.post("/tools/find", json=query).raise_for_status().json()
        return {entry["MainDicomTags"]["SOPInstanceUID"]: entry["ID"] for entry in found}

    def files(self, accession_number: str) -> dict[str, bytes]:
        """Maps each SOP Instance UID of this accession number to its Part 10 file as stored."""
        return {
            uid: self.http.get(f"/instances/{own}/file").raise_for_status().content
            for uid, own in self.instances(accession_number).items()
        }

    def remove(self, sop_instance_uid: str) -> None:
        """Remove one instance."""
        own = self.http.post("/tools/lookup", content=sop_instance_uid).raise_for_status().json()
        self.http.delete(f"/instances/{own[0]['ID']}").raise_for_status()

    def lose(self, sop_instance_uid: str) -> None:
        """Lose the file of one instance, which is still listed. With MaximumStorageCacheSize 0 it is gone at once."""
        own = self.http.post("/tools/lookup", content=sop_instance_uid).raise_for_status().json()
        told = self.http.get(f"/instances/{own[0]['ID']}/attachments/dicom/info").raise_for_status().json()
        (self.storage / told["Uuid"][:2] / told["Uuid"][2:4] / told["Uuid"]).unlink()


def _modality(ae_title: str, host: str, port: int) -> dict[str, Any]:
    return {"AET": ae_title, "Host": host, "Port": port}

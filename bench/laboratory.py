"""Where rows are measured: a folder on disk, the studies, and Orthanc as the PACS that has them; all of it gone at the
end.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

from bench.machine import Say, touch_memory, wait_for_inodes
from bench.samples import Sample
from bench.studies import Studies, StudyFiles
from peers.orthanc import Orthanc
from peers.service import AE_TITLE, Service

UPLOAD_FILES = 200  # in one archive to Orthanc, which takes it 3 times faster than file by file


def upload(orthanc: Orthanc, study: StudyFiles) -> None:
    """Have Orthanc store a study."""
    for start in range(0, len(study.files), UPLOAD_FILES):
        archive = BytesIO()
        with ZipFile(archive, "w", ZIP_STORED) as file:
            for path in study.files[start : start + UPLOAD_FILES]:
                file.write(path, path.name)
        orthanc.http.post("/instances", content=archive.getvalue(), timeout=300).raise_for_status()


class Laboratory:
    """`runs` is how often each thing is measured. `full`: storescp as it comes gets whole studies, not parts."""

    def __init__(self, runs: int, *, full: bool, say: Say) -> None:
        self.runs = runs
        self.full = full
        self.say = say
        self._stack = ExitStack()
        self._stored: set[str] = set()
        self.moved_as_it_comes: dict[
            str, Sample
        ] = {}  # Orthanc to storescp, by study: measured once for the rows that need it
        self._numbers = iter(range(1_000_000))

    def __enter__(self) -> Laboratory:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mkiso-bench-")))
        self.studies = Studies(self.folder / "studies")
        touch_memory(self.say)
        wait_for_inodes(self.new_folder, self.say)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def new_folder(self, name: str) -> Path:
        """A folder that nobody has used."""
        folder = self.folder / f"{name}-{next(self._numbers)}"
        folder.mkdir()
        return folder

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A folder for one measurement. Its files are emptied after it and go at the very end.

        ext4 takes no inode again that was freed within the last minutes, and looks at each of them for every new file:
        a thousand files deleted here would make each file of the next run 0.05 ms slower.
        """
        folder = self.new_folder(name)
        try:
            yield folder
        finally:
            for file in folder.rglob("*"):
                if file.is_file() and not file.is_symlink() and file.stat().st_nlink == 1:
                    os.truncate(file, 0)

    @cached_property
    def orthanc(self) -> Orthanc:
        """Unmodified, as it comes from its package."""
        return self._stack.enter_context(
            Orthanc(self.new_folder("orthanc"), verbose=False, options={"SyncStorageArea": False})
        )

    def stored(self, name: str) -> StudyFiles:
        """A study that Orthanc has."""
        study = self.studies.get(name)
        if name not in self._stored:
            self.say(f"storing {name} in Orthanc")
            upload(self.orthanc, study)
            self._stored.add(name)
        return study

    def dismiss(self, name: str) -> None:
        """Free the room of a study that no further row needs, in Orthanc too."""
        study = self.studies.get(name)
        if name in self._stored:
            own = self.orthanc.http.post("/tools/lookup", content=study.study_instance_uid).raise_for_status().json()
            self.orthanc.http.delete(f"/studies/{own[0]['ID']}", timeout=300).raise_for_status()
            self._stored.discard(name)
        self.studies.forget(name)

    @cached_property
    def service(self) -> Service:
        """`mkiso serve` with its defaults, but for what a benchmark can't do without: no disc is served a second time,
        none is too large.
        """
        service = self._service()
        self._stack.enter_context(service)
        self.orthanc.know(AE_TITLE, "127.0.0.1", service.receiver_port)
        return service

    @contextmanager
    def serving(self, **disc: Any) -> Iterator[Service]:
        """A service as `service`, with other settings of its discs. Orthanc sends to it, and to `service` after the
        `with`.
        """
        with self._service(**disc) as service:
            self.sends_to(service)
            try:
                yield service
            finally:
                self.sends_to(self.service)

    def sends_to(self, service: Service) -> None:
        """From now on Orthanc sends what is asked of it to this one."""
        self.orthanc.know(AE_TITLE, "127.0.0.1", service.receiver_port)

    def _service(self, **disc: Any) -> Service:
        sections: dict[str, dict[str, Any]] = {
            "server": {"request_timeout_seconds": 900},
            "disc": {"reuse_minutes": 0, "medium": "bd", **disc},
            "pacs": {"response_timeout_seconds": 60, "quiet_timeout_seconds": 60},
        }
        service = Service(self.new_folder("mkiso"), (self.orthanc.ae_title, self.orthanc.port), sections)
        service.ready_seconds = 180
        return service


class Receiver(Service):
    """`mkiso receiver`, without the rest of the service."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ("NOBODY", 9))
        self.command[-1] = "receiver"
        self.port = self.receiver_port

    def is_ready(self) -> bool:
        return super(Service, self).is_ready()

"""dcmtk's dcmqrscp as a PACS. Files are indexed where they lie, so that nothing is changed on their way in.

What was seen with dcmtk 3.6.9 and is relied on: it picks a file's presentation context by its SOP class alone, so two
syntaxes of one class are converted or fail (the corpus gives each syntax a class of its own); it writes sequences with
explicit lengths, as the corpus does. So what it sends equals the file in every byte of the dataset.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from peers.dcmtk import OWN, QUERIES, write_profiles
from peers.ports import free_port
from peers.process import Process


class Dcmqrscp(Process):
    """`destinations` maps an AE title that C-MOVE may name to its (host, port). `files` are what it holds; they are
    copied.

    `nodelay`: TCP_NODELAY=1 in its environment; without it Nagle's algorithm costs about 40 ms an instance.
    `profiled` False: it takes storage contexts too, uncompressed ones, as C-GET wants them.
    """

    def __init__(
        self,
        folder: Path,
        files: Iterable[Path],
        *,
        destinations: Mapping[str, tuple[str, int]] | None = None,
        ae_title: str = "ABPACS",
        nodelay: bool = True,
        profiled: bool = True,
        options: Sequence[str] = (),
    ):
        self.ae_title = ae_title
        self.storage = folder / "storage"
        self.storage.mkdir(parents=True)
        port = free_port()
        hosts = "".join(
            f"host{number} = ({name}, {host}, {at})\n"
            for number, (name, (host, at)) in enumerate((destinations or {}).items())
        )
        configuration = folder / "dcmqrscp.cfg"
        configuration.write_text(
            f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 32\n"
            f"HostTable BEGIN\n{hosts}HostTable END\nVendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{ae_title} {self.storage} RW (5000, 8192mb) ANY\nAETable END\n"
        )
        copies = [Path(shutil.copy(file, self.storage / f"{number:06}")) for number, file in enumerate(files)]
        self.index(copies)
        profiles = write_profiles(folder / "profiles.cfg", copies)
        profile: list[str | Path] = ["-xf", profiles, QUERIES, OWN] if profiled else []
        command: list[str | Path] = ["dcmqrscp", "-v", "-c", configuration, *profile, *options]
        super().__init__(
            command, folder / "dcmqrscp.log", port=port, environment={"TCP_NODELAY": "1" if nodelay else "0"}
        )

    def index(self, files: Sequence[Path]) -> None:
        """Register files of its storage area."""
        for start in range(0, len(files), 500):
            subprocess.run(["dcmqridx", self.storage, *files[start : start + 500]], check=True, capture_output=True)

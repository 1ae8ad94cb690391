"""dcmtk's storescu: a sender that knows nothing of mkiso."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from peers.dcmtk import OWN, write_profiles
from peers.patience import LONG


def store(
    port: int,
    files: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    calling: str = "STORESCU",
    called: str = "CDRECORD",
    nodelay: bool = True,
    options: Sequence[str] = (),
    timeout_seconds: float = LONG,
) -> subprocess.CompletedProcess[str]:
    """Send files in one association, each in its own transfer syntax; returncode 0 where all were stored; its words are
    in stdout and stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        profile = write_profiles(Path(folder) / "profile.cfg", files)
        command: list[str | Path] = [
            "storescu",
            "-v",
            "-aet",
            calling,
            "-aec",
            called,
            "-xf",
            profile,
            OWN,
            *options,
            host,
            str(port),
            *files,
        ]
        environment = {**os.environ, "TCP_NODELAY": "1" if nodelay else "0"}
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, timeout=timeout_seconds
        )

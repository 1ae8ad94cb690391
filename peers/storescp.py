"""dcmtk's storescp: a plain Storage SCP, as a disc publisher or as the reference receiver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peers.ports import free_port
from peers.process import Process

EVERYTHING = ("-pm", "+xa", "+B", "-pdu", "131072")


class Storescp(Process):
    """Accepts every class and syntax unless `options` say otherwise, and writes what comes as it comes into
    `received`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "RIMAGE",
        nodelay: bool = True,
        options: Sequence[str] = EVERYTHING,
        port: int = 0,
    ):
        self.ae_title = ae_title
        self.received = folder / "received"
        self.received.mkdir(parents=True)
        port = port or free_port()
        command: list[str | Path] = ["storescp", "-v", "-aet", ae_title, "-od", self.received, *options, str(port)]
        super().__init__(
            command, folder / "storescp.log", port=port, environment={"TCP_NODELAY": "1" if nodelay else "0"}
        )

    def files(self) -> list[Path]:
        """What arrived so far, in the order of names."""
        return sorted(path for path in self.received.iterdir() if path.is_file())

"""A command of mkiso that a test watches and ends, without the seconds of its imports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from peers.nursery import nursery
from peers.process import Child, Process


class Warm(Process):
    """A fork of what has imported all (peers/nursery.py), not an interpreter of its own."""

    def __init__(
        self, arguments: Sequence[str], log: Path, *, port: int = 0, environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(["mkiso", *arguments], log, port=port, environment=environment)

    def begin(self) -> Child:
        self.log_file.touch()
        return nursery.start(self.command[1:], self.environment, self.log_file)

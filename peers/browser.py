"""A browser without a window, driven over a web socket: keys as a person types them, the page as a person sees it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import axe_core_python
from websockets.sync.client import ClientConnection, connect

from peers.patience import LONG, until

AXE = Path(axe_core_python.__file__).parent / "axe.min.js"
Point = tuple[float, float]


class Browser(ABC):
    """One browser with one page; a context manager that leaves no process behind. `events` holds what the browser told
    unasked. Points are in pixels of the page.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._options = options
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        self._profile = folder / "profile"
        self._profile.mkdir()
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            self._socket: ClientConnection = connect(
                self._address(), max_size=None, proxy=None, ping_interval=None, open_timeout=LONG
            )
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()
        self._end()

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """One command and its answer."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=LONG))
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    def told(self, method: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [event["params"] for event in self.events if event.get("method") == method]

    @abstractmethod
    def open(self, address: str) -> None: ...

    @abstractmethod
    def run(self, script: str) -> Any:
        """The value of a script in the page."""

    @abstractmethod
    def size(self, width: int, height: int) -> None:
        """Of the page as it is seen; a narrow one is a phone's."""

    @abstractmethod
    def type(self, text: str) -> None: ...

    @abstractmethod
    def press(self, key: str, *, shift: bool = False) -> None: ...

    @abstractmethod
    def wheel(self, at: Point, down: int) -> None: ...

    @abstractmethod
    def drag(self, path: Sequence[Point]) -> None:
        """Press the mouse at the first point, move over the others, and let go."""

    @abstractmethod
    def touch(self, *fingers: Sequence[Point]) -> None:
        """Each finger is set down at its first point, moved over the others, all at once, and lifted."""

    @abstractmethod
    def picture(self, file: Path) -> None:
        """Of the page, as a PNG."""

    @abstractmethod
    def complaints(self) -> list[str]:
        """What a developer would see in red: refused by the policy, thrown by a script."""

    @abstractmethod
    def asked(self) -> list[str]:
        """Every address that the browser asked for."""

    def violations(self) -> list[str]:
        """What axe has to say of the page as it is, which refreshes itself no more: rule and element of each."""
        if not self.run("'axe' in window"):
            self.run(f"{AXE.read_text(encoding='utf-8')}\n;0")
        asked = "axe.run({ resultTypes: ['violations'] })"
        told = f"window.stop(); {asked}.then((all) => all.violations.map((each) => each.id + each.nodes[0].html))"
        return list(self.run(told))

    def until(self, script: str) -> None:
        until(lambda: self.run(script), pause=0.05)

    def until_ready(self, focused: str) -> None:
        """Until the page's scripts run and the element of this id has the focus, as a person would wait before
        typing.
        """
        self.until(f"document.readyState === 'complete' && document.activeElement.id === {focused!r}")

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _address(self) -> str:
        """Of the web socket, once the browser listens."""

    @abstractmethod
    def _begin(self) -> None:
        """Right after connecting."""

    def _end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # its own session: the browser and its children, nobody else
        self._process.wait(LONG)

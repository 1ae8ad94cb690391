"""Simulated robots that watch a folder, each with the tickets and status files of its vendor; they burn by copying, and
fail on request.

with EpsonRobot(folder, fault="disc out") as robot:
    ... robot.made
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path, PureWindowsPath
from types import TracebackType
from typing import ClassVar, Literal, Self

Fault = Literal["", "refuse", "fail", "disc out", "silent", "dead"]
"""refuse: the ticket isn't taken; fail: the burn fails; disc out: it pauses for ever; silent: it takes the ticket and
says no more; dead: its service doesn't run.
"""


class FolderRobot(ABC):
    """Watches `folder`; what it burnt lies in `discs` as <order id>-<copy>.iso; `made` lists the order ids, one a copy,
    `stopped` the cancelled.

    `step_seconds` is how long a state lasts. `root` is how its own machine names the folder.
    """

    ticket_suffix: ClassVar[str]
    cancel_suffix: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path, fault: Fault = "", step_seconds: float = 0.3, root: str = "") -> None:
        self.folder = folder
        self.discs = folder.parent / f"{folder.name}-discs"
        self.fault = fault
        self.step_seconds = step_seconds
        self.root = root
        self.made: list[str] = []
        self.stopped: list[str] = []
        self.tickets: dict[str, str] = {}
        self.jobs: dict[str, str] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.discs.mkdir(parents=True, exist_ok=True)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self.run, daemon=True)

    @abstractmethod
    def read(self, ticket: str) -> tuple[str, int]:
        """The image and the number of copies that a ticket asks for."""

    @abstractmethod
    def tell(self, order_id: str, state: str, words: str = "") -> None:
        """Rename the ticket and write the status: state is taken, running, paused, done, failed, refused or stopped."""

    def beat(self) -> None:
        """What the service does at each turn while it lives; this one leaves no sign of life."""
        return

    def run(self) -> None:
        """Serve until stopped, one ticket after another."""
        while not self._stopped.is_set():
            if self.fault != "dead":
                self.beat()
                for ticket in sorted(self.folder.glob(f"*{self.ticket_suffix}")):
                    self._serve(ticket)
            self._stopped.wait(0.05)

    def _serve(self, ticket: Path) -> None:
        order_id, text = ticket.stem, ticket.read_text(encoding="cp1252")
        self.tickets[order_id] = text
        if self.fault == "refuse":
            self.tell(order_id, "refused", "ticket not accepted")
            return
        image, copies = self.read(text)
        self.tell(order_id, "taken")
        if self.fault == "silent" or self._cancelled(order_id):
            return
        self.tell(order_id, "running")
        if self._cancelled(order_id):
            return
        if self.fault == "disc out":
            self.tell(order_id, "paused", "no blank disc in the stacker")
            while not self._cancelled(order_id) and self.fault == "disc out" and not self._stopped.is_set():
                self.beat()
            if order_id in self.stopped:
                return
        if self.fault == "fail":
            self.tell(order_id, "failed", "write error")
            return
        for copy in range(1, copies + 1):
            shutil.copyfile(self.here(image), self.discs / f"{order_id}-{copy}.iso")
            self.made.append(order_id)
        self.tell(order_id, "done")

    def _cancelled(self, order_id: str) -> bool:
        """Wait for a step, and whether a cancel file came meanwhile."""
        deadline = time.monotonic() + self.step_seconds
        while time.monotonic() < deadline and not self._stopped.is_set():
            cancel = self.folder / f"{order_id}{self.cancel_suffix}"
            if self.cancel_suffix and cancel.exists():
                cancel.unlink()
                self.stopped.append(order_id)
                self.tell(order_id, "stopped", "cancelled by the client")
                return True
            time.sleep(0.02)
        return False

    def here(self, image: str) -> Path:
        """An image that a ticket names as the robot's machine does."""
        if not self.root:
            return Path(image)
        return self.folder.joinpath(*PureWindowsPath(image).relative_to(PureWindowsPath(self.root)).parts)

    def rename(self, order_id: str, suffix: str) -> None:
        """Give the ticket its next suffix."""
        for file in self.folder.glob(f"{order_id}.*"):
            if file.suffix in (*self.suffixes, self.ticket_suffix):
                file.rename(file.with_suffix(suffix))
                return

    def __enter__(self) -> Self:
        if self.fault != "dead":
            self.beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()


class EpsonRobot(FolderRobot):
    """A Discproducer behind Total Disc Bridge."""

    ticket_suffix = ".JDF"
    cancel_suffix = ".JCF"
    suffixes = (".RJD", ".INP", ".DON", ".ERR", ".STP")
    _numbers: ClassVar[dict[str, int]] = {
        "taken": 1,
        "running": 2,
        "paused": 3,
        "done": 4,
        "failed": 5,
        "refused": 6,
        "stopped": 5,
    }
    _suffixes: ClassVar[dict[str, str]] = {
        "taken": ".RJD",
        "running": ".INP",
        "paused": ".INP",
        "done": ".DON",
        "failed": ".ERR",
        "refused": ".ERR",
        "stopped": ".STP",
    }

    def read(self, ticket: str) -> tuple[str, int]:
        keys = dict(line.split("=", 1) for line in ticket.splitlines())
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", keys["JOB_ID"]) or keys["DISC_TYPE"] not in (
            "CD",
            "DVD",
            "DVD-DL",
            "BD",
            "BD-DL",
        ):
            raise ValueError(ticket)
        return keys["IMAGE"], int(keys["COPIES"])

    def tell(self, order_id: str, state: str, words: str = "") -> None:
        error = f"ERROR_CODE=JDF0100 {words}\n" if words else ""
        self.jobs[order_id] = f"[{order_id}]\nSTATUS={self._numbers[state]}\n{error}"
        self.beat()
        self.rename(order_id, self._suffixes[state])
        if state == "stopped":
            (self.folder / f"{order_id}.CDN").write_text("")

    def beat(self) -> None:
        (self.folder / "TDBStatus.txt").write_text(
            f"[TDB_STATUS]\nTIME={time.time()}\n" + "".join(self.jobs.values()), encoding="cp1252"
        )


class PrimeraRobot(FolderRobot):
    """A Bravo behind PTBurn."""

    ticket_suffix = ".JRQ"
    cancel_suffix = ".PTM"
    suffixes = (".QRJ", ".INP", ".DON", ".ERR")
    _states: ClassVar[dict[str, tuple[str, int]]] = {
        "taken": (".QRJ", 0),
        "running": (".INP", 3),
        "paused": (".INP", 4),
        "done": (".DON", 10),
        "failed": (".ERR", 15),
        "refused": (".ERR", 15),
        "stopped": (".ERR", 13),
    }
    _ticks = 0

    def read(self, ticket: str) -> tuple[str, int]:
        lines = [line.split(" = ", 1) for line in ticket.splitlines()]
        keys = dict(lines)
        if len(keys["JobID"]) > 32 or keys["ImageType"] != "MODE_1_2048":
            raise ValueError(ticket)
        return keys["ImageFile"], int(keys["Copies"])

    def tell(self, order_id: str, state: str, words: str = "") -> None:
        suffix, number = self._states[state]
        error = f"JobErrorNumber={21 if words else 16}\nJobErrorString={words or 'No Errors'}\n"
        self.jobs[order_id] = f"[{order_id}]\nCurrentStatusState={number}\nCurrentStatus={state}\n{error}"
        (self.folder / "Bravo.txt").write_text("".join(self.jobs.values()), encoding="cp1252")
        self.rename(order_id, suffix)

    def beat(self) -> None:
        self._ticks += 1
        (self.folder / "SystemStatus.txt").write_text(f"[System]\nServerTickCount={self._ticks}\n", encoding="cp1252")


class RimageRobot(FolderRobot):
    """A Rimage system's hot-folder service; its status documents lie in `status`."""

    ticket_suffix = ".XML"
    _states: ClassVar[dict[str, str]] = {
        "taken": "SUBMITTED",
        "running": "IN_PROCESS",
        "paused": "IN_PROCESS",
        "done": "COMPLETED",
        "failed": "FAILED",
        "refused": "FAILED",
        "stopped": "CANCELLED",
    }

    @property
    def status(self) -> Path:
        return self.folder.parent / f"{self.folder.name}-status"

    def read(self, ticket: str) -> tuple[str, int]:
        image, copies = re.search(r'<WriteTrack Filename="([^"]+)"', ticket), re.search(r'Copies="(\d+)"', ticket)
        if not image or not copies or '<Target Server="ANY" Line="ANY"' not in ticket:
            raise ValueError(ticket)
        return image.group(1), int(copies.group(1))

    def tell(self, order_id: str, state: str, words: str = "") -> None:
        self.status.mkdir(exist_ok=True)
        error = f' ErrorMessage="{words}"' if words else ""
        document = (
            f'<ProductionOrderStatus OrderId="{order_id}"><Status '
            f'State="{self._states[state]}"{error}/></ProductionOrderStatus>'
        )
        (self.status / f"{order_id}.XML").write_text(document)
        (self.folder / f"{order_id}.XML").unlink(missing_ok=True)  # the service takes the order away


class JsonRobot(FolderRobot):
    """Anything that serves mkiso's own folder protocol."""

    ticket_suffix = ".JSON"
    cancel_suffix = ".CANCEL"
    suffixes = (".TAKEN", ".DONE", ".FAILED", ".STOPPED")
    _suffixes: ClassVar[dict[str, str]] = {
        "taken": ".TAKEN",
        "running": ".TAKEN",
        "paused": ".TAKEN",
        "done": ".DONE",
        "stopped": ".STOPPED",
    }

    def read(self, ticket: str) -> tuple[str, int]:
        values = json.loads(ticket)
        return values["image"], values["copies"]

    def tell(self, order_id: str, state: str, words: str = "") -> None:
        if state in ("failed", "refused"):
            (self.folder / f"{order_id}.FAILED").write_text(words)
        else:
            self.rename(order_id, self._suffixes[state])

"""A job's side of the receiver's Unix socket: say what is expected, hear of each arrival."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from time import monotonic
from typing import Any, Self

from mkiso.errors import InstanceConflict, ReceiverUnavailable, StorageFull
from mkiso.study.models import Arrival
from mkiso.unix_address import connected

CONNECT_TIMEOUT_SECONDS = ANSWER_TIMEOUT_SECONDS = 10
_ALIKE = ("sop_class_uid", "transfer_syntax_uid", "study_instance_uid")  # in most arrivals: they are in memory once


@dataclass(frozen=True, slots=True)
class Refusal:
    """An instance that came and that the receiver didn't put into this job's folder, and why, in words without the
    patient.

    It is of the study or listed by the job; the UID is empty where it is none. `moved`: its C-STORE says that it is
    part of a C-MOVE of ours, as a PACS's does (PS3.7 9.1.1.1.6); anybody can say that, and a PACS may keep silent.
    """

    sop_instance_uid: str
    words: str
    moved: bool


class Expectation:
    """What one job expects of one study, as long as the `with` lasts. `instances` None: any of the study.

    `calling_ae_title` is what the job calls itself when it asks the PACS, `senders` are the AE titles and addresses
    that the instances come from, `strangers` those whose instances aren't for this job, `series` those of the study
    that alone are meant (empty: all). As messages are read, `refusals` grows, each instance once, and so does
    `lost_associations` with why a sender's association was refused or aborted. Raises ReceiverUnavailable where the
    receiver can't be reached or declines; whatever came while nobody expected it, it refused.
    """

    def __init__(
        self,
        socket_path: Path,
        study_instance_uid: str,
        folder: Path,
        instances: frozenset[str] | None = None,
        calling_ae_title: str = "",
        senders: Collection[str] = (),
        strangers: Collection[str] = (),
        series: Collection[str] = (),
    ) -> None:
        self._socket_path = socket_path
        self.refusals: list[Refusal] = []
        self.lost_associations: list[str] = []
        self._told: deque[dict[str, Any]] = deque()
        self._request = {"expect": {
            "study_instance_uid": study_instance_uid, "folder": str(folder),
            "instances": None if instances is None else sorted(instances), "calling_ae_title": calling_ae_title,
            "senders": sorted(senders), "strangers": sorted(strangers), "series": sorted(series),
        }}  # fmt: skip

    def __enter__(self) -> Self:
        self._lines = _Lines(self._socket_path)
        try:
            self._lines.send(self._request)
            answer = self._lines.next(ANSWER_TIMEOUT_SECONDS)
            if answer is None or "expecting" not in answer:
                raise ReceiverUnavailable(
                    f"The receiver doesn't take the expectation: {(answer or {}).get('declined', 'it gives no answer')}"
                )
        except BaseException:
            self._lines.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def next_arrival(self, timeout_seconds: float) -> Arrival | None:
        """The next instance that was stored, None where none comes in that time. Raises ReceiverUnavailable,
        InstanceConflict, StorageFull.
        """
        deadline = monotonic() + timeout_seconds
        while (
            message := self._told.popleft() if self._told else self._lines.next(max(0.0, deadline - monotonic()))
        ) is not None:
            if arrival := self._taken(message):
                return arrival
        return None

    def catch_up(self) -> None:
        """Have everything here that the receiver has told by now: for `next_arrival(0)`, and in `refusals`. Raises what
        next_arrival raises."""
        self._lines.send({"catch_up": True})
        while "caught_up" not in (message := self._lines.next(ANSWER_TIMEOUT_SECONDS) or {"caught_up": False}):
            if "refusal" in message or "association" in message:
                self._taken(message)
            else:
                self._told.append(message)
        if not message["caught_up"]:
            raise ReceiverUnavailable(f"The receiver doesn't answer within {ANSWER_TIMEOUT_SECONDS} s.")

    def _taken(self, message: dict[str, Any]) -> Arrival | None:
        if "refusal" in message:
            self.refusals.append(Refusal(**message["refusal"]))
            return None
        if "association" in message:
            self.lost_associations.append(message["association"]["words"])
            return None
        return arrival_of(message)


def arrival_of(message: dict[str, Any]) -> Arrival:
    """What the receiver tells of one instance that isn't refused. Raises InstanceConflict, StorageFull."""
    if "conflict" in message:
        uid = message["conflict"]["sop_instance_uid"]
        raise InstanceConflict(
            f"The PACS sent two different instances under the SOP Instance UID {uid}.", sop_instance_uid=uid
        )
    if "no_room" in message:
        raise StorageFull(
            "The disk of mkiso is full: the PACS's images can't be stored. Make room there, then ask for the disc "
            "again."
        )
    values = message["arrival"]
    alike = {name: intern(values[name]) for name in _ALIKE}
    return Arrival(**{**values, **alike, "path": Path(values["path"])})


def receiver_status(socket_path: Path, timeout_seconds: float = 2) -> dict[str, Any]:
    """What the receiver counts: associations, expectations, stored, refused. Raises ReceiverUnavailable where it can't
    be reached.
    """
    lines = _Lines(socket_path, timeout_seconds)
    try:
        lines.send({"status": True})
        answer = lines.next(timeout_seconds)
    finally:
        lines.close()
    if answer is None:
        raise ReceiverUnavailable(f"The receiver doesn't answer within {timeout_seconds:g} s.")
    status: dict[str, Any] = answer["status"]
    return status


class _Lines:
    """JSON lines over the receiver's socket."""

    def __init__(self, socket_path: Path, timeout_seconds: float = CONNECT_TIMEOUT_SECONDS) -> None:
        self._unread = bytearray()
        self._waiting: deque[bytes] = deque()
        try:
            self._socket = connected(socket_path, timeout_seconds)
        except OSError as error:
            raise ReceiverUnavailable(
                f"The receiver can't be reached at {socket_path} ({error.strerror or error}): is it running?"
            ) from None

    def send(self, message: dict[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise ReceiverUnavailable(f"The receiver is gone ({error.strerror or error}).") from None

    def next(self, timeout_seconds: float) -> dict[str, Any] | None:
        """The next message, None where none comes in that time."""
        deadline = monotonic() + timeout_seconds
        while not self._waiting:
            self._socket.settimeout(max(0.0, deadline - monotonic()))
            try:
                received = self._socket.recv(262_144)
            except (TimeoutError, BlockingIOError):
                return None
            except OSError as error:
                raise ReceiverUnavailable(f"The receiver is gone ({error.strerror or error}).") from None
            if not received:
                raise ReceiverUnavailable("The receiver is gone: it closed its connection to this job.")
            *lines, rest = (self._unread + received).split(b"\n")
            self._waiting.extend(bytes(line) for line in lines)
            self._unread = rest
        message: dict[str, Any] = json.loads(self._waiting.popleft())
        return message

    def close(self) -> None:
        self._socket.close()

"""A PACS that does as a test says: answers C-FIND from a list of files and plays one script for each C-MOVE.

    def half(move):                       # stores two of three over a real association, then says so
        move.store(move.files[:2])
        move.end(0xB000, completed=2, failed=1)

    with ScriptedPacs(files, [half, whole], receiver_port) as pacs: ...

On raw sockets with pynetdicom's codecs, since its own SCP can't send a response without counts, or break off.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom import Dataset, dcmread
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from mkiso.config.settings import Receiver, Settings
from mkiso.config.sources import Pacs
from peers.corpus import dataset_bytes
from peers.raw_peer import RawPeer
from peers.storescu import store

STUDY_KEYS = ("AccessionNumber", "PatientID", "PatientName", "StudyDate", "StudyInstanceUID")


def sections(settings: Settings) -> tuple[Pacs, Receiver]:
    """The PACS and the receiver of a configuration."""
    assert isinstance(settings.pacs, Pacs)
    return settings.pacs, settings.receiver


class Gone(Exception):
    """The client has ended the association."""


class MoveRequest:
    """One C-MOVE as a script sees it."""

    def __init__(self, pacs: ScriptedPacs, peer: Peer, command: Dataset, identifier: Dataset) -> None:
        self.files = pacs.files
        self.identifier = identifier
        self.destination = command.MoveDestination
        self._pacs = pacs
        self._peer = peer
        self._command = command

    def asked(self) -> list[Path]:
        """The files that the identifier names."""
        return [file for file in self.files if _matches(dcmread(file, stop_before_pixels=True), self.identifier)]

    def store(self, files: Sequence[Path]) -> bool:
        """Send files to the receiver, as storescu does, without a word of a C-MOVE; whether it took them all."""
        return not files or store(self._pacs.receiver_port, files).returncode == 0

    def store_moved(self, file: Path) -> bool:
        """Send a file as part of this C-MOVE (PS3.7 9.1.1.1.6), as PACSs do; whether the receiver took it."""
        whole = dcmread(file)
        syntax, uid = str(whole.file_meta.TransferSyntaxUID), str(whole.SOPInstanceUID)
        with RawPeer(self._pacs.receiver_port) as peer:
            peer.associate({str(whole.SOPClassUID): [syntax]})
            encoded = dataset_bytes(file)
            return peer.store(uid, encoded, sop_class=str(whole.SOPClassUID), originator=self._pacs.mover) == 0

    def pending(self, **counts: int) -> None:
        self._respond(0xFF00, counts)

    def end(self, status: int, **counts: int) -> None:
        """The final response; only the counts that are given stand in it."""
        self._respond(status, counts, self._pacs.comment)

    def reset(self) -> None:
        """Break the connection with RST."""
        self._peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._peer.socket.close()
        raise Gone

    def wait_for_cancel(self, timeout_seconds: float) -> None:
        """Wait for C-CANCEL; raises Gone where the client goes without one."""
        self._peer.socket.settimeout(timeout_seconds)
        command, _ = self._peer.receive()
        self._pacs.cancelled += command.CommandField == 0x0FFF

    def _respond(self, status: int, counts: dict[str, int], comment: str = "") -> None:
        more: dict[str, int | str] = {
            f"NumberOf{name.capitalize()}Suboperations": count for name, count in counts.items()
        }
        self._peer.respond(self._command, status, None, {**more, **({"ErrorComment": comment} if comment else {})})


Script = Callable[[MoveRequest], None]


def whole(move: MoveRequest) -> None:
    """What a good PACS does."""
    asked = move.asked()
    sent = len(asked) if move.store(asked) else 0
    move.end(0x0000 if sent else 0xB000, completed=sent, failed=len(asked) - sent, warning=0, remaining=0)


class ScriptedPacs:
    """Listens on a free port. `moves` are the identifiers of the C-MOVEs that came, `finds` the levels of the C-FINDs.

    `find_status` maps a level to the status that ends its C-FINDs, `find_limit` to how many matches it answers at most,
    `counts` False: tells none. `find_counts` maps a level to a count that is told instead of the right one, `find_more`
    to a UID that is answered besides, `find_twice` to how many of its answers come twice; `find_changes` maps it to
    attributes that its answers get; `endless`: the last answer of that level comes again and again; the end of a C-FIND
    of the level `ends_twice` comes twice; `at_once`: all answers to a C-FIND and its end come in one P-DATA-TF;
    `comment` is the Error Comment of every end; `silent_keys` are optional keys
    that it doesn't answer. `mover`: whose C-MOVE `store_moved` names. `reject`: (result, source, reason) of an
    A-ASSOCIATE-RJ.
    """

    ae_title = "SCRIPTED"

    def __init__(self, files: Sequence[Path], scripts: Sequence[Script] = (), receiver_port: int = 0) -> None:
        self.files = list(files)
        self.scripts = list(scripts)
        self.receiver_port = receiver_port
        self.moves: list[Dataset] = []
        self.finds: list[str] = []
        self.find_status: dict[str, int] = {}
        self.find_limit: dict[str, int] = {}
        self.find_counts: dict[str, int] = {}
        self.find_more: dict[str, str] = {}
        self.find_twice: dict[str, int] = {}
        self.find_changes: dict[str, dict[str, str]] = {}
        self.endless = ""
        self.ends_twice = ""
        self.at_once = False
        self.silent_keys: set[str] = set()
        self.comment = ""
        self.mover = "CDRECORD"
        self.counts = True
        self.reject: tuple[int, int, int] | None = None
        self.cancelled = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._peers: list[Peer] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._peers:
            with suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for peer in self._peers:
            peer.socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(connection)
            self._peers.append(peer)
            self._threads.append(threading.Thread(target=self._serve, args=(peer,)))
            self._threads[-1].start()

    def _serve(self, peer: Peer) -> None:
        with suppress(Gone, OSError):
            if not peer.associate(self.reject):
                return
            while True:
                command, identifier = peer.receive()
                if command.CommandField == 0x0020:
                    self._find(peer, command, identifier)
                elif command.CommandField == 0x0021:
                    self.moves.append(identifier)
                    script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                    script(MoveRequest(self, peer, command, identifier))
                elif command.CommandField != 0x0FFF:  # a C-CANCEL that comes late has no answer
                    peer.respond(command, 0x0000)

    def _find(self, peer: Peer, command: Dataset, identifier: Dataset) -> None:
        level = identifier.QueryRetrieveLevel
        peer.holds = self.at_once
        self.finds.append(level)
        answers: dict[str, Dataset] = {}
        for header in (dcmread(file, stop_before_pixels=True) for file in self.files):
            if not _matches(header, identifier):
                continue
            own = {
                "STUDY": header.StudyInstanceUID,
                "SERIES": header.SeriesInstanceUID,
                "IMAGE": header.SOPInstanceUID,
            }[level]
            answers.setdefault(own, self._answer(header, identifier, level))
        sent = [*list(answers.values())[: self.find_twice.get(level, 0)], *answers.values()]
        for answer in sent[: self.find_limit.get(level)]:
            peer.respond(command, 0xFF00, answer)
        while self.endless == level:
            peer.respond(command, 0xFF00, answer)
        if (uid := self.find_more.get(level)) is not None:
            answer = deepcopy(answer)
            setattr(
                answer,
                {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[level],
                uid,
            )
            peer.respond(command, 0xFF00, answer)
        for _ in range(1 + (self.ends_twice == level)):
            peer.respond(
                command,
                self.find_status.get(level, 0x0000),
                None,
                {"ErrorComment": self.comment} if self.comment else None,
            )
        if peer.holds:
            peer.flush()
        peer.holds = False

    def _answer(self, header: Dataset, identifier: Dataset, level: str) -> Dataset:
        answer = Dataset()
        for element in identifier:
            if element.keyword in header and element.keyword not in self.silent_keys:
                answer[element.tag] = header[element.tag]
        answer.SpecificCharacterSet = header.get("SpecificCharacterSet")
        answer.QueryRetrieveLevel = level
        if self.counts and level != "IMAGE":
            keyword, uid = {"STUDY": ("Study", "StudyInstanceUID"), "SERIES": ("Series", "SeriesInstanceUID")}[level]
            of_it = [
                file for file in self.files if dcmread(file, stop_before_pixels=True)[uid].value == header[uid].value
            ]
            setattr(answer, f"NumberOf{keyword}RelatedInstances", self.find_counts.get(level, len(of_it)))
        for keyword, value in self.find_changes.get(level, {}).items():
            setattr(answer, keyword, value)
        return answer


class Peer:
    """One association from the PACS's side."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._contexts: dict[int, Any] = {}
        self._held = b""
        self.holds = False

    def associate(self, reject: tuple[int, int, int] | None) -> bool:
        _, body = self._pdu()
        if reject is not None:
            self.socket.sendall(struct.pack(">BBIBBBB", 3, 0, 4, 0, *reject))
            return False
        request = A_ASSOCIATE_RQ()
        request.decode(struct.pack(">BBI", 1, 0, len(body)) + body)
        primitive = request.to_primitive()
        results = primitive.presentation_context_definition_list
        for context in results:
            context.result = 0
            context.transfer_syntax = list(context.transfer_syntax[:1])
        primitive.presentation_context_definition_results_list = results
        primitive.result = 0
        accept = A_ASSOCIATE_AC()
        accept.from_primitive(primitive)
        self.socket.sendall(accept.encode())
        return True

    def receive(self) -> tuple[Dataset, Dataset]:
        parts = {1: bytearray(), 0: bytearray()}
        while True:
            kind, body = self._pdu()
            if kind == 5:
                self.socket.sendall(struct.pack(">BBII", 6, 0, 4, 0))
                raise Gone
            if kind != 4:
                raise Gone
            position = 0
            while position < len(body):
                length, self._context_id, control = struct.unpack_from(">IBB", body, position)
                parts[control & 1] += body[position + 6 : position + 4 + length]
                position += 4 + length
            command = decode(BytesIO(bytes(parts[1])), True, True)
            if control & 2 and (not control & 1 or command.CommandDataSetType == 0x0101):
                return command, decode(BytesIO(bytes(parts[0])), True, True)

    def respond(
        self,
        request: Dataset,
        status: int,
        identifier: Dataset | None = None,
        more: Mapping[str, int | str] | None = None,
    ) -> None:
        command = Dataset()
        if "AffectedSOPClassUID" in request:
            command.AffectedSOPClassUID = request.AffectedSOPClassUID
        command.CommandField = request.CommandField | 0x8000
        command.MessageIDBeingRespondedTo = request.MessageID
        command.CommandDataSetType = 0x0101 if identifier is None else 0x0001
        command.Status = status
        for keyword, value in (more or {}).items():
            setattr(command, keyword, value)
        encoded = encode(command, True, True) or b""
        self._send(struct.pack("<HHII", 0, 0, 4, len(encoded)) + encoded, 3)
        if identifier is not None:
            self._send(encode(identifier, True, True) or b"", 2)

    def _send(self, data: bytes, control: int) -> None:
        self._held += struct.pack(">IBB", len(data) + 2, self._context_id, control) + data
        if not self.holds:
            self.flush()

    def flush(self) -> None:
        """Send what is held as one P-DATA-TF."""
        self.socket.sendall(struct.pack(">BxI", 4, len(self._held)) + self._held)
        self._held = b""

    def _pdu(self) -> tuple[int, bytes]:
        head = self._exactly(6)
        kind, length = struct.unpack(">BxI", head)
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self.socket.recv(count - len(data))
            if not chunk:
                raise Gone
            data += chunk
        return data


def _matches(header: Dataset, identifier: Dataset) -> bool:
    for keyword in ("AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        wanted = identifier.get(keyword)
        if wanted and str(header.get(keyword)) not in ([wanted] if isinstance(wanted, str) else list(wanted)):
            return False
    first, _, last = str(identifier.get("StudyDate") or "").partition("-")
    return not first or first <= str(header.get("StudyDate") or "") <= (last or first)  # PS3.4 C.2.2.2.5

"""A Storage SCP that only counts: it accepts what it is offered, reads, and answers success. What it takes is what the
sender and the wire take; `python -m bench.counting_receiver PORT`.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
from pathlib import Path

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from peers.ports import free_port
from peers.process import Process
from peers.raw_peer import P_DATA

PDU_BYTES = 131_072  # what mkiso's receiver asks for
RELEASE_RQ, RELEASE_RP = 5, struct.pack(">BxI", 6, 4) + bytes(4)
COMMAND, LAST = 1, 2
STORE_RSP, NO_DATA_SET = 0x8001, 0x0101


class CountingReceiver(Process):
    """The receiver as a process of its own, started in a folder."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        command = [sys.executable, "-m", "bench.counting_receiver", str(port)]
        super().__init__(command, folder / "counting.log", port=port)

    @property
    def stored(self) -> int:
        """How many instances came in associations that have been released."""
        return sum(map(int, self.log().split()))


def serve(port: int) -> None:
    """Take associations, each in a thread, until the process is ended."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        while True:
            taken, _ = listening.accept()
            threading.Thread(target=_association, args=(taken,), daemon=True).start()


def _association(taken: socket.socket) -> None:
    buffer, request, stored = memoryview(bytearray(PDU_BYTES + 6)), b"", 0
    with taken:
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while _fill(taken, buffer[:6]):
            kind, length = struct.unpack(">BxI", buffer[:6])
            body = buffer[6 : 6 + length]
            _fill(taken, body)
            if kind == P_DATA:
                at = 0
                while at < length:
                    size, context, control = struct.unpack_from(">IBB", body, at)
                    if control & COMMAND:
                        request = bytes(body[at + 6 : at + 4 + size])
                    elif control & LAST:
                        stored += 1
                        taken.sendall(_success(request, context))
                    at += 4 + size
            elif kind == RELEASE_RQ:
                print(stored, flush=True)
                taken.sendall(RELEASE_RP)
                return
            else:
                taken.sendall(_accepted(bytes(buffer[: 6 + length])))


def _fill(taken: socket.socket, target: memoryview) -> bool:
    """Whether so much came."""
    while target:
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # else a sender with Nagle's algorithm waits
        if not (count := taken.recv_into(target)):
            return False
        target = target[count:]
    return True


def _accepted(encoded: bytes) -> bytes:
    """The answer that accepts each context with its first transfer syntax."""
    request = A_ASSOCIATE_RQ()
    request.decode(encoded)
    primitive = request.to_primitive()
    contexts = primitive.presentation_context_definition_list
    for context in contexts:
        context.result, context.transfer_syntax = 0, [context.transfer_syntax[0]]
    primitive.presentation_context_definition_results_list = contexts
    primitive.result, primitive.maximum_length_received = 0, PDU_BYTES
    answer = A_ASSOCIATE_AC()
    answer.from_primitive(primitive)
    return bytes(answer.encode())


def _success(request: bytes, context: int) -> bytes:
    """C-STORE-RSP, in one PDU (PS3.7 9.3.1.2)."""
    values: dict[int, bytes] = {}
    at = 0
    while at < len(request):
        _, number, length = struct.unpack_from("<HHI", request, at)
        values[number] = request[at + 8 : at + 8 + length]
        at += 8 + length
    told = {
        0x0002: values[0x0002],
        0x0100: struct.pack("<H", STORE_RSP),
        0x0120: values[0x0110],
        0x0800: struct.pack("<H", NO_DATA_SET),
        0x0900: struct.pack("<H", 0),
        0x1000: values[0x1000],
    }
    body = b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in told.items())
    command = struct.pack("<HHII", 0, 0, 4, len(body)) + body
    head = struct.pack(">BxIIBB", P_DATA, len(command) + 6, len(command) + 2, context, COMMAND | LAST)
    return head + command


if __name__ == "__main__":
    serve(int(sys.argv[1]))

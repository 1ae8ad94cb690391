"""Where audit messages go: a file, or a syslog server over UDP (RFC 5426) or TLS (RFC 5425), as PS3.15 A.6 and A.7 have
it.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from mkiso.config.settings import Audit
from mkiso.config.storage import Storage
from mkiso.lines import append_line
from mkiso.trust import trusting

PRIORITY = 10 * 8 + 5  # security messages, notice (PS3.15 A.6, A.7)
MESSAGE_ID = "DICOM+RFC3881"
TIMEOUT_SECONDS = 5.0
CLOSING_SECONDS = 1.0
REST_SECONDS = 30.0
"""How long a process asks nothing of a server that it has waited for in vain."""
_LONG_SECONDS = 0.2
_HEAD = 65_536
"""Bytes in which the first message has its time."""
_rests_until: dict[str, float] = {}
"""By target, of the monotonic clock."""


def deliver(audit: Audit, storage: Storage, message: str, moment: datetime) -> None:
    """Deliver one message, of one line. Raises OSError or ValueError where it can't be delivered; then it is kept
    beside the data, whole. What was waited for in vain isn't for a while, so that not each message takes that long.
    """
    begun = time.monotonic()
    try:
        target, file = urlsplit(audit.target), audit.file_below(storage.data_dir)
        if file:
            append_line(file, message.encode())
        elif begun < _rests_until.get(audit.target, begun):
            raise TimeoutError("the server didn't answer a moment ago")
        elif target.scheme == "udp":
            _send_datagram(syslog_line(message, moment), str(target.hostname), target.port or 514)
        else:
            _send_over_tls(audit, syslog_line(message, moment), str(target.hostname), target.port or 6514)
    except (OSError, ValueError):
        if time.monotonic() - begun > _LONG_SECONDS:
            _rests_until[audit.target] = time.monotonic() + REST_SECONDS
        append_line(storage.audit_undelivered, message.encode())
        raise


def require_target(audit: Audit) -> str:
    """What can be seen of the server without a message, in words. Raises OSError, ValueError where it gets none."""
    target = urlsplit(audit.target)
    if target.scheme == "udp":
        with _datagrams(str(target.hostname), target.port or 514) as probe:
            probe.settimeout(CLOSING_SECONDS)
            probe.send(b"")  # no message; but where nobody listens there, the machine says so
            with suppress(TimeoutError):
                probe.recv(1)
        return f"{audit.target} isn't refused, and UDP says no more"
    _connected(audit, str(target.hostname), target.port or 6514).close()
    return f"{audit.target} answers"


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Messages that were kept: how much, and since when (ISO 8601, UTC; empty: not told)."""

    size: int
    since: str


def undelivered(storage: Storage) -> Undelivered | None:
    """What couldn't be delivered and lies there. Raises OSError."""
    try:
        with storage.audit_undelivered.open("rb") as file:
            size, first = os.fstat(file.fileno()).st_size, file.read(_HEAD)
    except FileNotFoundError:
        return None
    moment = re.search(rb'EventDateTime="([\d:.T+-]{10,40})"', first)
    return Undelivered(size, moment[1].decode() if moment else "") if size else None


def syslog_line(message: str, moment: datetime) -> bytes:
    """The message behind RFC 5424's header; its BOM says that it is UTF-8 (6.4)."""
    host = socket.gethostname() or "-"
    head = f"<{PRIORITY}>1 {moment.isoformat(timespec='milliseconds')} {host} mkiso {os.getpid()} {MESSAGE_ID} - "
    return head.encode("ascii", "replace") + b"\xef\xbb\xbf" + message.encode()


def _send_datagram(line: bytes, host: str, port: int) -> None:
    with _datagrams(host, port) as sender:
        sender.send(line)


def _datagrams(host: str, port: int) -> socket.socket:
    """Datagrams to there. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    sender = socket.socket(family, kind, protocol)
    try:
        sender.connect(address)
    except OSError:
        sender.close()
        raise
    return sender


def _send_over_tls(audit: Audit, line: bytes, host: str, port: int) -> None:
    with _connected(audit, host, port) as sender:
        sender.sendall(b"%d %s" % (len(line), line))  # octets counted (RFC 5425 4.3.1)
        sender.settimeout(CLOSING_SECONDS)
        with suppress(OSError):  # close_notify is ours to send (4.4); not every server answers it
            sender.unwrap()


def _connected(audit: Audit, host: str, port: int) -> ssl.SSLSocket:
    context = tls_context(audit)
    with socket.create_connection((host, port), TIMEOUT_SECONDS) as connection:
        return context.wrap_socket(connection, server_hostname=host)  # which takes the connection over


def tls_context(audit: Audit) -> ssl.SSLContext:
    """What a server of syslog over TLS is met with. Raises OSError."""
    context = trusting(audit.authority)
    if audit.certificate is not None:
        context.load_cert_chain(audit.certificate, audit.key)
    return context

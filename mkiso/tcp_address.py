"""The address on which a part of mkiso listens, and why it can't, in words."""

from __future__ import annotations

import errno
import socket

from mkiso.errors import ConfigurationError


def bound(part: str, host: str, port: int, keys: tuple[str, str], backlog: int = 0) -> socket.socket:
    """A TCP socket with this address; with a `backlog` it listens, else nobody can connect yet.

    Raises ConfigurationError: that `part` can't have the address, and which of the `keys` of host and port to change.
    """
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        if backlog:
            listener.listen(backlog)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ConfigurationError(f"{part} can't listen on {host}, port {port}: {_why(error, *keys)}") from None
    return listener


def _why(error: OSError, host_key: str, port_key: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"another program has it. End that one, or change {port_key}."
    if error.errno == errno.EACCES:
        return f"ports below 1024 need the capability CAP_NET_BIND_SERVICE. Give it to mkiso, or change {port_key}."
    return f"that is no address of this machine ({error.strerror}). Correct {host_key}."


def plain_address(address: str) -> str:
    """An IPv4 peer's address as such, also where the socket is IPv6's."""
    return address.removeprefix("::ffff:")

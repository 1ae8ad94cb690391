"""An address to listen on is had, or why not is said in words."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from mkiso.errors import ConfigurationError
from mkiso.tcp_address import bound, plain_address

KEYS = "server.host", "server.port"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this kernel has no IPv6")
def test_ipv6_s_any_address_takes_ipv4_as_well() -> None:
    with (
        bound("The webhook", "::", 0, KEYS, backlog=1) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=5),
    ):
        connection, peer = listener.accept()
        connection.close()
    assert plain_address(peer[0]) == "127.0.0.1"


def test_a_port_that_another_program_has() -> None:
    with bound("The webhook", "127.0.0.1", 0, KEYS, backlog=1) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port}: another program has it.* change server\.port"):
            bound("The webhook", "127.0.0.1", port, KEYS)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ConfigurationError, match=r"no address of this machine.* Correct server\.host"):
        bound("The webhook", "203.0.113.9", 0, KEYS)


def test_a_port_that_only_root_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's refusal, which these tests' user may not get."""

    def refuse(listener: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ConfigurationError, match=r"port 443: ports below 1024 need .* change server\.port"):
        bound("The webhook", "0.0.0.0", 443, KEYS)

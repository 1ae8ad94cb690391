"""Which names in a Host header are ours; webhook and Prefect's server ask this alike."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address


def host_is_known(host: str, hosts: Collection[str]) -> bool:
    """Whether nobody else can have given us the name in a Host header: an address, a short name, a configured one.

    Else any site could have a name of its own lead to our address (DNS rebinding), and its pages would be our own.
    """
    name, colon, port = host.rpartition(":")
    if not (colon and port.isdigit()):
        name = host
    name = name.lower().removesuffix(".")
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    return "." not in name or name in hosts or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True

"""How much of the system a process holds: threads, descriptors, listening ports."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Standing:
    threads: int
    descriptors: int
    ports: frozenset[int]

    def is_within(self, before: Standing, pool: int = 0) -> bool:
        """Whether no more than `pool` threads and descriptors have been added, and no port."""
        return (
            self.threads <= before.threads + pool
            and self.descriptors <= before.descriptors + pool
            and self.ports == before.ports
        )


def standing_of(pid: int) -> Standing:
    process = Path(f"/proc/{pid}")
    links = []
    for descriptor in (process / "fd").iterdir():
        with suppress(OSError):
            links.append(str(descriptor.readlink()))
    sockets = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    return Standing(len(list((process / "task").iterdir())), len(links), _listening(sockets))


def _listening(inodes: set[str]) -> frozenset[int]:
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.add(int(fields[1].rsplit(":", 1)[1], 16))
    return frozenset(ports)

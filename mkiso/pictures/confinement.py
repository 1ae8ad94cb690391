"""What the process that decodes can reach when a file has taken it over: the folders that it was given, and no program,
no network and no other process. Run as a program, it says what it reaches all the same.

By Landlock (Linux 5.13; from 6.12 on signals too) and a seccomp filter, both for good. Numbers and layouts: Linux's
uapi/linux/landlock.h, seccomp.h, filter.h, audit.h and unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every machine
_VERSION = 1  # a flag of _CREATE_RULESET
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _MAKE_REGULAR, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 8, 1 << 14
_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # how many rights over files there are, by the version that brought the last
_NETWORK_VERSION, _NETWORK = 4, 0b11  # TCP: bind, connect
_SCOPES_VERSION, _SCOPES = 6, 0b11  # abstract UNIX sockets, signals

# What Landlock leaves: sockets of other kinds than TCP, io_uring, which makes them too, and every chmod and chown.
_MACHINES = {
    "x86_64": (0xC000003E, (41, 425, 90, 91, 268, 452, 92, 93, 94, 260)),
    "aarch64": (0xC00000B7, (198, 425, 52, 53, 452, 54, 55)),
}
_X32 = 0x40000000  # numbers from here on are other names of x86_64's calls
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_AT_NUMBER, _AT_ARCHITECTURE = 0, 4  # in struct seccomp_data
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # EPERM

_PROGRAM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")
_TRIAL = ("-m", "mkiso.pictures.confinement")
_TRIAL_SECONDS = 120


class _Filter(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("count", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def landlock_version() -> int:
    """Of the kernel's Landlock; 0 where it has none, or none that is switched on."""
    return max(0, _system_call(_CREATE_RULESET, None, 0, _VERSION))


def is_refused() -> bool:
    """Whether what this process runs in keeps it from Landlock: a unit's or a container's filter of system calls."""
    return _system_call(_CREATE_RULESET, None, 0, _VERSION) < 0 and ctypes.get_errno() == errno.EPERM


def reached() -> frozenset[str]:
    """What a process reaches though it is confined as a decoder is, by trying: `files`, `sockets`. Raises OSError and
    subprocess.SubprocessError where none can be begun.
    """
    command = [sys.executable, "-P", *_TRIAL]
    tried = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=_TRIAL_SECONDS)
    return frozenset(tried.stdout.split())


def _try() -> None:
    attempts: dict[str, Callable[[], object]] = {"files": Path("/etc/passwd").read_bytes}
    if platform.machine() in _MACHINES:
        attempts["sockets"] = socket.socket
    for attempt in attempts.values():
        attempt()  # as it is, it can
    confine((), ())
    for name, attempt in attempts.items():
        with suppress(PermissionError):
            attempt()
            print(name)


def confine(reads: Iterable[Path], writes: Iterable[Path]) -> None:
    """From now on this thread, and what it begins, reads files only beneath `reads` and `writes` and of the program,
    writes and makes them only beneath `writes`, removes none, begins no program and makes no socket.

    As far as the kernel can; it can't be undone.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if version := landlock_version():
        _restrict_files(version, reads, writes)
    if machine := _MACHINES.get(platform.machine()):
        program = _refusing(*machine)
        libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Filter(len(program) // 8, program)))


def _restrict_files(version: int, reads: Iterable[Path], writes: Iterable[Path]) -> None:
    handled = (1 << max(count for since, count in _RIGHTS.items() if since <= version)) - 1
    attributes = struct.pack(
        "=QQQ",
        handled,
        _NETWORK if version >= _NETWORK_VERSION else 0,
        _SCOPES if version >= _SCOPES_VERSION else 0,
    )
    rules = _system_call(_CREATE_RULESET, attributes, len(attributes), 0)
    if rules < 0:
        return
    try:
        for path in {*reads, *_of_program()}:
            _allow(rules, path, _READ_FILE | _READ_DIR)
        for path in writes:
            _allow(rules, path, (_READ_FILE | _WRITE_FILE | _MAKE_REGULAR | _TRUNCATE) & handled)
        _system_call(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> None:
    with suppress(OSError):  # what isn't there needs no right
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not path.is_dir():
                rights &= ~_READ_DIR
            _system_call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
        finally:
            os.close(descriptor)


def _of_program() -> set[Path]:
    """Where what is imported lies: decoders are when they are first needed."""
    own = Path(__file__).parents[2]
    return {own, *map(Path, (sys.prefix, sys.base_prefix, *filter(os.path.isabs, sys.path), *_PROGRAM))}


def _refusing(architecture: int, calls: tuple[int, ...]) -> bytes:
    """A filter: these calls, and every call of another architecture, end in EPERM."""
    refuse = len(calls) + 1  # instructions from the check of the first call to _REFUSE, without that check
    program = [
        (_LOAD, 0, 0, _AT_ARCHITECTURE),
        (_EQUAL, 0, refuse + 2, architecture),
        (_LOAD, 0, 0, _AT_NUMBER),
        (_AT_LEAST, refuse, 0, _X32),
        *((_EQUAL, refuse - 1 - number, 0, call) for number, call in enumerate(calls)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *each) for each in program)


def _system_call(number: int, *arguments: bytes | int | None) -> int:
    """Its result, negative where it fails."""
    as_long = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    return int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *as_long))


if __name__ == "__main__":
    _try()

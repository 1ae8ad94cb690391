"""What is written to where mkiso was started: neither a character nor a full disk there ends it with a traceback."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


class OutputLost(Exception):
    """Standard output took no more. No OSError, which a command would tell of a file of its own."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror)
        self.is_closed = error.errno == errno.EPIPE
        """Whether whoever read it went away, as `head` does: that is nobody's fault."""


class _Output(io.FileIO):
    def write(self, data: Buffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputLost(error) from None


def prepare() -> None:
    """Let standard output and error replace what their encoding lacks, and output raise OutputLost."""
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="replace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding, is_terminal = sys.stdout.encoding, sys.stdout.isatty()
        raw = _Output(sys.stdout.fileno(), "wb", closefd=False)
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), encoding, "replace", line_buffering=is_terminal)


def give_up(lost: OutputLost) -> int:
    """The exit code, where output was lost: told once, and nothing more is tried at the end."""
    with suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)
    if not lost.is_closed:
        print(f"Standard output can't be written: {lost}.", file=sys.stderr)
    return 1

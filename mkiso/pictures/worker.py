"""The process that decodes: `python -m mkiso.pictures.worker LIMITS`, or a fork of mkiso.pictures.fork_server, reads
questions and writes answers, one JSON value a line, until its input ends.

Whatever a hostile file does to a decoder stays in here: memory, file sizes, time, and what it can reach are bounded by
the kernel.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

if __name__ == "__main__":
    sys.modules["requests"] = None  # type: ignore[assignment]  # pydicom takes it along: a quarter of the start

from mkiso.pictures.confinement import confine
from mkiso.pictures.decompress import decompress
from mkiso.pictures.messages import ANSWER, LIMITS, QUESTIONS, Answer, Limits, Question
from mkiso.pictures.render import render
from mkiso.pictures.values import Decompressed, DecompressRequest, NotShown, ObjectFacts, Picture, PictureRequest

_NICE = 10  # what arrives and what is written go first
_MIB = 1024 * 1024
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_HELD_SECONDS, _HELD_BYTES = 0.5, 4096  # of answers: each that is sent wakes the job

_Found = ObjectFacts | Picture | NotShown | Decompressed | int


def work(limits: Limits) -> None:
    """Answer questions until there are no more."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints is no answer
    _bound(limits)
    _keep_freed_memory()
    confine(limits.reads, limits.writes)
    answers.write(ANSWER.dump_json(Answer()) + b"\n")
    for line in sys.stdin.buffer:
        for message in _messages(QUESTIONS.validate_json(line), limits):
            answers.write(message)


def _messages(questions: Sequence[Question], limits: Limits) -> Iterator[bytes]:
    """The answers. What is known is said before a decoder is at work, which may be the end of this process; of what
    isn't compressed and has one frame some are held back and sent together.
    """
    held, since = b"", time.monotonic()
    for question in questions:
        wanted = len(set(question.request.frames)) if isinstance(question.request, PictureRequest) else 0
        left, at_once = 1, True
        for answer in _answers(question, limits):
            held += ANSWER.dump_json(answer) + b"\n"
            if answer.facts:
                left = wanted or answer.facts.frames
                at_once = answer.facts.compressed or answer.facts.frames > 1
            elif answer.picture or answer.not_shown:
                left -= 1
            if at_once and left:  # the end follows the last at once
                yield held
                held = b""
        if at_once or len(held) >= _HELD_BYTES or time.monotonic() - since > _HELD_SECONDS:
            yield held
            held, since = b"", time.monotonic()
    if held:
        yield held


def _bound(limits: Limits) -> None:
    os.nice(_NICE)
    for what, bound in (
        (resource.RLIMIT_AS, limits.memory_mib * _MIB),
        (resource.RLIMIT_FSIZE, limits.file_mib * _MIB),
        (resource.RLIMIT_CORE, 0),  # a core dump would hold a patient's pixels
    ):
        resource.setrlimit(what, (bound, bound))
    for alarm in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(alarm, signal.SIG_DFL)  # ends the process even inside a decoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to answer


def _keep_freed_memory() -> None:
    """A frame's pages are the next one's: given back between them, they cost as much as the picture."""
    with suppress(AttributeError):  # glibc's alone
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
        mallopt(_M_TRIM_THRESHOLD, 64 * _MIB)


def _answers(question: Question, limits: Limits) -> Iterator[Answer]:
    request = question.request
    found: Iterator[_Found] = (
        decompress(request) if isinstance(request, DecompressRequest) else render(request, spread=question.spread)
    )
    try:
        while True:
            _time(limits.seconds, limits.cpu_seconds)
            value = next(found, None)
            _time(0, 0)
            if value is None:
                yield Answer(done=True)
                return
            yield _answer(value)
    except OSError as error:
        _time(0, 0)
        yield Answer(failed=error.errno or -1)


def _time(seconds: float, cpu_seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)


def _answer(value: _Found) -> Answer:
    if isinstance(value, ObjectFacts):
        return Answer(facts=value)
    if isinstance(value, int):
        return Answer(frames=value)
    if isinstance(value, Decompressed):
        return Answer(decompressed=value)
    return Answer(picture=value) if isinstance(value, Picture) else Answer(not_shown=value)


if __name__ == "__main__":
    work(LIMITS.validate_json(sys.argv[1]))

"""Rendering and decompressing in processes of their own: a decoder that crashes, hangs or takes too much memory costs
one picture and not the job's process.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import ParamSpec, Self, TypeVar

from mkiso.errors import StorageFull
from mkiso.pictures.form import MAX_FRAMES
from mkiso.pictures.messages import DECOMPRESSING, Answer, Limits, Question
from mkiso.pictures.names import names_of
from mkiso.pictures.process import WorkerDied, WorkerProcess
from mkiso.pictures.values import (
    MOST_DRAWN,
    Decompressed,
    DecompressRequest,
    NotDisplayable,
    NotShown,
    ObjectFacts,
    Picture,
    PictureRequest,
    PictureResult,
    Reason,
)

P = ParamSpec("P")
T = TypeVar("T")
_MIB = 1024 * 1024
_MAX_ERRNO = 4096  # Linux's own
_MAX_DEATHS = 3  # of workers over one object, after which the rest of it is given up


class _Pool:
    """`workers` processes. A context manager: leaving it by an exception ends what they are at."""

    usual_limits = Limits()

    def __init__(
        self,
        reads: Path,
        writes: Path,
        workers: int = 2,
        limits: Limits | None = None,
        fork_server: Path | None = None,
    ) -> None:
        """What is asked for lies beneath `reads`, and what is made of it beneath `writes`, two folders: the processes
        reach nothing else. `fork_server`: the socket of mkiso.pictures.fork_server, whose forks start at once.
        """
        self._limits = replace(limits or self.usual_limits, reads=(reads,), writes=(writes,))
        self._fork_server = fork_server
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="pictures")
        self._idle: SimpleQueue[WorkerProcess | None] = SimpleQueue()
        for _ in range(workers):
            self._idle.put(None)  # a process starts when it is first needed
        self._lock = threading.Lock()
        self._running: set[WorkerProcess] = set()
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(at_once=kind is not None)

    def close(self, *, at_once: bool = False) -> None:
        """Finish what was submitted, or end it `at_once`; afterwards no process of the pool is left."""
        if at_once:
            with self._lock:
                self._stopped = True
                for worker in self._running:
                    worker.kill()
        self._threads.shutdown(cancel_futures=at_once)
        while self._running:
            self._end(next(iter(self._running)))

    def _require_room(self, folder: Path) -> None:
        if shutil.disk_usage(folder).free < self._limits.spare_mib * _MIB:
            raise fault_of(errno.ENOSPC)

    def _start(self) -> WorkerProcess:
        worker = WorkerProcess(self._limits, self._fork_server)
        with self._lock:
            self._running.add(worker)
            if self._stopped:
                worker.kill()
        return worker

    def _end(self, worker: WorkerProcess) -> None:
        with self._lock:
            self._running.discard(worker)
        worker.end()


class PicturePool(_Pool):
    """Processes that turn objects into pictures."""

    def begin(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> Future[T]:
        """Call a function that renders in a thread of the pool, which has as many as processes."""
        return self._threads.submit(function, *arguments, **named)

    def warm(self, processes: int) -> None:
        """Start so many processes before they are asked anything: a start takes longer than a picture."""
        for _ in range(processes):
            self._threads.submit(self._warm)

    def render(self, request: PictureRequest) -> PictureResult:
        """Render one object at once; `begin` calls it when a process is free.

        Raises StorageFull where the disk is full, OSError where the file can't be read or the folder can't be written,
        and CancelledError where the pool is closed at once.
        """
        [result] = self.each([request])
        if isinstance(result, Exception):
            raise result
        return result

    def each(self, requests: Sequence[PictureRequest]) -> Iterator[PictureResult | Exception]:
        """Render objects one after the other, all asked of a process at once: what becomes of each, which for a fault
        of the disk is an exception.

        One that dies while it is at an object costs what it costs alone: where it isn't clear at which it was, they are
        asked one by one. Raises StorageFull and CancelledError as `render` does.
        """
        worker = self._idle.get()
        waiting = deque(map(_Rendering, requests))
        at_once = len(waiting)
        is_asked = is_repeated = False
        try:
            self._require_room(requests[0].folder)
            while waiting:
                worker = worker or self._start()
                asked = list(waiting)[:at_once]
                is_asked = True
                try:
                    for answer in worker.ask(*(rendering.question for rendering in asked)):
                        waiting[0].take(answer)
                        if waiting[0].done:
                            yield waiting.popleft().result
                    is_asked = False
                except WorkerDied as death:
                    self._end(worker)
                    worker, is_asked = None, False
                    if self._stopped:
                        raise CancelledError from None
                    if death.with_server and not is_repeated:
                        is_repeated = True
                    elif at_once > 1 and not waiting[0].is_begun:
                        at_once = 1
                    elif waiting[0].died(death.reason):
                        yield waiting.popleft().result
        finally:
            if is_asked and worker:  # it goes on with what nobody waits for
                self._end(worker)
                worker = None
            self._idle.put(worker)

    def _warm(self) -> None:
        worker = self._idle.get()
        try:
            worker = worker or self._start()
        finally:
            self._idle.put(worker)


class DecompressPool(_Pool):
    """Processes that write the frames of compressed objects uncompressed."""

    usual_limits = DECOMPRESSING

    def submit(self, request: DecompressRequest) -> Future[Decompressed]:
        """Decompress one object when a worker is free.

        The future raises NotDisplayable where it can't be had whole, and what PicturePool.render raises.
        """
        return self._threads.submit(self._decompress, request)

    def _decompress(self, request: DecompressRequest) -> Decompressed:
        worker = self._idle.get()
        try:
            self._require_room(request.target.parent)
            is_repeated = False
            while True:
                worker = worker or self._start()
                try:
                    return _decompressed(worker.ask(Question(request)))
                except WorkerDied as death:
                    self._end(worker)
                    worker = None
                    if self._stopped:
                        raise CancelledError from None
                    if is_repeated or not death.with_server:
                        raise NotDisplayable(death.reason) from None
                    is_repeated = True
        finally:
            self._idle.put(worker)


def _decompressed(answers: Iterator[Answer]) -> Decompressed:
    """What the answers say at last. Raises NotDisplayable, StorageFull, OSError, and WorkerDied for what doesn't belong
    there: its sender can't be trusted any more.
    """
    frames, told = 0, Answer()
    for answer in answers:
        if answer.failed is not None:
            raise fault_of(answer.failed)
        if answer.frames == frames + 1 <= MAX_FRAMES:
            frames += 1
        elif answer.done and told.not_shown:
            raise NotDisplayable(told.not_shown.reason)
        elif answer.done and told.decompressed:
            return told.decompressed
        elif (answer.not_shown or answer.decompressed) and told == Answer():
            told = answer
        else:
            break
    raise WorkerDied(Reason.DECODER_CRASHED)


class _Rendering:
    """What is known so far of one object, over as many workers as it takes."""

    def __init__(self, request: PictureRequest) -> None:
        self._request = request
        self._facts: ObjectFacts | None = None
        self._pictures: list[Picture] = []
        self._not_shown: list[NotShown] = []
        self._left: deque[int] = deque()  # frames without an answer
        self._drawn = 0  # points and letters over the pictures
        self._deaths = 0
        self._fault: Exception | None = None
        self.done = False

    @property
    def question(self) -> Question:
        if self._facts is None:
            return Question(self._request)
        return Question(replace(self._request, frames=tuple(self._left)), spread=not self._deaths)

    @property
    def _has_said(self) -> bool:
        """Whether anything became of the object: without a word of it no process is done with it."""
        return bool(self._pictures or self._not_shown)

    @property
    def is_begun(self) -> bool:
        """Whether a process has said what it is."""
        return self._facts is not None

    @property
    def result(self) -> PictureResult | Exception:
        return self._fault or PictureResult(
            self._request, self._facts or ObjectFacts(), tuple(self._pictures), tuple(self._not_shown)
        )

    def take(self, answer: Answer) -> None:
        """Raises WorkerDied for what doesn't belong to the request: its sender can't be trusted any more."""
        if answer.is_last and (answer.facts or answer.picture or answer.not_shown):
            raise WorkerDied(Reason.DECODER_CRASHED)
        if answer.facts:
            if self._facts is None:
                self._facts = answer.facts
                self._left.extend(
                    sorted(set(self._request.frames) or set(answer.facts.chosen))
                    or range(1, min(answer.facts.frames, MAX_FRAMES) + 1)
                )
        elif answer.picture and self._left and self._is_of(self._left[0], answer.picture):
            self._drawn += answer.picture.annotations.size
            if self._drawn > MOST_DRAWN:
                raise WorkerDied(Reason.DECODER_CRASHED)
            self._left.popleft()
            self._pictures.append(answer.picture)
        elif answer.not_shown and self._left and answer.not_shown.frame == self._left[0]:
            self._left.popleft()
            self._not_shown.append(answer.not_shown)
        elif answer.not_shown and answer.not_shown.frame == 0:
            self._left.clear()
            self._not_shown.append(answer.not_shown)
        elif answer.failed is not None:
            self._fault = fault_of(answer.failed)
            self.done = True
        elif answer.done and not self._left and self._has_said:
            self.done = True
        else:
            raise WorkerDied(Reason.DECODER_CRASHED)

    def died(self, reason: Reason) -> bool:
        """Whether that is all: the frame that the worker was at gets no picture; after three deaths none of what is
        left does.
        """
        self._deaths += 1
        if not (self._left or self._has_said):
            self._not_shown.append(NotShown(0, reason))
        for _ in range(len(self._left) if self._deaths >= _MAX_DEATHS else min(1, len(self._left))):
            frame = self._left.popleft()
            self._discard(frame)
            self._not_shown.append(NotShown(frame, reason))
        self.done = not self._left
        return self.done

    def _is_of(self, frame: int, picture: Picture) -> bool:
        files = [
            picture.file,
            picture.thumbnail,
            *([picture.script] if picture.script else []),
        ]
        return picture.frame == frame and {file.name for file in files} <= set(self._names(frame))

    def _discard(self, frame: int) -> None:
        for name in self._names(frame):
            (self._request.folder / name).unlink(missing_ok=True)

    def _names(self, frame: int) -> tuple[str, ...]:
        return names_of(self._request.number + frame - 1)


def fault_of(number: int) -> Exception:
    """The exception for an errno: StorageFull where the disk is full, else OSError."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(
            "The disk of mkiso is full: pictures can't be written. Make room there, then ask for the disc again."
        )
    return OSError(number, os.strerror(number) if 0 < number < _MAX_ERRNO else "pictures can't be read or written")

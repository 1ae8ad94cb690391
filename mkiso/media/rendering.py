"""A job's pictures: rendered while instances still arrive, and kept in the job's folder under the SHA-256 of each
instance's file.

pictures/pictures.pack   every picture, one behind the other
         made.jsonl      what was made of which instance, where it lies, and its SHA-256: what a retry keeps
         making          all of it that its processes may write: 1/1, 1/2 … hold what one makes of some images, until
                         it lies in the pack, and are written over by the next
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISREG
from types import MappingProxyType

from pydantic import TypeAdapter, ValidationError
from pydicom.uid import CTImageStorage, MRImageStorage

from mkiso.errors import StorageFull
from mkiso.implementation import program_version
from mkiso.pictures.pool import PicturePool, fault_of
from mkiso.pictures.script import is_pixel_script
from mkiso.pictures.values import (
    NO_ANNOTATIONS,
    SOME_ANNOTATIONS,
    NotShown,
    ObjectFacts,
    PictureFile,
    PictureRequest,
    PictureResult,
    Reason,
)
from mkiso.storage.files import sha256_of
from mkiso.storage.pack import Pack, Part
from mkiso.study.models import Arrival

WORKERS = 2
"""Processes a job; they are nicer than everything else. Where there are two processors one rests while images arrive:
with both all that receives waits, and nothing is ready earlier."""
MANY_WAIT = 1000
"""Images that wait for a process, at which none rests: they take long, or one of them does."""
AT_ONCE = 8
"""How many images a process is asked for at once where so many wait: a question for each would cost as much as what is
asked."""
TELL_SECONDS = 1.0
FINISH_SECONDS = 300.0
"""How long a job waits for its pictures once all has arrived; what has none by then is named as too slow."""
VALUES, FEW_VALUES, MANY_IMAGES = 64, 16, 500
"""Of how many CT and MR images of a disc the values are carried, so that a viewer windows them itself, 0.28 MB for each
of 512²; and of how many where more images come than MANY_IMAGES: their pictures alone take 25 MB a thousand."""
MOST_DRAWN_OF_JOB = 200_000
"""Points and letters of the annotations of all images of a disc: some megabytes of its pages."""
_WITH_VALUES = frozenset({CTImageStorage, MRImageStorage})
_PACK, _MADE, _MAKING = "pictures.pack", "made.jsonl", "making"


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A picture or a report in the job's folder: a file of its own, or `size` bytes of one from `offset` on."""

    path: Path
    size: int
    sha256: str
    offset: int | None = None

    @classmethod
    def of(cls, path: Path) -> MadeFile:
        """The file as it lies there now."""
        return cls(path, path.stat().st_size, sha256_of(path))


@dataclass(frozen=True, slots=True)
class Rendered:
    """What became of one instance: `files` are those that `result` names."""

    result: PictureResult
    files: Mapping[str, MadeFile]


@dataclass(frozen=True, slots=True)
class Pictures:
    """What was rendered, by the SHA-256 of each instance's file: a picture belongs to those bytes and to no others."""

    of: Mapping[str, Rendered] = field(default_factory=dict)

    @property
    def not_shown(self) -> Counter[Reason]:
        """How often each reason stands in the way of a picture."""
        return Counter(each.reason for made in self.of.values() for each in made.result.not_shown)


NO_PICTURES = Pictures()
NO_STATES: Mapping[str, Path] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Made:
    """A line of made.jsonl: what was made of an instance's file by which version of mkiso."""

    sha256: str
    version: str
    rendered: Rendered


_MADE_JSON = TypeAdapter(_Made)


@dataclass(frozen=True, slots=True)
class _Task:
    """An image that waits for a process."""

    arrival: Arrival
    request: PictureRequest
    made: Future[Rendered] = field(default_factory=Future)


class Renderer:
    """Turns a job's arrivals into pictures beside everything else; `close` ends what it is at, and its processes."""

    def __init__(
        self, folder: Path, expected: int | None = None, workers: int = WORKERS, fork_server: Path | None = None
    ) -> None:
        """`folder` lies in the job's, as all that arrives does. `expected`: how many instances are to come; where that
        isn't known, none gets its values. `fork_server`: see PicturePool.
        """
        self._folder = folder
        self._expected = expected
        self._windowed = 0
        self._with_values: set[str] = set()  # SHA-256
        self._drawn = 0
        self._making = folder / _MAKING
        self._making.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pool = PicturePool(folder.parent, self._making, workers, fork_server=fork_server)
        self._pool.warm(workers if expected is None else min(workers, expected))
        self._begun: dict[str, Future[Rendered]] = {}
        self._kept: _Kept | None = None
        self._lock = threading.Lock()
        self._waiting: deque[_Task] = deque()
        self._places = [self._making / str(number) for number in range(1, workers + 1)]
        self._free = self._places[: max(1, len(os.sched_getaffinity(0)) // 2)]
        self._resting = self._places[len(self._free) :]
        self._folders: set[Path] = set()

    def begin(self, arrival: Arrival) -> None:
        """Render an instance when a process is free; what an earlier attempt made of these bytes is kept."""
        if arrival.sha256 in self._begun:
            return
        request = replace(self._request(arrival), script=self._has_values(arrival))
        if request.script:
            self._with_values.add(arrival.sha256)
        if self._kept is None:
            self._kept = _Kept(self._folder)
        if kept := self._kept.of(arrival, request):
            self._begun[arrival.sha256] = made = Future[Rendered]()
            made.set_result(kept)
            return
        self._begun[arrival.sha256] = self._ask(arrival, request)

    def finish(
        self,
        arrivals: Collection[Arrival],
        tell: Callable[[int], None] = lambda _: None,
        seconds: float = FINISH_SECONDS,
        states: Mapping[str, Path] = NO_STATES,
    ) -> Pictures:
        """The pictures of these instances and of no others; `tell` hears how many are done. `states`: the presentation
        state to show an image by (mkiso.media.presented). Raises StorageFull.
        """
        for arrival in arrivals:
            self.begin(arrival)
        presented = {
            arrival.sha256: self._presented(arrival, states[arrival.sha256])
            for arrival in arrivals
            if arrival.sha256 in states
        }
        while self._resting:
            self._pool.begin(self._work, self._resting.pop())
        begun = [self._begun[arrival.sha256] for arrival in arrivals]
        deadline, left = time.monotonic() + seconds, {*begun, *presented.values()}
        while left:
            tell(sum(made.done() for made in begun))
            _, left = wait(left, min(TELL_SECONDS, max(0.0, deadline - time.monotonic())))
            if time.monotonic() >= deadline:
                break
        self.close()
        rendered: dict[str, Rendered] = {}
        for arrival in arrivals:
            made = self._result(arrival, self._begun[arrival.sha256])
            if arrival.sha256 in presented:
                shown = self._result(arrival, presented[arrival.sha256])
                made = shown if len(shown.result.pictures) >= len(made.result.pictures) else made
            rendered[arrival.sha256] = made
        self._begun.clear()  # a future takes 1 KB, and this object lives as long as the job
        return Pictures(rendered)

    def close(self) -> None:
        self._pool.close(at_once=True)
        while self._waiting:
            self._waiting.popleft().made.cancel()
        if self._kept:
            self._kept.close()
            self._kept = None
        shutil.rmtree(self._making, ignore_errors=True)

    def _presented(self, arrival: Arrival, state: Path) -> Future[Rendered]:
        """An image once more, as a presentation state has it."""
        script = arrival.sha256 in self._with_values
        return self._ask(arrival, replace(self._request(arrival), presentation=state, script=script))

    def _ask(self, arrival: Arrival, request: PictureRequest) -> Future[Rendered]:
        """Put it behind what waits for a process, of which those that have nothing to do begin."""
        task = _Task(arrival, request)
        with self._lock:
            self._waiting.append(task)
            places = self._free if self._free or len(self._waiting) < MANY_WAIT else self._resting
            place = places.pop() if places else None
        if place:
            self._pool.begin(self._work, place)
        return task.made

    def _work(self, place: Path) -> None:
        """Have a process make what waits, some at a time, until nothing does."""
        while True:
            with self._lock:
                tasks = [
                    self._waiting.popleft() for _ in range(min(AT_ONCE, -(-len(self._waiting) // len(self._places))))
                ]
                if not tasks:
                    self._free.append(place)
                    return
            try:
                self._make(tasks, [self._folder_in(place, number) for number in range(1, len(tasks) + 1)])
            except Exception as error:
                for task in tasks:
                    if not task.made.done():
                        task.made.set_exception(error)
                if isinstance(error, CancelledError):
                    raise

    def _make(self, tasks: Sequence[_Task], folders: Sequence[Path]) -> None:
        assert self._kept
        requests = [replace(task.request, folder=folder) for task, folder in zip(tasks, folders, strict=True)]
        for task, folder, made in zip(tasks, folders, self._pool.each(requests), strict=True):
            try:
                if isinstance(made, Exception):
                    raise made
                facts = replace(made.facts, sop_instance_uid=task.arrival.sop_instance_uid)  # whatever a decoder says
                made = self._within_drawn(replace(made, request=task.request, facts=facts))
                task.made.set_result(self._kept.keep(task.arrival, folder, made))
            except Exception as error:  # what was written and not taken isn't there for the next
                shutil.rmtree(folder, ignore_errors=True)
                self._folders.discard(folder)
                task.made.set_exception(error)

    def _within_drawn(self, made: PictureResult) -> PictureResult:
        """Without its annotations, which it says, where the disc's pages have no more room for them."""
        size = sum(picture.annotations.size for picture in made.pictures)
        with self._lock:
            self._drawn += size
            if self._drawn <= MOST_DRAWN_OF_JOB:
                return made
            self._drawn -= size
        facts = replace(made.facts, left_out=(*made.facts.left_out, SOME_ANNOTATIONS))
        pictures = tuple(replace(picture, annotations=NO_ANNOTATIONS) for picture in made.pictures)
        return replace(made, facts=facts, pictures=pictures)

    def _folder_in(self, place: Path, number: int) -> Path:
        folder = place / str(number)
        if folder not in self._folders:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folders.add(folder)
        return folder

    def _result(self, arrival: Arrival, made: Future[Rendered]) -> Rendered:
        """What has been made by now; nothing, with the reason, where it isn't ready. Raises StorageFull."""
        try:
            return made.result(0)
        except StorageFull:
            raise
        except (TimeoutError, CancelledError):
            return _nothing(self._request(arrival), Reason.TOO_SLOW)
        except OSError:  # its file, or what it became, can't be read: mastering says whether the disc is harmed
            return _nothing(self._request(arrival), Reason.UNFORESEEN)

    def _has_values(self, arrival: Arrival) -> bool:
        """Whether a CT or MR image is one of those that carry their values, spread over all that is to come."""
        if arrival.sop_class_uid not in _WITH_VALUES or self._expected is None:
            return False
        self._windowed += 1
        each, most = self._windowed, max(VALUES, self._expected)
        carried = VALUES if self._expected <= MANY_IMAGES else FEW_VALUES
        return each * carried // most > (each - 1) * carried // most

    def _request(self, arrival: Arrival) -> PictureRequest:
        return PictureRequest(arrival.path, self._making)


class _Kept:
    """The pictures of a job's folder, this attempt's and those before."""

    def __init__(self, folder: Path) -> None:
        self._made = dict(_lines(folder / _MADE))
        self._pack = Pack(folder / _PACK)
        self._log = Pack(folder / _MADE)

    def of(self, arrival: Arrival, request: PictureRequest) -> Rendered | None:
        """What an earlier attempt made, with values or without, where each picture has the bytes that it had."""
        made = self._made.get(arrival.sha256)
        if made is None or made.version != program_version():
            return None
        if replace(made.rendered.result.request, script=request.script) != request:
            return None
        whole = all(each.path == self._pack.path and _is_whole(each) for each in made.rendered.files.values())
        return made.rendered if whole else None

    def keep(self, arrival: Arrival, place: Path, result: PictureResult) -> Rendered:
        """Put what was made into the pack. Raises StorageFull, OSError."""
        try:
            scripts = {picture.script.name for picture in result.pictures if picture.script}
            files = {
                file.name: self._packed(place / file.name, file.size, is_script=file.name in scripts)
                for file in files_of(result)
            }
            rendered = Rendered(result, files)
            if result.request.presentation is None:
                line = _MADE_JSON.dump_json(_Made(arrival.sha256, program_version(), rendered))
                self._log.add(line + b"\n")
        except OSError as error:
            raise fault_of(error.errno or -1) from error
        return rendered

    def close(self) -> None:
        self._pack.close()
        self._log.close()

    def _packed(self, path: Path, size: int, *, is_script: bool) -> MadeFile:
        """What a process has just written there, and says that it did; nothing of it stays, so that none of one image
        can pass for one of the next. A byte does: docs/decisions/spare-files.md.
        """
        with os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK), "r+b", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise OSError(errno.EIO, "a picture isn't a file of its own")
            content = file.read(size) if status.st_size == size else b""
            file.truncate(1)
        if len(content) != size or (is_script and not is_pixel_script(content)):
            raise OSError(errno.EIO, "a picture isn't what was said of it")
        return MadeFile(self._pack.path, size, hashlib.sha256(content).hexdigest(), self._pack.add(content))


def _lines(path: Path) -> Iterator[tuple[str, _Made]]:
    """What earlier attempts made; a line that was torn says nothing."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            with suppress(ValidationError):
                made = _MADE_JSON.validate_json(line, strict=True)
                yield made.sha256, made


def _is_whole(made: MadeFile) -> bool:
    try:
        with Part(made.path, made.offset or 0, made.size) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == made.sha256
    except OSError:
        return False


def files_of(result: PictureResult) -> Iterable[PictureFile]:
    """Every file of a result."""
    for picture in result.pictures:
        yield picture.file
        if picture.thumbnail != picture.file:
            yield picture.thumbnail
        if picture.script:
            yield picture.script


def _nothing(request: PictureRequest, reason: Reason) -> Rendered:
    return Rendered(PictureResult(request, ObjectFacts(), (), (NotShown(0, reason),)), {})

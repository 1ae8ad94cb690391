"""A job's pictures: rendered while instances still arrive, and kept in the job's folder under the SHA-256 of each
instance's file.

pictures/<SHA-256 of the instance's file>/P0000001.JPG …   what mkiso.pictures made of it
                                          made.json        that, with the SHA-256 of each file: what a retry keeps
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from pydantic import TypeAdapter
from pydicom.uid import CTImageStorage, MRImageStorage

from mkiso.errors import StorageFull
from mkiso.implementation import program_version
from mkiso.pictures.pool import PicturePool
from mkiso.pictures.values import NotShown, ObjectFacts, PictureFile, PictureRequest, PictureResult, Reason
from mkiso.storage.files import Unreadable, read_json, sha256_of, write_whole
from mkiso.study.models import Arrival

WORKERS = 2  # processes a job; they are nicer than everything else
FINISH_SECONDS = 300.0
"""How long a job waits for its pictures once all has arrived; what has none by then is named as too slow."""
VALUES = 64
"""Of how many CT and MR images of a disc the values are carried, so that a viewer windows them itself: about 15 MB."""
_WITH_VALUES = frozenset({CTImageStorage, MRImageStorage})
_MADE = "made.json"


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A picture's or a report's file in the job's folder."""

    path: Path
    size: int
    sha256: str

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
    """made.json: what was made by which version of mkiso."""

    version: str
    rendered: Rendered


_MADE_JSON = TypeAdapter(_Made)


class Renderer:
    """Turns a job's arrivals into pictures beside everything else; `close` ends what it is at, and its processes."""

    def __init__(
        self, folder: Path, expected: int | None = None, workers: int = WORKERS, fork_server: Path | None = None
    ) -> None:
        """`expected`: how many instances are to come; where that isn't known, none gets its values. `fork_server`: see
        PicturePool.
        """
        self._folder = folder
        self._expected = expected
        self._windowed = 0
        self._pool = PicturePool(workers, fork_server=fork_server)
        self._pool.warm(workers if expected is None else min(workers, expected))
        self._begun: dict[str, Future[Rendered]] = {}

    def begin(self, arrival: Arrival) -> None:
        """Render an instance when a process is free; what an earlier attempt made of these bytes is kept."""
        if arrival.sha256 in self._begun:
            return
        request = replace(self._request(arrival), script=self._has_values(arrival))
        if kept := self._kept(request):
            self._begun[arrival.sha256] = made = Future[Rendered]()
            made.set_result(kept)
            return
        self._begun[arrival.sha256] = self._submit(arrival, request)

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
        deadline = time.monotonic() + seconds
        rendered: dict[str, Rendered] = {}
        for arrival in arrivals:
            tell(len(rendered))
            made = self._result(arrival, self._begun[arrival.sha256], max(0.0, deadline - time.monotonic()))
            if arrival.sha256 in presented:
                shown = self._result(arrival, presented[arrival.sha256], max(0.0, deadline - time.monotonic()))
                made = shown if len(shown.result.pictures) >= len(made.result.pictures) else made
            rendered[arrival.sha256] = made
        self.close()
        self._drop_others(rendered)
        return Pictures(rendered)

    def close(self) -> None:
        self._pool.close(at_once=True)

    def _presented(self, arrival: Arrival, state: Path) -> Future[Rendered]:
        """An image once more, as a presentation state has it; its values, which nobody turned, aren't carried then."""
        folder = self._folder / arrival.sha256 / "presented"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._submit(arrival, PictureRequest(arrival.path, folder, presentation=state))

    def _submit(self, arrival: Arrival, request: PictureRequest) -> Future[Rendered]:
        made = Future[Rendered]()

        def done(future: Future[PictureResult]) -> None:
            try:
                made.set_result(self._keep(arrival, request.folder, future.result()))
            except BaseException as error:  # whatever it is, `finish` says it
                made.set_exception(error)

        self._pool.submit(request).add_done_callback(done)
        return made

    def _result(self, arrival: Arrival, made: Future[Rendered], seconds: float) -> Rendered:
        try:
            return made.result(seconds)
        except StorageFull:
            raise
        except (TimeoutError, CancelledError):
            return _nothing(self._request(arrival), Reason.TOO_SLOW)
        except OSError:  # its file, or what it became, can't be read: mastering says whether the disc is harmed
            return _nothing(self._request(arrival), Reason.UNFORESEEN)

    def _has_values(self, arrival: Arrival) -> bool:
        """Whether a CT or MR image is one of the VALUES that carry their values, spread over all that is to come."""
        if arrival.sop_class_uid not in _WITH_VALUES or self._expected is None:
            return False
        self._windowed += 1
        each, most = self._windowed, max(VALUES, self._expected)
        return each * VALUES // most > (each - 1) * VALUES // most

    def _request(self, arrival: Arrival) -> PictureRequest:
        return PictureRequest(arrival.path, self._folder / arrival.sha256)

    def _kept(self, request: PictureRequest) -> Rendered | None:
        """What an earlier attempt made, with values or without, where each file still has the bytes that it had; else
        none of it stays.
        """
        try:
            made = read_json(request.folder / _MADE, _MADE_JSON)
            files = made.rendered.files.values()
            asked = replace(made.rendered.result.request, script=request.script)
            if (made.version, asked) == (program_version(), request) and all(
                file.path.parent == request.folder and sha256_of(file.path) == file.sha256 for file in files
            ):
                return made.rendered
        except (OSError, Unreadable):
            pass
        shutil.rmtree(request.folder, ignore_errors=True)
        request.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return None

    def _keep(self, arrival: Arrival, folder: Path, result: PictureResult) -> Rendered:
        files = {file.name: MadeFile.of(folder / file.name) for file in files_of(result)}
        facts = replace(result.facts, sop_instance_uid=arrival.sop_instance_uid)  # whatever a decoder says
        rendered = Rendered(replace(result, facts=facts), files)
        write_whole(folder / _MADE, _MADE_JSON.dump_json(_Made(program_version(), rendered)))
        return rendered

    def _drop_others(self, rendered: Mapping[str, Rendered]) -> None:
        """Pictures of what came and isn't on the disc."""
        if self._folder.is_dir():
            for folder in self._folder.iterdir():
                if folder.name not in rendered:
                    shutil.rmtree(folder, ignore_errors=True)


def files_of(result: PictureResult) -> Iterable[PictureFile]:
    """Every file of a result."""
    for picture in result.pictures:
        yield picture.file
        yield picture.thumbnail
        yield from (preset.file for preset in picture.presets)
        if picture.script:
            yield picture.script


def _nothing(request: PictureRequest, reason: Reason) -> Rendered:
    return Rendered(PictureResult(request, ObjectFacts(), (), (NotShown(0, reason),)), {})

"""The frames of a video: an MPEG-2, H.264 or HEVC stream in the fragments of an object (PS3.5 8.2.5 to 8.2.11), decoded
by PyAV, which is there where `mkiso[video]` is installed.

Of more than MOST_CHOSEN frames some alone are shown, spread evenly: of very many some of those that need no other one
to be decoded.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mkiso.pictures import pyav
from mkiso.pictures.form import MAX_FRAME_BYTES, MAX_FRAMES, PixelForm, pixel_form
from mkiso.pictures.frames import Fragment, fragments_of
from mkiso.pictures.image import VIDEO, Image, Opened
from mkiso.pictures.stacks import evenly
from mkiso.pictures.values import MOST_CHOSEN, NotDisplayable, ObjectFacts, Reason

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    _Packet = Packet[VideoStream]

_ALL_DECODED = 10 * MOST_CHOSEN  # frames; of more, those that need no other
_LONGEST_MS = 200.0  # for which a picture of a long video stands, so that it doesn't take as long as the video
_OPTIONS = {  # no other format than those of DICOM's videos, and nothing that lies elsewhere
    "format_whitelist": "mpegts,mpeg,mpegvideo,mov,h264,hevc",
    "codec_whitelist": "mpeg2video,mpeg1video,h264,hevc",
    "protocol_whitelist": "",
}
_DECODER = {"err_detect": "explode", "max_pixels": str(MAX_FRAME_BYTES // 3)}  # it would make up what is damaged
_UNSPECIFIED, _BT_709, _BT_601 = 2, 1, 5  # matrix coefficients (ITU-T H.273)
_HD_ROWS = 720


def is_video(opened: Opened) -> bool:
    """Whether an object is one that can be decoded here."""
    return opened.transfer_syntax in VIDEO and pyav.is_installed()


def video_of(opened: Opened, facts: ObjectFacts) -> tuple[Image, ObjectFacts]:
    """A video opened for its frames, and its facts, which its stream knows better: how many frames there are, which of
    them are shown, and how long each stands. Raises NotDisplayable.
    """
    if opened.pixels is None or not opened.pixels.delimited:
        raise NotDisplayable(Reason.DAMAGED)
    form = pixel_form(opened.attributes, opened.transfer_syntax, floating=False)
    fragments = fragments_of(opened.file, opened.pixels.offset)
    survey = _surveyed(_Stream(opened.file, fragments))
    chosen, frames = survey.chosen, max(facts.frames, survey.frames)
    step = survey.frames / len(chosen) if chosen else 1
    if not chosen and frames > survey.frames:
        chosen = tuple(range(1, survey.frames + 1))
    time = (facts.frame_time_ms or survey.frame_time_ms or 1000 / 25) * step
    facts = replace(facts, frames=frames, chosen=chosen, frame_time_ms=min(time, max(_LONGEST_MS, time / step)))
    form = replace(form, frames=survey.frames)
    return Image(opened.attributes, form, VideoFrames(opened.file, form, fragments, survey)), facts


@dataclass(frozen=True, slots=True)
class _Survey:
    """A stream's packets, one a frame, in the order in which they lie there: `times` at which each is shown, none where
    one doesn't say; `alone` which of them need no other.
    """

    times: tuple[int, ...]
    alone: tuple[bool, ...]
    frame_time_ms: float | None

    @property
    def frames(self) -> int:
        return len(self.alone)

    @property
    def numbers(self) -> Sequence[int]:
        """Which frame each packet is, from 0."""
        if not self.times:
            return range(self.frames)
        shown = sorted(range(self.frames), key=self.times.__getitem__)
        numbers = [0] * self.frames
        for number, packet in enumerate(shown):
            numbers[packet] = number
        return numbers

    @property
    def are_decoded_alone(self) -> bool:
        return self.frames > _ALL_DECODED

    @property
    def chosen(self) -> tuple[int, ...]:
        """The frames that are shown, from 1; none where all are."""
        if self.frames <= MOST_CHOSEN:
            return ()
        some: Sequence[int] = range(self.frames)
        if self.are_decoded_alone:
            some = sorted(number for number, alone in zip(self.numbers, self.alone, strict=True) if alone)
        return tuple(number + 1 for number in evenly(some, MOST_CHOSEN))


class VideoFrames:
    """The frames of a stream, which are decoded one after the other."""

    def __init__(self, file: BinaryIO, form: PixelForm, fragments: Sequence[Fragment], survey: _Survey) -> None:
        self._file, self._form, self._fragments, self._survey = file, form, fragments, survey
        self._wanted = frozenset(number - 1 for number in survey.chosen)
        self._left: Iterator[tuple[int, VideoFrame]] = iter(())
        self._next: tuple[int, VideoFrame] | None = None
        self._after = -1  # what has been given

    def samples(self, index: int) -> tuple[NDArray[Any], str]:
        if index <= self._after or self._after < 0:
            self._left, self._next = self._decoded(), None
        self._after = index
        while self._next is None or self._next[0] < index:
            if (found := next(self._left, None)) is None:
                raise NotDisplayable(Reason.DAMAGED)
            self._next = found
        number, frame = self._next
        if number > index:
            raise NotDisplayable(Reason.DAMAGED)
        if (frame.height, frame.width) != (self._form.rows, self._form.columns):
            raise NotDisplayable(Reason.MALFORMED)
        matrix = int(frame.colorspace)
        if matrix == _UNSPECIFIED:
            matrix = _BT_709 if frame.height >= _HD_ROWS else _BT_601
        return np.asarray(frame.to_ndarray(format="rgb24", src_colorspace=matrix)), "RGB"

    def _decoded(self) -> Iterator[tuple[int, VideoFrame]]:
        """Each frame that can be decoded, and which it is, from 0, in the order in which they are shown."""
        with _opened(_Stream(self._file, self._fragments)) as (container, stream):
            packets, context = _packets(container, stream), stream.codec_context
            yield from (self._alone if self._survey.are_decoded_alone else self._together)(packets, context)

    def _alone(self, packets: Iterator[_Packet], context: VideoCodecContext) -> Iterator[tuple[int, VideoFrame]]:
        """The wanted frames among those that need no other."""
        for packet, number, is_alone in zip(packets, self._survey.numbers, self._survey.alone, strict=False):
            if not is_alone or number not in self._wanted:
                continue
            for frame in (*(_frames(context, packet) or ()), *(_frames(context, None) or ())):
                if not frame.is_corrupt:
                    yield number, frame
            context.flush_buffers()

    def _together(self, packets: Iterator[_Packet], context: VideoCodecContext) -> Iterator[tuple[int, VideoFrame]]:
        """All frames, one after the other."""
        of_time = dict(zip(self._survey.times, self._survey.numbers, strict=False))
        number, is_whole = -1, True
        for packet in chain(packets, [None]):
            frames = _frames(context, packet)
            is_whole = is_whole and frames is not None
            for frame in frames or ():
                number = number + 1 if frame.pts is None else of_time.get(frame.pts, number + 1)
                is_whole = (is_whole or frame.key_frame) and not frame.is_corrupt
                if is_whole:  # others up to the next that needs none of them may show what they don't hold
                    yield number, frame


class _Stream(io.RawIOBase):
    """Fragments one behind the other, as a file."""

    def __init__(self, file: BinaryIO, fragments: Sequence[Fragment]) -> None:
        self._file, self._fragments = file, fragments
        self._ends = list(accumulate(length for _, length in fragments))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        size = self._ends[-1] if self._ends else 0
        self._at = max(0, {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: size}[whence] + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        number = bisect_right(self._ends, self._at)
        if number == len(self._ends):
            return b""
        start, length = self._fragments[number]
        within = self._at - (self._ends[number] - length)
        self._file.seek(start + within)
        read = self._file.read(length - within if size < 0 else min(size, length - within))
        self._at += len(read)
        return read


@contextmanager
def _opened(stream: _Stream) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Raises NotDisplayable where it holds no video."""
    import av

    try:
        container = av.open(stream, "r", options=_OPTIONS)
    except (av.FFmpegError, ValueError):
        raise NotDisplayable(Reason.DAMAGED) from None
    with closing(container):
        found = next(iter(container.streams.video), None)
        if found is None or found.codec_context is None:  # of what FFmpeg doesn't know, or may not decode
            raise NotDisplayable(Reason.DAMAGED)
        found.codec_context.thread_count = 1
        found.codec_context.options = _DECODER
        yield container, found


def _surveyed(stream: _Stream) -> _Survey:
    """Raises NotDisplayable where there is no frame, or there are too many."""

    times: list[int | None] = []
    alone: list[bool] = []
    with _opened(stream) as (container, found):
        rate = found.average_rate
        for packet in _packets(container, found):
            times.append(packet.pts)
            alone.append(packet.is_keyframe)
            if len(alone) > MAX_FRAMES:
                raise NotDisplayable(Reason.TOO_LARGE)
    if not any(alone):
        raise NotDisplayable(Reason.DAMAGED)
    known = tuple(time for time in times if time is not None)
    whole = known if len(set(known)) == len(alone) else ()
    return _Survey(whole, tuple(alone), float(1000 / rate) if rate else None)


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[_Packet]:
    """Up to the end, or to where it can't be followed further."""
    from av.error import FFmpegError

    with suppress(FFmpegError, IndexError):  # of a packet of a stream that comes up late
        yield from (packet for packet in container.demux(stream) if packet.size)


def _frames(context: VideoCodecContext, packet: _Packet | None) -> list[VideoFrame] | None:
    """What comes out for a packet, or at last; None for a damaged one."""
    from av.error import FFmpegError

    try:
        return context.decode(packet)
    except FFmpegError:
        return None

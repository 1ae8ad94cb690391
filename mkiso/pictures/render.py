"""One object to pictures, frame by frame, in this process: mkiso.pictures.worker calls it in one of its own."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkiso.pictures.annotations import Placing, StateAnnotations, annotations_of
from mkiso.pictures.attributes import Attributes, text
from mkiso.pictures.colour import Palette, palette_of, to_rgb
from mkiso.pictures.geometry import plane_of
from mkiso.pictures.grey import Greys, Lut, Modality, Stored, full_range, percentile_window, sampled
from mkiso.pictures.image import Image, facts_of, image_of, opened
from mkiso.pictures.jpeg import MAX_EDGE, shrink_by, shrunk, write, write_jpeg
from mkiso.pictures.luts import frame_modality, frame_window, modality_of, padding_of, voi_luts_of, windows_of
from mkiso.pictures.names import PICTURE, SCRIPT, THUMBNAIL, picture_name
from mkiso.pictures.overlays import Mask, activated_mask, overlay_mask
from mkiso.pictures.presentation import Presentation, left_out_of, presentation_of
from mkiso.pictures.script import pixel_script
from mkiso.pictures.shutter import Shutter, is_own_understood, own_shutter, shutter_of
from mkiso.pictures.values import (
    NO_ANNOTATIONS,
    SMALL_EDGE,
    THUMBNAIL_EDGE,
    Annotations,
    Look,
    NotDisplayable,
    NotShown,
    ObjectFacts,
    Picture,
    PictureFile,
    PictureRequest,
    Plane,
    Reason,
    Shown,
    Window,
)
from mkiso.pictures.video import is_video, video_of

_IN_TABLES = (np.uint8, np.uint16)  # words that a palette can be looked up by
_FEW_BITS = 8  # up to here an image without a window is shown as it is: captures, ultrasound, segmentations


def render(request: PictureRequest, *, spread: bool = True) -> Iterator[ObjectFacts | Picture | NotShown]:
    """First the object's facts, then each frame that was asked for, in order; of an object that can't be shown the
    reason alone.

    `spread`: a window by percentiles is of frames all over the object, so that a run doesn't flicker; else of the
    first. Raises OSError where the disk is full.
    """
    try:
        with opened(request.path) as object_:
            facts, video = facts_of(object_), None
            if is_video(object_):
                video, facts = video_of(object_, facts)
            state, annotations = _state(request), StateAnnotations()
            if state:
                annotations = annotations_of(state, facts.sop_instance_uid, facts.frames)
                facts = replace(facts, left_out=left_out_of(state, facts.rows, facts.columns, annotations))
            elif not is_own_understood(object_.attributes):
                facts = replace(facts, left_out=("shutter",))
            yield facts
            image = video or image_of(object_)
            wanted = sorted(set(request.frames) or facts.chosen or range(1, image.form.frames + 1))
            pictures = _Pictures(
                request,
                image,
                state,
                annotations,
                [frame - 1 for frame in wanted if frame <= image.form.frames] if spread else [],
            )
            for frame in wanted:
                yield pictures.of(frame - 1)
    except OSError:
        raise
    except Exception as error:
        yield NotShown(0, _reason(error))


class _Pictures:
    """The pictures of one object; a window by percentiles is found once."""

    def __init__(
        self,
        request: PictureRequest,
        image: Image,
        state: Attributes | None,
        annotations: StateAnnotations,
        spread: list[int],
    ) -> None:
        self._request, self._image, self._state, self._annotations = request, image, state, annotations
        self._state_shutter = shutter_of(state)[0] if state else None
        self._dataset, self._form = image.dataset, image.form
        self._stored = Stored(image.form.bits_stored, image.form.high_bit, image.form.signed)
        self._padding = padding_of(image.dataset, image.form)
        self._palette = _palette(image)
        self._spread = sorted({spread[len(spread) * part // 4] for part in (1, 2, 3)}) if spread else []
        self._percentiles: Window | None = None

    def of(self, index: int) -> Picture | NotShown:
        try:
            return self._picture(index)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            return NotShown(index + 1, Reason.TOO_LARGE)
        except Exception as error:
            return NotShown(index + 1, _reason(error))

    def _picture(self, index: int) -> Picture:
        samples, photometric = self._image.frames.samples(index)
        words = _words(samples, self._form.bits_allocated)
        presentation = self._presentation(index)
        plane = plane_of(self._dataset, index)
        number = self._request.number + index
        shutter = self._shutter(index, presentation)
        shut = shutter.mask(words, plane.pixel_aspect) if shutter else None
        greys: Greys | None = None
        if photometric == "PALETTE COLOR" or words.ndim == 3:
            look = Look(Shown.COLOUR)
            pixels = self._coloured(words, photometric)
        else:
            greys, look = self._greys(index, words, shut, photometric, presentation)
            pixels = self._grey(words, greys)
        shrink = shrink_by(pixels, MAX_EDGE)
        overlays = list(self._overlays(index, words, presentation))
        if not pixels.flags.writeable and (shut is not None or overlays):  # colour as it lies in the file
            pixels = pixels.copy()
        if shutter and shut is not None:
            shutter.paint(pixels, shut)
        for overlay in overlays:
            pixels[overlay] = 255
        whole = shrunk(pixels, shrink)
        whole = presentation.turned(whole) if presentation else whole
        file = thumbnail = write_jpeg(self._request.folder, picture_name(PICTURE, number), whole)
        if max(whole.shape[:2]) > SMALL_EDGE:
            small = shrunk(whole, shrink_by(whole, THUMBNAIL_EDGE))
            thumbnail = write_jpeg(self._request.folder, picture_name(THUMBNAIL, number), small)
        return Picture(
            index + 1,
            file,
            thumbnail,
            look,
            _turned(plane, presentation),
            self._script(number, words, greys, presentation) if greys and shut is None and not overlays else None,
            shrink,
            self._drawn(index, words, shrink, plane, presentation),
        )

    def _script(
        self, number: int, words: NDArray[Any], greys: Greys, presentation: Presentation | None
    ) -> PictureFile | None:
        """Turned as the picture is; none where values in a window aren't all that it shows."""
        if not self._request.script or self._palette or greys.presentation:
            return None
        name, turned = picture_name(SCRIPT, number), presentation.turned(words) if presentation else words
        content = pixel_script(name, turned, greys)
        return write(self._request.folder, name, content, turned) if content else None

    def _overlays(self, index: int, words: NDArray[Any], presentation: Presentation | None) -> Iterator[Mask]:
        """Those of the image and of the state, where anything of them is drawn."""
        masks = [overlay_mask(self._dataset, index, words)]
        if presentation and self._state:
            masks.append(activated_mask(self._state, index, words))
        return (mask for mask in masks if mask is not None and mask.any())

    def _shutter(self, index: int, presentation: Presentation | None) -> Shutter | None:
        """A state's goes before the image's own, also where it has none (PS3.4 N.2)."""
        return self._state_shutter if presentation else own_shutter(self._dataset, index)

    def _drawn(
        self, index: int, words: NDArray[Any], shrink: int, plane: Plane, presentation: Presentation | None
    ) -> Annotations:
        if presentation is None:
            return NO_ANNOTATIONS
        rows, columns = words.shape[:2]
        turns = presentation.quarter_turns
        placing = Placing(
            width=-(-columns // shrink),
            height=-(-rows // shrink),
            shrunk=shrink,
            quarter_turns=turns,
            mirrored=presentation.mirrored,
            area=presentation.area or (0, 0, columns, rows),
            aspect=1 / plane.pixel_aspect if turns % 2 else plane.pixel_aspect,
        )
        return self._annotations.on(index, placing)

    def _coloured(self, words: NDArray[Any], photometric: str) -> NDArray[np.uint8]:
        if photometric != "PALETTE COLOR":
            return to_rgb(words, photometric, self._stored)
        if self._palette is None or words.dtype not in _IN_TABLES:
            raise NotDisplayable(Reason.MALFORMED)
        return np.take(self._palette.of_words(words.dtype.itemsize, self._stored), words, axis=0)

    def _grey(self, words: NDArray[Any], greys: Greys) -> NDArray[np.uint8]:
        """Grey, with the colours of a supplemental palette where stored values reach it (PS3.3 C.7.6.19)."""
        if self._palette is None or words.dtype not in _IN_TABLES:
            return greys(words)
        size = words.dtype.itemsize
        return np.take(self._palette.of_words(size, self._stored, greys.of_words(size)), words, axis=0)

    def _greys(
        self,
        index: int,
        words: NDArray[Any],
        shut: Mask | None,
        photometric: str,
        presentation: Presentation | None,
    ) -> tuple[Greys, Look]:
        if photometric not in ("MONOCHROME1", "MONOCHROME2"):
            raise NotDisplayable(Reason.MALFORMED)
        modality = self._modality(index, presentation)
        voi, look = self._voi(index, words, shut, modality, presentation)
        inverse = presentation.inverse if presentation else None
        if inverse is None:
            inverse = photometric == "MONOCHROME1"
        table = presentation.table if presentation else None
        return Greys(self._stored, modality, voi, inverse, self._padding, table), look

    def _modality(self, index: int, presentation: Presentation | None) -> Modality:
        if presentation and presentation.modality:
            return presentation.modality
        return modality_of(
            frame_modality(self._dataset, index), signed=self._form.signed, little_endian=self._form.little_endian
        )

    def _voi(
        self,
        index: int,
        words: NDArray[Any],
        shut: Mask | None,
        modality: Modality,
        presentation: Presentation | None,
    ) -> tuple[Window | Lut, Look]:
        """The presentation state's window or table, else the object's table, else its first window, else one that fits
        the values that are seen.
        """
        if presentation and presentation.voi:
            window = presentation.voi if isinstance(presentation.voi, Window) else None
            return presentation.voi, Look(Shown.PRESENTATION, window, presentation.explanation)
        holder = frame_window(self._dataset, index)
        signed = self._form.signed or modality.intercept < 0
        for lut, explanation in voi_luts_of(holder, signed=signed, little_endian=self._form.little_endian):
            return lut, Look(Shown.VOI_LUT, None, explanation)
        for window in windows_of(holder):
            return window, Look(Shown.WINDOW, window, window.explanation)
        if self._form.bits_stored <= _FEW_BITS:
            window = full_range(self._stored, modality)
            return window, Look(Shown.FULL_RANGE, window)
        if self._percentiles is None:
            self._percentiles = percentile_window(
                np.concatenate([*self._samples(but=index), self._sample(words, shut, modality)])
            )
        return self._percentiles, Look(Shown.PERCENTILES, self._percentiles)

    def _sample(self, words: NDArray[Any], shut: Mask | None, modality: Modality) -> NDArray[np.float64]:
        """Of what is seen of a frame."""
        return sampled(words if shut is None else words[~shut], self._stored, modality, self._padding)

    def _samples(self, but: int) -> Iterator[NDArray[np.float64]]:
        for index in self._spread:
            if index == but:
                continue
            try:
                samples, _ = self._image.frames.samples(index)
            except NotDisplayable:
                continue
            words, presentation = _words(samples, self._form.bits_allocated), self._presentation(index)
            shutter = self._shutter(index, presentation)
            shut = shutter.mask(words, plane_of(self._dataset, index).pixel_aspect) if shutter else None
            yield self._sample(words, shut, self._modality(index, presentation))

    def _presentation(self, index: int) -> Presentation | None:
        if self._state is None:
            return None
        uid = text(self._dataset, "SOPInstanceUID")
        return presentation_of(
            self._state, uid, index, signed=self._form.signed, little_endian=self._form.little_endian
        )


def _words(samples: NDArray[Any], bits_allocated: int) -> NDArray[Any]:
    """Samples as unsigned words in this machine's byte order, or as floats; fewer bits than a stored value may have are
    widened with their sign.
    """
    if samples.dtype.kind == "f":
        return samples
    size = max(samples.dtype.itemsize, bits_allocated // 8)
    widened = samples.astype(f"={samples.dtype.kind}{size}", copy=False)
    return widened.view(f"=u{size}")


def _palette(image: Image) -> Palette | None:
    """The palette of a colour image; of a grey one only where it says that it has colours (PS3.3 C.7.6.19)."""
    presented = text(image.dataset, "PixelPresentation").upper()
    if image.form.photometric != "PALETTE COLOR" and presented not in ("COLOR", "MIXED"):
        return None
    return palette_of(image.dataset, signed=image.form.signed, little_endian=image.form.little_endian)


def _turned(plane: Plane, presentation: Presentation | None) -> Plane:
    """Marks and spacing as the picture shows them."""
    if presentation is None:
        return plane
    spacing = plane.spacing
    aside = presentation.quarter_turns % 2 == 1
    return replace(
        plane,
        marks=presentation.turned_marks(plane.marks) if plane.marks else None,
        spacing=replace(spacing, row_mm=spacing.column_mm, column_mm=spacing.row_mm) if spacing and aside else spacing,
        pixel_aspect=1 / plane.pixel_aspect if aside else plane.pixel_aspect,
    )


def _state(request: PictureRequest) -> Attributes | None:
    if request.presentation is None:
        return None
    with opened(request.presentation) as state:
        return state.attributes


def _reason(error: Exception) -> Reason:
    if isinstance(error, NotDisplayable):
        return error.reason
    if isinstance(error, MemoryError):
        return Reason.TOO_LARGE
    traceback.print_exception(error)
    return Reason.UNFORESEEN

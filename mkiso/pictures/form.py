"""How an object's pixels are made: the attributes of the Image Pixel module, checked (PS3.3 C.7.6.3)."""

from __future__ import annotations

from dataclasses import dataclass

from mkiso.pictures.attributes import Attributes, integer, text
from mkiso.pictures.values import NotDisplayable, Reason

MAX_FRAME_BYTES = 128 * 1024 * 1024  # decoded; the largest radiographs and mammograms have about 60 MB
MAX_FRAMES = 100_000

EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"


@dataclass(frozen=True, slots=True)
class PixelForm:
    """`bits_allocated` is 1, 8, 16, 32 or 64. `floating`: Float or Double Float Pixel Data."""

    transfer_syntax: str
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    floating: bool
    photometric: str
    planar: bool
    frames: int

    @property
    def little_endian(self) -> bool:
        return self.transfer_syntax != EXPLICIT_BIG_ENDIAN

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


def pixel_form(dataset: Attributes, transfer_syntax: str, *, floating: bool) -> PixelForm:
    """Raises NotDisplayable where attributes are missing or contradict each other, or a frame is larger than 128 MB."""
    rows, columns = integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0
    samples = integer(dataset, "SamplesPerPixel") or 1
    allocated = integer(dataset, "BitsAllocated") or 0
    stored = allocated if floating else integer(dataset, "BitsStored") or allocated
    high_bit = integer(dataset, "HighBit")
    frames = integer(dataset, "NumberOfFrames")
    form = PixelForm(
        transfer_syntax=transfer_syntax,
        rows=rows,
        columns=columns,
        samples=samples,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1 if high_bit is None else high_bit,
        signed=integer(dataset, "PixelRepresentation") == 1,
        floating=floating,
        photometric=text(dataset, "PhotometricInterpretation").upper() or ("MONOCHROME2" if samples == 1 else "RGB"),
        planar=integer(dataset, "PlanarConfiguration") == 1,
        frames=1 if frames is None else frames,
    )
    if not _sound(form):
        raise NotDisplayable(Reason.MALFORMED)
    if form.pixels * samples * max(allocated, 8) // 8 > MAX_FRAME_BYTES or form.frames > MAX_FRAMES:
        raise NotDisplayable(Reason.TOO_LARGE)
    return form


def _sound(form: PixelForm) -> bool:
    return (
        form.rows > 0
        and form.columns > 0
        and form.frames > 0
        and form.samples in (1, 3)
        and form.bits_allocated in ((32, 64) if form.floating else (1, 8, 16, 32, 64))
        and 0 < form.bits_stored <= form.bits_allocated
        and form.bits_stored - 1 <= form.high_bit < form.bits_allocated
    )

"""Recordings: ECG and other waveforms, drawn on millimetre paper (PS3.3 C.10.9). Of a long one its beginning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from pydicom import uid

from mkiso.dataset.items import Item, keywords
from mkiso.errors import DamagedInstance
from mkiso.reports.codes import QUANTITIES, code_in, quantity_of
from mkiso.reports.paper import Trace, draw
from mkiso.reports.values import Annotation, Channel, Chart, Lack, Recording

MAX_CHARTS = 16
MAX_CHANNELS = 64
MAX_SECONDS = 60.0
MAX_POINTS = 120_000
"""Of a chart: with 12 channels of 500 samples a second that is 20 s, and 600 KB."""
MAX_HERTZ = 1_000  # that paper shows: of faster ones the lowest and highest of each step
MAX_ANNOTATIONS = 500
BLOCK_BYTES = 4 * 1024 * 1024
MAX_STEP_BYTES = 4 * BLOCK_BYTES
"""Of all channels: 12 of 16 bits may have 300 million samples a second, which is no recording of a body any more."""

KEYWORDS = QUANTITIES | keywords("""
    WaveformSequence NumberOfWaveformChannels NumberOfWaveformSamples SamplingFrequency MultiplexGroupLabel
    ChannelDefinitionSequence ChannelLabel ChannelSourceSequence ChannelSensitivity ChannelSensitivityUnitsSequence
    ChannelSensitivityCorrectionFactor ChannelBaseline WaveformSampleInterpretation WaveformPaddingValue WaveformData
    WaveformAnnotationSequence UnformattedTextValue ConceptNameCodeSequence ConceptCodeSequence
    """)
_SAMPLES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4", "SV": "i8", "UV": "u8"}
_SOUND = frozenset({"MB", "AB"})  # mu-law and A-law
_SOUND_CLASSES = frozenset({uid.BasicVoiceAudioWaveformStorage, uid.GeneralAudioWaveformStorage})
_SMALL_VOLTAGES = frozenset(  # of which 10 mm a mV would be a line
    {
        uid.RoutineScalpElectroencephalogramWaveformStorage,
        uid.ElectromyogramWaveformStorage,
        uid.ElectrooculogramWaveformStorage,
        uid.SleepElectroencephalogramWaveformStorage,
    }
)
_MILLIVOLTS = {"nV": 1e-6, "uV": 1e-3, "mV": 1.0, "V": 1e3}
_MV_PER_MM = 0.1  # 10 mm/mV
_TALL_MM, _FIT_MM = 60.0, 25.0


@dataclass(frozen=True, slots=True)
class _Definition:
    """What a channel's samples mean: value = sample * factor + baseline, in `unit`."""

    label: str
    unit: str
    factor: float
    baseline: float


def read_recording(document: Item) -> tuple[Recording, tuple[Lack, ...]]:
    """The waveforms of an object and what it says of them."""
    lacks: list[Lack] = []
    charts: list[Chart] = []
    sop_class = document.line("SOPClassUID")
    try:
        for group in document.items("WaveformSequence"):
            if len(charts) == MAX_CHARTS:
                lacks.append(Lack.TOO_MANY)
                break
            charts.append(_chart(group, sop_class))
    except DamagedInstance:
        lacks.append(Lack.DAMAGED)
    if not charts and not lacks:
        lacks.append(Lack.EMPTY)
    annotations = tuple(islice(_annotations(document), MAX_ANNOTATIONS))
    return Recording(tuple(charts), annotations), tuple(lacks)


def _chart(group: Item, sop_class: str) -> Chart:
    definitions = [_definition(item) for item in islice(group.items("ChannelDefinitionSequence"), MAX_CHANNELS)]
    hertz, samples = group.number("SamplingFrequency") or 0.0, group.integer("NumberOfWaveformSamples") or 0
    count = group.integer("NumberOfWaveformChannels") or 0
    label = group.line("MultiplexGroupLabel")
    seconds = samples / hertz if hertz > 0 else 0.0
    interpretation = group.line("WaveformSampleInterpretation").upper()
    lack = None
    if sop_class in _SOUND_CLASSES or interpretation in _SOUND:
        lack = Lack.SOUND
    elif interpretation not in _SAMPLES or not 0 < len(definitions) <= count or not seconds > 0:
        lack = Lack.FORMAT
    if lack:
        return Chart(label, seconds, hertz, (), count, 0.0, lack=lack)
    shown = min(MAX_SECONDS, seconds, MAX_POINTS / (min(hertz, MAX_HERTZ) * len(definitions)))
    # Less than two samples a minute are no curve, and would be drawn on paper without end.
    wanted = int(shown * hertz)
    step = min(2 * int(np.ceil(hertz / MAX_HERTZ)), wanted) if hertz > MAX_HERTZ else 1
    kind = np.dtype(_SAMPLES[interpretation])
    values = _values(group, kind, count, wanted, step) if wanted > 1 else None
    if values is None:
        return Chart(label, seconds, hertz, (), count, 0.0, lack=Lack.FORMAT)
    drawn_hertz = hertz if step == 1 else 2 * hertz / step
    traces, channels = [], []
    for column, definition in enumerate(definitions):
        trace, channel = _trace(values[:, column], definition, drawn_hertz, is_small=sop_class in _SMALL_VOLTAGES)
        traces.append(trace)
        channels.append(channel)
    shown = len(values) / drawn_hertz
    return Chart(label, seconds, hertz, tuple(channels), count, shown, draw(traces, shown))


def _definition(item: Item) -> _Definition:
    unit = code_in(item, "ChannelSensitivityUnitsSequence")
    source = str(code_in(item, "ChannelSourceSequence") or "")
    correction = item.number("ChannelSensitivityCorrectionFactor")
    return _Definition(
        label=(item.line("ChannelLabel") or source.removeprefix("Lead "))[:40],
        unit=(unit.value or unit.meaning)[:20] if unit else "",
        factor=(item.number("ChannelSensitivity") or 1.0) * (1.0 if correction is None else correction),
        baseline=item.number("ChannelBaseline") or 0.0,
    )


def _values(
    group: Item, kind: np.dtype[np.generic], channels: int, samples: int, step: int
) -> NDArray[np.float64] | None:
    """The first samples, a row each, NaN where there is padding; None where they aren't what the object says.

    Of each `step` of more than one sample the lowest and the highest, so that no peak is lost; no more than BLOCK_BYTES
    are in memory at a time.
    """
    place = group.place("WaveformData")
    if place is None:
        return None
    offset, length = place
    row = channels * kind.itemsize
    steps = min(samples, length // row) // step
    if not steps or row * step > MAX_STEP_BYTES:
        return None
    ordered = kind.newbyteorder("<" if group.little_endian else ">")
    padding = group.place("WaveformPaddingValue")
    absent = None
    if padding and padding[1] >= kind.itemsize:
        [absent] = np.frombuffer(group.value(padding[0], kind.itemsize), ordered)
    at_once, read = max(1, BLOCK_BYTES // (row * step)), []
    for first in range(0, steps, at_once):
        count = min(at_once, steps - first)
        content = group.value(offset + first * step * row, count * step * row)
        stored = np.frombuffer(content, ordered).reshape(count, step, channels)
        values = stored.astype(np.float64)
        if absent is not None:
            values[stored == absent] = np.nan
        if step > 1:
            values = np.stack((np.fmin.reduce(values, axis=1), np.fmax.reduce(values, axis=1)), axis=1)
        read.append(values.reshape(-1, channels))
    return np.concatenate(read)


def _trace(
    values: NDArray[np.float64], definition: _Definition, hertz: float, *, is_small: bool
) -> tuple[Trace, Channel]:
    """A channel as it is drawn, around its median: voltages at 10 mm/mV, all else, and what would be too tall, by a
    scale that fits.
    """
    physical = values * definition.factor + definition.baseline
    unit = definition.unit
    if unit in _MILLIVOLTS and not is_small:
        physical, unit = physical * _MILLIVOLTS[unit], "mV"
    known = physical[np.isfinite(physical)]
    if known.size:
        physical = physical - np.median(known)
        known = physical[np.isfinite(physical)]
    extent = float(known.max() - known.min()) if known.size else 0.0
    per_mm = _MV_PER_MM if unit == "mV" else 0.0
    if not per_mm or extent / per_mm > _TALL_MM:
        per_mm = _round_scale(extent / _FIT_MM)
    columns = physical / per_mm
    is_calibrated = unit == "mV" and per_mm == _MV_PER_MM
    return Trace(definition.label, columns, hertz, is_calibrated), Channel(definition.label, unit, per_mm)


def _round_scale(least: float) -> float:
    """The next of 1, 2, 5, 10, 20 …, so that a mm is a number that people count by."""
    if not least > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(least))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999))


def _annotations(document: Item) -> Iterator[Annotation]:
    try:
        for item in document.items("WaveformAnnotationSequence"):
            name = str(code_in(item, "ConceptNameCodeSequence") or "")
            text = item.text("UnformattedTextValue")[:2000]
            if "NumericValue" in item:
                measured = quantity_of(item)
                text = f"{measured.value} {measured.unit.value if measured.unit else ''}".strip()
            elif code := code_in(item, "ConceptCodeSequence"):
                text = str(code)
            if name or text:
                yield Annotation(name, text)
    except DamagedInstance:
        return

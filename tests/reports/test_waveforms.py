"""Recordings on millimetre paper: 25 mm a second, 10 mm a millivolt, and what is said where that can't be."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest
from pydicom import Dataset, uid
from pydicom.sequence import Sequence as Items

from mkiso.reports import waveforms
from mkiso.reports.paper import Trace, draw
from mkiso.reports.reading import WAVEFORM, read_report
from mkiso.reports.values import Chart, Lack, Recording
from mkiso.reports.waveforms import MAX_CHANNELS, MAX_CHARTS, MAX_POINTS, MAX_SECONDS
from tests.reports.documents import code, recording, written

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"
SVG = "{http://www.w3.org/2000/svg}"


def read(made: Dataset, folder: Path) -> tuple[Recording, tuple[Lack, ...]]:
    found = read_report(written(made, folder / "a.dcm"), WAVEFORM)
    assert isinstance(found.body, Recording)
    return found.body, found.lacks


def chart(made: Dataset, folder: Path) -> Chart:
    [only] = read(made, folder)[0].charts
    return only


def curves(svg: bytes) -> list[np.ndarray]:
    """The points of each curve in mm, x to the right and y upwards; calibration pulses aren't among them."""
    found = []
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        if "l" not in path.attrib["d"]:
            continue
        start, _, steps = path.attrib["d"].removeprefix("M").partition("l")
        points = np.array([*map(int, start.split()), *map(int, steps.split())]).reshape(-1, 2).cumsum(axis=0)
        found.append(points * [0.01, -0.01])
    return found


def texts(svg: bytes) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_millivolt_is_ten_millimetres_and_a_second_25(tmp_path: Path) -> None:
    values = np.zeros((5000, 1), np.int16)
    values[500:600] = 1000  # a millivolt in steps of a microvolt, from the first second on for 0.2 s
    found = chart(recording(values, 500), tmp_path)
    [curve] = curves(found.svg)
    assert len(curve) == 5000
    up = np.flatnonzero(curve[:, 1] > curve[0, 1] + 5)
    assert curve[:, 1].max() - curve[0, 1] == pytest.approx(10, abs=0.02)
    assert curve[up[0], 0] - curve[0, 0] == pytest.approx(25, abs=0.02)
    assert curve[up[-1], 0] - curve[up[0], 0] == pytest.approx(99 * 0.05, abs=0.02)
    assert curve[-1, 0] - curve[0, 0] == pytest.approx(4999 * 0.05, abs=0.02)
    root = ElementTree.fromstring(found.svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert (root.attrib["width"], root.attrib["height"]) == (f"{width / 100:.0f}mm", f"{height / 100:.0f}mm")


def test_units_and_sensitivity_are_taken_into_account(tmp_path: Path) -> None:
    values = np.zeros((500, 1), np.int16)
    values[100:110] = 200
    for unit, sensitivity in (("uV", 5.0), ("mV", 0.005), ("nV", 5000.0), ("V", 0.000005)):
        found = chart(recording(values, 500, unit, sensitivity), tmp_path)
        [curve] = curves(found.svg)
        assert np.ptp(curve[:, 1]) == pytest.approx(10, abs=0.02)
        assert (found.channels[0].unit, found.channels[0].per_mm) == ("mV", 0.1)


def test_other_units_get_a_round_scale_that_fits(tmp_path: Path) -> None:
    values = np.round(60 + 60 * np.sin(np.arange(2400) / 40)).astype(np.int16)[:, np.newaxis]
    found = chart(recording(values, 240, "mm[Hg]", sop_class=uid.HemodynamicWaveformStorage), tmp_path)
    [curve] = curves(found.svg)
    assert (found.channels[0].unit, found.channels[0].per_mm) == ("mm[Hg]", 5.0)
    assert np.ptp(curve[:, 1]) == pytest.approx(120 / 5, abs=0.1)


def test_a_brain_s_microvolts_are_no_flat_line(tmp_path: Path) -> None:
    values = np.round(50 * np.sin(np.arange(2000) / 8)).astype(np.int16)[:, np.newaxis]
    found = chart(recording(values, 200, sop_class=uid.RoutineScalpElectroencephalogramWaveformStorage), tmp_path)
    assert (found.channels[0].unit, found.channels[0].per_mm) == ("uV", 5.0)


def test_a_long_recording_gets_its_beginning_and_says_so(tmp_path: Path) -> None:
    values = np.zeros((100 * 60 * 10, 3), np.int16)
    found = chart(recording(values, 100, sop_class=uid.AmbulatoryECGWaveformStorage), tmp_path)
    assert (found.seconds, found.shown_seconds) == (600, MAX_SECONDS)
    assert len(curves(found.svg)) == 3 * 6  # strips of 10 s
    assert "59 s" in texts(found.svg) and len(found.svg) < 500_000


def test_a_drawing_is_bounded_whatever_is_recorded(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    values = random.integers(-3000, 3000, (20_000, MAX_CHANNELS + 5)).astype(np.int16)
    found = chart(recording(values, 4000), tmp_path)
    assert len(found.channels) == MAX_CHANNELS and found.channel_count == MAX_CHANNELS + 5
    assert sum(map(len, curves(found.svg))) <= MAX_POINTS * 1.01 and len(found.svg) < 3_000_000


def test_no_peak_is_lost_between_the_points_of_the_paper(tmp_path: Path) -> None:
    values = np.zeros((40_000, 1), np.int16)
    values[12_345] = 1000
    [curve] = curves(chart(recording(values, 10_000), tmp_path).svg)
    assert np.ptp(curve[:, 1]) == pytest.approx(10, abs=0.02)


def test_padding_is_a_gap(tmp_path: Path) -> None:
    values = np.zeros((1000, 1), np.int16)
    values[400:500] = -32768
    made = recording(values, 500)
    made.WaveformSequence[0].add_new("WaveformPaddingValue", "OW", b"\x00\x80")
    assert [len(curve) for curve in curves(chart(made, tmp_path).svg)] == [400, 500]


def test_channels_are_named_and_no_label_breaks_the_drawing(tmp_path: Path) -> None:
    made = recording(np.zeros((500, 2), np.int16), 500, labels=["aVF", "<b>&\"'"])
    assert texts(chart(made, tmp_path).svg)[:2] == ["aVF", "<b>&\"'"]
    bare = draw([Trace("a\x01\ufffe\ud800b", np.zeros(100), 100, is_calibrated=False)], 1)
    assert texts(bare)[0] == "ab"


@pytest.mark.parametrize("interpretation", ["MB", "AB", "XX", ""])
def test_what_cannot_be_drawn_says_why(interpretation: str, tmp_path: Path) -> None:
    made = recording(np.zeros((500, 1), np.int16), 500)
    made.WaveformSequence[0].WaveformSampleInterpretation = interpretation
    found = chart(made, tmp_path)
    assert (found.svg, found.lack) == (b"", Lack.SOUND if interpretation in ("MB", "AB") else Lack.FORMAT)


def test_more_channels_named_than_recorded_are_no_picture(tmp_path: Path) -> None:
    made = recording(np.zeros((500, 2), np.int16), 500)
    made.WaveformSequence[0].NumberOfWaveformChannels = 1
    assert chart(made, tmp_path).lack is Lack.FORMAT


def test_data_that_are_cut_short_are_drawn_as_far_as_they_go(tmp_path: Path) -> None:
    made = recording(np.zeros((500, 1), np.int16), 100)
    made.WaveformSequence[0].add_new("WaveformData", "OW", bytes(400))
    found = chart(made, tmp_path)
    assert (found.seconds, found.shown_seconds) == (5, 2)


def test_many_groups_are_bounded_and_none_is_said(tmp_path: Path) -> None:
    made = recording(np.zeros((100, 1), np.int16), 100)
    made.WaveformSequence = Items([made.WaveformSequence[0]] * (MAX_CHARTS + 1))
    found, lacks = read(made, tmp_path)
    assert (len(found.charts), lacks) == (MAX_CHARTS, (Lack.TOO_MANY,))
    made.WaveformSequence = Items([])
    assert read(made, tmp_path)[1] == (Lack.EMPTY,)


def test_what_a_recording_says_of_itself_is_read(tmp_path: Path) -> None:
    made = recording(np.zeros((100, 1), np.int16), 100)
    rate, words = Dataset(), Dataset()
    rate.ConceptNameCodeSequence, rate.NumericValue = code("Heart rate"), "72"
    rate.MeasurementUnitsCodeSequence = code("beats a minute", "/min", "UCUM")
    words.UnformattedTextValue = "Sinus rhythm"
    made.WaveformAnnotationSequence = Items([rate, words])
    found, _ = read(made, tmp_path)
    assert [(each.name, each.value) for each in found.annotations] == [("Heart rate", "72 /min"), ("", "Sinus rhythm")]


def test_the_12_leads_that_pydicom_ships_are_drawn() -> None:
    found = read_report(BUNDLED / "waveform_ecg.dcm", WAVEFORM)
    assert isinstance(found.body, Recording) and not found.lacks
    rhythm, beat = found.body.charts
    assert [each.label for each in rhythm.channels[:3]] == ["I (Einthoven)", "II", "III"]
    assert {(each.unit, each.per_mm) for each in (*rhythm.channels, *beat.channels)} == {("mV", 0.1)}
    values = pydicom.dcmread(BUNDLED / "waveform_ecg.dcm").waveform_array(0)[:, 1] / 1000  # mV
    curve = curves(rhythm.svg)[1]
    drawn = (curve[:, 1] - np.median(curve[:, 1])) / 10
    assert len(drawn) == len(values) and np.abs(drawn - (values - np.median(values))).max() < 0.002
    assert not re.search(rb"<script|href|on\w+=", rhythm.svg)


@pytest.mark.parametrize("hertz", [1e-2, 1e-5, 1e-320])
def test_samples_too_rare_for_a_curve_take_no_endless_paper(tmp_path: Path, hertz: float) -> None:
    found = chart(recording(np.zeros((100, 1), np.int16), hertz), tmp_path)
    assert (found.svg, found.lack) == (b"", Lack.FORMAT)


def test_a_fast_recording_is_read_in_pieces_and_keeps_its_peaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.zeros((2_000_000, 2), np.int16)
    values[1_234_567, 1] = 1000  # of 200,000 a second: 6.17 s
    whole = chart(recording(values, 200_000, "uV"), tmp_path)
    monkeypatch.setattr(waveforms, "BLOCK_BYTES", 100_000)
    tracemalloc.start()
    try:
        pieces = chart(recording(values, 200_000, "uV"), tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pieces.svg == whole.svg
    assert peak < 6 * values.nbytes  # the file's own making; as numbers of 64 bits all of it would be more by itself
    [_, curve] = curves(pieces.svg)
    assert curve[curve[:, 1].argmax(), 0] - curve[0, 0] == pytest.approx(6.17 * 25, abs=0.5)


def test_what_is_faster_than_any_body_is_no_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waveforms, "MAX_STEP_BYTES", 1000)
    found = chart(recording(np.zeros((4000, 1), np.int16), 1e6), tmp_path)
    assert found.lack is Lack.FORMAT

"""Images that a presentation state is about are shown by it, the newest where there are several, with what it draws,
and what isn't drawn is said.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence
from pydicom.uid import ColorSoftcopyPresentationStateStorage, CTImageStorage

from mkiso.media import rendering
from mkiso.media.disc_set import lay_out_set
from mkiso.media.presented import states_of
from mkiso.media.rendering import Pictures, Renderer
from mkiso.pictures.values import SOME_ANNOTATIONS, Shown
from mkiso.storage.pack import Part
from mkiso.study.gate import CompleteStudies
from peers.corpus import make_study
from tests.media.discs import CREATED, instances, passed, settings
from tests.media.links import dead_links
from tests.media.test_seen import arrivals, scripts_on, seen, series_page, unpacked
from tests.pictures.test_annotations import annotation, graphic, words

pytestmark = pytest.mark.usefixtures("forked_decoders")


def study(folder: Path, *states: dict[str, Any]) -> CompleteStudies:
    """Two CT images, and a state of the first one for each of these."""
    files = make_study(folder, "ACC1", kinds={"ct": 2, "pr": len(states)})
    headers = [dcmread(file) for file in files]
    [first, _] = [header.SOPInstanceUID for header in headers if header.Modality == "CT"]
    found = [(file, header) for file, header in zip(files, headers, strict=True) if header.Modality == "PR"]
    for (file, header), state in zip(found, states, strict=True):
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", first
        header.ReferencedSeriesSequence[0].ReferencedImageSequence = Sequence([reference])
        for keyword, value in state.items():
            setattr(header, keyword, value)
        header.save_as(file)
    return passed(instances(files))


def presented(studies: CompleteStudies, folder: Path) -> Pictures:
    renderer = Renderer(folder, 2)
    try:
        return renderer.finish(arrivals(studies.instances), states=states_of(studies.instances))
    finally:
        renderer.close()


def voi(centre: int, width: int) -> Sequence:
    item = Dataset()
    item.WindowCenter, item.WindowWidth = centre, width
    return Sequence([item])


def test_a_state_turns_its_image_and_no_other(tmp_path: Path) -> None:
    studies = study(tmp_path / "in", {"ImageRotation": 90, "ImageHorizontalFlip": "N"})
    first, second = studies.instances[:2]
    with_state = presented(studies, tmp_path / "with")
    without = presented(study(tmp_path / "again"), tmp_path / "without")

    def pixels(pictures: Pictures, sha256: str) -> Any:
        made = pictures.of[sha256]
        [picture] = made.result.pictures
        file = made.files[picture.file.name]
        with Part(file.path, file.offset or 0, file.size) as part:
            return imagecodecs.jpeg8_decode(part.readall()).astype(int)

    plain, shown = pixels(without, first.arrival.sha256), pixels(with_state, first.arrival.sha256)
    assert np.abs(shown - np.rot90(plain, -1)).mean() < 10 < 40 < np.abs(shown - plain).mean()  # JPEG of noise
    assert (pixels(with_state, second.arrival.sha256) == pixels(without, second.arrival.sha256)).all()
    page = series_page(seen(studies, tmp_path, with_state).layouts[0])
    assert "Of several the newest counts." in page and "Not drawn" not in page
    plain = series_page(seen(studies, tmp_path / "plain", without).layouts[0])
    assert "newest" not in plain


def test_an_image_shown_by_a_state_has_its_values_too(tmp_path: Path) -> None:
    studies = study(tmp_path / "in", {"ImageRotation": 90, "ImageHorizontalFlip": "N"})
    [layout] = seen(studies, tmp_path, presented(studies, tmp_path / "pictures")).layouts
    assert scripts_on(layout) == ["D0000001.JS", "D0000002.JS"]


def test_the_newest_state_counts(tmp_path: Path) -> None:
    older = {"PresentationCreationTime": "090000", "SoftcopyVOILUTSequence": voi(40, 400)}
    newer = {"PresentationCreationTime": "120000", "SoftcopyVOILUTSequence": voi(300, 1500)}
    for number, states in enumerate([(older, newer), (newer, older)]):
        studies = study(tmp_path / f"in{number}", *states)
        made = presented(studies, tmp_path / f"pictures{number}").of[studies.instances[0].arrival.sha256]
        [picture] = made.result.pictures
        assert picture.look.shown is Shown.PRESENTATION
        assert picture.look.window and picture.look.window.centre == 300


def test_what_is_not_drawn_is_said(tmp_path: Path) -> None:
    area = Dataset()
    area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner = [5, 5], [20, 20]
    studies = study(
        tmp_path / "in",
        {
            "DisplayedAreaSelectionSequence": Sequence([area]),
            "GraphicAnnotationSequence": Sequence([annotation(graphic("STAR", 1, 1))]),
        },
    )
    pictures = presented(studies, tmp_path / "pictures")
    page = series_page(seen(studies, tmp_path, pictures).layouts[0])
    assert "Not drawn: cropping and some annotations." in page


def test_the_page_of_states_says_what_they_are_and_leads_to_their_pictures(tmp_path: Path) -> None:
    elsewhere = Dataset()
    elsewhere.ReferencedSOPClassUID, elsewhere.ReferencedSOPInstanceUID = CTImageStorage, "1.2.3"
    other = Dataset()
    other.SeriesInstanceUID, other.ReferencedImageSequence = "1.2", Sequence([elsewhere])
    studies = study(tmp_path / "in", {"ContentDescription": "Bleeding <b>", "PresentationCreationDate": "20240301"}, {})
    files = [each.arrival.path for each in studies.instances]
    for file in files:
        header = dcmread(file)
        if header.Modality == "PR":
            header.ReferencedSeriesSequence.append(other)
            header.save_as(file)
    studies = passed(instances(files))
    pictures = presented(studies, tmp_path / "pictures")
    layout = seen(studies, tmp_path, pictures).layouts[0]
    page = series_page(layout, 2)
    assert "holds no picture of its own" in page and "It holds no image" not in page
    assert "<bdi>Bleeding <b></bdi> · March 1, 2024" in page
    assert page.count('<a href="SE000001.HTM#P1">') == 2 and page.count("CT Image, not on this disc") == 2
    assert "They are on the disc in DICOM format all the same." in page
    assert not list(dead_links(unpacked(layout, tmp_path / "disc")))


def test_an_images_own_shutter_that_cannot_be_closed_is_said(tmp_path: Path) -> None:
    files = make_study(tmp_path / "in", "ACC1", kinds={"ct": 2})
    header = dcmread(files[0])
    header.ShutterShape = "BITMAP"
    header.save_as(files[0])
    studies = passed(instances(files))
    pictures = presented(studies, tmp_path / "pictures")
    page = series_page(seen(studies, tmp_path, pictures).layouts[0])
    assert "Not drawn: a shutter." in page and "newest" not in page


HOSTILE = "</text></svg><script>alert(1)</script>&\u202e\x07"


def annotated(folder: Path, *objects: Dataset, **state: Any) -> CompleteStudies:
    drawn = {"GraphicAnnotationSequence": Sequence([annotation(*objects)])}
    return study(folder, {"SpecificCharacterSet": "ISO_IR 192", **drawn, **state})


def test_what_a_state_draws_lies_over_its_picture_and_its_text_can_be_read(tmp_path: Path) -> None:
    objects = [graphic("POLYLINE", 2, 3, 20, 30.5), graphic("POINT", 5, 5), words(HOSTILE, (8, 8, 20, 12))]
    studies = annotated(tmp_path / "in", *objects, ImageRotation=90, ImageHorizontalFlip="N")
    [layout] = seen(studies, tmp_path, presented(studies, tmp_path / "pictures")).layouts
    [file] = [file for file in layout.files if str(file.path) == "IHE_PDI/ST000001/SE000001.HTM"]
    assert file.source
    page = file.source.read_text()
    rows = int(studies.instances[0].header.Rows)
    assert f'<path d="M{rows - 3} 2L{rows - 30.5:g} 20" />' in page
    assert f'<path d="M{rows - 5} 5L{rows - 5} 5" class="dot" />' in page
    assert "<script" not in page and "Not drawn" not in page
    said = "&lt;/text&gt;&lt;/svg&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;"
    assert f'Written on it: <bdi class="words">{said}</bdi>' in page and f'em">{said}</tspan>' in page
    assert '<a href="#P1">Picture 1</a>' in page and page.count('class="annotated"') == 1
    [script] = [file for file in layout.files if str(file.path) == "VIEW/ST000001.JS"]
    assert script.source
    told = script.source.read_text()
    assert "<" not in told and "\\u003cscript\\u003e" in told
    assert list(dead_links(unpacked(layout, tmp_path / "disc"))) == []


def test_a_key_image_stays_where_others_are_thinned_out(tmp_path: Path) -> None:
    files = make_study(tmp_path / "in", "ACC1", kinds={"ct": 40, "pr": 1})
    [state] = [file for file in files if dcmread(file).Modality == "PR"]
    header, tenth = dcmread(state), sorted(files)[9]
    header.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID = dcmread(
        tenth
    ).SOPInstanceUID
    header.save_as(state)
    studies = passed(instances(files))
    made = presented(studies, tmp_path / "pictures")
    [layout] = lay_out_set(
        studies, settings(tmp_path, disc={"pictures": "key"}), tmp_path, created=CREATED, medium="cd", pictures=made
    ).layouts
    assert layout.amount == "key"
    on_disc = [file.path.name for file in layout.files if file.path.name.startswith("P00")]
    number = dcmread(tenth).InstanceNumber
    assert len(on_disc) == 16 and f"P{number:07}.JPG" in on_disc


def test_a_disc_has_an_end_of_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever many states draw; what isn't drawn any more is said."""
    monkeypatch.setattr(rendering, "MOST_DRAWN_OF_JOB", 10)
    studies = annotated(tmp_path / "in", graphic("POLYLINE", *range(22)))
    made = presented(studies, tmp_path / "pictures").of[studies.instances[0].arrival.sha256].result
    assert made.pictures[0].annotations.size == 0
    assert made.facts.left_out == (SOME_ANNOTATIONS,)
    monkeypatch.setattr(rendering, "MOST_DRAWN_OF_JOB", 11)
    made = presented(studies, tmp_path / "again").of[studies.instances[0].arrival.sha256].result
    assert made.pictures[0].annotations.size == 11
    assert made.facts.left_out == ()


def test_a_colour_state_draws_over_its_image_too(tmp_path: Path) -> None:
    studies = annotated(tmp_path / "in", graphic("POINT", 5, 5))
    [state] = [each for each in studies.instances if each.header.Modality == "PR"]
    colour = replace(state, arrival=replace(state.arrival, sop_class_uid=ColorSoftcopyPresentationStateStorage))
    assert states_of([studies.instances[0], colour]) == {studies.instances[0].arrival.sha256: state.arrival.path}


@pytest.mark.parametrize("sequence", [None, Sequence([])])
def test_a_state_about_nothing_or_one_that_cannot_be_read_changes_nothing(
    sequence: Sequence | None, tmp_path: Path
) -> None:
    studies = study(tmp_path / "in", {"ReferencedSeriesSequence": sequence} if sequence is not None else {})
    state = tmp_path / "broken"
    state.write_bytes(b"not DICOM")
    first = studies.instances[0].arrival
    renderer = Renderer(tmp_path / "pictures", 2)
    states = {first.sha256: state} if sequence is None else states_of(studies.instances)
    made = renderer.finish(arrivals(studies.instances), states=states)
    assert len(made.of[first.sha256].result.pictures) == 1
    assert made.of[first.sha256].result.request.presentation is None

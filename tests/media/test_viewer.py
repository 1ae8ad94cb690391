"""What a browser does with a disc's pages from file://, after the disc was mastered and unpacked again."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import axe_core_python
import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from mkiso.demo.phantoms import write_phantoms
from mkiso.formats.iso import master
from mkiso.media.disc_set import lay_out_set
from mkiso.media.presented import states_of
from mkiso.media.rendering import Renderer
from mkiso.media.reporting import prepare_reports
from peers.browser import Browser
from peers.chromium import Chromium
from peers.corpus import make_study
from peers.firefox import Firefox
from tests.media.discs import CREATED, instances, passed, settings
from tests.media.links import dead_links
from tests.media.test_seen import unpacked
from tests.pictures.test_annotations import annotation, graphic

pytestmark = [
    pytest.mark.usefixtures("forked_decoders"),
    pytest.mark.peer,
    pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed"),
    pytest.mark.skipif(not shutil.which("firefox-esr"), reason="firefox-esr is not installed"),
    pytest.mark.skipif(not shutil.which("7z"), reason="7z is not installed"),
]
AXE = Path(axe_core_python.__file__).parent / "axe.min.js"
CT_NUMBER = 41  # one of those that carry their values
KEY_IMAGE = 35  # of the CT, with what a reader drew on it
ANOTHER = 50  # with a point alone
PAPER_WIDTH = 680  # A4 without a browser's margins, in pixels


@pytest.fixture(scope="module")
def disc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a disc of phantoms, as 7z unpacks its image; its DICOM files beside it in `in`."""
    folder = tmp_path_factory.mktemp("disc")
    (folder / "in").mkdir()
    files = write_phantoms(folder / "in")
    studies = passed(instances([*files, another_key_image(files, folder / "in" / "another")]))
    renderer = Renderer(folder / "pictures", expected=len(studies.instances))
    try:
        states = states_of(studies.instances)
        pictures = renderer.finish([each.arrival for each in studies.instances], states=states)
    finally:
        renderer.close()
    reports = prepare_reports(studies.instances, folder / "documents")
    [layout] = lay_out_set(
        studies, settings(folder), folder / "made", created=CREATED, medium="cd", pictures=pictures, reports=reports
    ).layouts
    assert layout.amount == "values"
    master(layout.files, layout.volume_id, folder / "disc.iso", created=CREATED)
    subprocess.run(["7z", "x", f"-o{folder / 'disc'}", folder / "disc.iso"], check=True, capture_output=True)
    return folder / "disc"


def another_key_image(files: list[Path], path: Path) -> Path:
    """A second presentation state, which has a point on another image of the CT."""
    headers = [dcmread(file, stop_before_pixels=True) for file in files]
    [image] = [each for each in headers if each.Modality == "CT" and each.InstanceNumber == ANOTHER]
    [state] = [each for each in headers if each.Modality == "PR"]
    state.SOPInstanceUID = state.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    state.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID = image.SOPInstanceUID
    state.InstanceNumber, state.GraphicAnnotationSequence = 2, Sequence([annotation(graphic("POINT", 100, 100))])
    state.save_as(path)
    return path


@pytest.fixture(scope="module", params=[Chromium, Firefox], ids=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with request.param(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def viewer(browser: Browser, disc: Path) -> Iterator[Browser]:
    """The viewer's page of the disc at its first series, the CT; afterwards nothing may stand in the console."""
    browser.events.clear()
    browser.size(1200, 800)
    browser.open("about:blank")
    browser.open((disc / "VIEW" / "ST000001.HTM").as_uri())
    browser.until("document.querySelector('#pane1 img').naturalWidth === 256")
    yield browser
    assert not browser.complaints()


@pytest.fixture(scope="module")
def scriptless_firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    with Firefox(tmp_path_factory.mktemp("scriptless"), "javascript.enabled=false") as opened:
        yield opened


@pytest.fixture
def scriptless(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Browser]:
    """The browser with JavaScript switched off."""
    if isinstance(browser, Firefox):
        yield request.getfixturevalue("scriptless_firefox")
        return
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    yield browser
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


def measured(browser: Browser, what: str) -> float:
    """Of the first pane's picture: its width, its left edge, …"""
    return float(str(browser.run(f"document.querySelector('#pane1 img').getBoundingClientRect().{what}")))


def violations(browser: Browser) -> list[str]:
    """What axe finds, as its rules and the elements that break them."""
    browser.run(f"{AXE.read_text()};1")
    found = browser.run(
        "axe.run().then(found => JSON.stringify(found.violations.flatMap("
        "each => each.nodes.map(node => each.id + ': ' + node.html))))"
    )
    return list(json.loads(str(found)))


def facts(browser: Browser, pane: int = 1) -> str:
    return str(browser.run(f"document.querySelector('#facts{pane}').textContent"))


def pages(disc: Path) -> list[Path]:
    return sorted(disc.rglob("*.HTM"))


def test_no_link_is_dead_and_every_page_is_quiet(disc: Path, browser: Browser) -> None:
    assert not list(dead_links(disc))
    browser.events.clear()
    for page in pages(disc):
        browser.open(page.as_uri())
        browser.run("for (const image of document.images) image.loading = 'eager'")  # leaving would cut it off
        browser.until("[...document.images].every(image => image.complete)")
        assert browser.run("[...document.images].every(image => image.naturalWidth || !image.src)")
    assert not browser.complaints()
    assert all(address.startswith(("file:", "about:", "data:")) for address in browser.asked())


@pytest.mark.parametrize("width", [1200, 320])
def test_axe_finds_nothing_and_every_page_fits(disc: Path, browser: Browser, width: int) -> None:
    browser.size(width, 700)
    for page in pages(disc):
        browser.open(page.as_uri())
        assert (violations(browser), page.name) == ([], page.name)
        assert browser.run("document.documentElement.scrollWidth <= innerWidth"), page


@pytest.mark.parametrize("width", [1200, 320])
def test_axe_finds_nothing_in_any_state(disc: Path, viewer: Browser, width: int) -> None:
    viewer.size(width, 700)
    viewer.press("m")
    viewer.press("Enter")
    viewer.press("ArrowRight", shift=True)
    viewer.press("Enter")
    assert violations(viewer) == []  # a line is measured
    for key in ("Escape", "4", "i", "+", "t"):
        viewer.press(key)
    viewer.until("document.querySelector('#pane2 img').naturalWidth > 0")
    viewer.run("document.querySelector('#help').open = true")
    assert violations(viewer) == []  # a preset, inverted, larger, two series, the keys
    assert viewer.run("document.documentElement.scrollWidth <= innerWidth")
    viewer.press(" ")
    viewer.until("document.querySelector('#play').getAttribute('aria-pressed') === 'true'")
    assert violations(viewer) == []
    viewer.press(" ")
    viewer.open((disc / "IHE_PDI" / "ST000001" / "SE000001.HTM").as_uri() + f"#P{KEY_IMAGE}")
    viewer.until(f"document.querySelector('#P{KEY_IMAGE} img').naturalWidth === 256")
    assert violations(viewer) == []
    assert viewer.run("document.documentElement.scrollWidth <= innerWidth")


def test_keys_wheel_and_slider_leaf(viewer: Browser) -> None:
    assert facts(viewer).startswith("Picture 35 of 60 · image number 35 · window 40 / 90")
    for key, number in [("ArrowDown", 36), ("PageDown", 46), ("End", 60), ("Home", 1), ("ArrowRight", 2)]:
        viewer.press(key)
        assert facts(viewer).startswith(f"Picture {number} of 60")
    assert viewer.run("document.querySelector('#picture1').getAttribute('aria-valuetext')") == "2 of 60"
    for _ in range(3):
        viewer.wheel((600, 400), 60)
    viewer.until("document.querySelector('#facts1').textContent.startsWith('Picture 5 of 60')")
    viewer.until("document.querySelector('#pane1 img').src.endsWith('P0000005.JPG')")
    viewer.until("document.querySelector('#pane1 img').naturalWidth === 256")


def test_a_preset_is_drawn_from_the_values_themselves(viewer: Browser, disc: Path) -> None:
    for _ in range(CT_NUMBER - KEY_IMAGE):
        viewer.press("ArrowDown")
    viewer.press("4")  # bone
    viewer.until("!document.querySelector('#pane1 canvas').hidden")
    assert "window 400 / 2000" in facts(viewer) and "only" not in facts(viewer)
    drawn = viewer.run(
        "(() => { const canvas = document.querySelector('#pane1 canvas');"
        "const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        "return Array.from(pixels).filter((_, at) => at % 4 === 0) })()"
    )
    dataset = dcmread(disc.parent / "in" / f"phantom1{CT_NUMBER:04}.dcm")
    values = dataset.pixel_array.astype(float) - 1024
    expected = np.clip(((values - 399.5) / 1999 + 0.5) * 255, 0, 255)  # PS3.3 C.11.2.1.2.1
    assert np.abs(np.array(drawn).reshape(values.shape) - expected).max() <= 1
    viewer.press("1")
    viewer.until("document.querySelector('#pane1 canvas').hidden")
    assert "window 40 / 90" in facts(viewer)


def test_shift_and_arrows_change_the_window_and_i_inverts(viewer: Browser) -> None:
    viewer.press("ArrowRight", shift=True)
    viewer.press("ArrowDown", shift=True)
    assert "window 43 / 93" in facts(viewer)
    viewer.press("i")
    assert viewer.run("document.querySelector('#invert').getAttribute('aria-pressed')") == "true"
    viewer.press("0")
    assert "window 40 / 90" in facts(viewer)
    assert viewer.run("document.querySelector('#invert').getAttribute('aria-pressed')") == "false"


def test_space_plays_and_stops(viewer: Browser) -> None:
    viewer.press(" ")
    viewer.until("document.querySelector('#picture1').value >= 38")
    viewer.press(" ")
    assert viewer.run("document.querySelector('#play').getAttribute('aria-pressed')") == "false"


def test_two_series_follow_each_other_by_position(viewer: Browser) -> None:
    viewer.press("t")
    viewer.until("document.querySelector('#pane2 img').naturalWidth === 224")
    assert facts(viewer).startswith("Picture 35 of 60")
    assert facts(viewer, 2).startswith("Picture 18 of 30")  # at z = 13.5 mm; the MR's 18th lies at 15
    viewer.press("Home")
    assert facts(viewer, 2).startswith("Picture 1 of 30")
    for _ in range(4):
        viewer.press("PageDown")
    assert facts(viewer).startswith("Picture 41 of 60")  # at z = 31.5 mm; the MR's 20th lies at 27, its 21st at 33
    assert facts(viewer, 2).startswith("Picture 21 of 30")
    viewer.press("l")
    viewer.press("Home")
    assert facts(viewer, 2).startswith("Picture 21 of 30")


def test_keys_alone_measure(viewer: Browser) -> None:
    viewer.press("m")
    viewer.press("Enter")
    for key in ("ArrowRight",) * 3 + ("ArrowDown",) * 4:
        viewer.press(key, shift=True)
    viewer.press("Enter")
    assert viewer.run("document.querySelector('#said').textContent") == "Distance 40 mm"  # 50 pixels of 0.8 mm
    assert viewer.run("document.querySelectorAll('#pane1 .over line').length") == 1
    viewer.press("Escape")
    for key, number, lines in (("ArrowDown", KEY_IMAGE + 1, 0), ("ArrowUp", KEY_IMAGE, 1)):  # of its own picture alone
        viewer.press(key)
        assert facts(viewer).startswith(f"Picture {number} of 60")
        assert viewer.run("document.querySelectorAll('#pane1 .over line').length") == lines


def test_a_mouse_measures_what_keys_measure(viewer: Browser) -> None:
    viewer.run("document.querySelector('[data-tool=measure]').click()")
    width, left = measured(viewer, "width"), measured(viewer, "left")
    viewer.drag([(left, 400), (left + width / 2, 400), (left + width, 400)])
    assert viewer.run("document.querySelector('#said').textContent") == "Distance 205 mm"  # 256 pixels of 0.8 mm


def test_a_length_measured_to_the_edge_is_written_within_the_picture(viewer: Browser) -> None:
    viewer.run("document.querySelector('[data-tool=measure]').click()")
    right = float(str(viewer.run("document.querySelector('#pane1 .stage').getBoundingClientRect().right")))
    viewer.drag([(right - 300, 400), (right - 100, 400), (right - 8, 400)])
    words = "[...document.querySelectorAll('#pane1 .over text')].at(-1).getBoundingClientRect().right"
    assert float(str(viewer.run(words))) <= right


def test_the_first_page_opens_the_pictures_with_one_click(browser: Browser, disc: Path) -> None:
    browser.open((disc / "INDEX.HTM").as_uri())
    browser.run("document.querySelector('.cards a.button').click()")
    browser.until("(document.querySelector('#pane1 img') || {}).naturalWidth === 256")


def show_two(viewer: Browser) -> None:
    """Two series, each placed anew in its stage: a ResizeObserver hears of that before the second frame."""
    viewer.run("document.getElementById('two').click()")
    viewer.until("document.querySelector('#pane2 img').naturalWidth === 224")
    viewer.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")


@pytest.mark.parametrize("panes", [1, 2])
def test_a_picture_lies_whole_on_the_paper(viewer: Browser, panes: int) -> None:
    if panes == 2:
        show_two(viewer)
    before = measured(viewer, "width")
    boxes = (
        "JSON.stringify([...document.querySelectorAll('.pane:not([hidden])')].map(pane => "
        "[pane.querySelector('.stage'), pane.querySelector('img')].map(each => each.getBoundingClientRect())))"
    )
    viewer.run("dispatchEvent(new Event('beforeprint'))")
    for stage, picture in json.loads(str(viewer.run(boxes))):
        assert stage["width"] <= PAPER_WIDTH
        assert all(stage[edge] <= picture[edge] + 1 for edge in ("left", "top"))
        assert all(picture[edge] <= stage[edge] + 1 for edge in ("right", "bottom"))
    viewer.run("dispatchEvent(new Event('afterprint'))")
    assert measured(viewer, "width") == pytest.approx(before, abs=0.1)


def part_seen(viewer: Browser) -> list[list[float]]:
    """Of each pane's picture the parts of its width and height at which what is seen begins and ends."""
    script = (
        "JSON.stringify([...document.querySelectorAll('.pane:not([hidden])')].map(pane => {"
        "const [stage, all] = ['.stage', 'img'].map(each => pane.querySelector(each).getBoundingClientRect());"
        "return [Math.max(0, (stage.left - all.left) / all.width), Math.max(0, (stage.top - all.top) / all.height),"
        "Math.min(1, (stage.right - all.left) / all.width), Math.min(1, (stage.bottom - all.top) / all.height)] }))"
    )
    return list(json.loads(str(viewer.run(script))))


@pytest.mark.parametrize("panes", [1, 2])
def test_all_that_is_seen_lies_on_the_paper(viewer: Browser, panes: int) -> None:
    """Enlarged and moved, as a reader leaves it to print a finding."""
    if panes == 2:
        show_two(viewer)
    for key in ("+", "+", "+", "+", "+"):
        viewer.press(key)
    viewer.run("document.querySelector('[data-tool=move]').click()")
    left, top, right, bottom = (measured(viewer, edge) for edge in ("left", "top", "right", "bottom"))
    middle = (left + right) / 2, (top + bottom) / 2
    viewer.drag([middle, (middle[0] - 60, middle[1] - 40), (middle[0] - 120, middle[1] - 80)])
    before, place = part_seen(viewer), measured(viewer, "left")
    assert len(before) == panes and before[0][2] - before[0][0] < 0.95
    viewer.run("dispatchEvent(new Event('beforeprint'))")
    for seen, printed in zip(before, part_seen(viewer), strict=True):
        assert all(printed[edge] <= seen[edge] + 0.002 for edge in (0, 1))
        assert all(seen[edge] <= printed[edge] + 0.002 for edge in (2, 3))
        assert any(printed[edge + 2] - printed[edge] <= seen[edge + 2] - seen[edge] + 0.002 for edge in (0, 1))
    viewer.run("dispatchEvent(new Event('afterprint'))")
    assert measured(viewer, "left") == pytest.approx(place, abs=0.1)
    assert part_seen(viewer) == [pytest.approx(seen, abs=0.001) for seen in before]


@pytest.mark.parametrize("landscape", [False, True])
def test_two_series_lie_on_one_sheet_with_their_names(viewer: Browser, landscape: bool) -> None:
    if not isinstance(viewer, Chromium):
        pytest.skip("Firefox prints for WebDriver alone")
    show_two(viewer)
    sheets = viewer.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, landscape=landscape)["data"]
    assert len(re.findall(rb"/Type ?/Page\b", base64.b64decode(sheets))) == 1
    viewer.call("Emulation.setEmulatedMedia", media="print")
    names = "[...document.querySelectorAll('.choose')].every(each => each.getBoundingClientRect().height > 0)"
    assert viewer.run(names)
    words = "[...document.querySelectorAll('header a, h1, h1 span, .facts')].map(each => getComputedStyle(each).color)"
    assert set(viewer.run(words)) == {"rgb(0, 0, 0)"}  # whose it is can be read, with grounds printed and without
    assert viewer.run("getComputedStyle(document.querySelector('header')).backgroundColor") == "rgba(0, 0, 0, 0)"
    viewer.call("Emulation.setEmulatedMedia", media="")


def test_the_clip_plays_and_a_radiograph_says_where_its_distances_are_true(viewer: Browser) -> None:
    viewer.press("]")
    viewer.press("]")
    viewer.until("document.querySelector('#pane1 img').naturalWidth === 896")
    assert "at the detector" in str(viewer.run("document.querySelector('#pane1 .bar').textContent"))
    viewer.press("]")
    viewer.until("document.querySelector('#pane1 img').naturalWidth === 480")
    assert facts(viewer).startswith("Picture 15 of 30 · image number 1, frame 15")
    assert viewer.run("document.querySelector('#presets').length") == 1


def test_a_series_page_leads_to_its_series_in_the_viewer(disc: Path, browser: Browser) -> None:
    browser.size(1200, 800)
    browser.open((disc / "IHE_PDI" / "ST000001" / "SE000003.HTM").as_uri())
    browser.run("document.querySelector('a.button').click()")
    browser.until("document.querySelector('#series1') && document.querySelector('#series1').value === '2'")
    browser.until("document.querySelector('#pane1 img').naturalWidth === 896")


def test_inverting_turns_black_into_white(viewer: Browser, tmp_path: Path) -> None:
    """As a person sees it: of the buttons alone nobody sees anything."""
    before, after = (mean_of(viewer, tmp_path / f"{key}.png", key) for key in ("0", "i"))
    assert before < 80 and after > 160


def mean_of(viewer: Browser, file: Path, key: str) -> float:
    """How light the middle of the picture is, once the key is pressed: within the skull, of whatever the CT shows."""
    viewer.press(key)
    viewer.picture(file)
    seen = imagecodecs.png_decode(file.read_bytes())
    left, top = int(measured(viewer, "left")), int(measured(viewer, "top"))
    return float(seen[top + 5 : top + 25, left + 5 : left + 25, :3].mean())


def annotated(viewer: Browser) -> list[str]:
    viewer.press("Home")
    for key in ("PageDown",) * 3 + ("ArrowDown",) * 4:
        viewer.press(key)
    assert facts(viewer).startswith(f"Picture {KEY_IMAGE} of 60")
    paths = "[...document.querySelectorAll('#pane1 .over .drawn')].map(path => path.getAttribute('d'))"
    return list(json.loads(str(viewer.run(f"JSON.stringify({paths})"))))


def test_a_key_image_is_shown_with_what_its_reader_drew(viewer: Browser) -> None:
    assert viewer.run("document.querySelector('#annotations').disabled") is False
    circle, arrow, _ = annotated(viewer)
    assert circle.startswith("M") and "C" in circle and "L" in arrow
    box = viewer.run(
        "JSON.stringify([document.querySelector('#pane1 .over .drawn'), document.querySelector('#pane1 img')].map("
        "each => { const box = each.getBoundingClientRect(); return [box.left, box.top, box.width] }))"
    )
    (left, top, width), (picture_left, picture_top, picture_width) = json.loads(str(box))
    scale = picture_width / 256
    assert (left - picture_left) / scale == pytest.approx(149.5, abs=0.8)
    assert (top - picture_top) / scale == pytest.approx(144.5, abs=0.8)
    assert width / scale == pytest.approx(32, abs=1.5)
    assert viewer.run("document.querySelector('#pane1 .over text').textContent") == "Bleeding, 18 mm"
    assert facts(viewer).endswith("Written on it: Bleeding, 18 mm")
    viewer.press("+")
    assert annotated(viewer)[0] != circle
    viewer.press("ArrowDown")
    assert viewer.run("document.querySelector('#pane1 .over .drawn')") is None
    assert "Written" not in facts(viewer)


def said(browser: Browser) -> str:
    return str(browser.run("document.querySelector('#said').textContent"))


def test_a_series_opens_at_its_first_annotated_picture(viewer: Browser) -> None:
    assert facts(viewer).startswith(f"Picture {KEY_IMAGE} of 60")
    assert said(viewer) == "Picture with annotations, 1 of 2 · Written on it: Bleeding, 18 mm"
    viewer.press("ArrowDown")
    assert said(viewer) == ""  # no longer true
    viewer.press("]")
    viewer.until("document.querySelector('#pane1 img').naturalWidth === 224")
    assert facts(viewer).startswith("Picture 15 of 30")
    assert viewer.run("document.querySelector('#next1').hidden")
    viewer.press("n")
    assert (facts(viewer)[:16], said(viewer)) == ("Picture 15 of 30", "")


def test_what_is_written_on_a_picture_is_seen_once_and_said(viewer: Browser) -> None:
    seen = viewer.run(
        "[...document.querySelectorAll('main *')].filter(each => each.getBoundingClientRect().width > 1 && "
        "[...each.childNodes].some(node => node.nodeType === 3 && node.data.includes('Written on it'))).length"
    )
    assert seen == 1
    assert "Written on it: Bleeding, 18 mm" in facts(viewer) and "Written on it: Bleeding, 18 mm" in said(viewer)


def test_a_key_and_a_button_lead_to_the_next_annotated_picture(viewer: Browser) -> None:
    viewer.press("n")
    assert facts(viewer).startswith(f"Picture {ANOTHER} of 60")
    assert said(viewer) == "Picture with annotations, 2 of 2"
    assert viewer.run("document.querySelector('#said').getAttribute('aria-live')") == "polite"
    viewer.run("document.querySelector('#next1').click()")
    assert facts(viewer).startswith(f"Picture {KEY_IMAGE} of 60")
    assert violations(viewer) == []
    for width in (320, 390):
        viewer.size(width, 700)
        assert viewer.run("document.documentElement.scrollWidth <= innerWidth")
        assert viewer.run("document.querySelector('#picture1').getBoundingClientRect().width") > 80


def test_annotations_are_hidden_by_a_key_and_by_a_button(viewer: Browser) -> None:
    assert len(annotated(viewer)) == 3
    viewer.press("a")
    assert viewer.run("document.querySelector('#annotations').getAttribute('aria-pressed')") == "false"
    assert annotated(viewer) == []
    viewer.run("document.querySelector('#annotations').click()")
    assert len(annotated(viewer)) == 3
    assert violations(viewer) == []
    viewer.press("]")
    viewer.until("document.querySelector('#pane1 img').naturalWidth === 224")
    assert viewer.run("document.querySelector('#annotations').disabled")


@pytest.mark.parametrize("width", [1200, 320])
def test_without_javascript_a_key_image_has_its_marks(disc: Path, scriptless: Browser, width: int) -> None:
    scriptless.size(width, 800)
    scriptless.open((disc / "IHE_PDI" / "ST000001" / "SE000001.HTM").as_uri() + f"#P{KEY_IMAGE}")
    scriptless.until(f"document.querySelector('#P{KEY_IMAGE} img').naturalWidth === 256")
    marked = f"document.querySelector('#P{KEY_IMAGE} ' + each).getBoundingClientRect()"
    boxes = scriptless.run(
        f"JSON.stringify(['img', '.drawn path', '.drawn text'].map(each => {marked})"
        ".map(box => [box.left, box.top, box.right, box.bottom]))"
    )
    image, circle, words = json.loads(str(boxes))
    scale = (image[2] - image[0]) / 256
    assert ((circle[0] + circle[2]) / 2 - image[0]) / scale == pytest.approx(165.5, abs=0.8)
    assert ((circle[1] + circle[3]) / 2 - image[1]) / scale == pytest.approx(160.5, abs=0.8)
    assert image[0] <= words[0] and words[2] <= image[2] and words[3] <= image[3]
    assert scriptless.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture(scope="module")
def stretched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a series whose pixels are half as high as wide, 900 × 200 of them."""
    folder = tmp_path_factory.mktemp("stretched")
    [file] = make_study(folder / "in", "ACC1", kinds={"ct": 1})
    header = dcmread(file)
    header.Rows, header.Columns, header.PixelSpacing = 200, 900, ["0.25", "0.5"]
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelData = 16, 16, 15, bytes(200 * 900 * 2)
    header.save_as(file)
    studies = passed(instances([file]))
    renderer = Renderer(folder / "pictures")
    try:
        pictures = renderer.finish([each.arrival for each in studies.instances])
    finally:
        renderer.close()
    [layout] = lay_out_set(
        studies, settings(folder), folder / "made", created=CREATED, medium="cd", pictures=pictures
    ).layouts
    unpacked(layout, folder / "disc")
    return folder / "disc" / "IHE_PDI" / "ST000001" / "SE000001.HTM"


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_a_picture_takes_the_room_of_its_page_and_its_bar_stays_true(
    disc: Path, stretched: Path, browser: Browser, width: int
) -> None:
    square = disc / "IHE_PDI" / "ST000001" / "SE000001.HTM"
    browser.size(width, 800)
    for page, number, ratio, widest, bar in ((square, 35, 1, 576, 50 / 0.8 / 256), (stretched, 1, 9, 900, 100 / 450)):
        browser.open(f"{page.as_uri()}#P{number}")
        browser.until(f"document.querySelector('#P{number} img').naturalWidth > 0")
        found = browser.run(
            f"JSON.stringify(['#P{number}', '#P{number} img', '#P{number} .bar', '#P{number} .frame']"
            ".map(each => document.querySelector(each).getBoundingClientRect()).map(box => [box.width, box.height]))"
        )
        figure, image, scale, frame = json.loads(str(found))
        assert image == frame == pytest.approx([min(widest, figure[0] - 32), image[1]], abs=0.1)
        assert image[0] / image[1] == pytest.approx(ratio, rel=0.01)
        assert scale[0] / image[0] == pytest.approx(bar, rel=0.01)
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_a_series_of_one_picture_shows_it_at_once(disc: Path, stretched: Path, scriptless: Browser) -> None:
    scriptless.open(stretched.as_uri())
    scriptless.until("document.querySelector('#P1 img').naturalWidth > 0")
    assert not scriptless.run("document.querySelector('.thumbs')")
    scriptless.open((disc / "IHE_PDI" / "ST000001" / "SE000001.HTM").as_uri())
    scriptless.until("document.querySelector('.thumbs img').naturalWidth > 0")
    assert scriptless.run("document.querySelector('#P1').getClientRects().length") == 0


def test_pictures_are_counted_where_they_are_not_as_many_as_the_images(disc: Path) -> None:
    page = (disc / "IHE_PDI" / "ST000001.HTM").read_text()
    assert "121 pictures to look at here" in (disc / "INDEX.HTM").read_text()
    assert "<span>60 images</span>" in page and "<span>1 image &#183; 30 pictures to look at here</span>" in page


def test_every_control_is_reached_by_tab(viewer: Browser) -> None:
    reached = set()
    viewer.run("document.body.tabIndex = -1; document.body.focus()")  # as a page begins: behind its end is the browser
    for _ in range(18):
        viewer.press("Tab")
        reached.add(viewer.run("document.activeElement.id || document.activeElement.dataset.tool"))
    assert {
        "leaf",
        "window",
        "zoom",
        "move",
        "measure",
        "play",
        "invert",
        "annotations",
        "two",
        "reset",
        "presets",
    } <= reached
    assert {"series1", "picture1", "next1"} <= reached


def test_the_keyboard_and_the_wheel_enlarge_where_the_pointer_is(viewer: Browser) -> None:
    before = measured(viewer, "width")
    viewer.press("+")
    assert measured(viewer, "width") == pytest.approx(1.25 * before, rel=0.01)
    viewer.press("-")
    assert measured(viewer, "width") == pytest.approx(before, rel=0.01)
    viewer.run("document.querySelector('[data-tool=zoom]').click()")
    viewer.drag([(600, 400), (600, 370), (600, 340)])
    assert measured(viewer, "width") > 1.5 * before
    viewer.run("document.querySelector('[data-tool=move]').click()")
    left = measured(viewer, "left")
    viewer.drag([(600, 400), (630, 400), (650, 400)])
    assert measured(viewer, "left") == pytest.approx(left + 50, abs=1.5)
    viewer.press("0")
    assert measured(viewer, "width") == pytest.approx(before, rel=0.01)


def test_dragging_changes_the_window(viewer: Browser) -> None:
    for _ in range(CT_NUMBER - KEY_IMAGE):
        viewer.press("ArrowDown")
    viewer.run("document.querySelector('[data-tool=window]').click()")
    viewer.drag([(600, 400), (650, 400), (700, 400)])
    assert "window 40 / 120" in facts(viewer)  # 100 pixels of 90 / 300
    viewer.until("!document.querySelector('#pane1 canvas').hidden")


def test_a_finger_leafs_and_two_enlarge(viewer: Browser) -> None:
    viewer.size(320, 640)
    viewer.until("document.querySelector('#pane1 .stage').clientWidth < 320")
    top = int(str(viewer.run("Math.ceil(document.querySelector('#pane1 .stage').getBoundingClientRect().top)")))
    viewer.touch([(160, top + 20), *((160, top + 20 + 12 * step) for step in range(1, 7))])
    number = int(str(viewer.run("document.querySelector('#picture1').value")))
    assert number > KEY_IMAGE + 1
    before = measured(viewer, "width")
    viewer.touch(*([(160 + 20 * side + 10 * side * step, top + 100) for step in range(5)] for side in (-1, 1)))
    assert measured(viewer, "width") > 2 * before
    assert int(str(viewer.run("document.querySelector('#picture1').value"))) == number


def test_without_javascript_the_pages_show_pictures(disc: Path, scriptless: Browser) -> None:
    scriptless.size(1200, 800)
    scriptless.open((disc / "IHE_PDI" / "ST000001" / "SE000001.HTM").as_uri() + "#P30")
    scriptless.until("document.querySelector('#P30 img').naturalWidth === 256")
    assert scriptless.run("getComputedStyle(document.querySelector('#P30')).display") == "block"
    assert scriptless.run("getComputedStyle(document.querySelector('#P31')).display") == "none"
    scriptless.open((disc / "VIEW" / "ST000001.HTM").as_uri())
    assert str(scriptless.run("document.querySelector('noscript').innerText")).startswith("This page needs JavaScript")
    assert scriptless.run("document.querySelector('#tools').hidden")


def test_a_script_from_right_to_left_leaves_pictures_and_marks_as_they_are(disc: Path, browser: Browser) -> None:
    """An orientation mark on the wrong edge would mislead, whichever way the words run."""
    browser.size(1200, 800)
    for page, side in (("VIEW/ST000001.HTM", ".stage"), ("IHE_PDI/ST000001/SE000001.HTM#P30", "#P30 .frame")):
        folder, _, place = page.rpartition("/")
        file, _, fragment = place.partition("#")
        turned = (disc / folder / file).read_text().replace('dir="ltr" xmlns', 'dir="rtl" xmlns')
        copy = disc / folder / f"RTL_{file}"
        copy.write_text(turned)
        try:
            browser.open(copy.as_uri() + (f"#{fragment}" if fragment else ""))
            browser.until(f"document.querySelector('{side} img').naturalWidth === 256")
            assert browser.run("getComputedStyle(document.body).direction") == "rtl"
            for edge, letter in (("left", "R"), ("right", "L")):
                mark = f"document.querySelector('{side} .mark.{edge}')"
                assert browser.run(f"{mark}.textContent") == letter
            middle = f"document.querySelector('{side}').getBoundingClientRect()"
            centre = f"{middle}.left + {middle}.width / 2"
            assert browser.run(f"document.querySelector('{side} .mark.left').getBoundingClientRect().left < {centre}")
            assert browser.run(f"document.querySelector('{side} .mark.right').getBoundingClientRect().left > {centre}")
            assert violations(browser) == []
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        finally:
            copy.unlink()

import gc
import html
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import VideoEndoscopicImageStorage

from mkiso.errors import TooLargeForMedium
from mkiso.formats.disc_check import verify_disc
from mkiso.formats.iso import Iso, master
from mkiso.formats.proof import verify_image
from mkiso.formats.registry import FORMATS
from mkiso.formats.zip_encrypted import new_password
from mkiso.media import rendering
from mkiso.media.capacity import MEDIUM_SECTORS
from mkiso.media.disc_set import DiscSet, lay_out_set
from mkiso.media.file_set import arrange
from mkiso.media.layout import Layout
from mkiso.media.rendering import NO_PICTURES, Pictures, Rendered, Renderer
from mkiso.media.reporting import prepare_reports
from mkiso.media.shown import KEY_PICTURES, key_instances
from mkiso.media.viewer_data import script_value
from mkiso.pictures.stacks import evenly, evenly_with
from mkiso.pictures.values import NotShown, PictureRequest, PictureResult, Reason
from mkiso.storage.pack import opened
from mkiso.study.gate import CompleteStudies
from mkiso.study.models import Arrival, Instance
from peers.corpus import make_ct_series, make_study
from peers.patience import LONG, until
from tests.media.discs import CREATED, instances, passed, settings
from tests.media.links import dead_links
from tests.pictures import test_video as video

pytestmark = pytest.mark.usefixtures("forked_decoders")


def rendered(studies: CompleteStudies, folder: Path, expected: int | None = None) -> Pictures:
    renderer = Renderer(folder, expected)
    try:
        return renderer.finish(arrivals(studies.instances))
    finally:
        renderer.close()


def arrivals(found: tuple[Instance, ...]) -> list[Arrival]:
    return [each.arrival for each in found]


def seen(
    studies: CompleteStudies, folder: Path, pictures: Pictures | None = None, **sections: dict[str, object]
) -> DiscSet:
    made = rendered(studies, folder / "pictures") if pictures is None else pictures
    chosen = settings(folder, **sections)
    return lay_out_set(studies, chosen, folder / "made", created=CREATED, medium="cd", pictures=made)


def renderer_of(renderer: Renderer, image: Instance) -> list[Rendered]:
    """What becomes of one image; the renderer goes on."""
    renderer.begin(image.arrival)
    begun = renderer._begun[image.arrival.sha256]
    wait([begun], LONG)
    return [renderer._result(image.arrival, begun)]


def unpacked(layout: Layout, folder: Path) -> Path:
    """The disc's files as a system shows them."""
    for file in layout.files:
        target = folder / (file.joliet_path or file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened(file) as source:
            target.write_bytes(source.readall())
    return folder


def pictures_on(layout: Layout) -> list[str]:
    return sorted(file.path.name for file in layout.files if file.path.suffix == ".JPG")


def scripts_on(layout: Layout) -> list[str]:
    return sorted(file.path.name for file in layout.files if file.path.match("VIEW/*/*/D*.JS"))


def series_page(layout: Layout, number: int = 1) -> str:
    [file] = [file for file in layout.files if str(file.path) == f"IHE_PDI/ST000001/SE{number:06}.HTM"]
    assert file.source
    return " ".join(html.unescape(file.source.read_text()).split())


def test_a_disc_shows_each_image_and_is_proved_with_its_pictures(tmp_path: Path) -> None:
    files = make_study(tmp_path / "in", "ACC1", kinds={"ct": 3, "multiframe": 1, "sr": 1})
    files += make_ct_series(tmp_path / "large", "ACC1", 2, size=516, SeriesInstanceUID="1.2.3", SeriesNumber="9")
    studies = passed(instances(files))
    [layout] = seen(studies, tmp_path).layouts
    frames = int(studies.instances[3].header.NumberOfFrames)
    assert pictures_on(layout) == sorted(
        f"{letter}{number:07}.JPG"
        for letter, count in (("P", 3), ("P", frames), ("P", 2), ("T", 2))
        for number in range(1, count + 1)
    )
    assert not list(dead_links(unpacked(layout, tmp_path / "disc")))
    master(layout.files, layout.volume_id, tmp_path / "disc.iso", created=CREATED)
    assert (tmp_path / "disc.iso").stat().st_size == layout.size
    verify_image(tmp_path / "disc.iso", layout.files, Iso())
    assert verify_disc(tmp_path / "disc.iso").files == len(layout.files)
    assert "Picture 1 of 3 · image number 1 · left edge R, right edge L" in series_page(layout)
    assert "Not for diagnosis" in series_page(layout)
    assert "Sr document</span> 1: It holds no image." in series_page(layout, 3)


def test_what_was_laid_out_is_let_go_of_before_a_disc_is_written(tmp_path: Path) -> None:
    """A page that stays in a cycle of references holds each picture of its study while the image is written."""
    studies = passed(instances(make_study(tmp_path / "in", "ACC1", kinds={"ct": 3, "sr": 1})))
    pictures = rendered(studies, tmp_path / "pictures")
    reports = prepare_reports(studies.instances, tmp_path / "documents")
    gc.collect()
    gc.disable()
    try:
        lay_out_set(
            studies,
            settings(tmp_path),
            tmp_path / "made",
            created=CREATED,
            medium="cd",
            pictures=pictures,
            reports=reports,
        )
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kept = {f"{type(each).__module__}.{type(each).__name__}" for each in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not {name for name in kept if name.startswith(("mkiso.", "jinja2."))}


@pytest.mark.parametrize(("damaged", "words"), [(1, "It is on the disc"), (2, "They are on the disc")])
def test_what_is_not_shown_is_counted_and_not_its_series(tmp_path: Path, damaged: int, words: str) -> None:
    files = make_ct_series(tmp_path / "in", "ACC1", 3)
    for file in files[:damaged]:
        image = dcmread(file)
        del image.PixelData
        image.save_as(file)
    [layout] = seen(passed(instances(files)), tmp_path).layouts
    assert f"{words} in DICOM format all the same." in series_page(layout)


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if not form.has_envelopes])
def test_pictures_are_whole_in_every_format_that_has_them(name: str, tmp_path: Path) -> None:
    form = FORMATS[name].opened(new_password())
    studies = passed(instances(make_study(tmp_path / "in", "ACC1")))
    made, medium = rendered(studies, tmp_path / "pictures", expected=3), form.carrier or "cd"
    disc_set = lay_out_set(studies, settings(tmp_path), tmp_path, created=CREATED, medium=medium, pictures=made)
    [layout] = disc_set.layouts
    assert (len(pictures_on(layout)), len(scripts_on(layout))) == (3, 3)
    form.write(layout, tmp_path / "disc")
    verify_image(tmp_path / "disc", layout.files, form)


def test_a_video_is_shown_and_leafed_through_as_a_run(tmp_path: Path) -> None:
    """And the page says of how many frames, where not all are shown."""
    (tmp_path / "in").mkdir()
    syntax, encoded = "1.2.840.10008.1.2.4.102", video.stream("libx264", "mp4", 300)
    path = video.object_of(tmp_path / "in" / "video.dcm", encoded, syntax, 300, SOPClassUID=VideoEndoscopicImageStorage)
    [layout] = seen(passed(instances([path])), tmp_path).layouts
    assert len(pictures_on(layout)) == 240
    assert "240 of 300 pictures are shown here." in series_page(layout)
    assert "image number 1, frame 300" in series_page(layout)
    [told] = [file for file in layout.files if str(file.path) == "VIEW/ST000001.JS"]
    assert told.source and '"frame_ms":50.0,' in told.source.read_text()
    assert not list(dead_links(unpacked(layout, tmp_path / "disc")))


def test_a_link_in_the_wrong_case_is_found(tmp_path: Path) -> None:
    for name, link in [("INDEX.HTM", "a/B.HTM#here"), ("A/B.HTM", "../INDEX.HTM"), ("A/C.HTM", "B.HTM#here")]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f'<a href="{link}">x</a><a href="https://example.org/">y</a>')
    assert sorted(dead_links(tmp_path)) == [
        *(f"{name}: https://example.org/" for name in ("A/B.HTM",)),
        "A/C.HTM: B.HTM#here is no place there",
        "A/C.HTM: https://example.org/",
        "INDEX.HTM: a/B.HTM#here",
        "INDEX.HTM: https://example.org/",
    ]


def test_a_picture_belongs_to_the_bytes_that_it_was_made_of(tmp_path: Path) -> None:
    studies = passed(instances(make_study(tmp_path / "in", "ACC1")))
    stranger = instances(make_study(tmp_path / "other", "ACC2"))[0].arrival
    renderer = Renderer(tmp_path / "pictures")
    renderer.begin(stranger)
    corrected = replace(stranger, sop_instance_uid=studies.instances[0].arrival.sop_instance_uid)
    renderer.begin(corrected)
    made = renderer.finish(arrivals(studies.instances))
    assert set(made.of) == {arrival.sha256 for arrival in arrivals(studies.instances)}
    [layout] = seen(studies, tmp_path, Pictures({stranger.sha256: next(iter(made.of.values()))})).layouts
    assert not pictures_on(layout)


def test_a_retry_keeps_what_was_made_of_the_same_bytes_and_is_what_it_was(tmp_path: Path) -> None:
    studies = passed(instances(make_study(tmp_path / "in", "ACC1")))
    first = rendered(studies, tmp_path / "pictures")
    assert rendered(studies, tmp_path / "pictures") == first
    pack, log = tmp_path / "pictures" / "pictures.pack", tmp_path / "pictures" / "made.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    damaged, torn, kept = (json.loads(line)["sha256"] for line in lines)
    [place, *_] = [each.offset for each in first.of[damaged].files.values() if each.offset is not None]
    with pack.open("r+b") as file:
        file.seek(place)
        file.write(b"\0")
    log.write_bytes(lines[0] + lines[2] + lines[1][:-9])
    again = rendered(studies, tmp_path / "pictures")
    assert again.of[kept] == first.of[kept]
    for sha256 in (damaged, torn):
        for name, made in again.of[sha256].files.items():
            before = first.of[sha256].files[name]
            assert made.sha256 == before.sha256 and made.offset != before.offset


@pytest.mark.parametrize(("many", "rest"), [(1000, 1), (20, 0)])
def test_of_two_processors_one_makes_pictures_until_all_has_arrived_or_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int, rest: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(rendering, "MANY_WAIT", many)
    found = arrivals(tuple(instances(make_study(tmp_path / "in", "ACC1", kinds={"ct": 30}))))
    places, go_on = set[str](), threading.Event()

    def each(requests: Sequence[PictureRequest]) -> Iterator[PictureResult | Exception]:
        places.add(requests[0].folder.parent.name)
        go_on.wait(LONG)
        return made(requests)

    with closing(Renderer(tmp_path / "pictures")) as renderer, ThreadPoolExecutor(1) as finishing:
        made = renderer._pool.each
        monkeypatch.setattr(renderer._pool, "each", each)
        for arrival in found:
            renderer.begin(arrival)
        assert (len(renderer._free), len(renderer._resting)) == (0, rest)
        until(lambda: len(places) == 2 - rest)
        pictures = finishing.submit(renderer.finish, found)
        until(lambda: len(places) == 2)
        go_on.set()
        assert len(pictures.result().of) == 30 and not pictures.result().not_shown


def test_what_a_process_did_not_write_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process writes over what it made last: none of it may pass for the next image's."""
    first, second = instances(make_study(tmp_path / "in", "ACC1", kinds={"ct": 2}))
    renderer = Renderer(tmp_path / "pictures", workers=1)
    [told] = [each.result for each in renderer_of(renderer, first)]
    monkeypatch.setattr(renderer._pool, "each", lambda requests: (replace(told, request=each) for each in requests))
    assert [each.result.not_shown for each in renderer_of(renderer, second)] == [(NotShown(0, Reason.UNFORESEEN),)]
    renderer.close()


@pytest.mark.parametrize("lend", [Path.symlink_to, Path.hardlink_to])
def test_a_process_can_lend_no_file_of_others_to_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lend: Callable[[Path, Path], None]
) -> None:
    [image] = instances(make_study(tmp_path / "in", "ACC1", kinds={"ct": 1}))
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 100)
    renderer = Renderer(tmp_path / "pictures", workers=1)

    def linked(requests: Sequence[PictureRequest]) -> Iterator[PictureResult]:
        for request, made in zip(requests, each(requests), strict=True):
            assert isinstance(made, PictureResult)
            (request.folder / made.pictures[0].file.name).unlink()
            lend(request.folder / made.pictures[0].file.name, secret)
            yield made

    each = renderer._pool.each
    monkeypatch.setattr(renderer._pool, "each", linked)
    assert [each.result.not_shown for each in renderer_of(renderer, image)] == [(NotShown(0, Reason.UNFORESEEN),)]
    assert secret.read_bytes() == b"x" * 100
    renderer.close()


@pytest.mark.parametrize(
    "forged",
    [
        b"alert(1);\n",
        b'mkisoPixels({"rows": 1, "data": ""});alert(1);\n',
        b'mkisoPixels({"rows": alert(1), "data": ""});\n',
        b'mkisoPixels({"name": "D0000001.JS", "data": ""+alert(1)+""});\n',
    ],
)
def test_a_process_that_writes_another_script_puts_it_on_no_disc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forged: bytes
) -> None:
    """A browser runs what lies on the disc, and a decoder's process may be taken over by an image."""
    [image, *_] = passed(instances(make_study(tmp_path / "in", "ACC1"))).instances
    renderer = Renderer(tmp_path / "pictures", expected=1)
    each = renderer._pool.each

    def taken_over(requests: Sequence[PictureRequest]) -> Iterator[PictureResult]:
        for request, result in zip(requests, each(requests), strict=True):
            assert isinstance(result, PictureResult)
            [picture] = result.pictures
            assert picture.script
            (request.folder / picture.script.name).write_bytes(forged)
            script = replace(picture.script, size=len(forged))
            yield replace(result, pictures=(replace(picture, script=script),))

    monkeypatch.setattr(renderer._pool, "each", taken_over)
    assert [each.result.not_shown for each in renderer_of(renderer, image)] == [(NotShown(0, Reason.UNFORESEEN),)]
    renderer.close()


def test_a_damaged_image_costs_its_picture_and_is_named(tmp_path: Path) -> None:
    files = make_study(tmp_path / "in", "ACC1", kinds={"jpeg": 2})
    content = bytearray(files[1].read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start : start + 400] = bytes(400)
    files[1].write_bytes(content)
    [layout] = seen(passed(instances(files)), tmp_path).layouts
    assert pictures_on(layout) == ["P0000001.JPG"]
    assert "Image 2: Its pixels are damaged or cut short." in series_page(layout)
    assert not list(dead_links(unpacked(layout, tmp_path / "disc")))


def test_what_takes_too_long_costs_its_picture(tmp_path: Path) -> None:
    studies = passed(instances(make_study(tmp_path / "in", "ACC1")))
    renderer = Renderer(tmp_path / "pictures")
    made = renderer.finish(arrivals(studies.instances), seconds=0)
    [layout] = seen(studies, tmp_path, made).layouts
    assert not pictures_on(layout)
    assert "Image 1; 2; 3: It took too long to decode." in series_page(layout)


def test_a_disc_without_room_gets_fewer_pictures_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = passed(instances(make_ct_series(tmp_path / "in", "ACC1", count=40, size=516)))
    made = rendered(studies, tmp_path / "pictures", expected=40)
    words = {
        "values": "Picture 40 of 40",
        "all": "Picture 40 of 40",
        "key": "16 of 40 pictures are shown here: at most 16 of each stack, evenly spaced.",
        "thumbnails": "16 of 40 pictures are shown here, and only small ones: the disc has no room for more.",
    }
    sizes = []
    for amount, said in words.items():
        [layout] = seen(studies, tmp_path, made, disc={"span": False}).layouts
        assert layout.amount == amount and said in series_page(layout)
        assert not list(dead_links(unpacked(layout, tmp_path / amount)))
        sizes.append((len(pictures_on(layout)), len(scripts_on(layout))))
        monkeypatch.setitem(MEDIUM_SECTORS, "cd", layout.sectors - 1)
    assert sizes == [(80, 40), (80, 0), (2 * KEY_PICTURES, 0), (KEY_PICTURES, 0)]
    [layout] = seen(studies, tmp_path, made, disc={"span": False}).layouts
    assert (layout.amount, pictures_on(layout)) == ("none", [])
    monkeypatch.setitem(MEDIUM_SECTORS, "cd", layout.sectors - 1)
    with pytest.raises(TooLargeForMedium):
        seen(studies, tmp_path, made, disc={"span": False})


def test_pictures_make_no_set_of_more_discs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = passed(instances(make_ct_series(tmp_path / "in", "ACC1", count=40, size=516)))
    made = rendered(studies, tmp_path / "pictures")
    for room, expected in ((7500, "values"), (6700, "key"), (5800, "thumbnails"), (5380, "none")):
        monkeypatch.setitem(MEDIUM_SECTORS, "cd", room)
        plain = seen(studies, tmp_path / "plain", NO_PICTURES)
        disc_set = seen(studies, tmp_path, made)
        assert len(disc_set.layouts) == len(plain.layouts) == 2
        assert {layout.amount for layout in disc_set.layouts} == {expected}
        for layout in disc_set.layouts:
            assert layout.sectors <= room
            own = {file.sop_instance_uid for file in layout.files if file.sop_instance_uid}
            theirs = {each.arrival.sha256 for each in studies.instances if each.arrival.sop_instance_uid in own}
            shown = {file.sha256 for file in layout.files if file.path.suffix == ".JPG"}
            assert shown <= {file.sha256 for sha256 in theirs for file in made.of[sha256].files.values()}
            assert not list(dead_links(unpacked(layout, tmp_path / f"{room}" / layout.volume_id)))


def test_values_are_carried_of_images_spread_over_all_that_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "VALUES", 3)
    studies = passed(instances(make_study(tmp_path / "in", "ACC1", kinds={"ct": 9, "dx": 1})))
    [layout] = seen(studies, tmp_path, rendered(studies, tmp_path / "pictures", expected=9)).layouts
    assert scripts_on(layout) == ["D0000003.JS", "D0000006.JS", "D0000009.JS"]
    [layout] = seen(studies, tmp_path, rendered(studies, tmp_path / "others", expected=2)).layouts
    assert len(scripts_on(layout)) == 9
    [layout] = seen(studies, tmp_path, rendered(studies, tmp_path / "more")).layouts
    assert not scripts_on(layout)
    monkeypatch.setattr(rendering, "MANY_IMAGES", 8)
    monkeypatch.setattr(rendering, "FEW_VALUES", 2)
    [layout] = seen(studies, tmp_path, rendered(studies, tmp_path / "many", expected=9)).layouts
    assert scripts_on(layout) == ["D0000005.JS", "D0000009.JS"]


def test_no_text_ends_a_script_or_begins_markup(tmp_path: Path) -> None:
    nasty = "</script><!--\u2028\u2029'\"&\\ javascript:"
    source = script_value({"title": nasty})
    assert source.isascii() and not set(source) & set("<>&")
    assert json.loads(source) == {"title": nasty}


def test_key_images_are_spread_over_each_series(tmp_path: Path) -> None:
    assert evenly(range(3), 16) == [0, 1, 2]
    assert evenly(range(101), 5) == [0, 25, 50, 75, 100]
    assert evenly_with(range(101), 5, {40, 50, 55}.__contains__) == [0, 40, 50, 55, 100]
    assert evenly_with(range(101), 5, lambda each: each % 10 == 0) == [0, 20, 50, 80, 100]
    assert evenly_with(range(4), 5, {2}.__contains__) == [0, 1, 2, 3]
    studies = passed(instances(make_study(tmp_path / "in", "ACC1", kinds={"ct": 40, "mr": 2})))
    chosen = key_instances(arrange(studies.instances))
    assert len(chosen) == KEY_PICTURES + 2 and len(set(map(id, chosen))) == len(chosen)
    presented = next(each for each in studies.instances if each not in chosen)
    chosen = key_instances(arrange(studies.instances), {presented.arrival.sha256})
    assert presented in chosen and len(chosen) == KEY_PICTURES + 2

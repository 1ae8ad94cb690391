"""A disc in each language: its pages, its viewer and README.TXT."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mkiso.languages import language, languages
from mkiso.media.disc_set import lay_out_set
from mkiso.media.layout import Layout
from mkiso.media.rendering import Renderer
from peers.corpus import make_study
from tests.media.discs import CREATED, instances, passed, settings

pytestmark = pytest.mark.usefixtures("forked_decoders")

OF_THE_IMAGES = {"Made for a test", "Test series", "Example, Anna"}
OTHERS = [code for code in languages() if code != "en"]


Spoken = Callable[[Path, str], Layout]


@pytest.fixture(scope="module")
def spoken_disc(tmp_path_factory: pytest.TempPathFactory) -> Spoken:
    """Lays out the disc of one study in a language, below a folder."""
    folder = tmp_path_factory.mktemp("spoken")
    studies = passed(instances(make_study(folder / "in", "ACC1", kinds={"ct": 3, "sr": 1})))
    renderer = Renderer(folder / "pictures", expected=4)
    try:
        pictures = renderer.finish([each.arrival for each in studies.instances])
    finally:
        renderer.close()

    def lay_out(place: Path, code: str) -> Layout:
        chosen = settings(place, disc={"language": code})
        [layout] = lay_out_set(studies, chosen, place / "made", created=CREATED, medium="cd", pictures=pictures).layouts
        return layout

    return lay_out


def written(layout: Layout, path: str) -> str:
    [file] = [file for file in layout.files if str(file.path) == path]
    assert file.source
    return file.source.read_text("utf-8-sig")


@pytest.mark.parametrize("code", languages())
def test_every_page_is_in_the_language_of_the_disc(spoken_disc: Spoken, code: str, tmp_path: Path) -> None:
    layout, spoken = spoken_disc(tmp_path, code), language(code)
    pages = [str(file.path) for file in layout.files if file.path.suffix == ".HTM"]
    assert len(pages) == 6  # overview, about, study, two series, viewer
    for page in pages:
        assert f'<html lang="{code}" dir="ltr"' in written(layout, page), page
    for page in pages:  # images are objects, pictures are what is looked at here: no count stands there twice
        assert re.findall(r">\s*(\S[^<>·]*?) · \1\s*<", html.unescape(written(layout, page))) == [], page
    index = html.unescape(written(layout, "INDEX.HTM"))
    assert spoken.gettext("Whose disc this is") in index and spoken.date(CREATED) in index
    series = html.unescape(written(layout, "IHE_PDI/ST000001/SE000001.HTM"))
    assert spoken.gettext("Picture %(number)s of %(total)s", number=1, total=3) in series
    assert spoken.gettext("It holds no image.") in html.unescape(written(layout, "IHE_PDI/ST000001/SE000002.HTM"))
    script = written(layout, "VIEW/ST000001.JS").removeprefix("mkisoStudy(").rstrip().removesuffix(");")
    assert json.loads(script)["words"] == spoken.words_of("mkiso/media/web")


@pytest.mark.parametrize("code", OTHERS)
def test_nothing_of_the_pages_is_left_in_english(spoken_disc: Spoken, code: str, tmp_path: Path) -> None:
    english, other = spoken_disc(tmp_path / "en", "en"), spoken_disc(tmp_path / code, code)
    for page in ("INDEX.HTM", "IHE_PDI/ST000001.HTM", "IHE_PDI/ST000001/SE000001.HTM", "VIEW/ST000001.HTM"):
        same = set(texts(written(english, page))) & set(texts(written(other, page)))
        assert {words for words in same if re.search("[a-z].* ", words)} <= OF_THE_IMAGES, page


def texts(page: str) -> list[str]:
    """What stands between the tags of a page."""
    return [" ".join(html.unescape(part.partition(">")[2]).split()) for part in page.split("<")]


@pytest.mark.parametrize("code", languages())
def test_readme_is_in_the_language_of_the_disc_and_in_english(spoken_disc: Spoken, code: str, tmp_path: Path) -> None:
    layout, spoken = spoken_disc(tmp_path, code), language(code)
    readme = written(layout, "README.TXT")
    [file] = [file for file in layout.files if str(file.path) == "README.TXT"]
    assert file.source
    content = file.source.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf") != content.isascii()
    assert (readme.count("Medical images\n") == 1) and readme.startswith(spoken.gettext("Medical images"))
    assert "Made with: mkiso" in readme and spoken.labelled(spoken.gettext("Made with"), "mkiso") in readme


def test_the_same_disc_in_a_language_has_the_same_bytes(spoken_disc: Spoken, tmp_path: Path) -> None:
    first, second = (spoken_disc(tmp_path / name, "th") for name in ("one", "two"))
    assert [(file.path, file.sha256) for file in first.files] == [(file.path, file.sha256) for file in second.files]

"""Names and titles that are read from right to left stand by themselves on each page: no date or number beside them
changes its place.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from peers.corpus import Person, make_study
from tests.media.discs import instances, passed
from tests.media.test_seen import seen

pytestmark = pytest.mark.usefixtures("forked_decoders")

PEOPLE = {"Hebrew": ("כהן^שלום", "כהן, שלום"), "Arabic": ("محمد^علي", "محمد, علي")}


@pytest.mark.parametrize("script", PEOPLE)
def test_a_name_is_isolated_wherever_it_stands_in_a_sentence(script: str, tmp_path: Path) -> None:
    name, shown = PEOPLE[script]
    person = Person("HN-0009", name, character_set="ISO_IR 192")
    studies = passed(instances(make_study(tmp_path / "in", "A1", kinds={"ct": 2, "sr": 1}, patient=person)))
    [layout] = seen(studies, tmp_path).layouts
    pages = [file for file in layout.files if file.path.suffix == ".HTM" and file.source]
    named = 0
    for file in pages:
        assert file.source
        page = html.unescape(file.source.read_text(encoding="utf-8"))
        isolated = re.sub(r"<bdi>[^<]*</bdi>|<title>[^<]*</title>", "", page)
        assert shown not in isolated, file.path
        named += page.count(f"<bdi>{shown}</bdi>")
    assert named >= len(pages) - 1  # all but the page of technical statements

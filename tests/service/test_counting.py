import json
import re
import time
from collections.abc import Collection
from importlib.resources import files

import pytest

from mkiso_service.counting import OTHERS, REPORTS, counted, minutes_since


@pytest.mark.parametrize(
    ("number", "modalities", "of", "words"),
    [
        (1, ["CT"], None, "1 image"),
        (412, ["CT", "MR"], None, "412 images"),
        (1, ["SR"], None, "1 report"),
        (2, ["SR", "DOC"], None, "2 reports"),
        (413, ["CT", "SR"], None, "413 images and reports"),
        (1, ["CT", "SR"], None, "1 image or report"),  # of a study of which it was chosen
        (1, ["SR"], 2, "1 of 2 reports"),
        (0, [], 1, "0 of 1 image"),
        (1, ["ECG"], None, "1 object"),
        (2, ["PR", "SR"], None, "2 objects"),
        (413, ["CT", "PR"], None, "413 images"),
    ],
)
def test_only_images_are_called_images(number: int, modalities: Collection[str], of: int | None, words: str) -> None:
    assert counted(number, modalities, of) == words


@pytest.mark.parametrize(("name", "modalities"), [("REPORTS", REPORTS), ("OTHERS", OTHERS)])
def test_the_counter_page_knows_the_same_modalities(name: str, modalities: Collection[str]) -> None:
    script = (files("mkiso_service.webhook") / "page" / "words.js").read_text()
    assert (told := re.search(rf"^const {name} = (\[.*?\]);", script, re.MULTILINE))
    assert set(json.loads(told[1])) == modalities


@pytest.mark.parametrize(("minutes", "told"), [(3, 3), (0.5, 0), (-0.5, 0), (-90, 0)])
def test_minutes_since(minutes: float, told: int) -> None:
    assert minutes_since(time.time() - 60 * minutes - 1) == told

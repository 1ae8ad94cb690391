import time
from collections.abc import Collection

import pytest

from mkiso_service.counting import counted, minutes_since


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
    ],
)
def test_reports_are_called_reports(number: int, modalities: Collection[str], of: int | None, words: str) -> None:
    assert counted(number, modalities, of) == words


@pytest.mark.parametrize(("minutes", "told"), [(3, 3), (0.5, 0), (-0.5, 0), (-90, 0)])
def test_minutes_since(minutes: float, told: int) -> None:
    assert minutes_since(time.time() - 60 * minutes - 1) == told

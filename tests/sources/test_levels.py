"""What the doctor says of a source: what it offers, which levels it answers, and how much is asked of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from mkiso.config.settings import Settings
from mkiso.demo.pacs import DemoPacs
from mkiso.sources.answers import Answers
from mkiso.sources.levels import answered_levels
from mkiso.sources.protocol import Query
from mkiso_service.checks.check import Site, examine
from mkiso_service.checks.registry import checks_of
from peers.corpus import make_study
from tests.sources.test_source import FolderSource

TODAY = date.today()


class Silent(FolderSource):
    """It answers `levels`, and nothing to questions below."""

    levels: tuple[str, ...] = ("STUDY",)

    def _search(self, query: Query, most: int | None = None, /) -> Answers:
        if "StudyDate" in query.keys:  # a range, which the folder doesn't match
            query = replace(query, keys={**query.keys, "StudyDate": ""})
        return super()._search(query, most) if query.level in self.levels else Answers([], 0x0000)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return make_study(tmp_path / "study", "A1", kinds={"ct": 2}, study_date=f"{TODAY:%Y%m%d}")


def test_the_levels_are_those_that_a_recent_study_is_answered_with(files: list[Path]) -> None:
    source = Silent(files)
    assert answered_levels(source, TODAY).startswith("It tells neither images nor their number")
    source.levels = ("STUDY", "SERIES", "IMAGE")
    assert answered_levels(source, TODAY) == (
        "It lists the images of a study, each by its UID. It is asked for at most 2 studies at the same time "
        "(max_moves)."
    )
    assert "no study of the last 7 days" in answered_levels(source, TODAY + timedelta(30))


@pytest.mark.parametrize(("kind", "offers"), [("cmove", "offers C-MOVE"), ("cget", "offers C-GET")])
def test_the_doctor_tells_what_a_pacs_offers_and_lists(files: list[Path], kind: str, offers: str) -> None:
    with DemoPacs(files) as pacs:
        section = {"kind": kind, "ae_title": pacs.ae_title, "host": pacs.host, "port": pacs.port, "find_limit": 200}
        settings = Settings.model_validate({"pacs": section})
        [check] = [check for check in checks_of(settings) if check.name == "pacs"]
        inside, outside = (
            examine(check, Site(settings, lambda _: None, 5.0, inside=each))  # type: ignore[arg-type]
            for each in (True, False)
        )
    assert inside.well and offers in inside.words and "It lists the images" in inside.words
    assert "takes PDUs of " in inside.words
    assert "at most 200 studies to a question" in inside.words
    assert outside.well and "lists" not in outside.words and pacs.ae_title not in outside.words

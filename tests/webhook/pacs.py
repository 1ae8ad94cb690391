"""A PACS behind the webhook, which the counter page asks whose disc it would be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mkiso.config.settings import Settings
from mkiso.config.sources import CMove
from mkiso.demo.pacs import DemoPacs
from peers.corpus import PLAIN, Person, make_study

EVERYBODY = PLAIN
"""Whose studies are, where a test doesn't say."""


@contextmanager
def with_pacs(
    settings: Settings, folder: Path, *numbers: str, patients: Mapping[str, Person] | None = None
) -> Iterator[Settings]:
    """The settings with a PACS that has a study of one image for each number; `patients` says whose, of some."""
    whose = {**dict.fromkeys(numbers, EVERYBODY), **(patients or {})}
    files = [
        file
        for place, (number, person) in enumerate(whose.items())
        for file in make_study(folder / f"study{place}", number, patient=person, kinds={"ct": 1})
    ]
    with DemoPacs(files) as pacs:
        yield settings.model_copy(update={"pacs": CMove(ae_title=pacs.ae_title, host=pacs.host, port=pacs.port)})

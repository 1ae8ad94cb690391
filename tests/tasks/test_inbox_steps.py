"""What an inbox's job writes down before it orders, and what it takes for the whole of what was sent."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from pydicom import Dataset, dcmread

from mkiso.config.inboxes import Inbox
from mkiso.config.settings import Settings
from mkiso.errors import NotArchived
from mkiso.network.dimse import decode_data_set, encode_data_set
from mkiso.receiver.pushed import PushedStudy
from mkiso.sources.answers import Answers
from mkiso.sources.choosing import found_together
from mkiso.sources.protocol import Query
from mkiso.sources.several import find_everywhere_by_uid
from mkiso.storage.job import Job
from peers.corpus import make_study
from tasks import inbox
from tasks.inbox import InboxRun, find_sent_study, take_sent_study
from tests.sources.test_source import FolderSource


class Counting(FolderSource):
    """Tells how many images there are, at this level alone, and lists none."""

    level = "STUDY"

    def _search(self, query: Query, most: int | None = None, /) -> Answers:
        return Answers([], 0xA900) if query.level == "IMAGE" else super()._search(query)

    def _told(self, query: Query, head: Dataset) -> bytes:
        told = decode_data_set(super()._told(query, head))
        if query.level == self.level:
            setattr(told, f"NumberOf{query.level.title()}RelatedInstances", len(self.held))
        return encode_data_set(told)


def run_of(files: Sequence[Path], folder: Path, source: FolderSource, monkeypatch: pytest.MonkeyPatch) -> InboxRun:
    """The job of a study that was sent, whose archive is this source."""
    settings = Settings.model_validate({"storage": {"data_dir": folder / "data"}})
    place = PushedStudy(settings.storage, "BURN", str(dcmread(files[0]).StudyInstanceUID))
    place.instances_dir.mkdir(parents=True)
    for file in files:
        shutil.copy(file, place.instances_dir / str(dcmread(file).SOPInstanceUID))
    job = Job("job", "download", settings)
    job.open()
    monkeypatch.setattr(inbox, "sources_of", lambda _: [source])
    monkeypatch.setattr(inbox, "source_of", lambda *_: source)
    report = SimpleNamespace(accession_numbers=("A1",), inbox="BURN")
    told = dict.fromkeys(("tell", "begin_study", "count_kept", "count_arrival"), lambda _: None)
    run = SimpleNamespace(job=job, settings=settings, place=place, report=report, rules=Inbox(senders=("CT1",)), **told)
    return cast(InboxRun, run)


@pytest.mark.parametrize("level", ["SERIES", "STUDY", "NONE"])
def test_fewer_than_were_sent_make_no_disc_where_the_archive_only_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    files = make_study(tmp_path / "sent", "A1", kinds={"ct": 10})
    source = Counting(files[:8])
    source.level = level
    source.settings = source.settings.model_copy(update={"require_counts": False})
    run = run_of(files, tmp_path, source, monkeypatch)
    sent = run.place.read()
    if level != "NONE":
        with pytest.raises(NotArchived, match=r"has 8 images of the study, and not the 10"):
            find_sent_study.fn(run, sent)
    told = find_everywhere_by_uid([source], sent.study_instance_uid)
    found = found_together(("A1",), [told], [], run.settings.identity)
    run.job.begin(found.content)
    with pytest.raises(NotArchived, match=r"didn't give 2 of the 10 images") as caught:
        take_sent_study.fn(run, found, sent)
    assert caught.value.details["unarchived"] == 2


@pytest.mark.parametrize("more", [0, 2])
def test_as_many_others_as_were_sent_are_not_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    made = make_study(tmp_path / "made", "A1", kinds={"ct": 7 + more})
    source = Counting(made[2:])
    run = run_of(made[:5], tmp_path, source, monkeypatch)
    sent = run.place.read()
    told = find_sent_study.fn(run, sent)
    found = found_together(("A1",), [told], [], run.settings.identity)
    run.job.begin(found.content)
    with pytest.raises(NotArchived, match=r"didn't give 2 of the 5 images"):
        take_sent_study.fn(run, found, sent)
    held = {str(head.SOPInstanceUID) for _, head in source.held}
    whole = replace(sent, instances=tuple(each for each in sent.instances if each.sop_instance_uid in held))
    assert len(take_sent_study.fn(run, found, whole).instances) == 5 + more

"""Many studies are sent at once, interleaved, in random order, some images late: each disc is whole, or its job
says what is missing, and a later one makes it.

MKISO_SENT_STUDIES=1000 sends a thousand.
"""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom import dcmread

from peers.corpus import make_study
from peers.discs import assert_holds_exactly, extract, instances_on
from peers.orthanc import Orthanc
from peers.storescu import store
from tests.end_to_end.conftest import Open
from tests.end_to_end.test_inboxes import jobs_of

pytestmark = [pytest.mark.end_to_end]

STUDIES = int(os.environ.get("MKISO_SENT_STUDIES", "30"))
SENDERS, INBOX = 4, "BURN_MANY"
SECONDS = 600 + 15 * STUDIES
SAYS_WHAT_IS_MISSING = ("not_archived", "study_incomplete")


def uids(files: list[Path]) -> set[str]:
    return {str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for file in files}


def test_each_disc_is_whole_whatever_comes_when(open_hospital: Open, tmp_path: Path) -> None:
    chance = random.Random(20240229)
    inbox = {"senders": ["STORESCU"], "quiet_seconds": 2, "max_studies": STUDIES + 1}
    hospital = open_hospital("orthanc", [], {"inboxes": {INBOX: inbox}, "disc": {"pictures": "none"}}, verbose=False)
    service, pacs = hospital.service, hospital.pacs
    assert isinstance(pacs, Orthanc)
    whole = {
        f"M{number}": make_study(tmp_path / "s", f"M{number}", f"HN-M{number}", kinds={"ct": chance.randint(2, 4)})
        for number in range(STUDIES)
    }
    late = {number: files[-1:] for number, files in whole.items() if chance.random() < 0.3}
    first = {number: files[: -1 if number in late else None] for number, files in whole.items()}

    def send(studies: dict[str, list[Path]]) -> None:
        """To the PACS and to the inbox, by several senders at once, each in an order of its own."""
        files = [file for each in studies.values() for file in each]
        chance.shuffle(files)
        parts = [files[begin::SENDERS] for begin in range(SENDERS)]
        with ThreadPoolExecutor(SENDERS + 1) as beside:
            archived = beside.submit(pacs.store, chance.sample(files, len(files)))
            sent = [beside.submit(store, service.receiver_port, part, called=INBOX) for part in parts if part]
            assert [each.result().returncode for each in sent] == [0] * len(sent)
            archived.result()

    send(first)
    send(late)

    def newest_is_whole(number: str) -> bool:
        jobs = jobs_of(hospital, number)
        return bool(jobs) and jobs[0]["job"]["state"] == "done" and jobs[0]["job"]["written"] == len(whole[number])

    for number, files in whole.items():
        service.when(lambda: newest_is_whole(number), SECONDS)  # noqa: B023
        jobs = jobs_of(hospital, number)
        assert len(jobs) <= 2, "no more jobs than the study had states"
        for place, listed in enumerate(jobs):
            if place and listed["job"]["state"] == "failed":  # the late image was at one of the two already
                error = listed["job"]["error"]
                assert error["code"] in SAYS_WHAT_IS_MISSING, error
                continue
            answer = service.http.get(f"/api/iso/jobs/{listed['job']['job_id']}/disc").raise_for_status()
            folder = tmp_path / "discs" / f"{number}-{place}"
            folder.mkdir(parents=True)
            (folder / "disc.iso").write_bytes(answer.content)
            disc = extract(folder / "disc.iso", folder / "disc")
            if place == 0:
                assert_holds_exactly(disc, files)
            else:  # as the PACS had it then, which may have had the late image already
                assert instances_on(disc).keys() in (uids(first[number]), uids(files))
            (folder / "disc.iso").unlink()

"""The worker's watch over the inboxes: starts a job for what was sent, once it is settled, exactly one for the same.

What it knows stands on the disk and in Prefect, so that it may end at any moment: a run has the key of what was sent
(Prefect's idempotency key), and is written down beside it.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from typing import Literal
from uuid import uuid4

from prefect.client.orchestration import SyncPrefectClient, get_client

from mkiso.config.inboxes import Inbox
from mkiso.config.settings import Settings
from mkiso.dataset.header import read_header
from mkiso.errors import DamagedInstance, MkisoError, RetriableError, StorageUnreadable
from mkiso.housekeeping import Standing
from mkiso.inboxes.deciding import View, agrees, key_of, made_before, next_step
from mkiso.receiver.pushed import Ask, Pushed, PushedStudy, studies_in
from mkiso.sources.registry import sources_of
from mkiso.sources.several import find_everywhere_by_uid
from mkiso.storage.askings import asking, askings_of, write_asking
from mkiso.storage.report import readable_report
from mkiso.study.question import Question
from mkiso.study.text import text
from mkiso_service.prefect.environment import INBOX
from tasks.cleaning import standings

log = logging.getLogger("mkiso.worker")

LOOK_SECONDS = 1.0
ASK_SECONDS = 30.0
"""How long the archive may take to answer about one study."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 60.0
"""Between two questions about a study that isn't archived yet."""
LEAP_SECONDS = 1.0
"""Of a clock between two looks: by less it is set right every day."""
_NUMBER = re.compile(r"[^\\*?%,\x00-\x1f\x7f]{1,16}")


@dataclass(slots=True)
class Known:
    """What was read of a study when its folder was changed last, and what the archive said of that."""

    changed: int
    sent: Pushed
    agrees: bool = False
    pause_seconds: float = FIRST_PAUSE_SECONDS
    next_question: float = 0.0


class InboxWatch:
    """The looks of one worker. Blocking: for a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._most = max(1, settings.server.max_running_jobs - 1)
        """Jobs of inboxes at the same time: where there are several places, one is left for clerks."""
        self._there: dict[PushedStudy, PushedStudy] = {}
        """Every study as it was seen first: its paths are made once, and not at each look."""
        self._known: dict[PushedStudy, Known] = {}
        self._at_rest: dict[PushedStudy, int] = {}
        self._unread_until: dict[PushedStudy, float] = {}
        self._archive_rests_until = 0.0
        self._clocks = time.time(), time.monotonic()
        self._leapt = -inf

    def look(self) -> int:
        """Look at every study once, and start what is settled; how many jobs were started."""
        self._look_at_clock()
        started, under_way = 0, 0
        waiting: list[tuple[PushedStudy, Inbox]] = []
        storage, inboxes = self._settings.storage, self._settings.inboxes
        there = {
            self._there.setdefault(study, study): rules
            for name, rules in inboxes.items()
            for study in studies_in(storage, name)
        }
        self._forget_gone(there.keys())
        studies = [(study, rules) for study, rules in there.items() if self._at_rest.get(study) != _changed(study)]
        asked = {study: study.asked for study, _ in studies}
        running = [each[-1].job_id for each in asked.values() if each and each[-1].job_id and not each[-1].ended]
        told = standings(running) if running else {}
        for study, rules in studies:
            last = asked[study][-1] if asked[study] else None
            if last is not None and last.job_id and not last.ended:
                if not (ended := self._ended(last, told)):
                    under_way += told.get(last.job_id) == "active"
                    continue
                study.note_asked((*asked[study][:-1], replace(last, ended=ended, ended_time=time.time())))
            waiting.append((study, rules))
        for study, rules in sorted(waiting, key=self._due):
            if under_way + started >= self._most:
                break
            started += self._consider(study, rules)
        return started

    def _look_at_clock(self) -> None:
        """By a clock that has leaped what is just being sent came long ago, and isn't settled for all that."""
        before, self._clocks = self._clocks, (time.time(), time.monotonic())
        passed, ran = (now - then for now, then in zip(self._clocks, before, strict=True))
        if passed - ran > LEAP_SECONDS:
            self._leapt = time.monotonic()

    def _forget_gone(self, there: Collection[PushedStudy]) -> None:
        """What was cleared away is known no more."""
        for known in (self._there, self._known, self._at_rest, self._unread_until):
            for study in known.keys() - there:
                del known[study]

    def _due(self, waiting: tuple[PushedStudy, Inbox]) -> float:
        """Who has waited longest for the archive's word comes first: one that has no answer keeps nobody else from
        theirs.
        """
        known = self._known.get(waiting[0])
        return known.next_question if known else 0.0

    def _consider(self, study: PushedStudy, rules: Inbox) -> bool:
        """Take the next step of a study; whether a job was started."""
        if time.monotonic() < self._unread_until.get(study, 0.0):
            return False
        try:
            asked = study.read_asked()
        except (DamagedInstance, StorageUnreadable) as error:
            return self._leave(study, error)
        if asked and not asked[-1].job_id:  # a job whose creation was cut off
            return self._create(study, asked[:-1], asked[-1], rules)
        quiet = study.seconds_quiet
        if quiet is None:  # only what was asked for is remembered
            self._at_rest[study] = 0
            return False
        if min(quiet, time.monotonic() - self._leapt) < rules.quiet_seconds:
            return False
        try:
            known = self._read(study)
            asked = tuple(map(self._as_it_ended, asked))
        except (MkisoError, OSError) as error:
            return self._leave(study, error)
        view = View(known.sent.fingerprint if known.sent.instances else "", quiet, time.time() - quiet, asked)
        match next_step(replace(view, agrees=known.agrees), rules):
            case "rest":
                self._at_rest[study] = known.changed
                self._known.pop(study, None)
            case "ask":
                # what came while the archive was asked isn't in this answer, nor in what would be asked for
                if self._archive_agrees(study, known, rules) and _changed(study) == known.changed:
                    return self._start(study, known.sent, asked, rules)
            case "start":
                return self._start(study, known.sent, asked, rules)
        return False

    def _leave(self, study: PushedStudy, error: MkisoError | OSError) -> Literal[False]:
        """What is damaged rests until something else comes; what can't be read just now is read again in a while."""
        log.error("What was sent to %s can't be read (%s).", study.inbox, getattr(error, "words", error))
        if isinstance(error, DamagedInstance):
            self._at_rest[study] = _changed(study)
        else:
            self._unread_until[study] = time.monotonic() + LONGEST_PAUSE_SECONDS
        return False

    def _read(self, study: PushedStudy) -> Known:
        changed = _changed(study)
        known = self._known.get(study)
        if known is None or known.changed != changed:
            known = self._known[study] = Known(changed, study.read())
        return known

    def _archive_agrees(self, study: PushedStudy, known: Known, rules: Inbox) -> bool:
        now = time.monotonic()
        if now < max(known.next_question, self._archive_rests_until):
            return False
        known.next_question = now + known.pause_seconds
        known.pause_seconds = min(2 * known.pause_seconds, LONGEST_PAUSE_SECONDS)
        try:
            sources = sources_of(self._settings, until=now + ASK_SECONDS)
            found = find_everywhere_by_uid(sources, study.study_instance_uid)
        except MkisoError as error:
            log.warning("The archive can't be asked about what was sent to %s: %s", study.inbox, error.words)
            if isinstance(error, RetriableError):
                self._archive_rests_until = now + FIRST_PAUSE_SECONDS
            return False
        known.agrees = not found.reasons and agrees(known.sent, found.studies, rules)
        return known.agrees

    def _start(self, study: PushedStudy, sent: Pushed, asked: tuple[Ask, ...], rules: Inbox) -> bool:
        """Write down that a job is asked for, before it can be: whatever comes meanwhile, no other one is."""
        wanted = Ask("", sent.fingerprint, len(sent.instances), time.time(), nonce=uuid4().hex)
        study.note_asked((*asked, wanted))
        return self._create(study, asked, wanted, rules)

    def _create(self, study: PushedStudy, asked: tuple[Ask, ...], wanted: Ask, rules: Inbox) -> bool:
        """Create the run, or find it where it was created before, and write it down."""
        try:
            sent = self._read(study).sent
        except (MkisoError, OSError):  # the job says what is wrong
            sent = Pushed(study.inbox, study.study_instance_uid, ())
        number = _number_of(sent)
        numbers = (number,) if number else ()
        after = made_before(asked)
        parameters = {
            "inbox": study.inbox,
            "study_instance_uid": study.study_instance_uid,
            "accession_numbers": list(numbers),
            "after": after,
        }
        key = key_of(study.inbox, study.study_instance_uid, wanted)
        with get_client(sync_client=True) as client:
            assert isinstance(client, SyncPrefectClient)
            deployment = client.read_deployment_by_name(INBOX)
            run = client.create_flow_run_from_deployment(
                deployment.id, parameters=parameters, idempotency_key=key, name=f"{study.inbox} {number or 'study'}"
            )
        job_id, publisher = str(run.id), "" if after else rules.publisher
        storage = self._settings.storage
        question = Question("print" if publisher else "download", numbers, publisher, format=rules.format)
        if not askings_of(storage, job_id):
            for sender in sent.senders or ("",):
                asks = asking(sender, "inbox", question, self._settings.disc, name=study.inbox)
                write_asking(storage, job_id, asks)
        study.note_asked((*asked, replace(wanted, job_id=job_id)))
        self._known.pop(study, None)
        log.info("%d images for %s are settled: job %s.", wanted.instances, study.inbox, job_id)
        return True

    def _ended(self, ask: Ask, told: Mapping[str, Standing]) -> Literal["", "done", "failed"]:
        """How a job ended, by its report and by Prefect, which alone knows of one that was cut off."""
        try:
            status = _status(self._settings, ask)
        except StorageUnreadable:
            return ""
        if status == "done":
            return "done"
        standing = told.get(ask.job_id, "failed")
        return "" if standing == "active" else "failed"

    def _as_it_ended(self, ask: Ask) -> Ask:
        """A job that came to nothing may have been retried since."""
        return replace(ask, ended="done") if ask.ended and _status(self._settings, ask) == "done" else ask


def _number_of(sent: Pushed) -> str:
    """The accession number by the first image; empty where it has none that a run can have."""
    with suppress(DamagedInstance, OSError):
        for each in sent.instances[:1]:
            number = text(read_header(each.path), "AccessionNumber").strip()
            return number if _NUMBER.fullmatch(number) else ""
    return ""


def _status(settings: Settings, ask: Ask) -> str:
    report = readable_report(settings.storage, ask.job_id)
    return report.status if report else ""


def _changed(study: PushedStudy) -> int:
    """When something came last, in nanoseconds; 0 where nothing lies there."""
    try:
        return os.stat(study.instances_dir).st_mtime_ns  # noqa: PTH116  of each study, each second
    except OSError:
        return 0

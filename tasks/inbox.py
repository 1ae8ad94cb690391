"""The steps from what was sent to an inbox to complete studies."""

from __future__ import annotations

import os
from contextlib import nullcontext

from mkiso.audit import messages as audit
from mkiso.config.in_force import in_force
from mkiso.config.inboxes import Inbox
from mkiso.errors import ConfigurationError, JobNotFound
from mkiso.inboxes.collecting import as_sent, into_job, taken
from mkiso.inboxes.deciding import compared, may_make_again, require_archived, require_retrieved, require_sent
from mkiso.publishers.orderbook import OrderBook, require_not_ordered
from mkiso.publishers.protocol import pages_of
from mkiso.receiver.pushed import Pushed, PushedStudy
from mkiso.sources import collection
from mkiso.sources.choosing import FoundStudies
from mkiso.sources.registry import source_of, sources_of
from mkiso.sources.several import find_everywhere_by_uid
from mkiso.storage.files import hold
from mkiso.storage.job import JobKind
from mkiso.storage.shelf import Manifest
from mkiso.storage.slots import slot
from mkiso.study.gate import NOT_PROVEN
from mkiso.study.models import Study
from mkiso.study.selection import Selection
from mkiso.study.values import Found, StudyRetrieved
from tasks.job_run import JobRun
from tasks.step import step


class InboxRun(JobRun):
    """A job of one study that was sent to an inbox: a print where the inbox has a publisher, unless a disc of the study
    was made before. Raises ConfigurationError where there is no such inbox.
    """

    def __init__(self, inbox: str, study_instance_uid: str, accession_numbers: list[str], after: str) -> None:
        """`after`: the job that has made a disc of the study, empty where none has."""
        rules = in_force().inboxes.get(inbox)
        if rules is None:
            raise ConfigurationError(f"There is no inbox {inbox} any more: see inboxes in the configuration.")
        self.rules: Inbox = rules
        self.study_instance_uid = study_instance_uid
        self.after = after
        publisher = "" if after else rules.publisher
        kind: JobKind = "print" if publisher else "download"
        super().__init__(kind, accession_numbers, publisher, form=rules.format, inbox=inbox)

    def open(self) -> None:
        """As of every job; nothing of what was sent is cleared away while the job works on it."""
        super().open()
        self._held.callback(os.close, hold(self.place.folder))

    def is_answered_by(self, disc: Manifest) -> bool:
        """Whether it is of the study that was sent: its numbers are the PACS's, and the run's are the images'."""
        asked = self.report.format, self.report.transfer_syntax
        return self.study_instance_uid in disc.studies and (disc.format, disc.transfer_syntax) == asked

    @property
    def place(self) -> PushedStudy:
        """Where what was sent lies."""
        return PushedStudy(self.settings.storage, self.report.inbox, self.study_instance_uid)

    @property
    def without(self) -> tuple[str, ...]:
        """What the job does without from the beginning."""
        return (NOT_PROVEN,) if self.rules.ask == "none" else ()


@step("Look at what was sent")
def look_into_inbox(run: InboxRun) -> Pushed:
    """All that lies there of the study now. Raises StudyGrown where its disc was made and the rules want no second."""
    may_make_again(run.rules, run.after, run.report.inbox)
    pushed = run.place.read()
    if not pushed.instances:
        raise JobNotFound("What was sent isn't kept any more: send the study again.")
    return pushed


@step("Ask the PACS what it has of it", patient=True)
def find_sent_study(run: InboxRun, pushed: Pushed) -> FoundStudies:
    """By Study Instance UID: the PACS must list all that was sent. Where there is no PACS to ask, what was sent
    is all there is.
    """
    if run.rules.ask == "none":
        return FoundStudies((as_sent(pushed),))
    audit.queried(run.settings, ", ".join(run.report.accession_numbers), job_id=run.job.id)
    found = find_everywhere_by_uid(sources_of(run.settings), pushed.study_instance_uid)
    require_archived(pushed, found.studies)
    return found


@step("Write down what is asked")
def write_down_sent(run: InboxRun, accession_numbers: tuple[str, ...]) -> None:
    """As write_down does, before the PACS is asked: whoever prints the study at the counter meanwhile, or after this
    attempt, has its disc, and no retry makes another. What an earlier job of this study has ordered isn't ordered
    again. The study's own page is always among those: its accession number may change from one attempt to the next.
    """
    study = Selection((run.study_instance_uid,))
    book = OrderBook.of(run.settings.storage.orders_dir, pages_of(accession_numbers, study))
    earlier = {asked.job_id for asked in run.place.asked} - {run.job.id, ""}
    require_not_ordered(book.pages(), earlier)
    book.ask_also(run.job.id, retried=run.is_retry(), selection=study)


@step("Take what was sent", patient=True)
def take_sent_study(run: InboxRun, found: Found, pushed: Pushed) -> StudyRetrieved:
    """Into the job's folder; what the PACS has and nobody sent is moved from there where the inbox allows it. Raises
    NotArchived where something that was sent isn't among it.
    """
    [study] = found.studies
    before = max((asked.instances for asked in run.place.asked), default=0)
    require_sent(pushed, study, run.rules, before)
    into_job(run.job, pushed)
    run.begin_study(study)
    if run.rules.ask == "none" or not run.rules.fetch:
        retrieved = taken(run.job, study, pushed, run.count_kept)
    else:
        retrieved = _with_fetched(run, study, pushed)
    require_retrieved(pushed, [each.arrival.sop_instance_uid for each in retrieved.instances])
    return retrieved


def _with_fetched(run: InboxRun, study: Study, pushed: Pushed) -> StudyRetrieved:
    is_whole = study.expected.instances is not None and not compared(pushed, study).missing and not pushed.conflicts
    source, moves_dir = source_of(run.settings, study.origin.source), run.settings.storage.moves_of(study.origin.source)
    moving = nullcontext() if is_whole else slot(moves_dir, source.settings.max_moves)
    with moving:
        run.tell("retrieving")
        if not is_whole:
            audit.transfer_begins(run.settings, study, run.job.id)
        return collection.retrieve_study(source, run.job, study, run.count_arrival, on_kept=run.count_kept)

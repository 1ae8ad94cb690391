"""A flow run as a job: its folder, what is told of it while it runs, and the state and words it ends in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Self
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, get_run_context
from prefect.exceptions import Abort
from prefect.states import Completed, Failed

from mkiso.config.in_force import in_force
from mkiso.config.section import Carrier
from mkiso.config.settings import Settings
from mkiso.deidentify.profile import require_copies
from mkiso.errors import InvalidRequest, PatientMismatch, StorageFull
from mkiso.formats.registry import FORMATS, ISO, require_allowed
from mkiso.formats.zip_encrypted import new_password
from mkiso.media.envelopes import Envelopes, recipients_of
from mkiso.media.rendering import Renderer
from mkiso.media.viewer import bundle_viewer
from mkiso.publishers import Publisher, publisher_of
from mkiso.storage.files import hold
from mkiso.storage.handover import hand_over
from mkiso.storage.job import Job, JobKind
from mkiso.storage.progress import JobProgress, words_of_discs
from mkiso.storage.report import JobReport, failure_of, stopped
from mkiso.storage.room import is_short_of, require_room
from mkiso.storage.shelf import Manifest
from mkiso.study.accession import parse_accession_numbers
from mkiso.study.models import Arrival
from mkiso.study.priors import require_offered
from mkiso.study.question import what_is_asked
from mkiso.study.selection import EVERYTHING, Selection, parse_selection
from tasks.artifacts import Artifacts

PROGRESS_SECONDS = 1.0
ANOTHER_ONES = (
    "This machine was taken for lost, and another one has begun the job anew: that one tells how it ends, and what "
    "came of it here is left out."
)


class JobRun(JobProgress):
    """Context manager around a flow's steps: opens the job, tells of it, and turns its end into a state.

    An exception ends the `with` quietly and makes `state` a Failed one whose message is the error's words; Prefect
    would write the text of an unforeseen one into its database. What stops the process is raised again. Where another
    machine has the job by now, its process tells how the job ends, and this one raises Abort, whatever came of it here.
    """

    def __init__(
        self,
        kind: JobKind,
        accession_numbers: list[str],
        publisher: str = "",
        language: str = "",
        form: str = ISO.name,
        seal: str = "",
        inbox: str = "",
        selection: Selection = EVERYTHING,
        transfer_syntax: str = "",
        *,
        deidentified: bool = False,
    ) -> None:
        """`language`, `transfer_syntax`: of the discs, where they aren't the site's; `form`: the name of their format;
        `seal`: of who is told the password where it is an encrypted one (mkiso.storage.handover); `inbox`: where they
        were sent to.
        """
        context = get_run_context()
        assert isinstance(context, FlowRunContext) and context.flow_run is not None
        self.log = get_run_logger()
        settings = in_force().as_asked(language, transfer_syntax)
        self.job = Job(str(context.flow_run.id), kind, settings.for_inbox(inbox) if inbox else settings)
        name = publisher or (self.settings.print.publisher if kind == "print" else "")
        self._artifacts = Artifacts(self.log, "retrieval", PROGRESS_SECONDS)
        self._is_asked_for = bool(transfer_syntax)
        report = JobReport(
            self.job.id,
            kind,
            tuple(accession_numbers),
            publisher=name,
            format=form,
            language=self.settings.disc.language,
            transfer_syntax=self.settings.disc.transfer_syntax,
            selection=selection,
            inbox=inbox,
            deidentified=deidentified,
        )
        self._seal, self._password = seal, new_password()
        self.form = FORMATS[form].opened(self._password)
        super().__init__(self.settings.storage, report, self._artifacts)
        self.words = ""
        self.state: State = Failed(message=stopped(kind).words)
        self.renderer: Renderer | None = None
        self.envelopes: Envelopes | None = None
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        with self._held:
            if self.renderer:
                self.renderer.close()
            return self._end(error)

    def _end(self, error: BaseException | None) -> bool:
        if self.is_superseded:
            self.log.warning("%s", ANOTHER_ONES)
            raise Abort(ANOTHER_ONES)
        if error is None:  # first: whoever waits for the disc has it from now on
            error = self._tell_done()
        is_stopped = error is not None and not isinstance(error, Exception)
        if not is_stopped:
            self.tell_end(is_good=error is None)
        self._artifacts.close(at_once=is_stopped)
        if error is None:
            self.state = Completed(message=self.words)
            self.job.discard()
            return True
        failure = failure_of(error, self.job.kind)
        if failure is not error and not is_stopped:
            self.job.keep_fault(error)
        self.log.error("%s", failure.line)
        self.state = Failed(message=failure.line)
        # Room is made first: on a disk that is full nothing else could say how the job ended.
        if self.settings.storage.keep_failed_hours == 0 or isinstance(failure, PatientMismatch):
            self.job.discard()
        elif isinstance(failure, StorageFull):
            self.job.drop_made()
            with suppress(OSError):  # whose disk is away
                if is_short_of(self.settings.storage, 0):  # beside what it retrieved nobody else's disc could be made
                    self.job.discard()
        try:
            self.write(self.report.failed(failure))
        except OSError as full:
            self.log.error("How this job ended can't be written down: %s", full.strerror)
        return not is_stopped

    def _tell_done(self) -> OSError | None:
        """Tell that the job has ended well; why that can't be written down, if so."""
        try:
            self.write(replace(self.report, status="done", stage="done"))
        except OSError as full:
            return full
        return None

    def question(self) -> tuple[str, ...]:
        """The accession numbers, each once; none where studies are chosen by UID. Raises InvalidRequest,
        EncryptionRequired: what isn't allowed leaves nothing behind.
        """
        self._require_allowed()
        most, asked, chosen = self.settings.server.max_accessions, self.report.accession_numbers, self.selection
        selection = parse_selection(chosen.studies, chosen.series, most, priors=chosen.priors)
        if selection.priors:
            require_offered(self.settings.priors)
        accession_numbers = () if selection.studies and not asked else parse_accession_numbers(list(asked), most)
        self.report = replace(self.report, accession_numbers=accession_numbers, selection=selection)
        return accession_numbers

    @property
    def selection(self) -> Selection:
        """What is chosen of the studies."""
        return self.report.selection

    def is_answered_by(self, disc: Manifest) -> bool:
        """Whether a disc was made for what this run asks."""
        return what_is_asked(disc) == what_is_asked(self.report)

    def keep_question_of(self, disc: Manifest) -> None:
        """Tell of the question that this disc of the job answers, whatever its run asks by now."""
        self.report = replace(
            self.report,
            accession_numbers=disc.accession_numbers,
            selection=disc.selection,
            format=disc.format,
            transfer_syntax=disc.transfer_syntax,
            deidentified=disc.deidentified,
        )

    def is_retry(self) -> bool:
        """Whether this run has begun or ended before, by all of its states that Prefect has."""
        with get_client(sync_client=True) as client:
            states = client.read_flow_run_states(UUID(self.job.id))
        return any(state.is_final() for state in states) or sum(state.is_running() for state in states) > 1

    def start(self) -> tuple[str, ...]:
        """Check the question and the room on the disk, and open the job's folder; the accession numbers, each once.

        Raises InvalidRequest, EncryptionRequired, StorageFull.
        """
        accession_numbers = self.question()
        self.open()
        return accession_numbers

    def open(self) -> None:
        """Check the format, the viewer and the room on the disk, and open the job's folder. Raises InvalidRequest,
        EncryptionRequired, StorageFull, and ConfigurationError for recipients who can't be encrypted for, an unknown
        publisher, or a viewer that can't be put on the disc.
        """
        self._require_allowed()
        if self.form.is_encrypted and not self._seal:
            raise InvalidRequest(
                "Nobody would learn the password of this disc: ask for it on the counter page, over HTTP or by mkiso "
                "burn."
            )
        if self.form.has_envelopes:
            self.envelopes = Envelopes(self._password, recipients_of(self.settings.disc.recipients))
        elif not self.report.disc_ids and (not self.report.publisher or self.publisher.needs_image):
            bundle_viewer(self.settings.viewer, self.settings.storage.viewer_hashes)
        require_room(self.settings.storage)
        self._held.callback(os.close, hold(self.job.folder))
        self.job.open()
        numbers, chosen = self.report.accession_numbers, self.selection.written
        self.job.note(kind=self.job.kind, accession_numbers=numbers, selection=chosen)
        self.tell("starting")

    def _require_allowed(self) -> None:
        if self.report.deidentified:
            require_copies(self.settings.deidentified, self.selection)
        require_allowed(self.form, self.settings.disc.encryption, is_printed=self.job.kind == "print")
        if self._is_asked_for and self.job.kind == "print" and not self.publisher.needs_image:
            raise InvalidRequest(
                f"{self.report.publisher} makes its discs itself, of the images as they are archived: ask it without "
                "transfer_syntax, or ask for a file."
            )

    @property
    def settings(self) -> Settings:
        return self.job.settings

    @property
    def carrier(self) -> Carrier:
        """What the disc is for: the format's, the publisher's medium, else the configured one."""
        return self.form.carrier or (
            self.settings.publishers[self.report.publisher].medium
            if self.report.publisher
            else self.settings.disc.medium
        )

    @property
    def publisher(self) -> Publisher:
        """The publisher of a print. Raises ConfigurationError where there is none of this name."""
        return publisher_of(self.report.publisher, self.settings)

    def begin_pictures(self) -> None:
        """From now on what arrives is turned into pictures beside everything else, where a disc is to show all."""
        if self.settings.disc.pictures != "none" and not self.form.has_envelopes:
            forks = self.settings.storage.pictures_socket
            self.renderer = Renderer(self.job.pictures_dir, self.report.expected, fork_server=forks)

    def count_kept(self, arrival: Arrival) -> None:
        super().count_kept(arrival)
        if self.renderer and self.settings.disc.pictures == "all":
            self.renderer.begin(arrival)

    def hand_over_password(self) -> None:
        """Leave the password of encrypted discs for who asked, sealed; where a later attempt has begun, the job's discs
        are that one's.
        """
        if self.form.is_encrypted and not self.is_superseded:
            hand_over(self.settings.storage, self.job.id, self._seal, self._password)

    def finish(self, discs: Sequence[Manifest]) -> None:
        """The job's discs are on the shelf; nothing is left to do."""
        self.words = words_of_discs(discs, self.job.id)
        self.tell_discs(discs, self.settings.server)

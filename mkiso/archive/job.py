"""A run of the archive: what it owes, holds and has made."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date, datetime
from logging import Logger, LoggerAdapter
from zoneinfo import ZoneInfo

from mkiso.archive.days import owe, owe_earlier, searched
from mkiso.archive.ledger import Ledger, note_owed_from
from mkiso.archive.night_outcome import Outcome
from mkiso.archive.nights import Night, NightRange
from mkiso.archive.owed import Owed
from mkiso.archive.planning import is_hopeless, says_something_of_the_study
from mkiso.archive.pool import Pool, Volumes
from mkiso.archive.schedule import begins_earlier, by_hand, due
from mkiso.archive.store import Store
from mkiso.archive.volumes import ArchiveVolume
from mkiso.errors import ClaimLost, InvalidRequest, MkisoError, PatientMismatch, StorageFull
from mkiso.media.capacity import SECTOR_BYTES
from mkiso.media.filling import volume_room
from mkiso.media.viewer import bundle_viewer
from mkiso.storage.files import hold
from mkiso.storage.job import Job
from mkiso.storage.progress import Listener
from mkiso.storage.room import is_short_of, require_room
from mkiso.study.models import Study, count_words, studies_words


class ArchiveJob:
    """`room` is what studies may take of a volume, in sectors; what is in `opened` is held until the run ends."""

    def __init__(
        self,
        job: Job,
        asked: tuple[date | None, date | None],
        began: datetime,
        log: Logger | LoggerAdapter[Logger],
        listener: Listener,
        *,
        dry_run: bool,
    ) -> None:
        self.job = job
        self.log = log
        self.dry_run = dry_run
        self.scheduled = asked == (None, None)
        self.outcome = Outcome(by_hand=not self.scheduled)
        self.words = ""
        self.copies: dict[str, list[Study]] = {}
        """What was found, by Study Instance UID: a study of each source that has it."""
        self.not_asked: set[str] = set()
        self.waiting: deque[Study] = deque()
        self.ordered: list[ArchiveVolume] = []
        self.without_patient_api = False
        self.not_done: set[date] = set()
        self.began_on = self.today
        self.opened = ExitStack()
        self._asked = asked
        self._began = began
        self._listener = listener
        self._failed_in_a_row: dict[str, list[MkisoError]] = {}
        """By source."""
        self._failures: list[dict[str, str]] = []
        self._volumes: list[dict[str, object]] = []
        self._studies = 0

    def start(self) -> None:
        """Open the ledger and begin the night: first of all, so that its days are owed whatever else is wrong.

        Raises InvalidRequest, StorageFull, ConfigurationError, ArchiveUnusable.
        """
        settings, archive = self.job.settings, self.job.settings.archive
        date_from, date_to = self._asked
        if self.scheduled:
            regular = due(archive.schedule, archive.timezone, archive.days_back, 0, {}, self._began, self.began_on)
            if not self.dry_run:
                note_owed_from(settings.storage, regular.date_from)
        elif date_from is None or (date_to or date_from) < date_from:
            raise InvalidRequest(
                "Name the first date, and a last one that isn't before it; without dates the archive does what it owes."
            )
        self.ledger = self.opened.enter_context(Ledger.open(settings))
        if date_from is not None:
            self.dates = by_hand(date_from, date_to or date_from)
        else:
            ahead = None if self.dry_run else owe(self.ledger, regular.date_from, self.began_on)
            self.outcome = replace(self.outcome, searched_ahead=ahead)
            if not self.dry_run and begins_earlier(regular, searched(self.ledger)):
                owe_earlier(self.ledger, regular.date_from)
            schedule, days, recheck = (archive.schedule, archive.timezone), archive.days_back, archive.recheck_days
            self.dates = due(*schedule, days, recheck, searched(self.ledger), self._began, self.began_on)
        if not self.dry_run:
            self.opened.callback(os.close, hold(self.job.folder))
            covers = NightRange(self.dates.date_from, self.dates.date_to, self.scheduled)
            self.night = self.opened.enter_context(Night.begin(self.ledger, self.job.id, covers))
        caught_up = f", {self.dates.caught_up} of these days because nights were missed" if self.dates.caught_up else ""
        self.log.info("Archiving %s to %s%s.", self.dates.date_from, self.dates.date_to, caught_up)
        require_room(settings.storage)
        self.room = volume_room(
            archive.medium, archive.volume_mib, bundle_viewer(settings.viewer, settings.storage.viewer_hashes).files
        )
        self.pool = Pool(self.room, archive.medium)
        self.store = (
            Store.open(self.ledger) if archive.output == "store" and not self.dry_run else Store.visible(self.ledger)
        )

    def begin_to_ask(self) -> None:
        """Forget what an attempt before has found."""
        self.copies.clear()
        self.not_asked.clear()
        self.outcome = replace(self.outcome, not_asked=())

    def add_found(self, studies: Iterable[Study]) -> None:
        """Studies that a source told of, each once."""
        for study in studies:
            self.copies.setdefault(study.study_instance_uid, []).append(study)

    def goes_on_without(self, source: str, error: MkisoError) -> None:
        """A source can't be asked: what it may have is left to the next nights."""
        self.log.error("The night goes on without the source %s: %s", source, error.words)
        self.not_asked.add(source)
        self.outcome = replace(
            self.outcome, not_asked=(*self.outcome.not_asked, f"{source} ({error.words.rstrip('.')})")
        )

    @property
    def today(self) -> date:
        """By the archive's own clock; volume labels name it."""
        return datetime.now(ZoneInfo(self.job.settings.archive.timezone)).date()

    @property
    def is_short_of_room(self) -> bool:
        """Whether the disk has no room for another volume beside what must stay free."""
        return is_short_of(self.job.settings.storage, self.room * SECTOR_BYTES)

    def studies(self) -> Iterator[Study]:
        """The studies to archive, one after another; none of a source that was left."""
        self._studies = len(self.waiting)
        while self.waiting:
            self.show_progress()
            yield self.waiting.popleft()

    @contextmanager
    def attempt(self, study: Study) -> Iterator[None]:
        """What goes wrong with a study is written down, and the night goes on; but not without a PACS or a place to
        write.
        """
        try:
            yield
        except (ClaimLost, StorageFull):
            raise
        except MkisoError as error:
            self.fail(study, error)
            in_a_row = self._failed_in_a_row.setdefault(study.origin.source, [])
            in_a_row.append(error)
            if is_hopeless(in_a_row):
                self._leave(study.origin.source, error)
        else:
            self._failed_in_a_row.pop(study.origin.source, None)

    def full_volumes(self) -> Volumes:
        """The volumes to make now."""
        return self.pool.full_volumes(pressed=self.is_short_of_room)

    def last_volumes(self) -> Volumes:
        """The same, when no study is to come any more."""
        return self.pool.last_volumes()

    def made(self, volume: ArchiveVolume) -> None:
        """A volume is written down in the ledger."""
        self.outcome = replace(
            self.outcome, images=self.outcome.images + volume.instances, volumes=(*self.outcome.volumes, volume.label)
        )
        part = f"{volume.number} of {volume.total}" if volume.total > 1 else ""
        self._volumes.append(
            {"volume": volume.label, "part": part, "images": volume.instances, "MB": round(volume.size / 1e6, 1)}
        )
        self.show_progress()

    def undelivered(self, volume: ArchiveVolume, error: MkisoError) -> None:
        """A volume is whole, and neither stored nor made; the next night takes it up."""
        self.log.error("%s: %s: %s", volume.label, error.code, error.words)
        self.outcome = replace(
            self.outcome, undelivered=(*self.outcome.undelivered, f"{volume.label} IS NOT DELIVERED: {error.words}")
        )

    def owes(self, owed: Owed) -> None:
        """A volume isn't where it should be, and no run can mend that: a person has to say."""
        self.log.error("%s", owed)
        self.outcome = replace(self.outcome, owed=(*self.outcome.owed, str(owed)))

    def show_progress(self) -> None:
        """How far the night is, a few times a minute at most."""
        if self._listener.is_progress_due:
            self._move_bar()

    def _move_bar(self) -> None:
        done, made, failed = self._studies - len(self.waiting), len(self.outcome.volumes), len(self.outcome.failed)
        words = [f"{done} of {studies_words(self._studies)} retrieved"]
        words += [f"{count_words(made, 'volume')} made"] * bool(made)
        words += [f"{studies_words(failed)} failed"] * bool(failed)
        self._listener.progress(done, self._studies, ", ".join(words))

    def fail(self, study: Study, error: MkisoError) -> None:
        """Write down why a study isn't archived tonight."""
        self.night.failed(study, error, counted=says_something_of_the_study(error))
        name = study.label
        self.log.error("%s isn't archived: %s: %s", name, error.code, error.words)
        self.outcome = replace(self.outcome, failed=(*self.outcome.failed, name))
        self._failures.append(
            {"accession number": name, "study date": study.study_date, "reason": error.words, "code": error.code}
        )
        if isinstance(error, PatientMismatch) or self.job.settings.storage.keep_failed_hours == 0:
            shutil.rmtree(self.job.folder / study.study_instance_uid, ignore_errors=True)

    def _leave(self, source: str, error: MkisoError) -> None:
        """Nothing more is retrieved from a source tonight; what waits of others goes on."""
        others = [study for study in self.waiting if study.origin.source != source]
        left = len(self.waiting) - len(others)
        self.waiting = deque(others)
        self._studies -= left
        way = f"went on without {source}, with" if source else "ended with"
        stopped = f"{self.outcome.stopped} The night {way} {studies_words(left)} to go: {error.words}".strip()
        self.outcome = replace(self.outcome, stopped=stopped)

    def show_end(self) -> None:
        """What was made and what wasn't, as tables."""
        self._move_bar()
        if self._volumes:
            self._listener.table("volumes", self._volumes, "The volumes of this night.")
        if self._failures:
            self._listener.table("not-archived", self._failures, "Studies that are not archived, and why.")

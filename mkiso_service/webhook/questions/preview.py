"""Whose disc it would be: what the PACS has under some accession numbers, by the rules of a job, before it begins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from mkiso import patient_api
from mkiso.audit import messages as audit
from mkiso.config.access import SHARED_USER
from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso.errors import MkisoError, PatientApiUnavailable, PrintUncertain, WrongBirthDate
from mkiso.publishers import publisher_of
from mkiso.publishers.hotfolder import FolderPublisher
from mkiso.publishers.orderbook import Entry, OrderBook, jobs_of, ordered_before, unclear_before
from mkiso.publishers.protocol import pages_of
from mkiso.sources.choosing import FoundStudies, found_together, studies_of
from mkiso.sources.priors import find_priors
from mkiso.sources.protocol import Source
from mkiso.sources.query import find_series
from mkiso.sources.several import find_beside, find_everywhere, find_everywhere_by_uid
from mkiso.storage.askings import Asking, askings_of
from mkiso.study.identity import born_on, one_line
from mkiso.study.models import Patient, Series, Study
from mkiso.study.question import Question
from mkiso.study.selection import MAX_SERIES, numbers_of
from mkiso.study.text import readable_name
from mkiso.study.values import Found
from mkiso_service.api import Ordered, Preview, ShownPatient, ShownSeries, ShownStudy
from mkiso_service.counting import minutes_since
from mkiso_service.webhook.access.callers import request_id_of
from mkiso_service.webhook.answers.json_answers import Json
from mkiso_service.webhook.audit import Trail
from mkiso_service.webhook.questions.query import Query, asked_birth_date, preview_of
from mkiso_service.webhook.questions.turns import LIMIT_SECONDS, Turns

_TOLD = TypeAdapter(Preview)
log = logging.getLogger("mkiso.webhook.preview")


class Previews:
    """Looks before anything is made. Nobody needs a worker or Prefect for that."""

    def __init__(self, settings: Settings, trail: Trail) -> None:
        self._settings = settings
        self._trail = trail
        self._turns = Turns(settings, "preview")

    async def show(self, request: Request) -> Response:
        """GET /api/iso/preview"""
        query = Query(request.scope["query_string"])
        numbers, selection = preview_of(query, self._settings)
        asked = Question("download", numbers, selection=selection)
        told = await self.told(request, asked, asked_birth_date(query, self._settings.identity))
        return Json(_TOLD.dump_json(told), headers={"cache-control": "no-store"})

    async def told(self, request: Request, question: Question, birth_date: str) -> Preview:
        """Who is shown to a person, which the audit says too. Raises what `look` raises."""
        numbers, selection = question.accession_numbers, question.selection
        await self._trail.asked(request, numbers, selection)
        found = await self.look(request, question, birth_date)
        series = await self._series(found)
        await self._trail.shown(request, (*found.named, *found.priors))
        ordered, unclear = await asyncio.to_thread(_ordered, self._settings.storage, found)
        return preview(found, series, ordered, unclear, _labels(self._settings, found))

    async def confirmed(self, request: Request, question: Question, query: Query) -> tuple[Question, Found | None]:
        """The question with who its patient is, where it gives the birth date (which a site may ask for), and what was
        found then. Raises what `look` raises.
        """
        born = asked_birth_date(query, self._settings.identity)
        if not born:
            return question, None
        found = await self.look(request, question, born)
        return replace(question, shown=question.shown or found.shown), found

    async def look(
        self, request: Request, question: Question, birth_date: str, seconds: float = LIMIT_SECONDS
    ) -> Found:
        """What a job of this question would find. Raises what finding raises, PatientMismatch, SelectionNotFound,
        NoDicomData, CountsUnknown, and WrongBirthDate; PacsSilent where it takes longer than anybody waits.
        """
        request_id = request_id_of(request.scope)
        found = await self._turns.take(partial(_found, self._settings, question, request_id), seconds)
        if birth_date:
            try:
                born_on(found.named, birth_date)
            except WrongBirthDate:
                await self._trail.refused(request, "The birth date isn't the patient's")
                raise
        return found

    async def _series(self, found: Found) -> Mapping[str, Sequence[Series]]:
        """The series of each study, to choose from; where the PACS doesn't tell them, nobody can choose."""
        try:
            return await self._turns.take(lambda sources, _: _series_of(sources, found))
        except MkisoError as error:
            log.info("The series can't be told: %s", error.words)
            return {}


def _series_of(sources: Sequence[Source], found: Found) -> dict[str, Sequence[Series]]:
    """Of each study, as the source that it is taken from tells them."""
    by_name = {source.settings.name: source for source in sources}
    return {
        study.study_instance_uid: find_series(by_name.get(study.origin.source, sources[0]), study)
        for study in found.asked
    }


def _found(
    settings: Settings, question: Question, request_id: str, sources: Sequence[Source], others_until: float
) -> Found:
    """As flows.collect.find has it; the patient API is asked until then (of the monotonic clock)."""
    answers: list[FoundStudies] = []
    known: list[Patient | PatientApiUnavailable | None] = []
    accession_numbers, selection = question.accession_numbers, question.selection
    for number in accession_numbers:
        audit.queried(settings, number, request_id=request_id)
        answers.append(find_everywhere(sources, number, selection))
    for uid in () if accession_numbers else selection.studies:
        audit.queried_by_uid(settings, uid, request_id=request_id)
        answers.append(find_everywhere_by_uid(sources, uid, selection))
    numbers = accession_numbers or numbers_of(studies_of(answers))
    if not accession_numbers:
        answers.append(find_beside(sources, answers, lambda one: audit.queried(settings, one, request_id=request_id)))
    for number in numbers:
        try:
            known.append(patient_api.look_up(settings.patient_api, number, others_until))
        except PatientApiUnavailable as error:
            known.append(error)
            break
    found = found_together(accession_numbers, answers, known, settings.identity, selection)
    if not selection.priors:
        return found
    asks = partial(audit.queried_by_patient, settings, request_id=request_id)
    return find_priors(sources, found, settings.priors, settings.identity, asks).found


def _ordered(storage: Storage, found: Found) -> tuple[Ordered | None, Ordered | None]:
    """What of it was ordered before, and what of that ended unclear."""
    of_question = pages_of(found.accession_numbers, found.selection, found.asked)
    try:
        pages = OrderBook.of(storage.orders_dir, of_question).pages()
    except PrintUncertain:  # a damaged page: a print says so itself
        return None, None
    mine = Entry("", "asked", 0, selection=found.selection)
    return _orders(storage, ordered_before(pages, mine)), _orders(storage, unclear_before(pages, mine))


def _orders(storage: Storage, before: Sequence[Entry]) -> Ordered | None:
    if not before:
        return None
    asked = askings_of(storage, before[-1].job_id)
    return {
        "publisher": before[-1].publisher,
        "minutes": minutes_since(before[-1].time),
        "who": tuple(dict.fromkeys(map(_named, asked))),
        "orders": jobs_of(before),
    }


def _named(asked: Asking) -> str:
    """The shared key is nobody: its workstation says more to a clerk."""
    return asked.name or (asked.user if asked.user != SHARED_USER else "") or asked.who


def _labels(settings: Settings, found: Found) -> dict[str, str]:
    name = (found.patient and found.patient.name) or found.studies[0].patient_name
    publishers = (publisher_of(each, settings) for each in settings.publishers)
    robots = [robot for robot in publishers if isinstance(robot, FolderPublisher)]
    return {robot.name: shown for robot in robots if (shown := robot.other_name(name)) is not None}


def preview(
    found: Found,
    series: Mapping[str, Sequence[Series]],
    ordered: Ordered | None,
    unclear: Ordered | None,
    labels: Mapping[str, str],
) -> Preview:
    """What a person is shown of it."""
    return {
        "accession_numbers": found.accession_numbers,
        "patient": _patient(found.asked, found.patient),
        "studies": [_study(study, series.get(study.study_instance_uid, ())) for study in found.asked],
        "priors": [_study(study, ()) for study in found.priors],
        "selection": found.selection,
        "is_part": found.is_part,
        "degraded": found.degraded,
        "shown": found.shown,
        "ordered": ordered,
        "unclear": unclear,
        "labels": dict(labels),
    }


def _patient(studies: tuple[Study, ...], known: Patient | None) -> ShownPatient:
    """As the PACS has them, and every writing where its studies differ; `name_on_disc` is the patient API's."""
    name = _each(readable_name(one_line(study.patient_name)) for study in studies)
    return {
        "patient_id": _each(study.patient_id for study in studies),
        "name": name,
        "name_on_disc": readable_name(one_line(known.name)) if known and known.name else name,
        "birth_date": _each(study.patient_birth_date for study in studies),
        "sex": _each(study.patient_sex for study in studies),
    }


def _each(values: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(text for value in values if (text := one_line(value))))


def _study(study: Study, series: Sequence[Series]) -> ShownStudy:
    return {
        "study_instance_uid": study.study_instance_uid,
        "accession_number": study.accession_number,
        "study_date": study.study_date,
        "modalities": study.modalities_in_study,
        "study_description": one_line(study.study_description),
        "images": study.expected.count,
        "source": study.origin.source,
        "series": [_one_series(each, study) for each in series[:MAX_SERIES]],
        "more_series": len(series) > MAX_SERIES,
    }


def _one_series(series: Series, study: Study) -> ShownSeries:
    return {
        "series_instance_uid": series.series_instance_uid,
        "number": one_line(series.number),
        "modality": one_line(series.modality),
        "description": one_line(series.description),
        "images": series.images,
        "chosen": not study.chosen or series.series_instance_uid in study.chosen,
    }

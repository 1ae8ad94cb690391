"""Whose disc it would be: what the PACS has under some accession numbers, by the rules of a job, before it begins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mkiso import patient_api
from mkiso.audit import messages as audit
from mkiso.config.settings import Settings, Storage
from mkiso.errors import PatientApiUnavailable, PrintUncertain, WrongBirthDate
from mkiso.publishers import publisher_of
from mkiso.publishers.hotfolder import FolderPublisher
from mkiso.publishers.orderbook import OrderBook, made_before
from mkiso.sources.protocol import Source
from mkiso.sources.several import find_everywhere
from mkiso.storage.askings import askings_of
from mkiso.study import gate
from mkiso.study.identity import born_on, one_line, shown_digest
from mkiso.study.models import Patient, Study
from mkiso.study.text import readable_name
from mkiso.study.values import Found
from mkiso_service.api import Ordered, Preview, ShownPatient, ShownStudy
from mkiso_service.webhook.access import request_id_of
from mkiso_service.webhook.audit import Trail
from mkiso_service.webhook.question import Query, Question, asked_birth_date, preview_of
from mkiso_service.webhook.turns import LIMIT_SECONDS, Turns


class Previews:
    """Looks before anything is made. Nobody needs a worker or Prefect for that."""

    def __init__(self, settings: Settings, trail: Trail) -> None:
        self._settings = settings
        self._trail = trail
        self._turns = Turns(settings, "preview")

    async def show(self, request: Request) -> Response:
        """GET /api/iso/preview"""
        query = Query(request.scope["query_string"])
        numbers = preview_of(query, self._settings.server)
        told = await self.told(request, numbers, asked_birth_date(query, self._settings.identity))
        return JSONResponse(told, headers={"cache-control": "no-store"})

    async def told(self, request: Request, numbers: tuple[str, ...], birth_date: str) -> Preview:
        """Who is shown to a person, which the audit says too. Raises what `look` raises."""
        await self._trail.asked(request, numbers)
        found = await self.look(request, numbers, birth_date)
        await self._trail.shown(request, found.studies)
        ordered = await asyncio.to_thread(_ordered, self._settings.storage, numbers)
        return preview(found, ordered, _labels(self._settings, found))

    async def confirmed(self, request: Request, question: Question, query: Query) -> tuple[Question, Found | None]:
        """The question with who its patient is, where it gives the birth date (which a site may ask for), and what was
        found then. Raises what `look` raises.
        """
        born = asked_birth_date(query, self._settings.identity)
        if not born:
            return question, None
        found = await self.look(request, question.accession_numbers, born)
        return replace(question, shown=question.shown or shown_digest(found.studies)), found

    async def look(
        self, request: Request, accession_numbers: tuple[str, ...], birth_date: str, seconds: float = LIMIT_SECONDS
    ) -> Found:
        """What a job would find. Raises what finding raises, PatientMismatch, NoDicomData, CountsUnknown, and
        WrongBirthDate; PacsSilent where it takes longer than anybody waits.
        """
        request_id = request_id_of(request.scope)
        found = await self._turns.take(
            lambda sources: _found(sources, self._settings, accession_numbers, request_id), seconds
        )
        if birth_date:
            try:
                born_on(found.studies, birth_date)
            except WrongBirthDate:
                await self._trail.refused(request, "The birth date isn't the patient's")
                raise
        return found


def _found(sources: Sequence[Source], settings: Settings, accession_numbers: tuple[str, ...], request_id: str) -> Found:
    """As flows.collect.find has it."""
    answers, known = [], []
    for number in accession_numbers:
        audit.queried(settings, number, request_id=request_id)
        answers.append(find_everywhere(sources, number))
    without = False
    for number in accession_numbers:
        try:
            known.append(patient_api.look_up(settings.patient_api, number))
        except PatientApiUnavailable:
            without = True
            break
    studies = [study for answer in answers for study in answer.studies]
    told = [lack for answer in answers for lack in answer.degraded]
    return gate.found(accession_numbers, studies, known, settings.identity, degraded=without, without=told)


def _ordered(storage: Storage, accession_numbers: tuple[str, ...]) -> Ordered | None:
    try:
        pages = OrderBook.of(storage.orders_dir, accession_numbers).pages()
    except PrintUncertain:  # a damaged page: a print says so itself
        return None
    before = made_before(pages, "")
    if before is None:
        return None
    asked = askings_of(storage, before.job_id)
    return {
        "publisher": before.publisher,
        "minutes": max(0, int((time.time() - before.time) // 60)),
        "who": tuple(dict.fromkeys(each.name or each.user or each.who for each in asked)),
        "orders": len({entry.job_id for page in pages for entry in page if entry.state in ("given", "done")}),
    }


def _labels(settings: Settings, found: Found) -> dict[str, str]:
    name = (found.patient and found.patient.name) or found.studies[0].patient_name
    publishers = (publisher_of(each, settings) for each in settings.publishers)
    robots = [robot for robot in publishers if isinstance(robot, FolderPublisher)]
    return {robot.name: shown for robot in robots if (shown := robot.other_name(name)) is not None}


def preview(found: Found, ordered: Ordered | None, labels: Mapping[str, str]) -> Preview:
    """What a person is shown of it."""
    return {
        "accession_numbers": found.accession_numbers,
        "patient": _patient(found.studies, found.patient),
        "studies": [_study(study) for study in found.studies],
        "degraded": found.degraded,
        "shown": shown_digest(found.studies),
        "ordered": ordered,
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


def _study(study: Study) -> ShownStudy:
    return {
        "accession_number": study.accession_number,
        "study_date": study.study_date,
        "modalities": study.modalities_in_study,
        "study_description": one_line(study.study_description),
        "images": study.expected.count,
        "source": study.origin.source,
    }

"""Studies by what a person knows of the patient: for those who may, and everybody's question stands in the audit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mkiso.config.settings import Settings
from mkiso.errors import MkisoError, SearchClosed, WrongBirthDate
from mkiso.sources.search import Criteria, Hits
from mkiso.sources.several import search_everywhere
from mkiso.study.identity import born_on, one_line
from mkiso.study.models import Study
from mkiso.study.text import readable_name
from mkiso_service.api import FoundStudies, NotAsked, SearchedStudy
from mkiso_service.webhook.answers.json_answers import Json
from mkiso_service.webhook.audit import Trail
from mkiso_service.webhook.questions.query import Query, asked_birth_date
from mkiso_service.webhook.questions.turns import Turns

_DAY = re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.ASCII)


class Searches:
    """Finds nothing for anybody where no key is needed: whoever reached the webhook could leaf through the PACS."""

    def __init__(self, settings: Settings, trail: Trail) -> None:
        self._settings = settings
        self._trail = trail
        self._turns = Turns(settings, "search")

    async def show(self, request: Request) -> Response:
        """GET /api/studies"""
        if self._settings.is_open:
            raise SearchClosed("A search needs a key, and this service has none: set auth.enabled and a key.")
        query = Query(request.scope["query_string"])
        born = asked_birth_date(query, self._settings.identity)
        criteria = criteria_of(query, born)
        await self._trail.searched(request, criteria.keys)
        hits, down = await self._turns.take(lambda sources, _: search_everywhere(sources, criteria))
        told = found_studies(hits, born if self._settings.identity.confirm_birth_date else "", down)
        return Json(told, headers={"cache-control": "no-store"})


def criteria_of(query: Query, birth_date: str) -> Criteria:
    """What is asked. Raises InvalidRequest."""
    given: dict[str, Any] = {each.name: query.one(each.name) or "" for each in fields(Criteria)}
    days = _DAY.sub(r"\1\2\3", given["study_date"]).replace("/", "-")
    return Criteria(**{**given, "birth_date": birth_date, "study_date": days})


def found_studies(hits: Hits, birth_date: str, down: Mapping[str, MkisoError]) -> FoundStudies:
    """What a person is shown of them; with `birth_date` those alone whose patient certainly has it. `down`: the sources
    that couldn't be asked.
    """
    studies = [study for study in hits.studies if not birth_date or _born_on(study, birth_date)]
    not_asked: list[NotAsked] = [{"source": name, "code": why.code, "error": why.words} for name, why in down.items()]
    return {"studies": [_searched(hits.source, study) for study in studies], "more": hits.cut, "not_asked": not_asked}


def _born_on(study: Study, birth_date: str) -> bool:
    try:
        born_on([study], birth_date)
    except WrongBirthDate:
        return False
    return True


def _searched(source: str, study: Study) -> SearchedStudy:
    return {
        "source": study.origin.source or source,
        "study_instance_uid": study.study_instance_uid,
        "patient_id": one_line(study.patient_id),
        "patient_name": readable_name(one_line(study.patient_name)),
        "birth_date": one_line(study.patient_birth_date),
        "sex": one_line(study.patient_sex),
        "accession_number": one_line(study.accession_number),
        "study_date": one_line(study.study_date),
        "modalities": study.modalities_in_study,
        "study_description": one_line(study.study_description),
        "images": study.expected.count,
    }

"""One C-FIND after another over one association (PS3.4 C.4.1, C.6.2)."""

from __future__ import annotations

import time

from pydicom import Dataset
from pydicom.uid import UID

from mkiso.config.sources import Pacs
from mkiso.errors import PacsSilent
from mkiso.network import dimse
from mkiso.sources.answers import CANCELLED, Answers
from mkiso.sources.pacs import MAX_TIMEOUTS, PacsAssociation
from mkiso.sources.protocol import Query

STUDY_ROOT_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")  # PS3.4 C.6.2.3
MAX_ANSWERS = 500_000  # to one question; a month of a large hospital has 60,000 studies, a long study 20,000 images
MAX_ANSWER_BYTES = 256 * 1024 * 1024  # of them together


def identifier(query: Query) -> Dataset:
    """The question as a C-FIND identifier."""
    dataset = Dataset()
    dataset.QueryRetrieveLevel = query.level
    for keyword, value in query.keys.items():
        setattr(dataset, keyword, value)
    return dataset


def find(association: PacsAssociation, pacs: Pacs, query: Query, most: int | None = None, /) -> Answers:
    """Ask one question. Raises ConnectionLost, PacsRefused where a response is to another request, PacsSilent where
    the answer takes too long.

    More answers than we take, or than `most`, end the association.
    """
    association.request({dimse.COMMAND_FIELD: dimse.C_FIND_RQ, dimse.PRIORITY: 0}, STUDY_ROOT_FIND, identifier(query))
    limit, seconds = pacs.find_limit, pacs.response_timeout_seconds * MAX_TIMEOUTS
    responses: list[dimse.Response] = []
    size, deadline = 0, time.monotonic() + seconds
    while True:
        response = association.must_receive()
        if not response.is_pending:
            return Answers(responses, response.status, limit)
        responses.append(response)
        size += len(response.identifier)
        if len(responses) >= (most or MAX_ANSWERS) or size > MAX_ANSWER_BYTES:
            association.abort()
            return Answers(responses, CANCELLED, limit, endless=True)
        if time.monotonic() > deadline:
            raise PacsSilent(
                f"{association.peer} hasn't ended its answer to one question within {seconds:g} s. "
                "Look at the PACS's log."
            )

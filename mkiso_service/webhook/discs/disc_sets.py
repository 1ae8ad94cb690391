"""Which disc of a set is meant, and that it is of the same set as those that the asker has.

A set is never answered with its first disc alone: half a study that nobody notices is the worst of outcomes. Nor are
discs of two sets ever given to somebody who may take them for one: a study that grew in between has images on neither.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import Response

from mkiso.errors import JobNotFound, MkisoError, OtherSet, SeveralDiscs
from mkiso.formats.reuse import ToldSet
from mkiso.storage.shelf import Manifest
from mkiso_service.api import SetEntry, SetPart
from mkiso_service.webhook.answers.errors import answer_mkiso_error, disc_address, job_address
from mkiso_service.webhook.answers.pages import choice_page
from mkiso_service.webhook.discs.disc_bytes import is_rest

ANEW = "Their discs can't be combined: ask without 'part', and take every disc of one set."


def chosen(discs: Sequence[Manifest], part: int | None, job_id: str) -> Manifest:
    """The disc of a job that is meant: the only one, or the one whose number is `part`.

    Raises SeveralDiscs, JobNotFound.
    """
    if not discs:
        raise JobNotFound("This job made no disc image; a print leaves none here.")
    if part is None:
        if len(discs) > 1:
            words = f"What was asked for fills {len(discs)} discs: take every one, at its address in 'parts'."
            raise SeveralDiscs(words, **set_entry(discs, job_id))
        return discs[0]
    for disc in discs:
        if disc.number == part:
            return disc
    raise JobNotFound(f"There is no disc {part} in this set; it has {len(discs)}.", total=len(discs))


def led_to(discs: Sequence[Manifest], part: int, known: Collection[str]) -> Manifest:
    """The disc that a question with `part` and without `set` leads to; `discs` are its newest answer.

    `known` are the sets that jobs had told of for this question when it came. Where there is another one, nobody can
    say of which the asker has discs; and who asks for a later disc of a set that wasn't there before has the first of
    another one. Raises OtherSet, JobNotFound.
    """
    newest = discs[0].set_id
    if set(known) - {newest}:
        raise OtherSet(f"This question was answered with different sets of discs. {ANEW}")
    if part > 1 and newest not in known:
        raise OtherSet(f"This set was made just now: a disc that you have already is of another one. {ANEW}")
    return chosen(discs, part, discs[0].job_id)


def refuse_rest(headers: Mapping[str, str], disc: Manifest) -> None:
    """Raises OtherSet where a question asks for the rest of a disc without saying of which: it may be of another."""
    if is_rest(headers, disc.size):
        raise OtherSet(
            "The rest of a download is asked for at the disc's own address, or with If-Range: its beginning may be of "
            "another disc. Download it from the beginning."
        )


def of_named_set(shelf: Sequence[ToldSet], named: str, part: int | None) -> ToldSet:
    """The set of this id; `shelf` are the sets of the question that can be had, the newest first.

    With `part` it has to be the newest, so that nobody goes on with an old set unawares. Raises OtherSet.
    """
    for told in shelf:
        if told[0][0].set_id == named:
            if part is not None and told is not shelf[0]:
                raise OtherSet(f"There is a newer set than the one that you have discs of. {ANEW}")
            return told
    raise OtherSet(f"The set that you have discs of isn't kept any more; another one would be given now. {ANEW}")


def set_entry(discs: Sequence[Manifest], job_id: str) -> SetEntry:
    """A set as it is told of in JSON; `job_id` is a job that serves it."""
    parts: list[SetPart] = [
        {"part": disc.number, "size": disc.size, "sha256": disc.sha256, "href": disc_address(job_id, disc.number)}
        for disc in discs
    ]
    return {
        "set": discs[0].set_id,
        "accession_numbers": list(discs[0].accession_numbers),
        "created": discs[0].created,
        "job_id": job_id,
        "job": job_address(job_id),
        "total": len(discs),
        "parts": parts,
    }


async def answer_several(request: Request, error: Exception) -> Response:
    """409 with the list: for a browser a page of links, in JSON for everybody else.

    The links keep the address that the browser came by, and so the key that nginx adds there. Not 300 (RFC 9110
    15.4.1): `curl -f -o X.iso` would take its body for the disc.
    """
    assert isinstance(error, MkisoError)
    if "text/html" not in request.headers.get("accept", ""):
        return await answer_mkiso_error(request, error)
    asked = parse_qsl(request.url.query, keep_blank_values=True)
    query = [(name, value) for name, value in asked if name not in ("part", "set")]
    details: Mapping[str, Any] = error.details
    if isinstance(error, SeveralDiscs):
        discs = _discs(query, details, of_question="job_id" not in request.path_params)
        return choice_page(request, error.http_status, "", details["accession_numbers"], discs=discs)
    told = details["sets"]
    sets = [(_link([*query, ("set", each["set"])]), each["total"], each["created"]) for each in told]
    numbers = told[0]["accession_numbers"] if told else []
    return choice_page(request, error.http_status, error.words, numbers, sets=sets)


def _discs(query: Sequence[tuple[str, str]], told: Mapping[str, Any], *, of_question: bool) -> list[tuple[str, int]]:
    """The address and the size of each disc of a set; it names the set where the address is a question's."""
    named = [*query, ("set", told["set"])] if of_question else [*query]
    return [(_link([*named, ("part", str(each["part"]))]), each["size"]) for each in told["parts"]]


def _link(query: Sequence[tuple[str, str]]) -> str:
    return f"?{urlencode(query)}"

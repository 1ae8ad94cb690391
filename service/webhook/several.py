"""Which disc of a set is meant. A set is never answered with its first disc alone: half a study that nobody notices is the worst of outcomes."""

from __future__ import annotations

from html import escape
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from mkiso.errors import JobNotFound, MkisoError, SeveralDiscs
from mkiso.store import Manifest
from service.webhook.answers import answer_mkiso_error


def chosen(discs: list[Manifest], part: int | None) -> Manifest:
    """The disc that is meant: the only one, or the one whose number is `part`. Raises SeveralDiscs, JobNotFound."""
    if not discs:
        raise JobNotFound("This job made no disc image; a print leaves none here.")
    if part is None:
        if len(discs) > 1:
            parts = [{"part": disc.number, "size": disc.size, "sha256": disc.sha256} for disc in discs]
            raise SeveralDiscs(
                f"What was asked for fills {len(discs)} discs. Ask for each by adding part=1 … part={len(discs)} to the address.",
                job_id=discs[0].job_id, total=len(discs), parts=parts,
            )
        return discs[0]
    for disc in discs:
        if disc.number == part:
            return disc
    raise JobNotFound(f"There is no disc {part} in this set; it has {len(discs)}.", total=len(discs))


async def answer_several(request: Request, error: Exception) -> Response:
    """409 with the list: as a page with one link a disc for a browser, which keeps the address it came by (and so the key that nginx adds there);
    in JSON for everybody else. Not 300 (RFC 9110 15.4.1): `curl -f -o X.iso` would take its body for the disc.
    """
    assert isinstance(error, MkisoError)
    if "text/html" not in request.headers.get("accept", ""):
        return await answer_mkiso_error(request, error)
    query = [(name, value) for name, value in parse_qsl(request.url.query, keep_blank_values=True) if name != "part"]
    links = [
        f'<li><a href="?{escape(urlencode([*query, ("part", number)]))}">Disc {number} of {error.details["total"]}</a></li>'
        for number in range(1, int(str(error.details["total"])) + 1)
    ]
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Several discs</title><h1>Several discs</h1>'
        f"<p>The images fill {error.details['total']} discs. Download and burn every one of them:</p><ol>{''.join(links)}</ol></html>"
    )
    return HTMLResponse(page, error.http_status, {"cache-control": "no-store", "content-security-policy": "default-src 'none'"})

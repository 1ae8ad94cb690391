"""The parameters of a request, read strictly, and the question that each address asks with them."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, get_args
from urllib.parse import parse_qs, parse_qsl
from uuid import UUID

from starlette.requests import Request

from mkiso.config.disc import Identity, Priors
from mkiso.config.section import TransferSyntax
from mkiso.config.settings import Server, Settings
from mkiso.errors import BirthDateNeeded, InvalidRequest, PublisherUnknown
from mkiso.formats.registry import FORMATS, ISO
from mkiso.languages import languages
from mkiso.storage.room import size_words
from mkiso.study.accession import parse_accession_number, parse_accession_numbers
from mkiso.study.identity import MOST_SHOWN, SHOWN_DIGITS
from mkiso.study.priors import require_offered
from mkiso.study.question import Question
from mkiso.study.selection import MAX_SERIES, Selection, parse_selection
from mkiso_service.webhook.questions.negotiation import accepted_format

if TYPE_CHECKING:  # a second, and 30 MB, that a webhook without letters needn't have
    from mkiso.letter import Paper

MAX_QUERY_BYTES = 32_768
MAX_PARAMETERS = 32 + MAX_SERIES
MAX_PART = 9999
MAX_ORDERS_TOLD = 999_999
SHOWN_PATTERN = f"^([0-9a-f]{{{SHOWN_DIGITS}}}){{1,{MOST_SHOWN}}}$"
_SHOWN = re.compile(SHOWN_PATTERN.strip("^$"))
MAX_SEARCH = 64
SEARCH_PATTERN = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"
_SEARCH = re.compile(SEARCH_PATTERN)
BIRTH_DATE_PATTERN = (
    "^((18[5-9][0-9]|19[0-9][0-9]|20[0-9][0-9])-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])"
    "|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    "|(18(5[26]|[68][048]|[79][26])|19(0[48]|[2468][048]|[13579][26])|20([02468][048]|[13579][26]))-02-29)$"
)
"""The days of 1850 to 2099 (ISO 8601), as JSON Schema wants it (ECMA-262)."""
_BIRTH_DATE = re.compile(BIRTH_DATE_PATTERN)
FORM_SECONDS = 10.0
MAX_FIELD_BYTES = 4096
FORM_TYPE = "application/x-www-form-urlencoded"


class QueryTooLong(InvalidRequest):
    """The query is longer than any question needs."""

    code = "query_too_long"
    http_status = 414


class Query:
    """The parameters of a URL. Unknown ones are ignored (old links carry cache busters); a known one that comes twice
    is refused, since two readers of one URL could take different ones. A POST may send some or all of them as a form.
    """

    def __init__(self, query: bytes, form: bytes = b"") -> None:
        if len(query) + len(form) > MAX_QUERY_BYTES:
            raise QueryTooLong(
                f"The query is longer than {size_words(MAX_QUERY_BYTES)}: ask for fewer accession numbers at a time."
            )
        try:
            self._pairs = [
                pair
                for part in (query, form)
                for pair in parse_qsl(
                    part.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
                )
            ]
        except ValueError:
            raise InvalidRequest(
                f"The query can't be read: it must be percent-encoded UTF-8 with at most {MAX_PARAMETERS} parameters."
            ) from None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All of them, as they were given."""
        return list(self._pairs)

    def one(self, *names: str) -> str | None:
        """The value of the parameter of any of these names, None where it isn't there. Raises InvalidRequest where it
        comes more than once.
        """
        values = [value for name, value in self._pairs if name in names]
        if len(values) > 1:
            raise InvalidRequest(f"{' or '.join(names)} may be given once only.")
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """The values of a parameter that may come more than once."""
        return [value for each, value in self._pairs if each == name]

    def selection(self, most_studies: int, priors: Priors) -> Selection:
        """What is chosen, and whether earlier studies go beside it, which is the site's rule where nothing is said.
        Raises InvalidRequest.
        """
        by_rule = priors.default and not self.yes("deidentified")
        with_priors = by_rule if self.one("priors") is None else self.yes("priors")
        if with_priors:
            require_offered(priors)
        return parse_selection(self.all("study_uid"), self.all("series_uid"), most_studies, priors=with_priors)

    def numbers(self, server: Server, selection: Selection, *names: str) -> tuple[str, ...]:
        """The accession numbers, with commas between them; none need be given where studies are chosen by UID.
        Raises InvalidRequest.
        """
        if selection.studies and not (self.one(*names) or "").strip():
            return ()
        return parse_accession_numbers(self.needed(*names), server.max_accessions)

    def needed(self, *names: str) -> str:
        value = self.one(*names)
        if value is None or not value.strip():
            raise InvalidRequest(f"The parameter {names[0]} is missing or empty.")
        return value

    def yes(self, name: str) -> bool:
        """Whether the parameter says true; absent is false. Raises InvalidRequest on anything but true and false."""
        text = self.one(name) or "false"
        if text not in ("true", "false"):
            raise InvalidRequest(f"{name} is true or false.")
        return text == "true"

    def orders_told(self) -> int:
        """Of how many earlier orders somebody was told who orders a disc; -1 where nobody was."""
        text = self.one("orders_told") or ""
        if not text:
            return -1
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ORDERS_TOLD))):
            raise InvalidRequest("orders_told is how often the preview says that the disc was ordered.")
        return int(text)

    def shown(self) -> str:
        """Who was shown and confirmed, as the preview names them; empty where nobody was."""
        text = self.one("shown") or ""
        if text and not _SHOWN.fullmatch(text):
            raise InvalidRequest("shown is what the preview says of the same name.")
        return text

    def language(self) -> str:
        """A language by its code; empty where nothing is said."""
        code = self.one("language") or ""
        if code and code not in languages():
            raise InvalidRequest(f"There is no such language; there are: {', '.join(languages())}.")
        return code

    def transfer_syntax(self) -> str:
        """What the images of the disc are stored as; empty where it is the site's."""
        name = self.one("transfer_syntax") or ""
        if name and name not in (names := get_args(TransferSyntax)):
            raise InvalidRequest(f"transfer_syntax is {' or '.join(names)}.")
        return name

    def paper(self) -> Paper:
        """What a letter is printed on; a4 where nothing is said."""
        match self.one("paper") or "a4":
            case "a4" | "insert" as paper:
                return paper
        raise InvalidRequest("paper is a4 or insert.")

    def format(self, accept: str) -> str:
        """The name of the disc's format: the one that is named, else the one whose media type is preferred in `accept`,
        an Accept field (RFC 9110 12.5.1).
        """
        name = self.one("format")
        if name is None:
            return accepted_format(accept)
        if name not in FORMATS:
            raise InvalidRequest(f"There is no such format; there are: {', '.join(FORMATS)}.")
        return name

    def password_in_header(self) -> bool:
        """Whether the asker says that they read the answer's X-Mkiso-Password."""
        match self.one("password"):
            case None:
                return False
            case "header":
                return True
        raise InvalidRequest("password is header: the answer then has X-Mkiso-Password.")

    def birth_date(self) -> str:
        """The birth date (DA) that was typed; empty where none was."""
        text = self.one("birth_date") or ""
        if text and not _BIRTH_DATE.fullmatch(text):
            raise InvalidRequest("The birth date can't be read: write year, month and day, as 1970-01-31.")
        return text.replace("-", "")

    def search(self) -> str:
        """A number, a patient ID, or parts of a name that is looked for; empty where nothing is."""
        text = self.one("search") or ""
        if not _SEARCH.fullmatch(text) or len(text) > MAX_SEARCH:
            raise InvalidRequest(f"search is a number, a patient ID or a name of at most {MAX_SEARCH} characters.")
        return text.strip().casefold()

    def since(self) -> datetime | None:
        """A moment (RFC 3339) from which on; None where none is given."""
        return self._moment("since")

    def until(self) -> datetime | None:
        """A moment (RFC 3339) before which; None where none is given."""
        return self._moment("until")

    def _moment(self, name: str) -> datetime | None:
        text = self.one(name)
        if not text:
            return None
        with suppress(ValueError):
            moment = datetime.fromisoformat(text.upper())
            if moment.tzinfo is not None:
                return moment
        raise InvalidRequest(f"{name} is a moment with its time zone: 2026-03-12T00:00:00Z.")

    def set(self) -> str | None:
        """The id of the set whose disc is meant, or of which the asker has discs already."""
        text = self.one("set")
        if text is None:
            return None
        try:
            return str(UUID(text))
        except ValueError:
            raise InvalidRequest("set is the id of a set of discs, as answers and addresses name it.") from None

    def part(self) -> int | None:
        """Which disc of a set is meant, from 1."""
        text = self.one("part")
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PART)) and int(text)):
            raise InvalidRequest("part is the number of a disc in its set: 1, 2, 3 …")
        return int(text)


def asked_birth_date(query: Query, rules: Identity) -> str:
    """The birth date (DA) that was typed. Raises BirthDateNeeded where this site asks for it and none was."""
    birth_date = query.birth_date()
    if rules.confirm_birth_date and not birth_date:
        raise BirthDateNeeded(
            "This site asks for the patient's birth date too: give it as birth_date=1970-01-31 (year-month-day)."
        )
    return birth_date


def one_study(query: Query, settings: Settings, accept: str = "") -> Question:
    """The question of /download: exactly one accession number, or studies by UID."""
    selection = query.selection(settings.server.max_accessions, settings.priors)
    number = query.one("accession_number") or ""
    if selection.studies and not number.strip():
        return _disc_of((), selection, query, settings, accept)
    return _disc_of((parse_accession_number(query.needed("accession_number")),), selection, query, settings, accept)


def several_studies(query: Query, settings: Settings, accept: str = "") -> Question:
    """The question of /download-multiple: a list of accession numbers, or studies by UID."""
    selection = query.selection(settings.server.max_accessions, settings.priors)
    return _disc_of(query.numbers(settings.server, selection, "accession_numbers"), selection, query, settings, accept)


def _disc_of(numbers: tuple[str, ...], selection: Selection, query: Query, settings: Settings, accept: str) -> Question:
    return Question(
        "download",
        numbers,
        shown=query.shown(),
        language=_other_language(query, settings),
        format=query.format(accept),
        selection=selection,
        transfer_syntax=query.transfer_syntax(),
        deidentified=query.yes("deidentified"),
    )


def _other_language(query: Query, settings: Settings) -> str:
    """The disc's, empty where it is the site's: who says that asks the same as who says nothing, and joins them."""
    return "" if (asked := query.language()) == settings.disc.language else asked


def preview_of(query: Query, settings: Settings) -> tuple[tuple[str, ...], Selection]:
    """The accession numbers of /preview, under either name, and what is chosen."""
    selection = query.selection(settings.server.max_accessions, settings.priors)
    return query.numbers(settings.server, selection, "accession_number", "accession_numbers"), selection


def print_order(query: Query, settings: Settings) -> Question:
    """The question of /print. `accession_numbers` is taken too, as the page that it replaces did; `publisher` is one of
    the configured names.

    `confirm_reprint=true` says that somebody has looked at the publisher after an unclear print.
    """
    if query.yes("deidentified"):
        raise InvalidRequest(
            "De-identified copies aren't printed, since a label wouldn't say what they are: ask for a file."
        )
    if query.one("format") not in (None, ISO.name):
        raise InvalidRequest(
            "A publisher makes discs of one format, which anybody can read: print without 'format', or ask for a file."
        )
    numbers, selection = preview_of(query, settings)
    publisher = query.one("publisher") or settings.print.publisher
    if publisher not in settings.publishers:
        names = ", ".join(settings.publishers)
        raise PublisherUnknown(
            f"There is no publisher of that name; there are: {names}." if names else "This site has no disc publisher."
        )
    return Question(
        "print",
        numbers,
        publisher,
        confirm_reprint=query.yes("confirm_reprint"),
        shown=query.shown(),
        language=_other_language(query, settings),
        selection=selection,
        transfer_syntax=query.transfer_syntax(),
        orders_told=query.orders_told(),
    )


async def form_of(request: Request, max_bytes: int) -> bytes:
    """The bytes of a request's form; empty where it has no body.

    Raises InvalidRequest for a body that is longer, too slow or something else.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > max_bytes:
                    raise InvalidRequest("The form is too long.")
    except TimeoutError:
        raise InvalidRequest("The form didn't arrive in time.") from None
    if body and request.headers.get("content-type", FORM_TYPE).partition(";")[0].strip().lower() != FORM_TYPE:
        raise InvalidRequest(f"Parameters are sent in the address or as {FORM_TYPE}.")
    return bytes(body)


async def field_of(request: Request, name: str) -> str:
    """A field of a request's small form; empty where it isn't there. Raises InvalidRequest."""
    form = (await form_of(request, MAX_FIELD_BYTES)).decode("utf-8", "replace")
    return parse_qs(form).get(name, [""])[0]

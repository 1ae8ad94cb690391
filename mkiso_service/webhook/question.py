"""What a client asks for: the parameters of a request, read strictly, and the key under which identical questions join
one job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl
from uuid import UUID

from mkiso.config.settings import Settings
from mkiso.errors import InvalidRequest
from mkiso.study.accession import parse_accession_number, parse_accession_numbers, question

Kind = Literal["download", "print"]
TAG = "question:"
MAX_QUERY_BYTES = 32_768
MAX_PARAMETERS = 32


@dataclass(frozen=True, slots=True)
class Question:
    """One question: its kind, its accession numbers and, for print, the publisher's name and whether somebody has
    looked at an unclear print.
    """

    kind: Kind
    accession_numbers: tuple[str, ...]
    publisher: str = ""
    confirm_reprint: bool = False

    @property
    def key(self) -> str:
        """Equal for identical questions; the order of the accession numbers doesn't matter. 32 hexadecimal digits.

        A confirmed print is another question: it must not join the one that it is to replace.
        """
        return question(
            f"{self.kind} anew" if self.confirm_reprint else self.kind, self.accession_numbers, self.publisher
        )

    @property
    def tag(self) -> str:
        """The tag of its runs, by which an identical question finds the run to join."""
        return f"{TAG}{self.key}"

    @property
    def parameters(self) -> dict[str, Any]:
        """What its runs are given."""
        parameters: dict[str, Any] = {"accession_numbers": list(self.accession_numbers)}
        if self.kind == "print":
            return {**parameters, "publisher": self.publisher, "confirm_reprint": self.confirm_reprint}
        return parameters

    @classmethod
    def of_run(cls, kind: Kind, parameters: Mapping[str, Any]) -> Question:
        """The question that a run with these parameters answers. They are such as its flow takes."""
        publisher, confirmed = parameters.get("publisher", ""), parameters.get("confirm_reprint", False)
        return cls(kind, tuple(parameters["accession_numbers"]), publisher, confirmed)


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
                f"The query is longer than {MAX_QUERY_BYTES} bytes: ask for fewer accession numbers at a time."
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

    def one(self, *names: str) -> str | None:
        """The value of the parameter of any of these names, None where it isn't there. Raises InvalidRequest where it
        comes more than once.
        """
        values = [value for name, value in self._pairs if name in names]
        if len(values) > 1:
            raise InvalidRequest(f"{' or '.join(names)} may be given once only.")
        return values[0] if values else None

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
        if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 4 and int(text)):
            raise InvalidRequest("part is the number of a disc in its set: 1, 2, 3 …")
        return int(text)


def one_study(query: Query) -> Question:
    """The question of /download: exactly one accession number."""
    return Question("download", (parse_accession_number(query.needed("accession_number")),))


def several_studies(query: Query, settings: Settings) -> Question:
    """The question of /download-multiple: a list of accession numbers."""
    return Question(
        "download", parse_accession_numbers(query.needed("accession_numbers"), settings.server.max_accessions)
    )


def print_order(query: Query, settings: Settings) -> Question:
    """The question of /print. `accession_numbers` is taken too, as the page that it replaces did; `publisher` is one of
    the configured names.

    `confirm_reprint=true` says that somebody has looked at the publisher after an unclear print.
    """
    numbers = parse_accession_numbers(
        query.needed("accession_number", "accession_numbers"), settings.server.max_accessions
    )
    publisher = query.one("publisher") or settings.print.publisher
    if publisher not in settings.publishers:
        raise InvalidRequest(f"There is no publisher of that name; there are: {', '.join(settings.publishers)}.")
    return Question("print", numbers, publisher, query.yes("confirm_reprint"))

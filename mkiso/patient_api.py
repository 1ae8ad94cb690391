"""The hospital's patient-data API: who an accession number belongs to, or None where there is no API or it knows
nobody.

An outage never costs a disc: PatientApiUnavailable is what a job degrades on. A refusal (401, 403, a redirect
elsewhere, an answer that makes no sense) is an outage too, only not worth a second try.
"""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError

from mkiso.config.settings import PatientApi
from mkiso.connections import Connections
from mkiso.errors import PatientApiUnavailable
from mkiso.study.models import Patient
from mkiso.trust import is_plain, trusting, why_unreachable

MAX_ANSWER_BYTES = 256 * 1024
MAX_REDIRECTS = 3
FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 5.0

_SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F", "O": "O", "OTHER": "O"}  # PS3.3 C.7.1.1
_DATE_FORMATS = ("%Y%m%d", "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y")
_TIME_AFTER_DATE = re.compile(r"[T ].*")


def _text(value: object) -> object:
    """Numbers are texts here (an HN of digits is often sent as one); null is empty. Anything else is left for the model
    to refuse.
    """
    if value is None:
        return ""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


LongString = Annotated[
    str, BeforeValidator(_text), StringConstraints(strip_whitespace=True, max_length=64)
]  # LO, PS3.5 6.2
Name = Annotated[
    str, BeforeValidator(_text), StringConstraints(strip_whitespace=True, max_length=324)
]  # PN: five components in three writings


class _Answer(BaseModel):
    """What is read of the API's JSON, under our names; a wrong type is an error, a patient ID is a must."""

    model_config = ConfigDict(strict=True)

    patient_id: Annotated[LongString, StringConstraints(min_length=1)]
    name: Name = ""
    birth_date: LongString = ""
    sex: LongString = ""


def look_up(settings: PatientApi, accession_number: str, until: float = math.inf) -> Patient | None:
    """The patient of an accession number; None where base_url is empty or the API answers 404. It ends at `until`, of
    the monotonic clock, answered or not.

    Connection errors, time-outs, 429 and 5xx are tried again up to `retries` times, with back-off, jitter and the
    server's Retry-After where it is short. Raises PatientApiUnavailable, whose words hold neither patient data nor the
    headers' secrets.
    """
    if not settings.base_url:
        return None
    url = httpx.URL(
        settings.base_url.rstrip("/") + settings.path.replace("{accession_number}", quote(accession_number, safe=""))
    )
    headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
    headers["Accept-Encoding"] = "identity"
    verify = not is_plain(settings.base_url) and trusting()
    for attempt in range(settings.retries + 1):
        limit_seconds, connections = max(0.0, min(settings.timeout_seconds, until - time.monotonic())), Connections()
        deadline = time.monotonic() + limit_seconds
        try:
            with (
                httpx.Client(
                    headers=headers,
                    timeout=settings.timeout_seconds,
                    follow_redirects=False,
                    trust_env=False,
                    verify=verify,
                    event_hooks={"request": [connections.follow]},
                ) as client,
                connections.ending_after(limit_seconds),
            ):
                answer = _ask(client, url, deadline, limit_seconds)
            return None if answer is None else patient_of(answer, settings)
        except _Failed as failed:
            pause = _pause(attempt, failed.retry_after)
            if not failed.transient or attempt == settings.retries or time.monotonic() + pause >= until:
                raise PatientApiUnavailable(
                    f"The patient API at {url.host} {failed.words}. The disc can be made with the PACS's own data."
                ) from None
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def patient_of(answer: Any, settings: PatientApi) -> Patient:
    """The patient in the API's JSON, by the configured names of its members. Raises PatientApiUnavailable where it
    isn't what is expected.
    """
    if not isinstance(answer, Mapping):
        raise _senseless(settings, "no JSON object")
    try:
        read = _Answer.model_validate(
            {ours: answer[theirs] for ours, theirs in settings.fields.model_dump().items() if theirs in answer}
        )
    except ValidationError as error:
        # Only the members' names: the values are patient data.
        members = ", ".join(sorted({str(getattr(settings.fields, str(entry["loc"][0]))) for entry in error.errors()}))
        raise _senseless(settings, f"members that are missing or no texts: {members}") from None
    return Patient(read.patient_id, read.name, birth_date_of(read.birth_date), _SEXES.get(read.sex.upper(), ""))


def birth_date_of(text: str) -> str:
    """A date as DA (YYYYMMDD), or empty where it can't be read with certainty; day and month are never guessed
    (03/04/2000).
    """
    date = _TIME_AFTER_DATE.sub("", text)
    for date_format in _DATE_FORMATS:
        try:
            parsed = datetime.strptime(date, date_format)
        except ValueError:
            continue
        return parsed.strftime("%Y%m%d") if 1850 <= parsed.year <= datetime.now().year + 1 else ""
    return ""


class _Failed(Exception):
    """An attempt that brought no answer: in words, whether another may, and what the server said of when."""

    def __init__(self, words: str, *, transient: bool = False, retry_after: str = "") -> None:
        super().__init__(words)
        self.words = words
        self.transient = transient
        self.retry_after = retry_after


def _ask(client: httpx.Client, url: httpx.URL, deadline: float, limit_seconds: float) -> Any:
    """One attempt: the JSON, None for 404. Redirects are followed on the same host and port only, and never from https
    to http. Raises _Failed.
    """
    for _ in range(MAX_REDIRECTS + 1):
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise httpx.ReadTimeout("no time is left")
            with client.stream("GET", url, timeout=left) as response:
                if not response.has_redirect_location:
                    return _read(response, deadline)
                target = url.join(response.headers["Location"])
        except (httpx.TransportError, httpx.InvalidURL) as error:
            if isinstance(error, httpx.TimeoutException) or time.monotonic() >= deadline:
                raise _Failed(f"didn't answer within {limit_seconds:.3g} s", transient=True) from None
            raise _Failed(
                f"can't be reached ({why_unreachable(error)})", transient=isinstance(error, httpx.TransportError)
            ) from None
        upgraded = (url.scheme, target.scheme) == ("http", "https") and target.port is None
        if target.host != url.host or not (upgraded or (target.scheme, target.port) == (url.scheme, url.port)):
            raise _Failed("redirects to another address, which isn't followed; correct patient_api.base_url")
        url = target
    raise _Failed("redirects in a circle")


def _read(response: httpx.Response, deadline: float) -> Any:
    if response.status_code == httpx.codes.NOT_FOUND:
        return None
    if response.status_code != httpx.codes.OK:
        transient = response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error
        raise _Failed(
            f"answers {response.status_code}", transient=transient, retry_after=response.headers.get("Retry-After", "")
        )
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":  # a few bytes may become gigabytes
        raise _Failed("answers compressed, which wasn't asked for")
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise _Failed(f"answers with more than {MAX_ANSWER_BYTES / 1000:.0f} kB")
    if time.monotonic() >= deadline:  # the connection was ended then, which may be the end of a body
        raise httpx.ReadTimeout("the whole answer takes too long")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _Failed("answers with what is no JSON") from None


def _pause(attempt: int, retry_after: str) -> float:
    """Seconds before the next attempt: doubling, jittered so that jobs don't come in step; Retry-After in seconds
    counts (RFC 9110 10.2.3).
    """
    asked = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
    pause: float = FIRST_PAUSE_SECONDS * 2.0**attempt * random.uniform(0.5, 1.5)  # noqa: S311
    return min(max(pause, asked), MAX_PAUSE_SECONDS)


def _senseless(settings: PatientApi, what: str) -> PatientApiUnavailable:
    host = httpx.URL(settings.base_url).host
    return PatientApiUnavailable(
        f"The patient API at {host} answers with {what}. Compare patient_api.fields with what it sends."
    )

"""A client of a running mkiso: asks for a job (RFC 7240), follows it, and downloads its discs.

A download that breaks off goes on where it ended (Range and If-Range, RFC 9110 14 and 13.1.5).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from mkiso.implementation import program_version
from mkiso.storage.files import sha256_of
from mkiso.study.selection import EVERYTHING, Selection
from mkiso.trust import is_plain, trusting
from mkiso_service.api import Disc, FoundStudies, Job, Listing, Preview, ToldPassword

T = TypeVar("T")
Parameter = str | list[str]

POLL_SECONDS = 0.25
OUTAGE_SECONDS = 60
"""How long the service may be away (a restart, nginx reloading) before the client gives up."""
_JOB = TypeAdapter(Job)
_PREVIEW = TypeAdapter(Preview)
_LISTING = TypeAdapter(Listing)
_FOUND = TypeAdapter(FoundStudies)
_PASSWORD = TypeAdapter(ToldPassword)


class AskedDisc(NamedTuple):
    """A job, and of an encrypted disc the claim by which its password is told."""

    job_id: str
    claim: str


@dataclass(frozen=True, slots=True)
class DiscRequest:
    """What is asked of the service; what is empty is as the site has it. `selection`: what is chosen of the studies,
    or, without accession numbers, which these are. `birth_date` is ISO 8601, as everywhere here. `priors`: whether
    earlier studies go beside, true or false. `shown`: the preview's, of the patient whom somebody confirmed;
    `orders_told`: of how many earlier orders of the same disc they were told, empty: nobody was.
    `language`: of the disc, `transfer_syntax`: of its images, `form`: the name of its format. `deidentified`: a copy
    that doesn't say whose it is.
    """

    accession_numbers: Sequence[str]
    selection: Selection = EVERYTHING
    birth_date: str = ""
    priors: str = ""
    shown: str = ""
    orders_told: str = ""
    language: str = ""
    transfer_syntax: str = ""
    form: str = ""
    deidentified: bool = False

    @property
    def whose(self) -> dict[str, Parameter]:
        """The parameters that say of whom a disc is, and of what."""
        chosen = {"study_uid": list(self.selection.studies), "series_uid": list(self.selection.series)}
        deidentified = "true" if self.deidentified else ""
        return {"birth_date": self.birth_date, "priors": self.priors, "deidentified": deidentified, **chosen}

    def parameters(self, numbers: str) -> dict[str, Parameter]:
        """Those of every disc; `numbers` is what the accession numbers are called."""
        asked = {numbers: ",".join(self.accession_numbers), "shown": self.shown, **self.whose}
        return {**asked, "language": self.language, "transfer_syntax": self.transfer_syntax}


class ServiceError(Exception):
    """What the service answered instead of a disc: its words, the code that docs/errors.md explains, its request id."""

    def __init__(self, words: str, code: str, request_id: str = "") -> None:
        super().__init__(words)
        self.words = words
        self.code = code
        self.request_id = request_id


class Client:
    """One connection to the service at `url`. A context manager; every call raises ServiceError."""

    def __init__(self, url: str, api_key: str = "", transport: httpx.BaseTransport | None = None) -> None:
        headers = {"X-API-Key": api_key} if api_key else {}
        self._http = httpx.Client(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(60, connect=10),
            transport=transport,
            verify=not is_plain(url) and trusting(),
            trust_env=not is_plain(url),  # a proxy would be told the key
        )
        self._url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def preview(self, request: DiscRequest) -> Preview:
        """Whose disc it would be; nothing is made."""
        asked = {"accession_number": ",".join(request.accession_numbers), **request.whose}
        return self._read(_PREVIEW, self._send("GET", "/api/iso/preview", params=_given(asked)))

    def ask_for_disc(self, request: DiscRequest) -> AskedDisc:
        """Start, or join, the job that makes a disc of one patient's studies."""
        is_one = len(request.accession_numbers) == 1
        address, name = ("download", "accession_number") if is_one else ("download-multiple", "accession_numbers")
        asked = {**request.parameters(name), "format": request.form}
        answer = self._start("GET", f"/api/iso/{address}", asked)
        return AskedDisc(str(answer["job_id"]), str(answer.get("claim", "")))

    def ask_for_print(
        self, request: DiscRequest, publisher: str = "", *, confirm_reprint: bool = False
    ) -> dict[str, Any]:
        """Start the job that has a publisher make a disc, the configured one where none is named: what 202 tells of it.

        `confirm_reprint`: an earlier print ended unclear, and somebody has looked at the publisher.
        """
        asked = {
            "publisher": publisher,
            "confirm_reprint": "true" if confirm_reprint else "",
            "orders_told": request.orders_told,
        }
        return self._start("POST", "/api/iso/print", {**request.parameters("accession_number"), **asked})

    def state(self, job_id: str) -> Job:
        """What is known of a job now."""
        answer = self._send("GET", f"/api/iso/jobs/{job_id}")
        return self._read(_JOB, answer)

    def jobs(self, search: str = "") -> Listing:
        """This site's jobs of the last day, or those that a search finds."""
        answer = self._send("GET", "/api/iso/jobs", params=_given({"search": search}))
        return self._read(_LISTING, answer)

    def find(self, **known: str) -> FoundStudies:
        """Studies by what is known of the patient, by the names of GET /api/studies; dates are ISO 8601."""
        answer = self._send("GET", "/api/studies", params=_given(known))
        return self._read(_FOUND, answer)

    def cancel(self, job_id: str) -> Job:
        """End a job; how it stands then."""
        answer = self._send("POST", f"/api/iso/jobs/{quote(job_id, safe='')}/cancel")
        return self._read(_JOB, answer)

    def password(self, job_id: str, claim: str) -> str:
        """The password of an encrypted disc, which is told once."""
        answer = self._send("POST", f"/api/iso/jobs/{quote(job_id, safe='')}/password", data={"claim": claim})
        return self._read(_PASSWORD, answer)["password"]

    def letter(self, job_id: str, *, paper: str = "a4", language: str = "", claim: str = "") -> bytes:
        """The letter that goes with a job's discs, as PDF. With `claim` it has the password, which is told to nobody
        else then.
        """
        address = f"/api/iso/jobs/{quote(job_id, safe='')}/letter.pdf"
        asked = _given({"paper": paper, "language": language})
        if claim:
            answer = self._send("POST", address, params=asked, data={"claim": claim})
        else:
            answer = self._send("GET", address, params=asked)
        if answer.is_error:
            self._json(answer)
        if answer.headers.get("content-type") != "application/pdf":
            raise self._no_mkiso(answer)
        return answer.content

    def follow(self, job_id: str) -> Iterator[Job]:
        """The job's state again and again until it has ended well. Raises ServiceError with its reason where it
        fails.
        """
        away_since: float | None = None
        while True:
            try:
                state = self.state(job_id)
                away_since = None
            except ServiceError as error:
                away_since = away_since or time.monotonic()
                if (
                    error.code not in ("unreachable", "orchestrator_unavailable")
                    or time.monotonic() - away_since > OUTAGE_SECONDS
                ):
                    raise
                time.sleep(1)
                continue
            if state.state == "failed":
                why = state.error or {"error": "The job failed.", "code": "error"}
                raise ServiceError(why["error"], why["code"])
            yield state
            if state.state == "done":
                return
            time.sleep(POLL_SECONDS)

    def download(
        self, disc: Disc, target: Path, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        """Bring a disc into `target`, which appears when it is whole and its SHA-256 is right.

        The part that is there already lies beside it under a name that holds the SHA-256, so that nothing but the same
        disc is ever continued.
        """
        part = target.with_name(f".{target.name}.{disc.sha256[:16]}.part")
        lost_since: float | None = None
        while not part.exists() or part.stat().st_size < disc.size:
            had = part.stat().st_size if part.exists() else 0
            try:
                self._continue(disc, part, progress)
            except httpx.TransportError as error:
                progressed = part.exists() and part.stat().st_size > had
                lost_since = time.monotonic() if progressed or lost_since is None else lost_since
                if time.monotonic() - lost_since > OUTAGE_SECONDS:
                    raise ServiceError(
                        f"The download broke off ({error}). Run the same command again.", "unreachable"
                    ) from None
                time.sleep(1)
        if sha256_of(part) != disc.sha256:
            part.unlink()
            raise ServiceError(
                "What arrived is not the disc that the service proved. It was thrown away: download it again.",
                "proof_failed",
            )
        part.replace(target)

    def _continue(self, disc: Disc, part: Path, progress: Callable[[int, int], None]) -> None:
        done = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"}
        if done:
            headers |= {"Range": f"bytes={done}-", "If-Range": f'"{disc.sha256}"'}
        with self._http.stream("GET", disc.href, headers=headers) as answer:
            if answer.status_code not in (200, 206):
                answer.read()
                self._json(answer)
            if answer.headers.get("etag") != f'"{disc.sha256}"':
                raise ServiceError(
                    "The service has another disc under this address by now. Ask for it again.", "disc_changed"
                )
            resumed = answer.status_code == 206
            flags = os.O_WRONLY | os.O_CREAT | (0 if resumed else os.O_TRUNC)
            with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
                done = file.seek(done) if resumed else 0
                # Pieces as they come: larger ones would be lost where the connection breaks.
                for piece in answer.iter_raw():
                    done += file.write(piece)
                    progress(done, disc.size)
                    if done > disc.size:  # it is no disc of ours, and perhaps without an end
                        break
                file.flush()
                os.fsync(file.fileno())
        if done < disc.size:  # of an answer that didn't say its length, nobody else tells
            raise httpx.RemoteProtocolError("the answer ended before the disc did")

    def _start(self, method: str, path: str, asked: Mapping[str, Parameter]) -> dict[str, Any]:
        sent = self._send(method, path, params=_given(asked), headers={"Prefer": "respond-async"})
        answer = self._json(sent)
        if not isinstance(answer.get("job_id"), str):
            raise self._no_mkiso(sent)
        return answer

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.TransportError as error:
            words = f"There is no mkiso at {self._url} ({error}). Is `mkiso serve` running? Another address: --url."
            raise ServiceError(words, "unreachable") from None

    def _read(self, kind: TypeAdapter[T], answer: httpx.Response) -> T:
        try:
            return kind.validate_python(self._json(answer))
        except ValidationError:
            raise self._other_version() from None

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            told = answer.json()
        except ValueError:
            told = None
        if not isinstance(told, dict) or (answer.is_error and not {"error", "code"} <= told.keys()):
            raise self._no_mkiso(answer)
        if told.get("code") == "not_found":  # this command asks for what is there alone
            raise self._other_version()
        if answer.is_error:
            raise ServiceError(str(told["error"]), str(told["code"]), str(told.get("request_id", "")))
        return told

    def _other_version(self) -> ServiceError:
        words = (
            f"{self._url} answered in a way that this command (mkiso {program_version()}) doesn't know. Either the "
            "service is another version of mkiso: upgrade the older one, or use the command beside the service. Or "
            "the address is wrong."
        )
        return ServiceError(words, "other_version")

    def _no_mkiso(self, answer: httpx.Response) -> ServiceError:
        words = f"{self._url} answered {answer.status_code} in words that mkiso doesn't use. Is this the right address?"
        return ServiceError(words, "no_mkiso")


def _given(query: Mapping[str, Parameter]) -> dict[str, Parameter]:
    return {name: value for name, value in query.items() if value}

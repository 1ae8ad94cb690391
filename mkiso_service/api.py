"""What the HTTP API tells, written once: the webhook answers with it, the client reads it, and the OpenAPI description
has its schemas (mkiso_service.webhook.description).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

from pydantic import ConfigDict, Field, WithJsonSchema
from typing_extensions import TypedDict

from mkiso.errors import JobCancelled, MkisoError, kinds
from mkiso.storage.report import JobFacts, JobReport, Uuid
from mkiso.study.selection import Selection

State = Literal["waiting", "running", "done", "failed"]
ShownState = State | Literal["cancelled"]


class HttpError(NamedTuple):
    """An error that is HTTP's own, or of no kind: its status, what it means and what to do, for docs/errors.md."""

    http_status: str
    meaning: str
    remedy: str


HTTP_ERRORS: Mapping[str, HttpError] = {
    "invalid_http": HttpError("400", "what came can't be read as HTTP", "correct the program, or the proxy before it"),
    "too_many_connections": HttpError(
        "503", "one machine has half of all connections that there may be", "close some there, and ask again"
    ),
    "not_found": HttpError("404", "there is nothing at this address", "check the address"),
    "method_not_allowed": HttpError(
        "405", "the address doesn't take this method", "use one that the header `Allow` names"
    ),
    "precondition_failed": HttpError(
        "412", "the disc isn't the one that `If-Match` or `If-Unmodified-Since` names", "download it from the beginning"
    ),
    "query_too_long": HttpError("414", "the query is longer than any question", "ask for fewer at a time"),
    "range_not_satisfiable": HttpError(
        "416", "the disc doesn't have the bytes that `Range` names", "its size is in `Content-Range`: ask for less"
    ),
    "http_error": HttpError("4xx, 5xx", "another error of HTTP itself", "the status and the message say which"),
    "internal_error": HttpError(
        "500", "mkiso met something that it doesn't know", "look for the `request_id` in the log, and report it"
    ),
    MkisoError.code: HttpError("500", "a job failed for a reason of no kind", "look for the job in the log"),
}
"""The codes that no kind of error has (mkiso.errors.kinds)."""
CODES = sorted({*(kind.code for kind in kinds()), *HTTP_ERRORS})
Code = Annotated[str, WithJsonSchema({"enum": CODES})]
_ALL_TOLD = ConfigDict(json_schema_serialization_defaults_required=True)
MadeBefore = Annotated[int, Field(description="How many minutes ago the same was made last")]


class JobError(TypedDict):
    """Why a job failed; what else is known of it stands beside."""

    error: str
    code: str
    http_status: NotRequired[int]
    job_id: NotRequired[str]


def shown_state(state: State, error: JobError | None) -> ShownState:
    """What people read: a job that somebody cancelled didn't fail."""
    return "cancelled" if error and error["code"] == JobCancelled.code else state


@dataclass(frozen=True, slots=True)
class Disc:
    """A finished disc; `href` is its address, `set` what the discs of a set share: the id of the first."""

    __pydantic_config__ = _ALL_TOLD
    href: str
    set: Uuid
    filename: str
    size: int
    sha256: str
    instances: int
    part: int
    total: int
    medium: str = ""


@dataclass(frozen=True, slots=True)
class Job(JobFacts):
    """A job as it stands; `stage` is in words, `discs` are there once it is done."""

    __pydantic_config__ = _ALL_TOLD
    state: State = "waiting"
    progress: Annotated[float, Field(ge=0, le=1)] = 0.0
    error: JobError | None = None
    discs: tuple[Disc, ...] = ()

    @classmethod
    def of(cls, report: JobReport, state: State, error: JobError | None, discs: tuple[Disc, ...]) -> Job:
        """The job of a report."""
        facts = {field.name: getattr(report, field.name) for field in fields(JobFacts)}
        return cls(**facts, state=state, progress=report.progress, error=error, discs=discs)


class Asker(TypedDict):
    """Somebody who asked for a job: a client's address, and whether by the counter page, a link or a program; or who
    sent it to an inbox, by AE title and address. `name` is the person's, the key's or the inbox's, empty where nobody
    has to say; `you`: it is who sees this.
    """

    time: str
    who: str
    by: Literal["page", "link", "program", "inbox"]
    name: str
    you: bool


class Listed(TypedDict):
    """A job as this site's list of discs has it; `begun` is when it was asked for first. `may_cancel`: who sees this
    may end it, as long as it hasn't ended. `patient_birth_date` is YYYYMMDD, and empty where a clerk has to type it
    (`identity.confirm_birth_date`).
    """

    job: Job
    begun: str
    asked: list[Asker]
    may_cancel: bool
    patient_id: str
    patient_name: str
    patient_birth_date: str


class Listing(TypedDict):
    """What was asked for last comes first; `more`: there are more than are listed."""

    jobs: list[Listed]
    more: bool


class InboxState(TypedDict):
    """How an inbox stands. `images` and `refused` count what came since the receiver started, `last_refusal` says why
    and of whom; null where the receiver can't be asked here. `last_refusal_cause` is unknown_sender, no_room,
    two_versions or unusable, `last_refusal_time` when it was; these are empty where there is none. Of the studies that
    lie there or are remembered: those that `wait` to be settled, whose jobs are `running`, and whose last job `failed`.
    `last_disc` is the newest job that made a disc, `last_disc_time` when it ended; empty where there is none.
    """

    name: str
    publisher: str
    images: int | None
    refused: int | None
    last_refusal: str | None
    last_refusal_sender: str
    last_refusal_cause: str
    last_refusal_time: str
    waiting: int
    running: int
    failed: int
    last_disc: str
    last_disc_time: str


class InboxStates(TypedDict):
    """The inboxes, in the order of the configuration."""

    inboxes: list[InboxState]


class NamedKey(TypedDict):
    """A key of auth.keys; `last_used` is within a minute, empty where it never was."""

    name: str
    rights: list[str]
    last_used: str


class NamedKeys(TypedDict):
    """The keys that have a name."""

    keys: list[NamedKey]


class Made(TypedDict):
    """One who asked for one disc. `chosen` names the studies and series that alone were asked for; empty: all.
    `priors`: earlier studies were to go beside them. `deidentified`: a copy that doesn't say whose it is. `proves` is
    of a print: queued (the robot has everything) or done (it says that the disc is made).
    """

    time: str
    user: str
    name: str
    address: str
    by: Literal["page", "link", "program", "inbox"]
    kind: str
    accession_numbers: tuple[str, ...]
    chosen: str
    priors: bool
    patient_id: str
    publisher: str
    state: ShownState
    proves: str
    job_id: Uuid
    deidentified: bool


class WhoMade(TypedDict):
    """Who made what, the newest first; `more`: there is more than is told."""

    made: list[Made]
    more: bool


class ShownPatient(TypedDict):
    """A patient as the PACS has them, the name as people write it; `birth_date` is YYYYMMDD. `name_on_disc` is the
    hospital's patient data's, where it has one.
    """

    patient_id: str
    name: str
    name_on_disc: str
    birth_date: str
    sex: str


class ShownSeries(TypedDict):
    """A series as the PACS has it; `images` null where it tells no count. `chosen`: it would be on the disc."""

    series_instance_uid: str
    number: str
    modality: str
    description: str
    images: int | None
    chosen: bool


class ShownStudy(TypedDict):
    """A study as the PACS has it; `study_date` is YYYYMMDD, `images` null where it tells no count: those that would be
    on the disc. `source`: which of several it is taken from. `series`: all of it, to choose from, in the order of their
    numbers; empty where the PACS tells none.
    """

    study_instance_uid: str
    accession_number: str
    study_date: str
    modalities: tuple[str, ...]
    study_description: str
    images: int | None
    source: str
    series: list[ShownSeries]
    more_series: bool


class Ordered(TypedDict):
    """What was ordered of these numbers before: the last order's publisher, its age, who asked for it, and how many
    orders it were in all.
    """

    publisher: str
    minutes: int
    who: tuple[str, ...]
    orders: int


class Preview(TypedDict):
    """Whose disc it would be, and what is on it. `shown` stands for this patient: a question that has it gets a disc
    of nobody else. `ordered`: a disc of this was printed before; another print makes another one. `unclear`: an order
    of this ended unclear; a print needs `confirm_reprint`, after a look at the publisher. `labels`: the name as a
    publisher's label shows it, by publisher, where its letters are others; empty: it can't show the name. `is_part`:
    the disc would lack something of the accession numbers or studies, and say so. `priors`: earlier studies that
    would go beside them, the newest first; they have no series to choose from.
    """

    accession_numbers: tuple[str, ...]
    patient: ShownPatient
    studies: list[ShownStudy]
    priors: list[ShownStudy]
    selection: Selection
    is_part: bool
    degraded: tuple[str, ...]
    shown: str
    ordered: Ordered | None
    unclear: Ordered | None
    labels: dict[str, str]


class SearchedStudy(TypedDict):
    """A study as a source has it; `birth_date` and `study_date` are YYYYMMDD, `images` null where it tells no count."""

    source: str
    study_instance_uid: str
    patient_id: str
    patient_name: str
    birth_date: str
    sex: str
    accession_number: str
    study_date: str
    modalities: tuple[str, ...]
    study_description: str
    images: int | None


class NotAsked(TypedDict):
    """A source that couldn't be asked, and why."""

    source: str
    code: Code
    error: str


class FoundStudies(TypedDict):
    """The newest first; `more`: there may be more than these, so ask for less. `not_asked`: these sources may have
    more.
    """

    studies: list[SearchedStudy]
    more: bool
    not_asked: list[NotAsked]


class SetPart(TypedDict):
    """A disc of a set and its address."""

    part: int
    size: int
    sha256: str
    href: str


class SetEntry(TypedDict):
    """A set of discs; `job` serves them all. No accession number is told where studies were asked for by UID."""

    set: Uuid
    accession_numbers: list[str]
    created: str
    job_id: Uuid
    job: str
    total: int
    parts: list[SetPart]


class Error(TypedDict):
    """What happened and what to do, in words; docs/errors.md explains each code."""

    error: str
    code: Code
    request_id: str
    job_id: NotRequired[str]
    job: NotRequired[str]
    parts: NotRequired[Annotated[list[SetPart], Field(description="Of `several_discs`")]]
    claim: NotRequired[Annotated[str, Field(description="Of an encrypted disc: with it the password is told, once")]]
    sets: NotRequired[Annotated[list[SetEntry], Field(description="Of `other_set`, the newest first")]]


class Accepted(TypedDict):
    """The job goes on by itself; `joined`: it was under way already."""

    job_id: Uuid
    job: str
    state: State
    joined: bool
    made_before_minutes: NotRequired[MadeBefore]
    claim: NotRequired[Annotated[str, Field(description="Of an encrypted disc: with it the password is told, once")]]


class ToldPassword(TypedDict):
    """The password of an encrypted disc; it is kept nowhere and told this once."""

    password: str


class Sent(TypedDict):
    """A print that the publisher has confirmed.

    `proves`: queued (it has everything) or done (it made the disc). `joined`: the same order was under way already, and
    this made no other disc.
    """

    status: Literal["sent"]
    publisher: str
    instances: int
    job_id: Uuid
    accession_numbers: tuple[str, ...]
    proves: str
    degraded: tuple[str, ...]
    joined: bool
    made_before_minutes: NotRequired[MadeBefore]


class See(TypedDict):
    """Where the disc is."""

    see: str


class Dependency(TypedDict):
    """Whether it is well, and in words what was seen, or what is wrong and what to do."""

    ok: bool
    detail: str


class Health(TypedDict):
    """Each dependency, at most ten seconds old; `degraded` names those that aren't well."""

    status: Literal["ok", "degraded"]
    degraded: list[str]
    dependencies: dict[str, Dependency]


MESSAGES: tuple[Any, ...] = (
    Job,
    Error,
    Accepted,
    Sent,
    See,
    Health,
    Preview,
    Listing,
    FoundStudies,
    NamedKeys,
    InboxStates,
    WhoMade,
    ToldPassword,
)

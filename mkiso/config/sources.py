"""The settings of a source of studies, by its kind."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Discriminator, Field, SecretStr, StringConstraints, Tag, model_validator

from mkiso.config.access import is_private
from mkiso.config.section import AeTitle, Host, Place, Port, Seconds, Section


@dataclass(frozen=True, slots=True)
class Origin:
    """Which of several sources something is from (empty: the only one), and what holds there: whose Patient IDs it has,
    and whether it has to tell how many instances there are.
    """

    source: str = ""
    patient_domain: str = ""
    require_counts: bool = True

    @property
    def section(self) -> str:
        """The source's dotted name in the configuration."""
        return f"sources.{self.source}" if self.source else "pacs"


class AnySource(Section):
    """What each source has. `name` is empty where it is the only one (`pacs`). `patient_domain`: sources that share one
    mean the same patient by the same Patient ID. `accession_numbers` are patterns, as N*: other numbers aren't asked
    for here. `modalities`, `newer_than_days` and `older_than_days` say which studies it is for: of such it is taken
    before the others. `must_answer`: while it doesn't, no disc is made.
    """

    name: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,31})?$")] = ""
    patient_domain: str = ""
    accession_numbers: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = ()
    modalities: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]{1,16}$")], ...] = ()
    newer_than_days: int | None = Field(None, ge=0)
    older_than_days: int | None = Field(None, ge=0)
    must_answer: bool = False
    require_counts: bool = True
    find_limit: int = Field(0, ge=0)
    max_moves: int = Field(2, ge=1, le=16)
    move_attempts: int = Field(3, ge=1, le=10)
    back_off_seconds: Seconds = 2

    @model_validator(mode="after")
    def _is_for_something(self) -> AnySource:
        older, newer = self.older_than_days, self.newer_than_days
        if older is not None and newer is not None and older >= newer:
            raise ValueError("no study is both older_than_days and newer_than_days: the first has to be smaller")
        return self

    @property
    def origin(self) -> Origin:
        """What each study carries that is found here."""
        return Origin(self.name, self.patient_domain, self.require_counts)

    @property
    def section(self) -> str:
        """Its dotted name in the configuration."""
        return self.origin.section

    def is_asked_for(self, accession_number: str) -> bool:
        """Whether it may hold a study of this number."""
        patterns = self.accession_numbers
        return not patterns or any(fnmatchcase(accession_number, pattern) for pattern in patterns)

    def is_for(self, modalities: Collection[str], day: date | None, today: date) -> bool:
        """Whether its rules are for a study of these modalities and this day; what isn't told is no reason against
        it.
        """
        if self.modalities and modalities and not set(self.modalities) & set(modalities):
            return False
        if day is None:
            return True
        days = (today - day).days
        return (self.newer_than_days is None or days <= self.newer_than_days) and (
            self.older_than_days is None or days > self.older_than_days
        )


class Pacs(AnySource):
    """A Query/Retrieve SCP."""

    ae_title: AeTitle = "ABPACS"
    host: Host = "127.0.0.1"
    port: Port = 11112
    calling_ae_title: AeTitle | None = None
    connect_timeout_seconds: Seconds = 10
    response_timeout_seconds: Seconds = 60
    quiet_timeout_seconds: Seconds = 60

    @property
    def user_id(self) -> str:
        """What the audit trail calls it (DICOM PS3.15 A.5.2.1, UserID)."""
        return self.ae_title


class CMove(Pacs):
    """A PACS that is asked by C-FIND and sends by C-MOVE to the receiver."""

    kind: Literal["cmove"] = "cmove"


class CGet(Pacs):
    """A PACS that is asked by C-FIND and sends by C-GET, in the association that asks: nothing has to reach us."""

    kind: Literal["cget"] = "cget"


class DicomWeb(AnySource):
    """A server that is asked by QIDO-RS and sends by WADO-RS (PS3.18).

    With `token_url` a token is had there by OAuth 2.0 client credentials, with `user` alone it is Basic, with a secret
    alone a bearer token. `secret_file` is read anew each time, since tokens are renewed. `http2`: speak HTTP/2 where
    the server offers it in TLS.
    """

    kind: Literal["dicomweb"]
    base_url: str = Field(description="the address of its services, as https://pacs.example.org/dicom-web")
    user: str = ""
    secret: SecretStr = SecretStr("")
    secret_file: Place | None = None
    token_url: str = ""
    scope: str = ""
    authority: Place | None = None
    certificate: Place | None = None
    key: Place | None = None
    parallel: int = Field(4, ge=1, le=16)
    http2: bool = False
    connect_timeout_seconds: Seconds = 10
    response_timeout_seconds: Seconds = 60

    @model_validator(mode="after")
    def _can_be_asked(self) -> DicomWeb:
        for name, url in (("base_url", self.base_url), ("token_url", self.token_url)):
            parts = urlsplit(url)  # raises ValueError itself for half an IPv6 address
            if not url and name == "token_url":
                continue
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
                raise ValueError(f"{name} is a whole address without a query: https://pacs.example.org/dicom-web")
            if parts.username or parts.password:
                raise ValueError(f"{name} holds a user or password: name them as user and secret_file")
            if self.has_secret and not is_private(url):
                raise ValueError(f"{name} is http, and a secret would be sent to be read by anybody: use https")
        if self.secret.get_secret_value() and self.secret_file:
            raise ValueError("secret and secret_file are both set: remove one")
        if (self.user or self.token_url) and not self.has_secret:
            raise ValueError("a user or a token_url needs secret_file, or the secret in the environment")
        if self.token_url and not self.user:
            raise ValueError("token_url needs user, which is the client ID")
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key are needed together")
        return self

    @property
    def has_secret(self) -> bool:
        return bool(self.secret.get_secret_value() or self.secret_file)

    @property
    def host(self) -> str:
        """Where it is, for the audit and for people."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def user_id(self) -> str:
        """What the audit trail calls it (DICOM PS3.15 A.5.2.1, UserID)."""
        return self.base_url


KINDS: Mapping[str, type[CMove | CGet | DicomWeb]] = {"cmove": CMove, "cget": CGet, "dicomweb": DicomWeb}


def _kind_of(values: Any) -> str:
    return str(values.get("kind", "cmove")) if isinstance(values, Mapping) else str(getattr(values, "kind", ""))


Source = Annotated[
    Annotated[CMove, Tag("cmove")] | Annotated[CGet, Tag("cget")] | Annotated[DicomWeb, Tag("dicomweb")],
    Discriminator(_kind_of, custom_error_type="source_kind", custom_error_message=f"kind is one of {', '.join(KINDS)}"),
]


def _with_their_names(sources: Any) -> Any:
    """Each source knows its name."""
    if not isinstance(sources, Mapping):
        return sources
    return {
        name: {**values, "name": name} if isinstance(values, Mapping) else values for name, values in sources.items()
    }


Sources = Annotated[Mapping[str, Source], BeforeValidator(_with_their_names)]
"""By name, in the order in which a study is taken from them."""


def alike(sources: Mapping[str, CMove | CGet | DicomWeb]) -> Iterator[str]:
    """In words: sources that are the same one, or whose images can't be told apart by their sender."""
    for (name, one), (other, another) in combinations(sources.items(), 2):
        if isinstance(one, Pacs) and isinstance(another, Pacs):
            same = (one.ae_title, one.host) == (another.ae_title, another.host)
            what = "AE title and host"
        else:
            same = isinstance(one, DicomWeb) and isinstance(another, DicomWeb) and one.base_url == another.base_url
            what = "base_url"
        if same:
            yield f"sources.{name} and sources.{other} have the same {what}: nothing tells them apart, so remove one"

"""The whole configuration as frozen models: every key, its default and its bounds, and what one section says against
another. Larger sections stand beside. mkiso.config.file reads it; config.example.yaml explains it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mkiso.config.access import LOOPBACK, Auth, SignIn, is_loopback, is_private
from mkiso.config.archive import Archive
from mkiso.config.disc import Deidentified, Disc, Identity, Print, Priors, Viewer
from mkiso.config.inboxes import Inbox, Peer
from mkiso.config.publishers import CStore, Publisher, Robot
from mkiso.config.robots import RobotKind
from mkiso.config.section import (
    AeTitle,
    EachTitleOnce,
    Host,
    Network,
    PathText,
    Place,
    Port,
    Seconds,
    Section,
    Url,
    differ_by_more_than_case,
    long_enough,
)
from mkiso.config.sources import CMove, Source, Sources, alike
from mkiso.config.storage import Storage


def _is_header(name: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):  # RFC 9110 5.1
        raise ValueError(f"{name!r} is no name of an HTTP header")
    return name


def _all_fit_headers(values: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
    for name, value in values.items():
        if not re.fullmatch(r"[\x20-\x7E]*", value.get_secret_value()):  # RFC 9110 5.5
            raise ValueError(f"{name} has a character that a header can't have: it takes letters a to z, digits, signs")
    return values


def _is_host_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9._-]{1,253}", name.lower()):
        raise ValueError(f"{name!r} is no name of a machine: write it without https:// and port, as discs.example.org")
    return name.lower()


def _is_location(location: str) -> str:
    if location and not re.fullmatch(r"(/[A-Za-z0-9_-]+)+/", location):
        raise ValueError("write nginx's location with a slash on both ends, as /_discs/: letters, digits, - and _")
    return location


def _is_origin(origin: str) -> str:
    if not re.fullmatch(r"none|https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", origin.lower()):
        raise ValueError(
            f"{origin!r} is no origin: https://, the machine's name and a port where there is one, and no path, as "
            "https://ris.example.org"
        )
    return origin.lower()


HostName = Annotated[str, AfterValidator(_is_host_name)]
Origin = Annotated[str, AfterValidator(_is_origin)]


class Server(Section):
    """The webhook and the processes of this machine."""

    host: Host = "127.0.0.1"
    port: Port = 8080
    request_timeout_seconds: Seconds = 900
    max_accessions: int = Field(50, ge=1, le=1000)
    max_queued_jobs: int = Field(50, ge=1)
    max_running_jobs: int = Field(4, ge=1, le=64)
    shutdown_grace_seconds: Seconds = 30
    public_url: Url = ""
    hosts: tuple[HostName, ...] = ()
    trusted_origins: tuple[Origin, ...] = ()
    trusted_proxies: tuple[Network, ...] = ("127.0.0.1", "::1")
    accel_redirect: Annotated[str, AfterValidator(_is_location)] = ""

    @field_validator("trusted_origins")
    @classmethod
    def _as_browsers_write_them(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(re.sub(r"^(http://.*):80$|^(https://.*):443$", r"\1\2", origin) for origin in origins)

    @property
    def address(self) -> str:
        """How browsers reach the webhook, without a slash at the end."""
        return self.public_url.rstrip("/") or self.local_address

    @property
    def local_address(self) -> str:
        """How this machine reaches it; what listens everywhere is here, too."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def known_hosts(self) -> frozenset[str]:
        """The names with a dot under which browsers may reach the webhook."""
        return frozenset((*self.hosts, urlsplit(self.public_url).hostname or ""))


class Tls(Section):
    """TLS of a DICOM port (PS3.15 B.12): certificate, key, and the authority of peers' certificates."""

    enabled: bool = False
    certificate: Place | None = None
    key: Place | None = None
    authority: Place | None = None

    @model_validator(mode="after")
    def _files_where_enabled(self) -> Tls:
        if self.enabled and not (self.certificate and self.key):
            raise ValueError("tls.enabled is true: tls.certificate and tls.key are needed")
        return self


class Receiver(Section):
    """Our Storage SCP: one AE title, one port, for every job."""

    ae_title: AeTitle = "CDRECORD"
    host: Host = "0.0.0.0"  # noqa: S104  the PACS connects from another machine
    port: Port = 10104
    max_pdu_bytes: int = Field(131_072, ge=4096, le=1_048_576)
    max_associations_per_peer: int = Field(10, ge=1, le=100)
    max_associations: int = Field(64, ge=1, le=1000)
    max_instance_gib: float = Field(8, gt=0)
    pdu_timeout_seconds: Seconds = 30
    idle_timeout_seconds: Seconds = 60
    allowed_peers: tuple[Peer, ...] = ()
    tls: Tls = Tls()


class PatientApiFields(Section):
    """The names of the answer's JSON members."""

    patient_id: str = "hn"
    name: str = "name"
    birth_date: str = "birth_date"
    sex: str = "sex"


class PatientApi(Section):
    """The hospital's patient-data API; an empty base_url means that there is none."""

    base_url: Url = ""
    path: str = "/patients/by-accession/{accession_number}"
    timeout_seconds: Seconds = 5
    retries: int = Field(2, ge=0, le=10)
    headers: Annotated[
        Mapping[Annotated[str, AfterValidator(_is_header)], SecretStr],
        AfterValidator(differ_by_more_than_case),
        AfterValidator(_all_fit_headers),
    ] = {}
    fields: PatientApiFields = PatientApiFields()

    @field_validator("path")
    @classmethod
    def _names_the_accession(cls, path: str) -> str:
        if "{accession_number}" not in path:
            raise ValueError("must contain {accession_number}")
        if not path.startswith("/"):
            raise ValueError("begins with /")
        return path


class Prefect(Section):
    """The orchestrator; an empty api_url means that `mkiso serve` starts one."""

    api_url: Url = ""
    api_auth_string: SecretStr = SecretStr("")
    work_pool: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9 ._-]{1,100}$")] = "mkiso"
    server_port: Port = 4200
    keep_runs_days: float = Field(30, gt=0, le=3650)

    @field_validator("api_auth_string")
    @classmethod
    def _has_user_and_password(cls, text: SecretStr) -> SecretStr:
        if secret := text.get_secret_value():
            user, _, password = secret.partition(":")
            if not user or not password:
                raise ValueError("is a user, a colon and a password, the same on every machine")
            try:
                long_enough(SecretStr(password))
            except ValueError as error:
                raise ValueError(f"has a password that {error}") from None
        return text

    @field_validator("work_pool")
    @classmethod
    def _is_ours(cls, name: str) -> str:
        if name.lower().startswith("prefect"):
            raise ValueError("begins with prefect, and Prefect keeps such names for itself")
        return name

    @field_validator("api_url")
    @classmethod
    def _names_the_api(cls, url: str) -> str:
        if url and urlsplit(url).path in ("", "/"):
            raise ValueError(f"is the address of the API: {url.rstrip('/')}/api")
        return url

    @model_validator(mode="after")
    def _wants_a_password(self) -> Prefect:
        if self.api_url and not self.api_auth_string.get_secret_value():
            raise ValueError(
                "api_url names a Prefect server and api_auth_string is empty: set its user:password, the same on "
                "every machine"
            )
        return self


class Audit(Section):
    """The audit of DICOM PS3.15 A.5. `target`: a file (empty: audit.xml below data_dir), udp://host:514 or
    tls://host:6514.
    """

    enabled: bool = False
    target: PathText = ""
    source_id: Annotated[str, StringConstraints(min_length=1)] = "mkiso"
    patient_names: bool = True
    authority: Place | None = None
    certificate: Place | None = None
    key: Place | None = None

    @field_validator("target")
    @classmethod
    def _can_be_reached(cls, target: str) -> str:
        is_address = "://" in target or target.startswith(("udp:", "tls:"))
        if is_address and not re.fullmatch(r"(udp|tls)://[^/:\s]+(:\d{1,5})?", target):
            raise ValueError("is a file, udp://host:port or tls://host:port")
        if "://" in target and urlsplit(target).port == 0:  # raises ValueError itself above 65535
            raise ValueError("names port 0: it is 1 to 65535")
        return target

    def file_below(self, data_dir: Path) -> Path | None:
        """The file that it is written to; None where a server gets it."""
        return None if "://" in self.target else data_dir / (self.target or "audit.xml")


class Logging(Section):
    """How much is logged and how."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["json", "text"] = "json"


class Settings(Section):
    """The whole configuration."""

    server: Server = Server()
    auth: Auth = Auth()
    sign_in: SignIn = SignIn()
    pacs: Source = CMove()
    sources: Annotated[Sources, AfterValidator(differ_by_more_than_case)] = {}  # noqa: RUF012  frozen
    receiver: Receiver = Receiver()
    patient_api: PatientApi = PatientApi()
    viewer: Viewer = Viewer()
    identity: Identity = Identity()
    disc: Disc = Disc()
    priors: Priors = Priors()
    deidentified: Deidentified = Deidentified()
    print: Print = Print()
    publishers: Annotated[Mapping[str, Publisher], AfterValidator(differ_by_more_than_case)] = {"rimage": CStore()}
    inboxes: Annotated[Mapping[AeTitle, Inbox], EachTitleOnce, AfterValidator(differ_by_more_than_case)] = {}
    archive: Archive = Archive()
    storage: Storage = Storage()
    prefect: Prefect = Prefect()
    logging: Logging = Logging()
    audit: Audit = Audit()

    def as_asked(self, language: str = "", transfer_syntax: str = "") -> Settings:
        """These settings for a disc in a language and a transfer syntax of its own; empty: the site's."""
        asked = {"language": language, "transfer_syntax": transfer_syntax}
        if not (given := {name: value for name, value in asked.items() if value}):
            return self
        return self.model_copy(update={"disc": self.disc.model_copy(update=given)})

    def for_inbox(self, name: str) -> Settings:
        """These settings for a disc of what was sent to an inbox: its medium and copies. Raises KeyError."""
        inbox = self.inboxes[name]
        if not inbox.publisher:
            medium = inbox.medium or self.disc.medium
            return self.model_copy(update={"disc": self.disc.model_copy(update={"medium": medium})})
        given = {"medium": inbox.medium, "copies": inbox.copies}
        publisher = self.publishers[inbox.publisher].model_copy(update={k: v for k, v in given.items() if v})
        return self.model_copy(update={"publishers": {**self.publishers, inbox.publisher: publisher}})

    @model_validator(mode="after")
    def _agrees_with_itself(self, info: ValidationInfo) -> Settings:
        if info.context is None and (found := "; ".join(self.contradictions())):
            raise ValueError(found)
        return self

    def contradictions(self) -> Iterator[str]:
        """What one section says against another. Whoever validates a file asks for them; else they are an error."""
        yield from self._equal_ports()
        yield from self._unknown_publishers()
        yield from self._wrong_inboxes()
        yield from alike(self.sources)
        if self.sources and "pacs" in self.model_fields_set:
            yield "pacs and sources are both set: name the PACS as one of sources, and remove pacs"
        if self.pacs.name:
            yield "pacs.name is set, and pacs is the only source: names are for sources"
        for rule in ("modalities", "newer_than_days", "older_than_days"):
            if getattr(self.pacs, rule) not in ((), None):
                yield f"pacs.{rule} is set, and pacs is the only source: rules are for sources"
        if self.sign_in.issuer and not is_private(self.server.public_url):
            yield "sign_in needs server.public_url, the https address to which the provider sends people back"

    @property
    def all_sources(self) -> tuple[Source, ...]:
        """Where studies come from, in the order in which a study is taken from them: `sources`, else `pacs` alone."""
        return tuple(self.sources.values()) or (self.pacs,)

    def source(self, name: str) -> Source:
        """The source of this name; the only one has none."""
        return self.sources[name] if self.sources else self.pacs

    @property
    def is_open(self) -> bool:
        """Whether nobody has to say who they are."""
        return not (self.auth.enabled or self.sign_in.issuer)

    @property
    def warning(self) -> str:
        """What is allowed and seldom meant; empty where there is nothing."""
        if not self.is_open or self.server.host in LOOPBACK:
            return ""
        return (
            f"Anybody who reaches {self.server.host}, port {self.server.port}, can search for patients and get discs: "
            "nobody has to say who they are. Set auth.enabled and a key, or sign_in, or let server.host be 127.0.0.1."
        )

    def _equal_ports(self) -> Iterator[str]:
        ports = {"server.port": self.server.port, "receiver.port": self.receiver.port}
        if not self.prefect.api_url:
            ports["prefect.server_port"] = self.prefect.server_port
        for name, publisher in self.publishers.items():
            if isinstance(publisher, CStore) and publisher.storage_commitment and publisher.commitment_port:
                ports[f"publishers.{name}.commitment_port"] = publisher.commitment_port
        for (name, port), (other, same) in combinations(ports.items(), 2):
            if port == same:
                yield f"{name} and {other} are both {port}: one process can listen on a port"

    @property
    def _publishers_there(self) -> str:
        """The names of the publishers, for people."""
        by_default = "" if "publishers" in self.model_fields_set else " alone, the default, since it isn't set"
        return f"{', '.join(self.publishers) or 'none'}{by_default}"

    def _unknown_publishers(self) -> Iterator[str]:
        is_named = "publisher" in self.print.model_fields_set
        if (self.publishers or is_named) and self.print.publisher not in self.publishers:
            yield (
                f"print.publisher is {self.print.publisher!r}{'' if is_named else ' by default'}, and there is no such "
                f"publisher: publishers has {self._publishers_there}"
                f"{'' if self.publishers else ', so leave print.publisher out'}"
            )
        output = self.archive.output
        if output != "store" and output not in self.publishers:
            yield (
                f"archive.output is {output!r}: it is 'store' or one of publishers, which has {self._publishers_there}"
            )
        elif output != "store" and not isinstance(self.publishers[output], Robot):
            yield (
                f"archive.output is {output!r}, a DICOM publisher: it makes a disc of a patient, and a volume has "
                f"many. Name 'store', or a publisher that takes images: of kind {', '.join(get_args(RobotKind))}."
            )

    def _wrong_inboxes(self) -> Iterator[str]:
        for name, inbox in self.inboxes.items():
            if name == self.receiver.ae_title:
                yield f"inboxes.{name} is receiver.ae_title too, which takes what jobs ask for: name another"
            if inbox.publisher and inbox.publisher not in self.publishers:
                yield (
                    f"inboxes.{name}.publisher is {inbox.publisher!r}, and there is no such publisher: publishers has "
                    f"{self._publishers_there}"
                )
            open_files = not inbox.publisher or inbox.again == "shelf"
            if self.disc.encryption == "required" or (self.disc.encryption != "allowed" and open_files):
                yield (
                    f"inboxes.{name} makes discs that anybody can read, and disc.encryption is "
                    f"{self.disc.encryption}: remove one"
                )
        if self.inboxes and self.prefect.api_url and not is_loopback(self.prefect.api_url):
            yield (
                "inboxes and prefect.api_url are both set: what is sent lies on one machine, and a worker of another "
                "one may get the job. Remove prefect.api_url: mkiso serve starts a server of its own"
            )
        if self.inboxes and self.storage.shared_dir:
            yield (
                "inboxes and storage.shared_dir are both set: what is sent lies on one machine, and another one may "
                "get the job"
            )

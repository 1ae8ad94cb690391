"""The configuration as frozen models: every key, its default and its bounds. mkiso.config.file reads it;
config.example.yaml explains it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mkiso.config.inboxes import Inbox, Peer
from mkiso.config.publishers import CStore, Publisher, Robot
from mkiso.config.section import (
    AeTitle,
    Encryption,
    Host,
    Medium,
    NamedPath,
    Network,
    Place,
    Port,
    Seconds,
    Section,
    TransferSyntax,
    Url,
)
from mkiso.config.sources import CMove, Source, Sources, alike
from mkiso.languages import SOURCE, languages


def _is_spoken(code: str) -> str:
    if code not in languages():
        raise ValueError(f"is none of the languages that there are: {', '.join(languages())}")
    return code


def _is_cron(line: str) -> str:
    try:
        CronSim(line, datetime(2000, 1, 1))
    except CronSimError as error:
        raise ValueError(
            f"{line!r} is no cron line ({error}): five fields, minute, hour, day, month, day of the week, as in "
            "'0 2 * * *'"
        ) from None
    return line


def _is_time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone: a name of the IANA database, as Europe/Berlin") from None
    return name


def _is_modality(code: str) -> str:
    if not re.fullmatch(r"[A-Z0-9_ ]{1,16}", code):  # VR CS (PS3.5 6.2)
        raise ValueError(f"{code!r} is no modality: capital letters, as CT, MR")
    return code


def _is_header(name: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):  # RFC 9110 5.1
        raise ValueError(f"{name!r} is no name of an HTTP header")
    return name


CronLine = Annotated[str, AfterValidator(_is_cron)]
TimeZoneName = Annotated[str, AfterValidator(_is_time_zone)]
LanguageCode = Annotated[str, AfterValidator(_is_spoken)]
HostName = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[A-Za-z0-9._-]{1,253}$")]
Origin = Annotated[
    str,
    StringConstraints(to_lower=True, pattern=r"^(none|https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?)$"),
]


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
    accel_redirect: Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9_/-]*/)?$")] = ""

    @field_validator("trusted_origins")
    @classmethod
    def _as_browsers_write_them(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(re.sub(r"^(http://.*):80$|^(https://.*):443$", r"\1\2", origin) for origin in origins)

    @property
    def known_hosts(self) -> frozenset[str]:
        """The names with a dot under which browsers may reach the webhook."""
        return frozenset((*self.hosts, urlsplit(self.public_url).hostname or ""))


V = TypeVar("V")


def _differ_by_more_than_case(named: Mapping[str, V]) -> Mapping[str, V]:
    """Names that people, headers and variables of the environment would take for one are an error."""
    for first, second in combinations(named, 2):
        if first.casefold() == second.casefold():
            raise ValueError(f"{first} and {second} are the same name: remove one")
    return named


class Key(Section):
    """The key of one program, and what it may do: make and take discs, print, see the site's list, cancel what it has
    asked for.
    """

    key: SecretStr = Field(description="the key itself, or key_file")
    rights: Annotated[
        tuple[Literal["disc", "search", "deidentify", "print", "list", "cancel"], ...], Field(min_length=1)
    ] = (
        "disc",
        "print",
        "cancel",
    )

    @field_validator("key")
    @classmethod
    def _is_long_enough(cls, key: SecretStr) -> SecretStr:
        if len(key.get_secret_value()) < 16:
            raise ValueError("has fewer than 16 characters: make one with `openssl rand -hex 32`")
        return key


KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]


SHARED_USER, KEY_USER = "shared key", "key:"
"""In the audit: the user of the shared key, and what stands before the name of a named key."""


class Auth(Section):
    """Who may ask: X-API-Key on /api/*. `api_key` may do everything, each of `keys` what its rights say."""

    enabled: bool = False
    api_key: SecretStr = SecretStr("")
    keys: Annotated[Mapping[KeyName, Key], AfterValidator(_differ_by_more_than_case)] = {}

    @model_validator(mode="after")
    def _key_where_enabled(self) -> Auth:
        if self.enabled and not self.api_key.get_secret_value() and not self.keys:
            raise ValueError(
                "auth.enabled is true and auth.api_key is empty: set MKISO__AUTH__API_KEY or auth.api_key_file"
            )
        if self.keys and not self.enabled:
            raise ValueError("auth.keys has keys and auth.enabled is false: set it to true, or anybody may do anything")
        return self

    @model_validator(mode="after")
    def _keys_differ(self) -> Auth:
        texts = {"auth.api_key": self.api_key.get_secret_value()}
        texts |= {f"auth.keys.{name}": each.key.get_secret_value() for name, each in self.keys.items()}
        for (name, key), (other, same) in combinations(texts.items(), 2):
            if key == same:
                raise ValueError(f"{name} and {other} are the same key: give each its own")
        return self


class SignIn(Section):
    """People sign in at an OpenID Connect provider; an empty issuer means that there is none."""

    issuer: str = ""
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    scopes: tuple[str, ...] = ("openid", "profile")
    user_claim: str = "sub"
    name_claim: str = "name"
    role_claim: str = "roles"
    roles: Mapping[Literal["clerk", "operator", "administrator"], tuple[str, ...]] = {}
    idle_minutes: float = Field(60, gt=0, le=1440)
    hours: float = Field(12, gt=0, le=168)
    clock_skew_seconds: int = Field(60, ge=0, le=600)
    authority: Place | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> SignIn:
        if not self.issuer:
            return self
        if not _is_private(self.issuer) or "?" in self.issuer or "#" in self.issuer:
            raise ValueError("sign_in.issuer is the provider's whole https address, as it names itself")
        missing = [name for name in ("client_id", "roles") if not getattr(self, name)]
        if missing:
            raise ValueError(f"sign_in.issuer is set: {' and '.join(f'sign_in.{name}' for name in missing)} are needed")
        if "openid" not in self.scopes:
            raise ValueError("sign_in.scopes needs openid")
        return self


def _is_private(url: str) -> bool:
    """Whether nobody between reads what goes to this address: https, or this machine."""
    parts = urlsplit(url)
    return (parts.scheme == "https" and bool(parts.hostname)) or (parts.scheme == "http" and is_loopback(url))


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own, which no other one reaches."""
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


class Tls(Section):
    """TLS of a DICOM port (PS3.15 B.9): certificate, key, and the authority that peers' certificates must come from."""

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
        Mapping[Annotated[str, AfterValidator(_is_header)], SecretStr], AfterValidator(_differ_by_more_than_case)
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


class Viewer(Section):
    """The viewer that goes onto each disc: an unpacked folder; empty: none."""

    directory: str = ""
    executable: str = ""
    place: Annotated[str, StringConstraints(pattern=r"^(root|[A-Z0-9_]{1,8})$")] = "root"
    autorun: bool = False


class Disc(Section):
    """What a disc is and how long it is kept."""

    medium: Medium = "cd"
    institution: str = ""
    contact: str = ""
    language: LanguageCode = SOURCE
    reuse_minutes: float = Field(60, ge=0, le=525_600)
    keep_hours: float = Field(24, gt=0, le=87_600)
    span: bool = True
    pictures: Literal["all", "key", "none"] = "all"
    encryption: Encryption = "allowed"
    transfer_syntax: TransferSyntax = "as-archived"
    recipients: tuple[Place, ...] = ()


class Priors(Section):
    """Earlier studies of the same patient that go onto a disc beside those asked for: the newest `count`; 0: none."""

    count: int = Field(0, ge=0, le=20)
    default: bool = False
    modality: Literal["same", "any"] = "same"
    body_part: Literal["same", "any"] = "same"
    years: int = Field(0, ge=0, le=150)
    span: bool = False

    @model_validator(mode="after")
    def _count_where_default(self) -> Priors:
        if self.default and not self.count:
            raise ValueError("priors.default is true and priors.count is 0: say how many earlier studies at most")
        return self


DeidentifiedOption = Literal["modified-dates", "patient-characteristics"]


class Deidentified(Section):
    """Copies for teaching and research that don't say whose they are; offered where there is a secret."""

    secret: SecretStr = SecretStr("")
    options: tuple[DeidentifiedOption, ...] = ()

    @field_validator("secret")
    @classmethod
    def _is_long(cls, secret: SecretStr) -> SecretStr:
        if 0 < len(secret.get_secret_value()) < 32:
            raise ValueError("is shorter than 32 characters: who guesses it can find the patients of all copies")
        return secret

    @field_validator("options")
    @classmethod
    def _once_in_order(cls, options: tuple[DeidentifiedOption, ...]) -> tuple[DeidentifiedOption, ...]:
        return tuple(sorted(set(options)))

    @property
    def is_offered(self) -> bool:
        return bool(self.secret.get_secret_value())


class Print(Section):
    """Which publisher prints take unless they name one, what is waited for, and what the counter page offers first."""

    publisher: str = "rimage"
    wait_for: Literal["queued", "done"] = "queued"
    default_action: Literal["file", "robot", "both"] = "file"


class Identity(Section):
    """What is held to be one patient, beside one Patient ID of at most one issuer; whether whoever asks has to know the
    patient's birth date.
    """

    placeholder_ids: tuple[str, ...] = ()
    compare: tuple[Literal["PatientBirthDate", "PatientSex"], ...] = ("PatientBirthDate", "PatientSex")
    confirm_birth_date: bool = False


class Archive(Section):
    """The nightly archive."""

    enabled: bool = False
    schedule: CronLine = "0 2 * * *"
    timezone: TimeZoneName = "UTC"
    days_back: int = Field(1, ge=1, le=366)
    recheck_days: int = Field(30, ge=0, le=3660)
    medium: Medium = "dvd"
    volume_mib: int = Field(0, ge=0)
    modalities: tuple[Annotated[str, AfterValidator(_is_modality)], ...] = ()
    output: str = "store"
    directory: NamedPath = Path("archive")
    ledger_url: SecretStr = SecretStr("")
    max_attempts: int = Field(5, ge=1)


class Storage(Section):
    """Where data lies and how much room it must leave. Relative folders are relative to the configuration file.

    Several machines share `shared_dir`; `data_dir` is each machine's own.
    """

    data_dir: NamedPath = Path("data")
    shared_dir: NamedPath | None = None
    min_free_gib: float = Field(5, ge=0)
    keep_failed_hours: float = Field(24, ge=0, le=87_600)

    @property
    def incoming_dir(self) -> Path:
        return self.data_dir / "incoming"

    @property
    def inboxes_dir(self) -> Path:
        """What was sent to inboxes (mkiso.storage.pushed)."""
        return self.data_dir / "inboxes"

    @property
    def spares_dir(self) -> Path:
        """Files for instances to come (mkiso.storage.spare_files)."""
        return self.data_dir / "spares"

    @property
    def jobs_dir(self) -> Path:
        return self.data_dir / "jobs"

    @property
    def discs_dir(self) -> Path:
        return (self.shared_dir or self.data_dir) / "discs"

    @property
    def reports_dir(self) -> Path:
        """Beside the discs, since both must be seen by every webhook."""
        return self.discs_dir / "jobs"

    @property
    def orders_dir(self) -> Path:
        """Beside the discs, since a rerun may land on another machine and must know what was ordered."""
        return self.discs_dir / "orders"

    @property
    def sessions_dir(self) -> Path:
        """Who is signed in; beside the discs, for every webhook."""
        return self.discs_dir / "sessions"

    @property
    def keys_dir(self) -> Path:
        """When each named key was used last, as the time of a file; beside the discs, for every webhook."""
        return self.discs_dir / "keys"

    @property
    def moves_dir(self) -> Path:
        """The lock files of C-MOVEs (mkiso.storage.slots)."""
        return self.data_dir / "moves"

    def moves_of(self, source: str) -> Path:
        """Those of one of several sources."""
        return self.moves_dir / source

    @property
    def volumes_dir(self) -> Path:
        """Archive volumes while they are made, each in a folder named by its label."""
        return self.data_dir / "volumes"

    @property
    def prefect_dir(self) -> Path:
        return self.data_dir / "prefect"

    @property
    def own_folders(self) -> tuple[Path, ...]:
        """The folders whose content mkiso makes and clears."""
        return (
            self.incoming_dir,
            self.spares_dir,
            self.inboxes_dir,
            self.jobs_dir,
            self.discs_dir,
            self.moves_dir,
            self.volumes_dir,
            self.prefect_dir,
        )

    @property
    def viewer_hashes(self) -> Path:
        """The hashes of the viewer's files, so that a viewer of 100 MB isn't read for every disc."""
        return self.data_dir / "viewer-hashes.json"

    @property
    def audit_undelivered(self) -> Path:
        """Audit messages that couldn't be delivered."""
        return self.data_dir / "audit-undelivered.xml"

    @property
    def receiver_socket(self) -> Path:
        """The Unix socket over which jobs tell the receiver what they expect."""
        return self.data_dir / "receiver.sock"

    @property
    def pictures_socket(self) -> Path:
        """The Unix socket at which jobs get the processes that make pictures."""
        return self.data_dir / "pictures.sock"


class Prefect(Section):
    """The orchestrator; an empty api_url means that `mkiso serve` starts one."""

    api_url: Url = ""
    api_auth_string: SecretStr = SecretStr("")
    work_pool: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9 ._-]{1,100}$")] = "mkiso"
    server_port: Port = 4200
    keep_runs_days: float = Field(30, gt=0, le=3650)

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
    target: str = ""
    source_id: Annotated[str, StringConstraints(min_length=1)] = "mkiso"
    patient_names: bool = True
    authority: Place | None = None
    certificate: Place | None = None
    key: Place | None = None

    @field_validator("target")
    @classmethod
    def _can_be_reached(cls, target: str) -> str:
        if "://" in target and not re.fullmatch(r"(udp|tls)://[^/:\s]+(:\d{1,5})?", target):
            raise ValueError("is a file, udp://host:port or tls://host:port")
        if "://" in target and urlsplit(target).port == 0:  # raises ValueError itself above 65535
            raise ValueError("names port 0: it is 1 to 65535")
        return target


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
    sources: Annotated[Sources, AfterValidator(_differ_by_more_than_case)] = {}  # noqa: RUF012  frozen
    receiver: Receiver = Receiver()
    patient_api: PatientApi = PatientApi()
    viewer: Viewer = Viewer()
    identity: Identity = Identity()
    disc: Disc = Disc()
    priors: Priors = Priors()
    deidentified: Deidentified = Deidentified()
    print: Print = Print()
    publishers: Annotated[Mapping[str, Publisher], AfterValidator(_differ_by_more_than_case)] = {"rimage": CStore()}
    inboxes: Annotated[Mapping[AeTitle, Inbox], AfterValidator(_differ_by_more_than_case)] = {}
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
        if self.sign_in.issuer and not _is_private(self.server.public_url):
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
        if self.publishers and self.print.publisher not in self.publishers:
            default = "" if "publisher" in self.print.model_fields_set else " by default"
            yield (
                f"print.publisher is {self.print.publisher!r}{default}, and there is no such publisher: publishers has "
                f"{self._publishers_there}"
            )
        output = self.archive.output
        if output != "store" and output not in self.publishers:
            yield (
                f"archive.output is {output!r}: it is 'store' or one of publishers, which has {self._publishers_there}"
            )
        elif output != "store" and not isinstance(self.publishers[output], Robot):
            yield (
                f"archive.output is {output!r}, a DICOM publisher: it makes a disc of a patient, and a volume has "
                "many. Name 'store' or one of the publishers that take images: epson, primera, rimage or folder."
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

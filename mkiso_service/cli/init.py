"""`mkiso init`: a commented configuration from a few answers, each tested as mkiso will use it."""

from __future__ import annotations

import errno
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from mkiso.config.settings import Settings
from mkiso.errors import ConfigurationError, MkisoError
from mkiso.storage.files import write_whole
from mkiso_service.ports import why_taken

TEST_SECONDS = 10.0
SERVICE_DATA = Path("/var/lib/mkiso")
TEMPLATE = """\
# mkiso's configuration; config.example.yaml has every other key with its default. After each change: mkiso config
# check, and restart mkiso.

{sources}
receiver:                        # what the PACS must know: this AE title, this machine's address, this port
  ae_title: {ae_title}
  port: {port}

server:
  host: {listen}  # 127.0.0.1: only this machine and its nginx; 0.0.0.0: every PC that reaches it
  port: {page_port}
  public_url: {public_url}  # how browsers reach mkiso; empty: host and port

auth:
  enabled: {auth}  # who may ask: everybody who reaches the page, or who has the key
{key_file}
disc:
  institution: {institution}  # on each disc, with whom to ask
  contact: {contact}

{publishers}
storage:
  data_dir: {data_dir}  # needs room for the discs of a day; belongs to the user that mkiso runs as
"""


@dataclass(frozen=True, slots=True)
class Answers:
    """What is asked. `pacs_url`: of a DICOMweb server, which has no AE title, host and port. `robot`: a kind of
    publisher, or empty; `robot_place`: its folder, or AE@host:port. `second_kind`: of a second source, or empty;
    `second_place`: AE@host:port, or the address of a DICOMweb server.
    """

    pacs_kind: str
    pacs_url: str
    pacs_ae_title: str
    pacs_host: str
    pacs_port: int
    ae_title: str
    port: int
    everybody: bool
    page_port: int
    public_url: str
    institution: str
    contact: str
    robot: str
    robot_place: str
    second_kind: str = ""
    second_place: str = ""


def written(answers: Answers, file: Path) -> str:
    """The configuration as text. Raises ConfigurationError where a place can't be read."""
    data_dir = SERVICE_DATA if file.is_relative_to("/etc") else Path("data")
    words = {name: _scalar(getattr(answers, name)) for name in answers.__slots__}
    return TEMPLATE.format_map(
        {
            **words,
            "listen": "0.0.0.0" if answers.everybody else "127.0.0.1",  # noqa: S104
            "auth": str(answers.everybody).lower(),
            "key_file": f"  api_key_file: {_scalar(key_file(file).name)}\n" if answers.everybody else "",
            "sources": _sources(answers),
            "publishers": _publishers(answers),
            "data_dir": _scalar(str(data_dir)),
        }
    )


def _sources(answers: Answers) -> str:
    """`pacs`, or `sources` where there is a second one."""
    ways = "cmove: the PACS sends to the receiver below; cget, dicomweb: nothing connects to mkiso"
    first = [f"kind: {_scalar(answers.pacs_kind)}  # {ways}"]
    if answers.pacs_kind == "dicomweb":
        first += _web_place(answers.pacs_url)
    else:
        first += [
            f"ae_title: {_scalar(answers.pacs_ae_title)}",
            f"host: {_scalar(answers.pacs_host)}",
            f"port: {answers.pacs_port}",
        ]
    if not answers.second_kind:
        head = "pacs:                            # one source of studies; several: sources in config.example.yaml\n"
        return head + "".join(f"  {line}\n" for line in first)
    if answers.second_kind == "dicomweb":
        place = _web_place(answers.second_place)
    else:
        place = list(_dicom_place(answers.second_place))
    domain = 'patient_domain: ""  # the same word in both, if they mean the same patient by the same Patient ID'
    text = "sources:                         # a study is taken from the first that has all of it\n"
    for name, lines in (("main", first), ("second", [f"kind: {answers.second_kind}", *place])):
        text += f"  - name: {name}\n" + "".join(f"    {line}\n" for line in (*lines, domain))
    return text


def _web_place(url: str) -> list[str]:
    return [f"base_url: {_scalar(url)}", "# user, secret_file, token_url, certificate …: config.example.yaml"]


def _dicom_place(place: str) -> Iterator[str]:
    """Raises ConfigurationError."""
    ae_title, _, address = place.partition("@")
    host, _, port = address.rpartition(":")
    if not (ae_title and host and port.isdecimal()):
        raise ConfigurationError(f"{place!r} is no AE@host:port, as RIMAGE@10.1.2.3:104.")
    yield f"ae_title: {_scalar(ae_title)}"
    yield f"host: {_scalar(host)}"
    yield f"port: {port}"


def _publishers(answers: Answers) -> str:
    if not answers.robot:
        return "publishers: {}                  # no robot: discs are files to download\n"
    lines = [f"kind: {answers.robot}"]
    if answers.robot in ("cstore", "mcm"):
        called = answers.robot_place.partition("@")[0]
        lines += _dicom_place(answers.robot_place)
    else:
        called = "Disc-Robot" if answers.robot == "folder" else answers.robot.capitalize()
        lines += [f"directory: {_scalar(answers.robot_place)}"]
    indented, name = "".join(f"    {line}\n" for line in lines), _scalar(called)
    return f"publishers:\n  {name}:  # this name is on the counter page\n{indented}\nprint:\n  publisher: {name}\n"


def _scalar(value: object) -> str:
    """JSON is YAML, and no text in it is taken for anything else."""
    return json.dumps(value, ensure_ascii=False)


def key_file(file: Path) -> Path:
    return file.with_name("api.key")


def save(file: Path, text: str, *, with_key: bool) -> None:
    """Write the file, and beside it the key that the page asks for; for mkiso's group to read, where there is one.

    Raises ConfigurationError.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)  # which was asked about
        contents = {file: text}
        if with_key and not key_file(file).exists():
            contents[key_file(file)] = f"{secrets.token_urlsafe(18)}\n"
        for target, content in contents.items():
            write_whole(target, content, durable=True)
            with suppress(LookupError, PermissionError):
                shutil.chown(target, group="mkiso")
                target.chmod(0o640)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or file} can't be written: {error.strerror}.") from None


def source_answers(settings: Settings, name: str) -> Iterator[str]:
    """What a source answers when it is checked, then when it is asked for the studies of today. Raises MkisoError."""
    from mkiso.sources.registry import source_of
    from mkiso.sources.search import Criteria, search

    source = source_of(settings, name)
    yield source.check(TEST_SECONDS, inside=True)
    found = search(source, Criteria(study_date=f"{date.today():%Y%m%d}"))
    yield f"It answers questions: {len(found.studies)}{' or more' if found.cut else ''} studies of today."


def publisher_answer(settings: Settings) -> str:
    """What the robot answers, or where it can be reached. Raises MkisoError."""
    from mkiso.publishers import publisher_of

    return publisher_of(settings.print.publisher, settings).check()


def troubles(settings: Settings, group: str) -> Iterator[tuple[bool, str]]:
    """Each test of a group of answers as it comes: whether it is well, and its words."""
    sources = {"pacs": settings.all_sources[:1], "second": settings.all_sources[1:]}.get(group, ())
    for each in sources:
        try:
            for words in source_answers(settings, each.name):
                yield True, words
        except MkisoError as error:
            yield False, error.words
    receiver, page = settings.receiver, settings.server
    listeners = {"mkiso": (receiver.host, receiver.port), "page": (page.host, page.port)}
    taken = why_taken(*listeners[group]) if group in listeners else None
    if taken and taken.errno == errno.EADDRINUSE:
        port = listeners[group][1]
        yield False, f"Port {port} is in use on this machine already: end what holds it, or give another one."
    if group == "robot" and settings.publishers:
        try:
            yield True, publisher_answer(settings)
        except MkisoError as error:
            yield False, error.words

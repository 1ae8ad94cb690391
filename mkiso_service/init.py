"""`mkiso init`: a commented configuration from a few answers, each tested as mkiso will use it."""

from __future__ import annotations

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

TEST_SECONDS = 10.0
SERVICE_DATA = Path("/var/lib/mkiso")
TEMPLATE = """\
# mkiso's configuration; config.example.yaml has every other key with its default. After each change: mkiso config
# check, and restart mkiso.

pacs:                            # one source of studies; several: sources in config.example.yaml
  kind: {pacs_kind}  # cmove: the PACS sends to the receiver below; cget: nothing connects to mkiso
  ae_title: {pacs_ae_title}
  host: {pacs_host}
  port: {pacs_port}

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
    """What is asked. `robot`: a kind of publisher, or empty; `robot_place`: its folder, or AE@host:port."""

    pacs_kind: str
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


def written(answers: Answers, file: Path) -> str:
    """The configuration as text. Raises ConfigurationError where the robot's place can't be read."""
    data_dir = SERVICE_DATA if file.is_relative_to("/etc") else Path("data")
    words = {name: _scalar(getattr(answers, name)) for name in answers.__slots__}
    return TEMPLATE.format_map(
        {
            **words,
            "listen": "0.0.0.0" if answers.everybody else "127.0.0.1",  # noqa: S104
            "auth": str(answers.everybody).lower(),
            "key_file": f"  api_key_file: {_scalar(key_file(file).name)}\n" if answers.everybody else "",
            "publishers": _publishers(answers),
            "data_dir": _scalar(str(data_dir)),
        }
    )


def _publishers(answers: Answers) -> str:
    if not answers.robot:
        return "publishers: {}                  # no robot: discs are files to download\n"
    lines = [f"kind: {answers.robot}"]
    if answers.robot in ("cstore", "mcm"):
        ae_title, _, address = answers.robot_place.partition("@")
        host, _, port = address.rpartition(":")
        if not (ae_title and host and port.isdecimal()):
            raise ConfigurationError(f"{answers.robot_place!r} is no AE@host:port, as RIMAGE@10.1.2.3:104.")
        lines += [f"ae_title: {_scalar(ae_title)}", f"host: {_scalar(host)}", f"port: {port}"]
    else:
        lines += [f"directory: {_scalar(answers.robot_place)}"]
    indented = "".join(f"    {line}\n" for line in lines)
    return f"publishers:\n  robot:\n{indented}\nprint:\n  publisher: robot\n"


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
        file.parent.mkdir(parents=True, exist_ok=True)
        contents = {file: text}
        if with_key and not key_file(file).exists():
            contents[key_file(file)] = f"{secrets.token_urlsafe(18)}\n"
        for target, content in contents.items():
            write_whole(target, content, durable=True)
            target.chmod(0o640)
            with suppress(LookupError, PermissionError):
                shutil.chown(target, group="mkiso")
    except OSError as error:
        raise ConfigurationError(f"{error.filename or file} can't be written: {error.strerror}.") from None


def pacs_answers(settings: Settings) -> Iterator[str]:
    """What the PACS answers to C-ECHO, then to C-FIND for the studies of today. Raises MkisoError."""
    from mkiso.sources.registry import source_of
    from mkiso.sources.search import Criteria, search

    source = source_of(settings)
    yield source.check(TEST_SECONDS, inside=True)
    found = search(source, Criteria(study_date=f"{date.today():%Y%m%d}"))
    yield f"It answers C-FIND: {len(found.studies)}{' or more' if found.cut else ''} studies of today."


def publisher_answer(settings: Settings) -> str:
    """What the robot answers, or where it can be reached. Raises MkisoError."""
    from mkiso.publishers import publisher_of

    return publisher_of(settings.print.publisher, settings).check()


def troubles(settings: Settings) -> Iterator[tuple[bool, str]]:
    """Each test of the answers as it comes: whether it is well, and its words."""
    try:
        for words in pacs_answers(settings):
            yield True, words
    except MkisoError as error:
        yield False, error.words
    if settings.publishers:
        try:
            yield True, publisher_answer(settings)
        except MkisoError as error:
            yield False, error.words

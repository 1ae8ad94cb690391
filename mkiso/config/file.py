"""Reading the configuration: once, when a service starts; an unknown key is an error that names the nearest one.

Order: defaults, the YAML file (`MKISO_CONFIG`, else ./config.yaml, else that of the service), the environment
(`MKISO__SECTION__KEY`). A secret may stand in a file of its own on either level (`…_file`, `MKISO__…_FILE`): the level
decides and not the form, and both forms on one level are an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from mkiso.config import publishers
from mkiso.config.problems import problem_of
from mkiso.config.section import as_path
from mkiso.config.settings import Settings
from mkiso.config.yaml_text import Read, load_text, read_yaml
from mkiso.errors import ConfigurationError

INSTALLED = Path("/etc/mkiso/config.yaml")
"""The service's own (`mkiso service install`), which a command uses in a folder without a config.yaml."""
ENVIRONMENT_PREFIX = "MKISO__"
_NOT_GIVEN = object()
ROUNDS = 50
"""More than a configuration has layers of mistakes behind each other."""
_NAMED = ("sources", "publishers", "inboxes")
"""The sections whose entries have names."""
UNKNOWN_SECRET = f"unknown:{'-' * 64}"
"""Stands where a secret can't be read: one that every key takes, so that nothing else is said of its absence."""


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration; without `path` from MKISO_CONFIG, else ./config.yaml or INSTALLED where there is one,
    else the defaults.

    Raises ConfigurationError whose `problems` name everything that is wrong at once.
    """
    settings, problems = read(path, environment)
    _raise(problems)
    return settings


def read(path: Path | None = None, environment: Mapping[str, str] | None = None) -> tuple[Settings, list[str]]:
    """As `load`, with every problem as a value; a section that has one is as by default.

    Raises ConfigurationError where the file can't be read at all.
    """
    environment = os.environ if environment is None else environment
    file, is_named = (path, True) if path else file_of(environment)
    values, problems, places = read_yaml(file, must_exist=is_named)
    _by_name(values, problems)
    _one_form_each(values, problems)
    overlay, names = _read_environment(environment, problems)
    _by_name(overlay, problems)
    _one_form_each(overlay, problems, names)
    places |= names
    _lay_over(values, overlay, problems)
    _read_secret_files(values, file.parent, problems)
    settings = _validated(values, file.parent, problems, places)
    try:
        settings = _absolute(settings, file.parent)
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"{file} names a folder with letters that {error.encoding} hasn't, in which the environment has Python "
            "write names of files: set LC_ALL=C.UTF-8, and not PYTHONUTF8=0."
        ) from None
    problems += folders_in_each_other(settings)
    return settings, problems


def _validated(values: dict[str, Any], folder: Path, problems: list[str], places: Mapping[str, str]) -> Settings:
    """The settings. What is wrong is left out and the rest looked at again, until nothing more is found; of sections
    that contradict each other, only where neither had a problem; of those with named entries the entry counts.
    `places`: where each dotted key stands, in words.
    """
    rest, wrong, gone = deepcopy(values), set[tuple[str, ...]](), set[tuple[int | str, ...]]()
    for _ in range(ROUNDS):
        try:
            settings = Settings.model_validate(rest, context=folder)
        except ValidationError as error:
            before = {section for section, *_ in wrong}
            for entry in error.errors():
                words, place = problem_of(entry, places), entry["loc"]
                is_told = words in problems or (len(place) == 1 and str(place[0]) in before)
                is_of_ours = entry["type"] in ("missing", "too_short") and place in gone
                problems += [] if is_told or is_of_ours else [words]
                gone.add(_leave_out(rest, place[:1] if is_told else place))
                wrong.add(tuple(map(str, place[: 2 if place[0] in _NAMED else 1])))
            continue
        problems += [words for words in settings.contradictions() if not any(_is_about(words, each) for each in wrong)]
        return settings
    return Settings()


def _is_about(words: str, place: tuple[str, ...]) -> bool:
    """Whether words tell of a section, or of one entry of it; what tells of all entries tells of each."""
    section, *name = place
    entry = rf"\.{re.escape(name[0])}(?![\w-])" if name else r"\."
    return bool(re.search(rf"\b{section}({entry}|\b has|, which)", words))


def _leave_out(values: dict[str, Any], place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Remove what is at a place, in which there are tags of kinds, too, that no values have: of a list all of it. The
    place of what was removed.
    """
    target: Any = values
    holder: dict[Any, Any] = {}
    end = 0
    for depth, part in enumerate(place, 1):
        if isinstance(target, dict) and part in target:
            holder, end, target = target, depth, target[part]
    if end:
        holder.pop(place[end - 1])
    return place[:end]


def folders_in_each_other(settings: Settings) -> list[str]:
    """What is wrong with where the folders lie: others' must not hold ours, which have patients' data in them, nor lie
    where mkiso clears up.
    """
    storage = settings.storage
    ours = {"storage.data_dir": storage.data_dir, "storage.shared_dir": storage.shared_dir}
    if settings.archive.enabled and settings.archive.output == "store":
        ours["archive.directory"] = settings.archive.directory
    others = {"viewer.directory": Path(settings.viewer.directory) if settings.viewer.directory else None}
    for name, publisher in settings.publishers.items():
        if isinstance(publisher, publishers.Robot):
            others[f"publishers.{name}.directory"] = publisher.directory
            others[f"publishers.{name}.status_directory"] = publisher.status_directory
    holding = [
        f"{name} {folder} holds {held} {inner}: use a folder of its own"
        for name, folder in others.items()
        for held, inner in ours.items()
        if folder and inner and inner.is_relative_to(folder)
    ]
    cleared = [
        f"{name} {folder} lies in {place}, where mkiso clears up: use a folder of its own"
        for name, folder in {**others, "archive.directory": ours.get("archive.directory")}.items()
        for place in storage.own_folders
        if folder and folder.is_relative_to(place)
    ]
    return holding + cleared


def file_of(environment: Mapping[str, str]) -> tuple[Path, bool]:
    """The configuration file, and whether it has to exist: MKISO_CONFIG names it, or it is the service's."""
    if named := environment.get("MKISO_CONFIG", ""):
        return Path(named), True
    here = Path("config.yaml")
    return (INSTALLED, True) if not os.path.lexists(here) and may_be_there(INSTALLED) else (here, False)


def may_be_there(file: Path) -> bool:
    """Whether a file is there; also where this user may not look into its folder, who hears that when it is read."""
    try:
        file.lstat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def named_in(environment: Mapping[str, str]) -> str:
    """Which configuration counts, as a sentence begins with it."""
    file, _ = file_of(environment)
    if file.exists():
        return str(file.resolve())
    is_set = any(name.startswith(ENVIRONMENT_PREFIX) for name in environment)
    rest = f"what no {ENVIRONMENT_PREFIX} variable sets" if is_set else "all"
    return f"There is no {file} here, so {rest} is by default: this"


def api_key_of(environment: Mapping[str, str]) -> str:
    """The key that a client of a running service sends, from the same variables as the service's own; empty where none
    is set.

    Raises ConfigurationError.
    """
    problems: list[str] = []
    ours = ("MKISO__AUTH__API_KEY", "MKISO__AUTH__API_KEY_FILE")
    values, names = _read_environment({name: environment[name] for name in ours if name in environment}, problems)
    _one_form_each(values, problems, names)
    _read_secret_files(values, Path(), problems)
    _raise(problems)
    return str(values.get("auth", {}).get("api_key", ""))


def _raise(problems: list[str]) -> None:
    if problems:
        raise ConfigurationError(
            f"The configuration has {len(problems)} problem{'s' * (len(problems) > 1)}: " + "; ".join(problems),
            tuple(problems),
        )


def read_secret(file: Path, named: str) -> str:
    """The secret in a file, without white space around it. Raises ConfigurationError where there is none: an empty
    secret is none and no password.
    """
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"The secret file {file} of {named} can't be read: {reason}.") from None
    if not secret:
        raise ConfigurationError(
            f"The secret file {file} of {named} is empty: write the secret into it, or remove {named}."
        )
    if len(secret.splitlines()) > 1:
        raise ConfigurationError(f"The secret file {file} of {named} has more than one line: a secret is one.")
    return secret


def _read_environment(environment: Mapping[str, str], problems: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the environment says, as the file would say it, and the variable of each dotted key."""
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    # Whole sections ([section: {…}]) first, whatever order the variables come in.
    for name in sorted(
        (name for name in environment if name.startswith(ENVIRONMENT_PREFIX)), key=lambda name: (name.count("__"), name)
    ):
        if not name.isprintable():
            problems.append(f"The environment variable {name!a} has a name that no key has: remove it.")
            continue
        dotted = ".".join(parts := name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        if dotted in names:
            problems.append(f"The environment variables {names[dotted]} and {name} are the same key: remove one.")
            continue
        names[dotted] = name
        target = values
        for section in parts[:-1]:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                problems.append(f"The environment variable {name} names a key below {section}, which is no section.")
                break
        else:
            try:
                target[parts[-1]], twice, _ = _value_of(environment[name])
            except (yaml.YAMLError, RecursionError):
                problems.append(f"The environment variable {name} is no YAML list or mapping.")
                continue
            problems += [f"{name}: {words}" for words in twice]
    return values, names


def _value_of(text: str) -> Read:
    """Lists and mappings are read as YAML; everything else stays text for pydantic to read."""
    return load_text(text) if text.lstrip()[:1] in ("[", "{") else Read(text, [], {})


def _lay_over(values: dict[str, Any], overlay: Mapping[str, Any], problems: list[str]) -> None:
    """Let the keys of `overlay` win; sections are laid over each other, so that a section of one key leaves the others
    as they are. The names of variables have no case: a key finds the one that is written otherwise in the file.
    """
    for named, value in overlay.items():
        alike = (each for each in values if str(each).lower() == named.lower())
        key = named if named in values else next(alike, named)
        below = values.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            _lay_over(below, value, problems)
        elif isinstance(value, dict) and below is not None and not isinstance(below, dict):
            problems.append(f"The environment names keys below {key}, which is no section in the file.")
        else:
            values[key] = value


def _by_name(values: dict[str, Any], problems: list[str]) -> None:
    """Let the names in the list of sources be keys, by which the environment and the words find them."""
    listed = values.get("sources")
    if not isinstance(listed, list):
        return
    named: dict[str, Any] = {}
    for number, source in enumerate(listed, 1):
        name = source.get("name") if isinstance(source, dict) else None
        if not isinstance(name, str) or not name:
            problems.append(f"sources: the {number}. has no name; each begins with - name: …")
        elif name in named:
            problems.append(f"sources.{name} stands there twice: give each a name of its own")
        else:
            named[name] = {key: value for key, value in source.items() if key != "name"}
    values["sources"] = named


@dataclass(frozen=True, slots=True)
class _SecretFile:
    """Where a secret is read from, if no other level says it; `named` is the key or variable that says so."""

    path: str
    named: str


def _secrets(
    values: dict[str, Any], model: type[BaseModel], where: str = ""
) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Each secret that `values` give in some form: the section where it stands, its key there, and its dotted name."""
    for key, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        section = values.get(key)
        if field.annotation is SecretStr:
            if key in values or f"{key}_file" in values:
                yield values, key, f"{where}{key}"
        elif not isinstance(section, dict):
            continue
        elif SecretStr in kinds:  # a mapping of secrets
            for name in dict.fromkeys(str(name).removesuffix("_file") for name in section):
                yield section, name, f"{where}{key}.{name}"
        elif inner := next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None):
            below = (
                {key: section}
                if field.annotation is inner
                else {f"{key}.{name}": each for name, each in section.items()}
            )
            for name, each in below.items():
                if isinstance(each, dict):
                    yield from _secrets(each, inner, f"{where}{name}.")


def _one_form_each(values: dict[str, Any], problems: list[str], names: Mapping[str, str] | None = None) -> None:
    """Bring each secret of a level to one key: its text, or the file where it stands. `names` are the variables of the
    environment by dotted key.

    An empty secret is an error; but in the file "" and null are how one says that there is none.
    """
    for section, key, where in list(_secrets(values, Settings)):
        plain, filed = ((names or {}).get(each, each) for each in (where, f"{where}_file"))
        if names is None and section.get(key) in (None, ""):
            section.pop(key, None)
        text, file = section.get(key), section.pop(f"{key}_file", _NOT_GIVEN)
        if file is not _NOT_GIVEN and key in section:
            problems.append(f"{plain} and {filed} are both set: remove one")
        elif isinstance(text, str) and not text.strip():
            problems.append(f"{plain} is set and empty: give it its value, or remove it")
        elif file is _NOT_GIVEN:
            continue
        elif isinstance(file, str) and file.strip():
            try:
                section[key] = _SecretFile(as_path(file), filed)
                continue
            except ValueError as error:
                problems.append(f"{filed} {error}")
        else:
            problems.append(f"{filed} names no file")
        section[key] = UNKNOWN_SECRET


def _read_secret_files(values: dict[str, Any], folder: Path, problems: list[str]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _read_secret_files(value, folder, problems)
        elif isinstance(value, _SecretFile):
            try:
                values[key] = read_secret(folder / value.path, value.named)
            except ConfigurationError as error:
                problems.append(error.words)
                values[key] = UNKNOWN_SECRET


def _absolute(settings: Settings, folder: Path) -> Settings:
    """Relative folders are relative to the configuration file: the processes of `mkiso serve` may be started from
    anywhere.
    """
    data_dir = (folder / settings.storage.data_dir).resolve()
    shared_dir = settings.storage.shared_dir and (folder / settings.storage.shared_dir).resolve()
    storage = settings.storage.model_copy(update={"data_dir": data_dir, "shared_dir": shared_dir})
    archive = settings.archive.model_copy(update={"directory": (data_dir / settings.archive.directory).resolve()})
    viewer = settings.viewer
    if viewer.directory:
        viewer = viewer.model_copy(update={"directory": str((folder / viewer.directory).resolve())})
    return settings.model_copy(update={"storage": storage, "archive": archive, "viewer": viewer})

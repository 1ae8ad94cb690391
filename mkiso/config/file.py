"""Reading the configuration: once, when a service starts; an unknown key is an error that names the nearest one.

Order: defaults, the YAML file (`MKISO_CONFIG`, else ./config.yaml), the environment (`MKISO__SECTION__KEY`). A secret
may stand in a file of its own on either level (`…_file`, `MKISO__…_FILE`): the level decides and not the form, and both
forms on one level are an error.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from mkiso.config import publishers, sources
from mkiso.config.settings import Settings
from mkiso.errors import ConfigurationError

ENVIRONMENT_PREFIX = "MKISO__"
_NOT_GIVEN = object()
ROUNDS = 50
"""More than a configuration has layers of mistakes behind each other."""
_KINDS: Mapping[str, tuple[int, Mapping[str, type[BaseModel]]]] = {
    "pacs": (1, sources.KINDS),
    "sources": (2, sources.KINDS),
    "publishers": (2, publishers.KINDS),
}
"""The sections whose keys depend on a kind, and at which depth the kind's keys stand."""
_NAMED = ("sources", "publishers", "inboxes")
"""The sections whose entries have names."""
UNKNOWN_SECRET = "unknown"  # noqa: S105  stands where a secret can't be read, so that nothing else is said of its absence


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration; without `path` from MKISO_CONFIG, else ./config.yaml where there is one, else the
    defaults.

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
    values, problems, places = _read_yaml(file, must_exist=is_named)
    _by_name(values, problems)
    _one_form_each(values, problems)
    overlay, names = _read_environment(environment, problems)
    _by_name(overlay, problems)
    _one_form_each(overlay, problems, names)
    places |= names
    _lay_over(values, overlay, problems)
    _read_secret_files(values, file.parent, problems)
    settings = _absolute(_validated(values, file.parent, problems, places), file.parent)
    problems += folders_in_each_other(settings)
    return settings, problems


def _validated(
    values: dict[str, Any], folder: Path, problems: list[str], places: Mapping[str, str] | None = None
) -> Settings:
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
                words, place = _problem(entry, places or {}), entry["loc"]
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
    """The configuration file, and whether MKISO_CONFIG names it: then it has to exist."""
    named = environment.get("MKISO_CONFIG", "")
    return Path(named or "config.yaml"), bool(named)


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
            f"The configuration has {len(problems)} problem(s): " + "; ".join(problems), tuple(problems)
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


DEEPEST = 8
"""More than any key of mkiso lies below others."""


class _Read(NamedTuple):
    """What a text of YAML says, the keys that stand twice, in words, and in which line each dotted key stands."""

    values: Any
    twice: list[str]
    places: dict[str, str]


class _Loader(yaml.SafeLoader):
    """YAML whose plain words stay text for pydantic to read: a key such as 0123 stays itself. `twice` has the keys that
    stand twice, in words; `places` the line of each dotted key.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  pyyaml's own way

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.twice: list[str] = []
        self.places: dict[str, str] = {}

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key.value, str):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                self.twice.append(f"{key.value} stands there twice, in lines {lines[key.value]} and {line}: remove one")
            lines[key.value] = line
        return node

    def get_single_data(self) -> Any:
        if (node := self.get_single_node()) is None:
            return None
        self._note(node, "")
        return self.construct_document(node)

    def _note(self, node: yaml.Node, above: str, depth: int = 0) -> None:
        """Of the list of sources each entry goes by its name."""
        if depth > DEEPEST:
            return
        if isinstance(node, yaml.MappingNode):
            below = [(str(key.value), key, each) for key, each in node.value]
        elif isinstance(node, yaml.SequenceNode):
            below = [(self._name_of(each) or str(number), each, each) for number, each in enumerate(node.value)]
        else:
            return
        for name, at, each in below:
            dotted = f"{above}.{name}" if above else name
            self.places.setdefault(dotted, f"line {at.start_mark.line + 1}")
            self._note(each, dotted, depth + 1)

    @staticmethod
    def _name_of(node: yaml.Node) -> str:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        return next((str(each.value) for key, each in pairs if key.value == "name"), "")


def _load_yaml(text: str) -> _Read:
    """What the text says. Raises yaml.YAMLError, RecursionError."""
    loader = _Loader(text)
    try:
        return _Read(loader.get_single_data(), loader.twice, loader.places)
    finally:
        loader.dispose()


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("^<<$"), ["<"])


def _unreadable(error: yaml.MarkedYAMLError) -> str:
    """Where YAML can't be read, and what to do; never the line itself, which may hold a secret."""
    problem = str(error.problem)
    words = next((words for said, words in _BROKEN_YAML.items() if said in problem), "it is no YAML there")
    begins = error.context_mark if "stream" in problem else None  # the end of the file says nothing
    mark = begins or error.problem_mark
    return f"line {mark.line + 1}: {words}" if mark else words


def _read_yaml(file: Path, *, must_exist: bool) -> _Read:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if must_exist or file.is_symlink():
            raise ConfigurationError(f"The configuration file {file} doesn't exist.") from None
        return _Read({}, [], {})
    except OSError as error:
        raise ConfigurationError(f"The configuration file {file} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"The configuration file {file} can't be read: it isn't UTF-8.") from None
    if not text.strip():
        raise ConfigurationError(
            f"The configuration file {file} is empty: was it saved by half? Where every default is meant, remove it."
        )
    try:
        values, twice, places = _load_yaml(text)
    except yaml.MarkedYAMLError as error:
        raise ConfigurationError(f"The configuration file {file} can't be read: {_unreadable(error)}.") from None
    except (yaml.YAMLError, RecursionError):
        raise ConfigurationError(f"The configuration file {file} can't be read: it is no YAML.") from None
    if values is None:
        return _Read({}, twice, {})
    if not isinstance(values, dict):
        held = "a list" if isinstance(values, list) else "a text alone"
        raise ConfigurationError(f"The configuration file {file} must hold sections such as 'pacs:', not {held}.")
    return _Read({section: {} if content is None else content for section, content in values.items()}, twice, places)


def _read_environment(environment: Mapping[str, str], problems: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the environment says, as the file would say it, and the variable of each dotted key."""
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    # Whole sections ([section: {…}]) first, whatever order the variables come in.
    for name in sorted(
        (name for name in environment if name.startswith(ENVIRONMENT_PREFIX)), key=lambda name: (name.count("__"), name)
    ):
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


def _value_of(text: str) -> _Read:
    """Lists and mappings are read as YAML; everything else stays text for pydantic to read."""
    return _load_yaml(text) if text.lstrip()[:1] in ("[", "{") else _Read(text, [], {})


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
    values: Mapping[str, Any], model: type[BaseModel], where: str = ""
) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Each secret that `values` give in some form: the section where it stands, its key there, and its dotted name."""
    for key, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        section = values.get(key)
        if field.annotation is SecretStr:
            if key in values or f"{key}_file" in values:
                yield values, key, f"{where}{key}"  # type: ignore[misc]
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
            section[key] = _SecretFile(file, filed)
            continue
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


_WORDS = dict.fromkeys(("tuple_type", "list_type"), "write a list, with brackets: [one, another]")
_WORDS["too_short"] = "write at least one, in brackets: [one]"
_WORDS |= dict.fromkeys(("dict_type", "model_type"), "write its entries below it, indented")
_WORDS |= dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "write a whole number")
_WORDS |= dict.fromkeys(("float_parsing", "float_type"), "write a number")
_WORDS |= dict.fromkeys(("bool_parsing", "bool_type"), "write true or false")
_WORDS |= dict.fromkeys(("string_type", "path_type"), "write a text, in quotes where it has special characters")
_WORDS |= {
    "finite_number": "write a number that has an end",
    "int_parsing_size": "write a smaller number",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "write one of {expected}",
    "string_too_short": "must have at least one character",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "has a character that can't stand there, or none where one must",
    "too_long": "has more than {max_length} entries",
}
_BROKEN_YAML = {
    "found character '\\t'": "a tab begins it: indent with spaces",
    "that cannot start any token": "no text can begin with such a character: put it in quotes",
    "expected ',' or": "a bracket isn't closed, or a text within brackets needs quotes",
    "expected <block end>": "it doesn't begin below the line that it belongs to: check the spaces before it",
    "expected the node content": "something is missing there, or a text needs quotes",
    "unexpected end of stream": "a quote isn't closed",
    "mapping values are not allowed": "a second colon: put the text in quotes, or check the spaces before it",
    "could not find expected ':'": "a key without its colon",
    "expected '<document start>'": "something stands there that belongs to no key",
    "another document": "a second document begins (---): a configuration is one",
    "undefined alias": "a text that begins with * needs quotes",
    "constructor for the tag": "a text that begins with ! needs quotes",
    "unhashable key": "a key is one word",
    "unknown escape character": "a backslash in double quotes: use single quotes",
}


def _told_at(place: Sequence[str], places: Mapping[str, str]) -> str:
    """Where a key stands, or what is nearest above it, in words."""
    for end in range(len(place), 0, -1):
        if found := places.get(".".join(place[:end])):
            return f" ({found})"
    return ""


def _message(entry: Any) -> str:
    """What is wrong with a value, in our words. Those that aren't ours are pydantic's, and no key of ours has one."""
    if entry["type"] in ("source_kind", "publisher_kind") and not isinstance(entry["input"], Mapping):
        return _WORDS["model_type"]
    words = _WORDS.get(entry["type"])
    if words is None:
        return str(entry["msg"]).removeprefix("Value error, ")
    return words.format_map(entry.get("ctx", {})).replace("'", "").replace(" or ", ", ") if "{" in words else words


def _problem(entry: Any, places: Mapping[str, str]) -> str:
    """What is wrong, in words, with the dotted key and where it stands; of an unknown one the nearest that there is."""
    model, place = _model_at(entry["loc"])
    return f"{_said_of(entry, model, place)}{_told_at(place, places)}"


def _said_of(entry: Any, model: type[BaseModel], place: list[str]) -> str:
    where, section, key = ".".join(place), place[:-1], place[-1] if place else ""
    if entry["type"] == "missing":
        return f"{'.'.join(section)} needs {key}: {model.model_fields[key].description}"
    if entry["type"] != "extra_forbidden":
        message = _message(entry)
        if message.startswith(f"{where}."):
            return message
        if message.startswith(f"{key}."):
            return f"{'.'.join(section)}.{message}"
        if key == "[key]":
            return f"{'.'.join(section)}, as a name: {message}"
        verb = message.startswith(("is ", "must ", "has "))
        return f"{where}{' ' if verb else ': '}{message}" if where else message
    kinds = _KINDS[section[0]][1] if section and section[0] in _KINDS else {}
    if others := [kind for kind, each in kinds.items() if key in each.model_fields]:
        return f"{where} is a key of {section[0]} of kind {', '.join(others)}, and this one is of another kind"
    keys = [*model.model_fields, *(each for kind in kinds.values() for each in kind.model_fields)]
    if near := difflib.get_close_matches(key[:64], keys, n=1):
        return f"{where} is no key of mkiso; did you mean {'.'.join([*section, *near])}?"
    if elsewhere := [name for name, field in Settings.model_fields.items() if key in _keys_of(field.annotation)]:
        return f"{where} is no key of mkiso; there is {' and '.join(f'{name}.{key}' for name in elsewhere)}"
    return f"{where} is no key of mkiso; the keys there are {', '.join(model.model_fields)}"


def _keys_of(annotation: Any) -> Iterable[str]:
    return annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else ()


def _model_at(location: tuple[Any, ...]) -> tuple[type[BaseModel], list[str]]:
    """The section that a place is in, and the place without the tag that pydantic puts before the keys of a kind."""
    parts = [str(part) for part in location]
    if parts and parts[0] in _KINDS:
        depth, kinds = _KINDS[parts[0]]
        if len(parts) == depth + 1 and parts[depth] in kinds:
            return Settings, parts[:depth]
        if len(parts) > depth + 1:
            return kinds.get(parts[depth], publishers.Robot), [*parts[:depth], *parts[depth + 1 :]]
    model: type[BaseModel] = Settings
    for part in parts[:-1]:
        field = model.model_fields.get(part)
        inner = (field.annotation, *get_args(field.annotation)) if field else ()
        model = next((each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)), model)
    return model, parts


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

"""What a text of YAML says: keys that stand twice, the line of each key, and in words what is no YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mkiso.errors import ConfigurationError

DEEPEST = 8
"""More than any key of mkiso lies below others."""


class Read(NamedTuple):
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
            if re.search("[\ud800-\udfff]", key.value):
                raise yaml.MarkedYAMLError(problem="lone surrogate", problem_mark=key.start_mark)
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
            raise yaml.MarkedYAMLError(problem="too deep", problem_mark=node.start_mark)
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


def load_text(text: str) -> Read:
    """What the text says. Raises yaml.YAMLError, RecursionError."""
    loader = _Loader(text)
    try:
        return Read(loader.get_single_data(), loader.twice, loader.places)
    finally:
        loader.dispose()


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("^<<$"), ["<"])


def _unreadable(error: yaml.MarkedYAMLError) -> str:
    """Where YAML can't be read, and what to do; never the line itself, which may hold a secret."""
    problem = str(error.problem)
    words = next((words for said, words in _BROKEN_YAML.items() if said in problem), "it is no YAML there")
    # The end of the file says nothing, nor does the line after a key without its colon.
    begins = error.context_mark if "stream" in problem or "expected ':'" in problem else None
    mark = begins or error.problem_mark
    return f"line {mark.line + 1}: {words}" if mark else words


def read_yaml(file: Path, *, must_exist: bool) -> Read:
    """The sections of a file. Raises ConfigurationError where it can't be read."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if must_exist or file.is_symlink():
            raise ConfigurationError(f"The configuration file {file} doesn't exist.") from None
        return Read({}, [], {})
    except OSError as error:
        way = _AS_MKISO if isinstance(error, PermissionError) else ""
        raise ConfigurationError(f"The configuration file {file} can't be read: {error.strerror}.{way}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"The configuration file {file} can't be read: it isn't UTF-8. Save it as UTF-8."
        ) from None
    if not text.strip():
        raise ConfigurationError(
            f"The configuration file {file} is empty: was it saved by half? Where every default is meant, remove it."
        )
    try:
        values, twice, places = load_text(text)
    except yaml.MarkedYAMLError as error:
        raise ConfigurationError(f"The configuration file {file} can't be read: {_unreadable(error)}.") from None
    except (yaml.YAMLError, RecursionError):
        raise ConfigurationError(f"The configuration file {file} can't be read: it is no YAML.") from None
    if values is None:
        return Read({}, twice, {})
    if not isinstance(values, dict):
        held = "a list" if isinstance(values, list) else "a text alone"
        raise ConfigurationError(f"The configuration file {file} must hold sections such as 'pacs:', not {held}.")
    return Read({section: {} if content is None else content for section, content in values.items()}, twice, places)


_AS_MKISO = " Run this as the user that mkiso runs as (runuser -u mkiso -- …), or let this user read it."
_BROKEN_YAML = {
    "found character '\\t'": "a tab begins it: indent with spaces",
    "that cannot start any token": "no text can begin with such a character: put it in quotes",
    "expected ',' or": "a bracket isn't closed, or a text within brackets needs quotes",
    "<block end>, but found '<scalar>'": "a quote ends before its text, or one above isn't closed; or check the spaces",
    "expected <block end>": "it doesn't begin below the line that it belongs to: check the spaces before it",
    "expected the node content": "something is missing there, or a text needs quotes",
    "unexpected end of stream": "a quote isn't closed",
    "mapping values are not allowed": (
        "a second colon: put the text in quotes, or check the spaces before it and after the colon above"
    ),
    "could not find expected ':'": "a key without its colon, or without the space after it",
    "expected '<document start>'": "something stands there that belongs to no key",
    "another document": "a second document begins (---): a configuration is one",
    "undefined alias": "a text that begins with * needs quotes",
    "constructor for the tag": "a text that begins with ! needs quotes",
    "lone surrogate": "a key has half of a character in it: write it anew",
    "unhashable key": "a key is one word",
    "too deep": "more levels lie below each other than any key has, or a name (&) stands for what it lies in",
    "unknown escape character": "a backslash in double quotes: use single quotes",
}

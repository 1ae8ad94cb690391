"""What is wrong with a value of the configuration, in words: with its key, where that stands, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from mkiso.config import publishers, sources
from mkiso.config.settings import Settings

_KINDS: Mapping[str, tuple[int, Mapping[str, type[BaseModel]]]] = {
    "pacs": (1, sources.KINDS),
    "sources": (2, sources.KINDS),
    "publishers": (2, publishers.KINDS),
}
"""The sections whose keys depend on a kind, and at which depth the kind's keys stand."""
_WORDS = dict.fromkeys(("tuple_type", "list_type"), "write a list, with brackets: [one, another]")
_WORDS["too_short"] = "write at least one, in brackets: [one]"
_WORDS |= dict.fromkeys(("dict_type", "model_type"), "write its entries below it, indented")
_WORDS |= dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "write a whole number")
_WORDS |= dict.fromkeys(("float_parsing", "float_type"), "write a number")
_WORDS |= dict.fromkeys(("bool_parsing", "bool_type"), "write true or false")
_WORDS |= dict.fromkeys(("string_type", "path_type"), "write a text, in quotes where it has special characters")
_WORDS |= {
    "string_unicode": "has a character that is no character by itself: write it anew",
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


_ODD = re.compile(r"[^\x00-\x7F]")  # such as “ of a word processor


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
    if entry["type"] == "string_pattern_mismatch" and (odd := _ODD.search(entry["input"])):
        return f"has the character {odd.group()}, which can't stand there"
    words = _WORDS.get(entry["type"])
    if words is None:
        return str(entry["msg"]).removeprefix("Value error, ")
    return words.format_map(entry.get("ctx", {})).replace("'", "").replace(" or ", ", ") if "{" in words else words


def problem_of(entry: Any, places: Mapping[str, str]) -> str:
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
    near = difflib.get_close_matches(key[:64], keys, n=1) or [each for each in keys if key in each.split("_")][:1]
    if near:
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
    is_named = False  # a part that is an entry's name is no key, whatever it is called
    for part in parts[:-1]:
        field = None if is_named else model.model_fields.get(part)
        is_named = field is not None and get_origin(field.annotation) is Mapping
        inner = (field.annotation, *get_args(field.annotation)) if field else ()
        model = next((each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)), model)
    return model, parts

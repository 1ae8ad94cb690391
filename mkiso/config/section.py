"""What every section of the configuration is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

V = TypeVar("V")
AeTitle = Annotated[  # VR AE (PS3.5 6.2): no backslash, no control character
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[\x20-\x5B\x5D-\x7E]+$")
]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
SECRET_CHARACTERS = 16
Medium = Literal["cd", "dvd", "dvd-dl", "bd", "bd-dl"]
Carrier = Medium | Literal["zip", "zip-encrypted", "usb"]
"""What a disc is laid out for: a medium, or a file that needs none."""

Encryption = Literal["allowed", "required_for_files", "required"]
"""What a site asks of what it hands out: nothing; that files are encrypted, but not what robots make; that all is."""
TransferSyntax = Literal["as-archived", "explicit-le"]
"""What the images of a disc are stored as."""


def _of_whole_characters(given: object) -> object:
    """What nobody could write as UTF-8 is refused before a disc is made with it."""
    for each in given if isinstance(given, list) else (given,):
        if isinstance(each, str) and (half := re.search("[\ud800-\udfff]", each)):
            raise ValueError(f"has half of a character in it (U+{ord(half[0]):04X}): write it anew")
    return given


def as_path(text: str) -> str:
    """The text, where the system can have a file of this name. Raises ValueError."""
    if "\0" in text:
        raise ValueError("has a character that no name of a file can have (U+0000): write it anew")
    if text.startswith("~"):
        raise ValueError("has a ~ at its beginning, which only a shell understands: write the whole path")
    return str(_of_whole_characters(text))


def _named(path: object) -> object:
    if path == "":
        raise ValueError("is empty and names nothing")
    return as_path(path) if isinstance(path, str) else path


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    return path if info.context is None else (info.context / path).absolute()


PathText = Annotated[str, BeforeValidator(lambda text: as_path(text) if isinstance(text, str) else text)]
"""A path that may be left out: empty."""
NamedPath = Annotated[Path, BeforeValidator(_named)]
Place = Annotated[NamedPath, AfterValidator(_beside_the_file)]
"""A file or folder; a relative one lies beside the configuration file, whose folder is the validation's context:
processes start from anywhere.
"""


def _is_host(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    if not host.strip():
        raise ValueError("is empty: write the address or the name of the machine")
    if "/" in host:
        raise ValueError("is a web address: write the machine's name or address alone")
    if with_port := re.fullmatch(r"\[?([^\[\]]+?)\]?:(\d+)", host):
        raise ValueError(f"is a host and a port: write host: {with_port[1]} and port: {with_port[2]}")
    if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?", host) or re.fullmatch(r"[\d.]+", host):
        raise ValueError("is no name of a machine and no address")
    return host


def title_and_network(peer: str) -> tuple[str | None, str | None]:
    """The AE title and the network of a peer, as in `AE`, `10.1.0.0/16` or `AE@10.1.0.0/16`; None: any."""
    title, at, network = peer.rpartition("@")
    if at:
        return title, network
    try:
        ip_network(peer, strict=False)
    except ValueError:
        return peer, None
    return None, peer


def is_network(text: str, *, strict: bool = True) -> str:
    """The address or network as it was given. Raises ValueError."""
    try:
        ip_network(text, strict=strict)
    except ValueError:
        raise ValueError(f"{text!r} is no address or network: 10.1.2.3, 10.1.2.0/24, fd00::/8") from None
    return text


def _is_url(url: str) -> str:
    parts = urlsplit(url)  # raises ValueError itself for half an IPv6 address
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", url)):
        raise ValueError("must be the whole address, with https:// (or http://) in front")
    if parts.port == 0:  # raises ValueError itself above 65535
        raise ValueError("names port 0: it is 1 to 65535")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("is the address alone, without user, ? and #")
    return url


def _can_be_sent(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().isprintable():
        raise ValueError("has a character that nobody can type or send, such as a line break: take it out")
    return secret


def long_enough(secret: SecretStr) -> SecretStr:
    """A secret that a site makes itself, where nobody tries so many that it is found. Raises ValueError."""
    if len(secret.get_secret_value()) < SECRET_CHARACTERS:
        raise ValueError(f"has fewer than {SECRET_CHARACTERS} characters: make one with `openssl rand -hex 32`")
    return secret


SentSecret = Annotated[SecretStr, AfterValidator(_can_be_sent)]
"""Which programs send in a header and people type into a form."""
Host = Annotated[str, AfterValidator(_is_host)]
Network = Annotated[str, AfterValidator(is_network)]
Url = Annotated[str, AfterValidator(_is_url)]
"""Of http or https; empty: none."""


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused, no number that is none, no text that can't be written."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

    _whole = field_validator("*", mode="before")(_of_whole_characters)


def _each_title_once(named: object) -> object:
    titles = [name for name in named if isinstance(name, str)] if isinstance(named, Mapping) else []
    for first, second in combinations(titles, 2):
        if first.strip() == second.strip():  # spaces at its ends are no part of it (PS3.5 6.2)
            raise ValueError(f"{first!r} and {second!r} are the same AE title: remove one")
    return named


EachTitleOnce = BeforeValidator(_each_title_once)
"""Of a mapping by AE title."""


def differ_by_more_than_case(named: Mapping[str, V]) -> Mapping[str, V]:
    """Names that people, headers and variables of the environment would take for one are an error."""
    for first, second in combinations(named, 2):
        if first.casefold() == second.casefold():
            raise ValueError(f"{first} and {second} are the same name: remove one")
    return named

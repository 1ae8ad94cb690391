"""The settings of an inbox: an AE title of ours to which studies are sent, and what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mkiso.config.section import (
    AeTitle,
    EachTitleOnce,
    Host,
    Medium,
    Port,
    Seconds,
    Section,
    is_network,
    title_and_network,
)


def _is_peer(peer: str) -> str:
    """An AE title, a network, or both: `AE@10.1.0.0/16`."""
    _, at, network = peer.rpartition("@")
    if at or "/" in peer or re.fullmatch(r"[\d.]*\.[\d.]*|[0-9A-Fa-f:]*:[0-9A-Fa-f:]*", peer):
        is_network(network, strict=False)
    elif not re.fullmatch(r"[\x20-\x5B\x5D-\x7E]{1,16}", peer):
        raise ValueError(f"{peer!r} is no AE title, address or network")
    elif re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", peer):
        raise ValueError(f"{peer!r} is a machine's name: write its address; an AE title like this is {peer}@0.0.0.0/0")
    return peer


Peer = Annotated[str, AfterValidator(_is_peer)]


class HostPort(Section):
    """Where somebody listens."""

    host: Host
    port: Port


FormatName = Literal["iso", "zip", "usb"]


class Inbox(Section):
    """What is sent to this AE title becomes a disc, study by study. An empty publisher: on the shelf, in this format.

    `ask`: who says that a study is whole. `fetch`: what the PACS has and nobody sent is moved from there. `again`: what
    becomes of a study that grows after its disc was made. `reports`: where senders want to be called with their storage
    commitment, by AE title; others get it on the association in which they ask.
    """

    senders: Annotated[tuple[Peer, ...], Field(min_length=1, description="who may send: AE titles, addresses")]
    publisher: str = ""
    medium: Medium | None = None
    copies: int | None = Field(None, ge=1, le=50)
    format: FormatName = "iso"
    ask: Literal["pacs", "none"] = "pacs"
    fetch: bool = True
    again: Literal["no", "shelf"] = "shelf"
    quiet_seconds: Seconds = 60
    wait_minutes: float = Field(30, ge=0, le=1440)
    max_gib: float = Field(50, gt=0)
    max_studies: int = Field(2000, ge=1, le=100_000)
    max_instances: int = Field(20_000, ge=1, le=1_000_000)
    reports: Annotated[Mapping[AeTitle, HostPort], EachTitleOnce] = {}
    keep_hours: float = Field(24, gt=0, le=87_600)

    @model_validator(mode="after")
    def _goes_one_way(self) -> Inbox:
        if self.publisher and self.format != "iso":
            raise ValueError("has a publisher and a format: a publisher makes discs, so leave the format out")
        if not self.publisher and self.copies:
            raise ValueError("has copies and no publisher, which would make them")
        return self

    @model_validator(mode="after")
    def _reports_to_senders(self) -> Inbox:
        titles = [title_and_network(sender)[0] for sender in self.senders]
        strangers = [name for name in self.reports if name not in titles]
        if strangers and all(titles):
            raise ValueError(
                f"reports names {', '.join(strangers)}, which may not send: senders has {', '.join(self.senders)}"
            )
        return self

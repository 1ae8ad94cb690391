"""The settings of a source of studies, by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from mkiso.config.section import AeTitle, Host, Port, Seconds, Section


class AnySource(Section):
    """What each source has."""

    require_counts: bool = True
    find_limit: int = Field(0, ge=0)
    max_moves: int = Field(2, ge=1, le=16)
    move_attempts: int = Field(3, ge=1, le=10)
    back_off_seconds: Seconds = 2


class Pacs(AnySource):
    """A Query/Retrieve SCP."""

    ae_title: AeTitle = "ABPACS"
    host: Host = "127.0.0.1"
    port: Port = 11112
    calling_ae_title: AeTitle | None = None
    connect_timeout_seconds: Seconds = 10
    response_timeout_seconds: Seconds = 60
    quiet_timeout_seconds: Seconds = 60

    @property
    def user_id(self) -> str:
        """What the audit trail calls it (DICOM PS3.15 A.5.2.1, UserID)."""
        return self.ae_title


class CMove(Pacs):
    """A PACS that is asked by C-FIND and sends by C-MOVE to the receiver."""

    kind: Literal["cmove"] = "cmove"


class CGet(Pacs):
    """A PACS that is asked by C-FIND and sends by C-GET, in the association that asks: nothing has to reach us."""

    kind: Literal["cget"] = "cget"


KINDS: Mapping[str, type[CMove | CGet]] = {"cmove": CMove, "cget": CGet}


def _kind_of(values: Any) -> str:
    return str(values.get("kind", "cmove")) if isinstance(values, Mapping) else str(getattr(values, "kind", ""))


Source = Annotated[
    Annotated[CMove, Tag("cmove")] | Annotated[CGet, Tag("cget")],
    Discriminator(_kind_of, custom_error_type="source_kind", custom_error_message=f"kind is one of {', '.join(KINDS)}"),
]

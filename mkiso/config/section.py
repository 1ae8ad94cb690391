"""What every section of the configuration is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
)

AeTitle = Annotated[  # VR AE (PS3.5 6.2): no backslash, no control character
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[\x20-\x5B\x5D-\x7E]+$")
]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Medium = Literal["cd", "dvd", "dvd-dl", "bd", "bd-dl"]


def _named(path: object) -> object:
    if path == "":
        raise ValueError("is empty and names nothing")
    return path


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    return path if info.context is None else (info.context / path).absolute()


NamedPath = Annotated[Path, BeforeValidator(_named)]
Place = Annotated[NamedPath, AfterValidator(_beside_the_file)]
"""A file or folder; a relative one lies beside the configuration file, whose folder is the validation's context:
processes start from anywhere.
"""


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused, and no number that is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

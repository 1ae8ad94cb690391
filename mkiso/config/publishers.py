"""The settings of a disc publisher, by its kind."""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator

from mkiso.config.robots import RobotKind
from mkiso.config.section import AeTitle, Host, Medium, Place, Port, Seconds, Section

LABEL_VALUES = (
    "patient_name",
    "patient_id",
    "birth_date",
    "sex",
    "accession_number",
    "study_date",
    "institution",
    "number",
    "total",
    "selection",
)
"""What a template of a label may name."""


def _known_alone(fields: Mapping[str, str]) -> Mapping[str, str]:
    for name, template in fields.items():
        if template.count("{") != template.count("}"):
            raise ValueError(f"{name} has a bracket {{ or }} without its other one")
        for value in re.findall(r"\{([^{}]*)\}", template):
            if value not in LABEL_VALUES:
                near = difflib.get_close_matches(value[:64], LABEL_VALUES, n=1)
                hint = f"did you mean {{{near[0]}}}?" if near else f"there are {', '.join(LABEL_VALUES)}"
                raise ValueError(f"{name} names {{{value}}}, which no label has; {hint}")
    return fields


class AnyPublisher(Section):
    """What each publisher has."""

    medium: Medium = "cd"
    copies: int = Field(1, ge=1, le=50)
    silent_minutes: float = Field(30, gt=0, le=525_600)


class DicomPublisher(AnyPublisher):
    """A publisher that is reached over DICOM."""

    ae_title: AeTitle = "RIMAGE"
    host: Host = "127.0.0.1"
    port: Port = 10105
    calling_ae_title: AeTitle | None = None
    transcode: bool = False
    connect_timeout_seconds: Seconds = 10
    response_timeout_seconds: Seconds = 60
    attempts: int = Field(3, ge=1, le=10)

    @property
    def where(self) -> str:
        """The address that it is reached at, written in one way: two names that lead there are one publisher."""
        return f"{self.host.lower()}:{self.port}"


class CStore(DicomPublisher):
    """A publisher that makes a disc of the instances that it is sent."""

    kind: Literal["cstore"] = "cstore"
    settle_seconds: float = Field(90, ge=0, le=86_400)
    storage_commitment: bool = False
    commitment_port: Port | None = None


class MediaCreation(DicomPublisher):
    """A publisher that is told by Media Creation Management (PS3.4 S) what to make."""

    kind: Literal["mcm"] = "mcm"
    label_fields: Annotated[Mapping[str, str], AfterValidator(_known_alone)] = {}


class Robot(AnyPublisher):
    """A robot that takes an image and an order from the folder that it watches."""

    kind: RobotKind
    directory: Place = Field(description="the folder that it watches")
    status_directory: Place | None = None
    robot_directory: str = ""
    label_template: str = ""
    label_fields: Annotated[Mapping[str, str], AfterValidator(_known_alone)] = {}
    label_encoding: str = "cp1252"

    @field_validator("label_encoding")
    @classmethod
    def _encoding_exists(cls, encoding: str) -> str:
        try:
            "A".encode(encoding)  # what is no encoding of texts (base64) raises here
            return codecs.lookup(encoding).name
        except LookupError:
            raise ValueError(
                f"{encoding} is no text encoding; cp1252 is Western ANSI, cp874 Thai, utf-8 Unicode"
            ) from None

    @property
    def where(self) -> str:
        """The folder that it is reached at."""
        return str(self.directory)


KINDS: Mapping[str, type[CStore | MediaCreation | Robot]] = {
    "cstore": CStore,
    "mcm": MediaCreation,
    **dict.fromkeys(get_args(RobotKind), Robot),
}


def kind_of(values: Any) -> str:
    """The kind of a publisher that is being read; cstore where it names none."""
    return str(values.get("kind", "cstore")) if isinstance(values, Mapping) else str(getattr(values, "kind", ""))


Publisher = Annotated[
    Annotated[CStore, Tag("cstore")] | Annotated[MediaCreation, Tag("mcm")] | Annotated[Robot, Tag("watched folder")],
    Discriminator(
        lambda values: "watched folder" if (kind := kind_of(values)) in get_args(RobotKind) else kind,
        custom_error_type="publisher_kind",
        custom_error_message=f"kind is one of {', '.join(KINDS)}",
    ),
]

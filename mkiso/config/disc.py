"""What a disc is: whose it may be, what is on it, who prints it, and copies that don't say whose they are."""

from __future__ import annotations

from pathlib import PureWindowsPath
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, field_validator, model_validator

from mkiso.config.section import Encryption, Medium, PathText, Place, Section, TransferSyntax
from mkiso.languages import SOURCE, languages


def _is_spoken(code: str) -> str:
    if code not in languages():
        raise ValueError(f"is none of the languages that there are: {', '.join(languages())}")
    return code


LanguageCode = Annotated[str, AfterValidator(_is_spoken)]


class Viewer(Section):
    """The viewer that goes onto each disc: an unpacked folder; empty: none."""

    directory: PathText = ""
    executable: PathText = ""
    place: Annotated[str, StringConstraints(pattern=r"^(root|[A-Z0-9_]{1,8})$")] = "root"
    autorun: bool = False

    @field_validator("executable")
    @classmethod
    def _lies_within(cls, executable: str) -> str:
        path = PureWindowsPath(executable)  # takes both kinds of slash
        if path.anchor or ".." in path.parts:
            raise ValueError("is to be a file in viewer.directory: write its path from there")
        return executable


class Disc(Section):
    """What a disc is and how long it is kept."""

    medium: Medium = "cd"
    institution: str = ""
    contact: str = ""
    language: LanguageCode = SOURCE
    reuse_minutes: float = Field(60, ge=0, le=525_600)
    keep_hours: float = Field(24, gt=0, le=87_600)
    span: bool = True
    pictures: Literal["all", "key", "none"] = "all"
    encryption: Encryption = "allowed"
    transfer_syntax: TransferSyntax = "as-archived"
    recipients: tuple[Place, ...] = ()


class Priors(Section):
    """Earlier studies of the same patient that go onto a disc beside those asked for: the newest `count`; 0: none."""

    count: int = Field(0, ge=0, le=20)
    default: bool = False
    modality: Literal["same", "any"] = "same"
    body_part: Literal["same", "any"] = "same"
    years: int = Field(0, ge=0, le=150)
    span: bool = False

    @model_validator(mode="after")
    def _count_where_default(self) -> Priors:
        if self.default and not self.count:
            raise ValueError("priors.default is true and priors.count is 0: say how many earlier studies at most")
        return self


DeidentifiedOption = Literal["modified-dates", "patient-characteristics"]


BLACKENED = MappingProxyType(
    {
        "1.2.840.10008.5.1.4.1.1.1": "CR",
        "1.2.840.10008.5.1.4.1.1.1.1": "DX",
        "1.2.840.10008.5.1.4.1.1.1.1.1": "DX for processing",
        "1.2.840.10008.5.1.4.1.1.1.2": "mammography",
        "1.2.840.10008.5.1.4.1.1.1.2.1": "mammography for processing",
        "1.2.840.10008.5.1.4.1.1.2": "CT",
        "1.2.840.10008.5.1.4.1.1.3.1": "ultrasound, multi-frame",
        "1.2.840.10008.5.1.4.1.1.4": "MR",
        "1.2.840.10008.5.1.4.1.1.6.1": "ultrasound",
        "1.2.840.10008.5.1.4.1.1.7": "secondary capture",
        "1.2.840.10008.5.1.4.1.1.7.2": "secondary capture, multi-frame, 8 bit",
        "1.2.840.10008.5.1.4.1.1.7.3": "secondary capture, multi-frame, 16 bit",
        "1.2.840.10008.5.1.4.1.1.7.4": "secondary capture, multi-frame, colour",
        "1.2.840.10008.5.1.4.1.1.12.1": "XA",
        "1.2.840.10008.5.1.4.1.1.12.2": "XRF",
        "1.2.840.10008.5.1.4.1.1.20": "nuclear medicine",
        "1.2.840.10008.5.1.4.1.1.128": "PET",
    }
)
"""The SOP classes of which regions may be blackened (PS3.4 B.5): images in which devices write at fixed places."""


class Region(Section):
    """Where one model of device writes into its images: which images these are, each attribute word for word (of Image
    Type the values that it begins with), and the rectangles to blacken in every frame, each [x, y, width, height] in
    pixels from the upper left corner.
    """

    sop_class_uid: str
    manufacturer: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    manufacturer_model_name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    software_versions: Annotated[str, StringConstraints(strip_whitespace=True)] = ""
    image_type: Annotated[str, StringConstraints(strip_whitespace=True)] = ""
    rows: int = Field(ge=1, le=65_535)
    columns: int = Field(ge=1, le=65_535)
    blacken: tuple[tuple[int, int, int, int], ...] = Field(min_length=1)

    @field_validator("sop_class_uid")
    @classmethod
    def _has_regions(cls, uid: str) -> str:
        if uid not in BLACKENED:
            names = ", ".join(f"{uid} ({name})" for uid, name in BLACKENED.items())
            raise ValueError(f"{uid!r} is none of the SOP classes of which regions may be blackened: {names}")
        return uid

    @model_validator(mode="after")
    def _is_within(self) -> Region:
        for x, y, width, height in self.blacken:
            if not (0 <= x < x + width <= self.columns and 0 <= y < y + height <= self.rows):
                raise ValueError(
                    f"[{x}, {y}, {width}, {height}] isn't within an image of {self.columns} columns and {self.rows} "
                    "rows: a rectangle is [x, y, width, height] in pixels from the upper left corner"
                )
        return self


class Deidentified(Section):
    """Copies for teaching and research that don't say whose they are; offered where there is a secret."""

    secret: SecretStr = SecretStr("")
    options: tuple[DeidentifiedOption, ...] = ()
    regions: tuple[Region, ...] = ()

    @field_validator("secret")
    @classmethod
    def _is_long(cls, secret: SecretStr) -> SecretStr:
        if 0 < len(secret.get_secret_value()) < 32:
            raise ValueError(
                "is shorter than 32 characters, and who guesses it can find the patients of all copies: make one with "
                "`openssl rand -hex 32`"
            )
        return secret

    @field_validator("options")
    @classmethod
    def _once_in_order(cls, options: tuple[DeidentifiedOption, ...]) -> tuple[DeidentifiedOption, ...]:
        return tuple(sorted(set(options)))

    @property
    def is_offered(self) -> bool:
        return bool(self.secret.get_secret_value())


class Print(Section):
    """Which publisher prints take unless they name one, what is waited for, and what the counter page offers first."""

    publisher: str = "rimage"
    wait_for: Literal["queued", "done"] = "queued"
    default_action: Literal["file", "robot", "both"] = "file"


class Identity(Section):
    """What must agree, beside one Patient ID of at most one issuer, so that images are of one patient; and whether a
    clerk must type the patient's birth date.
    """

    placeholder_ids: tuple[str, ...] = ()
    compare: tuple[Literal["PatientBirthDate", "PatientSex"], ...] = ("PatientBirthDate", "PatientSex")
    confirm_birth_date: bool = False

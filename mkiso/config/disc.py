"""What a disc is: whose it may be, what is on it, who prints it, and copies that don't say whose they are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, field_validator, model_validator

from mkiso.config.section import Encryption, Medium, Place, Section, TransferSyntax
from mkiso.languages import SOURCE, languages


def _is_spoken(code: str) -> str:
    if code not in languages():
        raise ValueError(f"is none of the languages that there are: {', '.join(languages())}")
    return code


LanguageCode = Annotated[str, AfterValidator(_is_spoken)]


class Viewer(Section):
    """The viewer that goes onto each disc: an unpacked folder; empty: none."""

    directory: str = ""
    executable: str = ""
    place: Annotated[str, StringConstraints(pattern=r"^(root|[A-Z0-9_]{1,8})$")] = "root"
    autorun: bool = False


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


class Deidentified(Section):
    """Copies for teaching and research that don't say whose they are; offered where there is a secret."""

    secret: SecretStr = SecretStr("")
    options: tuple[DeidentifiedOption, ...] = ()

    @field_validator("secret")
    @classmethod
    def _is_long(cls, secret: SecretStr) -> SecretStr:
        if 0 < len(secret.get_secret_value()) < 32:
            raise ValueError("is shorter than 32 characters: who guesses it can find the patients of all copies")
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

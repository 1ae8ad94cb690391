"""Studies by what a person knows of them: a patient's ID or name, a birth date, days, a modality. Bounded, and it says
where it was cut.

A PACS may match loosely or not at all (PS3.4 C.2.2.2), so what is told is held against what was asked, wherever it can
be. What is asked selects something always: nobody browses a whole archive.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import date

from mkiso.errors import InvalidRequest, UnsafeCharacter
from mkiso.sources.answers import SUCCESS, found_by_date
from mkiso.sources.protocol import Source
from mkiso.sources.query import failure, from_source, of_modalities, study_query
from mkiso.study.accession import parse_accession_number
from mkiso.study.models import Study

MAX_STUDIES = 200
MAX_CHARACTERS = 64  # VR LO and each component group of PN (PS3.5 6.2)
LEAST_NAME_CHARACTERS = 2
SELECTING = ("patient_id", "patient_name", "study_date", "accession_number")

ANY_CHARACTER = "?"  # PS3.4 C.2.2.2.4

_WILDCARDS = "*?\\"
_COMMA = re.compile("[,，]")
_DIVIDERS = re.compile(r"[\^=?]")
_DAYS = re.compile(r"(\d{8})?(-)?(\d{8})?")


@dataclass(frozen=True, slots=True)
class Criteria:
    """What is asked: `patient_name` as far as it is known, from its beginning, in DICOM's spelling (DOE^JOHN) or as
    people write it (Doe John; Doe, John); `birth_date` a day (YYYYMMDD); `study_date` a day, or two with a hyphen
    between them, one of which may be missing; `modality` a code such as CT. Making one raises InvalidRequest where it
    can't be asked or selects nothing.
    """

    patient_id: str = ""
    patient_name: str = ""
    birth_date: str = ""
    study_date: str = ""
    modality: str = ""
    accession_number: str = ""

    def __post_init__(self) -> None:
        for each in fields(self):
            _plain(each.name, getattr(self, each.name))
        if not any(getattr(self, name).strip() for name in SELECTING):
            raise InvalidRequest(
                "Nothing selects a study: a birth date or a modality alone fits too many. Give a patient ID, a name, "
                "an accession number or a date of the study."
            )
        if self.patient_name and len(_DIVIDERS.sub("", _name_key(self.patient_name))) < LEAST_NAME_CHARACTERS:
            raise InvalidRequest(f"Give at least {LEAST_NAME_CHARACTERS} letters of the patient's name.")
        if self.birth_date and "-" in self.birth_date:
            raise InvalidRequest("A birth date is one day, such as 1970-01-31.")
        for value in (self.birth_date, self.study_date):
            _days(value)
        if self.accession_number:
            parse_accession_number(self.accession_number)

    @property
    def keys(self) -> dict[str, str]:
        """The matching keys of a C-FIND or QIDO-RS request, by DICOM keyword."""
        name = f"{_name_key(self.patient_name)}*" if self.patient_name else ""
        asked = {
            "PatientID": self.patient_id.strip(),
            "PatientName": name,
            "PatientBirthDate": self.birth_date,
            "StudyDate": self.study_date,
            "ModalitiesInStudy": self.modality.strip().upper(),
            "AccessionNumber": self.accession_number.strip(),
        }
        return {keyword: value for keyword, value in asked.items() if value}

    @property
    def spellings(self) -> tuple[dict[str, str], ...]:
        """The keys for each way in which the name may be written there: many a PACS tells capitals from small letters
        (PS3.4 C.2.2.2.1 leaves it to the SCP). As it is typed, in capitals, and with a capital where a word begins.
        """
        keys = self.keys
        if not (name := keys.get("PatientName")):
            return (keys,)
        return tuple({**keys, "PatientName": each} for each in dict.fromkeys((name, name.upper(), name.title())))

    def may_mean(self, study: Study) -> bool:
        """Whether a study is what was asked for, as far as it is told."""
        asked = self.keys
        first, last = _days(self.study_date)
        return (
            asked.get("PatientID", study.patient_id) == study.patient_id
            and asked.get("AccessionNumber", study.accession_number) == study.accession_number
            and not self._is_run_together(study.patient_name)
            and study.patient_birth_date in ("", self.birth_date or study.patient_birth_date)
            and (not study.study_date or first <= study.study_date <= last)
        )

    def _is_run_together(self, name: str) -> bool:
        """Whether a name is told for a letter or a digit in the place of a space alone: DoeXJohn for Doe John."""
        asked = re.escape(_name_key(self.patient_name)).split(re.escape(ANY_CHARACTER))
        groups = name.split("=")
        divided, any_character = ((re.compile(each.join(asked), re.IGNORECASE)) for each in (r"[\W_]", "."))
        return any(map(any_character.match, groups)) and not any(map(divided.match, groups))


@dataclass(frozen=True, slots=True)
class Hits:
    """Studies as a source told them (`source` is empty where they are of several), the newest first; `expected.count`
    of each is its number of images where that is told. `cut`: there may be more than these."""

    source: str
    studies: tuple[Study, ...]
    cut: bool


def search(source: Source, criteria: Criteria, most: int = MAX_STUDIES) -> Hits:
    """At most `most` studies. Raises PacsUnreachable, PacsRefused (nothing was answered), PacsBusy, PacsSilent."""
    with source.searching() as ask:
        # One more than is told shows that there are more; a source that tells loosely may spend it on others.
        told = [ask(study_query(**keys), most + 1) for keys in criteria.spellings]
    for answers in told:
        if answers.status != SUCCESS and not answers.sent:
            raise failure(source.name, answers.status)
    found = [from_source(source, found_by_date(answers)) for answers in told]
    studies = {study.study_instance_uid: study for each in found for study in each.studies}.values()
    modality = criteria.keys.get("ModalitiesInStudy")
    meant = newest_first(filter(criteria.may_mean, of_modalities(studies, (modality,) if modality else ())))
    cut = any(each.endless or each.at_limit for each in told) or any(each.cut for each in found) or len(meant) > most
    return Hits(source.name, meant[:most], cut)


def newest_first(studies: Iterable[Study]) -> tuple[Study, ...]:
    """In the order in which people see them."""
    return tuple(
        sorted(studies, key=lambda each: (each.study_date, each.study_time, each.study_instance_uid), reverse=True)
    )


def _name_key(name: str) -> str:
    """A name as a matching key for its beginning. People write a comma between family and given name and before a
    suffix, which is left out; a space stands for itself or for the ^ before the next name. Other spellings of a name
    (PS3.5 6.2.1) follow a slash.
    """
    family, *given = (" ".join(part.split()) for part in _COMMA.split(name.partition(" / ")[0])[:2])
    return "^".join((family, *filter(None, given))).replace(" ", ANY_CHARACTER)


def _plain(name: str, value: str) -> None:
    words = name.replace("_", " ")
    if len(value) > MAX_CHARACTERS:
        raise InvalidRequest(f"The {words} has more than {MAX_CHARACTERS} characters.")
    # NFKC: look-alikes of a wildcard are refused for what they look like.
    if any(sign in unicodedata.normalize("NFKC", value) for sign in _WILDCARDS) or any(
        unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in value
    ):
        raise UnsafeCharacter(
            f"The {words} has a sign that a PACS takes for a wildcard, such as * or ?, or one that can't be seen. "
            "Search without it."
        )
    if name == "modality" and value and not re.fullmatch(r"[A-Za-z0-9_ ]{1,16}", value):
        raise InvalidRequest("A modality is a code such as CT or MR.")


def _days(value: str) -> tuple[str, str]:
    """The first and the last day of a range. Raises InvalidRequest."""
    parts = _DAYS.fullmatch(value)
    first, hyphen, last = parts.groups() if parts else (None, None, None)
    try:
        if value and (parts is None or not (first or last) or bool(first and last) > bool(hyphen)):
            raise ValueError
        for day in filter(None, (first, last)):
            date.fromisoformat(day)
    except ValueError:
        raise InvalidRequest(
            "A day is written 2024-01-31, and two days with a slash between them, one of which may be missing: "
            "2024-01-01/2024-01-31."
        ) from None
    if first and last and first > last:
        raise InvalidRequest(
            f"The first day, {date.fromisoformat(first)}, comes after the last one, {date.fromisoformat(last)}."
        )
    return first or "", (last or "99999999") if hyphen or not first else first

"""One disc, one patient: by Patient ID and its issuer, over everything that was found and everything that was stored.

A name is no identity (it is spelled in several ways), so IDs are compared, exactly but for the spaces around them,
which mean nothing in LO (PS3.5 6.2). A study without a Patient ID can be shown to be nobody's: it is refused, also when
it is asked for alone, and DICOMDIR's PATIENT record requires an ID anyway (PS3.3 F.5.1). So is a placeholder, which
many patients share. The same ID from two issuers is two patients (PS3.3 C.2.2), and what contradicts it in birth date
or sex makes it doubtful. The words of these errors hold no patient data, only accession numbers.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from mkiso.config.disc import Identity
from mkiso.errors import OtherPatient, PatientMismatch, WrongBirthDate
from mkiso.study.models import Patient, Study, listed_words
from mkiso.study.selection import EVERYTHING, Selection
from mkiso.study.text import stated, terms_of, text_of

WORDS_LIMIT = 240
READ_LIMIT = 4096  # what is read of somebody's words
SECRETS_LIMIT = 1024  # a name has at most 3 × 64 characters (PN, PS3.5 6.2), an ID 64
PLACEHOLDERS = frozenset({"UNKNOWN", "NONE", "NULL", "N/A", "NA", "NIL"})
"""What systems write where they know no Patient ID, beside IDs without any letter or digit but 0;
identity.placeholder_ids has a site's own.
"""
SHOWN_DIGITS, MOST_SHOWN = 32, 16

_PATIENT_ID, _ISSUER, _STUDY_INSTANCE_UID = 0x00100020, 0x00100021, 0x0020000D
_IN_A_CLAIM = tuple(map(BaseTag, (0x00080005, 0x00100020, 0x00100021, 0x00100030, 0x00100040)))
_SEQUENCES_IN_A_CLAIM = tuple(map(BaseTag, (0x00100024, 0x00101002)))


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose a header says that it is. `universal` is the issuer's Universal Entity ID with its type (PS3.3 10.15);
    `also` are the items of Other Patient IDs Sequence as (Patient ID, issuer, universal).
    """

    patient_id: str
    issuer: str = ""
    universal: str = ""
    birth_date: str = ""
    sex: str = ""
    also: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PatientIdentity:
    """What all headers together say: one Patient ID, at most one issuer, by either of its names, and of what is
    compared one birth date and sex.
    """

    patient_id: str
    issuer: str = ""
    universal: str = ""
    birth_date: str = ""
    sex: str = ""


def one_patient(studies: Sequence[Study], known: Sequence[Patient], rules: Identity) -> None:
    """Raise PatientMismatch unless all studies, and the patient API's patients where there are any, share one Patient
    ID that is somebody's.

    The issuer counts where two studies both name one: the same ID given by two issuers is two patients (PS3.3 C.2.2).
    Studies of several sources share one only where all name the same issuer, or the sources one patient_domain.
    """
    accession_numbers = _numbers(studies)
    nameless = _numbers([study for study in studies if not significant(study.patient_id)])
    if nameless:
        raise PatientMismatch(
            f"The study of accession number {_listed(nameless)} has no patient ID in the PACS: whose it is can't be "
            "proved. Have the PACS corrected.",
            accession_numbers=nameless,
        )
    patient_ids = {significant(study.patient_id) for study in studies}
    if any(is_placeholder(patient_id, rules) for patient_id in patient_ids):
        raise PatientMismatch(
            f"The patient ID of accession number {_listed(accession_numbers)} in the PACS is a placeholder, which may "
            "be anybody's. Have the PACS corrected.",
            accession_numbers=accession_numbers,
        )
    issuers = {significant(study.issuer_of_patient_id) for study in studies} - {""}
    if len(patient_ids) > 1 or len(issuers) > 1:
        shared = len(accession_numbers) == 1
        raise PatientMismatch(
            f"The accession number {accession_numbers[0]} belongs to studies of more than one patient in the PACS. "
            "Have the PACS corrected."
            if shared
            else f"The accession numbers {_listed(accession_numbers)} are not all of one patient. Ask for a disc for "
            "each patient.",
            accession_numbers=accession_numbers,
        )
    if not _share_their_ids(studies):
        raise PatientMismatch(
            f"The studies of accession number {_listed(accession_numbers)} are from several sources, and nothing says "
            "that one patient ID is one patient there. Have each source name the issuer of its patient IDs, or give "
            "the sources one patient_domain.",
            accession_numbers=accession_numbers,
        )
    if any(significant(patient.patient_id) not in patient_ids for patient in known):
        raise PatientMismatch(
            "The PACS and the hospital's patient data name different patients for the accession number "
            f"{_listed(accession_numbers)}. Have it clarified which is right before a disc is made.",
            accession_numbers=accession_numbers,
        )


def _share_their_ids(studies: Sequence[Study]) -> bool:
    """Whether an equal Patient ID is an equal patient in all of these studies."""
    if len({study.origin.source for study in studies}) < 2:
        return True
    named = [{significant(study.issuer_of_patient_id) for study in studies}]
    named += [{study.origin.patient_domain for study in studies}]
    return any(len(each) == 1 and each != {""} for each in named)


def one_study(copies: Sequence[Study]) -> None:
    """Raise PatientMismatch unless several sources have one study under one Patient ID, of one issuer where two name
    one.
    """
    patient_ids = {significant(copy.patient_id) for copy in copies}
    issuers = {significant(copy.issuer_of_patient_id) for copy in copies} - {""}
    if len(patient_ids) > 1 or len(issuers) > 1:
        numbers, sources = _numbers(copies), dict.fromkeys(copy.origin.source for copy in copies)
        whose = (
            f"is one patient's in one source and another's in another ({' and '.join(sources)})"
            if len(sources) > 1
            else "belongs to more than one patient in the PACS"
        )
        raise PatientMismatch(
            f"The study of accession number {_listed(numbers)} {whose}. Have it corrected there.",
            accession_numbers=numbers,
        )


def same_patient(header: Dataset, study: Study) -> None:
    """Raise PatientMismatch unless a stored instance's own header carries the study's Patient ID and Study Instance
    UID.
    """
    issuers = {stated(header, _ISSUER), significant(study.issuer_of_patient_id)} - {""}
    if stated(header, _PATIENT_ID) != significant(study.patient_id) or len(issuers) > 1:
        raise PatientMismatch(
            f"An instance of {study.called} carries another patient's ID than the PACS's "
            "study. Have the PACS corrected.",
            accession_numbers=[study.accession_number],
            sop_instance_uid=significant(header.get("SOPInstanceUID")),
        )
    if stated(header, _STUDY_INSTANCE_UID) != study.study_instance_uid:
        raise PatientMismatch(
            f"An instance sent for {study.called} belongs to another study. Have the PACS corrected.",
            accession_numbers=[study.accession_number],
            sop_instance_uid=significant(header.get("SOPInstanceUID")),
        )


def is_placeholder(patient_id: str, rules: Identity) -> bool:
    """Whether a Patient ID stands for nobody: one that systems write instead of an ID, one without a letter or a digit
    but 0 (in any script, as Thai's), one of the site's, or several at once (a backslash).
    """
    plain = significant(patient_id).upper()
    listed = PLACEHOLDERS | {significant(each).upper() for each in rules.placeholder_ids}
    is_somebody = any(character.isalnum() and unicodedata.digit(character, None) != 0 for character in plain)
    return plain in listed or "\\" in plain or not is_somebody


def claims(headers: Iterable[Dataset]) -> list[Claim]:
    """The different claims of these headers. Headers that are alike byte for byte, as those of a series are, are
    decoded once.
    """
    seen: set[tuple[object, ...]] = set()
    found: dict[Claim, None] = {}
    for header in headers:
        if not any(tag in header for tag in _SEQUENCES_IN_A_CLAIM):
            written = tuple(map(str, (getattr(header.get_item(tag), "value", "") for tag in _IN_A_CLAIM)))
            if written in seen:
                continue
            seen.add(written)
        found[_claim(header)] = None
    return list(found)


def agreed(studies: Sequence[Study], made: Sequence[Claim], rules: Identity) -> PatientIdentity:
    """What all claims and the PACS's answers say together. Raises PatientMismatch where they are not all of one
    patient.

    At most one issuer may be named anywhere: as Issuer of Patient ID, in its qualifiers, by C-FIND, or for the same ID
    in Other Patient IDs Sequence. One that is named by its text here and by its universal ID there counts as one where
    some header names it by both.
    """
    accession_numbers = _numbers(studies)
    patient_ids = {claim.patient_id for claim in made} | {significant(study.patient_id) for study in studies}
    if len(patient_ids) != 1:
        raise _mismatch("carry more than one patient ID", accession_numbers)
    patient_id = patient_ids.pop()
    named = [(claim.issuer, claim.universal) for claim in made]
    named += [(significant(study.issuer_of_patient_id), "") for study in studies]
    named += [
        (issuer, universal) for claim in made for other_id, issuer, universal in claim.also if other_id == patient_id
    ]
    issuers = {issuer for issuer, _ in named if issuer}
    universals = {universal for _, universal in named if universal}
    if len(issuers) > 1 or len(universals) > 1:
        raise _mismatch(
            "name more than one issuer of their patient ID, so they may be of two patients", accession_numbers
        )
    if issuers and universals and not any(all(names) for names in named):
        raise _mismatch(
            "name the issuer of their patient ID in two ways that nothing connects, so they may be of two patients",
            accession_numbers,
        )
    person = {
        "PatientBirthDate": {claim.birth_date for claim in made} - {""},
        "PatientSex": {claim.sex for claim in made} - {""},
    }
    compared = {keyword: values for keyword, values in person.items() if keyword in rules.compare}
    for keyword, values in compared.items():
        if len(values) > 1:
            words = (
                f"contradict each other in {keyword} under one patient ID, so they may be of two patients "
                "(identity.compare)"
            )
            raise _mismatch(words, accession_numbers)
    birth_dates, sexes = compared.get("PatientBirthDate", ()), compared.get("PatientSex", ())
    return PatientIdentity(patient_id, "".join(issuers), "".join(universals), "".join(birth_dates), "".join(sexes))


def names_issuer(study: Study, made: Iterable[Claim]) -> bool:
    """Whether the PACS or a header of a study says who issued its Patient ID."""
    patient_id, named = significant(study.patient_id), [significant(study.issuer_of_patient_id)]
    for claim in made:
        named += [claim.issuer, claim.universal]
        named += [name for other_id, *names in claim.also if other_id == patient_id for name in names]
    return any(named)


def shown_digest(studies: Iterable[Study]) -> str:
    """Who a person saw before confirming: what the PACS says of the patient of these studies, in whatever order.
    SHOWN_DIGITS hexadecimal digits for each of the ways in which it says it, where they are MOST_SHOWN at most.
    """
    persons = sorted({_person(study) for study in studies})
    each = [_digest_of(person) for person in persons]
    return "".join(each) if len(each) <= MOST_SHOWN else _digest_of(*persons)


def _digest_of(*persons: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(["shown", *persons]).encode()).hexdigest()[:SHOWN_DIGITS]


def same_as_shown(studies: Sequence[Study], shown: str) -> None:
    """Raise OtherPatient unless these studies are of the patient whom somebody saw (`shown`: shown_digest), perhaps
    with more studies than these.
    """
    seen = {shown[start : start + SHOWN_DIGITS] for start in range(0, len(shown), SHOWN_DIGITS)}
    if shown_digest(studies) != shown and not all(shown_digest([study]) in seen for study in studies):
        numbers = _numbers(studies)
        raise OtherPatient(
            f"The PACS no longer says of accession number {_listed(numbers)} what was shown when the disc was "
            "confirmed: another patient, or other patient data. Look at the patient once more, then ask again.",
            accession_numbers=numbers,
        )


def born_on(studies: Sequence[Study], birth_date: str) -> None:
    """Raise WrongBirthDate unless the PACS has this birth date (DA) of each study's patient."""
    if {significant(study.patient_birth_date).replace(".", "") for study in studies} != {birth_date}:
        numbers = _numbers(studies)
        raise WrongBirthDate(
            f"The patient of accession number {_listed(numbers)} has another birth date in the PACS, or none. Check "
            "the number and the birth date.",
            accession_numbers=numbers,
        )


def _person(study: Study) -> tuple[str, ...]:
    who = (
        study.patient_id,
        study.issuer_of_patient_id,
        study.patient_name,
        study.patient_birth_date,
        study.patient_sex,
    )
    return tuple(map(significant, who))


_WAYS: tuple[Callable[[PatientIdentity], str], ...] = (
    lambda one: one.issuer or one.universal,
    lambda one: one.universal,
    lambda one: one.birth_date,
    lambda one: one.sex,
)


def told_apart(those: Mapping[str, PatientIdentity]) -> dict[str, str]:
    """What tells each of these from the others of its Patient ID, in words; the same words, or none, where they may be
    one patient by `agreed`.

    Who doesn't say what others contradict each other in is none of them.
    """
    by_id: dict[str, dict[str, PatientIdentity]] = {}
    for key, one in those.items():
        by_id.setdefault(one.patient_id, {})[key] = one
    return {key: words for group in by_id.values() for key, words in _told_apart(group, _WAYS).items()}


def _told_apart(
    those: Mapping[str, PatientIdentity], ways: Sequence[Callable[[PatientIdentity], str]]
) -> dict[str, str]:
    with suppress(PatientMismatch):
        agreed((), [Claim(*astuple(one)) for one in those.values()], Identity())
        return dict.fromkeys(those, "")
    by_value: dict[str, dict[str, PatientIdentity]] = {}
    for key, one in those.items():
        by_value.setdefault(ways[0](one), {})[key] = one
    if len(by_value.keys() - {""}) < 2:
        return _told_apart(those, ways[1:])
    further = [(value, _told_apart(group, ways[1:])) for value, group in by_value.items()]
    return {key: ", ".join(filter(None, (value, words))) for value, group in further for key, words in group.items()}


def fingerprint(
    studies: Sequence[Study],
    patient: Patient | None,
    degraded: Collection[str] = (),
    selection: Selection = EVERYTHING,
    *,
    is_part: bool = False,
    accession_numbers: Collection[str] = (),
) -> str:
    """The SHA-256 of all that a disc is made from: what the patient API says, study attributes with their source, the
    set of SOP Instance UIDs, what it was made without, what was asked for and what of that was chosen: a disc of a
    selection, or by UID, is never one of the whole question, even where it holds the same. `is_part`: whether the disc
    says that it isn't everything.

    A finished disc may be served again only while this stays the same. Where a PACS gives no UIDs, an exchange of one
    instance for another would go unseen, so the value then matches nothing, not even itself the next time.
    """
    described = []
    for study in sorted(studies, key=lambda study: study.study_instance_uid):
        uids = study.expected.instances
        if uids is None:
            return hashlib.sha256(uuid.uuid4().bytes).hexdigest()
        described.append({**asdict(study), "expected": sorted(uids), "of_series": study.expected.of_series})
    whole = {
        "patient": patient and asdict(patient),
        "studies": described,
        "degraded": sorted(degraded),
        "selection": selection.written,
        "is_part": is_part,
        "accession_numbers": sorted(accession_numbers),
    }
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def significant(value: object) -> str:
    """A text value without what means nothing in it: spaces around it, and the NUL that some peers pad with."""
    text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    return "" if value is None else text.strip(" \0")


def one_line(text: str) -> str:
    """Text without control characters and line separators, so that a value can't start a line, a key or a command of
    its own.
    """
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def iso_date(date: str) -> str:
    """A DA value (PS3.5 6.2) as ISO 8601; anything else as it is."""
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else date


def without_patient(text: str, patient: Patient) -> str:
    """What a PACS or a publisher said, fit for a log: one line, bounded, without the patient's name, birth date and ID.

    Those are found in any case of letters. Nothing is left where the patient's data are longer than any patient's.
    """
    known = (patient.patient_id, patient.birth_date, iso_date(patient.birth_date), patient.name)
    if sum(map(len, known)) > SECRETS_LIMIT:
        return "…"
    secrets = {one_line(each) for each in (*known[:3], *re.split(r"[\s^=]+", patient.name))}
    hidden = "|".join(re.escape(secret) for secret in sorted(secrets, key=len, reverse=True) if len(secret) > 1)
    words = one_line(text[:READ_LIMIT])
    told = re.sub(hidden, "…", words, flags=re.IGNORECASE) if hidden else words
    if len(text) > READ_LIMIT:  # where it was cut, a part of a secret may stand that isn't known by itself
        told = told[:-SECRETS_LIMIT]
    return told[:WORDS_LIMIT]


def _claim(header: Dataset) -> Claim:
    birth_date = re.sub(r"[.]", "", significant(header.get("PatientBirthDate")))  # PS3.5 6.2 note: what ACR-NEMA wrote
    terms = terms_of(header)
    also = tuple(
        (text_of(other, _PATIENT_ID, terms).stated, text_of(other, _ISSUER, terms).stated, _universal(other))
        for other in header.get("OtherPatientIDsSequence") or ()
    )
    return Claim(
        stated(header, _PATIENT_ID),
        stated(header, _ISSUER),
        _universal(header),
        birth_date,
        significant(header.get("PatientSex")).upper(),
        also,
    )


def _universal(header: Dataset) -> str:
    """The Universal Entity ID of the issuer's qualifiers with its type; several items are several issuers."""
    items = header.get("IssuerOfPatientIDQualifiersSequence") or ()
    named = {
        (significant(each.get("UniversalEntityID")), significant(each.get("UniversalEntityIDType")).upper())
        for each in items
    }
    return "; ".join(sorted(f"{entity} ({kind})" for entity, kind in named if entity))


def _mismatch(what: str, accession_numbers: list[str]) -> PatientMismatch:
    words = f"The images of accession number {_listed(accession_numbers)} {what}. Have the PACS corrected."
    return PatientMismatch(words, accession_numbers=accession_numbers)


def _numbers(studies: Iterable[Study]) -> list[str]:
    """The accession numbers; of a study that has none its UID."""
    return sorted({study.accession_number or f"none (study {study.study_instance_uid})" for study in studies})


def _listed(accession_numbers: Sequence[str]) -> str:
    return listed_words(accession_numbers, 5)

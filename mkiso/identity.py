"""One disc, one patient: by Patient ID over everything that was found and everything that was stored.

A name is no identity (it is spelled in several ways), so only IDs are compared, exactly but for the spaces around them, which mean nothing in LO
(PS3.5 6.2). A study without a Patient ID can be shown to be nobody's: it is refused, also when it is asked for alone, and DICOMDIR's PATIENT record
requires an ID anyway (PS3.3 F.5.1). The words of these errors hold no patient data, only accession numbers.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import asdict

from pydicom import Dataset

from mkiso.errors import PatientMismatch
from mkiso.models import Patient, Study

WORDS_LIMIT = 240


def one_patient(studies: Sequence[Study], patient: Patient | None) -> None:
    """Raise PatientMismatch unless all studies, and the patient API's patient where there is one, share one non-empty Patient ID.

    The issuer counts where two studies both name one: the same ID given by two issuers is two patients (PS3.3 C.2.2).
    """
    accession_numbers = sorted({study.accession_number for study in studies})
    nameless = sorted({study.accession_number for study in studies if not significant(study.patient_id)})
    if nameless:
        raise PatientMismatch(
            f"The study of accession number {_listed(nameless)} has no patient ID in the PACS: whose it is can't be proved. Have the PACS corrected.",
            accession_numbers=nameless,
        )
    patient_ids = {significant(study.patient_id) for study in studies}
    issuers = {significant(study.issuer_of_patient_id) for study in studies} - {""}
    if len(patient_ids) > 1 or len(issuers) > 1:
        shared = len(accession_numbers) == 1
        raise PatientMismatch(
            f"The accession number {accession_numbers[0]} belongs to studies of more than one patient in the PACS. Have the PACS corrected."
            if shared
            else f"The accession numbers {_listed(accession_numbers)} are not all of one patient. Ask for a disc for each patient.",
            accession_numbers=accession_numbers,
        )
    if patient is not None and significant(patient.patient_id) not in patient_ids:
        raise PatientMismatch(
            f"The PACS and the hospital's patient data name different patients for the accession number {_listed(accession_numbers)}. "
            "Have it clarified which is right before a disc is made.",
            accession_numbers=accession_numbers,
        )


def same_patient(header: Dataset, study: Study) -> None:
    """Raise PatientMismatch unless a stored instance's own header carries the study's Patient ID and Study Instance UID."""
    same_issuer = "" in (significant(header.get("IssuerOfPatientID")), significant(study.issuer_of_patient_id)) or (
        significant(header.get("IssuerOfPatientID")) == significant(study.issuer_of_patient_id)
    )
    if significant(header.get("PatientID")) != significant(study.patient_id) or not same_issuer:
        raise PatientMismatch(
            f"An instance of accession number {study.accession_number} carries another patient's ID than the PACS's study. Have the PACS corrected.",
            accession_numbers=[study.accession_number],
            sop_instance_uid=significant(header.get("SOPInstanceUID")),
        )
    if significant(header.get("StudyInstanceUID")) != study.study_instance_uid:
        raise PatientMismatch(
            f"An instance sent for accession number {study.accession_number} belongs to another study. Have the PACS corrected.",
            accession_numbers=[study.accession_number],
            sop_instance_uid=significant(header.get("SOPInstanceUID")),
        )


def fingerprint(studies: Sequence[Study], patient: Patient | None) -> str:
    """The SHA-256 of all that a disc is made from: patient ID and name, study attributes, the set of SOP Instance UIDs.

    A finished disc may be served again only while this stays the same. Where a PACS gives no UIDs, an exchange of one instance for another would go
    unseen, so the value then matches nothing, not even itself the next time.
    """
    instances = [study.expected.instances for study in studies]
    if any(uids is None for uids in instances):
        return hashlib.sha256(uuid.uuid4().bytes).hexdigest()
    described = [{**asdict(study), "expected": sorted(uids or ())} for study, uids in zip(studies, instances, strict=True)]
    described.sort(key=lambda study: str(study["study_instance_uid"]))
    whole = {"patient_id": patient and patient.patient_id, "patient_name": patient and patient.name, "studies": described}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def significant(value: object) -> str:
    """A text value without what means nothing in it: spaces around it, and the NUL that some peers pad with."""
    return "" if value is None else str(value).strip(" \0")


def one_line(text: str) -> str:
    """Text without control characters and line separators, so that a value can't start a line, a key or a command of its own."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def iso_date(date: str) -> str:
    """A DA value (PS3.5 6.2) as ISO 8601; anything else as it is."""
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else date


def without_patient(text: str, patient: Patient) -> str:
    """What a PACS or a publisher said, fit for a log: one line, bounded, without the patient's name, birth date and ID in any case of letters."""
    name_parts = re.split(r"[\s^=]+", patient.name)
    secrets = sorted({patient.patient_id.strip(), patient.birth_date, iso_date(patient.birth_date), *name_parts}, key=len, reverse=True)
    hidden = "|".join(re.escape(secret) for secret in secrets if len(secret) > 1)
    words = one_line(text)
    return (re.sub(hidden, "…", words, flags=re.IGNORECASE) if hidden else words)[:WORDS_LIMIT]


def _listed(accession_numbers: Sequence[str]) -> str:
    return ", ".join(accession_numbers[:5]) + (f" and {len(accession_numbers) - 5} more" if len(accession_numbers) > 5 else "")

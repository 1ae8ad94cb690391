"""One disc, one patient."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom import Dataset

from mkiso.errors import PatientMismatch
from mkiso.identity import fingerprint, iso_date, one_line, one_patient, same_patient, significant, without_patient
from mkiso.models import Expected, Patient, Study

STUDY = Study("A1", "1.2.3", "HN-1", "Canary^Name", expected=Expected("image", 2, {"1.2.3.1": frozenset({"1.2.3.1.1", "1.2.3.1.2"})}))
SAME = Study("A2", "1.2.4", " HN-1 ", "Kanarie^Name")
OTHER = Study("A3", "1.2.5", "HN-2", "Canary^Name")


def header(**attributes: str) -> Dataset:
    dataset = Dataset()
    for keyword, value in {"PatientID": "HN-1", "StudyInstanceUID": "1.2.3", "SOPInstanceUID": "1.2.3.1.1", **attributes}.items():
        setattr(dataset, keyword, value)
    return dataset


def test_one_patient_by_id_whatever_the_name_and_the_padding() -> None:
    one_patient([STUDY, SAME], None)
    one_patient([STUDY, SAME], Patient("HN-1 ", "Somebody^Else"))


@pytest.mark.parametrize(
    ("studies", "patient"),
    [
        ([STUDY, OTHER], None),
        ([STUDY, replace(OTHER, accession_number="A1")], None),
        ([STUDY], Patient("HN-2")),
        ([STUDY], Patient("HN-01")),
        ([STUDY], Patient("hn-1")),
        ([replace(STUDY, patient_id="")], None),
        ([replace(STUDY, patient_id=" ")], Patient("HN-1")),
        ([STUDY, replace(SAME, patient_id="")], None),
        ([replace(STUDY, issuer_of_patient_id="NORTH"), replace(SAME, issuer_of_patient_id="SOUTH")], None),
    ],
)
def test_anything_else_is_refused_in_words_without_patient_data(studies: list[Study], patient: Patient | None) -> None:
    with pytest.raises(PatientMismatch) as refused:
        one_patient(studies, patient)
    told = refused.value.words + str(refused.value.details)
    assert "A1" in told or "A2" in told
    assert not any(secret in told for secret in ("HN-1", "HN-2", "HN-01", "hn-1", "Canary", "NORTH"))


def test_an_issuer_counts_only_where_both_name_one() -> None:
    one_patient([replace(STUDY, issuer_of_patient_id="NORTH"), SAME], None)


def test_an_accession_number_of_two_patients_is_named() -> None:
    with pytest.raises(PatientMismatch, match="A1 belongs to studies of more than one patient"):
        one_patient([STUDY, replace(OTHER, accession_number="A1")], None)


def test_an_instance_of_the_study_passes() -> None:
    same_patient(header(), STUDY)
    same_patient(header(PatientID="HN-1 ", IssuerOfPatientID="NORTH"), STUDY)


@pytest.mark.parametrize(
    "attributes", [{"PatientID": "HN-2"}, {"PatientID": ""}, {"StudyInstanceUID": "1.2.4"}, {"StudyInstanceUID": ""}, {"IssuerOfPatientID": "SOUTH"}]
)
def test_an_instance_of_anybody_or_anything_else_is_refused(attributes: dict[str, str]) -> None:
    with pytest.raises(PatientMismatch) as refused:
        same_patient(header(**attributes), replace(STUDY, issuer_of_patient_id="NORTH"))
    assert "HN-" not in refused.value.words


def test_an_instance_without_a_patient_id_is_refused() -> None:
    dataset = header()
    del dataset.PatientID
    with pytest.raises(PatientMismatch):
        same_patient(dataset, STUDY)


def test_the_fingerprint_stays_while_nothing_changes() -> None:
    listed = replace(SAME, expected=Expected("image", 1, {"1": frozenset({"1.1"})}))
    assert fingerprint([STUDY, listed], Patient("HN-1", "N")) == fingerprint([listed, replace(STUDY)], Patient("HN-1", "N", "19700101"))
    assert len(fingerprint([STUDY], None)) == 64


@pytest.mark.parametrize(
    "changed",
    [
        replace(STUDY, patient_id="HN-9"),
        replace(STUDY, patient_name="Canary^Nome"),
        replace(STUDY, study_description="CT"),
        replace(STUDY, expected=Expected("image", 2, {"1.2.3.1": frozenset({"1.2.3.1.1", "1.2.3.1.3"})})),
        replace(STUDY, expected=Expected("image", 1, {"1.2.3.1": frozenset({"1.2.3.1.1"})})),
    ],
)
def test_the_fingerprint_changes_with_what_a_disc_is_made_from(changed: Study) -> None:
    assert fingerprint([changed], None) != fingerprint([STUDY], None)


def test_the_fingerprint_changes_with_the_patient() -> None:
    assert len({fingerprint([STUDY], patient) for patient in (None, Patient("HN-1"), Patient("HN-1", "N"), Patient("HN-2"))}) == 4


def test_a_study_known_by_counts_never_matches_again() -> None:
    counted = replace(STUDY, expected=Expected("series", 2))
    assert fingerprint([counted], None) != fingerprint([counted], None)


def test_one_issuer_is_no_contradiction() -> None:
    study = replace(STUDY, issuer_of_patient_id="NORTH")
    same_patient(header(IssuerOfPatientID="NORTH "), study)
    with pytest.raises(PatientMismatch):
        same_patient(header(IssuerOfPatientID="SOUTH"), study)


def test_no_value_is_no_text() -> None:
    assert significant(None) == ""
    with pytest.raises(PatientMismatch):
        same_patient(header(PatientID="None"), replace(STUDY, patient_id=""))


@pytest.mark.parametrize(("count", "listed"), [(2, "N0, N1 are"), (5, "N0, N1, N2, N3, N4 are"), (6, "N0, N1, N2, N3, N4 and 1 more are")])
def test_the_accession_numbers_are_named(count: int, listed: str) -> None:
    studies = [replace(STUDY, accession_number=f"N{number}", patient_id=f"HN-{number}") for number in range(count)]
    with pytest.raises(PatientMismatch, match=listed):
        one_patient(studies, None)


def test_what_others_say_holds_no_patient() -> None:
    patient = Patient("HN-0001", "Example^Anna", "19700102")
    assert without_patient("label 'Anna Example'\r\nHN-0001 born 1970-01-02 (19700102) fell off", patient) == "label '… …' … born … (…) fell off"
    assert without_patient("EXAMPLE^ANNA hn-0001", patient) == "…^… …"
    assert without_patient("Annabel of Ann", Patient("HN-0001", "Annabel^Ann")) == "… of …"  # the longest first
    assert without_patient("Li and a B", Patient("HN-0001", "Li^B")) == "… and a B"  # a letter would blot out every sentence
    assert without_patient("nothing to hide", Patient("")) == "nothing to hide"
    assert len(without_patient("x" * 1000, patient)) <= 240
    assert one_line("a\tb\r\nc\x00") == "a b c"


@pytest.mark.parametrize(
    ("date", "told"),
    [("19600229", "1960-02-29"), ("1960", "1960"), ("1960.02.29", "1960.02.29"), ("unknown8", "unknown8"), ("196002290", "196002290"), ("", "")],
)
def test_a_date_is_told_as_iso_8601_and_what_is_none_as_it_is(date: str, told: str) -> None:
    assert iso_date(date) == told

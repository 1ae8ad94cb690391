"""One disc, one patient."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from mkiso.config.disc import Identity
from mkiso.errors import OtherPatient, PatientMismatch, WrongBirthDate
from mkiso.study.identity import (
    MOST_SHOWN,
    SHOWN_DIGITS,
    Claim,
    PatientIdentity,
    agreed,
    born_on,
    claims,
    fingerprint,
    is_placeholder,
    iso_date,
    one_line,
    one_patient,
    one_study,
    same_as_shown,
    same_patient,
    shown_digest,
    significant,
    told_apart,
    without_patient,
)
from mkiso.study.models import Expected, Patient, Study

RULES = Identity()
STUDY = Study(
    "A1",
    "1.2.3",
    "HN-1",
    "Canary^Name",
    expected=Expected("image", 2, {"1.2.3.1": frozenset({"1.2.3.1.1", "1.2.3.1.2"})}),
)
SAME = Study("A2", "1.2.4", " HN-1 ", "Kanarie^Name")
OTHER = Study("A3", "1.2.5", "HN-2", "Canary^Name")


def header(**attributes: str) -> Dataset:
    dataset = Dataset()
    for keyword, value in {
        "PatientID": "HN-1",
        "StudyInstanceUID": "1.2.3",
        "SOPInstanceUID": "1.2.3.1.1",
        **attributes,
    }.items():
        setattr(dataset, keyword, value)
    return dataset


def test_one_patient_by_id_whatever_the_name_and_the_padding() -> None:
    one_patient([STUDY, SAME], [], RULES)
    one_patient([STUDY, SAME], [Patient("HN-1 ", "Somebody^Else"), Patient("HN-1")], RULES)


@pytest.mark.parametrize(
    ("studies", "patient"),
    [
        ([STUDY, OTHER], None),
        ([STUDY, replace(OTHER, accession_number="A1")], None),
        ([STUDY], Patient("HN-2")),
        ([STUDY], Patient("HN-01")),
        ([STUDY], Patient("hn-1")),
        ([replace(STUDY, patient_id="0")], None),
        ([replace(STUDY, patient_id="HN-1\\HN-2")], None),
        ([replace(STUDY, patient_id="")], None),
        ([replace(STUDY, patient_id=" ")], Patient("HN-1")),
        ([STUDY, replace(SAME, patient_id="")], None),
        ([replace(STUDY, issuer_of_patient_id="NORTH"), replace(SAME, issuer_of_patient_id="SOUTH")], None),
    ],
)
def test_anything_else_is_refused_in_words_without_patient_data(studies: list[Study], patient: Patient | None) -> None:
    with pytest.raises(PatientMismatch) as refused:
        one_patient(studies, [patient] if patient else [], RULES)
    told = refused.value.words + str(refused.value.details)
    assert "A1" in told or "A2" in told
    assert not any(secret in told for secret in ("HN-1", "HN-2", "HN-01", "hn-1", "Canary", "NORTH"))


def test_a_study_without_a_patient_id_is_named() -> None:
    with pytest.raises(PatientMismatch, match="accession number A2 has no patient ID") as refused:
        one_patient([STUDY, replace(SAME, patient_id=" ")], [], RULES)
    assert refused.value.details == {"accession_numbers": ["A2"]}


def test_a_study_of_two_patients_is_named_by_all_its_numbers_or_by_its_uid() -> None:
    copies = [STUDY, replace(STUDY, accession_number="", patient_id="HN-2")]
    with pytest.raises(PatientMismatch, match=r"number A1, none \(study 1\.2\.3\) belongs to more") as refused:
        one_study(copies)
    assert refused.value.details == {"accession_numbers": ["A1", "none (study 1.2.3)"]}
    assert "HN-" not in refused.value.words


def test_an_issuer_counts_only_where_both_name_one() -> None:
    one_patient([replace(STUDY, issuer_of_patient_id="NORTH"), SAME], [], RULES)


def test_an_accession_number_of_two_patients_is_named() -> None:
    with pytest.raises(PatientMismatch, match="A1 belongs to studies of more than one patient"):
        one_patient([STUDY, replace(OTHER, accession_number="A1")], [], RULES)


def test_an_instance_of_the_study_passes() -> None:
    same_patient(header(), STUDY)
    same_patient(header(PatientID="HN-1 ", IssuerOfPatientID="NORTH"), STUDY)


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientID": "HN-2"},
        {"PatientID": ""},
        {"StudyInstanceUID": "1.2.4"},
        {"StudyInstanceUID": ""},
        {"IssuerOfPatientID": "SOUTH"},
    ],
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
    assert fingerprint([STUDY, listed], Patient("HN-1", "N")) == fingerprint(
        [listed, replace(STUDY)], Patient("HN-1", "N")
    )
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


@pytest.mark.parametrize("name", [field.name for field in fields(Patient)])
def test_the_fingerprint_changes_with_all_that_the_patient_api_says(name: str) -> None:
    """The page on the disc shows birth date and sex too: a disc from before they were corrected isn't served again."""
    patient = Patient("HN-1", "N", "19700101", "F")
    told = [None, patient, replace(patient, **{name: ""}), replace(patient, **{name: "9"})]
    assert len({fingerprint([STUDY], each) for each in told}) == 4


def test_a_disc_that_says_that_it_is_a_part_is_not_the_whole_one() -> None:
    assert fingerprint([STUDY], None, is_part=True) != fingerprint([STUDY], None)


def test_a_study_known_by_counts_never_matches_again() -> None:
    counted = replace(STUDY, expected=Expected("series", 2))
    assert fingerprint([counted], None) != fingerprint([counted], None)


def test_one_issuer_is_no_contradiction() -> None:
    study = replace(STUDY, issuer_of_patient_id="NORTH")
    same_patient(header(IssuerOfPatientID="NORTH "), study)
    with pytest.raises(PatientMismatch):
        same_patient(header(IssuerOfPatientID="SOUTH"), study)


@pytest.mark.parametrize(
    "patient_id",
    ["0", "000", " 0 ", "0-0", "-", "unknown", "UNKNOWN", "N/A", "none", "XX-9", "xx-9", "A\\B", "", "๐", "０-0"],
)
def test_a_placeholder_is_nobody(patient_id: str) -> None:
    assert is_placeholder(patient_id, Identity(placeholder_ids=(" XX-9",)))


@pytest.mark.parametrize("patient_id", ["10", "0001", "HN-0", "UNKNOWN1", "NONE^A", "XX-90", "๑", "½"])
def test_what_has_a_digit_or_a_letter_is_somebody(patient_id: str) -> None:
    assert not is_placeholder(patient_id, Identity(placeholder_ids=("XX-9",)))


ONE = Claim("HN-1", "NORTH", "1.2 (ISO)", "19700101", "F")


@pytest.mark.parametrize(
    "made",
    [
        [],
        [ONE],
        [ONE, Claim("HN-1")],
        [ONE, replace(ONE, issuer=""), replace(ONE, universal="")],
        [ONE, replace(ONE, birth_date="", sex="")],
        [ONE, replace(ONE, also=(("HN-1", "NORTH", "1.2 (ISO)"), ("HN-9", "SOUTH", "1.3 (ISO)"), ("HN-1", "", "")))],
    ],
)
def test_claims_that_agree_are_one_patient(made: list[Claim]) -> None:
    told = agreed([STUDY], made, RULES)
    assert (told.patient_id, told.issuer, told.universal) == (
        "HN-1",
        "NORTH" if made else "",
        "1.2 (ISO)" if made else "",
    )


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ([ONE, replace(ONE, patient_id="HN-2")], "more than one patient ID"),
        ([replace(ONE, patient_id="HN-2")], "more than one patient ID"),
        ([ONE, replace(ONE, issuer="SOUTH")], "more than one issuer"),
        ([ONE, replace(ONE, universal="1.3 (ISO)")], "more than one issuer"),
        ([ONE, replace(ONE, universal="1.2 (DNS)")], "more than one issuer"),
        ([Claim("HN-1", also=(("HN-1", "SOUTH", ""),)), Claim("HN-1", "NORTH")], "more than one issuer"),
        ([Claim("HN-1", also=(("HN-1", "", "1.3 (ISO)"),)), ONE], "more than one issuer"),
        ([Claim("HN-1", "NORTH"), Claim("HN-1", universal="1.2 (ISO)")], "two ways that nothing connects"),
        ([ONE, replace(ONE, birth_date="19700102")], "PatientBirthDate"),
        ([ONE, replace(ONE, sex="M")], "PatientSex"),
    ],
)
def test_claims_that_contradict_each_other_are_refused_without_patient_data(made: list[Claim], words: str) -> None:
    with pytest.raises(PatientMismatch, match=words) as refused:
        agreed([STUDY, SAME], made, RULES)
    assert "A1, A2" in refused.value.words
    assert not any(secret in refused.value.words for secret in ("HN-", "NORTH", "SOUTH", "1970", "1.2"))


def test_the_issuer_that_c_find_names_counts() -> None:
    south = replace(STUDY, issuer_of_patient_id="SOUTH")
    assert agreed([south, STUDY], [Claim("HN-1")], RULES).issuer == "SOUTH"
    with pytest.raises(PatientMismatch, match="more than one issuer"):
        agreed([south], [Claim("HN-1", "NORTH")], RULES)


@pytest.mark.parametrize(
    ("compare", "other"), [(("PatientSex",), {"birth_date": "19000101"}), (("PatientBirthDate",), {"sex": "O"})]
)
def test_a_site_whose_data_is_dirty_says_what_isnt_compared(compare: tuple[str, ...], other: dict[str, Any]) -> None:
    agreed([STUDY], [ONE, replace(ONE, **other)], Identity.model_validate({"compare": compare}))
    agreed([STUDY], [ONE, replace(ONE, **other)], Identity(compare=()))
    with pytest.raises(PatientMismatch):
        agreed(
            [STUDY], [ONE, replace(ONE, birth_date="19000101", sex="M")], Identity.model_validate({"compare": compare})
        )


def test_a_claim_is_what_a_header_says() -> None:
    full = header(IssuerOfPatientID=" NORTH", PatientBirthDate="1970.01.01", PatientSex="f")
    qualifier = Dataset()
    qualifier.UniversalEntityID, qualifier.UniversalEntityIDType = "1.2", "iso"
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID, other.IssuerOfPatientIDQualifiersSequence = (
        "HN-9",
        "SOUTH",
        [qualifier, Dataset()],
    )
    full.IssuerOfPatientIDQualifiersSequence, full.OtherPatientIDsSequence = [qualifier], [other]
    assert claims([full, header(), header(), full]) == [
        Claim("HN-1", "NORTH", "1.2 (ISO)", "19700101", "F", (("HN-9", "SOUTH", "1.2 (ISO)"),)),
        Claim("HN-1"),
    ]


def item(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


NORTH_1, NORTH_2 = ({"IssuerOfPatientIDQualifiersSequence": [item(UniversalEntityID=uid)]} for uid in ("1.1", "1.2"))
ALSO_1, ALSO_2 = (
    {"OtherPatientIDsSequence": [item(PatientID="HN-1", IssuerOfPatientID=issuer)]} for issuer in ("NORTH", "SOUTH")
)


@pytest.mark.parametrize(
    ("one", "other"),
    [(NORTH_1, NORTH_2), (ALSO_1, ALSO_2), (NORTH_1 | ALSO_1, NORTH_2 | ALSO_1), (NORTH_1 | ALSO_1, NORTH_1 | ALSO_2)],
)
def test_headers_that_differ_in_a_sequence_alone_are_two_claims(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert len(claims([header(**one), header(**other)])) == 2


def encoded(**values: bytes) -> Dataset:
    """A header as it is read from a file: pydicom decodes an element when it is first looked at."""
    tags = {keyword: BaseTag(tag_for_keyword(keyword) or 0) for keyword in values}
    return Dataset({tags[k]: RawDataElement(tags[k], None, len(v), v, 0, True, True) for k, v in values.items()})


def test_the_same_bytes_in_two_character_sets_are_two_claims() -> None:
    """What a header says is its text; how it is encoded is another header's matter."""
    both = [encoded(SpecificCharacterSet=terms, PatientID=b"HN-\xc4") for terms in (b"ISO_IR 100", b"ISO_IR 144")]
    assert [claim.patient_id for claim in claims(both)] == ["HN-Ä", "HN-Ф"]


def test_headers_that_are_alike_are_decoded_once() -> None:
    """A series has thousands of them."""
    alike = [encoded(PatientID=b"HN-1", PatientBirthDate=b"19700101", PatientSex=b"F ") for _ in range(3)]
    assert claims(alike) == [Claim("HN-1", birth_date="19700101", sex="F")]
    raw = [isinstance(each.get_item("PatientBirthDate"), RawDataElement) for each in alike]
    assert raw == [False, True, True]


def test_an_issuer_by_its_universal_id_alone_is_one() -> None:
    assert agreed([STUDY], [Claim("HN-1", universal="1.2 (ISO)"), Claim("HN-1")], RULES).universal == "1.2 (ISO)"


@pytest.mark.parametrize("keyword", ["PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"])
def test_headers_that_differ_in_a_claim_are_two_claims(keyword: str) -> None:
    assert len(claims([header(), header(**{keyword: "19700101"}), header()])) == 2


def test_no_value_is_no_text() -> None:
    assert significant(None) == ""
    assert significant(MultiValue(str, ["A ", "B"])) == "A \\B"
    with pytest.raises(PatientMismatch):
        same_patient(header(PatientID="None"), replace(STUDY, patient_id=""))


@pytest.mark.parametrize(
    ("count", "listed"), [(2, "N0, N1 are"), (5, "N0, N1, N2, N3, N4 are"), (6, "N0, N1, N2, N3, N4 and 1 more are")]
)
def test_the_accession_numbers_are_named(count: int, listed: str) -> None:
    studies = [replace(STUDY, accession_number=f"N{number}", patient_id=f"HN-{number}") for number in range(count)]
    with pytest.raises(PatientMismatch, match=listed):
        one_patient(studies, [], RULES)


def test_what_others_say_holds_no_patient() -> None:
    patient = Patient("HN-0001", "Example^Anna", "19700102")
    assert (
        without_patient("label 'Anna Example'\r\nHN-0001 born 1970-01-02 (19700102) fell off", patient)
        == "label '… …' … born … (…) fell off"
    )
    assert without_patient("EXAMPLE^ANNA hn-0001", patient) == "…^… …"
    assert without_patient("Annabel of Ann", Patient("HN-0001", "Annabel^Ann")) == "… of …"  # the longest first
    assert (
        without_patient("Li and a B", Patient("HN-0001", "Li^B")) == "… and a B"
    )  # a letter would blot out every sentence
    assert without_patient("nothing to hide", Patient("")) == "nothing to hide"
    assert len(without_patient("x" * 1000, patient)) <= 240
    assert one_line("a\tb\r\nc\x00") == "a b c"


def test_a_long_text_is_cut_without_leaving_a_part_of_the_patient() -> None:
    patient = Patient("HN-0001", "Example^Anna", "19700102")
    assert without_patient("x" + " " * 4095, patient) == "x"
    assert without_patient("x" + " " * 4096, patient) == ""
    assert "Exampl" not in without_patient("x" + " " * 4089 + "Example", patient)


def test_nothing_is_left_where_the_patient_is_longer_than_any() -> None:
    assert without_patient("plain", Patient("i" * 1024)) == "plain"
    assert without_patient("plain", Patient("i" * 1025)) == "…"


@pytest.mark.parametrize(
    ("date", "told"),
    [
        ("19600229", "1960-02-29"),
        ("1960", "1960"),
        ("1960.02.29", "1960.02.29"),
        ("unknown8", "unknown8"),
        ("196002290", "196002290"),
        ("", ""),
    ],
)
def test_a_date_is_told_as_iso_8601_and_what_is_none_as_it_is(date: str, told: str) -> None:
    assert iso_date(date) == told


def test_ids_that_cant_be_read_are_compared_by_their_bytes() -> None:
    headers = [header(SpecificCharacterSet="ISO_IR 192") for _ in range(2)]
    for each, value in zip(headers, (b"A\xfe", b"A\xff"), strict=True):
        each.add_new(0x00100020, "LO", value)
    with pytest.raises(PatientMismatch):
        agreed([], claims(headers), RULES)


def test_what_may_be_one_patient_isnt_told_apart() -> None:
    one = PatientIdentity("HN-1", "NORTH", "1.2 (ISO)", "19700101", "F")
    alike = [
        one,
        replace(one, issuer=""),
        replace(one, universal=""),
        replace(one, birth_date="", sex=""),
        PatientIdentity("HN-1"),
    ]
    assert told_apart({str(number): each for number, each in enumerate(alike)}) == dict.fromkeys("01234", "")
    assert told_apart({}) == {}


def test_patients_of_other_ids_tell_nobody_apart() -> None:
    assert told_apart({"1": PatientIdentity("HN-1", "NORTH"), "2": PatientIdentity("HN-2", "SOUTH")}) == {
        "1": "",
        "2": "",
    }


@pytest.mark.parametrize(
    ("those", "words"),
    [
        ([("NORTH",), ("SOUTH",), ("",)], ["NORTH", "SOUTH", ""]),
        ([("NORTH", "1.2"), ("NORTH", "1.3"), ("NORTH",)], ["1.2", "1.3", ""]),
        ([("", "1.2"), ("SOUTH", "1.3"), ("SOUTH",)], ["1.2", "SOUTH", "SOUTH"]),
        ([("NORTH",), ("", "1.2")], ["NORTH", "1.2"]),
        ([("", "", "19700101"), ("", "", "19700102", "F")], ["19700101", "19700102"]),
        ([("", "", "", "F"), ("", "", "19700101", "M")], ["F", "M"]),
        (
            [("NORTH", "", "1970"), ("NORTH", "", "1980"), ("NORTH",), ("SOUTH", "", "1970"), ("SOUTH",)],
            ["NORTH, 1970", "NORTH, 1980", "NORTH", "SOUTH", "SOUTH"],
        ),
        ([("", "", "1970", "F"), ("", "", "1970", "M"), ("", "", "1980", "M")], ["1970, F", "1970, M", "1980"]),
    ],
)
def test_who_contradict_each_other_are_told_apart_by_what_they_contradict_in(
    those: list[tuple[str, ...]], words: list[str]
) -> None:
    named = {str(number): PatientIdentity("HN-1", *each) for number, each in enumerate(those)}
    assert told_apart(named) == dict(zip(named, words, strict=True))


BORN = replace(STUDY, patient_birth_date="19700131", patient_sex="F", issuer_of_patient_id="X")


def test_who_was_shown_is_the_same_in_whatever_order_and_padding() -> None:
    padded = replace(BORN, accession_number="A9", patient_id=" HN-1 ", patient_birth_date="19700131 ")
    shown = shown_digest([BORN, SAME])
    assert len(shown) == 64 and set(shown) <= set("0123456789abcdef")
    assert shown == shown_digest([SAME, BORN]) == shown_digest([SAME, padded, BORN])
    same_as_shown([SAME, BORN], shown)


def test_who_was_shown_with_more_studies_was_shown() -> None:
    """A clerk takes one of two studies away in which the name is written differently."""
    other, third = replace(BORN, patient_name="Canary^Name^W"), replace(BORN, patient_name="Canary^N")
    for studies in ([BORN], [other], [other, BORN]):
        same_as_shown(studies, shown_digest([BORN, other]))
    with pytest.raises(OtherPatient):
        same_as_shown([BORN, third], shown_digest([BORN, other]))


def test_who_was_shown_is_short_however_many_ways_of_writing_there_are() -> None:
    many = [replace(BORN, patient_name=f"Canary^{number}") for number in range(MOST_SHOWN + 1)]
    assert len(shown_digest(many[1:])) == MOST_SHOWN * SHOWN_DIGITS == 512
    shown = shown_digest(many)
    assert len(shown) == SHOWN_DIGITS
    same_as_shown(many[::-1], shown)
    with pytest.raises(OtherPatient):
        same_as_shown(many[1:], shown)


@pytest.mark.parametrize(
    "changed",
    [
        {"patient_id": "HN-2"},
        {"issuer_of_patient_id": ""},
        {"patient_name": "Canary^Mame"},
        {"patient_birth_date": "19700130"},
        {"patient_sex": "M"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_patient_of_whom_anything_changed_was_not_shown(changed: dict[str, str]) -> None:
    other = replace(BORN, accession_number="A2", **changed)  # type: ignore[arg-type]
    for studies in ([other], [BORN, other]):
        with pytest.raises(OtherPatient, match="A2") as refused:
            same_as_shown(studies, shown_digest([BORN]))
        numbers = sorted({study.accession_number for study in studies})
        assert refused.value.details["accession_numbers"] == numbers
    with pytest.raises(OtherPatient):
        same_as_shown([BORN], "")


def test_the_birth_date_is_that_of_every_study() -> None:
    dotted = replace(BORN, accession_number="A2", patient_birth_date="1970.01.31")
    born_on([BORN, dotted], "19700131")
    for wrong in ("", "19700130", "19700230"):
        other = replace(BORN, accession_number="A3", patient_birth_date=wrong)
        for studies in ([other], [BORN, other]):
            with pytest.raises(WrongBirthDate, match="A3") as refused:
                born_on(studies, "19700131")
            assert refused.value.details["accession_numbers"] == sorted({study.accession_number for study in studies})

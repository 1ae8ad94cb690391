import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from mkiso.errors import InstanceConflict
from mkiso.media.dicomdir import dicomdir
from mkiso.media.file_set import arrange, leaves
from mkiso.media.record_keys import KEYS
from mkiso.media.record_types import record_type
from mkiso.study.models import Arrival, Instance
from peers.corpus import CYRILLIC, EVERYBODY, JAPANESE, KINDS, KOREAN, THAI, UNICODE, Person, make_study
from tests.media.discs import instances

CT = "1.2.840.10008.5.1.4.1.1.2"


def made(
    number: int,
    charset: str | list[str] = "ISO_IR 192",
    implicit: bool = False,
    big: bool = False,
    **attributes: object,
) -> Instance:
    """An instance whose header went through an encoding, so that it has raw elements like a real one."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = charset
    values = {
        "PatientID": "P1",
        "PatientName": "A^B",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.3",
        "StudyDate": "20240101",
        **attributes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, not big
    write_dataset(buffer, dataset)
    header = pydicom.filereader.read_dataset(BytesIO(buffer.getvalue()), implicit, not big)
    study = str(values["StudyInstanceUID"] or "1.2")
    return Instance(
        Arrival(f"1.2.3.{number}", str(values.get("SOPClassUID", CT)), "1.2.840.10008.1.2.1", study, Path("/f"), 1, ""),
        header,
    )


def encoded_as(found: Instance, terms: bytes | None, **values: bytes) -> Instance:
    """With these values as they are, in this character set; None declares none."""
    for keyword, value in {**values, **({} if terms is None else {"SpecificCharacterSet": terms})}.items():
        tag = pydicom.tag.Tag(keyword)
        vr = pydicom.datadict.dictionary_VR(tag)
        found.header._dict[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(value), value, 0, False, True)
    if terms is None:
        del found.header[0x00080005]
    return found


def notes(found: list[Instance]) -> str:
    return "\n".join(dicomdir(arrange(found), "TEST")[1])


def records(found: list[Instance]) -> list[Dataset]:
    content, _ = dicomdir(arrange(found), "TEST")
    return list(dcmread(BytesIO(content)).DirectoryRecordSequence)


def of_type(found: list[Instance], kind: str) -> Iterator[Dataset]:
    return (record for record in records(found) if record.DirectoryRecordType == kind)


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def test_the_tree_and_its_references() -> None:
    found = [
        made(number, InstanceNumber=10 - number, SeriesInstanceUID=f"1.2.3.{number % 2}", SeriesNumber=number % 2)
        for number in range(1, 10)
    ]
    kinds = [record.DirectoryRecordType for record in records(found)]
    assert kinds == ["PATIENT", "STUDY", "SERIES", *["IMAGE"] * 4, "SERIES", *["IMAGE"] * 5]
    images = list(of_type(found, "IMAGE"))
    assert [int(image.InstanceNumber) for image in images] == [2, 4, 6, 8, 1, 3, 5, 7, 9]
    assert list(images[0].ReferencedFileID) == ["DICOM", "PT000001", "ST000001", "SE000001", "IM000001"]
    assert (images[0].ReferencedSOPInstanceUIDInFile, images[0].ReferencedSOPClassUIDInFile) == ("1.2.3.8", CT)


def test_the_same_instances_in_any_order_give_the_same_bytes() -> None:
    found = [made(number, InstanceNumber=number) for number in range(1, 8)]
    assert dicomdir(arrange(found), "TEST") == dicomdir(arrange(found[::-1]), "TEST")


def test_file_meta_and_root_attributes() -> None:
    content, _ = dicomdir(arrange([made(1)]), "TEST_1")
    directory = dcmread(BytesIO(content))
    assert content[:132] == bytes(128) + b"DICM"
    assert directory.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.1.3.10"
    assert directory.file_meta.FileMetaInformationGroupLength == content.index(b"\x04\x00\x30\x11") - 144
    assert (directory.FileSetID, directory.FileSetConsistencyFlag) == ("TEST_1", 0)
    first = directory.DirectoryRecordSequence[0]
    assert directory.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity == first.seq_item_tell


def test_what_an_image_lacks_is_filled_in_the_record_and_told() -> None:
    found = [
        made(1, StudyDate=None, AccessionNumber="ACC1", ContentDate="20230505"),
        made(2, StudyDate=None, InstanceNumber=9),
    ]
    content, notes = dicomdir(arrange(found), "TEST")
    _patient, study, series, first, second = dcmread(BytesIO(content)).DirectoryRecordSequence
    assert (study.StudyDate, study.StudyTime, study.StudyID) in {
        ("20230505", "000000", "ACC1"),
        ("19000101", "000000", "1"),
    }
    assert (series.Modality, series.SeriesNumber) == ("OT", 1)
    assert (first.InstanceNumber, second.InstanceNumber) == (9, 2)
    assert any(note.startswith("IMAGE, InstanceNumber: filled in 1 record") for note in notes)
    assert "InstanceNumber" not in found[0].header


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("StudyDate", "2024.01.09", "20240109"),
        ("StudyDate", "yesterday", "19000101"),
        ("StudyTime", "99", "000000"),
        ("StudyTime", "1015", "1015"),
    ],
)
def test_a_value_that_its_vr_forbids_is_replaced(keyword: str, value: str, expected: str) -> None:
    without: dict[str, Any] = {keyword: None}
    dataset_bytes = made(1, **without)
    vr = pydicom.datadict.dictionary_VR(keyword)
    raw = pydicom.dataelem.RawDataElement(pydicom.tag.Tag(keyword), vr, len(value), value.encode(), 0, False, True)
    dataset_bytes.header._dict[raw.tag] = raw
    [study] = of_type([dataset_bytes], "STUDY")
    assert study[keyword].value == expected


def test_two_spellings_of_a_name_are_one_patient() -> None:
    found = [
        made(1, PatientName="A^B"),
        made(2, PatientName="A^B^^Dr.", StudyInstanceUID="1.9"),
        made(3, PatientName="", StudyInstanceUID="1.10"),
    ]
    assert len(list(of_type(found, "PATIENT"))) == 1


def test_an_issuer_alone_makes_no_other_patient() -> None:
    """Which studies of one ID are of several patients is the gate's to say, from all of their headers."""
    found = [made(number, IssuerOfPatientID=issuer) for number, issuer in enumerate([None, "NORTH", "SOUTH"])]
    assert len(list(of_type(found, "PATIENT"))) == 1


def test_patients_without_an_id_stay_apart_and_get_unique_ones() -> None:
    found = [made(1, PatientID="", StudyInstanceUID="1.5"), made(2, PatientID=None, StudyInstanceUID="1.6")]
    ids = [record.PatientID for record in of_type(found, "PATIENT")]
    assert len(set(ids)) == 2 and all(ids)


def test_an_instance_twice_is_refused() -> None:
    with pytest.raises(InstanceConflict):
        arrange([made(1), made(1)])


@pytest.mark.parametrize("patient", EVERYBODY, ids=lambda patient: patient.patient_id)
def test_names_of_every_alphabet_stay_themselves(tmp_path: Path, patient: Person) -> None:
    [record] = of_type(instances(make_study(tmp_path, "A1", patient=patient, kinds={"ct": 1})), "PATIENT")
    assert record.PatientName == patient.name
    assert record.SpecificCharacterSet == patient.character_set


@pytest.mark.parametrize("patient", [THAI, JAPANESE, CYRILLIC, KOREAN, UNICODE], ids=lambda patient: patient.patient_id)
def test_a_header_that_somebody_read_before_gives_the_same_record(tmp_path: Path, patient: Person) -> None:
    found = instances(make_study(tmp_path, "A1", patient=patient, kinds={"ct": 1}))
    before = dicomdir(arrange(found), "TEST")
    for element in found[0].header:
        str(element.value)
    assert dicomdir(arrange(found), "TEST") == before


def test_undeclared_utf_8_is_declared() -> None:
    [record] = of_type([made(1, charset="ISO_IR 192", PatientName="Łoś")], "PATIENT")
    assert record.SpecificCharacterSet == "ISO_IR 192"
    undeclared = made(1, charset="ISO_IR 192", PatientName="Łoś")
    del undeclared.header[0x00080005]
    [record] = of_type([undeclared], "PATIENT")
    assert (record.SpecificCharacterSet, record.PatientName) == ("ISO_IR 192", "Łoś")


@pytest.mark.parametrize(
    ("spelled", "term"), [("ISO IR 100", "ISO_IR 100"), ("iso-ir-166", "ISO_IR 166"), ("UTF8", "ISO_IR 192")]
)
def test_a_misspelled_character_set_becomes_the_defined_term(spelled: str, term: str) -> None:
    found = made(1, PatientName="A")
    found.header._dict[pydicom.tag.Tag(0x00080005)] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(0x00080005), "CS", len(spelled), spelled.encode(), 0, False, True
    )
    [record] = of_type([found], "PATIENT")
    assert record.SpecificCharacterSet == term


def test_implicit_and_big_endian_sources_give_the_same_records() -> None:
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "18748-4", "LN", "Bildbericht äöü"
    values: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "InstanceNumber": 3, "CompletionFlag": "COMPLETE",
        "VerificationFlag": "UNVERIFIED", "ContentDate": "20240101", "ContentTime": "1200",
        "ConceptNameCodeSequence": [title], "Modality": "SR", "SeriesNumber": 1,
    }  # fmt: skip
    little = dicomdir(arrange([made(1, **values)]), "TEST")
    assert dicomdir(arrange([made(1, implicit=True, **values)]), "TEST") == little
    assert dicomdir(arrange([made(1, big=True, **values)]), "TEST") == little
    [record] = of_type([made(1, implicit=True, **values)], "SR DOCUMENT")
    assert record.ConceptNameCodeSequence[0].CodeMeaning == "Bildbericht äöü"


def test_a_report_without_a_title_gets_the_least_one() -> None:
    [record] = of_type([made(1, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.59")], "KEY OBJECT DOC")
    assert record.ConceptNameCodeSequence[0].CodeValue == "113000"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_gets_a_record_with_all_that_its_type_requires(tmp_path: Path, kind: str) -> None:
    found = instances(make_study(tmp_path, "A1", patient=THAI, kinds={kind: 1}))
    [leaf] = leaves(arrange(found))
    [record] = of_type(found, leaf.record_type)
    for key in KEYS[leaf.record_type]:
        if key.type_for(leaf.arrival.sop_class_uid) == 1:
            assert record[key.tag].value not in ("", None, []), key.keyword


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"Rows": 4}, "IMAGE"),
        ({"MIMETypeOfEncapsulatedDocument": "text/plain"}, "ENCAP DOC"),
        ({"CompletionFlag": "PARTIAL"}, "SR DOCUMENT"),
        ({}, "RAW DATA"),
    ],
)
def test_a_class_that_nobody_foresaw_is_judged_by_what_it_carries(attributes: dict[str, Any], expected: str) -> None:
    assert record_type("1.2.999.1", made(1, **attributes).header) == expected


TEXT = st.text(
    st.characters(exclude_characters="\\^=", exclude_categories=["C", "Z"], max_codepoint=0xFFFF), max_size=16
)


@given(
    st.lists(
        st.tuples(TEXT, TEXT, st.integers(1, 3), st.integers(1, 3), st.one_of(st.none(), st.integers(-5, 10**9))),
        min_size=1,
        max_size=12,
    )
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_round_trip(rows: list[tuple[str, str, int, int, int | None]]) -> None:
    found = [
        made(
            number,
            PatientName=f"{name}^x",
            StudyDescription=description,
            StudyInstanceUID=f"1.2.{study}",
            SeriesInstanceUID=f"1.3.{study}.{series}",
            InstanceNumber=instance_number,
        )
        for number, (name, description, study, series, instance_number) in enumerate(rows)
    ]
    read = records(found)
    assert sorted(record.ReferencedSOPInstanceUIDInFile for record in read if "ReferencedFileID" in record) == sorted(
        entry.arrival.sop_instance_uid for entry in found
    )
    assert {record.StudyDescription or "" for record in read if record.DirectoryRecordType == "STUDY"} <= {
        row[1] for row in rows
    }
    paths = ["/".join(record.ReferencedFileID) for record in read if "ReferencedFileID" in record]
    assert len(set(paths)) == len(paths)


def test_a_verified_report_says_when_and_its_title_keeps_its_modifiers() -> None:
    observers = []
    for moment in ("20240101090000", "20240102090000"):
        observer = Dataset()
        observer.VerificationDateTime = moment
        observers.append(observer)
    language, finding = Dataset(), Dataset()
    language.RelationshipType, language.ValueType = "HAS CONCEPT MOD", "CODE"
    language.ConceptNameCodeSequence = [code("121049", "DCM", "Language")]
    language.ConceptCodeSequence = [code("de", "RFC5646", "German")]
    finding.RelationshipType, finding.ValueType, finding.TextValue = "CONTAINS", "TEXT", "not for a directory"
    report = made(
        1,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11",
        VerificationFlag="VERIFIED",
        VerifyingObserverSequence=observers,
        ContentSequence=[language, finding],
        implicit=True,
    )
    [record] = of_type([report], "SR DOCUMENT")
    assert record.VerificationDateTime == "20240102090000"
    assert [item.ConceptCodeSequence[0].CodeValue for item in record.ContentSequence] == ["de"]


KO, PR = "1.2.840.10008.5.1.4.1.1.88.59", "1.2.840.10008.5.1.4.1.1.11.1"


def test_a_name_travels_with_its_character_set() -> None:
    """A key object without a name comes first and is in UTF-8; the name comes from an image in ISO_IR 166."""
    ko = made(1, charset="ISO_IR 192", PatientName=None, SOPClassUID=KO, SeriesInstanceUID="1.2.1", SeriesNumber=1)
    ct = made(2, charset="ISO_IR 166", PatientName=THAI.name, SeriesInstanceUID="1.2.2", SeriesNumber=2)
    [patient] = of_type([ko, ct], "PATIENT")
    assert (patient.PatientName, patient.SpecificCharacterSet) == (THAI.name, "ISO_IR 166")


def test_a_record_in_two_character_sets_is_in_unicode() -> None:
    ko = made(1, charset="ISO_IR 192", PatientName=None, SOPClassUID=KO, SeriesInstanceUID="1.2.1")
    encoded_as(ko, b"ISO_IR 144", PatientID="Ж1".encode("iso8859-5"))
    ct = made(2, charset="ISO_IR 192", PatientName=THAI.name, PatientID="Ж1", SeriesInstanceUID="1.2.2")
    [patient] = of_type([ko, ct], "PATIENT")
    assert (patient.PatientID, patient.PatientName) == ("Ж1", THAI.name)


def test_an_item_has_its_own_character_set_and_the_record_one_for_all() -> None:
    title = code("1", "99X", "Голова")
    title.SpecificCharacterSet = "ISO_IR 144"
    values: dict[str, Any] = {"DocumentTitle": "Schädel", "ConceptNameCodeSequence": [title]}
    pdf = made(1, charset="ISO_IR 100", SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1", **values)
    [record] = of_type([pdf], "ENCAP DOC")
    assert record.SpecificCharacterSet == "ISO_IR 192"
    assert (record.DocumentTitle, record.ConceptNameCodeSequence[0].CodeMeaning) == ("Schädel", "Голова")
    assert "SpecificCharacterSet" not in record.ConceptNameCodeSequence[0]


def test_one_patient_id_in_two_character_sets_is_one_patient() -> None:
    found = [made(1, charset="ISO_IR 166", PatientID="ก1"), made(2, charset="ISO_IR 192", PatientID="ก1")]
    assert [record.PatientID for record in of_type(found, "PATIENT")] == ["ก1"]
    broken = [encoded_as(made(n), b"ISO_IR 192", PatientID=value) for n, value in enumerate((b"A\xfe", b"A\xff"))]
    assert len({record.PatientID for record in of_type(broken, "PATIENT")}) == 2


@pytest.mark.parametrize(
    ("terms", "name", "shown", "noted"),
    [
        (b"cp1251", "Иванов".encode("cp1251"), "Иванов", "SpecificCharacterSet: ISO_IR 192"),
        (b"cp1251", b"Ivanov", "Ivanov", "SpecificCharacterSet: left out"),
        (b"RUSSIAN", "Иванов".encode("cp1251"), "\ufffd" * 6, "PatientName: not readable"),
        (None, "Müller".encode("latin-1"), "M\ufffdller", "PatientName: not readable"),
        (None, "Müller".encode(), "Müller", "SpecificCharacterSet: ISO_IR 192"),
        (b"ISO_IR 100", "Müller".encode("latin-1"), "Müller", ""),
        (None, b"Mueller", "Mueller", ""),
    ],
)
def test_only_defined_character_sets_stand_in_records(terms: bytes | None, name: bytes, shown: str, noted: str) -> None:
    found = encoded_as(made(1), terms, PatientName=name)
    [record] = of_type([found], "PATIENT")
    assert record.PatientName == shown
    assert record.get("SpecificCharacterSet", "ISO_IR 192") in ("ISO_IR 100", "ISO_IR 192")
    told = [note for note in notes([found]).splitlines() if note.startswith("PATIENT, ")]
    assert [noted in note for note in told] == [True] * bool(noted)


def test_a_plain_report_without_a_character_set_is_not_told_of() -> None:
    title, modifier = code("18748-4", "LN", "Report"), Dataset()
    modifier.RelationshipType, modifier.ValueType = "HAS CONCEPT MOD", "TEXT"
    modifier.ConceptNameCodeSequence, modifier.TextValue = [title], "of the head"
    values: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "InstanceNumber": 1, "ContentDate": "20240101",
        "ContentTime": "1200",
        "CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED", "ConceptNameCodeSequence": [title],
        "ContentSequence": [modifier],
    }  # fmt: skip
    found = encoded_as(made(1, **values), None)
    assert "SR DOCUMENT" not in notes([found])
    [record] = of_type([found], "SR DOCUMENT")
    assert "SpecificCharacterSet" not in record and record.ContentSequence[0].TextValue == "of the head"


def test_series_whose_uids_are_not_valid_stay_apart() -> None:
    uids = ["1.2.03", "1.2.3", "1.2.003", "1.2.4"]
    found = [made(n, SeriesInstanceUID=uid, StudyInstanceUID="1.9.09") for n, uid in enumerate(uids)]
    written = [record.SeriesInstanceUID for record in of_type(found, "SERIES")]
    assert len(set(written)) == 4 and {"1.2.3", "1.2.4"} < set(written)
    assert all(uid.is_valid for uid in written)
    assert len([uid for uid in written if uid.startswith("2.25.")]) == 2
    [study] = of_type(found, "STUDY")
    assert study.StudyInstanceUID.is_valid
    assert "SERIES, SeriesInstanceUID: no valid UID, replaced by one of our own in 2 records" in notes(found)
    assert [record.SeriesInstanceUID for record in of_type(found[::-1], "SERIES")] == written


def test_a_reference_to_a_series_names_it_as_its_record_does() -> None:
    image, item = Dataset(), Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = CT, "1.2.3.01"
    item.SeriesInstanceUID, item.ReferencedImageSequence = "1.2.03", [image]
    state = made(1, SOPClassUID=PR, SeriesInstanceUID="1.2.9", ReferencedSeriesSequence=[item])
    found = [state, made(2, SeriesInstanceUID="1.2.03")]
    [record] = of_type(found, "PRESENTATION")
    series = {record.SeriesInstanceUID for record in of_type(found, "SERIES")}
    assert record.ReferencedSeriesSequence[0].SeriesInstanceUID in series
    # An instance is named as its file names itself, or the reference would find nothing (PS3.10 8.6).
    assert record.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.01"


def test_an_instance_is_named_as_its_file_names_it() -> None:
    found = made(1)
    arrival = Arrival("1.2.03", CT, "1.2.840.10008.1.2.1", "1.2", Path("/f"), 1, "")
    [image] = of_type([Instance(arrival, found.header)], "IMAGE")
    assert image.ReferencedSOPInstanceUIDInFile == "1.2.03"
    told = notes([Instance(arrival, found.header)])
    assert "IMAGE, ReferencedSOPInstanceUIDInFile: no valid UID, named in 1 record" in told


@pytest.mark.parametrize(
    ("sop_class", "sequence", "items"),
    [(PR, "ReferencedSeriesSequence", 1), ("1.2.840.10008.5.1.4.1.1.11.4", "BlendingSequence", 2)],
)
def test_a_presentation_state_that_names_no_image_refers_to_itself(sop_class: str, sequence: str, items: int) -> None:
    found = made(7, SOPClassUID=sop_class)
    [record] = of_type([found], "PRESENTATION")
    assert len(record[sequence].value) == items
    for item in record[sequence].value:
        series = item.ReferencedSeriesSequence[0] if sequence == "BlendingSequence" else item
        assert series.SeriesInstanceUID == "1.2.3"
        assert series.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.7"
    told = f"PRESENTATION, {sequence}: filled in 1 record of the DICOMDIR with a reference to the instance itself"
    assert told in notes([found])


def test_a_presentation_state_of_another_kind_names_what_it_names() -> None:
    volumetric = made(1, SOPClassUID="1.2.840.10008.5.1.4.1.1.11.6")
    [record] = of_type([volumetric], "PRESENTATION")
    assert "ReferencedSeriesSequence" not in record and "BlendingSequence" not in record


def test_spectroscopy_keeps_its_evidence() -> None:
    image, series, study = Dataset(), Dataset(), Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = CT, "1.2.3.4"
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "1.2.3", [image]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = "1.2", [series]
    found = made(1, SOPClassUID="1.2.840.10008.5.1.4.1.1.4.2", ReferencedImageEvidenceSequence=[study])
    [record] = of_type([found], "SPECTROSCOPY")
    assert record.ReferencedImageEvidenceSequence[0] == study
    [record] = of_type([made(1, SOPClassUID="1.2.840.10008.5.1.4.1.1.4.2")], "SPECTROSCOPY")
    assert "ReferencedImageEvidenceSequence" not in record  # type 1C: where the instance has it


def test_patients_of_one_id_are_told_apart() -> None:
    found = [made(n, StudyInstanceUID=f"1.{n}", PatientName=f"N{n % 3}^B") for n in range(4)]
    tree = arrange(found, {"1.0": "NORTH", "1.1": "SOUTH", "1.3": "NORTH"})
    content, told = dicomdir(tree, "TEST")
    patients = [
        record
        for record in dcmread(BytesIO(content)).DirectoryRecordSequence
        if record.DirectoryRecordType == "PATIENT"
    ]
    assert [(patient.PatientID, patient.PatientName) for patient in patients] == [
        ("P1", "N2^B"),
        ("P1 (NORTH)", "N0^B"),
        ("P1 (SOUTH)", "N1^B"),
    ]
    assert any(
        "shared by several patients, told apart by issuer, birth date or sex in 2 records" in note for note in told
    )
    content, _ = dicomdir(arrange(found[:2], {f"1.{n}": str(n) * 60 for n in range(2)}), "TEST")
    ids = {
        record.PatientID
        for record in dcmread(BytesIO(content)).DirectoryRecordSequence
        if record.DirectoryRecordType == "PATIENT"
    }
    assert len(ids) == 2 and all(re.fullmatch(r"P1 \([0-9a-f]{16}\)", patient_id) for patient_id in ids)


@pytest.mark.parametrize("patient_id", [b"P" * 70, b"P1\\P2", b"P\n1", b"P\xff"])
def test_a_patient_id_that_cant_stand_in_a_record_is_replaced_and_stays_apart(patient_id: bytes) -> None:
    found = [encoded_as(made(1), None, PatientID=patient_id), encoded_as(made(2), None, PatientID=patient_id + b"2")]
    ids = [record.PatientID for record in of_type(found, "PATIENT")]
    assert len(set(ids)) == 2 and all(re.fullmatch(r"P[P0-9_]*#[0-9a-f]{16}", each) for each in ids)
    assert "PATIENT, PatientID: not fit for a record" in notes(found)


def test_what_one_series_lacks_another_one_of_the_study_has() -> None:
    first = made(1, StudyDate=None, StudyID=None, SeriesInstanceUID="1.2.1", SeriesNumber=1)
    second = made(2, StudyID="S7", SeriesInstanceUID="1.2.2", SeriesNumber=2, PatientBirthDate="19700102")
    encoded_as(first, b"ISO_IR 100", PatientBirthDate=b"broken")
    [study] = of_type([first, second], "STUDY")
    assert (study.StudyDate, study.StudyID) == ("20240101", "S7")
    [patient] = of_type([first, second], "PATIENT")
    assert patient.PatientBirthDate == "19700102"


def test_a_code_that_is_too_long_moves_to_where_it_fits() -> None:
    title = code("1234567890123456789", "SCT", "A long code")
    [record] = of_type([made(1, SOPClassUID=KO, ConceptNameCodeSequence=[title])], "KEY OBJECT DOC")
    item = record.ConceptNameCodeSequence[0]
    assert (item.LongCodeValue, "CodeValue" in item) == ("1234567890123456789", False)
    nameless = code("113000", "", "Of Interest")
    [record] = of_type([made(1, SOPClassUID=KO, ConceptNameCodeSequence=[nameless])], "KEY OBJECT DOC")
    assert record.ConceptNameCodeSequence[0].CodingSchemeDesignator == "DCM"


MR_ENHANCED = "1.2.840.10008.5.1.4.1.1.4.1"


def items(**attributes: object) -> list[Dataset]:
    """A sequence of one item."""
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return [item]


def test_an_image_record_has_what_the_profiles_add() -> None:
    """PS3.11 Tables D.3-2 and H.3-2, of an image that has all of it itself."""
    purpose = code("121311", "DCM", "Localizer")
    purpose.ContextIdentifier, purpose.MappingResource = "7201", "DCMR"
    localizer = items(
        ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID="1.2.3.9", PurposeOfReferenceCodeSequence=[purpose]
    )
    added: dict[str, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "CalibrationImage": "NO", "LossyImageCompressionRatio": [10, 12],
        "NumberOfFrames": 1, "Rows": 512, "Columns": 256, "FrameOfReferenceUID": "1.2.5",
        "SynchronizationFrameOfReferenceUID": "1.2.6", "AcquisitionTimeSynchronized": "Y",
        "AcquisitionDateTime": "20240101101500.5", "ImagePositionPatient": [-1.5, 0, 20],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.5, 0.25],
        "ReferencedImageSequence": localizer,
    }  # fmt: skip
    for implicit in (False, True):
        [record] = of_type([made(1, implicit=implicit, **added)], "IMAGE")
        for keyword, value in added.items():
            assert record[keyword].value == value, keyword


def test_what_all_frames_share_stands_in_the_record() -> None:
    """PS3.11 Table H.3-2: of the image itself, else of its shared functional groups."""
    groups = items(
        ReferencedImageSequence=items(
            ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID="1.2.3.9", ReferencedFrameNumber=[1, 2]
        ),
        PixelMeasuresSequence=items(PixelSpacing=[0.5, 0.25], SliceThickness=3),
        PlanePositionSequence=items(ImagePositionPatient=[1, 2, 3]),
        PlaneOrientationSequence=items(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
    )
    shared: dict[str, Any] = {"SOPClassUID": MR_ENHANCED, "SharedFunctionalGroupsSequence": groups}
    [record] = of_type([made(1, ImageType=["MIXED", "PRIMARY", "X", "M"], **shared)], "IMAGE")
    assert record.ImageType == ["MIXED", "PRIMARY", "X", "M"]
    assert (record.PixelSpacing, record.ImagePositionPatient) == ([0.5, 0.25], [1, 2, 3])
    assert record.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert record.ReferencedImageSequence[0] == groups[0].ReferencedImageSequence[0]
    [record] = of_type([made(1, PixelSpacing=[2, 2], **shared)], "IMAGE")
    assert record.PixelSpacing == [2, 2]


def test_a_series_record_has_what_any_of_its_images_has() -> None:
    """PS3.11 Table H.3-2."""
    several = ["First^Doctor", "Second^Doctor"]
    added: dict[str, Any] = {
        "InstitutionName": "North",
        "InstitutionAddress": "1 Road",
        "PerformingPhysicianName": several,
    }
    [series] = of_type([made(1, InstanceNumber=1), made(2, InstanceNumber=2, **added)], "SERIES")
    assert (series.InstitutionName, series.InstitutionAddress) == ("North", "1 Road")
    assert list(series.PerformingPhysicianName) == several


def test_a_record_names_the_related_general_classes_of_its_file() -> None:
    """PS3.3 Table F.3-3."""
    [record] = of_type([made(1, RelatedGeneralSOPClassUID=[CT, MR_ENHANCED])], "IMAGE")
    assert record.ReferencedRelatedGeneralSOPClassUIDInFile == [CT, MR_ENHANCED]
    [record] = of_type([made(1)], "IMAGE")
    assert "ReferencedRelatedGeneralSOPClassUIDInFile" not in record


def test_raw_data_without_a_number_is_given_none() -> None:
    """PS3.3 F.5.28: type 2."""
    [record] = of_type([made(1, SOPClassUID="1.2.840.10008.5.1.4.1.1.66")], "RAW DATA")
    assert record["InstanceNumber"].is_empty

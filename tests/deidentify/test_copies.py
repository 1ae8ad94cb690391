"""De-identified copies: nothing of what the table names is left at any depth, and what can't be proved is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import pytest
from babel.dates import format_date
from pydicom import DataElement, Dataset, Sequence, dcmread, dcmwrite, uid
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.encaps import encapsulate

from mkiso.config.disc import Deidentified
from mkiso.deidentify import cleaning, copies
from mkiso.deidentify.profile import table
from mkiso.deidentify.strings import days_in
from mkiso.errors import NotDeidentifiable, ProofFailed
from mkiso.languages import languages
from mkiso.media.explicit import convert
from mkiso.study.gate import CompleteStudies
from mkiso.study.models import Patient
from peers.corpus import EVERYBODY, Person, make_study
from tests.media.discs import instances, passed
from tests.pictures.test_decoders import LOSSLESS

pytestmark = pytest.mark.usefixtures("forked_decoders")

SECRET = "a secret of this site that nobody guesses"
MARK = "ZQXMARK"
TEXTS = {
    "AE": MARK,
    "AS": "077Y",
    "CS": MARK,
    "DA": "19770707",
    "DS": "77.0707",
    "DT": "19770707070707",
    "IS": "770707",
    "LO": MARK,
    "LT": MARK,
    "OB": MARK.encode() + b" ",
    "PN": f"{MARK}^{MARK}",
    "SH": MARK,
    "ST": MARK,
    "TM": "070707",
    "UC": MARK,
    "UI": "1.3.77.7.7.7",
    "UN": MARK.encode() + b" ",
    "UR": f"http://{MARK}",
    "UT": MARK,
}

NUMBERS: dict[str, float] = {"FD": 77.0707, "FL": 77.0707, "SS": 7707, "US": 7707, "UL": 7707, "SL": 7707}


def wanted(*options: str) -> Deidentified:
    return Deidentified.model_validate({"secret": SECRET, "options": options})


def deidentified(studies: CompleteStudies, folder: Path, site: Deidentified) -> CompleteStudies:
    return copies.deidentified(studies, folder, site, lambda arrivals: convert(arrivals, folder.parent / "plain").of)


def every_attribute() -> Dataset:
    """Each attribute of the profile's table that a data set can have, with a value that is found again."""
    made = Dataset()
    for name in table():
        tag = int(name.replace("x", "0"), 16)
        if dictionary_has_tag(tag) and tag >> 16 not in (0x0000, 0x0002, 0x0004) and tag < 0x7FE00000:
            vr = dictionary_VR(tag).split(" or ")[0]
            if vr == "SQ":
                item = Dataset()
                item.TextValue, item.PersonName = MARK, f"{MARK}^{MARK}"
                made.add(DataElement(tag, vr, Sequence([item])))
            else:
                made.add(DataElement(tag, vr, TEXTS.get(vr, NUMBERS.get(vr, MARK.encode() + b" "))))
    block = made.private_block(0x0099, MARK, create=True)
    block.add_new(1, "LO", MARK)
    return made


def marked(path: Path) -> Path:
    """An image that has every attribute of the table, on its top level and in sequences of several kinds."""
    image = dcmread(path)
    keywords = "StudyInstanceUID SeriesInstanceUID SOPInstanceUID PatientID AccessionNumber"
    own = {keyword: image[keyword].value for keyword in keywords.split()}
    image.update(every_attribute())
    for keyword, value in own.items():
        setattr(image, keyword, value)
    for group in (0x5000, 0x6000):
        for tag in [tag for tag in image.keys() if tag.group == group]:  # noqa: SIM118
            del image[tag]
    image.add_new(0x60003000, "OW", MARK.encode() + b" ")
    image.add_new(0x50003000, "OW", MARK.encode() + b" ")
    inner = every_attribute()
    outer = every_attribute()
    outer.SourceImageSequence = Sequence([inner])
    image.ReferencedImageSequence = Sequence([outer])
    image.SharedFunctionalGroupsSequence = Sequence([every_attribute()])
    image.add_new(0x00091010, "UN", MARK.encode() + b" ")
    image.save_as(path)
    return path


def study(folder: Path, **kinds: int) -> CompleteStudies:
    return passed(instances(make_study(folder, "A4711", kinds=kinds or {"ct": 3, "mr": 2})))


def read(copied: CompleteStudies) -> list[Dataset]:
    return [dcmread(each.arrival.path) for each in copied.instances]


def test_nothing_of_the_whole_table_is_left_in_any_depth(tmp_path: Path) -> None:
    files = [marked(file) for file in make_study(tmp_path, "A4711", kinds={"ct": 2})]
    copied = deidentified(passed(instances(files)), tmp_path / "copies", wanted())
    for each in copied.instances:
        content = each.arrival.path.read_bytes()
        for text in (
            MARK,
            MARK.lower(),
            "1977",
            "1.3.77.7",
            "77.0707",
            "770707",
            "070707",
            "A4711",
            "Example",
            "Anna",
            "HN-0001",
        ):
            assert text.encode() not in content, text
        assert not [element for element in dcmread(each.arrival.path).iterall() if element.tag.is_private]
    assert all(MARK.encode() in file.read_bytes() for file in files)


def test_a_copy_says_what_was_done_and_keeps_its_pixels(tmp_path: Path) -> None:
    studies = study(tmp_path)
    for copied in (deidentified(studies, tmp_path / "copies", wanted()),):
        for before, after in zip(studies.instances, read(copied), strict=True):
            assert after.PixelData == dcmread(before.arrival.path).PixelData
            assert (after.PatientIdentityRemoved, after.BurnedInAnnotation) == ("YES", "NO")
            assert after.LongitudinalTemporalInformationModified == "REMOVED"
            assert [code.CodeValue for code in after.DeidentificationMethodCodeSequence] == ["113100"]
            assert str(after.PatientName) == f"DEIDENTIFIED^{after.PatientID}"
            assert (after.AccessionNumber, after.StudyDate, after.PatientBirthDate) == ("", "", "")
            assert "StudyDescription" not in after and "SeriesDescription" not in after
            assert (after.Rows, after.Modality) == (64, before.header.Modality)


def test_pseudonyms_are_the_same_each_time_and_of_one_secret(tmp_path: Path) -> None:
    studies = study(tmp_path)
    first, again = (deidentified(studies, tmp_path / name, wanted()) for name in ("1", "2"))
    other = deidentified(studies, tmp_path / "3", Deidentified.model_validate({"secret": SECRET[::-1], "options": ()}))
    assert [each.arrival.sha256 for each in first.instances] == [each.arrival.sha256 for each in again.instances]
    uids = [{element.value for image in read(each) for element in image.iterall() if element.VR == "UI"
             and element.value.startswith("2.25.")} for each in (first, other)]  # fmt: skip
    assert uids[0] and not uids[0] & uids[1]
    assert first.studies[0].patient_id != other.studies[0].patient_id
    assert len({image.FrameOfReferenceUID for image in read(first)}) == 1
    assert len({image.SeriesInstanceUID for image in read(first)}) == 2


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientBirthDateInAlternativeCalendar", "1389-10-23"),
        ("PatientDeathDateInAlternativeCalendar", "R 2.3.4"),
        ("PatientBodyMassIndex", "31.5"),
        ("BreedRegistrationNumber", "R-4711"),
        ("PlacerOrderNumberProcedure", "P-4711"),
        ("FillerOrderNumberImagingServiceRequestRetired", "F-4711"),
        ("OtherStudyNumbers", "4711"),
        ("RequestedProcedureDescriptionTrial", "of the head"),
    ],
)
def test_what_no_table_looks_after_goes_where_it_may_say_whose(tmp_path: Path, keyword: str, value: str) -> None:
    """New attributes of the patient, and retired ones, in sequences too."""
    [file] = make_study(tmp_path, "A1", kinds={"ct": 1})
    image, item = dcmread(file), Dataset()
    setattr(item, keyword, value)
    image.update(item)
    image.AnatomicalOrientationType = "BIPED"
    image.RequestAttributesSequence = image.ReferencedImageSequence = Sequence([item])
    image.save_as(file)
    assert keyword in dcmread(file)
    [copied] = read(deidentified(passed(instances([file])), tmp_path / "copies", wanted("patient-characteristics")))
    assert keyword not in [element.keyword for element in copied.iterall()]
    assert copied.AnatomicalOrientationType == "BIPED"  # else nobody knows where left is


def test_an_enhanced_image_keeps_the_functional_groups_of_its_frames(tmp_path: Path) -> None:
    """Without them nobody knows where a frame lies, how large its pixels are and what their values mean."""
    [file] = make_study(tmp_path, "A1", kinds={"ct": 1})
    image, shared, frame, spacing, values, content = dcmread(file), *(Dataset() for _ in range(5))
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = uid.EnhancedCTImageStorage
    spacing.PixelSpacing, values.RescaleSlope, values.RescaleIntercept, values.RescaleType = [0.5, 0.5], 1, -1024, "HU"
    content.FrameAcquisitionDateTime, content.FrameComments, content.InStackPositionNumber = "20240229", MARK, 1
    content.add_new(0x00991001, "LO", MARK)
    shared.PixelMeasuresSequence, shared.PixelValueTransformationSequence = Sequence([spacing]), Sequence([values])
    frame.FrameContentSequence = Sequence([content])
    image.SharedFunctionalGroupsSequence = Sequence([shared])
    image.PerFrameFunctionalGroupsSequence = Sequence([frame])
    image.add_new(0x54000100, "SQ", Sequence([content]))  # a waveform
    image.save_as(file)
    [copied] = read(deidentified(passed(instances([file])), tmp_path / "copies", wanted()))
    assert copied.SharedFunctionalGroupsSequence[0] == shared
    [kept] = copied.PerFrameFunctionalGroupsSequence[0].FrameContentSequence
    assert (kept.InStackPositionNumber, kept.FrameAcquisitionDateTime) == (1, "19000101000000")
    assert "WaveformSequence" not in copied
    assert MARK.encode() not in (tmp_path / "copies" / copied.SOPInstanceUID).read_bytes()


def test_what_points_from_image_to_image_still_does(tmp_path: Path) -> None:
    files = make_study(tmp_path, "A1", kinds={"ct": 2})
    first, second = map(dcmread, files)
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = second.SOPClassUID, second.SOPInstanceUID
    first.ReferencedImageSequence = Sequence([reference])
    first.save_as(files[0])
    one, other = read(deidentified(passed(instances(files)), tmp_path / "copies", wanted()))
    assert one.ReferencedImageSequence[0].ReferencedSOPInstanceUID == other.SOPInstanceUID
    assert one.ReferencedImageSequence[0].ReferencedSOPClassUID == second.SOPClassUID


def test_a_sequence_is_never_empty_where_it_would_need_an_item(tmp_path: Path) -> None:
    """PS3.15 E.1: D wants a value. What an image may go without goes."""
    [file] = make_study(tmp_path, "A1", kinds={"ct": 1})
    image, item = dcmread(file), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.3", "1.2.3.4"
    image.ReferencedPerformedProcedureStepSequence = image.ReferencedStudySequence = Sequence([item])
    image.save_as(file)
    [copied] = read(deidentified(passed(instances([file])), tmp_path / "copies", wanted()))
    assert "ReferencedPerformedProcedureStepSequence" not in copied and not copied.ReferencedStudySequence


def test_dates_are_shifted_by_as_much_for_one_patient_where_the_option_says_so(tmp_path: Path) -> None:
    files = make_study(tmp_path / "1", "A1", study_date="20240229") + make_study(
        tmp_path / "2", "A2", study_date="20240310"
    )
    dated = dcmread(files[0])
    dated.AcquisitionDateTime = "20240229101500.25+0100"
    dated.save_as(files[0])
    copied = read(deidentified(passed(instances(files)), tmp_path / "copies", wanted("modified-dates")))
    assert copied[0].AcquisitionDateTime == f"{copied[0].StudyDate}101500.25+0100"
    days = sorted({datetime.strptime(image.StudyDate, "%Y%m%d") for image in copied})
    assert (days[1] - days[0]).days == 10
    assert days[1] < datetime(2024, 1, 1)
    for image in copied:
        assert (image.StudyTime, image.PatientBirthDate) == ("101500", "")
        assert image.LongitudinalTemporalInformationModified == "MODIFIED"
        assert [code.CodeValue for code in image.DeidentificationMethodCodeSequence] == ["113100", "113107"]


def test_patient_characteristics_stay_where_the_option_says_so(tmp_path: Path) -> None:
    files = make_study(tmp_path, "A1", kinds={"ct": 1})
    image = dcmread(files[0])
    image.PatientAge, image.PatientWeight, image.Allergies, image.PatientSex = "047Y", "70", "nuts", "F"
    image.save_as(files[0])
    [kept] = read(deidentified(passed(instances(files)), tmp_path / "1", wanted("patient-characteristics")))
    [gone] = read(deidentified(passed(instances(files)), tmp_path / "2", wanted()))
    assert (kept.PatientAge, kept.PatientWeight, kept.PatientSex) == ("047Y", 70, "F")
    assert [code.CodeValue for code in kept.DeidentificationMethodCodeSequence] == ["113100", "113108"]
    assert "Allergies" not in kept
    assert not {"PatientAge", "PatientWeight", "Allergies"} & set(gone.dir()) and not gone.PatientSex


@pytest.mark.parametrize("kind", ["sr", "multiframe", "dx", "pr", "ko", "pdf", "jpeg", "rt_dose"])
def test_what_may_show_whose_it_is_by_its_kind_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(NotDeidentifiable, match="Choose the series"):
        deidentified(study(tmp_path, ct=1, **{kind: 1}), tmp_path / "copies", wanted())
    assert not (tmp_path / "copies").exists()


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("BurnedInAnnotation", "YES"),
        ("BurnedInAnnotation", "Y"),
        ("RecognizableVisualFeatures", "YES"),
        ("ImageType", ["DERIVED", "SECONDARY"]),
        ("ImageType", None),
        ("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL", "SCREEN SAVE"]),
        ("ImageType", ["DERIVED", "PRIMARY", "DOSE_INFO"]),
        ("ConversionType", "WSD"),
        ("PhotometricInterpretation", "RGB"),
        ("OverlayRows", 5),
        ("NumberOfFrames", 2),
        ("Manufacturer", "Made for Example"),
        ("SoftwareVersions", "of Anna"),
        ("Manufacturer", "MadeForExample2"),
        ("ManufacturerModelName", "for 2.1.1970"),
        ("ManufacturerModelName", "1970/01/02"),
        ("ManufacturerModelName", "for 2 January 1970"),
        ("ManufacturerModelName", "JAN 2nd, 70"),
        ("ManufacturerModelName", "02JAN1970"),
        ("ManufacturerModelName", "2/1/2513"),
        ("AcquisitionNumber", "20240229"),
        ("SequenceName", "1.2.3.4.5"),
    ],
)
def test_an_image_that_may_show_whose_it_is_is_refused(tmp_path: Path, keyword: str, value: object) -> None:
    files = make_study(tmp_path, "A1", kinds={"ct": 2})
    image = dcmread(files[1])
    if keyword == "OverlayRows":
        image.add_new(0x60000010, "US", value)
    else:
        setattr(image, keyword, value)
    if keyword == "SequenceName":  # which its own UID is
        image.SequenceName = image.SOPInstanceUID[:16]
        image.StationName, image.ConvolutionKernel = "", image.PatientID
    image.save_as(files[1])
    with pytest.raises((NotDeidentifiable, ProofFailed), match="Choose"):
        deidentified(passed(instances(files)), tmp_path / "copies", wanted())


@pytest.mark.parametrize(
    ("patient_id", "written"),
    [("123 456", "123456"), ("00123456", "123456"), ("123456", "A123456B"), ("AB-12.34", "ab1234")],
)
def test_a_patient_id_that_is_written_otherwise_is_found(tmp_path: Path, patient_id: str, written: str) -> None:
    [file] = make_study(tmp_path, "A1", kinds={"ct": 1})
    image = dcmread(file)
    image.PatientID, image.SequenceName = patient_id, written
    image.save_as(file)
    with pytest.raises(ProofFailed, match=r"\(0018,0024\)"):
        deidentified(passed(instances([file])), tmp_path / "copies", wanted())


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.ExplicitVRBigEndian])
def test_what_is_compressed_is_copied_as_its_pixels_alone(tmp_path: Path, syntax: uid.UID) -> None:
    """What stands beside the pixels, such as behind the frame's last fragment, is gone."""
    files = make_study(tmp_path, "A1", kinds={"ct": 3})
    original = [dcmread(file) for file in files]
    for file in files:
        image = dcmread(file)
        pixels = image.pixel_array
        if syntax == uid.RLELossless:
            image.compress(syntax, generate_instance_uid=False)
        elif syntax.is_encapsulated:
            image.PixelData = encapsulate([LOSSLESS[syntax](pixels, image.BitsStored) + MARK.encode() + b" "])
        else:
            image.PixelData = pixels.byteswap().tobytes()
        image.file_meta.TransferSyntaxUID = syntax
        dcmwrite(file, image, implicit_vr=False, little_endian=syntax.is_little_endian, force_encoding=True)
    copied = read(deidentified(passed(instances(files)), tmp_path / "copies", wanted()))
    assert sorted(each.PixelData for each in copied) == sorted(each.PixelData for each in original)
    assert {each.file_meta.TransferSyntaxUID for each in copied} == {uid.ExplicitVRLittleEndian}
    assert not any(MARK.encode() in file.read_bytes() for file in (tmp_path / "copies").iterdir())


def test_what_cant_be_uncompressed_is_refused_with_its_series(tmp_path: Path) -> None:
    files = make_study(tmp_path, "A1", kinds={"ct": 2})
    image = dcmread(files[1])
    image.compress(uid.RLELossless, generate_instance_uid=False)
    content = image.PixelData
    image.PixelData = content[:200] + bytes(len(content) - 208) + content[-8:]
    image.save_as(files[1])
    with pytest.raises(NotDeidentifiable, match=r"Series \d \(CT\) has an image that can't be uncompressed.*Choose"):
        deidentified(passed(instances(files)), tmp_path / "copies", wanted())
    assert not (tmp_path / "copies").exists()


def test_what_cant_be_read_is_refused_in_words(tmp_path: Path) -> None:
    files = make_study(tmp_path, "A1", kinds={"ct": 1})
    content = files[0].read_bytes()
    at = content.index(b"\x28\x00\x02\x00US")  # Samples per Pixel, of three bytes and so none that can be read
    files[0].write_bytes(content[: at + 6] + b"\x03\x00\x01\x00\x00" + content[at + 10 :])
    with pytest.raises(NotDeidentifiable, match="can't be read"):
        deidentified(passed(instances(files)), tmp_path / "copies", wanted())


def test_a_word_in_a_number_s_place_goes(tmp_path: Path) -> None:
    files = make_study(tmp_path, "A1", kinds={"ct": 1})
    files[0].write_bytes(files[0].read_bytes().replace(b"DS\x02\x002 ", b"DS\x02\x00Bo"))
    assert b"DS\x02\x00Bo" in files[0].read_bytes()
    [copied] = read(deidentified(passed(instances(files)), tmp_path / "copies", wanted()))
    assert "SliceThickness" not in copied and copied.PixelSpacing == [0.5, 0.5]


@pytest.mark.parametrize("patient", EVERYBODY, ids=lambda patient: patient.patient_id)
def test_a_name_in_any_character_set_is_found(tmp_path: Path, patient: Person) -> None:
    files = make_study(tmp_path, "A1", kinds={"ct": 1}, patient=patient)
    image = dcmread(files[0])
    names = [part for group in patient.name.split("=") for part in group.split("^")[:2]]
    for name in names:
        image.ConvolutionKernel = f"({name})"
        image.save_as(files[0])
        with pytest.raises(ProofFailed):
            deidentified(passed(instances(files)), tmp_path / "copies", wanted())
    image.ConvolutionKernel = "B30f"
    image.save_as(files[0])
    assert deidentified(passed(instances(files)), tmp_path / "copies", wanted()).patient_name.startswith("DEIDENTIFIED")


@pytest.mark.parametrize(
    ("name", "patient_id", "text"),
    [
        ("SMITHE^JOHN", "", "KNEES SMITHE"),
        ("SMITHE^JOHN", "AB123456", "AB123456"),
        ("NG^BO", "", "OF NG BO"),
        ("SMITHE^JOHN", "47115", "NO 47115"),
        ("SMITHE^JOHN", "", "SCAN 20240229"),
        ("SMITHE^JOHN", "", "SCAN 2024-02-29"),
        ("SMITHE^JOHN", "", "SCAN 29 FEVR. 24"),
        ("Wei\u00df^Jo", "", "Herr Wei\u00df"),
        ("Wei\u00df^Jo", "", "HR WEISS"),
        ("M\u00fcller^Jo", "", "MUELLERS"),
        ("MUELLER^JO", "", "M\u00fcller7"),
        ("MUELLER^JO", "", "OF MULLER"),
        ("\u00c9luard^Jo", "", "ELUARD 7"),
        ("Smythe^Zo\u00eb", "", "ZOE"),
        ("L\u00fc^Bo", "", "OF LU"),
    ],
)
def test_what_gives_the_patient_away_is_found_before_whatever_follows_it(
    tmp_path: Path, name: str, patient_id: str, text: str
) -> None:
    """A value of even length has no padding, so that the next item's tag looks like more of its last word."""
    [file] = make_study(tmp_path, "A4711", kinds={"ct": 1}, study_date="20240229")
    image = dcmread(file)
    image.SpecificCharacterSet, image.PatientName = "ISO_IR 100", name
    image.PatientID = patient_id or image.PatientID
    code, other = Dataset(), Dataset()
    code.CodeMeaning, other.CodeMeaning = text, "KNEE"
    image.AnatomicRegionSequence = Sequence([code, other])
    image.save_as(file)
    with pytest.raises(ProofFailed, match="0008,0104"):
        deidentified(passed(instances([file])), tmp_path / "copies", wanted())
    code.CodeMeaning = "KNEES"
    image.save_as(file)
    assert deidentified(passed(instances([file])), tmp_path / "copies", wanted()).instances


@pytest.mark.parametrize("code", languages())
def test_a_day_is_found_as_each_language_spells_it(code: str) -> None:
    for month in range(1, 13):
        day = date(1950, month, 3)
        for spelled in ("d MMMM y", "d. MMM y", "MMMM d, y", "MMM d, yy", "y-MMM-dd", "ddMMMyyyy", "dd/MM/yy"):
            written = format_date(day, spelled, locale=code)
            assert f"{day:%Y%m%d}" in days_in(f"born {written.upper()}."), written
        assert f"{day:%Y%m%d}" in days_in(format_date(day, "d MMM", locale=code) + " 2493")
        assert not days_in(format_date(day, "d MMMM", locale=code))


@pytest.mark.parametrize(
    "written",
    ["3 de mayo de 1950", "3rd of May 1950", "3. MARZ 1950", "๓ พฤษภาคม พ.ศ. ๒๔๙๓", "3 พค 2493", "1 AOUT 1950"],
)
def test_a_day_is_found_with_other_words_without_accents_and_in_other_figures(written: str) -> None:
    assert {"19500503", "19500303", "19500801"} & days_in(written)


def test_a_name_of_the_patient_api_is_found_too(tmp_path: Path) -> None:
    files = make_study(tmp_path, "A1", kinds={"ct": 1})
    image = dcmread(files[0])
    image.ConvolutionKernel = "Maier-7"
    image.save_as(files[0])
    known = Patient(str(image.PatientID), "Maier^Anna")
    with pytest.raises(ProofFailed, match="0018,1210"):
        deidentified(passed(instances(files), known), tmp_path / "copies", wanted())


def test_the_judge_finds_what_cleaning_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attribute of the table, put back after cleaning."""
    studies = study(tmp_path, ct=1)
    cleaned = cleaning.clean
    found = []
    for element in every_attribute():
        if element.tag.group >= 0x5000 or element.keyword in ("PatientName", "PatientID"):
            continue

        def leaves(image: Dataset, *rest: object, element: DataElement = element, **more: object) -> None:
            cleaned(image, *rest, **more)  # type: ignore[arg-type]
            if element.tag.is_private:
                image.private_block(0x0099, MARK, create=True)
            image[element.tag] = element

        monkeypatch.setattr(copies, "clean", leaves)
        try:
            deidentified(studies, tmp_path / "copies", wanted())
        except (ProofFailed, ValueError, KeyError, AttributeError):
            continue
        found.append(f"{element.tag} {element.keyword} {element.VR}")
    assert found == []


def test_another_judge_finds_the_copies_conformant(tmp_path: Path) -> None:
    """dciodvfy complains of nothing that it doesn't complain of in the image itself."""
    studies = study(tmp_path, ct=1, mr=1)
    copied = deidentified(studies, tmp_path / "copies", wanted())
    for before, after in zip(studies.instances, copied.instances, strict=True):
        complaints = [set(_dciodvfy(each.arrival.path)) for each in (before, after)]
        assert complaints[1] <= complaints[0]


def _dciodvfy(path: Path) -> Iterator[str]:
    said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace", check=False)
    for line in (said.stdout + said.stderr).splitlines():
        if line.startswith("Error"):
            yield line

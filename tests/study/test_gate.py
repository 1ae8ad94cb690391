"""The gate: nothing becomes CompleteStudies but all of one patient's studies, and nothing goes onto a disc that isn't
of CompleteStudies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from mkiso.config.settings import Settings
from mkiso.config.sources import Origin
from mkiso.errors import (
    CountsUnknown,
    InstanceConflict,
    MkisoError,
    NoDicomData,
    PatientMismatch,
    ProofFailed,
    StudyIncomplete,
)
from mkiso.media.disc_set import DiscSet
from mkiso.media.file_set import arrange
from mkiso.media.layout import Layout, LayoutOptions, lay_out
from mkiso.study.gate import CompleteStudies, Part, beside, found, is_unproven
from mkiso.study.models import Arrival, Expected, Instance, Patient, Study, Volume
from mkiso.study.values import Found, Retrieved, StudyRetrieved
from tests.media.discs import CREATED, settings

RULES = Settings()
CT = "1.2.840.10008.5.1.4.1.1.2"


def instance(study: int, number: int, **attributes: object) -> Instance:
    header = Dataset()
    uid = f"1.2.{study}.1.{number}"
    values = {
        "PatientID": "HN-1",
        "PatientName": "Canary^Name",
        "StudyInstanceUID": f"1.2.{study}",
        "SeriesInstanceUID": f"1.2.{study}.1",
    }
    for keyword, value in {**values, "SOPClassUID": CT, "SOPInstanceUID": uid, **attributes}.items():
        setattr(header, keyword, value)
    return Instance(Arrival(uid, CT, "1.2.840.10008.1.2.1", f"1.2.{study}", Path(f"/{uid}"), 10, "0" * 64), header)


def study(number: int, count: int = 2, **attributes: object) -> Study:
    expected = Expected(
        "image", count, {"1": frozenset(f"1.2.{number}.1.{instance}" for instance in range(1, count + 1))}
    )
    return replace(Study(f"A{number}", f"1.2.{number}", "HN-1", "Canary^Name", expected=expected), **attributes)  # type: ignore[arg-type]


def of(number: int, count: int = 2, /, **attributes: object) -> StudyRetrieved:
    return StudyRetrieved(
        study(number, count), tuple(instance(number, each, **attributes) for each in range(1, count + 1))
    )


def retrieved(
    *studies: StudyRetrieved, patient: Patient | None = None, elsewhere: frozenset[str] = frozenset()
) -> Retrieved:
    wanted = tuple(each.study for each in studies)
    return Retrieved(Found(tuple(each.accession_number for each in wanted), wanted, patient), studies, elsewhere)


def complete(retrieved: Retrieved, settings: Settings) -> CompleteStudies:
    return CompleteStudies(retrieved, settings.identity)


def test_whole_studies_of_one_patient_pass() -> None:
    known = Patient("HN-1", "Known^Name", "19700101", "F")
    passed = complete(retrieved(of(1), of(2, IssuerOfPatientID="NORTH"), patient=known), RULES)
    assert (passed.identity.patient_id, passed.identity.issuer) == ("HN-1", "NORTH")
    assert len(passed.instances) == 4
    assert (passed.patient_name, passed.accession_numbers) == ("Known^Name", ("A1", "A2"))
    assert (passed.patient, passed.degraded) == (known, ())
    assert complete(retrieved(of(1)), RULES).patient == Patient("HN-1", "Canary^Name")
    degraded = retrieved(of(1))
    assert complete(replace(degraded, found=replace(degraded.found, degraded=("x",))), RULES).degraded == ("x",)


@pytest.mark.parametrize(
    ("told", "images", "lacks"),
    [
        (("Doe^Jane", "19700102"), ("Roe^Mary", "19800304"), ("other_person",)),
        (("Doe^Jane", "19700102"), ("Doe^Jane", "19800304"), ("other_person",)),
        (("Doe^Jane", "19700102"), ("Roe^Mary", "19700102"), ("other_person",)),
        (("Doe^Jane", "19700102"), ("Roe^Jane", "1970.01.02"), ()),
        (("Doe^Jane", "19700102"), ("", ""), ()),
        (("Doe^Jane", ""), ("Roe^Mary", "19800304"), ()),
        (("Doe^Jane", "19700102"), ("山田^太郎", "19700102"), ()),
    ],
)
def test_images_of_somebody_else_under_the_patient_s_id_are_told(
    told: tuple[str, str], images: tuple[str, str], lacks: tuple[str, ...]
) -> None:
    """Somebody has typed the wrong Patient ID at the console, or the PACS was corrected: the clerk was shown `told`."""
    name, born = images
    sent = of(1, PatientName=name, PatientBirthDate=born, SpecificCharacterSet="ISO_IR 192")
    shown = replace(sent, study=replace(sent.study, patient_name=told[0], patient_birth_date=told[1]))
    assert complete(retrieved(shown), RULES).degraded == lacks
    assert complete(retrieved(sent, patient=Patient("HN-1", *told)), RULES).degraded == lacks


def test_where_the_patient_api_is_silent_the_pacs_says_who_it_is() -> None:
    """A robot prints it."""
    sent = of(1)
    born = replace(sent, study=replace(sent.study, patient_birth_date="19700102", patient_sex="F"))
    passed = complete(retrieved(born, patient=Patient("HN-1")), RULES)
    assert passed.patient == Patient("HN-1", "Canary^Name", "19700102", "F")


def test_a_de_identified_copy_is_known_as_one_behind_the_gate() -> None:
    plain = retrieved(of(1))
    copied = replace(plain, found=replace(plain.found, deidentified=True))
    assert [complete(each, RULES).is_deidentified for each in (plain, copied)] == [False, True]


def test_nothing_is_no_complete_study() -> None:
    with pytest.raises(PatientMismatch, match="isn't what was found"):
        complete(retrieved(), RULES)


def without_one() -> Retrieved:
    whole = of(1)
    return retrieved(replace(whole, instances=whole.instances[:1]))


def with_one_more() -> Retrieved:
    whole = of(1)
    return retrieved(replace(whole, instances=(*whole.instances, instance(1, 3))))


def with_one_twice() -> Retrieved:
    whole = of(1)
    return retrieved(replace(whole, instances=(*whole.instances, whole.instances[0])))


def one_in_two_studies() -> Retrieved:
    shared = replace(instance(2, 1), arrival=replace(instance(2, 1).arrival, sop_instance_uid="1.2.1.1.1"))
    shared.header.SOPInstanceUID = "1.2.1.1.1"
    other = replace(study(2, 1), expected=Expected("image", 1, {"1": frozenset({"1.2.1.1.1"})}))
    return retrieved(of(1), StudyRetrieved(other, (shared,)))


def without_a_study() -> Retrieved:
    both = retrieved(of(1), of(2))
    return replace(both, studies=both.studies[:1])


def with_a_study_that_nobody_asked_for() -> Retrieved:
    both = retrieved(of(1), of(2))
    return replace(both, found=replace(both.found, studies=both.found.studies[:1]))


def with_a_study_twice() -> Retrieved:
    one = retrieved(of(1))
    return replace(one, studies=(*one.studies, *one.studies))


def with_an_instance_of_another_study() -> Retrieved:
    whole = of(1)
    return retrieved(replace(whole, instances=(whole.instances[0], instance(2, 2))))


def with_another_file_under_a_name() -> Retrieved:
    whole = of(1)
    wrong = replace(whole.instances[1], header=instance(1, 9).header)
    return retrieved(replace(whole, instances=(whole.instances[0], wrong)))


def two(**attributes: object) -> Callable[[], Retrieved]:
    """A study of two instances whose headers differ in this."""

    def make() -> Retrieved:
        whole = of(1)
        return retrieved(replace(whole, instances=(instance(1, 1), instance(1, 2, **attributes))))

    return make


def studies(**attributes: object) -> Callable[[], Retrieved]:
    """Two studies whose headers differ in this."""
    return lambda: retrieved(of(1, IssuerOfPatientID="NORTH", PatientSex="F"), of(2, **attributes))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (without_one, StudyIncomplete),
        (with_one_more, StudyIncomplete),
        (with_one_twice, InstanceConflict),
        (one_in_two_studies, InstanceConflict),
        (without_a_study, PatientMismatch),
        (with_a_study_that_nobody_asked_for, PatientMismatch),
        (with_a_study_twice, PatientMismatch),
        (with_an_instance_of_another_study, PatientMismatch),
        (with_another_file_under_a_name, InstanceConflict),
        (lambda: retrieved(), PatientMismatch),
        (lambda: retrieved(of(1, 0)), NoDicomData),
        (lambda: retrieved(of(1), patient=Patient("HN-2")), PatientMismatch),
        (lambda: retrieved(of(1, PatientID="HN-2")), PatientMismatch),
        (lambda: retrieved(of(1, StudyInstanceUID="1.2.9")), PatientMismatch),
        (two(PatientID="HN-2"), PatientMismatch),
        (two(PatientID=""), PatientMismatch),
        (studies(IssuerOfPatientID="SOUTH"), PatientMismatch),
        (studies(PatientSex="M"), PatientMismatch),
    ],
)
def test_anything_else_is_refused(make: Callable[[], Retrieved], error: type[MkisoError]) -> None:
    with pytest.raises(error) as refused:
        complete(make(), RULES)
    assert type(refused.value) is error
    assert not any(secret in refused.value.words for secret in ("HN-", "Canary", "NORTH", "SOUTH"))


def test_two_issuers_under_one_id_are_refused_where_c_find_names_none() -> None:
    """A PACS needn't answer Issuer of Patient ID: what all headers say together counts then."""
    one, other = instance(1, 1, IssuerOfPatientID="NORTH"), instance(1, 2, IssuerOfPatientID="SOUTH")
    with pytest.raises(PatientMismatch, match="more than one issuer"):
        complete(retrieved(replace(of(1), instances=(one, other))), RULES)


def test_what_lies_on_volumes_counts_as_there_and_isnt_laid_out_again() -> None:
    whole = of(1)
    there = frozenset({whole.instances[0].arrival.sop_instance_uid, "1.9.9"})
    part = replace(whole, instances=whole.instances[1:])
    assert [each.arrival.sop_instance_uid for each in complete(retrieved(part, elsewhere=there), RULES).instances] == [
        "1.2.1.1.2"
    ]
    assert [each.arrival.sop_instance_uid for each in complete(retrieved(whole, elsewhere=there), RULES).instances] == [
        "1.2.1.1.2"
    ]
    with pytest.raises(StudyIncomplete):
        complete(retrieved(replace(whole, instances=()), elsewhere=there), RULES)


def test_a_changed_copy_goes_through_the_gate_again() -> None:
    passed = complete(retrieved(of(1)), RULES)
    with pytest.raises(StudyIncomplete):
        replace(passed, retrieved=without_one())


def test_counts_alone_prove_only_where_they_may() -> None:
    counted = replace(of(1), study=replace(study(1), expected=Expected("none", None)))
    with pytest.raises(CountsUnknown):
        complete(retrieved(counted), RULES)
    lenient = replace(counted, study=replace(counted.study, origin=Origin(require_counts=False)))
    assert len(complete(retrieved(lenient), RULES).instances) == 2


def test_the_fingerprint_is_of_what_the_disc_holds() -> None:
    """The study grew under the retrieval: a disc of three isn't what the PACS listed before, and is what it
    lists now.
    """
    before, now = study(1, 2), of(1, 3)
    grown = complete(Retrieved(Found(("A1",), (before,)), (now,)), RULES)
    assert grown.fingerprint == Found(("A1",), (now.study,)).fingerprint
    assert grown.fingerprint != Found(("A1",), (before,)).fingerprint


def test_what_was_found_is_of_one_patient_and_can_be_proved() -> None:
    unknown = replace(study(2), expected=Expected("none", None))
    lenient = replace(unknown, origin=Origin(require_counts=False))
    answers, lacks = [study(1), lenient, study(1)], ("source_down:b", "source_down:b")
    told = found(("A1", "A2"), answers, [None, Patient("HN-1", "N")], RULES.identity, degraded=True, without=lacks)
    without = ("patient_api", "counts_unknown", "source_down:b")
    assert told == Found(("A1", "A2"), (study(1), lenient), Patient("HN-1", "N"), without)
    assert found(("A1",), [study(1)], [None], RULES.identity, degraded=False) == Found(("A1",), (study(1),))
    for studies, patients, error in [
        ([study(1), study(2, patient_id="HN-2")], [], PatientMismatch),
        ([study(1)], [Patient("HN-1"), Patient("HN-2")], PatientMismatch),
        ([study(1, patient_id="UNKNOWN")], [], PatientMismatch),
        ([study(1), unknown], [], CountsUnknown),
        ([study(1, 0)], [], NoDicomData),
    ]:
        with pytest.raises(error):
            found(("A1",), studies, patients, RULES.identity, degraded=False)


def test_a_part_holds_nothing_that_didnt_pass() -> None:
    passed = complete(retrieved(of(1)), RULES)
    assert Part((passed,), passed.instances[:1]).instances == passed.instances[:1]
    with pytest.raises(InstanceConflict):
        Part((passed,), (*passed.instances, instance(1, 3)))
    with pytest.raises(InstanceConflict):
        Part((), passed.instances)


@pytest.mark.parametrize("spelled", ["HN-1", " HN-1 "])
def test_a_patients_disc_has_one_patient_record(tmp_path: Path, spelled: str) -> None:
    passed = complete(retrieved(of(1), of(2, PatientID=spelled, IssuerOfPatientID="NORTH")), RULES)
    assert len(arrange(passed.instances)) == 1
    two = (complete(retrieved(of(1)), RULES), complete(retrieved(of(2)), RULES))
    with pytest.raises(PatientMismatch):  # also of one patient: only what went through the gate together is a disc
        lay_out(Part.whole(*two), LayoutOptions(settings(tmp_path), CREATED), tmp_path)


def universal(entity: str) -> list[Dataset]:
    item = Dataset()
    item.UniversalEntityID, item.UniversalEntityIDType = entity, "ISO"
    return [item]


NORTH, SOUTH = {"IssuerOfPatientID": "NORTH"}, {"IssuerOfPatientID": "SOUTH"}


@pytest.mark.parametrize(
    ("of_each", "patients"),
    [
        ([{}, {}], [[1, 2]]),
        ([NORTH, {}], [[1, 2]]),
        ([NORTH, SOUTH], [[1], [2]]),
        ([NORTH, SOUTH, {}, NORTH], [[3], [1, 4], [2]]),
        ([{"PatientBirthDate": "19500101"}, {"PatientBirthDate": "19800202"}], [[1], [2]]),
        ([{"PatientSex": "F"}, {"PatientSex": "M"}, {}], [[3], [1], [2]]),
        ([{"PatientSex": "F"}, {}], [[1, 2]]),
        (
            [
                {"IssuerOfPatientIDQualifiersSequence": universal("1.2")},
                {"IssuerOfPatientIDQualifiersSequence": universal("1.3")},
            ],
            [[1], [2]],
        ),
        ([NORTH, {"IssuerOfPatientIDQualifiersSequence": universal("1.2")}], [[2], [1]]),
        ([{**NORTH, "PatientBirthDate": "19500101"}, {**SOUTH, "PatientBirthDate": "19800202"}, NORTH], [[1, 3], [2]]),
        ([{**NORTH, "PatientSex": "F"}, SOUTH, {**NORTH, "PatientSex": "M"}], [[1], [3], [2]]),
        (
            [
                {**NORTH, "IssuerOfPatientIDQualifiersSequence": universal("1.2")},
                {"IssuerOfPatientIDQualifiersSequence": universal("1.2")},
            ],
            [[1, 2]],
        ),
        (
            [
                {**NORTH, "IssuerOfPatientIDQualifiersSequence": universal("1.2")},
                {**NORTH, "IssuerOfPatientIDQualifiersSequence": universal("1.3")},
            ],
            [[1], [2]],
        ),
    ],
)
def test_an_archive_volume_has_a_patient_record_for_each_patient(
    tmp_path: Path, of_each: list[dict[str, object]], patients: list[list[int]]
) -> None:
    """Studies that the gate would refuse on one disc, since they may be of several patients, are under several patients
    on a volume.
    """
    part = Part.whole(
        *(complete(retrieved(of(number, **attributes)), RULES) for number, attributes in enumerate(of_each, 1))
    )
    assert filed(part, tmp_path) == patients


def test_an_issuer_that_c_find_alone_names_tells_patients_apart_on_a_volume(tmp_path: Path) -> None:
    """A PACS of several hospitals knows the issuer of each study, and the images name none."""
    each = [
        replace(of(number), study=study(number, issuer_of_patient_id=issuer))
        for number, issuer in ((1, "NORTH"), (2, "SOUTH"))
    ]
    assert filed(Part.whole(*(complete(retrieved(one), RULES) for one in each)), tmp_path) == [[1], [2]]


def test_what_isnt_compared_tells_nobody_apart(tmp_path: Path) -> None:
    lenient = Settings.model_validate({"identity": {"compare": []}})
    each = [of(number, PatientBirthDate=f"19{number}00101", PatientSex=sex) for number, sex in ((5, "F"), (6, "M"))]
    assert filed(Part.whole(*(complete(retrieved(one), lenient) for one in each)), tmp_path) == [[5, 6]]


def test_a_study_stays_under_one_patient_whatever_its_images_lack(tmp_path: Path) -> None:
    """One image names the issuer and another doesn't; beside a patient of another issuer both are still of one
    study.
    """
    mixed = replace(of(1), instances=(instance(1, 1, **NORTH), instance(1, 2)))
    each = [complete(retrieved(one), RULES) for one in (mixed, of(2, **SOUTH))]
    assert filed(Part.whole(*each), tmp_path) == [[1], [2]]


def filed(part: Part, folder: Path) -> list[list[int]]:
    """The studies of a volume by the PATIENT records of its DICOMDIR, whose Patient IDs are all different."""
    layout = lay_out(part, LayoutOptions(settings(folder), CREATED), folder / "disc", volume_id="A_0001")
    [directory] = [file.source for file in layout.files if str(file.path) == "DICOMDIR"]
    assert directory
    studies: dict[str, list[int]] = {}
    for record in dcmread(directory).DirectoryRecordSequence:
        if record.DirectoryRecordType == "PATIENT":
            assert record.PatientID not in studies
            under = studies.setdefault(record.PatientID, [])
        elif record.DirectoryRecordType == "STUDY":
            under.append(int(record.StudyInstanceUID.split(".")[-1]))
    return list(studies.values())


def test_one_id_in_two_character_sets_is_one_patient_record() -> None:
    latin = of(1, SpecificCharacterSet="ISO_IR 100", PatientID="HN-Ä")
    unicode = of(2, SpecificCharacterSet="ISO_IR 192", PatientID="HN-Ä")
    both = [replace(each, study=replace(each.study, patient_id="HN-Ä")) for each in (latin, unicode)]
    assert len(arrange(complete(retrieved(*both), RULES).instances)) == 1


def test_a_set_holds_each_image_once_on_discs_numbered_in_order(tmp_path: Path) -> None:
    passed = complete(retrieved(of(1, 3)), RULES)

    def disc(numbers: range, number: int, total: int) -> Layout:
        part = Part((passed,), tuple(passed.instances[place] for place in numbers))
        return lay_out(
            part, LayoutOptions(settings(tmp_path), CREATED), tmp_path / str(number), volume=Volume(number, total)
        )

    DiscSet((passed,), (disc(range(2), 1, 2), disc(range(2, 3), 2, 2)))
    for discs in [
        (disc(range(2), 1, 1),),
        (disc(range(2), 1, 2), disc(range(1, 3), 2, 2)),
        (disc(range(2), 2, 2), disc(range(2, 3), 1, 2)),
        (disc(range(2), 1, 3), disc(range(2, 3), 2, 3)),
        (),
    ]:
        with pytest.raises(ProofFailed):
            DiscSet((passed,), discs)


def test_an_earlier_study_of_unknown_count_makes_the_disc_unproven() -> None:
    lenient = replace(study(2), expected=Expected("none", None), origin=Origin(require_counts=False))
    asked = Found(("A1",), (study(1),))
    assert beside(asked, [lenient], (), RULES.identity).degraded == ("counts_unknown",)
    assert beside(asked, [study(2)], (), RULES.identity).degraded == ()


@pytest.mark.parametrize(
    ("asked", "prior", "error"),
    [
        (Found(("A1",), (study(1),)), study(2, patient_id="HN-2"), PatientMismatch),
        (Found(("A1",), (study(1),), Patient("HN-2")), study(2), PatientMismatch),
        (
            Found(("A1",), (study(1),), left_out=(study(3, issuer_of_patient_id="NORTH"),)),
            study(2, issuer_of_patient_id="SOUTH"),
            PatientMismatch,
        ),
        (Found(("A1",), (study(1),)), study(2, 0), NoDicomData),
        (Found(("A1",), (study(1),)), replace(study(2), expected=Expected("none", None)), CountsUnknown),
    ],
)
def test_an_earlier_study_of_somebody_else_or_without_proof_is_refused(
    asked: Found, prior: Study, error: type[MkisoError]
) -> None:
    with pytest.raises(error):
        beside(asked, [prior], (), RULES.identity)


def test_what_goes_beside_is_told_apart_and_what_lacks_is_told_once() -> None:
    asked = Found(("A1",), (study(1),), Patient("HN-1"), ("patient_api",))
    told = beside(asked, [study(2)], ("patient_api", "priors_unknown", "priors_unknown"), RULES.identity)
    assert (told.asked, told.priors) == ((study(1),), (study(2, is_prior=True),))
    assert told.degraded == ("patient_api", "priors_unknown")


@pytest.mark.parametrize(
    ("degraded", "unproven"),
    [
        ((), False),
        (("patient_api", "sources_differ:old"), False),
        (("counts_unknown",), True),
        (("completeness_not_proven",), True),
        (("patient_api", "source_down:old"), True),
    ],
    ids=str,
)
def test_a_disc_says_that_it_may_not_hold_all_images(degraded: tuple[str, ...], unproven: bool) -> None:
    assert is_unproven(degraded) is unproven

"""Earlier studies on a disc: through the gate like the others, within the medium, and told of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ImplicitVRLittleEndian

from mkiso.config.settings import Settings
from mkiso.errors import NotConvertible, PatientMismatch, StudyIncomplete
from mkiso.languages import language, languages
from mkiso.media.capacity import MEDIUM_SECTORS, SECTOR_BYTES
from mkiso.media.disc_set import lay_out_set, within_medium
from mkiso.media.envelopes import Envelopes
from mkiso.media.explicit import EXPLICIT_LITTLE_ENDIAN, convert_studies
from mkiso.media.layout import Layout, LayoutOptions, lay_out
from mkiso.media.volumes import room_sectors, study_sectors
from mkiso.study.gate import CompleteStudies, Part, complete_studies
from mkiso.study.models import Instance
from mkiso.study.priors import CONTRADICTS, INCOMPLETE, NO_ROOM, NOT_CONVERTIBLE, WORDS
from mkiso.study.selection import Selection
from mkiso.study.values import Retrieved, StudyRetrieved
from peers.corpus import PLAIN, make_ct_series, make_study
from tests.media.discs import CREATED, instances, passed, settings

NUMBERS = ("A1", "P2", "P3")
GIVEN = PLAIN.name.partition("^")[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("files")
    days = ("20240229", "20230101", "20220101")
    return {
        number: make_ct_series(folder, number, 3, size=256, study_date=day)
        for number, day in zip(NUMBERS, days, strict=True)
    }


def retrieved(files: dict[str, list[Path]]) -> Retrieved:
    """A1, and P2 and P3 beside it."""
    found = passed(instances(file for each in files.values() for file in each)).retrieved
    studies = tuple(
        StudyRetrieved(replace(each.study, is_prior=each.study.accession_number != "A1"), each.instances)
        for each in found.studies
    )
    told = replace(found.found, accession_numbers=("A1",), studies=tuple(each.study for each in studies))
    return replace(found, found=replace(told, selection=Selection(priors=True)), studies=studies)


def complete(files: dict[str, list[Path]], **sections: object) -> CompleteStudies:
    return complete_studies(retrieved(files), Settings.model_validate(sections).identity)


def numbers_of(studies: CompleteStudies) -> list[str]:
    return [study.accession_number for study in studies.studies]


def text_of(layout: Layout, name: str) -> str:
    [file] = [file for file in layout.files if str(file.path) == name]
    assert file.source is not None
    return file.source.read_text("utf-8-sig")


def test_what_is_asked_for_is_told_apart_from_what_is_beside_it(files: dict[str, list[Path]]) -> None:
    studies = complete(files)
    assert [study.accession_number for study in studies.asked] == ["A1"]
    assert [study.accession_number for study in studies.priors] == ["P2", "P3"]
    found = studies.retrieved.found
    alone = replace(found, studies=found.asked)
    assert found.shown == alone.shown
    assert found.fingerprint != alone.fingerprint
    assert alone.fingerprint != replace(alone, selection=Selection()).fingerprint


def test_the_disc_says_which_are_earlier_in_every_language(files: dict[str, list[Path]], tmp_path: Path) -> None:
    studies = complete(files)
    words = {code: pages(studies, tmp_path / code, code, "Earlier examination") for code in languages()}
    assert len(set(words.values())) == len(languages())


def pages(studies: CompleteStudies, folder: Path, code: str, message: str) -> str:
    words = language(code).gettext(message)
    site = settings(folder, disc={"language": code})
    [layout] = lay_out_set(studies, site, folder / "disc", created=CREATED, medium="cd").layouts
    assert text_of(layout, "INDEX.HTM").count(words) == 2
    assert text_of(layout, "README.TXT").count(words) >= 2
    return words


def written(files: dict[str, list[Path]], of: str, **facts: str) -> Retrieved:
    """With these values in each header of one study."""
    found = retrieved(files)
    for each in found.studies:
        for instance in each.instances if each.study.accession_number == of else ():
            for keyword, value in facts.items():
                setattr(instance.header, keyword, value)
    return found


@pytest.mark.parametrize("of", ["A1", "P2"])
def test_an_issuer_that_only_some_headers_name_leaves_the_priors_out(files: dict[str, list[Path]], of: str) -> None:
    """What C-FIND doesn't tell, too: the same ID of another issuer is another patient's."""
    rules = Settings().identity
    studies = complete_studies(written(files, of, IssuerOfPatientID="OTHER"), rules)
    assert (numbers_of(studies), studies.degraded) == (["A1"], (CONTRADICTS,))


@pytest.mark.parametrize("of", ["A1", "P2"])
def test_an_issuer_of_the_same_id_among_other_ids_counts(files: dict[str, list[Path]], of: str) -> None:
    found = retrieved(files)
    for each in found.studies:
        for instance in each.instances if each.study.accession_number == of else ():
            item = Dataset()
            item.PatientID, item.IssuerOfPatientID = instance.header.PatientID, "OTHER"
            instance.header.OtherPatientIDsSequence = [item]
    studies = complete_studies(found, Settings().identity)
    assert (numbers_of(studies), studies.degraded) == (["A1"], (CONTRADICTS,))


@pytest.mark.parametrize("facts", [{"PatientName": "Other^Person"}, {"PatientBirthDate": "19800202"}])
def test_priors_whose_images_are_of_somebody_else_are_left_out(
    files: dict[str, list[Path]], facts: dict[str, str]
) -> None:
    """Though C-FIND says otherwise, and the images that were asked for have no birth date."""
    found = written(files, "A1", PatientBirthDate="")
    for each in found.studies:
        for instance in each.instances if each.study.accession_number == "P2" else ():
            for keyword, value in facts.items():
                setattr(instance.header, keyword, value)
    studies = complete_studies(found, Settings().identity)
    assert (numbers_of(studies), studies.degraded) == (["A1"], (CONTRADICTS,))


@pytest.mark.parametrize("name", ["", " ", "^", "="])
def test_a_disc_without_a_name_takes_none_from_a_prior(files: dict[str, list[Path]], tmp_path: Path, name: str) -> None:
    studies = CompleteStudies(written(files, "A1", PatientName=name), Settings().identity)
    layout = lay_out(Part.whole(studies), LayoutOptions(settings(tmp_path), CREATED, "cd"), tmp_path / "disc")
    [directory] = [file.source for file in layout.files if str(file.path) == "DICOMDIR"]
    assert directory
    named = [str(dcmread(directory).DirectoryRecordSequence[0].PatientName), studies.patient_name]
    assert not "".join(named).strip("^= ")


def test_the_name_is_the_same_in_whichever_order_instances_came(files: dict[str, list[Path]]) -> None:
    found = retrieved(files)
    [asked] = [each for each in found.studies if not each.study.is_prior]
    asked.instances[0].header.PatientName = f"Spelled^Otherwise^{GIVEN}"
    turned = tuple(replace(each, instances=each.instances[::-1]) for each in found.studies)
    rules = Settings().identity
    names = {CompleteStudies(each, rules).patient_name for each in (found, replace(found, studies=turned))}
    assert len(names) == 1


def test_a_disc_names_the_patient_as_what_was_asked_for_does(files: dict[str, list[Path]], tmp_path: Path) -> None:
    """Not as the oldest study, which begins the tree; each disc of a set, too, also one that holds priors alone."""
    earlier = {"PatientName": f"Meier^{GIVEN}", "PatientSex": ""}
    studies = CompleteStudies(written(files, "P3", **earlier), Settings().identity)
    asked = studies.asked[0]
    assert studies.patient_name == asked.patient_name != f"Meier^{GIVEN}"
    [prior] = [each.instances for each in studies.retrieved.studies if each.study.accession_number == "P3"]
    site = settings(tmp_path)
    for number, part in enumerate((Part.whole(studies), Part((studies,), prior))):
        layout = lay_out(part, LayoutOptions(site, CREATED, "cd"), tmp_path / f"disc{number}")
        [directory] = [file.source for file in layout.files if str(file.path) == "DICOMDIR"]
        assert directory
        record = dcmread(directory).DirectoryRecordSequence[0]
        assert (record.DirectoryRecordType, record.PatientName) == ("PATIENT", asked.patient_name)
        assert "Meier" not in text_of(layout, "INDEX.HTM")
        assert "Meier" not in text_of(layout, "README.TXT")
        assert language("en").da(asked.patient_birth_date) in text_of(layout, "INDEX.HTM")


@pytest.mark.parametrize(("room_for", "kept"), [(3, ["A1", "P2", "P3"]), (2, ["A1", "P2"]), (1, ["A1"]), (0, ["A1"])])
def test_the_oldest_are_left_out_where_there_is_no_room(
    files: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_for: int, kept: list[str]
) -> None:
    of_each = [study_sectors(instances(files[number])) for number in NUMBERS]
    fixed = MEDIUM_SECTORS["cd"] - room_sectors("cd", [])
    monkeypatch.setitem(MEDIUM_SECTORS, "cd", fixed + sum(of_each[:room_for]) if room_for else fixed + of_each[0] // 2)
    site = settings(tmp_path, priors={"count": 2})
    studies = within_medium(complete(files), site, "cd")
    assert numbers_of(studies) == kept
    assert studies.degraded == ((NO_ROOM,) if len(kept) < 3 else ())
    layouts = lay_out_set(studies, site, tmp_path / "disc", created=CREATED, medium="cd").layouts
    assert (len(layouts) == 1) == bool(room_for)
    assert all((WORDS[NO_ROOM] in text_of(each, "INDEX.HTM")) == (len(kept) < 3) for each in layouts)


def test_they_may_make_a_set_where_the_site_wants_sets(
    files: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = MEDIUM_SECTORS["cd"] - room_sectors("cd", []) + study_sectors(instances(files["A1"])) + 20
    monkeypatch.setitem(MEDIUM_SECTORS, "cd", room)
    site = settings(tmp_path, priors={"count": 2, "span": True})
    studies = within_medium(complete(files), site, "cd")
    assert (numbers_of(studies), studies.degraded) == (["A1", "P2", "P3"], ())
    assert len(lay_out_set(studies, site, tmp_path / "disc", created=CREATED, medium="cd").layouts) > 1
    alone = settings(tmp_path, priors={"count": 2, "span": True}, disc={"span": False})
    assert numbers_of(within_medium(complete(files), alone, "cd")) == ["A1"]


def beside(folder: Path, kinds: dict[str, int]) -> dict[str, list[Path]]:
    """A1 and P2, of files that end with their sectors."""
    size = sum(file.stat().st_size for file in make_study(folder / "first", "A1", kinds={"ct": 1}))
    comment = "x" * (-size % SECTOR_BYTES + SECTOR_BYTES - 8)
    [full] = make_study(folder / "A1", "A1", kinds={"ct": 1})
    dataset = dcmread(full)
    dataset.ImageComments = comment
    dataset.save_as(full)
    assert full.stat().st_size % SECTOR_BYTES == 0
    return {"A1": [full], "P2": make_study(folder / "P2", "P2", kinds=kinds, number=2)}


def room_for(files: dict[str, list[Path]]) -> int:
    fixed = MEDIUM_SECTORS["cd"] - room_sectors("cd", [])
    return fixed + sum(study_sectors(instances(each), medium="cd") for each in files.values())


def test_encrypted_files_take_more_room_and_have_no_viewer_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = beside(tmp_path, {"ct": 1})
    room, sealed, viewer = room_for(files), Envelopes("12345-67890"), tmp_path / "viewer"
    viewer.mkdir()
    (viewer / "V.EXE").write_bytes(bytes(SECTOR_BYTES * 150))
    plain = settings(tmp_path, priors={"count": 2})
    viewed = settings(tmp_path, priors={"count": 2}, viewer={"directory": str(viewer), "executable": "V.EXE"})
    for more, site, envelopes, kept in [
        (0, plain, None, ["A1", "P2"]),
        (0, plain, sealed, ["A1"]),
        (100, viewed, None, ["A1"]),
        (100, viewed, sealed, ["A1", "P2"]),
    ]:
        monkeypatch.setitem(MEDIUM_SECTORS, "cd", room + more)
        assert numbers_of(within_medium(complete(files), site, "cd", envelopes)) == kept


def test_what_will_be_converted_takes_the_room_that_it_needs_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = beside(tmp_path, {"jpeg_ls": 1})
    monkeypatch.setitem(MEDIUM_SECTORS, "cd", room_for(files))
    for syntax, kept in (("as-archived", ["A1", "P2"]), ("explicit-le", ["A1"])):
        site = settings(tmp_path, priors={"count": 2}, disc={"transfer_syntax": syntax})
        assert numbers_of(within_medium(complete(files), site, "cd")) == kept


def test_a_file_that_no_medium_holds_keeps_only_its_study_off(
    files: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def larger(one: Instance) -> Instance:
        return replace(one, arrival=replace(one.arrival, size=largest + 1)) if one.arrival.path == huge else one

    largest = max(file.stat().st_size for number in ("A1", "P2") for file in files[number])
    [huge, *_] = files["P3"]
    monkeypatch.setattr("mkiso.media.disc_set.LARGEST_FILE_BYTES", largest)
    old = retrieved(files)
    grown = [replace(each, instances=tuple(map(larger, each.instances))) for each in old.studies]
    studies = complete_studies(replace(old, studies=tuple(grown)), Settings().identity)
    site = settings(tmp_path, priors={"count": 2, "span": True})
    assert numbers_of(within_medium(studies, site, "bd")) == ["A1", "P2"]


def test_headers_that_contradict_the_one_asked_for_keep_all_earlier_ones_off(
    files: dict[str, list[Path]], tmp_path: Path
) -> None:
    """The archive's answer says nothing of it: only the images do."""
    wrong = []
    for number, file in enumerate(files["P3"]):
        dataset = dcmread(file)
        dataset.PatientBirthDate = "19650101"
        dataset.save_as(tmp_path / f"{number}.dcm")
        wrong.append(tmp_path / f"{number}.dcm")
    site = {"compare": ["PatientSex"]}
    some = retrieved(files)
    bad = [
        replace(each, instances=tuple(instances(wrong))) if each.study.accession_number == "P3" else each
        for each in some.studies
    ]
    mixed = replace(some, studies=tuple(bad))
    studies = complete_studies(mixed, Settings().identity)
    assert (numbers_of(studies), studies.degraded) == (["A1"], (CONTRADICTS,))
    assert numbers_of(complete_studies(mixed, Settings.model_validate({"identity": site}).identity)) == list(NUMBERS)
    bad[0], bad[2] = bad[2], bad[0]
    asked = [replace(each, study=replace(each.study, is_prior=False)) for each in bad]
    told = replace(some.found, studies=tuple(each.study for each in asked))
    with pytest.raises(PatientMismatch):
        complete_studies(replace(some, found=told, studies=tuple(asked)), Settings().identity)


def test_an_earlier_one_that_lacks_an_image_is_never_on_the_disc(files: dict[str, list[Path]]) -> None:
    some = retrieved(files)
    lacking = [
        replace(each, instances=each.instances[1:]) if each.study.accession_number == "P2" else each
        for each in some.studies
    ]
    studies = complete_studies(replace(some, studies=tuple(lacking)), Settings().identity)
    assert (numbers_of(studies), studies.degraded) == (["A1"], (INCOMPLETE,))
    lacking[0] = replace(lacking[0], instances=lacking[0].instances[1:])
    with pytest.raises(StudyIncomplete):
        complete_studies(replace(some, studies=tuple(lacking)), Settings().identity)


def stored_as(studies: Retrieved, syntaxes: dict[str, str]) -> CompleteStudies:
    """As if the instances of these studies were stored in these transfer syntaxes."""
    changed = [
        replace(
            each,
            instances=tuple(
                replace(one, arrival=replace(one.arrival, transfer_syntax_uid=syntaxes[each.study.accession_number]))
                for one in each.instances
            ),
        )
        if each.study.accession_number in syntaxes
        else each
        for each in studies.studies
    ]
    return complete_studies(replace(studies, studies=tuple(changed)), Settings().identity)


VIDEO, RLE = "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.5"


@pytest.mark.parametrize("syntax", [VIDEO, RLE])
def test_one_that_cant_be_converted_is_left_out_and_told(
    files: dict[str, list[Path]], tmp_path: Path, syntax: str
) -> None:
    """A syntax without an uncompressed form, and pixels that are none of what they say."""
    studies = stored_as(retrieved(files), {"P2": syntax})
    converted = files["P2"][0].parent / f"converted {syntax}"  # in the folder of the job, whose images are read
    kept, conversion, refused = convert_studies(studies, converted)
    assert numbers_of(kept) == ["A1", "P3"] and kept.degraded == (NOT_CONVERTIBLE,)
    [why] = refused.values()
    assert list(refused) == [studies.priors[0].study_instance_uid] and why.details["transfer_syntax_uid"] == syntax
    assert not list(converted.glob("*")) if syntax == RLE else not converted.exists()
    site = settings(tmp_path, disc={"transfer_syntax": "explicit-le"})
    [layout] = lay_out_set(kept, site, tmp_path / "disc", created=CREATED, medium="cd", conversion=conversion).layouts
    assert WORDS[NOT_CONVERTIBLE] in text_of(layout, "INDEX.HTM") and layout.instances == 6


def test_those_that_can_be_converted_stay(tmp_path: Path, files: dict[str, list[Path]]) -> None:
    implicit = {
        number: [_implicit(file, tmp_path / file.name) for file in of_one] if number == "P3" else of_one
        for number, of_one in files.items()
    }
    kept, conversion, refused = convert_studies(complete(implicit), tmp_path / "converted")
    assert numbers_of(kept) == ["A1", "P2", "P3"] and not kept.degraded and not refused
    assert len(conversion.of) == 3
    assert {each.transfer_syntax_uid for each in conversion.of.values()} == {EXPLICIT_LITTLE_ENDIAN}


def test_what_is_asked_for_is_never_left_out(files: dict[str, list[Path]], tmp_path: Path) -> None:
    with pytest.raises(NotConvertible, match="video"):
        convert_studies(stored_as(retrieved(files), {"A1": VIDEO, "P2": VIDEO}), tmp_path)


def _implicit(file: Path, target: Path) -> Path:
    dataset = dcmread(file)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(target, implicit_vr=True, little_endian=True)
    return target

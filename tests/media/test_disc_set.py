"""A set of discs from complete studies to manifests: each image once, numbered, read back, and told as one set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from pycdlib import PyCdlib
from pydicom import dcmread

from mkiso.config.settings import Settings
from mkiso.config.sources import Origin
from mkiso.errors import MkisoError, ProofFailed, TooLargeForMedium
from mkiso.formats.proven_set import ProvenSet, WrittenSet, disc_fingerprint, manifests_of, prove, write_set
from mkiso.formats.registry import FORMATS, ISO
from mkiso.media.capacity import MEDIUM_SECTORS
from mkiso.media.disc_set import DiscSet, divide, lay_out_set, lay_out_volumes, within_medium
from mkiso.media.layout import Layout
from mkiso.media.volumes import room_sectors, study_sectors
from mkiso.storage.shelf import Manifest
from mkiso.study.gate import CompleteStudies
from mkiso.study.models import Instance, Patient, Study, Volume
from mkiso.study.selection import Selection
from mkiso.study.values import Retrieved
from peers.corpus import make_study
from tests.media.discs import CREATED, archived, instances, passed, settings

IMAGE_BYTES = 400_000  # more than all that stands on every disc


def large(paths: Sequence[Path]) -> list[Instance]:
    for path in paths:
        dataset = dcmread(path)
        dataset.Rows, dataset.Columns, dataset.PixelData = 500, 400, bytes(IMAGE_BYTES)
        dataset.save_as(path)
    return instances(paths)


@pytest.fixture
def studies(tmp_path: Path) -> CompleteStudies:
    return passed(large(make_study(tmp_path / "files", "ACC1", kinds={"ct": 5})))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, studies: CompleteStudies) -> None:
    """CDs that hold two images each."""
    room = study_sectors(studies.instances[:2]) + MEDIUM_SECTORS["cd"] - room_sectors("cd", [])
    monkeypatch.setitem(MEDIUM_SECTORS, "cd", room)


@pytest.fixture
def one(tmp_path: Path) -> CompleteStudies:
    return passed(instances(make_study(tmp_path / "files", "ACC1", kinds={"ct": 1})))


def laid_out(studies: CompleteStudies, folder: Path, **sections: Any) -> DiscSet:
    return lay_out_set(studies, settings(folder, **sections), folder / "made", created=CREATED, medium="cd")


def written(disc_set: DiscSet, folder: Path) -> WrittenSet:
    images = [folder / f"disc{number}.iso" for number in range(1, len(disc_set.layouts) + 1)]
    return write_set(disc_set, ISO, images)


def held(layouts: Sequence[Layout]) -> list[list[str]]:
    return [[file.sop_instance_uid for file in layout.files if file.sop_instance_uid] for layout in layouts]


def uids(found: Sequence[Instance]) -> list[str]:
    return [instance.arrival.sop_instance_uid for instance in found]


def test_what_fits_is_one_disc(studies: CompleteStudies, tmp_path: Path) -> None:
    disc_set = lay_out_set(studies, settings(tmp_path), tmp_path / "made", created=CREATED, medium="dvd")
    [layout] = disc_set.layouts
    assert layout.amount == "none"  # no pictures were made
    assert (layout.volume, layout.medium, layout.created, disc_set.studies) == (
        Volume(1, 1),
        "dvd",
        CREATED,
        (studies,),
    )
    assert sorted(held([layout])[0]) == sorted(uids(studies.instances))
    assert {file.source.parents[0] for file in layout.files if file.source and file.path.name == "DICOMDIR"} == {
        tmp_path / "made" / "1"
    }


def test_what_has_no_earlier_studies_passes_as_it_is(studies: CompleteStudies, tmp_path: Path, small: None) -> None:
    assert within_medium(studies, settings(tmp_path), "cd") is studies


def test_what_fits_no_disc_becomes_a_set(studies: CompleteStudies, tmp_path: Path, small: None) -> None:
    """Each disc names the others and what they hold, and the images of all are those that passed, each once."""
    disc_set = laid_out(studies, tmp_path)
    assert [layout.volume for layout in disc_set.layouts] == [Volume(number, 3) for number in (1, 2, 3)]
    assert sorted(chain(*held(disc_set.layouts))) == sorted(uids(studies.instances))
    assert all(layout.sectors <= MEDIUM_SECTORS["cd"] for layout in disc_set.layouts)
    assert len({layout.volume_id for layout in disc_set.layouts}) == 3
    for layout in disc_set.layouts:
        number = layout.volume.number
        readme = (tmp_path / "made" / str(number) / "README.TXT").read_text()
        assert {other for other in (1, 2, 3) if f"Disc {other} holds" in readme} == {1, 2, 3} - {number}


def test_where_it_may_not_be_a_set_it_is_refused(studies: CompleteStudies, tmp_path: Path, small: None) -> None:
    with pytest.raises(TooLargeForMedium):
        laid_out(studies, tmp_path, disc={"span": False})


def test_the_viewer_is_on_each_disc_of_a_set(
    studies: CompleteStudies, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its room is taken off before the images are divided."""
    (tmp_path / "viewer").mkdir()
    (tmp_path / "viewer" / "V.EXE").write_bytes(bytes(2048 * 150))
    monkeypatch.setitem(MEDIUM_SECTORS, "cd", MEDIUM_SECTORS["cd"] + 150)
    discs = laid_out(studies, tmp_path, viewer={"directory": str(tmp_path / "viewer"), "executable": "V.EXE"}).layouts
    assert len(discs) >= 3
    assert all(any(str(file.path) == "V.EXE" for file in layout.files) for layout in discs)


def test_a_layout_for_no_disc_is_none(studies: CompleteStudies, tmp_path: Path, small: None) -> None:
    one, two, three = laid_out(studies, tmp_path).layouts
    for discs in [
        (one, two),
        (one, two, three, three),
        (two, one, three),
        (one, two, replace(three, volume=Volume(3, 4))),
    ]:
        with pytest.raises(ProofFailed):
            DiscSet((studies,), discs)
    with pytest.raises(ProofFailed):
        DiscSet((studies, studies), (one, two, three))


def test_what_the_records_add_is_noted_once(studies: CompleteStudies, tmp_path: Path, small: None) -> None:
    disc_set = laid_out(studies, tmp_path)
    one, two, three = (
        replace(layout, notes=notes)
        for layout, notes in zip(disc_set.layouts, [("b", "a"), ("a", "c"), ()], strict=True)
    )
    assert DiscSet((studies,), (one, two, three)).notes == ("b", "a", "c")


def test_an_archive_volume_is_divided_only_where_it_must(tmp_path: Path) -> None:
    part = archived(
        large(
            make_study(tmp_path / "one", "ACC1", "HN-1", kinds={"ct": 4})
            + make_study(tmp_path / "two", "ACC2", "HN-2", kinds={"ct": 1}, number=2)
        )
    )
    whole = study_sectors(part.instances)
    assert divide(part.studies, whole, "cd") == (part,)
    parts = divide(part.studies, whole - 1, "cd")
    assert len(parts) == 2 and all(each.studies == part.studies for each in parts)
    assert sorted(chain(*(uids(each.instances) for each in parts))) == sorted(uids(part.instances))
    assert all(study_sectors(each.instances) < whole for each in parts)
    places = [(f"A20260213_000{number}", tmp_path / str(number)) for number in (1, 2)]
    disc_set = lay_out_volumes(parts, places, settings(tmp_path), created=CREATED, medium="cd")
    assert [layout.volume_id for layout in disc_set.layouts] == ["A20260213_0001", "A20260213_0002"]
    assert [layout.volume for layout in disc_set.layouts] == [Volume(1, 2), Volume(2, 2)]
    assert [set(disc) for disc in held(disc_set.layouts)] == [set(uids(each.instances)) for each in parts]
    assert (disc_set.studies, (tmp_path / "2" / "DICOMDIR").is_file()) == (part.studies, True)
    assert "Disc 2 holds" in (tmp_path / "1" / "README.TXT").read_text()
    with pytest.raises(ValueError, match="zip"):
        lay_out_volumes(parts, places[:1], settings(tmp_path), created=CREATED, medium="cd")


def test_each_disc_is_written_into_its_image(studies: CompleteStudies, tmp_path: Path, small: None) -> None:
    disc_set = laid_out(studies, tmp_path)
    images = [tmp_path / f"{number}.iso" for number in (1, 2, 3)]
    heard: list[tuple[Layout, bool]] = []
    made = write_set(
        disc_set,
        ISO,
        images,
        lambda layout: heard.append((layout, images[len(heard)].is_file())),
    )
    assert made == WrittenSet(disc_set, ISO, tuple(images))
    assert heard == [(layout, True) for layout in disc_set.layouts]
    for layout, path in zip(disc_set.layouts, images, strict=True):
        image = PyCdlib()
        image.open(str(path))
        described = image.pvd.volume_identifier.decode().strip(), image.pvd.publisher_identifier.text.decode().strip()
        created = image.pvd.volume_creation_date
        image.close()
        assert described == (layout.volume_id, "EXAMPLE HOSPITAL")
        assert (created.year, created.month, created.dayofmonth) == (2026, 2, 13)
        assert path.stat().st_size == layout.size
    for some in (images[:2], [*images, tmp_path / "4.iso"]):
        with pytest.raises(ValueError, match="zip"):
            write_set(disc_set, ISO, some)


def test_each_image_is_read_back(studies: CompleteStudies, tmp_path: Path, small: None) -> None:
    made = written(laid_out(studies, tmp_path), tmp_path)
    heard: list[Layout] = []
    proven = prove(made, heard.append)
    assert tuple(heard) == made.disc_set.layouts == tuple(disc.layout for disc in proven.discs)
    assert (proven.disc_set, proven.studies) == (made.disc_set, (studies,))
    for disc, image in zip(proven.discs, made.images, strict=True):
        content = image.read_bytes()
        assert (disc.image, disc.proof.size, disc.proof.sha256) == (
            image,
            len(content),
            hashlib.sha256(content).hexdigest(),
        )


def test_a_damaged_or_an_exchanged_image_proves_nothing(studies: CompleteStudies, tmp_path: Path, small: None) -> None:
    made = written(laid_out(studies, tmp_path), tmp_path)
    one, two, three = made.images
    with pytest.raises(ProofFailed):
        prove(replace(made, images=(two, one, three)))
    with pytest.raises(ValueError, match="zip"):
        prove(replace(made, images=(one, two)))
    largest = max(made.disc_set.layouts[2].files, key=lambda file: file.size)
    content = bytearray(three.read_bytes())
    at = content.index(largest.source.read_bytes() if largest.source else b"") + largest.size - 1
    content[at] ^= 1
    three.write_bytes(content)
    with pytest.raises(ProofFailed):
        prove(made)


def test_an_image_that_is_whole_and_of_another_medium_proves_nothing(one: CompleteStudies, tmp_path: Path) -> None:
    """A Blu-ray image has a second file system, and so another size."""
    made = written(laid_out(one, tmp_path), tmp_path)
    [layout] = made.disc_set.layouts
    wanted = replace(made, disc_set=replace(made.disc_set, layouts=(replace(layout, medium="bd"),)))
    with pytest.raises(ProofFailed, match="bytes and not"):
        prove(wanted)


def test_an_image_that_never_reaches_the_disk_proves_nothing(
    studies: CompleteStudies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise OSError(5, "Input/output error")

    made = written(laid_out(studies, tmp_path), tmp_path)
    monkeypatch.setattr("mkiso.formats.proven_set.sync_file", broken)
    with pytest.raises(OSError, match="Input/output"):
        prove(made)


def shelved_as(studies: CompleteStudies, folder: Path, **sections: Any) -> tuple[ProvenSet, tuple[Manifest, ...]]:
    proven = prove(written(laid_out(studies, folder, **sections), folder))
    return proven, manifests_of(proven, "the job", settings(folder, **sections))


def test_a_manifest_says_what_its_disc_is(tmp_path: Path, small: None, studies: CompleteStudies) -> None:
    proven, told = shelved_as(studies, tmp_path)
    assert {disc.set_id for disc in told} == {disc.first_disc for disc in told} == {told[0].disc_id}
    assert len({disc.disc_id for disc in told}) == 3
    assert {disc.fingerprint for disc in told} == {disc_fingerprint(studies.fingerprint, settings(tmp_path))}
    [study] = studies.studies
    for number, (disc, manifest) in enumerate(zip(proven.discs, told, strict=True), 1):
        layout = disc.layout
        assert (manifest.number, manifest.total, manifest.job_id, manifest.medium) == (number, 3, "the job", "cd")
        assert (manifest.size, manifest.sha256) == (disc.proof.size, disc.proof.sha256)
        assert (manifest.instances, manifest.volume_id) == (len(held([layout])[0]), layout.volume_id)
        assert (manifest.created, manifest.filename) == ("2026-02-13T09:30:00+00:00", "ACC1.iso")
        assert (manifest.accession_numbers, manifest.degraded) == (("ACC1",), ())
        assert (manifest.patient_id, manifest.patient_name) == (study.patient_id, studies.patient_name)
        assert manifest.studies == {study.study_instance_uid: "ACC1"}
        assert [(each["path"], each["size"], each["sha256"], each["sop_instance_uid"]) for each in manifest.files] == [
            (str(file.path), file.size, file.sha256, file.sop_instance_uid) for file in layout.files
        ]


def test_a_disc_of_several_studies_is_saved_under_the_patients_name(tmp_path: Path) -> None:
    files = make_study(tmp_path / "one", "ACC1", kinds={"ct": 1}) + make_study(
        tmp_path / "two", "ACC2", kinds={"ct": 1}, number=2
    )
    found = instances(files)
    known = Patient(str(found[0].header.PatientID), "Known^Name")
    _, [manifest] = shelved_as(passed(found, known), tmp_path)
    assert (manifest.filename, manifest.patient_name) == ("Known Name.iso", "Known^Name")
    assert sorted(manifest.studies.values()) == ["ACC1", "ACC2"]


def told_of(studies: CompleteStudies, **found: Any) -> CompleteStudies:
    """The same images of another question."""
    old = studies.retrieved
    return replace(studies, retrieved=replace(old, found=replace(old.found, **found)))


def test_a_disc_of_what_was_sent_is_given_for_no_other_question(one: CompleteStudies, tmp_path: Path) -> None:
    proven, [asked] = shelved_as(one, tmp_path)
    sent = [manifests_of(proven, "the job", settings(tmp_path), inbox)[0] for inbox in ("BURN", "PRINT")]
    assert len({asked.fingerprint, *(each.fingerprint for each in sent)}) == 3


def test_a_de_identified_disc_is_given_for_no_question(one: CompleteStudies, tmp_path: Path) -> None:
    _, [plain] = shelved_as(one, tmp_path / "plain")
    copies = told_of(one, deidentified=True)
    _, [copied] = shelved_as(copies, tmp_path / "copies")
    assert (plain.deidentified, copied.deidentified) == (False, True)
    assert copied.fingerprint not in (
        plain.fingerprint,
        disc_fingerprint(copies.fingerprint, settings(tmp_path / "copies")),
    )


@pytest.mark.parametrize(
    ("found", "form", "name"),
    [
        ({}, "iso", "ACC1.iso"),
        ({"accession_numbers": ()}, "iso", "ACC1.iso"),
        ({"accession_numbers": ("ACC1", "ACC2")}, "iso", "Known Name.iso"),
        ({"accession_numbers": ("ACC1", "ACC2")}, "zip-encrypted", "ACC1.zip"),
        ({"left_out": (Study("ACC1", "1.2.9", "HN-1"),)}, "iso", "ACC1-selected.iso"),
    ],
)
def test_only_an_open_file_may_have_the_patients_name(
    one: CompleteStudies, tmp_path: Path, found: dict[str, Any], form: str, name: str
) -> None:
    known = Patient(one.studies[0].patient_id, "Known^Name")
    proven = prove(written(laid_out(told_of(one, patient=known, **found), tmp_path), tmp_path))
    [manifest] = manifests_of(replace(proven, form=FORMATS[form]), "the job", settings(tmp_path))
    assert (manifest.filename, manifest.is_part) == (name, "left_out" in found)
    assert manifest.patient_name == "Known^Name"


def test_the_file_of_an_encrypted_disc_says_once_which_of_a_set_it_is(
    tmp_path: Path, small: None, studies: CompleteStudies
) -> None:
    """The volume's name was in it, which tells number and selection too: 20261129_SEL_1OF2-selected-1of2-….iso."""
    part = told_of(studies, accession_numbers=("ACC1", "ACC2"), left_out=(Study("ACC1", "1.2.9", "HN-1"),))
    proven = prove(written(laid_out(part, tmp_path), tmp_path))
    told = manifests_of(replace(proven, form=FORMATS["iso-cms"]), "the job", settings(tmp_path))
    assert {disc.volume_id for disc in told} == {f"ACC1_SEL_{number}OF3" for number in (1, 2, 3)}
    assert {disc.filename for disc in told} == {"ACC1-selected.iso"}


def test_a_manifest_names_the_source_of_a_study_where_there_are_several(one: CompleteStudies, tmp_path: Path) -> None:
    _, [of_one] = shelved_as(one, tmp_path / "one")
    [part] = one.retrieved.studies
    study = replace(part.study, origin=Origin("north"))
    found = replace(one.retrieved.found, studies=(study,))
    of_several = replace(one, retrieved=Retrieved(found, (replace(part, study=study),)))
    _, [named] = shelved_as(of_several, tmp_path / "several")
    assert (of_one.sources, named.sources) == ({}, {study.study_instance_uid: "north"})


def test_a_manifest_says_what_was_chosen_and_in_which_syntax(one: CompleteStudies, tmp_path: Path) -> None:
    chosen = told_of(one, selection=Selection(("1.2",)), degraded=("patient_api",))
    _, [manifest] = shelved_as(chosen, tmp_path)
    assert (manifest.selection, manifest.degraded) == (Selection(("1.2",)), ("patient_api",))
    assert manifest.transfer_syntax == settings(tmp_path).disc.transfer_syntax


def test_a_volume_of_the_archive_is_no_patients_disc(tmp_path: Path) -> None:
    part = archived(
        instances(
            make_study(tmp_path / "one", "ACC1", "HN-1", kinds={"ct": 1})
            + make_study(tmp_path / "two", "ACC2", "HN-2", kinds={"ct": 1}, number=2)
        )
    )
    disc_set = lay_out_volumes(
        [part], [("A20260213_0001", tmp_path / "1")], settings(tmp_path), created=CREATED, medium="cd"
    )
    with pytest.raises((ValueError, MkisoError)):
        manifests_of(prove(written(disc_set, tmp_path)), "the job", settings(tmp_path))


def of(**sections: Any) -> Settings:
    return Settings.model_validate(sections)


@pytest.mark.parametrize(
    "sections",
    [
        {"disc": {"institution": "Other"}},
        {"disc": {"medium": "dvd"}},
        {"viewer": {"directory": "/viewer", "executable": "V.EXE"}},
        {"identity": {"compare": []}},
        {"identity": {"placeholder_ids": ["HN-1"]}},
    ],
)
def test_a_disc_made_under_other_settings_isnt_the_one_that_is_asked_for(sections: dict[str, Any]) -> None:
    """A disc that was let through by other rules, or shows something else, isn't served again."""
    assert disc_fingerprint("same", of(**sections)) != disc_fingerprint("same", of())


def test_a_disc_made_by_another_version_isnt_served_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = disc_fingerprint("same", of())
    monkeypatch.setattr("mkiso.formats.proven_set.program_version", lambda: "99.9")
    assert disc_fingerprint("same", of()) != before


def test_what_shows_on_no_disc_changes_no_fingerprint() -> None:
    assert disc_fingerprint("same", of(server={"port": 9999})) == disc_fingerprint("same", of())
    assert disc_fingerprint("same", of()) != disc_fingerprint("other", of())
    assert len(disc_fingerprint("same", of())) == 64

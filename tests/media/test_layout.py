import hashlib
import os
import re
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

import pytest

from mkiso.errors import ConfigurationError, TooLargeForMedium
from mkiso.formats.iso import Iso, master
from mkiso.formats.proof import verify_image
from mkiso.formats.zip_encrypted import new_password
from mkiso.languages import language
from mkiso.media import viewer as viewer_module
from mkiso.media.capacity import MEDIUM_SECTORS
from mkiso.media.envelopes import Envelopes
from mkiso.media.layout import Layout, LayoutOptions, lay_out
from mkiso.media.names import set_suffix
from mkiso.storage.files import sha256_of
from mkiso.study.gate import Part
from mkiso.study.models import Patient, Study, Volume
from mkiso.study.text import readable_name
from peers.corpus import THAI, Person, make_study
from tests.media.dirt import CLASSES, Sample, write
from tests.media.discs import CREATED, disc, instance, instances, passed, settings

NASTY = Person("HN<1>", 'O"Hara^<script>alert(1)</script>', character_set="ISO_IR 192")


def paths(layout: Layout) -> set[str]:
    return {str(file.path) for file in layout.files}


def page(layout: Layout, name: str) -> str:
    [file] = [file for file in layout.files if str(file.path) == name]
    assert file.source
    return file.source.read_bytes().decode("utf-8-sig")


def a_viewer(folder: Path, *names: str) -> dict[str, object]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name))
    return {"directory": str(folder)}


def test_what_lies_on_a_disc(tmp_path: Path) -> None:
    layout, _ = disc(make_study(tmp_path / "in", "ACC 1"), tmp_path)
    assert paths(layout) == {
        "DICOMDIR", "README.TXT", "INDEX.HTM", "SHA256.TXT",
        "IHE_PDI/INFO.HTM", "IHE_PDI/ST000001.HTM", "IHE_PDI/STYLE.CSS",
        *(f"DICOM/PT000001/ST000001/SE000001/IM00000{number}" for number in (1, 2, 3)),
    }  # fmt: skip
    assert (layout.volume_id, layout.instances, layout.volume) == ("ACC_1", 3, Volume(1, 1))
    for file in layout.files:
        assert file.source
        assert (file.source.stat().st_size, hashlib.sha256(file.source.read_bytes()).hexdigest()) == (
            file.size,
            file.sha256,
        )


def test_the_same_answer_gives_the_same_image(tmp_path: Path) -> None:
    found = instances(make_study(tmp_path / "in", "ACC1", kinds={"ct": 3, "sr": 1}))
    images = []
    for name, these in (("one", found), ("two", found[::-1])):
        layout = lay_out(Part.whole(passed(these)), LayoutOptions(settings(tmp_path), CREATED), tmp_path / name)
        master(layout.files, layout.volume_id, tmp_path / "x.iso", created=CREATED)
        images.append((tmp_path / "x.iso").read_bytes())
    assert images[0] == images[1]
    layout = lay_out(
        Part.whole(passed(found)), LayoutOptions(settings(tmp_path), CREATED + timedelta(minutes=1)), tmp_path / "three"
    )
    master(layout.files, layout.volume_id, tmp_path / "x.iso", created=layout.created)
    assert (tmp_path / "x.iso").read_bytes() != images[0]


def test_the_day_that_people_read_is_the_sites_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is half past three in the morning in Bangkok, and still yesterday by UTC."""
    found = instances(make_study(tmp_path / "in", "A1") + make_study(tmp_path / "in", "A2"))
    with monkeypatch.context() as there:
        there.setenv("TZ", "Asia/Bangkok")
        time.tzset()
        made = datetime(2026, 2, 12, 20, 30, tzinfo=UTC)
        layout = lay_out(Part.whole(passed(found)), LayoutOptions(settings(tmp_path), made), tmp_path / "disc")
    time.tzset()
    day = language("en").date(date(2026, 2, 13))
    assert f"{day}, 03:30 +07" in page(layout, "README.TXT") and day in page(layout, "INDEX.HTM")
    assert layout.volume_id.startswith("20260213_") and layout.created == made


def test_checksums_are_read_by_sha256sum(tmp_path: Path) -> None:
    layout, _ = disc(
        make_study(tmp_path / "in", "ACC1"), tmp_path, viewer=a_viewer(tmp_path / "viewer", "Ein Betrachter.exe")
    )
    lines = page(layout, "SHA256.TXT").splitlines()
    assert len(lines) == len(layout.files) - 1
    names = {line.partition("  ")[2] for line in lines}
    assert {"Ein Betrachter.exe", "DICOMDIR"} <= names and "SHA256.TXT" not in names


def test_pages_are_escaped_complete_and_need_nothing_from_outside(tmp_path: Path) -> None:
    layout, _ = disc(
        make_study(tmp_path / "in", "ACC1", patient=NASTY, kinds={"ct": 2, "sr": 1}, description="<b>&"), tmp_path
    )
    for name in ("INDEX.HTM", "IHE_PDI/INFO.HTM", "IHE_PDI/ST000001.HTM"):
        html = page(layout, name)
        assert "<script" not in html and "<b>" not in html and "default-src 'none'" in html
        links = _Links()
        links.feed(html)
        assert links.found and not any("//" in link for link in links.found)
        for link in links.found:
            target, _, place = link.partition("#")
            assert not target or os.path.normpath(PurePosixPath(name).parent / target) in paths(layout), link
            assert not place or f'id="{place}"' in html, link
    assert "ACC1" in page(layout, "INDEX.HTM") and "Example Hospital" in page(layout, "INDEX.HTM")


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value and tag != "html"]


def test_readme_suits_notepad_and_names_no_patient(tmp_path: Path) -> None:
    layout, _ = disc(
        make_study(tmp_path / "in", "ACC1", patient=THAI),
        tmp_path,
        disc={"institution": "โรงพยาบาล", "contact": "02 123"},
    )
    text = page(layout, "README.TXT")
    assert text.count("\n") == text.count("\r\n")
    [file] = [file for file in layout.files if str(file.path) == "README.TXT"]
    assert file.source and file.source.read_bytes().startswith(b"\xef\xbb\xbf")
    for words in ("โรงพยาบาล", "02 123", "February 13, 2026", "STD-GEN-CD", "Windows", "macOS", "Linux", "ACC1"):
        assert words in text
    assert "สมชาย" not in text and THAI.patient_id not in text
    assert "สมชาย" in page(layout, "INDEX.HTM")


def test_the_patient_apis_name_is_shown_and_not_written_over_dicom(tmp_path: Path) -> None:
    found = instances(make_study(tmp_path / "in", "ACC1"))
    known = Patient("HN-0001", "นางสาว ตัวอย่าง", "19700102", "F")
    layout = lay_out(Part.whole(passed(found, known)), LayoutOptions(settings(tmp_path), CREATED), tmp_path / "d")
    assert "นางสาว ตัวอย่าง" in page(layout, "INDEX.HTM")
    assert "นางสาว".encode() not in (tmp_path / "d" / "DICOMDIR").read_bytes()
    assert b"Example^Anna" in (tmp_path / "d" / "DICOMDIR").read_bytes()


@pytest.mark.parametrize(
    ("total", "chosen", "copied", "label"),
    [
        (1, False, False, "20260213_[A-Z]{6}"),
        (2, False, False, "0213_[A-Z]{6}"),
        (12, False, False, "0213_[A-Z]{4}"),
        (1, True, False, "0213_[A-Z]{6}"),
        (2, True, False, "[A-Z]{6}"),
        (12, True, False, "[A-Z]{5}"),
        (12, False, True, "DEID_[A-Z]{4}"),
        (2, True, True, "D[A-Z]{6}"),
        (12, True, True, "D[A-Z]{4}"),
    ],
)
def test_sets_of_one_day_are_told_apart_by_their_labels(
    tmp_path: Path, total: int, chosen: bool, copied: bool, label: str
) -> None:
    """The date left no room for the letters: each encrypted set of ten discs or more was 20260213_01OF10, and each
    selected one 0213_SEL_01OF10.
    """
    words: dict[str, set[str]] = {}
    for patient in ("HN-1", "HN-2"):
        files = [make_study(tmp_path / patient / number, number, patient, kinds={"ct": 1}) for number in ("A1", "A2")]
        studies = passed(instances([file for each in files for file in each]))
        left_out = (Study("A3", "1.2.9", patient),) if chosen else ()
        found = replace(studies.retrieved.found, left_out=left_out, deidentified=copied)
        studies = replace(studies, retrieved=replace(studies.retrieved, found=found))
        for number, one in enumerate(studies.instances[:total], 1):
            options = LayoutOptions(settings(tmp_path), CREATED, envelopes=Envelopes(new_password()))
            folder, volume = tmp_path / patient / f"disc{number}", Volume(number, total)
            layout = lay_out(Part((studies,), (one,)), options, folder, volume=volume)
            end = set_suffix(volume, is_part=chosen)
            assert re.fullmatch(label + end, layout.volume_id)
            words.setdefault(patient, set()).add(layout.volume_id.removesuffix(end))
    assert [len(those) for those in words.values()] == [1, 1] and len(set.union(*words.values())) == 2


def test_a_volume_of_a_set_says_so(tmp_path: Path) -> None:
    found = instances(make_study(tmp_path / "in", "ACC1", kinds={"ct": 4}))
    studies = passed(found)
    here, there = (Part((studies,), instances) for instances in (studies.instances[:2], studies.instances[2:]))
    layout = lay_out(
        here, LayoutOptions(settings(tmp_path), CREATED), tmp_path / "d", volume=Volume(1, 2), elsewhere={2: there}
    )
    assert layout.volume_id == "ACC1_1OF2"
    assert "This is disc 1 of 2." in page(layout, "README.TXT")
    assert "accession number ACC1, February 29, 2024, CT: 2 images" in page(layout, "README.TXT")
    assert "disc 1 of 2" in page(layout, "INDEX.HTM")


def test_no_value_adds_a_line_to_readme_or_is_shown_as_another_alphabet(tmp_path: Path) -> None:
    values = {"StudyDate": b"2024\r\nDisc 9 holds:", "SpecificCharacterSet": b"", "PatientID": b"P1"}
    sample = Sample("", CLASSES["IMAGE"][0], {**values, "PatientName": "Müller".encode("latin-1")})
    here, there = (Part.whole(passed([instance(write(sample, number, tmp_path))])) for number in (1, 2))
    folder, volume = tmp_path / "d", Volume(1, 2)
    layout = lay_out(here, LayoutOptions(settings(tmp_path), CREATED), folder, volume=volume, elsewhere={2: there})
    assert "accession number A1, 2024 Disc 9 holds:, OT" in page(layout, "README.TXT")
    assert "M\ufffdller" in page(layout, "INDEX.HTM")


def test_a_viewer_in_the_root(tmp_path: Path) -> None:
    names = "mDicom.exe", "Long name here.dll", "sub dir/x.txt", "AUTORUN.INF", "DICOMDIR"
    viewer = a_viewer(tmp_path / "viewer", *names) | {"autorun": True}
    layout, _ = disc(make_study(tmp_path / "in", "ACC1"), tmp_path, viewer=viewer)
    assert {"MDICOM.EXE", "LONG_NAM.DLL", "SUB_DIR/X.TXT", "AUTORUN.INF"} <= paths(layout)
    assert page(layout, "AUTORUN.INF").splitlines()[1] == "open=mDicom.exe"
    assert "AUTORUN.INF" in page(layout, "README.TXT")
    assert 'href="mDicom.exe"' in page(layout, "INDEX.HTM")
    [program] = [file for file in layout.files if str(file.path) == "MDICOM.EXE"]
    assert program.joliet_path == PurePosixPath("mDicom.exe")


def test_a_viewer_in_its_folder_starts_by_itself_only_where_asked_for(tmp_path: Path) -> None:
    viewer = a_viewer(tmp_path / "viewer", "bin/run.exe", "README.TXT", "autorun.inf")
    viewer |= {"place": "VIEWER", "executable": "bin\\run.exe"}
    layout, _ = disc(make_study(tmp_path / "in", "ACC1"), tmp_path, viewer=viewer)
    assert {"VIEWER/BIN/RUN.EXE", "VIEWER/README.TXT"} <= paths(layout)
    assert not [path for path in paths(layout) if path.endswith("AUTORUN.INF")]
    assert "AUTORUN.INF" not in page(layout, "README.TXT") and "VIEWER/bin/run.exe" in page(layout, "README.TXT")
    assert 'href="VIEWER/bin/run.exe"' in page(layout, "INDEX.HTM")


@pytest.mark.parametrize("place", ["root", "VIEWER"])
@pytest.mark.parametrize("name", ["f", "long file name.text", "n" * 64, "ก" * 21])
def test_a_viewer_nested_too_deep_is_refused_and_any_other_is_mastered(place: str, name: str, tmp_path: Path) -> None:
    study = make_study(tmp_path / "in", "ACC1")
    made = refused = 0
    for folders in range(9):
        directory = tmp_path / str(folders)
        viewer = a_viewer(directory / "viewer", "/".join([*[name] * folders, name])) | {"place": place}
        try:
            layout, image = disc(study, directory, viewer=viewer)
        except ConfigurationError as error:
            assert "can't go onto a disc" in error.words
            refused += 1
            continue
        assert not refused
        verify_image(image, layout.files, Iso())
        made += 1
    assert made >= 2 and refused >= 1


@pytest.mark.parametrize("name", ["n" * 65, "ก" * 22, "a\udcff"])
def test_a_viewers_name_that_a_disc_cant_hold_is_refused_in_words(name: str, tmp_path: Path) -> None:
    viewer = a_viewer(tmp_path / "viewer", name)
    with pytest.raises(ConfigurationError, match="can't go onto a disc"):
        disc(make_study(tmp_path / "in", "ACC1"), tmp_path, viewer=viewer)


def test_readme_says_whether_a_viewer_lies_on_the_disc(tmp_path: Path) -> None:
    viewer = a_viewer(tmp_path / "viewer", "one.exe", "two.exe")
    layout, _ = disc(make_study(tmp_path / "in", "ACC1"), tmp_path, viewer=viewer)
    assert "One lies on this disc" in page(layout, "README.TXT")
    layout, _ = disc(make_study(tmp_path / "in", "ACC1"), tmp_path)
    assert "No such program lies on this disc" in " ".join(page(layout, "README.TXT").split())


def test_readme_claims_what_the_disc_meets(tmp_path: Path) -> None:
    layout, _ = disc(make_study(tmp_path / "in", "ACC1"), tmp_path)
    assert "IHE Portable Data for" in page(layout, "README.TXT") and "STD-GEN-CD" in page(layout, "IHE_PDI/INFO.HTM")
    layout, _ = disc(make_study(tmp_path / "in", "ACC1", kinds={"jpeg_2000": 1}), tmp_path)
    for name in ("README.TXT", "IHE_PDI/INFO.HTM"):
        assert "meets no DICOM application profile" in " ".join(page(layout, name).split())
        assert "Portable Data" not in page(layout, name)


@pytest.mark.parametrize(
    ("names", "settings_", "words"),
    [
        (["readme.txt"], {}, "readme.txt into the root"),
        (["Dicom/x.dll"], {}, "into the root"),
        (["index.htm."], {}, "into the root"),
        (["a.exe", "A.exe"], {}, "one name to some systems"),
        (["de/a.dll", "DE/b.dll"], {}, "one name to some systems"),
        (["IHElp.txt"], {}, "into the root"),
        (["a.exe"], {"place": "IHE_X"}, "into the root"),
        (["a.exe"], {"executable": "b.exe"}, "no such file"),
    ],
)
def test_a_viewer_that_clashes_is_refused(
    tmp_path: Path, names: list[str], settings_: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        disc(make_study(tmp_path / "in", "ACC1"), tmp_path, viewer=a_viewer(tmp_path / "viewer", *names) | settings_)


def test_a_missing_viewer_and_a_link_that_leads_outside(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="doesn't exist"):
        disc(make_study(tmp_path / "in", "ACC1"), tmp_path, viewer={"directory": str(tmp_path / "nowhere")})
    viewer = a_viewer(tmp_path / "viewer", "a.exe")
    (tmp_path / "viewer" / "inside").symlink_to("a.exe")
    disc(make_study(tmp_path / "in", "ACC1"), tmp_path, viewer=viewer)
    for target in ("/etc/passwd", "/etc"):
        (tmp_path / "viewer" / "outside").symlink_to(target)
        with pytest.raises(ConfigurationError, match="no file of its folder"):
            disc(make_study(tmp_path / "in", "ACC1"), tmp_path, viewer=viewer)
        (tmp_path / "viewer" / "outside").unlink()


def test_a_viewer_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = a_viewer(tmp_path / "viewer", "a.exe", "b.dll")
    hashed: list[Path] = []

    def hashing(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    monkeypatch.setattr(viewer_module, "sha256_of", hashing)
    for _ in range(2):
        disc(make_study(tmp_path / "in", "ACC1"), tmp_path, viewer=viewer)
    assert len(hashed) == 2
    (tmp_path / "viewer" / "a.exe").write_text("z.exe")
    layout, _ = disc(make_study(tmp_path / "in", "ACC1"), tmp_path, viewer=viewer)
    assert len(hashed) == 3
    assert hashlib.sha256(b"z.exe").hexdigest() in {file.sha256 for file in layout.files}


def test_what_doesnt_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEDIUM_SECTORS, "cd", 60)
    with pytest.raises(TooLargeForMedium, match=r"a CD has 0\.1 MB: it would fit on a DVD"):
        disc(make_study(tmp_path / "in", "ACC1"), tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Example^Anna", "Example, Anna"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou / 山田, 太郎 / やまだ, たろう"),
        ("Doe^John^Q^Dr.^Jr.", "Dr. Doe, John Q, Jr."),
        ("Adams^John^^Rev.", "Rev. Adams, John"),
        ("^^^^", ""),
        ("=山田^太郎", "山田, 太郎"),
    ],
)
def test_readable_names(name: str, expected: str) -> None:
    assert readable_name(name) == expected

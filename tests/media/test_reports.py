"""What is no image on a disc: each has a page, its files are proved with the disc, and its links lead somewhere."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset, dcmread, uid

from mkiso.formats.disc_check import verify_disc
from mkiso.formats.iso import Iso, master
from mkiso.formats.proof import verify_image
from mkiso.languages import language
from mkiso.media import pages, reporting
from mkiso.media.capacity import MEDIUM_SECTORS
from mkiso.media.disc_set import DiscSet, lay_out_set
from mkiso.media.layout import Layout
from mkiso.media.rendering import NO_PICTURES, Pictures
from mkiso.media.reporting import prepare_reports
from mkiso.reports.reading import read_report
from mkiso.reports.values import Report
from mkiso.study.gate import CompleteStudies
from mkiso.study.text import Text
from peers.corpus import EVERY_KIND, make_study
from tests.media.discs import CREATED, instances, passed, settings
from tests.media.links import dead_links
from tests.media.test_seen import rendered, unpacked
from tests.reports.documents import (
    code,
    encapsulated,
    item,
    number,
    recording,
    reference,
    report,
    text,
    written,
)

pytestmark = pytest.mark.usefixtures("forked_decoders")

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n%%EOF\n"


def told(studies: CompleteStudies, folder: Path, pictures: Pictures = NO_PICTURES) -> DiscSet:
    reports = prepare_reports(studies.instances, folder / "documents")
    return lay_out_set(
        studies, settings(folder), folder / "made", created=CREATED, medium="cd", pictures=pictures, reports=reports
    )


def page(layout: Layout, path: str) -> str:
    [file] = [file for file in layout.files if str(file.path) == path]
    assert file.source
    return file.source.read_text()


def words(layout: Layout, path: str) -> str:
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", page(layout, path))).split())


def study_with(folder: Path, *made: Dataset, images: int = 2) -> CompleteStudies:
    files = make_study(folder, "ACC1", kinds={"ct": images})
    files += [
        written(each, folder / f"d{place}.dcm", beside=files[0], series=90 + place) for place, each in enumerate(made)
    ]
    return passed(instances(files))


def test_every_kind_of_object_is_shown_or_named_and_proved(tmp_path: Path) -> None:
    studies = passed(instances(make_study(tmp_path / "in", "ACC1", kinds=EVERY_KIND)))
    [layout] = told(studies, tmp_path, rendered(studies, tmp_path / "pictures")).layouts
    assert not list(dead_links(unpacked(layout, tmp_path / "disc")))
    pages = {file.path.name for file in layout.files if file.path.match("IHE_PDI/ST000001/RP*.HTM")}
    assert pages == {f"RP{place:06}.HTM" for place in range(1, 8)}
    titles = re.findall(
        r'<a class="title" href="ST000001/RP\d+.HTM"><bdi>([^<]*)', page(layout, "IHE_PDI/ST000001.HTM")
    )
    assert titles == [
        "Diagnostic Imaging Report",
        "Of Interest",
        "Radiotherapy plan: Plan1",
        "Radiotherapy structures: sep30",
        "Radiotherapy dose: BEAM",
        "Letter",
        "General ECG",
    ]
    assert {str(file.path) for file in layout.files if file.path.parts[0] == "REPORTS"} == {
        "REPORTS/ST000001/RP000006.PDF"
    }
    assert "It holds no image" in words(layout, "IHE_PDI/ST000001/SE000020.HTM")
    master(layout.files, layout.volume_id, tmp_path / "disc.iso", created=CREATED)
    assert (tmp_path / "disc.iso").stat().st_size == layout.size
    verify_image(tmp_path / "disc.iso", layout.files, Iso())
    assert verify_disc(tmp_path / "disc.iso").files == len(layout.files)


def test_a_study_of_a_report_alone_is_called_a_report(tmp_path: Path) -> None:
    studies = passed(instances([written(report([text("Finding", "x")]), tmp_path / "in" / "a.dcm")]))
    [layout] = told(studies, tmp_path, rendered(studies, tmp_path / "pictures")).layouts
    assert "Report February 29, 2024 1 report" in words(layout, "INDEX.HTM")
    for path in (
        "INDEX.HTM",
        "README.TXT",
        "IHE_PDI/INFO.HTM",
        "IHE_PDI/ST000001.HTM",
        "IHE_PDI/ST000001/RP000001.HTM",
    ):
        said = words(layout, path)
        assert "1 report" in said or "ST000001" in path
        assert not re.search(r"\d images?", said)
    assert not [file for file in layout.files if file.path.match("IHE_PDI/ST000001/SE*.HTM")]


def test_images_and_reports_are_counted_apart(tmp_path: Path) -> None:
    studies = study_with(tmp_path / "in", report([text("Finding", "x")]))
    [layout] = told(studies, tmp_path).layouts
    for path in ("INDEX.HTM", "README.TXT", "IHE_PDI/INFO.HTM"):
        assert "2 images and 1 report" in words(layout, path)
    for path in ("IHE_PDI/ST000001.HTM",):
        assert "2 images" in words(layout, path)


def test_references_lead_to_the_picture_the_report_or_say_that_it_is_elsewhere(tmp_path: Path) -> None:
    files = make_study(tmp_path / "in", "ACC1", kinds={"ct": 3, "multiframe": 1})
    images = [dcmread(file) for file in files]
    other = written(report([text("Finding", "x")], title="Earlier"), tmp_path / "in" / "o.dcm", files[0], series=80)
    tree = [
        reference(images[1]),
        reference(images[3], [2, 12]),
        reference(None),
        reference(dcmread(other)),
    ]
    files += [other, written(report(tree), tmp_path / "in" / "r.dcm", files[0], series=81)]
    studies = passed(instances(files))
    [layout] = told(studies, tmp_path, rendered(studies, tmp_path / "pictures")).layouts
    found = page(layout, "IHE_PDI/ST000001/RP000002.HTM")
    links = re.findall(r'<span class="to">(?:<a href="([^"]*)">)?(?:<img src="([^"]*)"[^>]*>)?([^<]*)', found)
    assert links == [
        ("SE000001.HTM#P2", "SE000001/P0000002.JPG", "Picture 2 of Series 1: ct"),
        ("SE000002.HTM#P2", "SE000002/P0000002.JPG", "Picture 2 of Series 2: multiframe"),
        ("SE000002.HTM#P12", "SE000002/P0000012.JPG", "Picture 12 of Series 2: multiframe"),
        ("", "", "CT Image, not on this disc"),
        ("RP000001.HTM", "", "Earlier"),
    ]
    assert not list(dead_links(unpacked(layout, tmp_path / "disc")))
    [bare] = told(studies, tmp_path / "bare").layouts
    assert "CT Image, on this disc in DICOM format only" in words(bare, "IHE_PDI/ST000001/RP000002.HTM")
    assert not list(dead_links(unpacked(bare, tmp_path / "bare" / "disc")))


def test_a_key_object_selection_says_what_it_is(tmp_path: Path) -> None:
    [image] = make_study(tmp_path / "in", "ACC1", kinds={"ct": 1})
    content = [text("Key Object Description", "Bleeding"), reference(dcmread(image))]
    note = report(content, uid.KeyObjectSelectionDocumentStorage, "For Referring Provider")
    studies = passed(instances([image, written(note, tmp_path / "in" / "ko.dcm", image)]))
    [layout] = told(studies, tmp_path, rendered(studies, tmp_path / "pictures")).layouts
    said = words(layout, "IHE_PDI/ST000001/RP000001.HTM")
    for part in (
        "For Referring Provider",
        "A note that says which images were picked out",
        "Bleeding",
        "Picture 1 of Series 1: ct",
    ):
        assert part in said


def test_an_item_by_reference_is_a_link_to_it_on_the_page(tmp_path: Path) -> None:
    back, nowhere = Dataset(), Dataset()
    back.RelationshipType, back.ReferencedContentItemIdentifier = "INFERRED FROM", [1, 1]
    nowhere.RelationshipType, nowhere.ReferencedContentItemIdentifier = "INFERRED FROM", [1, 9]
    studies = study_with(tmp_path / "in", report([text("Finding", "a mass"), text("So", "x", inside=[back, nowhere])]))
    [layout] = told(studies, tmp_path).layouts
    found = page(layout, "IHE_PDI/ST000001/RP000001.HTM")
    assert '<a href="#I1.1">' in found and 'id="I1.1"' in found
    assert "item 1.9, which isn&#39;t shown here" in found
    assert not list(dead_links(unpacked(layout, tmp_path / "disc")))


def test_no_text_of_a_report_is_markup(tmp_path: Path) -> None:
    nasty = "</li><script>evil()</script><a href='javascript:evil()'>\"'&"
    made = report(
        [item("CONTAINER", nasty[:60], inside=[text(nasty[:60], nasty), number("N", "3", nasty[:14])])],
        title=nasty[:60],
    )
    made.CompletionFlagDescription = nasty[:60]
    letter = encapsulated(PDF, "application/pdf", uid.EncapsulatedPDFStorage)
    letter.DocumentTitle = nasty
    chart = recording(np.zeros((100, 1), np.int16), 100)
    chart.WaveformSequence[0].MultiplexGroupLabel = "<b>'\"&"
    studies = study_with(tmp_path / "in", made, letter, chart)
    [layout] = told(studies, tmp_path).layouts
    for file in layout.files:
        if file.path.suffix == ".HTM":
            assert file.source
            found = file.source.read_text()
            assert "<script" not in found and "<b>" not in found and "<a href='" not in found
            assert "default-src 'none'" in found
    assert nasty in words(layout, "IHE_PDI/ST000001/RP000001.HTM")
    assert found.count("<ul") == found.count("</ul>")


def test_lists_are_closed_however_deep_they_go(tmp_path: Path) -> None:
    deep = text("F", "end")
    for _ in range(20):
        deep = item("CONTAINER", "C", inside=[deep])
    tree = [deep, text("F", "x"), item("CONTAINER", "C", inside=[text("F", "y", inside=[text("F", "z")])])]
    [layout] = told(study_with(tmp_path / "in", report(tree)), tmp_path).layouts
    found = page(layout, "IHE_PDI/ST000001/RP000001.HTM")
    for tag in ("ul", "li", "h2", "h6"):
        assert len(re.findall(f"<{tag}[ >]", found)) == found.count(f"</{tag}>") > 0


def test_a_report_says_how_far_it_has_come(tmp_path: Path) -> None:
    made = report([text("Finding", "x")])
    made.CompletionFlag = "PARTIAL"
    [layout] = told(study_with(tmp_path / "in", made), tmp_path).layouts
    assert "not complete, not verified" in words(layout, "IHE_PDI/ST000001.HTM")
    found = words(layout, "IHE_PDI/ST000001/RP000001.HTM")
    assert "This report isn't complete. Nobody has verified this report." in found


def test_a_report_says_that_a_newer_one_takes_its_place(tmp_path: Path) -> None:
    """Both are called complete and verified."""
    [image] = make_study(tmp_path / "in", "ACC1", kinds={"ct": 1})
    older = written(report([text("Finding", "left")], title="First"), tmp_path / "in" / "a.dcm", beside=image)
    newer, of_study, of_series, it = report([text("Finding", "right")], title="Then"), Dataset(), Dataset(), Dataset()
    replaced = dcmread(older)
    it.ReferencedSOPClassUID, it.ReferencedSOPInstanceUID = replaced.SOPClassUID, replaced.SOPInstanceUID
    of_series.SeriesInstanceUID, of_series.ReferencedSOPSequence = replaced.SeriesInstanceUID, [it]
    of_study.StudyInstanceUID, of_study.ReferencedSeriesSequence = replaced.StudyInstanceUID, [of_series]
    newer.PredecessorDocumentsSequence = [of_study]
    both = [older, written(newer, tmp_path / "in" / "b.dcm", beside=image, series=91)]
    [layout] = told(passed(instances([image, *both])), tmp_path).layouts
    [first, then] = (words(layout, f"IHE_PDI/ST000001/RP{number:06}.HTM") for number in (1, 2))
    assert "First" in first and "A newer version of this report is on this disc." in first
    assert "Then" in then and "newer" not in then
    assert words(layout, "IHE_PDI/ST000001.HTM").count("a newer version is on this disc") == 1
    [alone] = told(passed(instances([image, older])), tmp_path / "alone").layouts
    assert "newer" not in words(alone, "IHE_PDI/ST000001/RP000001.HTM")


def cda(title: str, own: str, related: str = "") -> Dataset:
    """A CDA document with this ID, and what it says of others."""
    xml = f'<ClinicalDocument xmlns="urn:hl7-org:v3"><id {own}/><title>{title}</title>{related}</ClinicalDocument>'
    return encapsulated(xml.encode(), "text/xml", uid.EncapsulatedCDAStorage, len(xml.encode()))


@pytest.mark.parametrize(("kind", "marked"), [("RPLC", 1), ("APND", 0)])
def test_a_letter_says_that_another_takes_its_place(kind: str, marked: int, tmp_path: Path) -> None:
    [image] = make_study(tmp_path / "in", "ACC1", kinds={"ct": 1})
    parent = f'<relatedDocument typeCode="{kind}"><parentDocument><id root="2.AB" extension="7"/></parentDocument>'
    made = {
        "First": cda("First", 'root="2.ab" extension="7"'),
        "Then": cda("Then", 'root="2.ab" extension="8"', f"{parent}</relatedDocument>"),
        "Another": cda("Another", 'root="2.ab" extension="9"'),
        "Unnamed": cda("Unnamed", 'nullFlavor="UNK"'),
    }
    files = [written(each, tmp_path / "in" / f"{name}.dcm", beside=image) for name, each in made.items()]
    [layout] = told(passed(instances([image, *files])), tmp_path).layouts
    pages = [words(layout, f"IHE_PDI/ST000001/RP{number:06}.HTM") for number in range(1, 5)]
    notice = "A newer version of this report is on this disc."
    assert [title for title in made for page in pages if title in page and notice in page] == ["First"] * marked
    assert words(layout, "IHE_PDI/ST000001.HTM").count("a newer version is on this disc") == marked


def test_a_report_without_content_costs_no_disc(tmp_path: Path) -> None:
    [layout] = told(study_with(tmp_path / "in", report([])), tmp_path).layouts
    assert "It has no content." in words(layout, "IHE_PDI/ST000001/RP000001.HTM")


def test_a_document_is_on_the_disc_as_the_file_that_it_is(tmp_path: Path) -> None:
    [layout] = told(
        study_with(tmp_path / "in", encapsulated(PDF, "application/pdf", uid.EncapsulatedPDFStorage, len(PDF))),
        tmp_path,
    ).layouts
    [file] = [file for file in layout.files if file.path.suffix == ".PDF"]
    assert file.source and file.source.read_bytes() == PDF
    assert 'href="../../REPORTS/ST000001/RP000001.PDF"' in page(layout, "IHE_PDI/ST000001/RP000001.HTM")
    assert "REPORTS" in words(layout, "README.TXT")


def test_a_document_and_a_recording_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        written(recording(np.zeros((500, 1), np.int16), 500), tmp_path / "ecg"),
        written(encapsulated(PDF, "application/pdf", uid.EncapsulatedPDFStorage, len(PDF)), tmp_path / "pdf"),
    ]
    read: list[Path] = []

    def reading(path: Path, kind: str) -> Report:
        read.append(path)
        return read_report(path, kind)

    monkeypatch.setattr(reporting, "read_report", reading)
    monkeypatch.setattr(pages, "read_report", reading)
    layout = told(passed(instances(made)), tmp_path).layouts[0]
    assert sorted(read) == sorted(made)
    assert any(".SVG" in page(layout, f"IHE_PDI/ST000001/RP00000{n}.HTM") for n in (1, 2))


def test_a_report_that_cannot_be_read_costs_its_content_and_not_the_disc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unforeseen(_: Text) -> str:
        raise RuntimeError("a fault of ours")

    studies = study_with(tmp_path / "in", report([text("Finding", "ü")]))
    reports = prepare_reports(studies.instances, tmp_path / "documents")
    with monkeypatch.context() as patched:
        patched.setattr("mkiso.reports.structured._said", unforeseen)
        [layout] = lay_out_set(
            studies, settings(tmp_path), tmp_path / "made", created=CREATED, medium="cd", reports=reports
        ).layouts
    assert "It couldn't be read." in words(layout, "IHE_PDI/ST000001/RP000001.HTM")


def test_a_disc_without_room_for_reports_holds_them_all_the_same_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = study_with(
        tmp_path / "in", encapsulated(PDF + bytes(3_000_000), "application/pdf", uid.EncapsulatedPDFStorage)
    )
    [whole] = told(studies, tmp_path / "whole").layouts
    monkeypatch.setitem(MEDIUM_SECTORS, "cd", whole.sectors - 1)
    [layout] = told(studies, tmp_path / "crowded").layouts
    assert len(layout.files) == len(whole.files) - 2 and layout.instances == 3
    assert "1 report is on the disc in DICOM format only." in words(layout, "IHE_PDI/ST000001.HTM")
    assert not list(dead_links(unpacked(layout, tmp_path / "disc")))


def test_what_is_said_of_other_discs_counts_reports_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = study_with(tmp_path / "in", report([text("Finding", "x")]), images=40)
    [whole] = told(studies, tmp_path).layouts
    monkeypatch.setitem(MEDIUM_SECTORS, "cd", whole.sectors * 2 // 3)
    layouts = told(studies, tmp_path).layouts
    assert len(layouts) > 1
    said = " ".join(words(layout, "README.TXT") for layout in layouts)
    assert re.search(r"CT: \d+ images and 1 report|–: 1 report", said)
    for layout in layouts:
        assert not list(dead_links(unpacked(layout, tmp_path / layout.volume_id)))


@pytest.mark.peer
@pytest.mark.skipif(not shutil.which("dsr2html"), reason="dcmtk is not installed")
@pytest.mark.parametrize("name", ["reportsi.dcm", "test-SR.dcm", "ours"])
def test_every_text_that_dcmtk_finds_in_a_report_is_on_its_page(name: str, tmp_path: Path) -> None:
    studies = study_with(tmp_path / "in", _judged(name))
    source = tmp_path / "in" / "d0.dcm"
    options = ["-q", "-Er", "-Ev", "-Ec", "-Ee", "+Ra", "+Cc", "+Cm", "+U8"]
    judged = subprocess.run(["dsr2html", *options, source], capture_output=True, text=True, check=True).stdout
    [layout] = told(studies, tmp_path).layouts
    ours = words(layout, "IHE_PDI/ST000001/RP000001.HTM")
    content = judged[judged.index("<hr>") : judged.rindex("<hr>")]
    theirs = [
        " ".join(part.split()) for part in _PARTS.split(html.unescape(_TAGS.sub("\n", content)).replace("¶", "\n"))
    ]
    said = [part.strip(' ":') for part in theirs if part.strip(' ":')]
    assert len(said) > 20
    assert [part for part in said if _in_our_words(part) not in ours] == []


def _in_our_words(part: str) -> str:
    if day := re.match(r"(\d{4})-(\d\d)-(\d\d)( .*)?$", part):
        date = language("en").da("".join(day.groups()[:3]))
        return f"{date},{day[4]}" if day[4] else date
    return _IN_OUR_WORDS.get(part, part)


_TAGS, _PARTS = (
    re.compile("<[^>]*>"),
    re.compile(r' = |(?<=observed): |[\n()\[\]]|, (?=\d|")|(?<=\d) (?=[a-zA-Z])|Footnote \d+|^\d+$', re.MULTILINE),
)
_IN_OUR_WORDS = {
    "Observation Context": "context",
    "Inferred from": "inferred from",
    "Selected from": "selected from",
    "Acquisition Context": "acquisition",
    "Concept Modifier": "more precisely",
    "Properties": "",
    "Content Item": "",
    "observed": "",
    "by-reference": "see:",
    "Circle": "A circle",
    "Segment": "A time span",
    "unknown image": "An object",
    "MR image": "MR Image",
    "BasicTextSRStorage": "Basic Text SR",
    "HemodynamicWaveformStorage": "Hemodynamic Waveform",
    "CT image with presentation state": "with a presentation state",
}


def _judged(name: str) -> Dataset:
    if name != "ours":
        return dcmread(BUNDLED / name)
    findings = [
        text("Finding", "A mass <3 mm> & more\nin two lines"),
        number(
            "Width",
            "3.50",
            "mm",
            inside=[item("CODE", "Method", "HAS CONCEPT MOD", ConceptCodeSequence=code("By eye"))],
        ),
        item("PNAME", "Seen by", PersonName="Example"),
        item("DATE", "Day", Date="20240229"),
        item("TIME", "Hour", Time="101530"),
        item("UIDREF", "Device", UID="1.2.3.4"),
    ]
    return report(
        [item("CONTAINER", "Findings", ContinuityOfContent="SEPARATE", inside=findings)], title="Bericht für alle"
    )

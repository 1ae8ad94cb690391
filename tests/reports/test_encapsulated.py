"""Encapsulated documents come out byte for byte, as files that say what they are, and none that a browser would run."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from pydicom import Dataset, uid

from mkiso.reports.cda import MAX_CHARACTERS, MAX_DEPTH, MAX_ELEMENTS, MAX_XML_BYTES, read_cda
from mkiso.reports.encapsulated import copy_document
from mkiso.reports.reading import DOCUMENT, read_report
from mkiso.reports.values import Encapsulated, Lack
from tests.reports.documents import encapsulated, written

PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n%%EOF\n"
CDA = """<?xml version="1.0" encoding="UTF-8"?>
<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:sdtc="urn:hl7-org:sdtc">
<title>Discharge &amp; letter</title><effectiveTime value="202402291015"/>
<recordTarget><patientRole><patient><name><given>Anna</given><family>Example</family></name>
<birthTime value="19700102"/></patient></patientRole></recordTarget>
<author><assignedAuthor><assignedPerson><name>Dr. Otto</name></assignedPerson></assignedAuthor></author>
<component><structuredBody><component><section><title>Findings</title>
<text><paragraph>A <content styleCode="Bold">mass</content> &lt;b&gt; of 3 mm<br/>in the head</paragraph>
<list listType="ordered"><caption>Steps</caption><item>one</item><item>two</item></list>
<table><caption>Values</caption><thead><tr><th colspan="2" onclick="evil()">Na</th></tr></thead>
<tbody><tr><td>140</td><td>mmol</td></tr></tbody></table>
<renderMultiMedia referencedObject="M1"/><linkHtml href="javascript:evil()">a link</linkHtml></text>
<component><section><title>Below</title><text>plain</text></section></component>
</section></component></structuredBody></component></ClinicalDocument>"""


def document(made: Dataset, folder: Path) -> tuple[Encapsulated, tuple[Lack, ...], bytes]:
    """What is read of an object, and the file that it becomes."""
    file = written(made, folder / "a.dcm")
    found = read_report(file, DOCUMENT)
    assert isinstance(found.body, Encapsulated)
    copy_document(file, found.body, folder / "out")
    return found.body, found.lacks, (folder / "out").read_bytes()


@pytest.mark.parametrize("content", [PDF, PDF + b"x"])
@pytest.mark.parametrize("is_length_said", [True, False])
def test_the_bytes_are_those_that_went_in(content: bytes, is_length_said: bool, tmp_path: Path) -> None:
    made = encapsulated(
        content, "application/pdf", uid.EncapsulatedPDFStorage, len(content) if is_length_said else None
    )
    found, lacks, out = document(made, tmp_path)
    assert (found.suffix, lacks, out) == ("PDF", (), content)


def test_a_nul_at_the_end_stays_where_the_length_says_that_it_belongs_there(tmp_path: Path) -> None:
    content = b"solid" + bytes(95)
    for length, expected in ((len(content), content), (len(content) - 1, content[:-1]), (None, content)):
        made = encapsulated(content, "model/stl", uid.EncapsulatedSTLStorage, length)
        assert document(made, tmp_path)[2] == expected


def test_a_length_that_cannot_be_is_said(tmp_path: Path) -> None:
    made = encapsulated(PDF, "application/pdf", uid.EncapsulatedPDFStorage, len(PDF) + 5000)
    _, lacks, out = document(made, tmp_path)
    assert lacks == (Lack.SHORTER,) and out.startswith(PDF)


@pytest.mark.parametrize(
    ("mime_type", "content", "suffix"),
    [
        ("application/pdf", b"\n\n%PDF-1.7 x", "PDF"),
        ("Application/PDF; charset=binary", b"%PDF-1.7 x", "PDF"),
        ("application/pdf", b"<html><script>evil()</script>", "BIN"),
        ("text/html", b"<script>evil()</script>", "TXT"),
        ("image/svg+xml", b"<svg/>", "BIN"),
        ("model/obj", b"v 0 0 0", "OBJ"),
        ("model/mtl", b"newmtl a", "MTL"),
        ("application/x-unheard-of", b"abc", "BIN"),
        ("", b"abc", "BIN"),
        ("image/jpeg", b"\xff\xd8\xff\xe0", "JPG"),
        ("image/jpeg", b"<svg>", "BIN"),
    ],
)
def test_a_file_is_named_as_what_it_is_and_never_as_what_runs(
    mime_type: str, content: bytes, suffix: str, tmp_path: Path
) -> None:
    assert document(encapsulated(content, mime_type, uid.EncapsulatedPDFStorage), tmp_path)[0].suffix == suffix


def test_an_object_without_a_document_says_so(tmp_path: Path) -> None:
    made = encapsulated(b"", "application/pdf", uid.EncapsulatedPDFStorage)
    assert read_report(written(made, tmp_path / "a.dcm"), DOCUMENT).lacks == (Lack.EMPTY,)


def test_the_narrative_of_a_cda_is_html_that_can_do_nothing(tmp_path: Path) -> None:
    made = encapsulated(CDA.encode(), "text/XML", uid.EncapsulatedCDAStorage, len(CDA.encode()))
    found, lacks, out = document(made, tmp_path)
    assert (found.suffix, lacks, out) == ("XML", (), CDA.encode())
    assert found.facts == (
        ("title", "Discharge & letter"),
        ("date", "202402291015"),
        ("patient", "Anna Example"),
        ("born", "19700102"),
        ("author", "Dr. Otto"),
    )
    words = " ".join(html.unescape(re.sub("<[^>]*>", " ", found.narrative)).split())
    assert words == ("Findings A mass <b> of 3 mm in the head Steps one two Values Na 140 mmol […] a link Below plain")
    assert "<ol>" in found.narrative and '<th colspan="2">' in found.narrative
    assert re.findall("<h[1-6]>", found.narrative) == ["<h2>", "<h3>"]
    attributes = set(re.findall(r"<\w+ ([^>]*)>", found.narrative))
    assert attributes == {'colspan="2"', 'class="scroll"', "/"}
    assert "evil" not in found.narrative


@pytest.mark.parametrize(
    "evil",
    [
        '<?xml-stylesheet type="text/xsl" href="data:text/xsl,x"?><ClinicalDocument xmlns="urn:hl7-org:v3"/>',
        '<a xmlns="urn:hl7-org:v3"><script xmlns="http://www.w3.org/1999/xhtml">evil()</script></a>',
        '<svg xmlns="http://www.w3.org/2000/svg" onload="evil()"/>',
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;">]><a>&c;</a>',
        "<a><b></a>",
        "no XML at all",
        '<?xml version="1.0" encoding="unheard-of"?><a/>',
    ],
)
def test_xml_that_a_browser_might_run_is_text(evil: str, tmp_path: Path) -> None:
    found, lacks, out = document(encapsulated(evil.encode(), "text/xml", uid.EncapsulatedCDAStorage), tmp_path)
    assert found.suffix == "TXT" and Lack.ACTIVE in lacks and out == evil.encode()
    assert "root:" not in found.narrative and "haha" not in found.narrative


def test_a_cda_that_encloses_another_file_says_so() -> None:
    body = '<nonXMLBody><text mediaType="application/pdf" representation="B64">JVBERi0=</text></nonXMLBody>'
    found = read_cda(f'<ClinicalDocument xmlns="urn:hl7-org:v3">{body}</ClinicalDocument>'.encode())
    assert found.facts == (("holds", "application/pdf"),) and found.lacks == [Lack.OTHER_KIND]
    assert not found.is_active


def test_each_bound_of_xml_is_said() -> None:
    section = "<section><text>{}</text></section>"
    deep = section.format("<content>" * MAX_DEPTH + "</content>" * MAX_DEPTH)
    many = section.format("<br/>" * MAX_ELEMENTS)
    long = section.format("x" * (MAX_CHARACTERS + 1))
    for xml, lack in ((deep, Lack.TOO_DEEP), (many, Lack.TOO_MANY), (long, Lack.TOO_LONG)):
        found = read_cda(xml.encode())
        assert lack in found.lacks and found.is_active
        assert found.narrative.count("<span>") == found.narrative.count("</span>")
    assert Lack.TOO_LONG in read_cda(b" " * (MAX_XML_BYTES + 1)).lacks


def test_markup_that_is_cut_off_closes_its_tags() -> None:
    found = read_cda(b"<section><text><list><item>one</item><item><table><tr><td>two").narrative
    for tag in ("div", "ul", "li", "table", "tr", "td"):
        assert len(re.findall(f"<{tag}[ >]", found)) == found.count(f"</{tag}>")

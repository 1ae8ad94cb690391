"""Structured reports: what an object says is what is read, in its order, with codes, units and references; and what a
hostile one can cost.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset, dcmread, uid
from pydicom.sequence import Sequence as Items

from mkiso.reports.reading import KEY_OBJECTS, STRUCTURED, read_report
from mkiso.reports.structured import MAX_CHARACTERS, MAX_DEPTH, MAX_ITEMS
from mkiso.reports.values import Code, ContentItem, Lack, Quantity, Reference, Report, Structured
from tests.reports.documents import code, item, number, reference, report, text, written

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"


def read(made: Dataset, folder: Path) -> tuple[Structured, tuple[Lack, ...]]:
    found = read_report(written(made, folder / "a.dcm"), STRUCTURED)
    assert isinstance(found.body, Structured)
    return found.body, found.lacks


def items_of(made: Dataset, folder: Path) -> tuple[ContentItem, ...]:
    return read(made, folder)[0].items


def test_the_tree_is_read_in_its_order_with_the_place_of_each_item(tmp_path: Path) -> None:
    tree = [
        item("CONTAINER", "Findings", inside=[text("Finding", "A mass", inside=[number("Width", "3.50", "mm")])]),
        text("Conclusion", "None"),
    ]
    found = items_of(report(tree), tmp_path)
    assert [(each.number, each.depth, each.value_type) for each in found] == [
        ("1.1", 0, "CONTAINER"),
        ("1.1.1", 1, "TEXT"),
        ("1.1.1.1", 2, "NUM"),
        ("1.2", 0, "TEXT"),
    ]
    assert found[1].name == Code("Finding", "121071", "DCM") and found[1].text == "A mass"
    assert found[2].quantities == (Quantity("3.50", Code("meaning of mm", "mm", "UCUM")),)


def test_every_value_type_says_what_it_holds(tmp_path: Path) -> None:
    point = item("SCOORD", "Centre", GraphicType="POINT", GraphicData=[12.5, 40])
    solid = item("SCOORD3D", "Ball", GraphicType="ELLIPSOID", GraphicData=[float(each) for each in range(18)])
    tree = [
        item("CODE", "Side", ConceptCodeSequence=code("Left", "7771000", "SCT")),
        item("DATETIME", "Begun", DateTime="20240229101500.000000+0100"),
        item("DATE", "Day", Date="20240229"),
        item("TIME", "Hour", Time="101500"),
        item("PNAME", "Reader", PersonName="Example^Otto^^Dr."),
        item("UIDREF", "Study", UID="1.2.3.4"),
        point,
        solid,
        item("TCOORD", "When", TemporalRangeType="SEGMENT", ReferencedTimeOffsets=["1", "2.5"]),
        item("TABLE", "A table"),
        item("NUM", "Not measured", NumericValueQualifierCodeSequence=code("Value unknown", "114008")),
    ]
    found = items_of(report(tree), tmp_path)
    assert [str(each) for each in found[0].codes] == ["Left"]
    assert [each.text for each in found[1:6]] == [
        "20240229101500.000000+0100",
        "20240229",
        "101500",
        "Example^Otto^^Dr.",
        "1.2.3.4",
    ]
    graphics = [each.graphic for each in found[6:9]]
    assert [(each.kind, each.points, each.unit) for each in graphics if each] == [
        ("POINT", 1, "pixel"),
        ("ELLIPSOID", 6, "mm"),
        ("SEGMENT", 2, "s"),
    ]
    assert found[9].lack is Lack.OTHER_KIND
    assert found[10].quantities == () and [str(each) for each in found[10].codes] == ["Value unknown"]


def test_references_name_instances_frames_segments_and_items(tmp_path: Path) -> None:
    other = item("IMAGE", ReferencedSOPSequence=Items([Dataset()]))
    referred = other.ReferencedSOPSequence[0]
    referred.ReferencedSOPClassUID, referred.ReferencedSOPInstanceUID = uid.SegmentationStorage, "1.2.3"
    referred.ReferencedFrameNumber, referred.ReferencedSegmentNumber = [2, 5], 3
    back = Dataset()
    back.RelationshipType, back.ReferencedContentItemIdentifier = "INFERRED FROM", [1, 1]
    found = items_of(report([other, text("Finding", "x", inside=[back])]), tmp_path)
    assert found[0].references == (Reference(str(uid.SegmentationStorage), "1.2.3", (2, 5), (3,)),)
    assert (found[2].refers_to, found[2].relationship) == ("1.1", "INFERRED FROM")


def test_who_wrote_and_verified_it_is_read(tmp_path: Path) -> None:
    made = report([text("Finding", "x")])
    made.VerificationFlag, made.PreliminaryFlag = "VERIFIED", "FINAL"
    by = Dataset()
    by.VerifyingObserverName, by.VerifyingOrganization, by.VerificationDateTime = "Ärztin^Eva", "Haus", "20240301"
    made.VerifyingObserverSequence = Items([by])
    machine = Dataset()
    machine.ObserverType, machine.StationName = "DEV", "CAD1"
    made.AuthorObserverSequence = Items([machine])
    found, _ = read(made, tmp_path)
    assert [(each.role, each.name, each.organization, each.device) for each in found.observers] == [
        ("VERIFIED", "Ärztin^Eva", "Haus", False),
        ("AUTHOR", "CAD1", "", True),
    ]
    assert (found.completion, found.verification, found.preliminary) == ("COMPLETE", "VERIFIED", "FINAL")


@pytest.mark.parametrize(
    ("character_set", "words"),
    [("ISO_IR 166", "ก้อนเนื้อ"), ("ISO_IR 144", "Опухоль"), (["", "ISO 2022 IR 87"], "腫瘍"), ("GB18030", "肿瘤")],
)
def test_text_is_read_in_the_character_set_of_the_object(
    character_set: str | list[str], words: str, tmp_path: Path
) -> None:
    made = report([text("Finding", words)])
    made.SpecificCharacterSet = character_set
    assert [each.text for each in items_of(made, tmp_path)] == [words]


def test_an_item_may_have_a_character_set_of_its_own(tmp_path: Path) -> None:
    made = report([text("Finding", "Größe"), text("Finding", "Größe")])
    made.SpecificCharacterSet = "ISO_IR 192"
    made.ContentSequence[1].SpecificCharacterSet = "ISO_IR 100"
    assert [each.text for each in items_of(made, tmp_path)] == ["Größe", "Größe"]


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian]
)
def test_every_transfer_syntax_gives_the_same(syntax: uid.UID, tmp_path: Path) -> None:
    tree = [item("SCOORD", "A", GraphicType="POINT", GraphicData=[1, 2]), number("Width", "3", "mm")]
    plain = items_of(report(tree), tmp_path)
    made = report(tree)
    made.file_meta.TransferSyntaxUID = syntax
    written(made, tmp_path / "b.dcm")
    found = read_report(tmp_path / "b.dcm", STRUCTURED).body
    assert isinstance(found, Structured) and found.items == plain


def test_what_pydicom_ships_is_read_to_its_last_item() -> None:
    for name, count in (("reportsi.dcm", 8), ("test-SR.dcm", 25)):
        found = read_report(BUNDLED / name, STRUCTURED)
        assert isinstance(found.body, Structured) and not found.lacks
        assert len(found.body.items) == _count(dcmread(BUNDLED / name)) >= count


def _count(dataset: Dataset) -> int:
    inside = dataset.get("ContentSequence", [])
    return len(inside) + sum(map(_count, inside))


def test_an_empty_report_says_so(tmp_path: Path) -> None:
    assert read_report(written(report([]), tmp_path / "a.dcm"), STRUCTURED).lacks == (Lack.EMPTY,)


def test_a_damaged_file_is_a_report_that_says_so(tmp_path: Path) -> None:
    file = written(report([text("Finding", "x" * 500)]), tmp_path / "a.dcm")
    file.write_bytes(file.read_bytes()[:-100])
    assert read_report(file, STRUCTURED) == Report(lacks=(Lack.DAMAGED,))
    file.write_bytes(b"")
    assert read_report(file, KEY_OBJECTS) == Report(lacks=(Lack.DAMAGED,))


def test_damage_inside_costs_what_follows_it_there_and_no_more(tmp_path: Path) -> None:
    tree = [item("CONTAINER", "A", inside=[text("F", "first"), text("F", "second")]), text("Last", "still here")]
    file = written(report(tree), tmp_path / "a.dcm")
    content = bytearray(file.read_bytes())
    at = content.index(b"\xfe\xff\x00\xe0", content.index(b"first"))
    content[at : at + 4] = b"\xfe\xff\x01\xe0"
    file.write_bytes(content)
    found = read_report(file, STRUCTURED)
    assert isinstance(found.body, Structured)
    assert [each.text for each in found.body.items if each.text] == ["first", "still here"]
    assert Lack.DAMAGED in found.lacks


def _element(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    if vr == b"SQ":
        return struct.pack("<HH2sHI", group, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def _with_content(content: bytes, file: Path) -> Path:
    """A report whose Content Sequence has these items as they are encoded."""
    written(report([text("X", "x")]), file)
    dataset = dcmread(file)
    del dataset.ContentSequence
    dataset.save_as(file)
    with file.open("ab") as end:
        end.write(struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, len(content)) + content)
    return file


def test_ten_thousand_levels_are_cut_off_and_said(tmp_path: Path) -> None:
    head = _element(0x0040, 0xA010, b"CS", b"CONTAINS") + _element(0x0040, 0xA040, b"CS", b"CONTAINER ")
    depth = 10_000
    sizes = [len(head)]
    for _ in range(depth):
        sizes.append(len(head) + 12 + 8 + sizes[-1])
    nested = b"".join(
        struct.pack("<HHI", 0xFFFE, 0xE000, size) + head + struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, inner + 8)
        for size, inner in zip(sizes[:0:-1], sizes[-2::-1], strict=True)
    )
    nested += struct.pack("<HHI", 0xFFFE, 0xE000, sizes[0]) + head
    found = read_report(_with_content(nested, tmp_path / "a.dcm"), STRUCTURED)
    assert isinstance(found.body, Structured) and len(found.body.items) == MAX_DEPTH
    assert found.lacks == (Lack.TOO_DEEP,)


def test_a_million_items_are_cut_off_and_said(tmp_path: Path) -> None:
    one = _element(0x0040, 0xA040, b"CS", b"TEXT") + struct.pack("<HH2sHI", 0x0040, 0xA160, b"UT", 0, 2) + b"ab"
    found = read_report(
        _with_content((struct.pack("<HHI", 0xFFFE, 0xE000, len(one)) + one) * 1_000_000, tmp_path / "a.dcm"), STRUCTURED
    )
    assert isinstance(found.body, Structured) and len(found.body.items) == MAX_ITEMS
    assert found.lacks == (Lack.TOO_MANY,)


def test_texts_without_end_are_cut_off_and_said(tmp_path: Path) -> None:
    made = report([text("Long", "x" * 300_000), *(text("F", "y" * 200_000) for _ in range(40))])
    found, lacks = read(made, tmp_path)
    assert sum(len(each.text) for each in found.items) <= MAX_CHARACTERS + 300_000
    assert set(lacks) == {Lack.TOO_LONG, Lack.TOO_MANY}


def test_references_to_many_frames_are_bounded(tmp_path: Path) -> None:
    [found] = items_of(report([reference(None, range(1, 5000))]), tmp_path)
    assert len(found.references[0].frames) == 1000

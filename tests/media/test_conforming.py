"""Values as their VR allows them in a record (PS3.5 6.2)."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mkiso.media.conforming import (
    CLEANED,
    LEFT_OUT,
    PUT_RIGHT,
    SHORTENED,
    UNREADABLE,
    conforming,
    is_valid_uid,
    number,
)
from mkiso.media.record_keys import KEYS, Key
from mkiso.study.character_sets import UNICODE
from mkiso.study.text import Text
from peers.growth import check_growth

BY_NAME = {key.keyword: key for keys in KEYS.values() for key in keys}
EVERY_KEY = list(
    {
        key.tag: key for keys in KEYS.values() for key in (*keys, *(inner for key in keys for inner in key.items))
    }.values()
)
TEXT_KEYS = [key for key in EVERY_KEY if key.vr in ("LO", "SH", "PN", "ST", "UC", "UT")]
CODE_KEYS = [key for key in EVERY_KEY if key.vr in ("CS", "DA", "IS", "TM", "UI", "UR")]


@pytest.mark.parametrize(
    ("keyword", "value", "expected", "change"),
    [
        ("StudyDate", b"20240229", b"20240229", ""),
        ("StudyDate", b"2024.02.29", b"20240229", PUT_RIGHT),
        ("StudyDate", b"2024-02-29", b"20240229", PUT_RIGHT),
        ("StudyDate", b"20230229", b"", LEFT_OUT),
        ("StudyDate", b"00000000", b"", LEFT_OUT),
        ("StudyDate", b"02/29/2024", b"", LEFT_OUT),
        ("StudyDate", b"20240101-20240131", b"", LEFT_OUT),
        ("StudyDate", b"\\20240229\\20240301", b"20240229", PUT_RIGHT),
        ("StudyTime", b"10", b"10", ""),
        ("StudyTime", b"101500.123456", b"101500.123456", ""),
        ("StudyTime", b"101500.1234567", b"101500.123456", PUT_RIGHT),
        ("StudyTime", b"10:15:00", b"101500", PUT_RIGHT),
        ("StudyTime", b"235960", b"235960", ""),
        ("StudyTime", b"240000", b"", LEFT_OUT),
        ("StudyTime", b"10150", b"", LEFT_OUT),
        ("InstanceNumber", b"007", b"007", ""),
        ("InstanceNumber", b"+2147483647", b"+2147483647", ""),
        ("InstanceNumber", b"-2147483648", b"-2147483648", ""),
        ("InstanceNumber", b"2147483648", b"", LEFT_OUT),
        ("InstanceNumber", b"-2147483649", b"", LEFT_OUT),
        ("InstanceNumber", b"3.0", b"3", PUT_RIGHT),
        ("InstanceNumber", b"3.5", b"", LEFT_OUT),
        ("InstanceNumber", b"000000000003", b"", LEFT_OUT),
        ("Modality", b"ct", b"CT", PUT_RIGHT),
        ("Modality", b"CT\\MR", b"CT", PUT_RIGHT),
        ("Modality", b"C-T", b"", LEFT_OUT),
        ("Modality", b"A" * 16, b"A" * 16, ""),
        ("Modality", b"A" * 17, b"", LEFT_OUT),
        ("PatientSex", b"f", b"F", PUT_RIGHT),
        ("PatientSex", b"W", b"", LEFT_OUT),
        ("ContentLabel", b"Bone window!", b"BONE WINDOW", PUT_RIGHT),
        ("ContentLabel", b"--", b"", LEFT_OUT),
        ("ImageType", b"ORIGINAL\\PRIMARY\\\\AXIAL", b"ORIGINAL\\PRIMARY\\\\AXIAL", ""),
        ("ImageType", b"original\\primary", b"ORIGINAL\\PRIMARY", PUT_RIGHT),
        ("ImageType", b"PRIMARY\\ORIGINAL", b"", LEFT_OUT),
        ("ImageType", b"ORIGINAL", b"", LEFT_OUT),
        ("ImageType", b"ORIGINAL\\PRIMARY\\A-B", b"", LEFT_OUT),
        ("ImageType", b"ORIGINAL\\PRIMARY" + b"\\A" * 40_000, b"", LEFT_OUT),
        ("StudyDescription", b"Head", b"Head", ""),
        ("StudyDescription", b"Head\r\nwith contrast", b"Head with contrast", CLEANED),
        ("StudyDescription", b"Head\\Neck", b"Head/Neck", CLEANED),
        ("StudyDescription", b"\t\n", b"", LEFT_OUT),
        ("StudyDescription", b"A" * 64, b"A" * 64, ""),
        ("StudyDescription", b"A" * 65, b"A" * 61 + b"...", SHORTENED),
        ("PatientName", b"A^B=C^D=E", b"A^B=C^D=E", ""),
        ("PatientName", b"A^B\\C^D", b"A^B", CLEANED),
        ("PatientName", b"A^B\x00^C", b"A^B ^C", CLEANED),
        ("PatientName", b"A^B^C^D^E^F", b"A^B^C^D^E F", SHORTENED),
        ("PatientName", b"A^B^^^^", b"A^B^^^", SHORTENED),  # a sixth component, which says nothing
        ("PatientName", b"A" * 65 + b"=B", b"A" * 61 + b"...=B", SHORTENED),
        ("PatientName", b"A=B=C=D", b"A=B=C", SHORTENED),
        ("AccessionNumber", b"A" * 16, b"A" * 16, ""),
        ("AccessionNumber", b"A" * 17, b"", LEFT_OUT),  # half an accession number is another one
        ("AccessionNumber", b"A\\B", b"", LEFT_OUT),
        ("PatientID", b"P\n1", b"", LEFT_OUT),
        ("DocumentTitle", b"one\r\ntwo \\ three", b"one\r\ntwo \\ three", ""),
        ("DocumentTitle", b"one\x07", b"one", CLEANED),
        ("DocumentTitle", b"\r\n", b"", LEFT_OUT),
        ("DocumentTitle", b"A" * 1025, b"A" * 1021 + b"...", SHORTENED),
    ],
)
def test_what_becomes_of_a_value(keyword: str, value: bytes, expected: bytes, change: str) -> None:
    found = conforming(BY_NAME[keyword], Text(value))
    assert (found.value.value, found.change) == (expected, change)


@pytest.mark.parametrize(
    ("keyword", "value", "terms", "expected", "change"),
    [
        (
            "StudyDescription",
            "Schädel".encode("latin-1"),
            b"ISO_IR 100",
            Text("Schädel".encode("latin-1"), b"ISO_IR 100"),
            "",
        ),
        (
            "StudyDescription",
            "Schä\ndel".encode("latin-1"),
            b"ISO_IR 100",
            Text("Schä del".encode("latin-1"), b"ISO_IR 100"),
            CLEANED,
        ),
        ("StudyDescription", "Schädel".encode("latin-1"), b"", Text("Sch\ufffddel".encode(), UNICODE), UNREADABLE),
        ("AccessionNumber", "Ä1".encode("latin-1"), b"", Text(), LEFT_OUT),
        ("PatientName", "許功蓋".encode("gb18030"), b"GB18030", Text("許功蓋".encode("gb18030"), b"GB18030"), ""),
        ("PatientName", "誠功".encode("gb18030"), b"GB18030", Text("誠功".encode(), UNICODE), ""),  # has a 0x5C
        ("PatientName", b"\x1b$B;3ED\x1b(B", b"\\ISO 2022 IR 87", Text("山田".encode(), UNICODE), ""),  # first group
        (
            "PatientName",
            b"A=\x1b$B;3ED\x1b(B",
            b"\\ISO 2022 IR 87",
            Text(b"A=\x1b$B;3ED\x1b(B", b"\\ISO 2022 IR 87"),
            "",
        ),
        (
            "StudyDescription",
            b"\x1b$B;3ED\x1b(B",
            b"ISO 2022 IR 13\\ISO 2022 IR 87",
            Text("山田".encode(), UNICODE),
            "",
        ),
    ],
)
def test_what_becomes_of_text_in_its_character_set(
    keyword: str, value: bytes, terms: bytes, expected: Text, change: str
) -> None:
    assert conforming(BY_NAME[keyword], Text(value, terms)) == (expected, change)


@given(
    st.sampled_from(TEXT_KEYS),
    st.binary(max_size=400),
    st.sampled_from([b"", b"ISO_IR 100", b"ISO_IR 192", b"GB18030", b"?", b"\\ISO 2022 IR 87"]),
)
@example(BY_NAME["PerformingPhysicianName"], b"!\\", b"")
def test_whatever_the_bytes_a_text_conforms_and_stays_so(key: Key, value: bytes, terms: bytes) -> None:
    found = conforming(key, Text(value, terms))
    text = str(found.value)
    most = {"LO": 64, "SH": 16, "PN": 64, "ST": 1024}.get(key.vr, 10**6)
    for each in text.split("\\") if key.several else [text]:
        groups = each.split("=") if key.vr == "PN" else [each]
        assert len(groups) <= 3 or key.vr != "PN"
        assert all(len(group) <= most for group in groups)
    allowed = "\r\n\t\f" if key.vr in ("ST", "UT") else ""
    assert not [character for character in text if unicodedata.category(character) == "Cc" and character not in allowed]
    assert "\\" not in text or key.several or key.vr in ("ST", "UT")
    assert found.value.set_used is not None or found.value.is_plain or found.value.is_whole
    assert bool(found.change) or text == str(Text(value, terms))
    again = conforming(key, found.value)
    assert str(again.value) == text and again.change in ("", UNREADABLE)


@given(
    st.sampled_from(CODE_KEYS),
    st.one_of(st.binary(max_size=80), st.from_regex(rb"[0-9A-Z.\\: +-]{0,80}", fullmatch=True)),
)
def test_whatever_the_bytes_a_code_conforms_and_stays_so(key: Key, value: bytes) -> None:
    found = conforming(key, Text(value)).value
    assert conforming(key, found) == (found, "")
    for part in found.value.split(b"\\") if found and key.vr != "UI" else []:
        assert re.fullmatch(rb"[\x20-\x7e]{0,64}", part) or key.vr == "UR"


@pytest.mark.parametrize(
    ("uid", "valid"),
    [
        (b"1.2.0.3", True), (b"1.2.03", False), (b"01.2", False), (b"0.1", True), (b"1..2", False), (b"1.2.", False),
        (b"", False),
        (b"1." + b"2" * 62, True), (b"1." + b"2" * 63, False), (b"1.2a", False),
    ],
)  # fmt: skip
def test_a_valid_uid(uid: bytes, valid: bool) -> None:
    assert is_valid_uid(uid) is valid


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        ("US", 4, b"\x04\x00"),
        ("US", 65_536, b""),
        ("US", -1, b""),
        ("UL", 65_536, b"\x00\x00\x01\x00"),
        ("US", "4", b""),
        ("US", [4, 5], b""),
    ],
)
def test_numbers(vr: str, value: object, expected: bytes) -> None:
    assert number(vr, value) == expected


@pytest.mark.parametrize(
    "keyword",
    ["StudyDescription", "PatientName", "StudyTime", "InstanceNumber", "ImageType", "StudyInstanceUID", "ContentLabel"],
)
@pytest.mark.parametrize("piece", [b"1", b"\\", b"=", b"^", b"1.", b"\x1b", b"\x1b$B", b" ", b"\xff", b"A-"])
def test_no_value_costs_more_than_its_length(keyword: str, piece: bytes) -> None:
    def judged(count: int) -> object:
        return conforming(BY_NAME[keyword], Text(piece * count, b"\\ISO 2022 IR 87"))

    check_growth(judged, 64_000)

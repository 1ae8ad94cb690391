"""Text and the character set that it travels with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from mkiso.study.character_sets import UNICODE, character_set
from mkiso.study.text import Text, named_in, stated, text_of
from peers.corpus import EVERYBODY, Person


@pytest.mark.parametrize(
    ("values", "term"),
    [
        (b"", b""),
        (b"ISO_IR 6", b""),
        (b"ISO_IR 100 ", b"ISO_IR 100"),
        (b"iso ir 166", b"ISO_IR 166"),
        (b"ISO-IR-144", b"ISO_IR 144"),
        (b"utf-8", b"ISO_IR 192"),
        (b"ISO IR 192", b"ISO_IR 192"),
        (b"gb18030", b"GB18030"),
        (b"ISO 2022 IR 100", b"ISO 2022 IR 100"),
        (b"\\ISO 2022 IR 87", b"\\ISO 2022 IR 87"),
        (b"ISO_IR 100\\ISO_IR 144", b"ISO 2022 IR 100\\ISO 2022 IR 144"),
        (b"ISO_IR 100\\", b"ISO_IR 100"),
        (b"ISO_IR 87", b"\\ISO 2022 IR 87"),
        (b"cp1251", None),
        (b"ISO-8859-1", None),
        (b"ISO_IR 999", None),
        (b"ISO_IR 192\\ISO 2022 IR 87", None),
        (b"ISO 2022 IR 87\\ISO_IR 100", None),
        (b"\xff", None),
    ],
)
def test_what_a_character_set_is_called_by_the_standard(values: bytes, term: bytes | None) -> None:
    assert character_set(values).term == term


@pytest.mark.parametrize(
    ("value", "terms", "text", "whole"),
    [
        ("Müller".encode("latin-1"), b"ISO_IR 100", "Müller", True),
        ("Müller".encode("latin-1"), b"", "M\ufffdller", False),
        ("Müller".encode("latin-1"), b"ISO_IR 6", "M\ufffdller", False),
        ("Müller".encode(), b"", "Müller", True),
        ("Müller".encode(), b"NOBODY'S", "Müller", True),
        ("Müller".encode(), b"ISO_IR 100", "MÃ¼ller", True),  # who declares a set is believed
        ("Müller".encode("latin-1"), b"ISO_IR 192", "M\ufffdller", False),
        ("Иванов".encode("cp1251"), b"cp1251", "Иванов", True),
        ("Иванов".encode("koi8-r"), b"KOI8-R", "Иванов", True),
        ("Иванов".encode("cp1251"), b"RUSSIAN", "\ufffd" * 6, False),
        ("Иванов".encode("iso8859-5"), b"ISO-8859-5", "Иванов", True),
        (b"it\x92s", b"ISO_IR 100", "it\ufffds", False),
        ("ตัวอย่าง".encode("tis-620"), b"ISO_IR 166", "ตัวอย่าง", True),
        ("誠^許功蓋".encode("gb18030"), b"GB18030", "誠^許功蓋", True),
        (b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", b"\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎", True),
        (
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
            b"ISO 2022 IR 13\\ISO 2022 IR 87",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
            True,
        ),
        (b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", b"\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞", True),
        (b"\x1b$)C\xfb\xf3^\xd1\xce", b"\\ISO 2022 IR 149", "洪^\ufffd\ufffd", False),  # a delimiter leads back
        (b"\x1b$)C\xfb\xf3", b"\\ISO 2022 IR 87", "\ufffd$)C\ufffd\ufffd", False),
        (b"\x1b$)C\xfb\xf3", b"ISO_IR 100", "\ufffd$)Cûó", False),
        (b"\x1b-FA\xe1", b"ISO 2022 IR 100\\ISO 2022 IR 126", "Aα", True),
        (b"a\x1b", b"\\ISO 2022 IR 87", "a\ufffd", False),
    ],
)
def test_text_is_read_as_it_is_declared_and_never_guessed(value: bytes, terms: bytes, text: str, whole: bool) -> None:
    found = Text(value, terms)
    assert (str(found), found.is_whole) == (text, whole)


@pytest.mark.parametrize("patient", EVERYBODY, ids=lambda patient: patient.patient_id)
def test_every_alphabet_of_the_standard_is_read_as_pydicom_writes_it(patient: Person) -> None:
    header = Dataset()
    header.SpecificCharacterSet, header.PatientName = patient.character_set, patient.name
    assert str(text_of(header, "PatientName")) == patient.name


def test_a_name_that_can_be_read_is_preferred() -> None:
    names = [b"", "Müller".encode("latin-1"), "Müller".encode(), b"Mueller"]
    headers = [Dataset() for _ in names]
    for header, name in zip(headers, names, strict=True):
        header.add_new(0x00100010, "PN", name)
    assert named_in(headers) is headers[2]
    assert named_in(headers[:2]) is headers[1]
    assert named_in(headers[:1]) is headers[0]
    assert named_in([]) is None


def test_another_text_stays_in_its_set_where_that_holds_it() -> None:
    thai = Text("ก".encode("tis-620"), b"ISO_IR 166")
    assert thai.rewritten("ข") == Text("ข".encode("tis-620"), b"ISO_IR 166")
    assert thai.rewritten("Ł") == Text("Ł".encode(), UNICODE)
    assert thai.rewritten("A") == Text(b"A", b"ISO_IR 166")
    assert Text(b"", b"\\ISO 2022 IR 87").rewritten("山") == Text("山".encode(), UNICODE)


TERMS = st.sampled_from(
    [b"", b"ISO_IR 100", b"ISO_IR 192", b"ISO_IR 13", b"GB18030", b"cp1251", b"?", b"\\ISO 2022 IR 87\\ISO 2022 IR 149"]
)


@given(st.binary(max_size=40), st.binary(max_size=40), TERMS)
def test_values_that_differ_are_never_the_same(one: bytes, other: bytes, terms: bytes) -> None:
    first, second = Text(one, terms), Text(other, terms)
    if first.is_whole and second.is_whole and b"\x1b" not in one + other:
        assert (first.stated == second.stated) == (one == other)
    if not first.is_whole and not second.is_whole:
        assert (first.stated == second.stated) == (one == other)


@given(st.binary(max_size=60), TERMS)
def test_any_bytes_are_some_text(value: bytes, terms: bytes) -> None:
    found = Text(value, terms)
    assert found.is_whole == ("\ufffd" not in str(found))
    if found.is_whole and found.set_used is not None and b"\x1b" not in value and b"13" not in terms:
        assert found.rewritten(str(found)) in (found, Text(str(found).encode(), UNICODE))


def test_an_attribute_is_stated_the_same_whether_it_was_read_before() -> None:
    header = Dataset()
    header.SpecificCharacterSet, header.PatientID = "ISO_IR 166", "ก1"
    assert stated(header, 0x00100020) == "ก1"
    header.SpecificCharacterSet = "ISO_IR 192"
    header.add_new(0x00100020, "LO", b"A\xff")
    assert stated(header, 0x00100020) == "Aÿ"

"""What a label's encoding can't carry is written in other letters, and never as question marks."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mkiso.study.writing import encodable, name_written, normalized, written


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("Müller", "cp1252", "Müller"),
        ("Müller", "ascii", "Muller"),
        ("Łódź", "cp1252", "Lódz"),
        ("Иванов", "cp1252", "Ivanov"),
        ("Иванов", "cp1251", "Иванов"),
        ("สมชาย ใจดี", "cp874", "สมชาย ใจดี"),
        ("สมชาย ใจดี", "cp1252", "smchay chaidi"),
        ("山田", "cp932", "山田"),
        ("김철수", "cp1252", "GimCheolSu"),
        ("a\ufffdb", "cp1252", "ab"),
        ("\U0001f600", "cp1252", ""),
        ("why?", "ascii", "why?"),
    ],
)
def test_text_in_an_encoding(text: str, encoding: str, shown: str) -> None:
    assert written(text, encodable(encoding)) == shown


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("cp932", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("cp1252", "Yamada^Tarou"),
    ],
)
def test_a_name_is_written_by_the_groups_that_can_be(encoding: str, shown: str) -> None:
    assert name_written("Yamada^Tarou=山田^太郎=やまだ^たろう", encodable(encoding)) == shown


def test_a_name_without_a_group_that_can_be_written_is_transliterated() -> None:
    assert name_written("=Иванов^Иван", encodable("cp1252")) == "Ivanov^Ivan"
    assert name_written("", encodable("cp1252")) == ""


@given(
    text=st.text(st.sampled_from("aeé각가ﬁ\u0300\u0301\u0315\u0327\u0345\u0344\u0f71\u0f72\u0f73\u3099か"), max_size=12)
)
def test_what_is_normalized_in_linear_time_is_what_python_makes_of_it(text: str) -> None:
    assert normalized("NFC", text) == unicodedata.normalize("NFC", text)
    assert normalized("NFKD", text) == unicodedata.normalize("NFKD", text)


@given(text=st.text(max_size=30), encoding=st.sampled_from(["ascii", "cp1252", "cp874", "cp932", "utf-8"]))
def test_what_is_written_can_be_encoded_and_has_no_question_mark_of_its_own(text: str, encoding: str) -> None:
    shown = written(text, encodable(encoding))
    shown.encode(encoding)
    assert shown.count("?") <= sum("?" in unicodedata.normalize("NFKD", each) for each in text)

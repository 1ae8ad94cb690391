"""Which accession numbers are asked for, and what is said of the others."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mkiso.errors import InvalidAccessionNumber, TooManyAccessionNumbers
from mkiso.study.accession import parse_accession_number, parse_accession_numbers
from mkiso.study.question import question

PLAIN = st.text(st.sampled_from("ABCXYZabc0123456789-_./+#: "), min_size=1, max_size=16).filter(
    lambda text: any(map(str.isalnum, text))
)


@pytest.mark.parametrize("text", ["A1001", "2024-00017", "CT/17.3", "a", "1234567890123456", "A 1", "A=1;2"])
def test_takes_what_hospitals_use(text: str) -> None:
    assert parse_accession_number(text) == text


def test_spaces_around_mean_nothing() -> None:
    assert parse_accession_number("  A1001 ") == "A1001"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("\u3000", "empty"),
        ("A*", "wildcard"),
        ("*", "wildcard"),
        ("A?1", "wildcard"),
        ("A\\B", "list of several"),
        ("A\uff0a", "wildcard"),  # ＊
        ("A\uff1f", "wildcard"),  # ？
        ("A\ufe56", "wildcard"),  # ﹖
        ("A\ufe61", "wildcard"),  # ﹡
        ("A\u2047", "wildcard"),  # ⁇ is two question marks in one character
        ("A\uff3cB", "list of several"),  # ＼
        ("A\ufe68B", "list of several"),  # ﹨
        ("%2A", "encoded twice"),
        ("A%", "encoded twice"),
        ("A\uff05", "encoded twice"),
        ("A,B", "several"),
        ("A\nB", "U+000A"),
        ("A1001\r\n", "U+000D"),
        ("\x00A", "U+0000"),
        ("A\x7f", "U+007F"),
        ("A\u200b1", "U+200B"),
        ("A\u202e1", "U+202E"),
        ("\u0e01\u0e02", "U+0E01"),
        ("\u0410123", "U+0410"),  # Cyrillic А looks like A
        ("\uff21\uff11", "plain letter"),
        ("12345678901234567", "'12345678901234567' has 17 characters"),
        ("A" * 40, f"'{'A' * 32}…' has 40 characters"),
        ("..", "neither a letter nor a digit"),
        ("-/-", "neither a letter nor a digit"),
    ],
)
def test_refuses_and_says_why(text: str, said: str) -> None:
    with pytest.raises(InvalidAccessionNumber, match=r"(?s)^.{20,}") as refused:
        parse_accession_number(text)
    assert said in refused.value.words
    assert refused.value.words.isprintable()


def test_a_list_keeps_its_order_and_takes_duplicates_once() -> None:
    assert parse_accession_numbers("B, A,B ,C,A", 3) == ("B", "A", "C")
    assert parse_accession_numbers(["B", "A", "B"], 2) == ("B", "A")


@pytest.mark.parametrize("text", ["A,", ",A", "A,,B", "A, ,B"])
def test_an_empty_place_in_a_list_is_refused(text: str) -> None:
    with pytest.raises(InvalidAccessionNumber, match="empty place"):
        parse_accession_numbers(text, 10)


@pytest.mark.parametrize("nothing", ["", "  ", [], [""]])
def test_an_empty_list_is_refused(nothing: str | list[str]) -> None:
    with pytest.raises(InvalidAccessionNumber):
        parse_accession_numbers(nothing, 10)


def test_too_many_names_the_limit() -> None:
    with pytest.raises(TooManyAccessionNumbers, match="at most 2") as refused:
        parse_accession_numbers("A,B,C", 2)
    assert refused.value.details == {"limit": 2}


def test_one_wrong_number_refuses_the_list() -> None:
    with pytest.raises(InvalidAccessionNumber, match="wildcard"):
        parse_accession_numbers(["A", "B*"], 10)


@given(PLAIN)
def test_what_is_taken_is_what_was_typed(text: str) -> None:
    assert parse_accession_number(text) == text.strip(" ")


@given(st.text(max_size=24))
def test_whatever_is_taken_is_safe_to_send(text: str) -> None:
    try:
        taken = parse_accession_number(text)
    except InvalidAccessionNumber as refused:
        assert refused.words.isprintable()
        return
    assert taken == text.strip(" ")
    assert taken.isascii() and taken.isprintable() and 1 <= len(taken) <= 16
    assert not set("*?\\%,") & set(unicodedata.normalize("NFKC", taken))


@given(st.lists(PLAIN, min_size=1, max_size=8))
def test_a_question_doesnt_depend_on_the_order(accession_numbers: list[str]) -> None:
    assert question("download", accession_numbers) == question("download", list(reversed(accession_numbers)))


def test_questions_differ_by_kind_numbers_and_publisher() -> None:
    keys = {
        question("download", ["A", "B"]),
        question("download", ["A"]),
        question("print", ["A", "B"]),
        question("print", ["A", "B"], "rimage"),
        question("print", ["A", "B"], "epson"),
        question("print", ["A|B"], ""),
        question("print", ["A"], "B"),
    }
    assert len(keys) == 7
    assert all(len(key) == 32 and set(key) <= set("0123456789abcdef") for key in keys)

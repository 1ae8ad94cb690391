"""The catalogues hold what code, templates and scripts say: all of it, translated, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from babel.messages.catalog import Message

from documentation.messages import CATALOGUES, PLACES, ROOT, catalogue_of, extracted, untranslated, write
from mkiso.languages import languages

FILES = sorted(CATALOGUES.glob("*.po"))
CHECKED = "To be checked by a native reader."
MEDICAL = ("Right", "Left", "Not for diagnosis.", "left edge %(left)s, right edge %(right)s", "Soft tissue", "Window")
AGAIN = "run `make messages`, then translate what it names (docs/languages.md)"

Placed = dict[str | tuple[str, ...], list[str]]


def placed(messages: list[Message]) -> Placed:
    """Each message with the files that it stands in."""
    return {
        message.id if isinstance(message.id, str) else tuple(message.id): [file for file, _ in message.locations]
        for message in messages
        if message.id
    }


@pytest.fixture(scope="module")
def said() -> Placed:
    return placed(list(extracted()))


def test_code_templates_and_scripts_are_read(said: Placed) -> None:
    suffixes = {Path(file).suffix.lower() for files in said.values() for file in files}
    assert {".py", ".j2", ".js"} <= suffixes
    assert {file.stem for file in FILES} == set(languages()) - {"en"}


@pytest.mark.parametrize(
    ("file", "words"),
    [("config.example.yaml", r"language: en +# .*: (.*); a request"), ("docs/http.md", r"`disc\.language`: (.*) \(\[")],
)
def test_each_language_is_named_where_somebody_chooses(file: str, words: str) -> None:
    [named] = re.findall(words, (ROOT / file).read_text(encoding="utf-8"))
    assert re.split(", | or ", named) == list(languages())


def test_pages_speak_of_discs_and_robots_in_plain_words(said: Placed) -> None:
    """A clerk has no use for what mkiso is made of. The id of a job stands below For the administrator."""
    jargon = re.compile(
        r"master(ed|ing)|publisher|disc image|prefect|receiver|webhook|\bworker|\bjobs?\b(?! %)", re.IGNORECASE
    )
    pages = ("mkiso_service/webhook/", "mkiso/formats/")
    shown = [words for words, files in said.items() if any(file.startswith(pages) for file in files)]
    texts = [text for words in shown for text in ([words] if isinstance(words, str) else words)]
    assert len(texts) > 200
    assert [text for text in texts if jargon.search(re.sub(r"%\(\w+\)s|/api/\S+", "%", text))] == []


def test_no_message_stands_within_an_f_string() -> None:
    """Before Python 3.12 nobody finds it there."""
    within = [
        f"{file}:{string.lineno}"
        for place in PLACES
        for file in (ROOT / place).rglob("*.py")
        for string in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(string, ast.JoinedStr)
        for call in ast.walk(string)
        if isinstance(call, ast.Call)
        and getattr(call.func, "id", getattr(call.func, "attr", "")) in ("N_", "gettext", "ngettext", "pgettext")
    ]
    assert within == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_catalogue_is_whole_and_has_nothing_else(file: Path, said: Placed, tmp_path: Path) -> None:
    catalogue = catalogue_of(file)
    assert [message.id for message in untranslated(catalogue)] == [], AGAIN
    assert placed(list(catalogue)) == said, AGAIN
    assert not catalogue.obsolete, AGAIN
    write(catalogue, tmp_path / "again.po")
    assert (tmp_path / "again.po").read_bytes() == file.read_bytes(), AGAIN


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_translation_has_the_values_and_the_markup_of_its_message(file: Path) -> None:
    for message in catalogue_of(file):
        if not message.id:
            continue
        assert not list(message.check()), message.id
        ids = [message.id] if isinstance(message.id, str) else list(message.id)
        forms = [message.string] if isinstance(message.string, str) else list(message.string or ())
        for form in forms:
            assert marks(form) in [marks(each) for each in ids], form
            assert ids[0].endswith("\n") == form.endswith("\n") and form == form.strip()


def marks(words: str) -> tuple[set[str], list[str], bool]:
    """The values that a message names, its markup, and whether a quotation mark in it could end an attribute."""
    return set(re.findall(r"%\(\w+\)s", words)), sorted(re.findall(r"<[^>]*>", words)), '"' in words


def test_french_signs_have_a_narrow_space_that_no_line_ends_at() -> None:
    """Before : ; ! ? and inside quotation marks; an address has none."""
    bare = re.compile(r"(?<!\u202f)[:;!?»]|«(?!\u202f)")
    forms = [
        form
        for message in catalogue_of(CATALOGUES / "fr.po")
        if message.id
        for form in ([message.string] if isinstance(message.string, str) else message.string or ())
    ]
    assert sum("\u202f" in form for form in forms) > 50
    assert [form for form in forms if bare.search(re.sub(r"/api/\S+", "", form))] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_medical_phrases_ask_for_a_native_reader(file: Path) -> None:
    catalogue = catalogue_of(file)
    for phrase in MEDICAL:
        found = catalogue.get(phrase)
        assert found and CHECKED in found.user_comments, phrase

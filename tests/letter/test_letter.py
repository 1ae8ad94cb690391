"""The letter, as poppler reads and draws it, and its code, as zbar reads it from the picture."""

from __future__ import annotations

import shutil
import subprocess
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from mkiso.config.disc import Disc
from mkiso.languages import language, languages
from mkiso.letter import Letter, Paper, letter_of, pdf
from mkiso.storage.report import FoundStudy, JobReport

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(
        not shutil.which("pdftotext") or not shutil.which("zbarimg"), reason="poppler or zbar is missing"
    ),
]

JOB = "0b0a1b2c-0000-4000-8000-000000000001"
ADDRESS = f"https://discs.example.org/api/iso/jobs/{JOB}"
LONG = (
    "MR Schädel und Halswirbelsäule mit und ohne Kontrastmittel, Verlaufskontrolle nach Operation und Bestrahlung " * 3
)
NAMES = {
    "Müller-Łódzka^Anna": "Müller-Łódzka, Anna",
    "สมชาย^ใจดี": "สมชาย, ใจดี",
    "Иванова^Ольга": "Иванова, Ольга",
    "Παπαδοπούλου^Ελένη": "Παπαδοπούλου, Ελένη",
    "王^小东": "Wang, XiaoDong",
}


def letter(name: str = "Example^Anna", studies: int = 2, description: str = "CT Thorax", discs: int = 1) -> Letter:
    found = tuple(FoundStudy(f"A100{n}", "20240229", ("CT", "SR"), description, 5, 5) for n in range(studies))
    report = JobReport(JOB, "download", ("A1000",), studies=found, disc_ids=(JOB,) * discs)
    report = replace(report, patient_id="HN-0001", patient_name=name)
    return letter_of(report, Disc(institution="Example Hospital", contact="+49 30 1234567"), ADDRESS, has_pages=True)


def read(content: bytes, folder: Path) -> str:
    """The text as poppler has it; what is missing in a font would not be there."""
    file = folder / "letter.pdf"
    file.write_bytes(content)
    run = subprocess.run(["pdftotext", "-layout", file, "-"], capture_output=True, check=True)
    assert not run.stderr, run.stderr
    return unicodedata.normalize("NFC", run.stdout.decode())


def pages(folder: Path) -> int:
    told = subprocess.run(["pdfinfo", folder / "letter.pdf"], capture_output=True, check=True, text=True).stdout
    return int(told.split("Pages:")[1].split()[0])


@pytest.mark.parametrize("paper", ["a4", "insert"])
@pytest.mark.parametrize("code", languages())
def test_a_letter_in_each_language_is_one_page_and_its_code_leads_to_the_job(
    code: str, paper: Paper, tmp_path: Path
) -> None:
    spoken = language(code)
    text = read(pdf(letter(discs=2), spoken, paper), tmp_path)
    for words in ("Example Hospital", "Example, Anna", "HN-0001", "CT Thorax", "A1001", "INDEX.HTM", "+49 30 1234567"):
        assert words in text
    if code != "th":  # poppler puts marks where they stand, and not into their words
        assert spoken.gettext("Your medical images") in text
    assert pages(tmp_path) == 1
    subprocess.run(["pdftoppm", "-r", "200", "-png", tmp_path / "letter.pdf", tmp_path / "page"], check=True)
    read_back = subprocess.run(["zbarimg", "-q", "--raw", *tmp_path.glob("page*.png")], capture_output=True, text=True)
    assert read_back.stdout.strip() == ADDRESS


@pytest.mark.parametrize("name", NAMES)
def test_names_in_their_own_letters_or_in_latin_ones(name: str, tmp_path: Path) -> None:
    content = pdf(letter(name), language("en"), "a4")
    assert b"Font" in content
    text = read(content, tmp_path)
    shown = NAMES[name] if "ใ" not in name else "สมชาย"
    assert shown in text and "?" not in text.replace("not your disc?", "")


@pytest.mark.parametrize(("name", "letters"), [("محمد^علي", "محمد"), ("כהן^שלום", "שלום")])
def test_names_from_right_to_left(name: str, letters: str, tmp_path: Path) -> None:
    text = read(pdf(letter(name), language("en"), "insert"), tmp_path)
    assert letters in text
    assert pages(tmp_path) == 1


@pytest.mark.parametrize("code", languages())
def test_an_insert_names_as_many_studies_as_fit(code: str, tmp_path: Path) -> None:
    text = read(pdf(letter(studies=30, description=LONG), language(code), "insert"), tmp_path)
    assert pages(tmp_path) == 1
    assert "+49 30 1234567" in text
    assert "A1000" in text and "A10029" not in text


def test_a_long_letter_goes_on_overleaf(tmp_path: Path) -> None:
    text = read(pdf(letter(studies=45), language("en"), "a4"), tmp_path)
    assert pages(tmp_path) == 2
    assert "A10029" in text and "and 15 more examinations" in text


def test_without_an_address_there_is_no_code_and_without_pages_no_index(tmp_path: Path) -> None:
    plain = replace(letter(), address="", has_pages=False, contact="")
    text = read(pdf(plain, language("en"), "a4"), tmp_path)
    assert "code" not in text and "INDEX.HTM" not in text and "DICOMDIR" in text
    assert "Give the disc back to Example Hospital." in text


@pytest.mark.parametrize("paper", ["a4", "insert"])
@pytest.mark.parametrize("sign", ["\N{COMBINING ACUTE ACCENT}", "\N{HEBREW LETTER ALEF}", "W"])
def test_values_of_any_length_leave_a_letter(sign: str, paper: Paper, tmp_path: Path) -> None:
    """A PACS's value may have 16 KB: fpdf fails at some such lines, and takes a minute for others."""
    content = pdf(letter(sign * 8000, studies=5, description=sign * 8000), language("en"), paper)
    assert "it leads to this disc" in read(content, tmp_path)
    assert paper == "a4" or pages(tmp_path) == 1


@pytest.mark.parametrize("sign", ["\N{COMBINING ACUTE ACCENT}", "\N{HEBREW LETTER ALEF}", "W", "\n"])
def test_dates_and_modalities_that_are_none_leave_a_letter(sign: str, tmp_path: Path) -> None:
    """C-FIND's answers say them, and a PACS may answer anything."""
    study = FoundStudy("A1", sign * 8000, (sign * 8000, "CT"), "CT Thorax", 5, 5)
    for paper in ("a4", "insert"):
        text = read(pdf(replace(letter(), studies=(study,)), language("en"), paper), tmp_path)
        assert "it leads to this disc" in text
    assert pages(tmp_path) == 1


def test_a_letter_says_what_was_recorded_as_the_first_page_does(tmp_path: Path) -> None:
    study = FoundStudy("A1", "20260312", ("CT", "DOC", "ECG", "KO", "PR", "SR"), "CT Thorax", 5, 5)
    text = read(pdf(replace(letter(), studies=(study,)), language("en"), "a4"), tmp_path)
    assert "March 12, 2026 · CT, ECG · Accession number A1" in text


def test_no_part_of_a_name_is_a_command_of_the_letters_maker(tmp_path: Path) -> None:
    text = read(
        pdf(letter("{nb}**Anna**^__x__ --y--", description="(Tj) \\def <</JS (x)>> {nb}"), language("en"), "a4"),
        tmp_path,
    )
    assert "{nb}**Anna**, __x__ --y--" in text and "(Tj) \\def <</JS (x)>> {nb}" in text


@pytest.mark.parametrize(
    ("form", "words"),
    [("iso", "disc drive"), ("zip", "ZIP file"), ("usb", "Plug the stick"), ("zip-encrypted", "7-Zip")],
)
def test_each_format_is_opened_in_its_own_way(form: str, words: str, tmp_path: Path) -> None:
    of_format = replace(letter(), format=form)
    assert words in " ".join(read(pdf(of_format, language("en"), "a4"), tmp_path).split())


@pytest.mark.parametrize(("form", "thing"), [("zip-encrypted", "file"), ("iso-cms", "disc")])
def test_a_password_is_told_of_what_the_patient_holds(form: str, thing: str, tmp_path: Path) -> None:
    text = " ".join(read(pdf(replace(letter(), format=form, password="ab-cd"), language("en"), "a4"), tmp_path).split())
    assert f"Password of the {thing} ab-cd Keep this letter apart from the {thing}: whoever has both" in text


def test_a_letter_of_nobody_in_particular_says_so(tmp_path: Path) -> None:
    nobody = replace(letter(""), patient_id="")
    assert "Patientennummer: nicht angegeben" in read(pdf(nobody, language("de"), "a4"), tmp_path)

"""The letter that goes with a disc: whose it is, what is on it, how to look at it, whom to ask; on A4, and as an insert
for a disc's case.

    pdf(letter_of(report, disc, address), language("de"), "a4")

Its code leads staff to the disc's job and holds nothing of the patient.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import Literal

import segno
from fpdf import FPDF

from mkiso.config.disc import Disc
from mkiso.formats.registry import FORMATS
from mkiso.languages import Language
from mkiso.storage.report import FoundStudy, JobReport
from mkiso.study.identity import one_line
from mkiso.study.priors import words_of
from mkiso.study.text import readable_name
from mkiso.study.writing import written

Paper = Literal["a4", "insert"]
_FONTS = ("fontpkg_noto_sans", "fontpkg_noto_sans_thai", "fontpkg_noto_sans_arabic", "fontpkg_rubik")
"""The first that has a character writes it: Latin, Greek and Cyrillic; Thai; Arabic; Hebrew."""
_BEFORE_A_THAI_SYLLABLE = re.compile("(?<=[ก-๎])(?=[เแโใไ])")
_SAYS_NOTHING = frozenset({"DOC", "FID", "KO", "PR", "REG", "RWV", "SR"})
"""Modalities (PS3.3 C.7.3.1.1.1) of what was written of images: the disc's first page has no such code, either."""
_MOST_STUDIES = 30
_MOST_CHARACTERS = 240  # of a value; a person name has 64 in each of its component groups (PS3.5 6.2)
_INK, _SOFT, _ACCENT = (22, 38, 43), (85, 104, 110), (15, 92, 110)


@dataclass(frozen=True, slots=True)
class Letter:
    """What stands in a letter. `address` is where the code leads, empty: there is none; `has_pages`: the disc has
    pages of ours. `format`: mkiso.formats.registry.FORMATS' name of it; `password`, where the letter is to carry it;
    `is_part`: it isn't everything of its studies; `lacks` says in English which earlier ones aren't there.
    """

    institution: str
    contact: str
    patient_name: str
    patient_id: str
    studies: tuple[FoundStudy, ...]
    discs: int
    address: str
    has_pages: bool
    format: str = "iso"
    password: str = ""
    is_part: bool = False
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Of a paper, in mm and points."""

    format: tuple[float, float]
    margin: float
    text: float
    small: float
    title: float
    name: float
    code: float
    studies: int


_PAPERS = {
    "a4": _Sizes((210, 297), 22, 11, 9, 20, 16, 32, _MOST_STUDIES),
    "insert": _Sizes((120, 120), 7, 6.6, 5.8, 11, 10, 18, 5),
}


def letter_of(report: JobReport, disc: Disc, address: str, *, has_pages: bool, password: str = "") -> Letter:
    """The letter of a job whose discs are made. With `password` it is kept apart from them."""
    return Letter(
        institution=one_line(disc.institution),
        contact=one_line(disc.contact),
        patient_name=readable_name(_short(report.patient_name)),
        patient_id=_short(report.patient_id),
        studies=report.studies,
        discs=len(report.disc_ids),
        address=address,
        has_pages=has_pages,
        format=report.format,
        password=password,
        is_part=report.is_part,
        lacks=tuple(words_of(report.degraded)),
    )


def pdf(letter: Letter, spoken: Language, paper: Paper) -> bytes:
    """The letter as PDF. An insert is one page always: it names as many studies as there is room for."""
    sizes = _PAPERS[paper]
    for most in range(min(len(letter.studies), sizes.studies), -1, -1):
        page = _Page(sizes, spoken, breaks=paper == "a4")
        page.write(letter, most)
        if paper == "a4" or page.is_within or not most:
            return page.bytes()
    raise AssertionError("without any study it is written")


class _Page:
    """A letter while it is written."""

    def __init__(self, sizes: _Sizes, spoken: Language, *, breaks: bool) -> None:
        self._sizes, self._spoken = sizes, spoken
        self._align = "R" if spoken.direction == "rtl" else "L"
        self._pdf = FPDF(format=sizes.format)
        self._pdf.set_margin(sizes.margin)
        self._pdf.set_auto_page_break(breaks, sizes.margin)
        names = [package.replace("_", "-") for package in _FONTS]
        for name, package in zip(names, _FONTS, strict=True):
            self._pdf.add_font(name, fname=_font(package))
        self._known = [self._pdf.fonts[name.lower()].cmap for name in names]  # type: ignore[union-attr]
        self._pdf.set_fallback_fonts(names[1:])
        self._pdf.set_text_shaping(True)
        self._pdf.set_font(names[0])
        self._pdf.set_lang(spoken.code)
        self._pdf.alias_nb_pages("")  # else {nb} in a name would become the number of pages
        self._pdf.add_page()

    @property
    def is_within(self) -> bool:
        return bool(self._pdf.get_y() <= self._pdf.h - self._sizes.margin)

    def bytes(self) -> bytes:
        return bytes(self._pdf.output())

    def write(self, letter: Letter, most: int) -> None:
        """`most`: so many studies are named."""
        self._write_head(letter)
        self._write_contents(letter, most)
        self._write_steps(letter)
        self._write_end(letter)

    def _write_head(self, letter: Letter) -> None:
        """Whose disc it is, and of whom, beside the code."""
        spoken, sizes = self._spoken, self._sizes
        title = spoken.gettext("Your medical images")
        self._pdf.set_title(title)
        if letter.address:
            self._code(letter.address)
        beside = sizes.code + sizes.margin / 2 if letter.address else 0
        self._text(letter.institution, sizes.small, _SOFT, beside=beside)
        self._text(title, sizes.title, _ACCENT, beside=beside)
        self._text(letter.patient_name or spoken.gettext("Name not stated"), sizes.name, gap=0.6, beside=beside)
        patient_id = letter.patient_id or spoken.gettext("not stated")
        self._text(spoken.labelled(spoken.gettext("Patient ID"), patient_id), sizes.text, beside=beside)
        if letter.address:
            self._pdf.set_y(max(self._pdf.get_y(), sizes.margin + sizes.code))

    def _write_contents(self, letter: Letter, most: int) -> None:
        """What is on it, and what isn't."""
        spoken, size = self._spoken, self._sizes.text
        self._heading(spoken.gettext("What is on it"))
        for study in letter.studies[:most]:
            self._study(study)
        if left := len(letter.studies) - most:
            self._text(
                spoken.ngettext("and %(number)s more examination", "and %(number)s more examinations", left), size
            )
        if letter.is_part:
            not_all = spoken.gettext("Not everything is on this disc.")
            chosen = spoken.gettext("It holds only what was chosen of these examinations.")
            self._text(f"{not_all} {chosen}", size, gap=0.25)
        for words in letter.lacks:
            self._text(spoken.gettext(words), size, gap=0.25)
        if (discs := letter.discs) > 1:
            words = spoken.ngettext(
                "This is %(number)s disc.", "These are %(number)s discs; keep them together.", discs
            )
            self._text(words, size)

    def _write_steps(self, letter: Letter) -> None:
        """How one looks at it."""
        spoken, size = self._spoken, self._sizes.text
        self._heading(spoken.gettext("How to look at it"))
        for step, words in enumerate(_steps(letter, spoken), 1):
            self._text(f"{spoken.number(step)}.  {words}", size)
        if letter.has_pages:
            self._text(spoken.gettext("The pictures on these pages are for looking at, not for diagnosis."), size)

    def _write_end(self, letter: Letter) -> None:
        """Whom to ask, and what is for this letter alone."""
        spoken, sizes = self._spoken, self._sizes
        self._heading(spoken.gettext("Questions, or not your disc?"))
        for words in _whom_to_ask(letter, spoken):
            self._text(words, sizes.text)
        if letter.password:
            self._write_password(letter)
        if letter.address:
            words = spoken.gettext("The code is for the staff: it leads to this disc in their own system.")
            self._text(words, sizes.small, _SOFT, gap=0.8)

    def _write_password(self, letter: Letter) -> None:
        """The password, and what it is of: a disc is no file to a patient."""
        spoken, sizes = self._spoken, self._sizes
        if FORMATS[letter.format].has_envelopes:
            heading = spoken.gettext("Password of the disc")
            apart = spoken.gettext("Keep this letter apart from the disc: whoever has both can open it.")
        else:
            heading = spoken.gettext("Password of the file")
            apart = spoken.gettext("Keep this letter apart from the file: whoever has both can open it.")
        self._heading(heading)
        self._text(letter.password, sizes.name)
        self._text(apart, sizes.text)

    def _heading(self, words: str) -> None:
        self._text(words, self._sizes.text * 1.15, _ACCENT, gap=0.9)

    def _study(self, study: FoundStudy) -> None:
        spoken = self._spoken
        title = _short(study.study_description) or spoken.gettext("Examination")
        recorded = ", ".join(each for each in study.modalities if each not in _SAYS_NOTHING)
        facts = [spoken.da(_short(study.study_date)), _short(recorded)]
        if study.is_prior:
            facts.insert(0, spoken.gettext("Earlier examination"))
        if study.accession_number:
            facts.append(spoken.gettext("Accession number %(number)s", number=_short(study.accession_number)))
        self._text(title, self._sizes.text, gap=0.25)
        self._text(" · ".join(filter(None, facts)), self._sizes.small, _SOFT)

    def _text(
        self, words: str, size: float, colour: tuple[int, int, int] = _INK, *, gap: float = 0.0, beside: float = 0.0
    ) -> None:
        """A paragraph; `gap` is free above it, in lines, and `beside` right of it, in mm."""
        if not words:
            return
        line = size * 0.3528 * 1.35
        self._pdf.set_y(self._pdf.get_y() + gap * line)
        self._pdf.set_font_size(size)
        self._pdf.set_text_color(*colour)
        shown = _BEFORE_A_THAI_SYLLABLE.sub("\u200b", written(words, self._has))
        width = self._pdf.epw - beside
        self._pdf.multi_cell(width, line, shown, align=self._align, new_x="LMARGIN", new_y="NEXT")

    def _has(self, character: str) -> bool:
        return character in "\u200b\u200e\u200f" or any(ord(character) in known for known in self._known)

    def _code(self, address: str) -> None:
        """A QR code (ISO/IEC 18004) in the corner, with its quiet zone of four modules in the margin."""
        rows = [bytes(row) for row in segno.make(address, error="m", micro=False).matrix]
        module = self._sizes.code / len(rows)
        left, top = self._pdf.w - self._sizes.margin - self._sizes.code, self._sizes.margin
        self._pdf.set_fill_color(0)
        for y, row in enumerate(rows):
            for run in re.finditer(rb"\x01+", row):
                x, width = left + run.start() * module, len(run[0]) * module
                self._pdf.rect(x, top + y * module, width, module, style="F")


def _short(value: str) -> str:
    """A value on one line. What is longer than a value can be, fpdf breaks into lines for minutes, or fails at."""
    line = one_line(value)
    return line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]}…"


def _steps(letter: Letter, spoken: Language) -> list[str]:
    if FORMATS[letter.format].has_envelopes:
        return [
            spoken.gettext("Take the disc and the password to your doctor. A web browser can't show what is on it."),
            spoken.gettext(
                "For a physician: open DICOMDIR with a DICOM program that opens encrypted media. It asks for the "
                "password: type it with its hyphens, as it is written."
            ),
            spoken.gettext("Without such a program: README.TXT says how OpenSSL opens it."),
        ]
    if FORMATS[letter.format].is_encrypted:
        return [
            spoken.gettext(
                "Open the ZIP file with a program for encrypted ZIP files. Windows: 7-Zip. macOS: Keka or The "
                "Unarchiver. Linux: 7-Zip. They are free. What comes with Windows can't open it."
            ),
            spoken.gettext(
                "Extract all files into a new folder. The program asks for the password: type it with its hyphens, as "
                "it is written."
            ),
            spoken.gettext("Open the file INDEX.HTM in that folder. For your doctor: open DICOMDIR there."),
        ]
    if not letter.has_pages:
        return [
            spoken.gettext("It is in DICOM format: open DICOMDIR on this disc with a DICOM viewer."),
            spoken.gettext("Doctors have their own programs for it: take the disc along."),
        ]
    first = {
        "zip": spoken.gettext("Extract all files of the ZIP file into a new folder, and open that folder."),
        "usb": spoken.gettext("Plug the stick into a computer, and open it there."),
    }
    return [
        first.get(letter.format)
        or spoken.gettext("Put the disc into a computer with a disc drive, and show what is on it."),
        spoken.gettext(
            "Open the file INDEX.HTM. It opens in the browser; nothing is installed and nothing is sent anywhere."
        ),
        spoken.gettext("Doctors have their own programs for it: take the disc along."),
    ]


def _whom_to_ask(letter: Letter, spoken: Language) -> list[str]:
    institution = letter.institution or spoken.gettext("the place that it came from")
    if not letter.contact:
        return [spoken.gettext("Give the disc back to %(institution)s.", institution=institution)]
    ask = spoken.gettext("Ask %(institution)s: %(contact)s.", institution=institution, contact=letter.contact)
    back = spoken.gettext(
        "What is on it is confidential: if it isn't yours, please give it back there and don't look at it."
    )
    return [ask, back]


@cache
def _font(package: str) -> str:
    folder = files(package) / "files"
    [font] = [file for file in folder.iterdir() if file.name.endswith(".ttf") and "Italic" not in file.name]
    with as_file(font) as path:
        return str(path)

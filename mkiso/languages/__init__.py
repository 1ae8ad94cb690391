"""The languages that people are spoken to in: English, which stands in the code, and one catalogue of gettext for each
other, `catalogues/CODE.po`.

    german = language("de")
    german.gettext("Not for diagnosis.")
    german.ngettext("%(number)s picture", "%(number)s pictures", 2000)     # 2.000 Bilder

A message is a literal in code or a template, in a call of `gettext`, `ngettext` or `N_`; `make messages` puts it into
each catalogue (docs/languages.md). Dates, numbers and plurals follow Unicode's locale data, as Babel has it; Babel has
the Gregorian calendar alone, so Thailand's is here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from gettext import GNUTranslations, NullTranslations
from importlib.resources import files
from importlib.resources.abc import Traversable
from io import BytesIO
from pathlib import PurePosixPath

from babel import Locale
from babel.dates import format_date
from babel.lists import format_list
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from babel.units import format_unit

SOURCE = "en"
_DA_LENGTH = 8
_MOST_PREFERENCES = 20  # of Accept-Language: nobody reads more languages
_QUALITY = re.compile(r"\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*")
_DT = re.compile(r"(\d{8})(\d{4}(?:\d\d)?)?(?:\.\d{1,6})?([-+]\d{4})?", re.ASCII)
_SIZES = (("gigabyte", 10**9), ("megabyte", 10**6), ("kilobyte", 10**3))
_BUDDHIST = {"th": ("พ.ศ.", 543)}
"""The era, and how many years more it counts, where Unicode prefers this calendar; days and months are Gregorian
(UTS #35 part 4, Calendar Preference Data: TH)."""
_EXAMPLES = range(200)  # numbers among which each plural form of a language is met


def N_(message: str) -> str:  # noqa: N802  gettext's own name for it
    """Marks a message that is translated where it is shown."""
    return message


@dataclass(frozen=True, slots=True, eq=False)
class Language:
    """How people are spoken to in one language. `code` is as HTML's `lang` has it."""

    code: str
    _locale: Locale
    _translations: NullTranslations
    _of_files: Mapping[str, Mapping[str, str | dict[str, str]]]

    @property
    def direction(self) -> str:
        """Of its script, as HTML's `dir` has it: ltr or rtl."""
        return str(self._locale.text_direction)

    @property
    def name(self) -> str:
        """What those who speak it call it."""
        return (self._locale.get_display_name() or self.code).capitalize()

    @property
    def calendar(self) -> str:
        """By which `date` counts years, as Intl.DateTimeFormat names it: gregory or buddhist."""
        return "buddhist" if self._locale.language in _BUDDHIST else "gregory"

    def gettext(self, message: str, **values: object) -> str:
        """A message in this language; each `%(name)s` in it is that one of the values."""
        translated = self._translations.gettext(message)
        return translated % values if values else translated

    def ngettext(self, singular: str, plural: str, number: int, **values: object) -> str:
        """The form that fits a number, which stands in it as `%(number)s`."""
        return self._translations.ngettext(singular, plural, number) % {"number": self.number(number), **values}

    def number(self, number: int | float) -> str:
        """A number with its separators: 1,204 or 1.204."""
        return format_decimal(number, locale=self._locale)

    def size(self, size: int) -> str:
        """A size as people say it: 1.2 GB, 35 MB, 812 kB; in French 35 Mo."""
        for unit, bytes_in_unit in _SIZES:
            if round(number := size / bytes_in_unit, 3) >= 1:
                pattern = "0.0" if number < 9.95 else "0"
                return str(format_unit(number, f"digital-{unit}", "short", pattern, locale=self._locale))
        return str(format_unit(size, "digital-byte", "long", "0", locale=self._locale))

    def date(self, day: date) -> str:
        """A day with its month in words, so that nobody takes it for the day."""
        if self._locale.language not in _BUDDHIST:
            return format_date(day, "long", locale=self._locale)
        era, more = _BUDDHIST[self._locale.language]
        return f"{format_date(day, 'd MMMM', locale=self._locale)} {era} {day.year + more}"

    def da(self, value: str) -> str:
        """A DICOM date (VR DA) as `date` has it; what is none is left as it is."""
        try:
            return self.date(datetime.strptime(value, "%Y%m%d")) if len(value) == _DA_LENGTH else value
        except ValueError:
            return value

    def tm(self, value: str) -> str:
        """A DICOM time (VR TM) as 18:47 or 18:47:46, without fractions of a second; what is none is left as it is."""
        digits = value.partition(".")[0]
        if not (digits.isascii() and digits.isdigit() and len(digits) in (4, 6)):
            return value
        return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))

    def dt(self, value: str) -> str:
        """A DICOM moment (VR DT): day, time, and its offset from UTC where it has one; what is none is left as it
        is.
        """
        found = _DT.fullmatch(value)
        if not found:
            return value
        day, time, offset = found.groups(default="")
        return ", ".join(filter(None, (self.da(day), " ".join(filter(None, (self.tm(time), offset))))))

    def listed(self, things: Sequence[str]) -> str:
        """Things one after the other: 1 image, 2 reports, and 1 recording."""
        return str(format_list(things, locale=self._locale))

    def moment(self, moment: datetime) -> str:
        """A day and the time, in the time zone that `moment` has."""
        return f"{self.date(moment)}, {moment:%H:%M %Z}".rstrip()

    def labelled(self, label: str, value: str) -> str:
        """What something is called and what it is, with the colon as this language sets it; one alone where the other
        is empty.
        """
        return self.gettext("%(first)s: %(second)s", first=label, second=value) if label and value else label or value

    def words_of(self, place: str) -> dict[str, str | dict[str, str]]:
        """The translations of what stands in scripts below a folder, as the scripts look them up: of a plural each form
        by its CLDR category, which Intl.PluralRules names.
        """
        return {
            message: words
            for file, of_file in sorted(self._of_files.items())
            if PurePosixPath(file).is_relative_to(place)
            for message, words in of_file.items()
        }


@cache
def languages() -> tuple[str, ...]:
    """The code of each language, English first."""
    found = sorted(file.name.removesuffix(".po") for file in _folder().iterdir() if file.name.endswith(".po"))
    return (SOURCE, *found)


@cache
def language(code: str) -> Language:
    """The language of a code. Raises KeyError where there is no catalogue of it."""
    if code not in languages():
        raise KeyError(code)
    locale = Locale.parse(code, sep="-")
    if code == SOURCE:
        return Language(code, locale, NullTranslations(), {})
    with (_folder() / f"{code}.po").open("rb") as file:
        catalogue = read_po(file, locale=str(locale))
    compiled = BytesIO()
    write_mo(compiled, catalogue)  # leaves out what is fuzzy
    compiled.seek(0)
    translations = GNUTranslations(compiled)
    return Language(code, locale, translations, _words_of_files(catalogue, locale, translations))


def wanted(accept_language: str, among: Collection[str], default: str) -> str:
    """The language that a browser likes best of those that there are (RFC 9110 12.5.4); de-AT is served by de."""
    preferences = []
    for entry in accept_language.split(",")[:_MOST_PREFERENCES]:
        tag, _, parameter = entry.partition(";")
        quality = _QUALITY.fullmatch(parameter) if parameter else None
        if quality or not parameter:
            preferences.append((float(quality[1]) if quality else 1.0, tag.strip().lower()))
    for weight, tag in sorted(preferences, key=lambda each: -each[0]):
        for code in sorted(among, key=len, reverse=True):
            if weight and (tag == code.lower() or tag.startswith(f"{code.lower()}-")):
                return code
    return default


def _folder() -> Traversable:
    return files(__name__) / "catalogues"


def _words_of_files(
    catalogue: Catalog, locale: Locale, translations: NullTranslations
) -> Mapping[str, Mapping[str, str | dict[str, str]]]:
    """By the script that a message stands in, which its place in the catalogue says."""
    found: dict[str, dict[str, str | dict[str, str]]] = {}
    for message in catalogue:
        if not message.id or message.fuzzy:
            continue
        for file, _ in message.locations:
            if not file.lower().endswith(".js"):
                continue
            of_file = found.setdefault(file, {})
            if isinstance(message.id, str):
                of_file[message.id] = translations.gettext(message.id)
            else:
                singular, plural = message.id
                of_file[singular] = {
                    locale.plural_form(number): translations.ngettext(singular, plural, number) for number in _EXAMPLES
                }
    return found

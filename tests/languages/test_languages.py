"""What each language says: plurals, dates, numbers, and which one a browser wants."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from documentation.messages import CATALOGUES
from mkiso.languages import SOURCE, language, languages, wanted

IMAGES = ("%(number)s image", "%(number)s images")


@pytest.mark.parametrize(
    ("code", "one", "none", "many"),
    [
        ("en", "1 image", "0 images", "12,345 images"),
        ("de", "1 Bild", "0 Bilder", "12.345 Bilder"),
        ("es", "1 imagen", "0 imágenes", "12.345 imágenes"),
        ("fr", "1 image", "0 image", "12\u202f345 images"),
        ("th", "1 ภาพ", "0 ภาพ", "12,345 ภาพ"),
    ],
)
def test_plurals_and_numbers_are_those_of_the_language(code: str, one: str, none: str, many: str) -> None:
    spoken = language(code)
    assert [spoken.ngettext(*IMAGES, number) for number in (1, 0, 12345)] == [one, none, many]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("en", "February 3, 2026"),
        ("de", "3. Februar 2026"),
        ("es", "3 de febrero de 2026"),
        ("fr", "3 février 2026"),
        ("th", "3 กุมภาพันธ์ พ.ศ. 2569"),
    ],
)
def test_dates_have_their_month_in_words(code: str, expected: str) -> None:
    spoken = language(code)
    assert spoken.date(date(2026, 2, 3)) == spoken.da("20260203") == expected
    assert spoken.moment(datetime(2026, 2, 3, 9, 5, tzinfo=UTC)) == f"{expected}, 09:05 UTC"
    assert [spoken.da(value) for value in ("", "2026", "20261399", "2026-2-3")] == ["", "2026", "20261399", "2026-2-3"]


def test_thai_years_are_of_the_buddhist_era_and_say_so() -> None:
    """By the first calendar that CLDR prefers for Thailand (UTS #35, Calendar Preference Data)."""
    thai = language("th")
    assert thai.da("20240229") == "29 กุมภาพันธ์ พ.ศ. 2567"
    assert thai.dt("20240229101500+0700") == "29 กุมภาพันธ์ พ.ศ. 2567, 10:15:00 +0700"
    assert [language(code).calendar for code in ("en", "de", "es", "fr", "th")] == ["gregory"] * 4 + ["buddhist"]


@pytest.mark.parametrize(
    ("code", "sizes"),
    [
        ("en", ["999 bytes", "5.0 kB", "35 MB", "1.2 GB"]),
        ("de", ["999 Byte", "5,0 kB", "35 MB", "1,2 GB"]),
        ("fr", ["999 octets", "5,0 ko", "35 Mo", "1,2 Go"]),
        ("es", ["999 bytes", "5,0 kB", "35 MB", "1,2 GB"]),
        ("th", ["999 ไบต์", "5.0 kB", "35 MB", "1.2 GB"]),
    ],
)
def test_a_size_is_as_people_say_it(code: str, sizes: list[str]) -> None:
    told = [language(code).size(size) for size in (999, 5_000, 35_000_000, 1_200_000_000)]
    assert [" ".join(words.split()) for words in told] == sizes


def test_a_label_has_the_colon_of_its_language_and_none_without_a_value() -> None:
    told = [language(code).labelled("Name", "Anna") for code in ("en", "de", "fr")]
    assert told == ["Name: Anna", "Name: Anna", "Name\u202f: Anna"]
    assert language("fr").labelled("Name", "") == "Name" and language("fr").labelled("", "Anna") == "Anna"


def test_english_stands_in_the_code_and_every_catalogue_is_offered() -> None:
    assert languages() == (SOURCE, *sorted(file.stem for file in CATALOGUES.glob("*.po")))
    assert language("de").gettext("Whose disc this is") != language("en").gettext("Whose disc this is")
    with pytest.raises(KeyError):
        language("xx")


def test_scripts_get_the_words_that_stand_in_them_and_no_others() -> None:
    words = language("de").words_of("mkiso/media/web")
    assert words["Picture %(number)s of %(total)s"] == "Bild %(number)s von %(total)s"
    assert "Whose disc this is" not in words
    assert language(SOURCE).words_of("mkiso/media/web") == {}


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("", "fr"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("xx,en;q=0.5,es;q=0.7", "es"),
        ("TH", "th"),
        ("de;q=0,en;q=0.1", "en"),
        ("de;q=nonsense,es", "es"),
        ("*", "fr"),
        ("d,den,e-n", "fr"),
        (",".join(["xx"] * 1000 + ["de"]), "fr"),
    ],
)
def test_a_browser_gets_the_language_that_it_likes_best(accepted: str, expected: str) -> None:
    assert wanted(accepted, languages(), "fr") == expected

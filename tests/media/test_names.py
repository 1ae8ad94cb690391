import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mkiso.errors import ConfigurationError
from mkiso.media.names import component, d_characters, file_set_id, filename, short_names
from mkiso.study.models import Volume

SHORT = re.compile(r"[A-Z0-9_]{1,8}(\.[A-Z0-9_]{1,3})?")


def test_components_of_a_file_id_have_eight_characters() -> None:
    assert component("IM", 1) == "IM000001"
    assert component("IM", 999_999) == "IM999999"
    with pytest.raises(ValueError, match="more than"):
        component("IM", 1_000_000)


@given(st.text(), st.integers(1, 40), st.integers(0, 40))
def test_a_file_set_id_is_a_volume_identifier(base: str, number: int, further: int) -> None:
    assert re.fullmatch(r"[A-Z0-9_]{1,16}", file_set_id(base, Volume(number, number + further)))


def test_labels_of_a_set_sort_by_number() -> None:
    labels = [file_set_id("ACC 2024/000123456789", Volume(number, 12)) for number in range(1, 13)]
    assert labels[0] == "ACC_2024_01OF12"
    assert labels == sorted(labels)
    assert len(set(labels)) == 12


@pytest.mark.parametrize(
    ("text", "expected"), [("A-1 b", "A_1_B"), ("Müller", "MULLER"), ("ตัวอย่าง", ""), ("__", ""), ("ß", "SS")]
)
def test_d_characters(text: str, expected: str) -> None:
    assert d_characters(text) == expected


NAME = st.text(
    st.characters(exclude_characters="/*:;?\\", exclude_categories=["C", "Z"], max_codepoint=0xFFFF),
    min_size=1,
    max_size=20,
).filter(lambda name: name not in (".", ".."))


@given(st.sets(st.lists(NAME, min_size=1, max_size=3).map(lambda parts: PurePosixPath(*parts)), max_size=12))
def test_short_names_are_legal_unique_and_keep_the_tree(paths: set[PurePosixPath]) -> None:
    paths = {path for path in paths if not any(other != path and other.is_relative_to(path) for other in paths)}
    short = short_names(paths)
    assert short.keys() == paths
    assert len(set(short.values())) == len(paths)
    for path, name in short.items():
        assert len(name.parts) == len(path.parts)
        assert all(SHORT.fullmatch(part) for part in name.parts)
    assert short_names(sorted(paths)) == short


def test_a_short_name_keeps_itself_and_others_give_way() -> None:
    short = short_names(
        [PurePosixPath("library_long.dll"), PurePosixPath("LIBRARY_.dll"), PurePosixPath("plug ins/a.dll")]
    )
    assert short[PurePosixPath("LIBRARY_.dll")] == PurePosixPath("LIBRARY_.DLL")
    assert short[PurePosixPath("library_long.dll")] == PurePosixPath("LIBRAR_1.DLL")
    assert short[PurePosixPath("plug ins/a.dll")] == PurePosixPath("PLUG_INS/A.DLL")


@pytest.mark.parametrize("path", ["x" * 65, "a;b", "a\nb", "a/b/c/d/e/f/g/h/i", "\U0001f600"])
def test_what_a_disc_cant_hold_is_refused_in_words(path: str) -> None:
    with pytest.raises(ConfigurationError, match="can't go onto a disc"):
        short_names([PurePosixPath(path)])


@given(st.text())
def test_download_names_are_safe(base: str) -> None:
    name = filename(base)
    assert name and not name.startswith(".") and not set(name) & set('/\\:*?"<>|\r\n\0')


def test_a_name_in_thai_stays_itself() -> None:
    assert filename("ตัวอย่าง^สมชาย") == "ตัวอย่าง สมชาย"
    assert filename("../../etc") == "etc"

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mkiso.config.section import Medium
from mkiso.errors import TooLargeForMedium
from mkiso.formats.iso import master
from mkiso.formats.registry import ISO
from mkiso.media.capacity import MEDIUM_SECTORS, SECTOR_BYTES, UDF_MEDIA, fit, image_sectors
from mkiso.study.models import DiscFile
from tests.media.discs import contents_of

SHORT = st.from_regex(r"[A-Z0-9_]{1,8}(\.[A-Z0-9_]{1,3})?", fullmatch=True)
LONG = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x24F, exclude_characters="/*:;?\\\x7f"), min_size=1, max_size=60
).filter(lambda name: name.strip(".") != "" and name.isprintable())


@given(st.dictionaries(SHORT, st.tuples(LONG, st.integers(0, 9000)), max_size=120), st.integers(0, 5))
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("medium", ["cd", "bd"])
def test_the_size_is_known_before_mastering(
    tmp_path: Path, medium: Medium, entries: dict[str, tuple[str, int]], depth: int
) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(9000))
    folders = [PurePosixPath(*[f"D{level}" for level in range(number)]) for number in range(depth + 1)]
    files, seen = [], set()
    for number, (name, (long, size)) in enumerate(entries.items()):
        folder = folders[number % len(folders)]
        if name.partition(".")[0] + "" in {f"D{level}" for level in range(depth)} or (folder, long) in seen:
            continue
        seen.add((folder, long))
        one = tmp_path / f"source{size}"
        one.write_bytes(bytes(size))
        files.append(DiscFile(folder / name, size, "", one, joliet_path=folder / f"x{long}"))
    master(files, "SIZES", tmp_path / "x.iso", udf=medium in UDF_MEDIA)
    assert (tmp_path / "x.iso").stat().st_size == image_sectors(files, medium) * SECTOR_BYTES
    trees = contents_of(ISO, tmp_path / "x.iso").trees
    assert [len(tree) for tree in trees.values()] == [len(files)] * (3 if medium == "bd" else 2)


def test_many_directories_need_larger_path_tables(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    files = [DiscFile(PurePosixPath(f"A{number % 7:07}", f"S{number:07}", "F"), 1, "", source) for number in range(700)]
    master(files, "TABLES", tmp_path / "x.iso")
    assert (tmp_path / "x.iso").stat().st_size == image_sectors(files) * SECTOR_BYTES


def test_what_doesnt_fit_names_both_sizes_and_the_medium_that_would_do() -> None:
    size = MEDIUM_SECTORS["cd"] * SECTOR_BYTES
    with pytest.raises(
        TooLargeForMedium, match=r"737\.\d MB and a CD has 737\.0 MB: it would fit on a DVD \(disc\.medium: dvd\)"
    ) as raised:
        fit([DiscFile(PurePosixPath("DICOMDIR"), size, "")], "cd")
    assert raised.value.details["fitting_medium"] == "dvd"
    assert fit([DiscFile(PurePosixPath("DICOMDIR"), size, "")], "dvd") > MEDIUM_SECTORS["cd"]


def test_what_no_medium_holds_is_said_so() -> None:
    files = [DiscFile(PurePosixPath(f"F{number}"), 2**32 - 2048, "") for number in range(13)]
    with pytest.raises(TooLargeForMedium, match="no single medium holds it"):
        fit(files, "bd")


def test_a_file_beyond_four_gib_is_refused() -> None:
    with pytest.raises(TooLargeForMedium, match=r"at most 4\.29 GB"):
        fit([DiscFile(PurePosixPath("F"), 2**32, "")], "bd")

"""What the benchmark measures of a disc's making is a whole disc, of one study or of several."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import media, studies
from bench.samples import Sample


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.peer
def test_benchmark_makes_and_proves_a_disc_of_each_study(
    parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(studies.SIZES, "SMALL10000", ("mr", 4, 16))
    monkeypatch.setitem(studies.PARTS, "SMALL10000", parts)
    study = studies.Studies(tmp_path / "studies").get("SMALL10000")
    ours, reference = Sample(), Sample()
    for folder in ("ours", "tools"):
        (tmp_path / folder).mkdir()

    ours.add(*media._in_child(media._make, [media._instance(file) for file in study.files], tmp_path / "ours"))
    media.tool_disc(study, tmp_path / "tools", reference)

    assert ours.median > 0 < reference.median
    assert (tmp_path / "ours" / "disc.iso").stat().st_size > sum(file.stat().st_size for file in study.files)

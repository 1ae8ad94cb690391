"""How far a job is, from its report."""

from __future__ import annotations

from dataclasses import replace

from mkiso.storage.report import JobReport

DOWNLOAD = ("waiting", "starting", "found", "retrieving", "complete", "making pictures", "laying out", "mastering")
PRINT = ("ordering from epson", "ordered", "epson: it burns (1 of 2)", "epson: it burns (2 of 2)")


def test_it_moves_through_every_stage_and_never_back() -> None:
    report = JobReport("", "print", (), expected=4)
    told = []
    for stage in (*DOWNLOAD, "reading back", *PRINT):
        if stage == "retrieving":
            told += [replace(report, stage=stage, received=received).progress for received in range(5)]
        elif stage == "making pictures":
            told += [replace(report, stage=f"{stage} ({done} of 4)").progress for done in range(5)]
        elif stage == "mastering":
            told += [replace(report, stage=stage, received=4, written=written).progress for written in range(5)]
        else:
            told.append(replace(report, stage=stage).progress)
    assert told == sorted(told)
    assert told[0] == 0.0
    assert all(share < 1.0 for share in told)
    assert replace(report, status="done").progress == 1.0


def test_it_stands_at_the_beginning_of_what_nobody_counts() -> None:
    assert JobReport("", "download", (), stage="retrieving", received=70).progress == 0.03
    assert JobReport("", "download", (), stage="retrieving", expected=4, received=9).progress == 0.65

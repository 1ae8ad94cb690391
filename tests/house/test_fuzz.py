"""Every target of `fuzzing.__main__` for some thousand inputs, and that what it finds is told."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from fuzzing import __main__ as fuzz
from fuzzing.targets import TARGETS

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine or Python"
)

PLANTED = """
import time
from fuzzing.targets import Target

class Slow:  # garbage as Python ends, which then takes longer than a round of libFuzzer's clock, as on a busy machine
    def __init__(self):
        self.itself = self

    def __del__(self, sleep=time.sleep):
        sleep(4)

def run(data):
    if data[:2] == b"\\xfe\\xed":
        Slow()
        raise ValueError("planted")

TARGETS = {"planted": Target(run, lambda: iter([b"\\xfe\\x01\\x02"]), 16, (b"\\xed",))}
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_hold_and_so_do_their_beginnings(name: str) -> None:
    for seed in TARGETS[name].seeds():
        for kept in (len(seed), len(seed) * 2 // 3, len(seed) // 3, 4):
            TARGETS[name].run(seed[:kept])


@needs_atheris
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found_in_two_thousand_inputs(name: str) -> None:
    outcome = fuzz.fuzz(name, 600, executions=2000)
    assert [(kind, data.hex(), words) for kind, data, words in outcome.findings] == []
    assert outcome.executions >= 2000 and outcome.coverage and outcome.features  # libFuzzer may run one more


@needs_atheris
def test_a_finding_is_told_with_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted_targets.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), *sys.path)))
    [(kind, data, words)] = fuzz.fuzz("planted", 30, "planted_targets").findings
    assert kind.startswith("crash-") and data.startswith(b"\xfe\xed") and "ValueError: planted" in words

"""A step that has nothing to do is a plain call: Prefect, which isn't there in these tests, isn't asked."""

from __future__ import annotations

from dataclasses import dataclass
from traceback import format_exception
from typing import Any

import pytest

from mkiso.errors import Unforeseen
from tasks.step import step


@dataclass
class Run:
    """As much of a run as a step needs."""

    job: Any


class Job:
    kind = "download"
    fault = ""

    def keep_fault(self, error: BaseException) -> None:
        self.fault = "".join(format_exception(error))


@step("Halve", idle=lambda run, number: number == 0)
def halve(run: Run, number: int) -> int:
    return number // 2


@step("Fail", idle=lambda run: True)
def fail(run: Run) -> None:
    raise ValueError("CITIZEN^JAN")


def test_an_idle_step_is_a_plain_call() -> None:
    assert halve(Run(Job()), 0) == 0 and halve.submit(Run(Job()), 0).result() == 0


def test_a_step_that_works_is_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr(type(halve.task), "__call__", lambda *args, **kwargs: called.append(args))
    halve(Run(Job()), 4)
    assert len(called) == 1


def test_an_idle_step_that_fails_shows_nobody_a_patient() -> None:
    run = Run(Job())
    with pytest.raises(Unforeseen) as told:
        fail(run)
    assert "CITIZEN" not in str(told.value) and "CITIZEN" in run.job.fault

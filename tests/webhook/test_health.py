"""How long /api/health believes what it has found of a dependency."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from mkiso_service.checks.check import Finding
from mkiso_service.webhook import health
from mkiso_service.webhook.health import KEPT_SECONDS, STARTING_SECONDS, Probe


async def found(probe: Probe, times: int) -> list[bool]:
    return [(await probe.finding()).well for _ in range(times)]


def test_what_is_not_well_is_asked_again_soon_and_what_is_well_is_not() -> None:
    answers: Iterator[bool] = iter([False, False, True, False])

    async def find() -> Finding:
        return Finding(next(answers), "", 0.0)

    assert asyncio.run(found(Probe(find, {True: 3600.0, False: 0.0}), 5)) == [False, False, True, True, True]


def test_a_dependency_that_is_not_well_is_not_asked_for_each_answer() -> None:
    answers: Iterator[bool] = iter([False, True])

    async def find() -> Finding:
        return Finding(next(answers), "", 0.0)

    assert asyncio.run(found(Probe(find, {True: 0.0, False: 3600.0}), 3)) == [False, False, False]


def test_what_is_not_well_is_believed_for_less_time() -> None:
    assert 0 < STARTING_SECONDS < KEPT_SECONDS[False] < KEPT_SECONDS[True]


def test_what_is_believed_is_told_at_once_while_it_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ANEW", 0.0)

    async def ask() -> list[bool]:
        answers: asyncio.Queue[bool] = asyncio.Queue()

        async def find() -> Finding:
            return Finding(await answers.get(), "", 0.0)

        probe = Probe(find, {True: 3600.0, False: 0.0})
        answers.put_nowait(True)
        told = await found(probe, 3)  # the second of them asks anew, and gets no answer
        answers.put_nowait(False)
        while answers.qsize():
            await asyncio.sleep(0)
        return told + await found(probe, 1)

    assert asyncio.run(ask()) == [True, True, True, False]


def test_what_is_believed_no_longer_is_waited_for() -> None:
    answers: Iterator[bool] = iter([True, False, True])

    async def find() -> Finding:
        return Finding(next(answers), "", 0.0)

    assert asyncio.run(found(Probe(find, {True: -1.0, False: -1.0}), 3)) == [True, False, True]


def test_a_check_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ANSWER_SECONDS", 3600.0)

    async def ask() -> list[bool]:
        async def find() -> Finding:
            await asyncio.Event().wait()
            raise AssertionError

        probe = Probe(find, KEPT_SECONDS)
        first = asyncio.create_task(probe.finding())
        await asyncio.sleep(0)
        first.cancel()
        probe._began -= 3600.0  # as if it had been waited for so long
        return await found(probe, 2)

    assert asyncio.run(ask()) == [False, False]

"""Log lines: alike for all processes, a job's names on each, and no exception's text."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mkiso.config.settings import Logging, Settings
from mkiso.errors import PacsSilent
from mkiso_service.log_lines import frames_of, line_handler, name_job
from mkiso_service.prefect.environment import environment
from mkiso_service.worker.child import _in_words
from peers.patience import LONG
from peers.ports import free_port

CANARY = "Canary^Carla"


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What the program's log has said since the last call."""
    root, handler = logging.getLogger(), line_handler("json")
    assert isinstance(handler, logging.StreamHandler)
    told = handler.stream = io.StringIO()
    before, level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in told.getvalue().splitlines()]
    root.handlers[:] = before
    root.setLevel(level)


Lines = Callable[[], list[dict[str, Any]]]
log = logging.getLogger("mkiso.test")


def test_an_exception_leaves_its_type_and_its_place_and_never_its_text(lines: Lines) -> None:
    try:
        raise ValueError(CANARY)
    except ValueError:
        log.exception("something broke")
    [line] = lines()
    assert line["message"] == "something broke (ValueError)"
    [frame] = line["frames"]
    assert re.fullmatch(r"test_logs\.py:\d+ test_an_exception_leaves_\w+", frame)
    assert CANARY not in json.dumps(line)


def test_every_line_of_a_job_carries_its_names(lines: Lines) -> None:
    name_job("4711", "Disc A1", "counter-17")
    log.info("moved")
    log.info("found", extra={"flow_run_name": "Disc A1, A2", "task_run_name": "Find A1", "send_to_api": False})
    first, second = lines()
    assert (first["job_id"], first["run"], first["request_id"]) == ("4711", "Disc A1", "counter-17")
    assert (second["run"], second["task"], second["job_id"]) == ("Disc A1, A2", "Find A1", "4711")
    assert "send_to_api" not in second


def test_libraries_are_heard_when_something_is_wrong_and_pynetdicom_never(lines: Lines) -> None:
    for name in ("httpx", "httpcore", "pynetdicom.transport"):
        logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger(name).info("a step")
        logging.getLogger(name).error("trouble")
    assert [line["logger"] for line in lines()] == ["httpx", "httpcore"]


def record(name: str, message: str, error: Exception | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord(name, logging.ERROR, __file__, 1, message, (), exc_info)
    made.task_run_name = "Retrieve A1"
    return made


def test_what_a_run_s_log_says_of_an_error() -> None:
    ours = record("prefect.task_runs", "Task run failed with exception", PacsSilent("The PACS says nothing."))
    assert _in_words(ours)
    assert (ours.getMessage(), ours.exc_info) == ("The PACS says nothing. [pacs_silent]", None)
    try:
        raise KeyError(CANARY)
    except KeyError as error:
        foreign = record("prefect.flow_runs", f"Encountered exception {error!r}", error)
        assert frames_of(error)
    assert _in_words(foreign)
    assert CANARY not in foreign.getMessage() and "KeyError at test_logs.py" in foreign.getMessage()


def test_the_end_of_a_step_is_said_once() -> None:
    done = record("prefect.task_runs", "Finished in state Completed()")
    assert _in_words(done) and done.getMessage() == "Retrieve A1: done"
    assert not _in_words(record("prefect.task_runs", "Finished in state Failed('again')"))
    assert _in_words(record("prefect.flow_runs", "Finished in state Failed('in words')"))


@pytest.mark.parametrize(("kind", "begins"), [("json", '{"time":'), ("text", "20")])
def test_prefect_s_own_lines_look_alike(kind: str, begins: str) -> None:
    variables = {**os.environ, **environment(Settings(logging=Logging(format=kind)))}
    code = "import prefect, prefect.main, logging; logging.getLogger('prefect.server').warning('hello')"
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=LONG,
    ).stderr
    assert told.strip().startswith(begins) and "hello" in told and len(told.strip().splitlines()) == 1


def lines_of_a_program(code: str) -> list[dict[str, Any]]:
    """What a process says while Prefect's server is away."""
    variables = {**os.environ, **environment(Settings()), "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**variables, "PREFECT_CLIENT_MAX_RETRIES": "0"},
        capture_output=True,
        text=True,
        check=True,
        timeout=LONG,
    )
    return [json.loads(line) for line in (told.stdout + told.stderr).splitlines()]


def test_lines_that_prefect_does_not_get_are_said_in_one_line() -> None:
    lines = lines_of_a_program(
        "import prefect.main, logging, uuid; from prefect.logging.handlers import APILogHandler\n"
        "logging.getLogger('prefect.flow_runs').warning('hello', extra={'flow_run_id': str(uuid.uuid4())})\n"
        "APILogHandler.flush(None)"
    )
    assert [line["message"] for line in lines] == [
        "hello",
        "1 lines of jobs didn't get into Prefect's log (ConnectError).",
    ]


def test_a_worker_says_once_that_prefect_is_away_and_that_it_is_back() -> None:
    lines = lines_of_a_program(
        "import asyncio, contextlib, httpx, mkiso_service.worker.worker, prefect.workers.base as base\n"
        f"away = httpx.ConnectError('away\\n{CANARY}: {CANARY}')\n"
        "looks = iter([away, away, away, away, None, None, RuntimeError()])\n"
        "async def look():\n"
        "    if error := next(looks):\n"
        "        raise error\n"
        "with contextlib.suppress(RuntimeError):\n"
        "    asyncio.run(base.critical_service_loop(look, 0))"
    )
    assert [line["message"] for line in lines] == [
        "Prefect can't be asked (ConnectError): jobs that run go on, and no other begins until it answers.",
        "Prefect answers again.",
    ]

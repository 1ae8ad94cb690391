"""Which processes run, when they are started again, and what Prefect is told through the environment."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import pytest
from prefect.settings.models.server.root import ServerSettings
from pydantic import SecretStr

from mkiso.config.settings import Prefect, Server, Settings
from mkiso.config.storage import Storage
from mkiso_service.ending import SERVER_GRACE_SECONDS
from mkiso_service.prefect.environment import environment
from mkiso_service.process_states import is_starting, process_states
from mkiso_service.processes.supervisor import _Supervisor, back_off_seconds, parts


def test_the_processes_of_one_machine_and_their_order() -> None:
    assert [part.name for part in parts(Settings())] == ["prefect", "receiver", "worker", "webhook"]
    elsewhere = Settings(
        prefect=Prefect(api_url="http://prefect.example.org/api", api_auth_string=SecretStr("user:password-of-a-test"))
    )
    assert [part.name for part in parts(elsewhere)] == ["receiver", "worker", "webhook"]


def test_what_runs_jobs_gets_the_grace_time_and_some_more() -> None:
    server = Server(shutdown_grace_seconds=50)
    grace = {part.name: part.grace_seconds(server) for part in parts(Settings())}
    assert grace["worker"] == grace["webhook"] == 50 + SERVER_GRACE_SECONDS
    assert grace["receiver"] == grace["prefect"] == SERVER_GRACE_SECONDS


def test_a_process_that_dies_again_and_again_is_started_ever_less_often() -> None:
    assert [back_off_seconds(restarts) for restarts in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_disk_that_takes_nothing_ends_no_supervision(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It was the end of the process that was to be started again."""
    settings = Settings(storage=Storage(data_dir=tmp_path / "gone"))
    _Supervisor(settings, parts(settings))._tell()
    assert "can't be written down" in caplog.text


def test_the_processes_are_told_of_again_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else health would speak of processes that are gone until one ends the next time."""
    monkeypatch.setattr("mkiso_service.processes.supervisor.TELL_AGAIN_SECONDS", 0)
    settings = Settings(storage=Storage(data_dir=tmp_path / "data"))
    supervisor = _Supervisor(settings, parts(settings))
    supervisor._tell()
    settings.storage.data_dir.mkdir()
    supervisor._wait(math.inf)
    assert process_states(settings.storage).keys() == {"receiver", "prefect", "worker", "webhook"}


def test_who_asks_before_the_first_fork_is_told_that_mkiso_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(storage=Storage(data_dir=tmp_path))
    seen: list[bool] = []

    def fork(supervisor: _Supervisor, child: object) -> bool:
        seen.append(is_starting(settings.storage))
        return True

    monkeypatch.setattr(_Supervisor, "_fork", fork)
    _Supervisor(settings, parts(settings)).run()
    assert seen == [True] and process_states(settings.storage).keys() == {"receiver", "prefect", "worker", "webhook"}


@pytest.mark.parametrize(
    ("days", "runs", "events"),
    [(30, timedelta(days=30), timedelta(days=1)), (0.001, timedelta(seconds=3601), timedelta(seconds=86))],
)
def test_prefect_forgets_when_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, days: float, runs: timedelta, events: timedelta
) -> None:
    for name, value in environment(Settings(prefect=Prefect(keep_runs_days=days))).items():
        monkeypatch.setenv(name, value)
    server = ServerSettings()
    assert server.services.db_vacuum.retention_period == runs
    assert server.services.db_vacuum.enabled_vacuum_types == {"events", "flow_runs", "orphans"}
    assert server.events.retention_period == events
    assert server.analytics_enabled is False
    assert server.register_blocks_on_start is False


def test_what_the_administrator_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_HOST", "10.0.0.1")
    assert environment(Settings())["PREFECT_SERVER_API_HOST"] == "10.0.0.1"


def test_a_user_without_a_home_has_one_for_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a container's; Prefect can't be imported then."""
    monkeypatch.setenv("HOME", "/home/anna")
    assert environment(Settings())["HOME"] == "/home/anna"
    monkeypatch.delenv("HOME")
    assert environment(Settings())["HOME"] == str(Settings().storage.prefect_dir)


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_no_proxy_is_asked_for_prefects_server(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for each in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "example.org, 127.0.0.1")
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:3128")
    told = environment(
        Settings(prefect=Prefect(api_url="http://front:4200/api", api_auth_string=SecretStr("a:of-sixteen-or-more")))
    )
    assert told["no_proxy"] == told["NO_PROXY"] == "example.org,127.0.0.1,localhost,::1,front"
    for each in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(each, told[each])
    assert all(map(proxy_bypass_environment, ("front", "127.0.0.1", "localhost")))
    assert environment(Settings())["NO_PROXY"] == told["NO_PROXY"]


def test_no_environment_variable_removes_the_password_or_lets_other_origins_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_CORS_ALLOWED_ORIGINS")
    for name in names:
        monkeypatch.setenv(name, "*")
    told = environment(Settings(prefect=Prefect(api_auth_string=SecretStr("user:password-of-a-test"))))
    assert [told[name] for name in names] == [
        "user:password-of-a-test",
        "user:password-of-a-test",
        "http://127.0.0.1:4200",
    ]

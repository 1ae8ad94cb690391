"""The password of Prefect's API: made once, the configured one before it, and words where its file is of no use."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr, ValidationError

from mkiso.config import in_force as config_in_force
from mkiso.config.settings import Prefect, Settings
from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError
from mkiso_service.cli.main import run
from mkiso_service.prefect.password import password_file, with_password


def settings_in(folder: Path, api_auth_string: str = "") -> Settings:
    return Settings(storage=Storage(data_dir=folder), prefect=Prefect(api_auth_string=SecretStr(api_auth_string)))


def password_of(settings: Settings) -> str:
    return settings.prefect.api_auth_string.get_secret_value()


def test_it_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "data")
    first = password_of(with_password(settings, make=True))
    assert first.startswith("mkiso:") and len(first) >= 38
    assert password_of(with_password(settings, make=True)) == password_of(with_password(settings)) == first
    file = password_file(settings.storage)
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in file.parent.iterdir()] == ["password"]
    assert password_of(with_password(settings_in(tmp_path / "other"), make=True)) != first


def test_processes_that_make_it_at_once_have_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: password_of(with_password(settings_in(tmp_path), make=True)), range(32)))
    assert len(set(made)) == 1


def test_the_configured_one_wins_and_no_file_is_made(tmp_path: Path) -> None:
    password_file(settings_in(tmp_path).storage).parent.mkdir()
    password_file(settings_in(tmp_path).storage).write_text("of:file")
    assert (
        password_of(with_password(settings_in(tmp_path, "my:own-password-of-a-test"), make=True))
        == "my:own-password-of-a-test"
    )
    assert (
        password_of(with_password(settings_in(tmp_path / "other", "my:own-password-of-a-test"), make=True))
        == "my:own-password-of-a-test"
    )
    assert not (tmp_path / "other").exists()


def test_a_lost_password_file_is_an_error_and_made_again_only_at_a_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_in(tmp_path)
    with pytest.raises(ConfigurationError, match="isn't there: mkiso serve makes it"):
        with_password(settings)
    assert not list(tmp_path.iterdir())
    with caplog.at_level(logging.WARNING, "mkiso.prefect"):
        first = password_of(with_password(settings, make=True))
        assert not caplog.records
        (tmp_path / "prefect" / "prefect.db").touch()
        password_file(settings.storage).unlink()
        assert password_of(with_password(settings, make=True)) != first
    assert "no password of Prefect's API any more: a new one is made" in caplog.text and "mkiso:" not in caplog.text


@pytest.mark.parametrize(
    "content",
    [b"", b"\n \n", b"nobody", b":", b"mkiso:", b":secret", b"a:b\nc:d", b"a:b c", b"a:\x00", b"a:\xff", b"a:b" * 200],
)
@pytest.mark.parametrize("make", [True, False])
def test_a_file_without_a_password_is_said(tmp_path: Path, content: bytes, make: bool) -> None:
    file = password_file(settings_in(tmp_path).storage)
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"is empty or isn't user:password\. Remove it"):
        with_password(settings_in(tmp_path), make=make)
    assert file.read_bytes() == content


def test_a_file_that_can_not_be_read_is_said(tmp_path: Path) -> None:
    password_file(settings_in(tmp_path).storage).mkdir(parents=True)  # root may read what chmod forbids
    with pytest.raises(ConfigurationError, match=r"can't be read: Is a directory\. It belongs to the user"):
        with_password(settings_in(tmp_path), make=True)


def test_one_command_shows_it_and_a_start_ends_in_words_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MKISO_CONFIG", "replaced below, and restored after the test")
    monkeypatch.setattr(config_in_force, "_in_force", None)
    configuration = tmp_path / "config.yaml"
    configuration.write_text(yaml.safe_dump({"storage": {"data_dir": str(tmp_path / "data")}}))
    show = ["-c", str(configuration), "prefect", "password"]
    assert run(show) == 2
    assert "isn't there" in capsys.readouterr().err
    made = password_of(with_password(settings_in(tmp_path / "data"), make=True))
    assert run(show) == 0
    assert capsys.readouterr().out == f"{made}\n"
    password_file(settings_in(tmp_path / "data").storage).write_text("")
    for command in (["serve"], ["worker"], ["webhook"], ["prefect"], ["deploy"], ["prefect", "password"]):
        assert run(["-c", str(configuration), *command]) == 2, command
        assert "is empty or isn't user:password" in capsys.readouterr().err


def test_a_server_elsewhere_has_a_password() -> None:
    with pytest.raises(ValidationError, match="api_auth_string is empty"):
        Prefect(api_url="http://prefect.example.org:4200/api")
    assert Prefect(
        api_url="http://prefect.example.org:4200/api", api_auth_string=SecretStr("user:password-of-a-test")
    ).api_url

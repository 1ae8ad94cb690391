"""The settings of a process: those that it was started with, whatever is saved to the file meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from mkiso.config import in_force as config_in_force
from mkiso.config.file import load
from mkiso.config.in_force import handed_on, in_force, take_over, use
from mkiso.errors import ConfigurationError

TEXT = """
auth: {enabled: true, api_key: "s3cret ü"}
patient_api: {headers: {X-Token: t0ken}}
archive: {ledger_url: "postgresql://a:b@c/d", modalities: [CT, MR]}
publishers: {robot: {kind: epson, directory: in, label_fields: {Name: "{patient_name}"}}}
print: {publisher: robot}
receiver: {tls: {enabled: true, certificate: c.pem, key: k.pem}}
storage: {shared_dir: shared}
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(config_in_force, "_in_force", None)
    monkeypatch.setenv("MKISO_CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text(TEXT, encoding="utf-8")
    return tmp_path / "config.yaml"


def test_a_process_keeps_the_settings_that_it_was_started_with(file: Path) -> None:
    started_with = load()
    use(started_with)
    file.write_text("auth: {enabled: fal")
    assert in_force() == started_with


def test_who_was_started_with_none_reads_the_file(file: Path) -> None:
    assert in_force() == load()
    file.write_text("auth: {enabled: fal")
    with pytest.raises(ConfigurationError):
        in_force()


def test_settings_are_handed_on_whole_with_their_secrets(file: Path) -> None:
    settings = load()
    with handed_on(settings) as stream:
        file.unlink()
        take_over(stream)
    assert in_force() == settings
    assert in_force().auth.api_key.get_secret_value() == "s3cret ü"
    assert in_force().patient_api.headers["X-Token"].get_secret_value() == "t0ken"


def test_several_sources_are_handed_on_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "sources.yaml").write_text("sources: [{name: b, port: 1}, {name: a, ae_title: X}]")
    settings = load(tmp_path / "sources.yaml", {})
    with handed_on(settings) as stream:
        take_over(stream)
    assert [source.name for source in in_force().all_sources] == ["b", "a"]

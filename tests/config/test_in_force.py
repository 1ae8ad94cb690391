"""The settings of a process: those that it was started with, whatever is saved to the file meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from mkiso.config import in_force as config_in_force
from mkiso.config.file import load
from mkiso.config.in_force import in_force, use
from mkiso.errors import ConfigurationError

TEXT = """
auth: {enabled: true, api_key: "s3cret ü of a test"}
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

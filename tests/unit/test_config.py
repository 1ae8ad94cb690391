"""The configuration: what is read from where, every problem at once, and config.example.yaml in step with the models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from mkiso.config import Publisher, Settings
from mkiso.config_file import load
from mkiso.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.yaml"


def write(folder: Path, text: str) -> Path:
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def keys_of(values: Mapping[str, Any], model: type[BaseModel], where: str = "") -> Iterator[str]:
    """The dotted keys of an example, as deep as the models are."""
    for key, value in values.items():
        annotation = model.model_fields[key].annotation if key in model.model_fields else None
        if where == "publishers.":
            yield from keys_of(value, Publisher, "publishers.NAME.")
        elif key == "publishers":
            yield from keys_of(value, Settings, "publishers.")
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from keys_of(value, annotation, f"{where}{key}.")
        else:
            yield f"{where}{key}"


def keys_in(model: type[BaseModel], where: str = "") -> Iterator[str]:
    """The dotted keys of the models."""
    for key, field in model.model_fields.items():
        if f"{where}{key}" == "publishers":
            yield from keys_in(Publisher, "publishers.NAME.")
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_in(field.annotation, f"{where}{key}.")
        else:
            yield f"{where}{key}"


def test_the_example_has_every_key_and_no_other() -> None:
    example = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert sorted(keys_of(example, Settings)) == sorted(keys_in(Settings))


def test_the_example_says_the_defaults() -> None:
    assert Settings.model_validate(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))) == Settings()


def test_the_example_has_words_for_every_key() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if re.match(r" +\w+: \S", line) and not re.search(r" # \S", line)] == []


def test_without_a_file_there_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(environment={})
    assert settings.pacs == Settings().pacs
    assert settings.storage.data_dir == tmp_path / "data"


def test_a_named_file_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="doesn't exist"):
        load(environment={"MKISO_CONFIG": str(tmp_path / "none.yaml")})


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "pacs: {host: a, port: 1}")
    settings = load(file, {"MKISO__PACS__HOST": "b", "MKISO__ARCHIVE__MODALITIES": "[CT, MR]", "MKISO__RECEIVER__TLS__ENABLED": "false"})
    assert (settings.pacs.host, settings.pacs.port, settings.archive.modalities) == ("b", 1, ("CT", "MR"))


def test_a_key_of_digits_keeps_its_zeros(tmp_path: Path) -> None:
    settings = load(write(tmp_path, ""), {"MKISO__AUTH__ENABLED": "true", "MKISO__AUTH__API_KEY": "0123"})
    assert settings.auth.api_key.get_secret_value() == "0123"


def test_a_secret_comes_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    settings = load(write(tmp_path, "auth: {enabled: true, api_key_file: key}"), {})
    assert settings.auth.api_key.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings)


def test_folders_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "storage: {data_dir: here}\nviewer: {directory: viewer}"), {})
    assert settings.storage.data_dir == tmp_path / "here"
    assert settings.archive.directory == tmp_path / "here" / "archive"
    assert settings.viewer.directory == str(tmp_path / "viewer")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pacs: {hots: x}", "pacs.hots is no key of mkiso; did you mean pacs.host?"),
        ("receiver: {tls: {enable: true}}", "did you mean receiver.tls.enabled?"),
        ("publishers: {rimage: {aetitle: X}}", "did you mean publishers.rimage.ae_title?"),
        ("pacs: {port: 70000}", "pacs.port"),
        ("pacs: {ae_title: ABCDEFGHIJKLMNOPQ}", "pacs.ae_title"),
        ("pacs: {ae_title: 'A\\B'}", "pacs.ae_title"),
        ("auth: {enabled: true}", "auth.api_key is empty"),
        ("auth: {api_key_file: none}", "none"),
        ("print: {publisher: robot}", "print.publisher is 'robot'"),
        ("archive: {output: robot}", "archive.output is 'robot'"),
        ("publishers: {rimage: {kind: epson}}", "needs directory"),
        ("publishers: {rimage: {label_encoding: klingon}}", "klingon is no text encoding"),
        ("receiver: {tls: {enabled: true}}", "tls.certificate and tls.key are needed"),
        ("patient_api: {path: /p}", "must contain {accession_number}"),
        ("audit: {target: 'udp://logs:99999'}", "audit.target: Port out of range"),
        ("audit: {target: 'tls://logs:0'}", "audit.target: names port 0"),
        ("audit: {target: 'udp://[logs:514'}", "audit.target"),
        ("- a list", "must hold sections"),
        ("pacs: [", "can't be read"),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(write(tmp_path, text), {})
    assert words in " ".join(raised.value.problems)


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(write(tmp_path, "pacs: {hots: x, port: 0}\nserver: {port: a}\ndisc: {medium: floppy}"), {})
    assert len(raised.value.problems) == 4


def test_what_a_variable_names_has_to_be_a_section(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="which is no section"):
        load(write(tmp_path, "pacs: {host: a}"), {"MKISO__PACS__HOST__NAME": "b"})
    with pytest.raises(ConfigurationError, match="no YAML list"):
        load(write(tmp_path, ""), {"MKISO__ARCHIVE__MODALITIES": "[CT"})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().pacs.host = "elsewhere"

"""The configuration: what is read from where, every problem at once, and config.example.yaml in step with the
models.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from mkiso.config import file as config_file
from mkiso.config import publishers, sources
from mkiso.config.file import load, read
from mkiso.config.publishers import KINDS, CStore, MediaCreation, Robot
from mkiso.config.settings import Settings
from mkiso.config.sources import Pacs
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
        if key == "publishers":
            yield from (f"publishers.NAME.{each}" for each in sorted({each for one in value.values() for each in one}))
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from keys_of(value, annotation, f"{where}{key}.")
        else:
            yield f"{where}{key}"


def keys_in(model: type[BaseModel], where: str = "") -> Iterator[str]:
    """The dotted keys of the models."""
    for key, field in model.model_fields.items():
        if f"{where}{key}" == "publishers":
            keys = {each for kind in KINDS.values() for each in kind.model_fields}
            yield from (f"publishers.NAME.{each}" for each in sorted(keys))
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_in(field.annotation, f"{where}{key}.")
        else:
            yield f"{where}{key}"


def test_the_example_has_every_key_and_no_other() -> None:
    text = re.sub(r"^  # ( *\w+:)", r"  \1", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    example = yaml.safe_load(text)
    assert sorted(keys_of(example, Settings)) == sorted(keys_in(Settings))


def test_the_example_says_the_defaults() -> None:
    example = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert example.pop("sources") == []  # a list, which the settings have by name
    assert Settings.model_validate(example) == Settings()


def test_the_example_has_words_for_every_key() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if re.match(r" +\w+: \S", line) and not re.search(r" # \S", line)] == []


def test_without_a_file_there_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config_file, "INSTALLED", tmp_path / "none.yaml")  # this machine may have mkiso installed
    settings = load(environment={})
    assert settings.pacs == Settings().pacs
    assert settings.storage.data_dir == tmp_path / "data"


def test_a_named_file_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="doesn't exist"):
        load(environment={"MKISO_CONFIG": str(tmp_path / "none.yaml")})


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "pacs: {host: a, port: 1}")
    settings = load(
        file,
        {"MKISO__PACS__HOST": "b", "MKISO__ARCHIVE__MODALITIES": "[CT, MR]", "MKISO__RECEIVER__TLS__ENABLED": "false"},
    )
    assert isinstance(settings.pacs, Pacs)
    assert (settings.pacs.host, settings.pacs.port, settings.archive.modalities) == ("b", 1, ("CT", "MR"))


def test_a_key_of_digits_keeps_its_zeros(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "{}"), {"MKISO__AUTH__ENABLED": "true", "MKISO__AUTH__API_KEY": "0123456789012345"})
    assert settings.auth.api_key.get_secret_value() == "0123456789012345"


def test_a_secret_comes_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret-of-the-file\n")
    settings = load(write(tmp_path, "auth: {enabled: true, api_key_file: key}"), {})
    assert settings.auth.api_key.get_secret_value() == "s3cret-of-the-file"
    assert "s3cret" not in repr(settings)


PLAIN, FILED = "MKISO__AUTH__API_KEY", "MKISO__AUTH__API_KEY_FILE"


@pytest.mark.parametrize(
    ("file", "environment", "key"),
    [
        ("api_key: plain in the file", {}, "plain in the file"),
        ("api_key_file: one", {}, "the secret of one"),
        ("api_key: plain in the file", {PLAIN: "set as a variable"}, "set as a variable"),
        ("api_key: plain in the file", {FILED: "two"}, "the secret of two"),
        ("api_key_file: one", {PLAIN: "set as a variable"}, "set as a variable"),
        ("api_key_file: one", {FILED: "two"}, "the secret of two"),
        ("api_key_file: none", {PLAIN: "set as a variable"}, "set as a variable"),
        ("api_key_file: none", {FILED: "two"}, "the secret of two"),
        ("", {PLAIN: "set as a variable"}, "set as a variable"),
        ("", {FILED: "two"}, "the secret of two"),
        ("", {"MKISO__AUTH": "{api_key_file: two}"}, "the secret of two"),
        ("api_key: plain in the file", {"MKISO__AUTH": "{api_key_file: two}"}, "the secret of two"),
        ('api_key: ""', {FILED: "two"}, "the secret of two"),
        ('api_key: "", api_key_file: one', {}, "the secret of one"),
        ("api_key: null, api_key_file: one", {}, "the secret of one"),
        ("api_key: 0123456701234567", {}, "0123456701234567"),
        ("api_key: 1000000000000.e3", {}, "1000000000000.e3"),
        ("api_key: 2026-01-01 00:00:00", {}, "2026-01-01 00:00:00"),
        ("api_key: 12:34:56:12:34:56", {}, "12:34:56:12:34:56"),
    ],
)
def test_the_environment_decides_a_secret_whichever_its_form(
    tmp_path: Path, file: str, environment: dict[str, str], key: str
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f" the secret of {name}\n")
    settings = load(write(tmp_path, f"auth: {{enabled: true, {file}}}"), environment)
    assert settings.auth.enabled
    assert settings.auth.api_key.get_secret_value() == key


@pytest.mark.parametrize(
    ("file", "environment", "words"),
    [
        ("api_key: aaaaaaaaaaaaaaaa, api_key_file: one", {}, "auth.api_key and auth.api_key_file are both set"),
        (
            "api_key: aaaaaaaaaaaaaaaa, api_key_file: one",
            {PLAIN: "set as a variable"},
            "auth.api_key and auth.api_key_file are both set",
        ),
        ("", {PLAIN: "a" * 16, FILED: "one"}, f"{PLAIN} and {FILED} are both set"),
        ("api_key: aaaaaaaaaaaaaaaa", {PLAIN: "", FILED: "one"}, f"{PLAIN} and {FILED} are both set"),
        ("api_key_file: empty", {}, "empty of auth.api_key_file is empty"),
        ("api_key_file: blank", {}, "blank of auth.api_key_file is empty"),
        ("api_key_file: lines", {}, "has more than one line"),
        ("api_key_file: none", {}, "none of auth.api_key_file can't be read: No such file"),
        ("api_key_file: noise", {}, "noise of auth.api_key_file can't be read: it is no text"),
        ("api_key_file: .", {}, "of auth.api_key_file can't be read: Is a directory"),
        ('api_key_file: ""', {}, "auth.api_key_file names no file"),
        ("api_key_file: null", {}, "auth.api_key_file names no file"),
        ("api_key_file: [a]", {}, "auth.api_key_file names no file"),
        ('api_key: "  "', {}, "auth.api_key is set and empty"),
        ("api_key: aaaaaaaaaaaaaaaa", {FILED: "empty"}, f"empty of {FILED} is empty"),
        ("api_key: aaaaaaaaaaaaaaaa", {FILED: ""}, f"{FILED} names no file"),
        ("api_key: aaaaaaaaaaaaaaaa", {PLAIN: ""}, f"{PLAIN} is set and empty"),
        ("api_key: aaaaaaaaaaaaaaaa", {PLAIN: " \n"}, f"{PLAIN} is set and empty"),
        ("api_key: aaaaaaaaaaaaaaaa", {"MKISO__AUTH": '{api_key: ""}'}, "auth.api_key is set and empty"),
        ("api_key: aaaaaaaaaaaaaaaa", {PLAIN: "b" * 16, "MKISO__auth__api_key": "c" * 16}, "are the same key"),
    ],
)
def test_no_secret_is_guessed(tmp_path: Path, file: str, environment: dict[str, str], words: str) -> None:
    (tmp_path / "one").write_text("the secret of one")
    (tmp_path / "empty").touch()
    (tmp_path / "blank").write_text(" \n\t\n")
    (tmp_path / "lines").write_text("a\nb\n")
    (tmp_path / "noise").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError) as raised:
        load(write(tmp_path, f"auth: {{enabled: true, {file}}}"), environment)
    assert [words in problem for problem in raised.value.problems] == [True]


SECRETS = (
    "auth.api_key",
    "auth.keys.ris.key",
    "sign_in.client_secret",
    "deidentified.secret",
    "archive.ledger_url",
    "prefect.api_auth_string",
    "patient_api.headers.x-token",
)


@pytest.mark.parametrize("where", SECRETS)
def test_an_empty_secret_is_never_no_secret(tmp_path: Path, where: str) -> None:
    (tmp_path / "empty").touch()
    variable = "__".join(("MKISO", *where.upper().split(".")))
    for environment in (
        {variable: ""},
        {f"{variable}_FILE": "empty"},
        {f"{variable}_FILE": ""},
        {f"{variable}_FILE": "none"},
    ):
        with pytest.raises(ConfigurationError, match=variable) as raised:
            load(write(tmp_path, "{}"), environment)
        assert "characters" not in str(raised.value)
    *sections, key = where.split(".")
    text = "".join(f"{section}: {{" for section in sections) + f"{key}_file: empty" + "}" * len(sections)
    with pytest.raises(ConfigurationError, match=f"{where}_file is empty"):
        load(write(tmp_path, text), {})


def secret_keys(model: type[BaseModel], where: str = "") -> Iterator[str]:
    """The dotted keys of every secret; x-token stands for the keys of a mapping of secrets, ris for those of one of
    sections.
    """
    for key, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        if SecretStr in kinds:
            yield f"{where}{key}" if field.annotation is SecretStr else f"{where}{key}.x-token"
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from secret_keys(kind, f"{where}{key}." if kind is field.annotation else f"{where}{key}.ris.")


def test_every_secret_is_tried() -> None:
    assert sorted(SECRETS) == sorted(secret_keys(Settings))


def test_what_is_no_secret_is_read_from_no_file(tmp_path: Path) -> None:
    (tmp_path / "host").write_text("elsewhere")
    with pytest.raises(ConfigurationError, match=r"pacs\.host_file is no key of mkiso"):
        load(write(tmp_path, "pacs: {host_file: host}"), {})
    settings = load(write(tmp_path, "publishers: {rimage: {kind: mcm, label_fields: {Print_file: host}}}"), {})
    rimage = settings.publishers["rimage"]
    assert isinstance(rimage, MediaCreation) and rimage.label_fields == {"Print_file": "host"}


def test_a_section_from_the_environment_leaves_the_rest_of_it(tmp_path: Path) -> None:
    """Whatever order the variables come in: a section that took the place of the file's would take `enabled`
    with it.
    """
    file = write(tmp_path, "auth: {enabled: true, api_key: aaaaaaaaaaaaaaaa}\npacs: {host: one}")
    section = "{api_key: bbbbbbbbbbbbbbbb}"
    for variables in ({"MKISO__AUTH": section, PLAIN: "c" * 16}, {PLAIN: "c" * 16, "MKISO__AUTH": section}):
        settings = load(file, variables)
        assert (settings.auth.enabled, settings.auth.api_key.get_secret_value(), settings.pacs.host) == (
            True,
            "c" * 16,
            "one",
        )


def test_a_variable_finds_the_name_that_the_file_writes_otherwise(tmp_path: Path) -> None:
    """A second publisher would have a robot, a turn and orders of its own beside the one that was meant."""
    file = write(
        tmp_path,
        "publishers: {Rimage: {kind: mcm, port: 1, label_fields: {Name: x}}}\nprint: {publisher: Rimage}\n"
        "patient_api: {headers: {Authorization: a}}",
    )
    variables = {
        "MKISO__PUBLISHERS__RIMAGE__PORT": "2",
        "MKISO__PUBLISHERS__RIMAGE__LABEL_FIELDS__NAME": "y",
        "MKISO__PATIENT_API__HEADERS__AUTHORIZATION": "b",
    }
    settings = load(file, variables)
    [(name, rimage)] = settings.publishers.items()
    assert isinstance(rimage, MediaCreation)
    assert (name, rimage.port, rimage.label_fields) == ("Rimage", 2, {"Name": "y"})
    assert {name: each.get_secret_value() for name, each in settings.patient_api.headers.items()} == {
        "Authorization": "b"
    }
    whole = load(file, {"MKISO__PUBLISHERS": "{rImage: {port: 3}}"})
    [(name, rimage)] = whole.publishers.items()
    assert isinstance(rimage, MediaCreation) and (name, rimage.port) == ("Rimage", 3)


@pytest.mark.parametrize("text", ["publishers: {rimage: {}, Rimage: {}}", "patient_api: {headers: {Key: a, KEY: b}}"])
def test_two_names_that_differ_by_case_alone_are_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="are the same name"):
        load(write(tmp_path, text), {})


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    """YAML would take the last: a second `auth:` further down would switch authentication off."""
    with pytest.raises(ConfigurationError, match="auth stands there twice"):
        load(write(tmp_path, "auth: {enabled: true, api_key: a}\npacs: {host: b}\nauth: {}"), {})
    with pytest.raises(ConfigurationError, match="host stands there twice"):
        load(write(tmp_path, "pacs: {host: a, host: b}"), {})
    merged = "publishers: {a: &a {ae_title: X, port: 1}, b: {<<: *a, port: 2}}\nprint: {publisher: b}"
    second = load(write(tmp_path, merged), {}).publishers["b"]
    assert isinstance(second, CStore) and second.port == 2


def test_an_empty_file_is_no_configuration(tmp_path: Path) -> None:
    """As a power cut leaves a file that was being saved: the defaults would ask another PACS and want no key."""
    for text in ("", "\n \n"):
        with pytest.raises(ConfigurationError, match="is empty"):
            load(write(tmp_path, text), {})
    assert load(write(tmp_path, "# all defaults"), {}).pacs == Settings().pacs


def test_a_file_that_is_there_and_can_not_be_read_is_no_absent_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").symlink_to("gone.yaml")
    with pytest.raises(ConfigurationError, match="doesn't exist"):
        load(environment={})
    Path("config.yaml").unlink()
    Path("config.yaml").mkdir()
    with pytest.raises(ConfigurationError, match="Is a directory"):
        load(environment={})


def test_what_is_said_of_a_broken_file_quotes_none_of_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(write(tmp_path, "auth:\n  api_key: [s3cret\nx: y"), {})
    assert "s3cret" not in str(raised.value) and "line 3" in str(raised.value)


def test_folders_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "storage: {data_dir: here}\nviewer: {directory: viewer}"), {})
    assert settings.storage.data_dir == tmp_path / "here"
    assert settings.archive.directory == tmp_path / "here" / "archive"
    assert settings.viewer.directory == str(tmp_path / "viewer")


def test_every_file_and_folder_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wherever a process is started: else the webhook and the worker would write to folders of their own."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = "publishers: {robot: {kind: epson, directory: in, status_directory: /out}}\nprint: {publisher: robot}\n"
    settings = load(
        write(tmp_path, f"{text}receiver: {{tls: {{certificate: c.pem}}}}\naudit: {{authority: a.pem}}"), {}
    )
    robot = settings.publishers["robot"]
    assert isinstance(robot, Robot)
    assert (robot.directory, robot.status_directory) == (tmp_path / "in", Path("/out"))
    assert settings.receiver.tls.certificate == tmp_path / "c.pem"
    assert settings.audit.authority == tmp_path / "a.pem"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pacs: {hots: x}", "pacs.hots is no key of mkiso; did you mean pacs.host?"),
        ("prefect: {port: 4201}", "prefect.port is no key of mkiso; did you mean prefect.server_port?"),
        ("receiver: {tls: {enable: true}}", "did you mean receiver.tls.enabled?"),
        ("publishers: {rimage: {aetitle: X}}", "did you mean publishers.rimage.ae_title?"),
        ("pacs: {port: 70000}", "pacs.port"),
        ("pacs: {port: eleven}", "pacs.port: write a whole number"),
        ("audit: [enabled]", "audit: write its entries below it, indented"),
        ("audit: {enabled: maybe}", "audit.enabled: write true or false"),
        ("inboxes: {BURN: {senders: CT1}}", "inboxes.BURN.senders: write a list, with brackets: [one, another]"),
        (
            "inboxes: {ABCDEFGHIJKLMNOPQ: {senders: [CT1]}}",
            "inboxes.ABCDEFGHIJKLMNOPQ, as a name: must have at most 16 characters (line 1)",
        ),
        ("pacs: {kind: dicomweb}", "pacs needs base_url: the address"),
        ("pacs: {kind: dicomweb, base_url: 'http://a.org/', secret: x}", "pacs: base_url is http, and a secret"),
        ("pacs: {kind: dicomweb, base_url: 'https://a.org/', port: 1}", "pacs.port is a key of pacs of kind cmove"),
        ("pacs: {kind: pigeon}", "pacs: kind is one of cmove"),
        ("pacs: {ae_title: ABCDEFGHIJKLMNOPQ}", "pacs.ae_title"),
        ("pacs: {ae_title: 'A\\B'}", "pacs.ae_title"),
        ("auth: {enabled: true}", "auth.api_key is empty"),
        ("auth: {api_key_file: none}", "none"),
        ("print: {publisher: robot}", "print.publisher is 'robot'"),
        ("archive: {output: robot}", "archive.output is 'robot'"),
        ("publishers: {rimage: {kind: epson}}", "needs directory"),
        ("publishers: {rimage: {kind: epson, directory: in, label_encoding: klingon}}", "klingon is no text encoding"),
        ("publishers: {rimage: {directory: in}}", "a key of publishers of kind epson, primera, rimage, folder"),
        ("publishers: {rimage: {kind: robot}}", "kind is one of cstore, mcm, epson"),
        ("receiver: {tls: {enabled: true}}", "tls.certificate and tls.key are needed"),
        ("patient_api: {path: /p}", "must contain {accession_number}"),
        ("audit: {target: 'udp://logs:99999'}", "audit.target: Port out of range"),
        ("audit: {target: 'tls://logs:0'}", "audit.target: names port 0"),
        ("audit: {target: 'udp://[logs:514'}", "audit.target"),
        ("disc: {keep_hours: inf}", "disc.keep_hours"),
        ("disc: {reuse_minutes: nan}", "disc.reuse_minutes"),
        ("storage: {min_free_gib: .nan}", "storage.min_free_gib"),
        ("storage: {shared_dir: ''}", "storage.shared_dir is empty"),
        ("storage: {data_dir: ~/mkisodata}", "storage.data_dir has a ~ at its beginning"),
        ("viewer: {directory: ~mkiso}", "viewer.directory has a ~ at its beginning"),
        ("auth: {api_key_file: ~/key}", "auth.api_key_file has a ~ at its beginning"),
        ("audit: {target: ~/audit.xml}", "audit.target has a ~ at its beginning"),
        ("viewer: {directory: v, executable: ../x.exe}", "viewer.executable is to be a file in viewer.directory"),
        ("viewer: {directory: v, executable: 'C:\\x.exe'}", "viewer.executable is to be a file in viewer.directory"),
        ("viewer: {directory: v, executable: /x.exe}", "viewer.executable is to be a file in viewer.directory"),
        (
            "inboxes: {BURN_CT: {senders: [A]}, 'BURN_CT ': {senders: [A]}}",
            "inboxes: 'BURN_CT' and 'BURN_CT ' are the same AE title: remove one",
        ),
        (
            "inboxes: {B: {senders: [A], reports: {A: {host: h, port: 1}, ' A': {host: h, port: 2}}}}",
            "inboxes.B.reports: 'A' and ' A' are the same AE title: remove one",
        ),
        ("publishers: {rimage: {kind: folder, directory: ''}}", "publishers.rimage.directory is empty"),
        ("- a list", "must hold sections"),
        ("pacs: [", "can't be read"),
        ("[" * 5000, "can't be read"),
        ("archive: {schedule: 0 25 * * *}", "'0 25 * * *' is no cron line"),
        ("archive: {schedule: 0 25 * *}", "five fields"),
        ("archive: {schedule: 0 0 2 * * *}", "is no cron line (6 fields)"),
        ("archive: {timezone: localtime}", "'localtime' is no time zone"),
        ("archive: {timezone: posixrules}", "'posixrules' is no time zone"),
        ('auth: {api_key: "a\\nb"}', "auth.api_key has a character that nobody can type or send"),
        ('auth: {enabled: true, keys: {ris: {key: "0123456789abcdef\\n"}}}', "that nobody can type or send"),
        ("patient_api: {headers: {X-Key: schlüssel}}", "X-Key has a character that a header can't have"),
        ("auth: {enabled: true, api_key: fifteen-letters}", "auth.api_key has fewer than 16 characters"),
        ("auth: {enabled: true, keys: {ris: {key: fifteen-letters}}}", "ris.key has fewer than 16 characters"),
        ("prefect: {api_auth_string: 'mkiso:fifteen-letters'}", "has a password that has fewer than 16 characters"),
        ("prefect: {api_auth_string: secret}", "prefect.api_auth_string is a user, a colon and a password"),
        ("prefect: {api_auth_string: 'user:'}", "prefect.api_auth_string is a user, a colon and a password"),
        ("receiver: {allowed_peers: [pacs.local]}", "'pacs.local' is a machine's name: write its address"),
        ("server: {accel_redirect: /_discs}", "server.accel_redirect: write nginx's location with a slash"),
        ("server: {accel_redirect: //}", "server.accel_redirect: write nginx's location with a slash"),
        ("server: {trusted_origins: [ris.example.org]}", "'ris.example.org' is no origin: https://"),
        ("server: {hosts: ['https://discs.example.org']}", "is no name of a machine: write it without https://"),
        ("publishers: &a {rimage: *a}", "line 1: more levels lie below each other than any key has"),
        (
            "publishers: {rimage: {kind: epson, directory: in, label_fields: {Name: '{patient_name'}}}",
            "Name has a bracket { or } without its other one",
        ),
        ("archive: {timezone: Asia/Bankok}", "'Asia/Bankok' is no time zone"),
        ("archive: {timezone: ../Berlin}", "is no time zone"),
        ("archive: {timezone: Europe}", "is no time zone"),
        ("receiver: {port: 8080}", "server.port and receiver.port are both 8080"),
        ("prefect: {server_port: 10104}", "receiver.port and prefect.server_port are both 10104"),
        ("inboxes: {BURN: {senders: []}}", "inboxes.BURN.senders: write at least one, in brackets: [one]"),
        ("publishers: {rimge: {}}", "print.publisher is 'rimage' by default, and there is no such publisher"),
        (
            "print: {publisher: rimge}",
            "print.publisher is 'rimge', and there is no such publisher: publishers has rimage",
        ),
        ("print: {publisher: rimge}", "publishers has rimage alone, the default, since it isn't set"),
        ("print: {publisher: rimage}\npublishers: {}", "publishers has none, so leave print.publisher out"),
        ("inboxes: {BURN: {senders: [CT1], publisher: a}}\npublishers: {}", "such publisher: publishers has none"),
        (
            "inboxes: {BURN: {senders: [CT1, CT2@10.1.0.0/16], reports: {CT2: &a {host: a, port: 1}, CT3: *a}}}",
            "reports names CT3, which may not send: senders has CT1, CT2@10.1.0.0/16",
        ),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(write(tmp_path, text), {})
    assert words in " ".join(raised.value.problems)


@pytest.mark.parametrize(
    "text",
    [
        "publishers: {}",
        "print: {wait_for: done}\npublishers: {}",
        "inboxes: {BURN: {senders: [CT1, 10.1.0.0/16], reports: {CT3: {host: a, port: 1}}}}",
        "inboxes: {BURN: {senders: [10.1.2.3], reports: {CT3: {host: a, port: 1}}}}",
    ],
)
def test_what_may_name_something_that_is_there_is_taken(tmp_path: Path, text: str) -> None:
    load(write(tmp_path, text), {})


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(write(tmp_path, "pacs: {hots: x, port: 0}\nserver: {port: a}\ndisc: {medium: floppy}"), {})
    assert len(raised.value.problems) == 4


def test_one_wrong_inbox_hides_nothing_that_another_says_against_the_rest(tmp_path: Path) -> None:
    text = "inboxes: {BURN: {senders: [10.1.2.0/240]}, BURN2: {senders: [CT1], publisher: epson}}"
    with pytest.raises(ConfigurationError) as raised:
        load(write(tmp_path, text), {})
    assert [problem.split(":")[0] for problem in raised.value.problems] == [
        "inboxes.BURN.senders.0",
        "inboxes.BURN2.publisher is 'epson', and there is no such publisher",
    ]


def test_what_was_left_out_for_its_mistake_isnt_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(write(tmp_path, "inboxes: {BURN: {senders: [CT1, 10.1.2.0/240]}, MISC: {copies: 1}}"), {})
    assert [problem.split(":")[0] for problem in raised.value.problems] == [
        "inboxes.BURN.senders.1",
        "inboxes.MISC needs senders",
    ]


def test_what_a_variable_names_has_to_be_a_section(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="which is no section"):
        load(write(tmp_path, "pacs: {host: a}"), {"MKISO__PACS__HOST__NAME": "b"})
    with pytest.raises(ConfigurationError, match="no YAML list"):
        load(write(tmp_path, "{}"), {"MKISO__ARCHIVE__MODALITIES": "[CT"})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().pacs.host = "elsewhere"  # type: ignore[misc]


TWO = """
sources:
  - {name: main, ae_title: A, port: 1}
  - {name: Cloud, kind: dicomweb, base_url: https://a.org/web, user: u, patient_domain: x, accession_numbers: ["N*"]}
"""


def test_several_sources_are_in_their_order_and_found_by_name(tmp_path: Path) -> None:
    settings = load(write(tmp_path, TWO), {"MKISO__SOURCES__CLOUD__SECRET": "s", "MKISO__SOURCES__MAIN__PORT": "104"})
    assert [source.name for source in settings.all_sources] == ["main", "Cloud"]
    main, cloud = settings.all_sources
    assert (main.kind, main.port, cloud.kind, cloud.has_secret) == ("cmove", 104, "dicomweb", True)  # type: ignore[union-attr]
    assert (settings.source("Cloud"), cloud.section) == (cloud, "sources.Cloud")
    assert [cloud.is_asked_for(number) for number in ("N1", "1N", "n1")] == [True, False, False]
    assert Settings().all_sources == (Settings().pacs,) and Settings().pacs.section == "pacs"
    with pytest.raises(KeyError):
        settings.source("")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pacs: {port: 1}" + TWO.replace("user: u, ", ""), "pacs and sources are both set"),
        ("pacs: {name: x}", "pacs.name is set"),
        ("sources: [{name: a, port: 1}, {name: a, port: 2}]", "sources.a stands there twice"),
        ("sources: [{name: a, port: 1}, {name: A, ae_title: X}]", "a and A are the same name"),
        ("sources: [{port: 1}]", "the 1. has no name"),
        ("sources: [{name: a b}]", "sources.a b.name has a character that can't stand there"),
        ("pacs: {ae_title: “PACS”}", "pacs.ae_title has the character “, which can't stand there"),
        ("sources: [{name: a, aetitle: 1}]", "did you mean sources.a.ae_title?"),
        ("sources: [{name: a, base_url: 'https://a.org'}]", "a key of sources of kind dicomweb"),
        ("sources: [{name: a, kind: pigeon}]", "sources.a: kind is one of cmove"),
        (
            "sources: [{name: a, port: 1}, {name: b, port: 2}]",
            "sources.a and sources.b have the same AE title and host",
        ),
        (
            "sources: [{name: a, kind: dicomweb, base_url: 'https://a.org'}, "
            "{name: b, kind: dicomweb, base_url: 'https://a.org'}]",
            "the same base_url",
        ),
    ],
)
def test_what_sources_cant_be_is_told(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        load(write(tmp_path, text), {})


THEIRS = re.compile(r"Input should|String should|Value error|should have|should be|valid |<class|pydantic|\\\\x")
IMPOSSIBLE = (
    "",
    "[]",
    "{}",
    "[[1]]",
    "{a: {b: c}}",
    "-1",
    "99999999999999999999",
    "1.5",
    "x y",
    "ä",
    "nan",
    '"\\t"',
    "~",
)
SECTIONS: list[tuple[str, Any]] = [
    *(
        (f"{name}: ", field.annotation)
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    ),
    *((f"pacs: {{kind: {name}, ", kind) for name, kind in sources.KINDS.items()),
    *((f"publishers: {{a: {{kind: {name}, ", kind) for name, kind in publishers.KINDS.items()),
    ("inboxes: {BURN: {senders: [CT], ", Settings.model_fields["inboxes"].annotation),
]


@pytest.mark.parametrize(("begins", "model"), SECTIONS, ids=[begins for begins, _ in SECTIONS])
def test_no_message_about_any_key_is_in_another_s_words(tmp_path: Path, begins: str, model: Any) -> None:
    inner = model if hasattr(model, "model_fields") else get_args(model)[1]
    inner = inner if hasattr(inner, "model_fields") else get_args(inner)[0]
    for key in inner.model_fields:
        for value in IMPOSSIBLE:
            opened = begins if "{" in begins else f"{begins}{{"
            text = f"{opened}{key}: {value}{'}' * opened.count('{')}"
            for words in read(write(tmp_path, text), {})[1]:
                assert not THEIRS.search(words), f"{text} -> {words}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pacs:\n\thost: x\n", "line 2: a tab begins it: indent with spaces"),
        ("server: {}\npacs: {host: x\n", "line 2: a bracket isn't closed"),
        ("pacs:\n  host: x\n port: 4\n", "line 3: it doesn't begin below the line that it belongs to"),
        ('a: 1\npacs: "x\n\n', "line 2: a quote isn't closed"),
        ('disc:\n  contact: "x\n  institution: "y"\n', "line 3: a quote ends before its text, or one above"),
        ("disc:\n  contact: 'Dr. O'Neill'\n", "line 2: a quote ends before its text"),
        ("pacs: {host: @x}", "line 1: no text can begin with such a character: put it in quotes"),
        ("disc:\n  contact: a: b", "line 2: a second colon: put the text in quotes"),
        ("pacs:\n  port:104\n  host: x\n", "or check the spaces before it and after the colon above"),
        (
            "pacs:\n  host: x\n  port:104\n\ndisc: {}\n",
            "line 3: a key without its colon, or without the space after it",
        ),
        ("just text", "not a text alone"),
        ("pacs: {host: *a}", "line 1: a text that begins with * needs quotes"),
        ("pacs: {host: !a b}", "line 1: a text that begins with ! needs quotes"),
        ("pacs: {}\n---\ndisc: {}", "line 2: a second document begins"),
        ('disc: {contact: "a\\q"}', "line 1: a backslash in double quotes"),
        ("? [a]\n: b", "line 1: a key is one word"),
        ("- a", "must hold sections such as 'pacs:', not a list"),
        ("\x00", "it is no YAML"),
    ],
)
def test_where_yaml_breaks_is_said_with_what_to_do(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read(write(tmp_path, text), {})
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("text", "environment", "words"),
    [
        ("disc: {}\npacs:\n  host: x\n  port: 0\n", {}, "pacs.port must be at least 1 (line 4)"),
        ("pacs:\n  port: 5\n", {"MKISO__PACS__PORT": "0"}, "pacs.port must be at least 1 (MKISO__PACS__PORT)"),
        ("sources:\n  - name: a\n    port: 0\n", {}, "sources.a.port must be at least 1 (line 3)"),
        ("disc:\n  medium: floppy\n", {}, "disc.medium: write one of cd, dvd, dvd-dl, bd, bd-dl (line 2)"),
        ("pacs:\n\n  hots: x\n", {}, "did you mean pacs.host? (line 3)"),
        ("publishers:\n  a:\n    kind: folder\n", {}, "needs directory: the folder that it watches (line 2)"),
        ("auth:\n  enabled: true\n", {}, "auth.enabled is true and auth.api_key is empty"),
        ("pacs: abc\n", {}, "pacs: write its entries below it, indented (line 1)"),
        ("inboxes:\n  reports: {}\n", {}, "inboxes.reports needs senders: who may send"),
        ("{}", {"MKISO__\udc80": "x"}, "The environment variable 'MKISO__\\udc80' has a name that no key has"),
        ("audit: {target: 'udp:siem:514'}", {}, "audit.target is a file, udp://host:port or tls://host:port (line 1)"),
    ],
)
def test_a_problem_is_told_with_its_line_or_variable(
    tmp_path: Path, text: str, environment: dict[str, str], words: str
) -> None:
    problems = read(write(tmp_path, text), environment)[1]
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("{}", "http://127.0.0.1:8080"),
        ("{host: 0.0.0.0, port: 80}", "http://127.0.0.1:80"),
        ("{host: '::'}", "http://[::1]:8080"),
        ("{host: 10.1.2.3, public_url: 'https://discs.example.org/'}", "https://discs.example.org"),
    ],
)
def test_the_address_of_the_page_is_one_that_a_browser_takes(tmp_path: Path, server: str, address: str) -> None:
    assert load(write(tmp_path, f"server: {server}"), {}).server.address == address


def test_the_services_own_file_counts_where_there_is_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "etc" / "config.yaml"
    monkeypatch.setattr(config_file, "INSTALLED", installed)
    monkeypatch.chdir(tmp_path)
    assert config_file.file_of({}) == (Path("config.yaml"), False)
    installed.parent.mkdir()
    installed.write_text("server: {port: 8090}\n")
    assert load(environment={}).server.port == 8090
    Path("config.yaml").write_text("server: {port: 8091}\n")
    assert load(environment={}).server.port == 8091
    assert config_file.file_of({"MKISO_CONFIG": "other.yaml"}) == (Path("other.yaml"), True)


@pytest.mark.parametrize("closed", ["etc", "etc/config.yaml"])
def test_a_user_who_may_not_read_the_services_own_file_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    """With the defaults, `mkiso doctor` would report a PACS and a robot that don't exist here."""
    installed = tmp_path / "etc" / "config.yaml"
    monkeypatch.setattr(config_file, "INSTALLED", installed)
    monkeypatch.chdir(tmp_path)
    installed.parent.mkdir()
    installed.write_text("server: {port: 8090}\n")
    (tmp_path / closed).chmod(0)
    before = os.geteuid()
    if not before:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(ConfigurationError, match=r"Permission denied\. Run this as the user that mkiso runs as"):
            load(environment={})
    finally:
        os.seteuid(before)
        (tmp_path / closed).chmod(0o700)

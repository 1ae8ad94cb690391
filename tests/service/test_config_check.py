"""What can't work on this machine is found before a service starts; and what is found only then ends the service, with
its sentence and exit code 2, instead of starting it for ever.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from mkiso.config.publishers import LABEL_VALUES
from mkiso.errors import ConfigurationError
from mkiso.implementation import program_version
from mkiso.publishers.protocol import Order, label_values, tells_part
from mkiso.storage.data_format import FORMAT
from mkiso.study.models import Patient
from mkiso_service.checks.configuration import problems
from peers.certificates import write_certificates
from peers.nursery import nursery
from peers.patience import LONG
from peers.ports import free_port
from tests.config.test_config import write

NOBODYS_ADDRESS = "203.0.113.9"  # RFC 5737


def found(folder: Path, monkeypatch: pytest.MonkeyPatch, **sections: Any) -> list[str]:
    monkeypatch.setenv("MKISO_CONFIG", str(write(folder, yaml.safe_dump(sections))))
    return problems()


def test_what_can_be_no_name_of_a_file_is_told_of_all_paths_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_name = "a\0b"
    paths = {
        "storage": {"data_dir": no_name, "shared_dir": "\udc80"},
        "archive": {"directory": no_name},
        "viewer": {"directory": no_name, "executable": "\ud800"},
        "audit": {"target": no_name, "authority": no_name},
        "disc": {"recipients": [no_name]},
        "auth": {"api_key_file": no_name},
        "sign_in": {"authority": no_name},
        "receiver": {"tls": {"certificate": no_name, "key": no_name}},
        "publishers": {"r": {"kind": "folder", "directory": no_name, "status_directory": "\udfff"}},
        "pacs": {"kind": "dicomweb", "base_url": "https://pacs.example.org", "secret_file": no_name, "key": no_name},
    }
    text = json.dumps(paths)  # which YAML reads, with its escapes
    monkeypatch.setenv("MKISO_CONFIG", str(write(tmp_path, text)))
    told = problems()
    assert len(told) == 16 and all(re.search(r" has .*\(U\+(0000|D[8-F]..)\): write it anew", each) for each in told), (
        told
    )
    halves = {"disc": {"institution": "\ud800", "contact": "\udfff"}, "server": {"public_url": "https://\udc80"}}
    text = json.dumps(halves | {"identity": {"placeholder_ids": ["0", "\ud800"]}})
    monkeypatch.setenv("MKISO_CONFIG", str(write(tmp_path, text)))
    assert len([each for each in problems() if "has half of a character in it" in each]) == 4
    with pytest.raises(ConfigurationError, match="line 1: a key has half of a character"):
        monkeypatch.setenv("MKISO_CONFIG", str(write(tmp_path, '{"\\ud800": 1}')))
        problems()


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"viewer": {"directory": "none"}}, "none isn't there: mount or make it"),
        ({"viewer": {"directory": "file"}}, "file is no folder"),
        ({"viewer": {"directory": "folder", "executable": "x.exe"}}, "viewer.executable x.exe isn't in"),
        ({"viewer": {"executable": "x.exe"}}, "viewer.directory is empty"),
        ({"publishers": {"rimage": {"kind": "rimage", "directory": "none"}}}, "publishers.rimage.directory"),
        (
            {"publishers": {"rimage": {"kind": "rimage", "directory": "folder", "status_directory": "file"}}},
            "publishers.rimage.status_directory",
        ),
        ({"receiver": {"host": NOBODYS_ADDRESS}}, "receiver.host 203.0.113.9 is no address of this machine"),
        (
            {"server": {"host": "no-such-name.invalid"}},
            "server.host no-such-name.invalid is no address of this",
        ),
        ({"receiver": {"tls": {"enabled": True, "certificate": "none", "key": "none"}}}, "receiver.tls can't be used"),
        ({"receiver": {"tls": {"enabled": True, "certificate": "file", "key": "file"}}}, "receiver.tls can't be used"),
        (
            {"receiver": {"tls": {"enabled": True, "certificate": "file", "key": "none"}}},
            "file is no PEM file, which has -----BEGIN in it; key ",
        ),
        ({"audit": {"enabled": True, "target": "tls://syslog", "authority": "file"}}, "file is no PEM file"),
        ({"audit": {"enabled": True, "target": "tls://syslog", "authority": "file"}}, "audit can't use its authority"),
        ({"audit": {"enabled": True, "target": "/none/audit.xml"}}, "/none isn't there"),
        (
            {"pacs": {"kind": "dicomweb", "base_url": "https://a.org", "authority": "file"}},
            "pacs can't use its authority",
        ),
        (
            {"sign_in": {"issuer": "https://a.org", "client_id": "m", "roles": {"clerk": ["c"]}, "authority": "none"}},
            "sign_in can't use its authority: authority ",
        ),
        ({"archive": {"ledger_url": "mysql://here/ledger"}}, "archive.ledger_url must begin with postgresql://"),
        ({"storage": {"data_dir": "file/below"}}, "storage.data_dir"),
        ({"storage": {"shared_dir": "file/below"}}, "storage.shared_dir"),
        ({"storage": {"shared_dir": "nope"}}, "nope isn't there, and mkiso doesn't make what several machines share"),
        ({"storage": {"min_free_gib": 1e9}}, "storage.min_free_gib is 1e+09"),
        ({"viewer": {"directory": "."}}, "holds storage.data_dir"),
        ({"viewer": {"directory": "data/jobs/viewer"}}, "where mkiso clears up"),
        ({"publishers": {"rimage": {"kind": "folder", "directory": "."}}}, "holds storage.data_dir"),
        ({"archive": {"enabled": True, "directory": "discs/archive"}}, "archive.directory"),
    ],
)
def test_what_this_machine_lacks_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any], words: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("no folder, no certificate")
    assert words in " ".join(found(tmp_path, monkeypatch, **sections))


def test_a_certificate_that_has_expired_is_told_before_peers_refuse_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_certificates(tmp_path, days_ago=3)
    ours = {"certificate": "own.pem", "key": "own.key"}
    pacs = {"kind": "dicomweb", "base_url": "https://pacs.example.org", **ours}
    assert sorted(
        words.split(" ")[0]
        for words in found(
            tmp_path,
            monkeypatch,
            pacs=pacs,
            receiver={"tls": {"enabled": True, **ours}},
            audit={"enabled": True, "target": "tls://syslog", **ours},
        )
        if "and not today" in words
    ) == ["audit.certificate", "pacs.certificate", "receiver.tls.certificate"]


def test_a_machine_that_has_everything_lacks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "robot").mkdir()
    (tmp_path / "viewer").mkdir()
    (tmp_path / "viewer" / "x.exe").touch()
    assert not found(
        tmp_path,
        monkeypatch,
        viewer={"directory": "viewer", "executable": "x.exe"},
        publishers={"rimage": {"kind": "rimage", "directory": "robot"}},
        storage={"min_free_gib": 0},
        archive={"enabled": True},
        audit={"enabled": True},
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_what_a_user_may_not_write_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "can't be written by this user" in " ".join(
        found(tmp_path, monkeypatch, storage={"data_dir": "closed/data"})
    )


@pytest.mark.parametrize("least", [0, 5])
def test_a_folder_of_the_kernel_is_told_as_that_and_not_as_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: float
) -> None:
    [words] = found(tmp_path, monkeypatch, storage={"data_dir": "/proc/mkiso", "min_free_gib": least}, publishers={})
    assert words == "storage.data_dir /proc/mkiso can't hold data: /proc is the kernel's own. Name a folder on a disk"


def test_a_file_system_that_is_read_only_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "robot").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    told = SimpleNamespace(f_flag=os.ST_RDONLY, f_blocks=1, f_frsize=1, f_bavail=1, f_bfree=1)
    monkeypatch.setattr(os, "statvfs", lambda _: told)
    robot = {"kind": "folder", "directory": "robot"}
    wrong = found(tmp_path, monkeypatch, storage={"min_free_gib": 0}, publishers={"rimage": robot})
    assert [words.partition(". Name")[0] for words in wrong] == [
        f"storage.data_dir {tmp_path}/data can't be written: its file system is mounted read-only",
        f"publishers.rimage.directory {tmp_path}/robot can't be written: its file system is mounted read-only",
    ]


def test_every_mistake_of_every_kind_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake hides no other: neither of its section, nor of the files, nor of what stands twice."""
    text = """
srver: {}
pacs: {host: "10.0.0.5:104", hots: x, port: 1}
disc: {host: x, keep_hours: 1, keep_hours: 2}
receiver: {host: 203.0.113.9, port: 8080, allowed_peers: [10.1.0.0/33]}
viewer: {directory: none}
publishers: {robot: {kind: epson, directory: none, label_fields: {Name: "{patient_nam}"}}}
archive: {output: robott, modalities: [ct]}
"""
    monkeypatch.setenv("MKISO_CONFIG", str(write(tmp_path, text)))
    monkeypatch.setenv("MKISO__AUTH__API_KEY", "")
    told = problems()
    for words in (
        "srver is no key of mkiso; did you mean server?",
        "write host: 10.0.0.5 and port: 104",
        "did you mean pacs.host?",
        "keep_hours stands there twice, in lines 4 and 4",
        "disc.host is no key of mkiso; there is server.host and receiver.host",
        "'10.1.0.0/33' is no address or network",
        "receiver.host 203.0.113.9 is no address of this machine",
        "viewer.directory",
        "publishers.robot.directory",
        "{patient_nam}, which no label has; did you mean {patient_name}?",
        "'ct' is no modality",
        "MKISO__AUTH__API_KEY is set and empty",
    ):
        assert sum(words in each for each in told) == 1, (words, told)
    assert len(told) == 12, told  # nothing follows from another mistake


def test_a_label_may_name_what_it_is_given() -> None:
    order = Order("job", Patient("1", "A"), ("A1",))
    assert (*label_values(order, {}), "selection") == LABEL_VALUES
    part = replace(order, is_part=True, part_words="nur ein Teil")
    assert label_values(part, {})["accession_number"] == "A1 (nur ein Teil)"
    assert label_values(part, {"N": "{accession_number}", "S": "{selection}"}) == {"N": "A1", "S": "nur ein Teil"}
    assert label_values(part, {"N": "{accession_number}"}, lambda sign: sign != "u") == {
        "N": "A1 (not the whole examination)"
    }
    assert label_values(order, {"N": "{accession_number}", "S": "{selection}"}) == {"N": "A1", "S": ""}
    unproven = replace(order, is_unproven=True, unproven_words="nicht geprüft")
    assert label_values(unproven, {})["accession_number"] == "A1 (nicht geprüft)"
    both = replace(part, is_unproven=True, unproven_words="nicht geprüft")
    assert label_values(both, {"S": "{selection}"}) == {"S": "nur ein Teil, nicht geprüft"}
    assert label_values(both, {"S": "{selection}"}, lambda sign: sign != "ü") == {
        "S": "nur ein Teil, not proven to be complete"
    }
    assert (tells_part({}), tells_part({"N": "{selection}"}), tells_part({"N": "{patient_name}"})) == (
        True,
        True,
        False,
    )


@contextmanager
def held_port() -> Iterator[int]:
    with socket.socket() as held:  # bound without SO_REUSEADDR, and not listening: nobody waits for its answer
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def run(folder: Path, command: str, *, warm: bool = True, **sections: Any) -> subprocess.CompletedProcess[str]:
    """What a command says and how it ends, without the seconds of its imports where it is `warm`."""
    ports: dict[str, dict[str, Any]] = {
        "server": {"port": free_port()},
        "receiver": {"port": free_port(), "host": "127.0.0.1"},
        "prefect": {"server_port": free_port()},
    }
    values = {**sections, **{name: {**ports[name], **sections.get(name, {})} for name in ports}}
    environment = {**os.environ, "MKISO_CONFIG": str(write(folder, yaml.safe_dump(values)))}
    if warm:
        return nursery.run(command.split(), environment, LONG)
    return subprocess.run(
        [sys.executable, "-m", "mkiso_service", *command.split()],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "sections", "words"),
    [
        ("receiver", {"receiver": {"host": NOBODYS_ADDRESS}}, "Correct receiver.host"),
        ("receiver", {"receiver": {"tls": {"enabled": True, "certificate": "no", "key": "no"}}}, "receiver.tls"),
        ("webhook", {"server": {"host": NOBODYS_ADDRESS}}, "The webhook can't listen on 203.0.113.9"),
        *((part, {"storage": {"data_dir": "file"}}, "storage.data_dir") for part in ("serve", "receiver", "worker")),
        *((part, {"storage": {"shared_dir": "file"}}, "storage.shared_dir") for part in ("webhook", "prefect")),
        ("serve", {"pacs": {"host": ""}}, "pacs.host"),
    ],
)
def test_what_no_start_changes_ends_a_process_with_2_and_a_sentence(
    tmp_path: Path, command: str, sections: dict[str, Any], words: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    ended = run(tmp_path, command, **sections)
    assert (ended.returncode, words in ended.stderr, "Traceback" in ended.stderr) == (2, True, False), ended.stderr


@pytest.mark.parametrize(
    "command", ["serve", "webhook", "worker", "receiver", "prefect", "deploy", "archive report", "config check"]
)
def test_no_command_touches_the_data_of_a_newer_mkiso(tmp_path: Path, command: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "format").write_text(f"{FORMAT + 1}\n")
    ended = run(tmp_path, command, storage={"data_dir": "data"})
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False), ended.stderr
    assert (
        f"storage.data_dir {data} holds data of a newer mkiso (format {FORMAT + 1}; this one knows {FORMAT})"
        in ended.stderr
    )
    assert {entry.name: entry.read_text() for entry in data.iterdir()} == {"format": f"{FORMAT + 1}\n"}


@pytest.mark.parametrize("command", ["serve", "webhook"])
def test_a_share_that_is_mounted_later_is_waited_for_by_systemd(tmp_path: Path, command: str) -> None:
    """It doesn't start again what ends with 2."""
    ended = run(tmp_path, command, storage={"shared_dir": "nope"})
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False), ended.stderr
    assert "mount that storage, or make the folder on it" in ended.stderr


@pytest.mark.parametrize(
    ("sections", "warns"),
    [
        ({"server": {"host": "0.0.0.0"}}, True),
        ({"server": {"host": "0.0.0.0"}, "auth": {"enabled": True, "api_key": "k" * 32}}, False),
        ({"server": {"host": "::1"}}, False),
    ],
)
def test_a_page_that_is_open_to_everybody_is_told(tmp_path: Path, sections: dict[str, Any], warns: bool) -> None:
    checked = run(tmp_path, "config check", storage={"data_dir": "data"}, **sections)
    assert checked.returncode == 0, checked.stderr
    assert ("nobody has to say who they are" in checked.stderr) == warns


@pytest.mark.parametrize("section", ["receiver", "prefect"])
def test_serve_ends_with_2_where_one_of_its_processes_can_not_run(tmp_path: Path, section: str) -> None:
    key = "server_port" if section == "prefect" else "port"
    with held_port() as port:
        taken: dict[str, Any] = {section: {key: port}}
        ended = run(tmp_path, "serve", **taken)
    assert ended.returncode == 2, ended.stderr
    assert str(port) in ended.stderr and "Traceback" not in ended.stderr, ended.stderr


@pytest.mark.parametrize("is_there", [True, False])
def test_serve_says_which_configuration_it_starts_with(tmp_path: Path, is_there: bool) -> None:
    if is_there:
        (tmp_path / "config.yaml").write_text("{}")
    with held_port() as port:
        parts = {"SERVER__PORT": free_port(), "RECEIVER__PORT": port, "PREFECT__SERVER_PORT": free_port()}
        environment = {**os.environ, **{f"MKISO__{name}": str(value) for name, value in parts.items()}}
        environment.pop("MKISO_CONFIG", None)
        command = [sys.executable, "-P", "-m", "mkiso_service", "serve"]
        ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    said = (
        f"{tmp_path / 'config.yaml'} is"
        if is_there
        else "There is no config.yaml here, so what no MKISO__ variable sets is by default: this is"
    )
    assert (
        f"{said} the configuration that mkiso {program_version()} starts with. Data is kept in {tmp_path / 'data'}."
        in ended.stderr
    )


def test_serve_and_its_processes_import_nothing_from_the_working_folder(tmp_path: Path) -> None:
    """Whoever may write where mkiso is started would else say what its processes run. The last of them can't run here,
    so all has been imported.
    """
    for name in ("pynetdicom", "prefect", "docket", "flows", "tasks", "authlib"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'a').write('{name} ')")
    with held_port() as port:
        ended = run(tmp_path, "serve", warm=False, server={"port": port})
    assert (ended.returncode, str(port) in ended.stderr) == (2, True), ended.stderr
    assert not (tmp_path / "was-run").exists()


def test_the_file_that_a_process_is_told_to_read_has_to_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKISO_CONFIG", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigurationError, match="doesn't exist"):
        problems()


def test_a_name_that_no_disk_can_have_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [told] = found(tmp_path, monkeypatch, storage={"data_dir": "x" * 300, "min_free_gib": 0}, publishers={})
    assert told.startswith("storage.data_dir ") and told.endswith("… can't be made: a name in it is too long")


def test_a_folder_that_the_environment_has_no_letters_for_is_said(tmp_path: Path) -> None:
    """No traceback: names of files are ASCII where somebody has told Python so."""
    file = write(tmp_path, yaml.safe_dump({"storage": {"data_dir": "Bücher"}}, allow_unicode=True))
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "MKISO_CONFIG": str(file)}
    command = [sys.executable, "-P", "-m", "mkiso_service", "config", "check"]
    ended = subprocess.run(command, env={**os.environ, **ascii_only}, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and "set LC_ALL=C.UTF-8" in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr

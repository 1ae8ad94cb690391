"""What an administrator is given beside the program: systemd units, compose.yaml, alerts and a dashboard, held against
the program.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
import yaml
from click.testing import CliRunner

from mkiso.config.file import load
from mkiso.config.publishers import Robot
from mkiso.config.settings import Audit, Receiver, Settings
from mkiso.config.storage import Storage
from mkiso.errors import StudyNotFound
from mkiso.storage.kept_reports import KeptReports
from mkiso.storage.report import JobReport, write_report
from mkiso_service.cli import installation as install_cli
from mkiso_service.cli.main import cli
from mkiso_service.installation.units import Part, defaults, unit, unit_name
from mkiso_service.webhook.metrics import Metrics

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"


@pytest.mark.parametrize("part", get_args(Part))
def test_a_unit_runs_a_command_that_exists_and_leaves_jobs_their_time_to_end(part: Part) -> None:
    text = unit(part, defaults())
    assert re.search(r"^ExecStart=\S+ (\w+)$", text, re.MULTILINE)[1] in cli.commands  # type: ignore[index]
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1])  # type: ignore[index]
    assert stop > defaults().server.shutdown_grace_seconds + 30


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze isn't installed")
@pytest.mark.parametrize("part", get_args(Part))
def test_systemd_finds_the_units_hardened(part: Part, tmp_path: Path) -> None:
    file = tmp_path / unit_name(part)
    file.write_text(unit(part, defaults()), encoding="utf-8")
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_a_unit_lets_a_decoder_be_confined() -> None:
    """Before systemd 257 no group of its filters has Landlock's calls, and what asks for them is told EPERM."""
    allowed = re.search(r"^SystemCallFilter=(@system-service .*)$", unit("worker", defaults()), re.MULTILINE)
    for call in ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"):
        assert allowed and call in allowed[1].split()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze isn't installed")
def test_systemd_reads_each_path_as_one(tmp_path: Path) -> None:
    folder = tmp_path / "of a 100%d site"
    folder.mkdir()
    (program := folder / "mkiso").symlink_to("/bin/true")
    settings = Settings(storage=Storage(data_dir=folder))
    file = tmp_path / "mkiso.service"
    file.write_text(unit("serve", settings, folder / "config.yaml", str(program)), encoding="utf-8")
    told = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, check=False)
    assert file.name not in told.stderr


def test_a_unit_may_write_to_configured_folders_and_bind_configured_ports() -> None:
    settings = Settings(
        storage=Storage(data_dir=Path("/srv/mkiso"), shared_dir=Path("/mnt/discs")),
        publishers={"rimage": Robot(kind="rimage", directory=Path("/mnt/robot"))},
        audit=Audit(target="/var/log/of mkiso/audit.xml"),
        receiver=Receiver(port=104),
    )
    text = unit("receiver", settings)
    for place in ("/srv/mkiso", "/mnt/discs", "/mnt/robot"):
        assert f"ReadWritePaths=-{place}\n" in text  # without one of them mkiso starts, and says so
    assert 'ReadWritePaths="-/var/log/of mkiso"\n' in text
    assert "RequiresMountsFor=/srv/mkiso\n" in text  # without that one it would begin anew on the disk below
    assert "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n" in text
    assert "CapabilityBoundingSet=\n" in unit("worker", settings)


def test_an_image_holds_the_program_and_no_configuration() -> None:
    """A layer keeps what a later one removes."""
    root = DEPLOYMENTS.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    rules = [line for line in (root / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert rules[0] == "*"
    seen = {rule[1:] for rule in rules if rule.startswith("!")}
    assert seen == {"pyproject.toml", "setup.py", project["project"]["readme"], *packages}


def test_install_prints_or_writes(tmp_path: Path) -> None:
    told = CliRunner().invoke(
        cli, ["service", "install", "--shape", "front", "--dry-run"], env={"MKISO_CONFIG": str(tmp_path / "none.yaml")}
    )
    assert told.exit_code == 0 and "mkiso-prefect.service" in told.output and not list(tmp_path.iterdir())
    told = CliRunner().invoke(
        cli, ["service", "install", "--root", str(tmp_path)], env={"MKISO_CONFIG": str(tmp_path / "none.yaml")}
    )
    assert told.exit_code == 0, told.output
    assert (tmp_path / "etc/systemd/system/mkiso.service").is_file()
    program = str(Path(sys.executable).with_name("mkiso"))
    assert f"ExecStart={program} serve" in (tmp_path / "etc/systemd/system/mkiso.service").read_text(encoding="utf-8")
    assert f"runuser -u mkiso -- {program} " in told.output  # a Debian without sudo has it too


def test_units_that_do_the_same_are_not_left_beside_each_other(tmp_path: Path) -> None:
    def stopped(shape: str) -> list[str]:
        asked = ["service", "install", "--shape", shape, "--root", str(tmp_path)]
        told = CliRunner().invoke(cli, asked, env={"MKISO_CONFIG": str(tmp_path / "none.yaml")})
        [enabled] = [line for line in told.output.splitlines() if "systemctl enable" in line]
        assert ("mkiso.service" in enabled) is (shape == "one")
        return [line.split("--now ")[1] for line in told.output.splitlines() if "disable --now" in line]

    assert stopped("one") == []
    assert stopped("front") == ["mkiso.service"]
    assert stopped("one") == ["mkiso-prefect.service mkiso-webhook.service"]
    (tmp_path / "etc/systemd/system/mkiso.service").unlink()
    assert stopped("all") == []
    assert stopped("worker") == []  # beside those of the front, on one machine


def test_who_may_not_install_is_told_so() -> None:
    with TemporaryDirectory() as folder:  # those around it are open
        root, config = Path(folder), Path(folder) / "config.yaml"
        config.write_text("publishers: {}\n")
        config.chmod(0o644)
        root.chmod(0o555)
        before = os.geteuid()
        for said in ("can't be written: Permission denied. Run this as root.", "config.yaml can't be read: Permission"):
            if not before:
                os.seteuid(65534)  # root may do everything
            try:
                told = CliRunner().invoke(
                    cli, ["service", "install", "--root", folder], env={"MKISO_CONFIG": str(config)}
                )
            finally:
                os.seteuid(before)
            assert said in f"{told.output}{told.exception}", told
            config.chmod(0)
        root.chmod(0o700)


def test_install_says_what_a_service_could_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_cli, "HIDDEN", (str(Path(sys.executable).resolve().parent),))
    told = CliRunner().invoke(
        cli, ["service", "install", "--root", str(tmp_path)], env={"MKISO_CONFIG": "/etc/none.yaml"}
    )
    assert f"Its Python {Path(sys.executable).resolve()} lies in" in told.output


def test_install_says_what_its_user_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where root's umask is 077, as it is on hardened machines."""
    command, env = ["service", "install", "--root", str(tmp_path)], {"MKISO_CONFIG": "/etc/none.yaml"}
    with TemporaryDirectory() as venv:  # mode 0700; those around it are open
        (Path(venv) / "mkiso").touch(mode=0o755)
        monkeypatch.setattr(sys, "executable", f"{venv}/python")
        assert f"{venv} is shut to the user mkiso" in CliRunner().invoke(cli, command, env=env).output
        Path(venv).chmod(0o755)
        assert f"{venv} is shut" not in CliRunner().invoke(cli, command, env=env).output


def test_lines_of_an_installation_touch_no_files_of_others(tmp_path: Path) -> None:
    def lines(config: str) -> list[list[str]]:
        told = CliRunner().invoke(cli, ["service", "install", "--root", str(tmp_path)], env={"MKISO_CONFIG": config})
        return [shlex.split(line) for line in told.output.splitlines() if line.startswith("  ")]

    for config in ("/etc/mkiso.yaml", "/srv/of a site/$(id).yaml"):
        assert ["chown", "root:mkiso", config, "&&", "chmod", "640", config] in lines(config)
        assert [config in line for line in lines(config) if "runuser" in line] == [True, True]
    own = ["chown", "-R", "root:mkiso", "/etc/mkiso", "&&", "chmod", "-R", "u=rwX,g=rX,o=", "/etc/mkiso"]
    assert own in lines("/etc/mkiso/config.yaml")


def test_after_the_lines_of_an_installation_its_group_may_read_each_file(tmp_path: Path) -> None:
    told = CliRunner().invoke(
        cli, ["service", "install", "--root", str(tmp_path)], env={"MKISO_CONFIG": "/etc/mkiso/config.yaml"}
    )
    [line] = [line for line in told.output.splitlines() if "chmod" in line]
    etc = tmp_path / "etc/mkiso"
    (etc / "viewer/languages").mkdir(parents=True)
    for name in ("config.yaml", "viewer/languages/de.lng"):
        (etc / name).write_text("")
        (etc / name).chmod(0o646)
    subprocess.run(["sh", "-c", line.partition("&&")[2].replace("/etc/mkiso", str(etc))], check=True)
    modes = {each.is_dir(): each.stat().st_mode & 0o777 for each in (etc, *etc.rglob("*"))}
    assert modes == {True: 0o750, False: 0o640}


def compose() -> dict[str, Any]:
    text = re.sub(r"\$\{\w*PORT\w*\}", "104", (DEPLOYMENTS / "compose.yaml").read_text(encoding="utf-8"))
    text = re.sub(r"\$\{\w+:-\}", "", text)
    text = re.sub(r"\$\{\w*AUTH(:\?[^}]*)?\}", "user:word-of-sixteen-or-more", text)
    return dict(yaml.safe_load(re.sub(r"\$\{\w+(:\?[^}]*)?\}", "word-of-16-signs", text)))


@pytest.mark.parametrize("name", sorted(set(compose()["services"]) - {"postgresql"}))
def test_a_container_runs_a_command_with_a_configuration_that_exist(name: str, tmp_path: Path) -> None:
    container = compose()["services"][name]
    assert container["command"][0] in cli.commands
    empty = tmp_path / "config.yaml"
    empty.write_text("{}")
    settings = load(
        empty, {key: "" if value is None else str(value) for key, value in container["environment"].items()}
    )
    assert settings.storage.discs_dir == Path("/shared/discs")
    assert settings.auth.enabled
    volumes = dict(volume.split(":") for volume in container["volumes"])
    assert volumes.keys() <= compose()["volumes"].keys()
    assert {"/data", "/shared"} <= set(volumes.values())  # the container itself is read-only


def test_a_receiver_and_its_worker_share_a_folder_and_an_ae_title_of_their_own() -> None:
    services = compose()["services"]
    for number in "12":
        receiver, worker = services[f"receiver{number}"], services[f"worker{number}"]
        assert receiver["volumes"] == worker["volumes"]
        assert (
            receiver["environment"]["MKISO__RECEIVER__AE_TITLE"]
            == worker["environment"]["MKISO__RECEIVER__AE_TITLE"]
            == f"MKISO{number}"
        )
    assert services["worker1"]["hostname"] != services["worker2"]["hostname"]


def exposed(folder: Path) -> str:
    """/metrics of a webhook that has seen a job of each outcome."""
    storage = Storage(data_dir=folder)
    report = JobReport(
        "123e4567-e89b-12d3-a456-426614174000",
        "download",
        ("A1",),
        seconds={"starting": 0.1, "retrieving": 2.5},
        received_bytes=42,
    )
    write_report(storage, report.failed(StudyNotFound("Nothing there.")))
    metrics = Metrics(KeptReports(storage))
    metrics.count("/api/iso/download", "GET", 404, 0.1, 10)
    return metrics.text(storage, queued=3, well={"pacs": True}).decode()


def test_every_metric_that_alerts_and_dashboard_name_is_exposed(tmp_path: Path) -> None:
    rules = yaml.safe_load((DEPLOYMENTS / "monitoring" / "alerts.yaml").read_text())["groups"][0]["rules"]
    panels = json.loads((DEPLOYMENTS / "monitoring" / "grafana.json").read_text())["panels"]
    expressions = [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]
    named = {name for expression in expressions for name in re.findall(r"\bmkiso_\w+", expression)}
    assert len(named) > 10
    there = {re.split(r"[{ ]", line)[0] for line in exposed(tmp_path).splitlines() if not line.startswith("#")}
    assert named <= there, named - there


def test_jobs_are_counted_by_outcome_with_seconds_by_stage_and_bytes(tmp_path: Path) -> None:
    lines = exposed(tmp_path).splitlines()
    for line in (
        'mkiso_jobs{code="study_not_found",kind="download",status="failed"} 1.0',
        'mkiso_stage_seconds{kind="download",stage="retrieving"} 2.5',
        'mkiso_stage_jobs{kind="download",stage="retrieving"} 1.0',
        "mkiso_received_bytes 42.0",
        "mkiso_jobs_queued 3.0",
        'mkiso_dependency_up{dependency="pacs"} 1.0',
    ):
        assert line in lines

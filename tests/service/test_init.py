"""A stranger's first configuration: written from answers, tested against a PACS that is there, and then right."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mkiso.config.file import load
from mkiso.config.publishers import CStore, Robot
from mkiso.config.sources import Pacs
from mkiso.demo.pacs import DemoPacs
from mkiso.sources.query import find_studies
from mkiso.sources.registry import sources_of
from mkiso_service.cli import cli
from peers.corpus import make_study
from peers.dicomweb_server import DicomWebServer
from peers.ports import free_port
from peers.storescp import Storescp


def init(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(
        cli, ["init", "-o", str(folder / "etc" / "config.yaml"), "--no-questions", *options], standalone_mode=False
    )


def test_the_answers_are_tested_and_written(tmp_path: Path) -> None:
    (tmp_path / "robot").mkdir()
    with DemoPacs(make_study(tmp_path / "study", "A1", kinds={"ct": 1})) as pacs:
        told = init(
            tmp_path,
            *("--pacs-ae-title", pacs.ae_title, "--pacs-host", pacs.host, "--pacs-port", str(pacs.port)),
            *("--ae-title", "DISCS", "--institution", 'St. "Anna": 1 # of all', "--everybody"),
            *("--robot", "folder", "--robot-place", str(tmp_path / "robot")),
        )
    assert told.return_value == 0, told.output
    assert "answers C-ECHO" in told.output and "answers questions: 0" in told.output
    settings = load(tmp_path / "etc" / "config.yaml", {})
    assert settings.disc.institution == 'St. "Anna": 1 # of all'
    assert settings.receiver.ae_title == "DISCS"
    robot = settings.publishers[settings.print.publisher]
    assert isinstance(robot, Robot) and robot.directory == tmp_path / "robot"
    assert settings.auth.enabled and len(settings.auth.api_key.get_secret_value()) > 20
    assert settings.server.host == "0.0.0.0"
    assert (tmp_path / "etc" / "api.key").stat().st_mode & 0o777 == 0o640


def test_a_second_source_of_any_kind_is_tested_and_written(tmp_path: Path) -> None:
    files = make_study(tmp_path / "study", "A1", kinds={"ct": 1})
    with DemoPacs(files) as pacs, DicomWebServer(files) as server:
        first = ("--pacs-ae-title", pacs.ae_title, "--pacs-host", pacs.host, "--pacs-port", str(pacs.port))
        told = init(tmp_path, *first, "--second-kind", "dicomweb", "--second-place", server.base_url)
        assert told.return_value == 0, told.output
        settings = load(tmp_path / "etc" / "config.yaml", {})
        both = [find_studies(source, "A1") for source in sources_of(settings)]
    assert "answers C-ECHO" in told.output and "answers QIDO-RS" in told.output
    assert [(each.name, each.kind) for each in settings.all_sources] == [("main", "cmove"), ("second", "dicomweb")]
    assert [len(found) for found in both] == [1, 1]
    told = init(tmp_path / "other", *first[:-1], "4", "--second-kind", "cget", "--second-place", "OLD@127.0.0.1:5")
    assert told.return_value == 1 and told.output.count("can't be reached") == 2


def test_a_pacs_that_does_not_answer_leaves_nothing_written(tmp_path: Path) -> None:
    port = str(free_port())
    told = init(tmp_path, "--pacs-port", port)
    assert told.return_value == 1 and "can't be reached" in told.output
    assert not any(tmp_path.iterdir())
    assert init(tmp_path, "--pacs-port", port, "--untested").return_value == 0
    assert load(tmp_path / "etc" / "config.yaml", {}).publishers == {}


def test_answers_that_nobody_reads_are_said_to_be_none(tmp_path: Path) -> None:
    asked = ["init", "-o", str(tmp_path / "config.yaml"), "--pacs-port", str(free_port())]
    told = CliRunner().invoke(cli, asked, input="MYPACS\n", standalone_mode=False)
    assert told.return_value == 1 and "Nobody can be asked without a terminal" in told.stderr


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    init(tmp_path, "--untested")
    told = init(tmp_path, "--untested")
    assert "exists already" in str(told.exception)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--robot", "mcm", "--robot-place", "RIMAGE"), "is no AE@host:port"),
        (("--pacs-host", "10.0.0.5:104"), "write host: 10.0.0.5 and port: 104"),
        (("--second-kind", "cget", "--second-place", "OLD:104"), "is no AE@host:port"),
        (("--second-kind", "dicomweb", "--second-place", "cloud"), "base_url"),
        (("--second-kind", "cmove", "--second-place", "ABPACS@127.0.0.1:4"), "the same AE title and host"),
        (("--public-url", "discs"), "server.public_url"),
        (("--port", "8080"), "server.port and receiver.port are both 8080"),
    ],
)
def test_an_answer_that_can_not_be_is_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    told = init(tmp_path, "--untested", *options)
    assert words in str(told.exception)
    assert not any(tmp_path.iterdir())


@pytest.mark.peer
def test_a_robot_over_dicom_is_asked_too(tmp_path: Path) -> None:
    with Storescp(tmp_path / "robot") as robot:
        told = init(
            tmp_path, "--untested", "--robot", "cstore", "--robot-place", f"{robot.ae_title}@127.0.0.1:{robot.port}"
        )
    assert told.return_value == 0, told.output
    made = load(tmp_path / "etc" / "config.yaml", {}).publishers["robot"]
    assert isinstance(made, CStore) and made.port == robot.port


def test_a_terminal_is_asked(tmp_path: Path) -> None:
    """Each question with its default; an Enter takes it."""
    questions = 0
    child, terminal = pty.fork()
    if child == 0:
        given = ["-o", str(tmp_path / "config.yaml"), "--untested", "--pacs-port", "4"]
        os.execv(sys.executable, [sys.executable, "-P", "-m", "mkiso_service", "init", *given])
    told = ""
    while chunk := _read(terminal):
        told += chunk
        if told.rstrip(" ").endswith(":"):
            os.write(terminal, b"\n")
            questions += 1
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, told
    assert "AE title of the PACS [ABPACS]" in told and "Port of the PACS" not in told  # that was given
    assert questions == 12, told
    pacs = load(tmp_path / "config.yaml", {}).pacs
    assert isinstance(pacs, Pacs) and pacs.port == 4


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 4096).decode()
    except OSError:  # the other end is closed
        return ""

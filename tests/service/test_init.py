"""A stranger's first configuration: written from answers, tested against a PACS that is there, and then right."""

from __future__ import annotations

import grp
import os
import pty
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner, Result

from mkiso.config.file import load
from mkiso.config.publishers import CStore, Robot
from mkiso.config.sources import Pacs
from mkiso.demo.pacs import DemoPacs
from mkiso.errors import ConfigurationError
from mkiso.sources.query import find_studies
from mkiso.sources.registry import sources_of
from mkiso_service.cli.init import save
from mkiso_service.cli.main import cli
from peers.corpus import make_study
from peers.dicomweb_server import DicomWebServer
from peers.ports import free_port
from peers.storescp import Storescp


def init(folder: Path, *options: str) -> Result:
    (folder / "etc").mkdir(parents=True, exist_ok=True)
    ports = ("--port", str(free_port()), "--page-port", str(free_port()))
    file = str(folder / "etc" / "config.yaml")
    return CliRunner().invoke(cli, ["init", "-o", file, "--no-questions", *ports, *options], standalone_mode=False)


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
    assert settings.print.publisher == "Disc-Robot"  # as a clerk reads it: have Disc-Robot make a disc
    assert isinstance(robot, Robot) and robot.directory == tmp_path / "robot"
    assert settings.auth.enabled and len(settings.auth.api_key.get_secret_value()) > 20
    assert settings.server.host == "0.0.0.0"
    status = (tmp_path / "etc" / "api.key").stat()
    is_for_mkiso = status.st_gid in [group.gr_gid for group in grp.getgrall() if group.gr_name == "mkiso"]
    assert status.st_mode & 0o777 == (0o640 if is_for_mkiso else 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_group_that_is_not_mkiso_s_reads_no_key() -> None:
    """Everybody's is `users` on some systems."""
    with TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        os.seteuid(65_534)
        try:
            save(Path(place) / "config.yaml", "", with_key=True)
        finally:
            os.seteuid(0)
        assert {file.stat().st_mode & 0o777 for file in Path(place).iterdir()} == {0o600}


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
    assert not any((tmp_path / "etc").iterdir())
    assert init(tmp_path, "--pacs-port", port, "--untested").return_value == 0
    assert load(tmp_path / "etc" / "config.yaml", {}).publishers == {}


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as other, socket.socket() as another:
        for each in (other, another):
            each.bind(("127.0.0.1", 0))
            each.listen()
        port, page_port = (str(each.getsockname()[1]) for each in (other, another))
        told = init(tmp_path, "--port", port, "--page-port", page_port)
    assert told.return_value == 1
    assert all(f"Port {taken} is in use on this machine already" in told.output for taken in (port, page_port))


def test_a_wrong_answer_is_in_no_line_of_a_file_that_nobody_has(tmp_path: Path) -> None:
    told = init(tmp_path, "--untested", "--ae-title", "MORE_THAN_16_LETTERS")
    assert isinstance(told.exception, ConfigurationError)
    assert told.exception.problems == ("receiver.ae_title must have at most 16 characters",)


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
        (("--robot", "epson"), "publishers.Epson.directory is empty"),
        (("--pacs-host", "10.0.0.5:104"), "write host: 10.0.0.5 and port: 104"),
        (("--second-kind", "cget", "--second-place", "OLD:104"), "is no AE@host:port"),
        (("--second-kind", "dicomweb", "--second-place", "cloud"), "base_url"),
        (("--second-kind", "cmove", "--second-place", "ABPACS@127.0.0.1:4"), "the same AE title and host"),
        (("--public-url", "discs"), "server.public_url"),
        (("--port", "8080", "--page-port", "8080"), "server.port and receiver.port are both 8080"),
    ],
)
def test_an_answer_that_can_not_be_is_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    told = init(tmp_path, "--untested", *options)
    assert words in str(told.exception)
    assert not any((tmp_path / "etc").iterdir())


@pytest.mark.peer
def test_a_robot_over_dicom_is_asked_too(tmp_path: Path) -> None:
    with Storescp(tmp_path / "robot") as robot:
        told = init(
            tmp_path, "--untested", "--robot", "cstore", "--robot-place", f"{robot.ae_title}@127.0.0.1:{robot.port}"
        )
    assert told.return_value == 0, told.output
    made = load(tmp_path / "etc" / "config.yaml", {}).publishers[robot.ae_title]
    assert isinstance(made, CStore) and made.port == robot.port


def test_the_first_source_may_be_a_dicomweb_server(tmp_path: Path) -> None:
    with DicomWebServer(make_study(tmp_path / "study", "A1", kinds={"ct": 1})) as server:
        told = init(tmp_path, "--pacs-kind", "dicomweb", "--pacs-url", server.base_url)
        assert told.return_value == 0 and "answers QIDO-RS" in told.output, told.output
        [source] = sources_of(load(tmp_path / "etc" / "config.yaml", {}))
        assert len(find_studies(source, "A1")) == 1


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("nowhere/config.yaml", "There is no folder"),
        ("nowhere/below/config.yaml", "There is no folder"),
        ("file/config.yaml", "is no folder that this user may write in"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_place_that_can_not_be_is_refused_before_the_questions(tmp_path: Path, output: str, words: str) -> None:
    (tmp_path / "file").touch()
    asked = ["init", "--no-questions", "--untested", "-o", str(tmp_path / output)]
    told = CliRunner().invoke(cli, asked, standalone_mode=False)
    assert words in str(told.exception)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_made_where_somebody_says_so(tmp_path: Path) -> None:
    output = str(tmp_path / "nowhere" / "config.yaml")
    code, told = at_a_terminal({"Make it? [y/N]": "n"}, "-o", output)
    assert code == 1 and "AE title" not in told and not any(tmp_path.iterdir())
    code, told = at_a_terminal({"Make it? [y/N]": "y"}, "-o", output, "--untested")
    assert code == 0 and load(Path(output), {}), told


def at_a_terminal(answers: dict[str, str], *given: str, at_most: int = 100) -> tuple[int, str]:
    """The exit code and the words of `mkiso init` at a terminal. `answers` by the end of the question; what they don't
    name gets an Enter; `at_most` so many questions.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "mkiso_service", "init", *given])
    told, left = "", dict(answers)
    while chunk := _read(terminal):
        told += chunk
        if told.endswith(": ") or told.endswith("] "):
            said = next((question for question in left if told.splitlines()[-1].rstrip(": ").endswith(question)), "")
            at_most -= 1
            os.write(terminal, f"{left.pop(said, '')}\n".encode() if at_most >= 0 else b"\x03")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told


def test_a_terminal_is_asked(tmp_path: Path) -> None:
    """Each question with its default; an Enter takes it."""
    code, told = at_a_terminal({}, "-o", str(tmp_path / "config.yaml"), "--untested", "--pacs-port", "4")
    assert code == 0, told
    asked, _, summary = told.partition("\r\n\r\n")
    assert "AE title of the PACS [ABPACS]" in asked and "Port of the PACS" not in asked  # that was given
    assert "DICOMweb server, as" not in summary.partition("A second source")[0]  # which nobody has chosen
    assert "Port of the PACS: 4" in summary and "Enter writes" in summary
    pacs = load(tmp_path / "config.yaml", {}).pacs
    assert isinstance(pacs, Pacs) and pacs.port == 4


def test_an_answer_is_tried_when_it_is_given_and_alone_asked_again(tmp_path: Path) -> None:
    with DemoPacs(make_study(tmp_path / "study", "A1", kinds={"ct": 1})) as pacs:
        wrong = {"AE title of mkiso, which the PACS must know [CDRECORD]": "DISCS"}
        right = {"Port of the PACS [4]": str(pacs.port), "all the same? [y/N]": "n"}
        ports = ("--port", str(free_port()), "--page-port", str(free_port()))
        given = (*ports, "--pacs-ae-title", pacs.ae_title, "--pacs-host", pacs.host, "--pacs-port", "4")
        code, told = at_a_terminal({**wrong, **right}, "-o", str(tmp_path / "config.yaml"), *given)
    assert code == 0, told
    refused, _, after = told.partition("Keep these answers all the same?")
    assert "can't be reached" in refused and "institution" not in refused
    assert "answers C-ECHO" in after.partition("institution")[0]
    settings = load(tmp_path / "config.yaml", {})
    assert isinstance(settings.pacs, Pacs) and settings.pacs.port == pacs.port
    assert settings.receiver.ae_title == "DISCS"  # and nothing else was forgotten


def test_what_can_not_be_is_asked_again_and_one_answer_corrected_at_the_end(tmp_path: Path) -> None:
    answers = {
        "Port to which the PACS sends [10104]": "many",  # and then an Enter; nothing is typed ahead
        "Port of the page [8080]": "10104",
        "corrects that answer": "1",
        "AE title of mkiso, which the PACS must know [CDRECORD]": "",
    }
    code, told = at_a_terminal(answers, "-o", str(tmp_path / "config.yaml"), "--untested")
    assert code == 0, told
    assert "Error: 'many' is not a valid port." in told
    assert "server.port and receiver.port are both 10104" in told
    assert told.count("AE title of mkiso, which the PACS must know [CDRECORD]") == 2
    asked = told.partition("corrects that answer")[0]
    assert asked.count("Whom patients may ask, on each disc") == 2  # once of them in the summary
    assert load(tmp_path / "config.yaml", {}).server.port == 8080  # an Enter doesn't repeat what was refused


def test_an_answer_that_was_refused_is_no_default_and_one_can_be_made_empty_again(tmp_path: Path) -> None:
    answers = {
        "Address of the PACS [127.0.0.1]": "http://pacs",
        "dicomweb) [none]": "cget",  # a second source
        "https://pacs.example.org/dicom-web": "OLD:104",  # and then an Enter, which names no place
        "dicomweb) [cget]": "none",
        "Name of the institution, on each disc": "Clinic",
        "as https://discs.example.org": "discs.example.org",
        "corrects that answer": "8",
        "Name of the institution, on each disc (- for none) [Clinic]": "-",
    }
    code, told = at_a_terminal(answers, "-o", str(tmp_path / "config.yaml"), "--untested", at_most=40)
    assert code == 0, told
    for refused in (
        "pacs.host is a web address",
        "'OLD:104' is no AE@host:port",
        "server.public_url must be the whole",
    ):
        assert refused in told
    settings = load(tmp_path / "config.yaml", {})
    assert isinstance(settings.pacs, Pacs) and settings.pacs.host == "127.0.0.1"
    assert (settings.server.public_url, settings.disc.institution) == ("", "")


@pytest.mark.parametrize(
    ("given", "question", "answer"),
    [
        (("--pacs-kind", "dicomweb"), "dicom-web", "http://127.0.0.1:9/dicom-web"),
        (("--second-kind", "cget"), "https://pacs.example.org/dicom-web", "OLD@127.0.0.1:104"),
        (("--robot", "cstore"), "AE@host:port", "RIMAGE@127.0.0.1:104"),
    ],
)
def test_an_option_that_needs_a_later_answer_is_no_fault_of_an_earlier_one(
    tmp_path: Path, given: tuple[str, ...], question: str, answer: str
) -> None:
    output = str(tmp_path / "config.yaml")
    code, told = at_a_terminal({question: answer}, "-o", output, "--untested", *given, at_most=30)
    assert code == 0, told
    assert told.count("AE title of mkiso, which the PACS must know [CDRECORD]") == 1
    assert load(Path(output), {})


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 4096).decode()
    except OSError:  # the other end is closed
        return ""

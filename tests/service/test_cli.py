"""The command line: quick to say what it can, exit codes, configuration."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mkiso.config.file import named_in
from mkiso_service.cli.main import cli, run
from peers.patience import LONG

ROOT = Path(__file__).parents[2]


def test_help_is_there_at_once_and_imports_nothing_heavy() -> None:
    heavy = "{'prefect', 'pydicom', 'pydantic', 'httpx', 'rich'}"
    code = "import sys; from mkiso_service.cli.main import run; run(['--help']); "
    code += f"print(sorted({heavy} & set(sys.modules)))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=LONG)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert "burn" in done.stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3  # of the processor; 0.1 as a rule


def test_what_asks_a_service_imports_nothing_of_images_and_robots() -> None:
    code = "import sys, mkiso_service.cli.client, mkiso_service.cli.display; "
    code += "print(sorted({'imagecodecs', 'prefect', 'pynetdicom', 'mkiso.publishers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=LONG)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("group", ["", "archive", "config", "service"])
def test_each_command_is_said_in_one_line_of_80_columns(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = CliRunner().invoke(cli, [*group.split(), "--help"]).output.partition("Commands:")[2]
    assert told and "..." not in told, told


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mkiso_service", "no-such-command"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=LONG,
    )
    assert done.returncode == 2
    assert "No such command" in done.stderr


def test_the_module_imports_nothing_of_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit('a stranger runs')")
    done = subprocess.run(
        [sys.executable, "-m", "mkiso_service", "--version"], capture_output=True, text=True, cwd=tmp_path, timeout=LONG
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_of_ours_takes_the_place_of_a_closed_stream(closed: str, tmp_path: Path) -> None:
    """A library that writes a warning there would write it into that file."""
    code = (
        "import os, sys\n"
        "sys.argv = ['mkiso', '--version']\n"
        "from mkiso_service.__main__ import main\n"
        "try: main()\n"
        "finally: os.write(os.open(sys.orig_argv[-1], os.O_WRONLY | os.O_CREAT), str(os.open('.', 0)).encode())\n"
    )
    told = tmp_path / "descriptor"
    shell = f'exec "$0" -c "$1" "$2" {closed}'
    subprocess.run(["sh", "-c", shell, sys.executable, code, told], capture_output=True, cwd=ROOT, timeout=LONG)
    assert int(told.read_text()) > 3


def test_ctrl_c_during_the_imports_of_a_command_shows_no_traceback() -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # what starts the tests may ignore it
        "class Stopping:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'click': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Stopping())\n"
        "from mkiso_service.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=LONG)
    assert (done.returncode, done.stderr) == (1, "Stopped.\n")


@pytest.mark.parametrize("given", ["05/06/2003", "2003-02-30", "200305"])
def test_a_date_that_is_none_is_told_with_how_to_write_it(given: str) -> None:
    ended = CliRunner().invoke(cli, ["archive", "--from", given])
    assert ended.exit_code == 2
    assert f"'{given}' is no date: write it as 2026-01-31." in ended.output


def as_typed(*arguments: str, cwd: Path, **environment: str) -> list[str]:
    """The shell's line of a command in this folder."""
    given = [f"{name}={value}" for name, value in environment.items()]
    return ["env", "-C", str(cwd), *given, sys.executable, "-P", "-m", "mkiso_service", *arguments]


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_a_character_that_the_terminal_lacks_is_replaced(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "config.yaml").write_text("storage: {data_dir: ดิสก์…}\npublishers: {}\n", encoding="utf-8")
    for command, told in (
        (["config", "check"], "is correct. Data is kept in"),
        (["config", "chéck…"], "No such command"),
        (["verify", "."], "This folder is no disc"),
        (["doctor"], "data is kept in"),
    ):
        line = as_typed(*command, cwd=tmp_path, PYTHONIOENCODING=encoding, MKISO_CONFIG="config.yaml")
        done = subprocess.run(line, capture_output=True, timeout=LONG)
        said = (done.stdout + done.stderr).decode(encoding, "replace")
        assert told in said and "Traceback" not in said, said
        assert "???" in said or "data" not in told.lower() or encoding == "ascii"  # for which click writes UTF-8


@pytest.mark.parametrize("command", ["--help", "version", "verify .", "config check", "doctor"])
def test_a_full_disk_below_standard_output_is_one_sentence(tmp_path: Path, command: str) -> None:
    (tmp_path / "config.yaml").write_text("publishers: {}\n")
    with Path("/dev/full").open("wb") as full:
        line = as_typed(*command.split(), cwd=tmp_path, MKISO_CONFIG="config.yaml")
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=LONG)
    assert (done.returncode, done.stderr) == (1, "Standard output can't be written: No space left on device.\n")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("deploy", "Prefect's API at http://127.0.0.1:9/api can't be reached"),
        ("archive --from 2024-01-01", "The archive can't be started"),
        ("archive report", "The archive's ledger can't be used"),
        ("burn A1 --url http://127.0.0.1:9", "There is no mkiso at http://127.0.0.1:9"),
    ],
)
def test_what_a_command_needs_and_is_away_is_told_in_words(tmp_path: Path, command: str, told: str) -> None:
    (tmp_path / "config.yaml").write_text(
        "prefect: {api_url: 'http://127.0.0.1:9/api', api_auth_string: 'mkiso:0123456789abcdef'}\n"
        "storage: {data_dir: data}\n"
        "archive: {enabled: true, ledger_url: 'postgresql+psycopg://mkiso:mkiso@127.0.0.1:9/mkiso'}\n"
    )
    line = as_typed(*command.split(), cwd=tmp_path, MKISO_CONFIG="config.yaml")
    done = subprocess.run(line, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 1 and told in done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


def test_a_reader_that_went_away_is_told_of_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(as_typed("--help", cwd=tmp_path), stdout=writer, stderr=subprocess.PIPE, timeout=LONG)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_prefect_takes_nothing_from_where_a_process_is_started(tmp_path: Path) -> None:
    begun_in = tmp_path / "begun in"
    begun_in.mkdir()
    database = f"sqlite+aiosqlite:///{begun_in}/strangers.db"
    (begun_in / ".env").write_text(f"PREFECT_SERVER_DATABASE_CONNECTION_URL={database}\n")
    (begun_in / "prefect.toml").write_text("[tasks]\ndefault_retries = 3\n")
    (begun_in / "pyproject.toml").write_text("[tool.prefect.flows]\ndefault_retries = 3\n")
    (tmp_path / "config.yaml").write_text("storage: {data_dir: data}\n")
    code = (
        "from mkiso_service.cli.main import _begin_with_prefect; _begin_with_prefect(); "
        "from prefect.settings import get_current_settings; told = get_current_settings(); "
        "print(told.server.database.connection_url.get_secret_value(), told.tasks.default_retries, "
        "told.flows.default_retries)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MKISO_CONFIG": "../config.yaml"}
    environment.pop("PREFECT_SERVER_DATABASE_CONNECTION_URL", None)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=begun_in, env=environment, timeout=LONG
    )
    ours = tmp_path / "data" / "prefect" / "prefect.db"
    assert done.stdout.split() == [f"sqlite+aiosqlite:///{ours}", "0", "0"], done.stderr


@pytest.mark.parametrize(
    "arguments", ["burn", "print", "verify no-such-file", "burn A1 --api-key-file no-such-file", "--nonsense"]
)
def test_misuse_is_2(arguments: str) -> None:
    assert run(arguments.split()) == 2


def test_a_right_configuration_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MKISO_CONFIG", "replaced below, and restored after the test")
    file = tmp_path / "config.yaml"
    file.write_text("pacs: {host: pacs.example.org}")
    assert run(["-c", str(file), "config", "check"]) == 0
    assert str(tmp_path / "data") in capsys.readouterr().out


def test_every_problem_of_a_configuration_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MKISO_CONFIG", "replaced below, and restored after the test")
    file = tmp_path / "config.yaml"
    file.write_text("pacs: {hots: x, port: 0}")
    for command in (["config", "check"], ["doctor"], ["serve"]):
        assert run(["-c", str(file), *command]) == 2
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 2
        assert any("did you mean pacs.host?" in line for line in told)


def test_verify_tells_every_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "x.iso"
    image.write_bytes(bytes(100_000))
    assert run(["verify", str(image)]) == 1
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"# A text\n", "This is no disc, or its beginning is damaged"),
        (bytes(3_000_000), "This is no disc, or its beginning is damaged"),
        (b"%PDF-1.7\n" + bytes(100_000), "This is no disc, or its beginning is damaged"),
        (b"", "This is no disc: it is empty."),
        (bytes(128) + b"DICM", "This is one DICOM file, and no disc."),
    ],
)
def test_verify_says_what_is_no_disc_and_what_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    (file := tmp_path / "x").write_bytes(content)
    assert run(["verify", str(file)]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert words in told and "mkiso verify takes an image" in told and "cut short" not in told


def test_verify_of_a_folder_that_is_no_disc_reads_none_of_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "would hang")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 10**13)
    assert run(["verify", str(tmp_path)]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "This folder is no disc: it has no DICOMDIR." in told and "mkiso verify takes" in told


def test_doctor_says_what_is_wrong_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from peers.ports import free_port

    monkeypatch.setenv("MKISO_CONFIG", "replaced below, and restored after the test")
    file = tmp_path / "config.yaml"
    file.write_text(f"""
server: {{port: {free_port()}}}
pacs: {{port: {free_port()}, connect_timeout_seconds: 1}}
receiver: {{host: 127.0.0.1, port: {free_port()}}}
patient_api: {{base_url: "http://127.0.0.1:{free_port()}", retries: 0}}
viewer: {{directory: nowhere}}
publishers: {{rimage: {{port: {free_port()}, connect_timeout_seconds: 1}}}}
prefect: {{server_port: {free_port()}}}
storage: {{min_free_gib: 0}}
""")
    assert run(["-c", str(file), "doctor"]) == 1
    told = capsys.readouterr().out
    for name in ("viewer", "PACS", "receiver", "patient API", "Prefect", "worker", "webhook", "publisher rimage"):
        assert any(line.startswith("wrong") and name in line for line in told.splitlines()), name
    assert f"{file} is correct; data is kept in" in told
    monkeypatch.chdir(tmp_path / "..")
    assert named_in({}) == "There is no config.yaml here, so all is by default: this"
    by_variables = "There is no config.yaml here, so what no MKISO__ variable sets is by default: this"
    assert named_in({"MKISO__PACS__HOST": "pacs"}) == by_variables
    assert "Start `mkiso serve`" in told
    assert "Is it switched on, and publishers.rimage right?" in told and "`publishers: {}`" in told
    assert "8 of these need attention." in told

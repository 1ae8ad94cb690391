"""The commands that put mkiso on a machine: `mkiso init`, and those below `mkiso service`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from mkiso.config.robots import RobotKind
from mkiso.errors import ConfigurationError
from mkiso_service.cli.options import require_no_dash

if TYPE_CHECKING:
    from mkiso.config.settings import Settings
    from mkiso_service.cli.init import Answers

HIDDEN = ("/home", "/root", "/run/user", "/tmp")  # noqa: S108  ProtectHome and PrivateTmp of the units
ROBOTS = ("none", *get_args(RobotKind), "cstore", "mcm")


GROUPS: dict[str, tuple[str, ...]] = {
    "mkiso": ("ae_title", "port"),
    "pacs": ("pacs_kind", "pacs_url", "pacs_ae_title", "pacs_host", "pacs_port"),
    "second": ("second_kind", "second_place"),
    "page": ("institution", "contact", "everybody", "page_port", "public_url"),
    "robot": ("robot", "robot_place"),
}
"""The questions, and which belong together: their answers are tried as soon as all of a group are given."""
_OF_KEYS = {
    "receiver.ae_title": "ae_title",
    "receiver.port": "port",
    "pacs.base_url": "pacs_url",
    "pacs.ae_title": "pacs_ae_title",
    "pacs.host": "pacs_host",
    "pacs.port": "pacs_port",
    "server.port": "page_port",
    "server.public_url": "public_url",
}
"""The question whose answer is a key of the configuration, where there is one alone."""
_OF_SECTIONS = {"sources.second.": "second_place", "publishers.": "robot_place"}
"""The question that most of a section comes from."""
NONE = "-"
"""The answer that makes one empty again."""


class _Port(click.IntRange):
    name = "port"
    """As click says what is none."""


class _Number(click.IntRange):
    name = "number"


def _asked(words: str, default: Any, **more: Any) -> Callable[..., Any]:
    """An option that is asked for on a terminal where it isn't given; elsewhere its default is taken."""
    return click.option(f"--{more.pop('name')}", help=words, default=default, show_default=default != "", **more)


def _is_needless(name: str, answers: Mapping[str, Any]) -> bool:
    """Whether another answer leaves nothing to ask here."""
    by_web = answers["pacs_kind"] == "dicomweb"
    needless: dict[str, bool] = {
        "pacs_url": not by_web,
        **dict.fromkeys(("pacs_ae_title", "pacs_host", "pacs_port"), by_web),
        "second_place": answers["second_kind"] == "none",
        "robot_place": answers["robot"] == "none",
    }
    return needless.get(name, False)


def _ask(option: click.Parameter, answer: Any) -> Any:
    words = str(getattr(option, "help", ""))
    if isinstance(answer, bool):
        return click.confirm(words, default=answer)
    may_be_empty = option.default == "" != answer
    given = click.prompt(
        f"{words} ({NONE} for none)" if may_be_empty else words,
        default=answer,
        type=option.type,
        show_default=answer != "",
    )
    return "" if may_be_empty and given == NONE else given


def _wrong_ones(problems: Iterable[str], answers: Mapping[str, Any]) -> set[str]:
    """The questions whose answers these problems are about, where they say it."""
    wrong = set()
    for problem in problems:
        wrong |= {_OF_KEYS.get(problem.partition(" ")[0].removesuffix(":"), "")}
        wrong |= {name for section, name in _OF_SECTIONS.items() if problem.startswith(section)}
        wrong |= {name for name, answer in answers.items() if answer and problem.startswith(f"{answer!r} ")}
    return wrong - {""}


class _Conversation:
    """Asks on a terminal what no option says, into `answers`; what is wrong is told when its group is answered, and
    asked again. At the end each answer can be corrected.
    """

    def __init__(self, file: Path, answers: dict[str, Any], *, untested: bool) -> None:
        context = click.get_current_context()
        self._file, self._answers, self._untested = file, answers, untested
        self._options = {option.name or "": option for option in context.command.params}
        self._given = {
            name for name in self._options if context.get_parameter_source(name) is not ParameterSource.DEFAULT
        }
        self._not_asked_yet = {name: self._options[name].default for names in GROUPS.values() for name in names}

    def hold(self) -> None:
        for group, names in GROUPS.items():
            for name in names:
                del self._not_asked_yet[name]
            self._ask(group, [name for name in names if name not in self._given])
        while name := self._to_correct():
            self._ask(next(group for group, names in GROUPS.items() if name in names), [name])

    def _ask(self, group: str, names: Iterable[str]) -> None:
        """Ask these of a group, and then of all of it what is wrong."""
        before = dict(self._answers)
        while True:
            for name in names:
                if not _is_needless(name, self._answers):
                    self._answers[name] = _ask(self._options[name], self._answers[name])
            try:
                tried = [] if self._untested else [group]
                if _told_of(self._drafted(), tried) or click.confirm("Keep these answers all the same?"):
                    return
                names = GROUPS[group]
            except ConfigurationError as error:
                names = self._take_back(error.problems, GROUPS[group], before)

    def _drafted(self) -> Settings:
        """The settings so far. An option may need the answer to a later question: its default stands in until then."""
        try:
            return _drafted(self._file, self._answers)
        except ConfigurationError:
            return _drafted(self._file, {**self._answers, **self._not_asked_yet})

    def _take_back(self, problems: Sequence[str], names: Sequence[str], before: dict[str, Any]) -> Sequence[str]:
        """Tell the problems; the questions to ask again. What was refused is no answer to repeat with an Enter."""
        for problem in problems:
            click.secho(problem, fg="red", err=True)
        wrong = _wrong_ones(problems, self._answers)
        again = [name for name in names if name in wrong] or names
        for name in again:
            if not isinstance(self._options[name].type, click.Choice):
                is_old = self._answers[name] == before[name]
                self._answers[name] = before[name] = self._options[name].default if is_old else before[name]
        return again

    def _to_correct(self) -> str:
        """Show all answers; the question that somebody wants to answer anew, empty where all are right."""
        shown = [name for names in GROUPS.values() for name in names if not _is_needless(name, self._answers)]
        click.echo()
        for number, name in enumerate(shown, 1):
            answer = {True: "yes", False: "no"}.get(self._answers[name], self._answers[name])
            click.echo(f"{number:>3}  {getattr(self._options[name], 'help', '')}: {answer}")
        words = f"Enter writes {self._file}, a number corrects that answer"
        number = click.prompt(words, default=0, show_default=False, type=_Number(0, len(shown)))
        return shown[number - 1] if number else ""


def _answered(answers: Mapping[str, Any]) -> Answers:
    from mkiso_service.cli.init import Answers

    given = {**answers, **{name: answers[name].removeprefix("none") for name in ("robot", "second_kind")}}
    if given["robot"] in get_args(RobotKind) and given["robot_place"]:
        given["robot_place"] = str(Path(given["robot_place"]).absolute())
    return Answers(**given)


def _drafted(file: Path, answers: Mapping[str, Any]) -> Settings:
    """The settings that these answers mean. Raises ConfigurationError."""
    from mkiso.config.file import load
    from mkiso_service.cli.init import save, written

    given = _answered(answers)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / file.name
        save(draft, written(given, file), with_key=given.everybody)
        try:
            return load(draft, {})
        except ConfigurationError as error:  # nobody has the file yet, so its lines say nothing
            problems = tuple(re.sub(r" \(line \d+\)$", "", each) for each in error.problems)
            raise ConfigurationError("; ".join(problems), problems) from None


def _told_of(settings: Settings, groups: Iterable[str]) -> bool:
    """Try what these groups of answers mean, and tell of each as it comes; whether all is well."""
    from mkiso_service.cli.init import troubles

    all_well = True
    for group in groups:
        for well, words in troubles(settings, group):
            click.secho(words, fg=None if well else "red", err=not well)
            all_well &= well
    return all_well


def _require_place(file: Path, *, asks: bool) -> None:
    """Check, before any question, that the file can be written. A missing folder is made only where somebody agrees.
    Raises click.ClickException, click.Abort.
    """
    from mkiso.config.file import INSTALLED
    from mkiso.storage.room import nearest

    if file.exists():
        raise click.ClickException(f"{file} exists already. Name another file with -o, or edit that one.")
    folder, there = file.parent, nearest(file.parent)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise click.ClickException(f"{file} can't be written: {there} is no folder that this user may write in.")
    if there in (folder, folder.parent) and (folder.is_dir() or folder == INSTALLED.parent):
        return
    if not asks:
        raise click.ClickException(f"There is no folder {folder}. Make it, or name another file with -o.")
    click.confirm(f"There is no folder {folder}. Make it?", abort=True)


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default="config.yaml",
    show_default=True,
    help="The file to write; one that is there already is left alone.",
)
@click.option("--no-questions", is_flag=True, help="Take the options and defaults; ask nothing.")
@click.option(
    "--untested", is_flag=True, help="Write the file although the PACS or the robot doesn't answer, or a port is taken."
)
@_asked("AE title of mkiso, which the PACS must know", "CDRECORD", name="ae-title")
@_asked("Port to which the PACS sends", 10104, name="port", type=_Port(1, 65535))
@_asked(
    "Studies come by cmove (the PACS sends them), cget, or from a DICOMweb server",
    "cmove",
    name="pacs-kind",
    type=click.Choice(["cmove", "cget", "dicomweb"]),
)
@_asked("Address of the DICOMweb server, as https://pacs.example.org/dicom-web", "", name="pacs-url")
@_asked("AE title of the PACS", "ABPACS", name="pacs-ae-title")
@_asked("Address of the PACS", "127.0.0.1", name="pacs-host")
@_asked("Port of the PACS", 11112, name="pacs-port", type=_Port(1, 65535))
@_asked(
    "A second source of studies: a PACS by cmove or cget, or a DICOMweb server",
    "none",
    name="second-kind",
    type=click.Choice(["none", "cmove", "cget", "dicomweb"]),
)
@_asked("Where it is: AE@host:port, or https://pacs.example.org/dicom-web", "", name="second-place")
@_asked("Name of the institution, on each disc", "", name="institution")
@_asked("Whom patients may ask, on each disc", "", name="contact")
@_asked("May other PCs open the page (with a key)?", False, name="everybody/--only-here")
@_asked("Port of the page", 8080, name="page-port", type=_Port(1, 65535))
@_asked("Address of the page behind a proxy, as https://discs.example.org", "", name="public-url")
@_asked("The disc robot", "none", name="robot", type=click.Choice(ROBOTS))
@_asked("The folder that the robot watches; for cstore and mcm AE@host:port", "", name="robot-place")
def init(output: Path, *, no_questions: bool, untested: bool, **answers: Any) -> int:
    """Write a configuration from a few answers. Each is tested against the real PACS and robot as it is given."""
    from mkiso_service.cli.init import key_file, save, written

    asks = sys.stdin.isatty() and not no_questions
    require_no_dash(str(output))
    file = output.absolute()
    try:
        _require_place(file, asks=asks)
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from None
    if asks:
        _Conversation(file, answers, untested=untested).hold()
    else:
        if not no_questions:
            click.echo("Nobody can be asked without a terminal: what no option says has its default.", err=True)
        if not _told_of(_drafted(file, answers), GROUPS) and not untested:
            click.echo("Nothing is written. Correct the answers, or add --untested.", err=True)
            return 1
    given = _answered(answers)
    save(file, written(given, file), with_key=given.everybody)
    click.echo(
        f"wrote {file}" + (f"\nwrote {key_file(file)}, the key that the page asks for" if given.everybody else "")
    )
    command = shlex.join(("mkiso" if shutil.which("mkiso") else str(_program()), "-c", str(output)))
    click.echo(f"Next: {command} serve, or as a service: {command} service install")
    return 0


def _program() -> Path:
    """This very mkiso, whatever another one the shell finds."""
    return Path(sys.executable).with_name("mkiso")


def _shut(place: Path) -> Path | None:
    """What others may not enter or read, on the way to a file and itself; None where there is nothing of that."""
    for each in (*reversed(place.parents), place):
        if each.exists() and not each.stat().st_mode & (0o001 if each.is_dir() else 0o004):
            return each
    return None


@click.group()
def service() -> None:
    """Run mkiso as a systemd service of this machine."""


@service.command()
@click.option(
    "--shape",
    type=click.Choice(["one", "front", "worker", "all"]),
    default="one",
    show_default=True,
    help="Everything in one unit; Prefect and the webhook; a receiver and a worker; or each of the four in its own.",
)
@click.option("--dry-run", is_flag=True, help="Print the files and write none.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    help="Write below this folder.",
)
def install(shape: str, dry_run: bool, root: Path) -> None:
    """Write the units, and say what to do next. Ports and folders come from the configuration: install again when
    they change.
    """
    from mkiso.config.file import INSTALLED, load, may_be_there
    from mkiso_service.cli.init import key_file
    from mkiso_service.installation.units import DATA, FOLDER, SHAPES, defaults, files, others, unit_name

    config = Path(os.environ.get("MKISO_CONFIG") or INSTALLED).absolute()
    settings = load(config) if may_be_there(config) else defaults()
    program = str(own) if (own := _program()).exists() else shutil.which("mkiso") or str(own)
    for path, text in files(settings, shape, config, program):
        if dry_run:
            click.echo(f"# {path}\n{text}")
            continue
        target = root / path.relative_to("/")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            way = " Run this as root." if isinstance(error, PermissionError) else ""
            raise click.ClickException(f"{target} can't be written: {error.strerror}.{way}") from None
        click.echo(f"wrote {target}")
    if dry_run:
        return
    units = " ".join(unit_name(part) for part in SHAPES[shape])
    before = " ".join(each for each in others(shape) if (root / FOLDER.relative_to("/") / each).exists())
    mkiso, file = shlex.quote(program), shlex.quote(str(config))
    begin = [] if config.is_file() else [f"{mkiso} init -o {file}", f"{mkiso} -c {file} service install"]
    kept = shlex.join(str(each) for each in (config, key_file(config)) if each == config or each.is_file())
    guard = f"chown root:mkiso {kept} && chmod 640 {kept}"  # beside them lie others' files
    if config.parent == INSTALLED.parent:
        guard = f"chown -R root:mkiso {INSTALLED.parent} && chmod -R u=rwX,g=rX,o= {INSTALLED.parent}"
    data_dir = settings.storage.data_dir
    make = f"install -d -o mkiso -g mkiso -m 700 {shlex.quote(str(data_dir))}"
    steps = [
        "systemd-sysusers && systemd-tmpfiles --create",
        *begin,
        *([] if data_dir.exists() or data_dir == DATA else [make]),
        guard,
        f"runuser -u mkiso -- {mkiso} -c {file} config check",
        *([f"systemctl disable --now {before}"] if before else []),
        f"systemctl daemon-reload && systemctl enable {units} && systemctl restart {units}",  # the old ones may run
        f"runuser -u mkiso -- {mkiso} -c {file} doctor",
    ]
    click.echo("\nNext, as root:\n" + "".join(f"  {step}\n" for step in steps))
    python = Path(sys.executable).resolve()  # a virtual environment's is a link
    for name, place in (("The configuration", config), ("The program", Path(program)), ("Its Python", python)):
        if hidden := next((each for each in HIDDEN if place.is_relative_to(each)), None):
            click.echo(f"{name} {place} lies in {hidden}, where a service can't see it: put it elsewhere.", err=True)
    if shut := _shut(Path(program)) or _shut(Path(__file__)):
        click.echo(
            f"{shut} is shut to the user mkiso, as what a umask of 077 makes: chmod -R go+rX {shlex.quote(sys.prefix)}",
            err=True,
        )
    if data_dir.exists() and data_dir != DATA:
        give = f"chown mkiso:mkiso {shlex.quote(str(data_dir))}"
        click.echo(f"storage.data_dir is {data_dir}, and has to belong to mkiso: {give}", err=True)


@service.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def backup(folder: Path) -> None:
    """Copy what can't be made again to a new folder in FOLDER. That is the configuration, the archive's ledger and
    the order books; everything may run meanwhile.
    """
    from mkiso.config.file import file_of, load
    from mkiso_service.installation.backup import back_up

    settings = load()
    file, _ = file_of(os.environ)
    click.echo(back_up(settings.storage, settings.archive, file, folder))
    if settings.archive.ledger_url.get_secret_value():
        click.echo("The ledger is in PostgreSQL: dump that database too (pg_dump).", err=True)

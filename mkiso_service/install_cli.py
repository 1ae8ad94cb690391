"""The commands that put mkiso on a machine: `mkiso init`, and those below `mkiso service`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

HIDDEN = ("/home", "/root", "/run/user", "/tmp")  # noqa: S108  ProtectHome and PrivateTmp of the units
ROBOTS = ("none", "rimage", "epson", "primera", "folder", "cstore", "mcm")


def _asked(words: str, default: Any, **more: Any) -> Callable[..., Any]:
    """An option that is asked for on a terminal where it isn't given; elsewhere its default is taken."""
    return click.option(
        f"--{more.pop('name')}", help=words, default=default, show_default=default != "", callback=_ask, **more
    )


def _ask(context: click.Context, option: click.Parameter, value: Any) -> Any:
    given = context.get_parameter_source(option.name or "") is not ParameterSource.DEFAULT
    if given or context.params.get("no_questions") or not sys.stdin.isatty():
        return value
    needless = {"robot_place": "robot", "second_place": "second_kind"}.get(option.name or "")
    if needless and context.params.get(needless) == "none":
        return value
    words = str(getattr(option, "help", ""))
    if isinstance(value, bool):
        return click.confirm(words, default=value)
    return click.prompt(words, default=value, type=option.type, show_default=value != "")


@click.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default="config.yaml", show_default=True
)
@click.option("--no-questions", is_flag=True, is_eager=True, help="Take the options and defaults; ask nothing.")
@click.option("--untested", is_flag=True, help="Write the file although the PACS or the robot doesn't answer yet.")
@_asked("AE title of the PACS", "ABPACS", name="pacs-ae-title")
@_asked("Address of the PACS", "127.0.0.1", name="pacs-host")
@_asked("Port of the PACS", 11112, name="pacs-port", type=click.IntRange(1, 65535))
@_asked(
    "Studies come by cmove (the PACS sends them) or cget",
    "cmove",
    name="pacs-kind",
    type=click.Choice(["cmove", "cget"]),
)
@_asked(
    "A second source of studies: a PACS by cmove or cget, or a DICOMweb server",
    "none",
    name="second-kind",
    type=click.Choice(["none", "cmove", "cget", "dicomweb"]),
)
@_asked("Where it is: AE@host:port, or https://pacs.example.org/dicom-web", "", name="second-place")
@_asked("AE title of mkiso, which the PACS must know", "CDRECORD", name="ae-title")
@_asked("Port to which the PACS sends", 10104, name="port", type=click.IntRange(1, 65535))
@_asked("Name of the institution, on each disc", "", name="institution")
@_asked("Whom patients may ask, on each disc", "", name="contact")
@_asked("May other PCs open the page (with a key)?", False, name="everybody/--only-here")
@_asked("Port of the page", 8080, name="page-port", type=click.IntRange(1, 65535))
@_asked(
    "Address of the page behind a proxy, as https://discs.example.org",
    "",
    name="public-url",
)
@_asked(
    "The disc robot",
    "none",
    name="robot",
    type=click.Choice(ROBOTS),
)
@_asked("The folder that the robot watches; for cstore and mcm AE@host:port", "", name="robot-place")
def init(output: Path, *, no_questions: bool, untested: bool, robot: str, second_kind: str, **answers: Any) -> int:
    """Write a commented configuration from a few answers, each tested against the real PACS and robot."""
    from mkiso.config.file import load
    from mkiso.config.publishers import RobotKind
    from mkiso_service.init import Answers, key_file, save, troubles, written

    if not no_questions and not sys.stdin.isatty():
        click.echo("Nobody can be asked without a terminal: what no option says has its default.", err=True)
    file = output.absolute()
    if file.exists():
        raise click.FileError(str(output), "it exists already; name another one with -o, or edit that one")
    if robot in get_args(RobotKind):
        answers["robot_place"] = str(Path(answers["robot_place"]).absolute())
    given = Answers(robot=robot.removeprefix("none"), second_kind=second_kind.removeprefix("none"), **answers)
    text = written(given, file)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / file.name
        save(draft, text, with_key=given.everybody)
        settings = load(draft, {})
    wrong = False
    for well, words in troubles(settings):
        click.secho(words, fg=None if well else "red", err=not well)
        wrong |= not well
    if (
        wrong
        and not untested
        and not (
            sys.stdin.isatty() and not no_questions and click.confirm("Write the file all the same?", default=False)
        )
    ):
        click.echo("Nothing is written. Correct the answers, or add --untested.", err=True)
        return 1
    save(file, text, with_key=given.everybody)
    click.echo(
        f"wrote {file}" + (f"\nwrote {key_file(file)}, the key that the page asks for" if given.everybody else "")
    )
    click.echo(f"Next: mkiso -c {output} serve, or as a service: mkiso -c {output} service install")
    return 0


@click.group()
def service() -> None:
    """Run mkiso as a systemd service of this machine."""


@service.command()
@click.option(
    "--shape",
    type=click.Choice(["one", "front", "worker", "all"]),
    default="one",
    show_default=True,
    help="Which units to install.",
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
    from mkiso.config.file import load
    from mkiso_service.install import CONFIG, DATA, SHAPES, defaults, files, unit_name

    config = Path(os.environ.get("MKISO_CONFIG") or CONFIG).absolute()
    settings = load(config) if config.is_file() else defaults()
    program = shutil.which("mkiso") or str(Path(sys.executable).with_name("mkiso"))
    for path, text in files(settings, shape, config, program):
        if dry_run:
            click.echo(f"# {path}\n{text}")
            continue
        target = root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        click.echo(f"wrote {target}")
    if dry_run:
        return
    units = " ".join(unit_name(part) for part in SHAPES[shape])
    begin = [] if config.is_file() else [f"{program} init -o {config}", f"{program} -c {config} service install"]
    steps = [
        "systemd-sysusers && systemd-tmpfiles --create",
        *begin,
        f"chown -R root:mkiso {config.parent} && chmod 640 {config.parent}/*",
        f"sudo -u mkiso {program} -c {config} config check",
        f"systemctl daemon-reload && systemctl enable --now {units}",
        f"sudo -u mkiso {program} -c {config} doctor",
    ]
    click.echo("\nNext, as root:\n" + "".join(f"  {step}\n" for step in steps))
    for name, place in (("The configuration", config), ("The program", Path(program))):
        if hidden := next((each for each in HIDDEN if place.is_relative_to(each)), None):
            click.echo(f"{name} {place} lies in {hidden}, where a service can't see it: put it elsewhere.", err=True)
    data_dir = settings.storage.data_dir
    if config.is_file() and data_dir != DATA:
        click.echo(
            f"storage.data_dir is {data_dir}: make it, and give it to mkiso (chown mkiso:mkiso {data_dir}).", err=True
        )


@service.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def backup(folder: Path) -> None:
    """Copy what can't be made again (configuration, archive ledger, order books) to a new folder below FOLDER, while
    everything runs.
    """
    from mkiso.config.file import load
    from mkiso_service.backup import back_up

    named = os.environ.get("MKISO_CONFIG")
    settings = load()
    click.echo(back_up(settings.storage, settings.archive, Path(named) if named else Path("config.yaml"), folder))
    if settings.archive.ledger_url.get_secret_value():
        click.echo("The ledger is in PostgreSQL: dump that database too (pg_dump).", err=True)

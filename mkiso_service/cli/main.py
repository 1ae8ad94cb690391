"""The command line. What a command needs is imported when it runs, so that `mkiso --help` answers at once.

Exit codes: 0 done, 1 failed, 2 usage or configuration.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from mkiso.errors import ConfigurationError, MkisoError, RetriableError
from mkiso_service.cli.archive import archive
from mkiso_service.cli.discs import burn, cancel, find, jobs, letter, print_, series
from mkiso_service.cli.installation import init, service
from mkiso_service.cli.options import FAILED
from mkiso_service.network_variables import require_usable

if TYPE_CHECKING:
    from mkiso.config.settings import Settings

MISUSED = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="mkiso", message="%(version)s")
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, readable=False),  # what can't be read is told with what to do
    help="The configuration file. Default: MKISO_CONFIG, then ./config.yaml, then /etc/mkiso/config.yaml.",
)
def cli(config: Path | None) -> None:
    """From an accession number to a patient disc that is provably complete."""
    require_usable()
    if config is not None:
        os.environ["MKISO_CONFIG"] = str(config.resolve())


def run(arguments: list[str] | None = None) -> int:
    """Run a command; its exit code. Errors are told in words on standard error."""
    try:
        code = cli.main(arguments, prog_name="mkiso", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        return MISUSED
    except MkisoError as error:
        click.echo(error.line, err=True)
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return FAILED


def load_settings() -> Settings:
    """The configuration. Raises ConfigurationError with every problem."""
    from mkiso.config.file import load

    return load()


def _begin() -> Settings:
    os.umask(0o077)  # what Prefect writes too is the service's alone
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # else numpy's library starts threads, which mkiso doesn't use
    from mkiso.config.in_force import in_force, use

    use(settings := in_force())
    from mkiso_service.log_lines import begin_logging

    begin_logging(settings.logging)
    from mkiso.storage.room import is_away, lacking_storage

    if found := tuple(lacking_storage(settings.storage)):
        if len(found) == 1 and (share := settings.storage.shared_dir) and is_away(share):
            raise RetriableError(found[0])  # it may be mounted later than mkiso starts
        raise ConfigurationError("; ".join(found), found)
    from mkiso.storage.data_format import require_known

    require_known(settings.storage)
    return settings


def _begin_with_prefect(*, make: bool = True) -> Settings:
    """As _begin, with the password of Prefect's API, made where nobody has made one, and the environment that Prefect
    reads when it is imported.
    """
    settings = _begin()
    from mkiso.config.in_force import use
    from mkiso_service.prefect.environment import begin_with
    from mkiso_service.prefect.password import with_password

    use(settings := with_password(settings, make=make))
    begin_with(settings)
    return settings


def _start(name: str, settings: Settings) -> None:
    """Before a part of the service, or all of it, writes anything."""
    from mkiso.config.file import named_in
    from mkiso.implementation import program_version
    from mkiso.storage.data_format import note_format

    note_format(settings.storage)
    words = "%s is the configuration that mkiso %s starts with. Data is kept in %s."
    where = named_in(os.environ), program_version(), settings.storage.data_dir
    logging.getLogger(f"mkiso.{name}").info(words, *where)


def _run(name: str) -> None:
    """Run one part alone, until a signal."""
    from mkiso_service.processes.parts import PARTS, importing

    part = PARTS[name]
    settings = _begin_with_prefect() if part.knows_prefect else _begin()
    _start(name, settings)
    with importing():
        run_part = part.load()
    run_part(settings)


@cli.command()
def serve() -> int:
    """Run everything that one machine needs. That is Prefect, the receiver, the worker and the webhook."""
    settings = _begin()
    from mkiso_service.prefect.password import with_password
    from mkiso_service.processes.supervisor import run as supervise

    _start("serve", settings)
    return supervise(with_password(settings, make=True))


@cli.command()
def webhook() -> None:
    """Run only the webhook, which answers HTTP."""
    _run("webhook")


@cli.command()
def worker() -> None:
    """Run only the worker, which executes the jobs."""
    _run("worker")


@cli.command()
def receiver() -> None:
    """Run only the receiver: the Storage SCP that the PACS sends to."""
    _run("receiver")


@cli.group(invoke_without_command=True)
@click.pass_context
def prefect(context: click.Context) -> None:
    """Run only the Prefect server, for several machines. PREFECT_SERVER_DATABASE_CONNECTION_URL names its PostgreSQL
    database.
    """
    if context.invoked_subcommand is None:
        _run("prefect")


@prefect.command()
def password() -> None:
    """Show the password that the Prefect UI asks for."""
    from mkiso_service.prefect.password import with_password

    click.echo(with_password(load_settings()).prefect.api_auth_string.get_secret_value())


@cli.command()
def deploy() -> None:
    """Create or update the deployments in Prefect, and their queues. Each worker does this when it starts."""
    settings = _begin_with_prefect(make=False)
    import asyncio

    from mkiso_service.worker.deploy import ensure_deployments
    from mkiso_service.worker.deployments import deployments

    asyncio.run(ensure_deployments(settings))
    names = ", ".join(each.name for each in deployments(settings.archive))
    click.echo(f"Work pool {settings.prefect.work_pool}: {names}")


@cli.command()
@click.argument("image", metavar="FILE|DEVICE|FOLDER", type=click.Path(path_type=Path, exists=True))
@click.option("--many-patients", is_flag=True, help="For an archive volume, which holds more than one patient.")
@click.option(
    "--password-file",
    type=click.File(),
    help="A file with the password of an encrypted one, - for standard input. A terminal is asked without it.",
)
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="For encrypted DICOM files: the private key (PEM) of somebody whom the disc was made for.",
)
def verify(image: Path, many_patients: bool, password_file: TextIO | None, key_file: Path | None) -> int:
    """Check every file of an image, a ZIP file, a folder or a drive. What counts are its own checksums and DICOMDIR."""
    from rich.console import Console

    from mkiso.errors import ProofFailed
    from mkiso.formats.disc_check import DiscReport, verify_disc
    from mkiso.formats.envelope_reader import private_key_of
    from mkiso.formats.protocol import PasswordNeeded
    from mkiso_service.cli.display import bar_of_bytes

    console = Console(soft_wrap=True)

    def verified(password: str) -> DiscReport:
        with bar_of_bytes(console, "reading") as moved:
            return verify_disc(image, one_patient=not many_patients, password=password, key=key, progress=moved)

    try:
        key = private_key_of(key_file) if key_file else None
        password = password_file.readline().strip() if password_file else ""
        try:
            report = verified(password)
        except PasswordNeeded:
            if password or key or not sys.stdin.isatty():
                raise
            report = verified(click.prompt("Password", hide_input=True, err=True).strip())
    except ProofFailed as failed:
        for finding in failed.details.get("findings", [failed.words]):  # type: ignore[attr-defined]
            console.print(finding, style="bold red", markup=False, highlight=False)
        return FAILED
    except OSError as error:
        raise click.FileError(str(image), error.strerror) from None
    console.print(str(report), markup=False, highlight=False)
    return 0


@cli.group()
def config() -> None:
    """The configuration."""


@config.command()
def check() -> None:
    """List everything that is wrong with the configuration. The files and folders that it names are looked at too: run
    it as the user that mkiso runs as.
    """
    from mkiso.config.file import named_in
    from mkiso_service.checks.configuration import problems

    if found := problems():
        raise ConfigurationError("", tuple(found))
    settings = load_settings()
    click.echo(f"{named_in(os.environ)} is correct. Data is kept in {settings.storage.data_dir}.")
    if settings.warning:
        click.echo(f"Warning: {settings.warning}", err=True)


@cli.command()
def doctor() -> int:
    """Check whatever mkiso depends on. Each line says what is wrong and what to do."""
    from rich.console import Console

    from mkiso_service.cli.doctor import diagnose

    return diagnose(Console(soft_wrap=True), load_settings())


@cli.command()
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-data"),
    show_default=True,
    help="The folder for its data.",
)
def demo(keep: bool, folder: Path) -> int:
    """See mkiso at work, with a PACS of its own. Discs are made, verified, listed, and all of it ends again."""
    from rich.console import Console

    from mkiso_service.cli.demo import demonstrate

    return demonstrate(Console(soft_wrap=True), folder.resolve(), keep=keep)


for each in (burn, print_, find, series, jobs, cancel, letter, archive, init, service):
    cli.add_command(each)


@cli.command()
def version() -> None:
    """Show the version."""
    from mkiso.implementation import program_version

    click.echo(program_version())

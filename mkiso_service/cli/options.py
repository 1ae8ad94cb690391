"""What the commands of a clerk share: the options that say what is asked for and of which service, and its errors told
at a terminal.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mkiso.errors import InvalidAccessionNumber

if TYPE_CHECKING:
    from rich.console import Console

    from mkiso_service.cli.client import Client, DiscRequest

FAILED = 1
DEFAULT_URL = "http://127.0.0.1:8080"

Command = Callable[..., Any]


def _born(_context: click.Context, _option: click.Parameter, given: str) -> str:
    if given and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", given, re.ASCII):
        raise click.BadParameter(f"{given!r} is no date: write it as 1970-01-31.")
    return given


def _address(_context: click.Context, _option: click.Parameter, given: str) -> str:
    """Said before anything is asked: a machine without its scheme would look like a service that doesn't run."""
    import httpx

    try:
        url = httpx.URL(given)
        url.raw_host.decode("ascii").encode("idna")  # as a socket does
        has_port = url.port is None or 0 < url.port < 2**16
        has_host = url.host != "" and "%" not in url.host  # as it writes what no name has
        is_whole = url.scheme in ("http", "https") and has_host and has_port
    except (httpx.InvalidURL, ValueError):
        is_whole = False
    if not is_whole:
        raise click.BadParameter(f"{given!r} is no whole address: write it as {DEFAULT_URL}.")
    return given


def _numbers(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """What the service would refuse, said before it is asked, and as one says it at a terminal."""
    from mkiso.study.accession import parse_accession_number

    try:
        return tuple(map(parse_accession_number, given))
    except InvalidAccessionNumber as error:
        raise click.BadParameter(error.words) from None


def _uids(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    from mkiso.study.selection import is_uid

    for text in given:
        if not is_uid(text):
            raise click.BadParameter(f"{text[:80]!r} is no UID: numbers with dots between them.")
    return given


may_write_over = click.option(
    "-f", "--force", is_flag=True, help="Write over files of these names. Without it a terminal is asked."
)


def of_studies(command: Command) -> Command:
    """The numbers, and what is chosen of their studies; the command takes them as a `request`."""

    @click.argument("accession_numbers", metavar="[ACCESSION]...", nargs=-1, callback=_numbers)
    @click.option(
        "--study-uid",
        "study_uids",
        multiple=True,
        metavar="UID",
        callback=_uids,
        help="Only this study of the accession numbers, or this study where no number is given. May be repeated.",
    )
    @click.option(
        "--series-uid",
        "series_uids",
        multiple=True,
        metavar="UID",
        callback=_uids,
        help="Only this series of its study; `mkiso series` lists them. May be repeated.",
    )
    @wraps(command)
    def with_studies(
        accession_numbers: tuple[str, ...], study_uids: tuple[str, ...], series_uids: tuple[str, ...], **others: Any
    ) -> Any:
        from mkiso.study.selection import Selection
        from mkiso_service.cli.client import DiscRequest

        if not accession_numbers and not study_uids:
            raise click.UsageError("Missing argument 'ACCESSION...': give an accession number, or --study-uid.")
        return command(request=DiscRequest(accession_numbers, Selection(study_uids, series_uids)), **others)

    return with_studies


def of_a_patient(command: Command) -> Command:
    """The options of a command that makes a disc of somebody, which stand in its `request` then."""

    @click.option(
        "--json", "as_json", is_flag=True, help="Tell the job on standard output, and its progress on standard error."
    )
    @click.option(
        "--priors/--no-priors",
        default=None,
        callback=lambda _context, _option, given: "" if given is None else str(given).lower(),
        help="Whether earlier studies of the patient go beside them, by the site's rule. Default: priors.default.",
    )
    @click.option(
        "--transfer-syntax",
        default="",
        metavar="as-archived|explicit-le",
        help="Images as they are archived, or all Explicit VR Little Endian. Default: disc.transfer_syntax.",
    )
    @click.option(
        "--language", default="", metavar="CODE", help="Of the pages on the disc, such as de. Default: disc.language."
    )
    @click.option(
        "--birth-date",
        default="",
        metavar="YYYY-MM-DD",
        callback=_born,
        help="The patient's birth date: with another one in the PACS no disc is made.",
    )
    @click.option("-y", "--yes", is_flag=True, help="Don't show the patient and ask first.")
    @wraps(command)
    def with_patient(
        request: DiscRequest, priors: str, transfer_syntax: str, language: str, birth_date: str, **others: Any
    ) -> Any:
        asked = replace(
            request, priors=priors, transfer_syntax=transfer_syntax, language=language, birth_date=birth_date
        )
        return command(request=asked, **others)

    return with_patient


def of_a_service(command: Command) -> Command:
    """The options of a command that asks a running service, and takes it as a `client`. What the service refuses is
    told on standard error.
    """

    @click.option(
        "--url",
        envvar="MKISO_URL",
        default=DEFAULT_URL,
        show_default=True,
        callback=_address,
        help="The address of mkiso serve; also MKISO_URL.",
    )
    @click.option(
        "--api-key-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="A file with the API key. Default: MKISO__AUTH__API_KEY, or the file in MKISO__AUTH__API_KEY_FILE.",
    )
    @wraps(command)
    def with_client(url: str, api_key_file: Path | None, **others: Any) -> Any:
        from mkiso.config.file import api_key_of, read_secret
        from mkiso.errors import FolderTaken, ProofFailed, SeveralDiscs, StorageFull
        from mkiso_service.cli.client import Client, ServiceError

        key = read_secret(api_key_file, "--api-key-file") if api_key_file else api_key_of(os.environ)
        try:
            with Client(url, key) as client:
                return command(client=client, **others)
        except (ServiceError, FolderTaken, ProofFailed, SeveralDiscs, StorageFull) as error:
            return _say(error)

    return with_client


def confirmed(
    console: Console, client: Client, request: DiscRequest, *, yes: bool, question: str = "Make a disc of this patient?"
) -> DiscRequest:
    """The request, and whose disc it is to be: on a terminal somebody has seen and confirmed the patient, and how often
    the disc was ordered before. Raises click.Abort.
    """
    if yes or not _somebody_is_there():
        return request
    from mkiso_service.cli.display import show_preview

    preview = client.preview(request)
    show_preview(console, preview)
    click.confirm(question, abort=True, err=console.stderr)
    ordered = preview["ordered"]
    return replace(request, shown=preview["shown"], orders_told=str(ordered["orders"] if ordered else 0))


def tell(answer: object) -> None:
    """An answer of the service as JSON, in UTF-8 whatever the locale (RFC 8259 8.1)."""
    from pydantic_core import to_json

    click.echo(to_json(answer, indent=2))


def _somebody_is_there() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def place_of(given: str | None, name: str, *, force: bool) -> Path:
    """Where a file goes, asked before anything is made, since a disc that can't be written is work for nothing: the
    file that is given, or `name` in the folder that is given or in this one. What is there is written over where
    somebody says so. Raises click.ClickException, click.Abort.
    """
    try:
        return _place_of(given, name, force=force)
    except OSError as error:
        raise click.FileError(given or name, error.strerror) from None


def require_no_dash(given: str | None) -> None:
    """Nothing is written to standard output, as elsewhere - says. Raises click.ClickException."""
    if given == "-":
        raise click.ClickException("- is no file, and this isn't written to standard output. Name a file (./- is one).")


def _place_of(given: str | None, name: str, *, force: bool) -> Path:
    require_no_dash(given)
    file = Path(given or name)
    if file.is_dir():
        file /= name
    elif given and given.endswith("/"):
        file /= name  # whose folder isn't there
    _require_folder(file.parent)
    if not os.path.lexists(file):
        return file
    if file.exists() and not file.is_file():
        raise click.ClickException(f"{file} is no file that could be written over. Name another one.")
    if force:
        return file
    if not _somebody_is_there():
        raise click.ClickException(f"{file} exists already. Name another file, or add --force to write over it.")
    click.confirm(f"{file} exists already. Write over it?", abort=True, err=True)
    return file


def _require_folder(folder: Path) -> None:
    from mkiso.storage.room import nearest

    if (there := nearest(folder.absolute())).exists() and not there.is_dir():
        raise click.FileError(str(folder), f"{there.name} is a file and no folder; name another one")
    if not folder.is_dir():
        raise click.FileError(str(folder), "there is no such folder; make it, or name another one")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise click.FileError(str(folder), "you may not write there; name another folder")


def _say(error: Exception) -> int:
    """Tell an error of the service on standard error; the exit code."""
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True)
    told = [str(getattr(error, name, "")) for name in ("code", "request_id")]
    words = str(error).replace("confirm_reprint", "--confirm-reprint")  # as this command calls it
    if told[0] == "job_not_found":
        words += " `mkiso jobs` lists the jobs."
    console.print(words, style="bold red", markup=False, highlight=False)
    console.print(
        "  " + "  ".join(f"{name} {value}" for name, value in zip(("code", "request"), told, strict=True) if value),
        style="dim",
    )
    return FAILED

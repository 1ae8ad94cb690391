"""The commands of a clerk, which ask a running service: have a disc made, have it printed, list discs, cancel one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mkiso.errors import InvalidAccessionNumber

if TYPE_CHECKING:
    from rich.console import Console

    from mkiso.study.selection import Selection
    from mkiso_service.api import Job
    from mkiso_service.client import Client

FAILED = 1
DEFAULT_URL = "http://127.0.0.1:8080"


def _of_a_service(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that asks a running service."""
    file = click.Path(path_type=Path, exists=True, dir_okay=False)
    key = click.option(
        "--api-key-file",
        type=file,
        help="A file with the API key. Default: MKISO__AUTH__API_KEY, or the file in MKISO__AUTH__API_KEY_FILE.",
    )
    url = click.option(
        "--url",
        envvar="MKISO_URL",
        default=DEFAULT_URL,
        show_default=True,
        help="The address of mkiso serve; also MKISO_URL.",
    )
    return url(key(command))


def _of_a_patient(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that makes a disc of somebody."""
    yes = click.option("-y", "--yes", is_flag=True, help="Don't show the patient and ask first.")
    born = click.option(
        "--birth-date",
        default="",
        metavar="YYYY-MM-DD",
        callback=_born,
        help="The patient's birth date: with another one in the PACS no disc is made.",
    )
    spoken = click.option(
        "--language", default="", metavar="CODE", help="Of the pages on the disc, such as de. Default: disc.language."
    )
    stored = click.option(
        "--transfer-syntax",
        default="",
        metavar="as-archived|explicit-le",
        help="Images as they are archived, or all Explicit VR Little Endian. Default: disc.transfer_syntax.",
    )
    as_json = click.option(
        "--json", "as_json", is_flag=True, help="Tell the job on standard output, and its progress on standard error."
    )
    priors = click.option(
        "--priors/--no-priors",
        default=None,
        callback=lambda _context, _option, given: "" if given is None else str(given).lower(),
        help="Whether earlier studies of the patient go beside them, by the site's rule. Default: priors.default.",
    )
    return as_json(priors(stored(spoken(born(yes(command))))))


def _born(_context: click.Context, _option: click.Parameter, given: str) -> str:
    if given and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", given, re.ASCII):
        raise click.BadParameter(f"{given!r} is no date: write it as 1970-01-31.")
    return given


def _numbers(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """What the service would refuse, said before it is asked, and as one says it at a terminal."""
    from mkiso.study.accession import parse_accession_number

    try:
        return tuple(map(parse_accession_number, given))
    except InvalidAccessionNumber as error:
        raise click.BadParameter(error.words) from None


_accession_numbers = click.argument("accession_numbers", metavar="[ACCESSION]...", nargs=-1, callback=_numbers)


def _uids(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    from mkiso.study.selection import is_uid

    for text in given:
        if not is_uid(text):
            raise click.BadParameter(f"{text[:80]!r} is no UID: numbers with dots between them.")
    return given


def _of_a_selection(command: Callable[..., Any]) -> Callable[..., Any]:
    """The numbers, and what is chosen of their studies."""
    study = click.option(
        "--study-uid",
        "study_uids",
        multiple=True,
        metavar="UID",
        callback=_uids,
        help="Only this study of the accession numbers, or this study where no number is given. May be repeated.",
    )
    series = click.option(
        "--series-uid",
        "series_uids",
        multiple=True,
        metavar="UID",
        callback=_uids,
        help="Only this series of its study; `mkiso series` lists them. May be repeated.",
    )
    return _accession_numbers(study(series(command)))


def _selection(
    accession_numbers: tuple[str, ...], study_uids: tuple[str, ...], series_uids: tuple[str, ...]
) -> Selection:
    from mkiso.study.selection import Selection

    if not accession_numbers and not study_uids:
        raise click.UsageError("Missing argument 'ACCESSION...': give an accession number, or --study-uid.")
    return Selection(study_uids, series_uids)


def _tell(job: Job, **more: object) -> None:
    """A job that has ended, as JSON."""
    from pydantic_core import to_json

    click.echo(to_json({"job": job, **more}, indent=2).decode())


def _confirmed(
    console: Console,
    client: Client,
    accession_numbers: tuple[str, ...],
    birth_date: str,
    selection: Selection,
    priors: str,
    *,
    yes: bool,
) -> dict[str, str]:
    """Whose disc is to be made: on a terminal somebody has seen and confirmed the patient. Raises click.Abort."""
    if yes or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return {"birth_date": birth_date, "priors": priors}
    from mkiso_service.display import show_preview

    preview = client.preview(accession_numbers, birth_date, selection, priors)
    show_preview(console, preview)
    click.confirm("Make a disc of this patient?", abort=True, err=console.stderr)
    return {"shown": preview["shown"], "birth_date": birth_date, "priors": priors}


def _connect(url: str, api_key_file: Path | None) -> Client:
    from mkiso.config.file import api_key_of, read_secret
    from mkiso_service.client import Client

    return Client(url, read_secret(api_key_file, "--api-key-file") if api_key_file else api_key_of(os.environ))


def _say(error: Exception) -> int:
    """Tell a ServiceError on standard error; the exit code."""
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True)
    told = [str(getattr(error, name, "")) for name in ("code", "request_id")]
    console.print(str(error), style="bold red", markup=False, highlight=False)
    console.print(
        "  " + "  ".join(f"{name} {value}" for name, value in zip(("code", "request"), told, strict=True) if value),
        style="dim",
    )
    return FAILED


@click.command()
@_of_a_selection
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file. Default: ACCESSION.iso, or as its format is called; a set gets FILE-1of2-SET.iso and so on.",
)
@click.option(
    "--format",
    "form",
    default="",
    metavar="FORMAT",
    help="iso (the default), for a drive; zip, for any computer; zip-encrypted, with a password that is shown once; "
    "usb, for a duplicator of sticks; iso-cms, zip-cms, usb-cms, encrypted for DICOM programs alone.",
)
@click.option(
    "--letter",
    "letter_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With an encrypted format: write the password into this letter for the patient (PDF), and don't show it.",
)
@click.option(
    "--to",
    "place",
    type=click.Path(path_type=Path, exists=True, file_okay=False, writable=True),
    help="Write the files into this empty folder, such as a mounted USB stick, and read them back from there.",
)
@click.option("--beside-others", is_flag=True, help="With --to: the folder may have other files in it.")
@click.option(
    "--deidentified",
    is_flag=True,
    help="A copy for teaching and research that doesn't say whose it is; no patient's disc.",
)
@_of_a_patient
@_of_a_service
def burn(
    accession_numbers: tuple[str, ...],
    study_uids: tuple[str, ...],
    series_uids: tuple[str, ...],
    output: Path | None,
    form: str,
    place: Path | None,
    letter_file: Path | None,
    url: str,
    api_key_file: Path | None,
    birth_date: str,
    language: str,
    priors: str,
    transfer_syntax: str,
    *,
    beside_others: bool,
    deidentified: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Have a disc of one patient's studies made, and download its image. On a terminal it shows the patient and asks
    first. Run the same command again to resume a broken download.
    """
    from rich.console import Console

    from mkiso.errors import ProofFailed, StorageFull
    from mkiso.formats.registry import FORMATS, ISO
    from mkiso.media.names import PART
    from mkiso_service.burning import burn as burn_disc
    from mkiso_service.burning import burn_into
    from mkiso_service.client import ServiceError

    console = Console(soft_wrap=True, stderr=as_json)
    if form and form not in FORMATS:
        raise click.BadParameter(f"there are: {', '.join(FORMATS)}", param_hint="--format")
    if place and (output or form):
        raise click.UsageError("--to writes files into a folder: leave -o and --format out.")
    if letter_file and not (form and FORMATS[form].is_encrypted):
        raise click.UsageError("--letter takes the password of an encrypted disc: say --format zip-encrypted.")
    selection = _selection(accession_numbers, study_uids, series_uids)
    if letter_file and deidentified:
        raise click.UsageError("--letter is for a patient, and a de-identified copy is nobody's.")
    base = "deidentified" if deidentified else next(iter(accession_numbers), "disc")
    name = f"{base}{PART * bool(selection)}"
    target = output or Path(f"{name}{FORMATS[form or ISO.name].suffix}")
    if not place:
        _require_folder(target.parent)
    if letter_file:
        _require_folder(letter_file.parent)
    try:
        with _connect(url, api_key_file) as client:
            numbers, chosen = accession_numbers, selection
            whose = _confirmed(console, client, numbers, birth_date, chosen, priors, yes=yes)
            if place:
                options = {"language": language, "transfer_syntax": transfer_syntax, **whose}
                job, files = burn_into(
                    console,
                    client,
                    numbers,
                    place,
                    beside=beside_others,
                    selection=chosen,
                    deidentified=deidentified,
                    **options,
                )
            else:
                options = {"language": language, "transfer_syntax": transfer_syntax, "form": form, **whose}
                job, files = burn_disc(
                    console,
                    client,
                    numbers,
                    target,
                    selection=chosen,
                    deidentified=deidentified,
                    letter=letter_file,
                    **options,
                )
    except (ServiceError, ProofFailed, StorageFull) as error:
        return _say(error)
    except OSError as error:
        raise click.FileError(str(error.filename or place or target), error.strerror) from None
    except KeyboardInterrupt:
        again = "Run the same command to resume."
        if form and FORMATS[form].is_encrypted:
            again = (
                "Run the same command for another disc with another password: an encrypted one is made for one asker."
            )
        console.print(f"Stopped. The job continues, and the downloaded part is kept. {again}")
        return FAILED
    if as_json:
        _tell(job, files=files)
    return 0


def _require_folder(folder: Path) -> None:
    """Before anything is made: a disc that can't be written is work for nothing."""
    if not folder.is_dir():
        raise click.FileError(str(folder), "there is no such folder; make it, or name another one with -o")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise click.FileError(str(folder), "you may not write there; name another folder with -o")


@click.command(name="print")
@_of_a_selection
@click.option("--publisher", default="", help="A configured publisher. Default: print.publisher.")
@click.option(
    "--confirm-reprint",
    is_flag=True,
    help="After print_uncertain, when you have checked the robot: print even if a disc may exist.",
)
@_of_a_patient
@_of_a_service
def print_(
    accession_numbers: tuple[str, ...],
    study_uids: tuple[str, ...],
    series_uids: tuple[str, ...],
    publisher: str,
    confirm_reprint: bool,
    url: str,
    api_key_file: Path | None,
    birth_date: str,
    language: str,
    priors: str,
    transfer_syntax: str,
    *,
    yes: bool,
    as_json: bool,
) -> int:
    """Have a disc of one patient's studies made by a disc publisher. On a terminal it shows the patient and asks
    first.
    """
    from rich.console import Console

    from mkiso_service.client import ServiceError
    from mkiso_service.display import show_job

    console = Console(soft_wrap=True, stderr=as_json)
    try:
        with _connect(url, api_key_file) as client:
            selection = _selection(accession_numbers, study_uids, series_uids)
            whose = _confirmed(console, client, accession_numbers, birth_date, selection, priors, yes=yes)
            order = client.ask_for_print(
                accession_numbers,
                publisher,
                confirm_reprint=confirm_reprint,
                language=language,
                transfer_syntax=transfer_syntax,
                selection=selection,
                **whose,
            )
            if "made_before_minutes" in order:
                console.print(f"This disc was made {order['made_before_minutes']} minutes ago, too.", style="yellow")
            state = show_job(console, client.follow(job_id := order["job_id"]))
    except ServiceError as error:
        return _say(error)
    meaning = {"queued": "has taken it and will make the disc", "done": "has made the disc"}.get(
        state.proves, "has taken it"
    )
    console.print(f"{state.publisher} {meaning}: {state.written or state.received} instances. Job {job_id}")
    if as_json:
        _tell(state, made_before_minutes=order.get("made_before_minutes"))
    return 0


@click.command()
@click.argument("search", default="")
@click.option("--json", "as_json", is_flag=True, help="As /api/iso/jobs answers it.")
@_of_a_service
def jobs(search: str, url: str, api_key_file: Path | None, *, as_json: bool) -> int:
    """List this site's discs of the last day, or those of SEARCH: an accession number, a patient ID or a name."""
    from mkiso_service.client import ServiceError
    from mkiso_service.display import job_words

    try:
        with _connect(url, api_key_file) as client:
            listing = client.jobs(search)
    except ServiceError as error:
        return _say(error)
    if as_json:
        from pydantic_core import to_json

        click.echo(to_json(listing, indent=2).decode())
        return 0
    for listed in listing["jobs"]:
        click.echo(job_words(listed))
    if not listing["jobs"]:
        click.echo(f"There are no discs of {search!r}." if search else "There are no discs of the last day.", err=True)
    if listing["more"]:
        click.echo("There are more: search for a number, a patient ID or a name.", err=True)
    return 0


@click.command()
@click.option("--patient-id", default="", help="In every character.")
@click.option("--name", "patient_name", default="", help="From its beginning, the family name first.")
@click.option("--birth-date", default="", metavar="YYYY-MM-DD")
@click.option(
    "--study-date", default="", metavar="DAY[/DAY]", help="A day, or two: 2026-03-01/2026-03-31, 2026-03-01/."
)
@click.option("--modality", default="", help="A code such as CT.")
@click.option("--accession-number", default="")
@click.option("--json", "as_json", is_flag=True, help="As /api/studies answers it.")
@_of_a_service
def find(url: str, api_key_file: Path | None, *, as_json: bool, **known: str) -> int:
    """Find studies by patient ID, name, dates or accession number."""
    from rich.console import Console

    from mkiso_service.client import ServiceError
    from mkiso_service.display import show_found

    try:
        with _connect(url, api_key_file) as client:
            found = client.find(**known)
    except ServiceError as error:
        return _say(error)
    if as_json:
        from pydantic_core import to_json

        click.echo(to_json(found, indent=2).decode())
        return 0
    show_found(Console(soft_wrap=True), found["studies"])
    if not found["studies"]:
        click.echo("No study was found.", err=True)
    for each in found["not_asked"]:
        click.echo(f"{each['source']} couldn't be asked, and may have more: {each['error']}", err=True)
    if found["more"]:
        click.echo("There may be more: ask for less, such as fewer days.", err=True)
    return 0


@click.command()
@_of_a_selection
@click.option("--json", "as_json", is_flag=True, help="As /api/iso/preview answers it.")
@_of_a_service
def series(
    accession_numbers: tuple[str, ...],
    study_uids: tuple[str, ...],
    series_uids: tuple[str, ...],
    url: str,
    api_key_file: Path | None,
    *,
    as_json: bool,
) -> int:
    """List the series of studies, to choose from; nothing is made."""
    from mkiso_service.client import ServiceError
    from mkiso_service.display import series_words

    selection = _selection(accession_numbers, study_uids, series_uids)
    try:
        with _connect(url, api_key_file) as client:
            preview = client.preview(accession_numbers, selection=selection)
    except ServiceError as error:
        return _say(error)
    if as_json:
        from pydantic_core import to_json

        click.echo(to_json(preview, indent=2).decode())
        return 0
    for study in preview["studies"]:
        click.echo(f"{study['accession_number'] or '(no accession number)'}  {study['study_instance_uid']}")
        for each in study["series"]:
            click.echo(f"  {series_words(each)}")
    return 0


@click.command()
@click.argument("job_id", metavar="JOB")
@_of_a_service
def cancel(job_id: str, url: str, api_key_file: Path | None) -> int:
    """End a job that waits or runs; JOB is its id, as `mkiso jobs` shows it. One that has ended stays as it is."""
    from mkiso_service.client import ServiceError

    try:
        with _connect(url, api_key_file) as client:
            job = client.cancel(job_id)
    except ServiceError as error:
        return _say(error)
    click.echo(f"{job.job_id}  {', '.join(job.accession_numbers)}  {job.state}")
    return 0


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default="letter.pdf", show_default=True
)
@click.option(
    "--paper", type=click.Choice(["a4", "insert"]), default="a4", show_default=True, help="insert: 12 cm, for the case."
)
@click.option("--language", default="", metavar="CODE", help="Such as de. Default: disc.language.")
@_of_a_service
def letter(job_id: str, output: Path, paper: str, language: str, url: str, api_key_file: Path | None) -> int:
    """Write the letter that goes with a job's discs, for the patient; JOB is its id, as `mkiso jobs` shows it."""
    from mkiso_service.client import ServiceError

    _require_folder(output.parent)
    try:
        with _connect(url, api_key_file) as client:
            content = client.letter(job_id, paper=paper, language=language)
    except ServiceError as error:
        return _say(error)
    output.write_bytes(content)
    click.echo(f"{output}  {len(content) / 1000:.0f} kB")
    return 0

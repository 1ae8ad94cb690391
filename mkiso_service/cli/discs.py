"""The commands of a clerk, which ask a running service: have a disc made, have it printed, list discs, cancel one."""

from __future__ import annotations

import glob
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mkiso_service.cli.options import (
    FAILED,
    confirmed,
    may_write_over,
    of_a_patient,
    of_a_service,
    of_studies,
    place_of,
    tell,
)

if TYPE_CHECKING:
    from mkiso_service.cli.client import Client, DiscRequest


@click.command()
@of_studies
@click.option(
    "-o",
    "--output",
    metavar="FILE|FOLDER",
    help="The file, or the folder for it. Default: ACCESSION.iso, or as its format is called; a set gets "
    "FILE-1of2-SET.iso and so on.",
)
@may_write_over
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
    "letter_name",
    metavar="FILE|FOLDER",
    help="With an encrypted format: write the password into this letter for the patient (PDF), and don't show it.",
)
@click.option(
    "--to",
    "place",
    type=click.Path(path_type=Path, exists=True, file_okay=False, writable=True),
    help="Write the files into this empty folder, such as a mounted USB stick, and read them back from there. With "
    "--format usb-cms they are encrypted for DICOM programs.",
)
@click.option("--beside-others", is_flag=True, help="With --to: the folder may have other files in it.")
@click.option(
    "--deidentified",
    is_flag=True,
    help="A copy for teaching and research that doesn't say whose it is; no patient's disc.",
)
@of_a_patient
@of_a_service
def burn(
    client: Client,
    request: DiscRequest,
    output: str | None,
    form: str,
    place: Path | None,
    letter_name: str | None,
    *,
    force: bool,
    beside_others: bool,
    deidentified: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Have a disc of a patient's studies made, and download it. On a terminal it shows the patient and asks
    first. Run the same command again to resume a broken download.
    """
    from rich.console import Console

    from mkiso.formats.folder import require_place
    from mkiso.formats.registry import FORMATS, ISO
    from mkiso.media.names import PART, filename
    from mkiso_service.cli.burning import burn as burn_disc
    from mkiso_service.cli.burning import burn_into

    console = Console(soft_wrap=True, stderr=as_json)
    _require_sense(form, output, place, letter_name, deidentified=deidentified)
    base = "deidentified" if deidentified else filename("-".join(request.accession_numbers))
    name = f"{base}{PART * bool(request.selection)}"
    target = place or place_of(output, f"{name}{FORMATS[form or ISO.name].suffix}", force=force)
    letter_file = place_of(letter_name, f"{name}.pdf", force=force) if letter_name else None
    if letter_file and letter_file.absolute() == target.absolute():
        raise click.UsageError("-o and --letter name one file: the letter would be lost. Name two.")
    try:
        if place:
            require_place(place, beside=beside_others)
        held = set(place.iterdir()) if place else set()
        request = confirmed(console, client, replace(request, form=form, deidentified=deidentified), yes=yes)
        try:
            if place:
                job, files = burn_into(console, client, request, place, letter=letter_file)
            else:
                job, files = burn_disc(console, client, request, target, letter=letter_file)
        except KeyboardInterrupt:
            is_locked = bool(form) and FORMATS[form].is_encrypted
            console.print(_stopped(target, held if place else None, is_locked=is_locked), markup=False)
            return FAILED
    except OSError as error:
        raise click.FileError(str(error.filename or target), error.strerror) from None
    if as_json:
        tell({"job": job, "files": files})
    return 0


def _require_sense(
    form: str, output: str | None, place: Path | None, letter_name: str | None, *, deidentified: bool
) -> None:
    """Raise click.UsageError for options that contradict each other."""
    from mkiso.formats.registry import FORMATS
    from mkiso_service.cli.burning import ON_A_STICK

    if form and form not in FORMATS:
        raise click.BadParameter(f"there are: {', '.join(FORMATS)}", param_hint="--format")
    if place and output:
        raise click.UsageError("--to writes files into a folder: leave -o out.")
    if place and form and form not in ON_A_STICK:
        raise click.UsageError(
            f"--to writes the files of a stick: --format {' or '.join(ON_A_STICK)}. A file of the format {form} stays "
            f"one file: write it there with -o {place / f'disc{FORMATS[form].suffix}'}."
        )
    if letter_name and not (form and FORMATS[form].is_encrypted):
        raise click.UsageError("--letter takes the password of an encrypted disc: say --format zip-encrypted.")
    if letter_name and deidentified:
        raise click.UsageError("--letter is for a patient, and a de-identified copy is nobody's.")


def _stopped(target: Path, held: set[Path] | None, *, is_locked: bool) -> str:
    """What Ctrl-C has left, and what to do. `held` is what a folder of `--to` had in it before; `is_locked`: each asker
    gets a disc and a password of their own.
    """
    with suppress(OSError):  # a stick that was pulled out
        if held is not None and set(target.iterdir()) != held:
            return f"Stopped. What was written to {target} isn't whole: remove it. Then run the same command again."
    is_kept = held is None and any(target.parent.glob(f".{glob.escape(target.name)}.*.part"))
    kept = "The job continues, and the downloaded part is kept." if is_kept else "The job continues."
    if is_locked:
        again = "Run the same command for another disc with another password: an encrypted one is made for one asker."
    else:
        again = "Run the same command to resume."
    return f"Stopped. {kept} {again}"


@click.command(name="print")
@of_studies
@click.option("--publisher", default="", help="A configured publisher. Default: print.publisher.")
@click.option(
    "--confirm-reprint",
    is_flag=True,
    help="After print_uncertain, when you have checked the robot: print even if a disc may exist.",
)
@of_a_patient
@of_a_service
def print_(
    client: Client, request: DiscRequest, publisher: str, *, confirm_reprint: bool, yes: bool, as_json: bool
) -> None:
    """Have a disc of one patient's studies made by a disc publisher. On a terminal it shows the patient and asks
    first.
    """
    from rich.console import Console

    from mkiso.languages import SOURCE, language
    from mkiso.study.models import instances_words
    from mkiso_service.cli.display import show_job
    from mkiso_service.counting import ago

    console = Console(soft_wrap=True, stderr=as_json)
    asks = f"Have {publisher or 'the disc robot of this site'} make a disc of this patient?"
    request = confirmed(console, client, request, yes=yes, question=asks)
    order = client.ask_for_print(request, publisher, confirm_reprint=confirm_reprint)
    if "made_before_minutes" in order:
        when = ago(order["made_before_minutes"], language(SOURCE))
        console.print(f"This disc was made {when}, too.", style="yellow", highlight=False)
    state = show_job(console, client.follow(job_id := order["job_id"]))
    meaning = {"queued": "has taken it and will make the disc", "done": "has made the disc"}.get(
        state.proves, "has taken it"
    )
    console.print(f"{state.publisher} {meaning}: {instances_words(state.written or state.received)}. Job {job_id}")
    if as_json:
        tell({"job": state, "made_before_minutes": order.get("made_before_minutes")})


@click.command()
@click.argument("search", default="")
@click.option("--json", "as_json", is_flag=True, help="As /api/iso/jobs answers it.")
@of_a_service
def jobs(client: Client, search: str, *, as_json: bool) -> None:
    """List this site's discs of the last day, or those of SEARCH. It is an accession number, a patient ID or a name."""
    from mkiso_service.cli.display import job_words

    listing = client.jobs(search)
    if as_json:
        tell(listing)
        return
    for listed in listing["jobs"]:
        click.echo(job_words(listed))
    if not listing["jobs"]:
        click.echo(f"There are no discs of {search!r}." if search else "There are no discs of the last day.", err=True)
    if listing["more"]:
        click.echo("There are more: search for a number, a patient ID or a name.", err=True)


@click.command()
@click.option("--patient-id", default="", help="The whole ID, as the PACS has it.")
@click.option("--name", "patient_name", default="", help="From its beginning, the family name first.")
@click.option("--birth-date", default="", metavar="YYYY-MM-DD", help="Beside something else: alone it fits too many.")
@click.option(
    "--study-date", default="", metavar="DAY[/DAY]", help="A day, or two: 2026-03-01/2026-03-31, 2026-03-01/."
)
@click.option("--modality", default="", help="A code such as CT, beside something else.")
@click.option("--accession-number", default="", help="The whole number, as the PACS has it.")
@click.option("--json", "as_json", is_flag=True, help="As /api/studies answers it.")
@of_a_service
def find(client: Client, *, as_json: bool, **known: str) -> None:
    """Find studies by patient ID, name, dates or accession number."""
    from rich.console import Console

    from mkiso_service.cli.display import show_found

    found = client.find(**known)
    if as_json:
        tell(found)
        return
    show_found(Console(soft_wrap=True), found["studies"])
    if not found["studies"]:
        click.echo("No study was found.", err=True)
    for each in found["not_asked"]:
        click.echo(f"{each['source']} couldn't be asked, and may have more: {each['error']}", err=True)
    if found["more"]:
        click.echo("There may be more: ask for less, such as fewer days.", err=True)


@click.command()
@of_studies
@click.option("--json", "as_json", is_flag=True, help="As /api/iso/preview answers it.")
@of_a_service
def series(client: Client, request: DiscRequest, *, as_json: bool) -> None:
    """List the series of studies, to choose from; nothing is made."""
    from mkiso_service.cli.display import series_words

    preview = client.preview(request)
    if as_json:
        tell(preview)
        return
    for study in preview["studies"]:
        click.echo(f"{study['accession_number'] or '(no accession number)'}  {study['study_instance_uid']}")
        for each in study["series"]:
            click.echo(f"  {series_words(each)}")


@click.command()
@click.argument("job_id", metavar="JOB")
@of_a_service
def cancel(client: Client, job_id: str) -> None:
    """End a job that waits or runs. JOB is its id, as `mkiso jobs` shows it. One that has ended stays as it is."""
    from mkiso_service.api import shown_state

    job = client.cancel(job_id)
    click.echo(f"{job.job_id}  {', '.join(job.accession_numbers)}  {shown_state(job.state, job.error)}")


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("-o", "--output", metavar="FILE|FOLDER", help="Default: letter.pdf.")
@may_write_over
@click.option(
    "--paper", type=click.Choice(["a4", "insert"]), default="a4", show_default=True, help="insert: 12 cm, for the case."
)
@click.option("--language", default="", metavar="CODE", help="Such as de. Default: the disc's.")
@of_a_service
def letter(client: Client, job_id: str, output: str | None, paper: str, language: str, *, force: bool) -> None:
    """Write the letter that goes with a job's discs. It is for the patient; JOB is the job's id, as `mkiso
    jobs` shows it.
    """
    from mkiso.storage.files import write_whole
    from mkiso.storage.room import size_words

    target = place_of(output, "letter.pdf", force=force)
    content = client.letter(job_id, paper=paper, language=language)
    try:
        write_whole(target, content)
    except OSError as error:
        raise click.FileError(str(target), error.strerror) from None
    click.echo(f"{target}  {size_words(len(content))}")

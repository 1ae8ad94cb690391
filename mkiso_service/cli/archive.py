"""`mkiso archive`: start a run by hand, find a study, read a disc back, see how the nights went."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

if TYPE_CHECKING:
    from mkiso.archive.catalogue import FailedStudy, Finding, NightReport
    from mkiso.archive.ledger import Ledger
    from mkiso.archive.readback import ReadBack
    from mkiso.config.settings import Settings
    from mkiso.formats.protocol import Contents
    from mkiso.sources.protocol import Source

PIECE_BYTES = 1 << 22
AS_TYPED = "YYYY-MM-DD"
SETTLED = {
    "planned": "is planned.",
    "mastered": "will be delivered by the next archive run.",
    "ordering": "is asked for by the next archive run.",
    "ordered": "is asked for by the next archive run.",
    "done": "is done.",
    "gone": "is lost; what lay on it and lies on no other volume is owed.",
}


def _date(given: str) -> date:
    try:
        return date.fromisoformat(given)
    except ValueError:
        raise click.BadParameter(f"{given!r} is no date: write it as 2026-01-31.") from None


@click.group(invoke_without_command=True)
@click.option(
    "--from",
    "date_from",
    type=_date,
    metavar=AS_TYPED,
    help="The first StudyDate to archive; without --to, the only one.",
)
@click.option("--to", "date_to", type=_date, metavar=AS_TYPED, help="The last StudyDate to archive.")
@click.option("--dry-run", is_flag=True, help="Report what would be archived, and archive nothing.")
@click.option("--no-wait", is_flag=True, help="Start the run and don't wait for its end.")
@click.pass_context
def archive(context: click.Context, date_from: date | None, date_to: date | None, dry_run: bool, no_wait: bool) -> int:
    """Archive the studies of any dates now, with --from and --to. The commands below read or change the ledger."""
    if context.invoked_subcommand is not None:
        return 0
    if date_from is None:
        raise click.UsageError("Name the dates: --from D, and --to D for more than one day.")
    first, last = date_from, date_to or date_from
    if last < first:
        raise click.BadParameter("the last date is before the first", param_hint="--to")
    return _start(first, last, dry_run=dry_run, wait=not no_wait)


@archive.command()
@click.argument("asked", metavar="ACCESSION|UID")
def find(asked: str) -> int:
    """Find the volumes that hold a study. It is named by accession number, Study Instance UID or SOP Instance UID."""
    from mkiso.archive.catalogue import find as find_studies
    from mkiso.archive.ledger import Ledger
    from mkiso.config.file import load

    with Ledger.open(load()) as ledger:
        found = find_studies(ledger, asked.strip())
    for finding in found:
        click.echo("\n".join(_finding_lines(finding)))
    if not found:
        click.echo(f"The ledger has nothing under {asked}.", err=True)
    return 0 if found else 1


@archive.command()
@click.argument("disc", metavar="ISO|DEVICE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def verify(disc: Path) -> int:
    """Compare every file of a disc, or of its image, with the ledger."""
    from mkiso.archive.ledger import Ledger
    from mkiso.archive.readback import verify_against_ledger
    from mkiso.archive.volumes import VOLUMES
    from mkiso.config.file import load
    from mkiso.storage.files import descriptor_of

    with descriptor_of(disc) as descriptor:
        contents = VOLUMES.read(descriptor)
        with Ledger.open(load()) as ledger:
            outcome = verify_against_ledger(ledger, contents.label, _files_of(descriptor, contents))
    click.echo("\n".join(_read_back_lines(outcome)))
    return 0 if outcome.is_good else 1


@archive.command()
@click.option(
    "--nights", default=14, show_default=True, type=click.IntRange(1, 10_000), help="How many nights to show."
)
@click.option("--no-pacs", is_flag=True, help="Don't query the PACS for studies that no night looks for.")
def report(nights: int, no_pacs: bool) -> None:
    """Show the last nights, and what is owed. That is days and studies, volumes that aren't where they should be,
    and the studies in the PACS that no night looks for.
    """
    from mkiso.archive.catalogue import failed_studies
    from mkiso.archive.catalogue import report as report_nights
    from mkiso.archive.ledger import Ledger
    from mkiso.archive.owed import owed, undelivered, unseen
    from mkiso.archive.store import Store
    from mkiso.config.file import load

    settings = load()
    with Ledger.open(settings) as ledger:
        told, failed = report_nights(ledger, nights), failed_studies(ledger)
        store = Store.visible(ledger)
        waiting = (*filter(None, [unseen(ledger, store)]), *undelivered(ledger), *owed(ledger, store))
        days, beyond = _owed_days(ledger, settings), () if no_pacs else tuple(_outside_of_nights(ledger, settings))
    failures = (_failed_line(study, settings.archive.max_attempts) for study in failed)
    click.echo("\n".join([*map(_night_line, told), *days, *failures, *map(str, waiting)]) or "No night yet.")
    for line in beyond:
        click.echo(line)


@archive.command()
@click.argument("labels", metavar="LABEL|ACCESSION|UID…", nargs=-1, required=True)
@click.option("--made", "claim", flag_value="made", help="Its order was uncertain, and the robot has the disc.")
@click.option(
    "--again", "claim", flag_value="again", help="Its order was uncertain, and there is no disc: order it again."
)
@click.option(
    "--stored",
    "claim",
    flag_value="stored",
    help="It is in the store: read its image there and compare it with the ledger.",
)
@click.option(
    "--here",
    "claim",
    flag_value="here",
    help="Its folder was copied into this data directory: deliver it from here.",
)
@click.option("--lost", "claim", flag_value="lost", help="It is lost: archive its content again.")
@click.option(
    "--forget",
    "claim",
    flag_value="forget",
    help="Give up what was on a lost volume and is in no PACS any more, or a study that can't be archived.",
)
def settle(labels: tuple[str, ...], claim: str | None) -> int:
    """Say what became of volumes that no run can settle. `mkiso archive report` names them. mkiso first proves what it
    can. With --forget also a study that the nights have given up, by its accession number or UID.
    """
    from mkiso.archive.by_hand import forget_study
    from mkiso.archive.by_hand import settle as settle_volume
    from mkiso.archive.ledger import Ledger
    from mkiso.archive.lifecycle import Claim
    from mkiso.archive.store import Store
    from mkiso.archive.volumes import LABEL
    from mkiso.config.file import load
    from mkiso.errors import MkisoError

    if claim is None:
        raise click.UsageError("Say what became of it: --made, --again, --stored, --here, --lost or --forget.")
    failed, settings = 0, load()
    with Ledger.open(settings) as ledger:
        store = Store.visible(ledger)
        for label in labels:
            try:
                if claim == "forget" and not LABEL.fullmatch(label):
                    forget_study(ledger, label, settings.archive.max_attempts)
                    click.echo(f"{label} is given up: it isn't archived, and no night says so any more.")
                else:
                    click.echo(f"{label} {SETTLED[settle_volume(ledger, label, Claim(claim), store)]}")
            except MkisoError as error:
                click.echo(error.words, err=True)
                failed += 1
    return 1 if failed else 0


@archive.command()
@click.argument("label")
@click.confirmation_option(prompt="The ledger will list this volume as lost. Is its disc lost or bad?")
def withdraw(label: str) -> None:
    """List a volume as lost or bad. Its studies are archived again."""
    from mkiso.archive.by_hand import withdraw as withdraw_volume
    from mkiso.archive.ledger import Ledger
    from mkiso.config.file import load

    with Ledger.open(load()) as ledger:
        first, last = withdraw_volume(ledger, label)
    at_once = f"; at once: mkiso archive --from {first} --to {last}" if first else ""
    click.echo(f"{label} is withdrawn. The next run archives its studies again{at_once}.")


@archive.command("import")
@click.argument("disc", metavar="ISO|DEVICE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def import_(disc: Path) -> int:
    """Record a volume that the ledger doesn't know, or has as lost. It is checked first against its own checksums and
    DICOMDIR.
    """
    from rich.console import Console

    from mkiso.archive.importing import import_volume
    from mkiso.archive.ledger import Ledger
    from mkiso.archive.store import Store
    from mkiso.config.file import load
    from mkiso.errors import ProofFailed
    from mkiso.study.models import instances_words
    from mkiso_service.cli.archive_discs import found_volume
    from mkiso_service.cli.display import bar_of_bytes

    settings = load()
    with Ledger.open(settings) as ledger:
        try:
            with bar_of_bytes(Console(soft_wrap=True), "reading") as moved:
                found = found_volume(disc, moved)
        except ProofFailed as failed:
            findings = failed.details.get("findings")
            click.echo("\n".join(findings) if isinstance(findings, list) else failed.words, err=True)
            return 1
        imported = import_volume(ledger, found, Store.visible(ledger), settings.archive.medium, settings.archive.output)
    known = f", {imported.elsewhere} are on other volumes already" if imported.elsewhere else ""
    click.echo(f"{found.label} {SETTLED[imported.state]} {instances_words(imported.instances)} recorded{known}.")
    return 0


@archive.command()
@click.confirmation_option(prompt="Do ledger, data directory and store belong together, although their ids differ?")
def adopt() -> None:
    """Use this ledger with this data directory and store from now on. Their ids may differ. Nothing is removed."""
    from mkiso.archive.ledger import Ledger
    from mkiso.archive.store import Store
    from mkiso.config.file import load

    settings = load()
    with Ledger.open(settings, adopt=True) as ledger:
        if settings.archive.output == "store":
            Store.open(ledger, adopt=True)
    click.echo("They belong together. `mkiso archive report` says what the ledger doesn't know of what lies there.")


def _owed_days(ledger: Ledger, settings: Settings) -> list[str]:
    from mkiso.archive.days import searched
    from mkiso.archive.outside import owed_line
    from mkiso.archive.schedule import DAY, last_fire, owed_days

    now, archive = datetime.now(UTC), settings.archive
    today = now.astimezone(ZoneInfo(archive.timezone)).date()
    date_to = last_fire(archive.schedule, archive.timezone, now).date() - DAY
    return list(filter(None, [owed_line(owed_days(searched(ledger), date_to, today))]))


def _outside_of_nights(ledger: Ledger, settings: Settings) -> Iterator[str]:
    from mkiso.sources.registry import sources_of

    for source in sources_of(settings):
        named = f"{source.settings.name}: " if source.settings.name else ""
        for line in _outside(ledger, settings, source):
            yield f"{named}{line}"


def _outside(ledger: Ledger, settings: Settings, source: Source) -> Iterator[str]:
    """One question without a date (universal matching, PS3.4 C.2.2.2.3): what it may cost is bounded by the query's
    own limits."""
    from mkiso.archive.catalogue import archived_counts, failed_studies, lost_studies
    from mkiso.archive.days import searched
    from mkiso.archive.outside import lines, outside
    from mkiso.archive.paging import Answer
    from mkiso.errors import MkisoError
    from mkiso.sources.query import find_studies_by_date, of_modalities

    archive = settings.archive
    try:
        found = find_studies_by_date(source, "")
    except MkisoError as error:
        yield f"What lies in the PACS outside of every night can't be told: {error.words}"
        return
    usable, unusable = (of_modalities(studies, archive.modalities) for studies in (found.studies, found.unusable))
    answer = Answer(usable, found.sent, found.status, unusable)
    failed = {study.study_instance_uid for study in failed_studies(ledger)}
    sought = failed.union(study.study_instance_uid for study in lost_studies(ledger))
    known = sought.union(archived_counts(ledger, [study.study_instance_uid for study in usable]))
    today = datetime.now(ZoneInfo(archive.timezone)).date()
    yield from lines(
        outside(answer, known, searched(ledger), archive.recheck_days, today), answer, source.settings.find_limit
    )


def _start(first: date, last: date, *, dry_run: bool, wait: bool) -> int:
    """Start a run of the deployment, and wait for its end where that is wanted. Raises OrchestratorUnavailable."""
    import asyncio

    import httpx

    from mkiso.config.file import load
    from mkiso.errors import OrchestratorUnavailable
    from mkiso_service.prefect.environment import NIGHTLY_ARCHIVE, begin_with
    from mkiso_service.prefect.password import with_password

    begin_with(with_password(load()))
    from prefect.deployments import arun_deployment
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    parameters = {"date_from": first.isoformat(), "date_to": last.isoformat(), "dry_run": dry_run}
    try:
        run = asyncio.run(arun_deployment(NIGHTLY_ARCHIVE, parameters=parameters, timeout=None if wait else 0))
    except (httpx.HTTPError, RuntimeError, ObjectNotFound, PrefectHTTPStatusError) as error:
        words = f"The archive can't be started ({type(error).__name__}). Is `mkiso serve` running?"
        raise OrchestratorUnavailable(words) from None
    state = run.state
    click.echo(f"Run {run.name}: {state.name if state else 'started'}. {(state and state.message) or ''}".rstrip())
    return 0 if not wait or (state is not None and state.is_completed()) else 1


def _files_of(descriptor: int, contents: Contents) -> Iterator[tuple[str, int, str]]:
    """Path, size, SHA-256 of each file in the order in which they lie on the disc; no SHA-256 where the disc can't be
    read.
    """
    for path, extent in sorted(contents.files.items(), key=lambda entry: entry[1]):
        digest = hashlib.sha256()
        start, end = extent.start, extent.start + extent.size
        try:
            for position in range(start, end, PIECE_BYTES):
                digest.update(os.pread(descriptor, min(PIECE_BYTES, end - position), position))
        except OSError:
            yield str(path), extent.size, ""
        else:
            yield str(path), extent.size, digest.hexdigest()


def _finding_lines(finding: Finding) -> Iterator[str]:
    from mkiso.study.models import instances_words

    yield f"{finding.accession_number or '(no accession number)'}  {finding.study_date}  {finding.study_instance_uid}"
    for holding in finding.holdings:
        part = f"  {holding.number} of {holding.total}" if holding.total > 1 else ""
        read_back = (
            f"  read back {holding.read_back:%Y-%m-%d}: {'good' if holding.read_back_good else 'BAD'}"
            if holding.read_back
            else ""
        )
        where = "  ".join(filter(None, (holding.location, holding.path)))
        what = f"{holding.label}{part}  {holding.medium}  {instances_words(holding.instances)}  {holding.state}"
        yield f"  {what}  {where}{read_back}"


def _read_back_lines(outcome: ReadBack) -> Iterator[str]:
    from mkiso.study.models import count_words

    yield (
        f"{outcome.label}: {count_words(outcome.good, 'file is', 'files are')} what the ledger says."
        if outcome.is_good
        else f"{outcome.label} IS NOT GOOD."
    )
    for name, paths in (
        ("damaged", outcome.damaged),
        ("missing", outcome.missing),
        ("not in the ledger", outcome.unexpected),
    ):
        yield from (f"  {name}: {path}" for path in paths)


def _night_line(night: NightReport) -> str:
    from mkiso.storage.room import size_words
    from mkiso.study.models import count_words, instances_words, studies_words

    dates = f"{night.date_from}" if night.date_from == night.date_to else f"{night.date_from} to {night.date_to}"
    end = f"done {night.finished:%Y-%m-%d %H:%M} UTC" if night.finished else "NOT FINISHED"
    failed = f", {night.failed} FAILED" if night.failed else ""
    waiting = f", {night.undelivered} NOT YET DELIVERED" if night.undelivered else ""
    volumes = count_words(night.volumes, "volume")
    archived = (
        f"{instances_words(night.instances)} on {volumes} ({size_words(night.size)})"
        if night.volumes
        else "nothing archived"
    )
    began = "by hand" if not night.scheduled else "night"
    return f"{dates}  {began}  {end}: {studies_words(night.found)} found, {archived}{failed}{waiting}"


def _failed_line(study: FailedStudy, max_attempts: int) -> str:
    from mkiso.study.models import count_words

    tried = (
        f"given up{' by a person' if study.forgotten else ''} after {count_words(study.attempts, 'attempt')}"
        if study.attempts >= max_attempts
        else f"{study.attempts} of {count_words(max_attempts, 'attempt')}"
    )
    return f"NOT ARCHIVED  {study.name}  {study.study_date}  {tried}: {study.words} [{study.code}]"

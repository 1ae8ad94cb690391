"""A job's progress for people: a moving bar on a terminal, a line for each stage anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from mkiso.languages import SOURCE, language
from mkiso.storage.files import moment_in
from mkiso.storage.report import FoundStudy, numbers_on
from mkiso.study.identity import iso_date
from mkiso_service.api import Job, Listed, Preview, SearchedStudy, ShownSeries, ShownStudy, shown_state
from mkiso_service.counting import counted
from mkiso_service.webhook.answers.job_words import ordered_before, unclear_before, without


def show_job(console: Console, states: Iterable[Job]) -> Job:
    """Show a job's states until the last, which is returned."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    last: Job | None = None
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("asking", total=None)
        of_studies: list[TaskID] = []
        for state in states:
            if not console.is_terminal and (last is None or state.stage != last.stage):
                console.print(f"  {state.stage}", markup=False)
            bar.update(task, description=escape(state.stage), total=state.expected, completed=state.received)
            for study in state.studies[len(of_studies) :]:
                console.print(f"  {study_words(study)}", markup=False, highlight=False)
                of_studies.append(
                    bar.add_task(escape(f"  {study.accession_number}"), total=None, visible=len(state.studies) > 1)
                )
            for of_study, study in zip(of_studies, state.studies, strict=False):
                bar.update(of_study, total=study.expected, completed=study.received)
            last = state
    if last is None:
        raise ValueError("a job without a state")
    _show_lacks(console, last.degraded)
    return last


def show_preview(console: Console, preview: Preview) -> None:
    """Whose disc it would be, and of which studies."""
    patient = preview["patient"]
    console.print(patient["name"] or "(no name in the PACS)", style="bold", markup=False, highlight=False)
    facts = [
        f"born {iso_date(patient['birth_date']) or 'not known'}",
        f"sex {patient['sex'] or 'not known'}",
        f"ID {patient['patient_id']}",
    ]
    if patient["name_on_disc"] != patient["name"]:
        facts.append(f"on the disc: {patient['name_on_disc']}")
    console.print(f"  {', '.join(facts)}", markup=False, highlight=False)
    for study in preview["studies"]:
        console.print(f"  {study_words(_found_of(study))}", markup=False, highlight=False)
        chosen = [each for each in study["series"] if each["chosen"]]
        for each in chosen if len(chosen) < len(study["series"]) else ():
            console.print(f"    {series_words(each)}", markup=False, highlight=False)
    for study in preview["priors"]:
        console.print(f"  {study_words(_found_of(study, is_prior=True))}", markup=False, highlight=False)
    if ordered := preview["ordered"]:
        console.print(ordered_before(ordered, language(SOURCE)), style="yellow", markup=False, highlight=False)
    if unclear := preview["unclear"]:
        console.print(unclear_before(unclear, language(SOURCE)), style="yellow", markup=False, highlight=False)
    if preview["is_part"]:
        console.print("Not everything of the examination would be on the disc: only what is chosen.", style="yellow")
    _show_lacks(console, preview["degraded"])


def _show_lacks(console: Console, degraded: Sequence[str]) -> None:
    for words in without(degraded, language(SOURCE)):
        console.print(words, style="yellow", markup=False, highlight=False)


def _found_of(study: ShownStudy, *, is_prior: bool = False) -> FoundStudy:
    facts = (study["accession_number"], study["study_date"], study["modalities"], study["study_description"])
    return FoundStudy(*facts, expected=study["images"], received=0, is_prior=is_prior)


def series_words(series: ShownSeries) -> str:
    """A series on one line: its UID, number, modality, description, images."""
    images = "" if series["images"] is None else counted(series["images"], (series["modality"],))
    facts = (series["series_instance_uid"], series["number"], series["modality"], series["description"], images)
    return "  ".join(filter(None, facts))


def job_words(listed: Listed) -> str:
    """A job on one line: its id, when, how it stands, numbers, patient, who asked."""
    job = listed["job"]
    local = moment_in(listed["begun"])
    when = f"{local:%Y-%m-%d %H:%M}" if local else listed["begun"]
    state = f"running {job.progress:.0%}" if job.state == "running" else shown_state(job.state, job.error)
    what = f"by {job.publisher}" if job.kind == "print" else "file"
    who = ", ".join(dict.fromkeys(asker["who"] for asker in listed["asked"])) or "Prefect"
    facts = [job.job_id, when, f"{state:<12}", what, ", ".join(numbers_on(job)), listed["patient_name"], who]
    if job.is_part:
        facts.insert(5, "selection")
    if job.deidentified:
        facts.insert(5, "de-identified")
    if job.error:
        facts.append(job.error["error"])
    return "  ".join(filter(None, facts))


def show_found(console: Console, studies: Sequence[SearchedStudy]) -> None:
    """Two lines a study, which any terminal has room for: the study, what is asked for next first; and whose it is."""
    sources = {study["source"] for study in studies}
    for study in studies:
        number = study["accession_number"] or f"(no accession number)  {study['study_instance_uid']}"
        facts = (number, study["study_date"], study["modalities"], study["study_description"])
        whose = (
            study["patient_name"] or "(no name in the PACS)",
            f"born {iso_date(study['birth_date']) or 'not known'}",
            f"ID {study['patient_id']}",
            study["source"] if len(sources) > 1 else "",
        )
        words = study_words(FoundStudy(*facts, expected=study["images"], received=0))
        for line in (words, f"    {'  '.join(filter(None, whose))}"):
            console.print(line, markup=False, highlight=False)


def study_words(study: FoundStudy) -> str:
    """A found study on one line: A100  2026-03-12  CT, SR  Abdomen  412 images."""
    images = "not counted by the PACS" if study.expected is None else counted(study.expected, study.modalities)
    date, modalities = iso_date(study.study_date), ", ".join(study.modalities)
    facts = (study.accession_number, date, modalities, study.study_description, images, "earlier" * study.is_prior)
    return "  ".join(filter(None, facts))


@contextmanager
def bar_of_bytes(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is moved by calling what this gives with (bytes done, bytes in all)."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

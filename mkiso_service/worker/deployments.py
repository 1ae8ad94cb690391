"""The deployments: what an operator finds in the Prefect UI, by what name, in which queue, on what schedule.

`deployments/prefect.yaml` says the same for `prefect deploy`; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_type_hints

from prefect import Flow
from pydantic.fields import FieldInfo

from mkiso.config.archive import Archive
from mkiso.study.question import Kind


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment: the flow's dotted path, its name, queue, words for the operator, its schedule (a cron line and a
    time zone) if any, and the `kind` of a clerk's question that its runs answer, if any.
    """

    entrypoint: str
    name: str
    queue: str
    description: str
    tags: tuple[str, ...] = ()
    schedule: tuple[str, str] | None = None
    kind: Kind | None = None

    @property
    def flow(self) -> Flow[Any, Any]:
        module, _, name = self.entrypoint.rpartition(".")
        flow: Flow[Any, Any] = getattr(import_module(module), name)
        return flow


def parameter_form(flow: Flow[Any, Any]) -> dict[str, Any]:
    """The JSON schema of Custom run's form: Prefect's own, with the titles and words of flows/parameters.py, and
    nothing beside what is listed.
    """
    schema = flow.parameters.model_dump_for_openapi()
    for name, annotation in get_type_hints(flow.fn, include_extras=True).items():
        for note in getattr(annotation, "__metadata__", ()):
            if isinstance(note, FieldInfo) and note.title:
                words = {"title": note.title, "description": note.description}
                schema["properties"][name] |= {word: said for word, said in words.items() if said}
    if "study_uids" in schema["properties"]:  # no accession number is needed where studies are named, and only there
        schema["if"] = {"required": ["accession_numbers"], "properties": {"accession_numbers": {"maxItems": 0}}}
        schema["then"] = {"required": ["study_uids"], "properties": {"study_uids": {"minItems": 1}}}
    return {**schema, "additionalProperties": False}


def deployments(archive: Archive) -> tuple[Deployment, ...]:
    """Every deployment of mkiso under this configuration."""
    return (
        Deployment(
            "flows.download.make_disc",
            "download",
            "downloads",
            "Makes a disc image of one patient's studies for download.",
            ("mkiso", "download"),
            kind="download",
        ),
        Deployment(
            "flows.print.print_disc",
            "print",
            "prints",
            "Has a disc of one patient's studies made by a disc publisher.",
            ("mkiso", "print"),
            kind="print",
        ),
        Deployment(
            "flows.inbox.burn_sent",
            "inbox",
            "inboxes",
            "Makes a disc of a study that was sent to an inbox; a worker starts it by itself.",
            ("mkiso", "inbox"),
        ),
        Deployment(
            "flows.archive.nightly_archive",
            "nightly",
            "archives",
            "Archives the studies of the days before; without dates, what the schedule owes.",
            ("mkiso", "archive"),
            (archive.schedule, archive.timezone) if archive.enabled else None,
        ),
        Deployment(
            "flows.housekeeping.keep_house",
            "housekeeping",
            "housekeeping",
            "Removes discs, failed jobs and runs that are older than they are kept.",
            ("mkiso", "housekeeping"),
            ("17 * * * *", "UTC"),
        ),
    )

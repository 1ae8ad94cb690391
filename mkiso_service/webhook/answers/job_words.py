"""What people read of a job, in their language: how it stands, what its disc lacks, what to do where it failed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mkiso.errors import PrintUncertain
from mkiso.languages import N_, Language
from mkiso.study.priors import WORDS, words_of
from mkiso.study.writing import LABEL_LETTERS
from mkiso_service.api import Dependency, Job, Ordered, ShownState
from mkiso_service.counting import ago, counted
from mkiso_service.prefect.orchestrator import SUSPENDED
from mkiso_service.webhook.answers.advice import advice, must_look

STATES: Mapping[ShownState, str] = MappingProxyType(
    {
        "waiting": N_("Waiting"),
        "running": N_("Working"),
        "done": N_("Ready"),
        "failed": N_("Failed"),
        "cancelled": N_("Cancelled"),
    }
)
STAGES = MappingProxyType(
    {
        "waiting": N_("Waiting for its turn"),
        SUSPENDED: N_("Halted by an operator; it goes on when they resume it"),
        "starting": N_("Starting"),
        "found": N_("Studies found"),
        "retrieving": N_("Fetching images"),
        "complete": N_("All images are here"),
        "converting images": N_("Converting images"),
        "de-identifying": N_("De-identifying"),
        "making pictures": N_("Making pictures for viewing"),
        "laying out": N_("Putting the disc together"),
        "mastering": N_("Writing the disc file"),
        "reading back": N_("Checking the disc file"),
        "waiting for another print": N_("Waiting: the robot is being given another disc"),
        "waiting for an earlier study": N_("Waiting: the robot may still work on an earlier disc of this patient"),
    }
)
"""What a job does, by the name of its stage in the service."""
LACKS = MappingProxyType(
    {
        "patient_api": N_("The hospital's patient data wasn't available; the disc has the name from the PACS."),
        "counts_unknown": N_("The PACS doesn't say how many images there are: check that none is missing."),
        "completeness_not_proven": N_("No PACS was asked how many images there are: check that none is missing."),
        "source_down": N_("The PACS %(source)s couldn't be asked: it may have more images."),
        "sources_differ": N_(
            "The PACS %(source)s has other images or other data of a study; the disc has what the most complete PACS "
            "has."
        ),
        "other_person": N_(
            "The images have another name or birth date than is known of this patient. Have it clarified whose they "
            "are before you hand the disc out."
        ),
        LABEL_LETTERS: N_("The disc's label shows something in other letters, since the robot doesn't have those."),
    }
)
"""What a disc is made without; some are followed by a colon and the source's name."""


def without(degraded: Sequence[str], spoken: Language) -> list[str]:
    """What a disc is made without, in words."""
    others = [lack.partition(":") for lack in degraded if lack not in WORDS]
    return [
        *map(spoken.gettext, words_of(degraded)),
        *(
            spoken.gettext(LACKS[kind], source=source)
            if kind in LACKS
            else spoken.gettext("Made without %(lack)s.", lack=kind.replace("_", " "))
            for kind, _, source in others
        ),
    ]


def ordered_before(ordered: Ordered, spoken: Language) -> str:
    """How often, when and by whom a disc was ordered."""
    return spoken.ngettext(
        "There is %(number)s earlier order of this disc: %(facts)s.",
        "There are %(number)s earlier orders of this disc, last: %(facts)s.",
        ordered["orders"],
        facts=_facts(ordered, spoken),
    )


def unclear_before(unclear: Ordered, spoken: Language) -> str:
    """That an order of this disc ended unclear, and what to do before it is made again."""
    words = spoken.gettext("An earlier order of this disc ended unclear: %(facts)s.", facts=_facts(unclear, spoken))
    return f"{words} {advice(PrintUncertain.code, spoken)}"


def _facts(ordered: Ordered, spoken: Language) -> str:
    return ", ".join((ago(ordered["minutes"], spoken), ordered["publisher"], *ordered["who"]))


def words_of_job(job: Job, spoken: Language, robot: Dependency | None) -> str:
    """How a job stands. `robot`: how the publisher is that has its order."""
    if job.state == "failed":
        error = job.error or {"error": "The job failed.", "code": "error"}
        return f"{error['error']} ({error['code']})"
    moved, expected = job.written or job.received, job.expected
    modalities = {modality for study in job.studies for modality in study.modalities}
    images = counted(moved, modalities, expected if expected and moved != expected else None, spoken)
    if job.proves == "done":
        words = "%(publisher)s has made the disc with %(images)s. Collect it there."
        return spoken.gettext(words, publisher=job.publisher, images=images)
    if job.proves and robot and not robot["ok"]:
        words = (
            "%(publisher)s has the order (%(images)s), but something is wrong there. Check that it is on; if it is, "
            "tell the administrator."
        )
        return spoken.gettext(words, publisher=job.publisher, images=images)
    if job.proves:
        words = "%(publisher)s has the order (%(images)s) and makes the disc when its turn comes. Collect it there."
        return spoken.gettext(words, publisher=job.publisher, images=images)
    if job.state == "running":
        stage = _stage(job, spoken)
        if job.stage.startswith("retrieving") and (moved or expected):
            return spoken.gettext("%(stage)s: %(images)s.", stage=stage, images=images)
        return spoken.gettext("%(stage)s.", stage=stage)
    if job.state == "done" and len(job.discs) > 1:
        fills = "The images fill %(number)s disc.", "The images fill %(number)s discs. Download and burn every one."
        return spoken.ngettext(*fills, len(job.discs))
    return spoken.gettext("The disc is ready.") if job.state == "done" else spoken.gettext("Waiting for its turn.")


def state_words(state: ShownState, kind: str, proves: str, spoken: Language) -> str:
    """How a job stands, in a word. Of a print, whose robot has everything, what the robot says of it."""
    of_robot = (
        {"queued": N_("Ordered"), "done": N_("Made")}.get(proves)
        if kind == "print" and state in ("running", "done")
        else None
    )
    return spoken.gettext(of_robot or STATES[state])


def advice_of_job(job: Job, spoken: Language) -> str:
    """What to do about a failed job."""
    if job.state != "failed" or not job.error:
        return ""
    code = job.error["code"]
    return advice(code, spoken, look=must_look(job.kind, code, job.proves))


def _stage(job: Job, spoken: Language) -> str:
    """A stage names what it is from or how far it is: retrieving from MRI."""
    name = re.split(r" from | \(", job.stage)[0]
    if name in STAGES:
        return spoken.gettext(STAGES[name])
    if job.publisher:  # what is told while it gets the order, such as how many images it has
        return spoken.gettext("Sending to %(publisher)s", publisher=job.publisher)
    return f"{job.stage[:1].upper()}{job.stage[1:]}"

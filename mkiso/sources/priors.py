"""Priors: the list of a patient's other studies, by which of them go onto the disc, and what is expected of each.

A list that may be cut chooses none, since the newest could be missing from it; the job goes on without and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mkiso.config.disc import Identity, Priors
from mkiso.errors import InvalidRequest, MkisoError
from mkiso.sources.protocol import Source
from mkiso.sources.query import find_series
from mkiso.sources.search import Criteria
from mkiso.sources.several import find_everywhere_by_uid, search_everywhere
from mkiso.study import gate
from mkiso.study.identity import significant
from mkiso.study.models import Study
from mkiso.study.priors import (
    CONTRADICTS,
    INCOMPLETE,
    PRIORS_UNKNOWN,
    UNSURE,
    Choice,
    Kinds,
    choose,
    kinds_of,
    kinds_of_modalities,
    why_left_out,
)
from mkiso.study.values import Found

MOST_STUDIES = 2000
"""Of one patient."""


@dataclass(frozen=True, slots=True)
class FoundPriors:
    """`found` with its priors; `choice` says of each other study why it is none, `reasons` in words what went wrong."""

    found: Found
    choice: Choice = field(default_factory=Choice)
    reasons: tuple[str, ...] = ()


def find_priors(
    sources: Sequence[Source], found: Found, priors: Priors, rules: Identity, on_asking: Callable[[str], None]
) -> FoundPriors:
    """The priors of what was found. What can't be had whole, or isn't known, is told as degraded: it keeps nobody from
    the disc of what was asked. `on_asking` hears the Patient ID that is asked for. Raises what says nothing of priors.
    """
    try:
        choice, reasons = _chosen(sources, found, priors, rules, on_asking)
    except MkisoError as error:
        if not (why_left_out(error) or isinstance(error, InvalidRequest)):  # an ID that a PACS takes for a wildcard
            raise
        return FoundPriors(gate.beside(found, (), (PRIORS_UNKNOWN,), rules), reasons=(error.words,))
    lacks = [PRIORS_UNKNOWN] if reasons else []
    taken: list[Study] = []
    for study in choice.taken:
        try:
            told = find_everywhere_by_uid(sources, study.study_instance_uid)
            gate.beside(found, [*taken, *told.studies], (), rules)
            if len(told.studies) == 1:
                taken += told.studies
                lacks += told.degraded
            else:  # gone meanwhile, or patients share it
                lacks.append(CONTRADICTS if told.studies else INCOMPLETE)
        except MkisoError as error:
            if not (why := why_left_out(error)):
                raise
            lacks.append(why)
            reasons.append(f"{study.label}: {error.words}")
    return FoundPriors(gate.beside(found, taken, lacks, rules), choice, tuple(reasons))


def _chosen(
    sources: Sequence[Source], found: Found, priors: Priors, rules: Identity, on_asking: Callable[[str], None]
) -> tuple[Choice, list[str]]:
    """Which are the priors, and in words why there may be others."""
    criteria = Criteria(patient_id=significant(found.asked[0].patient_id))
    on_asking(criteria.patient_id)
    hits, down = search_everywhere(sources, criteria, MOST_STUDIES)
    if hits.cut:
        return Choice(), ["The list of the patient's studies is cut, so none of them was taken."]
    by_name = {source.settings.name: source for source in sources}

    def shown(study: Study) -> Kinds:
        if study.modalities_in_study and not study.chosen and priors.body_part == "any":
            return kinds_of_modalities(study)
        series = find_series(by_name.get(study.origin.source, sources[0]), study)
        return kinds_of([each for each in series if not study.chosen or each.series_instance_uid in study.chosen])

    choice = choose(found.asked, hits.studies, shown, priors, rules, found.patient, found.left_out)
    reasons = [f"{name}: {error.words}" for name, error in down.items()]
    if unsure := [uid for uid, why in choice.not_taken.items() if why in UNSURE]:
        reasons.append(
            f"Of {len(unsure)} earlier studies nobody knows whether they are of the same kind: "
            "the PACS doesn't tell it (priors.body_part), or the patient has too many."
        )
    return choice, reasons

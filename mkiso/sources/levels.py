"""Which levels a source answers, tried with one of its own studies: for whoever sets mkiso up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

from mkiso.sources.protocol import Source
from mkiso.sources.query import expected_instances
from mkiso.sources.search import Criteria, search
from mkiso.study.models import CountSource

DAYS = 7
_WORDS: Mapping[CountSource, str] = {
    "image": "It lists the images of a study, each by its UID.",
    "series": "It tells how many images each series has, and lists none, so completeness is proved by number alone.",
    "study": "It tells how many images a study has, and lists none, so completeness is proved by number alone.",
    "none": "It tells neither images nor their number, so there are discs only if require_counts is false.",
}


def answered_levels(source: Source, today: date) -> str:
    """In words, without anything of a patient. Raises what mkiso.sources.search.search does."""
    days = f"{today - timedelta(DAYS):%Y%m%d}-{today:%Y%m%d}"
    settings = source.settings
    limits = f"It is asked for at most {settings.max_moves} studies at the same time (max_moves)"
    if settings.find_limit:
        limits += f" and taken to answer at most {settings.find_limit} studies to a question (find_limit)"
    studies = search(source, Criteria(study_date=days), 1).studies
    if not studies:
        return f"It has no study of the last {DAYS} days, so its levels could not be tried. {limits}."
    return f"{_WORDS[expected_instances(source, studies[0]).source]} {limits}."

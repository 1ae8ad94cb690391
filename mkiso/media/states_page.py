"""What the page of a series says of its presentation states: what they are called, and where their pictures are."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice

from mkiso.languages import Language
from mkiso.media.file_set import Leaf
from mkiso.media.presented import references_of
from mkiso.media.record_types import PRESENTATION
from mkiso.media.report_page import MAX_THUMBNAILS, Link, Targets
from mkiso.study.identity import one_line
from mkiso.study.text import text


@dataclass(frozen=True, slots=True)
class StateOnPage:
    """A presentation state; `links` lead to the pictures that it is about."""

    title: str
    date: str
    links: tuple[Link, ...]


def states_on_page(
    leaves: Collection[Leaf], targets: Callable[[], Targets], spoken: Language
) -> tuple[StateOnPage, ...]:
    """Those among the instances of a series."""
    return tuple(_state(leaf, targets(), spoken) for leaf in leaves if leaf.record_type == PRESENTATION)


def _state(leaf: Leaf, targets: Targets, spoken: Language) -> StateOnPage:
    header = leaf.instance.header
    named = (one_line(text(header, keyword)) for keyword in ("ContentDescription", "ContentLabel"))
    links = (link for reference in references_of(header) for link in targets.links(reference))
    shown = tuple(islice(links, MAX_THUMBNAILS))
    left = sum(1 for _ in links)
    more = (Link(spoken.ngettext("and %(number)s more picture", "and %(number)s more pictures", left)),) if left else ()
    return StateOnPage(
        next(filter(None, named), spoken.gettext("Presentation state")),
        spoken.da(one_line(text(header, "PresentationCreationDate"))),
        (*shown, *more),
    )

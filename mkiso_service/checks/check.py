"""What a check is: one dependency, tried for real, and in words what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mkiso.config.settings import Settings
from mkiso.errors import MkisoError, RetriableError

if TYPE_CHECKING:
    from mkiso_service.prefect.orchestrator import Orchestrator

T = TypeVar("T")


class Unwell(RetriableError):
    """A check found something wrong that has no error of its own."""


class AskPrefect(Protocol):
    """Asks the orchestrator something and waits for its answer. Raises OrchestratorUnavailable, ConfigurationError."""

    def __call__(self, what: Callable[[Orchestrator], Coroutine[Any, Any, T]], /) -> T: ...


@dataclass(frozen=True, slots=True)
class Site:
    """What a check may look at. `inside`: somebody at this machine reads the words, so addresses and versions may stand
    in them, and it may ask more than whether something can be reached. `wrong`: what was found so before, by name.
    """

    settings: Settings
    ask_prefect: AskPrefect
    limit_seconds: float
    inside: bool = False
    wrong: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One dependency: `name` in /api/health, `title` for people. `inside`: shown only at this machine;
    `of_service`: a part of the running service itself.
    """

    name: str
    title: str
    run: Callable[[Site], str]
    inside: bool = False
    of_service: bool = False
    configured: Callable[[Settings], bool] = lambda settings: True


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: whether it is well, and in words what was seen, or what is wrong and what to do."""

    well: bool
    words: str
    seconds: float


def examine(check: Check, site: Site) -> Finding:
    """Run one check. Where it ends in an error of any kind, the dependency counts as not well."""
    started = time.monotonic()
    try:
        well, words = True, check.run(site)
    except MkisoError as error:
        well, words = False, error.words
    except Exception as error:
        well, words = False, f"can't be checked: {type(error).__name__}"
    return Finding(well, words, time.monotonic() - started)

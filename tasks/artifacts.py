"""What operators see of a run in the Prefect UI beside its state: a progress bar, tables, links. No run waits for one,
or fails for want of one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from logging import Logger, LoggerAdapter
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from mkiso.study.identity import one_line

_SIGNS = re.compile(r"[\\`*_\[\]<>&~|]|^[-+#=]|^\d{1,9}(?=[.)](\s|$))")
"""What means something in Markdown, anywhere or at the beginning; a number of a list."""


def as_markdown(value: object) -> object:
    """A cell that Prefect's UI shows as it is: it takes each text for Markdown, a link or a picture from elsewhere
    among it.
    """
    return _SIGNS.sub(_escaped, one_line(value)) if isinstance(value, str) else value


def _escaped(sign: re.Match[str]) -> str:
    return f"{sign[0]}\\" if sign[0].isdecimal() else f"\\{sign[0]}"


class Artifacts:
    """The artifacts of one run, made in their order by a thread beside it, since each takes 20 ms. Close it before the
    run ends.
    """

    def __init__(self, log: Logger | LoggerAdapter[Logger], progress_key: str, progress_seconds: float) -> None:
        self._log = log
        self._progress_key = progress_key
        self._progress_seconds = progress_seconds
        self._progress_id: UUID | None = None
        self._progressed = time.monotonic()
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="artifacts")

    @property
    def is_progress_due(self) -> bool:
        """Whether the bar was moved long enough ago to be moved again."""
        return time.monotonic() - self._progressed >= self._progress_seconds

    def progress(self, done: int, total: int | None, words: str) -> None:
        """Move the progress bar, which is made when it moves first; it stays at its beginning where the total isn't
        known.
        """
        self._progressed = time.monotonic()
        percent = 100 * done / total if total else 0.0
        self._make(lambda: self._move(percent, words))

    def table(self, key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
        """Show a table as it is now. Its texts may come from a PACS or from anybody who asks."""
        shown: list[dict[str, Any]] = [{name: as_markdown(value) for name, value in row.items()} for row in rows]
        self._make(lambda: create_table_artifact(shown, key=key, description=description))

    def link(self, key: str, address: str, words: str) -> None:
        """Show a link."""
        self._make(lambda: create_link_artifact(address, link_text=words, key=key))

    def close(self, *, at_once: bool = False) -> None:
        """Wait for what is being made; `at_once`: leave out what isn't begun."""
        self._beside.shutdown(cancel_futures=at_once)

    def _move(self, percent: float, words: str) -> None:
        if self._progress_id is None:
            artifact = create_progress_artifact(progress=percent, key=self._progress_key, description=words)
            self._progress_id = artifact if isinstance(artifact, UUID) else None
        else:
            update_progress_artifact(self._progress_id, progress=percent, description=words)

    def _make(self, make: Callable[[], object]) -> None:
        self._beside.submit(copy_context().run, self._made, make)

    def _made(self, make: Callable[[], object]) -> None:
        try:
            make()
        except Exception as error:
            self._log.warning(
                "An artifact of this run couldn't be made (%s); the run goes on without it.", type(error).__name__
            )

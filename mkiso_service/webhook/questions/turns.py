"""Questions that the webhook itself asks of a source: so many at a time, and each ends within its limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mkiso.config.settings import Settings
from mkiso.errors import PacsSilent
from mkiso.sources.protocol import Source
from mkiso.sources.registry import sources_of

T = TypeVar("T")

AT_ONCE = 4
"""A page waits for its turn; jobs have turns of their own."""
LIMIT_SECONDS = 30.0
SHARE = 0.8
"""Of this time: what one of several sources, or the patient API, may take, so that the answers of the others can be
told.
"""


class Turns:
    """`name` is the threads'. Each kind of question has turns of its own, so that none holds up the others."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(AT_ONCE, name)

    async def take(self, ask: Callable[[Sequence[Source], float], T], seconds: float = LIMIT_SECONDS) -> T:
        """What `ask` returns of the configured sources; it is told until when (monotonic) it may ask others. Raises
        what it raises, and PacsSilent where the turn and the answer take longer than anybody waits; the thread is free
        again by then.
        """
        now = time.monotonic()
        until, others_until = now + seconds * (SHARE if self._settings.sources else 1), now + seconds * SHARE
        asking = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: ask(sources_of(self._settings, until=until), others_until)
        )
        try:
            return await asyncio.wait_for(asking, seconds)
        except TimeoutError:
            raise PacsSilent(f"The PACS hasn't answered within {seconds:g} s. Try again in a minute.") from None

"""The parts of mkiso on a machine: what each imports and runs, as a command of its own or a fork of `mkiso serve`."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from mkiso.config.settings import Server, Settings
from mkiso_service.ending import SERVER_GRACE_SECONDS, jobs_grace_seconds, on_signals

Run = Callable[[Settings], None]

SHARED = (
    *("prefect.client.orchestration", "prefect.client.schemas.worker_channel", "prefect.events.clients"),
    *("jsonschema", "pydantic.v1", "jinja2", "starlette.applications", "uvicorn"),
)
"""What Prefect's server and the worker both import, and nothing else: a start lasts as long as what the server does."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part. `load` imports all that it runs, and starts nothing; what it gives runs until SIGINT or SIGTERM.
    `share` imports what others have of that, too; where there is none, all of it.
    """

    name: str
    load: Callable[[], Run]
    share: Callable[[], object] | None = None
    has_jobs: bool = False
    knows_prefect: bool = True

    def grace_seconds(self, server: Server) -> float:
        """What it gets to end."""
        return jobs_grace_seconds(server) if self.has_jobs else SERVER_GRACE_SECONDS


@contextmanager
def importing() -> Iterator[None]:
    """For a process that stays: what it imports is never garbage, and looking for some among it takes an eighth of the
    time.
    """
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def _until_signal(part: Part, run: Callable[[Settings, threading.Event], None], settings: Settings) -> None:
    """Run it until SIGINT or SIGTERM; a second signal ends the process at once."""
    stop = threading.Event()
    on_signals(part.grace_seconds(settings.server), stop.set)
    run(settings, stop)


def _load_prefect() -> Run:
    from mkiso_service.prefect.server import run

    return run


def _share_prefect() -> None:
    """Not the server itself, which is half of what is imported in all: nobody else has that."""
    for name in SHARED:
        import_module(name)


def _load_receiver() -> Run:
    from mkiso.receiver.server import run

    return partial(_until_signal, RECEIVER, run)


def _load_worker() -> Run:
    from mkiso_service.worker.server import run

    return run


def _load_webhook() -> Run:
    from mkiso_service.webhook.server import run

    return partial(_until_signal, WEBHOOK, run)


RECEIVER = Part("receiver", _load_receiver, knows_prefect=False)
PREFECT = Part("prefect", _load_prefect, share=_share_prefect)
WORKER = Part("worker", _load_worker, has_jobs=True)
WEBHOOK = Part("webhook", _load_webhook, has_jobs=True)
PARTS = {part.name: part for part in (RECEIVER, PREFECT, WORKER, WEBHOOK)}

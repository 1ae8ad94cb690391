"""What every step of a job is: a Prefect task that is retried by the error's type. An unexpected fault in it shows
nobody a patient's data.

No step's result is reused by Prefect: what a rerun builds on is the job's folder, checked by hash, and what the PACS
holds is asked anew (docs/decisions/reruns.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.tasks import Task
from prefect.utilities.annotations import opaque

from mkiso.errors import MkisoError, RetriableError
from mkiso.storage.job import Job
from mkiso.storage.report import failure_of


class Run(Protocol):
    """A flow run with a folder of its own."""

    @property
    def job(self) -> Job: ...


P = ParamSpec("P")
V = TypeVar("V")

RETRY_DELAY_SECONDS = (2, 5, 15)


@dataclass(frozen=True, slots=True)
class Step(Generic[P, V]):
    """A function of a run and of values, and the task around it. Prefect hands its arguments on without looking into
    them for results of other tasks: a study has 20,000 instances. What is `idle` is called without its task.
    """

    fn: Callable[P, V]
    task: Task[..., V]
    idle: Callable[..., bool]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> V:
        if self.idle(*args, **kwargs):
            return self.fn(*args, **kwargs)
        return self.task(*map(opaque, args), **{name: opaque(value) for name, value in kwargs.items()})

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> PrefectFuture[V] | Future[V]:
        """Begin it beside what comes next."""
        if self.idle(*args, **kwargs):
            done = Future[V]()
            done.set_result(self.fn(*args, **kwargs))
            return done
        return self.task.submit(*map(opaque, args), **{name: opaque(value) for name, value in kwargs.items()})


def _never(*args: object, **kwargs: object) -> bool:
    return False


def step(
    name: str, run_name: str | None = None, *, patient: bool = False, idle: Callable[..., bool] = _never
) -> Callable[[Callable[P, V]], Step[P, V]]:
    """Make a function whose first argument is a Run a step under a name that operators read.

    `patient`: retriable errors are waited out and tried again. `idle`: whether the function has nothing to do with
    these arguments; it is no task then, which would cost Prefect as much as one that works, and tell an operator of
    what didn't happen.
    """

    def decorate(function: Callable[P, V]) -> Step[P, V]:
        discreet = _discreet(function)
        task = Task(
            discreet,
            name=name,
            task_run_name=run_name or name,
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=len(RETRY_DELAY_SECONDS) if patient else 0,
            retry_delay_seconds=list(RETRY_DELAY_SECONDS) if patient else 0,
            retry_condition_fn=_may_pass if patient else None,
        )
        return Step(discreet, task, idle)

    return decorate


async def _may_pass(task: Task[..., Any], task_run: TaskRun, state: State) -> bool:
    return isinstance(await state.aresult(raise_on_failure=False), RetriableError)


def _discreet(function: Callable[P, V]) -> Callable[P, V]:
    """The text of an unexpected exception may quote a name, and Prefect writes it into its database: it goes to the
    job's folder instead.
    """

    @functools.wraps(function)
    def discreet(*args: P.args, **kwargs: P.kwargs) -> V:
        try:
            return function(*args, **kwargs)
        except MkisoError:
            raise
        except Exception as fault:
            job = cast(Run, args[0]).job
            job.keep_fault(fault)
            raise failure_of(fault, job.kind) from None

    return discreet

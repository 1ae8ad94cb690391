"""Prefect's own way of executing a flow run, with our warm child in the place of a new interpreter.

Prefect's private names that executing relies on stand here (measured with 3.8.8; tests/end_to_end/test_worker.py pins
these and the other few): `FlowRunExecutorContext` brings the states, the cancellation of a running flow and the crash
report.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import multiprocessing.context
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
from prefect.client.schemas.objects import FlowRun
from prefect.flows import Flow
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle
from prefect.settings import get_current_settings

from mkiso.config.in_force import in_force
from mkiso_service import ending
from mkiso_service.worker.child import run_flow_run
from mkiso_service.worker.deployments import Deployment
from mkiso_service.worker.infrastructure import worker_label

log = logging.getLogger("mkiso.worker")


def warm_context() -> multiprocessing.context.ForkServerContext:
    """A forkserver that is a fork of this process, and so has imported Prefect's engine and the flows; each run is a
    fork of it. To be called before this process has an event loop or a connection.

    One that dies is replaced by multiprocessing itself, in a new interpreter, which takes two seconds longer.
    """
    # multiprocessing would run the command that started the worker anew in every child, to find what it might need of
    # it: nothing.
    main = sys.modules["__main__"]
    main.__spec__ = None
    main.__dict__.pop("__file__", None)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mkiso_service.worker.child"])
    resource_tracker.ensure_running()
    new_interpreter = util.spawnv_passfds
    util.spawnv_passfds = _fork
    try:
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = new_interpreter
    return context


def _fork(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
    """What a new interpreter would run with these arguments, `-c` and a program at their end, in a fork; its process
    id.
    """
    if process := os.fork():
        return process
    try:
        for open_one in list(Path("/proc/self/fd").iterdir()):
            if (descriptor := int(open_one.name)) not in {0, 1, 2, *passfds}:
                with suppress(OSError):  # that of the folder itself is closed already
                    os.close(descriptor)
        importlib.reload(forkserver)  # its lock is held by whoever forks
        exec(args[-1], {})  # noqa: S102
    except SystemExit:
        os._exit(0)
    except BaseException:
        log.exception("The warm process has ended")
    finally:
        os._exit(1)


class WarmStarter:
    """Starts a flow run in a fork of the warm process (Prefect's `ProcessStarter`). `register` gives the port and the
    token by which a flow's process is told of its cancellation. `variables` are of its environment, the same for all.
    """

    def __init__(
        self,
        context: multiprocessing.context.ForkServerContext,
        register: Callable[[UUID], tuple[int, str]],
        deployment: Deployment,
        variables: Mapping[str, str],
    ) -> None:
        self._context = context
        self._register = register
        self._deployment = deployment
        self._variables = variables

    async def start(
        self, flow_run: FlowRun, task_status: anyio.abc.TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Start the child, tell its handle, and return when it has ended."""
        port, token = self._register(flow_run.id)
        process = self._context.Process(
            target=run_flow_run,
            args=(
                in_force(),
                {**self._variables, **_own(flow_run, port, token)},
                self._deployment,
                flow_run,
                ending.root,
            ),
        )
        await anyio.to_thread.run_sync(process.start)
        task_status.started(ProcessHandle(process))  # type: ignore[arg-type]
        await anyio.wait_readable(process.sentinel)
        await anyio.to_thread.run_sync(process.join)


def _own(flow_run: FlowRun, port: int, token: str) -> dict[str, str]:
    """What a flow's process is told through its environment besides the worker's own settings of Prefect: nothing that
    Prefect says of the run.
    """
    return {
        "PREFECT__FLOW_RUN_ID": str(flow_run.id),
        "PREFECT__CONTROL_PORT": str(port),
        "PREFECT__CONTROL_TOKEN": token,
        "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
    }


class FlowRunExecution:
    """Executes flow runs, many at a time, through one shared executor context for the worker's life."""

    def __init__(self, warm: multiprocessing.context.ForkServerContext) -> None:
        self._context = FlowRunExecutorContext()
        self._warm = warm
        self._flows: dict[UUID | None, Flow[Any, Any]] = {}
        self._variables = get_current_settings().to_environment_variables(exclude_unset=True)  # takes 20 ms

    async def __aenter__(self) -> FlowRunExecution:
        await self._context.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._context.__aexit__(*exc_info)

    async def execute(
        self, flow_run: FlowRun, deployment: Deployment, task_status: anyio.abc.TaskStatus[str]
    ) -> tuple[ProcessHandle, int | None] | None:
        """Run one flow run of one of our own deployments to its end; where its process is is told as soon as there is
        one.

        The process and its exit code; None where it was not to be started.
        """
        self._flows[flow_run.deployment_id] = deployment.flow
        starter = WarmStarter(self._warm, self._context.control_channel.register, deployment, self._variables)
        executor = self._context.create_executor(
            flow_run, starter, resolve_flow=self._flow_of, propose_submitting=False
        )
        ended: tuple[ProcessHandle, int | None] | None = None

        async def submit(*, task_status: anyio.abc.TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED) -> None:
            nonlocal ended
            result = await executor.submit(task_status=task_status)
            ended = (result.handle, result.status_code) if result is not None else None

        async with anyio.create_task_group() as task_group:
            handle = await task_group.start(submit)
            task_status.started(worker_label(handle.pid))
        return ended

    async def _flow_of(self, flow_run: FlowRun) -> Flow[Any, Any]:
        """The flow whose hooks are called when a run is cancelled: ours, whatever Prefect says of its deployment by
        then.
        """
        return self._flows[flow_run.deployment_id]

    def running(self) -> dict[UUID, str]:
        """The flow runs whose processes are alive now, and where these are."""
        manager = self._context.process_manager
        handles = {flow_run_id: manager.get(flow_run_id) for flow_run_id in manager.flow_run_ids()}
        return {flow_run_id: worker_label(handle.pid) for flow_run_id, handle in handles.items() if handle is not None}

    def kill_all(self) -> None:
        """End every run's process at once, each with its whole group."""
        for flow_run_id in self.running():
            handle = self._context.process_manager.get(flow_run_id)
            if handle is not None and handle.pid is not None:
                with suppress(ProcessLookupError):
                    os.killpg(handle.pid, signal.SIGKILL)

    async def kill(self, flow_run_id: UUID, grace_seconds: float) -> None:
        """End a run's process: SIGTERM, and SIGKILL after the grace time."""
        await self._context.process_manager.kill(flow_run_id, grace_seconds)

"""A job's progress for people: a moving bar on a terminal, a line for each stage anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from service.client import JobState


def show_job(console: Console, states: Iterable[JobState]) -> JobState:
    """Show a job's states until the last, which is returned."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeElapsedColumn())
    last: JobState | None = None
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("asking", total=None)
        for state in states:
            if not console.is_terminal and (last is None or state.stage != last.stage):
                console.print(f"  {state.stage}")
            bar.update(task, description=state.stage, total=state.expected, completed=state.received)
            last = state
    if last is None:
        raise ValueError("a job without a state")
    for lack in last.degraded:
        console.print(f"[yellow]Made without {lack}:[/] see X-Mkiso-Degraded in README.md.")
    return last


@contextmanager
def bar_of_bytes(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is moved by calling what this gives with (bytes done, bytes in all)."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def size_words(size: int) -> str:
    """A size as people say it: 1.2 GB, 35 MB, 812 kB."""
    for unit, bytes_in_unit in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_in_unit:
            return f"{size / bytes_in_unit:.1f} {unit}" if size < 10 * bytes_in_unit else f"{size / bytes_in_unit:.0f} {unit}"
    return f"{size} bytes"

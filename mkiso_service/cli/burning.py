"""What `mkiso burn` and `mkiso demo` share: ask for a disc, follow the job, download every image of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.markup import escape

from mkiso.errors import SeveralDiscs, StorageFull
from mkiso.formats.folder import unpack
from mkiso.storage.files import write_whole
from mkiso.storage.room import size_words
from mkiso.study.models import count_words, instances_words
from mkiso_service.api import Disc, Job
from mkiso_service.cli.client import AskedDisc, Client, DiscRequest
from mkiso_service.cli.display import bar_of_bytes, show_job

ON_A_STICK = ("usb", "usb-cms")
"""The formats that files for a stick are brought in."""


def burn(
    console: Console,
    client: Client,
    request: DiscRequest,
    target: Path,
    *,
    letter: Path | None = None,
    names_files: bool = True,
) -> tuple[Job, list[Path]]:
    """Make the disc, or the discs of a set, of these studies and download them; the job and the files. The password of
    an encrypted one is shown, or written into the `letter`. Without `names_files` nothing is said of them. Raises
    ServiceError, StorageFull.
    """
    started = time.monotonic()
    asked = client.ask_for_disc(request)
    state = show_job(console, client.follow(asked.job_id))
    if asked.claim:
        _tell_password(client, asked, letter, request.language)
    made = time.monotonic()
    files = []
    for disc in state.discs:
        file = target if disc.total == 1 else _beside(target, disc)
        if (free := disk_usage(file.parent).free) < disc.size:
            elsewhere = "name another folder with -o" if names_files else "name another folder for it by TMPDIR"
            raise StorageFull(
                f"{file.parent} has {size_words(free)} free, and the disc is a file of {size_words(disc.size)}. Make "
                f"room there, or {elsewhere}."
            )
        with bar_of_bytes(console, "downloading") as moved:
            client.download(disc, file, moved)
        files.append(file)
        if names_files:
            console.print(
                f"[bold]{escape(str(file))}[/]  {instances_words(disc.instances)}, {size_words(disc.size)}, SHA-256 "
                f"{disc.sha256[:16]}… as proved by the service"
            )
    if state.deidentified:
        console.print("De-identified copy. Not a patient's disc.", style="yellow")
    if state.is_part:
        console.print("Not everything of the examination is on it: only what was chosen.", style="yellow")
    console.print(f"made in {made - started:.1f} s, downloaded in {time.monotonic() - made:.1f} s", style="dim")
    return state, files


def burn_into(
    console: Console,
    client: Client,
    request: DiscRequest,
    folder: Path,
    *,
    letter: Path | None,
) -> tuple[Job, list[Path]]:
    """Make the disc of these studies, and write its files into a folder, proved there; the job and the folder. With
    `usb-cms` they are encrypted, and the password goes where `burn` lets it go. `require_place` was asked before.
    Raises ServiceError, SeveralDiscs, FolderTaken, ProofFailed, StorageFull, OSError.
    """
    with _ended_as_by_ctrl_c(), TemporaryDirectory(prefix="mkiso-") as temporary:
        target = Path(temporary) / "disc"
        request = replace(request, form=request.form or ON_A_STICK[0])
        job, files = burn(console, client, request, target, letter=letter, names_files=False)
        if len(files) != 1:
            raise SeveralDiscs(
                f"The images fill {len(files)} discs, and a folder can hold one alone: nothing was written there. Ask "
                "for fewer studies at a time."
            )
        with bar_of_bytes(console, "writing and reading back") as moved:
            written = unpack(files[0], folder, moved)
    console.print(
        f"[bold]{escape(str(folder))}[/]  {instances_words(job.discs[0].instances)} in "
        f"{count_words(written.files, 'file')}, "
        f"{size_words(written.size)}, proved: each was read back and is what the service proved."
    )
    return job, [folder]


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """A terminal that is closed and a machine that is shut down let a patient's disc in a temporary folder go, too."""
    ending = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in ending}
    heard = [number for number, handler in before.items() if handler is signal.SIG_DFL]  # nohup has SIGHUP ignored
    for number in heard:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _tell_password(client: Client, asked: AskedDisc, letter: Path | None, language: str) -> None:
    """On standard error, which goes to no file with what a program reads."""
    console = Console(soft_wrap=True, stderr=True)
    if letter:
        content = client.letter(asked.job_id, language=language, claim=asked.claim)
        write_whole(letter, content)
        words = f"The password is in {letter} and nowhere else: give it to the patient apart from the disc."
        console.print(words, markup=False)
        return
    console.print(f"Password: [bold]{client.password(asked.job_id, asked.claim)}[/]", highlight=False)
    console.print("It is shown this once and kept nowhere. Write it down, apart from the disc.")


def _beside(target: Path, disc: Disc) -> Path:
    """A disc of a set is named for its set: discs of two sets of one study must never lie there as one."""
    return target.with_name(f"{target.stem}-{disc.part}of{disc.total}-{disc.set[:8]}{target.suffix}")

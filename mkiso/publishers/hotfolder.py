"""Robots that watch a folder: the image and the ticket are written beside it and the ticket is renamed in; the robot's
files tell the rest.

    directory/                  watched: <order id>.<suffix>, renamed by the robot as the order goes on
    directory/mkiso/            not watched: images, label fields, and a ticket until it is given

A ticket is renamed once and in one step: as long as it lies in mkiso/ the robot hasn't got it, and when it doesn't, it
has. So an order of which only the beginning is on record can be judged.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

from mkiso.config.publishers import Robot
from mkiso.errors import PrintUncertain, ProofFailed, PublisherRefused, PublisherUnavailable, why_refused
from mkiso.publishers.orderbook import MAY_BE_MADE
from mkiso.publishers.protocol import Order, Receipt, Watch, label_values, name_on_label, tells_part
from mkiso.publishers.robot_status import ENDS, RobotState, RobotStatus, seen_in_names, strongest
from mkiso.storage.files import clock_of, sha256_of, sync_folder
from mkiso.storage.room import size_words
from mkiso.study.identity import without_patient
from mkiso.study.writing import Carries, encodable, name_written

POLL_SECONDS = 1.0
STALE_SECONDS = 60.0  # twelve refreshes of Epson's status file
LEFT_BEHIND_SECONDS = 7 * 86_400.0  # longer than a robot stands without discs over holidays
COPY_BYTES = 1 << 20
STATUS_LIMIT_BYTES = 4_194_304
UNGIVEN = ".ungiven"


class FolderPublisher(ABC):
    """What these robots have in common. A kind says how its ticket and status look."""

    needs_image = True
    ticket_suffix: ClassVar[str]
    states: ClassVar[Mapping[str, RobotState]]
    """What each suffix of a ticket means, upper case, the ticket's own among them."""

    def __init__(self, name: str, settings: Robot) -> None:
        self.name = name
        self.where = settings.where
        self.settings = settings
        self.directory = settings.directory
        self.staging = settings.directory / "mkiso"
        self.status_directory = settings.status_directory or settings.directory

    @abstractmethod
    def files(self, order: Order, image: str) -> Mapping[str, str]:
        """The texts of an order by suffix, the ticket's under `ticket_suffix`. `image` is where the robot finds the
        image.
        """

    def cancel_file(self, order: Order) -> tuple[str, str] | None:
        """The suffix and text of a file that cancels an order; None where the robot has no such way."""
        return None

    def status_files(self, order_id: str) -> list[Path]:
        """Files in which the robot says more than a ticket's name can; the first is refreshed for as long as the
        robot's service lives.
        """
        return []

    def read_status(self, text: str, order_id: str) -> RobotStatus | None:
        """What a status file says of an order; None where it doesn't mention it."""
        return None

    def check(self) -> str:
        """The folder takes files, and the robot's status file, where there is one, was refreshed within a minute by the
        folder's own clock.
        """
        with self._told_as_unavailable():
            self._make_staging()
            now = clock_of(self.staging / f"check-{os.getpid()}")
        for status in self.status_files("")[:1]:
            if not status.is_file():
                raise PublisherUnavailable(
                    f"{self.name} has no status file {status}: its service isn't running, or status_directory is "
                    "another."
                )
            age_seconds = now - status.stat().st_mtime
            if age_seconds > STALE_SECONDS:
                raise PublisherUnavailable(
                    f"{self.name}'s status file {status.name} stands still for {age_seconds:.0f} s: start its service."
                )
        return f"{self.name} watches {self.directory}"

    @property
    def carries(self) -> Carries:
        """What its label's texts can hold."""
        return encodable(self.settings.label_encoding)

    def label(self, order: Order) -> dict[str, str]:
        """The label's fields as they are printed."""
        return label_values(order, self.settings.label_fields, self.carries)

    def tells_part(self) -> bool:
        return tells_part(self.settings.label_fields)

    def rewrites(self, order: Order) -> bool:
        nameless = replace(order, patient=replace(order.patient, name=""))
        others = "".join(label_values(nameless, self.settings.label_fields).values())
        is_other = self.other_name(order.patient.name) is not None or not all(map(self.carries, others))
        return bool(self.settings.label_template) and is_other

    def other_name(self, person_name: str) -> str | None:
        """What the label shows of a name (PN) that it can write in none of the ways that it is given in, empty where it
        can't at all; else None.
        """
        groups = name_written(person_name, self.carries).split("=")
        is_given = not person_name.strip("^= ") or all(group in person_name.split("=") for group in groups)
        if is_given or not self.settings.label_template:
            return None
        return name_on_label(person_name, self.carries)

    def settles_in_seconds(self, order: Order) -> float:
        """Each image is a disc of its own."""
        return 0

    def place(self, order: Order, before_giving: Callable[[], None], watch: Watch) -> Receipt:
        """Write image and ticket beside the folder and rename the ticket in."""
        if self.other_name(order.patient.name) == "":
            raise PublisherRefused(
                f"{self.name}'s label can't show this patient's name, since {self.settings.label_encoding} has none of "
                f"its letters; nothing was printed. Set publishers.{self.name}.label_encoding."
            )
        watch.progress(f"copying the image to {self.name}", 0, order.copies)
        try:
            self._stage(order, watch)
            before_giving()
        except (PublisherUnavailable, PublisherRefused, ProofFailed, PrintUncertain, OSError):
            self._tidy(order)  # OSError: the order book is on mkiso's own disk, which may be full
            raise
        self._give(order)
        words = f"{self.name} has the order {order.order_id}."
        return Receipt(self.name, order.order_id, "queued", len(order.instances), words, self._warnings(order))

    def _stage(self, order: Order, watch: Watch) -> None:
        """Image and ticket beside the folder. Raises PublisherUnavailable, PublisherRefused, ProofFailed."""
        with self._told_as_unavailable("; nothing was printed"):
            image = self._copy_image(order, watch)
            for suffix, text in self.files(order, self.at_robot(image)).items():
                is_ticket = suffix == self.ticket_suffix
                file = self._staged(order) if is_ticket else self.staging / f"{order.order_id}{suffix}"
                _write(file, self._encoded(text))
            sync_folder(self.staging)

    def _give(self, order: Order) -> None:
        """The ticket into the folder: from now on the order is given. Raises PrintUncertain, PublisherUnavailable."""
        ticket = self._staged(order)
        try:
            ticket.rename(self.directory / f"{order.order_id}{self.ticket_suffix}")
        except OSError as error:
            if not ticket.exists() or self._look(order)[0].state != "absent":
                raise PrintUncertain(
                    f"{self.name}'s folder failed while the order was given ({error.strerror}). {MAY_BE_MADE}"
                ) from None
            self._tidy(order)
            raise PublisherUnavailable(
                f"{self.name}'s folder {self.directory} took no order ({error.strerror}); nothing was printed."
            ) from None
        with suppress(OSError):  # some network file systems can't
            sync_folder(self.directory)

    def was_given(self, order: Order) -> bool | None:
        """Whether the ticket was renamed in; one that wasn't is removed, so that it never will be."""
        with self._told_as_unavailable():
            if self._seen(order).state != "absent":
                return True
            if self._staged(order).exists():
                self._clear(order)
                return False
            return None

    def follow(self, order: Order, receipt: Receipt, watch: Watch) -> Receipt:
        """Wait for the robot's end of the order; `silent_minutes` without any sign of life from it is an end too."""
        last: tuple[RobotStatus, float] | None = None
        changed = time.monotonic()
        while not watch.stop.is_set():
            seen, pulse = self._look(order)
            if seen.state in ENDS:
                if not seen.words:  # a status file may be in the middle of being written
                    watch.stop.wait(POLL_SECONDS)
                return self._end(order, receipt, seen if seen.words else self._look(order)[0])
            # A service that lives doesn't feed a robot whose stacker is empty.
            sign = seen, pulse if seen.state == "waiting" else 0.0
            if sign != last:
                last, changed = sign, time.monotonic()
                watch.progress(f"{self.name}: {seen.told}", 0, order.copies)
            if time.monotonic() - changed > self.settings.silent_minutes * 60:
                raise PrintUncertain(
                    f"{self.name} said nothing new for {self.settings.silent_minutes:g} minutes; last seen: "
                    f"{seen.told}. {MAY_BE_MADE}"
                )
            watch.stop.wait(POLL_SECONDS)
        return receipt

    def cancel(self, order: Order) -> bool:
        """Ask the robot to drop the order."""
        with self._told_as_unavailable():
            file = self.cancel_file(order)
            if file is None:
                return False
            suffix, text = file
            staged = self.staging / f"{order.order_id}{suffix}"
            _write(staged, self._encoded(text))
            staged.rename(self.directory / staged.name)
            return True

    def at_robot(self, file: Path) -> str:
        """A file of the watched folder as the robot's own machine names it (`robot_directory`)."""
        root = self.settings.robot_directory
        if not root:
            return str(file)
        separator = "\\" if "\\" in root or root[1:2] == ":" else "/"
        return separator.join([root.rstrip("\\/"), *file.relative_to(self.directory).parts])

    def _make_staging(self) -> None:
        if self.staging.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, "mkiso in it is a link to somewhere else")
        if not self.staging.exists():
            self.staging.mkdir(exist_ok=True)
            _share(self.staging)

    def _copy_image(self, order: Order, watch: Watch) -> Path:
        """Copy the image beside the folder; the robot compares its disc with that copy alone, so the copy is proved
        here. Raises ProofFailed.
        """
        assert order.image is not None  # needs_image
        size = order.image.stat().st_size
        self._make_staging()
        self._sweep(order)
        if shutil.disk_usage(self.staging).free < size:
            raise PublisherUnavailable(
                f"{self.name}'s folder has no room for an image of {size_words(size)}; nothing was printed."
            )
        target = self.staging / f"{order.order_id}{order.image.suffix.upper()}"
        watch.leaves()
        with order.image.open("rb") as source, _opened(target, "wb") as copy:
            shutil.copyfileobj(source, copy, COPY_BYTES)
        _share(target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
            # What is read back comes from the share and not from our memory.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if sha256_of(target) != order.image_sha256:
            raise ProofFailed(
                f"The image's copy in {self.name}'s folder is not what was proved: it was removed, nothing was printed."
            )
        return target

    def _look(self, order: Order) -> tuple[RobotStatus, float]:
        """The order's state and a pulse: a number that changes as long as the robot's service lives. A folder that
        can't be read says nothing.
        """
        try:
            pulses = [status.stat().st_mtime for status in self.status_files(order.order_id) if status.exists()]
            return self._seen(order), max(pulses, default=0.0)
        except OSError as error:
            return RobotStatus("absent", f"its folder can't be read ({error.strerror})"), 0.0

    def _seen(self, order: Order) -> RobotStatus:
        by_name = seen_in_names(os.listdir(self.directory), order.order_id, self.states)  # noqa: PTH208  names are all that is needed
        said = []
        for status in self.status_files(order.order_id):
            with suppress(OSError):
                said.append(self.read_status(self._text_of(status), order.order_id))
        seen = strongest([by_name, *(status for status in said if status)])
        return replace(seen, words=without_patient(seen.words, order.patient))

    def _end(self, order: Order, receipt: Receipt, seen: RobotStatus) -> Receipt:
        self._tidy(order)
        if seen.state == "done":
            return replace(receipt, proves="done", words=seen.words or f"{self.name} reported the disc as done.")
        reason = (
            f"{self.name} {'stopped' if seen.state == 'stopped' else seen.state} the "
            f"order{f': {seen.words}' if seen.words else ''}"
        )
        reason = reason.replace("failed the order", "failed at the order")
        if order.copies > 1 and seen.state != "refused":
            raise PublisherRefused(
                f"{reason}. Some of the {order.copies} copies may have been made: look at the robot.", accepted=1
            )
        if seen.may_be_made:
            raise PublisherRefused(f"{reason}, and says elsewhere that the disc is done. {MAY_BE_MADE}", accepted=1)
        raise PublisherRefused(f"{reason}.")

    def _staged(self, order: Order) -> Path:
        return self.staging / f"{order.order_id}{UNGIVEN}"

    def _clear(self, order: Order) -> None:
        """Remove what lies beside the folder for this order; the ticket first, for without its image it must never be
        given.
        """
        self._staged(order).unlink(missing_ok=True)
        for file in self.staging.glob(f"{order.order_id}.*"):
            file.unlink(missing_ok=True)

    def _tidy(self, order: Order) -> None:
        """As _clear, as far as that is possible: a share that is gone, or lets nobody delete, hides no end's words."""
        with suppress(OSError):
            self._clear(order)

    def _sweep(self, order: Order) -> None:
        """Remove what orders that nobody followed to their end have left: it is patients' data, on somebody else's
        share.
        """
        now = clock_of(self.staging / f"{order.order_id}.clock")
        for file in self.staging.iterdir():
            with suppress(OSError):  # gone meanwhile, or a folder, which isn't of ours: nobody's print waits for it
                if file.lstat().st_mtime < now - LEFT_BEHIND_SECONDS:
                    file.unlink()

    def _text_of(self, file: Path) -> str:
        with _opened(file, "rb") as opened:
            return opened.read(STATUS_LIMIT_BYTES).decode(self.settings.label_encoding, errors="replace")

    def _encoded(self, text: str) -> bytes:
        """A text of an order. Raises PublisherRefused where what the configuration puts into it can't be written."""
        try:
            return text.encode(self.settings.label_encoding)
        except UnicodeEncodeError as error:
            raise PublisherRefused(
                f"{error.object[error.start]!r} in an order for {self.name} can't be written in "
                f"{self.settings.label_encoding}; nothing was printed. Look at its robot_directory, label_template and "
                "label_fields."
            ) from None

    def _warnings(self, order: Order) -> tuple[str, ...]:
        if not self.rewrites(order):
            return ()
        return (
            f"The label holds characters that {self.settings.label_encoding} hasn't; others are printed. "
            f"Set publishers.{self.name}.label_encoding.",
        )

    @contextmanager
    def _told_as_unavailable(self, so: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PublisherUnavailable(
                f"{self.name}'s folder {self.directory} can't be used ({why_refused(error)}){so}."
            ) from None


def _opened(path: Path, mode: Literal["rb", "wb"]) -> BinaryIO:
    """A file on somebody else's share, which may hold anything: no link is followed out of it and no pipe waited for.

    Raises OSError.
    """
    flags = os.O_RDONLY if mode == "rb" else os.O_WRONLY | os.O_CREAT
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or (mode == "wb" and status.st_nlink > 1):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{path.name} is no file of its own")
    if mode == "wb":
        os.ftruncate(descriptor, 0)
    return os.fdopen(descriptor, mode)


def _write(path: Path, content: bytes) -> None:
    with _opened(path, "wb") as file:
        _share(path)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _share(path: Path) -> None:
    """Give it to whoever may use the folder that it lies in: the robot has an account of its own, and mkiso's umask
    keeps others out.
    """
    with suppress(OSError):  # a share that has no such modes
        path.chmod(path.parent.stat().st_mode & (0o777 if path.is_dir() else 0o666))

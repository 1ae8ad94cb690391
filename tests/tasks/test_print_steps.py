"""The steps around a print: what is said of one that broke off, what is audited, and what a cancelled one leaves."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.context import FlowRunContext

import flows.print
import tasks.cleaning as cleaning
import tasks.job_run as job_run
import tasks.order as order_steps
from mkiso.archive import delivery
from mkiso.audit import messages as audit
from mkiso.config.file import load
from mkiso.config.publishers import Robot
from mkiso.config.settings import Settings
from mkiso.errors import (
    MkisoError,
    PrintUncertain,
    ProofFailed,
    PublisherRefused,
    PublisherUnavailable,
    StorageFull,
    TooLargeForMedium,
    Unforeseen,
)
from mkiso.formats.proven_set import ProvenSet, manifests_of, prove, write_set
from mkiso.formats.registry import ISO
from mkiso.media import disc_set
from mkiso.media.disc_set import lay_out_set
from mkiso.media.layout import lay_out
from mkiso.publishers import Order, Receipt, desk, publisher_of
from mkiso.publishers.epson import EpsonPublisher
from mkiso.publishers.orderbook import OrderBook, decide
from mkiso.publishers.orders import cancel_orders
from mkiso.publishers.protocol import Watch
from mkiso.storage.files import sha256_of
from mkiso.storage.job import Job
from mkiso.storage.report import LOOK_FIRST, JobReport, read_report, write_report
from mkiso.study.models import Arrival, Patient, Volume
from mkiso.study.selection import EVERYTHING, Selection
from peers.corpus import make_study
from peers.small_disk import fill, small_disk
from tasks.job_run import JobRun
from tasks.step import step
from tests.media.discs import CREATED, instances, passed
from tests.publishers.orders import give

JOB = "0b0a1b2c-0000-4000-8000-000000000001"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A folder robot that nobody serves, and a relay."""
    (tmp_path / "robot").mkdir()
    publishers = {"rimage": {}, "robot": {"kind": "folder", "directory": str(tmp_path / "robot")}}
    (tmp_path / "data").mkdir()
    storage = {"data_dir": str(tmp_path / "data"), "min_free_gib": 0}
    sections = {"storage": storage, "publishers": publishers, "audit": {"enabled": True}}
    (tmp_path / "config.yaml").write_text(json.dumps(sections))  # JSON is YAML
    monkeypatch.setenv("MKISO_CONFIG", str(tmp_path / "config.yaml"))
    return load()


@pytest.fixture
def begin(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., JobRun]:
    told: dict[str, Any] = {"flow_run": SimpleNamespace(id=JOB)}
    context = FlowRunContext.model_construct(**told)
    monkeypatch.setattr(job_run, "get_run_context", lambda: context)
    monkeypatch.setattr(job_run, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(JobRun, "is_retry", lambda run: False)
    return lambda kind="print", publisher="robot": JobRun(kind, ["A1"], publisher)


def words_of(run: JobRun, fault: BaseException) -> str:
    """What the report says of a run that ended with this."""
    with suppress(KeyboardInterrupt), run:
        raise fault
    return str(read_report(run.job.settings.storage, JOB).error["error"])


@pytest.mark.parametrize("fault", [ValueError("x"), KeyboardInterrupt()])
def test_a_print_that_broke_off_may_be_ordered_and_nobody_is_told_to_ask_again(
    begin: Callable[..., JobRun], fault: BaseException
) -> None:
    run = begin()
    assert LOOK_FIRST in str(run.state.message)  # of a process that is killed
    words = words_of(run, fault)
    assert LOOK_FIRST in words
    assert "No disc was made" not in words and "Ask again" not in words
    assert LOOK_FIRST not in words_of(begin("download", ""), fault)


@pytest.mark.parametrize(("fault", "kind"), [(OSError(errno.ENOSPC, "full"), StorageFull), (KeyError("x"), Unforeseen)])
def test_a_step_of_a_print_never_says_that_no_disc_was_made(
    settings: Settings, fault: Exception, kind: type[MkisoError]
) -> None:
    @step("Fail")
    def fail(run: Any) -> None:
        raise fault

    for job, said in ((Job(JOB, "print", settings), LOOK_FIRST), (Job(JOB, "download", settings), "No disc was made.")):
        with pytest.raises(kind) as raised:
            fail.fn(SimpleNamespace(job=job))
        assert raised.value.words.endswith(said)
        assert (LOOK_FIRST in raised.value.words) == (job.kind == "print")


def test_an_unknown_publisher_ends_a_print_before_the_pacs_is_asked(
    begin: Callable[..., JobRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.print, "write_down", order_steps.write_down.fn)
    asked: list[JobRun] = []
    monkeypatch.setattr(flows.print, "find", lambda run, _: asked.append(run))
    monkeypatch.setattr(flows.print, "retrieve", lambda run, _: asked.append(run))
    state = flows.print.print_disc.fn(["A1"], "nobody")
    assert state.is_failed() and "nobody" in str(state.message)
    assert asked == []


def test_a_print_that_the_site_does_not_allow_leaves_no_page_in_the_order_book(
    begin: Callable[..., JobRun], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = settings.model_copy(update={"disc": settings.disc.model_copy(update={"encryption": "required"})})
    monkeypatch.setattr(job_run, "in_force", lambda: locked)
    monkeypatch.setattr(flows.print, "write_down", order_steps.write_down.fn)
    state = flows.print.print_disc.fn(["A1"], "robot")
    assert state.is_failed() and "encryption_required" in str(state.message)
    assert not settings.storage.orders_dir.exists()


def proved(folder: Path) -> ProvenSet:
    """A set of one disc whose image was read back."""
    studies = passed(instances(make_study(folder / "in", "A1")))
    laid_out = lay_out_set(studies, Settings(), folder / "disc", created=CREATED, medium="cd")
    return prove(write_set(laid_out, ISO, [folder / "disc1.iso"]))


def test_an_order_carries_what_was_proved_of_its_image(
    begin: Callable[..., JobRun], settings: Settings, tmp_path: Path
) -> None:
    proven = proved(tmp_path)
    [order] = order_steps.orders_of_images.fn(begin(), publisher_of("robot", settings), proven)
    assert (order.image_sha256, order.image) == (sha256_of(tmp_path / "disc1.iso"), tmp_path / "disc1.iso")
    assert {arrival.sop_instance_uid for arrival in order.instances} == {
        each.arrival.sop_instance_uid for each in proven.studies[0].instances
    }


def test_orders_of_a_set_know_of_the_whole_set(
    begin: Callable[..., JobRun], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = passed(instances(make_study(tmp_path / "in", "A1")))
    half = len(studies.instances) // 2
    tried: list[tuple[Any, ...]] = []

    def too_large_at_first(*values: Any, **named: Any) -> Any:
        tried.append(values)
        if len(tried) == 1:
            raise TooLargeForMedium("too large")
        return lay_out(*values, **named)

    monkeypatch.setattr(disc_set, "lay_out", too_large_at_first)
    monkeypatch.setattr(disc_set, "span", lambda all_, *_: (tuple(all_)[:half], tuple(all_)[half:]))
    laid = lay_out_set(studies, Settings(), tmp_path / "disc", created=CREATED, medium="cd")
    proven = prove(write_set(laid, ISO, [tmp_path / "disc1.iso", tmp_path / "disc2.iso"]))
    first, second = order_steps.orders_of_images.fn(begin(), publisher_of("robot", settings), proven)
    assert first.of_set == second.of_set and len(first.of_set) == len(studies.instances) > len(first.instances) > 0
    ids = [manifest.set_id for manifest in manifests_of(proven, JOB, settings)]
    assert len(ids) == 2 and len(set(ids)) == 1


def test_who_is_told_of_a_disc_that_fails_is_told_of_those_of_its_set_before_it(
    begin: Callable[..., JobRun], settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proven, publisher = proved(tmp_path), publisher_of("robot", settings)
    fault = PublisherUnavailable("robot's folder can't be used; nothing was printed.")
    full = OSError(errno.ENOSPC, "No space left on device")
    first = Receipt("robot", "1", "queued", 1, "given")
    given: list[Receipt | Exception] = [first, fault, fault, first, full, full]

    def gives(*_: object) -> Receipt:
        outcome = given.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(order_steps, "give", gives)
    [order] = order_steps.orders_of_images.fn(begin(), publisher, proven)
    for error, words in ((PrintUncertain, "has 1 of the 2 discs of this set"), (PublisherUnavailable, "nothing")):
        with pytest.raises(error, match=words):
            order_steps.give_orders.fn(begin(), publisher, proven.studies[0], [order, order])
    for proves in ("queued", ""):  # our own disk is full: the page says to look at the robot first
        with pytest.raises(StorageFull):
            order_steps.give_orders.fn(run := begin(), publisher, proven.studies[0], [order, order])
        assert run.report.proves == proves


@pytest.mark.parametrize(("full_after", "proves"), [("the ticket", "queued"), ("the question", "")])
def test_who_asks_is_told_to_look_first_where_the_order_book_has_no_room(
    begin: Callable[..., JobRun],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    full_after: str,
    proves: str,
) -> None:
    """The robot has it, and the order book can't say so; before, a program was told to come back for the disc."""
    proven, publisher = proved(tmp_path), publisher_of("robot", settings)
    place = publisher.place

    def places(*values: Any) -> Receipt:
        receipt = place(*values)
        fill(disk)
        return receipt

    with small_disk(settings.storage.data_dir, "size=1m") as disk:
        [order] = order_steps.orders_of_images.fn(run := begin(), publisher, proven)
        OrderBook.of(settings.storage.orders_dir, order.questions).ask(JOB)
        if full_after == "the question":
            fill(disk)
        monkeypatch.setattr(publisher, "place", places)
        with pytest.raises(StorageFull):
            order_steps.give_orders.fn(run, publisher, proven.studies[0], [order])
        assert run.report.proves == proves
        assert len(list((tmp_path / "robot").glob("*.JSON"))) == bool(proves)


def exports(settings: Settings) -> list[str]:
    """How each Export of the audit ended (PS3.15 A.5.3.4)."""
    trail = settings.storage.data_dir / "audit.xml"
    lines = trail.read_text().splitlines() if trail.exists() else []
    return [line.split('EventOutcomeIndicator="')[1][0] for line in lines if 'csd-code="110106"' in line]


def test_an_export_is_told_once_before_it_begins(
    begin: Callable[..., JobRun], settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, proven, publisher = begin(), proved(tmp_path), publisher_of("robot", settings)
    orders = order_steps.orders_of_images.fn(run, publisher, proven)
    OrderBook.of(settings.storage.orders_dir, orders[0].questions).ask(JOB)
    copying = shutil.copyfileobj

    def copies(*arguments: Any) -> None:
        assert exports(settings) == ["0"]
        copying(*arguments)

    monkeypatch.setattr(shutil, "copyfileobj", copies)
    for _ in range(2):
        order_steps.give_orders.fn(run, publisher, proven.studies[0], orders)
        assert exports(settings) == ["0"]


def test_a_transfer_that_breaks_off_is_told_as_a_failed_export(
    begin: Callable[..., JobRun], settings: Settings, tmp_path: Path
) -> None:
    run, proven, publisher = begin(), proved(tmp_path), publisher_of("robot", settings)
    [order] = order_steps.orders_of_images.fn(run, publisher, proven)
    OrderBook.of(settings.storage.orders_dir, order.questions).ask(JOB)
    (tmp_path / "robot").rmdir()
    with pytest.raises(PublisherUnavailable):
        order_steps.give_orders.fn(run, publisher, proven.studies[0], [order])
    assert exports(settings) == []  # nothing has left
    (tmp_path / "robot").mkdir()
    with pytest.raises(ProofFailed):
        order_steps.give_orders.fn(run, publisher, proven.studies[0], [replace(order, image_sha256="0")])
    assert exports(settings) == ["0", "8"]


def test_an_audit_that_fails_fails_no_print(
    begin: Callable[..., JobRun],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    def exported(*_: object, **__: object) -> None:
        raise ValueError("Port out of range")

    monkeypatch.setattr(audit, "exported", exported)
    run, proven, publisher = begin(), proved(tmp_path), publisher_of("robot", settings)
    orders = order_steps.orders_of_images.fn(run, publisher, proven)
    OrderBook.of(settings.storage.orders_dir, orders[0].questions).ask(JOB)
    order_steps.give_orders.fn(run, publisher, proven.studies[0], orders)
    assert run.report.proves == "queued"
    assert "audit message" in caplog.text


def test_a_label_in_other_letters_is_told_before_the_order(
    begin: Callable[..., JobRun], settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    western = Robot(kind="epson", directory=tmp_path / "robot", label_template="label.tdd")
    run, told, proven = begin(), [], proved(tmp_path)

    def given(*_: object) -> Receipt:
        told.append(run.report.degraded)
        return Receipt("robot", "1", "queued", 1, "given")

    monkeypatch.setattr(order_steps, "give", given)
    publisher = EpsonPublisher("robot", western)
    orders = order_steps.orders_of_images.fn(run, publisher, proven)
    russian = [replace(order, patient=Patient("HN-5", "Иванова^Ольга")) for order in orders]
    for each in (orders, russian):
        order_steps.give_orders.fn(run, publisher, proven.studies[0], each)
    assert told == [(), ("label_letters",)]
    assert read_report(settings.storage, JOB).degraded == ("label_letters",)


def test_what_was_ordered_before_an_upgrade_is_known_when_the_same_is_asked(
    begin: Callable[..., JobRun], settings: Settings
) -> None:
    orders_dir = settings.storage.orders_dir
    orders_dir.mkdir(parents=True)
    question = b"robot\nA1"
    former = orders_dir / f"{hashlib.sha256(question).hexdigest()[:32]}.json"
    former.write_text('[{"job_id": "before", "volume": 1, "attempt": 1, "state": "uncertain", "time": 1.0}]')
    order_steps.write_down.fn(begin(), ("A1",), False, -1)
    [page] = OrderBook.of(orders_dir, ["A1"]).pages()
    assert [(entry.job_id, entry.state) for entry in page] == [("before", "uncertain"), (JOB, "asked")]
    assert not former.exists()


def test_no_disc_of_a_new_set_is_made_beside_one_of_the_set_before(
    begin: Callable[..., JobRun], settings: Settings, tmp_path: Path
) -> None:
    """The robot has spoilt disc 1 of 2; disc 2 lies there, and the study has grown when the run is retried."""
    run, publisher, studies = begin(), publisher_of("robot", settings), proved(tmp_path).studies[0]
    OrderBook.of(settings.storage.orders_dir, ["A1"]).ask(JOB)
    image = tmp_path / "disc1.iso"
    arrivals = [each.arrival for each in studies.instances]

    def orders(*discs: list[Arrival]) -> list[Order]:
        return [
            Order(
                JOB,
                studies.patient,
                ("A1",),
                tuple(held),
                image,
                volume=Volume(number, len(discs)),
                image_sha256=sha256_of(image),
                of_set=tuple(arrivals_of for disc in discs for arrivals_of in disc),
            )
            for number, held in enumerate(discs, start=1)
        ]

    order_steps.give_orders.fn(run, publisher, studies, orders(arrivals[:1], arrivals[1:2]))
    first, second = sorted((tmp_path / "robot").glob("*.JSON"))
    first.rename(first.with_suffix(".FAILED"))
    second.rename(second.with_suffix(".TAKEN"))
    with pytest.raises(PublisherRefused):
        order_steps.follow_orders.fn(run, publisher, orders(arrivals[:1], arrivals[1:2]))
    for grown in (orders(arrivals[:1], arrivals[1:3]), orders(arrivals[:2])):
        with pytest.raises(PrintUncertain, match="other images"):
            order_steps.give_orders.fn(run, publisher, studies, grown)
        assert not list((tmp_path / "robot").glob("*.JSON"))
    order_steps.give_orders.fn(run, publisher, studies, orders(arrivals[:1], arrivals[1:2]))
    assert len(list((tmp_path / "robot").glob("*.JSON"))) == 1


def cancelled(accession_numbers: list[str], publisher: str = "robot") -> Any:
    return SimpleNamespace(id=JOB, parameters={"accession_numbers": accession_numbers, "publisher": publisher})


def given_order(settings: Settings, folder: Path) -> None:
    image = folder / "disc.iso"
    image.write_bytes(b"an image")
    order = Order(JOB, Patient("HN-1"), ("A1",), image=image, image_sha256=sha256_of(image))
    give(publisher_of("robot", settings), order, settings.storage.orders_dir, Watch())


@pytest.fixture
def job_folder(settings: Settings) -> Path:
    job = Job(JOB, "print", settings)
    job.open()
    write_report(settings.storage, JobReport(JOB, "print", ("A1",)))
    return job.folder


def test_a_cancelled_print_is_found_under_the_numbers_as_the_flow_reads_them(
    settings: Settings, job_folder: Path, tmp_path: Path
) -> None:
    given_order(settings, tmp_path)
    cleaning.drop_cancelled_print(None, cancelled([" A1 ", "A1"]), None)  # type: ignore[arg-type]
    assert [file.suffix for file in (tmp_path / "robot").glob("*.CANCEL")] == [".CANCEL"]
    assert not job_folder.exists()


@pytest.mark.parametrize("fault", [PublisherUnavailable("gone"), RuntimeError("unforeseen")])
def test_a_publisher_that_is_gone_does_not_keep_the_images_of_a_cancelled_print(
    settings: Settings, job_folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def gone(*_: object) -> list[str]:
        raise fault

    monkeypatch.setattr(cleaning, "cancel_orders", gone)
    with suppress(RuntimeError):
        cleaning.drop_cancelled_print(None, cancelled(["A1"]), None)  # type: ignore[arg-type]
    assert not job_folder.exists()
    assert read_report(settings.storage, JOB).error["code"] == "job_cancelled"


@pytest.mark.parametrize(("numbers", "publisher"), [(["A1"], "nobody"), (["A*1"], "robot")])
def test_a_cancelled_print_that_could_never_be_is_cleared_away_too(
    settings: Settings, job_folder: Path, numbers: list[str], publisher: str
) -> None:
    cleaning.drop_cancelled_print(None, cancelled(numbers, publisher), None)  # type: ignore[arg-type]
    assert not job_folder.exists()


@pytest.mark.parametrize("told", [(), ("A2",)])
def test_an_order_of_what_was_sent_is_taken_back_whatever_number_it_has(
    settings: Settings, job_folder: Path, tmp_path: Path, told: tuple[str, ...]
) -> None:
    """The PACS has another accession number of it than the images, or none."""
    image = tmp_path / "disc.iso"
    image.write_bytes(b"an image")
    order = Order(JOB, Patient("HN-1"), told, image=image, image_sha256=sha256_of(image), question=(*told, "1.2.3"))
    OrderBook.of(settings.storage.orders_dir, order.questions).ask(JOB)
    desk.give(publisher_of("robot", settings), order, settings.storage.orders_dir, Watch())
    parameters = {"accession_numbers": ["A1"], "study_instance_uid": "1.2.3", "inbox": "BURN"}
    cleaning.drop_cancelled_burn(None, SimpleNamespace(id=JOB, parameters=parameters), None)  # type: ignore[arg-type]
    assert [file.suffix for file in (tmp_path / "robot").glob("*.CANCEL")] == [".CANCEL"]


def test_a_print_by_number_and_one_by_uid_know_of_each_other(
    begin: Callable[..., JobRun], settings: Settings, tmp_path: Path
) -> None:
    """Each is written on the pages of what it was asked by, and of what the PACS has told."""
    complete = proved(tmp_path).studies[0]
    found = complete.retrieved.found
    [study] = found.studies
    uid, publisher = study.study_instance_uid, publisher_of("robot", settings)
    by_number = begin()
    order_steps.write_down.fn(by_number, ("A1",), False, -1)
    by_uid = begin()
    chosen = Selection((uid,))
    by_uid.job, by_uid.report = Job("by uid", "print", settings), replace(by_uid.report, selection=chosen)
    order_steps.write_down.fn(by_uid, (), False, -1)
    order_steps.write_down_found.fn(by_uid, replace(found, accession_numbers=(), selection=chosen), False, -1)
    order_steps.write_down_found.fn(by_number, found, False, -1)
    [order] = order_steps.orders_of_studies.fn(by_number, publisher, complete)
    assert order.questions == ("A1", uid)
    book = OrderBook.of(settings.storage.orders_dir, order.questions)
    assert decide(book.pages(), "by uid", 1, "robot") == "give"
    book.begin(book.open(JOB, 1, "robot"))
    with pytest.raises(PrintUncertain, match="newer request"):
        decide(book.pages(), "by uid", 1, "robot")


def test_an_order_that_cannot_be_taken_back_keeps_none_of_the_others(
    settings: Settings, job_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(JOB, "print", settings)
    assert cancel_orders(job, ("A1",), EVERYTHING) == []  # nothing was ordered
    given_order(settings, tmp_path)
    book = OrderBook.of(settings.storage.orders_dir, ["A1"])
    for volume, publisher in ((0, "nobody"), (2, "rimage"), (3, "nobody")):
        book.begin(book.open(JOB, volume, publisher))
    caplog.set_level(logging.INFO, "mkiso.cleaning")
    cleaning.drop_cancelled_print(None, cancelled(["A1"]), None)  # type: ignore[arg-type]
    assert [file.suffix for file in (tmp_path / "robot").glob("*.CANCEL")] == [".CANCEL"]
    told = [(each.levelname, each.getMessage()) for each in caplog.records if each.name == "mkiso.cleaning"]
    gone, dropped = "There is no publisher 'nobody'", "was withdrawn, or asked to be dropped."
    for (level, words), (its_level, what, why) in zip(
        told,
        (
            ("WARNING", "the order of disc 0 at nobody is left", gone),
            ("INFO", "the order of disc 1 at robot", dropped),
            ("WARNING", "the order of disc 2 at rimage is left", "can't be asked to drop one."),
            ("WARNING", "the order of disc 3 at nobody is left", gone),
        ),
        strict=True,
    ):
        assert level == its_level and f"was cancelled: {what}" in words and why in words


def test_an_archive_volume_whose_copy_was_not_the_image_waits_for_the_next_night(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    def order(*_: object) -> None:
        raise ProofFailed("The image's copy is not what was proved.")

    monkeypatch.setattr(delivery, "_order", order)
    night = SimpleNamespace(advance=lambda label, state: told.append((label, state)))
    run = SimpleNamespace(
        job=Job(JOB, "archive", settings),
        night=night,
        undelivered=lambda volume, error: told.append(error.code),
        is_short_of_room=False,
    )
    volume = SimpleNamespace(label="V1", output="robot", state="mastered", for_store=False)
    delivery.deliver(run, volume)  # type: ignore[arg-type]
    assert told == [("V1", "mastered"), "proof_failed"]

"""What an inbox's job writes down before it orders."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mkiso.config.settings import Storage
from mkiso.errors import PrintUncertain
from mkiso.publishers.orderbook import OrderBook, decide
from mkiso.receiver.pushed import PushedStudy
from tasks.inbox import InboxRun, write_down_sent


def test_what_is_printed_at_the_counter_meanwhile_is_not_printed_by_a_retry(tmp_path: Path) -> None:
    storage = Storage(data_dir=tmp_path)
    run = cast(
        InboxRun,
        SimpleNamespace(
            job=SimpleNamespace(id="sent"),
            settings=SimpleNamespace(storage=storage),
            place=PushedStudy(storage, "BURN", "1.2.3"),
            study_instance_uid="1.2.3",
        ),
    )
    write_down_sent.fn(run, ("A1",))  # and then the PACS doesn't have it yet
    book = OrderBook.of(storage.orders_dir, ("A1",))
    book.ask("clerk")
    order = book.open("clerk", 0, "robot")
    book.begin(order)
    book.settle(order, "done")
    write_down_sent.fn(run, ("A1",))  # the retry, once the PACS has it
    with pytest.raises(PrintUncertain, match="since this one was asked for"):
        decide(book.pages(), "sent", 0, "robot")

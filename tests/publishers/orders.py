"""Orders for tests: a mixed study in a job's folder, as the receiver leaves it, and publishers configured in
one line.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydicom import dcmread

from mkiso.config.publishers import KINDS, CStore
from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso.publishers import Order, OrderBook, Publisher, Receipt, Watch
from mkiso.publishers import give as give_order
from mkiso.storage.files import sha256_of
from mkiso.study.models import Arrival, Patient
from peers.corpus import make_study

MIXED = {"ct": 3, "sr": 1, "pr": 1, "pdf": 1, "jpeg_2000": 1}
PATIENT = Patient("HN-0001", "Example^Anna", "19700102", "F")


def arrival_of(file: Path) -> Arrival:
    header = dcmread(file, stop_before_pixels=True)
    meta = header.file_meta
    return Arrival(
        str(header.SOPInstanceUID),
        str(header.SOPClassUID),
        str(meta.TransferSyntaxUID),
        str(header.StudyInstanceUID),
        file,
        file.stat().st_size,
        sha256_of(file),
    )


def study(folder: Path, kinds: Mapping[str, int] = MIXED, accession_number: str = "A1001") -> tuple[Arrival, ...]:
    """A study as it lies in a job's folder."""
    made = make_study(folder / "made", accession_number, kinds=kinds)
    instances = folder / "job" / "instances"
    instances.mkdir(parents=True, exist_ok=True)
    return tuple(arrival_of(Path(shutil.move(file, instances / file.name))) for file in made)


def settings_of(folder: Path, **publisher: Any) -> Settings:
    """One publisher called `robot`; short limits, no settling unless asked for."""
    short = {"settle_seconds": 0, "connect_timeout_seconds": 60, "response_timeout_seconds": 60, "attempts": 2}
    kind = KINDS[publisher.get("kind", "cstore")]
    given = {key: value for key, value in short.items() if key in kind.model_fields and key not in publisher}
    data_dir = folder / "data"
    data_dir.mkdir(parents=True, exist_ok=True)
    return Settings(
        storage=Storage(data_dir=data_dir),
        publishers={"rimage": CStore(), "robot": kind(**given, **publisher)},
    )


def order_of(
    instances: tuple[Arrival, ...] = (), job_id: str = "0b0a1b2c-0000-4000-8000-000000000001", **values: Any
) -> Order:
    accession_numbers = values.pop("accession_numbers", ("A1001",))
    if "image" in values:
        values.setdefault("image_sha256", sha256_of(values["image"]))
    return Order(job_id, PATIENT, accession_numbers, instances, **values)


def give(
    publisher: Publisher, order: Order, orders_dir: Path, watch: Watch, *, confirm_reprint: bool = False
) -> Receipt:
    """An attempt of a print: its question is written down, which counts for the first one, and its order given."""
    OrderBook.of(orders_dir, order.accession_numbers).ask(order.job_id, confirmed=confirm_reprint)
    return give_order(publisher, order, orders_dir, watch)

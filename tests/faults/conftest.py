"""The house of all scenarios, and what must hold after each of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mkiso.config.file import load
from mkiso_service.checks.registry import checks_of
from peers.house import House, open_house
from peers.patience import until
from peers.standing import Standing

POOLS = {"receiver": 0, "worker": 6, "webhook": 6}
"""Threads and connections that the event loops' pools may still make after the first jobs; a leak grows past them with
the scenarios. The webhook's health has a thread for each of its checks besides, made when they are asked at once.
"""


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    with open_house(folder, warm=True) as opened:
        for number in range(3):  # threads and connections that stay are made by the first jobs
            opened.disc("GOOD1", folder / f"warm {number}")
        opened.warm = opened.standing()
        yield opened


@pytest.fixture
def the_next_job_passes_and_nothing_is_left(house: House, tmp_path: Path) -> Iterator[None]:
    """After each scenario: the network is whole again, the next job makes its disc, and threads, descriptors and ports
    are back.
    """
    yield
    house.link.mend()
    house.back.mend()
    house.back.target = house.service.receiver_port
    house.patient_api.script = house.patient_api.knows_nobody
    house.ask_of("orthanc")
    house.disc("GOOD1", tmp_path / "next job")

    # Not by asking for health: it is answered from what was found before for some seconds, and the next scenario may
    # count what its own question brings.
    checks = len(checks_of(load(house.service.configuration)))
    pools = POOLS | {"webhook": POOLS["webhook"] + checks}

    def left() -> dict[str, tuple[Standing, Standing]]:
        return {
            name: (house.warm[name], now)
            for name, now in house.standing().items()
            if not now.is_within(house.warm[name], pools[name])
        }

    until(lambda: not left(), pause=0.1, told=lambda: f"; something of it was left (at first, now): {left()}")

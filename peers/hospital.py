"""The service and its PACS together, for tests that ask over HTTP as a clerk's browser does. Fixtures;
tests/conftest.py makes them known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from peers.dcmqrscp import Dcmqrscp
from peers.link import Link
from peers.orthanc import Orthanc
from peers.ports import free_port
from peers.service import AE_TITLE, Service

Sections = Mapping[str, Mapping[str, Any]]


@dataclass
class Hospital:
    """A PACS and the mkiso that asks it; `back` leads from the PACS to the receiver."""

    service: Service
    pacs: Dcmqrscp | Orthanc
    back: Link


Open = Callable[..., Hospital]


@pytest.fixture(scope="module")
def open_hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """`open_hospital("orthanc" | "dcmqrscp", files, sections, warm, linked, **options of the PACS)`; everything is
    ended with the module. `linked`: images come by `Hospital.back`.
    """
    with ExitStack() as stack:

        def opened(
            kind: str,
            files: Iterable[Path],
            sections: Sections | None = None,
            warm: bool = True,
            linked: bool = False,
            **options: Any,
        ) -> Hospital:
            folder, receiver_port = tmp_path_factory.mktemp(kind), free_port()
            back = stack.enter_context(Link(receiver_port))
            destinations = {AE_TITLE: ("127.0.0.1", back.port if linked else receiver_port)}
            if kind == "orthanc":
                pacs: Dcmqrscp | Orthanc = stack.enter_context(
                    Orthanc(folder / "pacs", destinations=destinations, **options)
                )
                assert isinstance(pacs, Orthanc)
                pacs.store(files)
            else:
                pacs = stack.enter_context(Dcmqrscp(folder / "pacs", files, destinations=destinations, **options))
            asked = (pacs.ae_title, pacs.port)
            service = Service(folder / "mkiso", asked, sections, receiver_port=receiver_port, warm=warm)
            return Hospital(stack.enter_context(service), pacs, back)

        yield opened

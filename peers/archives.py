"""An archive under test: runs of it, and what lies in its store, read by tools that mkiso doesn't use."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from pydicom import dcmread

from mkiso_service.prefect.environment import NIGHTLY_ARCHIVE
from peers.corpus import dataset_bytes
from peers.discs import extract, instances_on
from peers.nursery import nursery
from peers.patience import LONG
from peers.service import Service


def start(service: Service, **parameters: Any) -> str:
    """Start a run as the Prefect UI does; its id."""
    deployment = service.prefect.get(f"/deployments/name/{NIGHTLY_ARCHIVE}").raise_for_status().json()
    wanted = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    run = (
        service.prefect.post(f"/deployments/{deployment['id']}/create_flow_run", json=wanted).raise_for_status().json()
    )
    return str(run["id"])


def archive(service: Service, seconds: float = 5 * LONG, **parameters: Any) -> dict[str, Any]:
    """Start a run and wait for its end."""
    return service.run_ended(start(service, **parameters), seconds)


def mkiso_archive(service: Service, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`mkiso archive …` under the service's configuration."""
    environment = {**os.environ, "MKISO_CONFIG": str(service.configuration)}
    return nursery.run(["archive", *map(str, arguments)], environment, LONG)


def images(store: Path) -> list[Path]:
    """The volumes of a store in the order of their labels."""
    return sorted(store.glob("*/*.iso"))


def contents(volumes: Iterable[Path], folder: Path) -> dict[str, Path]:
    """Maps each SOP Instance UID on these volumes to its file; none is there twice."""
    found: dict[str, Path] = {}
    for image in volumes:
        target = folder / image.stem
        here = instances_on(target if target.exists() else extract(image, target))
        assert not here.keys() & found.keys()
        found |= here
    return found


def assert_holds(found: dict[str, Path], sources: Collection[Path]) -> None:
    """Exactly these instances, byte for byte."""
    expected = {str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID): file for file in sources}
    assert found.keys() == expected.keys()
    for uid, file in found.items():
        assert dataset_bytes(file) == dataset_bytes(expected[uid]), f"{uid} differs from its source"

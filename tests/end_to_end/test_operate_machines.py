"""Two working machines, each in a network, host and process namespace of its own, one Prefect server on PostgreSQL, and
the loss of one of them.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from mkiso.formats.disc_check import verify_disc
from peers.corpus import make_ct_series, ramp
from peers.nursery import nursery
from peers.orthanc import Orthanc
from peers.patience import LONG, until
from peers.ports import free_port
from peers.postgresql import BIN, running_postgresql
from peers.process import Process
from peers.warm import Warm

pytestmark = [pytest.mark.end_to_end, pytest.mark.peer]

PASSWORD = ("mkiso", "password-of-all-machines")
JOBS = 20
SLICES = 30


def _namespaces_work() -> bool:
    name = f"mkprobe{random.randint(0, 9999)}"
    if os.getuid() != 0 or subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return False
    subprocess.run(["ip", "netns", "del", name], check=True)
    return True


@contextmanager
def network(machines: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A bridge and namespaces on it: the bridge's address, and (namespace, address) of each machine."""
    number = random.randint(1, 250)
    bridge, subnet = f"mkbr{number}", f"10.213.{number}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    with ExitStack() as stack:
        ip("link", "add", bridge, "type", "bridge")
        stack.callback(ip, "link", "del", bridge)
        ip("addr", "add", f"{subnet}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        made = []
        for index in range(machines):
            name, address = f"mkns{number}x{index}", f"{subnet}.{index + 2}"
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("link", "add", f"mkv{number}x{index}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"mkv{number}x{index}", "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            made.append((name, address))
        yield f"{subnet}.1", made


class Machine(Process):
    """`mkiso serve` in a namespace, under a host name of its own; killing it is a power cut: everything in it is gone
    at once.
    """

    def __init__(self, namespace: str, name: str, configuration: Path):
        inside = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        run = ["sh", "-c", f"hostname {name} && exec {sys.executable} -P -m mkiso_service serve"]
        log = configuration.with_suffix(".log")
        super().__init__(
            ["ip", "netns", "exec", namespace, *inside, *run], log, environment={"MKISO_CONFIG": str(configuration)}
        )


def when(wanted: Callable[[], Any], *processes: Process, seconds: float = LONG) -> Any:
    """As `until`; an API that isn't there yet is asked again."""

    def found() -> Any:
        with suppress(httpx.TransportError):
            return wanted()

    def logs() -> str:
        return "\n".join(f"{process.log_file.name} ends:\n{process.log()[-3000:]}" for process in processes)

    return until(found, seconds, pause=0.2, told=logs)


@pytest.mark.skipif(not (BIN / "initdb").exists(), reason="PostgreSQL isn't installed")
def test_twenty_jobs_end_well_though_one_of_two_machines_is_lost(tmp_path: Path) -> None:
    if not _namespaces_work():
        pytest.skip("network namespaces can't be made here (it takes root and CAP_NET_ADMIN)")
    names = [f"TWO{number:02}" for number in range(JOBS)]
    studies = [make_ct_series(tmp_path / "studies" / name, name, SLICES, size=256, pixels=ramp(256)) for name in names]
    api_port, web_port, receiver_port = free_port(), free_port(), free_port()
    with ExitStack() as stack:
        front, machines = stack.enter_context(network(2))
        pacs = stack.enter_context(Orthanc(tmp_path / "pacs", verbose=False))
        pacs.store([file for study in studies for file in study])
        database = (
            stack.enter_context(running_postgresql())
            .database("prefect")
            .replace("postgresql://", "postgresql+asyncpg://")
        )

        (tmp_path / "shared").mkdir()

        def configure(name: str, ae_title: str) -> Path:
            pacs_section = {
                "ae_title": pacs.ae_title,
                "host": front,
                "port": pacs.port,
                "connect_timeout_seconds": 60,  # while it is paused, jobs wait
                "quiet_timeout_seconds": 30,
            }
            configuration = {
                "server": {"port": web_port, "max_running_jobs": 2, "shutdown_grace_seconds": 2},
                "pacs": pacs_section,
                "receiver": {"ae_title": ae_title, "port": receiver_port},
                "storage": {"data_dir": name, "shared_dir": "shared", "min_free_gib": 0},
                "disc": {"pictures": "none"},
                "publishers": {},  # else health reports the default one, which doesn't exist here
                "prefect": {"api_url": f"http://{front}:{api_port}/api", "api_auth_string": ":".join(PASSWORD)},
            }
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(configuration))
            return tmp_path / f"{name}.yaml"

        at_front = configure("front", "FRONT")
        environment = {
            "MKISO_CONFIG": str(at_front),
            "PREFECT_SERVER_API_HOST": front,
            "PREFECT_SERVER_API_PORT": str(api_port),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        }
        server = stack.enter_context(Warm(["prefect"], tmp_path / "prefect.log", environment=environment))
        prefect = stack.enter_context(
            httpx.Client(base_url=f"http://{front}:{api_port}/api", timeout=LONG, auth=PASSWORD)
        )
        when(lambda: prefect.get("/health").is_success, server)
        deployed = nursery.run(["deploy"], {**os.environ, **environment}, LONG)
        assert deployed.returncode == 0, deployed.stderr
        webhook = stack.enter_context(
            Warm(["webhook"], tmp_path / "webhook.log", port=web_port, environment=environment)
        )
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{web_port}", timeout=LONG))
        prefect.patch(
            "/work_pools/mkiso", json={"is_paused": True}
        ).raise_for_status()  # the machine that is up first would do most of it alone
        jobs = []
        for name in names:
            answer = http.get(
                "/api/iso/download", params={"accession_number": name}, headers={"Prefer": "respond-async"}
            )
            assert answer.status_code == 202, answer.text
            jobs.append(answer.json()["job_id"])
        workers = []
        for index, (namespace, address) in enumerate(machines):
            pacs.know(f"MKISO{index}", address, receiver_port)
            workers.append(
                stack.enter_context(
                    Machine(namespace, f"machine{index}", configure(f"machine{index}", f"MKISO{index}"))
                )
            )

        def online() -> int:
            found = prefect.post("/work_pools/mkiso/workers/filter", json={}).raise_for_status().json()
            return sum(worker["status"] == "ONLINE" for worker in found)

        def runs() -> list[dict[str, Any]]:
            return list(
                prefect.post("/flow_runs/filter", json={"flow_runs": {"id": {"any_": jobs}}}).raise_for_status().json()
            )

        def working() -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for run in runs():
                if run["state_type"] == "RUNNING" and run["infrastructure_pid"]:
                    found.setdefault(run["infrastructure_pid"].partition("/")[0], []).append(run["id"])
            return found

        def stuck() -> dict[str, list[str]] | None:
            found = working()
            time.sleep(1)
            return found if found.keys() >= {"machine0", "machine1"} and found == working() else None

        when(lambda: online() == len(machines), server, *workers)
        pacs.pause()
        prefect.patch("/work_pools/mkiso", json={"is_paused": False}).raise_for_status()
        when(stuck, server, webhook, *workers)
        pacs.resume()
        time.sleep(0.2)  # into the moves
        pacs.pause()  # so that nothing ends while the machine is lost
        caught = set(when(stuck, server, webhook, *workers)["machine0"])
        workers[0].kill()
        pacs.resume()
        when(
            lambda: all(run["state_type"] in ("COMPLETED", "FAILED", "CRASHED") for run in runs()),
            server,
            workers[1],
            seconds=5 * LONG,
        )
        found = http.get("/api/health").json()
        assert found["degraded"] == ["worker"] and "MKISO0 on " in found["dependencies"]["worker"]["detail"], found
        ended = runs()
        assert Counter(run["state_type"] for run in ended) == {"COMPLETED": JOBS}, [run["state"] for run in ended]
        hosts = {run["id"]: run["infrastructure_pid"].partition("/")[0] for run in ended}
        assert {hosts[job] for job in caught} == {"machine1"}
        for job in jobs:
            disc = tmp_path / "disc.iso"
            answer = http.get(f"/api/iso/jobs/{job}/disc")
            assert answer.status_code == 200, answer.text
            disc.write_bytes(answer.content)
            assert verify_disc(disc)

"""Without all that mkiso relies on in Prefect beside its public API: Prefect's own server and process worker, in whose
interpreters mkiso's worker can't be imported, and deployments from deployments/prefect.yaml. Slower, and a disc all the
same.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml

from peers.corpus import make_study
from peers.dcmqrscp import Dcmqrscp
from peers.discs import assert_holds_exactly, extract
from peers.patience import LONG, until
from peers.ports import free_port
from peers.process import Process
from peers.service import AE_TITLE
from peers.warm import Warm
from tests.webhook.prefect_server import AUTH, PrefectServer

pytestmark = [pytest.mark.end_to_end]

PREFECT = Path(sys.executable).with_name("prefect")
DEPLOYMENTS = Path(__file__).parents[2] / "deployments" / "prefect.yaml"
WITHOUT_OUR_WORKER = "import sys; sys.modules['mkiso_service'] = None\n"


def test_a_disc_is_made_by_prefects_own_server_and_process_worker(tmp_path: Path) -> None:
    files, receiver_port, web_port = make_study(tmp_path / "studies", "STOCK1"), free_port(), free_port()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_OUR_WORKER)
    with ExitStack() as stack:
        pacs = stack.enter_context(
            Dcmqrscp(tmp_path / "pacs", files, destinations={AE_TITLE: ("127.0.0.1", receiver_port)})
        )
        server = stack.enter_context(PrefectServer(tmp_path / "prefect", warm=False))
        sections = {
            "server": {"port": web_port},
            "pacs": {"ae_title": pacs.ae_title, "port": pacs.port},
            "receiver": {"ae_title": AE_TITLE, "host": "127.0.0.1", "port": receiver_port},
            "storage": {"data_dir": str(tmp_path / "data"), "min_free_gib": 0},
            "prefect": {"api_url": server.api_url, "api_auth_string": AUTH},
        }
        configuration = tmp_path / "config.yaml"
        configuration.write_text(yaml.safe_dump(sections))
        mkiso = {"MKISO_CONFIG": str(configuration)}
        stock = {
            **mkiso,
            "PYTHONPATH": str(tmp_path / "site"),
            "PREFECT_HOME": str(tmp_path / "home"),
            "PREFECT_API_URL": server.api_url,
            "PREFECT_API_AUTH_STRING": AUTH,
        }
        for command in (
            ["work-pool", "create", "mkiso", "--type", "process"],
            ["deploy", "--all", "--prefect-file", str(DEPLOYMENTS)],
        ):
            told = subprocess.run(
                [PREFECT, "--no-prompt", *command],
                env={**os.environ, **stock},
                capture_output=True,
                text=True,
                check=False,
            )
            assert told.returncode == 0, told.stdout + told.stderr
        for part, port in (("receiver", receiver_port), ("webhook", web_port)):
            stack.enter_context(Warm([part], tmp_path / f"{part}.log", port=port, environment=mkiso))
        worker = stack.enter_context(
            Process([PREFECT, "worker", "start", "--pool", "mkiso"], tmp_path / "worker.log", environment=stock)
        )
        with httpx.Client(base_url=f"http://127.0.0.1:{web_port}", timeout=4 * LONG) as http:
            asked = {"params": {"accession_number": "STOCK1"}, "headers": {"Prefer": "respond-async"}}
            job = http.get("/api/iso/download", **asked).raise_for_status().json()["job_id"]  # type: ignore[arg-type]
            until(
                lambda: http.get(f"/api/iso/jobs/{job}").json()["state"] in ("done", "failed"),
                3 * LONG,
                pause=0.2,
                told=worker.log,
            )
            image = tmp_path / "disc.iso"
            image.write_bytes(http.get(f"/api/iso/jobs/{job}/disc").raise_for_status().content)
        assert_holds_exactly(extract(image, tmp_path / "extracted"), files)
        assert "mkiso_service" not in worker.log()

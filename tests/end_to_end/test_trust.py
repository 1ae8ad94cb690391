"""Who can have Prefect do what: nobody without the password, no page of another site, and with the password only what
mkiso itself runs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

from tests.end_to_end.conftest import Hospital, Open
from tests.peers.corpus import make_study

pytestmark = [pytest.mark.end_to_end]

WEBSOCKETS = (
    "events/in",
    "events/out",
    "logs/out",
    "task_runs/subscriptions/scheduled",
    "work_pools/mkiso/workers/connect",
)


@pytest.fixture(scope="module")
def hospital(open_hospital: Open, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return open_hospital("dcmqrscp", make_study(tmp_path_factory.mktemp("studies"), "OWN1"))


def address(hospital: Hospital) -> str:
    return f"127.0.0.1:{hospital.service.prefect_port}"


def test_without_the_password_only_health_is_told(hospital: Hospital) -> None:
    with httpx.Client(base_url=f"http://{address(hospital)}/api") as anybody:
        assert anybody.get("/health").status_code == anybody.get("/ready").status_code == 200
        for method, path in (
            ("POST", "/deployments/filter"),
            ("POST", "/flow_runs/filter"),
            ("POST", "/deployments/"),
            ("POST", "/work_pools/"),
            ("GET", "/admin/settings"),
            ("POST", "/admin/database/clear"),
            ("POST", "/admin/database/drop"),
            ("POST", "/events/filter"),
            ("GET", "/docs"),
            ("GET", "/openapi.json"),
            ("POST", "/automations/filter"),
            ("POST", "/health"),
            ("GET", "/variables/name/health"),
        ):
            assert anybody.request(method, path, json={}).status_code == 401, path
        for wrong in ("mkiso:wrong", "mkiso:", ":", hospital.service.prefect_password + "x"):
            user, _, password = wrong.partition(":")
            assert anybody.get("/admin/version", auth=(user, password)).status_code == 401
    assert hospital.service.prefect.get("/admin/version").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:1"}, {"host": "evil.example"},
     {"host": "evil.example:4200", "origin": "http://evil.example:4200"}],
    ids=str,
)  # fmt: skip
def test_a_page_of_another_site_gets_nothing_even_with_the_password(
    hospital: Hospital, headers: dict[str, str]
) -> None:
    service = hospital.service
    for path in ("/admin/version", "/health"):
        answer = service.prefect.get(path, headers=headers)
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers, answer.text
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    preflight = service.prefect.options("/deployments/", headers={**headers, **asked})
    assert not preflight.is_success and "access-control-allow-origin" not in preflight.headers
    for path in WEBSOCKETS:
        own = {"Host": headers["host"]} if "host" in headers else {}
        with pytest.raises(InvalidStatus) as refused:
            connect_to(hospital, path, own, headers.get("origin"))
        assert refused.value.response.status_code == 403, path


def connect_to(
    hospital: Hospital, path: str, headers: dict[str, str] | None = None, origin: Any = None, token: str = ""
) -> str:
    """Open a WebSocket of Prefect's API as a page would, show the password, and what is answered to it. Raises
    WebSocketException.
    """
    url = f"ws://{address(hospital)}/api/{path}"
    named = {name: value for name, value in (headers or {}).items() if name != "Host"}
    if headers and "Host" in headers:
        url = f"ws://{headers['Host'].partition(':')[0]}:{hospital.service.prefect_port}/api/{path}"
        import socket

        line = socket.create_connection(("127.0.0.1", hospital.service.prefect_port))
        with line, connect(url, sock=line, origin=origin, subprotocols=["prefect"], additional_headers=named) as there:  # type: ignore[list-item]
            return str(there.recv(timeout=20))
    with connect(url, origin=origin, subprotocols=["prefect"], additional_headers=named) as there:  # type: ignore[list-item]
        there.send(json.dumps({"type": "auth", "token": token}))
        return str(there.recv(timeout=20))


@pytest.mark.parametrize("path", WEBSOCKETS)
def test_every_websocket_wants_the_password(hospital: Hospital, path: str) -> None:
    with pytest.raises(WebSocketException):
        connect_to(hospital, path, token="mkiso:wrong")
    with pytest.raises(WebSocketException):
        connect_to(hospital, path)
    assert "auth_success" in connect_to(
        hospital, path, token=hospital.service.prefect_password, origin=f"http://{address(hospital)}"
    )


def test_the_password_is_in_no_command_line_no_log_and_no_other_file(hospital: Hospital) -> None:
    service = hospital.service
    assert service.download("OWN1").status_code == 200
    secret = service.prefect_password.partition(":")[2].encode()
    assert secret not in service.log_file.read_bytes()
    for process in (service.pid, *service.processes().values()):
        folder = Path(f"/proc/{process}")
        assert secret not in (folder / "cmdline").read_bytes()
        assert secret not in (folder / "environ").read_bytes()
    holding = [file for file in service.data_dir.rglob("*") if file.is_file() and secret in file.read_bytes()]
    assert holding == [service.data_dir / "prefect" / "password"]
    assert holding[0].stat().st_mode & 0o777 == 0o600 and holding[0].stat().st_uid == os.getuid()
    settings = service.prefect.get("/admin/settings")
    assert settings.is_success and secret not in settings.content


def test_the_ui_is_reached_by_whatever_name_this_machine_has_and_asks_for_the_password(hospital: Hospital) -> None:
    for name in ("127.0.0.1", "localhost"):
        told = httpx.get(f"http://{name}:{hospital.service.prefect_port}/ui-settings").json()
        assert (told["api_url"], told["auth"]) == ("/api", "BASIC")

"""/docs: what a program may ask, for people, made from the description that programs read."""

from __future__ import annotations

import shutil
from html import unescape
from pathlib import Path

import pytest

from mkiso.errors import kinds
from peers.chromium import Chromium
from tests.webhook.desk import Desk, served, settings_in
from tests.webhook.test_page import Clerk


def test_every_address_parameter_and_code_stands_there(tmp_path: Path) -> None:
    with served(settings_in(tmp_path, auth=True), Desk()) as client:
        page = client.get("/docs")
        described = client.get("/api/openapi.json").json()
    assert page.status_code == 200 and "script" not in page.headers["content-security-policy"]
    text = unescape(page.text)
    for path, methods in described["paths"].items():
        assert all(f"{method.upper()} {path}<" in text for method in methods if method in ("get", "post"))
    for parameter in described["components"]["parameters"].values():
        assert f"<code>{parameter['name']}</code>" in text
    assert all(f"<code>{kind.code}</code>" in text for kind in kinds())


@pytest.mark.peer
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@pytest.mark.parametrize("width", [320, 1000])
def test_it_fits_and_asks_nobody_else(tmp_path: Path, width: int) -> None:
    with served(settings_in(tmp_path), Desk()) as client, Chromium(tmp_path / "chromium") as browser:
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        browser.open(f"{client.base_url}/docs")
        assert browser.run("document.title") == "Addresses for programs"
        browser.picture(tmp_path / "docs.png")
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        Clerk(browser, str(client.base_url)).finds_nothing_wrong()
        assert all(address.startswith(str(client.base_url)) for address in browser.asked())

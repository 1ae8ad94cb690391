"""The Prefect UI that an operator sees, in Chromium: nothing comes from outside, and nothing in it is for sale."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from peers.chromium import Chromium
from peers.patience import LONG
from peers.ports import free_port
from peers.warm import Warm
from tests.config.test_config import write

pytestmark = [pytest.mark.peer, pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")]
AUTH = "mkiso:secret-of-a-test"


class Server(Warm):
    """`mkiso prefect` on a free port."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        text = f"prefect: {{server_port: {port}, api_auth_string: '{AUTH}'}}\nstorage: {{min_free_gib: 0}}\n"
        environment = {"MKISO_CONFIG": str(write(folder, text))}
        super().__init__(["prefect"], folder / "server.log", port=port, environment=environment)
        self.url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/health", timeout=10, trust_env=False).is_success
        except httpx.TransportError:
            return False


def test_the_ui_asks_nobody_outside_and_sells_nothing(tmp_path: Path) -> None:
    with Server(tmp_path) as server, Chromium(tmp_path / "chromium") as browser:
        browser.open(server.url)
        browser.until("document.body.innerText.includes('Oops')")  # it hasn't been given the password
        first = browser.run("document.body.innerText")
        assert "Prefect Cloud" not in first, first
        browser.run(f"localStorage.setItem('prefect-password', btoa('{AUTH}'))")
        browser.open(server.url)
        browser.until("location.pathname === '/runs'")
        for page in ("/", "/runs", "/deployments"):
            browser.open(f"{server.url}{page}")
            browser.until("document.body.innerText.trim().length > 20")
            words = browser.run("document.body.innerText")
            assert "Upgrade" not in words and "V2" not in words and "Prefect Cloud" not in words, words
        told = httpx.get(f"{server.url}/ui-settings", trust_env=False, timeout=LONG).json()
        assert (told["available_uis"], told["v2_base_url"]) == (["v1"], None)
        browser.picture(tmp_path / "ui.png")
        hosts = {urlsplit(address).netloc for address in browser.asked() if address.startswith("http")}
    assert hosts == {urlsplit(server.url).netloc}

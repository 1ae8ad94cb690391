"""Chromium without a window, driven over its DevTools protocol: keys as a person types them, the page as a person sees
it.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect


class Chromium:
    """One browser with one page; a context manager that leaves no process behind. `events` holds what the browser told
    unasked.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._options = options
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        self._profile = folder / "profile"
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Chromium:
        command = [
            "chromium",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--remote-debugging-port=0",
        ]
        command += ["--window-size=900,1000", "--disable-background-networking", f"--user-data-dir={self._profile}"]
        command += [*self._options, "about:blank"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            port_file = self._profile / "DevToolsActivePort"
            self._until(lambda: port_file.exists() and len(port_file.read_text().splitlines()) == 2, 30)
            port = port_file.read_text().splitlines()[0]
            pages = httpx.get(f"http://127.0.0.1:{port}/json", trust_env=False).json()
            self._socket = connect(
                next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"),
                max_size=None,
                proxy=None,
            )
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()
        self._end()

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """One command and its answer."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=20))
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of a script in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)["result"].get(
            "value"
        )

    def until(self, script: str, seconds: float = 10) -> None:
        self._until(lambda: self.run(script), seconds)

    def until_ready(self, focused: str) -> None:
        """Until the page's scripts run and the element of this id has the focus, as a person would wait before
        typing.
        """
        self.until(f"document.readyState === 'complete' && document.activeElement.id === {focused!r}")

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        codes = {
            **{"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36},
            **{"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "]": 221},
        }
        common = {
            "key": key,
            "code": "Space" if key == " " else key,
            "windowsVirtualKeyCode": codes.get(key) or ord(key.upper()),
            "modifiers": 8 if shift else 0,
        }
        text = "\r" if key == "Enter" else key if len(key) == 1 else None
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def complaints(self) -> list[str]:
        """What a developer would see in red: refused by the policy, thrown by a script."""
        logged = [event["params"]["entry"]["text"] for event in self.events if event["method"] == "Log.entryAdded"]
        thrown = [
            event["params"]["exceptionDetails"]["text"]
            for event in self.events
            if event["method"] == "Runtime.exceptionThrown"
        ]
        return logged + thrown

    def asked(self) -> list[str]:
        """Every address that the browser asked for."""
        return [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]

    @staticmethod
    def _until(true: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it didn't come to pass"
            time.sleep(0.05)

    def _end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # its own session: the browser and its children, nobody else
        self._process.wait(10)

"""Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from peers.browser import Browser, Point
from peers.patience import LONG, until

_CODES = {
    **{"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36},
    **{"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "]": 221},
}


class Chromium(Browser):
    """Debian's chromium."""

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)["result"].get(
            "value"
        )

    def size(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        common = {
            "key": key,
            "code": "Space" if key == " " else key,
            "windowsVirtualKeyCode": _CODES.get(key) or ord(key.upper()),
            "modifiers": 8 if shift else 0,
        }
        text = "\r" if key == "Enter" else key if len(key) == 1 else None
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def wheel(self, at: Point, down: int) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseWheel", x=at[0], y=at[1], deltaX=0, deltaY=down)

    def drag(self, path: Sequence[Point]) -> None:
        for kind, (x, y) in [
            ("mousePressed", path[0]),
            *(("mouseMoved", point) for point in path[1:]),
            ("mouseReleased", path[-1]),
        ]:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def touch(self, *fingers: Sequence[Point]) -> None:
        self.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
        try:
            for number, points in enumerate(zip(*fingers, strict=True)):
                told = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(points)]
                self.call("Input.dispatchTouchEvent", type="touchMove" if number else "touchStart", touchPoints=told)
            self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        finally:
            self.call("Emulation.setTouchEmulationEnabled", enabled=False)

    def picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def complaints(self) -> list[str]:
        logged = [params["entry"]["text"] for params in self.told("Log.entryAdded")]
        return logged + [params["exceptionDetails"]["text"] for params in self.told("Runtime.exceptionThrown")]

    def asked(self) -> list[str]:
        return [params["request"]["url"] for params in self.told("Network.requestWillBeSent")]

    def _command(self) -> list[str]:
        return [
            *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--no-first-run", "--remote-debugging-port=0", "--window-size=900,1000"),
            *("--disable-background-networking", f"--user-data-dir={self._profile}", *self._options, "about:blank"),
        ]

    def _address(self) -> str:
        port_file = self._profile / "DevToolsActivePort"
        until(lambda: port_file.exists() and len(port_file.read_text().splitlines()) == 2)
        port = port_file.read_text().splitlines()[0]
        pages = httpx.get(f"http://127.0.0.1:{port}/json", trust_env=False, timeout=LONG).json()
        return next(str(page["webSocketDebuggerUrl"]) for page in pages if page["type"] == "page")

    def _begin(self) -> None:
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

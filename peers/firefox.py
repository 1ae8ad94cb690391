"""Firefox, driven over WebDriver BiDi, which it speaks by itself (https://w3c.github.io/webdriver-bidi/)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from peers.browser import Browser, Point
from peers.patience import until

_KEYS = {  # WebDriver's names for keys that have no character
    **{"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "PageUp": "\ue00e", "PageDown": "\ue00f"},
    **{"End": "\ue010", "Home": "\ue011", "ArrowLeft": "\ue012", "ArrowUp": "\ue013", "ArrowRight": "\ue014"},
    **{"ArrowDown": "\ue015", "Shift": "\ue008"},
}
_PREFERENCES = {
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "app.update.auto": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    # These processes take a quarter of its start, for pages and extensions that no test opens.
    "browser.newtabpage.enabled": False,
    "dom.ipc.processPrelaunch.enabled": False,
    "dom.ipc.processCount": 1,
    "extensions.webextensions.remote": False,
    "dom.w3c_touch_events.enabled": 1,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}


class Firefox(Browser):
    """Debian's firefox-esr; `options` are preferences, as `name=value` with a value in JSON."""

    def open(self, address: str) -> None:
        self.call("browsingContext.navigate", context=self._page, url=address, wait="complete")

    def run(self, script: str) -> Any:
        told = self.call("script.evaluate", expression=script, target={"context": self._page}, awaitPromise=True)
        assert told["type"] == "success", told
        return _plain(told["result"])

    def size(self, width: int, height: int) -> None:
        self.call("browsingContext.setViewport", context=self._page, viewport={"width": width, "height": height})

    def type(self, text: str) -> None:
        for character in text:
            self.press(character)

    def press(self, key: str, *, shift: bool = False) -> None:
        one = [(kind, _KEYS.get(key, key)) for kind in ("keyDown", "keyUp")]
        both = [("keyDown", _KEYS["Shift"]), *one, ("keyUp", _KEYS["Shift"])] if shift else one
        self._act(type="key", id="keys", actions=[{"type": kind, "value": value} for kind, value in both])

    def wheel(self, at: Point, down: int) -> None:
        x, y = map(round, at)
        scroll = {"type": "scroll", "x": x, "y": y, "deltaX": 0, "deltaY": down}
        self._act(type="wheel", id="wheel", actions=[scroll])

    def drag(self, path: Sequence[Point]) -> None:
        self._act(type="pointer", id="mouse", actions=_pressed(path))

    def touch(self, *fingers: Sequence[Point]) -> None:
        self.call(
            "input.performActions",
            context=self._page,
            actions=[
                {"type": "pointer", "id": f"finger{number}", "parameters": {"pointerType": "touch"}, "actions": actions}
                for number, actions in enumerate(map(_pressed, fingers))
            ],
        )
        self.call("input.releaseActions", context=self._page)

    def picture(self, file: Path) -> None:
        told = self.call("browsingContext.captureScreenshot", context=self._page, origin="document")
        file.write_bytes(base64.b64decode(told["data"]))

    def complaints(self) -> list[str]:
        return [str(params["text"]) for params in self.told("log.entryAdded") if params["level"] in ("warn", "error")]

    def asked(self) -> list[str]:
        told = self.told("network.beforeRequestSent")  # the browser's own requests have no page
        return [params["request"]["url"] for params in told if params["context"] == self._page]

    def _act(self, **source: object) -> None:
        self.call("input.performActions", context=self._page, actions=[source])

    def _command(self) -> list[str]:
        chosen = {
            **_PREFERENCES,
            **{name: json.loads(value) for name, _, value in (o.partition("=") for o in self._options)},
        }
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in chosen.items()]
        (self._profile / "user.js").write_text("".join(lines))
        return [
            "firefox-esr",
            "--headless",
            "--no-remote",
            "--profile",
            str(self._profile),
            "--remote-debugging-port",
            "0",
        ]

    def _address(self) -> str:
        told = self._profile / "WebDriverBiDiServer.json"
        until(lambda: told.exists() and told.read_text().rstrip().endswith("}"))
        where = json.loads(told.read_text())
        return f"ws://{where['ws_host']}:{where['ws_port']}/session"

    def _begin(self) -> None:
        self.call("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
        self._page = self.call("browsingContext.create", type="tab")["context"]  # the first tab never has the focus
        self.call("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])


def _pressed(path: Sequence[Point]) -> list[dict[str, Any]]:
    def moves(points: Iterable[Point]) -> list[dict[str, Any]]:
        return [{"type": "pointerMove", "x": round(x), "y": round(y)} for x, y in points]

    return [
        *moves(path[:1]),
        {"type": "pointerDown", "button": 0},
        *moves(path[1:]),
        {"type": "pointerUp", "button": 0},
    ]


def _plain(value: dict[str, Any]) -> object:
    """A value as the protocol writes it, as Python has it."""
    if value["type"] == "array":
        return [_plain(each) for each in value["value"]]
    if value["type"] == "object":
        return {key: _plain(each) for key, each in value["value"]}
    return value.get("value")

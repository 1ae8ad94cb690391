"""The pictures of README.md: the counter page, and a disc opened in a browser.

    make screenshots    # writes docs/pictures/*.png; runs the demo and Chromium, a minute

The discs are the demo's: computed images of nobody.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console

from mkiso_service.burning import burn
from mkiso_service.client import Client
from mkiso_service.demo import PHANTOM, Place, prepare, running, unpack
from peers.chromium import Chromium

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH, HEIGHT = 1000, 720


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        place = prepare(Path(folder) / "demo")
        with running(console, place):
            with Client(place.url) as client:
                burn(console, client, [PHANTOM], place.folder / f"{PHANTOM}.iso")
            unpack(place.folder / f"{PHANTOM}.iso", place.folder / PHANTOM)
            with Chromium(Path(folder) / "browser") as browser:
                browser.size(WIDTH, HEIGHT)
                _counter(browser, place)
                _viewer(browser, place.folder / PHANTOM)


def _counter(browser: Chromium, place: Place) -> None:
    browser.open(place.url)
    browser.until_ready("numbers")
    browser.type(PHANTOM)
    browser.press("Enter")
    browser.until("!document.getElementById('whose').hidden")
    browser.until("document.querySelectorAll('#jobs > li').length > 0")
    browser.picture(PICTURES / "counter.png")


def _viewer(browser: Chromium, disc: Path) -> None:
    browser.open((disc / "VIEW" / "ST000001.HTM").as_uri())
    browser.until("document.readyState === 'complete' && document.querySelector('canvas, img') !== null")
    browser.picture(PICTURES / "viewer.png")


if __name__ == "__main__":
    main()

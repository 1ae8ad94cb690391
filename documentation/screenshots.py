"""The pictures of README.md: the counter page, and a disc opened in a browser. And those of docs/operating.md: the
Prefect UI.

    make screenshots    # writes docs/pictures/*.png; runs the demo and Chromium, a minute

The discs are the demo's: computed images of nobody.
"""

from __future__ import annotations

import base64
import tempfile
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from mkiso.formats.folder import unpack
from mkiso_service.cli.burning import burn
from mkiso_service.cli.client import Client, DiscRequest, ServiceError
from mkiso_service.cli.demo import PHANTOM, SHARED_ACCESSION_NUMBER, Place, prepare, running
from peers.chromium import Chromium

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH, HEIGHT = 1000, 720


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        place = prepare(Path(folder) / "demo")
        with (
            running(console, place),
            Client(place.url, place.key) as client,
            Chromium(Path(folder) / "browser") as browser,
        ):
            browser.size(WIDTH, HEIGHT)
            burn(console, client, DiscRequest([PHANTOM]), place.folder / f"{PHANTOM}.iso")
            _counter(browser, place)
            (place.folder / PHANTOM).mkdir()
            unpack(place.folder / f"{PHANTOM}.iso", place.folder / PHANTOM)
            _viewer(browser, place.folder / PHANTOM)
            with suppress(ServiceError):  # of two patients
                burn(console, client, DiscRequest([SHARED_ACCESSION_NUMBER]), place.folder / "none.iso")
            _prefect(browser, place)


def _counter(browser: Chromium, place: Place) -> None:
    browser.open(place.url)
    browser.until_ready("key")
    browser.type(place.key)
    browser.press("Enter")
    browser.until_ready("numbers")
    browser.type(PHANTOM)
    browser.press("Enter")
    browser.until("!document.getElementById('whose').hidden")
    browser.until("document.querySelectorAll('#jobs > li').length > 0")
    browser.until("document.getElementById('robot').hidden")  # a busy machine may have made its answer late
    browser.run("scrollTo(0, 0)")  # the patient stays in sight, and would cover a row of the whole page
    browser.picture(PICTURES / "counter.png")


def _viewer(browser: Chromium, disc: Path) -> None:
    browser.open((disc / "VIEW" / "ST000001.HTM").as_uri())
    browser.until("document.readyState === 'complete' && document.querySelector('canvas, img') !== null")
    browser.picture(PICTURES / "viewer.png")


def _prefect(browser: Chromium, place: Place) -> None:
    """The list of runs, and a run that was refused."""
    password = (place.folder / "data" / "prefect" / "password").read_text().strip()
    run = f"Disc {SHARED_ACCESSION_NUMBER}"
    link = f"[...document.querySelectorAll('a')].find((link) => link.innerText.trim() === {run!r})"
    browser.size(1200, 760)
    browser.open(place.prefect_url)
    browser.run(f"localStorage.setItem('prefect-password', '{base64.b64encode(password.encode()).decode()}')")
    browser.open(f"{place.prefect_url}/runs")
    browser.until(f"Boolean({link}) && document.getAnimations().length === 0")
    browser.picture(PICTURES / "prefect-runs.png")
    browser.open(str(browser.run(f"{link}.href")))
    browser.until("[...document.querySelectorAll('button')].some((one) => one.innerText.trim() === 'Retry')")
    browser.until("document.getAnimations().length === 0")
    browser.picture(PICTURES / "prefect-run.png")


if __name__ == "__main__":
    main()

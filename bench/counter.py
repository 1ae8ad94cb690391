"""From the counter page's first load to the patient on the screen, in Chromium in front of Orthanc. Not part of any
test; `python -m bench.counter`.

The browser has nothing of the page in its cache. A scanned number is one input, as is a number that is typed.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from peers.chromium import Chromium
from peers.corpus import Person, make_ct_series
from peers.orthanc import Orthanc
from peers.service import Service

STUDIES, RUNS = 200, 5
KEY = "a-key-of-the-benchmark"
SHOWN = "!document.getElementById('whose').hidden && document.querySelector('#whose .name').textContent !== ''"


def by_number(browser: Chromium) -> int:
    """The number, Enter."""
    browser.type("DESK7")
    browser.press("Enter")
    return 2


def by_patient(browser: Chromium) -> int:
    """The line of the search, the patient ID, Enter."""
    browser.run("document.querySelector('#seek summary').click()")
    browser.until_ready("known-id")
    browser.type("ID-7")
    browser.press("Enter")
    return 3


def measured(browser: Chromium, url: str, way: Callable[[Chromium], int]) -> tuple[int, float]:
    """Inputs, and seconds since the page was asked for."""
    browser.call("Network.clearBrowserCache")
    browser.open(url)
    browser.until_ready("numbers")
    inputs = way(browser)
    browser.until(SHOWN)
    return inputs, float(browser.run("performance.now()")) / 1000


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mkiso-counter-") as name:
        folder = Path(name)
        names = [f"DESK{number}" for number in range(STUDIES)]
        with Orthanc(folder / "pacs", verbose=False) as pacs:
            for number, each in enumerate(names):
                whose = Person(f"ID-{number}", f"Example^Patient {number}")
                pacs.store(make_ct_series(folder / "studies" / each, each, 2, size=64, patient=whose))
            sections = {"auth": {"enabled": True, "api_key": KEY}}
            with (
                Service(folder / "mkiso", (pacs.ae_title, pacs.port), sections) as service,
                Chromium(folder / "chromium") as browser,
            ):
                browser.open(str(service.http.base_url))  # once in a shift
                browser.until_ready("key")
                browser.type(KEY)
                browser.press("Enter")
                browser.until_ready("numbers")
                for way in (by_number, by_patient):
                    times = [measured(browser, str(service.http.base_url), way) for _ in range(RUNS)]
                    seconds = [each for _, each in times]
                    told = f"{statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"
                    print(f"{way.__doc__} {times[0][0]} inputs, {told}", flush=True)


if __name__ == "__main__":
    main()

"""The browsers that people have, in a language, and what holds of each page that they show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers.browser import Browser
from peers.chromium import Chromium
from peers.firefox import Firefox

WIDTHS = (320, 1000)
BROWSERS = ("chromium-de", "firefox-es")


@contextmanager
def browser_of(kind: str, code: str, folder: Path) -> Iterator[Browser]:
    """Chromium or Firefox, whose person reads this language first; it takes a certificate that nobody has signed."""
    with (
        Chromium(folder, f"--accept-lang={code}", "--ignore-certificate-errors")
        if kind == "chromium"
        else Firefox(folder, f'intl.accept_languages="{code}"')
    ) as browser:
        yield browser


def is_right(browser: Browser, code: str, pictures: Path, name: str) -> None:
    """On a phone and on a desk: the page is in this language, nothing sticks out, and axe finds nothing."""
    browser.until("document.readyState === 'complete'")
    browser.run("window.stop()")  # it stays as it is
    assert browser.run("document.documentElement.lang") == code
    sideways = "(each) => each.scrollWidth > each.clientWidth && getComputedStyle(each).overflowX === 'auto'"
    for width in WIDTHS:
        browser.size(width, 800)
        try:
            assert browser.run("document.documentElement.scrollWidth <= innerWidth"), name
            assert not browser.run(f"[...document.querySelectorAll('*')].some({sideways})"), name
            assert browser.violations() == [], name
        except AssertionError:
            browser.picture(pictures / f"{name}-{width}.png")
            raise


def goes_to(browser: Browser, selector: str, *, back: bool = False) -> None:
    """Tab until this element has the focus."""
    wanted = f"document.activeElement === document.querySelector({selector!r})"
    for _ in range(30):
        if browser.run(wanted):
            return
        browser.press("Tab", shift=back)
    raise AssertionError(f"no Tab leads to {selector}")


def text(selector: str) -> str:
    return f"document.querySelector({selector!r})?.textContent.trim()"


def refusals(browser: Browser) -> list[str]:
    """What a developer would see in red, but for answers with an error's status."""
    return [words for words in browser.complaints() if "Failed to load resource" not in words]

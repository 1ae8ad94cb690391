"""Signing in and out in the browsers that people have, by the keyboard alone, at a provider that is another site."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mkiso.languages import language
from mkiso.study.question import Question
from mkiso_service.prefect.orchestrator import Standing
from peers.browser import Browser
from peers.openid_provider import OpenIdProvider
from peers.ports import free_port
from tests.webhook.browsers import BROWSERS, browser_of, goes_to, is_right, refusals, text
from tests.webhook.desk import Desk, Scripts, served
from tests.webhook.nginx import Nginx, certificate
from tests.webhook.test_sign_in import settings_for

pytestmark = [
    pytest.mark.peer,
    *(
        pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")
        for program in ("chromium", "firefox-esr", "nginx", "node")
    ),
]


@pytest.fixture(scope="module", params=BROWSERS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, str]]:
    """A browser, and the language of whoever sits before it."""
    kind, _, code = request.param.partition("-")
    with browser_of(kind, code, tmp_path_factory.mktemp(request.param)) as browser:
        yield browser, code


@contextmanager
def site_in(folder: Path, *, secure: bool) -> Iterator[tuple[str, OpenIdProvider]]:
    """Its address, plain on the loopback or over TLS behind nginx. To a browser the provider's is another site."""
    port, front = free_port(), free_port()
    settings = settings_for(folder / "data", f"http://{'127.0.0.1' if secure else 'localhost'}:{port}")
    url = f"https://localhost:{front}" if secure else settings.server.public_url
    settings = settings.model_copy(update={"server": settings.server.model_copy(update={"public_url": url})})
    scripts = Scripts(settings.storage)

    def script(job_id: str, question: Question) -> Standing:
        if question.accession_numbers == ("R1",):
            return scripts.report(job_id, question, stage="retrieving", expected=4, received=1)
        return scripts.done(job_id, question)

    certificate(folder)
    (folder / "key.conf").write_text('proxy_set_header X-API-Key "";\n')
    replacements = {
        "127.0.0.1:8080": f"127.0.0.1:{settings.server.port}",
        "/etc/mkiso/nginx-key.conf": str(folder / "key.conf"),
        "/etc/nginx/tls/": f"{folder}/",
        "# include mkiso/tls.conf;": "include mkiso/tls.conf;",
        "listen 443 ssl;": f"listen 127.0.0.1:{front} ssl;",
        "listen [::]:443 ssl;": "",
    }
    provider = OpenIdProvider(folder, url, port=port, host="127.0.0.1" if secure else "localhost")
    with provider, served(settings, Desk(script)), Nginx(folder, replacements):
        yield url, provider


@pytest.fixture(scope="module", params=["plain", "tls"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with site_in(tmp_path_factory.mktemp("site"), secure=request.param == "tls") as (url, _):
        yield url


def test_a_person_signs_in_and_out(opened: tuple[Browser, str], site: str, tmp_path: Path) -> None:
    browser, code = opened
    who_made_what = language(code).gettext("Who made what")
    browser.events.clear()
    browser.open(site)
    browser.until("document.activeElement?.matches('a.button')")
    is_right(browser, code, tmp_path, "sign-in")
    signs_in(browser, "ada")
    browser.until(f"document.readyState === 'complete' && {text('.signed-in')} === 'Ada Example'")
    assert browser.run("location.href") == f"{site}/" and browser.run("document.cookie") == ""
    is_right(browser, code, tmp_path, "counter")

    browser.open(f"{site}/api/iso/download?accession_number=R1")
    browser.until("Boolean(document.querySelector('progress'))")
    is_right(browser, code, tmp_path, "progress")
    browser.open(f"{site}/api/iso/jobs/none")
    is_right(browser, code, tmp_path, "error")
    browser.open(site)
    browser.until_ready("numbers")
    goes_to(browser, "a.report", back=True)
    browser.press("Enter")
    browser.until(f"{text('table.made tbody td:nth-child(3)')} === 'R1'")
    is_right(browser, code, tmp_path, "report")
    browser.open(f"{site}/api/keys")
    assert browser.run("document.title") == language(code).gettext("Keys of programs")
    is_right(browser, code, tmp_path, "keys")

    signs_out(browser, site)
    browser.open(f"{site}/api/iso/made")
    assert browser.run("document.title") == language(code).gettext("Not signed in")
    is_right(browser, code, tmp_path, "nobody")
    goes_to(browser, "a.button")
    browser.press("Enter")
    browser.until("location.search && document.activeElement?.matches('a.button')")
    signs_in(browser, "ada")
    browser.until(f"location.href === '{site}/api/iso/made' && document.title === {who_made_what!r}")
    assert refusals(browser) == []
    signs_out(browser, site)


@pytest.mark.parametrize("login", ["", "mallory"])
def test_who_isnt_signed_in_reads_why_and_tries_again(
    opened: tuple[Browser, str], site: str, tmp_path: Path, login: str
) -> None:
    """Nobody, and somebody whom the provider knows and who has no role here."""
    browser, code = opened
    browser.open(site)
    signs_in(browser, login)
    browser.until("location.pathname === '/session/callback' && document.readyState === 'complete'")
    title = "That didn't work" if login else "Not signed in"
    assert browser.run("document.title") == language(code).gettext(title)
    is_right(browser, code, tmp_path, "refused")
    if login:
        leaves_provider(browser, site)
        browser.open(site)
        signs_in(browser, "")  # the provider asks again
        browser.until("location.pathname === '/session/callback' && document.readyState === 'complete'")
    browser.open(f"{site}/api/iso/jobs")
    assert browser.run("document.title") == language(code).gettext("Not signed in")


def test_a_sign_in_while_the_provider_is_away(opened: tuple[Browser, str], tmp_path: Path) -> None:
    browser, code = opened
    with site_in(tmp_path, secure=False) as (site, provider):
        browser.open(site)
        browser.until("document.activeElement?.matches('a.button')")
        provider.stop()
        browser.press("Enter")
        browser.until("location.pathname === '/session/begin' && document.readyState === 'complete'")
        assert browser.run("document.title") == language(code).gettext("Not signed in")
        is_right(browser, code, tmp_path, "away")
        provider.start()
        goes_to(browser, "a.button")
        browser.press("Enter")
        browser.until(f"location.href === '{site}/'")
        signs_in(browser, "clara")
        browser.until(f"{text('.signed-in')} === 'Clara Example'")


def signs_out(browser: Browser, site: str) -> None:
    browser.open(site)
    browser.until_ready("numbers")
    leaves_provider(browser, site, "#sign-out button", back=True)


def leaves_provider(browser: Browser, site: str, button: str = "a.button", *, back: bool = False) -> None:
    goes_to(browser, button, back=back)
    browser.press("Enter")
    browser.until("document.title === 'Out' && document.readyState === 'complete'")
    goes_to(browser, "button")
    browser.press("Enter")
    browser.until("document.activeElement?.matches('a.button')")
    assert browser.run("location.href") == f"{site}/"


def signs_in(browser: Browser, login: str) -> None:
    browser.until("document.readyState === 'complete' && document.activeElement?.matches('a.button')")
    browser.press("Enter")
    browser.until("document.title === 'In' && document.readyState === 'complete'")
    goes_to(browser, "input")
    browser.type(login)
    browser.press("Enter")

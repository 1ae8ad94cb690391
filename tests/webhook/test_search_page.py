"""The search on the counter page, in Chromium and with the keyboard alone: to a patient who was on the screen, of one
patient at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mkiso.config.disc import Identity
from mkiso.languages import language
from mkiso_service.webhook.answers.advice import advice
from peers.chromium import Chromium
from peers.corpus import UMLAUT
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in
from tests.webhook.pacs import with_pacs
from tests.webhook.test_page import Clerk

pytestmark = [pytest.mark.peer, pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")]

BOXES = "[...document.querySelectorAll('#patients input')]"


BORN_TOO = "Type the patient's birth date too: ask for it, don't read it from a list."
NOT_ENOUGH = (
    "Give a patient ID, the beginning of a name, or a day of the study: a birth date or a kind alone fits too many."
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


def signs_in(browser: Chromium, url: str) -> Clerk:
    browser.open(url)
    if browser.run("Boolean(document.querySelector('#key'))"):
        browser.until_ready("key")
        browser.type(KEY)
        browser.press("Enter")
    browser.until("Boolean(document.querySelector('#seek:not([hidden])'))")
    return Clerk(browser, url)


def opens_search(browser: Chromium) -> None:
    """What an Enter on its line does."""
    browser.run("document.querySelector('#seek summary').focus()")
    browser.press("Enter")
    browser.until_ready("known-id")


def test_one_study_is_a_patient_at_once(browser: Chromium, tmp_path: Path) -> None:
    """Three inputs from the page to the patient: the line, the patient ID, Enter."""
    settings = settings_in(tmp_path, auth=True)
    desk = Desk(Scripts(settings.storage).done)
    patients = {"M4": UMLAUT}
    with with_pacs(settings, tmp_path / "pacs", "A1", "A2", patients=patients) as site, served(site, desk) as client:
        clerk = signs_in(browser, str(client.base_url))
        opens_search(browser)
        browser.type("HN-0002")
        browser.press("Enter")
        clerk.sees("Dr. Müller, Jörg")
        assert clerk.reads("#found") == "1 study found." and desk.asked == []
        clerk.says_yes()
        browser.until("document.querySelectorAll('#jobs > li').length === 1")
        assert desk.asked[0].accession_numbers == ("M4",)
        assert browser.run("!document.querySelector('#seek').open && !document.querySelector('#patients').textContent")


def test_studies_are_ticked_of_one_patient_at_a_time(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, auth=True)
    desk = Desk(Scripts(settings.storage).done)
    patients = {"M4": UMLAUT}
    with with_pacs(settings, tmp_path / "pacs", "A1", "A2", patients=patients) as site, served(site, desk) as client:
        clerk = signs_in(browser, str(client.base_url))
        opens_search(browser)
        browser.run("document.querySelector('#known-born').value = '1970-01-02'")  # not every PACS looks for it
        browser.press("Enter")
        clerk.until_reads("#missed", NOT_ENOUGH)
        assert browser.run("document.activeElement.id") == "known-name"
        browser.run("document.querySelector('#known-born').value = ''")
        clerk.finds_nothing_wrong()
        browser.run("document.querySelector('#known-from').value = '1980-01-01'")
        browser.press("Enter")
        browser.until(f"{BOXES}.length === 3")
        browser.until(f"document.activeElement === {BOXES}[0]")
        clerk.finds_nothing_wrong()
        assert browser.run("document.querySelectorAll('#patients fieldset').length") == 2
        browser.press("Enter")
        clerk.until_reads("#unticked", "Tick at least one study.")
        anna = f"{BOXES}.filter((box) => box.dataset.number.startsWith('A'))"
        browser.run(f"{anna}[0].focus()")
        browser.press(" ")
        other = f"{BOXES}.find((box) => box.dataset.number === 'M4')"
        browser.until(f"{anna}.every((box) => !box.disabled) && {other}.disabled")
        browser.run(f"{anna}[1].focus()")
        browser.press(" ")
        clerk.finds_nothing_wrong()
        browser.press("Enter")
        clerk.sees()
        browser.press("Escape")
        assert browser.run(f"{anna}.every((box) => box.checked)")  # what was ticked is still there
        browser.run(f"{anna}[0].focus()")
        browser.press("Enter")
        clerk.sees()
        browser.until("Boolean(document.activeElement.closest('#whose'))")
        clerk.says_yes()
        browser.until("document.querySelectorAll('#jobs > li').length === 1")
        assert sorted(desk.asked[0].accession_numbers) == ["A1", "A2"]


def test_nobody_found_is_said_and_a_site_without_a_key_searches_nothing(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, auth=True)
    with with_pacs(settings, tmp_path / "pacs", "A1") as site, served(site, Desk()) as client:
        clerk = signs_in(browser, str(client.base_url))
        opens_search(browser)
        browser.type("NOBODY")
        browser.press("Enter")
        clerk.until_reads("#missed", "The PACS knows no such study. Give less of the name, or check the dates.")
        body = "{studies: [], more: true, not_asked: []}"  # of those that the PACS told first none was meant
        browser.run(f"window.fetch = async () => new Response(JSON.stringify({body}))")
        browser.press("Enter")
        words = "Too many studies fit to find this one among them: give more of what you know."
        clerk.until_reads("#missed", words)
    open_to_all = settings_in(tmp_path / "open")
    with with_pacs(open_to_all, tmp_path / "pacs2", "A1") as site, served(site, Desk()) as client:
        Clerk(browser, str(client.base_url)).come()
        assert browser.run("document.querySelector('#seek').hidden")


def test_what_keeps_a_search_from_being_asked_is_said(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, auth=True)
    settings = settings.model_copy(update={"identity": Identity(confirm_birth_date=True)})
    patients = {"M4": UMLAUT}
    browser.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": "fr"})
    try:
        with with_pacs(settings, tmp_path / "pacs", patients=patients) as site, served(site, Desk()) as client:
            clerk = signs_in(browser, str(client.base_url))
            opens_search(browser)
            browser.type("HN-0002")
            browser.press("Enter")
            clerk.until_reads("#missed", language("fr").gettext(BORN_TOO))
            assert browser.run("document.activeElement.id") == "known-born"
            browser.run("document.querySelector('#known-born').value = '1980-12-31'")
            browser.run("document.querySelector('#known-id').value = 'HN*'")
            browser.press("Enter")
            clerk.until_reads("#missed", advice("unsafe_character", language("fr")))
            browser.run("document.querySelector('#known-id').value = 'HN-0002'")
            browser.run("document.querySelector('#known-kind').value = 'C/T'")
            assert not browser.run("document.querySelector('#known').checkValidity()")
            clerk.finds_nothing_wrong()
    finally:
        browser.call("Network.setExtraHTTPHeaders", headers={})


@pytest.mark.parametrize(("code", "width"), [("de", 320), ("th", 320), ("en", 1000)])
def test_nothing_sticks_out_in_any_language(browser: Chromium, tmp_path: Path, code: str, width: int) -> None:
    settings = settings_in(tmp_path, auth=True)
    spoken = language(code)
    inside = (
        "[...document.querySelectorAll('main *')].every((part) => part.getBoundingClientRect().right <= innerWidth)"
    )
    patients = {"M4": UMLAUT}
    with with_pacs(settings, tmp_path / "pacs", "A1", "A2", patients=patients) as site, served(site, Desk()) as client:
        browser.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": code})
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        try:
            clerk = signs_in(browser, str(client.base_url))
            assert clerk.reads("#seek summary") == spoken.gettext("Search by patient instead")
            opens_search(browser)
            browser.run("document.querySelector('#known-from').value = '1980-01-01'")
            browser.press("Enter")
            browser.until(f"{BOXES}.length === 3")
            browser.picture(tmp_path / "search.png")
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
            assert browser.run(inside)
            clerk.finds_nothing_wrong()
        finally:
            browser.call("Emulation.clearDeviceMetricsOverride")
            browser.call("Network.setExtraHTTPHeaders", headers={})

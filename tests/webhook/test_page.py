"""The counter page in Chromium, with the keyboard alone, in front of a PACS."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from mkiso import errors
from mkiso.config.disc import Deidentified, Identity
from mkiso.config.publishers import CStore
from mkiso.config.sources import CMove
from mkiso.errors import MkisoError, OtherPatient, PacsBusy, PrintUncertain
from mkiso.languages import language
from mkiso.publishers.orderbook import OrderBook
from mkiso.storage.handover import hand_over
from mkiso.storage.report import JobReport, write_report
from mkiso.study.question import Question
from mkiso_service.prefect.orchestrator import Standing
from mkiso_service.webhook.answers.advice import ADVICE
from mkiso_service.webhook.counter import listing
from peers.chromium import Chromium
from peers.corpus import JAPANESE, UMLAUT
from peers.patience import until
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in
from tests.webhook.pacs import with_pacs
from tests.webhook.test_print_page import ordered

pytestmark = [pytest.mark.peer, pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")]

FOUND: dict[str, Any] = {"study_date": "", "modalities": [], "expected": 1, "received": 1}
STUDIES: tuple[dict[str, Any], ...] = (
    {
        **FOUND,
        "accession_number": "R6",
        "study_date": "20260312",
        "modalities": ["CT", "SR"],
        "study_description": "CT Thorax",
        "expected": 9,
        "received": 4,
    },
    {**FOUND, "accession_number": "R7", "study_description": "<b>MR</b>"},
)
NOT_AT_THE_COUNTER = {
    *("error", "several_discs", "other_set"),  # never an answer to what the page asks
    *("deadline_passed", "patient_api_unavailable"),  # nor these
    *("volume_not_found", "archive_unusable", "claim_lost", "ledger_unavailable", "ledger_damaged"),  # the archive's
    "folder_taken",  # of mkiso burn --to alone
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


@dataclass
class Clerk:
    """Somebody at the page of a webhook."""

    browser: Chromium
    url: str

    def come(self) -> None:
        """Open the page as a new session."""
        self.browser.open(self.url)
        self.browser.run("sessionStorage.clear()")
        self.browser.open(self.url)
        self.browser.until_ready("numbers")

    def ask(self, numbers: str, *, shows: str = "Example, Anna") -> None:
        """Type a number and Enter, until the patient is on the screen and one press says yes."""
        self.browser.until_ready("numbers")
        self.browser.type(numbers)
        self.browser.press("Enter")
        self.sees(shows)

    def sees(self, name: str = "Example, Anna") -> None:
        """This patient is on the screen, and has been for longer than an Enter may be on its way."""
        self.until_reads("#whose:not([hidden]) .name", name)
        time.sleep(0.6)

    def asks_again(self) -> None:
        """For the newest job that can be asked for again, up to its patient."""
        self.browser.run("document.querySelector('#jobs .again').focus()")
        self.browser.press(" ")
        self.sees()

    def says_yes(self) -> None:
        self.browser.press("Enter")
        self.browser.until_ready("numbers")

    def text(self, selector: str) -> str:
        return f"document.querySelector({selector!r})?.textContent"

    def reads(self, selector: str) -> object:
        return self.browser.run(self.text(selector))

    def until_reads(self, selector: str, words: str) -> None:
        self.browser.until(f"{self.text(selector)} === {words!r}")

    def scans(self, number: str) -> None:
        """A barcode scanner: keys as fast as they go, then Enter, wherever the focus is."""
        for key in number:
            self.browser.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
            self.browser.call("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.browser.press("Enter")

    def finds_nothing_wrong(self) -> None:
        """What axe has to say of the page as it is."""
        assert self.browser.violations() == []


def test_a_clerk_at_the_counter(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, auth=True)
    scripts = Scripts(settings.storage)

    def script(job_id: str, question: Question) -> Standing:
        number = question.accession_numbers[0]
        if number.startswith("S"):
            return scripts.set_of(2)(job_id, question)
        if number.startswith("R"):
            scripts.report(job_id, question, stage="retrieving", expected=10, received=4, studies=STUDIES)
            return "running"
        return scripts.done(job_id, question)

    desk = Desk(script)
    patients = {"J3": JAPANESE, "M5": UMLAUT}
    pacs = with_pacs(settings, tmp_path / "pacs", "A1", "B2", "B3", "M4", "S5", "R6", patients=patients)
    with pacs as settings, served(settings, desk) as client:
        clerk = Clerk(browser, str(client.base_url))
        browser.open(clerk.url)
        browser.until_ready("key")
        clerk.finds_nothing_wrong()
        browser.type("wrong")
        browser.press("Enter")
        browser.until(
            f"{clerk.text('.wrong-key')} && getComputedStyle(document.querySelector('.wrong-key')).display !== 'none'"
        )
        clerk.finds_nothing_wrong()
        browser.until_ready("key")
        browser.type(KEY)
        browser.press("Enter")
        browser.until_ready("numbers")
        clerk.finds_nothing_wrong()
        assert KEY not in str(browser.run("document.documentElement.outerHTML + document.cookie"))

        clerk.ask("A1")
        facts = (
            "[...document.querySelectorAll('#whose .facts div')].map((fact) => fact.innerText.replace(/\\s+/g, ' '))"
        )
        assert browser.run(facts) == ["Born January 2, 1970", "Sex female", "Patient ID HN-0001"]
        rows = "[...document.querySelectorAll('#whose tbody tr')].map((row) => row.innerText.replace(/\\s+/g, ' '))"
        assert browser.run(rows) == ["A1 February 29, 2024 CT Made for a test 1 image"]
        clerk.finds_nothing_wrong()
        assert desk.asked == []
        clerk.says_yes()
        clerk.until_reads("#jobs .done .words", "The disc file is ready, and no image is missing.")
        until(lambda: [file.name for file in browser.downloads.iterdir()] == ["A1.iso"])

        browser.type("B2")
        browser.press("Enter", shift=True)
        clerk.ask("B3,B2")
        browser.press("Tab")
        browser.press(" ")
        clerk.until_reads("#jobs .job .state", "Ordered")
        assert (desk.asked[-1].kind, desk.asked[-1].accession_numbers) == ("print", ("B2", "B3"))
        assert str(clerk.reads("#announce")).startswith("B2, B3: rimage has the order (3 images)")
        # nobody listens at the robot's port
        browser.until(f"{clerk.text('#jobs .words')}.includes('something is wrong there')")

        browser.until_ready("numbers")
        browser.type("M4,M5")
        browser.press("Enter")
        browser.until(f"{clerk.text('#problem')}.startsWith('It isn\\'t certain that all of this belongs to')")
        assert browser.run("document.getElementById('whose').hidden")
        clerk.finds_nothing_wrong()
        browser.run("document.getElementById('numbers').value = ''")
        clerk.ask("S5")
        clerk.says_yes()
        browser.until("document.querySelectorAll('#jobs .discs')[0].children.length === 2")
        clerk.ask("R6")
        clerk.says_yes()
        clerk.until_reads("#jobs .running .words", "Fetching images: 4 of 10 images and reports.")
        assert browser.run("document.querySelector('#jobs progress').value") == 0.278
        assert clerk.reads("#jobs .running .state") == "Working 28 %"
        assert browser.run(
            "[...document.querySelectorAll('#jobs tbody tr')].slice(0, 2).map((row) => row.innerText.replace(/\\s+/g, "
            "' '))"
        ) == [
            "R6 March 12, 2026 CT, SR CT Thorax 4 of 9 images and reports",
            "R7 <b>MR</b> 1 image",
        ]
        clerk.finds_nothing_wrong()
        browser.until_ready("numbers")
        browser.type("*")
        browser.press("Enter")
        browser.until(f"{clerk.text('#problem')}?.includes('wildcard')")
        assert all(question.shown for question in desk.asked)

        browser.open(clerk.url)  # the session's jobs are still there
        browser.until("document.querySelectorAll('#jobs .job').length === 4")
        assert all(address.startswith((clerk.url, "data:")) for address in browser.asked())
        refused = [words for words in browser.complaints() if not re.search(r"40[019]|\[DOM\]", words)]
        assert refused == []


def test_nobody_gets_a_disc_of_a_patient_who_was_not_on_the_screen(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)
    desk = Desk(scripts.failed(OtherPatient("Another one.")))
    with (
        with_pacs(settings, tmp_path / "pacs", "A1", patients={"J2": JAPANESE}) as settings,
        served(settings, desk) as client,
    ):
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        browser.type("X9")
        browser.press("Enter")
        browser.until(f"{clerk.text('#problem')}.startsWith('The PACS knows no study with this number.')")
        assert browser.run("document.getElementById('numbers').value") == "X9"
        browser.run("document.getElementById('numbers').value = ''")

        clerk.ask("A1")
        clerk.scans("J2")  # over what is on the screen: the other patient comes, and nothing is asked
        clerk.until_reads("#whose .name", "Yamada, Tarou / 山田, 太郎 / やまだ, たろう")
        browser.press("Escape")
        browser.until_ready("numbers")
        assert browser.run("document.getElementById('whose').hidden")
        before = time.time()
        clerk.ask("A1")
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        ticks = "document.getElementById('with-priors').hidden = false; document.getElementById('priors').focus()"
        for goes_to in ("", ticks):  # the button, and a choice, in which Enter goes on
            browser.run(goes_to)
            for unseen in ({"autoRepeat": True}, {"timestamp": before}):  # held down, or sent before
                browser.call("Input.dispatchKeyEvent", type="keyDown", **enter, **unseen)
                browser.call("Input.dispatchKeyEvent", type="keyUp", **enter, **unseen)
                assert browser.run("document.getElementById('whose').hidden") is False
        assert desk.asked == []
        clerk.says_yes()
        browser.until(f"{clerk.text('#jobs .failed .words')}?.startsWith('The PACS names another patient by now')")
        assert re.fullmatch("[0-9a-f]{32}", desk.asked[-1].shown)
        clerk.asks_again()  # again through the screen
        assert len(desk.asked) == 1


def test_a_site_asks_for_the_birth_date_too(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path).model_copy(update={"identity": Identity(confirm_birth_date=True)})
    desk = Desk(Scripts(settings.storage).done)
    with with_pacs(settings, tmp_path / "pacs", "A1") as settings, served(settings, desk) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()

        def born(day: str) -> None:
            browser.run(f"document.getElementById('birth-date').value = {day!r}")
            browser.press("Enter")

        clerk.scans("A1")
        browser.until_ready("birth-date")
        clerk.finds_nothing_wrong()
        born("1970-01-03")
        clerk.until_reads(
            "#problem", "The PACS has another birth date for this number. Check the number and the birth date."
        )
        assert browser.run("document.getElementById('whose').hidden")
        browser.until_ready("numbers")
        browser.press("Enter")
        browser.until_ready("birth-date")
        born("1970-01-02")
        clerk.sees()
        clerk.says_yes()
        clerk.until_reads("#jobs .state", "Ready")
        assert [question.accession_numbers for question in desk.asked] == [("A1",)]


def test_every_control_has_a_name(browser: Chromium, tmp_path: Path) -> None:
    with with_pacs(settings_in(tmp_path), tmp_path / "pacs", "A1") as settings, served(settings, Desk()) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        clerk.ask("A1")
        tree = browser.call("Accessibility.getFullAXTree")["nodes"]
        controls = [node for node in tree if node.get("role", {}).get("value") in ("textbox", "button", "link")]
        assert len(controls) >= 5
        assert all(node["name"]["value"] for node in controls)


HOLD = """{ const asks = window.fetch;
  const held = new Promise((go) => { window.letGo = () => { window.fetch = asks; go(); }; });
  window.fetch = async (...question) => { await held; return asks(...question); }; }"""
"""What the page asks waits until letGo()."""


def test_a_scanner_asks_wherever_the_focus_is(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    desk = Desk(Scripts(settings.storage).done)
    with (
        with_pacs(settings, tmp_path / "pacs", "C1", "C2", "C3", "D1", "D2") as settings,
        served(settings, desk) as client,
    ):
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        for number in ("C1", "C2", "C3"):
            browser.run(HOLD)
            clerk.scans(number)
            browser.press("Enter")  # some scanners send two, faster than any answer
            assert clerk.reads("#problem") == ""
            browser.run("letGo()")
            clerk.until_reads("#whose:not([hidden]) td.number", number)
            browser.run("document.getElementById('back').focus()")
        assert desk.asked == []
        clerk.sees()
        browser.run("document.getElementById('make').focus()")
        clerk.says_yes()
        browser.until("document.querySelectorAll('#jobs .done').length === 1")
        assert [asked.accession_numbers for asked in desk.asked] == [("C3",)]
        assert clerk.reads("#problem") == ""
        browser.run("document.activeElement.blur()")
        control_v = {"key": "v", "code": "KeyV", "windowsVirtualKeyCode": ord("V"), "modifiers": 2}
        browser.call("Input.dispatchKeyEvent", type="rawKeyDown", **control_v)  # what is pasted belongs there, too
        browser.until_ready("numbers")

        browser.run("document.getElementById('several').click()")
        for number in ("D1", "D2", ""):
            clerk.scans(number)
        clerk.until_reads("#whose:not([hidden]) tr:nth-child(2) td.number", "D2")
        clerk.sees()
        clerk.says_yes()
        browser.until("document.querySelectorAll('#jobs .done').length === 2")
        assert desk.asked[-1].accession_numbers == ("D1", "D2")
        assert not browser.run("document.getElementById('several').checked")


def test_enter_in_an_empty_field_says_what_is_missing(browser: Chromium, tmp_path: Path) -> None:
    """Unless there is anything on the screen, or on its way."""
    settings = settings_in(tmp_path)
    with (
        with_pacs(settings, tmp_path / "pacs", "A1") as settings,
        served(settings, Desk(Scripts(settings.storage).done)) as client,
    ):
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        browser.press("Enter")
        clerk.until_reads("#problem", "Type or scan an accession number first.")
        browser.run("document.getElementById('problem').textContent = ''")
        browser.type(" , ")
        browser.press("Enter")
        clerk.until_reads("#problem", "Type or scan an accession number first.")
        browser.run("document.getElementById('numbers').value = ''")
        clerk.ask("A1")
        assert clerk.reads("#problem") == ""
        browser.run("document.getElementById('numbers').focus()")
        browser.press("Enter")
        assert clerk.reads("#problem") == "" and not browser.run("document.getElementById('whose').hidden")


def test_what_this_page_cant_ask_for_is_not_offered_again(browser: Chromium, tmp_path: Path) -> None:
    """What no PACS has; a de-identified copy, in whose place the patient's own disc came."""
    settings = settings_in(tmp_path)
    copy: dict[str, Any] = {"deidentified": True}
    for number, facts in (("1", {}), ("2", {"degraded": ("completeness_not_proven",)}), ("3", copy)):
        write_report(settings.storage, JobReport(str(uuid4()), "download", (f"S{number}",), status="done", **facts))
    with served(settings, Desk()) as client:
        Clerk(browser, str(client.base_url)).come()
        browser.until("document.querySelectorAll('#jobs > li').length === 3")
        offered = "[...document.querySelectorAll('#jobs .again:not([hidden])')].map((each) => each.ariaLabel)"
        assert browser.run(offered) == ["Make the file again: S1"]


@contextmanager
def with_running_job(browser: Chromium, tmp_path: Path) -> Iterator[tuple[Clerk, Desk]]:
    """A clerk's page with a disc of C1 that can be cancelled."""
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)
    desk = Desk(lambda job_id, question: scripts.report(job_id, question, stage="retrieving", expected=4, received=1))
    with with_pacs(settings, tmp_path / "pacs", "C1") as settings, served(settings, desk) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        clerk.ask("C1")
        clerk.says_yes()
        browser.until("Boolean(document.querySelector('#jobs .cancel:not([hidden])'))")
        yield clerk, desk


def test_a_cancelled_disc_takes_no_focus_from_a_number(browser: Chromium, tmp_path: Path) -> None:
    """Enter would ask for the disc of the other patient again."""
    with with_running_job(browser, tmp_path) as (clerk, _):
        browser.run(
            "window.real = window.fetch; window.fetch = (...all) => new Promise((go) => setTimeout(go, 500))"
            ".then(() => window.real(...all)); document.querySelector('#jobs .cancel').click();"
            "document.querySelector('#sure [value=yes]').click()"
        )
        browser.until("!document.getElementById('sure').open")
        browser.type("C")
        clerk.until_reads("#jobs .state", "Cancelled")
        assert browser.run("document.querySelector('#jobs .job').className") == "job cancelled seen"  # not red
        assert browser.run("document.activeElement.id") == "numbers"


def test_a_disc_that_was_ready_before_its_cancel_is_not_told_as_cancelled(browser: Chromium, tmp_path: Path) -> None:
    with with_running_job(browser, tmp_path) as (clerk, desk):
        browser.run("document.querySelector('#jobs .cancel').click()")
        (job_id,) = desk.standings
        desk.standings[job_id] = Scripts(settings_in(tmp_path).storage).done(job_id, desk.asked[0])
        clerk.until_reads("#jobs .state", "Ready")
        browser.run("document.querySelector('#sure [value=yes]').click()")
        clerk.until_reads("#announce.told", "C1: The disc file is ready, and no image is missing.")


def test_the_keyboard_goes_on_from_a_disc_whose_button_is_gone(browser: Chromium, tmp_path: Path) -> None:
    with with_running_job(browser, tmp_path) as (clerk, desk):
        browser.run("document.querySelector('#jobs .cancel').focus()")
        desk.standings = dict.fromkeys(desk.standings, "cancelled")  # by somebody else, or some time after the press
        clerk.until_reads("#jobs .state", "Cancelled")
        browser.until("document.activeElement.matches('#jobs .again')")


def test_a_list_that_is_cut_says_so(browser: Chromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST", 1)
    settings = settings_in(tmp_path)
    with served(settings, Desk(Scripts(settings.storage).done)) as client:
        client.get("/api/iso/download?accession_number=A1")
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        browser.until("document.querySelectorAll('#jobs > li').length === 1")
        assert browser.run("document.querySelector('#rest').hidden")
        client.get("/api/iso/download?accession_number=A2")
        clerk.come()
        browser.until("!document.querySelector('#rest').hidden")
        shown = "[...document.querySelectorAll('#jobs .numbers')].map((each) => each.textContent).join()"
        assert browser.run(shown) == "A2"
        clerk.finds_nothing_wrong()


def test_enter_on_a_choice_goes_on_as_in_any_form(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    desk = Desk(Scripts(settings.storage).done)
    with with_pacs(settings, tmp_path / "pacs", "Z1", "Z2") as settings, served(settings, desk) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        for number, box in (("Z1", "#formats input[value=zip]"), ("Z2", "#stored")):
            clerk.ask(number)
            browser.run(f"document.querySelector({box!r}).focus(); document.querySelector({box!r}).checked = true")
            clerk.says_yes()
        browser.until("document.querySelectorAll('#jobs .job').length === 2")
        assert [(question.format, question.transfer_syntax) for question in desk.asked] == [
            ("zip", ""),
            ("iso", "explicit-le"),
        ]


@pytest.mark.parametrize("height", [844, 560])
def test_the_patient_is_in_sight_wherever_the_buttons_are(browser: Chromium, tmp_path: Path, height: int) -> None:
    """On a phone the question is longer than the screen, and the button that has the focus lies at its end."""
    settings = settings_in(tmp_path)
    ordered(settings.storage, "W1", by="Otto Example")
    box = "document.querySelector({!r}).getBoundingClientRect().{}"
    numbers = [f"W{number}" for number in range(1, 5)]
    with with_pacs(settings, tmp_path / "pacs", *numbers) as settings, served(settings, Desk()) as client:
        clerk = Clerk(browser, str(client.base_url))
        browser.size(390, height)
        try:
            clerk.come()
            clerk.ask(", ".join(numbers))
            while browser.run("document.activeElement.closest('#whose') !== null"):
                top, bottom = (browser.run(box.format("#whose .name", edge)) for edge in ("top", "bottom"))
                assert 0 <= float(str(top)) < float(str(bottom)) <= height
                focus = browser.run("document.activeElement.getBoundingClientRect().toJSON()")
                assert isinstance(focus, dict) and focus["bottom"] <= height
                assert focus["top"] >= float(str(browser.run(box.format("#who", "bottom"))))
                browser.press("Tab", shift=True)
        finally:
            browser.size(1280, 800)


def test_enter_on_a_choice_orders_no_second_disc(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    settings = settings.model_copy(update={"print": settings.print.model_copy(update={"default_action": "robot"})})
    ordered(settings.storage, "Z1", by="Otto Example")
    desk = Desk(Scripts(settings.storage).done)
    with with_pacs(settings, tmp_path / "pacs", "Z1") as settings, served(settings, desk) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        clerk.ask("Z1")
        browser.run("document.querySelector('#formats input').focus()")
        browser.press("Enter")
        browser.until("document.activeElement.id === 'back'")
        assert desk.asked == []


def test_numbers_that_are_looked_up_as_one_are_told_of(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    hint = "If these are several numbers, write an ordinary comma (,) between them."
    with with_pacs(settings, tmp_path / "pacs", "134", "77") as settings, served(settings, Desk()) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        for typed, told in (
            *((typed, True) for typed in ("134 77", "134 77 134 77 134 77", "134;77", "134/77", "134+77", "134，77")),
            ("999", False),
        ):
            browser.run("document.getElementById('problem').textContent = ''")
            browser.run("document.getElementById('numbers').value = ''")
            browser.until_ready("numbers")
            browser.type(typed)
            browser.press("Enter")
            browser.until(f"{clerk.text('#problem')} !== ''")
            assert str(clerk.reads("#problem")).endswith(hint) == told


def test_a_scan_takes_the_place_of_a_number_that_nobody_knows(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with with_pacs(settings, tmp_path / "pacs", "134") as settings, served(settings, Desk()) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        clerk.scans("999")
        browser.until("document.getElementById('numbers').value === '999'")  # to be corrected
        clerk.scans("134")
        clerk.sees()


@pytest.mark.parametrize(
    "pasted", ["134\t77", "134\n77\n", "\t134\t77\t", "134, 77", "134\t\n 77\t134\r\n", "77\t134,77"]
)
def test_numbers_that_come_from_a_table_are_several(browser: Chromium, tmp_path: Path, pasted: str) -> None:
    settings = settings_in(tmp_path)
    with with_pacs(settings, tmp_path / "pacs", "134", "77") as settings, served(settings, Desk()) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        paste(browser, pasted)
        browser.until("!document.getElementById('whose').hidden")
        shown = browser.run("[...document.querySelectorAll('#whose tbody tr')].map((row) => row.cells[0].textContent)")
        assert isinstance(shown, list) and sorted(shown) == ["134", "77"]


@pytest.mark.parametrize("pasted", ["134\t\t77", "134,\t77", "134,", "134;77"])
def test_what_may_be_another_number_or_lacks_one_is_looked_up_as_it_is(
    browser: Chromium, tmp_path: Path, pasted: str
) -> None:
    settings = settings_in(tmp_path)
    with with_pacs(settings, tmp_path / "pacs", "134", "77") as settings, served(settings, Desk()) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        paste(browser, pasted)
        browser.until(f"{clerk.text('#problem')} !== ''")
        assert browser.run("document.getElementById('whose').hidden")


def paste(browser: Chromium, text: str) -> None:
    """Have a text in the field as the clipboard brings it, and ask."""
    browser.until_ready("numbers")
    browser.run(f"document.execCommand('insertText', false, {json.dumps(text)})")
    browser.press("Enter")


def test_a_clerk_sees_that_a_slow_pacs_is_being_asked(browser: Chromium, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        pacs = CMove(ae_title="SILENT", host="127.0.0.1", port=silent.getsockname()[1])
        settings = settings_in(tmp_path).model_copy(update={"pacs": pacs})
        with served(settings, Desk()) as client:
            clerk = Clerk(browser, str(client.base_url))
            clerk.come()
            browser.type("?")
            browser.press("Enter")
            browser.until("document.getElementById('problem').textContent.includes('wildcard')")
            browser.run("document.getElementById('numbers').value = ''")
            browser.type("134")
            assert clerk.reads("#problem") == ""  # that was about another number
            browser.press("Enter")
            seen = "#announce.told"
            clerk.until_reads(seen, "Looking up the patient.")
            browser.until(f"getComputedStyle(document.querySelector({seen!r})).opacity === '1'")
            silent.close()
            browser.until("document.getElementById('problem').textContent.startsWith('The PACS')")
            assert browser.run(f"document.querySelector({seen!r}) === null")


def test_that_a_disc_could_not_be_asked_for_stays_while_the_next_number_is_typed(
    browser: Chromium, tmp_path: Path
) -> None:
    settings = settings_in(tmp_path)
    full = settings.storage.model_copy(update={"min_free_gib": 1e9})
    settings = settings.model_copy(update={"storage": full})
    with with_pacs(settings, tmp_path / "pacs", "A1") as settings, served(settings, Desk()) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        clerk.ask("A1")
        clerk.says_yes()
        browser.until(f"{clerk.text('#problem')} !== ''")
        told = clerk.reads("#problem")
        browser.type("B2")
        assert clerk.reads("#problem") == told


def test_a_time_is_written_as_on_the_pages_of_the_service(browser: Chromium, tmp_path: Path) -> None:
    with served(settings_in(tmp_path), Desk()) as client:
        Clerk(browser, str(client.base_url)).come()
        told = browser.run("import('/page/words.js').then(({ clock }) => clock('2026-01-02T15:04:00'))")
    assert told == language("en").moment(datetime(2026, 1, 2, 15, 4))


def test_a_clerk_whose_session_has_ended_is_told_so(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, auth=True)
    with with_pacs(settings, tmp_path / "pacs", "A1") as settings, served(settings, Desk()) as client:
        clerk = Clerk(browser, str(client.base_url))
        browser.call("Network.clearBrowserCookies")
        browser.open(clerk.url)
        browser.until_ready("key")
        assert clerk.reads(".ended") is None
        browser.type(KEY)
        browser.press("Enter")
        browser.until_ready("numbers")
        browser.call("Network.clearBrowserCookies")
        browser.type("A1")
        browser.press("Enter")
        browser.until_ready("key")
        assert clerk.reads(".ended") == "Your session has ended. Sign in again."
        clerk.finds_nothing_wrong()
        browser.type(KEY)
        browser.press("Enter")
        browser.until("document.querySelector('#numbers')?.value === 'A1'")  # nobody types it again
        browser.until_ready("numbers")
        browser.press("Enter")
        clerk.sees()
        browser.run("document.getElementById('back').click()")
        browser.call("Network.clearBrowserCookies")
        browser.open(f"{clerk.url}/api/iso/made?since=2026-01-01T00:00:00Z")
        assert clerk.reads(".words") == "Sign in, and you come back to this page."
        browser.run("document.querySelector('a.button').click()")
        browser.until_ready("key")
        for key in ("wrong", KEY):
            browser.type(key)
            browser.press("Enter")
            browser.until("document.readyState === 'complete' && document.querySelector('#key')?.value !== 'wrong'")
        browser.until("document.title === 'Who made what'")
        assert str(browser.run("location.href")).endswith("/api/iso/made?since=2026-01-01T00:00:00Z")
        browser.open(clerk.url)
        browser.until_ready("numbers")
        assert browser.run("document.getElementById('numbers').value") == ""


def test_prints_say_which_publisher_has_what(browser: Chromium, tmp_path: Path) -> None:
    publishers = {"rimage": CStore(), "epson": CStore()}
    settings = settings_in(tmp_path).model_copy(update={"publishers": publishers})
    scripts = Scripts(settings.storage)
    ends = iter([scripts.failed(PrintUncertain("Unclear.")), scripts.done])

    def script(job_id: str, question: Question) -> Standing:
        if question.accession_numbers == ("U1",):
            return next(ends)(job_id, question)
        scripts.report(job_id, question, status="done", stage="done", written=3, proves="done")
        return "completed"

    desk = Desk(script)
    desk.ended_before = datetime.now(UTC) - timedelta(minutes=25)
    with with_pacs(settings, tmp_path / "pacs", "P1", "U1") as settings, served(settings, desk) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        clerk.ask("P1")
        browser.run("document.querySelector('#publishers input').focus()")
        for key in ("ArrowRight", "Tab", "Tab", " "):  # epson, make the file, have a disc made
            browser.press(key)
        clerk.until_reads("#jobs .job .words", "epson has made the disc with 3 images. Collect it there.")
        assert (desk.asked[-1].publisher, desk.asked[-1].orders_told) == ("epson", 0)
        assert clerk.reads("#jobs .state") == "Made"
        assert clerk.reads("#jobs .remark") == "The same was ordered 25 minutes ago: this makes another disc."

        clerk.ask("U1")
        browser.press("Tab")
        browser.press(" ")
        clerk.until_reads("#jobs .failed .again", "I have looked: have it made again")
        browser.run("document.querySelector('#jobs .failed .again').focus()")
        browser.press(" ")
        clerk.sees()
        browser.until_ready("print")
        clerk.says_yes()
        clerk.until_reads("#jobs .job .state", "Ordered")
        assert desk.asked[-1].confirm_reprint
        assert browser.run(
            "[...document.querySelectorAll('#jobs .job')].map((job) => job.querySelector('.numbers').textContent)"
        ) == ["U1", "P1"]
        assert browser.run("document.activeElement.id") == "numbers"


def test_an_unclear_order_is_told_of_before_the_same_is_printed(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    desk = Desk(Scripts(settings.storage).done)
    book = OrderBook.of(settings.storage.orders_dir, ["U1"])
    book.ask("before")
    book.begin(order := book.open("before", 1, "rimage"))
    book.settle(order, "uncertain")
    with with_pacs(settings, tmp_path / "pacs", "U1") as settings, served(settings, desk) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        clerk.ask("U1")
        assert clerk.reads("#whose .unclear") == (
            "An earlier order of this disc ended unclear: less than a minute ago, rimage. The disc robot may already "
            "have made this disc. Look there first; have it made again only if it isn't there."
        )
        assert clerk.reads("#print") == "I have looked: have rimage make it again"
        clerk.finds_nothing_wrong()
        browser.run("document.getElementById('print').focus()")
        browser.press(" ")
        clerk.until_reads("#jobs .job .state", "Ordered")
        assert [(each.kind, each.confirm_reprint) for each in desk.asked] == [("print", True)]


def test_a_clerk_chooses_what_the_file_is(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    desk = Desk(Scripts(settings.storage).done)
    with with_pacs(settings, tmp_path / "pacs", "Z1", "Z2") as settings, served(settings, desk) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        clerk.ask("Z1")
        browser.run("document.querySelector('#formats input').focus()")
        browser.press("ArrowRight")
        clerk.finds_nothing_wrong()
        for key in ("Tab", " ", "Tab", " "):  # uncompressed images, then the button
            browser.press(key)
        clerk.until_reads("#jobs .job .state", "Ready")
        clerk.ask("Z2")
        clerk.says_yes()
        browser.until("document.querySelectorAll('#jobs .job').length === 2")
        assert [question.format for question in desk.asked] == ["zip", "iso"]
        assert [question.transfer_syntax for question in desk.asked] == ["explicit-le", ""]


@pytest.mark.parametrize("chosen", ["zip", "zip-encrypted"])
def test_what_is_asked_again_is_of_the_same_kind(browser: Chromium, tmp_path: Path, chosen: str) -> None:
    """An open disc file was offered, and made by an Enter, where an encrypted file had been made."""
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)
    desk = Desk(scripts.failed(PacsBusy("A701 from 10.0.0.1.")))
    with with_pacs(settings, tmp_path / "pacs", "Z1", "Z2") as settings, served(settings, desk) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        clerk.ask("Z1")
        for box in (f"#formats input[value={chosen}]", "#stored"):
            browser.run(f"document.querySelector({box!r}).click()")
        browser.run("document.getElementById('make').focus()")
        clerk.says_yes()
        clerk.until_reads("#jobs .job .state", "Failed")
        clerk.asks_again()
        clerk.says_yes()
        until(lambda: len(desk.asked) == 2)
        assert [(each.format, each.transfer_syntax) for each in desk.asked] == [(chosen, "explicit-le")] * 2
        clerk.ask("Z2")
        clerk.says_yes()
        until(lambda: len(desk.asked) == 3)
        assert (desk.asked[-1].format, desk.asked[-1].transfer_syntax) == ("iso", "")


def test_what_is_asked_again_is_encrypted_as_before_though_it_is_not_offered_here(
    browser: Chromium, tmp_path: Path
) -> None:
    """A program had asked for it; an Enter made an open file."""
    settings = settings_in(tmp_path)
    desk = Desk(Scripts(settings.storage).failed(PacsBusy("A701 from 10.0.0.1.")))
    with with_pacs(settings, tmp_path / "pacs", "Z1", "Z2") as settings, served(settings, desk) as client:
        client.get("/api/iso/download?accession_number=Z1&format=iso-cms", headers={"Prefer": "respond-async"})
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        clerk.until_reads("#jobs .job .state", "Failed")
        clerk.asks_again()
        clerk.says_yes()
        until(lambda: len(desk.asked) == 2)
        clerk.ask("Z2")
        clerk.says_yes()
        until(lambda: len(desk.asked) == 3)
        assert [each.format for each in desk.asked] == ["iso-cms", "iso-cms", "iso"]
        assert not browser.run("document.querySelectorAll('#formats [value=iso-cms]').length")


def test_a_de_identified_copy_hides_no_failed_disc_of_the_patient(browser: Chromium, tmp_path: Path) -> None:
    """What failed and was asked for again since isn't shown: a copy for research was taken for that."""
    offered = {"deidentified": Deidentified(secret=SecretStr("s" * 32))}
    settings = settings_in(tmp_path).model_copy(update=offered)
    scripts = Scripts(settings.storage)
    desk = Desk(scripts.failed(PacsBusy("A701 from 10.0.0.1.")))
    with with_pacs(settings, tmp_path / "pacs", "Z1") as settings, served(settings, desk) as client:
        clerk = Clerk(browser, str(client.base_url))
        for query, shown in (("", 1), ("&deidentified=true", 2), ("&deidentified=true", 2), ("", 2)):
            address = f"/api/iso/download?accession_number=Z1{query}"
            assert client.get(address, headers={"Prefer": "respond-async"}).status_code == 202
            clerk.come()
            browser.until(f"document.querySelectorAll('#jobs .job').length === {shown}")


def test_what_is_asked_again_is_of_the_same_language(browser: Chromium, tmp_path: Path) -> None:
    """A program has a disc made in a patient's language, and a clerk the same once more."""
    settings = settings_in(tmp_path)
    desk = Desk(Scripts(settings.storage).failed(PacsBusy("A701 from 10.0.0.1.")))
    with with_pacs(settings, tmp_path / "pacs", "Z1") as settings, served(settings, desk) as client:
        client.get("/api/iso/download?accession_number=Z1&language=th", headers={"Prefer": "respond-async"})
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        clerk.until_reads("#jobs .job .state", "Failed")
        clerk.asks_again()
        clerk.says_yes()
        until(lambda: len(desk.asked) == 2)
        assert [each.language for each in desk.asked] == ["th", "th"]


def test_without_javascript_the_page_says_so_and_offers_no_form(browser: Chromium, tmp_path: Path) -> None:
    with served(settings_in(tmp_path), Desk()) as client:
        browser.call("Emulation.setScriptExecutionDisabled", value=True)
        try:
            browser.open(str(client.base_url))
            assert "needs JavaScript" in str(
                browser.run("document.querySelector('main > noscript:first-child p').textContent")
            )
            assert browser.run("document.querySelector('noscript p').checkVisibility()")
            assert not browser.run("document.getElementById('numbers').checkVisibility()")
        finally:
            browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_a_site_without_a_publisher_offers_no_print(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path).model_copy(update={"publishers": {}})
    desk = Desk(Scripts(settings.storage).done)
    with with_pacs(settings, tmp_path / "pacs", "A1") as settings, served(settings, desk) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        clerk.ask("A1")
        browser.until_ready("make")
        assert browser.run("document.getElementById('print').hidden && document.getElementById('both').hidden")
        refused = client.get("/api/iso/print?accession_number=A")
        assert (refused.status_code, refused.json()["error"]) == (400, "This site has no disc publisher.")
        assert "enum" not in client.get("/api/openapi.json").json()["components"]["parameters"]["publisher"]["schema"]
        assert not [name for name in client.get("/api/health").json()["dependencies"] if name.startswith("publisher")]


def test_what_failed_is_asked_again_and_survives_a_reload_without_a_name(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)
    ends = iter([scripts.failed(PacsBusy("A701 from 10.0.0.1.")), scripts.done])
    desk = Desk(lambda job_id, question: next(ends)(job_id, question))
    with with_pacs(settings, tmp_path / "pacs", "E1", "E2") as settings, served(settings, desk) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        clerk.ask("E1,E2")
        clerk.says_yes()
        failed = f"{clerk.text('#jobs .failed .words')} === 'The PACS is busy. Ask again in a few minutes.'"
        browser.until(failed)
        assert str(clerk.reads("#jobs .cause p")).startswith("A701 from 10.0.0.1. Code pacs_busy, job ")
        browser.open(clerk.url)
        browser.until(failed)
        clerk.asks_again()
        clerk.says_yes()
        browser.until(
            "document.querySelectorAll('#jobs .done .discs a').length === 1 && document.querySelectorAll('#jobs "
            ".job').length === 1"
        )
        kept = str(browser.run("JSON.stringify(sessionStorage)"))
        assert "สมชาย" not in kept and "Anna" not in kept


@pytest.mark.parametrize("width", [320, 400, 560, 1000])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_on_a_narrow_screen(browser: Chromium, tmp_path: Path, width: int, scheme: str) -> None:
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)
    long = ({**STUDIES[0], "study_description": "Gefäßdarstellung" * 5}, *STUDIES)
    numbers = ("R234567890123456", "R234567890123457")

    def script(job_id: str, question: Question) -> Standing:
        scripts.report(job_id, question, stage="retrieving", expected=10, received=4, studies=long)
        return "running"

    inside = (
        "[...document.querySelectorAll('main *')].every((part) => part.getBoundingClientRect().right"
        " <= (part.parentElement.closest('#whose, .job')?.getBoundingClientRect().right ?? innerWidth))"
    )
    with with_pacs(settings, tmp_path / "pacs", *numbers) as settings, served(settings, Desk(script)) as client:
        clerk = Clerk(browser, str(client.base_url))
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        try:
            clerk.come()
            clerk.ask(",".join(numbers))
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
            assert browser.run(inside)
            clerk.finds_nothing_wrong()
            clerk.says_yes()
            browser.until("document.querySelectorAll('#jobs tbody tr').length === 3")
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
            assert browser.run(inside)
            clerk.finds_nothing_wrong()
        finally:
            browser.call("Emulation.clearDeviceMetricsOverride")
            browser.call("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("code", ["de", "th"])
def test_the_counter_speaks_the_browsers_language(browser: Chromium, tmp_path: Path, code: str) -> None:
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)
    spoken = language(code)

    def script(job_id: str, question: Question) -> Standing:
        if question.accession_numbers == ("R6",):
            scripts.report(job_id, question, stage="retrieving", expected=10, received=4, studies=STUDIES)
            return "running"
        return scripts.failed(PacsBusy("A701."))(job_id, question)

    with with_pacs(settings, tmp_path / "pacs", "A1", "R6") as settings, served(settings, Desk(script)) as client:
        clerk = Clerk(browser, str(client.base_url))
        browser.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": code})
        browser.call("Emulation.setDeviceMetricsOverride", width=320, height=800, deviceScaleFactor=1, mobile=False)
        try:
            clerk.come()
            assert browser.run("document.documentElement.lang") == code
            assert clerk.reads("#hint") == spoken.gettext("Type or scan it, then press Enter.")
            clerk.ask("A1")
            images = spoken.ngettext("%(number)s image", "%(number)s images", 1)
            clerk.until_reads("#whose td.images", images)
            assert clerk.reads("#whose .facts dt") == spoken.gettext("Born")
            assert clerk.reads("#whose .facts dd") == spoken.da("19700102")
            dates = ("20260312", "19620229", "20260431", "1962", "")
            days = f"import('/page/words.js').then(({{ day }}) => {list(dates)}.map(day))"
            assert browser.run(days) == [spoken.da(date) for date in dates]
            sent = {"stage": "sent to rimage (3 of 8)", "publisher": "rimage"}
            sending = spoken.gettext("Sending to %(publisher)s", publisher="rimage")
            told = browser.run(f"import('/page/words.js').then(({{ stage }}) => stage({json.dumps(sent)}))")
            assert told == spoken.gettext("%(stage)s.", stage=sending)
            assert clerk.reads("#print") == spoken.gettext("Yes, have %(publisher)s make a disc", publisher="rimage")
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
            clerk.finds_nothing_wrong()
            clerk.says_yes()
            busy = f"{spoken.gettext('The PACS is busy.')} {spoken.gettext('Ask again in a few minutes.')}"
            clerk.until_reads("#jobs .failed .words", busy)
            assert clerk.reads("#jobs .state") == spoken.gettext("Failed")
            clerk.ask("R6")
            clerk.says_yes()
            things = spoken.gettext("%(number)s images and reports", number="10")
            moved = spoken.gettext("%(number)s of %(things)s", number="4", things=things)
            stage = spoken.gettext("Fetching images")
            fetching = spoken.gettext("%(stage)s: %(images)s.", stage=stage, images=moved)
            clerk.until_reads("#jobs .running .words", fetching)
            assert clerk.reads("#jobs .running .state") == spoken.gettext("Working %(part)s", part="28 %")
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
            clerk.finds_nothing_wrong()
        finally:
            browser.call("Emulation.clearDeviceMetricsOverride")
            browser.call("Network.setExtraHTTPHeaders", headers={})


def test_every_error_has_words_for_the_clerk() -> None:
    known = set(ADVICE) - {"unreachable"}
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MkisoError)}
    assert known == codes - NOT_AT_THE_COUNTER | {"not_found", "method_not_allowed", "internal_error"}


def test_a_clerk_reads_the_password_of_an_encrypted_disc_once(browser: Chromium, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)
    password = "11111-22222-33333-44444-55555"

    def script(job_id: str, question: Question) -> Standing:
        hand_over(settings.storage, job_id, question.seal, password)
        return scripts.done(job_id, question)

    with with_pacs(settings, tmp_path / "pacs", "A1", "B2") as settings, served(settings, Desk(script)) as client:
        clerk = Clerk(browser, str(client.base_url))
        clerk.come()
        for number in ("A1", "B2"):
            clerk.ask(number)
            browser.run("document.querySelector('#formats input[value=zip-encrypted]').click()")
            browser.run("document.getElementById('make').focus()")
            clerk.says_yes()
            browser.until(f"{clerk.text('#jobs .done .numbers')} === {number!r}")
        browser.until("document.querySelectorAll('#jobs .locked:not([hidden])').length === 2")
        clerk.finds_nothing_wrong()
        assert browser.run("document.querySelectorAll('#jobs .letter a').length") == 2  # no insert for a disc's case
        browser.run("document.querySelector('#jobs .tell').click()")
        clerk.until_reads("#password[open] strong", password)
        assert clerk.reads("#password-title") == "B2: Password of the disc"  # there is another one
        clerk.finds_nothing_wrong()
        clerk.scans("C3")  # the next number, before the password was written down
        browser.press("Escape")
        clerk.until_reads("#password[open] strong", password)
        browser.press("Tab")
        browser.press("Enter")
        browser.until("!document.getElementById('password').open")
        browser.until("document.activeElement.matches('#jobs .job:has(.remark:not([hidden])) .discs a')")
        told = "[...document.querySelectorAll('#jobs .remark:not([hidden])')].map((each) => each.textContent)"
        [remark] = browser.run(told)
        assert str(remark).startswith("The disc is encrypted, and its password is told once")
        kept = "document.documentElement.outerHTML + JSON.stringify(sessionStorage)"
        browser.until(f"!({kept}).includes({password!r})")  # the dialog's event comes a moment after its end
        assert browser.run("document.querySelectorAll('#jobs .locked:not([hidden])').length") == 1
        browser.run("document.querySelector('#jobs .locked:not([hidden]) button:not(.tell)').click()")
        browser.until("document.querySelectorAll('#jobs .locked:not([hidden])').length === 0")
        left = settings.storage.reports_dir
        until(lambda: not [*left.rglob("*.sealed")])

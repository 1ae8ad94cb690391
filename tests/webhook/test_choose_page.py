"""Choosing series and studies on the counter page, in Chromium and with the keyboard alone: the page says what the disc
will lack, and just that is asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mkiso.config.disc import Priors
from mkiso.config.settings import Settings
from mkiso.config.sources import CMove
from mkiso.demo.pacs import DemoPacs
from mkiso.languages import language
from mkiso.study.selection import Selection
from peers.chromium import Chromium
from peers.corpus import make_study
from tests.webhook.desk import Desk, Scripts, served, settings_in
from tests.webhook.test_page import Clerk
from tests.webhook.test_search_page import opens_search, signs_in

pytestmark = [pytest.mark.peer, pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")]

BOXES = "[...document.querySelectorAll('#choices input')]"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A PACS with a study of three series, and one of the same patient that has no accession number."""
    files = [
        *make_study(tmp_path / "1", "A1", kinds={"ct": 3, "mr": 2, "sr": 1}, description="Thorax with a long name"),
        *make_study(tmp_path / "2", "", kinds={"ct": 1}),
    ]
    with DemoPacs(files) as pacs:
        source = CMove(ae_title=pacs.ae_title, host=pacs.host, port=pacs.port)
        yield settings_in(tmp_path / "data", auth=True).model_copy(update={"pacs": source})


def opens_choice(browser: Chromium) -> None:
    browser.run("document.querySelector('#choose summary').focus()")
    browser.press("Enter")
    browser.until("document.querySelector('#choose').open")


def ticks(browser: Chromium, box: int) -> None:
    """As a press of the space bar does."""
    browser.run(f"{BOXES}[{box}].focus()")
    browser.press(" ")


def test_a_clerk_chooses_series_by_keyboard(browser: Chromium, settings: Settings) -> None:
    desk = Desk(Scripts(settings.storage).done)
    with served(settings, desk) as client:
        clerk = signs_in(browser, str(client.base_url))
        clerk.ask("A1")
        assert browser.run("!document.querySelector('#choose').open && document.querySelector('#part').hidden")
        opens_choice(browser)
        assert browser.run(f"{BOXES}.map((box) => box.checked)") == [True] * 4
        ticks(browser, 1)
        clerk.until_reads("#part", "Only 2 of 3 series go onto the disc. The disc says that it isn't everything.")
        assert browser.run(f"[{BOXES}[0].checked, {BOXES}[0].indeterminate]") == [False, True]
        clerk.finds_nothing_wrong()
        ticks(browser, 0)  # all again
        browser.until("document.querySelector('#part').hidden")
        ticks(browser, 0)  # none
        clerk.until_reads("#part", "Tick at least one series.")
        assert browser.run("document.querySelector('#make').disabled")
        ticks(browser, 2)
        clerk.until_reads("#part", "Only 1 of 3 series goes onto the disc. The disc says that it isn't everything.")
        browser.run("document.querySelector('#make').focus()")
        clerk.says_yes()
        browser.until("document.querySelectorAll('#jobs > li').length === 1")
    [asked] = desk.asked
    assert (asked.accession_numbers, asked.selection.studies, len(asked.selection.series)) == (("A1",), (), 1)
    assert asked.shown


@pytest.mark.parametrize(("ticked", "told"), [((), 0), ((1, 1), 0), ((1,), -1)])
def test_nobody_was_told_how_often_a_part_was_ordered(
    browser: Chromium, settings: Settings, ticked: tuple[int, ...], told: int
) -> None:
    """What the page says of earlier orders is of what was looked up."""
    desk = Desk(Scripts(settings.storage).done)
    with served(settings, desk) as client:
        clerk = signs_in(browser, str(client.base_url))
        clerk.ask("A1")
        opens_choice(browser)
        for number in ticked:
            ticks(browser, number)
        browser.run("document.querySelector('#print').click()")
        browser.until("document.querySelectorAll('#jobs > li').length === 1")
    assert [(each.kind, each.orders_told) for each in desk.asked] == [("print", told)]


def test_what_is_left_alone_is_the_whole_question(browser: Chromium, settings: Settings) -> None:
    desk = Desk(Scripts(settings.storage).done)
    with served(settings, desk) as client:
        clerk = signs_in(browser, str(client.base_url))
        clerk.ask("A1")
        clerk.says_yes()
        browser.until("document.querySelectorAll('#jobs > li').length === 1")
    assert not desk.asked[0].selection


def test_a_chosen_series_that_the_page_cannot_offer_stays_chosen(browser: Chromium, settings: Settings) -> None:
    untold = "accession_number: 'A1', study_date: '', modalities: [], study_description: '', series: []"
    with served(settings, Desk()) as client:
        signs_in(browser, str(client.base_url)).ask("A1")
        asked = browser.run(f"""(async () => {{
            const {{ begin, chosen }} = await import("/page/choose.js");
            const question = {{ numbers: ["A1"], studies: [], series: ["1.2.1.1"] }};
            const studies = ["1.2.1", "1.2.2"].map((uid) => ({{ study_instance_uid: uid, {untold} }}));
            begin({{ question, studies, is_part: true }}, () => {{}});
            return chosen().question;
        }})()""")
    assert asked == {"numbers": ["A1"], "studies": [], "series": ["1.2.1.1"]}


def test_a_study_without_a_number_is_found_and_ticked(browser: Chromium, settings: Settings) -> None:
    desk = Desk(Scripts(settings.storage).done)
    with served(settings, desk) as client:
        clerk = signs_in(browser, str(client.base_url))
        opens_search(browser)
        browser.type("HN-0001")
        browser.press("Enter")
        browser.until("document.querySelectorAll('#patients input').length === 2")
        browser.run("for (const box of document.querySelectorAll('#patients input')) box.click()")
        browser.run("document.querySelector('#hits').requestSubmit()")
        clerk.sees()
        clerk.finds_nothing_wrong()
        clerk.says_yes()
        browser.until("document.querySelectorAll('#jobs > li').length === 1")
    [asked] = desk.asked
    assert (asked.accession_numbers, len(asked.selection.studies), asked.selection.series) == ((), 2, ())


@pytest.mark.parametrize(("code", "width"), [("de", 320), ("th", 320), ("fr", 320), ("es", 320), ("en", 1000)])
def test_nothing_sticks_out_while_a_clerk_chooses(
    browser: Chromium, settings: Settings, tmp_path: Path, code: str, width: int
) -> None:
    inside = (
        "[...document.querySelectorAll('main *')].every((part) => part.getBoundingClientRect().right <= innerWidth)"
    )
    with served(settings, Desk()) as client:
        browser.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": code})
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=1200, deviceScaleFactor=1, mobile=False)
        try:
            clerk: Clerk = signs_in(browser, str(client.base_url))
            clerk.ask("A1")
            assert clerk.reads("#choose summary") == language(code).gettext("Choose studies or series")
            opens_choice(browser)
            ticks(browser, 1)
            browser.until("!document.querySelector('#part').hidden")
            browser.picture(tmp_path / f"choose-{code}.png")
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
            assert browser.run(inside)
            clerk.finds_nothing_wrong()
        finally:
            browser.call("Emulation.clearDeviceMetricsOverride")
            browser.call("Network.setExtraHTTPHeaders", headers={})


def test_earlier_examinations_are_offered_and_ticked(browser: Chromium, tmp_path: Path) -> None:
    """The tick says how many they are; they are asked for as the clerk leaves it."""
    files = make_study(tmp_path / "1", "A1") + make_study(tmp_path / "2", "A0", study_date="20200101")
    with DemoPacs(files) as pacs:
        site = {
            "pacs": CMove(ae_title=pacs.ae_title, host=pacs.host, port=pacs.port),
            "priors": Priors(count=2, body_part="any", default=True),
        }
        settings = settings_in(tmp_path / "data", auth=True).model_copy(update=site)
        desk = Desk(Scripts(settings.storage).done)
        with served(settings, desk) as client:
            clerk = signs_in(browser, str(client.base_url))
            clerk.ask("A1")
            clerk.until_reads("#with-priors span", "With 1 earlier examination for comparison.")
            assert browser.run("document.querySelector('#priors').checked")
            rows = "[...document.querySelectorAll('#whose tbody tr')]"
            assert (
                browser.run(f"{rows}.map((row) => row.cells[3].textContent.split(':')[0])")[1] == "Earlier examination"
            )
            clerk.finds_nothing_wrong()
            browser.run("document.querySelector('#priors').focus()")
            browser.press(" ")
            browser.until(f"{rows}[1].classList.contains('out')")
            browser.press(" ")
            browser.until(f"!{rows}[1].classList.contains('out')")
            browser.run("document.querySelector('#make').focus()")
            clerk.says_yes()
            browser.until("document.querySelectorAll('#jobs > li').length === 1")
        assert [asked.selection for asked in desk.asked] == [Selection(priors=True)]

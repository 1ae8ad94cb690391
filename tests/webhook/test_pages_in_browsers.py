"""The pages without a script to which links lead, in the browsers that people have and in their languages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mkiso.errors import PacsBusy
from mkiso.languages import language
from mkiso.study.question import Question
from mkiso_service.prefect.orchestrator import Standing
from peers.browser import Browser
from tests.webhook.browsers import BROWSERS, browser_of, goes_to, is_right, refusals, text
from tests.webhook.desk import Desk, Scripts, served, settings_in

pytestmark = [
    pytest.mark.peer,
    *(
        pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")
        for program in ("chromium", "firefox-esr")
    ),
]


@pytest.fixture(scope="module", params=BROWSERS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, str]]:
    """A browser, and the language of whoever sits before it."""
    kind, _, code = request.param.partition("-")
    with browser_of(kind, code, tmp_path_factory.mktemp(request.param)) as browser:
        yield browser, code


def test_each_page_that_an_old_link_leads_to(opened: tuple[Browser, str], tmp_path: Path) -> None:
    browser, code = opened
    browser.events.clear()
    settings = settings_in(tmp_path / "data")
    scripts = Scripts(settings.storage)

    def script(job_id: str, question: Question) -> Standing:
        match question.accession_numbers[0]:
            case "SET":
                return scripts.set_of(2)(job_id, question)
            case "RUNS":
                return scripts.report(job_id, question, stage="retrieving", expected=1204, received=301)
            case "FAILS":
                return scripts.failed(PacsBusy("A701 from 10.0.0.1."))(job_id, question)
        return scripts.done(job_id, question)

    desk = Desk(script)
    spoken = language(code)
    with served(settings, desk) as client:
        url = str(client.base_url).rstrip("/")
        for number, title in (
            ("SET", "Several discs"),
            ("RUNS", "Patient disc"),
            ("FAILS", "No disc"),
            ("*", "No disc"),
        ):
            browser.open(f"{url}/api/iso/download?accession_number={number}")
            assert browser.run("document.title") == spoken.gettext(title)
            is_right(browser, code, tmp_path, number.replace("*", "wrong"))
        client.get("/api/iso/download?accession_number=GOOD", headers={"Prefer": "respond-async"})
        [job_id] = [job for job, standing in desk.standings.items() if standing == "completed"][-1:]
        browser.open(f"{url}/api/iso/jobs/{job_id}")
        is_right(browser, code, tmp_path, "ready")
        goes_to(browser, ".discs a")
        browser.open(f"{url}/nowhere")
        assert browser.run("document.title") == spoken.gettext("That didn't work")
        goes_to(browser, "summary")
        browser.press("Enter")
        browser.until("document.querySelector('details').open")
        assert "not_found" in str(browser.run(text("details")))
        is_right(browser, code, tmp_path, "nowhere")
        browser.open(f"{url}/api/iso/made")
        is_right(browser, code, tmp_path, "made")
        heads = "[...document.querySelectorAll('.made th')].map((each) => each.textContent).join()"
        beside = "[...document.querySelectorAll('.made tr:last-child td')].map((each) => each.dataset.what).join()"
        assert browser.run(heads) == browser.run(beside)
        browser.open(f"{url}/api/iso/print?accession_number=GOOD&publisher=none")
        is_right(browser, code, tmp_path, "no-robot")
        browser.open(f"{url}/docs")
        is_right(browser, code, tmp_path, "docs")
        assert refusals(browser) == []

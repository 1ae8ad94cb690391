"""The page to which a link to a print leads: whose disc it would be, what was made before, and how the robot is, before
anything is ordered.
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from mkiso.config.access import Auth, Key
from mkiso.config.disc import Disc, Identity
from mkiso.config.publishers import CStore
from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso.languages import language
from mkiso.publishers.orderbook import OrderBook, State
from mkiso.storage.askings import asking, write_asking
from mkiso.storage.report import JobReport, write_report
from mkiso.study.question import Question
from peers.browser import Browser
from peers.ports import free_port
from tests.webhook.browsers import BROWSERS, browser_of, goes_to, is_right, refusals, text
from tests.webhook.desk import Desk, Scripts, served, settings_in
from tests.webhook.pacs import with_pacs
from tests.webhook.test_shown_pages import BROWSER

PRINT = "/api/iso/print?accession_number=A1"
PRESSED = {**BROWSER, "Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module", params=BROWSERS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, str]]:
    """A browser, and the language of whoever sits before it."""
    kind, _, code = request.param.partition("-")
    with browser_of(kind, code, tmp_path_factory.mktemp(request.param)) as browser:
        yield browser, code


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Settings]:
    """Its robot isn't there: nobody listens at its port, whatever else runs on this machine."""
    settings = settings_in(tmp_path / "data")
    away = settings.publishers["rimage"].model_copy(update={"port": free_port()})
    settings = settings.model_copy(update={"publishers": {"rimage": away}})
    with with_pacs(settings, tmp_path / "pacs", "A1", "A2") as settings:
        yield settings


def ordered(storage: Storage, *numbers: str, by: str, state: State = "given") -> None:
    """An order that the robot has taken, or may have."""
    book, job_id = OrderBook.of(storage.orders_dir, numbers), str(uuid4())
    question = Question("print", numbers, "rimage")
    write_asking(storage, job_id, asking("10.0.0.7", "page", question, Disc(), user=by, name=by))
    book.ask(job_id)
    entry = book.open(job_id, 0, "rimage")
    book.begin(entry)
    book.settle(entry, state)


@pytest.mark.peer
@pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("firefox-esr")), reason="a browser is not installed")
def test_a_person_sees_whose_disc_it_is_and_what_was_made_before(
    opened: tuple[Browser, str], site: Settings, tmp_path: Path
) -> None:
    browser, code = opened
    browser.events.clear()
    desk = Desk(Scripts(site.storage).done)
    spoken = language(code)
    with served(site, desk) as client:
        address = f"{client.base_url}{PRINT},A2"
        browser.open(address)
        assert browser.run(text(".name")) == "Example, Anna"
        facts = "[...document.querySelectorAll('.facts dd')].map((fact) => fact.textContent)"
        assert browser.run(facts) == [spoken.da("19700102"), spoken.gettext("female"), "HN-0001"]
        rows = "[...document.querySelectorAll('td.number')].map((cell) => cell.textContent)"
        assert browser.run(rows) == ["A1", "A2"]
        told = "%(publisher)s can't take an order now. Check that it is on; if it is, tell the administrator."
        assert browser.run(text(".remark")) == spoken.gettext(told, publisher="rimage")
        assert "127.0.0.1" in str(browser.run(text(".cause p[lang=en]")))  # nobody listens at the robot's port
        is_right(browser, code, tmp_path, "first")
        for name in ("Clara Example", "Otto Example"):
            ordered(site.storage, "A1", by=name)
        browser.open(address)
        when = spoken.gettext("less than a minute ago")
        before = f"{when}, rimage, Otto Example"
        assert browser.run(text("#who .remark")) == spoken.ngettext(
            "There is %(number)s earlier order of this disc: %(facts)s.",
            "There are %(number)s earlier orders of this disc, last: %(facts)s.",
            2,
            facts=before,
        )
        is_right(browser, code, tmp_path, "again")
        assert desk.asked == []
        goes_to(browser, "form button")
        assert browser.run(text("form button")) == spoken.gettext(
            "Yes, have %(publisher)s make another disc", publisher="rimage"
        )
        browser.press("Enter")
        browser.until("location.pathname.startsWith('/api/iso/jobs/') && document.readyState === 'complete'")
        is_right(browser, code, tmp_path, "ordered")
        shown = client.get("/api/iso/preview?accession_number=A1,A2").json()["shown"]
        assert [(each.kind, each.accession_numbers, each.shown, each.orders_told) for each in desk.asked] == [
            ("print", ("A1", "A2"), shown, 2)
        ]
        assert refusals(browser) == []


def test_an_unclear_order_is_told_of_and_made_again_only_by_who_has_looked(site: Settings) -> None:
    ordered(site.storage, "A1", by="Clara Example", state="uncertain")
    desk = Desk(Scripts(site.storage).done)
    told = (
        "An earlier order of this disc ended unclear: less than a minute ago, rimage, Clara Example. The disc robot "
        "may already have made this disc. Look there first; have it made again only if it isn't there."
    )
    with served(site, desk) as client:
        preview = client.get("/api/iso/preview?accession_number=A1").json()
        assert preview["ordered"] is None
        assert preview["unclear"] == {"publisher": "rimage", "minutes": 0, "who": ["Clara Example"], "orders": 1}
        assert client.get("/api/iso/preview?accession_number=A2").json()["unclear"] is None
        page = html.unescape(client.get(PRINT, headers=BROWSER).text)
        assert told in page and "Yes, have" not in page
        assert re.search(r'<button [^>]*class="second">I have looked: have rimage make it again</button>', page)
        [action] = re.findall(r'<form method="post" action="([^"]+)"', page)
        assert client.post(f"/api/iso/print{action}", headers=PRESSED).status_code == 303
        assert [each.confirm_reprint for each in desk.asked] == [True]
        client.get("/api/iso/print?accession_number=A1&publisher=rimage")  # a program hasn't looked
        assert [each.confirm_reprint for each in desk.asked] == [True, False]


def test_who_must_give_a_birth_date_is_shown_nobody_before(site: Settings) -> None:
    settings = site.model_copy(update={"identity": Identity(confirm_birth_date=True)})
    desk = Desk(Scripts(site.storage).done)
    with served(settings, desk) as client:
        page = client.get(f"{PRINT}&language=fr", headers=BROWSER)
        assert page.status_code == 200 and "Anna" not in page.text and 'name="birth_date"' in page.text
        assert 'method="get"' in page.text and 'name="language" value="fr"' in page.text
        wrong = client.get(f"{PRINT}&birth_date=1970-01-03", headers=BROWSER)
        assert wrong.status_code == 409 and "Anna" not in wrong.text
        page = client.get(f"{PRINT}&birth_date=1970-01-02", headers=BROWSER)
        assert "Example, Anna" in page.text and 'name="birth_date" value="1970-01-02"' in page.text
        assert client.post(PRINT, headers=PRESSED).status_code == 400
        assert desk.asked == []
        assert client.post(PRINT, headers=PRESSED, data={"birth_date": "1970-01-02"}).status_code == 303
        assert len(desk.asked) == 1


@pytest.mark.parametrize(
    "asked", ["download?accession_number=A1&_=17", "download-multiple?accession_numbers=A1,A2&format=zip&birth_date="]
)
def test_a_link_to_a_disc_asks_for_the_birth_date_too(site: Settings, asked: str) -> None:
    settings = site.model_copy(update={"identity": Identity(confirm_birth_date=True)})
    desk = Desk(Scripts(site.storage).done)
    with served(settings, desk) as client:
        page = client.get(f"/api/iso/{asked}", headers=BROWSER)
        assert page.status_code == 200 and desk.asked == [] and "Anna" not in page.text
        told = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.text))
        assert told == dict(pair.split("=") for pair in asked.partition("?")[2].removesuffix("&birth_date=").split("&"))
        address = page.url.copy_with(query=None).copy_merge_params({**told, "birth_date": "1970-01-02"})
        disc = client.get(address, headers={**BROWSER, "Sec-Fetch-Site": "same-origin"}, follow_redirects=True)
        assert disc.status_code == 200 and len(desk.asked) == 1
        assert client.get(f"/api/iso/{asked}").status_code == 400  # a program is told what is missing


def test_a_person_is_told_what_to_do_where_there_is_no_such_robot(site: Settings) -> None:
    with served(site.model_copy(update={"publishers": {}}), Desk()) as client:
        page = client.get(PRINT, headers=BROWSER)
        assert page.status_code == 400 and "Have the disc file made instead." in page.text
        assert client.get(PRINT).json()["code"] == "publisher_unknown"


def test_a_key_that_may_not_see_whose_a_study_is_sees_it_on_no_page_either(site: Settings) -> None:
    key = "print-0123456789abcdef"
    auth = Auth(enabled=True, keys={"print": Key(key=key, rights=("print",))})
    with served(site.model_copy(update={"auth": auth}), Desk()) as client:
        page = client.get(PRINT, headers={**BROWSER, "X-API-Key": key})
    assert page.status_code == 403 and "Anna" not in page.text


def test_who_orders_is_told_that_a_source_could_not_be_asked(site: Settings) -> None:
    here = site.pacs.model_copy(update={"name": "here"})
    old = here.model_copy(update={"name": "old", "port": free_port()})
    settings = site.model_copy(update={"sources": {"here": here, "old": old}})
    words = "The PACS old couldn&#39;t be asked: it may have more images."
    job_id = str(uuid4())
    write_report(site.storage, JobReport(job_id, "print", ("A1",), degraded=("source_down:old",), status="done"))
    with served(settings, Desk()) as client:
        assert words in client.get(PRINT, headers=BROWSER).text
        assert words in client.get(f"/api/iso/jobs/{job_id}", headers=BROWSER).text


@pytest.mark.parametrize("code", ["en", "de", "es", "fr", "th"])
def test_what_is_wrong_with_the_robot_is_told_in_the_readers_language(site: Settings, code: str) -> None:
    spoken, job_id = language(code), str(uuid4())
    report = JobReport(job_id, "print", ("A1",), publisher="rimage", proves="queued", written=2, status="done")
    write_report(site.storage, report)
    now = "%(publisher)s can't take an order now. Check that it is on; if it is, tell the administrator."
    order = (
        "%(publisher)s has the order (%(images)s), but something is wrong there. Check that it is on; if it is, tell "
        "the administrator."
    )
    images = spoken.ngettext("%(number)s image", "%(number)s images", 2)
    with served(site, Desk()) as client:
        for address, words in (
            (PRINT, spoken.gettext(now, publisher="rimage")),
            (f"/api/iso/jobs/{job_id}", spoken.gettext(order, publisher="rimage", images=images)),
        ):
            page = html.unescape(client.get(address, headers={**BROWSER, "Accept-Language": code}).text)
            assert f">{words}<" in page
            summary = f"<summary>{spoken.gettext('For the administrator')}</summary>"
            assert re.search(rf'{summary}\s*<p lang="en" dir="ltr">rimage \(RIMAGE at 127\.0\.0\.1', page), page


@pytest.mark.parametrize(("number", "status"), [("X1", 404), ("*", 400)])
def test_what_no_disc_can_be_made_of_is_said_at_once(site: Settings, number: str, status: int) -> None:
    with served(site, Desk()) as client:
        answer: httpx.Response = client.get(f"/api/iso/print?accession_number={number}", headers=BROWSER)
    assert answer.status_code == status and "<button" not in answer.text


def test_who_has_several_robots_may_choose_another_and_nothing_is_ordered(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "data")
    robots = {"rimage": CStore(), "epson": CStore()}
    desk = Desk(Scripts(settings.storage).done)
    with (
        with_pacs(settings.model_copy(update={"publishers": robots}), tmp_path / "pacs", "A1") as site,
        served(site, desk) as client,
    ):
        page = client.get(f"{PRINT}&confirm_reprint=true&language=de", headers=BROWSER).text
        [link] = re.findall(r'<a href="([?][^"]+)">epson</a>', page)
        assert re.search(r'<a class="button quiet" href="/\?ended">No, go back</a>', page)
        other = client.get(f"/api/iso/print{link.replace('&amp;', '&')}", headers=BROWSER).text
        assert "have epson make a disc" in other and ">rimage</a>" in other
        assert "language=de" in link and "confirm_reprint" not in link, "nobody has looked at that robot"
    assert desk.asked == []

"""How inboxes stand, over HTTP and on a page."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from mkiso.config.settings import Settings
from mkiso.languages import language
from mkiso.receiver.pushed import Ask, PushedStudy
from mkiso_service.webhook.counter import inboxes
from tests.webhook.browsers import browser_of, is_right
from tests.webhook.desk import Desk, served, settings_in

NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "same-origin"}
JOB = "0b0a1b2c-0000-4000-8000-000000000001"
STUDIES: tuple[tuple[Ask, ...], ...] = (
    (),  # waits
    (Ask("j1", "f", 1, 10.0, "failed", 11.0),),
    (Ask("j2", "f", 1, 10.0, "done", 12.0), Ask("j3", "g", 2, 20.0)),  # runs again
    (Ask(JOB, "f", 1, 30.0, "done", 40.0),),
)
REFUSED = {
    "last_refusal": "CT9@10.0.0.1: it isn't one of inboxes.BURN.senders",
    "last_refusal_sender": "CT9@10.0.0.1",
    "last_refusal_cause": "unknown_sender",
    "last_refusal_time": 50.0,
}
COUNTS = {"BURN": {"stored": 7, "refused": 1, **REFUSED}}


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    rules = {"BURN": {"senders": ["CT1"]}, "PRINT": {"senders": ["CT1"], "publisher": "rimage"}}
    given = settings_in(tmp_path).model_dump() | {"inboxes": rules}
    settings = Settings.model_validate(given)
    for number, asked in enumerate(STUDIES, 1):
        study = PushedStudy(settings.storage, "BURN", f"1.2.{number}")
        study.instances_dir.mkdir(parents=True)
        if asked:
            study.note_asked(asked)
    return settings


def test_each_inbox_is_told_with_what_waits_and_its_last_disc(site: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(site, Desk()) as client:
        told = client.get("/api/inboxes").json()["inboxes"]
        assert [(each["name"], each["images"], each["last_refusal"]) for each in told] == [
            ("BURN", None, None),
            ("PRINT", None, None),
        ]
        burn = told[0]
        assert (burn["waiting"], burn["running"], burn["failed"]) == (1, 1, 1)
        assert (burn["last_disc"], burn["last_disc_time"]) == (JOB, "1970-01-01T00:00:40+00:00")
        assert (told[1]["publisher"], told[1]["last_disc"], told[1]["waiting"]) == ("rimage", "", 0)
        monkeypatch.setattr(inboxes, "receiver_status", lambda *_: {"inboxes": COUNTS})
        burn = client.get("/api/inboxes").json()["inboxes"][0]
        assert (burn["images"], burn["refused"], burn["last_refusal"]) == (7, 1, REFUSED["last_refusal"])
        assert burn["last_refusal_time"] == "1970-01-01T00:00:50+00:00"


def test_the_page_says_the_last_refusal_in_its_language(site: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "receiver_status", lambda *_: {"inboxes": COUNTS})
    spoken = language("fr")
    with served(site, Desk()) as client:
        asked = {"Accept": "text/html", "Accept-Language": "fr", **NAVIGATION}
        page = unescape(client.get("/api/inboxes", headers=asked).text)
    said, _, for_administrator = page.partition('<details class="cause">')
    [words] = re.findall('<p class="remark">(.*)</p>', said)
    assert spoken.gettext("this sender isn't known here") in words
    assert "CT9@10.0.0.1" in words and "1970" in words and "inboxes." not in words
    assert str(REFUSED["last_refusal"]) in for_administrator


@pytest.mark.parametrize("moment", [1e12, 1e17, 1e300])
def test_a_disc_of_a_time_that_is_none_hides_nothing_else(site: Settings, moment: float) -> None:
    PushedStudy(site.storage, "BURN", "1.2.4").note_asked((Ask(JOB, "f", 1, 30.0, "done", moment),))
    with served(site, Desk()) as client:
        burn = client.get("/api/inboxes").json()["inboxes"][0]
        assert (burn["last_disc"], burn["last_disc_time"], burn["waiting"]) == (JOB, "", 1)
        assert client.get("/api/inboxes", headers={"Accept": "text/html", **NAVIGATION}).status_code == 200


@pytest.fixture
def bangkok(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Asia/Bangkok")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("bangkok")
def test_the_page_tells_times_as_the_site_s_clocks_do(site: Settings) -> None:
    with served(site, Desk()) as client:
        page = client.get("/api/inboxes", headers={"Accept": "text/html", **NAVIGATION}).text
    assert "The last disc: January 1, 1970, 07:00" in page and "UTC" not in page


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["chromium-de", "firefox-es"])
def test_the_page_of_inboxes_is_right_on_a_phone_and_on_a_desk(
    site: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(inboxes, "receiver_status", lambda *_: {"inboxes": COUNTS})
    browser_kind, _, code = kind.partition("-")
    with served(site, Desk()) as client, browser_of(browser_kind, code, tmp_path / kind) as browser:
        browser.open(f"{client.base_url}/")
        browser.until("!!document.querySelector('a[href=\"/api/inboxes\"]')")
        browser.open(f"{client.base_url}/api/inboxes")
        is_right(browser, code, tmp_path, "inboxes")
        assert "BURN" in str(browser.run("document.body.innerText"))

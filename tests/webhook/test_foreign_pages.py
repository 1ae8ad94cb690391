"""What makes paper or plastic is never an accident: other sites' pages, in Chromium too, print by the button alone."""

import asyncio
import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import fromstring

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mkiso.config.settings import Audit, Settings
from mkiso.storage.handover import hand_over
from mkiso.study.question import Question
from mkiso_service.prefect.orchestrator import Orchestrator, Standing
from mkiso_service.webhook import server
from mkiso_service.webhook.app import build_app
from peers.chromium import Chromium
from peers.patience import until
from tests.webhook.browsers import browser_of
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in
from tests.webhook.pacs import with_pacs

PRINT = "/api/iso/print?accession_number=A1&confirm_reprint=true"
HTML = {"Accept": "text/html,*/*;q=0.8"}
IMAGE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", **HTML}
BUTTON = {**LINK, "Sec-Fetch-Site": "same-origin"}
RIS = "https://ris.example.org"


@pytest.fixture(scope="module")
def locked_desk() -> Desk:
    return Desk()


@pytest.fixture(scope="module")
def locked_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("locked")
    settings = settings_in(folder, auth=True, trusted_origins=(RIS,), hosts=("discs.example.org",))
    with with_pacs(settings, folder / "pacs", "A1", "<b>A") as settings:
        yield settings.model_copy(update={"audit": Audit(enabled=True)})


@pytest.fixture(scope="module")
def locked(locked_settings: Settings, locked_desk: Desk) -> Iterator[httpx.Client]:
    locked_desk.anew(Scripts(locked_settings.storage).done)
    with served(locked_settings, locked_desk) as client:
        yield client


@pytest.fixture(scope="module")
def ways_in(locked: httpx.Client) -> list[dict[str, str]]:
    """The headers of whoever has the key, has signed in, has neither."""
    session = locked.post("/session", data={"key": KEY}).headers["set-cookie"].partition(";")[0]
    locked.cookies.clear()
    return [{"X-API-Key": KEY}, {"Cookie": session}, {}]


@pytest.mark.parametrize(
    "path", [PRINT, "/api/iso/download?accession_number=A1", "/api/iso/download-multiple?accession_numbers=A1,B2"]
)
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_sites_page_asks_nothing_by_itself_whatever_key_it_has(
    locked: httpx.Client,
    locked_desk: Desk,
    locked_settings: Settings,
    ways_in: list[dict[str, str]],
    path: str,
    site: str,
) -> None:
    for way_in in ways_in:
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            answer = locked.request(method, path, headers={**IMAGE, "Sec-Fetch-Site": site, **way_in})
            assert answer.status_code == 403
            assert method == "HEAD" or answer.json()["code"] == "foreign_request"
        assert locked.get(path, headers={"Sec-Fetch-Site": site, **way_in}).status_code == 403
        assert (
            locked.get(path, headers={"Origin": "https://evil.example", **way_in}).status_code == 403
        )  # a browser that knows no Sec-Fetch
        assert (
            locked.get(path, headers={"Accept-Language": "en", **way_in}).status_code == 403
        )  # … over plain http, from a page that hides itself
    assert locked_desk.asked == []
    alert = fromstring((locked_settings.storage.data_dir / "audit.xml").read_text(encoding="utf-8").splitlines()[-1])
    assert alert[0][0].attrib["originalText"] == "Security Alert"


def test_a_link_gets_a_page_and_its_button_prints_once(locked: httpx.Client, locked_desk: Desk) -> None:
    way_in = {"X-API-Key": KEY}  # as nginx adds it for everybody
    page = locked.get(PRINT, headers={**LINK, **way_in})
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert (
        "frame-ancestors 'none'" in page.headers["content-security-policy"]
        and page.headers["x-frame-options"] == "DENY"
    )
    assert (
        page.headers["cache-control"] == "no-store"
        and "A1" in page.text
        and page.text.count("<button") == 1
        and "<script" not in page.text
    )
    assert (
        locked.post(PRINT, headers={**LINK, "Origin": "https://evil.example", **way_in}).text == page.text
    )  # a form on that page
    for typed in (
        "none",
        "same-origin",
    ):  # an address that a browser completed, a tab that it brought back, a page that was loaded again
        assert locked.get(PRINT, headers={**LINK, "Sec-Fetch-Site": typed, **way_in}).text == page.text
    assert locked_desk.asked == []

    action = re.findall(r'<form method="post" action="([^"]+)"', page.text)[0].replace("&amp;", "&")
    # The choice about earlier studies stands there too: the site's default may change before the button is pressed.
    wanted = (
        r"\?accession_number=A1&publisher=rimage&confirm_reprint=true&shown=[0-9a-f]{32}&orders_told=0&priors=false"
    )
    assert re.fullmatch(wanted, action)
    pressed = locked.post(
        f"/api/iso/print{action}", headers={**BUTTON, "Origin": str(locked.base_url).rstrip("/"), **way_in}
    )
    (question,) = locked_desk.asked
    assert (question.kind, question.accession_numbers, question.confirm_reprint) == ("print", ("A1",), True)
    assert pressed.status_code == 303 and re.fullmatch(r"/api/iso/jobs/[0-9a-f-]{36}", pressed.headers["location"])

    told = locked.get(pressed.headers["location"], headers={**BUTTON, **way_in})
    assert (
        told.status_code == 200
        and "A1" in told.text
        and "rimage" in told.text
        and "frame-ancestors 'none'" in told.headers["content-security-policy"]
    )
    assert locked.get(pressed.headers["location"], headers=way_in).json()["state"] == "done"
    assert len(locked_desk.asked) == 1
    locked_desk.asked.clear()


def test_a_page_says_no_more_than_it_was_told(locked: httpx.Client, locked_desk: Desk) -> None:
    answer = locked.get("/api/iso/print?accession_number=<b>A", headers={**LINK, "X-API-Key": KEY})
    assert answer.status_code == 200 and "<b>" not in answer.text and "&lt;b&gt;" in answer.text
    assert locked.get("/api/iso/print?accession_number=*", headers={**LINK, "X-API-Key": KEY}).status_code == 400
    assert locked.get(PRINT, headers=LINK).status_code == 401
    assert locked_desk.asked == []


def test_nobody_is_asked_to_sign_in_where_a_proxy_adds_a_wrong_key(locked: httpx.Client) -> None:
    """Signing in led back to the same page for ever."""
    with_key, without = (locked.get(PRINT, headers={**LINK, **key}) for key in ({"X-API-Key": "an old key"}, {}))
    assert (with_key.status_code, without.status_code) == (401, 401)
    assert "Sign in" in without.text and "The API key is missing." in without.text
    assert "Sign in" not in with_key.text and "Tell the administrator." in with_key.text
    assert "/etc/mkiso/nginx-key.conf" in with_key.text


def test_a_link_on_a_trusted_page_prints_at_once_and_its_image_does_not(
    locked: httpx.Client, locked_desk: Desk
) -> None:
    trusted = {**LINK, "Referer": f"{RIS}/", "X-API-Key": KEY}
    assert locked.get(PRINT, headers={**trusted, **IMAGE}).status_code == 403
    assert locked.get(PRINT, headers={**trusted, "Sec-Purpose": "prefetch;prerender"}).status_code == 400
    assert locked_desk.asked == []
    answer = locked.get(PRINT, headers=trusted)
    assert answer.status_code == 303 and len(locked_desk.asked) == 1
    locked_desk.asked.clear()


def test_programs_go_on_as_ever_by_get_and_by_post(locked: httpx.Client, locked_desk: Desk) -> None:
    key = {"X-API-Key": KEY}
    for answer in (
        locked.get("/api/iso/print?accession_number=P1", headers=key),
        locked.post("/api/iso/print?accession_number=P2", headers=key),
        locked.post("/api/iso/print", data={"accession_number": "P3"}, headers=key),
        locked.post("/api/iso/print?publisher=rimage", data={"accession_numbers": "P4,P5"}, headers=key),
    ):
        assert answer.status_code == 200 and answer.json()["status"] == "sent"
    assert [question.accession_numbers for question in locked_desk.asked] == [("P1",), ("P2",), ("P3",), ("P4", "P5")]
    locked_desk.asked.clear()
    assert (
        locked.post("/api/iso/print?accession_number=P6", data={"accession_number": "P7"}, headers=key).status_code
        == 400
    )
    assert locked.post("/api/iso/print?accession_number=P6", json={"a": "P7"}, headers=key).status_code == 400
    assert locked.post("/api/iso/print", content=b"accession_number=" + b"1" * 50_000, headers=key).status_code == 400
    assert locked_desk.asked == []


def test_a_guess_asks_for_no_disc_either(locked: httpx.Client, locked_desk: Desk) -> None:
    answer = locked.get(
        "/api/iso/download?accession_number=A1", headers={**LINK, "Sec-Purpose": "prefetch", "X-API-Key": KEY}
    )
    assert (answer.status_code, locked_desk.asked) == (400, [])


def test_a_name_that_anybody_can_give_our_address_opens_nothing(
    locked: httpx.Client, locked_desk: Desk, ways_in: list[dict[str, str]]
) -> None:
    """DNS rebinding: to the browser the page of evil.example is our own."""
    for headers in (
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Accept-Language": "en", "Referer": "http://evil.example/"},
        BUTTON,
    ):
        for path in (
            PRINT,
            "/api/iso/download?accession_number=A1",
            "/api/iso/jobs/x",
            "/",
            "/session",
            "/metrics",
            "/api/health",
        ):
            answer = locked.request(
                "POST" if path == "/session" else "GET",
                path,
                headers={"Host": "evil.example", **headers, **ways_in[0]},
            )
            assert answer.status_code == 403 and "unknown_host" in answer.text
    assert locked_desk.asked == []
    assert locked.get("/", headers={"Host": "discs.example.org", **BUTTON}).status_code == 200
    assert (
        locked.get("/api/health", headers={"Host": "mkiso.internal.example.org:8080"}).status_code == 200
    )  # a program's business


def test_nothing_of_ours_shows_in_another_page(locked: httpx.Client) -> None:
    for path in ("/", "/api/iso/jobs/x", "/page/counter.css", PRINT):
        assert (
            locked.get(path, headers={"X-API-Key": KEY, **LINK}).headers["cross-origin-resource-policy"]
            == "same-origin"
        )


PRINTS = "TARGET/api/iso/print?accession_number="
TRICKS = """<!doctype html><title>tricks</title><meta name=referrer content=REFERRER>
<img src="PRINTS!IMG"><link rel=prefetch href="PRINTS!PREFETCH"><link rel=stylesheet href="PRINTS!CSS">
<script src="PRINTS!SCRIPT"></script>
<object data="PRINTS!OBJECT"></object><embed src="PRINTS!EMBED"><iframe name=frame src="PRINTS!IFRAME"></iframe>
<video src="TARGET/api/iso/download?accession_number=VIDEO"></video>
<form id=form method=post action="PRINTS!FORM"></form><a id=link href="PRINTS!LINK">print</a>
<script>
const plain = { Accept: "text/html", "Accept-Language": "x" };
const silent = { mode: "no-cors" };
const tries = [{}, silent, { method: "POST", ...silent }, { credentials: "include" }, { headers: plain, ...silent }];
const asked = tries.map((options, number) => fetch(`PRINTS!FETCH${number}`, options));
asked.push(fetch("PRINTS!PUT", { method: "PUT" }));
asked.push(fetch("PRINTS!KEY", { headers: { "X-API-Key": "correct-horse-battery" } }));
asked.push(fetch("TARGET/api/iso/download?accession_number=DOWN", { mode: "no-cors" }));
navigator.sendBeacon("PRINTS!BEACON", "x");
try { new WebSocket("PRINTS!SOCKET".replace("http", "ws")); } catch {}
Promise.allSettled(asked).then((answers) => {
  window.read = answers.filter((answer) => ["basic", "cors"].includes(answer.value?.type)).length;
  window.tried = true;
});
</script>""".replace("PRINTS!", PRINTS)


EMBEDDED = ("IMG", "SCRIPT", "CSS", "FETCH0", "FETCH1", "FETCH2", "DOWN", "VIDEO", "SOCKET", "BEACON")
FRAMED = ("IFRAME", "OBJECT", "EMBED")  # over plain http the last two look like the first, and get the page


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """The statuses that each question was answered with, by its accession number."""
    answers: dict[str, set[int]] = {}

    def build(settings: Settings, orchestrator: Orchestrator, closing: asyncio.Event) -> ASGIApp:
        app = build_app(settings, orchestrator, closing)

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            async def noted(message: Message) -> None:
                number = re.search(rb"accession_number=(\w+)", scope["query_string"])
                if number and message["type"] == "http.response.start":
                    answers.setdefault(number[1].decode(), set()).add(message["status"])
                await send(message)

            await app(scope, receive, noted)

        return watched

    monkeypatch.setattr(server, "build_app", build)
    return answers


class Site(http.server.ThreadingHTTPServer):
    """Another site, whose only page is whatever a test says."""

    page = ""


@pytest.fixture
def evil() -> Iterator[Site]:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = site.page.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    site = Site(("127.0.0.1", 0), Page)
    threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield site
    site.shutdown()
    site.server_close()


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["chromium", "firefox"])
def test_a_link_on_another_site_to_an_encrypted_disc_leads_to_its_password(
    tmp_path: Path, evil: Site, kind: str
) -> None:
    settings = settings_in(tmp_path / "data")
    scripts, password = Scripts(settings.storage), "11111-22222-33333-44444-55555"

    def script(job_id: str, question: Question) -> Standing:
        hand_over(settings.storage, job_id, question.seal, password)
        return scripts.done(job_id, question)

    with (
        with_pacs(settings, tmp_path / "pacs", "A1") as settings,
        served(settings, Desk(script)),
        browser_of(kind, "en", tmp_path / kind) as browser,
    ):
        link = f"http://localhost:{settings.server.port}/api/iso/download?accession_number=A1&amp;format=zip-encrypted"
        evil.page = f'<!doctype html><title>RIS</title><a id="link" href="{link}">disc</a>'
        browser.open(f"http://127.0.0.1:{evil.server_port}/")
        browser.until("!!document.getElementById('link')")
        browser.run("setTimeout(() => document.getElementById('link').click())")
        browser.until("document.readyState === 'complete' && !!document.querySelector('form[action$=password] button')")
        browser.run("setTimeout(() => document.querySelector('form[action$=password] button').click())")
        browser.until(f"document.readyState === 'complete' && document.body.textContent.includes({password!r})")


@pytest.mark.peer
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@pytest.mark.parametrize("referrer", ["unsafe-url", "no-referrer"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("localhost", "127.0.0.1"),  # another site
        ("127.0.0.1", "127.0.0.1"),  # another port: the same site
        ("discs", "evil.test"),  # plain http to a machine of the network, where no browser says Sec-Fetch-Site
        ("discs", "discs"),  # … and another port of it, which the same cookies go to
    ],
)
def test_a_page_of_another_origin_in_chromium(
    tmp_path: Path, evil: Site, answered: dict[str, set[int]], ours: str, theirs: str, referrer: str
) -> None:
    settings = settings_in(tmp_path / "data")
    desk = Desk(Scripts(settings.storage).done)
    with (
        with_pacs(settings, tmp_path / "pacs", "OWN", "LINK", "FORM") as settings,
        served(settings, desk),
        Chromium(
            tmp_path / "chromium", "--host-resolver-rules=MAP discs 127.0.0.1, MAP evil.test 127.0.0.1"
        ) as browser,
    ):
        target = f"http://{ours}:{settings.server.port}"
        evil.page = TRICKS.replace("TARGET", target).replace("REFERRER", referrer)
        browser.open(f"http://{theirs}:{evil.server_port}/")
        browser.until("window.tried === true")
        until(lambda: answered.keys() >= {*EMBEDDED, *FRAMED})
        assert {status for name in EMBEDDED for status in answered[name]} == {403}
        assert browser.run("window.read") == 0
        assert browser.run("document.querySelector('iframe').contentDocument") is None
        assert desk.asked == []

        browser.run("document.getElementById('form').submit()")
        browser.until("document.querySelector('form button')?.textContent === 'Yes, have rimage make a disc'")
        browser.open(f"http://{theirs}:{evil.server_port}/")
        browser.until("window.tried === true")
        browser.run("document.getElementById('link').click()")
        browser.until("!!document.querySelector('form button')")
        browser.open(browser.run("location.href"))  # loaded again
        browser.until("!!document.querySelector('form button')")
        assert desk.asked == []
        browser.run("setTimeout(() => document.querySelector('form button').click())")
        browser.until("document.readyState === 'complete' && !!document.querySelector('.job.done')")
        assert browser.run("location.pathname").startswith("/api/iso/jobs/")
        browser.call("Page.reload")
        browser.until("document.querySelector('.job.done .words')?.textContent.includes('rimage has the order')")
        assert [question.accession_numbers for question in desk.asked] == [("LINK",)]
        assert not [
            words for words in browser.complaints() if "style" in words.lower() and target in words and "jobs" in words
        ]

        browser.open(f"{target}/")  # our own page still prints
        browser.until_ready("numbers")
        browser.type("OWN")
        browser.press("Enter")
        browser.until_ready("make")
        browser.run("document.getElementById('print').click()")
        browser.until("document.querySelector('#jobs .numbers')?.textContent === 'OWN'")
        assert [question.accession_numbers for question in desk.asked[1:]] == [("OWN",)]

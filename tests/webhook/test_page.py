"""The counter page in Chromium, with the keyboard alone."""

import re
import shutil
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import pytest

from mkiso import errors
from mkiso.config.publishers import CStore
from mkiso.errors import MkisoError, PacsBusy, PatientMismatch, PrintUncertain
from peers.chromium import Chromium
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in

pytestmark = [pytest.mark.peer, pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")]

FOUND = {"study_date": "", "modalities": [], "expected": 1, "received": 1}
STUDIES = (
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
    *("error", "unauthorized", "several_discs", "other_set"),  # never an answer to what the page asks
    *("deadline_passed", "job_running", "patient_api_unavailable"),  # nor these
    *("volume_not_found", "archive_unusable", "claim_lost"),  # the archive's
    *(
        "invalid_request",
        "invalid_accession_number",
        "too_many_accession_numbers",
    ),  # the service's words name the wrong character
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


def text(selector):
    return f"document.querySelector({selector!r})?.textContent"


def test_a_clerk_at_the_counter(browser, tmp_path):
    settings = settings_in(tmp_path, auth=True)
    scripts = Scripts(settings.storage)

    def script(job_id, question):
        number = question.accession_numbers[0]
        if number.startswith("M"):
            return scripts.failed(PatientMismatch("Two patients."))(job_id, question)
        if number.startswith("S"):
            return scripts.set_of(2)(job_id, question)
        if number.startswith("R"):
            scripts.report(job_id, question, stage="retrieving images", expected=10, received=4, studies=STUDIES)
            return "running"
        return scripts.done(job_id, question)

    desk = Desk(script)
    with served(settings, desk) as client:
        browser.open(str(client.base_url))
        browser.until_ready("key")
        browser.type("wrong")
        browser.press("Enter")
        browser.until(
            f"{text('.wrong-key')} && getComputedStyle(document.querySelector('.wrong-key')).display !== 'none'"
        )
        browser.until_ready("key")
        browser.type(KEY)
        browser.press("Enter")
        browser.until_ready("numbers")
        assert KEY not in browser.run("document.documentElement.outerHTML + document.cookie")

        browser.type("A1")
        browser.press("Enter")  # what a scanner ends with
        browser.until(f"{text('#jobs .done .words')} === 'The disc image is ready and proven complete.'")
        browser._until(lambda: [file.name for file in browser.downloads.iterdir()] == ["A1.iso"], 10)
        assert browser.run(
            "document.getElementById('numbers') === document.activeElement && "
            "document.getElementById('numbers').value === ''"
        )

        browser.until_ready("numbers")
        browser.type("B2")
        browser.press("Enter", shift=True)
        browser.type("B3,B2")
        browser.press("Tab")
        browser.press("Tab")
        browser.press("Tab")
        browser.press(" ")
        browser.until(f"{text('#jobs .job .state')} === 'Queued'")
        assert (desk.asked[-1].kind, desk.asked[-1].accession_numbers) == ("print", ("B2", "B3"))
        assert (
            browser.run(text("#announce"))
            == "B2, B3: rimage has everything (3 images) and makes the disc when its turn comes. Collect it there."
        )

        browser.until_ready("numbers")
        browser.type("M4")
        browser.press("Enter")
        browser.until(f"{text('#jobs .failed .words')}?.startsWith('These numbers don\\'t belong to one patient')")
        browser.until_ready("numbers")
        browser.type("S5")
        browser.press("Enter")
        browser.until("document.querySelectorAll('#jobs .discs')[0].children.length === 2")
        browser.until_ready("numbers")
        browser.type("R6")
        browser.press("Enter")
        browser.until(f"{text('#jobs .running .words')} === 'Retrieving images: 4 of 10 images'")
        assert browser.run("Math.round(document.querySelector('#jobs progress').value * 10)") == 4
        assert browser.run(
            "[...document.querySelectorAll('#jobs tbody tr')].slice(0, 2).map((row) => row.innerText.replace(/\\s+/g, "
            "' '))"
        ) == [
            "R6 2026-03-12 CT, SR CT Thorax 4 of 9 images",
            "R7 <b>MR</b> 1 image",
        ]
        browser.until_ready("numbers")
        browser.type("*")
        browser.press("Enter")
        browser.until(f"{text('#problem')}?.includes('wildcard')")

        browser.open(str(client.base_url))  # the session's jobs are still there
        browser.until("document.querySelectorAll('#jobs .job').length === 5")
        assert all(address.startswith((str(client.base_url), "data:")) for address in browser.asked())
        refused = [
            words
            for words in browser.complaints()
            if "401" not in words and "400" not in words and "[DOM]" not in words
        ]
        assert refused == []


def test_every_control_has_a_name(browser, tmp_path):
    with served(settings_in(tmp_path), Desk()) as client:
        browser.open(str(client.base_url))
        tree = browser.call("Accessibility.getFullAXTree")["nodes"]
        controls = [node for node in tree if node.get("role", {}).get("value") in ("textbox", "button", "link")]
        assert len(controls) >= 3
        assert all(node["name"]["value"] for node in controls)


def scan(browser, number):
    """A barcode scanner: keys as fast as they go, then Enter, wherever the focus is."""
    for key in number:
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
        browser.call("Input.dispatchKeyEvent", type="keyUp", key=key)
    browser.press("Enter")


def test_a_scanner_asks_wherever_the_focus_is(browser, tmp_path):
    settings = settings_in(tmp_path)
    desk = Desk(Scripts(settings.storage).done)
    with served(settings, desk) as client:
        browser.open(str(client.base_url))
        browser.until_ready("numbers")
        for number in ("C1", "C2", "C3"):
            scan(browser, number)
        browser.press("Enter")  # some scanners send two
        browser.run("document.querySelector('button[value=print]').focus()")
        scan(browser, "C4")
        browser.until("document.querySelectorAll('#jobs .done').length === 4")
        assert sorted((asked.kind, asked.accession_numbers) for asked in desk.asked) == [
            ("download", (f"C{number}",)) for number in range(1, 5)
        ]
        assert browser.run(text("#problem")) == ""

        browser.run("document.getElementById('several').click()")
        for number in ("D1", "D2", ""):
            scan(browser, number)
        browser.until("document.querySelectorAll('#jobs .done').length === 5")
        assert desk.asked[-1].accession_numbers == ("D1", "D2")
        assert not browser.run("document.getElementById('several').checked")


def test_prints_say_which_publisher_has_what(browser, tmp_path):
    publishers = {"rimage": CStore(), "epson": CStore()}
    settings = settings_in(tmp_path).model_copy(update={"publishers": publishers})
    scripts = Scripts(settings.storage)
    ends = iter([scripts.failed(PrintUncertain("Unclear.")), scripts.done])

    def script(job_id, question):
        if question.accession_numbers == ("U1",):
            return next(ends)(job_id, question)
        scripts.report(job_id, question, status="done", stage="done", written=3, proves="done")
        return "completed"

    desk = Desk(script)
    desk.ended_before = datetime.now(UTC) - timedelta(minutes=25)
    with served(settings, desk) as client:
        browser.open(str(client.base_url))
        browser.run("sessionStorage.clear()")
        browser.open(str(client.base_url))
        browser.until_ready("numbers")
        browser.type("P1")
        for key in (
            "Tab",
            "Tab",
            "ArrowRight",
            "Tab",
            "Tab",
            " ",
        ):  # several, the publishers, epson, Make disc image, Send to publisher
            browser.press(key)
        browser.until(f"{text('#jobs .job .words')} === 'epson has made the disc with 3 images. Collect it there.'")
        assert desk.asked[-1].publisher == "epson"
        assert browser.run(text("#jobs .state")) == "Made"
        assert browser.run(text("#jobs .remark")) == "The same was printed 25 minutes ago: this makes another disc."

        browser.type("U1")
        for key in ("Tab", "Tab", "Tab", "Tab", " "):
            browser.press(key)
        browser.until(f"{text('#jobs .failed .again')} === 'I have looked: print again'")
        browser.run("document.querySelector('#jobs .failed .again').focus()")
        browser.press(" ")
        browser.until(f"{text('#jobs .job .state')} === 'Queued'")
        assert desk.asked[-1].confirm_reprint
        assert browser.run(
            "[...document.querySelectorAll('#jobs .job')].map((job) => job.querySelector('.numbers').textContent)"
        ) == ["U1", "P1"]
        assert browser.run("document.activeElement.id") == "numbers"


def test_a_site_without_a_publisher_offers_no_print(browser, tmp_path):
    settings = settings_in(tmp_path).model_copy(update={"publishers": {}})
    with served(settings, Desk(Scripts(settings.storage).done)) as client:
        browser.open(str(client.base_url))
        browser.until_ready("numbers")
        browser.until("document.querySelector('button[value=download]') !== null")
        assert browser.run("document.querySelector('button[value=print]')") is None
        refused = client.get("/api/iso/print?accession_number=A")
        assert (refused.status_code, refused.json()["error"]) == (400, "This site has no disc publisher.")
        assert "enum" not in client.get("/api/openapi.json").json()["components"]["parameters"]["publisher"]["schema"]
        assert not [name for name in client.get("/api/health").json()["dependencies"] if name.startswith("publisher")]


def test_what_failed_is_asked_again_and_survives_a_reload_without_a_name(browser, tmp_path):
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)
    ends = iter([scripts.failed(PacsBusy("A701 from 10.0.0.1.")), scripts.done])
    with served(settings, Desk(lambda job_id, question: next(ends)(job_id, question))) as client:
        browser.open(str(client.base_url))
        browser.run("sessionStorage.clear()")
        browser.open(str(client.base_url))
        browser.until_ready("numbers")
        browser.type("E1,E2")
        browser.press("Enter")
        failed = f"{text('#jobs .failed .words')} === 'The PACS is busy. Ask again in a few minutes.'"
        browser.until(failed)
        assert browser.run(text("#jobs .cause p")).startswith("A701 from 10.0.0.1. Code pacs_busy, job ")
        browser.open(str(client.base_url))
        browser.until(failed)
        browser.run("document.querySelector('#jobs .again').focus()")
        browser.press(" ")
        browser.until(
            "document.querySelectorAll('#jobs .done .discs a').length === 1 && document.querySelectorAll('#jobs "
            ".job').length === 1"
        )
        assert "สมชาย" not in browser.run("JSON.stringify(sessionStorage)")


@pytest.mark.parametrize("width", [320, 400, 1000])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_on_a_narrow_screen(browser, tmp_path, width, scheme):
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)
    long = ({**STUDIES[0], "study_description": "Gefäßdarstellung" * 5}, *STUDIES)

    def script(job_id, question):
        scripts.report(job_id, question, stage="retrieving", expected=10, received=4, studies=long)
        return "running"

    with served(settings, Desk(script)) as client:
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        try:
            browser.open(str(client.base_url))
            browser.until_ready("numbers")
            browser.type("R234567890123456,R234567890123457")
            browser.press("Enter")
            browser.until("document.querySelectorAll('#jobs tbody tr').length === 3")
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
            assert browser.run(
                "[...document.querySelectorAll('.job *')].every((part) => part.getBoundingClientRect().right <= "
                "innerWidth)"
            )
        finally:
            browser.call("Emulation.clearDeviceMetricsOverride")
            browser.call("Emulation.setEmulatedMedia", features=[])


def test_every_error_has_words_for_the_clerk():
    words = files("mkiso_service.webhook").joinpath("page", "words.js").read_text(encoding="utf-8")
    known = set(re.findall(r"^  (\w+): ", words.partition("const ADVICE")[2].partition("};")[0], re.MULTILINE)) - {
        "unreachable"
    }
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MkisoError)}
    assert known == codes - NOT_AT_THE_COUNTER

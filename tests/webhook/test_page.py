"""The counter page in Chromium, with the keyboard alone."""

import shutil

import pytest

from mkiso.errors import PatientMismatch
from tests.webhook.chromium import Chromium
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in

pytestmark = [pytest.mark.peer, pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")]


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
            scripts.report(job_id, question, stage="retrieving images", expected=10, received=4)
            return "running"
        return scripts.done(job_id, question)

    desk = Desk(script)
    with served(settings, desk) as client:
        browser.open(str(client.base_url))
        browser.until_ready("key")
        browser.type("wrong")
        browser.press("Enter")
        browser.until(f"{text('.wrong-key')} && getComputedStyle(document.querySelector('.wrong-key')).display !== 'none'")
        browser.until_ready("key")
        browser.type(KEY)
        browser.press("Enter")
        browser.until_ready("numbers")
        assert KEY not in browser.run("document.documentElement.outerHTML + document.cookie")

        browser.type("A1")
        browser.press("Enter")  # what a scanner ends with
        browser.until(f"{text('#jobs .done .words')} === 'The disc image is ready and proven complete.'")
        browser._until(lambda: [file.name for file in browser.downloads.iterdir()] == ["A1.iso"], 10)
        assert browser.run("document.getElementById('numbers') === document.activeElement && document.getElementById('numbers').value === ''")

        browser.until_ready("numbers")
        browser.type("B2")
        browser.press("Enter", shift=True)
        browser.type("B3,B2")
        browser.press("Tab")
        browser.press("Tab")
        browser.press(" ")
        browser.until(f"{text('#jobs .job .state')} === 'Sent'")
        assert (desk.asked[-1].kind, desk.asked[-1].accession_numbers) == ("print", ("B2", "B3"))
        assert browser.run(text("#announce")) == "B2, B3: Sent to rimage: 3 images. Collect the disc there."

        browser.until_ready("numbers")
        browser.type("M4")
        browser.press("Enter")
        browser.until(f"{text('#jobs .failed .words')}?.startsWith('These numbers belong to more than one patient')")
        browser.until_ready("numbers")
        browser.type("S5")
        browser.press("Enter")
        browser.until("document.querySelectorAll('#jobs .discs')[0].children.length === 2")
        browser.until_ready("numbers")
        browser.type("R6")
        browser.press("Enter")
        browser.until(f"{text('#jobs .running .words')} === 'Retrieving images: 4 of 10 images'")
        assert browser.run("Math.round(document.querySelector('#jobs progress').value * 10)") == 4
        browser.until_ready("numbers")
        browser.type("*")
        browser.press("Enter")
        browser.until(f"{text('#problem')}?.includes('wildcard')")

        browser.open(str(client.base_url))  # the session's jobs are still there
        browser.until("document.querySelectorAll('#jobs .job').length === 5")
        assert all(address.startswith((str(client.base_url), "data:")) for address in browser.asked())
        refused = [words for words in browser.complaints() if "401" not in words and "400" not in words and "[DOM]" not in words]
        assert refused == []


def test_every_control_has_a_name(browser, tmp_path):
    with served(settings_in(tmp_path), Desk()) as client:
        browser.open(str(client.base_url))
        tree = browser.call("Accessibility.getFullAXTree")["nodes"]
        controls = [node for node in tree if node.get("role", {}).get("value") in ("textbox", "button", "link")]
        assert len(controls) >= 3
        assert all(node["name"]["value"] for node in controls)

"""Nobody gets discs of two sets as one: not by asking blindly, by links, by name, or for the rest of a download."""

import re
import subprocess
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from mkiso.config.disc import Deidentified
from mkiso.config.settings import Settings
from mkiso.storage.shelf import manifests, remove_old, whole_sets
from tests.webhook.desk import Desk, Scripts, served, settings_in

ONE = "/api/iso/download?accession_number=A1"


class Curl(Protocol):
    """Its exit code, and what it has saved."""

    def __call__(self, path: str, *options: str) -> tuple[int, bytes]: ...


@pytest.fixture
def curl(client: httpx.Client, tmp_path: Path) -> Curl:
    """What a script does: curl that follows redirects and fails at errors; its exit code, and what it has saved."""

    def fetch(path: str, *options: str) -> tuple[int, bytes]:
        saved = tmp_path / "saved.iso"
        saved.unlink(missing_ok=True)
        command = ["curl", "-sS", "-L", "--fail", *options, "-o", saved, client.base_url.join(path)]
        code = subprocess.run([str(word) for word in command], stderr=subprocess.DEVNULL, check=False).returncode
        return code, saved.read_bytes() if saved.exists() else b""

    return fetch


@pytest.fixture
def set_a(client: httpx.Client, desk: Desk, scripts: Scripts) -> str:
    """The set that the question has been answered with: its id."""
    desk.script = scripts.set_of(2, "a")
    told = client.get(ONE)
    assert told.status_code == 409
    desk.script = scripts.again
    return str(told.json()["set"])


def grown(client: httpx.Client, desk: Desk, scripts: Scripts, letter: str = "b", total: int = 2) -> str:
    """The study has grown, and somebody has had the new discs made; their set's id."""
    desk.script = scripts.set_of(total, letter)
    job_id = client.get(ONE, headers={"Prefer": "respond-async"}).json()["job_id"]
    desk.script = scripts.again
    return str(client.get(f"/api/iso/jobs/{job_id}").json()["discs"][0]["set"])


def bytes_of(letter: bytes) -> list[bytes]:
    """What the two discs of a set hold."""
    return [(letter + number) * 50 for number in (b"1", b"2")]


def test_a_script_that_asks_blindly_has_its_set_while_there_is_one(desk: Desk, scripts: Scripts, curl: Curl) -> None:
    desk.script = scripts.set_of(2, "a")
    assert curl(f"{ONE}&part=1") == (0, b"a1" * 50)
    desk.script = scripts.again
    assert curl(f"{ONE}&part=2") == (0, b"a2" * 50)
    assert curl(f"{ONE}&part=1") == (0, b"a1" * 50)


@pytest.mark.parametrize("by_another", [False, True])
def test_a_script_that_asks_blindly_is_refused_when_the_study_has_grown(
    client: httpx.Client, desk: Desk, scripts: Scripts, curl: Curl, by_another: bool
) -> None:
    desk.script = scripts.set_of(2, "a")
    assert curl(f"{ONE}&part=1") == (0, b"a1" * 50)
    if by_another:
        grown(client, desk, scripts)
    else:
        desk.script = scripts.set_of(2, "b")
    assert curl(f"{ONE}&part=2") == (22, b"")
    desk.script = scripts.again
    told = client.get(f"{ONE}&part=2")
    assert (told.status_code, told.json()["code"]) == (409, "other_set")
    newest, oldest = told.json()["sets"]
    assert newest["created"] > oldest["created"] and (newest["total"], oldest["total"]) == (2, 2)
    assert [client.get(part["href"]).content for part in newest["parts"]] == [b"b1" * 50, b"b2" * 50]
    assert [client.get(part["href"]).content for part in oldest["parts"]] == [b"a1" * 50, b"a2" * 50]
    assert curl(f"{ONE}&part=1") == (22, b"")  # it may have the second disc of the old set


def test_the_second_disc_of_a_set_that_this_question_has_made_is_nobodys(
    client: httpx.Client, desk: Desk, scripts: Scripts, curl: Curl
) -> None:
    """Whoever asks for it has the first disc of a set that nobody here remembers."""
    desk.script = scripts.set_of(2, "b")
    assert curl(f"{ONE}&part=2") == (22, b"")
    assert len(desk.asked) == 1
    desk.script = scripts.again
    assert curl(f"{ONE}&part=1") == (0, b"b1" * 50)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (3, 2)])
def test_a_study_that_outgrows_its_disc_or_shrinks_into_one(
    client: httpx.Client, desk: Desk, scripts: Scripts, curl: Curl, before: int, after: int
) -> None:
    desk.script = scripts.set_of(before, "a")
    assert curl(f"{ONE}&part=1")[0] == 0
    desk.script = scripts.set_of(after, "b")
    assert curl(f"{ONE}&part=2") == (22, b"")
    assert client.get(f"{ONE}&part=2").json()["code"] == "other_set"


def test_a_single_disc_is_its_own_first_part(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    assert len(client.get(f"{ONE}&part=1").content) == 37773
    desk.script = scripts.again
    assert client.get(f"{ONE}&part=2").status_code == 404


def test_no_byte_of_a_set_comes_from_a_questions_address(client: httpx.Client, set_a: str) -> None:
    for path in (ONE, f"{ONE}&part=1", f"{ONE}&part=2", f"{ONE}&part=2&set={set_a}", f"{ONE}&set={set_a}"):
        answer = client.get(path)
        assert answer.status_code in (303, 409) and b"a1" * 6 not in answer.content and b"a2" * 6 not in answer.content
        if answer.status_code == 303:
            assert re.fullmatch(r"/api/iso/jobs/[0-9a-f-]{36}(/disc\?part=[12])?", answer.headers["location"])
            assert answer.headers["cache-control"] == "private, no-store"


def test_who_says_which_set_is_led_to_it_and_nothing_is_made(
    client: httpx.Client, desk: Desk, set_a: str, curl: Curl
) -> None:
    asked = len(desk.asked)
    for part in (1, 2):
        assert curl(f"{ONE}&part={part}&set={set_a}") == (0, b"a%d" % part * 50)
        assert curl(f"{ONE}&part={part}&set={set_a}", "-I")[0] == 0
    assert client.get(f"{ONE}&part=3&set={set_a}").status_code == 404
    whole = client.get(f"{ONE}&set={set_a}", follow_redirects=True).json()
    assert [(disc["part"], disc["set"]) for disc in whole["discs"]] == [(1, set_a), (2, set_a)]
    assert len(desk.asked) == asked


def test_who_has_a_disc_of_an_older_set_is_told_so(
    client: httpx.Client, desk: Desk, scripts: Scripts, set_a: str
) -> None:
    set_b = grown(client, desk, scripts)
    told = client.get(f"{ONE}&part=2&set={set_a}")
    assert (told.status_code, told.json()["code"]) == (409, "other_set")
    assert "newer" in told.json()["error"]
    assert [each["set"] for each in told.json()["sets"]] == [set_b, set_a]
    for name, letter in ((set_a, b"a"), (set_b, b"b")):  # both can be had whole, by their own addresses
        discs = client.get(f"{ONE}&set={name}", follow_redirects=True).json()["discs"]
        assert [client.get(disc["href"]).content for disc in discs] == bytes_of(letter)
    assert client.get(f"{ONE}&part=2&set={set_b}", follow_redirects=True).content == b"b2" * 50


def test_who_has_a_disc_of_a_set_that_is_gone_gets_no_other(
    client: httpx.Client, desk: Desk, scripts: Scripts, settings: Settings, set_a: str
) -> None:
    remove_old(settings.storage, 0)
    for path in (f"{ONE}&part=2&set={set_a}", f"{ONE}&set={set_a}"):
        told = client.get(path)
        assert (told.status_code, told.json()["code"], told.json()["sets"]) == (409, "other_set", [])
    set_b = grown(client, desk, scripts)
    told = client.get(f"{ONE}&part=2&set={set_a}").json()
    assert "isn't kept any more" in told["error"] and [each["set"] for each in told["sets"]] == [set_b]
    assert client.get(f"{ONE}&part=2").json()["code"] == "other_set"  # its report is still there


def test_a_set_of_another_question_is_none_of_this_one(client: httpx.Client, set_a: str) -> None:
    other = "/api/iso/download?accession_number=Z9"
    for name in (set_a, str(uuid4())):
        told = client.get(f"{other}&part=1&set={name}")
        assert (told.status_code, told.json()["code"], told.json()["sets"]) == (409, "other_set", [])
    for nonsense in ("", "x", "../x", set_a[:8], f"{set_a}&set={set_a}"):
        assert client.get(f"{ONE}&part=1&set={nonsense}").status_code == 400


def test_the_rest_of_a_disc_is_of_the_disc_that_it_began_with(
    client: httpx.Client, desk: Desk, scripts: Scripts, set_a: str
) -> None:
    etag = client.get(f"{ONE}&part=2&set={set_a}", follow_redirects=True).headers["etag"]
    rest, beginning = {"Range": "bytes=50-"}, {"Range": "bytes=0-49"}
    blind = f"{ONE}&part=2"
    assert client.get(blind, headers=beginning, follow_redirects=True).content == b"a2" * 25
    assert client.get(blind, headers=rest).json()["code"] == "other_set"
    assert client.get(blind, headers={"Range": "bytes=-7"}).json()["code"] == "other_set"
    for headers, path in ((rest | {"If-Range": etag}, blind), (rest, f"{blind}&set={set_a}")):
        answer = client.get(path, headers=headers, follow_redirects=True)
        assert (answer.status_code, answer.content) == (206, b"a2" * 25)
    desk.script = scripts.set_of(2, "b")
    for headers in (rest, rest | {"If-Range": etag}):
        assert client.get(blind, headers=headers).json()["code"] == "other_set"


def test_head_says_what_get_would(client: httpx.Client, desk: Desk, scripts: Scripts, set_a: str) -> None:
    asked = len(desk.asked)
    assert client.head(ONE).status_code == 409
    for path in (f"{ONE}&part=1", f"{ONE}&part=2"):
        told = client.head(path)
        assert (told.status_code, "/disc?part=" in told.headers["location"]) == (303, True)
        assert client.head(path, follow_redirects=True).headers["content-length"] == "100"
    assert len(desk.asked) == asked
    grown(client, desk, scripts)
    assert client.head(f"{ONE}&part=2").status_code == 409
    assert client.head(f"{ONE}&part=2&set={set_a}").status_code == 409


def test_a_browser_has_a_page_whose_links_name_the_set(
    client: httpx.Client, desk: Desk, scripts: Scripts, set_a: str
) -> None:
    browser = {"Accept": "text/html,*/*"}
    page = client.get(f"{ONE}&x=%22%3E%3Cscript%3E", headers=browser)
    assert page.status_code == 409 and page.headers["content-type"].startswith("text/html")
    assert "<script" not in page.text
    assert '<strong class="numbers">A1</strong>' in page.text and "Disc 1 of 2 (100 bytes)" in page.text
    home, *links = [link.replace("&amp;", "&") for link in re.findall(r'<a href="([^"]+)"', page.text)]
    assert home == "/?ended" and len(links) == 2 and all(f"set={set_a}" in link for link in links)
    got = [client.get(f"/api/iso/download{link}", headers=browser, follow_redirects=True).content for link in links]
    assert got == [b"a1" * 50, b"a2" * 50]
    grown(client, desk, scripts)
    late = client.get(f"/api/iso/download{links[1]}", headers=browser)
    assert late.status_code == 409 and "newer set" in late.text and "Another set" in late.text
    assert '<strong class="numbers">A1</strong>' in late.text
    home, *ways = [link.replace("&amp;", "&") for link in re.findall(r'<a href="([^"]+)"', late.text)]
    assert home == "/?ended" and len(ways) == 2
    for way, letter in zip(ways, (b"b", b"a"), strict=True):  # each leads to all discs of one set
        listed = client.get(f"/api/iso/download{way}", headers=browser, follow_redirects=True)
        assert "The images fill 2 discs. Download and burn every one." in listed.text
        own = [link.replace("&amp;", "&") for link in re.findall(r'href="([^"]+/disc\?[^"]+)"', listed.text)]
        assert [client.get(listed.url.join(link)).content for link in own] == bytes_of(letter)
    told = client.get(f"{listed.url.path}/disc", headers=browser)
    assert told.status_code == 409 and told.text.count('href="?part=') == 2


def test_file_names_tell_which_discs_belong_together(
    client: httpx.Client, desk: Desk, scripts: Scripts, set_a: str
) -> None:
    def names(discs: list[dict[str, str]]) -> list[str]:
        headers = [client.get(disc["href"]).headers["content-disposition"] for disc in discs]
        saved = [unquote(re.findall(r"filename\*=UTF-8''(\S+)", header)[0]) for header in headers]
        assert saved == [disc["filename"] for disc in discs]
        return saved

    set_b = grown(client, desk, scripts)
    told = {name: client.get(f"{ONE}&set={name}", follow_redirects=True).json()["discs"] for name in (set_a, set_b)}
    assert names(told[set_a]) == [f"A1-{number}of2-{set_a[:8]}.iso" for number in (1, 2)]
    assert names(told[set_b]) == [f"A1-{number}of2-{set_b[:8]}.iso" for number in (1, 2)]
    desk.script = scripts.set_of(2, "c")
    several = client.get("/api/iso/download-multiple?accession_numbers=A1,B2").json()
    [first, _] = client.get(f"/api/iso/jobs/{several['job_id']}").json()["discs"]
    assert first["filename"] == f"สมชาย ใจดี-1of2-{several['set'][:8]}.iso"


def test_a_set_of_which_a_disc_is_missing_is_no_set(
    client: httpx.Client, desk: Desk, settings: Settings, set_a: str
) -> None:
    half = whole_sets(manifests(settings.storage))[0][1]
    (settings.storage.discs_dir / half.disc_id).rename(settings.storage.data_dir / "elsewhere")
    assert client.get(f"{ONE}&part=1&set={set_a}").json()["code"] == "other_set"
    job = next(iter(desk.standings))
    assert client.get(f"/api/iso/jobs/{job}/disc?part=1").status_code == 404


def test_a_part_of_what_each_question_makes_anew_is_refused_at_once(tmp_path: Path) -> None:
    """Each question for a de-identified disc of a set made another set, and then said that it was of another set."""
    settings = settings_in(tmp_path).model_copy(update={"deidentified": Deidentified(secret=SecretStr("s" * 32))})
    desk = Desk(Scripts(settings.storage).set_of(2))
    with served(settings, desk) as client:
        copy = f"{ONE}&deidentified=true"
        refused = client.get(f"{copy}&part=1")
        assert (refused.status_code, refused.json()["code"], desk.asked) == (400, "invalid_request", [])
        assert "ask without 'part'" in refused.json()["error"]
        told = client.get(copy).json()
        named = client.get(f"{copy}&part=2&set={told['set']}")
        assert (named.status_code, named.headers["location"]) == (303, told["parts"][1]["href"])
        assert len(desk.asked) == 1

"""Who may what: each role and each named key against each address of openapi.yaml, with ids and keys tampered with."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.routing import Route

from mkiso.config.access import Auth, Key
from mkiso.config.disc import Deidentified, Priors
from mkiso.config.settings import Audit, Settings
from mkiso.errors import JobStopped
from mkiso.languages import language
from mkiso.storage.askings import Asking, write_asking
from mkiso.storage.key_use import KeyUse
from mkiso.study.question import Question
from mkiso_service.api import ShownState
from mkiso_service.prefect.orchestrator import Standing
from mkiso_service.webhook.access.callers import Keys
from mkiso_service.webhook.access.rights import (
    ALL,
    ANYBODY,
    ROLES,
    ROUTES,
    Caller,
    Right,
    is_guarded,
    may,
    may_cancel,
    require_rows,
    right_of,
)
from mkiso_service.webhook.answers.job_words import state_words
from mkiso_service.webhook.counter.made import csv_of
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in
from tests.webhook.test_trail import events

DESCRIPTION: dict[str, Any] = yaml.safe_load(
    files("mkiso_service.webhook").joinpath("openapi.yaml").read_text(encoding="utf-8")
)
OPERATIONS = [(path, method.upper()) for path, each in DESCRIPTION["paths"].items() for method in each]
PUBLIC = {
    path
    for path, each in DESCRIPTION["paths"].items()
    if each["get" if "get" in each else "post"].get("security") == []
}
KEYS = {name: f"{name}-0123456789abcdef" for name in ("disc", "search", "print", "list", "cancel")}
ASYNC = {"Prefer": "respond-async"}
BROWSER = {"Accept": "text/html", "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}


def with_keys(folder: Path) -> Settings:
    named = {name: Key(key=key, rights=(name,)) for name, key in KEYS.items()}
    return settings_in(folder).model_copy(update={"auth": Auth(enabled=True, api_key=KEY, keys=named)})


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with served(with_keys(tmp_path_factory.mktemp("keyed")), Desk()) as client:
        yield client


def test_every_address_has_a_right_or_is_public() -> None:
    assert set(ROUTES) == set(DESCRIPTION["paths"])
    assert {path for path, right in ROUTES.items() if right is None} == PUBLIC
    with pytest.raises(ValueError, match="/api/new"):
        require_rows([Route("/api/new", lambda request: None)])


def test_what_a_role_may() -> None:
    rows = {role: {right for right in ALL if right in rights} for role, rights in ROLES.items()}
    assert rows["clerk"] < rows["operator"] < rows["administrator"] == set(ALL)
    assert rows["machine"] == set(Key(key="0123456789abcdef").rights)
    assert not rows["machine"] & {"search", "deidentify", "list", "report", "keys", "cancel_any"}
    assert not rows["clerk"] & {"deidentify", "report", "keys", "cancel_any"}


def test_a_de_identified_copy_takes_a_right_and_a_secret_of_the_site(tmp_path: Path) -> None:
    query = {"accession_number": "A1", "deidentified": "true"}
    both = Key(key="both-0123456789abcdef", rights=("disc", "deidentify"))
    named = {"one": Key(key=KEYS["disc"], rights=("disc",)), "both": both}
    settings = settings_in(tmp_path).model_copy(update={"auth": Auth(enabled=True, api_key=KEY, keys=named)})
    offered = settings.model_copy(update={"deidentified": Deidentified(secret=SecretStr("s" * 32))})
    told = []
    for site, key in ((settings, KEY), (offered, KEYS["disc"]), (offered, "both-0123456789abcdef"), (offered, KEY)):
        with served(site, Desk()) as client:
            answer = client.get("/api/iso/download", params=query, headers={"X-API-Key": key, **ASYNC})
            told.append((answer.status_code, answer.json().get("code", "")))
    assert told == [(403, "not_allowed"), (403, "not_allowed"), (202, ""), (202, "")]


@given(
    st.sampled_from(sorted(ROUTES)), st.text(alphabet="/.%a0{}\n", max_size=6), st.sets(st.sampled_from(sorted(ALL)))
)
def test_no_spelling_of_an_address_needs_less(path: str, added: str, rights: set[Right]) -> None:
    """Whatever stands before or behind it: the right is the address's own, or there is nothing."""
    right = ROUTES[path]
    for spelled in (path + added, added + path):
        if is_guarded(spelled) and may(rights, spelled):
            assert right_of(spelled) in rights or right_of(spelled) == "unknown"
    assert may(rights, path) == (right is None or right in rights)
    assert is_guarded(path) == (right is not None)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
@pytest.mark.parametrize("right", KEYS)
def test_a_key_opens_what_it_is_for_and_nothing_else(keyed: httpx.Client, right: str, path: str, method: str) -> None:
    answer = keyed.request(method, path.replace("{job_id}", str(uuid4())), headers={"X-API-Key": KEYS[right]})
    refused = answer.status_code in (401, 403)
    assert refused == (path not in PUBLIC and ROUTES[path] != right), answer.text
    if refused:
        assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")
    wrong = keyed.request(method, path.replace("{job_id}", str(uuid4())), headers={"X-API-Key": KEYS[right][:-1]})
    assert (wrong.status_code == 401) == (path not in PUBLIC)


@pytest.mark.parametrize("path", [path for path in ROUTES if path not in PUBLIC])
def test_the_shared_key_goes_on(keyed: httpx.Client, path: str) -> None:
    answer = keyed.head(path.replace("{job_id}", str(uuid4())), headers={"X-API-Key": KEY})
    assert answer.status_code not in (401, 403)


@pytest.mark.parametrize("sent", ["", " ", KEY[:-1], KEY + "x", KEYS["list"] + " ", "key:list", "shared key"])
def test_no_other_text_is_a_key(sent: str) -> None:
    keys = Keys(Auth(enabled=True, api_key=KEY, keys={"list": Key(key=KEYS["list"])}))
    assert keys.caller(sent.encode()) is None
    assert Keys(Auth(enabled=True, keys={"list": Key(key=KEYS["list"])})).caller(sent.encode()) is None


def test_a_named_key_makes_no_session(keyed: httpx.Client) -> None:
    """A program's key is no person's: the page doesn't take it."""
    assert keyed.post("/session", data={"key": KEYS["list"]}).status_code == 401


def test_when_a_key_was_used_last(tmp_path: Path) -> None:
    settings = with_keys(tmp_path)
    with served(settings, Desk()) as client:
        client.get("/api/iso/jobs", headers={"X-API-Key": KEYS["list"]})
        client.get("/api/iso/jobs", headers={"X-API-Key": KEYS["print"]})  # refused, and used
        told = client.get("/api/keys", headers={"X-API-Key": KEY})
        page = client.get("/api/keys", headers={"X-API-Key": KEY, **BROWSER}).text
        assert "Rights: see everybody&#39;s discs" in page and "Used last: " in page and "Not used yet" in page
        assert 'href="/api/keys"' in client.get("/", headers={"X-API-Key": KEY, **BROWSER}).text
    used = {each["name"]: bool(each["last_used"]) for each in told.json()["keys"]}
    assert used == {"disc": False, "search": False, "print": True, "list": True, "cancel": False}
    assert not any(key in text for key in (KEY, *KEYS.values()) for text in (told.text, page))
    use = KeyUse(settings.storage)
    assert use.is_due("disc")
    use.note("disc")
    assert not use.is_due("disc")
    assert use.last_used(["disc"])["disc"]


@pytest.mark.parametrize("seconds", [1e12, 1e18])
def test_a_use_that_a_harmed_disk_dates_beyond_any_calendar_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    use = KeyUse(with_keys(tmp_path).storage)
    use.note("disc")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", lambda _: SimpleNamespace(st_mtime=seconds))
        assert use.last_used(["disc"]) == {"disc": ""}


@pytest.mark.parametrize(
    ("caller", "users", "may"),
    [
        (Caller("a", rights=ROLES["clerk"]), ["a", "a"], True),
        (Caller("a", rights=ROLES["clerk"]), ["a", "b"], False),
        (Caller("a", rights=ROLES["clerk"]), [], False),
        (Caller("", rights=ROLES["clerk"]), [""], False),
        (Caller("a", rights=frozenset({"disc"})), ["a"], False),
        (Caller("c", rights=ROLES["operator"]), ["a", "b"], True),
        (ANYBODY, [], True),
    ],
)
def test_who_may_cancel(caller: Caller, users: list[str], may: bool) -> None:
    assert may_cancel(caller, users) is may


def test_whose_disc_a_key_may_cancel(tmp_path: Path) -> None:
    rights = ("disc", "cancel")
    named = {name: Key(key=name * 8, rights=rights) for name in ("one", "two")}
    settings = settings_in(tmp_path).model_copy(
        update={"auth": Auth(enabled=True, api_key=KEY, keys=named), "audit": Audit(enabled=True)}
    )
    one, two, shared = ({"X-API-Key": key} for key in ("one" * 8, "two" * 8, KEY))
    address = "/api/iso/download?accession_number=A1"
    with served(settings, Desk()) as client:
        job = client.get(address, headers={**ASYNC, **one}).json()["job"]
        assert client.post(f"{job}/cancel", headers=two).json()["code"] == "not_allowed"
        assert client.get(address, headers={**ASYNC, **two}).json()["joined"]
        assert client.post(f"{job}/cancel", headers=one).json()["code"] == "not_allowed"  # it is another's, too
        assert client.get(job, headers=shared).json()["state"] == "running"
        [listed] = client.get("/api/iso/jobs", headers=shared).json()["jobs"]
        assert [(each["name"], each["you"]) for each in listed["asked"]] == [("one", False), ("two", False)]
        assert listed["may_cancel"]
        assert client.post(f"{job}/cancel", headers=shared).json()["error"]["code"] == "job_cancelled"
        own = client.get(address, headers={**ASYNC, **two}).json()["job"]
        assert client.post(f"{own}/cancel", headers=two).json()["error"]["code"] == "job_cancelled"
    told = events(tmp_path)
    assert [event for event, _ in told].count("Order Record") == 2
    trail = (tmp_path / "audit.xml").read_text(encoding="utf-8")
    for who in ('UserID="key:one"', 'UserID="key:two"', 'UserID="shared key"', 'UserName="two"'):
        assert who in trail


def test_nobody_named_owns_nothing(tmp_path: Path) -> None:
    """Jobs that were asked for before anybody had a name aren't everybody's."""
    named = {"one": Key(key="one" * 8, rights=("disc", "cancel"))}
    settings = settings_in(tmp_path).model_copy(update={"auth": Auth(enabled=True, keys=named)})
    desk = Desk()
    job_id = str(uuid4())
    desk.standings[job_id] = "running"
    write_asking(settings.storage, job_id, Asking("2026-01-01T00:00:00+00:00", "10.0.0.7", "page", "download", ("A1",)))
    with served(settings, desk) as client:
        answer = client.post(f"/api/iso/jobs/{job_id}/cancel", headers={"X-API-Key": "one" * 8})
    assert (answer.json()["code"], desk.standings[job_id]) == ("not_allowed", "running")


def test_who_made_what(tmp_path: Path) -> None:
    offered = {"priors": Priors(count=1), "deidentified": Deidentified(secret=SecretStr("s" * 32))}
    settings = with_keys(tmp_path).model_copy(update=offered)
    with served(settings, Desk(Scripts(settings.storage).done)) as client:
        key = {"X-API-Key": KEYS["disc"]}
        for number in ("A1", "=cmd()"[:6]):
            client.get("/api/iso/download", params={"accession_number": number}, headers={**ASYNC, **key})
        shared = {"X-API-Key": KEY}
        rows = client.get("/api/iso/made", headers=shared).json()
        assert ([row["name"] for row in rows["made"]], rows["more"]) == (["disc", "disc"], False)
        assert rows["made"][1]["accession_numbers"] == ["A1"] and rows["made"][1]["state"] == "done"
        table = client.get("/api/iso/made?format=csv", headers=shared)
        assert table.headers["content-type"].startswith("text/csv")
        cells = list(csv.DictReader(io.StringIO(table.text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}"))))
        assert [cell["accession_numbers"] for cell in cells] == ["'=cmd()", "A1"]
        later = client.get("/api/iso/made?since=2999-01-01T00:00:00Z", headers=shared).json()
        assert later == {"made": [], "more": False}
        assert len(client.get("/api/iso/made?until=2999-01-01T00:00:00Z", headers=shared).json()["made"]) == 2
        assert client.get("/api/iso/made?format=page", headers=shared).status_code == 400
        for chosen in ({}, {"priors": "true"}, {"priors": "true", "series_uid": "1.2.3"}):
            asked = {"accession_number": "A3", **chosen}
            client.get("/api/iso/download", params=asked, headers={**ASYNC, **shared})
        told = [(row["chosen"], row["priors"]) for row in client.get("/api/iso/made", headers=shared).json()["made"]]
        assert told[:3] == [("studies  series 1.2.3", True), ("", True), ("", False)]
        copied = {"accession_number": "A4", "deidentified": "true"}
        assert client.get("/api/iso/download", params=copied, headers={**ASYNC, **shared}).status_code == 202
        newest = client.get("/api/iso/made", headers=shared).json()["made"][:2]
        assert [(row["accession_numbers"], row["deidentified"]) for row in newest] == [(["A4"], True), (["A3"], False)]
        page = client.get("/api/iso/made", headers={**shared, **BROWSER})
        assert ">A4 (de-identified copy)<" in page.text
        written = [f">{cell}<" in page.text for cell in ("A3 (selection)", "A3 (with earlier examinations)", "A3")]
        assert written == [False, True, True] and ">A3 (selection, with earlier examinations)<" in page.text
        assert "<table" in page.text and "=cmd()" in page.text
        assert ">with this site's key, 127.0.0.1<" in page.text and "shared key" not in page.text


@pytest.mark.parametrize(
    ("standing", "state"),
    [("cancelled", "cancelled"), ("crashed", "failed"), ("running", "running"), ("waiting", "waiting")],
)
@pytest.mark.parametrize("told", [True, False], ids=["begun", "not begun"])
def test_who_made_what_tells_how_a_disc_stands(tmp_path: Path, standing: Standing, state: str, told: bool) -> None:
    """As the counter page does, also of a job that never began."""
    settings = with_keys(tmp_path)
    scripts = Scripts(settings.storage)

    def script(job_id: str, question: Question) -> Standing:
        if told:
            scripts.failed(JobStopped("Stopped."))(job_id, question)
        return standing

    shared = {"X-API-Key": KEY}
    with served(settings, Desk(script)) as client:
        client.get("/api/iso/download?accession_number=A1", headers={**ASYNC, **shared})
        [row] = client.get("/api/iso/made", headers=shared).json()["made"]
        assert row["state"] == state
        words = {"cancelled": "Cancelled", "failed": "Failed", "running": "Working", "waiting": "Waiting"}[state]
        page = client.get("/api/iso/made", headers={**shared, **BROWSER}).text
        assert f">{words}</td>" in page


@pytest.mark.parametrize(
    ("state", "kind", "proves", "words"),
    [
        ("running", "print", "queued", "Ordered"),
        ("done", "print", "queued", "Ordered"),
        ("done", "print", "done", "Made"),
        ("failed", "print", "queued", "Failed"),
        ("running", "print", "", "Working"),
        ("done", "download", "", "Ready"),
    ],
)
def test_a_disc_is_ready_when_somebody_has_it(state: ShownState, kind: str, proves: str, words: str) -> None:
    assert state_words(state, kind, proves, language("en")) == words


@given(st.lists(st.text(max_size=8), min_size=11, max_size=11))
def test_no_cell_is_a_formula(texts: list[str]) -> None:
    row: Any = dict(enumerate(texts))
    [_, cells] = list(csv.reader(io.StringIO(csv_of([row]), newline="")))
    assert not any(re.match(r"[=+@\t\r-]", part) for cell in cells for part in re.split(r'[;\n"]', cell))
    assert [_plain(cell) for cell in cells] == [_plain(text) for text in texts]


def test_a_cell_is_no_formula_where_a_spreadsheet_divides_lines_at_semicolons() -> None:
    row: Any = {"patient_id": 'A;=1+1;"@SUM(A1)"', "name": "-"}
    assert csv_of([row]).splitlines()[1] == '"A;\'=1+1;""\'@SUM(A1)""",\'-'


def _plain(cell: str) -> str:
    return re.sub(r"""(^|[;\t\r\n"])'(?=[=+@\t\r-])""", r"\1", cell)


def test_a_job_says_who_asked(tmp_path: Path) -> None:
    settings = with_keys(tmp_path)
    with served(settings, Desk()) as client:
        client.get("/api/iso/download?accession_number=A1", headers={**ASYNC, "X-API-Key": KEYS["disc"]})
        [told] = json.loads(client.get("/api/iso/jobs", headers={"X-API-Key": KEY}).text)["jobs"]
    assert told["asked"][0]["name"] == "disc"

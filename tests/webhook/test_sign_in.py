"""Signing in at a real OpenID Connect provider: roles, cookies, ends of sessions, answers that were tampered with."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from mkiso.config.access import Auth, SignIn
from mkiso.config.settings import Audit, Settings
from mkiso.storage.sessions import PersonSessions, Session
from mkiso_service.checks.registry import checks_of
from mkiso_service.openid import Provider
from mkiso_service.webhook.access.onward import folded
from mkiso_service.webhook.access.rights import ROLES, ROUTES
from peers.openid_provider import SECRET, OpenIdProvider
from peers.patience import LONG
from peers.ports import free_port
from tests.webhook.desk import KEY, Client, Desk, Scripts, served, settings_in
from tests.webhook.test_rights import OPERATIONS, PUBLIC
from tests.webhook.test_trail import events

pytestmark = pytest.mark.peer
PEOPLE = {"clara": "clerk", "otto": "operator", "ada": "administrator"}
FROM_PROVIDER = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
OWN = {"Sec-Fetch-Site": "same-origin"}
ASYNC = {"Prefer": "respond-async"}


@dataclass
class Person:
    """A browser at the counter: it keeps each site's cookies and sends Secure ones to this machine, as browsers do."""

    client: httpx.Client
    jars: dict[str, dict[str, str]] = field(default_factory=dict)

    def send(self, method: str, address: str, **request: object) -> httpx.Response:
        url = self.client.base_url.join(address)
        jar = self.jars.setdefault(url.netloc.decode(), {})
        headers = {**OWN, **request.pop("headers", {}), "Cookie": "; ".join(f"{n}={v}" for n, v in jar.items())}  # type: ignore[dict-item]
        with httpx.Client(trust_env=False, timeout=LONG) as fresh:
            answer = fresh.request(method, url, headers=headers, **request)  # type: ignore[arg-type]
        for told in answer.headers.get_list("set-cookie"):
            name, _, rest = told.partition("=")
            value = rest.partition(";")[0].strip('"')
            jar[name] = value
            if not value or "max-age=0" in told.lower() or " 1970 " in told.replace("-", " "):
                del jar[name]
        return answer

    def at_provider(self, login: str, begin: str = "/session/begin") -> str:
        """The address to which the provider leads back."""
        answer = self.send("GET", begin)
        while True:
            address = answer.headers["location"]
            if "/session/callback" in address:
                return address
            answer = self.send("GET", httpx.URL(str(answer.url)).join(address).__str__())
            if answer.status_code == 200:
                answer = self.send("POST", str(answer.url), data={"login": login})

    def signs_in(self, login: str) -> httpx.Response:
        return self.send("GET", self.at_provider(login), headers=FROM_PROVIDER)

    @property
    def own(self) -> dict[str, str]:
        return self.jars[self.client.base_url.netloc.decode()]


@dataclass
class Site:
    settings: Settings
    provider: OpenIdProvider
    client: Client
    desk: Desk

    def person(self) -> Person:
        return Person(self.client)

    def signed_in(self, login: str) -> Person:
        person = self.person()
        assert person.signs_in(login).status_code == 200
        return person


def settings_for(folder: Path, issuer: str, **sign_in: object) -> Settings:
    port = free_port()
    settings = settings_in(folder, port=port, public_url=f"http://127.0.0.1:{port}")
    roles = {"clerk": ["mkiso-clerks"], "operator": ["mkiso-operators"], "administrator": ["mkiso-admins"]}
    given = {"issuer": issuer, "client_id": "mkiso", "client_secret": SECRET, "roles": roles, **sign_in}
    return settings.model_copy(
        update={
            "auth": Auth(enabled=True, api_key=KEY),
            "sign_in": SignIn.model_validate(given),
            "audit": Audit(enabled=True),
        }
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    port = free_port()
    settings = settings_for(folder, f"http://127.0.0.1:{port}")
    desk = Desk()
    with (
        OpenIdProvider(folder, settings.server.public_url, port=port) as provider,
        served(settings, desk) as client,
    ):
        yield Site(settings, provider, client, desk)


def test_a_person_signs_in_and_out(site: Site) -> None:
    person = site.person()
    assert "/session/begin" in person.send("GET", "/").text
    begun = person.send("GET", "/session/begin")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(begun.headers["location"]).query).items()}
    assert asked["code_challenge_method"] == "S256" and len(asked["state"]) > 40 and len(asked["nonce"]) > 40
    pending = begun.headers["set-cookie"].lower()
    assert all(each in pending for each in ("__host-", "httponly", "secure", "samesite=lax", "path=/", "max-age=900"))
    answer = person.signs_in("clara")
    assert answer.status_code == 200, answer.text
    cookies = [each.lower() for each in answer.headers.get_list("set-cookie")]
    assert all(
        "secure" in each and "httponly" in each and "path=/" in each and "domain" not in each for each in cookies
    )
    assert "samesite=strict" in cookies[0] and answer.headers["refresh"] == "0; url=/"
    page = person.send("GET", "/").text
    assert "Clara Example" in page and 'id="numbers"' in page and "Who made what" not in page
    job = person.send("GET", "/api/iso/download?accession_number=S1", headers=ASYNC).json()["job"]
    [listed] = [each for each in person.send("GET", "/api/iso/jobs").json()["jobs"] if each["job"]["job_id"] in job]
    assert [(each["name"], each["you"]) for each in listed["asked"]] == [("Clara Example", True)] and listed[
        "may_cancel"
    ]
    session = dict(person.own)
    out = person.send("POST", "/session/end")
    leads = re.search("url=(.*)", out.headers["refresh"])
    assert leads and leads[1].startswith(f"{site.provider.issuer}/session/end?") and "id_token_hint" in leads[1]
    assert "Out" in person.send("GET", leads[1]).text
    assert person.send("GET", "/api/iso/jobs").status_code == 401
    person.own.update(session)  # whoever has kept the cookie
    assert person.send("GET", "/api/iso/jobs").status_code == 401
    told = (site.settings.storage.data_dir / "audit.xml").read_text(encoding="utf-8")
    assert 'UserID="clara"' in told and 'UserName="Clara Example"' in told
    kinds = [event for event, _ in events(site.settings.storage.data_dir)]
    assert kinds.count("User Authentication") >= 2


@pytest.mark.parametrize("login", PEOPLE)
def test_each_role_against_each_address(site: Site, login: str) -> None:
    person, rights = site.signed_in(login), ROLES[PEOPLE[login]]  # type: ignore[index]
    for path, method in OPERATIONS:
        answer = person.send(method, path.replace("{job_id}", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"))
        allowed = path in PUBLIC or ROUTES[path] in rights
        assert (answer.status_code in (401, 403)) != allowed, (path, answer.text)


def test_who_has_no_role_gets_nowhere(site: Site) -> None:
    person = site.person()
    answer = person.signs_in("mallory")
    assert answer.status_code == 403 and "no role" in answer.text
    assert "__Host-mkiso" not in person.own and person.send("GET", "/api/iso/jobs").status_code == 401


def test_who_has_no_role_can_use_another_account(site: Site) -> None:
    person = site.person()
    page = person.signs_in("mallory").text
    [other] = re.findall(f'href="({site.provider.issuer}/session/end[^"]*id_token_hint[^"]*)"', page)
    out = person.send("GET", unescape(other))
    [xsrf] = re.findall('name="xsrf" value="([^"]*)"', out.text)
    [confirm] = re.findall('action="([^"]*)"', out.text)
    home = person.send("POST", confirm, data={"xsrf": xsrf, "logout": "yes"}).headers["location"]
    assert home == f"{site.settings.server.public_url}/"
    assert person.signs_in("clara").status_code == 200


def test_without_an_end_at_the_provider_it_asks_anew_who_signs_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Provider, "end", lambda *_: "")
    person = site.person()
    assert 'href="/session/begin?anew"' in person.signs_in("mallory").text
    known = person.send("GET", "/session/begin").headers["location"]
    assert "/session/callback" in person.send("GET", known).headers["location"]  # whom it knows it doesn't ask
    anew = person.send("GET", "/session/begin?anew").headers["location"]
    assert "/interaction/" in person.send("GET", anew).headers["location"]


def test_an_operator_cancels_what_a_clerk_has_asked_for_and_no_other_clerk_does(site: Site) -> None:
    clara, otto, ada = (site.signed_in(login) for login in PEOPLE)
    job = otto.send("GET", "/api/iso/download?accession_number=S2", headers=ASYNC).json()["job"]
    assert clara.send("POST", f"{job}/cancel").json()["code"] == "not_allowed"
    assert ada.send("POST", f"{job}/cancel").json()["error"]["code"] == "job_cancelled"
    rows = ada.send("GET", "/api/iso/made").json()["made"]
    assert [row["name"] for row in rows if row["accession_numbers"] == ["S2"]] == ["Otto Example"]
    assert 'UserID="ada"' in (site.settings.storage.data_dir / "audit.xml").read_text(encoding="utf-8")


def test_another_browser_cant_end_what_one_has_begun(site: Site) -> None:
    """Neither a stolen answer nor one that somebody is made to open signs anybody in."""
    victim, attacker = site.person(), site.person()
    address = attacker.at_provider("ada")
    assert victim.send("GET", address, headers=FROM_PROVIDER).status_code == 403
    victim.send("GET", "/session/begin")
    assert victim.send("GET", address, headers=FROM_PROVIDER).status_code == 403
    assert victim.send("GET", "/api/iso/jobs").status_code == 401


@pytest.mark.parametrize("name", ["state", "code", "iss"])
@pytest.mark.parametrize("value", ["", "x", "http://127.0.0.1:1", None])
def test_an_answer_that_was_tampered_with(site: Site, name: str, value: str | None) -> None:
    person = site.person()
    url = httpx.URL(person.at_provider("ada"))
    changed = url.copy_remove_param(name) if value is None else url.copy_set_param(name, value)
    assert person.send("GET", str(changed), headers=FROM_PROVIDER).status_code in (400, 403)
    assert "__Host-mkiso" not in person.own


def test_an_answer_is_good_once(site: Site) -> None:
    person = site.person()
    address = person.at_provider("clara")
    kept = dict(person.own)
    assert person.send("GET", address, headers=FROM_PROVIDER).status_code == 200
    person.own.clear()
    person.own.update(kept)
    assert person.send("GET", address, headers=FROM_PROVIDER).status_code == 403
    assert person.send("GET", f"{address}&code=x", headers=FROM_PROVIDER).status_code == 400


@pytest.mark.parametrize("place", ["https://evil.example", "//evil.example", "/%5cevil.example", "/api/iso/jobs"])
@pytest.mark.parametrize("name", ["to", "next", "return_to", "redirect_uri", "url"])
def test_a_sign_in_leads_back_to_what_was_asked_for_and_nowhere_else(site: Site, name: str, place: str) -> None:
    person = site.person()
    begun = person.send("GET", f"/session/begin?{name}={place}").headers["location"]
    assert begun.startswith(site.provider.issuer) and "evil" not in begun
    led = place if (name, place) == ("to", "/api/iso/jobs") else "/"
    back = person.at_provider("clara", f"/session/begin?{name}={place}")
    answer = person.send("GET", f"{back}&{name}={place}", headers=FROM_PROVIDER)
    assert answer.headers["refresh"] == f"0; url={led}" and "evil" not in answer.text


def test_a_sign_in_that_fails_doesnt_forget_what_was_asked_for(site: Site) -> None:
    person = site.person()
    back = person.at_provider("clara", "/session/begin?to=/api/iso/jobs%3Fsearch%3Dx")
    page = person.send("GET", str(httpx.URL(back).copy_set_param("state", "x")), headers=FROM_PROVIDER)
    assert page.status_code == 403 and 'href="/?to=%2Fapi%2Fiso%2Fjobs%3Fsearch%3Dx"' in page.text


@pytest.mark.parametrize("address", ["//evil.example", "/api/\\evil.example", "/" + "x" * 5000])
def test_a_cookie_that_was_tampered_with_leads_nowhere_else(site: Site, address: str) -> None:
    person = site.person()
    back = person.at_provider("clara", "/session/begin?to=/api/iso/jobs")
    told = person.own["__Host-mkiso_sign_in"].rpartition(".")[0]
    person.own["__Host-mkiso_sign_in"] = f"{told}.{folded(address)}"
    answer = person.send("GET", back, headers=FROM_PROVIDER)
    assert answer.status_code == 403 or answer.headers["refresh"] == "0; url=/"


def test_a_session_is_of_one_sign_in(site: Site) -> None:
    """What a browser brought along is no session after the sign-in, and another person's begins anew."""
    person = site.person()
    person.jars[site.client.base_url.netloc.decode()] = {"__Host-mkiso": "fixed-by-somebody"}
    person.signs_in("clara")
    first = person.own["__Host-mkiso"]
    assert first != "fixed-by-somebody"
    person.signs_in("clara")
    assert person.own["__Host-mkiso"] != first
    person.own["__Host-mkiso"] = first
    assert person.send("GET", "/api/iso/jobs").status_code == 401


def test_another_site_has_no_use_of_a_session(site: Site) -> None:
    person = site.signed_in("ada")
    foreign = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}
    assert person.send("GET", "/api/iso/jobs", headers=foreign).json()["code"] == "foreign_request"
    job = "/api/iso/jobs/6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
    assert person.send("GET", job, headers=foreign).status_code == 401
    assert "refresh" not in person.send("POST", "/session/end", headers=foreign).headers
    assert person.send("GET", "/api/iso/jobs").status_code == 200


def test_the_page_takes_no_key_and_a_program_does(site: Site) -> None:
    person = site.person()
    assert person.send("POST", "/session", data={"key": KEY}).status_code == 400
    assert site.client.get("/api/iso/jobs", headers={"X-API-Key": KEY}).status_code == 200


@pytest.mark.parametrize("change", [lambda each: each[:-1], lambda each: f"{each}x", lambda each: each.swapcase()])
def test_no_other_cookie_is_a_session(site: Site, change: object) -> None:
    person = site.signed_in("ada")
    person.own["__Host-mkiso"] = change(person.own["__Host-mkiso"])  # type: ignore[operator]
    assert person.send("GET", "/api/iso/jobs").status_code == 401


def test_the_ids_of_sessions_dont_lie_on_the_disk(site: Site) -> None:
    person = site.signed_in("ada")
    files = list(site.settings.storage.sessions_dir.iterdir())
    assert files
    assert not any(person.own["__Host-mkiso"] in f"{file.name}{file.read_text()}" for file in files)


def test_the_provider_changes_its_keys_and_goes_away(tmp_path: Path) -> None:
    port = free_port()
    settings = settings_for(tmp_path, f"http://127.0.0.1:{port}")
    provider = OpenIdProvider(tmp_path, settings.server.public_url, port=port)
    [check] = [each for each in checks_of(settings) if each.name == "sign_in"]
    with served(settings, Desk(Scripts(settings.storage).done)) as client:
        with provider:
            signed_in = Person(client)
            assert signed_in.signs_in("clara").status_code == 200
            assert client.get("/api/health").json()["dependencies"]["sign_in"]["ok"]
        provider.new_keys("second")
        with provider:
            assert Person(client).signs_in("clara").status_code == 200
        person = Person(client)
        person.send("GET", "/session/begin")
        down = person.send("GET", "/session/begin", headers={"Accept": "application/json"})
        assert down.status_code in (303, 503)  # what is known of the provider is kept for an hour
        state = person.own["__Host-mkiso_sign_in"].partition(".")[0]
        back = f"/session/callback?code=x&state={state}&iss=http://127.0.0.1:{port}"
        answer = person.send("GET", back, headers={"Accept": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (503, "provider_unavailable")
        assert "retry-after" in answer.headers
        assert signed_in.send("GET", "/api/iso/jobs").status_code == 200
        signed_in.send("POST", "/session/end")
        assert signed_in.send("GET", "/api/iso/jobs").status_code == 401
    assert check.title == "sign-in provider"


def test_sessions_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(tmp_path)
    people = PersonSessions(settings.storage, SignIn(idle_minutes=10, hours=1))
    now = time.time()

    def begun() -> str:
        monkeypatch.setattr("time.time", lambda: now)
        return people.begin(Session("clara", "Clara", ("clerk",), now))

    session = begun()
    monkeypatch.setattr("time.time", lambda: now + 9 * 60)
    assert people.find(session, used=False)
    monkeypatch.setattr("time.time", lambda: now + 11 * 60)
    assert people.find(session) is None
    monkeypatch.setattr("time.time", lambda: now)
    assert people.find(session) is None  # it stays ended
    session = begun()
    [file] = settings.storage.sessions_dir.iterdir()
    os.utime(file, (now + 3599, now + 3599))
    monkeypatch.setattr("time.time", lambda: now + 3599)
    assert people.find(session, used=False)
    monkeypatch.setattr("time.time", lambda: now + 3601)
    assert people.find(session) is None
    session = begun()
    monkeypatch.setattr("time.time", lambda: now - 3600)  # begun while a clock was ahead
    assert people.find(session) is None
    for nonsense in ("", "x" * 10_000, "../jobs/x", "\ud800"):
        assert people.find(nonsense) is None

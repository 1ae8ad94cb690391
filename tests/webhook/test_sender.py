"""Who may have paper or plastic made: every kind of sender, as browsers and programs describe themselves."""

from __future__ import annotations

import itertools

import pytest
from starlette.datastructures import Headers

from mkiso_service.host_names import host_is_known
from mkiso_service.webhook.access.callers import Sender, sender_of

HOST = "discs:8080"
RIS = "https://ris.example.org"
LANGUAGE = {"accept-language": "th"}
PAGE = {"accept": "text/html,*/*;q=0.8"}


def sender(trusted: tuple[str, ...] = (), /, **headers: str) -> Sender:
    return sender_of(
        Headers({"host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}), trusted
    )


def fetched(site: str, mode: str = "navigate", dest: str = "document", **more: str) -> dict[str, str]:
    return {"sec_fetch_site": site, "sec_fetch_mode": mode, "sec_fetch_dest": dest, **more}


@pytest.mark.parametrize(
    "headers", [{}, {"accept": "*/*"}, {"user_agent": "Mozilla/5.0 WindowsPowerShell/5.1"}, {"accept": "text/html"}]
)
def test_programs_ask_and_order_as_ever(headers: dict[str, str]) -> None:
    assert sender(**headers) == Sender("program")
    assert sender(**headers).may_ask and sender(**headers).may_order("GET") and sender(**headers).may_order("POST")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "Same-Origin", "what comes next"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", "same-origin", "websocket", ""])
@pytest.mark.parametrize("trusted", [(), (RIS,), ("none",)])
def test_no_page_of_another_site_asks_by_itself(site: str, mode: str, trusted: tuple[str, ...]) -> None:
    for dest in ("image", "empty", "document", "script", ""):
        seen = sender(trusted, **fetched(site, mode, dest, origin=RIS))
        assert seen.kind == "foreign" and not seen.may_ask and not seen.may_order("GET") and not seen.may_order("POST")
    assert not sender(trusted, sec_fetch_site=site).may_ask


@pytest.mark.parametrize("dest", ["object", "embed", "fencedframe", "image"])
def test_what_is_built_into_a_page_is_no_navigation(dest: str) -> None:
    assert not sender((RIS,), **fetched("cross-site", dest=dest, referer=f"{RIS}/worklist")).may_ask


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
@pytest.mark.parametrize("dest", ["document", "iframe", "frame"])
def test_a_link_leads_to_a_disc_and_orders_none(site: str, dest: str) -> None:
    for more in ({}, {"referer": f"{RIS}/worklist"}, {"origin": "null"}):
        seen = sender(("https://another.example.org",), **fetched(site, dest=dest, **more))
        assert seen.may_ask and not seen.may_order("GET") and not seen.may_order("POST")


def test_a_link_on_a_trusted_page_orders() -> None:
    for named in (
        {"referer": f"{RIS}/"},
        {"referer": f"{RIS}/worklist?x=1"},
        {"referer": RIS.upper()},
        {"origin": RIS},
    ):
        assert sender((RIS,), **fetched("cross-site", **named)).may_order("GET")
        assert sender((RIS,), **LANGUAGE, **PAGE, **named).may_order("GET")  # plain http
    for named in (
        {},
        {"referer": "https://ris.example.org.evil.example/"},
        {"referer": "http://ris.example.org/"},
        {"referer": "https://ris.example.org:444/"},
        {"referer": f"https://evil.example/?{RIS}"},
        {"referer": f"https://{RIS.removeprefix('https://')}@evil.example/"},
        {"referer": "https://[ris.example.org/"},
        {"referer": RIS.removeprefix("https:")},
        {"origin": "null", "referer": f"{RIS}/"},
    ):
        assert not sender((RIS,), **fetched("cross-site", **named)).may_order("GET"), named


def test_what_names_no_page_orders_only_where_that_is_configured() -> None:
    for headers in (fetched("none"), {**LANGUAGE, **PAGE}, LANGUAGE):
        assert not sender((RIS,), **headers).may_order("GET")
        assert sender(("none",), **headers).may_order("GET")


def test_our_own_page_orders_by_its_button_and_its_script_and_not_by_its_address() -> None:
    own = f"http://{HOST}"
    for button in (
        fetched("same-origin"),
        {**LANGUAGE, **PAGE, "origin": own},
        {**LANGUAGE, **PAGE, "referer": f"{own}/"},
    ):
        assert sender(**button).may_order("POST") and sender(**button).may_ask
        assert not sender(**button).may_order("GET")  # location.reload() says same-origin
    for script in (
        fetched("same-origin", "cors", "empty"),
        {**LANGUAGE, "accept": "*/*", "referer": f"{own}/"},
        {**LANGUAGE, "origin": own},
    ):
        assert sender(**script).may_order("POST") and sender(**script).may_order("GET")


def test_over_plain_http_a_page_is_told_by_what_it_cannot_hide() -> None:
    for image in (
        LANGUAGE,
        {**LANGUAGE, "accept": "image/avif,*/*"},
        {"accept_language": "", "accept": "*/*"},
        {"origin": "null"},
    ):
        assert not sender(**image).may_ask and not sender(**image).may_order("GET"), image
    for foreign in (
        {"origin": RIS},
        {"referer": f"{RIS}/x"},
        {"referer": "http://discs:9090/"},
        {"origin": "http://discs"},
        {"origin": "http://"},
    ):
        assert sender(**foreign).kind == "foreign" and not sender(**foreign).may_ask, foreign
    assert sender(**LANGUAGE, **PAGE) == Sender("unnamed", navigation=True)
    assert sender(
        **LANGUAGE, range="bytes=5-", if_range='"x"'
    ).may_ask  # a browser goes on with a broken download; no page can send If-Range here


def test_a_browser_goes_on_with_a_broken_download() -> None:
    assert sender(
        sec_fetch_site="none", sec_fetch_mode="navigate", sec_fetch_dest="empty", range="bytes=5-", if_range='"x"'
    ).may_ask


@pytest.mark.parametrize("name", ["sec_purpose", "purpose", "x_purpose", "x_moz"])
def test_a_guess_is_known_by_every_name(name: str) -> None:
    assert sender(**{name: "Prefetch;prerender"}).guess and sender(**fetched("none"), **{name: "prefetch"}).guess


def test_nothing_that_a_browser_says_makes_a_foreign_page_order() -> None:
    """Whatever the other headers are, only own, trusted or no browser at all orders."""
    values: dict[str, tuple[str | None, ...]] = {
        "sec_fetch_site": (None, "none", "same-origin", "same-site", "cross-site"),
        "sec_fetch_mode": (None, "navigate", "no-cors", "cors"),
        "sec_fetch_dest": (None, "document", "image", "iframe", "object"),
        "origin": (None, "null", f"http://{HOST}", "http://evil.example"),
        "referer": (None, f"http://{HOST}/", "http://evil.example/"),
        "accept": (None, "text/html", "*/*"),
        "accept_language": (None, "en"),
    }
    for chosen in itertools.product(*values.values()):
        headers = {name: value for name, value in zip(values, chosen, strict=True) if value is not None}
        seen = sender((RIS,), **headers)
        says = headers.get("sec_fetch_site")
        page = headers.get("origin", headers.get("referer"))
        own = says == "same-origin" or (says is None and page is not None and HOST in page)
        program = not {"sec_fetch_site", "sec_fetch_mode", "origin", "referer", "accept_language"} & set(headers)
        for method in ("GET", "POST"):
            assert not seen.may_order(method) or own or program, headers


def test_a_name_that_anybody_can_give_our_address_is_not_ours() -> None:
    hosts = {"discs.example.org"}
    for known in (
        "127.0.0.1:8080",
        "10.1.2.3",
        "[::1]:8080",
        "[fd00::1]",
        "localhost:80",
        "discs",
        "discs.example.org",
        "DISCS.example.org.:443",
        "",
    ):
        assert host_is_known(known, hosts), known
    for unknown in (
        *(
            "evil.example:8080",
            "discs.example.org.evil.example",
            "10.1.2.3.evil.example",
            "evil.example.",
            "[::1].evil.example",
            "evil.example:x",
        ),
        *("[evil.example]", "[evil.example]:80", "evil.example:80:80", "discs.example.org:80:80"),
    ):
        assert not host_is_known(unknown, hosts), unknown

"""Who is let through to Prefect, by Host and Origin alone."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from mkiso.config.settings import Prefect, Server, Settings
from mkiso_service.prefect.gate import ANOTHER_SITE, NO_SUCH_NAME, known_hosts, refusal

HOSTS = frozenset({"prefect.example.org"})


def told(*headers: tuple[str, str]) -> str:
    return refusal(Headers(raw=[(name.encode(), value.encode()) for name, value in headers]), HOSTS)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:4200",
        "localhost:4200",
        "[::1]:4200",
        "prefect:4200",
        "prefect.example.org",
        "PREFECT.example.org:443",
    ],
)
def test_our_names_and_our_own_pages_pass(host: str) -> None:
    assert told(("host", host)) == ""
    assert (
        told(("host", host), ("origin", f"http://{host}"))
        == told(("host", host), ("origin", f"https://{host.lower()}"))
        == ""
    )


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:4200", "127.0.0.1.evil.example", "prefect.example.org.evil.example"]
)
def test_a_name_that_somebody_else_can_give_us_is_refused(host: str) -> None:
    assert told(("host", host)) == told(("host", host), ("origin", f"http://{host}")) == NO_SUCH_NAME


def test_no_name_and_two_names_are_refused() -> None:
    assert told() == told(("host", "127.0.0.1"), ("host", "127.0.0.1")) == NO_SUCH_NAME


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://127.0.0.1:8080", "http://localhost:4200", "127.0.0.1:4200", "file://"],
)
def test_a_page_of_another_site_is_refused(origin: str) -> None:
    assert told(("host", "127.0.0.1:4200"), ("origin", origin)) == ANOTHER_SITE
    assert told(("host", "127.0.0.1:4200"), ("origin", "http://127.0.0.1:4200"), ("origin", origin)) == ANOTHER_SITE


def test_the_names_are_those_of_the_configuration() -> None:
    settings = Settings(
        server=Server(hosts=("discs.example.org",), public_url="https://www.example.org"),
        prefect=Prefect(api_url="http://Prefect.example.org:4200/api", api_auth_string="a:of-sixteen-or-more"),
    )
    assert known_hosts(settings, "Front.example.org") - {""} == {
        "discs.example.org",
        "www.example.org",
        "prefect.example.org",
        "front.example.org",
    }

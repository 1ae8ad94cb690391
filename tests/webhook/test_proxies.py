"""Who a client is, and by which scheme it came: believed from trusted proxies alone, through real nginx too."""

import shutil
import socket
from pathlib import Path
from xml.etree.ElementTree import fromstring

import httpx
import pytest
from pydantic import ValidationError

from mkiso.config.settings import Audit, Server, Settings
from peers.patience import LONG
from peers.ports import free_port
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in
from tests.webhook.nginx import Nginx, certificate

QUESTION = "/api/iso/download?accession_number=A1"


def configured(folder: Path, trusted: tuple[str, ...], host: str = "127.0.0.1") -> Settings:
    settings = settings_in(folder, auth=True, trusted_proxies=trusted, host=host)
    return settings.model_copy(update={"audit": Audit(enabled=True)})


def named(folder: Path) -> str:
    """The client in the audit trail's last question."""
    line = (folder / "audit.xml").read_text(encoding="utf-8").splitlines()[-1]
    return next(
        party.attrib["NetworkAccessPointID"]
        for party in fromstring(line).iter("ActiveParticipant")
        if "NetworkAccessPointID" in party.attrib
    )


def is_secure(client: httpx.Client, **headers: str) -> bool:
    signed = client.post("/session", data={"key": KEY}, headers=headers)
    client.cookies.clear()
    assert signed.status_code == 303
    return "secure" in signed.headers["set-cookie"].lower().replace("samesite", "")


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",), ("127.0.0.2", "::1")])
def test_nobody_else_is_believed(tmp_path: Path, trusted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    with served(configured(tmp_path, trusted), Desk()) as client:
        assert client.get(QUESTION, headers={"X-Forwarded-For": "6.6.6.6"}).status_code == 401
        assert named(tmp_path) == "127.0.0.1"
        assert not is_secure(client, **{"X-Forwarded-Proto": "https"})


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this kernel has no IPv6")
@pytest.mark.parametrize("trusted", ["127.0.0.1", "127.0.0.2"])
def test_who_comes_by_ipv4_has_an_ipv4_address_where_ipv6_is_listened_on(tmp_path: Path, trusted: str) -> None:
    with served(configured(tmp_path, (trusted,), "::"), Desk()) as client:
        assert client.get(QUESTION, headers={"X-Forwarded-For": "10.1.2.3"}).status_code == 401
        assert named(tmp_path) == ("10.1.2.3" if trusted == "127.0.0.1" else "127.0.0.1")


@pytest.mark.parametrize(
    ("said", "client_is"),
    [
        (["10.1.2.3"], "10.1.2.3"),
        (["spoofed, 10.1.2.3"], "10.1.2.3"),
        (["192.0.2.7, 10.1.2.3"], "10.1.2.3"),
        (["192.0.2.7, 198.51.100.9"], "192.0.2.7"),  # a trusted proxy before ours
        (["6.6.6.6", "192.0.2.7", "198.51.100.9"], "192.0.2.7"),  # each in a field of its own
        (["2001:db8::1"], "2001:db8::1"),
        (["10.1.2.3:4711"], "10.1.2.3"),
        ([""], "127.0.0.1"),
        (["x" * 5000], "x" * 100),
        ([], "127.0.0.1"),
    ],
)
def test_the_nearest_hop_that_is_no_trusted_proxy_is_the_client(
    tmp_path: Path, said: list[str], client_is: str
) -> None:
    with served(configured(tmp_path, ("127.0.0.1", "198.51.100.0/24")), Desk()) as client:
        client.get(QUESTION, headers=[("X-Forwarded-For", each) for each in said])
        assert named(tmp_path) == client_is
        assert is_secure(client, **{"X-Forwarded-Proto": "https"})
        assert not is_secure(client, **{"X-Forwarded-Proto": "http"})
        assert not is_secure(client, **{"X-Forwarded-Proto": "https, http"})


@pytest.mark.parametrize("wrong", ["*", "nginx", "10.0.0.1/8", "10.0.0", ""])
def test_what_is_no_address_is_told_at_once(wrong: str) -> None:
    with pytest.raises(ValidationError, match="is no address or network"):
        Server(trusted_proxies=(wrong,))


@pytest.mark.peer
@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
@pytest.mark.parametrize(("trusted", "client_is"), [(("127.0.0.7",), "127.0.0.9"), (("127.0.0.1",), "127.0.0.7")])
def test_behind_nginx_of_another_machine(tmp_path: Path, trusted: tuple[str, ...], client_is: str) -> None:
    """nginx at 127.0.0.7, as the bridge's gateway is to a container; its client at 127.0.0.9 says that it is somebody
    else.
    """
    certificate(tmp_path)
    (tmp_path / "key.conf").write_text(f'proxy_set_header X-API-Key "{KEY}";\n')
    settings = configured(tmp_path / "data", trusted)
    secure = free_port()
    replacements = {
        "127.0.0.1:8080": f"127.0.0.1:{settings.server.port}",
        "/etc/mkiso/nginx-key.conf": str(tmp_path / "key.conf"),
        "/etc/nginx/tls/": f"{tmp_path}/",
        "# include mkiso/tls.conf;": "include mkiso/tls.conf;",
        "listen 443 ssl;": f"listen 127.0.0.1:{secure} ssl;",
        "listen [::]:443 ssl;": "",
        "proxy_http_version 1.1;": "proxy_http_version 1.1; proxy_bind 127.0.0.7;",
        "rate=10r/m": "rate=1000r/m",
    }
    lies = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}
    believed = client_is == "127.0.0.9"
    with served(settings, Desk(Scripts(settings.storage).done)), Nginx(tmp_path, replacements) as nginx:
        way = httpx.HTTPTransport(local_address="127.0.0.9", verify=False)
        with httpx.Client(
            transport=way, base_url=f"http://127.0.0.1:{nginx.port}", headers=lies, timeout=LONG
        ) as plain:
            assert plain.get("/mkiso.php?accession_number=A1").status_code == 200
            assert named(tmp_path / "data") == client_is
            assert not is_secure(plain)
            assert (
                is_secure(httpx.Client(transport=way, base_url=f"https://127.0.0.1:{secure}", timeout=LONG)) == believed
            )

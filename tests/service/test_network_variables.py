"""What the environment says of proxies and certificates, and nobody can use, stops nothing."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from mkiso_service.cli.main import run
from mkiso_service.network_variables import PROXIES, require_usable

VARIABLES = [*PROXIES, *map(str.upper, PROXIES), "SSL_CERT_FILE"]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy"])
@pytest.mark.parametrize("url", ["socks5://anna:secret@127.0.0.1:9", "socks://127.0.0.1:9", "ftp://127.0.0.1", "no://"])
def test_a_proxy_that_httpx_refuses_is_left_out(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, url)
    with pytest.raises((ValueError, ImportError)):
        httpx.Client()
    require_usable()
    assert name not in os.environ
    httpx.Client().close()
    assert f"{name} of the environment is left out" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("url", ["http://proxy.example.org:3128", "https://proxy.example.org", "127.0.0.1:3128", ""])
def test_a_proxy_that_httpx_takes_stays(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("https_proxy", url)
    require_usable()
    assert os.environ["https_proxy"] == url
    httpx.Client().close()
    assert not caplog.text


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----"])
def test_certificates_that_cannot_be_read_are_refused_in_words(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To leave them out would trust others."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(OSError):
        httpx.Client()
    assert run(["config", "check"]) == 2
    assert "SSL_CERT_FILE" in capsys.readouterr().err
    assert os.environ["SSL_CERT_FILE"] == str(file)

"""Certificates on both sides: nginx before Orthanc's DICOMweb plugin, and OpenSSL's server, which refuses in TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mkiso.config.settings import Settings
from mkiso.errors import PacsRefused, PacsUnreachable
from mkiso.sources.query import find_studies
from mkiso.sources.registry import source_of
from peers.certificates import write_certificates
from peers.corpus import make_study
from peers.orthanc import Orthanc
from peers.ports import free_port
from peers.process import Process
from tests.sources.test_dicomweb import PLUGIN, are_whole, fetched

pytestmark = pytest.mark.peer
CONFIGURATION = """
user root; worker_processes 1; daemon off; pid {folder}/pid; error_log stderr info;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {certificates}/own.pem; ssl_certificate_key {certificates}/own.key;
    ssl_client_certificate {certificates}/ca.pem; ssl_verify_client on;
    location /dicom-web/ {{ proxy_pass http://127.0.0.1:{orthanc}; proxy_buffering off; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_study(tmp_path_factory.mktemp("files"), "A1", kinds={"ct": 3, "mr": 2})


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, certificates: Path, files: list[Path]) -> Iterator[int]:
    """Of nginx, which wants a certificate that the authority signed."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    options = {"Plugins": [PLUGIN], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
    with Orthanc(tmp_path_factory.mktemp("orthanc"), options=options) as orthanc:
        orthanc.store(files)
        text = CONFIGURATION.format(folder=folder, port=port, certificates=certificates, orthanc=orthanc.http_port)
        (folder / "nginx.conf").write_text(text)
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        with Process(command, folder / "nginx.log", port=port):
            yield port


def settings_of(tmp_path: Path, port: int, authority: Path | None, own: Path | None) -> Settings:
    pacs: dict[str, Any] = {
        "kind": "dicomweb",
        "base_url": f"https://127.0.0.1:{port}/dicom-web",
        "authority": authority,
    }
    if own is not None:
        pacs |= {"certificate": own.with_suffix(".pem"), "key": own.with_suffix(".key")}
    storage = {"data_dir": str(tmp_path / "data"), "min_free_gib": 0}
    return Settings.model_validate({"pacs": {**pacs, "back_off_seconds": 0.05}, "storage": storage})


def test_a_study_comes_where_each_trusts_the_other(
    tmp_path: Path, port: int, certificates: Path, files: list[Path]
) -> None:
    settings = settings_of(tmp_path, port, certificates / "ca.pem", certificates / "peer")
    assert "answers QIDO-RS" in source_of(settings).check(10, inside=True)
    assert are_whole(fetched(settings), files)


@pytest.mark.parametrize(
    ("authority", "own", "words"),
    [
        ("ca.pem", None, "asks for a certificate of mkiso's. Set certificate and key in pacs"),
        ("ca.pem", "stranger", "doesn't take mkiso's certificate. Check certificate and key in pacs"),
        (None, "peer", "isn't trusted .*Check authority in pacs"),
        ("stranger.pem", "peer", "isn't trusted .*Check authority in pacs"),
    ],
)
def test_what_one_side_does_not_trust_is_told_for_good(
    tmp_path: Path, port: int, certificates: Path, authority: str | None, own: str | None, words: str
) -> None:
    trusted = certificates / authority if authority else None
    settings = settings_of(tmp_path, port, trusted, certificates / own if own else None)
    for ask in (lambda: find_studies(source_of(settings), "A1"), lambda: source_of(settings).check(10)):
        with pytest.raises(PacsRefused, match=words) as refused:
            ask()
        assert "127.0.0.1" in refused.value.words


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(("own", "words"), [(None, "asks for a certificate"), ("stranger", "doesn't take mkiso's")])
def test_a_server_that_refuses_within_tls_is_understood(
    tmp_path: Path, certificates: Path, version: str, own: str | None, words: str
) -> None:
    """TLS 1.3 tells it only after the handshake (RFC 8446 4.4.2.4)."""
    port = free_port()
    own_files = ["-cert", str(certificates / "own.pem"), "-key", str(certificates / "own.key")]
    demands = ["-CAfile", str(certificates / "ca.pem"), "-Verify", "1", "-verify_return_error", "-www", version]
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", *own_files, *demands]
    settings = settings_of(tmp_path, port, certificates / "ca.pem", certificates / own if own else None)
    with Process(command, tmp_path / "server.log", port=port), pytest.raises(PacsRefused, match=words):
        find_studies(source_of(settings), "A1")


def test_a_server_that_is_not_there_is_no_matter_of_certificates(tmp_path: Path, certificates: Path) -> None:
    settings = settings_of(tmp_path, free_port(), certificates / "ca.pem", certificates / "peer")
    with pytest.raises(PacsUnreachable, match="can't be reached"):
        find_studies(source_of(settings), "A1")

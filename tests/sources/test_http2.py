"""HTTP/2 as nginx speaks it before Orthanc's DICOMweb plugin, and HTTP/1.1 with whoever offers nothing else."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mkiso.config.settings import Settings
from mkiso.config.sources import DicomWeb
from mkiso.errors import JobStopped, PacsSilent
from mkiso.sources.multipart import Multipart
from mkiso.sources.registry import source_of
from mkiso.sources.web import asking, open_client
from peers.certificates import write_certificates
from peers.corpus import make_study
from peers.link import Link
from peers.orthanc import Orthanc
from peers.patience import LONG
from peers.ports import free_port
from peers.process import Process
from tests.sources.test_dicomweb import PLUGIN, are_whole, by_web, fetched

pytestmark = pytest.mark.peer
CUTS = 6
LARGE = 64 * 1024 * 1024
CONFIGURATION = """
user root; worker_processes 1; daemon off; pid {folder}/pid; error_log stderr error;
events {{}}
http {{
  log_format spoken "$server_protocol $server_port"; access_log {folder}/spoken spoken;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  send_timeout 1h; keepalive_timeout 1h; client_header_timeout 1h;
  ssl_certificate {certificates}/own.pem; ssl_certificate_key {certificates}/own.key;
  server {{
    listen 127.0.0.1:{port} ssl http2;
    listen 127.0.0.1:{plain} ssl;
    location /dicom-web/ {{ proxy_pass http://127.0.0.1:{orthanc}; proxy_buffering off; }}
    location /files/ {{ root {folder}; types {{}} default_type 'multipart/related; boundary=b'; }}
  }}
}}
"""


@dataclass(frozen=True)
class Front:
    """nginx before Orthanc: its ports with HTTP/2 and without, and what it spoke."""

    folder: Path
    certificates: Path
    port: int
    plain: int

    def spoken(self, port: int) -> set[str]:
        """The protocols of all requests to this port."""
        lines = map(str.split, (self.folder / "spoken").read_text().splitlines())
        return {protocol for protocol, to in lines if int(to) == port}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_study(tmp_path_factory.mktemp("files"), "A1", kinds={"ct": 12, "mr": 5, "sr": 1})


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, files: list[Path]) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("nginx")
    made = Front(folder, write_certificates(tmp_path_factory.mktemp("certificates")), free_port(), free_port())
    options = {"Plugins": [PLUGIN], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
    with Orthanc(tmp_path_factory.mktemp("orthanc"), options=options) as orthanc:
        orthanc.store(files)
        places = {"folder": folder, "certificates": made.certificates, "orthanc": orthanc.http_port}
        (folder / "nginx.conf").write_text(CONFIGURATION.format(port=made.port, plain=made.plain, **places))
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        with Process(command, folder / "nginx.log", port=made.port):
            yield made


def settings_of(tmp_path: Path, front: Front, port: int, **keys: object) -> Settings:
    pacs = {"http2": True, "authority": front.certificates / "ca.pem", **keys}
    return by_web(tmp_path, f"https://127.0.0.1:{port}/dicom-web", **pacs)


def test_http_2_is_spoken_where_it_is_offered_and_wanted(tmp_path: Path, front: Front, files: list[Path]) -> None:
    wanted = settings_of(tmp_path / "wanted", front, front.port)
    assert "answers QIDO-RS" in source_of(wanted).check(10, inside=True)
    assert are_whole(fetched(wanted), files) and front.spoken(front.port) == {"HTTP/2.0"}
    assert are_whole(fetched(settings_of(tmp_path / "plain", front, front.plain)), files)
    assert front.spoken(front.plain) == {"HTTP/1.1"}
    unwanted = settings_of(tmp_path / "unwanted", front, front.port, http2=False)
    assert are_whole(fetched(unwanted), files) and front.spoken(front.port) == {"HTTP/2.0", "HTTP/1.1"}


@pytest.mark.parametrize("seed", range(CUTS))
def test_a_stream_of_http_2_that_is_cut_goes_on(tmp_path: Path, front: Front, files: list[Path], seed: int) -> None:
    """The rest comes instance by instance, side by side."""
    at = random.Random(seed).randrange(5000, sum(file.stat().st_size for file in files))

    with Link(front.port) as link:

        def cut(link: Link) -> None:
            if link.carried > at:
                link.on_carried = None
                link.cut()

        def begin() -> None:
            link.carried, link.on_carried = 0, cut

        settings = settings_of(tmp_path, front, link.port)
        assert are_whole(fetched(settings, on_found=begin), files)
        assert link.on_carried is None


def test_a_stop_ends_a_silent_stream_of_http_2(tmp_path: Path, front: Front) -> None:
    stop = threading.Event()
    with Link(front.port) as link:

        def hush(link: Link) -> None:
            link.hush()
            stop.set()

        def begin() -> None:
            link.on_carried = hush

        begun = time.monotonic()
        with pytest.raises(JobStopped):
            fetched(settings_of(tmp_path, front, link.port, response_timeout_seconds=3600), stop, begin)
        assert time.monotonic() - begun < LONG


def test_a_large_instance_by_http_2_takes_no_memory(tmp_path: Path, front: Front) -> None:
    (front.folder / "files").mkdir()
    with (front.folder / "files" / "large").open("wb") as file:
        file.write(b"--b\r\n\r\n")
        file.truncate(LARGE)
        file.seek(LARGE)
        file.write(b"\r\n--b--\r\n")
    pacs = settings_of(tmp_path, front, front.port).pacs
    assert isinstance(pacs, DicomWeb)
    with open_client(pacs) as client, asking(client, pacs, "/../files/large", "*/*") as answer:
        stream = Multipart(answer.iter_raw(), b"b")
        assert answer.http_version == "HTTP/2" and stream.next_part() is not None
        tracemalloc.start()
        size = sum(len(piece) for piece in stream.pieces())
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert size == LARGE - len(b"--b\r\n\r\n") and most < 4_000_000


def test_pings_alone_are_no_answer(tmp_path: Path) -> None:
    """A proxy keeps its connections alive with them while what is behind it hangs."""
    certificates = write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "own.pem", certificates / "own.key")
    context.set_alpn_protocols(["h2"])

    def ping(listening: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(listening.accept()[0], server_side=True) as connection:
            connection.sendall(bytes.fromhex("000000040000000000"))  # SETTINGS
            while True:
                connection.sendall(bytes.fromhex("000008060000000000") + b"mkiso 64")
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=ping, args=(listening,), daemon=True).start()
        settings = DicomWeb.model_validate(
            {
                "kind": "dicomweb",
                "base_url": f"https://127.0.0.1:{listening.getsockname()[1]}/dicom-web",
                "authority": certificates / "ca.pem",
                "http2": True,
                "connect_timeout_seconds": 5,
                "response_timeout_seconds": 0.5,
            }
        )
        with (
            open_client(settings) as client,
            pytest.raises(PacsSilent),
            asking(client, settings, "/studies", "application/dicom+json"),
        ):
            pass

"""What mkiso depends on is told by one registry, to a monitor and to whoever sits at the machine."""

from __future__ import annotations

import errno
import io
import json
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console

from mkiso.audit.messages import queried
from mkiso.config.archive import Archive
from mkiso.config.disc import Print, Viewer
from mkiso.config.settings import Audit, PatientApi, Prefect, Receiver, Server, Settings
from mkiso.config.sources import DicomWeb
from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError, PacsSilent
from mkiso.pictures.confinement import landlock_version
from mkiso.storage.data_format import FORMAT
from mkiso_service.checks.check import Check, Finding, Site, examine
from mkiso_service.checks.registry import CHECKS, checks_of
from mkiso_service.cli.doctor import diagnose
from mkiso_service.prefect.environment import not_taken
from mkiso_service.process_states import RECENT_SECONDS
from peers.certificates import https_server, write_certificates
from peers.ports import free_port
from peers.small_disk import fill, small_disk, use_up_names


def site_in(folder: Path, **settings: Any) -> Site:
    def nobody(what: object) -> Any:
        raise AssertionError("Prefect isn't asked")

    return Site(Settings(storage=Storage(data_dir=folder, min_free_gib=0), **settings), nobody, 1.0)


def finding(site: Site, name: str) -> Finding:
    return examine(next(check for check in CHECKS if check.name == name), site)


def test_a_monitor_and_the_doctor_have_the_same_checks() -> None:
    settings = Settings()
    outside, inside = checks_of(settings), checks_of(settings, inside=True)
    assert [check.name for check in inside if not check.inside] == [check.name for check in outside]
    assert {check.name for check in inside if check.inside} == {"configuration", "video", "webhook"}
    assert len({check.title for check in inside}) == len(inside)


@pytest.mark.parametrize(("options", "use_up"), [("nr_inodes=10", use_up_names), ("size=64k", fill)])
def test_a_disk_without_room_for_a_file_is_no_matter_of_rights(
    tmp_path: Path, options: str, use_up: Callable[[Path], object]
) -> None:
    with small_disk(tmp_path / "data", options) as disk:
        use_up(disk)
        found = finding(site_in(disk), "disk")
    assert (found.well, found.words) == (
        False,
        "storage.data_dir can't be written: No space left on device. Make room there.",
    )


def test_a_disk_that_the_system_writes_to_no_more_is_to_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("mkiso_service.checks.registry.tempfile.TemporaryFile", refuse)
    found = finding(site_in(tmp_path), "disk")
    assert (found.well, found.words) == (
        False,
        "storage.data_dir can't be written: Read-only file system. Look at that disk.",
    )


@pytest.mark.parametrize(("found", "words"), [(object(), "become pictures, by PyAV"), (None, "Install '.[video]'")])
def test_the_doctor_says_whether_videos_become_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: object, words: str
) -> None:
    monkeypatch.setattr("mkiso.pictures.pyav.find_spec", lambda name: found)
    made = finding(site_in(tmp_path), "video")
    assert made.well and words in made.words
    assert "video" not in {check.name for check in checks_of(Settings(disc={"pictures": "none"}), inside=True)}


@pytest.mark.parametrize(
    ("version", "reached", "well", "words"),
    [
        (7, set(), True, "its own job's files alone"),
        (0, {"files", "sockets"}, True, "has no Landlock"),
        (7, {"files"}, False, "reaches files of others"),
        (7, {"sockets", "files"}, False, "reaches files and sockets of others"),
    ],
)
def test_the_doctor_says_how_far_a_decoder_is_kept_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, reached: set[str], *, well: bool, words: str
) -> None:
    monkeypatch.setattr("mkiso.pictures.confinement.landlock_version", lambda: version)
    monkeypatch.setattr("mkiso.pictures.confinement.reached", lambda: reached)
    made = finding(replace(site_in(tmp_path), inside=True), "decoders")
    assert made.well is well and words in made.words


def test_the_doctor_tries_whether_a_decoder_is_kept_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = finding(replace(site_in(tmp_path), inside=True), "decoders")
    assert made.well
    nothing = "import mkiso.pictures.confinement as module\nmodule._system_call = lambda *_: -1\nmodule._try()"
    monkeypatch.setattr("mkiso.pictures.confinement._TRIAL", ("-c", nothing))
    made = finding(replace(site_in(tmp_path), inside=True), "decoders")
    assert (made.well, "reaches files of others" in made.words) == (not landlock_version(), bool(landlock_version()))


def test_a_service_that_may_not_confine_its_decoders_says_what_to_do() -> None:
    """So it was under the units of Debian 12, while the doctor, outside of them, found all well."""
    attempt = """
import ctypes, platform
from mkiso.config.settings import Settings
from mkiso.pictures import confinement
from mkiso_service.checks.check import Site, examine
from mkiso_service.checks.registry import checks_of
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
program = confinement._refusing(confinement._MACHINES[platform.machine()][0], (444, 445, 446))
assert not libc.prctl(22, 2, ctypes.byref(confinement._Filter(len(program) // 8, program)))
[check] = [check for check in checks_of(Settings()) if check.name == "decoders"]
found = examine(check, Site(Settings(), None, 1.0))
assert not found.well
print(found.words)
"""
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("mkiso has no filter for this machine")
    done = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True, check=False)
    assert "refuses Landlock" in done.stdout and "service install" in done.stdout, done.stdout + done.stderr


def test_what_a_site_has_not_configured_is_no_finding() -> None:
    settings = Settings.model_validate({"publishers": {}})
    names = {check.name for check in checks_of(settings, inside=True)}
    assert not any(name.startswith("publisher") or name in ("patient_api", "viewer") for name in names)
    assert {"publisher:rimage"} == {check.name for check in checks_of(Settings())} - names


def test_each_source_has_a_check_of_its_own() -> None:
    sources = {"main": {"port": free_port()}, "old": {"ae_title": "OLD", "kind": "cget", "port": free_port()}}
    checks = checks_of(Settings.model_validate({"sources": sources}))
    assert [check.name for check in checks if check.name.startswith(("source", "pacs"))] == [
        "source:main",
        "source:old",
    ]
    site = Site(Settings.model_validate({"sources": sources}), lambda _: None, 1.0)  # type: ignore[arg-type]
    found = examine(next(check for check in checks if check.name == "source:old"), site)
    assert not found.well and "The PACS OLD at" in found.words and "sources.old.host" in found.words


def test_a_publisher_that_is_named_has_to_exist_where_there_are_any() -> None:
    with pytest.raises(
        ValueError,
        match=r"print\.publisher is 'epson', and there is no such publisher: publishers has rimage alone, the default",
    ):
        Settings(print=Print(publisher="epson"))


@pytest.mark.parametrize(
    ("error", "words"), [(PacsSilent("It is silent."), "It is silent."), (KeyError("x"), "can't be checked: KeyError")]
)
def test_whatever_a_check_raises_is_a_finding(tmp_path: Path, error: Exception, words: str) -> None:
    def run(site: Site) -> str:
        raise error

    found = examine(Check("new", "new", run), site_in(tmp_path))
    assert (found.well, found.words) == (False, words)


def test_a_new_check_is_a_function_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Check("tea", "tea", lambda site: "is hot")
    monkeypatch.setattr("mkiso_service.checks.registry.CHECKS", (*CHECKS, line))
    for inside in (False, True):
        assert line in checks_of(Settings(), inside=inside)
    assert examine(line, site_in(tmp_path)).words == "is hot"


def test_a_data_folder_that_takes_no_file_is_told_before_a_job_fails(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder")
    found = finding(site_in(tmp_path / "data"), "disk")
    assert not found.well
    assert "storage.data_dir" in found.words


def test_the_doctor_says_why_the_data_folder_cant_be_used_and_health_tells_no_path(tmp_path: Path) -> None:
    site = site_in(Path("/proc/mkiso"))
    outside, inside = finding(site, "disk"), finding(replace(site, inside=True), "disk")
    assert (outside.well, outside.words) == (False, "storage.data_dir can't be used: `mkiso doctor` says why.")
    assert not inside.well and "/proc is the kernel's own" in inside.words


def test_the_doctor_says_that_a_newer_mkiso_wrote_there(tmp_path: Path) -> None:
    site = site_in(tmp_path)
    (tmp_path / "format").write_text(f"{FORMAT + 1}\n")
    outside, inside = finding(site, "disk"), finding(replace(site, inside=True), "disk")
    assert (outside.well, str(tmp_path) in outside.words) == (False, False)
    assert not inside.well and f"storage.data_dir {tmp_path} holds data of a newer mkiso" in inside.words


def test_the_doctor_looks_at_the_store_of_an_archive_that_has_one(tmp_path: Path) -> None:
    archive = Archive(enabled=True, directory=tmp_path / "store")
    site = site_in(tmp_path / "data", archive=archive)
    assert "archive_store" in {check.name for check in checks_of(site.settings, inside=True)}
    assert "archive_store" not in {check.name for check in checks_of(site.settings)}  # a front machine needs none
    elsewhere = site.settings.model_copy(update={"archive": archive.model_copy(update={"output": "robot"})})
    assert "archive_store" not in {check.name for check in checks_of(elsewhere, inside=True)}
    assert finding(site, "archive_store").words.startswith(f"{tmp_path / 'store'} becomes the store")
    (tmp_path / "store" / "A20200101_0001").mkdir(parents=True)
    found = finding(site, "archive_store")
    assert not found.well and "lie volumes that the ledger knows nothing of, such as A20200101_0001" in found.words
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ledger.sqlite").write_text("no database, and longer than any header of one" * 100)
    found = finding(site, "archive_store")
    assert (found.well, "can't be told without the ledger" in found.words) == (False, True)
    prefect = Prefect(api_url="http://127.0.0.1:4200/api", api_auth_string="a:of-sixteen-or-more")
    front = site_in(tmp_path, archive=archive, prefect=prefect)
    assert finding(front, "archive_store").words == "is looked at on a machine with a worker"


def test_the_doctor_says_how_to_try_what_nginx_sends() -> None:
    settings = Settings(server=Server(accel_redirect="/_discs/", public_url="https://discs.example"))
    [check] = [check for check in checks_of(settings, inside=True) if check.name == "nginx"]
    told = examine(check, Site(settings, None, 1.0, inside=True))  # type: ignore[arg-type]
    assert told.well and told.words.endswith("mkiso burn --url https://discs.example ACCESSION")
    assert "nginx" not in {check.name for check in checks_of(Settings(), inside=True)}


def test_processes_that_nobody_keeps_any_more_are_not_said_to_run(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    states = {name: {"up": True, "pid": ended.pid, "ended": []} for name in ("worker", "receiver")}
    (tmp_path / "processes.json").write_text(json.dumps(states))
    found = finding(site_in(tmp_path), "processes")
    assert (found.well, found.words) == (False, "`mkiso serve` was cut off: start it again.")


def test_what_ended_long_ago_is_forgotten(tmp_path: Path) -> None:
    long_ago = time.time() - RECENT_SECONDS - 1
    states = {"worker": {"up": True, "pid": 1, "ended": [long_ago] * 9}}
    (tmp_path / "processes.json").write_text(json.dumps(states))
    assert finding(site_in(tmp_path), "processes").words == "all run"


@pytest.mark.parametrize(
    ("worker", "waits"),
    [
        ({"up": False, "pid": None, "begun": 0, "ended": []}, True),
        ({"up": True, "pid": 1, "begun": 0, "ended": []}, True),
        ({"up": True, "pid": 1, "begun": -100, "ended": []}, False),  # it had its time
        ({"up": True, "pid": 1, "begun": 0, "ended": [0]}, False),  # and is no first start
        ({"up": True, "pid": 1, "ended": []}, False),
    ],
)
def test_the_doctor_waits_while_mkiso_is_starting_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: dict[str, Any], waits: bool
) -> None:
    settings, now, asked = settings_in(tmp_path), time.time(), 0
    (tmp_path / "data").mkdir()
    states = {"worker": worker | ({"begun": now + worker["begun"]} if "begun" in worker else {})}
    (tmp_path / "data" / "processes.json").write_text(json.dumps(states))

    def takes_jobs(site: Site) -> str:
        nonlocal asked
        asked += 1
        if asked < 4:
            raise PacsSilent("Not yet.")
        return "takes jobs"

    checks = [Check("worker", "worker", takes_jobs, of_service=True), Check("webhook", "webhook", lambda site: "")]
    monkeypatch.setattr("mkiso_service.cli.doctor.checks_of", lambda settings, inside: checks)
    monkeypatch.setattr("mkiso_service.cli.doctor.time.sleep", lambda seconds: None)
    with socket.create_server(("127.0.0.1", settings.server.port)):
        told = told_by_doctor(settings)
    assert (told.count("mkiso is starting …"), "Everything is in order." in told) == (int(waits), waits), told
    assert asked == (5 if waits else 1)


def test_who_refuses_the_password_of_prefect_is_named_and_what_to_do() -> None:
    password = SecretStr("user:the-password-of-a-test")
    own, other = Prefect(server_port=4299), Prefect(api_url="http://front:4200/api", api_auth_string=password)
    assert "http://127.0.0.1:4299/api" in not_taken(own) and "set another prefect.server_port" in not_taken(own)
    assert "http://front:4200/api" in not_taken(other) and "prefect.api_auth_string" in not_taken(other)


def told_by_doctor(settings: Settings) -> str:
    console = Console(file=io.StringIO(), width=1000)
    diagnose(console, settings)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def settings_in(folder: Path) -> Settings:
    return Settings(
        storage=Storage(data_dir=folder / "data", min_free_gib=0),
        server=Server(port=free_port()),
        receiver=Receiver(port=free_port()),
        prefect=Prefect(server_port=free_port()),
        publishers={},
    )


def test_a_service_that_has_never_run_is_explained_once_and_leaves_no_folder(tmp_path: Path) -> None:
    """A data folder that an administrator's doctor made would belong to root, and mkiso couldn't start."""
    told = told_by_doctor(settings_in(tmp_path))
    assert told.count("mkiso serve") == 1 and "password" not in told
    assert told.count("isn't running.") == 3, told  # receiver, Prefect, worker
    assert not any(tmp_path.iterdir())


def test_a_user_who_may_not_look_into_the_data_is_told_so(tmp_path: Path) -> None:
    settings, before = settings_in(tmp_path), os.geteuid()
    settings.storage.data_dir.mkdir(mode=0)
    if not before:
        os.seteuid(65534)  # root may look into everything
    try:
        with pytest.raises(ConfigurationError, match=r"run mkiso doctor as that user"):
            told_by_doctor(settings)
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("key", ["server.port", "prefect.server_port", "receiver.port"])
def test_a_port_that_another_program_has_is_told_before_the_first_start(tmp_path: Path, key: str) -> None:
    """Another mkiso's, for one: a demo that is still up answers as one's own service would."""
    settings = settings_in(tmp_path)
    section, name = key.split(".")
    port = getattr(getattr(settings, section), name)
    with socket.create_server(("127.0.0.1", port)):
        told = told_by_doctor(settings)
    assert f"another program answers at 127.0.0.1:{port}. End that one, or set another {key}." in told, told
    assert told.count("another program") == 1


@contextmanager
def health_answered(body: bytes) -> Iterator[int]:
    """A port at which every question gets this answer."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"status": "ok"}', b"{" * 100_000])
def test_another_program_on_the_port_of_the_webhook_is_not_taken_for_it(tmp_path: Path, body: bytes) -> None:
    with health_answered(body) as port:
        found = finding(site_in(tmp_path, server=Server(port=port)), "webhook")
    assert not found.well and "isn't mkiso" in found.words, found.words


def test_what_the_running_service_lacks_is_wrong_though_the_doctor_has_it(tmp_path: Path) -> None:
    """A unit of systemd may keep a service from what a person at the same machine can reach."""
    robot = {"ok": False, "detail": "R's folder /srv/robot can't be used (Read-only file system)."}
    told = {"status": "degraded", "degraded": ["publisher:R"], "dependencies": {"publisher:R": robot}}
    with health_answered(json.dumps(told).encode()) as port:
        found = finding(site_in(tmp_path, server=Server(port=port)), "webhook")
    assert not found.well and "lacks publisher:R (R's folder /srv/robot can't be used" in found.words, found.words


def test_the_doctor_names_a_fault_of_a_pacs_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no certificate")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "processes.json").write_text(json.dumps({"worker": {"up": True, "pid": 1, "ended": []}}))
    pacs = DicomWeb(kind="dicomweb", base_url="https://a.org", authority=tmp_path / "file")
    told = {"status": "degraded", "degraded": ["pacs"], "dependencies": {"pacs": {"ok": False, "detail": "No PEM."}}}
    with health_answered(json.dumps(told).encode()) as port:
        said = told_by_doctor(settings_in(tmp_path).model_copy(update={"server": Server(port=port), "pacs": pacs}))
    assert said.count("PEM") == 1 and "/api/health says what stands above" in said, said


def test_what_the_configuration_names_and_nobody_has_is_told(tmp_path: Path) -> None:
    site = site_in(tmp_path, receiver=Receiver(host="203.0.113.9"), viewer=Viewer(directory=str(tmp_path / "none")))
    assert "receiver.host 203.0.113.9 is no address" in finding(site, "configuration").words
    assert "viewer" not in finding(site, "configuration").words
    assert not finding(site, "viewer").well


def test_the_words_for_everybody_hold_no_address(tmp_path: Path) -> None:
    """/api/health asks for no key."""
    site = site_in(tmp_path)
    found = finding(site, "receiver")
    assert not found.well
    assert site.settings.receiver.ae_title not in found.words


def test_a_patient_api_is_asked_as_jobs_ask_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with the certificate of a hospital's own authority, which answers no HEAD."""
    folder = write_certificates(tmp_path)
    with https_server(folder, "peer") as port:
        site = site_in(tmp_path, patient_api=PatientApi(base_url=f"https://127.0.0.1:{port}"))
        assert "can't be reached (its certificate isn't trusted" in finding(site, "patient_api").words
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        assert finding(site, "patient_api").well


def test_a_front_has_no_receiver_and_a_machine_with_a_worker_lacks_its_own(tmp_path: Path) -> None:
    front = Prefect(api_url="http://front.example:4200/api", api_auth_string=SecretStr("mkiso:of-sixteen-characters"))
    site = replace(site_in(tmp_path, prefect=front, receiver=Receiver(port=free_port())), inside=True)
    found = finding(site, "receiver")
    assert found.well and found.words.startswith("none on this machine")
    site.settings.storage.jobs_dir.mkdir()  # its worker or receiver makes it
    found = finding(site, "receiver")
    assert not found.well and "Start `mkiso receiver`" in found.words


def test_a_machine_with_a_worker_has_no_webhook_and_a_front_lacks_its_own(tmp_path: Path) -> None:
    """Of a worker machine that was well, `mkiso doctor` said to start `mkiso serve`."""
    front = Prefect(api_url="http://front.example:4200/api", api_auth_string=SecretStr("mkiso:of-sixteen-characters"))
    site = replace(site_in(tmp_path, prefect=front, server=Server(port=free_port())), inside=True)
    found = finding(site, "webhook")
    assert not found.well and "Start `mkiso webhook`" in found.words
    site.settings.storage.jobs_dir.mkdir()  # of before there were several machines
    assert not finding(site, "webhook").well
    site.settings.storage.receiver_socket.touch()
    found = finding(site, "webhook")
    assert found.well and found.words.startswith("none runs on this machine")


def test_audit_messages_that_were_not_delivered_are_told(tmp_path: Path) -> None:
    assert "audit" not in {check.name for check in checks_of(Settings())}
    port = free_port()
    for scheme in ("tls", "udp"):
        outside = site_in(tmp_path, audit=Audit(enabled=True, target=f"{scheme}://127.0.0.1:{port}"))
        inside = replace(outside, inside=True)
        assert finding(outside, "audit").well
        assert not finding(inside, "audit").well  # nobody listens there
        assert f"127.0.0.1:{port} can't be reached (Connection refused)" in finding(inside, "audit").words
    queried(outside.settings, "A1")
    assert finding(outside, "audit").well
    outside = site_in(tmp_path, audit=Audit(enabled=True, target=f"tls://127.0.0.1:{port}"))
    queried(outside.settings, "A1")
    told = finding(outside, "audit")
    assert not told.well and "127.0.0.1" not in told.words and str(tmp_path) not in told.words
    assert f"couldn't be delivered since {datetime.now(UTC):%Y-}" in told.words
    told = finding(replace(outside, inside=True), "audit")
    assert str(tmp_path / "audit-undelivered.xml") in told.words and "Connection refused" in told.words
    (tmp_path / "audit-undelivered.xml").rename(tmp_path / "kept.xml")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server_there = Audit(enabled=True, target=f"udp://127.0.0.1:{server.getsockname()[1]}")
        told = finding(replace(site_in(tmp_path, audit=server_there), inside=True), "audit")
        assert told.well and "UDP says no more" in told.words
    told = finding(replace(site_in(tmp_path, audit=Audit(enabled=True)), inside=True), "audit")
    assert told.well and str(tmp_path / "audit.xml") in told.words

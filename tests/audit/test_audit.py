"""Audit messages against the schema of PS3.15 A.5.1, and their way to a file, over UDP and over TLS to real
listeners.
"""

from __future__ import annotations

import base64
import errno
import os
import re
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from mkiso.audit import delivery
from mkiso.audit import messages as audit
from mkiso.config.settings import Settings
from mkiso.config.sources import Origin
from mkiso.lines import append_line
from mkiso.study.models import Expected, Study
from peers.patience import LONG

STUDY = Study("A1", "1.2.3", "HN-1", "Canary^Name", expected=Expected("image", 2, {"1.2.3.1": frozenset({"1", "2"})}))
LEFT = audit.Left(
    {"HN-1": "Canary^Näme"}, {"1.2.3": "A1", "1.2.4": "A2"}, 7, {"1.2.3": {"1.2.840.1": 5, "1.2.840.2": 2}}
)
ASKER = audit.Client("10.1.2.3")
CLIENT = audit.Party("10.1.2.3", audit.DESTINATION, "10.1.2.3", is_requestor=True)
FILE = audit.Party("/api/iso/x", audit.DESTINATION_MEDIA, "10.1.2.3", media_type=audit.BY_ADDRESS)
CODED = {"csd-code", "codeSystemName", "originalText"}

Tell = Callable[[Settings], None]
EVERY: dict[str, tuple[Tell, str, str, str]] = {
    "asked": (lambda settings: audit.asked(settings, ["A1", "A2"], ASKER, "request-1"), "110112", "E", "0"),
    "queried": (lambda settings: audit.queried(settings, "A1", job_id="job-1"), "110112", "E", "0"),
    "shown": (lambda settings: audit.shown(settings, [STUDY], ASKER, "request-1"), "110103", "R", "0"),
    "transfer": (lambda settings: audit.transfer_begins(settings, STUDY, "job-1"), "110102", "E", "0"),
    "export": (lambda settings: audit.exported(settings, LEFT, CLIENT, FILE, "job-1"), "110106", "R", "0"),
    "alert": (lambda settings: audit.alert(settings, ASKER, "/api/iso", "request-1", "no key"), "110113", "E", "4"),
}


def settings_in(folder: Path, **keys: Any) -> Settings:
    values = {
        "storage": {"data_dir": folder},
        "audit": {"enabled": True, **keys},
        "disc": {"institution": "Test Hospital"},
    }
    return Settings.model_validate(values)


def told(folder: Path, tell: Tell, **keys: Any) -> Element:
    tell(settings_in(folder, **keys))
    [line] = (folder / "audit.xml").read_text(encoding="utf-8").splitlines()
    return fromstring(line)


def assert_schema(message: Element) -> None:
    """What A.5.1.1 says of order, numbers and values."""
    assert message.tag == "AuditMessage" and not message.attrib
    order = "".join(
        {"EventIdentification": "E", "ActiveParticipant": "P", "AuditSourceIdentification": "S"}.get(part.tag, "O")
        for part in message
    )
    assert re.fullmatch("EP+SO*", order), order
    event = message[0]
    assert event.attrib.keys() == {"EventActionCode", "EventDateTime", "EventOutcomeIndicator"}
    assert event.attrib["EventActionCode"] in "CRUDE" and event.attrib["EventOutcomeIndicator"] in ("0", "4", "8", "12")
    assert datetime.fromisoformat(event.attrib["EventDateTime"]).tzinfo is not None
    assert next(part.tag for part in event) == "EventID"
    for coded in (
        part
        for part in message.iter()
        if part.tag in ("EventID", "EventTypeCode", "RoleIDCode", "ParticipantObjectIDTypeCode")
    ):
        assert coded.attrib.keys() == CODED
    participants = message.findall("ActiveParticipant")
    assert sum(participant.attrib["UserIsRequestor"] == "true" for participant in participants) == 1
    for participant in participants:
        assert participant.attrib["UserID"] and participant.attrib["UserIsRequestor"] in ("true", "false")
        assert participant.attrib.get("NetworkAccessPointTypeCode", "2") in ("1", "2")
        parts = " ".join(part.tag for part in participant)
        assert re.fullmatch("(RoleIDCode)?( ?MediaIdentifier)?", parts)
        is_media = participant.find("RoleIDCode[@csd-code='110154']") is not None
        assert is_media == (participant.find("MediaIdentifier/MediaType") is not None)
    media = message.findall("ActiveParticipant/RoleIDCode[@csd-code='110154']")
    assert len(media) == (event[0].attrib["csd-code"] == "110106")
    source = message.find("AuditSourceIdentification")
    assert source is not None and source.attrib["AuditSourceID"]
    for thing in message.findall("ParticipantObjectIdentification"):
        names = [part.tag.removeprefix("ParticipantObject") for part in thing]
        assert re.fullmatch(r"IDTypeCode (Name|Query)( Detail)*( Description)*", " ".join(names)), names
        assert thing.attrib.keys() == {
            "ParticipantObjectID",
            "ParticipantObjectTypeCode",
            "ParticipantObjectTypeCodeRole",
        }
        assert thing.attrib["ParticipantObjectID"]
        for detail in thing.findall("ParticipantObjectDetail"):
            base64.b64decode(detail.attrib["value"], validate=True)
        for description in thing.findall("ParticipantObjectDescription"):
            assert re.fullmatch("(Accession )+SOPClass( SOPClass)*", " ".join(part.tag for part in description))
            assert all(int(part.attrib["NumberOfInstances"]) >= 0 for part in description.iter("SOPClass"))


@pytest.mark.parametrize(("tell", "event", "action", "outcome"), EVERY.values(), ids=EVERY)
def test_every_message_keeps_to_the_schema(tmp_path: Path, tell: Tell, event: str, action: str, outcome: str) -> None:
    message = told(tmp_path, tell)
    assert_schema(message)
    assert message[0][0].attrib["csd-code"] == event
    assert (message[0].attrib["EventActionCode"], message[0].attrib["EventOutcomeIndicator"]) == (action, outcome)


def objects(message: Element, type_code: str) -> list[str]:
    found = message.findall(f"ParticipantObjectIdentification/ParticipantObjectIDTypeCode[@csd-code='{type_code}']/..")
    return [thing.attrib["ParticipantObjectID"] for thing in found]


def test_what_left_and_to_whom_can_be_read(tmp_path: Path) -> None:
    message = told(tmp_path, EVERY["export"][0])
    assert objects(message, "110180") == ["1.2.3", "1.2.4"] and objects(message, "2") == ["HN-1"]
    assert [accession.attrib["Number"] for accession in message.iter("Accession")] == ["A1"], "of A2 no more is known"
    source, destination, media = message.findall("ActiveParticipant")
    assert source.attrib["UserID"] == "CDRECORD" and destination.attrib["NetworkAccessPointID"] == "10.1.2.3"
    assert media.attrib["UserID"] == "/api/iso/x"
    classes = [(each.get("UID"), each.get("NumberOfInstances")) for each in message.iter("SOPClass")]
    assert classes == [("1.2.840.1", "5"), ("1.2.840.2", "2")]


def test_who_asked_for_what_can_be_read(tmp_path: Path) -> None:
    message = told(tmp_path, EVERY["asked"][0])
    query = message.find(".//ParticipantObjectQuery")
    assert query is not None and base64.b64decode(query.text or "") == b"AccessionNumber=A1,A2"
    assert message.findall("ActiveParticipant")[0].attrib["UserID"] == "10.1.2.3"


def test_a_pacs_is_asked_with_this_data_set(tmp_path: Path) -> None:
    message = told(tmp_path, lambda settings: audit.queried_by_date(settings, "20260101-20260131", "job-1"))
    assert_schema(message)
    asked, syntax = message.find(".//ParticipantObjectQuery"), message.find(".//*[@type='TransferSyntax']")
    assert asked is not None and syntax is not None
    assert base64.b64decode(syntax.attrib["value"]).decode() == ImplicitVRLittleEndian
    query = dcmread(BytesIO(base64.b64decode(asked.text or "")), force=True)
    assert (query.QueryRetrieveLevel, query.StudyDate) == ("STUDY", "20260101-20260131")


def test_a_dicomweb_server_is_asked_by_its_address(tmp_path: Path) -> None:
    pacs = {"kind": "dicomweb", "base_url": "https://pacs.example.org/rs/"}
    audit.queried(Settings.model_validate({**settings_in(tmp_path).model_dump(), "pacs": pacs}), "A1", job_id="job-1")
    message = fromstring((tmp_path / "audit.xml").read_text(encoding="utf-8"))
    assert_schema(message)
    assert objects(message, "10") == ["https://pacs.example.org/rs/studies"]
    assert base64.b64decode(message.findtext(".//ParticipantObjectQuery") or "") == b"AccessionNumber=A1"


def test_each_event_has_its_clause() -> None:
    codes = [value for value in vars(audit).values() if isinstance(value, tuple) and len(value) == 3]
    assert set(audit.CLAUSES) == {code for code in codes if "110100" <= code[0] <= "110114"}


@pytest.mark.parametrize("name", ["transfer", "export"])
def test_names_stay_out_where_they_shall(tmp_path: Path, name: str) -> None:
    with_name = told(tmp_path, EVERY[name][0])
    (tmp_path / "audit.xml").unlink()
    without = told(tmp_path, EVERY[name][0], patient_names=False)
    assert_schema(without)
    assert any("Canary" in (element.text or "") for element in with_name.iter())
    assert not any("Canary" in str((element.text, element.attrib)) for element in without.iter())


def test_nothing_is_written_unless_enabled(tmp_path: Path) -> None:
    EVERY["asked"][0](Settings.model_validate({"storage": {"data_dir": tmp_path}}))
    assert not list(tmp_path.iterdir())


def test_no_value_makes_a_line_or_an_element_of_its_own(tmp_path: Path) -> None:
    evil = 'A"/>\n<AuditMessage>\r\x00\x1b\u2028'
    audit.alert(settings_in(tmp_path), audit.Client(evil), evil, evil, evil)
    left = audit.Left({evil: evil}, {evil: evil}, 1, {evil: {evil: 1}})
    media = audit.Party(evil, audit.DESTINATION_MEDIA, media_type=audit.CD)
    audit.exported(settings_in(tmp_path), left, audit.Party(evil, audit.DESTINATION, evil), media, evil)
    lines = (tmp_path / "audit.xml").read_bytes().decode().split("\n")
    assert len(lines) == 3
    for line in lines[:2]:
        message = fromstring(line)
        assert_schema(message)
        assert len(list(message.iter("AuditMessage"))) == 1


def test_the_file_is_the_services_alone(tmp_path: Path) -> None:
    told(tmp_path, EVERY["alert"][0])
    assert (tmp_path / "audit.xml").stat().st_mode & 0o777 == 0o600


def test_half_a_line_of_before_costs_no_other(tmp_path: Path) -> None:
    trail, tell = tmp_path / "audit.xml", EVERY["asked"][0]
    tell(settings_in(tmp_path))
    trail.write_bytes(trail.read_bytes()[:100])  # the power went
    for _ in range(2):
        tell(settings_in(tmp_path))
    half, *whole = trail.read_text().splitlines()
    assert (len(half), len(whole)) == (100, 2)
    for line in whole:
        assert_schema(fromstring(line))


def test_a_message_that_finds_room_for_half_of_it_is_kept_whole(tmp_path: Path) -> None:
    trail, kept, tell = tmp_path / "audit.xml", tmp_path / "audit-undelivered.xml", EVERY["asked"][0]
    for _ in range(5):
        tell(settings_in(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (trail.stat().st_size + 100, limits[1]))
    try:
        tell(settings_in(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    [line] = kept.read_text().splitlines()
    assert_schema(fromstring(line))
    tell(settings_in(tmp_path))
    assert_schema(fromstring(trail.read_text().splitlines()[-1]))


def assert_syslog(line: bytes) -> Element:
    """RFC 5424 6, with what PS3.15 A.6 asks for."""
    head, _, message = line.partition(b"\xef\xbb\xbf")
    assert re.fullmatch(
        rb"<85>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 \S{1,255} mkiso %d DICOM\+RFC3881 - " % os.getpid(), head
    ), head
    element = fromstring(message)
    assert_schema(element)
    return element


def test_syslog_over_udp(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(LONG)
        for tell, *_ in EVERY.values():
            tell(settings_in(tmp_path, target=f"udp://127.0.0.1:{server.getsockname()[1]}"))
            assert_syslog(server.recv(65536))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_came_after_the_start_of_a_service_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "folder" / "audit.xml"

    def read_only(where: Path, message: bytes) -> None:
        if where == file:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(where))
        append_line(where, message)

    monkeypatch.setattr(delivery, "append_line", read_only)
    EVERY["export"][0](settings_in(tmp_path, target=str(file)))
    assert (tmp_path / "audit-undelivered.xml").exists()
    assert f"{file}: Read-only file system; if it came after mkiso's start, restart mkiso" in caplog.text


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_a_host_that_can_not_be_is_no_failure_of_the_job(
    tmp_path: Path, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    EVERY["export"][0](settings_in(tmp_path, target=f"udp://{host}:514"))
    assert_schema(fromstring((tmp_path / "audit-undelivered.xml").read_text()))
    assert "couldn't be delivered" in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    folder, key, now = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
    )
    certificate = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False).sign(
        key, hashes.SHA256()
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return folder / "certificate.pem", folder / "key.pem"


def test_syslog_over_tls(tmp_path: Path, certificate: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    """One that proves who it is gets the message with its octets counted (RFC 5425); another gets nothing, and nothing
    is lost.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    received: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            try:
                with context.wrap_socket(connection, server_side=True) as taken:
                    received.append(taken.recv(65536))
            except OSError:
                received.append(b"")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        target = f"tls://localhost:{listener.getsockname()[1]}"
        EVERY["export"][0](settings_in(tmp_path, target=target, authority=str(certificate[0])))
        EVERY["export"][0](settings_in(tmp_path, target=target))  # an authority that doesn't know it
        server.join(LONG)
    count, _, line = received[0].partition(b" ")
    assert int(count) == len(line)
    assert_syslog(line)
    assert received[1] == b""
    assert_schema(fromstring((tmp_path / "audit-undelivered.xml").read_text()))
    assert "couldn't be delivered" in caplog.text and "Canary" not in caplog.text


def test_a_server_that_is_down_costs_no_message_and_no_job(tmp_path: Path) -> None:
    EVERY["asked"][0](settings_in(tmp_path, target="tls://127.0.0.1:1"))
    assert_schema(fromstring((tmp_path / "audit-undelivered.xml").read_text()))
    assert (tmp_path / "audit-undelivered.xml").stat().st_mode & 0o777 == 0o600


def test_a_server_that_is_silent_is_waited_for_once_and_asked_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkiso.audit.delivery.TIMEOUT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        settings = settings_in(tmp_path, target=f"tls://127.0.0.1:{silent.getsockname()[1]}")

        def asked() -> int:
            for _ in range(5):
                EVERY["asked"][0](settings)
            count = 0
            with suppress(BlockingIOError):
                while True:
                    silent.accept()[0].close()
                    count += 1
            return count

        assert asked() == 1 and asked() == 0
        monkeypatch.setattr("mkiso.audit.delivery._rests_until", {settings.audit.target: time.monotonic()})
        assert asked() == 1
    lines = (tmp_path / "audit-undelivered.xml").read_text().splitlines()
    assert len(lines) == 15
    for line in lines:
        assert_schema(fromstring(line))


def test_each_source_that_is_asked_is_a_party_and_so_is_the_one_that_sends(tmp_path: Path) -> None:
    sources = {
        "main": {"ae_title": "MAIN"},
        "cloud": {"kind": "dicomweb", "base_url": "https://a.org/web"},
        "other": {"ae_title": "OTHER", "accession_numbers": ["N*"]},
    }
    settings = Settings.model_validate(
        {"storage": {"data_dir": tmp_path}, "audit": {"enabled": True}, "sources": sources}
    )
    audit.queried(settings, "A1", job_id="job-1")
    audit.transfer_begins(settings, replace(STUDY, origin=Origin("cloud")), "job-1")
    lines = map(fromstring, (tmp_path / "audit.xml").read_text(encoding="utf-8").splitlines())
    parties = [[each.get("UserID") for each in line.iter("ActiveParticipant")] for line in lines]
    web = "https://a.org/web"
    assert parties == [["CDRECORD", "MAIN"], ["CDRECORD", web], [web, "CDRECORD"]]

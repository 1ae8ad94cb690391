"""The audit trail of the webhook: who asked, what left, who came without the key."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest

from mkiso.config.settings import Audit
from mkiso_service.webhook.audit import ALERTS_A_MINUTE, MAX_PATH, Alerts
from tests.audit.test_audit import assert_schema
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in


def events(folder: Path) -> list[tuple[str, str]]:
    """Each message's event and the client in it."""
    messages = [fromstring(line) for line in (folder / "audit.xml").read_text(encoding="utf-8").splitlines()]
    for message in messages:
        assert_schema(message)
    return [(message[0][0].attrib["originalText"], _client(message)) for message in messages]


def _client(message: Element) -> str:
    return next(
        party.attrib["NetworkAccessPointID"]
        for party in message.findall("ActiveParticipant")
        if "NetworkAccessPointID" in party.attrib
    )


@pytest.mark.parametrize("target", ["", "udp://no-such-host.invalid:514"])
def test_the_trail_of_a_download(tmp_path: Path, target: str) -> None:
    settings = settings_in(tmp_path, auth=True).model_copy(update={"audit": Audit(enabled=True, target=target)})
    with served(settings, Desk(Scripts(settings.storage).done)) as client:
        assert client.get("/api/iso/download?accession_number=A1").status_code == 401
        assert client.get("/api/health").status_code == 200
        client.headers["X-API-Key"] = KEY
        answer = client.get("/api/iso/download?accession_number=A1")
        assert answer.status_code == 200
        address = answer.headers["content-location"]
        assert client.get(address, headers={"Range": "bytes=100-"}).status_code == 206
        assert client.head(address).status_code == 200
        assert client.get("/api/iso/download?accession_number=*").status_code == 400
    if target:
        (tmp_path / "audit-undelivered.xml").rename(tmp_path / "audit.xml")
    told = events(tmp_path)
    assert told[:4] == [
        ("Security Alert", "127.0.0.1"),
        ("Query", "127.0.0.1"),
        ("Export", "127.0.0.1"),
        ("Export", "127.0.0.1"),
    ]
    assert KEY not in (tmp_path / "audit.xml").read_text(encoding="utf-8")


def test_alerts_are_counted_where_they_are_too_many() -> None:
    alerts = Alerts()
    assert [alerts.admit(1000.0 + part / 10) for part in range(ALERTS_A_MINUTE)] == [0] * ALERTS_A_MINUTE
    assert [alerts.admit(1059.9) for _ in range(7)] == [None] * 7
    assert [alerts.admit(1060.0), alerts.admit(1060.1)] == [7, 0]


def test_whoever_has_no_key_does_not_fill_the_disk(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, auth=True).model_copy(update={"audit": Audit(enabled=True)})
    with served(settings, Desk(Scripts(settings.storage).done)) as client:
        for _ in range(ALERTS_A_MINUTE + 3):
            assert client.get(f"/api/iso/{'x' * 5000}").status_code == 401
    lines = (tmp_path / "audit.xml").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 2 * ALERTS_A_MINUTE and max(map(len, lines)) < 2000 + MAX_PATH  # a minute may end meanwhile
    assert len(lines) >= ALERTS_A_MINUTE

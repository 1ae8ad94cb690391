"""The audit trail of the webhook: who asked, what left, who came without the key."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest

from mkiso.config.settings import Audit
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

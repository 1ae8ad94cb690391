"""docs/conformance.md and docs/audit.md in step with the code, where no table of them is made from it."""

from __future__ import annotations

import re
from pathlib import Path

from mkiso.audit import messages
from mkiso.network import dimse

ROOT = Path(__file__).parents[2]
CONFORMANCE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
AUDIT = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
REQUESTS = re.compile(r".*_RQ|RESPONSE|MOVE_ORIGINATOR")


def test_the_statuses_of_the_receiver_are_those_on_the_page() -> None:
    named = {
        name
        for module in (ROOT / "mkiso" / "receiver").glob("*.py")
        for name in re.findall(r"\bdimse\.([A-Z_]+)\b", module.read_text(encoding="utf-8"))
        if not REQUESTS.fullmatch(name)
    }
    page = CONFORMANCE.split("### 2.3")[1].split("### 2.5")[0]
    assert {f"{getattr(dimse, name):04X}" for name in named} == set(
        re.findall(r"^\| ([0-9A-F]{4}) \|", page, re.MULTILINE)
    )


def test_the_audit_events_are_those_on_the_page() -> None:
    events = {messages.QUERY, messages.INSTANCES_ACCESSED, messages.BEGIN_TRANSFERRING, messages.EXPORT}
    events |= {messages.SECURITY_ALERT, messages.ORDER_RECORD, messages.USER_AUTHENTICATION}
    rows = re.findall(r"^\| ([^|,]+)[^|]*\| (\d{6})", AUDIT, re.MULTILINE)
    assert {(name.strip(), code) for name, code in rows} == {(event[2], event[0]) for event in events}
    assert messages.NODE_AUTHENTICATION[0] in AUDIT

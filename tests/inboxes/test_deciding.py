"""When a disc is asked for of what was sent to an inbox, and what the archive's answer means for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mkiso.config.inboxes import Inbox
from mkiso.config.settings import Settings
from mkiso.errors import InstanceConflict, MkisoError, NotArchived, StudyGrown, StudyIncomplete
from mkiso.inboxes.deciding import (
    View,
    agrees,
    key_of,
    made_before,
    may_make_again,
    next_step,
    require_archived,
    require_retrieved,
    require_sent,
)
from mkiso.receiver.pushed import Ask, Pushed
from mkiso.study.models import Arrival, Expected, Study

RULES = Inbox(senders=("CT1",), quiet_seconds=60, wait_minutes=30)
ALONE = RULES.model_copy(update={"ask": "none"})
STRICT = RULES.model_copy(update={"fetch": False})
SENT_AT, QUIET, LONG_QUIET = 1000.0, 61.0, 1801.0
VIEW = View("f1", QUIET, SENT_AT)
RUNNING, MADE, FAILED = (
    Ask("j1", "f1", 3, 1100.0),
    Ask("j1", "f1", 3, 1100.0, "done"),
    Ask("j1", "f1", 3, 1100.0, "failed"),
)


@pytest.mark.parametrize(
    ("view", "rules", "step"),
    [
        (replace(VIEW, pushed_fingerprint=""), RULES, "rest"),
        (replace(VIEW, quiet_seconds=59), RULES, "wait"),
        (replace(VIEW, quiet_seconds=59), ALONE, "wait"),
        (replace(VIEW, quiet_seconds=60), RULES, "ask"),
        (VIEW, RULES, "ask"),
        (replace(VIEW, agrees=True), RULES, "start"),
        (VIEW, ALONE, "start"),
        (replace(VIEW, quiet_seconds=1800), RULES, "start"),
        (replace(VIEW, quiet_seconds=LONG_QUIET), RULES, "start"),
        (replace(VIEW, asked=(RUNNING,), agrees=True), RULES, "wait"),
        (replace(VIEW, asked=(RUNNING,), pushed_fingerprint="f2", agrees=True), RULES, "wait"),
        (replace(VIEW, asked=(MADE,), agrees=True), RULES, "rest"),
        (replace(VIEW, asked=(MADE,), agrees=True, pushed=1200.0), RULES, "rest"),
        (replace(VIEW, asked=(FAILED,), agrees=True), RULES, "rest"),
        (replace(VIEW, asked=(FAILED,), agrees=True, pushed=1100.0), RULES, "rest"),
        (replace(VIEW, asked=(FAILED,), agrees=True, pushed=1200.0), RULES, "start"),
        (replace(VIEW, asked=(FAILED,), quiet_seconds=1, pushed=1200.0), RULES, "wait"),
        (replace(VIEW, asked=(MADE,), pushed_fingerprint="f2"), RULES, "ask"),
        (replace(VIEW, asked=(MADE,), pushed_fingerprint="f2", agrees=True), RULES, "start"),
    ],
)
def test_a_job_is_asked_for_once_what_was_sent_is_settled(view: View, rules: Inbox, step: str) -> None:
    assert next_step(view, rules) == step


def test_each_ask_has_a_key_of_its_own_whether_it_has_a_job_yet_or_not() -> None:
    wanted = Ask("", "f1", 3, 1.0, nonce="n1")
    first = key_of("BURN", "1.2", wanted)
    assert key_of("BURN", "1.2", replace(wanted, job_id="j1", ended="done", time=2.0)) == first
    others = (replace(wanted, nonce="n2"), replace(wanted, fingerprint="f2"))
    keys = {first, *(key_of("BURN", "1.2", other) for other in others)}
    assert len(keys | {key_of("OTHER", "1.2", wanted), key_of("BURN", "1.3", wanted)}) == 5


def test_the_job_that_made_a_disc_is_remembered_behind_later_ones() -> None:
    assert made_before((MADE, Ask("j2", "f2", 4, 1.0, "failed"))) == "j1"
    assert made_before((FAILED,)) == ""


def pushed(*uids: str, conflicts: frozenset[str] = frozenset()) -> Pushed:
    arrivals = tuple(Arrival(uid, "1.1", "1.2", "1.9", Path(uid), 10, f"sha-{uid}") for uid in uids)
    return Pushed("BURN", "1.9", arrivals, conflicts)


def study(*uids: str) -> Study:
    return Study("A1", "1.9", "P1", expected=Expected("image", len(uids), {"1.9.1": frozenset(uids)}))


def counted(number: int | None) -> Study:
    return Study("A1", "1.9", "P1", expected=Expected("study" if number is not None else "none", number))


@pytest.mark.parametrize(
    ("sent", "studies", "rules", "settled"),
    [
        (pushed("1", "2"), [study("1", "2")], RULES, True),
        (pushed("1", "2"), [study("1", "2")], STRICT, True),
        (pushed("1"), [study("1", "2")], RULES, True),
        (pushed("1"), [study("1", "2")], STRICT, False),
        (pushed("1", "2"), [study("1")], RULES, False),
        (pushed("1", "3"), [study("1", "2")], RULES, False),
        (pushed("1"), [], RULES, False),
        (pushed("1"), [study("1"), study("1")], RULES, False),
        (pushed("1", "2"), [counted(2)], STRICT, True),
        (pushed("1", "2"), [counted(3)], STRICT, False),
        (pushed("1", "2"), [counted(1)], RULES, False),
        (pushed("1", "2"), [counted(None)], RULES, False),
        (pushed("1"), [counted(None)], RULES, False),
        (replace(pushed("2"), gone=frozenset("1")), [study("2")], RULES, False),
        (replace(pushed("2"), gone=frozenset("1")), [counted(1)], RULES, False),
        (replace(pushed("2"), gone=frozenset("1")), [study("1", "2")], RULES, True),
    ],
)
def test_the_archive_has_to_list_what_was_sent(sent: Pushed, studies: list[Study], rules: Inbox, settled: bool) -> None:
    assert agrees(sent, studies, rules) is settled


def test_what_the_archive_does_not_list_makes_no_disc() -> None:
    require_archived(pushed("1", "2"), [study("1", "2", "3")])
    with pytest.raises(NotArchived, match=r"doesn't list 1 of the 2 images") as caught:
        require_archived(pushed("1", "2"), [study("1")])
    assert caught.value.details == {"unarchived": 1, "unarchived_sop_instance_uids": ["2"]}
    with pytest.raises(NotArchived, match=r"knows no study, and so doesn't list any of the 2 images"):
        require_archived(pushed("1", "2"), [])
    with pytest.raises(NotArchived, match=r"has 1 images of the study, and not the 2") as fewer:
        require_archived(pushed("1", "2"), [counted(1)])
    assert fewer.value.details["unarchived"] == 1
    require_archived(pushed("1", "2"), [counted(None)])


def test_what_came_before_and_is_not_kept_any_more_counts_as_sent() -> None:
    rest = replace(pushed("2"), gone=frozenset("1"))
    require_archived(rest, [study("1", "2")])
    for told in (study("2"), study("2", "3"), counted(1)):
        with pytest.raises(NotArchived):
            require_archived(rest, [told])
    require_retrieved(rest, {"1", "2", "3"})
    with pytest.raises(NotArchived, match=r"didn't give 1 of the 2 images"):
        require_retrieved(rest, {"2", "3"})


@pytest.mark.parametrize(
    ("sent", "listed", "rules", "before", "error"),
    [
        (pushed("1"), study("1", "2"), RULES, 0, None),
        (pushed("1"), study("1", "2"), STRICT, 0, StudyIncomplete),
        (pushed("1", "2"), counted(3), STRICT, 0, StudyIncomplete),
        (pushed("1", "2"), study("1", "2"), STRICT, 0, None),
        (pushed("1", "2"), study("1", "2"), STRICT, 3, None),
        (pushed("1", "3"), study("1", "2"), STRICT, 0, StudyIncomplete),
        (pushed("1"), counted(None), STRICT, 0, None),
        (pushed("1"), study("1", "2"), ALONE, 0, None),
        (pushed("1", conflicts=frozenset("1")), study("1"), RULES, 0, None),
        (pushed("1", conflicts=frozenset("1")), study("1"), STRICT, 0, InstanceConflict),
        (pushed("1", conflicts=frozenset("1")), study("1"), ALONE, 0, InstanceConflict),
        (pushed("1"), study("1"), ALONE, 1, None),
        (pushed("1"), study("1"), ALONE, 2, StudyIncomplete),
        (replace(pushed("2"), gone=frozenset("1")), study("2"), ALONE, 1, StudyIncomplete),
        (replace(pushed("2"), gone=frozenset("1")), study("1", "2"), RULES, 1, None),
    ],
)
def test_what_lacks_is_fetched_or_named(
    sent: Pushed, listed: Study, rules: Inbox, before: int, error: type[MkisoError] | None
) -> None:
    if error is None:
        require_sent(sent, listed, rules, before)
    else:
        with pytest.raises(error):
            require_sent(sent, listed, rules, before)


def test_what_lacks_is_counted_and_a_few_of_it_are_named() -> None:
    with pytest.raises(StudyIncomplete, match=r"^6 of the 7 images that the PACS has were not sent to BURN") as caught:
        require_sent(pushed("1"), study(*"1234567"), STRICT, 0)
    named = {"missing_sop_instance_uids": [*"23456"]}
    assert caught.value.details == {"expected": 7, "missing": 6, **named}
    with pytest.raises(StudyIncomplete, match=r"^2 images .* of the 1 that are") as gone:
        require_sent(pushed("1"), study("1"), ALONE, 3)
    assert gone.value.details == {"expected": 3, "missing": 2}
    with pytest.raises(NotArchived) as unlisted:
        require_archived(pushed(*"1234567"), [study("1")])
    assert unlisted.value.details == {"unarchived": 6, "unarchived_sop_instance_uids": [*"23456"]}


def test_a_second_disc_is_made_only_where_the_rules_want_it() -> None:
    never = RULES.model_copy(update={"again": "no"})
    may_make_again(RULES, "j1", "BURN")
    may_make_again(never, "", "BURN")
    with pytest.raises(StudyGrown, match="after its disc was made") as caught:
        may_make_again(never, "j1", "BURN")
    assert caught.value.details == {"made_by": "j1"}


def test_the_fingerprint_is_of_the_bytes_and_of_what_contradicts_them() -> None:
    one = pushed("1", "2")
    other_bytes = replace(one, instances=(one.instances[0], replace(one.instances[1], sha256="other")))
    doubted = replace(one, conflicts=frozenset("2"))
    assert len({one.fingerprint, other_bytes.fingerprint, doubted.fingerprint, pushed("1").fingerprint}) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"senders": []},
        {"senders": ["10.1.0.0/33"]},
        {"senders": ["CT1"], "copies": 2},
        {"senders": ["CT1"], "publisher": "robot", "format": "zip"},
        {"senders": ["CT1"], "quiet_seconds": 0},
        {"senders": ["CT1"], "again": "yes"},
    ],
    ids=str,
)
def test_an_inbox_that_cannot_be_meant_is_refused(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError):
        Inbox.model_validate(wrong)


PREFECT = {"api_auth_string": "mkiso:secret-of-a-test"}
ROBOT = {"robot": {"kind": "folder", "directory": "/robot"}}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"inboxes": {"CDRECORD": {}}}, "is receiver.ae_title too"),
        (
            {"inboxes": {"BURN": {"publisher": "epson"}}},
            "inboxes.BURN.publisher is 'epson', and there is no such publisher: publishers has robot",
        ),
        ({"inboxes": {"BURN": {}, "Burn": {}}}, "BURN and Burn are the same name"),
        ({"inboxes": {"BURN": {}}, "storage": {"shared_dir": "/shared"}}, "lies on one machine"),
        ({"inboxes": {"BURN": {}}, "prefect": {**PREFECT, "api_url": "http://prefect:4200/api"}}, "Remove prefect.api"),
        ({"inboxes": {"BURN": {}}, "prefect": {**PREFECT, "api_url": "http://127.0.0.1:4200/api"}}, ""),
        ({"inboxes": {"BURN": {}}, "disc": {"encryption": "required_for_files"}}, "that anybody can read"),
        ({"inboxes": {"BURN": {"publisher": "robot", "again": "no"}}, "disc": {"encryption": "required"}}, "anybody"),
        (
            {"inboxes": {"BURN": {"publisher": "robot", "again": "no"}}, "disc": {"encryption": "required_for_files"}},
            "",
        ),
    ],
    ids=str,
)
def test_what_an_inbox_says_against_the_rest_is_told(sections: dict[str, Any], words: str) -> None:
    named = {name: {"senders": ["CT1"], **each} for name, each in sections["inboxes"].items()}
    whole = {"publishers": ROBOT, "print": {"publisher": "robot"}, **sections, "inboxes": named}
    if words:
        with pytest.raises(ValueError, match=words):
            Settings.model_validate(whole)
    else:
        assert Settings.model_validate(whole).inboxes


def test_an_inbox_has_the_medium_and_copies_of_its_own() -> None:
    inboxes = {"P": {"senders": ["CT1"], "publisher": "robot", "copies": 3, "medium": "dvd"}, "S": {"senders": ["CT1"]}}
    settings = Settings.model_validate({"publishers": ROBOT, "print": {"publisher": "robot"}, "inboxes": inboxes})
    printing = settings.for_inbox("P").publishers["robot"]
    assert (printing.copies, printing.medium) == (3, "dvd")
    assert (settings.publishers["robot"].copies, settings.for_inbox("S")) == (1, settings)

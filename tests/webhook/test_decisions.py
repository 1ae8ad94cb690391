"""The webhook's pure decisions: ranges, names, preferences, ids, outcomes, sessions."""

import inspect
import json
import logging
import re
from dataclasses import replace
from email.message import Message
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from mkiso.config.access import Auth
from mkiso.errors import JobCancelled, JobCrashed, StorageFull, StudyNotFound, error_of
from mkiso.storage.report import JobReport
from mkiso.storage.shelf import Manifest
from mkiso_service.log_lines import JsonLines, TextLines
from mkiso_service.prefect.orchestrator import Standing
from mkiso_service.webhook.access.callers import SESSION_SECONDS, Keys, Sessions, take_request_id
from mkiso_service.webhook.answers.advice import must_look
from mkiso_service.webhook.answers.errors import JobFailed, outcome_of
from mkiso_service.webhook.discs.disc_bytes import Span, content_disposition, name_of, span_of
from mkiso_service.webhook.discs.jobs import state_of
from mkiso_service.webhook.questions.negotiation import preference_of

ETAG = '"abc"'
DISC = Manifest("d", "j", "2026-01-01T00:00:00+00:00", "V", "Somchai.iso", ("A",), "f", 1000, "abc", 3, "cd")


@pytest.mark.parametrize(
    ("headers", "span"),
    [
        ({}, Span(200, 0, 1000)),
        ({"range": "bytes=0-99"}, Span(206, 0, 100)),
        ({"range": "bytes=0-"}, Span(206, 0, 1000)),
        ({"range": "bytes=990-2000"}, Span(206, 990, 1000)),
        ({"range": "bytes=-10"}, Span(206, 990, 1000)),
        ({"range": "bytes=-2000"}, Span(206, 0, 1000)),
        ({"range": "BYTES=999-999"}, Span(206, 999, 1000)),
        ({"range": "bytes=1000-"}, Span(416, 0, 0)),
        ({"range": "bytes=-0"}, Span(416, 0, 0)),
        ({"range": "bytes=5-4"}, Span(200, 0, 1000)),
        ({"range": "bytes=-"}, Span(200, 0, 1000)),
        ({"range": "bytes=a-b"}, Span(200, 0, 1000)),
        ({"range": "lines=0-1"}, Span(200, 0, 1000)),
        ({"range": "bytes=0-1,5-6"}, Span(200, 0, 1000)),
        ({"range": "bytes=" + "9" * 400 + "-"}, Span(200, 0, 1000)),
        ({"range": "bytes=500-", "if-range": ETAG}, Span(206, 500, 1000)),
        ({"range": "bytes=500-", "if-range": '"other"'}, Span(200, 0, 1000)),
        ({"range": "bytes=500-", "if-range": f"W/{ETAG}"}, Span(200, 0, 1000)),
        ({"range": "bytes=500-", "if-range": "Wed, 21 Oct 2026 07:28:00 GMT"}, Span(200, 0, 1000)),
        ({"if-none-match": ETAG}, Span(304, 0, 0)),
        ({"if-none-match": f'"x", W/{ETAG}'}, Span(304, 0, 0)),
        ({"if-none-match": "*"}, Span(304, 0, 0)),
        ({"if-none-match": '"x"'}, Span(200, 0, 1000)),
        ({"if-match": '"x"'}, Span(412, 0, 0)),
        ({"if-match": f"W/{ETAG}"}, Span(412, 0, 0)),
        ({"if-match": f'"x", {ETAG}', "range": "bytes=1-1"}, Span(206, 1, 2)),
        ({"if-none-match": ETAG, "range": "bytes=0-1"}, Span(304, 0, 0)),
    ],
)
def test_span(headers: dict[str, str], span: Span) -> None:
    assert span_of(Headers(headers), ETAG, 1000) == span


@given(st.text(max_size=40), st.integers(1, 10_000))
def test_no_range_header_leads_outside(text: str, size: int) -> None:
    span = span_of({"range": f"bytes={text}"}, ETAG, size)
    assert 0 <= span.start <= span.stop <= size
    assert span.status in (200, 206, 416)


@given(st.text(max_size=200))
def test_a_file_name_of_any_text_is_one_safe_header(text: str) -> None:
    value = content_disposition(text)
    assert value.isascii() and value.isprintable()
    message = Message()
    message["Content-Disposition"] = value
    plain = re.findall(r'filename="([^"]*)"', value)[0]
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", plain) and ".." not in plain.removesuffix(".iso")[:2]
    name = unquote(re.findall(r"filename\*=UTF-8''(\S+)$", value)[0])
    assert not set(name) & set('/\\"\r\n\0;%') and not name.startswith(".") and name.endswith(".iso")


def test_a_thai_name_stays_itself() -> None:
    value = content_disposition("สมชาย ใจดี.iso")
    assert 'filename="disc.iso"' in value
    assert unquote(value.partition("UTF-8''")[2]) == "สมชาย ใจดี.iso"


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("A-1.iso", "attachment; filename=\"A-1.iso\"; filename*=UTF-8''A-1.iso"),
        (
            'x"\r\nSet-Cookie: a=b.iso',
            "attachment; filename=\"x_Set-Cookie__a_b.iso\"; filename*=UTF-8''x_Set-Cookie_%20a%3Db.iso",
        ),
        ("../../etc/passwd", "attachment; filename=\"etc_passwd.iso\"; filename*=UTF-8''etc_passwd.iso"),
        ("José.iso", "attachment; filename=\"Jose.iso\"; filename*=UTF-8''Jos%C3%A9.iso"),
    ],
)
def test_content_disposition(name: str, header: str) -> None:
    assert content_disposition(name) == header


def test_name_of() -> None:
    report = JobReport("j", "download", ("A",))
    assert name_of(report, DISC) == "A.iso"
    of_set = replace(DISC, number=2, total=3, first_disc="3fa4c2d1-0000-4000-8000-000000000000")
    assert name_of(report, of_set) == "A-2of3-3fa4c2d1.iso"
    assert name_of(replace(report, accession_numbers=("A", "B")), of_set) == "Somchai-2of3-3fa4c2d1.iso"
    assert name_of(replace(report, accession_numbers=("A", "B")), DISC) == "Somchai.iso"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], (False, 0)),
        (["respond-async"], (True, 0)),
        (["Respond-Async, wait=10"], (True, 10)),
        (["return=minimal", 'respond-async; foo="bar", wait="7"'], (True, 7)),
        (["wait=5, wait=9"], (False, 5)),
        (["respond-async, wait=-1"], (True, 0)),
        (["respond-async, wait=9999999999"], (True, 0)),
        (["respondasync"], (False, 0)),
        (['"respond-async'], (False, 0)),
    ],
)
def test_prefer(fields: list[str], expected: tuple[bool, int]) -> None:
    preference = preference_of(fields)
    assert (preference.respond_async, preference.wait_seconds) == expected


@pytest.mark.parametrize(
    "sent", [[], [b""], [b"a b"], [b"a\r\nb"], [b"-a"], [b"x" * 65], [b"a", b"b"], [b"\xff"], [b'a"b'], [b"{}"]]
)
def test_an_insane_request_id_is_replaced(sent: list[bytes]) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", take_request_id(sent))


def test_a_sane_request_id_is_taken() -> None:
    assert take_request_id([b"abc-1.2_3"]) == "abc-1.2_3"


REPORT = JobReport("j", "download", ("A",))
DONE = replace(REPORT, status="done")
ENDED_WITH_WORDS: tuple[Standing, ...] = ("completed", "failed")
FAILED = REPORT.failed(StudyNotFound("no"))


def test_outcome() -> None:
    assert outcome_of("completed", DONE) is DONE
    assert outcome_of("crashed", DONE) is DONE  # the disc was proved and shelved before the process went
    for standing in ENDED_WITH_WORDS:
        with pytest.raises(JobFailed) as failed:
            outcome_of(standing, FAILED)
        assert failed.value.report.error["http_status"] == 404
    for report in (None, REPORT, FAILED):
        with pytest.raises(JobCrashed):
            outcome_of("crashed", report)
        with pytest.raises(JobCancelled):
            outcome_of("cancelled", report)
    for standing in ENDED_WITH_WORDS:
        with pytest.raises(JobCrashed):
            outcome_of(standing, REPORT)


@pytest.mark.parametrize("standing", ["crashed", "cancelled"])
def test_of_a_print_nobody_is_told_that_nothing_was_sent(standing: Standing) -> None:
    for report in (replace(REPORT, kind="print"), replace(FAILED, kind="print")):
        with pytest.raises(
            (JobCrashed, JobCancelled), match="may already be with the publisher: look there before asking again"
        ) as ended:
            outcome_of(standing, report)
        assert "Nothing was sent" not in ended.value.words
    with pytest.raises((JobCrashed, JobCancelled), match="Nothing was sent"):
        outcome_of(standing, REPORT)


@pytest.mark.parametrize("standing", ["crashed", "cancelled", "failed"])
def test_of_a_job_without_a_report_only_its_question_says_that_it_was_no_print(standing: Standing) -> None:
    for kind, words in (("", "If it was a print: the order may already"), ("print", "The order may already")):
        with pytest.raises((JobCrashed, JobCancelled), match=words) as ended:
            outcome_of(standing, None, kind)
        assert "Nothing was sent" not in ended.value.words
        assert must_look(kind, ended.value.code)
    with pytest.raises((JobCrashed, JobCancelled), match="Nothing was sent"):
        outcome_of(standing, None, "download")
    assert not must_look("download", "job_crashed")


def test_a_failed_job_without_a_report_says_what_its_run_says() -> None:
    why = StorageFull("The disk of mkiso is full.")
    for report in (None, REPORT):
        with pytest.raises(StorageFull, match="The disk of mkiso is full"):
            outcome_of("failed", report, "download", why)
    assert state_of("failed", None, "j", "download", why)[1] == {
        "error": why.words,
        "code": "storage_full",
        "http_status": 503,
        "job_id": "j",
    }
    with pytest.raises(JobCrashed, match="Nothing was sent"):
        outcome_of("crashed", None, "download", why)


@pytest.mark.parametrize("kind", ["print", ""])
def test_a_program_is_not_told_to_come_back_for_a_print_that_failed_unheard(kind: str) -> None:
    with pytest.raises(JobCrashed, match="The disk of mkiso is full") as ended:
        outcome_of("failed", None, kind, StorageFull("The disk of mkiso is full."))
    assert ended.value.http_status != 503 and must_look(kind, ended.value.code)


@pytest.mark.parametrize("words", ["Full.", "Of [1] and [2].", "Two\nlines", ""])
def test_an_error_is_read_back_from_its_line(words: str) -> None:
    told = error_of(StorageFull(words).line)
    assert (type(told), told and told.words) == (StorageFull, words)


@pytest.mark.parametrize(
    "line",
    [
        *("", "Full", "[storage_full]", "Full [no_code]", "Full [storage_full] ", "a [error]"),
        *("\x1b[2JFull [storage_full]", f"{'x' * 10_000} [storage_full]"),
    ],
)
def test_a_line_that_tells_of_no_error_is_none(line: str) -> None:
    assert error_of(line) is None


def auth(key: str) -> Keys:
    return Keys(Auth(enabled=True, api_key=key))


def test_the_key() -> None:
    keys = auth("secret-of-a-test-ü")
    assert keys.right("secret-of-a-test-ü".encode())
    assert not keys.right(b"") and not keys.right(b"secret") and not keys.right(b"secret-of-a-test-\xfcx")
    assert not Keys(Auth()).right(b"")


def test_the_comparison_is_of_digests_in_constant_time() -> None:
    source = inspect.getsource(Keys.right)
    assert "hmac.compare_digest(hashlib.sha256(sent).digest(), hashlib.sha256(self._key).digest())" in source
    assert "==" not in source


def test_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(auth("k" * 16))
    cookie = sessions.begin()
    assert sessions.valid(cookie)
    assert Sessions(auth("k" * 16)).valid(cookie)  # another webhook
    assert not Sessions(auth("n" * 16)).valid(cookie)
    end, nonce, signature = cookie.split(".")
    for forged in (
        "",
        ".",
        "..",
        f"{int(end) + 1}.{nonce}.{signature}",
        f"{end}.{nonce}.",
        f"{end}.{nonce}.ü",
        cookie + "0",
    ):
        assert not sessions.valid(forged)
    monkeypatch.setattr("time.time", lambda: int(end) + 1)
    assert not sessions.valid(cookie)
    monkeypatch.setattr("time.time", lambda: int(end) - SESSION_SECONDS)
    assert sessions.valid(cookie)
    monkeypatch.setattr("time.time", lambda: int(end) - SESSION_SECONDS - 60)  # signed while a clock was ahead
    assert not sessions.valid(cookie)
    assert SESSION_SECONDS > 0


@pytest.mark.parametrize("formatter", [JsonLines(), TextLines()])
def test_a_log_record_is_one_line(formatter: logging.Formatter) -> None:
    record = logging.makeLogRecord({"msg": "a\nb", "path": 'x\r\n{"level": 1}\u2028\x1b[0m', "levelname": "INFO"})
    line = formatter.format(record)
    assert len(line.splitlines()) == 1 and line.isascii()
    if isinstance(formatter, JsonLines):
        assert json.loads(line)["path"].startswith("x\r\n")

"""A disc of converted images is never taken for one of images as they are archived, nor the other way round."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from mkiso.config.settings import Settings
from mkiso.errors import InvalidRequest
from mkiso.formats.proven_set import disc_fingerprint
from mkiso.storage.kept_reports import KeptReports
from mkiso.study.question import Question
from mkiso_service.webhook.questions.query import Query, one_study, print_order
from tests.webhook.desk import Desk, Scripts, served, settings_in

ONE = "/api/iso/download?accession_number=A1"
EXPLICIT = "&transfer_syntax=explicit-le"


@pytest.mark.parametrize("name", ["explicit", "1.2.840.10008.1.2.1", "as-archived,explicit-le"])
def test_a_transfer_syntax_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="as-archived or explicit-le"):
        one_study(Query(f"accession_number=A1&transfer_syntax={name}".encode()), Settings())


def test_a_question_of_another_transfer_syntax_is_another_question(tmp_path: Path) -> None:
    plain, wanted = (
        Question("download", ("A1",)),
        one_study(Query(f"accession_number=A1{EXPLICIT}".encode()), Settings()),
    )
    assert plain.key != wanted.key and "transfer_syntax" not in plain.parameters
    assert wanted.parameters == {"accession_numbers": ["A1"], "transfer_syntax": "explicit-le"}
    assert Question.of_run("download", wanted.parameters) == wanted
    printed = print_order(Query(f"accession_number=A1{EXPLICIT}".encode()), settings_in(tmp_path))
    assert Question.of_run("print", printed.parameters) == printed and printed.transfer_syntax == "explicit-le"


def test_a_discs_fingerprint_is_that_of_its_transfer_syntax(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    told = {
        name: disc_fingerprint("f", settings.as_asked(transfer_syntax=name)) for name in ("as-archived", "explicit-le")
    }
    assert len(set(told.values())) == 2
    assert disc_fingerprint("f", settings) == told["as-archived"]
    assert settings.as_asked("de", "explicit-le").disc.language == "de"


def test_neither_is_served_for_the_other(client: httpx.Client, desk: Desk) -> None:
    client.get(ONE)
    assert "etag" in client.head(ONE).headers
    assert "etag" in client.head(f"{ONE}&transfer_syntax=as-archived").headers, "it is what the site has"
    assert "etag" not in client.head(f"{ONE}{EXPLICIT}").headers
    client.get(f"{ONE}{EXPLICIT}")
    assert [question.transfer_syntax for question in desk.asked] == ["", "explicit-le"]
    places = [client.head(question).headers["content-location"] for question in (ONE, f"{ONE}{EXPLICIT}")]
    assert len(set(places)) == 2


def test_the_sites_own_is_meant_where_none_is_named(tmp_path: Path) -> None:
    settings = settings_in(tmp_path).as_asked(transfer_syntax="explicit-le")
    desk, scripts = Desk(lambda job_id, question: scripts.done(job_id, question)), Scripts(settings.storage)
    with served(settings, desk) as client:
        client.get(f"{ONE}{EXPLICIT}")
        assert "etag" in client.head(ONE).headers
        assert "etag" not in client.head(f"{ONE}&transfer_syntax=as-archived").headers


def test_sets_of_two_transfer_syntaxes_are_never_combined(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    desk.script = scripts.set_of(2)
    archived = client.get(ONE).json()
    desk.script = scripts.set_of(2, "b")
    converted = client.get(f"{ONE}{EXPLICIT}").json()
    assert archived["set"] != converted["set"]
    for stored, answer in (("as-archived", archived), ("explicit-le", converted)):
        question = Question("download", ("A1",), transfer_syntax=stored)
        assert set(KeptReports(scripts.storage).sets_told(question)) == {answer["set"]}
    refused = client.get(f"{ONE}&set={converted['set']}&part=2")
    assert (refused.status_code, refused.json()["code"]) == (409, "other_set")
    assert [each["set"] for each in refused.json()["sets"]] == [archived["set"]]
    second = client.get(f"{ONE}{EXPLICIT}&set={converted['set']}&part=2", follow_redirects=True)
    assert second.content == b"b2" * 50

"""The same disc in several formats over HTTP: which one is meant, and that none is taken for another."""

import httpx
import pytest

from mkiso.config.settings import Settings
from mkiso.errors import InvalidRequest
from mkiso.study.question import Question
from mkiso_service.webhook.questions.query import Query, one_study
from tests.webhook.desk import Desk, Scripts

ONE = "/api/iso/download?accession_number=A1"


@pytest.mark.parametrize(
    ("query", "accept", "form"),
    [
        ("", "", "iso"),
        ("", "*/*", "iso"),
        ("", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "iso"),
        ("", "application/zip", "zip"),
        ("", "Application/ZIP ; q=0.5, */*", "zip"),
        ("", "application/zip;q=0, */*", "iso"),
        ("", "application/zip;q=0.2, application/vnd.efi.iso;q=0.7", "iso"),
        ("", "application/zip;q=0.9, application/vnd.efi.iso;q=0.7", "zip"),
        ("", "application/zip;q=nonsense", "zip"),
        ("&format=zip", "", "zip"),
        ("&format=zip", "application/vnd.efi.iso", "zip"),
        ("&format=iso", "application/zip", "iso"),
    ],
)
def test_which_format_is_meant(query: str, accept: str, form: str) -> None:
    assert one_study(Query(f"accession_number=A1{query}".encode()), Settings(), accept).format == form


@pytest.mark.parametrize("name", ["", "rar", "ZIP", "zip,iso"])
def test_a_format_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="there are: iso, zip"):
        one_study(Query(f"accession_number=A1&format={name}".encode()), Settings())


def test_a_question_of_another_format_is_another_question() -> None:
    iso, zipped = Question("download", ("A1",)), Question("download", ("A1",), format="zip")
    assert iso.key != zipped.key
    assert "format" not in iso.parameters
    assert zipped.parameters == {"accession_numbers": ["A1"], "format": "zip"}
    assert Question.of_run("download", zipped.parameters) == zipped


def test_a_zip_is_served_as_one(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    iso, zipped = client.get(ONE), client.get(f"{ONE}&format=zip")
    assert [question.format for question in desk.asked] == ["iso", "zip"]
    assert zipped.headers["content-type"] == "application/zip"
    assert zipped.headers["content-disposition"] == "attachment; filename=\"A1.zip\"; filename*=UTF-8''A1.zip"
    assert zipped.headers["content-location"] != iso.headers["content-location"]
    rest = client.get(
        zipped.headers["content-location"], headers={"Range": "bytes=7-", "If-Range": zipped.headers["etag"]}
    )
    assert (rest.status_code, rest.content) == (206, zipped.content[7:])
    assert client.get(ONE, headers={"Accept": "application/zip"}).headers["content-type"] == "application/zip"


def test_head_tells_of_the_format_that_is_asked_for(client: httpx.Client, desk: Desk) -> None:
    client.get(ONE)
    assert "etag" in client.head(ONE).headers
    told = client.head(f"{ONE}&format=zip")
    assert told.headers["content-type"] == "application/zip"
    assert "etag" not in told.headers


def test_sets_of_two_formats_are_never_combined(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    desk.script = scripts.set_of(2)
    of_iso = client.get(ONE).json()
    desk.script = scripts.set_of(2, "b")
    of_zip = client.get(f"{ONE}&format=zip").json()
    assert of_iso["set"] != of_zip["set"]
    desk.script = scripts.again
    second = client.get(f"{ONE}&set={of_iso['set']}&part=2", follow_redirects=True)
    assert second.content == b"a2" * 50
    refused = client.get(f"{ONE}&set={of_zip['set']}&part=2")
    assert (refused.status_code, refused.json()["code"]) == (409, "other_set")
    assert [each["set"] for each in refused.json()["sets"]] == [of_iso["set"]]

"""Chosen studies and series over HTTP: what is taken and refused, and that no part is given for the whole."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from mkiso.config.disc import Priors
from mkiso.config.settings import Audit, Settings
from mkiso.config.sources import CMove
from mkiso.demo.pacs import DemoPacs
from mkiso.formats.proven_set import disc_fingerprint
from mkiso.sources.query import find_by_uid, find_studies
from mkiso.sources.registry import source_of
from mkiso.sources.search import Criteria, search
from mkiso.study import gate
from mkiso.study.question import Question
from mkiso.study.selection import MAX_SERIES, Selection
from mkiso_service.webhook.questions.query import Query, one_study, several_studies
from peers.corpus import UMLAUT, make_study
from tests.webhook.desk import Desk, Scripts, served, settings_in
from tests.webhook.test_shown_pages import BROWSER


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A PACS with a study of three series, one without an accession number, one of somebody else, two of one number,
    and a number of two patients.
    """
    files = [
        *make_study(tmp_path / "1", "A1", kinds={"ct": 3, "mr": 2, "sr": 1}),
        *make_study(tmp_path / "2", "", kinds={"ct": 1}),
        *make_study(tmp_path / "3", "B1", patient=UMLAUT, kinds={"ct": 1}),
        *make_study(tmp_path / "4", "C1", kinds={"ct": 1}),
        *make_study(tmp_path / "5", "C1", kinds={"ct": 1}, number=2),
        *make_study(tmp_path / "6", "D1", "P1", kinds={"ct": 1}),
        *make_study(tmp_path / "7", "D1", "P2", kinds={"ct": 1}),
    ]
    with DemoPacs(files) as pacs:
        source = CMove(ae_title=pacs.ae_title, host=pacs.host, port=pacs.port)
        yield settings_in(tmp_path / "data").model_copy(update={"pacs": source, "audit": Audit(enabled=True)})


def made_of(settings: Settings, question: Question) -> str:
    source, chosen = source_of(settings), question.selection
    studies = [study for number in question.accession_numbers for study in find_studies(source, number, chosen)]
    studies += [] if studies else [study for uid in chosen.studies for study in find_by_uid(source, uid, chosen)]
    found = gate.found(
        question.accession_numbers,
        studies,
        [],
        settings.identity,
        degraded=False,
        selection=chosen,
    )
    return disc_fingerprint(found.fingerprint, settings)


@pytest.fixture
def desk(settings: Settings) -> Desk:
    """Whose discs have the question in their bytes."""
    scripts = Scripts(settings.storage)
    return Desk(
        lambda job_id, question: scripts.done(
            job_id, question, content=question.key.encode() * 50, fingerprint=made_of(settings, question)
        )
    )


@pytest.fixture
def client(settings: Settings, desk: Desk) -> Iterator[httpx.Client]:
    with served(settings, desk) as client:
        yield client


def series_of(client: httpx.Client, modality: str) -> tuple[str, str]:
    """Of A1: the UIDs of the study and of this series."""
    [study] = client.get("/api/iso/preview?accession_number=A1").json()["studies"]
    return study["study_instance_uid"], next(
        each["series_instance_uid"] for each in study["series"] if each["modality"] == modality
    )


def test_the_preview_tells_the_series_and_what_a_selection_would_leave_out(client: httpx.Client) -> None:
    whole = client.get("/api/iso/preview?accession_number=A1").json()
    [study] = whole["studies"]
    told = [(each["modality"], each["images"], each["chosen"]) for each in study["series"]]
    assert sorted(told) == [("CT", 3, True), ("MR", 2, True), ("SR", 1, True)]
    assert (whole["is_part"], study["images"], study["more_series"]) == (False, 6, False)
    _, mr = series_of(client, "MR")
    part = client.get(f"/api/iso/preview?accession_number=A1&series_uid={mr}").json()
    [study] = part["studies"]
    assert (part["is_part"], study["images"], part["shown"]) == (True, 2, whole["shown"])
    assert [each["modality"] for each in study["series"] if each["chosen"]] == ["MR"]


def test_a_disc_of_series_and_one_of_the_whole_are_never_given_for_each_other(
    client: httpx.Client, desk: Desk, tmp_path: Path
) -> None:
    study, mr = series_of(client, "MR")
    _, ct = series_of(client, "CT")
    questions = [
        "",
        f"&series_uid={mr}",
        f"&series_uid={ct}",
        f"&study_uid={study}",
        f"&series_uid={ct}&series_uid={mr}",
    ]
    discs = {each: client.get(f"/api/iso/download?accession_number=A1{each}") for each in questions}
    assert {answer.status_code for answer in discs.values()} == {200}
    assert len({answer.content for answer in discs.values()}) == len(desk.asked) == 5
    again = {each: client.get(f"/api/iso/download?accession_number=A1{each}").content for each in reversed(questions)}
    assert again == {each: answer.content for each, answer in discs.items()}
    turned = client.get(f"/api/iso/download?accession_number=A1&series_uid={mr}&series_uid={ct}")
    assert (turned.content, len(desk.asked)) == (discs[questions[-1]].content, 5)
    assert client.head("/api/iso/download?accession_number=A1").headers["etag"] == discs[""].headers["etag"]
    criteria = b64encode(f"AccessionNumber=A1&SeriesInstanceUID={mr}".encode()).decode()
    assert criteria in (tmp_path / "data" / "audit.xml").read_text(encoding="utf-8")


def test_a_question_of_series_joins_no_question_of_the_whole_in_flight(client: httpx.Client, desk: Desk) -> None:
    _, mr = series_of(client, "MR")
    desk.anew(lambda job_id, question: "running")
    now = {"Prefer": "respond-async"}
    whole, some, same = (
        client.get(f"/api/iso/download?accession_number=A1{more}", headers=now).json()
        for more in ("", f"&series_uid={mr}", f"&series_uid={mr}")
    )
    assert whole["job_id"] != some["job_id"] == same["job_id"]
    assert (some["joined"], same["joined"]) == (False, True)


def test_a_study_without_an_accession_number_is_had_by_its_uid(
    client: httpx.Client, desk: Desk, settings: Settings
) -> None:
    theirs = search(source_of(settings), Criteria(patient_id="HN-0001")).studies
    [uid] = [study.study_instance_uid for study in theirs if not study.accession_number]
    told = client.get(f"/api/iso/preview?study_uid={uid}").json()
    assert (told["accession_numbers"], told["is_part"]) == ([], False)
    answer = client.get(f"/api/iso/download?study_uid={uid}&shown={told['shown']}")
    assert answer.status_code == 200
    assert desk.asked[-1].selection == Selection((uid,))


def uids_of(client: httpx.Client, number: str) -> list[str]:
    studies = client.get(f"/api/iso/preview?accession_number={number}").json()["studies"]
    return [str(study["study_instance_uid"]) for study in studies]


def test_one_of_two_studies_of_a_number_is_a_part_of_it_by_uid_alone_too(client: httpx.Client) -> None:
    first, second = uids_of(client, "C1")
    of_both = client.get(f"/api/iso/preview?study_uid={first}&study_uid={second}").json()
    of_one = client.get(f"/api/iso/preview?study_uid={first}").json()
    assert (of_both["is_part"], of_one["is_part"]) == (False, True)
    assert [study["study_instance_uid"] for study in of_one["studies"]] == [first]
    assert client.get(f"/api/iso/preview?study_uid={uids_of(client, 'A1')[0]}").json()["is_part"] is False


def test_a_number_of_two_patients_makes_no_disc_by_uid_either(client: httpx.Client, settings: Settings) -> None:
    """Its number would stand on the disc."""
    [uid] = [study.study_instance_uid for study in search(source_of(settings), Criteria(patient_id="P1")).studies]
    answer = client.get(f"/api/iso/preview?study_uid={uid}")
    assert (answer.status_code, answer.json()["code"]) == (409, "patient_mismatch")


def test_what_is_not_of_the_studies_asked_for_makes_no_disc(
    client: httpx.Client,
) -> None:
    [other] = client.get("/api/iso/preview?accession_number=B1").json()["studies"]
    theirs = other["series"][0]["series_instance_uid"]
    study, _ = series_of(client, "MR")
    for query in (
        {"accession_number": "A1", "series_uid": theirs},
        {"study_uid": study, "series_uid": theirs},
        {"accession_number": "A1", "study_uid": other["study_instance_uid"]},
        {"study_uid": "1.2.3.4.5"},
    ):
        answer = client.get("/api/iso/preview", params=query)
        assert answer.status_code == 404, query
        assert answer.json()["code"] in ("selection_not_found", "study_not_found")
    both = urlencode([("study_uid", study), ("study_uid", other["study_instance_uid"])])
    answer = client.get(f"/api/iso/preview?{both}")
    assert (answer.status_code, answer.json()["code"]) == (409, "patient_mismatch")


@pytest.mark.parametrize(
    "query",
    [
        "series_uid=1.2.3",
        "accession_number=A1&series_uid=1.2%003",
        "accession_number=A1&series_uid=",
        "accession_number=A1&study_uid=1.2*",
        "accession_number=A1&study_uid=1.2%5C1.3",
        "accession_number=A1&series_uid=../../x",
        "accession_number=A1&series_uid=" + "1." * 40 + "1",
        "accession_number=A1&" + "&".join(f"series_uid=1.2.{number}" for number in range(MAX_SERIES + 1)),
        "accession_number=A1&" + "&".join(f"study_uid=1.2.{number}" for number in range(51)),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_pacs_hears_of_it(
    client: httpx.Client, desk: Desk, query: str
) -> None:
    for path in ("preview", "download", "print"):
        answer = client.get(f"/api/iso/{path}?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), path
    assert desk.asked == []


def test_ten_thousand_uids_are_too_long_a_question(client: httpx.Client) -> None:
    many = "&".join(f"series_uid=1.2.{number}" for number in range(10_000))
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/api/iso/print", content=f"accession_number=A1&{many}", headers=form).status_code in (400, 414)


def test_a_link_to_print_a_part_says_so_and_keeps_what_was_chosen(client: httpx.Client) -> None:
    parameters = one_study(Query(b"accession_number=A1&series_uid=1.2.3&study_uid=1.2"), Settings()).parameters
    assert parameters == {"accession_numbers": ["A1"], "study_uids": ["1.2"], "series_uids": ["1.2.3"]}
    question = Question.of_run("download", parameters)
    assert (question.selection, question.run_name) == (Selection(("1.2",), ("1.2.3",)), "Disc A1 (selection)")


def test_a_question_needs_numbers_or_studies(settings: Settings) -> None:
    query = Query(b"study_uid=1.3&study_uid=1.2&accession_numbers=")
    assert several_studies(query, settings).selection.studies == ("1.2", "1.3")
    keys = {
        Question("download", ("A1",), selection=chosen).key
        for chosen in (Selection(), Selection(("1.2",)), Selection((), ("1.2",)), Selection(("1.2",), ("1.2",)))
    }
    assert len(keys) == 4


def test_a_link_to_print_with_earlier_studies_shows_them_and_keeps_them(tmp_path: Path) -> None:
    files = make_study(tmp_path / "1", "A1") + make_study(tmp_path / "2", "A0", study_date="20200101")
    with DemoPacs(files) as pacs:
        plain = settings_in(tmp_path / "data").model_copy(
            update={"pacs": CMove(ae_title=pacs.ae_title, host=pacs.host, port=pacs.port)}
        )
        with served(plain.model_copy(update={"priors": Priors(count=1, body_part="any")}), Desk()) as client:
            for query, is_so in (("", False), ("&priors=false", False), ("&priors=true", True)):
                page = client.get(f"/api/iso/print?accession_number=A1{query}", headers=BROWSER).text
                assert (f"priors={str(is_so).lower()}" in page, "Earlier examination" in page) == (True, is_so)
                told = client.get(f"/api/iso/preview?accession_number=A1{query}").json()
                assert [study["accession_number"] for study in told["priors"]] == ["A0"] * is_so
                assert told["selection"]["priors"] == is_so
            assert client.get("/api/iso/preview?accession_number=A1&priors=yes").status_code == 400
        with served(plain, Desk()) as client:
            refused = client.get("/api/iso/download?accession_number=A1&priors=true")
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
            assert "priors.count" in refused.json()["error"]

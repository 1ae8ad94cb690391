"""Expectations as JSON, the registry, places, and the first bytes of a file."""

from __future__ import annotations

import socket
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from mkiso.dataset.part10 import file_head
from mkiso.receiver import admission
from mkiso.receiver.admission import LOCAL_LIMIT_EXCEEDED, TEMPORARY_CONGESTION, Admission
from mkiso.receiver.expectation_server import expected_of
from mkiso.receiver.expectations import NOBODY, Expectations, Expected
from mkiso.unix_address import unix_address
from peers.patience import LONG


@pytest.mark.parametrize(
    "request_",
    [
        None, [], {}, {"study_instance_uid": "1.2"}, {"study_instance_uid": 5, "folder": "j"},
        {"study_instance_uid": "../x", "folder": "j"},
        {"study_instance_uid": "1.2", "folder": "j", "instances": "1.2.3"},
        {"study_instance_uid": "1.2", "folder": "j", "instances": [5]}, {"study_instance_uid": "1.2", "folder": "."},
        {"study_instance_uid": "1.2", "folder": ".."}, {"study_instance_uid": "1.2", "folder": "missing"},
        {"study_instance_uid": "1.2", "folder": "out"}, {"study_instance_uid": "1.2", "folder": "j/../../elsewhere"},
    ],
)  # fmt: skip
def test_what_is_no_expectation_or_leads_out_of_the_jobs_is_refused(tmp_path: Path, request_: Any) -> None:
    jobs = tmp_path / "jobs"
    (jobs / "j").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (jobs / "out").symlink_to(tmp_path / "elsewhere")
    if isinstance(request_, dict) and "folder" in request_:
        request_ = {**request_, "folder": str(jobs / request_["folder"])}
    with pytest.raises(ValueError, match="expectation"):
        expected_of(request_, jobs)


def test_an_expectation_wants_its_instances_of_its_study(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    some = expected_of({"study_instance_uid": "1.2", "folder": str(tmp_path / "j"), "instances": ["1.2.1"]}, tmp_path)
    every = Expected("1.3", tmp_path / "j", None)
    expectations = Expectations()
    expectations.add(some)
    assert (expectations.may_want("1.2.1"), expectations.may_want("1.2.2")) == (True, False)
    expectations.add(every)
    assert expectations.may_want("1.2.2") and len(expectations) == 2
    assert given(expectations, "1.2", "1.2.1") == [some] and given(expectations, "1.2", "1.2.2") == []
    assert given(expectations, "1.3", "1.2.2") == [every]
    expectations.remove(some)
    assert not given(expectations, "1.2", "1.2.1")


def given(expectations: Expectations, study_instance_uid: str, sop_instance_uid: str) -> list[Expected]:
    with expectations.giving(study_instance_uid, sop_instance_uid, NOBODY, "") as jobs:
        return jobs


def test_what_is_being_given_stays_and_is_given_by_nobody_else(tmp_path: Path) -> None:
    expected, expectations = Expected("1.2", tmp_path, None), Expectations()
    expectations.add(expected)
    done: list[str] = []

    def give() -> None:
        given(expectations, "1.2", "1.2.1")
        done.append("given")

    def remove() -> None:
        expectations.remove(expected)
        done.append("removed")

    others = [threading.Thread(target=give), threading.Thread(target=remove)]
    with expectations.giving("1.2", "1.2.1", NOBODY, "") as jobs:
        assert jobs == [expected]
        for other in others:
            other.start()
        while len(expectations):  # the second is where it waits
            assert all(other.is_alive() for other in others)
        expectations.add(Expected("1.3", tmp_path, None))
        assert given(expectations, "1.3", "1.3.1")
        others[0].join(0.2)
        assert done == []
    for other in others:
        other.join(LONG)
    assert sorted(done) == ["given", "removed"]


def messages(expected: Expected) -> list[Any]:
    told = [expected.told.get() for _ in range(expected.told.qsize())]
    return [message and message["refusal"] for message in told]


@pytest.mark.parametrize(
    ("study", "uid", "told"),
    [
        ("1.2", "1.2.9", ["some", "every"]),  # of the study, listed or not
        ("1.2", "1.2.1", ["some", "every"]),
        ("1.9", "1.2.1", ["some"]),  # listed, and sent as part of another study
        ("1.9", "1.9.1", []),
        ("", "1.2.1", ["some"]),  # nobody knows the study
        ("", "1.9.1", ["some", "every", "other"]),  # it may be anybody's
    ],
)
def test_a_refusal_is_told_to_the_jobs_it_may_concern(tmp_path: Path, study: str, uid: str, told: list[str]) -> None:
    jobs = {
        "some": Expected("1.2", tmp_path, frozenset({"1.2.1"})), "every": Expected("1.2", tmp_path, None),
        "other": Expected("1.3", tmp_path, None),
    }  # fmt: skip
    expectations = Expectations()
    for job in jobs.values():
        expectations.add(job)
    expectations.tell_refusal(study, uid, "why", "")
    assert {name: messages(job) for name, job in jobs.items() if not job.told.empty()} == {
        name: [{"sop_instance_uid": uid, "words": "why", "moved": False}] for name in told
    }


def test_a_job_is_told_of_an_unlisted_instance_that_another_job_of_its_study_got(tmp_path: Path) -> None:
    old, new = (Expected("1.2", tmp_path, frozenset(uids)) for uids in (["1.2.1"], ["1.2.1", "1.2.2"]))
    expectations = Expectations()
    expectations.add(new)
    expectations.tell_others("1.2", "1.2.2", "", NOBODY, "")
    expectations.add(old)
    expectations.add(Expected("1.3", tmp_path, None))
    for uid in ("1.2.1", "1.2.2"):
        expectations.tell_others("1.2", uid, "", NOBODY, "")
    assert messages(new) == [] and [message["sop_instance_uid"] for message in messages(old)] == ["1.2.2"]


def test_refusals_are_told_once_and_not_by_the_million(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.receiver.expectations.MAX_REFUSALS", 5)
    job = Expected("1.2", tmp_path, None, "MKISO")
    for number in range(1000):
        for _ in range(2):
            job.tell_refusal(f"1.2.{number}", "why", "")
            job.tell_refusal("../x", "why", "ELSE")
    for number in range(1000):
        job.tell_refusal(f"1.2.{number}", "why", "MKISO")  # as part of a C-MOVE of ours
    told = messages(job)
    assert [message["sop_instance_uid"] for message in told if not message["moved"]] == [
        "1.2.0",
        "",
        "1.2.1",
        "1.2.2",
        "1.2.3",
    ]
    assert [message["sop_instance_uid"] for message in told if message["moved"]] == [""]


def test_places_are_counted_by_peer_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Admission(max_associations=3, max_associations_per_peer=2)
    with socket.socket() as unconnected:
        admitted = [places.admit(peer, unconnected) for peer in ("a", "a", "a", "b", "b")]
        assert [place.congested if place else "closed" for place in admitted] == [
            None,
            None,
            LOCAL_LIMIT_EXCEEDED,
            None,
            TEMPORARY_CONGESTION,
        ]
        for place in admitted[:2]:
            assert place is not None
            place.associated = True
        monkeypatch.setattr(admission, "GRACE_SECONDS", 0)
        assert (
            _congestion(places.admit("a", unconnected)) == LOCAL_LIMIT_EXCEEDED
        )  # both of its places are associations
        assert _congestion(places.admit("c", unconnected)) is None  # b's was silent for too long
        assert places.associations == 2
        for _ in range(admission.MAX_REJECTING):
            last = places.admit("a", unconnected)
        assert last is None


def _congestion(place: admission.Place | None) -> int | None:
    assert place is not None
    return place.congested


def test_the_head_of_a_file_is_read_by_pydicom() -> None:
    meta = dcmread(BytesIO(file_head("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1"))).file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == ("1.2.840.10008.5.1.4.1.1.2", "1.2.3")
    assert (meta.TransferSyntaxUID, meta.FileMetaInformationVersion) == ("1.2.840.10008.1.2.1", b"\0\1")


def test_a_unix_socket_of_any_path_length_is_reached(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / ("long" * 40)):
        folder.mkdir(exist_ok=True)
        path = folder / "receiver.sock"
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            with unix_address(path) as address:
                listener.bind(address)
                listener.listen()
            assert path.is_socket()
            with unix_address(path) as address:
                client.connect(address)

"""Expectations as JSON, the registry, places, and the first bytes of a file."""

from __future__ import annotations

import socket
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from mkiso.dicom.receiver import admission
from mkiso.dicom.receiver.admission import LOCAL_LIMIT_EXCEEDED, TEMPORARY_CONGESTION, Admission
from mkiso.dicom.receiver.expectations import Expectations, Expected, expected_of
from mkiso.dicom.receiver.spool import file_head
from mkiso.dicom.receiver.unix_address import unix_address


@pytest.mark.parametrize(
    "request_",
    [
        None, [], {}, {"study_instance_uid": "1.2"}, {"study_instance_uid": 5, "folder": "j"}, {"study_instance_uid": "../x", "folder": "j"},
        {"study_instance_uid": "1.2", "folder": "j", "instances": "1.2.3"}, {"study_instance_uid": "1.2", "folder": "j", "instances": [5]},
        {"study_instance_uid": "1.2", "folder": "."}, {"study_instance_uid": "1.2", "folder": ".."},
        {"study_instance_uid": "1.2", "folder": "missing"}, {"study_instance_uid": "1.2", "folder": "out"},
        {"study_instance_uid": "1.2", "folder": "j/../../elsewhere"},
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
    assert expectations.of("1.2", "1.2.1") == [some] and expectations.of("1.2", "1.2.2") == [] and expectations.of("1.3", "1.2.2") == [every]
    expectations.remove(some)
    assert not expectations.of("1.2", "1.2.1")


def test_places_are_counted_by_peer_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Admission(max_associations=3, max_associations_per_peer=2)
    with socket.socket() as unconnected:
        admitted = [places.admit(peer, unconnected) for peer in ("a", "a", "a", "b", "b")]
        assert [place.congested if place else "closed" for place in admitted] == [None, None, LOCAL_LIMIT_EXCEEDED, None, TEMPORARY_CONGESTION]
        for place in admitted[:2]:
            assert place is not None
            place.associated = True
        monkeypatch.setattr(admission, "GRACE_SECONDS", 0)
        assert _congestion(places.admit("a", unconnected)) == LOCAL_LIMIT_EXCEEDED  # both of its places are associations
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

"""Tickets and statuses against the vendors' keys (docs/publishers.md), and labels that no name can break out of."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mkiso.config.publishers import Robot
from mkiso.publishers import epson, folder, primera, rimage
from mkiso.publishers.protocol import Order, label_values
from mkiso.publishers.robot_status import RobotStatus, sections_of, seen_in_names, strongest
from mkiso.study.models import Patient, Volume

EVIL = "Evil\r\nCOPIES=99\r\nJobID = x\x00\u2028</Label>\"'&^^=\x0b"


def order(name: str = "Example^Anna", **values: object) -> Order:
    settled = {
        "order_id": "abc-1-1",
        "volume_id": "A1001",
        "volume": Volume(1, 2),
        "study_date": "20240229",
        "institution": "Hospital",
        **values,
    }
    return Order("job", Patient("HN-1", name, "19700102", "F"), ("A1001", "A1002"), **settled)  # type: ignore[arg-type]


def test_jdf() -> None:
    text = epson.render_ticket(
        order(copies=2, medium="dvd-dl"),
        "D:\\Jobs\\mkiso\\abc-1-1.ISO",
        "D:\\label.tdd",
        "D:\\Jobs\\mkiso\\abc-1-1.TXT",
    )
    assert text.split("\r\n") == [
        "JOB_ID=abc-1-1",
        "COPIES=2",
        "DISC_TYPE=DVD-DL",
        "CLOSE_DISC=YES",
        "COMPARE=YES",
        "IMAGE=D:\\Jobs\\mkiso\\abc-1-1.ISO",
        "LABEL=D:\\label.tdd",
        "REPLACE_FIELD=D:\\Jobs\\mkiso\\abc-1-1.TXT",
        "",
    ]
    assert "LABEL" not in epson.render_ticket(order(), "x.ISO", "", "fields.TXT")
    assert epson.render_cancel("abc-1-1") == "[CANCEL]\r\nJOB_ID=abc-1-1\r\n"


def test_jrq() -> None:
    text = primera.render_ticket(
        order(medium="bd", volume_id="V" * 40),
        "D:\\abc.ISO",
        "D:\\label.std",
        {"a": "Example Anna", "b": "", "c": "1 of 2"},
    )
    assert text.split("\r\n") == [
        "JobID = abc-1-1",
        "ClientID = mkiso",
        "ImageFile = D:\\abc.ISO",
        "ImageType = MODE_1_2048",
        "Copies = 1",
        "DiscType = BDR",
        "BurnSpeed = 0",
        "VerifyDisc = YES",
        "CloseDisc = YES",
        "RejectIfNotBlank = YES",
        f"VolumeName = {'V' * 32}",
        "PrintLabel = D:\\label.std",
        "MergeField = Example Anna",
        "MergeField = ",
        "MergeField = 1 of 2",
        "",
    ]


def test_production_order() -> None:
    text = rimage.render_order(order(medium="dvd"), "D:\\a&b.ISO", 'D:\\"label".btw', "D:\\fields.TXT")
    assert "ProductionOrder_1.10.DTD" in text
    root = fromstring(text.split("\r\n", 2)[2])
    assert (root.tag, root.attrib) == ("ProductionOrder", {"OrderId": "abc-1-1", "ClientId": "mkiso", "Copies": "1"})
    assert root.find("Media").attrib == {"Type": "DVDR"}  # type: ignore[union-attr]
    assert root.find("Target").attrib == {"Server": "ANY", "Line": "ANY"}  # type: ignore[union-attr]
    assert root.find("Action/Record/WriteTrack").attrib == {"Filename": "D:\\a&b.ISO"}  # type: ignore[union-attr]
    assert root.find("Action/Record/Fixate").attrib == {"Type": "SAO"}  # type: ignore[union-attr]
    assert root.find("Action/Label").attrib == {"Filename": 'D:\\"label".btw', "Merge_Filename": "D:\\fields.TXT"}  # type: ignore[union-attr]


def test_json_ticket() -> None:
    ticket = json.loads(folder.render_ticket(order(), "/jobs/abc.ISO", "", label_values(order(), {})))
    assert (
        ticket["order_id"],
        ticket["image"],
        ticket["copies"],
        ticket["medium"],
        ticket["number"],
        ticket["total"],
    ) == (
        "abc-1-1",
        "/jobs/abc.ISO",
        1,
        "cd",
        1,
        2,
    )
    assert ticket["label"]["patient_name"] == "Example Anna"


def test_label_fields_are_filled_by_configuration() -> None:
    fields = {
        "Name": "{patient_name}",
        "Born": "{birth_date}",
        "What": "{accession_number}, {study_date}",
        "Disc": "Disc {number} of {total}",
        "Bad": "{x.y}",
    }
    assert label_values(order(), fields) == {
        "Name": "Example Anna",
        "Born": "1970-01-02",
        "What": "A1001, A1002, 2024-02-29",
        "Disc": "Disc 1 of 2",
        "Bad": "{x.y}",
    }
    assert set(label_values(order(), {})) >= {
        "patient_name",
        "patient_id",
        "birth_date",
        "accession_number",
        "study_date",
        "institution",
    }


def test_a_name_can_not_be_a_template() -> None:
    assert label_values(order("{birth_date}"), {"Name": "{patient_name}"}) == {"Name": "(birth_date)"}


@given(name=st.one_of(st.just(EVIL), st.text(max_size=40)))
def test_no_name_adds_a_line_or_a_key_to_a_ticket(name: str) -> None:
    values = label_values(order(name), {"Name": "{patient_name}", "Disc": "{number}"})
    assert len(epson.render_fields(values).splitlines()) == 2
    jrq = primera.render_ticket(order(name), "a.ISO", "label.std", values)
    assert [line.split(" = ")[0] for line in jrq.splitlines()][-2:] == ["MergeField", "MergeField"]
    assert len(jrq.splitlines()) == len(
        primera.render_ticket(order("plain"), "a.ISO", "label.std", values).splitlines()
    )
    assert len(rimage.render_merge(values).splitlines()) == 1
    assert json.loads(folder.render_ticket(order(name), "a.ISO", "", values))["copies"] == 1
    assert values["Disc"] == "1"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("1", "waiting"),
        ("2", "running"),
        ("3", "paused"),
        ("4", "done"),
        ("5", "failed"),
        ("6", "refused"),
        ("99", "waiting"),
    ],
)
def test_epson_statuses(status: str, state: str) -> None:
    text = f"[ACTIVE_JOB]\nJOB1=other\n[other]\nSTATUS=4\n[abc-1-1]\nPUBLISHER=PP100\nSTATUS={status}\n"
    text += "ERROR_CODE=JDF0210\nERRORDISC_NUMBER=0\n"
    assert epson.parse_status(text, "abc-1-1") == RobotStatus(state, "ERROR_CODE=JDF0210")  # type: ignore[arg-type]
    assert epson.parse_status(text, "abc-1-2") is None


@pytest.mark.parametrize(
    ("number", "state"), [("10", "done"), ("13", "stopped"), ("15", "failed"), ("3", "running"), ("", "running")]
)
def test_primera_statuses(number: str, state: str) -> None:
    text = (
        f"[abc-1-1]\nCurrentStatusState = {number}\nCurrentStatus = Recording\nJobErrorNumber = 21\nJobErrorString "
        "= no media\n"
    )
    assert primera.parse_status(text, "abc-1-1") == RobotStatus(state, "Recording, no media, JobErrorNumber 21")  # type: ignore[arg-type]
    assert primera.parse_status(text, "other") is None


def test_a_robot_that_calls_its_state_as_we_do_says_it_once() -> None:
    text = (
        "[abc-1-1]\nCurrentStatusState = 3\nCurrentStatus = Running\nJobErrorNumber = 16\nJobErrorString = No Errors\n"
    )
    status = primera.parse_status(text, "abc-1-1")
    assert status and status.told == "running, No Errors"
    assert RobotStatus("waiting").told == "waiting"


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("COMPLETED", "done"),
        ("FAILED", "failed"),
        ("CANCELLED", "stopped"),
        ("IN_PROCESS", "running"),
        ("X", "waiting"),
    ],
)
def test_rimage_statuses(said: str, state: str) -> None:
    text = (
        f'<ProductionOrderStatus OrderId="abc-1-1"><Status State="{said}" ErrorMessage="no '
        'media"/></ProductionOrderStatus>'
    )
    assert rimage.parse_status(text, "abc-1-1") == RobotStatus(state, "no media")  # type: ignore[arg-type]
    assert rimage.parse_status(text[:40], "abc-1-1") is None
    assert rimage.parse_status(text, "abc-1-11") is None


def test_rimages_words_are_told_as_they_were_meant() -> None:
    """A name in them would be hidden from Prefect only as it is spelled."""
    text = '<S OrderId="abc-1-1" State="FAILED" ErrorMessage="no label for O&apos;Brien^&#220;rsula"/>'
    assert rimage.parse_status(text, "abc-1-1") == RobotStatus("failed", "no label for O'Brien^Ürsula")


def test_a_status_that_is_being_written_is_read_as_far_as_it_goes() -> None:
    assert sections_of("[a]\nSTATUS=2\n[b\nSTAT") == {"a": {"STATUS": "2"}}


def test_a_ticket_is_seen_under_any_of_the_robots_names() -> None:
    states = epson.EpsonPublisher.states
    assert seen_in_names(["abc-1-1.don", "abc-1-10.ERR", "TDBStatus.txt"], "abc-1-1", states) == RobotStatus("done")
    assert seen_in_names(["abc-1-1.JCF", "abc-1-1.TXT"], "abc-1-1", states) == RobotStatus("absent")


def test_what_promises_least_wins() -> None:
    assert strongest(
        [RobotStatus("done"), RobotStatus("failed", "write error"), RobotStatus("running", "old")]
    ) == RobotStatus("failed", "write error", may_be_made=True)
    assert strongest([RobotStatus("done"), RobotStatus("running")]) == RobotStatus("done")
    assert strongest([]) == RobotStatus("absent")


def test_a_windows_robot_finds_the_files_of_the_share(tmp_path: Path) -> None:
    for root, expected in (
        ("D:\\Jobs\\", "D:\\Jobs\\mkiso\\a.ISO"),
        ("//server/share", "//server/share/mkiso/a.ISO"),
        ("", str(tmp_path / "mkiso" / "a.ISO")),
    ):
        robot = epson.EpsonPublisher("robot", Robot(kind="epson", directory=tmp_path, robot_directory=root))
        assert robot.at_robot(tmp_path / "mkiso" / "a.ISO") == expected

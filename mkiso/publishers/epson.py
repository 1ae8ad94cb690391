"""Epson Discproducer by Total Disc Bridge: a JDF file in the watched folder, TDBStatus.txt for what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from mkiso.config.section import Medium
from mkiso.publishers.hotfolder import FolderPublisher
from mkiso.publishers.protocol import Order
from mkiso.publishers.robot_status import RobotState, RobotStatus, sections_of
from mkiso.study.identity import one_line

DISC_TYPES: Mapping[Medium, str] = {"cd": "CD", "dvd": "DVD", "dvd-dl": "DVD-DL", "bd": "BD", "bd-dl": "BD-DL"}
STATUSES: Mapping[str, RobotState] = {
    "1": "waiting",
    "2": "running",
    "3": "paused",
    "4": "done",
    "5": "failed",
    "6": "refused",
}


def render_ticket(order: Order, image: str, label: str, fields: str) -> str:
    """The JDF: `KEY=value`, no spaces. `label` (a .tdd file) and `fields` (its REPLACE_FIELD file) as the robot names
    them, or empty.
    """
    keys = {
        "JOB_ID": order.order_id,
        "COPIES": str(order.copies),
        "DISC_TYPE": DISC_TYPES[order.medium],
        "CLOSE_DISC": "YES",
        "COMPARE": "YES",
        "IMAGE": image,
        "LABEL": label,
        "REPLACE_FIELD": fields if label else "",
    }
    return "".join(f"{key}={one_line(value)}\r\n" for key, value in keys.items() if value)


def render_fields(values: Mapping[str, str]) -> str:
    """The label's `name=value` lines."""
    return "".join(f"{one_line(name).replace('=', ' ')}={value}\r\n" for name, value in values.items())


def render_cancel(order_id: str) -> str:
    """The JCF that cancels an order."""
    return f"[CANCEL]\r\nJOB_ID={order_id}\r\n"


def parse_status(text: str, order_id: str) -> RobotStatus | None:
    """What TDBStatus.txt says of an order: the section of its name, STATUS 1 to 6, and every key that tells of an
    error.
    """
    section = sections_of(text).get(order_id)
    if section is None:
        return None
    errors = [f"{key}={value}" for key, value in section.items() if "ERROR" in key.upper() and value not in ("", "0")]
    return RobotStatus(STATUSES.get(section.get("STATUS", ""), "waiting"), ", ".join(errors))


class EpsonPublisher(FolderPublisher):
    """A Discproducer."""

    ticket_suffix = ".JDF"
    states: ClassVar[Mapping[str, RobotState]] = {
        ".JDF": "waiting",
        ".RJD": "waiting",
        ".INP": "running",
        ".DON": "done",
        ".ERR": "failed",
        ".STP": "stopped",
        ".CDN": "stopped",
    }

    def files(self, order: Order, image: str) -> Mapping[str, str]:
        fields = self.at_robot(self.staging / f"{order.order_id}.TXT")
        ticket = render_ticket(order, image, self.settings.label_template, fields)
        return {".TXT": render_fields(self.label(order)), ".JDF": ticket}

    def cancel_file(self, order: Order) -> tuple[str, str] | None:
        return ".JCF", render_cancel(order.order_id)

    def status_files(self, order_id: str) -> list[Path]:
        return [self.status_directory / "TDBStatus.txt"]

    def read_status(self, text: str, order_id: str) -> RobotStatus | None:
        return parse_status(text, order_id)

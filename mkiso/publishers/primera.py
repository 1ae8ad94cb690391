"""Primera Bravo and Disc Publisher by PTBurn: a JRQ file in the watched folder, `<robot>.txt` for what becomes
of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from mkiso.config.section import Medium
from mkiso.publishers.hotfolder import FolderPublisher
from mkiso.publishers.protocol import Order
from mkiso.publishers.robot_status import RobotState, RobotStatus, sections_of
from mkiso.study.identity import one_line

DISC_TYPES: Mapping[Medium, str] = {"cd": "CDR", "dvd": "DVDR", "dvd-dl": "DVDR-DL", "bd": "BDR", "bd-dl": "BDR-DL"}
STATUSES: Mapping[str, RobotState] = {"10": "done", "13": "stopped", "15": "failed"}
SYSTEM_STATUS = "SystemStatus.txt"


def render_ticket(order: Order, image: str, label: str, fields: Mapping[str, str]) -> str:
    """The JRQ: `Key = value`; merge fields are told by their order alone."""
    keys = [
        ("JobID", order.order_id),
        ("ClientID", "mkiso"),
        ("ImageFile", image),
        ("ImageType", "MODE_1_2048"),
        ("Copies", str(order.copies)),
        ("DiscType", DISC_TYPES[order.medium]),
        ("BurnSpeed", "0"),
        ("VerifyDisc", "YES"),
        ("CloseDisc", "YES"),
        ("RejectIfNotBlank", "YES"),
        ("VolumeName", order.volume_id[:32]),
        ("PrintLabel", label),
        *(("MergeField", value) for value in (fields.values() if label else ())),
    ]
    # An empty merge field still holds its place; any other empty value is left out.
    return "".join(f"{key} = {one_line(value)}\r\n" for key, value in keys if value or key == "MergeField")


def parse_status(text: str, order_id: str) -> RobotStatus | None:
    """What `<robot>.txt` says of an order: the section of its name, CurrentStatusState, the error's number and
    words.
    """
    section = sections_of(text).get(order_id)
    if section is None:
        return None
    state = STATUSES.get(section.get("CurrentStatusState", ""), "running")
    told = [section.get(key, "") for key in ("CurrentStatus", "JobErrorString")]
    number = section.get("JobErrorNumber", "0")
    if number not in ("", "0", "16"):  # 16: no error
        told.append(f"JobErrorNumber {number}")
    return RobotStatus(state, ", ".join(words for words in told if words))


class PrimeraPublisher(FolderPublisher):
    """A Bravo or Disc Publisher."""

    ticket_suffix = ".JRQ"
    states: ClassVar[Mapping[str, RobotState]] = {
        ".JRQ": "waiting",
        ".QRJ": "waiting",
        ".INP": "running",
        ".DON": "done",
        ".ERR": "failed",
    }

    def files(self, order: Order, image: str) -> Mapping[str, str]:
        return {".JRQ": render_ticket(order, image, self.settings.label_template, self.label(order))}

    def cancel_file(self, order: Order) -> tuple[str, str] | None:
        return ".PTM", "Message = ABORT\r\n"

    def status_files(self, order_id: str) -> list[Path]:
        """SystemStatus.txt, whose ServerTickCount is the pulse of the service, then every robot's own file."""
        system = self.status_directory / SYSTEM_STATUS
        return [system, *(file for file in sorted(self.status_directory.glob("*.txt")) if file.name != SYSTEM_STATUS)]

    def read_status(self, text: str, order_id: str) -> RobotStatus | None:
        return parse_status(text, order_id)

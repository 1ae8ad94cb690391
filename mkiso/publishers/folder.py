"""Anything else that can take an image and a JSON ticket from a folder and leave a file when it is done; the protocol
is in docs/publishers.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from mkiso.publishers.hotfolder import FolderPublisher
from mkiso.publishers.protocol import Order
from mkiso.publishers.robot_status import RobotState, RobotStatus
from mkiso.study.writing import Carries


def render_ticket(order: Order, image: str, label: str, fields: Mapping[str, str]) -> str:
    """The JSON ticket, in ASCII whatever the names in it are."""
    ticket = {
        "order_id": order.order_id,
        "job_id": order.job_id,
        "image": image,
        "volume_id": order.volume_id,
        "number": order.volume.number,
        "total": order.volume.total,
        "copies": order.copies,
        "medium": order.medium,
        "label_template": label,
        "label": dict(fields),
    }
    return json.dumps(ticket, indent=1) + "\n"


class JsonFolderPublisher(FolderPublisher):
    """A folder and whatever serves it."""

    ticket_suffix = ".JSON"
    states: ClassVar[Mapping[str, RobotState]] = {
        ".JSON": "waiting",
        ".TAKEN": "running",
        ".DONE": "done",
        ".FAILED": "failed",
        ".STOPPED": "stopped",
    }

    @property
    def carries(self) -> Carries:
        """Its ticket is ASCII with escapes."""
        return lambda _: True

    def files(self, order: Order, image: str) -> Mapping[str, str]:
        return {".JSON": render_ticket(order, image, self.settings.label_template, self.label(order))}

    def cancel_file(self, order: Order) -> tuple[str, str] | None:
        return ".CANCEL", ""

    def status_files(self, order_id: str) -> list[Path]:
        """The words that stand in the file which says that it failed."""
        found = self.directory.glob(f"{order_id}.*") if order_id else ()
        return [file for file in found if file.suffix.upper() == ".FAILED"]

    def read_status(self, text: str, order_id: str) -> RobotStatus | None:
        is_ticket = text.lstrip().startswith("{")  # renamed, so it holds no words
        return RobotStatus("failed", "" if is_ticket else text)

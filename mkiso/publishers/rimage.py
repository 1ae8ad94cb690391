"""Rimage by order files. The vendor's messaging server is reached only through a Windows library, so the order goes to
a folder that the vendor's hot-folder service watches; most Rimage sites relay by DICOM instead (kind cstore).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import ClassVar
from xml.etree.ElementTree import Element, SubElement, tostring

from mkiso.config.section import Medium
from mkiso.publishers.hotfolder import FolderPublisher
from mkiso.publishers.protocol import Order, Receipt, Watch
from mkiso.publishers.robot_status import RobotState, RobotStatus
from mkiso.study.identity import one_line

MEDIA_TYPES: Mapping[Medium, str] = {"cd": "CDR", "dvd": "DVDR", "dvd-dl": "DVDR-DL", "bd": "BDR", "bd-dl": "BDR-DL"}
DOCTYPE = '<!DOCTYPE ProductionOrder SYSTEM "ProductionOrder_1.10.DTD">'
STATES: Mapping[str, RobotState] = {
    "PENDING": "waiting",
    "SUBMITTED": "waiting",
    "IN_PROCESS": "running",
    "COMPLETED": "done",
    "FAILED": "failed",
    "CANCELLED": "stopped",
}


def render_order(order: Order, image: str, label: str, merge_file: str) -> str:
    """The ProductionOrder (DTD 1.10); values are escaped by the XML writer."""
    root = Element("ProductionOrder", OrderId=order.order_id, ClientId="mkiso", Copies=str(order.copies))
    SubElement(root, "Media", Type=MEDIA_TYPES[order.medium])
    SubElement(root, "Target", Server="ANY", Line="ANY")
    record = SubElement(SubElement(root, "Action"), "Record")
    SubElement(record, "WriteTrack", Filename=one_line(image))
    SubElement(record, "Fixate", Type="SAO")
    if label:
        SubElement(SubElement(root, "Action"), "Label", Filename=one_line(label), Merge_Filename=one_line(merge_file))
    # ASCII and references, whatever the code page.
    document = tostring(root, encoding="us-ascii", xml_declaration=False).decode("ascii")
    return f'<?xml version="1.0"?>\r\n{DOCTYPE}\r\n{document}\r\n'


def render_merge(values: Mapping[str, str]) -> str:
    """The label's fields: one line of quoted values in their order."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerow(values.values())
    return text.getvalue()


def parse_status(text: str, order_id: str) -> RobotStatus | None:
    """What a status document says of an order: its State attribute and the error's words. Not parsed as XML: a robot
    may be writing it still.
    """
    if f'"{order_id}"' not in text or not (state := re.search(r'\bState\s*=\s*"(\w+)"', text)):
        return None
    words = re.findall(r'\b(?:ErrorMessage|Message)\s*=\s*"([^"]*)"', text)
    return RobotStatus(STATES.get(state.group(1).upper(), "waiting"), unescape(", ".join(words)))


class RimagePublisher(FolderPublisher):
    """A Rimage system's hot folder. Without `status_directory` nothing tells of an order's end, so `queued` is all that
    is proved.
    """

    ticket_suffix = ".XML"
    states: ClassVar[Mapping[str, RobotState]] = {".XML": "waiting"}

    def files(self, order: Order, image: str) -> Mapping[str, str]:
        merge_file = self.at_robot(self.staging / f"{order.order_id}.TXT")
        return {
            ".TXT": render_merge(self.label(order)),
            ".XML": render_order(order, image, self.settings.label_template, merge_file),
        }

    def status_files(self, order_id: str) -> list[Path]:
        return (
            [self.settings.status_directory / f"{order_id}.XML"] if self.settings.status_directory and order_id else []
        )

    def read_status(self, text: str, order_id: str) -> RobotStatus | None:
        return parse_status(text, order_id)

    def follow(self, order: Order, receipt: Receipt, watch: Watch) -> Receipt:
        return super().follow(order, receipt, watch) if self.settings.status_directory else receipt

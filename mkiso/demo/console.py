"""A console that sends the files of a folder over one association: `python -m mkiso.demo.console --help`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE

from mkiso.demo.library import holding
from mkiso.demo.pacs import contexts
from mkiso.demo.steady import steady

SUCCESS = 0x0000


def main() -> int:
    """Send each; 1 where one wasn't taken."""
    arguments = argparse.ArgumentParser(prog="python -m mkiso.demo.console", description=__doc__)
    arguments.add_argument("folder", type=Path, help="the files of a study")
    arguments.add_argument("to", metavar="AE@HOST:PORT", help="who gets them")
    arguments.add_argument("--ae-title", default="CONSOLE", help="who sends them")
    given = arguments.parse_args()
    called, _, address = given.to.partition("@")
    host, _, port = address.rpartition(":")
    files = [holding(file) for file in sorted(given.folder.rglob("*.dcm"))]
    association = steady(AE(given.ae_title).associate(host, int(port), contexts(files), called))
    if not association.is_established:
        print(f"{given.to} didn't take the association of {given.ae_title}.")
        return 1
    taken = [association.send_c_store(dcmread(file.path)).get("Status") == SUCCESS for file in files]
    association.release()
    print(f"{given.to} took {sum(taken)} of {len(files)} files.")
    return 0 if all(taken) else 1


if __name__ == "__main__":
    raise SystemExit(main())

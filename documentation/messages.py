"""The catalogues of mkiso/languages, held against what stands in code, templates and scripts.

    make messages       # adds new messages to each catalogue, and removes those that are no longer used

What is still to be translated is named then; a test refuses a catalogue that isn't whole.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).parents[1]
CATALOGUES = ROOT / "mkiso" / "languages" / "catalogues"
WIDTH = 120
LEFT_OUT = tuple(
    f'"{name}'.encode()
    for name in ("Project-Id", "Report-", "POT-", "PO-Revision", "Last-Translator", "Language-Team", "Generated-By")
)
PLACES = ("mkiso", "mkiso_service", "tasks")


def extracted() -> Catalog:
    """Every message that is marked, with the files that it stands in."""
    with (ROOT / "babel.cfg").open() as mapping:
        methods, options = parse_mapping_cfg(mapping)  # type: ignore[no-untyped-call]
    catalogue = Catalog(charset="utf-8")
    found = extract_from_dir(ROOT, methods, options, strip_comment_tags=True, directory_filter=_has_messages)
    for file, _, message, comments, context in sorted(found, key=lambda each: (each[0], each[1])):
        catalogue.add(message, None, [(Path(file).as_posix(), 0)], auto_comments=comments, context=context)
    for each in catalogue:
        each.locations = sorted(set(each.locations))
    return catalogue


def _has_messages(folder: str) -> bool:
    path = Path(folder)
    return path == ROOT or path.relative_to(ROOT).parts[0] in PLACES


def catalogue_of(file: Path) -> Catalog:
    with file.open("rb") as opened:
        return read_po(opened, locale=file.stem.replace("-", "_"))


def untranslated(catalogue: Catalog) -> Iterator[Message]:
    """What a catalogue has no translation of, or one that is marked as uncertain."""
    for message in catalogue:
        forms = message.string if isinstance(message.string, tuple | list) else [message.string]
        if message.id and (message.fuzzy or not all(forms)):
            yield message


def main() -> int:
    """Bring each catalogue up to date and name what is to be translated; 1 where anything is."""
    messages, left = extracted(), 0
    for file in sorted(CATALOGUES.glob("*.po")):
        catalogue = catalogue_of(file)
        catalogue.update(messages, no_fuzzy_matching=True, update_creation_date=False)
        catalogue.obsolete.clear()
        write(catalogue, file)
        for message in untranslated(catalogue):
            left += 1
            print(f"{file.relative_to(ROOT)}: {message.id!r}")
    return 1 if left else 0


def write(catalogue: Catalog, file: Path) -> None:
    """In the order of the files, and without what changes from day to day."""
    written = BytesIO()
    write_po(written, catalogue, width=WIDTH, sort_by_file=True, include_lineno=False)
    kept = [line for line in written.getvalue().splitlines(keepends=True) if not line.startswith(LEFT_OUT)]
    file.write_bytes(b"".join(kept))


if __name__ == "__main__":
    sys.exit(main())

"""What dcmtk's tools need to send each file in its own transfer syntax: an association profile made from the files
themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydicom import dcmread

OWN = "Own"
QUERIES = "Queries"
MAX_PRESENTATION_CONTEXTS = 128  # PS3.8 9.3.2.2: odd numbers from 1 to 255
VERIFICATION = "1.2.840.10008.1.1"
QUERY_RETRIEVE = [f"1.2.840.10008.5.1.4.1.2.{root}.{service}" for root in (1, 2) for service in (1, 2, 3)]  # PS3.4 C.6
PLAIN = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


def write_profiles(file: Path, dicom_files: Iterable[Path]) -> Path:
    """Write a dcmtk association configuration with two profiles.

    OWN proposes each pair of SOP class and transfer syntax in these files, each alone in its context; QUERIES accepts
    C-ECHO, C-FIND, C-MOVE, C-GET.
    """
    metas = (dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"]).file_meta for path in dicom_files)
    pairs = sorted({(str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)) for meta in metas})
    if len(pairs) > MAX_PRESENTATION_CONTEXTS:
        raise ValueError(f"{len(pairs)} presentation contexts don't fit one association")
    names = {syntax: f"Syntax{number}" for number, syntax in enumerate(sorted({syntax for _, syntax in pairs}))}
    lines = ["[[TransferSyntaxes]]", *_section("Plain", "TransferSyntax", PLAIN)]
    for syntax, name in names.items():
        lines += _section(name, "TransferSyntax", [syntax])
    lines += ["[[PresentationContexts]]"]
    lines += _section(QUERIES, "PresentationContext", [f"{model}\\Plain" for model in [VERIFICATION, *QUERY_RETRIEVE]])
    lines += _section(
        OWN,
        "PresentationContext",
        [f"{sop_class}\\{names[syntax]}" for sop_class, syntax in pairs] or [f"{VERIFICATION}\\Plain"],
    )
    lines += [
        "[[Profiles]]",
        f"[{QUERIES}]",
        f"PresentationContexts = {QUERIES}",
        f"[{OWN}]",
        f"PresentationContexts = {OWN}",
    ]
    file.write_text("\n".join(lines) + "\n")
    return file


def _section(name: str, key: str, values: Sequence[str]) -> list[str]:
    return [f"[{name}]", *(f"{key}{number} = {value}" for number, value in enumerate(values, 1))]

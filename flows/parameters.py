"""The parameters of flows as operators see them in the Prefect UI: typed, explained, refused before a run starts where
they can't be right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, get_args

from prefect.runtime import flow_run
from pydantic import Field, StringConstraints

from mkiso.config.section import TransferSyntax
from mkiso.formats.registry import FORMATS
from mkiso.languages import languages
from mkiso.storage.handover import CLAIM_PATTERN
from mkiso.study.identity import MOST_SHOWN, SHOWN_DIGITS
from mkiso.study.question import Kind, run_name
from mkiso.study.selection import MAX_SERIES, UID_CHARACTERS, UID_PATTERN

_SIGN, _SEEN = r"[^\\*?%,\x00-\x1f\x7f]", r"[^\\*?%,\x00-\x20\x7f]"
AccessionNumber = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=f"^{_SIGN}*{_SEEN}{_SIGN}*$"),
    Field(examples=["A100234"]),
]
AccessionNumbers = Annotated[
    list[AccessionNumber],
    Field(
        title="Accession numbers",
        description="As they stand on the examinations; all of one patient. May be empty where studies are chosen.",
        max_length=1000,
        examples=[["A100234", "A100235"]],
    ),
]

Uid = Annotated[
    str,
    StringConstraints(min_length=1, max_length=UID_CHARACTERS, pattern=UID_PATTERN),
    Field(examples=["1.2.840.113619.2.55.3.604688119.971"]),
]
StudyUids = Annotated[
    tuple[Uid, ...],
    Field(
        title="Chosen studies",
        description="Study Instance UIDs: of the accession numbers' studies these alone, or these where there are no "
        "numbers. Empty: all.",
        max_length=1000,
    ),
]
SeriesUids = Annotated[
    tuple[Uid, ...],
    Field(
        title="Chosen series",
        description="Series Instance UIDs: of a study that has some of these, these alone. Empty: whole studies.",
        max_length=MAX_SERIES,
    ),
]
Priors = Annotated[
    bool,
    Field(
        title="With earlier studies",
        description="Earlier studies of the patient go beside them, by the rule of the configuration (priors).",
    ),
]

ShownPatient = Annotated[
    str,
    Field(
        title="Patient shown",
        description="From the counter page: stands for the patient whom the clerk saw and confirmed. Leave it empty.",
        pattern=rf"^(([0-9a-f]{{{SHOWN_DIGITS}}}){{1,{MOST_SHOWN}}})?$",
    ),
]

DiscLanguage = Annotated[
    str,
    Field(
        title="Language",
        description=f"Of the pages on the disc, one of {', '.join(languages())}; empty: disc.language of the "
        "configuration.",
        pattern=rf"^({'|'.join(languages())})?$",
    ),
]

DiscTransferSyntax = Annotated[
    str,
    Field(
        title="Transfer syntax",
        description=f"What the images of the disc are stored as: {' or '.join(get_args(TransferSyntax))}; empty: "
        "disc.transfer_syntax of the configuration.",
        pattern=rf"^({'|'.join(get_args(TransferSyntax))})?$",
    ),
]

DiscFormat = Annotated[
    str, Field(title="Format", description=f"One of {', '.join(FORMATS)}.", pattern=rf"^({'|'.join(FORMATS)})$")
]

Deidentified = Annotated[
    bool,
    Field(
        title="De-identified copy",
        description="For teaching and research: it doesn't say whose it is, and is no patient's disc. Offered where "
        "deidentified.secret is set.",
    ),
]

PasswordSeal = Annotated[
    str,
    Field(
        title="Seal of the password",
        description="From the webhook: it seals the password of an encrypted disc for who asked. Leave it empty.",
        pattern=rf"{CLAIM_PATTERN}|^$",
    ),
]


def named(kind: Kind) -> Callable[[], str]:
    """Names the run of a flow by its kind and what it was asked for."""
    return lambda: run_name(kind, flow_run.parameters)

"""Whether everything that the PACS holds of a study has arrived.

What the PACS listed by SOP Instance UID is compared UID by UID, both ways. An instance that arrived and isn't on the
list means that the study changed while it was retrieved, and so does one more than was counted: the disc must be what
the PACS holds, so nothing is made until the PACS was asked again (mkiso.sources.retrieve does that by itself). Counts
at SERIES or STUDY level are the fallback and prove less; what another source lists has to be among what is counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mkiso.errors import CountsUnknown, NoDicomData, StudyIncomplete
from mkiso.study.models import Expected, Study

NAMED_UIDS = 5
RETRY_HINT = "Try again in a few minutes; if it stays, the PACS can't send them."


def missing(expected: Expected, arrived: Collection[str]) -> frozenset[str]:
    """The SOP Instance UIDs listed and not arrived; empty where the PACS listed none."""
    return (expected.instances or frozenset()).difference(arrived)


def unexpected(expected: Expected, arrived: Collection[str]) -> frozenset[str]:
    """The SOP Instance UIDs arrived and not listed; empty where the PACS listed none."""
    return frozenset(arrived) - expected.instances if expected.instances is not None else frozenset()


def is_complete(expected: Expected, arrived: Collection[str]) -> bool:
    """Whether nothing more is to come; never where nothing is known of what should come."""
    # The number first: this is asked after each arrival, and the lists are as long as the study.
    return expected.count is not None and len(arrived) >= expected.count and not missing(expected, arrived)


def provable(study: Study, *, require_counts: bool) -> None:
    """Before anything is moved: raise NoDicomData where the study holds nothing, CountsUnknown where completeness could
    never be proved.
    """
    if study.expected.count == 0:
        raise _no_data(study)
    if study.expected.count is None and require_counts:
        raise CountsUnknown(
            f"The PACS tells neither the images of {study.called} nor their number, so a disc can't be proved "
            "complete. Have IMAGE level queries enabled in the PACS, or set "
            f"{study.origin.section}.require_counts to false to make discs without that proof.",
            accession_number=study.accession_number,
        )


def complete(study: Study, arrived: Collection[str], *, require_counts: bool, counted: int = 0) -> None:
    """After the last image: raise unless `arrived` (SOP Instance UIDs) is exactly what the PACS said.

    `counted` is the most that it has said to send. Raises NoDicomData, CountsUnknown, StudyIncomplete (how many of how
    many, and a few of the UIDs).
    """
    provable(study, require_counts=require_counts)
    if not arrived:
        raise _no_data(study) if study.expected.count is None else incomplete(study, arrived)
    if study.expected.count is not None and not is_complete(study.expected, arrived):
        raise incomplete(study, arrived)
    if strangers := unexpected(study.expected, arrived):
        raise changed(study, len(arrived), strangers)
    if study.expected.count is not None and len(arrived) > study.expected.count and require_counts:
        raise changed(study, len(arrived))
    if counted > len(arrived):
        raise contradicted(study, len(arrived), counted)
    if lacking := sorted(set(study.listed_elsewhere).difference(arrived)):
        raise _others(study, lacking)


def _others(study: Study, lacking: Sequence[str]) -> StudyIncomplete:
    """As many as the source counts, and not those that another one lists."""
    return StudyIncomplete(
        f"{study.origin.source} sent as many images of {study.called} as it counts, and not {len(lacking)} that "
        "another source lists. Images of two sources aren't mixed, so no disc was made. Have the missing ones sent to "
        "one of them.",
        accession_number=study.accession_number,
        expected=study.expected.count,
        missing=len(lacking),
        missing_sop_instance_uids=lacking[:NAMED_UIDS],
    )


def _no_data(study: Study) -> NoDicomData:
    return NoDicomData(
        f"no DICOM data: the study of {study.called} holds no images. Ask the department "
        "whether it was sent to the PACS.",
        accession_number=study.accession_number,
    )


def incomplete(study: Study, arrived: Collection[str], hint: str = RETRY_HINT) -> StudyIncomplete:
    """How many of how many are missing, a few of them by UID, and in `hint` what to do."""
    absent = sorted(missing(study.expected, arrived))
    count = study.expected.count
    lacking = None if count is None else len(absent) or count - len(arrived)
    of_them = "The only image" if count == 1 else f"{lacking} of the {count} images"
    images = "Images" if count is None else of_them
    return StudyIncomplete(
        f"{images} of {study.called} didn't arrive from the PACS, so no disc was made. {hint}",
        accession_number=study.accession_number,
        expected=count,
        missing=lacking,
        missing_sop_instance_uids=absent[:NAMED_UIDS],
    )


def changed(study: Study, arrived: int, strangers: frozenset[str] = frozenset()) -> StudyIncomplete:
    """The study is no longer what the PACS listed."""
    return StudyIncomplete(
        f"The study of {study.called} changed in the PACS while it was retrieved: "
        f"{study.expected.count} images were "
        f"listed and {arrived} arrived. Ask for the disc again.",
        accession_number=study.accession_number,
        expected=study.expected.count,
        arrived=arrived,
        unexpected_sop_instance_uids=sorted(strangers)[:NAMED_UIDS],
    )


def untold(study: Study) -> StudyIncomplete:
    """Asked again, the PACS tells less of the study than it did."""
    return StudyIncomplete(
        f"The PACS no longer tells what it told of the images of {study.called}, so no disc was made. {RETRY_HINT}",
        accession_number=study.accession_number,
        expected=study.expected.count,
    )


def unproved(study: Study, hint: str = "") -> StudyIncomplete:
    """As many arrived as the PACS counts, after a failure and without a list."""
    return StudyIncomplete(
        f"{study.expected.count} images of {study.called} arrived, as many as the PACS counts, but their retrieval "
        f"failed and it lists none, so they may be others. No disc was made. {hint or RETRY_HINT}",
        accession_number=study.accession_number,
        expected=study.expected.count,
    )


def unlisted(study: Study, count: int, words: str) -> StudyIncomplete:
    """Images came that may be of the study and aren't on the disc, and no list says that they aren't; `words`: why the
    first was refused."""
    return StudyIncomplete(
        f"{count} {'image' if count == 1 else 'images'} more of {study.called} came than the PACS tells, and "
        f"couldn't be stored ({words.rstrip('.')}), so no disc was made. Ask again in a few minutes; if it stays, have "
        "the study checked in the PACS.",
        accession_number=study.accession_number,
        expected=study.expected.count,
        unlisted=count,
    )


def contradicted(study: Study, arrived: int, counted: int) -> StudyIncomplete:
    """The PACS was asked again and still lists fewer than it says that it sends."""
    listed = f"lists {study.expected.count}" if study.expected.count is not None else f"sent {arrived}"
    return StudyIncomplete(
        f"The PACS {listed} images of {study.called} and counts {counted} to send, so no "
        "disc was made. "
        "Ask again in a few minutes; if it stays, have the study checked in the PACS.",
        accession_number=study.accession_number,
        expected=study.expected.count,
        arrived=arrived,
        counted=counted,
    )

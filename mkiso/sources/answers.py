"""What a PACS answered to a C-FIND: counted as it was sent, before anything is left out of it. Pure.

An answer may be cut, come twice, name no usable UID or be damaged. None of these is passed over: each stands for
something that the PACS holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag

from mkiso.dataset.elements import IMPLICIT_LITTLE, elements
from mkiso.dataset.header import encodings_of
from mkiso.errors import DamagedInstance, PacsRefused
from mkiso.network.dimse import Response
from mkiso.study.identity import significant
from mkiso.study.models import Expected, Series, Study
from mkiso.study.selection import is_uid

SUCCESS, CANCELLED = 0x0000, 0xFE00
MAX_VALUE_BYTES = 16 * 1024  # of one attribute; names have some hundred, and each byte of one costs pydicom 1 µs
MAX_COUNT_DIGITS = 12  # VR IS, PS3.5 6.2

STUDY_KEYS = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedInstances",
)
SERIES_KEYS = ("SeriesNumber", "Modality", "SeriesDescription", "BodyPartExamined")
_COUNTS = ("NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances")
_SPECIFIC_CHARACTER_SET = 0x00080005
_READ = {
    tag: dictionary_VR(tag)
    for keyword in (*STUDY_KEYS, *SERIES_KEYS, *_COUNTS, "SpecificCharacterSet")
    if (tag := tag_for_keyword(keyword)) is not None
}
_TAGS = frozenset(_READ)
_DESCRIPTION = tuple(field.name for field in fields(Study) if field.name != "expected")


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to one C-FIND as they were sent, and how it ended. `limit`: how many the PACS gives at most, 0 where
    it has no limit.

    `endless`: we ended it ourselves, because they were more than we take.
    """

    responses: Sequence[Response]
    status: int
    limit: int = 0
    endless: bool = False

    @property
    def sent(self) -> int:
        return len(self.responses)

    @property
    def at_limit(self) -> bool:
        """Whether there may be more than were sent, although the PACS says Success."""
        return 0 < self.limit <= self.sent


@dataclass(frozen=True, slots=True)
class Found:
    """The studies of one question by date.

    `sent`: how many answers the PACS gave, which `studies` may be fewer than. `unusable`: studies that can't be asked
    for, because their UID is none; of an answer that can't be read nothing is known. `cut`: the PACS ended it with
    `status` other than 0000, so there may be more; ask for less at a time.
    """

    studies: tuple[Study, ...]
    unusable: tuple[Study, ...]
    sent: int
    status: int

    @property
    def cut(self) -> bool:
        return self.status != SUCCESS


@dataclass(frozen=True, slots=True)
class Level:
    """The answers at SERIES or IMAGE level by UID. `sure`: none came twice and they are fewer than the PACS's limit, so
    that none can be missing without the PACS's own doing; what isn't sure is believed only where the level above counts
    no more."""

    by_uid: Mapping[str, Response]
    sure: bool


def level_of(answers: Answers, uid_tag: int) -> Level | None:
    """None where the PACS refused this level (A9xx, Cxxx, 0122) or gave what is no UID."""
    by_uid = {answer.uid(uid_tag): answer for answer in answers.responses}
    if answers.status != SUCCESS or not all(map(is_uid, by_uid)):
        return None
    return Level(by_uid, len(by_uid) == answers.sent and not answers.at_limit)


def series_counts_of(answers: Answers, uid_tag: int) -> dict[str, int | None]:
    """How many instances each series has by the answers at SERIES level; of two numbers the larger, since fewer would
    be one too few."""
    counts: dict[str, int | None] = {}
    for answer in answers.responses:
        uid, count = answer.uid(uid_tag), _count(answer)
        counts[uid] = count if counts.get(uid) is None else max(counts[uid] or 0, count or 0)
    return counts


def series_of(answers: Answers, uid_tag: int) -> tuple[Series, ...]:
    """The answers at SERIES level, each series once, in the order of their numbers; what can't be read of one
    is left out, and no series.
    """
    counts = series_counts_of(answers, uid_tag)
    told = {uid: Series(uid, images=count) for uid, count in counts.items()}
    for answer in answers.responses:
        with suppress(DamagedInstance):
            described = read(answer)
            number, modality, description, part = (significant(described.get(keyword)) for keyword in SERIES_KEYS)
            uid = answer.uid(uid_tag)
            told[uid] = Series(uid, number, modality, description, counts[uid], part)
    return tuple(
        sorted(
            told.values(), key=lambda series: (count_of(series.number) or 0, series.number, series.series_instance_uid)
        )
    )


def read(response: Response) -> Dataset:
    """The attributes of an answer that are asked for, decoded on first use by their own Specific Character Set. Raises
    DamagedInstance."""
    data = response.identifier
    raw: dict[BaseTag, DataElement | RawDataElement] = {}
    charset: list[str] | None = None
    for number, element in elements(data, 0, len(data), IMPLICIT_LITTLE, _TAGS).items():
        if element.delimited or element.length > MAX_VALUE_BYTES:
            raise DamagedInstance(f"The attribute {BaseTag(number)} of an answer has no value that it can have.")
        value = data[element.offset : element.offset + element.length]
        if number == _SPECIFIC_CHARACTER_SET:
            charset = encodings_of(value)
        # pydicom fails at some of what is no number.
        if _READ[number] != "IS" or count_of(value.decode("latin-1")) is not None:
            raw[BaseTag(number)] = RawDataElement(BaseTag(number), _READ[number], element.length, value, 0, True, True)
    dataset = Dataset(raw)
    dataset.set_original_encoding(True, True, charset)
    return dataset


def study_of(answer: Dataset) -> Study:
    """An answer at STUDY level as a Study; its count is what is expected until a finer level is asked."""
    count = count_of(answer.get("NumberOfStudyRelatedInstances"))
    return Study(
        accession_number=significant(answer.get("AccessionNumber")),
        study_instance_uid=significant(answer.get("StudyInstanceUID")),
        patient_id=significant(answer.get("PatientID")),
        patient_name=significant(answer.get("PatientName")),
        patient_birth_date=significant(answer.get("PatientBirthDate")),
        patient_sex=significant(answer.get("PatientSex")),
        study_date=significant(answer.get("StudyDate")),
        study_time=significant(answer.get("StudyTime")),
        study_id=significant(answer.get("StudyID")),
        study_description=significant(answer.get("StudyDescription")),
        modalities_in_study=_values(answer.get("ModalitiesInStudy")),
        issuer_of_patient_id=significant(answer.get("IssuerOfPatientID")),
        expected=Expected("none", None) if count is None else Expected("study", count),
    )


def equal_accession(studies: Iterable[Study], accession_number: str) -> list[Study]:
    """The studies whose accession number is the one asked for, in every character; each once. Raises PacsRefused where
    one of them has no UID."""
    equal = [study for study in studies if study.accession_number == accession_number]
    if not all(is_uid(study.study_instance_uid) for study in equal):
        raise PacsRefused(
            f"The PACS answers with a study of accession number {accession_number} whose UID can't be used, so it "
            "can't be retrieved. Have the PACS corrected.",
            accession_number=accession_number,
        )
    return distinct(equal)


def found_by_date(answers: Answers) -> Found:
    """The studies of a question by date, each once, and what can't be used of them."""
    studies = distinct(map(_study_or_nothing, answers.responses))
    usable, unusable = (
        tuple(study for study in studies if is_uid(study.study_instance_uid) is is_usable)
        for is_usable in (True, False)
    )
    return Found(usable, unusable, answers.sent, answers.status)


def distinct(studies: Iterable[Study]) -> list[Study]:
    """What was answered more than once, once; of several numbers of instances under one UID the largest counts.

    One UID with two descriptions stays twice: whether they are of one patient is for mkiso.study.identity to judge.
    """
    studies = list(studies)
    counts: dict[str, int] = {}
    for study in studies:
        if study.expected.count is not None:
            counts[study.study_instance_uid] = max(study.expected.count, counts.get(study.study_instance_uid, 0))
    each = {tuple(getattr(study, name) for name in _DESCRIPTION): study for study in studies}.values()
    nothing = Expected("none", None)
    return [
        replace(
            study, expected=Expected("study", counts[uid]) if (uid := study.study_instance_uid) in counts else nothing
        )
        for study in each
    ]


def expected_from(
    study_count: int | None,
    series_counts: Mapping[str, int | None],
    images: Mapping[str, frozenset[str]] | None,
    *,
    sure: bool = True,
    unsure: Collection[str] = (),
) -> Expected:
    """What is expected by the finest whole answer.

    `series_counts` maps each Series Instance UID to its count or None; `images` maps it to its SOP Instance UIDs, None
    where IMAGE level was refused. `sure`: whether the list of series is; `unsure`: the series whose list of instances
    isn't (`Level`).
    """
    counts = [count for count in series_counts.values() if count is not None]
    listed = sum(map(len, (images or {}).values()))
    counted_above = sure or study_count is not None
    # A series that nobody counts isn't empty: its answer was cut.
    whole = images and all(
        len(found) >= (1 if (count := series_counts[uid]) is None else count)
        and (count is not None or study_count is not None or uid not in unsure)
        for uid, found in images.items()
    )
    if images and whole and counted_above and listed >= max(study_count or 0, 1):
        return Expected("image", listed, images)
    if counts and len(counts) == len(series_counts) and counted_above and sum(counts) >= (study_count or 0):
        return Expected("series", sum(counts))
    return Expected("none", None) if study_count is None else Expected("study", study_count)


def count_of(value: object) -> int | None:
    """A count (VR IS) as a number; None where it is absent or none."""
    text = significant(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_COUNT_DIGITS else None


def _count(answer: Response) -> int | None:
    try:
        return count_of(read(answer).get("NumberOfSeriesRelatedInstances"))
    except DamagedInstance:
        return None


def _study_or_nothing(answer: Response) -> Study:
    try:
        return study_of(read(answer))
    except DamagedInstance:
        return Study("", "", "")


def _values(value: object) -> tuple[str, ...]:
    if value is None or isinstance(value, str):
        return (significant(value),) if significant(value) else ()
    return tuple(filter(None, map(significant, value))) if isinstance(value, Sequence) else (significant(value),)

"""What the PACS holds of an accession number: C-FIND in the Study Root model (PS3.4 C.4.1, C.6.2).

Accession Number is no unique key (PS3.4 C.4.2.1.4.1): a PACS may match it loosely, so answers with another one than was asked for don't count.
One without a usable UID does: what it stands for would be missing from the disc, so nothing is made, or a coarser level is believed.
What is expected comes from the finest level that the PACS answers wholly: SOP Instance UIDs at IMAGE level, else the counts of SERIES, else of STUDY
level. A level with fewer instances than the level above counts was cut by the PACS, which may say Success all the same, and isn't trusted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from pydicom import Dataset
from pydicom.uid import UID

from mkiso.config import Settings
from mkiso.dicom import dimse
from mkiso.dicom.association import Association
from mkiso.dicom.header import is_uid
from mkiso.errors import PacsBusy, PacsRefused, StudyNotFound
from mkiso.identity import significant
from mkiso.models import Expected, Study

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
STUDY_ROOT_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")  # PS3.4 C.6.2.3

SERIES_INSTANCE_UID, SOP_INSTANCE_UID = 0x0020000E, 0x00080018
SUCCESS = 0x0000
_OUT_OF_RESOURCES = 0xA700


@dataclass(frozen=True, slots=True)
class Found:
    """The studies of one question by date. `cut`: the PACS ended it with `status` other than 0000, so there may be more; ask for less at a time."""

    studies: tuple[Study, ...]
    status: int

    @property
    def cut(self) -> bool:
        return self.status != SUCCESS


def find_studies(settings: Settings, accession_number: str) -> list[Study]:
    """Every study whose accession number equals this one, each with what is expected of it, over one association.

    Raises StudyNotFound, PacsUnreachable, PacsRefused, PacsBusy, PacsSilent.
    """
    with Association(settings, [STUDY_ROOT_FIND]) as association:
        answers, final = _find(association, study_identifier(AccessionNumber=accession_number))
        if final.status != SUCCESS:
            raise failure(association.peer, final)
        studies = equal_accession((study_of(answer.dataset()) for answer in answers), accession_number)
        if not studies:
            raise StudyNotFound(
                f"The PACS knows no study of accession number {accession_number}. Check the number, and whether the examination was sent.",
                accession_number=accession_number,
            )
        return [replace(study, expected=_expected(association, study)) for study in studies]


def expected_instances(settings: Settings, study: Study) -> Expected:
    """What the PACS holds of a study now, asked anew; find_studies has put the same into `study.expected` already."""
    with Association(settings, [STUDY_ROOT_FIND]) as association:
        return _expected(association, study)


def find_studies_by_date(settings: Settings, study_date: str, study_time: str = "") -> Found:
    """The studies of a date (DA) or a range of them, where `study_time` is given those of a range of time (TM), without what is expected of each.

    A study without StudyTime is in no range of time (PS3.4 C.2.2.2.5). Raises PacsUnreachable, PacsRefused (nothing answered), PacsBusy, PacsSilent.
    """
    with Association(settings, [STUDY_ROOT_FIND]) as association:
        answers, final = _find(association, study_identifier(StudyDate=study_date, StudyTime=study_time))
        if final.status != SUCCESS and not answers:
            raise failure(association.peer, final)
    return Found(tuple(_distinct(study_of(answer.dataset()) for answer in answers)), final.status)


def of_modalities(studies: Iterable[Study], modalities: Collection[str]) -> list[Study]:
    """The studies that have one of these modalities, all where none is named. One whose modalities the PACS doesn't tell is kept.

    Ours to choose, since ModalitiesInStudy is an optional key that not every PACS matches (PS3.4 C.6.2.1.2).
    """
    return [study for study in studies if not modalities or not study.modalities_in_study or set(modalities) & set(study.modalities_in_study)]


def study_identifier(**keys: str) -> Dataset:
    """A C-FIND identifier at STUDY level: every attribute of a Study is asked for, `keys` (by DICOM keyword) are matched."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    for keyword in STUDY_KEYS:
        setattr(identifier, keyword, keys.get(keyword, ""))
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def series_identifier(study_instance_uid: str) -> Dataset:
    """A C-FIND identifier at SERIES level: each series of a study and the number of its instances (PS3.4 C.6.2.1.3)."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID = study_instance_uid
    identifier.SeriesInstanceUID = ""
    identifier.NumberOfSeriesRelatedInstances = ""
    return identifier


def image_identifier(study_instance_uid: str, series_instance_uid: str) -> Dataset:
    """A C-FIND identifier at IMAGE level: each instance of one series (PS3.4 C.6.2.1.4); the levels above it are unique keys."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.StudyInstanceUID = study_instance_uid
    identifier.SeriesInstanceUID = series_instance_uid
    identifier.SOPInstanceUID = ""
    return identifier


def study_of(answer: Dataset) -> Study:
    """A C-FIND answer at STUDY level as a Study; text is decoded by its own Specific Character Set.

    The count at STUDY level is what is expected until a finer level is asked.
    """
    count = number(answer.get("NumberOfStudyRelatedInstances"))
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
    """The studies whose accession number is the one asked for, in every character; each once. Raises PacsRefused where one of them has no UID."""
    equal = [study for study in studies if study.accession_number == accession_number]
    if not all(is_uid(study.study_instance_uid) for study in equal):
        raise PacsRefused(
            f"The PACS answers with a study of accession number {accession_number} whose UID can't be used, so it can't be retrieved. "
            "Have the PACS corrected.",
            accession_number=accession_number,
        )
    return _distinct(equal)


def expected_from(study_count: int | None, series_counts: dict[str, int | None], images: dict[str, frozenset[str]] | None) -> Expected:
    """What is expected by the finest whole answer.

    `series_counts` maps each Series Instance UID to its count or None; `images` maps it to its SOP Instance UIDs, None where IMAGE level was refused.
    """
    listed = sum(map(len, (images or {}).values()))
    counts = [count for count in series_counts.values() if count is not None]
    # A series that nobody counts isn't empty: its answer was cut.
    whole = images and all(len(found) >= (1 if (count := series_counts[uid]) is None else count) for uid, found in images.items())
    if images and whole and listed >= max(study_count or 0, 1):
        return Expected("image", listed, images)
    if counts and len(counts) == len(series_counts) and sum(counts) >= (study_count or 0):
        return Expected("series", sum(counts))
    return Expected("none", None) if study_count is None else Expected("study", study_count)


def failure(peer: str, final: dimse.Response) -> PacsRefused | PacsBusy:
    """The error for a C-FIND that ended with anything but 0000 (PS3.4 C.4.1.1.4).

    Without the PACS's own comment: it may name a patient, and who it is isn't known yet.
    """
    if final.status == _OUT_OF_RESOURCES:
        return PacsBusy(f"{peer} is out of resources for a query. Try again in a moment.", status=f"{final.status:04X}")
    return PacsRefused(
        f"{peer} ended the query with status {final.status:04X}, so its answer isn't whole. Look at the PACS's log.",
        status=f"{final.status:04X}",
    )


def number(value: object) -> int | None:
    """A count (VR IS) as a number; None where it is absent or none."""
    text = significant(value)
    return int(text) if text.isascii() and text.isdigit() else None


def _expected(association: Association, study: Study) -> Expected:
    """Ask SERIES level, then IMAGE level for each series, as the hierarchical search wants it (PS3.4 C.4.1.2.1)."""
    study_count = study.expected.count if study.expected.source == "study" else None
    found = _answers(association, series_identifier(study.study_instance_uid), SERIES_INSTANCE_UID)
    if found is None:
        return expected_from(study_count, {}, None)
    series_counts = {uid: number(answer.dataset().get("NumberOfSeriesRelatedInstances")) for uid, answer in found.items()}
    images: dict[str, frozenset[str]] = {}
    for series_instance_uid in series_counts:
        found = _answers(association, image_identifier(study.study_instance_uid, series_instance_uid), SOP_INSTANCE_UID)
        if found is None:
            return expected_from(study_count, series_counts, None)
        images[series_instance_uid] = frozenset(found)
    return expected_from(study_count, series_counts, images)


def _answers(association: Association, identifier: Dataset, uid_tag: int) -> dict[str, dimse.Response] | None:
    """The whole answer by UID, None where the PACS refuses this level (A9xx, Cxxx, 0122) or gives what is no UID.

    Raises PacsBusy where it is only out of resources.
    """
    answers, final = _find(association, identifier)
    if final.status == _OUT_OF_RESOURCES:
        raise failure(association.peer, final)
    by_uid = {answer.uid(uid_tag): answer for answer in answers}
    return by_uid if final.status == SUCCESS and all(map(is_uid, by_uid)) else None


def _find(association: Association, identifier: Dataset) -> tuple[list[dimse.Response], dimse.Response]:
    """The one function that asks: the matches and the final response. Raises PacsRefused where a response is to another request."""
    message_id = association.request({dimse.COMMAND_FIELD: dimse.C_FIND_RQ, dimse.PRIORITY: 0}, STUDY_ROOT_FIND, identifier)
    answers: list[dimse.Response] = []
    while True:
        response = association.must_receive()
        if response.message_id != message_id:  # a second end of the query before would pass for an empty answer
            raise PacsRefused(f"{association.peer} answers a query that isn't under way, so no answer of it can be trusted. Look at its log.")
        if not response.is_pending:
            return answers, response
        answers.append(response)


def _distinct(studies: Iterable[Study]) -> list[Study]:
    """Each study once, those without a usable UID left out. One UID under two patients stays twice, for mkiso.identity to refuse."""
    kept = {(study.study_instance_uid, study.patient_id): study for study in studies if is_uid(study.study_instance_uid)}
    return list(kept.values())


def _values(value: object) -> tuple[str, ...]:
    if value is None or isinstance(value, str):
        return (significant(value),) if significant(value) else ()
    return tuple(filter(None, map(significant, value))) if isinstance(value, Sequence) else (significant(value),)

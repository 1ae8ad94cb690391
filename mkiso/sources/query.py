"""What the PACS holds of an accession number: C-FIND in the Study Root model (PS3.4 C.4.1, C.6.2).

Accession Number is no unique key (PS3.4 C.4.2.1.4.1): a PACS may match it loosely, so answers with another one than was
asked for don't count. One without a usable UID does: what it stands for would be missing from the disc, so nothing is
made, or a coarser level is believed. What is expected comes from the finest level that the PACS answers wholly: SOP
Instance UIDs at IMAGE level, else the counts of SERIES, else of STUDY level. A level with fewer instances than the
level above counts was cut by the PACS, which may say Success all the same, and isn't trusted.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import replace

from pydicom import Dataset
from pydicom.uid import UID

from mkiso.config.settings import Settings
from mkiso.errors import AnswerCut, DamagedInstance, PacsBusy, PacsRefused, PacsSilent, PatientMismatch, StudyNotFound
from mkiso.network import dimse
from mkiso.sources.answers import (
    STUDY_KEYS,
    SUCCESS,
    Answers,
    Found,
    Level,
    equal_accession,
    expected_from,
    found_by_date,
    level_of,
    read,
    series_counts_of,
    study_of,
)
from mkiso.sources.pacs import PacsAssociation
from mkiso.study.identity import one_patient
from mkiso.study.models import Expected, Study

STUDY_ROOT_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")  # PS3.4 C.6.2.3
MAX_ANSWERS = 500_000  # to one question; a month of a large hospital has 60,000 studies, a long study 20,000 images
MAX_ANSWER_BYTES = 256 * 1024 * 1024  # of them together
MAX_TIMEOUTS = 60  # how many times pacs.response_timeout_seconds an answer may take in all

SERIES_INSTANCE_UID, SOP_INSTANCE_UID = 0x0020000E, 0x00080018
_CANCELLED = 0xFE00
_OUT_OF_RESOURCES = 0xA700


def find_studies(settings: Settings, accession_number: str) -> list[Study]:
    """Every study whose accession number equals this one, each with what is expected of it, over one association.

    Raises StudyNotFound, PacsUnreachable, PacsRefused, PacsBusy, PacsSilent, and AnswerCut where the PACS may know more
    than it told.
    """
    with PacsAssociation(settings, [STUDY_ROOT_FIND]) as association:
        studies = equal_accession(_studies(association, settings, AccessionNumber=accession_number), accession_number)
        if not studies:
            raise StudyNotFound(
                f"The PACS knows no study of accession number {accession_number}. Check the number, and whether the "
                "examination was sent.",
                accession_number=accession_number,
            )
        return [replace(study, expected=_expected(association, settings, study)) for study in studies]


def expected_instances(settings: Settings, study: Study) -> Expected:
    """What the PACS holds of a study that it has just named; find_studies has put the same into `study.expected`
    already."""
    with PacsAssociation(settings, [STUDY_ROOT_FIND]) as association:
        return _expected(association, settings, study)


def asked_again(settings: Settings, study: Study) -> Expected:
    """What the PACS holds of a study by now, every level asked anew.

    Raises what find_studies raises, and PatientMismatch where it is another patient's now.
    """
    with PacsAssociation(settings, [STUDY_ROOT_FIND]) as association:
        now = _under_uid(association, settings, study.study_instance_uid)
        if not now:
            raise StudyNotFound(
                f"The study of accession number {study.accession_number} isn't in the PACS any more. "
                "Ask for the disc again.",
                accession_number=study.accession_number,
            )
        try:
            one_patient([study, *now], (), settings.identity)
        except PatientMismatch:
            raise PatientMismatch(
                f"The study of accession number {study.accession_number} became another patient's in the PACS while "
                "it was "
                "retrieved. Ask for the disc again.",
                accession_numbers=[study.accession_number],
            ) from None
        count = max((one.expected.count for one in now if one.expected.count is not None), default=None)
        return _expected(
            association,
            settings,
            replace(study, expected=Expected("none", None) if count is None else Expected("study", count)),
        )


def find_studies_by_uid(settings: Settings, study_instance_uid: str) -> list[Study]:
    """What the PACS has under a Study Instance UID, whatever its date is by now; more than one where patients share it.

    Raises StudyNotFound, PacsUnreachable, PacsRefused, PacsBusy, PacsSilent, AnswerCut.
    """
    with PacsAssociation(settings, [STUDY_ROOT_FIND]) as association:
        studies = _under_uid(association, settings, study_instance_uid)
    if not studies:
        raise StudyNotFound(
            "The PACS has nothing under the Study Instance UID of this study any more. Was it deleted, or merged with "
            "another?",
            study_instance_uid=study_instance_uid,
        )
    return studies


def find_studies_by_date(settings: Settings, study_date: str, study_time: str = "") -> Found:
    """The studies of a date (DA) or a range of them, where `study_time` is given those of a range of time (TM), without
    what is expected of each.

    A study without StudyTime is in no range of time (PS3.4 C.2.2.2.5). Raises PacsUnreachable, PacsRefused (nothing
    answered), PacsBusy, PacsSilent.
    """
    with PacsAssociation(settings, [STUDY_ROOT_FIND]) as association:
        answers = _find(association, settings, study_identifier(StudyDate=study_date, StudyTime=study_time))
        if answers.status != SUCCESS and not answers.sent:
            raise failure(association.peer, answers.status)
    return found_by_date(answers)


def of_modalities(studies: Iterable[Study], modalities: Collection[str]) -> list[Study]:
    """The studies that have one of these modalities, all where none is named. One whose modalities the PACS doesn't
    tell is kept.

    Ours to choose, since ModalitiesInStudy is an optional key that not every PACS matches (PS3.4 C.6.2.1.2).
    """
    return [
        study
        for study in studies
        if not modalities or not study.modalities_in_study or set(modalities) & set(study.modalities_in_study)
    ]


def study_identifier(**keys: str) -> Dataset:
    """A C-FIND identifier at STUDY level: every attribute of a Study is asked for, `keys` (by DICOM keyword) are
    matched.
    """
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
    """A C-FIND identifier at IMAGE level: each instance of one series (PS3.4 C.6.2.1.4); the levels above it are unique
    keys.
    """
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.StudyInstanceUID = study_instance_uid
    identifier.SeriesInstanceUID = series_instance_uid
    identifier.SOPInstanceUID = ""
    return identifier


def failure(peer: str, status: int) -> PacsRefused | PacsBusy:
    """The error for a C-FIND that ended with anything but 0000 (PS3.4 C.4.1.1.4).

    Without the PACS's own comment: it may name a patient, and who it is isn't known yet.
    """
    if status == _OUT_OF_RESOURCES:
        return PacsBusy(f"{peer} is out of resources for a query. Try again in a moment.", status=f"{status:04X}")
    return PacsRefused(
        f"{peer} ended the query with status {status:04X}, so its answer isn't whole. Look at the PACS's log.",
        status=f"{status:04X}",
    )


def _studies(association: PacsAssociation, settings: Settings, **keys: str) -> list[Study]:
    """Every answer at STUDY level as a study. Raises where there may be more than came, or one can't be read: it may be
    the one that is meant."""
    answers = _find(association, settings, study_identifier(**keys))
    _must_end(association, answers)
    if answers.status != SUCCESS:
        raise failure(association.peer, answers.status)
    if answers.at_limit:
        raise AnswerCut(
            f"{association.peer} gave {answers.sent} answers to one question, as many as it gives at most "
            "(pacs.find_limit), "
            "so there may be more studies than it told. Raise its limit, and pacs.find_limit with it.",
            sent=answers.sent,
        )
    try:
        return [study_of(read(answer)) for answer in answers.responses]
    except DamagedInstance as error:
        raise PacsRefused(
            f"{association.peer} gave an answer that can't be read ({error.words.rstrip('.')}). Have the PACS "
            "corrected."
        ) from None


def _under_uid(association: PacsAssociation, settings: Settings, uid: str) -> list[Study]:
    studies = _studies(association, settings, StudyInstanceUID=uid)
    return [study for study in studies if study.study_instance_uid == uid]


def _expected(association: PacsAssociation, settings: Settings, study: Study) -> Expected:
    """Ask SERIES level, then IMAGE level for each series, as the hierarchical search wants it (PS3.4 C.4.1.2.1)."""
    study_count = study.expected.count if study.expected.source == "study" else None
    answers = _find(association, settings, series_identifier(study.study_instance_uid))
    series = _level(association, answers, SERIES_INSTANCE_UID)
    if series is None:
        return expected_from(study_count, {}, None)
    counts = series_counts_of(answers, SERIES_INSTANCE_UID)
    images: dict[str, frozenset[str]] = {}
    unsure = set()
    for uid in counts:
        level = _level(
            association, _find(association, settings, image_identifier(study.study_instance_uid, uid)), SOP_INSTANCE_UID
        )
        if level is None:
            return expected_from(study_count, counts, None, sure=series.sure)
        images[uid] = frozenset(level.by_uid)
        if not level.sure:
            unsure.add(uid)
    return expected_from(study_count, counts, images, sure=series.sure, unsure=unsure)


def _level(association: PacsAssociation, answers: Answers, uid_tag: int) -> Level | None:
    """What `level_of` says. Raises PacsBusy where the PACS is only out of resources."""
    _must_end(association, answers)
    if answers.status == _OUT_OF_RESOURCES:
        raise failure(association.peer, answers.status)
    return level_of(answers, uid_tag)


def _must_end(association: PacsAssociation, answers: Answers) -> None:
    if answers.endless:
        raise AnswerCut(
            f"{association.peer} gave more than {answers.sent} answers to one question and didn't end, so mkiso ended "
            "it. "
            "Look at the PACS's log.",
            sent=answers.sent,
        )


def _find(association: PacsAssociation, settings: Settings, identifier: Dataset) -> Answers:
    """The one function that asks. Raises PacsRefused where a response is to another request, PacsSilent where the
    answer takes too long.

    More answers than we take end the association.
    """
    association.request({dimse.COMMAND_FIELD: dimse.C_FIND_RQ, dimse.PRIORITY: 0}, STUDY_ROOT_FIND, identifier)
    limit, seconds = settings.pacs.find_limit, settings.pacs.response_timeout_seconds * MAX_TIMEOUTS
    responses: list[dimse.Response] = []
    size, deadline = 0, time.monotonic() + seconds
    while True:
        response = association.must_receive()
        if not response.is_pending:
            return Answers(responses, response.status, limit)
        responses.append(response)
        size += len(response.identifier)
        if len(responses) >= MAX_ANSWERS or size > MAX_ANSWER_BYTES:
            association.abort()
            return Answers(responses, _CANCELLED, limit, endless=True)
        if time.monotonic() > deadline:
            raise PacsSilent(
                f"{association.peer} hasn't ended its answer to one question within {seconds:g} s. "
                "Look at the PACS's log."
            )

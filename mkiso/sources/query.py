"""What the PACS holds of an accession number, asked in the Study Root model (PS3.4 C.4.1, C.6.2) whatever it is asked
over.

Accession Number is no unique key (PS3.4 C.4.2.1.4.1): a PACS may match it loosely, so answers with another one than was
asked for don't count. One without a usable UID does: what it stands for would be missing from the disc, so nothing is
made, or a coarser level is believed. What is expected comes from the finest level that the PACS answers wholly: SOP
Instance UIDs at IMAGE level, else the counts of SERIES, else of STUDY level. A level with fewer instances than the
level above counts was cut by the PACS, which may say Success all the same, and isn't trusted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from mkiso.config.disc import Identity
from mkiso.errors import (
    AnswerCut,
    DamagedInstance,
    PacsBusy,
    PacsRefused,
    PatientMismatch,
    RetriableError,
    StudyNotFound,
)
from mkiso.network.dimse import OUT_OF_RESOURCES
from mkiso.sources.answers import (
    SERIES_KEYS,
    STUDY_KEYS,
    SUCCESS,
    Answers,
    Found,
    Level,
    distinct,
    equal_accession,
    expected_from,
    found_by_date,
    level_of,
    read,
    series_counts_of,
    series_of,
    study_of,
)
from mkiso.sources.protocol import Query, Search, Source
from mkiso.study.identity import one_patient
from mkiso.study.models import Expected, Series, Study
from mkiso.study.selection import EVERYTHING, Selection

SERIES_INSTANCE_UID, SOP_INSTANCE_UID = 0x0020000E, 0x00080018
HAS_IT = "has_the_study"
"""In the details of an error."""


def find_studies(source: Source, accession_number: str, selection: Selection = EVERYTHING) -> list[Study]:
    """Every study whose accession number equals this one, each with what is expected of it: of its chosen series where
    some of it are chosen. Nothing is expected of a study that isn't chosen.

    Raises StudyNotFound, PacsUnreachable, PacsRefused, PacsBusy, PacsSilent, and AnswerCut where the PACS may know more
    than it told.
    """
    with source.searching() as search:
        studies = equal_accession(_studies(source, search, AccessionNumber=accession_number), accession_number)
        if not studies:
            raise StudyNotFound(
                f"The PACS knows no study of accession number {accession_number}. Check the number, and whether the "
                "examination was sent.",
                accession_number=accession_number,
            )
        with having_it():
            return [_described(source, search, study, selection) for study in studies]


def named_studies(source: Source, accession_number: str) -> list[Study]:
    """Every study whose accession number equals this one, by STUDY level alone: nothing is expected of them. Raises
    what find_studies raises, but for StudyNotFound.
    """
    with source.searching() as search:
        studies = equal_accession(_studies(source, search, AccessionNumber=accession_number), accession_number)
    return [replace(study, expected=Expected("none", None)) for study in studies]


@contextmanager
def having_it() -> Iterator[None]:
    """What goes wrong within carries HAS_IT: the source has named the study, and only its list isn't had."""
    try:
        yield
    except RetriableError as error:
        error.details[HAS_IT] = True
        raise


def find_by_uid(source: Source, study_instance_uid: str, selection: Selection) -> list[Study]:
    """As find_studies, by Study Instance UID; more than one where patients share it."""
    with source.searching() as search:
        studies = distinct(_under_uid(source, search, study_instance_uid))
        if not studies:
            raise unknown_uid(study_instance_uid)
        with having_it():
            return [_described(source, search, study, selection) for study in studies]


def unknown_uid(study_instance_uid: str) -> StudyNotFound:
    """No source knows the study."""
    return StudyNotFound(
        f"The PACS knows no study of Study Instance UID {study_instance_uid}. Check it, and whether the "
        "examination was sent.",
        study_instance_uid=study_instance_uid,
    )


def find_series(source: Source, study: Study) -> tuple[Series, ...]:
    """The series of a study in the order of their numbers; empty where the PACS tells none.

    Raises PacsUnreachable, PacsRefused, PacsBusy, PacsSilent, AnswerCut.
    """
    with source.searching() as search:
        answers = search(series_query(study.study_instance_uid, *SERIES_KEYS))
        if _level(source, answers, SERIES_INSTANCE_UID) is None:
            return ()
    return series_of(answers, SERIES_INSTANCE_UID)


def expected_instances(source: Source, study: Study) -> Expected:
    """What the PACS holds of a study that it has just named; find_studies has put the same into `study.expected`
    already."""
    with having_it(), source.searching() as search:
        return _expected(source, search, study)


def asked_again(source: Source, identity: Identity, study: Study) -> Expected:
    """What the PACS holds of a study by now, every level asked anew.

    Raises what find_studies raises, and PatientMismatch where it is another patient's now.
    """
    with source.searching() as search:
        now = _under_uid(source, search, study.study_instance_uid)
        if not now:
            raise StudyNotFound(
                f"The study of {study.called} isn't in the PACS any more. Ask for the disc again.",
                accession_number=study.accession_number,
            )
        try:
            one_patient([study, *now], (), identity)
        except PatientMismatch:
            raise PatientMismatch(
                f"The study of {study.called} became another patient's in the PACS while it was retrieved. Ask for the "
                "disc again.",
                accession_numbers=[study.accession_number],
            ) from None
        count = max((one.expected.count for one in now if one.expected.count is not None), default=None)
        return _expected(
            source,
            search,
            replace(study, expected=Expected("none", None) if count is None else Expected("study", count)),
        )


def find_studies_by_uid(source: Source, study_instance_uid: str) -> list[Study]:
    """What the PACS has under a Study Instance UID, whatever its date is by now; more than one where patients share it.

    Raises StudyNotFound, PacsUnreachable, PacsRefused, PacsBusy, PacsSilent, AnswerCut.
    """
    with source.searching() as search:
        studies = _under_uid(source, search, study_instance_uid)
    if not studies:
        raise StudyNotFound(
            "The PACS has nothing under the Study Instance UID of this study any more. Was it deleted, or merged with "
            "another?",
            study_instance_uid=study_instance_uid,
        )
    return studies


def find_studies_by_date(source: Source, study_date: str, study_time: str = "") -> Found:
    """The studies of a date (DA) or a range of them, where `study_time` is given those of a range of time (TM), without
    what is expected of each.

    A study without StudyTime is in no range of time (PS3.4 C.2.2.2.5). Raises PacsUnreachable, PacsRefused (nothing
    answered), PacsBusy, PacsSilent.
    """
    with source.searching() as search:
        answers = search(study_query(StudyDate=study_date, StudyTime=study_time))
        if answers.status != SUCCESS and not answers.sent:
            raise failure(source.name, answers.status)
    return from_source(source, found_by_date(answers))


def from_source(source: Source, found: Found) -> Found:
    """What was found, with where it is from."""
    studies, unusable = (
        tuple(replace(study, origin=source.settings.origin) for study in some)
        for some in (found.studies, found.unusable)
    )
    return replace(found, studies=studies, unusable=unusable)


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


def study_query(**keys: str) -> Query:
    """A question at STUDY level: every attribute of a Study is asked for, `keys` (by DICOM keyword) are matched."""
    return Query("STUDY", {**dict.fromkeys(STUDY_KEYS, ""), **keys})


def series_query(study_instance_uid: str, *more: str) -> Query:
    """Each series of a study and the number of its instances, and `more` of it (PS3.4 C.6.2.1.3)."""
    keys = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": "", "NumberOfSeriesRelatedInstances": ""}
    return Query("SERIES", keys | dict.fromkeys(more, ""))


def image_query(study_instance_uid: str, series_instance_uid: str) -> Query:
    """Each instance of one series (PS3.4 C.6.2.1.4); the levels above it are unique keys."""
    keys = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": series_instance_uid, "SOPInstanceUID": ""}
    return Query("IMAGE", keys)


def failure(peer: str, status: int) -> PacsRefused | PacsBusy:
    """The error for a C-FIND that ended with anything but 0000 (PS3.4 C.4.1.1.4).

    Without the PACS's own comment: it may name a patient, and who it is isn't known yet.
    """
    if status == OUT_OF_RESOURCES:
        return PacsBusy(f"{peer} is out of resources for a query. Try again in a moment.", status=f"{status:04X}")
    return PacsRefused(
        f"{peer} ended the query with status {status:04X}, so its answer isn't whole. Look at the PACS's log.",
        status=f"{status:04X}",
    )


def _studies(source: Source, search: Search, **keys: str) -> list[Study]:
    """Every answer at STUDY level as a study. Raises where there may be more than came, or one can't be read: it may be
    the one that is meant."""
    answers = search(study_query(**keys))
    _must_end(source, answers)
    if answers.status != SUCCESS:
        raise failure(source.name, answers.status)
    if answers.at_limit:
        raise AnswerCut(
            f"{source.name} gave {answers.sent} answers to one question, as many as it gives at most "
            f"({source.settings.section}.find_limit), so there may be more studies than it told. Raise its limit, and "
            "find_limit with it.",
            sent=answers.sent,
        )
    try:
        return [replace(study_of(read(answer)), origin=source.settings.origin) for answer in answers.responses]
    except DamagedInstance as error:
        raise PacsRefused(
            f"{source.name} gave an answer that can't be read ({error.words.rstrip('.')}). Have the PACS corrected."
        ) from None


def _under_uid(source: Source, search: Search, uid: str) -> list[Study]:
    studies = _studies(source, search, StudyInstanceUID=uid)
    return [study for study in studies if study.study_instance_uid == uid]


def _described(source: Source, search: Search, study: Study, selection: Selection) -> Study:
    """A study with which of its series are chosen, and what is expected of it."""
    if selection.studies and study.study_instance_uid not in selection.studies:
        return replace(study, expected=Expected("none", None))
    answers = search(series_query(study.study_instance_uid))
    told = {answer.uid(SERIES_INSTANCE_UID) for answer in answers.responses}
    study = replace(study, chosen=tuple(uid for uid in selection.series if uid in told))
    return replace(study, expected=_expected(source, search, study, answers))


def _expected(source: Source, search: Search, study: Study, answers: Answers | None = None) -> Expected:
    """Ask SERIES level (or take its `answers`), then IMAGE level for each series, as the hierarchical search wants it
    (PS3.4 C.4.1.2.1). Of a study of which series are chosen nothing else is asked or expected.
    """
    study_count = study.expected.count if study.expected.source == "study" and not study.chosen else None
    answers = search(series_query(study.study_instance_uid)) if answers is None else answers
    series = _level(source, answers, SERIES_INSTANCE_UID)
    if series is None:
        return expected_from(study_count, {}, None)
    counts, sure = series_counts_of(answers, SERIES_INSTANCE_UID), series.sure
    of_series = len(counts) if study.chosen and sure else 0
    if study.chosen:
        if not counts.keys() >= set(study.chosen):
            return Expected("none", None)
        counts, sure = {uid: counts[uid] for uid in study.chosen}, True
    images: dict[str, frozenset[str]] = {}
    unsure = set()
    for uid in counts:
        level = _level(source, search(image_query(study.study_instance_uid, uid)), SOP_INSTANCE_UID)
        if level is None:
            return replace(expected_from(study_count, counts, None, sure=sure), of_series=of_series)
        images[uid] = frozenset(level.by_uid)
        if not level.sure:
            unsure.add(uid)
    return replace(expected_from(study_count, counts, images, sure=sure, unsure=unsure), of_series=of_series)


def _level(source: Source, answers: Answers, uid_tag: int) -> Level | None:
    """What `level_of` says. Raises PacsBusy where the PACS is only out of resources."""
    _must_end(source, answers)
    if answers.status == OUT_OF_RESOURCES:
        raise failure(source.name, answers.status)
    return level_of(answers, uid_tag)


def _must_end(source: Source, answers: Answers) -> None:
    if answers.endless:
        raise AnswerCut(
            f"{source.name} gave more than {answers.sent} answers to one question and didn't end, so mkiso ended it. "
            "Look at the PACS's log.",
            sent=answers.sent,
        )

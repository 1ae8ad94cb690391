"""Priors: earlier studies of the same patient, of the same kind, that go onto a disc beside those asked for.

Nobody names them, so what holds for who is asked for isn't enough. Each has to name the issuer of its Patient ID that
the studies asked for name, or none where they name none. Where the archive knows two issuers, birth dates or sexes
under one Patient ID, only a study that says the same is taken. And a Patient ID alone makes none: birth date and name
have to agree, too (mkiso.study.same_person).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from mkiso.config.disc import Identity, Priors
from mkiso.errors import (
    AnswerCut,
    CountsUnknown,
    DamagedInstance,
    InstanceConflict,
    InvalidRequest,
    MkisoError,
    NoDicomData,
    NotAskedEverywhere,
    NotConvertible,
    PacsBusy,
    PacsRefused,
    PacsSilent,
    PacsUnreachable,
    PatientMismatch,
    StudyIncomplete,
    StudyNotFound,
)
from mkiso.languages import N_
from mkiso.study.identity import one_patient, significant
from mkiso.study.models import Patient, Series, Study
from mkiso.study.same_person import are_one, person_of

Kinds = frozenset[tuple[str, str]]
"""What a study shows: the modality and body part of each of its series; empty where it isn't told."""
Reason = Literal[
    "other patient", "not earlier", "too long ago", "other kind", "kind not told", "enough", "not looked at"
]
UNSURE: frozenset[Reason] = frozenset({"kind not told", "not looked at"})
"""Of a study that may be a prior."""

PRIORS_UNKNOWN = "priors_unknown"
"""What a job may do without: what earlier studies there are."""
PRIOR_LEFT_OUT = "prior_left_out"
"""Followed by a colon and why."""
CONTRADICTS, INCOMPLETE, UNAVAILABLE, NO_ROOM, NOT_CONVERTIBLE = (
    f"{PRIOR_LEFT_OUT}:{why}" for why in ("contradicts", "incomplete", "unavailable", "no_room", "not_convertible")
)
WORDS: Mapping[str, str] = {
    PRIORS_UNKNOWN: N_("Not all earlier examinations could be looked for: there may be some that belong here."),
    CONTRADICTS: N_("An earlier examination isn't on the disc: its data disagree about whose it is."),
    INCOMPLETE: N_("An earlier examination isn't on the disc: not all of its images could be had."),
    UNAVAILABLE: N_("An earlier examination isn't on the disc: it couldn't be fetched at that time."),
    NO_ROOM: N_("An earlier examination isn't on the disc: there was no room for it."),
    NOT_CONVERTIBLE: N_("An earlier examination isn't on the disc: not all of its images can be stored uncompressed."),
}
"""For people, on the disc and on pages."""
MOST_LOOKED_AT = 50
"""Of how many studies the series are looked at."""

_INCOMPLETE = (
    AnswerCut, CountsUnknown, DamagedInstance, InstanceConflict, NoDicomData, PacsRefused, StudyIncomplete,
    StudyNotFound,
)  # fmt: skip
_UNAVAILABLE = (NotAskedEverywhere, PacsBusy, PacsSilent, PacsUnreachable)
_NO_KIND = frozenset({"SR", "PR", "KO", "DOC", "REG", "SEG", "FID", "RWV", "AU", "PLAN"})
"""Modalities of what is made of images, and says nothing of what was examined."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`taken` are the priors, the newest first; `not_taken` maps the Study Instance UID of each other study to why."""

    taken: tuple[Study, ...] = ()
    not_taken: Mapping[str, Reason] = field(default_factory=dict)


def choose(
    asked: Sequence[Study],
    others: Sequence[Study],
    kinds_of: Callable[[Study], Kinds],
    priors: Priors,
    rules: Identity,
    known: Patient | None = None,
    left_out: Sequence[Study] = (),
) -> Choice:
    """Which of the patient's other studies go beside those asked for: the newest `priors.count` that certainly are of
    this patient, were made before one of them, not too long before, and show something of the same kind.

    `others` is the whole list of what the archive has under the Patient ID, where several sources have a study each of
    its copies; those that are `left_out` by who asks are none of the priors either. `kinds_of` is asked as seldom as
    can be, of MOST_LOOKED_AT at most.
    """
    certain = {study.study_instance_uid for study in _of_the_patient(asked, others, rules, known)}
    named = {study.study_instance_uid for study in (*asked, *left_out)}
    taken: list[Study] = []
    not_taken: dict[str, Reason] = {}
    own: dict[str, Kinds] = {}
    looked_at = 0
    for study in _newest_first(others):
        uid = study.study_instance_uid
        if uid in named:
            continue
        after = [one for one in asked if _is_earlier(study, one)]
        soon_after = [one for one in after if not priors.years or _day(study) >= _years_before(_day(one), priors.years)]
        if uid not in certain:
            not_taken[uid] = "other patient"
        elif not after:
            not_taken[uid] = "not earlier"
        elif not soon_after:
            not_taken[uid] = "too long ago"
        elif len(taken) >= priors.count:
            not_taken[uid] = "enough"
        elif not (like := [one for one in soon_after if priors.modality == "any" or _may_be_alike(study, one)]):
            not_taken[uid] = "other kind"
        elif looked_at >= MOST_LOOKED_AT:
            not_taken[uid] = "not looked at"
        else:
            looked_at += 1
            own |= {one.study_instance_uid: kinds_of(one) for one in like if one.study_instance_uid not in own}
            kinds = kinds_of(study)
            why = {_unlike(own[one.study_instance_uid], kinds, priors) for one in like}
            if None in why:
                taken.append(study)
            else:
                not_taken[uid] = "kind not told" if "kind not told" in why else "other kind"
    return Choice(tuple(taken), not_taken)


def kinds_of(series: Collection[Series]) -> Kinds:
    """What a study of these series shows."""
    pairs = {(each.modality, significant(each.body_part).upper()) for each in series}
    return frozenset(pair for pair in pairs if pair[0] not in _NO_KIND)


def kinds_of_modalities(study: Study) -> Kinds:
    """As `kinds_of`, by what STUDY level tells."""
    return frozenset((modality, "") for modality in set(study.modalities_in_study) - _NO_KIND)


def require_offered(priors: Priors) -> None:
    """Raise InvalidRequest where this site puts no priors on discs."""
    if not priors.count:
        raise InvalidRequest("This site puts no earlier studies on discs (priors.count is 0). Ask without them.")


def why_left_out(error: MkisoError) -> str:
    """What a job tells that goes on without a prior because of this; empty where it mustn't go on."""
    if isinstance(error, PatientMismatch):
        return CONTRADICTS
    if isinstance(error, _INCOMPLETE):
        return INCOMPLETE
    if isinstance(error, NotConvertible):
        return NOT_CONVERTIBLE
    return UNAVAILABLE if isinstance(error, _UNAVAILABLE) else ""


def words_of(degraded: Collection[str]) -> list[str]:
    """What people read of the priors that a disc lacks."""
    return [words for lack, words in WORDS.items() if lack in degraded]


def _of_the_patient(
    asked: Sequence[Study], others: Sequence[Study], rules: Identity, known: Patient | None
) -> Iterator[Study]:
    """Those of whom nothing that the archive tells leaves a doubt: not those of which another copy does."""
    told = [_person(study) for study in (*asked, *others)]
    keywords = ("IssuerOfPatientID", *rules.compare)
    doubtful = [keyword for keyword in keywords if len({person[keyword] for person in told} - {""}) > 1]
    own = {keyword: {_person(study)[keyword] for study in asked} - {""} for keyword in doubtful}
    named = {study.study_instance_uid for study in asked}
    issuers = {_issuer(study) for study in (*asked, *others) if study.study_instance_uid in named}
    issuers = issuers - {""} or {""}
    copies: dict[str, list[Study]] = {}
    for study in others:
        copies.setdefault(study.study_instance_uid, []).append(study)
    for each in copies.values():
        with suppress(PatientMismatch):
            one_patient([*asked, *each], [known] if known else [], rules)
            if (
                all(_issuer(study) in issuers for study in each)
                and all({_person(study)[keyword]} == own[keyword] for study in each for keyword in doubtful)
                and all(any(are_one(person_of(study), person_of(one), rules) for one in asked) for study in each)
            ):
                yield each[0]


def _issuer(study: Study) -> str:
    return significant(study.issuer_of_patient_id)


def _person(study: Study) -> Mapping[str, str]:
    return {
        "IssuerOfPatientID": _issuer(study),
        "PatientBirthDate": significant(study.patient_birth_date.replace(".", "")),
        "PatientSex": significant(study.patient_sex.upper()),
    }


def _may_be_alike(one: Study, other: Study) -> bool:
    """Whether STUDY level leaves it open that they have a modality in common."""
    kinds = kinds_of_modalities(one), kinds_of_modalities(other)
    return not all(kinds) or bool(kinds[0] & kinds[1])


def _unlike(own: Kinds, other: Kinds, priors: Priors) -> Literal["other kind", "kind not told"] | None:
    """Why none of what two studies show is of one kind; None where some is, or every kind will do."""
    if priors.modality == priors.body_part == "any":
        return None
    untold = not (own and other)
    for (modality, part), (other_modality, other_part) in product(own, other):
        same = [_same(modality, other_modality)] * (priors.modality == "same")
        same += [_same(part, other_part)] * (priors.body_part == "same")
        if all(same):
            return None
        untold |= False not in same
    return "kind not told" if untold else "other kind"


def _same(one: str, other: str) -> bool | None:
    """None where one of them isn't told."""
    return one == other if one and other else None


def _newest_first(studies: Sequence[Study]) -> list[Study]:
    each_once = {study.study_instance_uid: study for study in reversed(studies)}.values()
    return sorted(each_once, key=lambda study: (_day(study), _time(study), study.study_instance_uid), reverse=True)


def _is_earlier(study: Study, than: Study) -> bool:
    """Whether it was certainly made before: on another day, or at another time as far as both tell it."""
    told = min(len(_time(study)), len(_time(than)))
    is_before = (_day(study), _time(study)[:told]) < (_day(than), _time(than)[:told])
    return is_before and _is_day(_day(study)) and _is_day(_day(than))


def _day(study: Study) -> str:
    return significant(study.study_date).replace(".", "")  # PS3.5 6.2 note: what ACR-NEMA wrote


def _time(study: Study) -> str:
    return significant(study.study_time).replace(":", "")


def _is_day(text: str) -> bool:
    return len(text) == 8 and text.isascii() and text.isdigit()


def _years_before(day: str, years: int) -> str:
    return f"{int(day[:4]) - years:04}{day[4:]}"  # of a year before 0 it sorts before every day

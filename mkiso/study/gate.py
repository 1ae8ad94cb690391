"""The gate: what was found and every header that was stored, seen together, become CompleteStudies or an error.

Layout, publishers and the archive take CompleteStudies and nothing else. Its constructor is the check, so there is no
way round it: one patient, every expected instance once, nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product

from pydicom import Dataset

from mkiso.config.disc import Identity
from mkiso.errors import InstanceConflict, MkisoError, PatientMismatch
from mkiso.study import completeness, identity
from mkiso.study.identity import Claim, PatientIdentity
from mkiso.study.models import Instance, Patient, Study
from mkiso.study.priors import why_left_out
from mkiso.study.rejections import none_rejected
from mkiso.study.same_person import Person, are_one, contradict, person_of, persons_of
from mkiso.study.selection import EVERYTHING, Selection, chosen_of
from mkiso.study.text import named_in, stated, text
from mkiso.study.values import Found, Retrieved, StudyRetrieved

PATIENT_API, COUNTS_UNKNOWN, NOT_PROVEN = "patient_api", "counts_unknown", "completeness_not_proven"
"""What a job may do without. NOT_PROVEN: no archive was asked what a study holds that was sent to an inbox."""
OTHER_PERSON = "other_person"
"""The images have another name or birth date than the PACS or the patient API: these were corrected, or the images are
of another patient.
"""
SOURCE_DOWN = "source_down"
"""Followed by a colon and the name of the source that couldn't be asked."""
UNPROVEN = frozenset({COUNTS_UNKNOWN, NOT_PROVEN, SOURCE_DOWN})

_SOP_INSTANCE_UID, _SERIES_INSTANCE_UID = 0x00080018, 0x0020000E


def is_unproven(degraded: Collection[str]) -> bool:
    """Whether nobody could say that these are all images. Pure."""
    return any(lack.partition(":")[0] in UNPROVEN for lack in degraded)


def found(
    accession_numbers: tuple[str, ...],
    studies: Sequence[Study],
    patients: Collection[Patient | None],
    rules: Identity,
    *,
    degraded: bool,
    without: Collection[str] = (),
    selection: Selection = EVERYTHING,
    beside: Collection[Study] = (),
    named: Collection[Study] = (),
) -> Found:
    """What may be retrieved of the answers: all of them of one patient, and what is chosen such that completeness can
    be proved.

    `patients` are the patient API's answers, None where it knows nobody; `degraded` says that it couldn't be asked,
    `without` what else the job does without. `beside` are never chosen: what else has the accession numbers that
    stand on the disc. `named`: the studies under each number that they were found by, where `studies` have one alone.
    Raises PatientMismatch, SelectionNotFound, NoDicomData, CountsUnknown.
    """
    known = [patient for patient in patients if patient is not None]
    identity.one_patient([*studies, *beside], known, rules)
    distinct = tuple({study.study_instance_uid: study for study in studies}.values())
    chosen = chosen_of(distinct, accession_numbers, selection, [*studies, *named])
    for study in chosen:
        completeness.provable(study, require_counts=study.origin.require_counts)
    lacks = (PATIENT_API,) * degraded + _unknown_counts(chosen) + tuple(dict.fromkeys(without))
    others = {study.study_instance_uid: study for study in (*distinct, *beside)}
    kept = {study.study_instance_uid for study in chosen}
    left_out = tuple(study for uid, study in others.items() if uid not in kept)
    return Found(accession_numbers, chosen, next(iter(known), None), lacks, selection, left_out)


def beside(found: Found, priors: Sequence[Study], without: Collection[str], rules: Identity) -> Found:
    """What was found, with these priors beside it; `without`: which others a disc would have. Raises PatientMismatch,
    NoDicomData, CountsUnknown.
    """
    identity.one_patient([*found.named, *priors], [found.patient] if found.patient else [], rules)
    for study in priors:
        completeness.provable(study, require_counts=study.origin.require_counts)
    studies = (*found.studies, *(replace(study, is_prior=True) for study in priors))
    lacks = (*found.degraded, *_unknown_counts(priors), *without)
    return replace(found, studies=studies, degraded=tuple(dict.fromkeys(lacks)))


def leave_out(found: Found, priors: Collection[Study], why: str) -> Found:
    """What was found, but for priors that a disc is made without."""
    uids = {study.study_instance_uid for study in priors}
    kept = tuple(each for each in found.studies if each.study_instance_uid not in uids)
    return replace(found, studies=kept, degraded=tuple(dict.fromkeys((*found.degraded, why))))


def complete_studies(retrieved: Retrieved, rules: Identity) -> CompleteStudies:
    """What was retrieved for a patient's disc, through the gate; without any prior where it passes with none of them
    only. Raises what CompleteStudies raises, and PatientMismatch where an image is rejected.
    """
    try:
        return _unrejected(retrieved, rules)
    except MkisoError as error:
        if not (why := why_left_out(error)):
            raise
    return _unrejected(without_priors(retrieved, retrieved.found.priors, why), rules)


def _unrejected(retrieved: Retrieved, rules: Identity) -> CompleteStudies:
    none_rejected(retrieved.studies)
    return CompleteStudies(retrieved, rules)


def without_priors(retrieved: Retrieved, priors: Collection[Study], why: str) -> Retrieved:
    """What was retrieved, but for these."""
    uids = {study.study_instance_uid for study in priors}
    kept = tuple(each for each in retrieved.studies if each.study.study_instance_uid not in uids)
    return replace(retrieved, found=leave_out(retrieved.found, priors, why), studies=kept)


@dataclass(frozen=True, slots=True, repr=False)
class CompleteStudies:
    """Studies of one patient of which everything has arrived that the PACS holds, and nothing else; where series of a
    study are chosen, everything of these.

    Making one is the check. Raises StudyIncomplete, NoDicomData, CountsUnknown, PatientMismatch, InstanceConflict.
    """

    retrieved: Retrieved
    rules: Identity
    identity: PatientIdentity = field(init=False)
    _degraded: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        _same_studies(self.retrieved)
        for each in self.retrieved.studies:
            uids = _distinct_uids(each.study, each.instances)
            required = each.study.origin.require_counts
            completeness.complete(each.study, uids | self._on_volumes(each.study), require_counts=required)
            _chosen_alone(each)
        require_distinct(self.retrieved.instances)
        object.__setattr__(self, "identity", self._one_patient())
        told = (OTHER_PERSON,) if any(map(self._names_another, self.retrieved.studies)) else ()
        object.__setattr__(self, "_degraded", tuple(dict.fromkeys((*self.retrieved.found.degraded, *told))))

    @property
    def studies(self) -> tuple[Study, ...]:
        """As the PACS listed them at the end."""
        return tuple(each.study for each in self.retrieved.studies)

    @property
    def asked(self) -> tuple[Study, ...]:
        """Those that the question names."""
        return tuple(study for study in self.studies if not study.is_prior)

    @property
    def priors(self) -> tuple[Study, ...]:
        """Those beside them, the newest first."""
        return tuple(study for study in self.studies if study.is_prior)

    @property
    def persons(self) -> tuple[Dataset, ...]:
        """The headers that say whose these are: of each study that was asked for the first with a name that can be
        read, and one of each series; the same in whichever order instances came.
        """
        found: list[Dataset] = []
        for each in sorted(self.retrieved.studies, key=lambda each: each.study.study_instance_uid):
            if each.study.is_prior or not each.instances:
                continue
            ordered = sorted(each.instances, key=lambda instance: instance.arrival.sop_instance_uid)
            headers = [instance.header for instance in ordered]
            of_series = {stated(header, _SERIES_INSTANCE_UID): header for header in reversed(headers)}
            named = named_in(headers)
            found += ([] if named is None else [named]) + list(of_series.values())
        return tuple(found)

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All that a disc of them holds: what lies on archive volumes already isn't among them."""
        return tuple(
            each for each in self.retrieved.instances if each.arrival.sop_instance_uid not in self.retrieved.elsewhere
        )

    @property
    def known(self) -> Patient | None:
        """The patient as the patient API knows them, where it answered."""
        return self.retrieved.found.patient

    @property
    def patient(self) -> Patient:
        """What the patient API says of the patient, and where it is silent the PACS, with the name of the images:
        C-FIND may answer in a character set that can't hold it.
        """
        first = self.asked[0]
        known = self.known or Patient(first.patient_id)
        born, sex = known.birth_date or first.patient_birth_date, known.sex or first.patient_sex
        return Patient(known.patient_id, self.patient_name, born, sex)

    @property
    def patient_name(self) -> str:
        """The patient API's name, else that of the images that were asked for."""
        known, named = self.known.name if self.known else "", named_in(self.persons)
        return known or ("" if named is None else text(named, "PatientName"))

    @property
    def accession_numbers(self) -> tuple[str, ...]:
        """As they were asked for."""
        return self.retrieved.found.accession_numbers

    @property
    def is_part(self) -> bool:
        """Found.is_part."""
        return self.retrieved.found.is_part

    @property
    def is_deidentified(self) -> bool:
        """Whether these are copies that don't say whose they are."""
        return self.retrieved.found.deidentified

    @property
    def selection(self) -> Selection:
        """As it was asked for."""
        return self.retrieved.found.selection

    @property
    def degraded(self) -> tuple[str, ...]:
        return self._degraded

    @property
    def fingerprint(self) -> str:
        """mkiso.study.identity's, of what a disc of these studies holds: not of what was found before they were
        retrieved.
        """
        return replace(self.retrieved.found, studies=self.studies).fingerprint

    def _names_another(self, each: StudyRetrieved) -> bool:
        told = [person_of(each.study)]
        told += [Person(self.known.name, self.known.birth_date)] if self.known else []
        persons = persons_of(each.study, (instance.header for instance in each.instances))
        return any(contradict(one, person, self.rules) for one, person in product(told, persons))

    def _on_volumes(self, study: Study) -> frozenset[str]:
        return self.retrieved.elsewhere & (study.expected.instances or frozenset())

    def _one_patient(self) -> PatientIdentity:
        identity.one_patient(self.studies, [self.known] if self.known else [], self.rules)
        made: list[list[Claim]] = []
        for each in self.retrieved.studies:
            for instance in each.instances:
                identity.same_patient(instance.header, each.study)
            made.append(identity.claims(instance.header for instance in each.instances))
        if self.priors:
            _alike_in_headers(self.retrieved.studies, made, self.rules)
        return identity.agreed(self.studies, list(dict.fromkeys(chain.from_iterable(made))), self.rules)


@dataclass(frozen=True, slots=True, repr=False)
class Part:
    """The instances that go onto one disc, each of them of studies that passed the gate. Raises InstanceConflict for
    any other one.
    """

    studies: tuple[CompleteStudies, ...]
    instances: tuple[Instance, ...]

    def __post_init__(self) -> None:
        passed = {id(instance) for each in self.studies for instance in each.instances}
        if not all(id(instance) in passed for instance in self.instances):
            raise InstanceConflict(
                "An instance that was never checked would be on a disc: nothing was made. Tell the administrator of "
                "mkiso."
            )

    @property
    def is_part(self) -> bool:
        """Whether it lacks something of the studies or accession numbers that stand on the disc."""
        return any(each.is_part for each in self.studies)

    @property
    def is_deidentified(self) -> bool:
        return any(each.is_deidentified for each in self.studies)

    @property
    def degraded(self) -> tuple[str, ...]:
        """What the disc does without."""
        return tuple(lack for each in self.studies for lack in each.degraded)

    @property
    def chosen(self) -> dict[str, tuple[int, int]]:
        """By Study Instance UID how many series are chosen of how many (0: not known), where not all are."""
        studies = (study for each in self.studies for study in each.studies)
        return {each.study_instance_uid: (len(each.chosen), each.expected.of_series) for each in studies if each.chosen}

    @property
    def priors(self) -> frozenset[str]:
        """The Study Instance UIDs of earlier studies beside those that were asked for."""
        return frozenset(study.study_instance_uid for each in self.studies for study in each.priors)

    @property
    def told_apart(self) -> dict[str, str]:
        """By Study Instance UID what tells its patient from others of the same Patient ID
        (mkiso.study.identity.told_apart): only an archive volume has such.
        """
        return identity.told_apart(
            {study.study_instance_uid: each.identity for each in self.studies for study in each.studies}
        )

    @property
    def persons(self) -> dict[str, tuple[Dataset, ...]]:
        """By Study Instance UID the headers that say whose it is: of an earlier study those of what was asked for."""
        told = [(each.studies, each.persons) for each in self.studies]
        return {study.study_instance_uid: persons for studies, persons in told for study in studies}

    @classmethod
    def whole(cls, *studies: CompleteStudies) -> Part:
        """All instances of these studies, for one disc."""
        return cls(studies, tuple(instance for each in studies for instance in each.instances))


def _unknown_counts(studies: Collection[Study]) -> tuple[str, ...]:
    return (COUNTS_UNKNOWN,) * any(study.expected.count is None for study in studies)


def _same_studies(retrieved: Retrieved) -> None:
    """What was retrieved is what was found: no study less, none twice, none that nobody asked for."""
    wanted = sorted((study.study_instance_uid, study.chosen) for study in retrieved.found.studies)
    if not wanted or sorted((each.study.study_instance_uid, each.study.chosen) for each in retrieved.studies) != wanted:
        raise PatientMismatch("What was retrieved isn't what was found: nothing is made of it. Ask for the disc again.")
    for each in retrieved.studies:
        if any(instance.arrival.study_instance_uid != each.study.study_instance_uid for instance in each.instances):
            raise PatientMismatch(
                "An instance of a study that nobody asked for was stored: nothing is made of it. Ask for the disc "
                "again."
            )


def _alike_in_headers(studies: Collection[StudyRetrieved], made: Collection[Sequence[Claim]], rules: Identity) -> None:
    """What a rule asks of priors in C-FIND's answers (mkiso.study.priors), of what is stored: a PACS may not tell
    issuers, nor names in every script. `made` are the claims of each study. Raises PatientMismatch.
    """
    issued: dict[bool, set[bool]] = {False: set(), True: set()}
    persons: dict[bool, set[Person]] = {False: set(), True: set()}
    for each, claims in zip(studies, made, strict=True):
        issued[each.study.is_prior].add(identity.names_issuer(each.study, claims))
        persons[each.study.is_prior] |= persons_of(each.study, (instance.header for instance in each.instances))
    if issued[True] != {any(issued[False])}:
        raise PatientMismatch(
            "The study that was asked for names an issuer of its patient ID and an earlier one doesn't, or the other "
            "way round, so they may be of two patients. Ask without earlier studies, or have the PACS corrected."
        )
    if not all(are_one(prior, asked, rules) for prior in persons[True] for asked in persons[False]):
        raise PatientMismatch(
            "The images of an earlier study have another name or birth date than those that were asked for, under one "
            "patient ID, so they may be of two patients. Ask without earlier studies, or have the PACS corrected."
        )


def _chosen_alone(retrieved: StudyRetrieved) -> None:
    """Raise InstanceConflict where an instance is of a series that nobody chose."""
    study, chosen = retrieved.study, set(retrieved.study.chosen)
    for instance in retrieved.instances if chosen else ():
        if stated(instance.header, _SERIES_INSTANCE_UID) not in chosen:
            raise InstanceConflict(
                f"The PACS sent an image of {study.called} that is of another series than those chosen. Have the PACS "
                "checked, or ask for the whole study.",
                sop_instance_uid=instance.arrival.sop_instance_uid,
            )


def _distinct_uids(study: Study, instances: Sequence[Instance]) -> frozenset[str]:
    for instance in instances:
        if stated(instance.header, _SOP_INSTANCE_UID) != instance.arrival.sop_instance_uid:
            raise InstanceConflict(
                f"A file stored for {study.called} holds another instance than its name says. Ask for the disc again.",
                sop_instance_uid=instance.arrival.sop_instance_uid,
            )
    return frozenset(instance.arrival.sop_instance_uid for instance in instances)


def require_distinct(instances: Collection[Instance]) -> None:
    """Raise InstanceConflict where a SOP Instance UID occurs twice."""
    seen: set[str] = set()
    for instance in instances:
        uid = instance.arrival.sop_instance_uid
        if uid in seen:
            raise InstanceConflict(
                f"The instance {uid} would be on one disc twice. Have the PACS's studies checked.",
                sop_instance_uid=uid,
            )
        seen.add(uid)

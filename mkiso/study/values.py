"""What a job hands from step to step on its way to the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset

from mkiso.study import identity
from mkiso.study.models import Instance, Patient, Study
from mkiso.study.selection import EVERYTHING, Selection


@dataclass(frozen=True, slots=True, repr=False)
class Found:
    """What the PACS and the patient API answered, of one patient as far as they tell. Made by mkiso.study.gate.found.

    `patient` is the patient API's; `degraded` names what the job does without. `studies` are those that a disc is made
    of, `priors` among them; `left_out` were found and aren't chosen. `deidentified`: all of it is pseudonyms
    (mkiso.deidentify).
    """

    accession_numbers: tuple[str, ...]
    studies: tuple[Study, ...]
    patient: Patient | None = None
    degraded: tuple[str, ...] = ()
    selection: Selection = EVERYTHING
    left_out: tuple[Study, ...] = ()
    deidentified: bool = False

    @property
    def asked(self) -> tuple[Study, ...]:
        """The studies that the question names, and that are chosen."""
        return tuple(study for study in self.studies if not study.is_prior)

    @property
    def priors(self) -> tuple[Study, ...]:
        """The earlier studies that go beside them, the newest first."""
        return tuple(study for study in self.studies if study.is_prior)

    @property
    def named(self) -> tuple[Study, ...]:
        """Every study that the question names, chosen or not: whose patient a person is shown."""
        return (*self.asked, *self.left_out)

    @property
    def is_part(self) -> bool:
        """Whether a disc lacks something of the studies, or of the accession numbers, that stand on it."""
        return bool(self.left_out) or any(study.chosen for study in self.studies)

    @property
    def shown(self) -> str:
        """Who would be shown (mkiso.study.identity.shown_digest), whatever is chosen of their studies."""
        return identity.shown_digest(self.named)

    @property
    def fingerprint(self) -> str:
        """mkiso.study.identity's, of the answer: a disc that holds just this may be served again."""
        return identity.fingerprint(
            self.studies,
            self.patient,
            self.degraded,
            self.selection,
            is_part=self.is_part,
            accession_numbers=self.accession_numbers,
        )

    @property
    def content(self) -> str:
        """The fingerprint of the studies alone: what was stored of just these may be kept, whoever else was asked."""
        return identity.fingerprint(self.studies, self.patient, selection=self.selection)


@dataclass(frozen=True, slots=True, repr=False)
class StudyRetrieved:
    """One study as the PACS lists it after its last C-MOVE, and every instance that is stored of it. `notes` are the
    headers of Key Object Selections in those of its series that aren't chosen.
    """

    study: Study
    instances: tuple[Instance, ...]
    notes: tuple[Dataset, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Retrieved:
    """All that was found and all that is stored of it. `elsewhere` are the SOP Instance UIDs that lie on archive
    volumes already.
    """

    found: Found
    studies: tuple[StudyRetrieved, ...]
    elsewhere: frozenset[str] = frozenset()

    @property
    def instances(self) -> Sequence[Instance]:
        return [instance for each in self.studies for instance in each.instances]

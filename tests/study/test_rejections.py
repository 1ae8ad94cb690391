"""No patient's disc is made of images that their own study says must not be used (IHE RAD TF-2 4.66)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset, Sequence, dcmread, uid

from mkiso.config.disc import Identity
from mkiso.dataset import header as header_module
from mkiso.dataset.header import read_header
from mkiso.errors import DamagedInstance, PatientMismatch
from mkiso.study.gate import CompleteStudies, complete_studies
from peers.corpus import make_study
from tests.media.discs import instances, passed
from tests.reports.documents import code, reference, report, written

WRONG_ENTRY, UNSAFE, POOR, OF_INTEREST = ("113038", "113037", "113001", "113000")


def note(folder: Path, images: list[Path], reason: str, scheme: str = "DCM") -> Path:
    """A Key Object Selection about these images."""
    rejected = [dcmread(image, stop_before_pixels=True) for image in images]
    made = report(map(reference, rejected), sop_class=uid.KeyObjectSelectionDocumentStorage)
    made.ConceptNameCodeSequence, made.Modality = code("A reason", reason, scheme), "KO"
    of_study, of_series = Dataset(), Dataset()
    of_series.SeriesInstanceUID = rejected[0].SeriesInstanceUID
    of_series.ReferencedSOPSequence = Sequence([each.ReferencedSOPSequence[0] for each in map(reference, rejected)])
    of_study.StudyInstanceUID, of_study.ReferencedSeriesSequence = rejected[0].StudyInstanceUID, Sequence([of_series])
    made.CurrentRequestedProcedureEvidenceSequence = Sequence([of_study])
    return written(made, folder / "note.dcm", beside=images[0])


def at_the_gate(*files: Path) -> CompleteStudies:
    return complete_studies(passed(instances(files)).retrieved, Identity())


@pytest.mark.parametrize("reason", [WRONG_ENTRY, UNSAFE])
def test_what_may_be_of_another_patient_by_its_own_study_makes_no_disc(reason: str, tmp_path: Path) -> None:
    images = make_study(tmp_path, "A1", kinds={"ct": 3})
    rejecting = note(tmp_path, images[1:2], reason)
    with pytest.raises(PatientMismatch, match="rejected"):
        at_the_gate(*images, rejecting)
    others = [images[0], images[2]]  # what a PACS gives that heeds the note and tells of it
    assert len(at_the_gate(*others, rejecting).instances) == 3


@pytest.mark.parametrize(("reason", "scheme"), [(POOR, "DCM"), (OF_INTEREST, "DCM"), (WRONG_ENTRY, "99LOCAL")])
def test_another_key_object_selection_rejects_nothing(reason: str, scheme: str, tmp_path: Path) -> None:
    images = make_study(tmp_path, "A1", kinds={"ct": 2})
    assert len(at_the_gate(*images, note(tmp_path, images, reason, scheme)).instances) == 3


def test_a_note_that_is_too_long_to_be_read_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_study(tmp_path, "A1", kinds={"ct": 2})
    monkeypatch.setattr(header_module, "MAX_SEQUENCE_BYTES", 100)
    with pytest.raises(DamagedInstance):
        read_header(note(tmp_path, images, WRONG_ENTRY))
    assert "CurrentRequestedProcedureEvidenceSequence" not in read_header(note(tmp_path, images, OF_INTEREST))

"""Rejection notes: Key Object Selections by which a modality says that images of their study must not be used (IHE RAD
TF-2 4.66.4.1.3, Imaging Object Change Management). An archive that knows them gives these images to nobody; one that
doesn't lists both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from pydicom import Dataset

from mkiso.errors import PatientMismatch
from mkiso.study.references import named_in_sequence
from mkiso.study.text import stated
from mkiso.study.values import StudyRetrieved

REASONS: Mapping[str, str] = MappingProxyType(
    {"113037": "for patient safety reasons", "113038": "for an incorrect modality worklist entry"}
)
"""Of the titles of such notes (PS3.16 CID 7010, DCM) those by which an image may be of another patient."""
KEY_OBJECT = "KO"
"""Their Modality (PS3.3 C.17.6.1)."""
_KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
_SOP_CLASS_UID, _SOP_INSTANCE_UID = 0x00080016, 0x00080018
_CODE_VALUE, _CODING_SCHEME = 0x00080100, 0x00080102
_EVIDENCE = "CurrentRequestedProcedureEvidenceSequence"


def reason_of(header: Dataset) -> str:
    """Why the images that an object names are rejected, in words; empty where it is no such note."""
    if stated(header, _SOP_CLASS_UID) != _KEY_OBJECT_SELECTION:
        return ""
    titles = [each for each in header.get("ConceptNameCodeSequence") or () if stated(each, _CODING_SCHEME) == "DCM"]
    return next(filter(None, (REASONS.get(stated(each, _CODE_VALUE)) for each in titles)), "")


def none_rejected(studies: Iterable[StudyRetrieved]) -> None:
    """Raise PatientMismatch where images are there together with a note that rejects them, whatever series it is of."""
    for each in studies:
        headers = [instance.header for instance in each.instances]
        there = {stated(header, _SOP_INSTANCE_UID) for header in headers}
        for header in (*headers, *each.notes):
            if (reason := reason_of(header)) and not there.isdisjoint(named_in_sequence(header, _EVIDENCE)):
                raise PatientMismatch(
                    f"Images of {each.study.called} were rejected {reason}, and the PACS gives them all the same, so "
                    "they may be of another patient. Have them taken out of the PACS, then ask again.",
                    accession_numbers=[each.study.accession_number],
                )

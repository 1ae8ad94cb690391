"""Objects of radiotherapy as what a colleague wants to know of them (PS3.3 A.18 to A.31): labels, approval,
prescription, beams, structures, dose. Numbers stay as they were written but for zeros at their end; names of columns
are English in every language, as in the standard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice

from mkiso.dataset.items import Item, keywords
from mkiso.reports.codes import CODES
from mkiso.reports.values import Lack, Radiotherapy, Table

MAX_ROWS = 1_000
_MAX_CHARACTERS = 500  # of a cell
_PADDED = re.compile(r"-?\d+\.\d*0|-?\d+\.", re.ASCII)

Row = tuple[str, ...]

_FACTS = (  # what is true of the whole: what it is called, and the keywords that it may stand under
    ("Label", "RTPlanLabel", "StructureSetLabel"),
    ("Name", "RTPlanName", "StructureSetName"),
    ("Description", "RTPlanDescription", "StructureSetDescription"),
    ("Date", "RTPlanDate", "StructureSetDate", "TreatmentDate"),
    ("Intent", "PlanIntent"),
    ("Geometry", "RTPlanGeometry"),
    ("Approval", "ApprovalStatus"),
    ("Reviewed on", "ReviewDate"),
    ("Reviewer", "ReviewerName"),
    ("Dose units", "DoseUnits"),
    ("Dose type", "DoseType"),
    ("Dose comment", "DoseComment"),
    ("Summation", "DoseSummationType"),
    ("Grid scaling", "DoseGridScaling"),
    ("Planes", "NumberOfFrames"),
    ("Rows", "Rows"),
    ("Columns", "Columns"),
    ("Pixel spacing in mm", "PixelSpacing"),
    ("Fraction", "CurrentFractionNumber"),
)


def read_radiotherapy(document: Item) -> tuple[Radiotherapy, tuple[Lack, ...]]:
    """What an object of radiotherapy says. Raises DamagedInstance where a table of it is malformed."""
    facts = [(title, next(filter(None, _cells(document, *keywords)), "")) for title, *keywords in _FACTS]
    tables = [
        _table("Prescription", _PRESCRIPTION, _rows(document, "DoseReferenceSequence", _PRESCRIPTION)),
        _table("Fraction groups", _FRACTIONS, _rows(document, "FractionGroupSequence", _FRACTIONS)),
        _table("Beams", _BEAMS, _beams(document)),
        _table("Applicator setups", _SETUPS, _rows(document, "ApplicationSetupSequence", _SETUPS)),
        _table("Structures", _STRUCTURES, _structures(document)),
        _table("Dose-volume histograms", _VOLUMES, _rows(document, "DVHSequence", _VOLUMES)),
        _table("Delivered beams", _DELIVERED, _delivered(document)),
    ]
    lacks = [Lack.TOO_MANY for table in tables if len(table.rows) > MAX_ROWS]
    shown = [Table(table.title, table.columns, table.rows[:MAX_ROWS]) for table in tables if table.rows]
    return Radiotherapy(tuple(fact for fact in facts if fact[1]), tuple(shown)), tuple(lacks[:1])


_PRESCRIPTION = {
    "No.": "DoseReferenceNumber",
    "Description": "DoseReferenceDescription",
    "Type": "DoseReferenceType",
    "Structure type": "DoseReferenceStructureType",
    "Prescribed in Gy": "TargetPrescriptionDose",
    "Maximum in Gy": "DeliveryMaximumDose",
    "Organ at risk, maximum in Gy": "OrganAtRiskMaximumDose",
}
_FRACTIONS = {
    "No.": "FractionGroupNumber",
    "Fractions planned": "NumberOfFractionsPlanned",
    "Beams": "NumberOfBeams",
    "Brachy setups": "NumberOfBrachyApplicationSetups",
}
_BEAMS = {
    "No.": "BeamNumber",
    "Name": "BeamName",
    "Type": "BeamType",
    "Radiation": "RadiationType",
    "Machine": "TreatmentMachineName",
    "Energy in MeV": "NominalBeamEnergy",
    "Gantry in °": "GantryAngle",
    "Meterset": "BeamMeterset",
    "Dose in Gy": "BeamDose",
}
_SETUPS = {
    "No.": "ApplicationSetupNumber",
    "Name": "ApplicationSetupName",
    "Type": "ApplicationSetupType",
    "Air kerma": "TotalReferenceAirKerma",
}
_STRUCTURES = {
    "No.": "ROINumber",
    "Name": "ROIName",
    "Type": "RTROIInterpretedType",
    "Description": "ROIDescription",
    "Made": "ROIGenerationAlgorithm",
}
_VOLUMES = {
    "Type": "DVHType",
    "Units": "DoseUnits",
    "Minimum": "DVHMinimumDose",
    "Mean": "DVHMeanDose",
    "Maximum": "DVHMaximumDose",
}
_DELIVERED = {
    "No.": "ReferencedBeamNumber",
    "Name": "BeamName",
    "Fraction": "CurrentFractionNumber",
    "Ended": "TreatmentTerminationStatus",
    "Specified": "SpecifiedPrimaryMeterset",
    "Delivered": "DeliveredPrimaryMeterset",
}


_READ = keywords("""
    DoseReferenceSequence FractionGroupSequence ReferencedBeamSequence BeamSequence IonBeamSequence PrimaryDosimeterUnit
    ControlPointSequence IonControlPointSequence ApplicationSetupSequence StructureSetROISequence
    RTROIObservationsSequence ReferencedROINumber DVHSequence TreatmentSessionBeamSequence
    TreatmentSessionIonBeamSequence
    """)
_TABLES = (_PRESCRIPTION, _FRACTIONS, _BEAMS, _SETUPS, _STRUCTURES, _VOLUMES, _DELIVERED)
KEYWORDS = CODES.union(_READ, *map(dict.values, _TABLES), *(keywords for _, *keywords in _FACTS))


def _table(title: str, columns: dict[str, str], rows: Iterator[Row]) -> Table:
    """As many rows as are shown and one more. Columns in which nothing stands are left out."""
    found = tuple(islice(rows, MAX_ROWS + 1))
    used = [place for place, _ in enumerate(columns) if any(row[place] for row in found)]
    names = tuple(columns)
    return Table(title, tuple(names[at] for at in used), tuple(tuple(row[at] for at in used) for row in found))


def _rows(document: Item, sequence: str, columns: dict[str, str]) -> Iterator[Row]:
    return (_cells(item, *columns.values()) for item in document.items(sequence))


def _beams(document: Item) -> Iterator[Row]:
    """Each beam, its energy and angle as at its first control point, its meterset and dose as the fraction groups say
    it, one after another where several have it.
    """
    planned: dict[str, list[Item]] = {}
    for group in islice(document.items("FractionGroupSequence"), MAX_ROWS):
        for beam in islice(group.items("ReferencedBeamSequence"), MAX_ROWS):
            planned.setdefault(beam.line("ReferencedBeamNumber"), []).append(beam)
    for beam in chain(document.items("BeamSequence"), document.items("IonBeamSequence")):
        start = beam.first("ControlPointSequence") or beam.first("IonControlPointSequence")
        those = planned.get(beam.line("BeamNumber"), [])
        meterset = _of_each(those, "BeamMeterset")
        yield (
            *_cells(beam, "BeamNumber", "BeamName", "BeamType", "RadiationType", "TreatmentMachineName"),
            *(_cells(start, "NominalBeamEnergy", "GantryAngle") if start else ("", "")),
            f"{meterset} {_cell(beam, 'PrimaryDosimeterUnit')}".strip() if meterset else "",
            _of_each(those, "BeamDose"),
        )


def _of_each(items: list[Item], keyword: str) -> str:
    cells = [_cell(item, keyword) for item in items]
    return " / ".join(cell or "–" for cell in cells)[:_MAX_CHARACTERS] if any(cells) else ""


def _structures(document: Item) -> Iterator[Row]:
    types = {
        item.line("ReferencedROINumber"): _cell(item, "RTROIInterpretedType")
        for item in islice(document.items("RTROIObservationsSequence"), MAX_ROWS)
    }
    for item in document.items("StructureSetROISequence"):
        number, name, description, made = _cells(
            item, "ROINumber", "ROIName", "ROIDescription", "ROIGenerationAlgorithm"
        )
        yield number, name, types.get(number, ""), description, made


def _delivered(document: Item) -> Iterator[Row]:
    sequences = ("TreatmentSessionBeamSequence", "TreatmentSessionIonBeamSequence")
    return chain.from_iterable(_rows(document, sequence, _DELIVERED) for sequence in sequences)


def _cells(item: Item, *keywords: str) -> Row:
    return tuple(_cell(item, keyword) for keyword in keywords)


def _cell(item: Item, keyword: str) -> str:
    text = item.line(keyword) or " ".join(f"{number:g}" for number in item.numbers(keyword)[:4])
    return ", ".join(map(_plain, text.split("\\")))[:_MAX_CHARACTERS]


def _plain(value: str) -> str:
    """A decimal without the zeros that it was padded with."""
    return value.rstrip("0").rstrip(".") if _PADDED.fullmatch(value) else value

"""Objects of radiotherapy as tables of what a colleague asks for."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pydicom
from pydicom import Dataset, dcmread, uid
from pydicom.sequence import Sequence as Items

from mkiso.reports.radiotherapy import MAX_ROWS
from mkiso.reports.reading import read_report
from mkiso.reports.values import Lack, Radiotherapy, Table
from tests.reports.documents import of_class, written

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"


def read(file: Path, kind: str) -> tuple[dict[str, str], dict[str, Table], tuple[Lack, ...]]:
    found = read_report(file, kind)
    assert isinstance(found.body, Radiotherapy)
    return dict(found.body.facts), {table.title: table for table in found.body.tables}, found.lacks


def test_a_plan_has_its_approval_prescription_fractions_and_beams() -> None:
    facts, tables, lacks = read(BUNDLED / "rtplan.dcm", "RT PLAN")
    assert (facts["Label"], facts["Approval"], lacks) == ("Plan1", "UNAPPROVED", ())
    assert dict(zip(tables["Fraction groups"].columns, tables["Fraction groups"].rows[0], strict=True)) == {
        "No.": "1",
        "Fractions planned": "30",
        "Beams": "1",
        "Brachy setups": "0",
    }
    [beam] = tables["Beams"].rows
    assert dict(zip(tables["Beams"].columns, beam, strict=True)) == {
        "No.": "1",
        "Name": "Field 1",
        "Type": "STATIC",
        "Radiation": "PHOTON",
        "Machine": "unit001",
        "Energy in MeV": "6",
        "Gantry in °": "0",
        "Meterset": "116.0036697 MU",
        "Dose in Gy": "1.0275401",
    }
    assert [row[1] for row in tables["Prescription"].rows] == ["iso", "PTV"]


def test_a_beam_of_two_fraction_groups_has_what_each_of_them_says(tmp_path: Path) -> None:
    """The second one's meterset alone stood there."""
    plan = dcmread(BUNDLED / "rtplan.dcm")
    [first] = plan.FractionGroupSequence
    second = deepcopy(first)
    second.FractionGroupNumber, second.ReferencedBeamSequence[0].BeamMeterset = 2, "50"
    del second.ReferencedBeamSequence[0].BeamDose
    plan.FractionGroupSequence.append(second)
    plan.save_as(tmp_path / "plan.dcm")
    _, tables, _ = read(tmp_path / "plan.dcm", "RT PLAN")
    assert tables["Beams"].rows[0][-2:] == ("116.0036697 / 50 MU", "1.0275401 / –")


def test_a_dose_has_its_units_type_summation_and_grid() -> None:
    facts, _, _ = read(BUNDLED / "rtdose.dcm", "RT DOSE")
    assert facts == {
        "Dose units": "RELATIVE",
        "Dose type": "PHYSICAL",
        "Summation": "BEAM",
        "Grid scaling": "1.0000000e-6",
        "Planes": "15",
        "Rows": "10",
        "Columns": "10",
        "Pixel spacing in mm": "10, 10",
    }


def test_a_structure_set_has_each_structure_with_its_type(tmp_path: Path) -> None:
    source = dcmread(BUNDLED / "rtstruct.dcm", force=True)
    made = of_class(uid.RTStructureSetStorage, "RTSTRUCT")
    for keyword in ("StructureSetLabel", "StructureSetROISequence", "RTROIObservationsSequence"):
        setattr(made, keyword, source[keyword].value)
    facts, tables, _ = read(written(made, tmp_path / "a.dcm"), "RT STRUCTURE SET")
    assert facts["Label"] == source.StructureSetLabel
    types = {
        each.ReferencedROINumber: each.get("RTROIInterpretedType", "") for each in source.RTROIObservationsSequence
    }
    at = {name: place for place, name in enumerate(tables["Structures"].columns)}
    assert [(row[at["No."]], row[at["Name"]], row[at["Type"]]) for row in tables["Structures"].rows] == [
        (str(roi.ROINumber), roi.ROIName, types[roi.ROINumber]) for roi in source.StructureSetROISequence
    ]


def test_what_was_delivered_is_told(tmp_path: Path) -> None:
    made = of_class(uid.RTBeamsTreatmentRecordStorage, "RTRECORD")
    beam = Dataset()
    beam.ReferencedBeamNumber, beam.BeamName, beam.CurrentFractionNumber = 1, "AP", 3
    beam.TreatmentTerminationStatus, beam.SpecifiedPrimaryMeterset, beam.DeliveredPrimaryMeterset = (
        "NORMAL",
        "90",
        "89.50",
    )
    made.TreatmentSessionBeamSequence, made.TreatmentDate = Items([beam]), "20240229"
    facts, tables, _ = read(written(made, tmp_path / "a.dcm"), "RT TREAT RECORD")
    assert facts["Date"] == "20240229"
    assert tables["Delivered beams"].rows == (("1", "AP", "3", "NORMAL", "90", "89.5"),)


def test_tables_without_end_are_cut_off_and_said(tmp_path: Path) -> None:
    made = of_class(uid.RTStructureSetStorage, "RTSTRUCT")
    structure = Dataset()
    structure.ROINumber, structure.ROIName = 1, "PTV"
    made.StructureSetROISequence = Items([structure] * (MAX_ROWS + 5))
    _, tables, lacks = read(written(made, tmp_path / "a.dcm"), "RT STRUCTURE SET")
    assert len(tables["Structures"].rows) == MAX_ROWS and lacks == (Lack.TOO_MANY,)


def test_a_plan_that_is_cut_short_says_so() -> None:
    assert read_report(BUNDLED / "rtplan_truncated.dcm", "RT PLAN").lacks == (Lack.DAMAGED,)

"""Which directory record an instance gets, by its SOP class (PS3.3 F.4 and PS3.4 B.5). The one place where this is
written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import pydicom.uid
from pydicom import Dataset

PRESENTATION = "PRESENTATION"
RECORD_TYPES: Mapping[str, tuple[str, ...]] = {
    # PS3.3 F.5.4 and following, by record type; a SOP class that isn't listed is judged by its attributes (record_type
    # below).
    "RT DOSE": ("RTDoseStorage",),
    "RT STRUCTURE SET": ("RTStructureSetStorage",),
    "RT PLAN": ("RTPlanStorage", "RTIonPlanStorage"),
    "RT TREAT RECORD": (
        "RTBeamsTreatmentRecordStorage", "RTBrachyTreatmentRecordStorage", "RTTreatmentSummaryRecordStorage",
        "RTIonBeamsTreatmentRecordStorage",
    ),
    "RADIOTHERAPY": (
        "RTPhysicianIntentStorage", "RTSegmentAnnotationStorage", "RTRadiationSetStorage",
        "CArmPhotonElectronRadiationStorage", "TomotherapeuticRadiationStorage", "RoboticArmRadiationStorage",
        "RTRadiationRecordSetStorage", "RTRadiationSalvageRecordStorage", "TomotherapeuticRadiationRecordStorage",
        "CArmPhotonElectronRadiationRecordStorage", "RoboticRadiationRecordStorage",
        "RTRadiationSetDeliveryInstructionStorage", "RTTreatmentPreparationStorage",
        "RTPatientPositionAcquisitionInstructionStorage",
    ),
    "PLAN": (
        "RTBeamsDeliveryInstructionStorage", "RTBrachyApplicationSetupDeliveryInstructionStorage",
        "CTDefinedProcedureProtocolStorage", "CTPerformedProcedureProtocolStorage", "XADefinedProcedureProtocolStorage",
        "XAPerformedProcedureProtocolStorage", "ProtocolApprovalStorage",
    ),
    PRESENTATION: (
        "GrayscaleSoftcopyPresentationStateStorage", "ColorSoftcopyPresentationStateStorage",
        "PseudoColorSoftcopyPresentationStateStorage", "BlendingSoftcopyPresentationStateStorage",
        "XAXRFGrayscaleSoftcopyPresentationStateStorage", "GrayscalePlanarMPRVolumetricPresentationStateStorage",
        "CompositingPlanarMPRVolumetricPresentationStateStorage", "AdvancedBlendingPresentationStateStorage",
        "VolumeRenderingVolumetricPresentationStateStorage",
        "SegmentedVolumeRenderingVolumetricPresentationStateStorage",
        "MultipleVolumeRenderingVolumetricPresentationStateStorage",
        "VariableModalityLUTSoftcopyPresentationStateStorage", "BasicStructuredDisplayStorage",
    ),
    "WAVEFORM": (
        "TwelveLeadECGWaveformStorage", "GeneralECGWaveformStorage", "AmbulatoryECGWaveformStorage",
        "General32bitECGWaveformStorage", "HemodynamicWaveformStorage", "CardiacElectrophysiologyWaveformStorage",
        "BasicVoiceAudioWaveformStorage", "GeneralAudioWaveformStorage", "ArterialPulseWaveformStorage",
        "RespiratoryWaveformStorage", "MultichannelRespiratoryWaveformStorage",
        "RoutineScalpElectroencephalogramWaveformStorage", "ElectromyogramWaveformStorage",
        "ElectrooculogramWaveformStorage", "SleepElectroencephalogramWaveformStorage", "BodyPositionWaveformStorage",
    ),
    "SR DOCUMENT": (
        "BasicTextSRStorage", "EnhancedSRStorage", "ComprehensiveSRStorage", "Comprehensive3DSRStorage",
        "ExtensibleSRStorage", "ProcedureLogStorage", "MammographyCADSRStorage", "ChestCADSRStorage",
        "ColonCADSRStorage", "XRayRadiationDoseSRStorage", "RadiopharmaceuticalRadiationDoseSRStorage",
        "ImplantationPlanSRStorage", "AcquisitionContextSRStorage", "SimplifiedAdultEchoSRStorage",
        "PatientRadiationDoseSRStorage", "PlannedImagingAgentAdministrationSRStorage",
        "PerformedImagingAgentAdministrationSRStorage", "EnhancedXRayRadiationDoseSRStorage",
        "WaveformAnnotationSRStorage", "SpectaclePrescriptionReportStorage",
        "MacularGridThicknessAndVolumeReportStorage",
    ),
    "KEY OBJECT DOC": ("KeyObjectSelectionDocumentStorage",),
    "ENCAP DOC": (
        "EncapsulatedPDFStorage", "EncapsulatedCDAStorage", "EncapsulatedSTLStorage", "EncapsulatedOBJStorage",
        "EncapsulatedMTLStorage",
    ),
    "SPECTROSCOPY": ("MRSpectroscopyStorage",),
    "RAW DATA": ("RawDataStorage",),
    "REGISTRATION": ("SpatialRegistrationStorage", "DeformableSpatialRegistrationStorage"),
    "FIDUCIAL": ("SpatialFiducialsStorage",),
    "VALUE MAP": ("RealWorldValueMappingStorage",),
    "STEREOMETRIC": ("StereometricRelationshipStorage",),
    "MEASUREMENT": (
        "LensometryMeasurementsStorage", "AutorefractionMeasurementsStorage", "KeratometryMeasurementsStorage",
        "VisualAcuityMeasurementsStorage", "SubjectiveRefractionMeasurementsStorage",
        "OphthalmicAxialMeasurementsStorage", "IntraocularLensCalculationsStorage",
        "OphthalmicVisualFieldStaticPerimetryMeasurementsStorage",
    ),
    "SURFACE": ("SurfaceSegmentationStorage",),
    "SURFACE SCAN": ("SurfaceScanMeshStorage", "SurfaceScanPointCloudStorage"),
    "TRACT": ("TractographyResultsStorage",),
    "ASSESSMENT": ("ContentAssessmentResultsStorage",),
    "ANNOTATION": ("MicroscopyBulkSimpleAnnotationsStorage",),
}  # fmt: skip

_BY_SOP_CLASS: Mapping[str, str] = {
    str(getattr(pydicom.uid, name)): kind for kind, names in RECORD_TYPES.items() for name in names
}


def record_type(sop_class_uid: str, header: Dataset) -> str:
    """The Directory Record Type (0004,1430) of an instance.

    Every image storage class is IMAGE. A class that nobody foresaw is judged by what it carries: pixels, a document, a
    report, a waveform; what carries none of these is RAW DATA, so that a viewer doesn't take it for an image.
    """
    known = _BY_SOP_CLASS.get(sop_class_uid)
    if known:
        return known
    if _is_image_storage(sop_class_uid) or "Rows" in header:
        return "IMAGE"
    if "MIMETypeOfEncapsulatedDocument" in header:
        return "ENCAP DOC"
    if "CompletionFlag" in header:
        return "SR DOCUMENT"
    if "PresentationCreationDate" in header:
        return PRESENTATION
    return "RAW DATA"


@lru_cache(maxsize=256)
def _is_image_storage(sop_class_uid: str) -> bool:
    return "Image Storage" in pydicom.uid.UID(sop_class_uid).name

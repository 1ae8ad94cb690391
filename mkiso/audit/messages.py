"""The audit: who asked for which accession number, from where, what left, when (DICOM PS3.15 A.5, the XML of
A.5.1).

    event                      written by   when
    Query                      webhook      a question was accepted, or patients or discs listed: who asked
    Query                      both         a source was asked (C-FIND, QIDO-RS)
    DICOM Instances Accessed   webhook      somebody was shown whose studies these are
    Begin Transferring         a job        the PACS is asked to send a study (C-MOVE)
    Export                     webhook      a disc begins to leave: to whom
    Export                     a job        a study or a volume begins to leave for a publisher; once more where that
                                            broke off, as a failure
    Order Record, delete       webhook      somebody cancelled a job
    User Authentication        webhook      somebody signed in or out at the provider, or couldn't
    Security Alert             webhook      the API key was absent or wrong; a page of another site asked

A message that can't be delivered never ends a job: it is kept in `audit-undelivered.xml` beside the data, and the log
says so.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from ipaddress import ip_address
from types import MappingProxyType
from xml.etree.ElementTree import Element, SubElement, tostring

from pydicom import DataElement, Dataset, dcmwrite
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.uid import ImplicitVRLittleEndian

from mkiso.audit.delivery import deliver
from mkiso.config.section import Medium
from mkiso.config.settings import Settings
from mkiso.config.sources import DicomWeb, Source
from mkiso.errors import why_refused
from mkiso.study.models import Study
from mkiso.study.selection import EVERYTHING, Selection

log = logging.getLogger("mkiso.audit.messages")

Code = tuple[str, str, str]  # csd-code, codeSystemName, originalText

INSTANCES_ACCESSED: Code = ("110103", "DCM", "DICOM Instances Accessed")
BEGIN_TRANSFERRING: Code = ("110102", "DCM", "Begin Transferring DICOM Instances")
EXPORT: Code = ("110106", "DCM", "Export")
ORDER_RECORD: Code = ("110109", "DCM", "Order Record")
QUERY: Code = ("110112", "DCM", "Query")
SECURITY_ALERT: Code = ("110113", "DCM", "Security Alert")
USER_AUTHENTICATION: Code = ("110114", "DCM", "User Authentication")
CLAUSES: Mapping[Code, str] = MappingProxyType(
    {
        QUERY: "A.5.3.10",
        INSTANCES_ACCESSED: "A.5.3.6",
        BEGIN_TRANSFERRING: "A.5.3.3",
        EXPORT: "A.5.3.4",
        ORDER_RECORD: "A.5.3.13",
        USER_AUTHENTICATION: "A.5.3.12",
        SECURITY_ALERT: "A.5.3.11",
    }
)
"""Where PS3.15 says what each event's message has in it."""
LOGIN: Code = ("110122", "DCM", "Login")
LOGOUT: Code = ("110123", "DCM", "Logout")
NODE_AUTHENTICATION: Code = ("110126", "DCM", "Node Authentication")
SOURCE: Code = ("110153", "DCM", "Source Role ID")
DESTINATION: Code = ("110152", "DCM", "Destination Role ID")
DESTINATION_MEDIA: Code = ("110154", "DCM", "Destination Media")
STUDY_INSTANCE_UID: Code = ("110180", "DCM", "Study Instance UID")
SOP_CLASS_UID: Code = ("110181", "DCM", "SOP Class UID")
NODE_ID: Code = ("110182", "DCM", "Node ID")
PATIENT_NUMBER: Code = ("2", "RFC-3881", "Patient Number")
SEARCH_CRITERIA: Code = ("10", "RFC-3881", "Search Criteria")
ADDRESS: Code = ("12", "RFC-3881", "URI")
BY_ADDRESS: Code = ("110037", "DCM", "URI")
CD: Code = ("110032", "DCM", "CD")
DVD: Code = ("110033", "DCM", "DVD")
BLU_RAY: Code = ("BD", "99MKISO", "Blu-ray Disc")
MEDIA: Mapping[Medium, Code] = MappingProxyType({"cd": CD, "dvd": DVD, "dvd-dl": DVD, "bd": BLU_RAY, "bd-dl": BLU_RAY})
"""Media types (PS3.16 CID 405); that table has none for Blu-ray."""

SUCCESS, MINOR_FAILURE, SERIOUS_FAILURE = "0", "4", "8"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
IP_ADDRESS = "2"
"""NetworkAccessPointTypeCode of an address; "1" is a host's name."""
_UNPRINTABLE = re.compile("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Party:
    """An active participant: a person, a process, a machine or a medium, and then its type."""

    user_id: str
    role: Code | None = None
    address: str = ""
    is_requestor: bool = False
    user_name: str = ""
    media_type: Code | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks over HTTP: an address, and the person or program where it has to say so."""

    address: str
    user: str = ""
    name: str = ""

    def party(self, role: Code | None, *, is_requestor: bool = True) -> Party:
        """As an active participant."""
        return Party(self.user or self.address or "unknown", role, self.address, is_requestor, self.name)


@dataclass(frozen=True, slots=True)
class Left:
    """What was exported: the name of each patient by the Patient ID, the accession number of each study by its Study
    Instance UID, and how many instances it is in all; `sop_classes`: how many of each SOP Class are of a study, by its
    UID, as far as that is known.
    """

    patients: Mapping[str, str]
    studies: Mapping[str, str]
    instances: int
    sop_classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def asked(
    settings: Settings,
    accession_numbers: Sequence[str],
    client: Client,
    request_id: str,
    selection: Selection = EVERYTHING,
    *,
    deidentified: bool = False,
) -> None:
    """A client's question was accepted, or one for a de-identified copy."""
    keys = {
        "AccessionNumber": accession_numbers,
        "StudyInstanceUID": selection.studies,
        "SeriesInstanceUID": selection.series,
    }
    wanted = "&".join(f"{keyword}={','.join(values)}" for keyword, values in keys.items() if values)
    _wanted(settings, f"{wanted}{'&deidentified=true' * deidentified}", client, request_id)


def listed(settings: Settings, search: str, client: Client, request_id: str) -> None:
    """Somebody sees the list of discs that were made here: those that a search finds, else today's."""
    _wanted(settings, f"discs={search or 'today'}", client, request_id)


def searched(settings: Settings, keys: Mapping[str, str], client: Client, request_id: str) -> None:
    """Somebody looks for studies in the PACS, which is asked with these keys, by DICOM keyword."""
    hidden = () if settings.audit.patient_names else ("PatientName",)
    shown = {keyword: "" if keyword in hidden else value for keyword, value in keys.items()}
    _wanted(settings, _written(shown), client, request_id)
    _ask_sources(settings, keys.get("AccessionNumber", ""), shown, request_id=request_id)


def _wanted(settings: Settings, wanted: str, client: Client, request_id: str) -> None:
    criteria = _object("2", "3", SEARCH_CRITERIA, request_id, query=wanted, details={"request_id": request_id})
    parties = [client.party(SOURCE), _mkiso(settings, DESTINATION)]
    _tell(settings, "E", QUERY, parties, [criteria])


def shown(settings: Settings, studies: Sequence[Study], client: Client, request_id: str) -> None:
    """Somebody was shown whose studies these are, and what they are."""
    objects = [_found(study, request_id=request_id) for study in studies]
    objects.append(_patient(settings, studies[0].patient_id, studies[0].patient_name))
    _tell(settings, "R", INSTANCES_ACCESSED, [client.party(None)], objects)


def cancelled(
    settings: Settings, job_id: str, accession_numbers: Sequence[str], patient: tuple[str, str], client: Client
) -> None:
    """Somebody cancelled a job; `patient` is the ID and the name, empty where it hadn't found whose disc it is."""
    told = {"job_id": job_id, "accession_numbers": ",".join(accession_numbers)}
    job = _object("2", "20", ADDRESS, f"/api/iso/jobs/{job_id}", name="Job", details=told)
    objects = [job, _patient(settings, *patient)]
    _tell(settings, "D", ORDER_RECORD, [client.party(None)], objects)


def queried(settings: Settings, accession_number: str, **asker: str) -> None:
    """Each source that may have it is asked for an accession number; `asker` is the id of the job or request that
    wants to know.
    """
    _ask_sources(settings, accession_number, {"AccessionNumber": accession_number}, **asker)


def queried_by_uid(settings: Settings, study_instance_uid: str, only: str = "", **asker: str) -> None:
    """As `queried`, for a Study Instance UID: every source is asked, or the `only` one."""
    _ask_sources(settings, "", {"StudyInstanceUID": study_instance_uid}, only, **asker)


def queried_by_date(settings: Settings, study_date: str, job_id: str) -> None:
    """As `queried`, for all studies of a date or a range of them (DA): every source is asked."""
    _ask_sources(settings, "", {"StudyDate": study_date}, job_id=job_id)


def queried_by_patient(settings: Settings, patient_id: str, **asker: str) -> None:
    """As `queried`, for all studies of a patient: every source is asked."""
    _ask_sources(settings, "", {"PatientID": patient_id}, **asker)


def _ask_sources(
    settings: Settings, accession_number: str, keys: Mapping[str, str], only: str = "", **asker: str
) -> None:
    if not settings.audit.enabled:  # encoding takes longer than all else here
        return
    text, data_set, syntax = _written(keys), _encoded(keys), {"TransferSyntax": ImplicitVRLittleEndian}
    for source in settings.all_sources:
        if (not accession_number or source.is_asked_for(accession_number)) and only in ("", source.name):
            if isinstance(source, DicomWeb):
                address = f"{source.base_url.rstrip('/')}/studies"
                query = _object("2", "3", SEARCH_CRITERIA, address, query=text, details=asker)
            else:
                query = _object("2", "3", SOP_CLASS_UID, STUDY_ROOT_FIND, query=data_set, details=syntax | asker)
            parties = [_mkiso(settings, SOURCE, is_requestor=True), _source(source, DESTINATION)]
            _tell(settings, "E", QUERY, parties, [query])


def _written(keys: Mapping[str, str]) -> str:
    """A question as text; a value that isn't told leaves its keyword."""
    return "&".join(f"{keyword}={value}" if value else keyword for keyword, value in keys.items())


def _encoded(keys: Mapping[str, str]) -> bytes:
    """A question as the data set of a C-FIND, in Implicit VR Little Endian."""
    identifier = Dataset()
    identifier.SpecificCharacterSet, identifier.QueryRetrieveLevel = "ISO_IR 192", "STUDY"
    for keyword, value in keys.items():
        identifier.add(DataElement(keyword, dictionary_VR(keyword), value, validation_mode=IGNORE))
    buffer = BytesIO()
    dcmwrite(buffer, identifier, implicit_vr=True, little_endian=True)
    return buffer.getvalue()


def transfer_begins(settings: Settings, study: Study, job_id: str) -> None:
    """The PACS is asked to send a study."""
    objects = [_found(study, job_id=job_id), _patient(settings, study.patient_id, study.patient_name)]
    parties = [_source(settings.source(study.origin.source), SOURCE), _mkiso(settings, DESTINATION, is_requestor=True)]
    _tell(settings, "E", BEGIN_TRANSFERRING, parties, objects)


def exported(settings: Settings, left: Left, to: Party, media: Party, job_id: str, *, outcome: str = SUCCESS) -> None:
    """A disc, or a study for a publisher, begins to leave on `media`; SERIOUS_FAILURE: what has begun broke off."""
    objects = [
        _study(uid, accession_number, left.sop_classes.get(uid, {}), job_id=job_id)
        for uid, accession_number in left.studies.items()
    ]
    in_all = {"instances": str(left.instances)}
    objects += [_patient(settings, *patient, in_all) for patient in left.patients.items() or [("", "")]]
    ours = _mkiso(settings, SOURCE, is_requestor=not to.is_requestor)
    _tell(settings, "R", EXPORT, [ours, to, media], objects, outcome=outcome)


def signed(settings: Settings, client: Client, kind: Code, *, well: bool = True) -> None:
    """Somebody signed in (LOGIN) or out (LOGOUT), or couldn't."""
    parties = [client.party(None), _mkiso(settings, None)]
    _tell(settings, "E", USER_AUTHENTICATION, parties, [], kind=kind, outcome=SUCCESS if well else MINOR_FAILURE)


def alert(settings: Settings, client: Client, path: str, request_id: str, why: str) -> None:
    """Somebody was refused: `why`."""
    told = {"Alert Description": why, "request_id": request_id}
    subject = _object("2", "13", NODE_ID, client.address or "unknown", name=path, details=told)
    parties = [_mkiso(settings, None, is_requestor=True), client.party(None, is_requestor=False)]
    _tell(settings, "E", SECURITY_ALERT, parties, [subject], kind=NODE_AUTHENTICATION, outcome=MINOR_FAILURE)


def _tell(
    settings: Settings,
    action: str,
    event: Code,
    parties: Iterable[Party],
    objects: Iterable[Element],
    *,
    kind: Code | None = None,
    outcome: str = SUCCESS,
) -> None:
    if not settings.audit.enabled:
        return
    now = datetime.now(UTC)
    try:
        told = message(settings, now, action, event, parties, objects, kind=kind, outcome=outcome)
        deliver(settings.audit, settings.storage, told, now)
    except (OSError, ValueError) as error:  # ValueError: a host's name that can't be one (UnicodeError)
        log.error(
            "An audit message (%s) couldn't be delivered and is kept in %s: %s",
            event[2],
            settings.storage.audit_undelivered,
            f"{error.filename}: {why_refused(error)}" if isinstance(error, OSError) and error.filename else error,
        )


def message(
    settings: Settings,
    moment: datetime,
    action: str,
    event: Code,
    parties: Iterable[Party],
    objects: Iterable[Element],
    *,
    kind: Code | None,
    outcome: str,
) -> str:
    """One AuditMessage on one line (PS3.15 A.5.1)."""
    root = Element("AuditMessage")
    told = {
        "EventActionCode": action,
        "EventDateTime": moment.isoformat(timespec="milliseconds"),
        "EventOutcomeIndicator": outcome,
    }
    identification = SubElement(root, "EventIdentification", told)
    identification.append(_coded("EventID", event))
    if kind is not None:
        identification.append(_coded("EventTypeCode", kind))
    for party in parties:
        root.append(_participant(party))
    site = {"AuditEnterpriseSiteID": settings.disc.institution} if settings.disc.institution else {}
    source = SubElement(root, "AuditSourceIdentification", {**site, "AuditSourceID": settings.audit.source_id})
    SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})  # application server
    root.extend(objects)
    for element in root.iter():
        element.attrib.update({name: _plain(value) for name, value in element.attrib.items()})
        element.text = element.text and _plain(element.text)
    return tostring(root, encoding="unicode")


def _participant(party: Party) -> Element:
    attributes = {"UserID": party.user_id, "UserIsRequestor": str(party.is_requestor).lower()}
    if party.user_name:
        attributes["UserName"] = party.user_name
    if party.address:
        attributes |= {
            "NetworkAccessPointID": party.address,
            "NetworkAccessPointTypeCode": IP_ADDRESS if _is_address(party.address) else "1",
        }
    element = Element("ActiveParticipant", attributes)
    if party.role is not None:
        element.append(_coded("RoleIDCode", party.role))
    if party.media_type is not None:
        SubElement(element, "MediaIdentifier").append(_coded("MediaType", party.media_type))
    return element


def _found(study: Study, **asker: str) -> Element:
    """A study of which nobody knows yet of which SOP Classes it is."""
    count = study.expected.count
    return _study(study.study_instance_uid, study.accession_number, {} if count is None else {"": count}, **asker)


def _study(uid: str, accession_number: str, sop_classes: Mapping[str, int], **asker: str) -> Element:
    """`sop_classes`: how many instances of each, empty where that isn't known: then nothing else may describe the study
    (A.5.2). The UID of an unknown one is empty.
    """
    counted = {"instances": str(sum(sop_classes.values()))} if sop_classes else {}
    name = f"Study of accession number {accession_number}"
    element = _object("2", "3", STUDY_INSTANCE_UID, uid, name=name, details=asker | counted)
    if sop_classes:
        description = SubElement(element, "ParticipantObjectDescription")
        SubElement(description, "Accession", {"Number": accession_number})
        for sop_class, count in sop_classes.items():
            uid_of_it = {"UID": sop_class} if sop_class else {}
            SubElement(description, "SOPClass", {**uid_of_it, "NumberOfInstances": str(count)})
    return element


def _patient(settings: Settings, patient_id: str, name: str, details: dict[str, str] | None = None) -> Element:
    return _object(
        "1",
        "1",
        PATIENT_NUMBER,
        patient_id or "unknown",
        name=name if settings.audit.patient_names else "",
        details=details or {},
    )


def _object(
    type_code: str,
    role: str,
    id_type: Code,
    object_id: str,
    *,
    name: str = "",
    query: str | bytes | None = None,
    details: dict[str, str] | None = None,
) -> Element:
    attributes = {
        "ParticipantObjectID": object_id,
        "ParticipantObjectTypeCode": type_code,
        "ParticipantObjectTypeCodeRole": role,
    }
    element = Element("ParticipantObjectIdentification", attributes)
    element.append(_coded("ParticipantObjectIDTypeCode", id_type))
    if query is None:
        SubElement(element, "ParticipantObjectName").text = name
    else:
        SubElement(element, "ParticipantObjectQuery").text = _base64(query)
    for key, value in (details or {}).items():
        SubElement(element, "ParticipantObjectDetail", {"type": key, "value": _base64(value)})
    return element


def _coded(name: str, code: Code) -> Element:
    return Element(name, {"csd-code": code[0], "codeSystemName": code[1], "originalText": code[2]})


def _mkiso(settings: Settings, role: Code | None, *, is_requestor: bool = False) -> Party:
    return Party(settings.receiver.ae_title, role, is_requestor=is_requestor)


def _source(source: Source, role: Code) -> Party:
    return Party(source.user_id, role, source.host)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _plain(text: str) -> str:
    """Without what XML 1.0 can't hold (2.2) and without line breaks: a message is one line whatever it tells of."""
    return _UNPRINTABLE.sub(" ", text)


def _base64(content: str | bytes) -> str:
    return base64.b64encode(content.encode() if isinstance(content, str) else content).decode()

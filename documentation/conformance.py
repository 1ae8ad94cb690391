"""The tables of docs/conformance.md, each asked of the code that it describes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pydicom.uid
from pydicom.uid import UID

from mkiso.audit import messages
from mkiso.config.publishers import CStore, MediaCreation
from mkiso.config.section import Section
from mkiso.config.settings import Receiver, Settings
from mkiso.errors import MkisoError, StudyIncomplete
from mkiso.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, program_version
from mkiso.media.application_profiles import NOT_MET, PDI_PROFILE, PROFILES, WRITTEN_TO
from mkiso.media.dicomdir import MEDIA_STORAGE_DIRECTORY
from mkiso.media.record_types import RECORD_TYPES
from mkiso.network import requestor
from mkiso.network.associate import APPLICATION_CONTEXT_NAME
from mkiso.network.negotiation import VERIFICATION, Rejection, decode_request, negotiate
from mkiso.network.negotiation import request_pdu as request
from mkiso.publishers import mcm, relay
from mkiso.publishers.protocol import Order
from mkiso.receiver.admission import LOCAL_LIMIT_EXCEEDED, TEMPORARY_CONGESTION
from mkiso.receiver.commitment import COMMITTING
from mkiso.receiver.negotiation import choose, storage_offer
from mkiso.sources import query
from mkiso.sources.answers import SERIES_KEYS
from mkiso.sources.cget import TRANSFER_SYNTAXES
from mkiso.sources.find import STUDY_ROOT_FIND, identifier
from mkiso.sources.move import STUDY_ROOT_MOVE
from mkiso.sources.move_outcome import MoveResult, Step, failure, next_step
from mkiso.study.character_sets import character_set
from mkiso.study.models import Arrival, Expected, Patient, Study

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
JPEG_LOSSLESS, JPEG_2000, DEFLATED = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1.99"
CT = "1.2.840.10008.5.1.4.1.1.2"

STEPS: Mapping[Step, str] = {
    Step.DONE: "complete",
    Step.PROVE: "complete if a new C-FIND lists the same",
    Step.WAIT: "wait for images, then ask for what is missing",
    Step.AGAIN: "ask for what is missing",
    Step.BACK_OFF: "wait, then ask again",
    Step.SPLIT: "ask for what is missing in smaller pieces, down to single instances",
    Step.COARSER: "ask for whole series, then for the study",
    Step.FAIL: "fail at once",
}


def table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"|{'|'.join(f' {cell} ' if str(cell) != '---' else '---' for cell in line)}|\n" for line in lines)


def implementation() -> str:
    return table(
        ["", ""],
        [
            ["Application Context Name", APPLICATION_CONTEXT_NAME],
            ["Implementation Class UID", IMPLEMENTATION_CLASS_UID],
            ["Implementation Version Name", IMPLEMENTATION_VERSION_NAME],
            ["maximum PDU length that mkiso receives as SCU", f"{requestor.MAX_PDU_BYTES} bytes"],
            ["maximum PDU length that mkiso receives as SCP", f"{Settings().receiver.max_pdu_bytes} bytes, see below"],
        ],
    )


def product() -> str:
    number = program_version().partition("+")[0]
    return table(["vendor", "product", "version"], [["the mkiso project", "mkiso", number]])


def services() -> str:
    rows = [
        (VERIFICATION, "PACS, publishers of kind `cstore` and `mcm`", "yes"),
        (STUDY_ROOT_FIND, "PACS", "no"),
        (STUDY_ROOT_MOVE, "PACS", "no"),
        (COMMITTING.abstract_syntax, "publishers with `storage_commitment: true`", "inboxes"),
        (mcm.MEDIA_CREATION.abstract_syntax, "publishers of kind `mcm`", "no"),
        (MEDIA_STORAGE_DIRECTORY, "File-set Creator", ""),
    ]
    named = [[UID(uid).name, uid, scu, scp] for uid, scu, scp in rows]
    storage = ["Storage: every Storage SOP Class", "see Storage SCP", "publishers of kind `cstore` and `mcm`", "yes"]
    return table(["SOP Class", "UID", "SCU of", "SCP"], [named[0], storage, *named[1:]])


def find_keys() -> str:
    matched = {"AccessionNumber": "single value", "StudyDate": "range", "StudyTime": "range"}
    searched = ("StudyInstanceUID", "PatientID", "PatientBirthDate", "ModalitiesInStudy")
    matched |= {**dict.fromkeys(searched, "single value"), "PatientName": "wild card at its end"}
    levels = {
        "STUDY": identifier(query.study_query()),
        "SERIES": identifier(query.series_query("1.2", *SERIES_KEYS)),
        "IMAGE": identifier(query.image_query("1.2", "1.3")),
    }
    rows = []
    for level, asked in levels.items():
        for element in asked:
            if element.keyword == "QueryRetrieveLevel":
                continue
            use = matched.get(element.keyword, "return") if level == "STUDY" else "unique key" if element.value else ""
            tag = f"({element.tag.group:04X},{element.tag.element:04X})"
            rows.append([level, element.keyword, tag, element.VR, use or "return"])
    return table(["level", "attribute", "tag", "VR", "matching"], rows)


def find_statuses() -> str:
    rows = [
        [f"{status:04X}", f"`{error.code}`", "yes" if error.retriable else "no"]
        for status in (0xA700, 0xA900, 0xC000, 0xFE00, 0x0122)
        for error in [query.failure("The PACS", status)]
    ]
    return table(["final status", "error", "tried again"], rows)


def move_statuses() -> str:
    expected = Expected("image", 8, {"1.2": frozenset(f"1.2.{number}" for number in range(8))})
    ends = {
        "0000": MoveResult(0x0000, completed=8, failed=0),
        "0000, with failed sub-operations": MoveResult(0x0000, completed=7, failed=1),
        "B000": MoveResult(0xB000, completed=7, failed=1),
        "none: the connection was lost": MoveResult(None),
        **{f"{status:04X}": MoveResult(status) for status in (0xA701, 0xA702, 0xA801, 0xA900, 0x0120, 0x0122, 0xC000)},
        "FE00, any other": MoveResult(0xFE00),
    }

    def step(result: MoveResult, complete: bool, level: Any) -> str:
        arrived = 8 if complete else 7
        found = next_step(
            result, expected=expected, complete=complete, arrived=arrived, level=level, grew=False, came=True
        )
        return STEPS[found]

    def error(result: MoveResult) -> type[MkisoError]:
        found = failure(result, "The PACS", Receiver(), Study("1", "1.2", "3"))
        return type(found) if found else StudyIncomplete

    rows = [
        [name, step(end, True, "STUDY"), step(end, False, "STUDY"), step(end, False, "IMAGE"), f"`{error(end).code}`"]
        for name, end in ends.items()
    ]
    heads = ["final status", "every listed instance came", "one is missing; a study was asked for"]
    return table([*heads, "… series or instances were asked for", "error in the end"], rows)


def get_syntaxes() -> str:
    return table(["transfer syntax", "UID"], [[UID(syntax).name, syntax] for syntax in TRANSFER_SYNTAXES])


def transfer_syntaxes() -> str:
    proposals = [
        [EXPLICIT, IMPLICIT], [IMPLICIT, EXPLICIT], [BIG_ENDIAN, IMPLICIT, EXPLICIT], [IMPLICIT],
        [BIG_ENDIAN, IMPLICIT], [JPEG_LOSSLESS, EXPLICIT], [EXPLICIT, JPEG_LOSSLESS], [JPEG_2000], [DEFLATED, EXPLICIT],
    ]  # fmt: skip
    rows = [
        ["; ".join(UID(uid).name for uid in proposed), UID(str(choose(CT, proposed))).name] for proposed in proposals
    ]
    return table(["proposed, in this order", "accepted"], rows)


def rejections() -> str:
    encoded = request("CDRECORD", "PACS", [(CT, EXPLICIT)], 16384)
    offered = Settings().receiver
    cases: list[tuple[str, bytes, dict[str, Any]]] = [
        ("the called AE title isn't `receiver.ae_title`", request("ELSE", "PACS", [(CT, EXPLICIT)], 16384), {}),
        ("the peer isn't one of `receiver.allowed_peers`", encoded, {"allowed_peers": ("OTHER",)}),
        ("its application context is another one", encoded.replace(b"10008.3.1.1.1", b"10008.3.1.1.2"), {}),
        ("its protocol version is another one", encoded[:6] + b"\0\2" + encoded[8:], {}),
        ("it takes only PDUs that hold no response", request("CDRECORD", "PACS", [(CT, EXPLICIT)], 10), {}),
    ]
    rows: list[list[object]] = []
    for why, pdu, changed in cases:
        answer = negotiate(decode_request(pdu[6:]), storage_offer(offered.model_copy(update=changed)), "192.0.2.1")
        assert isinstance(answer, Rejection), why
        rows.append([why, *answer.pdu[7:10]])
    rows.append(["`receiver.max_associations_per_peer` is reached", 2, 3, LOCAL_LIMIT_EXCEEDED])
    rows.append(["`receiver.max_associations` is reached", 2, 3, TEMPORARY_CONGESTION])
    return table(["why", "result", "source", "reason"], rows)


def parameters() -> str:
    settings = Settings()
    pacs = ["ae_title", "host", "port", "calling_ae_title", "find_limit", "max_moves", "move_attempts"]
    pacs += ["connect_timeout_seconds", "response_timeout_seconds", "quiet_timeout_seconds"]
    receiver = ["ae_title", "host", "port", "max_pdu_bytes", "max_associations", "max_associations_per_peer"]
    receiver += ["max_instance_gib", "pdu_timeout_seconds", "idle_timeout_seconds", "allowed_peers"]
    publisher = ["ae_title", "host", "port", "calling_ae_title", "connect_timeout_seconds", "response_timeout_seconds"]
    publisher += ["attempts", "settle_seconds", "silent_minutes", "commitment_port"]
    rows = [
        *_parameters("pacs", settings.pacs, pacs),
        *_parameters("receiver", settings.receiver, receiver),
        *_parameters("publishers.NAME", CStore(), publisher),
    ]
    return table(["key", "default", "at least", "at most"], rows)


def store_statuses() -> str:
    meanings = {"accepted": "counts", "warning": "counts; the run names it", "refused": "the job fails"}
    meanings["busy"] = "sent again on the same association, `attempts` times in all; then the job fails"
    rows = [
        [name, meanings[relay.verdict(status)]]
        for name, status in (("0000", 0), ("Bxxx", 0xB007), ("A7xx", 0xA700), ("any other", 0xC000))
    ]
    return table(["status of a C-STORE response", "what follows"], rows)


def media_request() -> str:
    instance = Arrival("1.2.3", CT, EXPLICIT, "1.2", Path("/f"), 1, "")
    order = Order(job_id="job", patient=Patient("1", "DOE^JANE"), accession_numbers=("1",), instances=(instance,))
    made = mcm.media_request(order, MediaCreation())
    given = {"LabelText": "what `label_fields` asks for", "ReferencedSOPSequence": "every instance"}
    item = {"RequestedMediaApplicationProfile": "the profile that allows all instances; absent where none does"}
    rows = [[element.keyword, given.get(element.keyword, element.value)] for element in made]
    rows += [
        [f"> {element.keyword}", item.get(element.keyword, "its UID")] for element in made.ReferencedSOPSequence[0]
    ]
    return table(["attribute of the N-CREATE", "value"], rows)


def media_states() -> str:
    meanings = {
        "absent": "waited for; with no start after `silent_minutes`, the outcome is unknown",
        "waiting": "waited for",
        "running": "waited for",
        "done": "the disc is made",
        "failed": "the job fails",
    }
    return table(["Execution Status", "what follows"], [[state, meanings[what]] for state, what in mcm.STATES.items()])


def profiles() -> str:
    rows = []
    for medium, those in PROFILES.items():
        claim = f"yes, written to {WRITTEN_TO[medium]}" if medium in WRITTEN_TO else f"never: {NOT_MET[medium]}"
        for profile in those:
            pdi = "yes" if medium in WRITTEN_TO and profile.name == PDI_PROFILE else "no"
            rows.append([f"`{medium}`", profile.name, profile.annex, profile.media_annex, claim, pdi])
    return table(["`disc.medium`", "profile", "PS3.11 annex", "PS3.12 annex", "can be claimed", "IHE PDI"], rows)


def profile_syntaxes() -> str:
    known = {profile.name: profile.transfer_syntaxes for those in PROFILES.values() for profile in those}
    syntaxes = sorted({uid for uids in known.values() for uid in uids}, key=_numbers)
    rows = [[UID(uid).name, uid, *("yes" if uid in uids else "" for uids in known.values())] for uid in syntaxes]
    return table(["transfer syntax", "UID", *known], rows)


def record_types() -> str:
    rows = [
        [kind, ", ".join(UID(getattr(pydicom.uid, name)).name.removesuffix(" Storage") for name in names)]
        for kind, names in RECORD_TYPES.items()
    ]
    rows.append(["IMAGE", "every SOP Class with “Image Storage” in its name, and any other whose instance has Rows"])
    rows.append(
        ["RAW DATA", "any other, unless the instance has a document's, a report's or a presentation's attributes"]
    )
    return table(["Directory Record Type", "SOP Classes (without “Storage” at the end)"], rows)


def terms() -> str:
    """The defined terms of Specific Character Set that are read."""
    spelled = [f"ISO_IR {number}" for number in range(1, 256)] + ["GB18030", "GBK"]
    single = [term for term in spelled if character_set(term.encode()).term == term.encode()]
    extended = [
        f"ISO 2022 IR {number}"
        for number in range(1, 256)
        if character_set(rb"\ISO 2022 IR %d" % number).term == rb"\ISO 2022 IR %d" % number
    ]
    return table(["", ""], [["one set", ", ".join(single)], ["with code extensions", ", ".join(extended)]])


def audit_events() -> str:
    rows = [[event[2], event[0], clause] for event, clause in messages.CLAUSES.items()]
    return table(["event", "EventID", "PS3.15"], rows)


TABLES: Mapping[str, Callable[[], str]] = {
    each.__name__: each
    for each in (
        implementation, product, services, find_keys, find_statuses, move_statuses, get_syntaxes, transfer_syntaxes,
        rejections,
        parameters, store_statuses, media_request, media_states, profiles, profile_syntaxes, record_types, terms,
        audit_events,
    )
}  # fmt: skip


def _parameters(section: str, settings: Section, names: Iterable[str]) -> Iterable[list[object]]:
    for name in names:
        bounds = {
            bound: value
            for rule in type(settings).model_fields[name].metadata
            for bound in ("ge", "gt", "le")
            if (value := getattr(rule, bound, None)) is not None
        }
        least = bounds.get("ge", f"more than {bounds['gt']}" if "gt" in bounds else "")
        default = getattr(settings, name)
        yield [f"`{section}.{name}`", "none" if default in (None, ()) else default, least, bounds.get("le", "")]


def _numbers(uid: str) -> list[int]:
    return [int(component) for component in uid.split(".")]

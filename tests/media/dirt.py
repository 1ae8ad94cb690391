"""Dirty but real data: for every record type each attribute that it is made from with each kind of dirt, as Part 10
files.

for sample in samples("PRESENTATION"): write(sample, folder)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pydicom.uid
from pydicom.datadict import dictionary_VR, tag_for_keyword

from mkiso.media.record_keys import KEYS, Key
from mkiso.media.record_types import RECORD_TYPES

Value = bytes | Sequence["Values"]
Values = Mapping[str, Value]
"""Attributes by keyword: as encoded, or items. A keyword after a VR and a space is written with that VR ("SL Rows")."""

CLASSES = {kind: [str(getattr(pydicom.uid, names[0]))] for kind, names in RECORD_TYPES.items()} | {
    "IMAGE": [str(pydicom.uid.CTImageStorage)],
    "PRESENTATION": [
        str(pydicom.uid.GrayscaleSoftcopyPresentationStateStorage),
        str(pydicom.uid.BlendingSoftcopyPresentationStateStorage),
    ],
    "ENCAP DOC": [str(pydicom.uid.EncapsulatedPDFStorage), str(pydicom.uid.EncapsulatedCDAStorage)],
}
LEVELS = ("PATIENT", "STUDY", "SERIES")
"""Record types that are made from any instance."""

_CLEAN = {
    "CS": b"ORIGINAL\\PRIMARY", "DA": b"20240229", "DS": b"0.5", "DT": b"20240229101500", "IS": b"3",
    "LO": b"Some text", "PN": b"Example^Anna",
    "SH": b"LABEL", "ST": b"Some text", "TM": b"101500", "UC": b"1", "UI": b"1.2.3", "UL": struct.pack("<I", 4),
    "US": struct.pack("<H", 4),
    "UR": b"urn:oid:1.2", "UT": b"Some text",
}  # fmt: skip
_CLEAN_BY_KEYWORD: dict[str, Value] = {
    "AccessionNumber": b"A1", "AcquisitionTimeSynchronized": b"Y", "CalibrationImage": b"NO",
    "CompletionFlag": b"COMPLETE", "ContentLabel": b"LABEL", "DoseSummationType": b"PLAN",
    "ImageOrientationPatient": b"1\\0\\0\\0\\1\\0", "ImagePositionPatient": b"-1.5\\0\\2e1", "Modality": b"OT",
    "PixelSpacing": b"0.5\\0.5",
    "MIMETypeOfEncapsulatedDocument": b"application/pdf", "PatientSex": b"F", "RelationshipType": b"HAS CONCEPT MOD",
    "ValueType": b"CODE",
    "VerificationFlag": b"VERIFIED", "VerifyingObserverSequence": [{"VerificationDateTime": b"20240229110000"}],
}  # fmt: skip
_TEXT_DIRT: Mapping[str, Values] = {
    "overlong": {
        "": b"An overlong value, such as a technician types one, of more than all that its VR has room for" * 12
    },
    "overlong in UTF-8": {"": "ค่าที่ยาวเกินไป".encode() * 80, "SpecificCharacterSet": b"ISO_IR 192"},
    "overlong in Latin-1": {"": "Übermäßig lang".encode("latin-1") * 80, "SpecificCharacterSet": b"ISO_IR 100"},
    "lines": {"": b"one\r\ntwo\nthree"},
    "controls": {"": b"a\x00b\x07c\x7f\x1bd"},
    "nothing but controls": {"": b"\t\r\n"},
    "a page of Windows": {"": b"it\x92s \x84so\x93", "SpecificCharacterSet": b"ISO_IR 100"},
    "several values": {"": b"one\\two\\three"},
    "many groups": {"": b"a=b=c=d=e"},
    "many components": {"": b"a^b^c^d^e^f^g"},
    "undeclared": {"": "Müller".encode("latin-1"), "SpecificCharacterSet": b""},
    "undeclared UTF-8": {"": "Müller".encode(), "SpecificCharacterSet": b""},
    "Thai": {"": "ตัวอย่าง".encode("tis-620"), "SpecificCharacterSet": b"ISO_IR 166"},
    "a set of Python's": {"": "Иванов".encode("cp1251"), "SpecificCharacterSet": b"cp1251"},
    "a set of nobody's": {"": "Иванов".encode("cp1251"), "SpecificCharacterSet": b"ISO_IR 999"},
    "plain in a set of Python's": {"": b"Ivanov", "SpecificCharacterSet": b"cp1251"},
    "plain in a set of nobody's": {"": b"Ivanov", "SpecificCharacterSet": b"RUSSIAN"},
    "cut UTF-8": {"": "Müller".encode()[:2], "SpecificCharacterSet": b"ISO_IR 192"},
    "Japanese": {"": b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "SpecificCharacterSet": b"\\ISO 2022 IR 87"},
    "Japanese with lines": {"": b"\x1b$B;3ED\x1b(B\r\n\x1b$BB@O:\x1b(B", "SpecificCharacterSet": b"\\ISO 2022 IR 87"},
    "Japanese, sets without ISO 2022": {"": b"\x1b$B;3ED\x1b(B", "SpecificCharacterSet": b"ISO_IR 13\\ISO_IR 87"},
    "Korean without its set": {"": b"\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce", "SpecificCharacterSet": b"\\ISO 2022 IR 87"},
    "Chinese with bytes like delimiters": {"": "誠^許功蓋".encode("gb18030"), "SpecificCharacterSet": b"GB18030"},
    "Unicode and more": {"": "Łoś".encode(), "SpecificCharacterSet": b"ISO_IR 192\\ISO 2022 IR 87"},
}
_DIRT: Mapping[str, Mapping[str, Values]] = {
    "CS": {
        "small letters": {"": b"original\\primary"}, "a letter": {"": b"x"}, "others": {"": b"C-T/M.R"},
        "overlong": {"": b"A" * 17},
        "beyond ASCII": {"": b"\xdcBER"}, "three values": {"": b"CT\\MR\\PT"}, "an empty one": {"": b"\\PRIMARY"},
        "one": {"": b"ORIGINAL"},
        "longer than 16 bits tell": {"": b"ORIGINAL\\PRIMARY\\" + b"ABCDEFG\\" * 8189},
    },
    "DA": {
        "of ACR-NEMA": {"": b"2024.02.29"}, "no day": {"": b"20240230"}, "zeros": {"": b"00000000"},
        "short": {"": b"202402"},
        "a range": {"": b"20240101-20240131"}, "words": {"": b"yesterday"}, "two": {"": b"20240229\\20240301"},
        "American": {"": b"02/29/2024"},
    },
    "DT": {
        "no day": {"": b"20240230101500"}, "a zone": {"": b"20240229101500.5+0100"}, "cut": {"": b"2024022910150"},
        "of ACR-NEMA": {"": b"2024.02.29 10:15"}, "words": {"": b"yesterday"}, "two": {"": b"20240229\\20240301"},
    },
    "TM": {
        "of ACR-NEMA": {"": b"10:15:00"}, "no hour": {"": b"250000"}, "long fraction": {"": b"101500.1234567"},
        "a range": {"": b"1015-1115"},
        "words": {"": b"noon"}, "two": {"": b"101500\\111500"}, "cut": {"": b"10150"},
    },
    "DS": {
        "too long": {"": b"0.12345678901234567\\0.5"}, "words": {"": b"half"}, "one": {"": b"0.5"},
        "a comma": {"": b"0,5\\0,5"}, "spaces": {"": b" 0.5 \\0.5"}, "beyond all": {"": b"1e999999999999999\\1"},
    },
    "IS": {
        "decimal": {"": b"3.0"}, "fraction": {"": b"3.5"}, "too large": {"": b"2147483648"},
        "too long": {"": b"0000000000000000003"},
        "words": {"": b"three"}, "two": {"": b"3\\4"}, "hexadecimal": {"": b"0x3"}, "spaces within": {"": b"1 2"},
    },
    "UI": {
        "leading zero": {"": b"1.2.03.4"}, "overlong": {"": b"1.2." + b"3" * 70}, "empty component": {"": b"1.2..3"},
        "words": {"": b"not.a.uid"},
        "two": {"": b"1.2.3\\1.2.4"}, "dot": {"": b"1.2.3."},
    },
    "US": {"wrong VR": {"SL ": struct.pack("<i", 70_000)}, "text": {"IS ": b"4 "}, "two": {"": struct.pack("<HH", 4,
    5)}},
    "UL": {"wrong VR": {"SL ": struct.pack("<i", -4)}, "text": {"IS ": b"4 "},
    "three bytes": {"OB ": b"\x01\x02\x03\x04\x05\x06"}},
    "SQ": {"wrong VR": {"LO ": b"no items"}, "an empty item": {"": [{}]}, "no items": {"": []}},
    **dict.fromkeys(("LO", "PN", "SH", "ST", "UC", "UT"), _TEXT_DIRT),
    "UR": {"spaces": {"": b"a b"}, "beyond ASCII": {"": b"\xdc"}},
}  # fmt: skip
_OWN = frozenset({"PatientID", "StudyInstanceUID", "SeriesInstanceUID"})  # of each sample, so that records don't merge
_STUDY_UIDS = frozenset({"leading zero"})  # what else is wrong with one, the receiver refuses
_DEEP = frozenset(
    {"overlong", "controls", "undeclared UTF-8", "Thai", "leading zero", "small letters", "an empty item"}
)


@dataclass(frozen=True)
class Sample:
    """One instance: what is dirty in it, and its attributes."""

    name: str
    sop_class_uid: str
    values: Values = field(default_factory=dict)


def samples(kind: str) -> Iterator[Sample]:
    """A clean instance for this record type, and one for each attribute and each dirt that it can have; of a level,
    the level's attributes."""
    for sop_class_uid in CLASSES.get(kind, CLASSES["IMAGE"]):
        yield from _samples(kind, sop_class_uid, [key for key in KEYS[kind] if key.type_for(sop_class_uid)])


def _samples(kind: str, sop_class_uid: str, keys: list[Key]) -> Iterator[Sample]:
    clean = Sample("clean", sop_class_uid, {word: value for word, value in _values(keys).items() if word not in _OWN})
    yield clean
    for key in keys:
        if (kind, key.keyword) == ("KEY OBJECT DOC", "ContentSequence"):  # as in SR DOCUMENT
            continue
        for name, dirty in _dirty(key):
            yield replace(clean, name=f"{key.keyword}: {name}", values={**clean.values, **dirty})


def write(sample: Sample, number: int, folder: Path) -> Path:
    """The instance as a Part 10 file; `number` makes it one of a series and a study of its own unless its attributes
    say which."""
    uid = f"1.2.840.99999.{number}".encode()
    values = {
        "SpecificCharacterSet": b"ISO_IR 100", "PatientID": b"P%d" % number, "PatientName": b"Example^Anna",
        "StudyDate": b"20240229",
        "StudyTime": b"101500", "StudyID": b"S1", "StudyInstanceUID": uid + b".1", "SeriesInstanceUID": uid + b".2",
        "SeriesNumber": b"1",
        "Modality": b"OT", "InstanceNumber": b"1", "AccessionNumber": b"A1",
        **sample.values,
        "SOPClassUID": sample.sop_class_uid.encode(), "SOPInstanceUID": uid + b".3",
    }  # fmt: skip
    meta = _encoded({"MediaStorageSOPClassUID": sample.sop_class_uid.encode(),
    "MediaStorageSOPInstanceUID": uid + b".3",
                     "TransferSyntaxUID": b"1.2.840.10008.1.2.1"})  # fmt: skip
    file = folder / f"{number:05}.dcm"
    file.write_bytes(bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta + _encoded(values))
    return file


def _values(keys: Sequence[Key]) -> dict[str, Value]:
    without = ("LongCodeValue", "URNCodeValue", "TextValue")
    values = {key.keyword: _clean(key) for key in keys if key.keyword not in without}
    if "VerificationFlag" in values:
        values["VerifyingObserverSequence"] = _CLEAN_BY_KEYWORD["VerifyingObserverSequence"]
    return values


def _clean(key: Key) -> Value:
    if key.vr == "SQ":
        return [_values(key.items)] * key.fewest
    return _CLEAN_BY_KEYWORD.get(key.keyword, _CLEAN[key.vr])


def _dirty(key: Key, depth: int = 0) -> Iterator[tuple[str, Values]]:
    """Each kind of dirt of an attribute, of a sequence's items too, and its absence; of items in items less."""
    if key.keyword != "StudyInstanceUID":
        yield "absent", {key.keyword: b"" if key.vr != "SQ" else []}
    for name, dirt in _DIRT[key.vr].items():
        if (key.keyword == "StudyInstanceUID" and name not in _STUDY_UIDS) or (depth > 1 and name not in _DEEP):
            continue
        yield (
            name,
            {
                f"{vr}{key.keyword}" if vr in ("", "SL ", "IS ", "OB ", "LO ") else vr: value
                for vr, value in dirt.items()
            },
        )
    for inner in key.items:
        for name, dirty in _dirty(inner, depth + 1):
            sets = {"SpecificCharacterSet": dirty["SpecificCharacterSet"]} if "SpecificCharacterSet" in dirty else {}
            whole = [{**_values(key.items), **dirty}] * key.fewest
            yield f"{inner.keyword}: {name}", {key.keyword: whole}
            if sets:  # the same text with the set of the data set around it, or with another one
                without = [
                    {keyword: value for keyword, value in each.items() if keyword != "SpecificCharacterSet"}
                    for each in whole
                ]
                yield f"{inner.keyword}: {name}, inherited", {key.keyword: without, **sets}
                yield f"{inner.keyword}: {name}, none inherited", {key.keyword: without, "SpecificCharacterSet": b""}
    if key.most == 1 and key.vr == "SQ":
        yield "two items", {key.keyword: [_values(key.items)] * 2}


def _encoded(values: Values) -> bytes:
    content = b""
    found = {}
    for keyword, value in values.items():  # a later one replaces an earlier one, with whatever VR
        tag = tag_for_keyword(keyword.rpartition(" ")[2])
        assert tag is not None, keyword
        found[tag] = keyword.rpartition(" ")[0] or dictionary_VR(tag), value
    for tag, (vr, value) in sorted(found.items()):
        encoded = value if isinstance(value, bytes) else b"".join(map(_item, value))
        encoded += (b"\x00" if vr in ("UI", "OB") else b" ") * (len(encoded) % 2)
        long = vr in ("OB", "SQ", "UC", "UN", "UR", "UT")
        if not long and len(encoded) > 0xFFFE:
            vr, long = "UT", True
        head = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(encoded)) if long else b""
        content += (head or struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(encoded))) + encoded
    return content


def _item(values: Values) -> bytes:
    encoded = _encoded(values)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(encoded)) + encoded

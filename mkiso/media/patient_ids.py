"""The Patient ID of each PATIENT record: the images' own where it may stand there, and unique in the file-set (PS3.3
F.5.1)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection

from mkiso.media.conforming import conforming
from mkiso.media.file_set import PatientBranch
from mkiso.media.record_keys import KEYS
from mkiso.media.record_values import FILLED
from mkiso.media.records import Notes
from mkiso.study.text import Text

UNLIKE = "not fit for a record, replaced by what is left of it and a hash in {} of the DICOMDIR, not in the images"
QUALIFIED = (
    "shared by several patients, told apart by issuer, birth date or sex in {} of the DICOMDIR, not in the images"
)

_KEY = next(key for key in KEYS["PATIENT"] if key.keyword == "PatientID")
_MOST_CHARACTERS, _HASH_CHARACTERS = 64, 16


def patient_ids(tree: Collection[PatientBranch], notes: Notes) -> list[Text]:
    """The Patient IDs of a tree's patients, each another one. What isn't as in the images is counted in `notes`."""
    found = [_fit(branch, number, notes) for number, branch in enumerate(tree, 1)]
    shared = Counter(map(str, found))
    for number, branch in enumerate(tree):
        if shared[str(found[number])] > 1 and branch.told_apart:
            found[number] = _qualified(found[number], branch.told_apart)
            notes[f"PATIENT, PatientID: {QUALIFIED}"] += 1
    return found


def _fit(branch: PatientBranch, number: int, notes: Notes) -> Text:
    if not branch.patient_id:
        notes[f"PATIENT, PatientID: {FILLED}"] += 1
        return Text(f"NOID{number:06d}".encode())
    if fit := conforming(_KEY, branch.patient_id).value:
        return fit
    notes[f"PATIENT, PatientID: {UNLIKE}"] += 1
    return _hashed(str(branch.patient_id), branch.patient_id)


def _qualified(patient_id: Text, told_apart: str) -> Text:
    """With what tells it apart, or where that is too long with its hash, behind it."""
    digest = hashlib.sha256(told_apart.encode()).hexdigest()[:_HASH_CHARACTERS]
    written = [patient_id.rewritten(f"{patient_id} ({words})") for words in (told_apart, digest)]
    fit = next(filter(None, (conforming(_KEY, each).value for each in written)), None)
    return fit or _hashed(str(patient_id), written[0])


def _hashed(text: str, of: Text) -> Text:
    """What can be read of a text, and a hash that tells it from every other one."""
    digest = hashlib.sha256(of.value).hexdigest()[:_HASH_CHARACTERS]
    readable = "".join(character if character.isascii() and character.isalnum() else "_" for character in text).strip(
        "_"
    )
    return Text(f"{readable[: _MOST_CHARACTERS - _HASH_CHARACTERS - 1]}#{digest}".encode())

"""Which application profile of PS3.11 a disc meets, by its medium and its transfer syntaxes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pydicom.uid import UID

from mkiso.config import Medium

_BASE = frozenset({"1.2.840.10008.1.2.1"})
_JPEG = _BASE | {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.70"}
_JPEG_2000 = _BASE | {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}
_PROFILES: Mapping[Medium, tuple[tuple[str, frozenset[str]], ...]] = {  # PS3.11 D, H and L
    "cd": (("STD-GEN-CD", _BASE),),
    "dvd": (("STD-GEN-DVD-JPEG", _JPEG), ("STD-GEN-DVD-J2K", _JPEG_2000)),
    "dvd-dl": (("STD-GEN-DVD-JPEG", _JPEG), ("STD-GEN-DVD-J2K", _JPEG_2000)),
    "bd": (("STD-GEN-BD-JPEG", _JPEG), ("STD-GEN-BD-J2K", _JPEG_2000)),
    "bd-dl": (("STD-GEN-BD-JPEG", _JPEG), ("STD-GEN-BD-J2K", _JPEG_2000)),
}


def conformance(medium: Medium, transfer_syntax_uids: Collection[str]) -> str:
    """The statement of README.TXT: the profile that is met, or that none is and which transfer syntaxes stand in the way."""
    for name, allowed in _PROFILES[medium]:
        if allowed.issuperset(transfer_syntax_uids):
            return f"This disc meets the DICOM application profile {name} (PS3.11)."
    beyond = sorted(set(transfer_syntax_uids) - _PROFILES[medium][0][1])
    names = ", ".join(f"{UID(uid).name} ({uid})" for uid in beyond)
    nearest = _PROFILES[medium][0][0]
    return f"This disc is built like {nearest} (PS3.11) and does not meet it: some images are stored as {names}, as they were archived."

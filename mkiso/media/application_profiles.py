"""Media storage application profiles (PS3.11) and IHE PDI: what a disc meets by what is on it, clause by clause, or
nothing.

docs/conformance.md has the same in a table, which a test compares with this one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID

from mkiso.config.section import Carrier
from mkiso.study.models import Arrival

_BASE = frozenset({"1.2.840.10008.1.2.1"})
_JPEG = _BASE | {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.70"}
_JPEG_2000 = _BASE | {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}
# Of names with "Storage" in them, those of no composite object: a media directory, and Storage Commitment.
_NO_OBJECTS = frozenset({"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"})


@dataclass(frozen=True, slots=True)
class Profile:
    """An application profile for a medium: its name, the annexes of PS3.11 and PS3.12 that define it, and its transfer
    syntaxes.
    """

    name: str
    annex: str
    media_annex: str
    transfer_syntaxes: frozenset[str]

    @property
    def secure_name(self) -> str:
        """Of its form for encrypted DICOM files."""
        return self.name.replace("STD-GEN-", "STD-GEN-SEC-")


PROFILES: Mapping[Carrier, tuple[Profile, ...]] = {
    "cd": (Profile("STD-GEN-CD", "D", "F", _BASE),),
    "dvd": (Profile("STD-GEN-DVD-JPEG", "H", "P", _JPEG), Profile("STD-GEN-DVD-J2K", "H", "P", _JPEG_2000)),
    "dvd-dl": (Profile("STD-GEN-DVD-JPEG", "H", "P", _JPEG), Profile("STD-GEN-DVD-J2K", "H", "P", _JPEG_2000)),
    "bd": (Profile("STD-GEN-BD-JPEG", "M", "X", _JPEG), Profile("STD-GEN-BD-J2K", "M", "X", _JPEG_2000)),
    "bd-dl": (Profile("STD-GEN-BD-JPEG", "M", "X", _JPEG), Profile("STD-GEN-BD-J2K", "M", "X", _JPEG_2000)),
    "zip": (Profile("STD-GEN-ZIP-MAIL", "L", "V", _BASE),),
    "zip-encrypted": (Profile("STD-GEN-ZIP-MAIL", "L", "V", _BASE),),
    "usb": (Profile("STD-GEN-USB-JPEG", "J", "R", _JPEG), Profile("STD-GEN-USB-J2K", "J", "R", _JPEG_2000)),
}
WRITTEN_TO: Mapping[Carrier, str] = {
    "cd": "a CD-R",
    "dvd": "a DVD-R or DVD+R",
    "bd": "a BD-R with one layer",
    "usb": "a USB stick with FAT32",
}
"""What an image of ours has to be written to for a profile to be met, where one can be."""
NOT_MET: Mapping[Carrier, str] = {
    "dvd-dl": "PS3.12 annex P doesn't name discs with two layers",
    "bd-dl": "mkiso claims the profiles for Blu-ray discs with one layer alone",
    "zip": "PS3.11 annex L has profiles for ZIP files as attachments of an e-mail alone",
    "zip-encrypted": "PS3.11 has no profile for encrypted ZIP files",
}
"""Why our images for a medium meet no profile, whatever is on them."""
PDI_PROFILE = "STD-GEN-CD"
"""The one profile under which IHE PDI is claimed: its base. Its options are not."""


def profile_for(medium: Carrier, instances: Collection[Arrival]) -> Profile | None:
    """The profile of a medium that allows all these instances, None where none does."""
    if any(_obstacles(instances)):
        return None
    used = {instance.transfer_syntax_uid for instance in instances}
    return next((profile for profile in PROFILES[medium] if used <= profile.transfer_syntaxes), None)


def statement(medium: Carrier, instances: Collection[Arrival], *, is_secure: bool = False, converted: int = 0) -> str:
    """What README.TXT says: the profile that the disc meets, or that it meets none and why. `is_secure`: all its DICOM
    files are encrypted, as the profiles' secure forms want it (PS3.11 D.3.5, H.3.5, J.3.5, M.3.5); IHE PDI has none.
    `converted`: how many of the instances were made Explicit VR Little Endian for it.
    """
    archived = (
        f"{converted} of {len(instances)} images were stored otherwise and are Explicit VR Little Endian here; their "
        "values are the same."
        if converted
        else "All images are as they were archived."
    )
    profile = profile_for(medium, instances)
    if profile and medium in WRITTEN_TO:
        pdi = ", and IHE Portable Data for Imaging (PDI)" if profile.name == PDI_PROFILE and not is_secure else ""
        name = profile.secure_name if is_secure else profile.name
        met = f"Written to {WRITTEN_TO[medium]}, it meets the DICOM application profile {name} (PS3.11){pdi}."
        return f"{met} {archived}" if converted else met
    reasons = [NOT_MET[medium]] if medium in NOT_MET else list(_obstacles(instances)) or [_syntaxes(medium, instances)]
    return f"It meets no DICOM application profile (PS3.11): {'; '.join(reasons)}. {archived}"


def _obstacles(instances: Iterable[Arrival]) -> Iterable[str]:
    """What no general purpose profile allows on any medium."""
    beyond = sorted({instance.sop_class_uid for instance in instances if not _is_standard(instance.sop_class_uid)})
    if beyond:
        yield f"some objects are of SOP classes that PS3.4 hasn't or has no more ({', '.join(beyond)})"
    if not all(UID(instance.sop_instance_uid).is_valid for instance in instances):
        yield "some objects have UIDs that are not valid (PS3.5 9.1)"


def _syntaxes(medium: Carrier, instances: Iterable[Arrival]) -> str:
    beyond = {instance.transfer_syntax_uid for instance in instances} - PROFILES[medium][0].transfer_syntaxes
    return f"some images are stored as {', '.join(f'{UID(uid).name} ({uid})' for uid in sorted(beyond))}"


def _is_standard(sop_class_uid: str) -> bool:
    """Whether a composite object is of a media storage SOP class of PS3.4 annex I; a retired one isn't, and none of
    those that PS3.6 lists for other standards (DICOS, DICONDE)."""
    name, kind, elsewhere, retired, *_ = UID_dictionary.get(sop_class_uid, ("", "", "", "Retired"))
    is_ours = kind == "SOP Class" and not elsewhere and not retired
    return is_ours and "Storage" in name and sop_class_uid not in _NO_OBJECTS

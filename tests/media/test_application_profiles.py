"""What a disc claims to be, and nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from pydicom import uid

from mkiso.config.section import Carrier, Medium
from mkiso.media.application_profiles import NOT_MET, PROFILES, WRITTEN_TO, profile_for, statement
from mkiso.study.models import Arrival

EXPLICIT, JPEG, JPEG_2000 = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90"


def held(*syntaxes: str, sop_class: str = uid.CTImageStorage, sop_instance: str = "1.2.3") -> list[Arrival]:
    return [Arrival(sop_instance, sop_class, syntax, "1.2", Path("/f"), 1, "") for syntax in syntaxes]


@pytest.mark.parametrize(
    ("medium", "instances", "met", "pdi", "words"),
    [
        ("cd", held(EXPLICIT), "STD-GEN-CD", True, "Written to a CD-R"),
        ("dvd", held(EXPLICIT), "STD-GEN-DVD-JPEG", False, "Written to a DVD-R"),
        ("dvd", held(EXPLICIT, JPEG), "STD-GEN-DVD-JPEG", False, ""),
        ("dvd", held(EXPLICIT, JPEG_2000), "STD-GEN-DVD-J2K", False, ""),
        ("dvd", held(JPEG, JPEG_2000), "", False, "some images are stored as JPEG 2000"),
        ("cd", held(EXPLICIT, JPEG_2000), "", False, "some images are stored as JPEG 2000"),
        ("cd", held("1.2.840.10008.1.2"), "", False, "stored as Implicit VR Little Endian (1.2.840.10008.1.2)"),
        ("dvd-dl", held(EXPLICIT), "", False, "two layers"),
        ("bd", held(EXPLICIT, JPEG), "STD-GEN-BD-JPEG", False, "Written to a BD-R with one layer"),
        ("bd", held(JPEG_2000), "STD-GEN-BD-J2K", False, ""),
        ("bd-dl", held(EXPLICIT), "", False, "with one layer alone"),
        ("usb", held(EXPLICIT, JPEG), "STD-GEN-USB-JPEG", False, "Written to a USB stick with FAT32"),
        ("usb", held(JPEG_2000), "STD-GEN-USB-J2K", False, ""),
        ("zip", held(EXPLICIT), "", False, "annex L"),
        ("cd", held(EXPLICIT, sop_class="1.2.840.99999.1"), "", False, "SOP classes that PS3.4 hasn't or has no more "
            "(1.2.840.99999.1)"),
        # ultrasound of before 1995
        ("cd", held(EXPLICIT, sop_class="1.2.840.10008.5.1.4.1.1.6"), "", False, "has no more"),
        ("cd", held(EXPLICIT, sop_class=uid.DICOSCTImageStorage), "", False, "SOP classes that PS3.4 hasn't"),
        ("cd", held(EXPLICIT, sop_instance="1.2.03"), "", False, "not valid"),
        ("cd", held(EXPLICIT, sop_class=uid.BasicTextSRStorage), "STD-GEN-CD", True, ""),
    ],
)  # fmt: skip
def test_a_profile_is_claimed_where_each_clause_is_met(
    medium: Carrier, instances: list[Arrival], met: str, pdi: bool, words: str
) -> None:
    said = statement(medium, instances)
    assert ("it meets the DICOM application profile" in said) == bool(met)
    assert "It meets no DICOM application profile" in said or met in said
    assert ("IHE" in said) == pdi
    assert words in said
    named = {profile.name for each in PROFILES.values() for profile in each if profile.name in said}
    assert named == ({met} if met else set())


@pytest.mark.parametrize(
    ("medium", "instances", "name"),
    [
        ("cd", held(EXPLICIT), "STD-GEN-SEC-CD"),
        ("dvd", held(JPEG), "STD-GEN-SEC-DVD-JPEG"),
        ("usb", held(JPEG_2000), "STD-GEN-SEC-USB-J2K"),
        ("bd", held(JPEG), "STD-GEN-SEC-BD-JPEG"),
        ("cd", held(JPEG), ""),
        ("zip", held(EXPLICIT), ""),
    ],
)
def test_what_is_encrypted_meets_the_secure_form_and_no_pdi(
    medium: Carrier, instances: list[Arrival], name: str
) -> None:
    said = statement(medium, instances, is_secure=True)
    assert (f"profile {name} (PS3.11)." in said) == bool(name)
    assert "IHE" not in said


@pytest.mark.parametrize("medium", get_args(Medium))
def test_each_medium_meets_a_profile_or_says_why_not(medium: Medium) -> None:
    assert (medium in WRITTEN_TO) != (medium in NOT_MET)
    assert PROFILES[medium]


def test_a_publisher_that_masters_its_own_discs_may_meet_more() -> None:
    profile = profile_for("bd-dl", held(JPEG_2000))
    assert profile and profile.name == "STD-GEN-BD-J2K"

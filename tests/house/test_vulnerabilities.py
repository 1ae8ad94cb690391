"""No dependency below the version that mends a known vulnerability: neither a floor in pyproject.toml nor what is
installed.

The list is kept by hand and needs no network. The highest fixed version of a package stands for the lower ones;
`pip-audit` knows newer ones.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))

FIXED = {
    "anyio": ("4.14.2", "CVE-2026-63374, CVE-2026-64847"),
    "certifi": ("2024.7.4", "CVE-2024-39689"),
    "cryptography": ("50.0.0", "CVE-2026-69247; CVE-2026-39892 in 46.0.7, CVE-2026-26007 in 46.0.5"),
    "fastapi": ("0.109.1", "CVE-2024-24762"),
    "h11": ("0.16.0", "CVE-2025-43859"),
    "h2": ("4.3.0", "CVE-2025-57804"),
    "httpx": ("0.23.0", "CVE-2021-41945"),
    "idna": ("3.15", "CVE-2026-45409; CVE-2024-3651 in 3.7"),
    "jinja2": ("3.1.6", "CVE-2025-27516; CVE-2024-56326 in 3.1.5"),
    "mako": ("1.3.12", "CVE-2026-44307; CVE-2026-41205 in 1.3.11"),
    "orjson": ("3.11.6", "CVE-2025-67221"),
    "prefect": ("3.6.25", "CVE-2026-5366"),
    "pydantic": ("2.4.0", "CVE-2024-3772"),
    "pydicom": ("3.0.2", "CVE-2026-32711"),
    "pygments": ("2.20.0", "CVE-2026-4539"),
    "pytest": ("9.0.3", "CVE-2025-71176"),
    "python-dotenv": ("1.2.2", "CVE-2026-28684"),
    "pyyaml": ("5.4", "CVE-2020-14343"),
    "requests": ("2.33.0", "CVE-2026-25645; CVE-2024-47081 in 2.32.4"),
    "setuptools": ("78.1.1", "CVE-2025-47273"),
    "starlette": (
        "1.3.1",
        "CVE-2026-54283; CVE-2026-54282 in 1.3.0, CVE-2026-48710 in 1.0.1, CVE-2025-62727 in 0.49.1",
    ),
    "urllib3": ("2.8.0", "CVE-2026-97689; CVE-2026-44431 in 2.7.0"),
    "uvicorn": ("0.11.7", "CVE-2020-7695"),
    "websockets": ("9.1", "CVE-2021-33880"),
}


def declared() -> list[str]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    return [
        *PROJECT["build-system"]["requires"],
        *PROJECT["project"]["dependencies"],
        *(line for extra in extras for line in extra),
    ]


def too_low(requirements: Iterable[str]) -> list[str]:
    """What of these requirements lets a vulnerable version be installed."""
    found = []
    for requirement in map(Requirement, requirements):
        fixed, source = FIXED.get(canonicalize_name(requirement.name), ("0", ""))
        floors = [
            Version(each.version.removesuffix(".*"))
            for each in requirement.specifier
            if each.operator in (">=", "==", "~=")
        ]
        if source and max(floors, default=Version("0")) < Version(fixed):
            found.append(f"{requirement}: {fixed} mends {source}")
    return found


def test_no_floor_lets_a_vulnerable_version_in() -> None:
    assert too_low(declared()) == []


@pytest.mark.parametrize("name", FIXED)
def test_nothing_vulnerable_is_installed(name: str) -> None:
    try:
        installed = version(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} isn't installed")
    fixed, source = FIXED[name]
    assert Version(installed) >= Version(fixed), source


@pytest.mark.parametrize(
    ("requirement", "is_too_low"),
    [
        ("pydicom>=3.0.1", True),
        ("pydicom", True),
        ("pydicom<4", True),
        ("pydicom==3.0.*", True),
        ("PyDICOM[gdcm]~=3.0.0; python_version > '3'", True),
        ("pydicom>=3.0.2", False),
        ("pydicom>=3,>=3.0.2,<4", False),
        ("pydicom==3.1.*", False),
        ("pynetdicom>=1", False),
    ],
)
def test_a_floor_that_is_too_low_is_noticed(requirement: str, is_too_low: bool) -> None:
    assert bool(too_low([requirement])) is is_too_low

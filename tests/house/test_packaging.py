"""What an ordinary install brings: every package, and every file beside the modules."""

from __future__ import annotations

import json
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from setuptools import find_namespace_packages  # what packages.find means in pyproject.toml

ROOT = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOUND = set(find_namespace_packages(str(ROOT), include=SETUPTOOLS["packages"]["find"]["include"]))


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {
        file.parent for top in ("mkiso", "tasks", "flows", "mkiso_service") for file in (ROOT / top).rglob("*.py")
    }
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} - FOUND == set()


def test_every_other_file_is_package_data() -> None:
    patterns = SETUPTOOLS["package-data"]["*"]
    inside = [file for package in FOUND for file in (ROOT / package.replace(".", "/")).iterdir() if file.is_file()]
    others = [file for file in inside if file.suffix not in (".py", ".pyc")]
    assert others
    assert [file.name for file in others if not any(fnmatch(file.name, pattern) for pattern in patterns)] == []


def test_what_tests_take_from_npm_is_known_by_its_hash() -> None:
    locks = [file for file in (ROOT / "peers").rglob("package-lock.json") if "node_modules" not in file.parts]
    assert {file.parent.name for file in locks} == {"openid", "newer"}
    for file in locks:
        for name, package in json.loads(file.read_text())["packages"].items():
            assert not name or (package["integrity"].startswith("sha512-") and "resolved" not in package), name
    for source in (ROOT / "peers").glob("*.py"):
        assert '"npm", "install"' not in source.read_text(), source

"""The version that the package is built as: its number, and the commit of the git checkout that this is (PEP 440)."""

import os
import re
import subprocess
from email import message_from_bytes
from pathlib import Path

from setuptools import setup

NUMBER = "1.0.0"
HERE = Path(__file__).resolve().parent
PACKAGED = ("mkiso", "mkiso_service", "flows", "tasks", "pyproject.toml", "setup.py")


def version() -> str:
    """The number with its commit, as the sdist, the environment or git tells it; the number alone where none does."""
    if (told := HERE / "PKG-INFO").is_file():
        return str(message_from_bytes(told.read_bytes())["Version"] or NUMBER)
    commit = re.fullmatch(r"([0-9a-f]{7})[0-9a-f]*(\.dirty)?", os.environ.get("MKISO_COMMIT") or checked_out())
    return f"{NUMBER}+g{commit[1]}{commit[2] or ''}" if commit else NUMBER


def checked_out() -> str:
    """The commit, and whether what is packaged differs from it; empty where git can't say."""
    git = ("git", "--no-optional-locks", "--git-dir=.git", "--work-tree=.")  # of no repository around this folder
    status = ("status", "--porcelain=v2", "--branch", "--untracked-files=normal", "--", *PACKAGED)
    try:
        told = subprocess.run((*git, *status), cwd=HERE, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    commit = re.search(r"^# branch\.oid ([0-9a-f]+)$", told, re.MULTILINE)
    is_dirty = any(not line.startswith("#") for line in told.splitlines())
    return f"{commit[1]}{'.dirty' * is_dirty}" if commit else ""


setup(version=version())

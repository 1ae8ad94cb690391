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
    status = ("-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "--")
    # Who calls this may be git itself, in a hook, whose environment names the index of another repository.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = (*git, *status, *PACKAGED)
    try:
        done = subprocess.run(command, cwd=HERE, env=own, capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    told = done.stdout.decode(errors="replace")  # a branch or a file may have any name
    commit = re.search(r"^# branch\.oid ([0-9a-f]+)$", told, re.MULTILINE)
    is_dirty = any(not line.startswith("#") for line in told.splitlines())
    return f"{commit[1]}{'.dirty' * is_dirty}" if commit else ""


setup(version=version())

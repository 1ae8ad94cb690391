"""The version that a package is built as: with the commit of its checkout, and without one where nobody knows it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]), file=sys.stderr)
"""

pytestmark = [pytest.mark.peer, pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """What a version is made of, and a module to change."""
    folder = tmp_path / "sources"
    (folder / "mkiso").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    (folder / "mkiso" / "__init__.py").touch()
    return folder


def git(folder: Path, *arguments: str) -> str:
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    person = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    command = ["git", *person, *arguments]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "One")
    return git(folder, "rev-parse", "HEAD")[:7]


def built(folder: Path, what: str = "prepare_metadata_for_build_wheel", **environment: str) -> Path:
    """What setuptools makes of it, as pip asks it to."""
    target = Path(tempfile.mkdtemp(dir=folder.parent))
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(target)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return target / done.stderr.splitlines()[-1]


def version(folder: Path, **environment: str) -> str:
    return built(folder, **environment).name.removeprefix("mkiso-").removesuffix(".dist-info")


def test_a_checkout_tells_its_commit_and_whether_the_program_was_changed(sources: Path) -> None:
    here = commit(sources)
    assert version(sources) == f"1.0.0+g{here}"
    (sources / "README.md").write_text("Other words.\n")
    (sources / "notes.txt").touch()
    assert version(sources) == f"1.0.0+g{here}"
    (sources / "mkiso" / "new.py").touch()
    assert version(sources) == f"1.0.0+g{here}.dirty"
    git(sources, "tag", "v7.0")
    git(sources, "add", "mkiso")
    assert version(sources) == f"1.0.0+g{here}.dirty"


def test_an_sdist_and_a_wheel_need_no_checkout(sources: Path, tmp_path: Path) -> None:
    here = commit(sources)
    archive = built(sources, "build_sdist")
    assert archive.name == f"mkiso-1.0.0+g{here}.tar.gz"
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    [unpacked] = (tmp_path / "unpacked").iterdir()
    assert not (unpacked / ".git").exists()
    assert built(unpacked, "build_wheel").name == f"mkiso-1.0.0+g{here}-py3-none-any.whl"


@pytest.mark.parametrize("lacks", [".git", "a commit", "git", "a whole .git", "a repository of its own"])
def test_an_install_ends_well_where_nobody_knows_the_commit(sources: Path, tmp_path: Path, lacks: str) -> None:
    environment = {}
    if lacks == "a commit":
        git(sources, "init", "-q")
    elif lacks == "git":
        commit(sources)
        environment["PATH"] = str(tmp_path)
    elif lacks == "a whole .git":
        commit(sources)
        (sources / ".git" / "HEAD").unlink()
    elif lacks == "a repository of its own":
        commit(tmp_path)
    assert version(sources, **environment) == "1.0.0"


def test_a_name_that_is_no_text_ends_no_install(sources: Path) -> None:
    here = commit(sources)
    git(sources, "config", "core.quotePath", "false")
    (sources / "mkiso" / os.fsdecode(b"caf\xe9.py")).touch()
    assert version(sources) == f"1.0.0+g{here}.dirty"


def test_an_install_out_of_a_hook_asks_its_own_checkout(sources: Path) -> None:
    here = commit(sources)
    assert version(sources, GIT_DIR="elsewhere", GIT_INDEX_FILE="/nowhere/index") == f"1.0.0+g{here}"


def test_an_install_runs_nothing_that_watches_the_checkout(sources: Path, tmp_path: Path) -> None:
    here = commit(sources)
    git(sources, "config", "core.fsmonitor", f"touch {tmp_path / 'ran'}; false")
    assert version(sources) == f"1.0.0+g{here}"
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_root_installs_from_a_checkout_of_somebody_else(sources: Path) -> None:
    here = commit(sources)
    for file in (sources, *sources.rglob("*")):
        os.chown(file, 65534, 65534)
    assert version(sources) == f"1.0.0+g{here}"
    assert {file.stat().st_uid for file in (sources / ".git").rglob("*")} == {65534}


@pytest.mark.parametrize(
    ("told", "known"), [("0123456789abcdef" * 2, "+g0123456"), ("0123456", "+g0123456"), ("v1; rm", ""), ("12", "")]
)
def test_an_image_without_the_history_is_told_the_commit(sources: Path, told: str, known: str) -> None:
    assert version(sources, MKISO_COMMIT=told) == f"1.0.0{known}"

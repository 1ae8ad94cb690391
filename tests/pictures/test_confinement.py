"""What a process that decodes can reach."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from mkiso.pictures.confinement import landlock_version
from mkiso.pictures.messages import Limits
from mkiso.pictures.pool import PicturePool
from mkiso.pictures.process import WorkerProcess
from mkiso.pictures.values import PictureRequest
from tests.pictures.objects import ramp, write

pytestmark = [
    pytest.mark.skipif(landlock_version() < 6, reason="this kernel's Landlock can't keep all of it (Linux 6.12)"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="mkiso has no filter for this machine"),
]

ATTEMPT = """
import ctypes, os, socket, sys
from pathlib import Path
from mkiso.pictures.confinement import confine
read, written, other = map(Path, sys.argv[1:])
inherited = os.open(other / "file", os.O_RDONLY)
confine([read], [written])
{attempt}
"""
ALLOWED = {
    "read what it was given": "(read / 'file').read_text()",
    "list it": "os.listdir(read)",
    "write where it may": "(written / 'new').write_text('x')",
    "write over it": "(written / 'file').write_text('x')",
    "cut it": "os.truncate(written / 'file', 0)",
    "read what it wrote": "(written / 'file').read_text()",
    "import what decodes": "import imagecodecs; imagecodecs.jpeg8_encode; imagecodecs.jpegls_decode",
}
REFUSED = {
    "read another file": "(other / 'file').read_text()",
    "list another folder": "os.listdir(other)",
    "write what it reads": "(read / 'file').write_text('x')",
    "make a file there": "(read / 'new').write_text('x')",
    "write elsewhere": "(other / 'new').write_text('x')",
    "cut another file": "os.truncate(other / 'file', 0)",
    "remove a file": "(written / 'file').unlink()",
    "make a folder": "(written / 'folder').mkdir()",
    "make a link": "os.symlink(other / 'file', written / 'link')",
    "take a file along": "os.link(other / 'file', written / 'link')",
    "move a file": "os.rename(read / 'file', written / 'moved')",
    "read accounts": "Path('/etc/passwd').read_text()",
    "read its parent's environment": "Path(f'/proc/{os.getppid()}/environ').read_bytes()",
    "read its parent's memory": "Path(f'/proc/{os.getppid()}/mem').open('rb')",
    "begin a program": "os.execv('/bin/true', ['true'])",
    "make a socket of TCP": "socket.socket(socket.AF_INET)",
    "make one of UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "reach the fork server": "socket.socket(socket.AF_UNIX)",
    "make one by io_uring": "assert ctypes.CDLL(None, use_errno=True).syscall(425, 1, bytes(120)) >= 0",
    "signal its parent": "os.kill(os.getppid(), 0)",
    "change who may read": "(read / 'file').chmod(0o777)",
    "change it by a descriptor": "os.fchmod(inherited, 0o777)",
    "change whose it is": "os.chown(written / 'file', os.getuid(), os.getgid())",
    "be free again": "confine([other], [other]); (other / 'file').read_text()",
}


def attempt(tmp_path: Path, what: str) -> subprocess.CompletedProcess[str]:
    folders = [tmp_path / name for name in ("read", "written", "other")]
    for folder in folders:
        folder.mkdir()
        (folder / "file").write_text("text")
    command = [sys.executable, "-c", ATTEMPT.format(attempt=what), *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


@pytest.mark.parametrize("what", ALLOWED.values(), ids=list(ALLOWED))
def test_it_can(tmp_path: Path, what: str) -> None:
    ended = attempt(tmp_path, what)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("what", REFUSED.values(), ids=list(REFUSED))
def test_it_can_not(tmp_path: Path, what: str) -> None:
    ended = attempt(tmp_path, what)
    assert ended.returncode == 1, ended.stdout
    assert ended.stderr.splitlines()[-1].split(":")[0] in ("PermissionError", "AssertionError", "OSError"), ended.stderr


def test_a_worker_is_confined_before_it_is_asked() -> None:
    worker = WorkerProcess(Limits())
    status = Path(f"/proc/{worker._process.pid}/status").read_text()
    worker.end()
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status


def test_a_worker_reads_nothing_but_its_job_s(tmp_path: Path) -> None:
    (tmp_path / "job" / "pictures").mkdir(parents=True)
    own, other = write(tmp_path / "job" / "image", ramp()), write(tmp_path / "image", ramp())
    with PicturePool(tmp_path / "job", tmp_path / "job" / "pictures", 1) as pool:
        shown = pool.render(PictureRequest(own, tmp_path / "job" / "pictures"))
        assert [picture.frame for picture in shown.pictures] == [1]
        with pytest.raises(PermissionError):
            pool.render(PictureRequest(other, tmp_path / "job" / "pictures"))
        with pytest.raises(PermissionError):
            pool.render(PictureRequest(own, tmp_path / "job"))
    assert [file.name for file in (tmp_path / "job" / "pictures").iterdir()] == [shown.pictures[0].file.name]

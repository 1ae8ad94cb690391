"""`mkiso doctor`: each thing that mkiso depends on, tried for real, with what is wrong and what to do in words."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console

from mkiso.config.settings import Settings
from mkiso.errors import MkisoError
from mkiso_service.orchestration import api_url
from mkiso_service.prefect_password import with_password

WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One dependency: what it is, whether it is well, and in words what was seen, or what is wrong and what to do."""

    name: str
    well: bool
    words: str
    seconds: float


class Ailing(Exception):
    """Something is wrong; the words say what and what to do."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Try each dependency in turn."""
    checks: dict[str, Callable[[Settings], str]] = {
        "configuration": _configuration,
        "disk": _disk,
        "viewer": _viewer,
        "PACS": _pacs,
        "receiver": _receiver,
        "patient API": _patient_api,
        "Prefect": _prefect,
        "webhook": _webhook,
        **{f"publisher {name}": _publisher(name) for name in settings.publishers},
    }
    for name, check in checks.items():
        started = time.monotonic()
        try:
            well, words = True, check(settings)
        except Ailing as ailing:
            well, words = False, str(ailing)
        except MkisoError as error:
            well, words = False, error.words
        yield Finding(name, well, words, time.monotonic() - started)


def show(console: Console, findings: Iterator[Finding]) -> int:
    """Tell each finding as it comes; the exit code: 1 where something is wrong."""
    wrong = 0
    for finding in findings:
        mark = "[green]well [/]" if finding.well else "[bold red]wrong[/]"
        console.print(f"{mark}  [bold]{finding.name:<18}[/] [dim]{finding.seconds:5.2f} s[/]  ", end="")
        console.print(finding.words, markup=False, highlight=False)
        wrong += not finding.well
    console.print("Everything is well." if not wrong else f"{wrong} of these need somebody.")
    return 1 if wrong else 0


def _configuration(settings: Settings) -> str:
    return f"right; data lies in {settings.storage.data_dir}"


def _disk(settings: Settings) -> str:
    folder = settings.storage.data_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / ".doctor"
        probe.touch()
        probe.unlink()
        free_gib = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        raise Ailing(
            f"{folder} can't be written: {error.strerror}. Create it for the user that mkiso runs as, or set "
            "storage.data_dir."
        ) from None
    if free_gib < settings.storage.min_free_gib:
        raise Ailing(
            f"{free_gib:.1f} GiB are free and storage.min_free_gib is {settings.storage.min_free_gib:g}: new jobs are "
            "refused. Make room."
        )
    return f"{free_gib:.1f} GiB free"


def _viewer(settings: Settings) -> str:
    viewer = settings.viewer
    if not viewer.directory:
        return "none configured: discs carry no viewer (viewer.directory)"
    folder = Path(viewer.directory)
    if not folder.is_dir():
        raise Ailing(f"viewer.directory {folder} is no folder. Unpack the portable viewer there.")
    if viewer.executable and not (folder / viewer.executable).is_file():
        raise Ailing(
            f"viewer.executable {viewer.executable} isn't in {folder}. Check the name, upper and lower case too."
        )
    return f"{sum(1 for file in folder.rglob('*') if file.is_file())} files in {folder}"


def _pacs(settings: Settings) -> str:
    from mkiso.sources.pacs import echo

    pacs, ours = settings.pacs, settings.receiver
    seconds = echo(settings, limit_seconds=WAIT_SECONDS)
    calling = pacs.calling_ae_title or ours.ae_title
    return (
        f"{pacs.ae_title} at {pacs.host}:{pacs.port} answers C-ECHO from {calling} in {1000 * seconds:.0f} ms. "
        f"It has to know {ours.ae_title} as this machine's port {ours.port}"
    )


def _receiver(settings: Settings) -> str:
    from mkiso.receiver.client import receiver_status

    receiver, path = settings.receiver, settings.storage.receiver_socket
    where = f"{receiver.ae_title} on port {receiver.port}"
    if path.exists():
        receiver_status(path)
        return f"{where} is running"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((receiver.host, receiver.port))
        except OSError as error:
            raise Ailing(
                f"{where} isn't running and its port can't be had: {error.strerror}. End what holds it, or set "
                "receiver.port."
            ) from None
    raise Ailing(f"{where} isn't running; its port is free. Start `mkiso serve`.")


def _patient_api(settings: Settings) -> str:
    from mkiso.patient_api import look_up

    if not settings.patient_api.base_url:
        return "none configured: discs carry the names of the PACS (patient_api.base_url)"
    look_up(settings.patient_api, "0")
    return f"{settings.patient_api.base_url} answers"


def _prefect(settings: Settings) -> str:
    url = api_url(settings)
    user, _, password = with_password(settings).prefect.api_auth_string.get_secret_value().partition(":")
    try:
        answer = httpx.get(f"{url}/admin/version", timeout=WAIT_SECONDS, auth=(user, password))
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        raise Ailing(
            f"{url} answers {error.response.status_code}. Check prefect.api_url and prefect.api_auth_string; after a "
            "change of the password, restart mkiso."
        ) from None
    except httpx.HTTPError as error:
        raise Ailing(
            f"{url} can't be reached ({error}). Start `mkiso serve`, or set prefect.api_url to the server that is "
            "running."
        ) from None
    return f"Prefect {answer.json()} at {url}"


def _webhook(settings: Settings) -> str:
    server = settings.server
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::", "") else server.host  # noqa: S104
    url = f"http://{host}:{server.port}/api/health"
    try:
        health = httpx.get(url, timeout=WAIT_SECONDS).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise Ailing(f"{url} can't be reached ({error}). Start `mkiso serve`.") from None
    lacking = health.get("degraded") or []
    return f"{url} says {health.get('status')}" + (f": without {', '.join(lacking)}" if lacking else "")


def _publisher(name: str) -> Callable[[Settings], str]:
    def check(settings: Settings) -> str:
        from mkiso.publishers import publisher_of

        return publisher_of(name, settings).check()

    return check

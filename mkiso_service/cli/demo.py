"""`mkiso demo`: a PACS with real studies, a patient API, a publisher and mkiso itself; one disc made, proved and
listed, one printed, one sent for by a console, one to look at, and a patient searched for.

demo-data/config.yaml   the configuration, free ports in it
          api.key       the key that the service asks for
          peers/        the studies of the demo PACS, and what its publisher was given
          data/         mkiso's own
          PHANTOM/      a disc to look at, as a browser sees it: open INDEX.HTM
          *.iso, *.log
"""

from __future__ import annotations

import os
import random
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml
from rich.console import Console

from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError, MkisoError
from mkiso.storage.files import descriptor_of, private
from mkiso.storage.room import size_words
from mkiso_service.cli.burning import burn
from mkiso_service.cli.client import Client, DiscRequest, ServiceError
from mkiso_service.cli.display import show_found, show_job
from mkiso_service.ports import why_taken

ACCESSION_NUMBER = "134"
"""An MR study of four images in pydicom's test data."""
PHANTOM = "PHANTOM"
"""A study with pictures worth looking at, computed (mkiso.demo.phantoms)."""
SHARED_ACCESSION_NUMBER = "2"
"""Two patients of pydicom's test data share it."""
INBOX, CONSOLE = "BURN", "CONSOLE"
"""The AE titles of the demo's inbox, and of who sends to it."""
PROGRAM = Path(sys.executable).with_name("mkiso")
"""What the hints name: `make demo` puts no mkiso on the PATH."""
_MADE_BY_DEMO = "# Made by mkiso demo, which begins anew each time.\n"
START_SECONDS = SENT_SECONDS = 600
"""How long the start, and the disc of what was sent, may take: on a busy machine, minutes."""
TOLD_SECONDS = 60
"""How often it is told what a slow start still lacks."""
NEEDED = ("pacs", "receiver", "prefect", "worker", "patient_api")
DEFAULT_PORTS = {
    "webhook": 8080,
    "receiver": 10104,
    "prefect": 4200,
    "pacs": 11112,
    "patient_api": 8081,
    "publisher": 10105,
}


class DemoFailed(Exception):
    """The demo can't be shown; the words say why and where to look."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where this demo lies and on which ports it listens."""

    folder: Path
    ports: Mapping[str, int]

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def key_file(self) -> Path:
        return self.folder / "api.key"

    @property
    def key(self) -> str:
        return self.key_file.read_text().strip()

    @property
    def printed(self) -> Path:
        """What the demo's publisher was given."""
        return self.folder / "peers" / "printed"

    def study(self, accession_number: str) -> Path:
        """The files of a study, as a console would have them."""
        return self.folder / "peers" / "studies" / accession_number

    def sending(self, accession_number: str) -> list[str]:
        """The command by which a console sends a study to the inbox. pynetdicom's own may wait for nothing on a busy
        machine (mkiso.demo.steady).
        """
        command = [sys.executable, "-P", "-m", "mkiso.demo.console", str(self.study(accession_number))]
        return [*command, f"{INBOX}@127.0.0.1:{self.ports['receiver']}", "--ae-title", CONSOLE]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['webhook']}"

    @property
    def prefect_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['prefect']}"


def demonstrate(console: Console, folder: Path, *, keep: bool) -> int:
    """Show it all; the exit code. Everything that was started is gone when this returns."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        place = prepare(folder)
        with running(console, place):
            show(console, place)
            if not keep:
                console.print(
                    "To click through: [bold]make demo KEEP=1[/] leaves everything running, and says what to type."
                )
            else:
                _keep(console, place)
    except (DemoFailed, ServiceError, MkisoError) as error:
        console.print(f"[bold red]The demo failed.[/] {error}")
        console.print(f"What the processes said stands in {folder}/*.log.", style="dim")
        return 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 0 if keep else 1
    console.print("[green]Done;[/] everything that was started has ended.")
    return 0


def prepare(folder: Path) -> Place:
    """Make the folder and its configuration, with the usual ports where they are free. What mkiso knew after a demo
    before is forgotten, so that each begins alike. Raises DemoFailed, also where one still runs.
    """
    from mkiso_service.processes.supervisor import alone

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DemoFailed(f"The folder {folder} can't be made: {error.strerror}.") from None
    if shutil.disk_usage(folder).free < 10**9:
        raise DemoFailed(f"Less than 1 GB is free for {folder}.")
    place = Place(folder, {name: free_port(port) for name, port in DEFAULT_PORTS.items()})
    data, is_own = folder / "data", place.config.exists() and place.config.read_text().startswith(_MADE_BY_DEMO)
    if not is_own and (place.config.exists() or data.exists()):
        raise DemoFailed(f"{folder} holds what isn't of a demo. Name another folder, or remove that one.")
    if data.exists():
        try:
            with alone(Storage(data_dir=data)):
                shutil.rmtree(data)
        except ConfigurationError:
            raise DemoFailed(
                f"One still runs in {folder}: end it with Ctrl-C, or begin another: mkiso demo --folder OTHER."
            ) from None
    place.config.write_text(_MADE_BY_DEMO + yaml.safe_dump(configuration(place), sort_keys=False))
    with open(place.key_file, "w", encoding="utf-8", opener=private) as file:
        file.write(secrets.token_hex(16))
    return place


def configuration(place: Place) -> dict[str, dict[str, object]]:
    """What differs from the defaults."""
    ports = place.ports
    return {
        "server": {"port": ports["webhook"], "public_url": place.url},
        "auth": {"enabled": True, "api_key_file": place.key_file.name},
        "pacs": {"ae_title": "ABPACS", "host": "127.0.0.1", "port": ports["pacs"]},
        "receiver": {"ae_title": "CDRECORD", "host": "127.0.0.1", "port": ports["receiver"]},
        "patient_api": {"base_url": f"http://127.0.0.1:{ports['patient_api']}"},
        "disc": {"institution": "Demo Hospital", "contact": "Radiology, extension 1234"},
        "publishers": {
            "rimage": {"kind": "cstore", "ae_title": "RIMAGE", "port": ports["publisher"], "settle_seconds": 1}
        },
        "inboxes": {INBOX: {"senders": [CONSOLE], "quiet_seconds": 2}},
        "storage": {"data_dir": "data", "min_free_gib": 0.5},
        "prefect": {"server_port": ports["prefect"]},
        "logging": {"format": "text"},
    }


def show(console: Console, place: Place) -> None:
    """One disc, made over HTTP, proved and listed; and one that must not be made."""
    from mkiso.formats.disc_check import verify_disc
    from mkiso.formats.folder import unpack

    console.print(f"\nAsking for the disc of accession number {ACCESSION_NUMBER}:")
    iso = place.folder / f"{ACCESSION_NUMBER}.iso"
    with Client(place.url, place.key) as client:
        burn(console, client, DiscRequest([ACCESSION_NUMBER]), iso)
        started = time.monotonic()
        proof = verify_disc(iso)
        console.print(f"Verified in {time.monotonic() - started:.1f} s: {proof}\n", markup=False, highlight=False)
        list_files(console, iso)
        print_disc(console, client, place)
        send(console, client, place)
        console.print("\nSearching for patients whose name begins with doe:")
        show_found(console, client.find(patient_name="doe")["studies"])
        console.print(f"\nAsking for the disc of {PHANTOM}, computed images of nobody:")
        job, _ = burn(console, client, DiscRequest([PHANTOM]), place.folder / f"{PHANTOM}.iso")
        letter = place.folder / f"{PHANTOM}.pdf"
        letter.write_bytes(client.letter(job.job_id))
        seen = place.folder / PHANTOM
        shutil.rmtree(seen, ignore_errors=True)
        seen.mkdir()
        unpack(place.folder / f"{PHANTOM}.iso", seen)
        console.print(
            f"\nAsking for {SHARED_ACCESSION_NUMBER}, an accession number that two patients share; no disc may come "
            "of that:"
        )
        try:
            burn(console, client, DiscRequest([SHARED_ACCESSION_NUMBER]), place.folder / "never.iso")
        except ServiceError as refusal:
            console.print(f"  refused: {refusal}  [dim]{refusal.code}[/]")
        else:
            raise DemoFailed("A disc of two patients was made.")
    console.print(f"\nThe image:       [bold]{iso}[/]")
    page = (seen / "INDEX.HTM").resolve().as_uri()
    console.print(f"To look at:      [bold]{page}[/]", soft_wrap=True)
    console.print(f"Its letter:      [bold]{letter}[/]")


def print_disc(console: Console, client: Client, place: Place) -> None:
    """The same study to the demo's publisher, and what that holds afterwards."""
    console.print(f"\nSending {ACCESSION_NUMBER} to the disc publisher:")
    held = _stored(place.printed)
    state = show_job(console, client.follow(client.ask_for_print(DiscRequest([ACCESSION_NUMBER]))["job_id"]))
    got = _stored(place.printed) - held
    for file, _ in sorted(got):
        console.print(f"  {size_words(file.stat().st_size):>12}  {file.name}", highlight=False)
    if len(got) != state.written:
        raise DemoFailed(f"{state.publisher} confirmed {state.written} instances and holds {len(got)}.")
    console.print(f"{state.publisher} has them all and will make the disc.")


def send(console: Console, client: Client, place: Place) -> None:
    """The same study from a console to the inbox, and the disc that comes of it."""
    console.print(f"\nSending {ACCESSION_NUMBER} from a console to {INBOX}, an AE title of mkiso's own:")
    known = {listed["job"].job_id for listed in client.jobs()["jobs"]}
    if subprocess.run(place.sending(ACCESSION_NUMBER), stdout=subprocess.DEVNULL, check=False).returncode:
        raise DemoFailed(f"{INBOX} didn't take what was sent.")
    until = time.monotonic() + SENT_SECONDS
    while not (made := [each["job"] for each in client.jobs()["jobs"] if each["job"].job_id not in known]):
        if time.monotonic() > until:
            raise DemoFailed(f"No disc came of what was sent to {INBOX}.")
        time.sleep(0.5)
    state = show_job(console, client.follow(made[0].job_id))
    console.print(f"A disc of it lies on the shelf: {state.written} instances, whole by what the PACS says.")


def _stored(folder: Path) -> set[tuple[Path, int]]:
    """What the publisher holds, each with the time at which it came: what it is sent again, it stores again."""
    return {(file, file.stat().st_mtime_ns) for file in folder.rglob("*.dcm")}


def list_files(console: Console, iso: Path) -> None:
    """The paths and sizes of a disc's files."""
    from mkiso.formats.registry import format_of

    with descriptor_of(iso) as descriptor:
        contents = format_of(descriptor).read(descriptor)
    console.print(f"On the disc {contents.label}:")
    for path, extent in sorted(contents.files.items()):
        console.print(f"  {size_words(extent.size):>12}  {path}", highlight=False)


def _keep(console: Console, place: Place) -> None:
    console.print("\nIt stays up until Ctrl-C. To try, in another terminal:", style="bold")
    for line in hints(place):
        console.print(f"  {line}", markup=False, highlight=False)
    console.print(f"In a browser: {place.url}/  with the key {place.key}", markup=False, highlight=False)
    console.print(f"and {place.prefect_url}/  with what `prefect password` above says", markup=False, highlight=False)
    while True:
        time.sleep(3600)


def hints(place: Place) -> list[str]:
    """Commands for a shell, in this order; each works from any folder."""
    key, config = (shlex.quote(str(each)) for each in (place.key_file, place.config))
    curl, program = f"""curl -H "X-API-Key: $(cat {key})\"""", shlex.quote(str(PROGRAM))
    asking = f"--url {place.url} --api-key-file {key}"
    return [
        f"{curl} -OJ '{place.url}/api/iso/download?accession_number=428'",
        f"{curl} -OJ '{place.url}/api/iso/download-multiple?accession_numbers=134,428'",
        f"{curl} '{place.url}/api/iso/print?accession_number=428'",
        f"curl {place.url}/api/health",
        f"{program} burn 1 -o 1.iso {asking}",
        f"{program} find --name phantom {asking}",
        shlex.join(place.sending(PHANTOM)),
        f"{program} jobs {asking}",
        f"{program} -c {config} doctor",
        f"{program} -c {config} prefect password",
    ]


@contextmanager
def running(console: Console, place: Place) -> Iterator[None]:
    """The demo's PACS, patient API, publisher and mkiso, up and well."""
    with _peers(place), _service(console, place):
        yield


@contextmanager
def _peers(place: Place) -> Iterator[None]:
    ports = place.ports
    options = {"pacs-port": ports["pacs"], "api-port": ports["patient_api"], "publisher-port": ports["publisher"]}
    words = [word for name, port in options.items() for word in (f"--{name}", str(port))]
    destination = f"CDRECORD:127.0.0.1:{ports['receiver']}"
    with _process(
        "mkiso.demo", [str(place.folder / "peers"), *words, "--destination", destination], place, grace_seconds=5
    ):
        yield


@contextmanager
def _service(console: Console, place: Place) -> Iterator[None]:
    started = told = time.monotonic()
    console.print(f"Starting mkiso at {place.url} (some seconds; on a busy machine some minutes) …")
    with _process("mkiso_service", ["serve"], place, grace_seconds=60) as process:
        while lacking := _lacking(place.url):
            if process.poll() is not None:
                raise DemoFailed(f"mkiso serve ended with {process.returncode}.")
            if time.monotonic() - started > START_SECONDS:
                raise DemoFailed(f"After {START_SECONDS} s mkiso still lacks: {lacking}.")
            if time.monotonic() - told > TOLD_SECONDS:
                told = time.monotonic()
                console.print(f"after {told - started:.0f} s it still lacks: {lacking}", style="dim")
            time.sleep(0.2)
        console.print(f"up after {time.monotonic() - started:.1f} s", style="dim")
        yield
        stopped = time.monotonic()
    console.print(f"down after {time.monotonic() - stopped:.1f} s", style="dim")


def _lacking(url: str) -> str:
    """What health still misses, in words; empty where all is there."""
    try:
        dependencies = httpx.get(f"{url}/api/health", timeout=5, trust_env=False).json()["dependencies"]
    except (httpx.HTTPError, ValueError, KeyError):
        return "the webhook"
    return ", ".join(
        f"{name} ({dependencies[name]['detail']})"
        for name in NEEDED
        if name in dependencies and not dependencies[name]["ok"]
    )


@contextmanager
def _process(
    module: str, arguments: list[str], place: Place, *, grace_seconds: float
) -> Iterator[subprocess.Popen[bytes]]:
    """A Python module as a process of its own session, so that Ctrl-C reaches it once and through us."""
    log = place.folder / f"{module.rpartition('.')[2]}.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MKISO_", "PREFECT_"))}
    environment["MKISO_CONFIG"] = str(place.config)
    with log.open("wb") as output:
        command = [sys.executable, "-P", "-m", module, *arguments]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port(wanted: int) -> int:
    """This port, or another one where it is taken."""
    for port in (wanted, *random.sample(range(12_000, 32_000), 100)):
        if why_taken("127.0.0.1", port) is None:
            return port
    raise DemoFailed("No port is free.")

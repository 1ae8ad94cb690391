"""Mixed jobs for a long time, one in twenty with a fault: every disc right, every other answer a reason, nothing left
over.

    python -m bench.soak --minutes 60        # make soak

Three clerks ask for studies of three PACS in turn. Faults hit whatever runs at that moment: connections cut, a PACS
that falls silent or can't reach us, a patient API that fails, garbage and strangers at the receiver, images that change
or vanish on the disk, every process killed. Each disc is unpacked by 7z and compared with its source byte for byte.
Exits 1 where a disc is wrong, an answer has no reason, or something is left.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from peers.discs import assert_holds_exactly, extract
from peers.house import KEY, House, open_house
from peers.raw_peer import RawPeer, associate_rq
from peers.standing import standing_of
from peers.storescu import store

CLERKS = 3
ASKED = {"GOOD1": 40, "THAI1": 25, "JPEG1": 15, "MANY1": 12, "UNKNOWN1": 3, "TWO1": 3, "GOOD*": 2}
NO_DISC = {"UNKNOWN1": 404, "TWO1": 409, "GOOD*": 400}


def cut_to_the_pacs(house: House) -> None:
    house.link.cut()


def cut_from_the_pacs(house: House) -> None:
    house.back.cut()


def silent_pacs(house: House) -> None:
    house.link.hush()
    time.sleep(5)
    house.link.mend()


def unreachable(house: House) -> None:
    house.back.target = 0
    house.back.cut()
    time.sleep(3)
    house.back.target = house.service.receiver_port


def patient_api_down(house: House) -> None:
    house.patient_api.script = random.choice((house.patient_api.fails, house.patient_api.hangs))
    time.sleep(3)
    house.patient_api.script = house.patient_api.knows_nobody


def garbage(house: House) -> None:
    for piece in (os.urandom(400), associate_rq()[:50], b"\x04\x00\xff\xff\xff\xff"):
        with RawPeer(house.service.receiver_port) as peer:
            peer.send(piece)


def stranger(house: House) -> None:
    store(house.back.port, house.studies[random.choice(list(house.studies))], timeout_seconds=20)


def an_image_changes(house: House) -> None:
    for file in list((house.service.data_dir / "jobs").glob("*/instances/*"))[:1]:
        with file.open("r+b") as opened:
            opened.seek(-1, os.SEEK_END)
            opened.write(b"\xa5")


def an_image_vanishes(house: House) -> None:
    for file in list((house.service.data_dir / "jobs").glob("*/instances/*"))[:1]:
        file.unlink()


def killed(name: str) -> Callable[[House], None]:
    def fault(house: House) -> None:
        os.kill(house.service.processes()[name], signal.SIGKILL)

    fault.__name__ = f"{name}_killed"
    return fault


def job_killed(house: House) -> None:
    state = {"state": {"type": {"any_": ["RUNNING"]}}}
    for run in house.service.prefect.post("/flow_runs/filter", json={"flow_runs": state, "limit": 1}).json():
        if run["infrastructure_pid"]:
            os.kill(int(run["infrastructure_pid"].split("/")[1]), signal.SIGKILL)


FAULTS: list[Callable[[House], None]] = [
    cut_to_the_pacs, cut_from_the_pacs, silent_pacs, unreachable, patient_api_down, garbage, stranger, an_image_changes,
    an_image_vanishes,
    job_killed, killed("receiver"), killed("worker"), killed("webhook"),
]  # fmt: skip


class Soak:
    """What the clerks have seen so far."""

    def __init__(self, house: House, folder: Path, until: float, faulty: float) -> None:
        self.house = house
        self.folder = folder
        self.until = until
        self.faulty = faulty
        self.lock = threading.Lock()
        self.answers: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.wrong: list[str] = []

    def clerk(self, number: int) -> None:
        dice = random.Random(number)
        with httpx.Client(base_url=self.house.service.http.base_url, timeout=120, headers={"X-API-Key": KEY}) as http:
            asked = 0
            while time.monotonic() < self.until:
                asked += 1
                if dice.random() < self.faulty:
                    fault = dice.choice(FAULTS)
                    threading.Thread(target=self._inject, args=(fault, dice.random())).start()
                if dice.random() < 0.2:
                    self.house.ask_of(dice.choice(("orthanc", "asynchronous", "dcmqrscp")))
                self._ask(http, dice.choices(list(ASKED), list(ASKED.values()))[0], self.folder / f"{number}-{asked}")

    def _inject(self, fault: Callable[[House], None], delay: float) -> None:
        time.sleep(delay)
        with self.lock:
            self.faults[fault.__name__] += 1
        with suppress(OSError, KeyError, ValueError, httpx.HTTPError):
            fault(self.house)

    def _ask(self, http: httpx.Client, accession_number: str, folder: Path) -> None:
        began = time.monotonic()
        try:
            answer = http.get("/api/iso/download", params={"accession_number": accession_number})
        except httpx.TransportError:  # the webhook was killed: a browser asks again
            self._count("connection broken")
            time.sleep(0.5)
            return
        if answer.status_code != 200:
            body = answer.json()
            self._count(f"{answer.status_code} {body.get('code')}")
            if body.get("code") == "unforeseen":
                self._is_wrong(f"{accession_number}: {body.get('error')}")
            if len(body.get("error", "")) < 20:
                self._is_wrong(f"{accession_number}: {answer.status_code} without a reason")
            return
        self._count("200")
        with self.lock:
            self.seconds.append(time.monotonic() - began)
        try:
            assert accession_number not in NO_DISC, "a disc that must not be"
            assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"', (
                "other bytes than its ETag says"
            )
            folder.mkdir()
            (folder / "disc.iso").write_bytes(answer.content)
            assert_holds_exactly(extract(folder / "disc.iso", folder / "x"), self.house.studies[accession_number])
        except Exception as error:
            self._is_wrong(f"{accession_number}: {type(error).__name__} {error}"[:300])
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _count(self, what: str) -> None:
        with self.lock:
            self.answers[what] += 1

    def _is_wrong(self, what: str) -> None:
        with self.lock:
            self.wrong.append(what)


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--faulty", type=float, default=0.05, help="how many questions bring a fault with them")
    arguments = parser.parse_args()
    minutes = arguments.minutes
    with tempfile.TemporaryDirectory() as place, open_house(Path(place) / "house") as house:
        (Path(place) / "discs").mkdir()
        house.service.download("GOOD1")
        begun = {name: (pid, resident_mib(pid), standing_of(pid)) for name, pid in house.service.processes().items()}
        soak = Soak(house, Path(place) / "discs", time.monotonic() + 60 * minutes, arguments.faulty)
        clerks = [threading.Thread(target=soak.clerk, args=(number,)) for number in range(CLERKS)]
        for clerk in clerks:
            clerk.start()
        for clerk in clerks:
            clerk.join()
        left = _settle(house)
        for name, pid in house.service.processes().items():
            old_pid, memory, standing = begun[name]
            restarted = " (started anew)" if pid != old_pid else ""
            now = standing_of(pid)
            print(f"{name}{restarted}: {memory:.0f} -> {resident_mib(pid):.0f} MiB, threads {standing.threads} -> "
                f"{now.threads}, "
                  f"descriptors {standing.descriptors} -> {now.descriptors}")  # fmt: skip
    faults, asked = sum(soak.faults.values()), sum(soak.answers.values())
    print(f"{minutes:g} minutes: {asked} questions, {soak.answers['200']} discs compared, {faults} faults injected")
    if soak.seconds:
        print(
            f"a disc took {statistics.median(soak.seconds):.1f} s (median), "
            f"{statistics.quantiles(soak.seconds, n=20)[-1]:.1f} s (95 %)"
        )
    print("answers:", *(f"{count} x {what}" for what, count in soak.answers.most_common()), sep="\n  ")
    print("faults:", *(f"{count} x {what}" for what, count in soak.faults.most_common()), sep="\n  ")
    print("wrong:", *(soak.wrong + left or ["nothing"]), sep="\n  ")
    return 1 if soak.wrong or left else 0


def _settle(house: House) -> list[str]:
    """What is still there a while after the last answer and shouldn't be; and whether the next job passes."""
    house.link.mend()
    house.back.mend()
    house.ask_of("orthanc")
    active = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}}
    deadline = time.monotonic() + 120
    left = ["never looked"]
    while left and time.monotonic() < deadline:
        time.sleep(2)
        with suppress(httpx.HTTPError):
            runs = house.service.prefect.post("/flow_runs/filter", json=active).raise_for_status().json()
            left = [f"run {run['name']} is {run['state_type']}" for run in runs]
            left += [f"incoming {file.name}" for file in (house.service.data_dir / "incoming").iterdir()]
            if (answer := house.service.download("GOOD1")).status_code != 200:
                left.append(f"the next job: {answer.text[:200]}")
    return left


if __name__ == "__main__":
    raise SystemExit(main())

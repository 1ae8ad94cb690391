"""What happens to a job when somebody retries, cancels, stops or kills: right, or failed with a reason, and nothing
left behind.
"""

from __future__ import annotations

import base64
import os
import signal
import socket
from pathlib import Path

import pytest

from peers.chromium import Chromium
from peers.corpus import make_ct_series, make_study, ramp
from peers.discs import assert_holds_exactly, extract
from peers.link import Link
from peers.orthanc import Orthanc
from peers.patience import LONG, until
from peers.ports import is_open
from peers.service import Service
from tests.end_to_end.conftest import Hospital, Open

pytestmark = [pytest.mark.end_to_end]

SLICES = 40


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("studies")
    return {"SMALL1": make_study(folder, "SMALL1"), "BIG1": make_ct_series(folder, "BIG1", SLICES, pixels=ramp(512))}


@pytest.fixture(scope="module")
def hospital(open_hospital: Open, files: dict[str, list[Path]]) -> Hospital:
    every = [file for study in files.values() for file in study]
    return open_hospital("orthanc", every, {"disc": {"reuse_minutes": 0}}, warm=False, linked=True, verbose=False)


def in_mid_move(hospital: Hospital) -> str:
    """A big job of which some images have arrived and most have not: the rest is on its way until `back.mend`."""
    jobs, back = hospital.service.data_dir / "jobs", hospital.back
    back.mend()
    back.hushed.clear()
    before = set(jobs.glob("*/instances/*"))

    def hush_in_the_middle(link: Link) -> None:
        if len(set(jobs.glob("*/instances/*")) - before) >= 5:
            link.hush()

    back.on_carried = hush_in_the_middle
    job_id = hospital.service.ask("/api/iso/download", accession_number="BIG1")
    hospital.service.when(back.hushed.is_set)
    return job_id


def assert_next_job_passes(hospital: Hospital) -> None:
    assert hospital.service.when(lambda: hospital.service.download("SMALL1").status_code == 200)


def test_retry_in_the_ui_moves_only_the_gap(hospital: Hospital, files: dict[str, list[Path]], tmp_path: Path) -> None:
    """The PACS goes away in mid-move; the operator retries the run once it is back."""
    assert isinstance(hospital.pacs, Orthanc)
    job_id = in_mid_move(hospital)
    hospital.pacs.kill()
    hospital.back.mend()
    run = hospital.service.run_ended(job_id)
    assert run["state_type"] == "FAILED", run["state"]
    job = hospital.service.job(job_id)
    assert run["state"]["message"].endswith(f" [{job['error']['code']}]") and "PACS" in run["state"]["message"]
    assert job["state"] == "failed" and job["error"]["code"] in ("pacs_unreachable", "study_incomplete", "pacs_silent")
    kept = {file.name for file in (hospital.service.data_dir / "jobs" / job_id / "instances").iterdir()}
    assert 0 < len(kept) < SLICES

    hospital.pacs.start()
    with Chromium(tmp_path / "chromium") as browser:
        presses_retry(browser, hospital.service, job_id)
    hospital.service.when(lambda: hospital.service.run(job_id)["run_count"] == 2)
    assert hospital.service.run_ended(job_id)["state_type"] == "COMPLETED"
    answer = hospital.service.http.get(f"/api/iso/jobs/{job_id}/disc")
    image = tmp_path / "disc.iso"
    image.write_bytes(answer.content)
    assert_holds_exactly(extract(image, tmp_path / "extracted"), files["BIG1"])
    moved = [line for line in hospital.service.log().splitlines() if "stored" in line and "Association with" in line][
        -1
    ]
    assert f"{SLICES - len(kept)} stored" in moved, moved


def presses_retry(browser: Chromium, service: Service, job_id: str) -> None:
    """As an operator does: the run's page in the Prefect UI, Retry, and Retry once more where it asks."""
    ui = f"http://127.0.0.1:{service.prefect_port}"
    browser.size(1200, 800)
    browser.open(ui)
    password = base64.b64encode(service.prefect_password.encode()).decode()
    browser.run(f"localStorage.setItem('prefect-password', '{password}')")
    browser.open(f"{ui}/runs/flow-run/{job_id}")
    buttons = "[...document.querySelectorAll('{} button')].filter((one) => one.innerText.trim() === 'Retry')"

    def pressed() -> bool:
        """The page may draw a button anew just as it is pressed: pressed again, as a person would."""
        for place in ("[role=dialog]", ""):
            if browser.run(f"(() => {{ const [one] = {buttons.format(place)}; one?.click(); return Boolean(one) }})()"):
                break
        return str(service.run(job_id)["state_type"]) != "FAILED"

    until(pressed, pause=1)


def test_cancel_ends_the_move_and_removes_the_folder_within_seconds(hospital: Hospital) -> None:
    job_id = in_mid_move(hospital)
    hospital.service.cancel(job_id)
    assert hospital.service.run_ended(job_id)["state_type"] == "CANCELLED"
    hospital.service.when(lambda: not (hospital.service.data_dir / "jobs" / job_id).exists())
    hospital.back.mend()
    health = hospital.service.http.get("/api/health").json()
    assert "jobs that wait for images 0," in health["dependencies"]["receiver"]["detail"]
    assert hospital.service.job(job_id)["error"]["code"] == "job_cancelled"
    assert_next_job_passes(hospital)


@pytest.mark.parametrize("name", ["worker", "receiver", "webhook", "prefect"])
def test_a_killed_process_comes_back_and_the_job_ends_in_words(hospital: Hospital, name: str) -> None:
    job_id = in_mid_move(hospital)
    os.kill(hospital.service.processes()[name], signal.SIGKILL)
    hospital.back.mend()
    hospital.service.when(hospital.service.is_ready)
    run = hospital.service.run_ended(job_id)
    assert run["state_type"] in ("COMPLETED", "FAILED", "CRASHED")
    assert run["state_type"] == "COMPLETED" or len(run["state"]["message"]) > 30
    assert_next_job_passes(hospital)


def test_a_killed_flow_process_is_crashed_in_words(hospital: Hospital) -> None:
    job_id = in_mid_move(hospital)
    process = process_of(hospital, job_id)
    os.kill(process, signal.SIGKILL)
    hospital.back.mend()
    run = hospital.service.run_ended(job_id)
    assert run["state_type"] == "CRASHED"
    job = hospital.service.job(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "job_crashed")
    hospital.service.retry(job_id)
    hospital.service.when(lambda: hospital.service.job(job_id)["state"] == "done")
    assert hospital.service.run_ended(job_id)["state_type"] == "COMPLETED"


def test_flow_process_and_worker_killed_together_leave_no_run_running(hospital: Hospital) -> None:
    job_id = in_mid_move(hospital)
    process = process_of(hospital, job_id)
    os.kill(hospital.service.processes()["worker"], signal.SIGKILL)
    os.kill(process, signal.SIGKILL)
    hospital.back.mend()
    run = hospital.service.run_ended(job_id)
    assert run["state_type"] == "CRASHED"
    assert "killed" in run["state"]["message"]
    assert_next_job_passes(hospital)


def test_pictures_are_made_by_forks_and_without_them(hospital: Hospital) -> None:
    """The process that forks is killed: the next job's pictures are made, and it comes back."""
    service = hospital.service
    path = service.data_dir / "pictures.sock"
    service.when(path.is_socket)
    first = path.stat().st_ino
    [server] = [pid for pid in _processes_of(service) if b"fork_server" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(server, signal.SIGKILL)
    assert service.download("SMALL1").status_code == 200
    service.when(lambda: path.stat().st_ino != first)
    assert "doesn't start" not in service.log()


def test_what_is_saved_to_the_configuration_while_it_runs_decides_nothing(hospital: Hospital) -> None:
    """A file saved by half: jobs, housekeeping, the hook of a cancelled job and a worker that is started again go by
    what the service began with.
    """
    service = hospital.service
    text = service.configuration.read_text()
    job_id = in_mid_move(hospital)
    service.configuration.write_text(f"{text}\nstorage: {{data_dir: /nowhere\n")
    try:
        service.cancel(job_id)
        assert service.run_ended(job_id)["state_type"] == "CANCELLED"
        service.when(lambda: not (service.data_dir / "jobs" / job_id).exists())
        hospital.back.mend()
        assert service.download("SMALL1").status_code == 200
        [housekeeping] = [
            each
            for each in service.prefect.post("/deployments/filter", json={}).json()
            if each["name"] == "housekeeping"
        ]
        kept = service.prefect.post(
            f"/deployments/{housekeeping['id']}/create_flow_run", json={"state": {"type": "SCHEDULED"}}
        ).json()
        assert service.run_ended(kept["id"])["state_type"] == "COMPLETED"
        worker = service.processes()["worker"]
        os.kill(worker, signal.SIGKILL)
        service.when(lambda: service.processes().get("worker", worker) != worker)
        assert service.download("SMALL1").status_code == 200
    finally:
        service.configuration.write_text(text)


def test_what_processes_are_forked_from_has_one_thread_and_no_connection(hospital: Hospital) -> None:
    """Else a fork would have a lock that nobody gives back, or share what is another's."""
    folder = Path(f"/proc/{hospital.service.pid}")
    assert len(list((folder / "task").iterdir())) == 1
    opened = [each.readlink() for each in (folder / "fd").iterdir() if int(each.name) > 2]
    assert opened == [hospital.service.data_dir / "serve.lock"]
    for name, pid in hospital.service.processes().items():
        assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode() == f"mkiso {name}"
        held = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [each for each in held if "serve.lock" in each], name


def test_sigterm_lets_the_job_finish_or_fail_in_words_and_leaves_nothing(
    open_hospital: Open, files: dict[str, list[Path]]
) -> None:
    sections = {"server": {"shutdown_grace_seconds": 1}}
    hospital = open_hospital("orthanc", files["BIG1"], sections, warm=False, linked=True, verbose=False)
    service = hospital.service
    in_mid_move(hospital)
    children = set(service.processes().values())
    assert service.child is not None
    service.child.send_signal(signal.SIGTERM)
    assert service.child.wait(LONG) == 0
    assert not [process for process in children if Path(f"/proc/{process}").exists()]
    assert not is_open(service.receiver_port) and not is_open(service.port) and not is_open(service.prefect_port)
    assert not [
        folder for folder in (service.data_dir / "discs").glob("*-*") if not (folder / "manifest.json").exists()
    ]
    until(lambda: not _processes_of(service), told=lambda: str(_processes_of(service)))


def test_where_failed_jobs_are_not_kept_nothing_is_left_of_those_that_were_killed(
    open_hospital: Open, files: dict[str, list[Path]]
) -> None:
    """One job's process; then everything at once, and nobody to clear up before the next start, which does it at once
    and not with the hour.
    """
    sections = {"storage": {"keep_failed_hours": 0}, "disc": {"reuse_minutes": 0}}
    hospital = open_hospital("orthanc", files["BIG1"], sections, linked=True, verbose=False)
    service = hospital.service
    folders = service.data_dir / "jobs"
    job_id = in_mid_move(hospital)
    os.kill(process_of(hospital, job_id), signal.SIGKILL)
    assert service.run_ended(job_id)["state_type"] == "CRASHED"
    service.when(lambda: not list(folders.iterdir()))

    job_id = in_mid_move(hospital)
    for process in (service.pid, *service.processes().values(), process_of(hospital, job_id)):
        os.kill(process, signal.SIGKILL)
    service.kill()
    hospital.back.mend()
    assert len(list((folders / job_id / "instances").iterdir())) > 0
    service.start()
    assert service.run_ended(job_id)["state_type"] == "CRASHED"
    service.when(lambda: not list(folders.iterdir()))
    assert not list((service.data_dir / "incoming").iterdir())


def process_of(hospital: Hospital, job_id: str) -> int:
    return int(hospital.service.when(lambda: hospital.service.run(job_id)["infrastructure_pid"]).split("/")[1])


def _processes_of(service: Service) -> list[int]:
    """Those that were started with its configuration or in its folder, but for this one."""
    text = str(service.configuration.parent)
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
            if int(folder.name) != os.getpid() and text.encode() in told:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_port_that_is_taken_is_said_in_words(
    open_hospital: Open, files: dict[str, list[Path]], tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RuntimeError, match="another program has it"):
            open_hospital(
                "orthanc",
                files["SMALL1"],
                {"receiver": {"port": taken.getsockname()[1], "host": "127.0.0.1"}},
                verbose=False,
            )

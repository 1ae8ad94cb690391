"""The ledger on SQLite and on PostgreSQL: opening, volumes, claims, what it can be asked."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError

from mkiso.archive import evidence
from mkiso.archive.catalogue import archived, archived_counts, failed_studies, find, lost_studies, report
from mkiso.archive.days import searched
from mkiso.archive.ledger import (
    SILENT_MACHINE,
    Ledger,
    clock,
    postgresql_engine,
    require_file,
    require_postgresql,
)
from mkiso.archive.lifecycle import Remedy
from mkiso.archive.nights import Night
from mkiso.archive.owed import owed
from mkiso.archive.readback import verify_against_ledger
from mkiso.archive.reconcile import reconcile
from mkiso.archive.store import Store, deliver_to_store, put
from mkiso.archive.tables import metadata, nights
from mkiso.config.settings import Settings
from mkiso.errors import (
    ArchiveUnusable,
    ClaimLost,
    ConfigurationError,
    LedgerDamaged,
    LedgerUnavailable,
    PacsUnreachable,
    ProofFailed,
    StudyIncomplete,
    VolumeNotFound,
)
from peers.patience import LONG, until
from peers.ports import free_port
from peers.postgresql import BIN, PostgreSQL, running_postgresql
from tests.archive.discs import DAY, RANGE, archive, file, master, study


def test_the_migrations_make_the_tables_of_the_code(ledger: Ledger) -> None:
    with ledger.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_processes_that_start_at_once_open_one_ledger(settings: Settings) -> None:
    """With SQLite four processes of one machine, with PostgreSQL of four machines."""
    program = "import sys; from mkiso.archive.ledger import Ledger; from mkiso.config.settings import Settings; "
    program += "ledger = Ledger.open(Settings.model_validate_json(sys.argv[1])); print(ledger.place)"
    url = settings.archive.ledger_url.get_secret_value()
    folders = [settings.storage.data_dir / (str(number) if url else "") for number in range(4)]
    openers = [
        subprocess.Popen([sys.executable, "-c", program, as_json(folder, url)], stdout=subprocess.PIPE)
        for folder in folders
    ]
    places = [opener.communicate(timeout=LONG)[0] for opener in openers]
    assert [opener.returncode for opener in openers] == [0, 0, 0, 0]
    assert len(set(places)) == len(set(folders))


def as_json(data_dir: Path, url: str) -> str:
    return json.dumps({"storage": {"data_dir": str(data_dir)}, "archive": {"ledger_url": url}})


def test_a_ledger_of_a_newer_mkiso_is_refused(settings: Settings) -> None:
    with Ledger.open(settings) as ledger, ledger.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="newer mkiso"):
        Ledger.open(settings)
    with pytest.raises(
        ConfigurationError, match=r"newer mkiso \(tables 9999; this one knows \d{4}\): install that one"
    ):
        require(settings)


def require(settings: Settings) -> None:
    """What `mkiso doctor` and `/api/health` look at."""
    if url := settings.archive.ledger_url.get_secret_value():
        require_postgresql(url)
    else:
        require_file(settings.storage)


def test_damage_that_a_transaction_comes_upon_is_told(tmp_path: Path) -> None:
    settings = Settings.model_validate({"storage": {"data_dir": tmp_path}})
    with Ledger.open(settings) as ledger, ledger.reading() as connection:
        root = connection.scalar(text("SELECT rootpage FROM sqlite_master WHERE name = 'days'"))
    with (tmp_path / "ledger.sqlite").open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(LedgerDamaged, match=r"ledger\.sqlite is damaged"), Ledger.open(settings) as ledger:
        searched(ledger)


@pytest.mark.peer
def test_a_database_that_refuses_mkiso_is_told_of(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """PostgreSQL 15 and later let nobody but its owner make tables in a database."""
    url = postgresql.database(f"ledger_{uuid4().hex}")
    make_role: list[str] = ["psql", "-qc", "CREATE ROLE another LOGIN", *postgresql.where(url)]
    subprocess.run(make_role, check=True)
    settings = Settings.model_validate(
        {"storage": {"data_dir": tmp_path}, "archive": {"ledger_url": url.replace("mkiso@", "another@")}}
    )
    with pytest.raises(LedgerUnavailable, match="permission denied"):
        Ledger.open(settings)


@pytest.mark.peer
@pytest.mark.skipif(not (BIN / "initdb").exists(), reason="PostgreSQL isn't installed")
def test_a_machine_that_is_gone_is_noticed_within_a_minute_by_both_sides() -> None:
    """By the system's own defaults the lock of all who write would be kept for two hours by a machine without power."""
    with running_postgresql(port := free_port()) as server:
        server.database("ledger")
        engine = postgresql_engine(f"postgresql://mkiso@127.0.0.1:{port}/ledger?keepalives_idle=7")
        with engine.connect() as connection:
            connection.rollback()
            theirs = {name: connection.scalar(text(f"SHOW {name}")) for name in SILENT_MACHINE}
            descriptor = connection.connection.driver_connection.fileno()  # type: ignore[union-attr]
            with socket.socket(fileno=os.dup(descriptor)) as ours:
                options = socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT
                found = [ours.getsockopt(socket.IPPROTO_TCP, option) for option in options]
        engine.dispose()
    assert list(theirs.values()) == ["30", "10", "3", "60000"]
    assert found == [7, 10, 3, 60_000]  # the first as its URL says


@pytest.mark.parametrize("url", ["nonsense", "mysql://a@b/c"])
def test_a_wrong_ledger_url_is_a_configuration_error(tmp_path: Path, url: str) -> None:
    settings = Settings.model_validate({"storage": {"data_dir": tmp_path}, "archive": {"ledger_url": url}})
    with pytest.raises(ConfigurationError, match=r"archive\.ledger_url"):
        Ledger.open(settings)


def test_the_sqlite_file_is_durable_and_for_its_owner_alone(tmp_path: Path) -> None:
    with Ledger.open(Settings.model_validate({"storage": {"data_dir": tmp_path / "with space % and ?"}})) as ledger:
        with ledger.writing() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        files = sorted(ledger.storage.data_dir.glob("ledger.sqlite*"))
        assert [file.name for file in files] == ["ledger.sqlite", "ledger.sqlite-shm", "ledger.sqlite-wal"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_the_clock_is_now(ledger: Ledger) -> None:
    began = time.time()
    with ledger.reading() as connection:
        assert began - 1 <= clock(connection) <= time.time() + 1


def test_a_stored_volume_is_found_and_proved(ledger: Ledger, settings: Settings) -> None:
    with Night.begin(ledger, "run", RANGE) as night:
        volume = archive(night, {"1.2": ["1.2.1", "1.2.2"], "1.3": ["1.3.1"]}, {"1.3": "A2"})
        (waiting,) = find(ledger, "A1")
        assert [holding.state for holding in waiting.holdings] == ["mastered"]
        store = Store.open(ledger)
        (left,) = reconcile(night, ledger, store)
        stored = deliver_to_store(night, left.volume, '{"a": 1}', store)
        night.finish(found=2)
    assert not volume.folder.exists()
    assert sorted(path.name for path in stored.iterdir()) == ["A20260213_0001.iso", "A20260213_0001.json"]
    assert archived(ledger, ["1.2", "1.3", "1.4"]) == {"1.2": {"1.2.1", "1.2.2"}, "1.3": {"1.3.1"}}
    assert archived_counts(ledger, ["1.2", "1.3", "1.4"]) == {"1.2": 2, "1.3": 1}
    for asked, instances, path in (("A1", 2, ""), ("1.2", 2, ""), ("1.2.2", 1, str(file("1.2.2").path))):
        (finding,) = find(ledger, asked)
        (holding,) = finding.holdings
        assert (finding.study_instance_uid, finding.accession_number) == ("1.2", "A1")
        assert (holding.label, holding.state, holding.location, holding.instances, holding.path) == (
            "A20260213_0001", "done", str(stored), instances, path,
        )  # fmt: skip
    assert find(ledger, "A3") == ()
    (told,) = report(ledger)
    assert (told.found, told.failed, told.volumes, told.undelivered, told.instances) == (2, 0, 1, 0, 3)
    assert told.started <= (told.finished or told.started)
    assert told.started.tzinfo == UTC


def test_a_disc_is_read_back_against_the_ledger(ledger: Ledger) -> None:
    with Night.begin(ledger, "run", RANGE) as night:
        volume = archive(night, {"1.2": ["1.2.1", "1.2.2"]})
    one, other = file("1.2.1"), file("1.2.2")
    readme = ("README.TXT", 4, "b5a18e6a4d0b1a4b4f6f2f7f6a0d4a4d")
    good = [
        (str(entry.path), entry.size, entry.sha256) for entry in master(volume, {"1.2": ["1.2.1", "1.2.2"]}).other_files
    ]
    good += [(str(entry.path), entry.size, entry.sha256) for entry in (one, other)]
    assert verify_against_ledger(ledger, volume.label + "   ", good).is_good
    assert find(ledger, "1.2")[0].holdings[0].read_back_good is True
    bad = verify_against_ledger(ledger, volume.label, [readme, (str(one.path), one.size, one.sha256), ("X", 1, "00")])
    assert (bad.good, bad.damaged, bad.missing, bad.unexpected) == (1, ("README.TXT",), (str(other.path),), ("X",))
    assert not bad.is_good
    assert find(ledger, "1.2")[0].holdings[0].read_back_good is False
    with pytest.raises(VolumeNotFound):
        verify_against_ledger(ledger, "A20260213_0002", good)


def test_a_set_is_written_down_in_one_step(ledger: Ledger) -> None:
    with Night.begin(ledger, "run", RANGE) as night:
        night.claim(["1.2"])
        first, second = night.plan("dvd", "store", DAY, total=2)
        assert [(volume.label, volume.number, volume.total) for volume in (first, second)] == [
            ("A20260213_0001", 1, 2),
            ("A20260213_0002", 2, 2),
        ]
        with pytest.raises(FileNotFoundError):  # the second image isn't there
            night.mastered(
                [master(first, {"1.2": ["1.2.1"]}), replace(master(first, {"1.2": ["1.2.2"]}), volume=second)]
            )
        assert archived(ledger, ["1.2"]) == {}
        night.mastered([master(first, {"1.2": ["1.2.1"]}), master(second, {"1.2": ["1.2.2"]})])
        assert [holding.label for holding in find(ledger, "1.2")[0].holdings] == [first.label, second.label]


def test_an_instance_is_never_archived_twice(ledger: Ledger) -> None:
    with Night.begin(ledger, "run", RANGE) as night:
        archive(night, {"1.2": ["1.2.1"]})
        with pytest.raises(IntegrityError):
            archive(night, {"1.2": ["1.2.2", "1.2.1"]})
        assert archived(ledger, ["1.2"]) == {"1.2": {"1.2.1"}}
        archive(night, {"1.2": ["1.2.2"]}, {"1.2": "A9"})
        (finding,) = find(ledger, "A9")
        assert [holding.instances for holding in finding.holdings] == [1, 1]


def test_transitions_are_those_of_the_table(ledger: Ledger) -> None:
    with Night.begin(ledger, "run", RANGE) as night:
        volume = archive(night, {"1.2": ["1.2.1"]})
        with pytest.raises(ValueError, match="can't become ordered"):
            night.advance(volume.label, "ordered")
        night.advance(volume.label, "ordering")
        assert [left.remedy for left in reconcile(night, ledger)] == [Remedy.ASK]
        night.advance(volume.label, "ordered", "order-7")
        assert [left.remedy for left in reconcile(night, ledger)] == [Remedy.AWAIT]
        assert find(ledger, "1.2")[0].holdings[0].location == "order-7"
        night.advance(volume.label, "done")
        assert reconcile(night, ledger) == ()
        with pytest.raises(ClaimLost):
            night.advance(volume.label, "mastered")


@pytest.mark.parametrize(("number", "is_lost"), [(errno.ESTALE, False), (errno.EACCES, False), (errno.EIO, True)])
def test_an_image_that_cannot_be_looked_at_now_is_not_lost(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, number: int, is_lost: bool
) -> None:
    with Night.begin(ledger, "one", RANGE) as night:
        archive(night, {"1.2": ["1.2.1"]})

    def fails(_: Path) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(evidence, "sha256_of", fails)
    with Night.begin(ledger, "two", RANGE) as night:
        with nullcontext() if is_lost else pytest.raises(ArchiveUnusable, match="can't be read"):
            reconcile(night, ledger, Store.open(ledger))
        assert bool(lost_studies(ledger)) is is_lost


def test_what_a_run_left_half_made_is_discarded_by_the_next(ledger: Ledger) -> None:
    """What nobody knows stays, and so does a damaged image until what lay on it is delivered on another volume."""
    with Night.begin(ledger, "one", RANGE) as night:
        (planned,) = night.plan("dvd", "store", DAY)
        lost = archive(night, {"1.2": ["1.2.1"], "1.4": ["1.4.1"]})
        whole = archive(night, {"1.3": ["1.3.1"]})
        lost.image.write_bytes(b"x" * len(lost.image.read_bytes()))
    stranger = ledger.storage.volumes_dir / "A20010101_0001"
    stranger.mkdir()
    with Night.begin(ledger, "two", RANGE) as night:
        store = Store.open(ledger)
        left = reconcile(night, ledger, store)
        assert [(each.volume.label, each.remedy) for each in left] == [
            (lost.label, Remedy.LOSE),
            (whole.label, Remedy.DELIVER),
        ]
        assert not planned.folder.exists()
        assert whole.image.exists()
        assert archived(ledger, ["1.2", "1.3", "1.4"]) == {"1.3": {"1.3.1"}}
        assert [study.study_instance_uid for study in lost_studies(ledger)] == ["1.2", "1.4"]
        assert {each.label: "2 images of 2 studies" in each.words for each in owed(ledger, store)} == {
            lost.label: True,
            stranger.name: False,
        }
        deliver_to_store(night, left[1].volume, "{}", store)
        again = archive(night, {"1.2": ["1.2.1"]})
        assert again.label > whole.label
        (left_again,) = [each for each in reconcile(night, ledger, store) if each.volume.label == again.label]
        deliver_to_store(night, left_again.volume, "{}", store)
        assert [study.study_instance_uid for study in lost_studies(ledger)] == ["1.4"]
        assert reconcile(night, ledger, store) == ()
        assert lost.folder.exists()
        last = archive(night, {"1.4": ["1.4.1"]})
        reconcile(night, ledger, store)
        assert lost.folder.exists()  # the volume that has its images now isn't delivered yet
        deliver_to_store(night, reconcile(night, ledger, store)[0].volume, "{}", store)
        assert reconcile(night, ledger, store) == ()
        assert not lost.folder.exists()
        assert stranger.exists()
        assert [each.label for each in owed(ledger, store)] == [stranger.name]
        assert archived(ledger, ["1.4"]) == {"1.4": {"1.4.1"}}
        assert last.label in {holding.label for holding in find(ledger, "1.4")[0].holdings}


def test_a_run_leaves_volumes_of_a_living_run_and_another_data_directory_alone(
    ledger: Ledger, settings: Settings, tmp_path: Path
) -> None:
    elsewhere = settings.model_copy(
        update={"storage": settings.storage.model_copy(update={"data_dir": tmp_path / "other"})}
    )
    with Night.begin(ledger, "one", RANGE) as living:
        (planned,) = living.plan("dvd", "store", DAY)
        with Night.begin(ledger, "two", RANGE) as other:
            assert reconcile(other, ledger) == ()
            assert planned.folder.exists()
    if settings.archive.ledger_url.get_secret_value():
        with Ledger.open(elsewhere) as there, Night.begin(there, "three", RANGE) as other:
            assert reconcile(other, there) == ()
            assert planned.folder.exists()


def test_two_runs_never_hold_the_same_study(ledger: Ledger) -> None:
    with Night.begin(ledger, "one", RANGE) as one, Night.begin(ledger, "two", RANGE) as two:
        assert one.claim(["1.2", "1.3"]) == {"1.2", "1.3"}
        assert two.claim(["1.3", "1.4"]) == {"1.4"}
        assert one.claim(["1.2", "1.4"]) == {"1.2"}
        one.release(["1.3"])
        assert two.claim(["1.3"]) == {"1.3"}
    with Night.begin(ledger, "three", RANGE) as three:
        assert three.claim(["1.2", "1.3", "1.4"]) == {"1.2", "1.3", "1.4"}


def test_many_runs_at_once_claim_each_study_once(ledger: Ledger) -> None:
    uids = [f"1.{number}" for number in range(200)]

    def claim(number: int) -> list[str]:
        night = Night.begin(ledger, f"run {number}", RANGE)
        return [uid for start in range(0, 200, 20) for uid in night.claim(uids[start : start + 20])]

    with ThreadPoolExecutor(4) as runs:
        granted = list(runs.map(claim, range(4)))
    assert sorted(uid for some in granted for uid in some) == sorted(uids)


def test_a_silent_run_loses_what_it_held_and_can_write_nothing(ledger: Ledger) -> None:
    silent = Night.begin(ledger, "silent", RANGE)  # no heart beats outside of its context
    silent.claim(["1.2"])
    (volume,) = silent.plan("dvd", "store", DAY)
    with Night.begin(ledger, "other", RANGE) as other:
        assert other.claim(["1.2"]) == frozenset()
        with ledger.writing() as connection:
            connection.execute(
                update(nights).where(nights.c.id == silent.id).values(lease_until=clock(connection) - 0.001)
            )
        assert other.claim(["1.2"]) == {"1.2"}
        with pytest.raises(ClaimLost):
            silent.mastered([master(volume, {"1.2": ["1.2.1"]})])
        assert archived(ledger, ["1.2"]) == {}


def test_a_heart_keeps_a_lease(ledger: Ledger) -> None:
    with Night.begin(ledger, "one", RANGE, lease_seconds=3) as one, Night.begin(ledger, "two", RANGE) as two:

        def leased_until() -> float:
            with ledger.reading() as connection:
                return float(connection.execute(select(nights.c.lease_until).where(nights.c.id == one.id)).scalar_one())

        first = leased_until()
        one.claim(["1.2"])
        until(lambda: leased_until() > first + 3, LONG)
        assert two.claim(["1.2"]) == frozenset()


def test_a_retry_takes_over_from_the_process_that_held_its_night(ledger: Ledger) -> None:
    with Night.begin(ledger, "run", RANGE) as first:
        first.claim(["1.2"])
        with Night.begin(ledger, "run", RANGE) as second:
            assert second.claim(["1.2"]) == {"1.2"}
            with pytest.raises(ClaimLost):
                first.claim(["1.3"])
    assert len(report(ledger)) == 1


def test_the_claims_of_a_dead_process_are_free_at_once(ledger: Ledger, settings: Settings) -> None:
    program = (
        "import sys; from mkiso.config.settings import Settings; from mkiso.archive.ledger import Ledger; from "
        "mkiso.archive.nights import Night; "
    )
    program += (
        "from tests.archive.discs import RANGE; night = "
        "Night.begin(Ledger.open(Settings.model_validate_json(sys.argv[1])), 'dead', RANGE); "
    )
    program += "assert night.claim(['1.2']); print('held', flush=True); sys.stdin.read()"
    url = settings.archive.ledger_url.get_secret_value()
    command = [sys.executable, "-c", program, as_json(settings.storage.data_dir, url)]
    with (
        Night.begin(ledger, "alive", RANGE) as alive,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
        ) as holder,
    ):
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert alive.claim(["1.2"]) == frozenset()
        holder.kill()
        holder.wait()
        assert alive.claim(["1.2"]) == {"1.2"}


def test_failures_count_until_the_study_is_archived(ledger: Ledger) -> None:
    with Night.begin(ledger, "run", RANGE) as night:
        for error, counted in (
            (StudyIncomplete("3 of 10 are missing."), True),
            (PacsUnreachable("No PACS."), False),
            (StudyIncomplete("1."), True),
        ):
            night.failed(study("1.2", "1.2.1"), error, counted=counted)
        night.failed(study("1.3", "1.3.1"), StudyIncomplete("1."))
        first, second = failed_studies(ledger)
        assert (first.study_instance_uid, first.attempts, first.code, first.words) == (
            "1.2",
            2,
            "study_incomplete",
            "1.",
        )
        archive(night, {"1.2": ["1.2.1"]})
        assert failed_studies(ledger) == (second,)
        assert report(ledger)[0].failed == 2


def test_the_store_refuses_another_volume_under_the_same_label(ledger: Ledger, settings: Settings) -> None:
    with Night.begin(ledger, "run", RANGE) as night:
        archive(night, {"1.2": ["1.2.1"]})
        store = Store.open(ledger)
        (left,) = reconcile(night, ledger, store)
        stored = put(settings.archive.directory, left.volume, "{}")
        assert put(settings.archive.directory, left.volume, "{}") == stored
        (stored / f"{left.volume.label}.iso").unlink()
        (stored / f"{left.volume.label}.iso").write_bytes(b"another")
        with pytest.raises(ProofFailed):
            deliver_to_store(night, left.volume, "{}", store)
        assert find(ledger, "1.2")[0].holdings[0].state == "mastered"


def test_no_patient_stands_in_the_tables() -> None:
    columns = {column.name for table in metadata.tables.values() for column in table.columns}
    assert not [name for name in columns if "patient" in name or "birth" in name]

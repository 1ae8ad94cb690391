"""`mkiso archive` on the command line, with a real image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest
from sqlalchemy import select, text

from mkiso.archive.catalogue import archived
from mkiso.archive.days import owe
from mkiso.archive.ledger import Ledger
from mkiso.archive.manifest import manifest_of
from mkiso.archive.nights import Night
from mkiso.archive.store import Store, deliver_to_store
from mkiso.archive.tables import volumes
from mkiso.archive.volumes import MasteredVolume, StudyOnVolume, volume_of
from mkiso.config.file import load
from mkiso.config.settings import Settings
from mkiso.errors import LedgerDamaged, PermanentError, StudyIncomplete
from mkiso.formats.iso import master
from mkiso.storage.files import sha256_of
from mkiso.study.models import DiscFile
from mkiso_service.checks.check import Site, examine
from mkiso_service.checks.registry import checks_of
from mkiso_service.cli.main import run
from peers.corpus import make_study
from peers.ports import free_port
from peers.scripted_pacs import ScriptedPacs
from tests.archive.discs import DAY, RANGE, study

FILES = {
    "DICOMDIR": b"directory",
    "DICOM/PT000001/ST000001/SE000001/IM000001": b"image one",
    "DICOM/PT000001/ST000001/SE000001/IM000002": b"two" * 2000,
}


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A volume of two instances in the ledger, and its image."""
    configuration = tmp_path / "config.yaml"
    configuration.write_text("storage: {data_dir: data}\n")
    monkeypatch.setenv("MKISO_CONFIG", str(configuration))
    files = []
    for number, (path, content) in enumerate(FILES.items()):
        source = tmp_path / f"source{number}"
        source.write_bytes(content)
        uid = "" if path == "DICOMDIR" else f"1.2.{number}"
        files.append(
            DiscFile(
                PurePosixPath(path), len(content), hashlib.sha256(content).hexdigest(), source, sop_instance_uid=uid
            )
        )
    with Ledger.open(load()) as ledger, Night.begin(ledger, "run", RANGE) as night:
        night.claim(["1.2"])
        (volume,) = night.plan("dvd", "store", DAY)
        master(tuple(files), volume.label, volume.image)
        night.mastered(
            [
                MasteredVolume(
                    volume, sha256_of(volume.image), [StudyOnVolume("1.2", "A1", "20260213", files[1:])], files[:1]
                )
            ]
        )
        night.failed(study("1.9", "1.9.1", accession_number="A9"), StudyIncomplete("1 of 3 instances is missing."))
        night.finish(2)
        yield volume.image


def test_a_good_disc_is_good_and_a_flipped_bit_is_named(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["archive", "verify", str(image)]) == 0
    assert "A20260213_0001: 3 files are what the ledger says." in capsys.readouterr().out
    content = bytearray(image.read_bytes())
    content[content.index(b"image one")] ^= 1
    image.write_bytes(content)
    assert run(["archive", "verify", str(image)]) == 1
    out = capsys.readouterr().out
    assert "A20260213_0001 IS NOT GOOD." in out
    assert "damaged: DICOM/PT000001/ST000001/SE000001/IM000001" in out
    assert run(["archive", "find", "A1"]) == 0
    assert f"read back {datetime.now():%Y-%m}" in capsys.readouterr().out


def test_find_names_the_volume_and_the_path(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["archive", "find", "1.2.1"]) == 0
    assert (
        "A20260213_0001  dvd  1 instance  mastered  DICOM/PT000001/ST000001/SE000001/IM000001"
        in capsys.readouterr().out
    )
    assert run(["archive", "find", "A2"]) == 1


def test_the_report_names_nights_and_what_waits(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["archive", "report"]) == 0
    out = capsys.readouterr().out
    assert "2026-02-13  night  done" in out
    assert "2 studies found, 2 instances on 1 volume (" in out and " GiB" not in out
    assert "1 FAILED, 1 NOT YET DELIVERED" in out
    assert "NOT ARCHIVED  A9  20260213  1 of 5 attempts: 1 of 3 instances is missing. [study_incomplete]" in out


def test_a_person_settles_an_uncertain_order(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Ledger.open(load()) as ledger:
        with Night.begin(ledger, "other", RANGE) as night:
            assert night.abandoned() == ()  # the fixture's run is alive
        assert run(["archive", "settle", image.parent.name, "--made"]) == 1  # nothing was ordered
        with Night.begin(ledger, "run", RANGE) as night:
            night.advance(image.parent.name, "ordering")
            assert run(["archive", "settle", image.parent.name, "--made"]) == 1
            assert "works on volume" in capsys.readouterr().err
        assert run(["archive", "settle", image.parent.name, "--again"]) == 0
        with Night.begin(ledger, "other", RANGE) as night:
            assert [volume.state for volume in night.abandoned()] == ["mastered"]


def test_the_studies_of_a_bad_disc_are_owed_again(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = image.parent.name
    assert run(["archive", "withdraw", label, "--yes"]) == 1  # it isn't done
    with Ledger.open(load()) as ledger:
        with Night.begin(ledger, "run", RANGE) as night:
            night.advance(label, "done", "shelf 3")
        assert run(["archive", "withdraw", label, "--yes"]) == 0
        assert "mkiso archive --from 20260213 --to 20260213" in capsys.readouterr().out
        assert archived(ledger, ["1.2"]) == {}
    assert run(["archive", "verify", str(image)]) == 1


def test_what_no_run_can_settle_is_reported_and_settled(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = image.parent.name
    with Ledger.open(load()) as ledger, Night.begin(ledger, "run", RANGE) as night:
        night.advance(label, "done", "shelf 3")
    verify_other = ["archive", "verify", str(image)]
    content = image.read_bytes()
    image.write_bytes(content.replace(b"image one", b"image 0ne"))
    assert run(verify_other) == 1
    image.unlink()
    capsys.readouterr()
    assert run(["archive", "report"]) == 0
    assert f"{label} was read back BAD: `mkiso archive withdraw {label}`" in capsys.readouterr().out
    assert run(["archive", "settle", label, "--stored"]) == 1
    assert "can't be proved" in capsys.readouterr().err
    assert run(["archive", "settle", label, "A20010101_0001", "--lost"]) == 1  # one of them isn't known
    told = capsys.readouterr()
    assert f"{label} is lost; what lay on it and lies on no other volume is owed." in told.out
    assert "no volume A20010101_0001" in told.err
    assert run(["archive", "report"]) == 0
    assert f"{label} is lost, and 2 images of 1 study that lay on it are" in capsys.readouterr().out
    assert run(["archive", "settle", label, "--forget"]) == 0
    assert run(["archive", "settle", label]) == 2
    image.parent.rmdir()
    capsys.readouterr()
    assert run(["archive", "report"]) == 0
    assert label not in capsys.readouterr().out


def test_the_report_says_that_the_store_is_away(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load()
    directory, away = settings.archive.directory, settings.archive.directory.with_name("unmounted")
    with Ledger.open(settings) as ledger, Night.begin(ledger, "run", RANGE) as night:
        assert run(["archive", "report"]) == 0  # the store isn't there before the first volume, and nothing lacks
        assert "STORE NOT SEEN" not in capsys.readouterr().out
        store = Store.open(ledger)
        with ledger.reading() as connection:
            volume = volume_of(connection.execute(select(volumes)).one(), settings.storage.volumes_dir)
        deliver_to_store(night, volume, manifest_of(ledger, volume), store)
    directory.rename(away)
    for mount_point in (False, True):
        if mount_point:
            directory.mkdir()
        assert run(["archive", "report"]) == 0
        assert f"STORE NOT SEEN  1 volume was stored, and {directory}" in capsys.readouterr().out
    directory.rmdir()
    away.rename(directory)
    assert run(["archive", "report"]) == 0
    assert "STORE NOT SEEN" not in capsys.readouterr().out


def test_a_study_that_was_given_up_is_settled_by_a_person(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["archive", "settle", "A9", "--forget"]) == 1  # the nights still try it
    with Ledger.open(load()) as ledger, Night.begin(ledger, "next", RANGE) as night:
        for _ in range(4):
            night.failed(study("1.9", "1.9.1", accession_number="A9"), StudyIncomplete("1 of 3 instances is missing."))
    assert run(["archive", "settle", "A9", "--made"]) == 1
    assert run(["archive", "settle", "A9", "--forget"]) == 0
    assert "A9 is given up: it isn't archived" in capsys.readouterr().out
    assert run(["archive", "report"]) == 0
    assert (
        "NOT ARCHIVED  A9  20260213  given up by a person after 5 attempts: A person gave it up."
        in capsys.readouterr().out
    )


def test_a_stranger_is_refused_by_each_command_until_a_person_adopts_it(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load().storage.data_dir
    for file in data.glob("ledger.sqlite*"):
        file.unlink()
    for arguments in (["find", "A1"], ["report"], ["verify", str(image)], ["settle", "A20260213_0001", "--lost"]):
        assert run(["archive", *arguments]) == 1
        assert "The archive's ledger is empty" in capsys.readouterr().err
    assert image.exists()
    assert run(["archive", "adopt", "--yes"]) == 0
    assert run(["archive", "report"]) == 0
    assert "the ledger doesn't know it" in capsys.readouterr().out
    assert run(["archive", "import", str(image)]) == 1  # no disc of ours: it has neither SHA256.TXT nor records
    assert "SHA256.TXT" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["archive"], ["archive", "--from", "2026-02-13", "--to", "2026-02-12"], ["archive", "--from", "yesterday"]],
)
def test_misuse_is_exit_code_2(arguments: list[str]) -> None:
    assert run(arguments) == 2


def test_the_report_names_what_no_night_looks_at(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = make_study(tmp_path / "undated", "UNDATED1", study_date="")
    with Ledger.open(load()) as ledger:
        yesterday = datetime.now(UTC).date() - timedelta(days=1)
        owe(ledger, yesterday - timedelta(days=1), yesterday)
    with ScriptedPacs(files) as pacs:
        (tmp_path / "config.yaml").write_text(
            f"storage: {{data_dir: data}}\npacs: {{ae_title: {pacs.ae_title}, port: {pacs.port}}}\n"
        )
        assert run(["archive", "report"]) == 0
    told = capsys.readouterr().out
    assert "OUTSIDE  UNDATED1  (no date)  without a Study Date" in told
    assert f"OWED  {yesterday - timedelta(days=1)}" in told
    assert run(["archive", "report"]) == 0
    assert "What lies in the PACS outside of every night can't be told: " in capsys.readouterr().out
    assert run(["archive", "report", "--no-pacs"]) == 0
    assert "outside" not in capsys.readouterr().out


ON_THE_LEDGER = (
    ("report", "--no-pacs"),
    ("find", "A1"),
    ("settle", "A20260213_0001", "--lost"),
    ("withdraw", "A20260213_0001", "--yes"),
    ("adopt", "--yes"),
)


def damaged_head(content: bytes) -> bytes:
    return b"x" * 100 + content[100:]


def damaged_pages(content: bytes) -> bytes:
    return content[:4096] + b"\xff" * (len(content) - 4096)


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("damage", [damaged_head, damaged_pages, cut_short])
def test_a_damaged_ledger_is_said_with_what_to_do_and_left_as_it_is(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    """Each command ended in a traceback, and the backup left a half copy of the configuration."""
    (tmp_path / "config.yaml").write_text("storage: {data_dir: another}\n")
    settings = load()
    Ledger.open(settings).close()
    ledger = settings.storage.data_dir / "ledger.sqlite"
    ledger.write_bytes(left := damage(ledger.read_bytes()))
    for arguments in (*ON_THE_LEDGER, ("verify", str(image)), ("import", str(image))):
        assert run(["archive", *arguments]) == 1, arguments
        told = capsys.readouterr().err
        assert f"{ledger} is damaged" in told and "the last backup of it" in told, arguments
        assert "`mkiso archive adopt`" in told and told.endswith("[ledger_damaged]\n"), arguments
    with pytest.raises(LedgerDamaged) as caught:
        Ledger.open(settings)
    assert isinstance(caught.value, PermanentError)
    (backups := settings.storage.data_dir / "backups").mkdir()
    assert run(["service", "backup", str(backups)]) == 1
    assert f"{ledger} is damaged" in capsys.readouterr().err
    assert list(backups.iterdir()) == []
    assert f"{ledger} is damaged" in doctors_words(settings)
    assert ledger.read_bytes() == left and image.exists()


def doctors_words(settings: Settings) -> str:
    with_archive = settings.model_copy(update={"archive": settings.archive.model_copy(update={"enabled": True})})
    [check] = [check for check in checks_of(with_archive, inside=True) if check.title == "archive's ledger"]
    return examine(check, Site(with_archive, lambda what: None, 1.0, inside=True)).words  # type: ignore[arg-type]


def test_doctor_reads_the_ledgers_file(tmp_path: Path) -> None:
    settings = Settings.model_validate({"storage": {"data_dir": tmp_path}})
    assert doctors_words(settings) == "begins with the first night"
    with Ledger.open(settings) as ledger:
        assert doctors_words(settings) == "its file is sound"
        with ledger.writing() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert "a newer mkiso (tables 9999; this one knows" in doctors_words(settings)


@pytest.mark.parametrize("name", ["ledger.sqlite", "ledger.lock", "ledger.sqlite-wal"])
def test_a_folder_in_the_place_of_the_ledgers_files_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "config.yaml").write_text("storage: {data_dir: data}\n")
    monkeypatch.setenv("MKISO_CONFIG", str(tmp_path / "config.yaml"))
    (data := tmp_path / "data").mkdir()
    (data / name).mkdir()
    for arguments in ON_THE_LEDGER:
        assert run(["archive", *arguments]) == 1, arguments
        told = capsys.readouterr().err
        assert f"{data}/ledger." in told and "can't be used" in told and told.endswith("[ledger_unavailable]\n")
    assert (data / name).is_dir()


def test_a_ledger_that_is_away_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration = tmp_path / "config.yaml"
    url = f"postgresql://mkiso:secret@127.0.0.1:{free_port()}/mkiso"
    configuration.write_text(f"storage: {{data_dir: data}}\narchive: {{enabled: true, ledger_url: '{url}'}}\n")
    monkeypatch.setenv("MKISO_CONFIG", str(configuration))
    assert run(["archive", "report"]) == 1
    told = capsys.readouterr().err
    assert "The archive's ledger can't be used" in told and "secret" not in told and "Traceback" not in told
    site = Site(load(), lambda what: None, 1.0, inside=True)  # type: ignore[arg-type]
    [check] = [check for check in checks_of(site.settings) if check.name == "archive_ledger"]
    found = examine(check, site)
    assert not found.well and "Does the server of archive.ledger_url run?" in found.words
    assert "archive_ledger" not in {check.name for check in checks_of(Settings())}

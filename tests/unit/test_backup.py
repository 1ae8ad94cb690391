"""A backup holds the ledger as it was at one moment, while it is written."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

from click.testing import CliRunner

from service.cli import cli


def test_a_backup_taken_while_the_ledger_is_written_can_be_restored(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "discs" / "orders").mkdir(parents=True)
    (data / "discs" / "orders" / "abc.json").write_text("[]")
    config = tmp_path / "mkiso.yaml"
    config.write_text("storage: {data_dir: data}\n")
    with closing(sqlite3.connect(data / "ledger.sqlite", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE volumes (label TEXT)")
        writer.execute("INSERT INTO volumes VALUES ('A1')")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO volumes VALUES ('half written')")
        told = CliRunner().invoke(cli, ["service", "backup", str(tmp_path / "backups")], env={"MKISO_CONFIG": str(config)})
        writer.execute("COMMIT")
    assert told.exit_code == 0, told.output
    [folder] = (tmp_path / "backups").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} == {"config.yaml", "ledger.sqlite", "orders/abc.json"}
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as restored:
        assert restored.execute("SELECT label FROM volumes").fetchall() == [("A1",)]
    assert (folder / "config.yaml").read_text() == config.read_text()

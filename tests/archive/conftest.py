"""Every test that asks for `settings` or `ledger` runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from mkiso.archive.ledger import Ledger
from mkiso.config.settings import Settings
from peers.postgresql import BIN, PostgreSQL, running_postgresql


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    if not (BIN / "initdb").exists():
        pytest.skip("PostgreSQL isn't installed")
    with running_postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = (
        request.getfixturevalue("postgresql").database(f"ledger_{uuid4().hex}") if request.param == "postgresql" else ""
    )
    return Settings.model_validate(
        {"storage": {"data_dir": tmp_path / "data"}, "archive": {"ledger_url": url, "directory": tmp_path / "archive"}}
    )


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with Ledger.open(settings) as ledger:
        yield ledger


class Copies:
    """What a person does to a ledger: puts another, an empty one or an older copy of it into its place."""

    def __init__(self, server: PostgreSQL | None, folder: Path) -> None:
        self._server, self._folder = server, folder

    def another(self, settings: Settings) -> Settings:
        """The same data directory with an empty ledger; `back` puts the true one back."""
        if self._server:
            return _with_url(settings, self._server.database(f"other_{uuid4().hex}"))
        for file in settings.storage.data_dir.glob("ledger.sqlite*"):
            self._aside(settings).mkdir(exist_ok=True)
            file.rename(self._aside(settings) / file.name)
        return settings

    def back(self, settings: Settings) -> None:
        if not self._server:
            self._replace(settings, self._aside(settings))

    def use(self, other: Settings, settings: Settings) -> None:
        """Put the SQLite file of another archive into this data directory; with PostgreSQL the URL says which ledger
        is used.
        """
        if not self._server:
            self._replace(settings, other.storage.data_dir)

    def with_url_of(self, other: Settings, settings: Settings) -> Settings:
        return _with_url(settings, other.archive.ledger_url.get_secret_value())

    def take(self, settings: Settings) -> None:
        """A copy of the ledger as it is at this moment."""
        if self._server:
            dump: list[str | Path] = [
                "pg_dump",
                "-Fc",
                "-f",
                self._folder / "ledger.dump",
                *self._server.where(settings.archive.ledger_url.get_secret_value()),
            ]
            subprocess.run(dump, check=True)
            return
        (self._folder / "copy").mkdir(exist_ok=True)
        source, target = settings.storage.data_dir / "ledger.sqlite", self._folder / "copy" / "ledger.sqlite"
        with closing(sqlite3.connect(source)) as ledger, closing(sqlite3.connect(target)) as copy:
            ledger.backup(copy)

    def restore(self, settings: Settings) -> None:
        """As docs/operating.md says: the copy takes the ledger's place."""
        if self._server:
            restore: list[str | Path] = [
                "pg_restore",
                "--clean",
                *self._server.where(settings.archive.ledger_url.get_secret_value()),
                self._folder / "ledger.dump",
            ]
            subprocess.run(restore, check=True)
            return
        self._replace(settings, self._folder / "copy")

    def tables(self, settings: Settings) -> bool:
        """Whether a ledger's database has any."""
        if self._server:
            where = self._server.where(settings.archive.ledger_url.get_secret_value())
            told = subprocess.run(["psql", "-Atc", r"\dt", *where], check=True, capture_output=True)
            return b"volumes" in told.stdout
        with closing(sqlite3.connect(settings.storage.data_dir / "ledger.sqlite")) as ledger:
            return bool(ledger.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])

    def _aside(self, settings: Settings) -> Path:
        return settings.storage.data_dir / "aside"

    def _replace(self, settings: Settings, folder: Path) -> None:
        settings.storage.data_dir.mkdir(parents=True, exist_ok=True)
        for file in settings.storage.data_dir.glob("ledger.sqlite*"):
            file.unlink()
        for file in folder.glob("ledger.sqlite*"):
            shutil.copy(file, settings.storage.data_dir / file.name)


def _with_url(settings: Settings, url: str) -> Settings:
    values = settings.archive.model_dump() | {"ledger_url": url}
    return settings.model_copy(update={"archive": type(settings.archive).model_validate(values)})


@pytest.fixture
def copies(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Copies:
    server = request.getfixturevalue("postgresql") if settings.archive.ledger_url.get_secret_value() else None
    return Copies(server, tmp_path)

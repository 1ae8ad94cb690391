"""What no run can mend by itself: it is said at the end of each night, which is red until a person has settled it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from mkiso.archive.evidence import seen
from mkiso.archive.ledger import Ledger
from mkiso.archive.lifecycle import Remedy, Stored, remedy
from mkiso.archive.nights import HELD, is_alive
from mkiso.archive.store import Store
from mkiso.archive.tables import instances, places, volumes
from mkiso.archive.volumes import ArchiveVolume, image_name, labels_in, volume_of
from mkiso.study.models import count_words, images_words, studies_words


@dataclass(frozen=True, slots=True)
class Owed:
    """A volume that isn't where it should be, and in words what of it and what to do."""

    label: str
    words: str

    def __str__(self) -> str:
        return f"{self.label} {self.words}"


def owed(ledger: Ledger, store: Store | None) -> tuple[Owed, ...]:
    """What is owed of volumes that are delivered, or unknown; `store` None: nothing is said of what it should hold.

    Raises ArchiveUnusable where the store isn't there any more or can't be read: then nothing in it is missing.
    """
    if store is not None:
        store.require()
    with ledger.reading() as connection:
        rows = connection.execute(select(volumes).where(volumes.c.state == "done").order_by(volumes.c.label)).all()
        known = frozenset(connection.scalars(select(volumes.c.label)))
        lost = tuple(_lost(connection))
    found: list[Owed] = []
    for row in rows:
        volume = volume_of(row, ledger.storage.volumes_dir)
        evidence = seen(volume, ledger.place, store)
        if remedy("done", evidence) is Remedy.LOOK:
            what = (
                "is missing in the store" if evidence.stored is Stored.ABSENT else "isn't in the store what was stored"
            )
            found.append(
                Owed(
                    row.label,
                    f"{what}: put it back, or have it archived again: `mkiso archive settle {row.label} --lost`.",
                )
            )
        elif row.read_back_good is False:
            found.append(
                Owed(
                    row.label,
                    f"was read back BAD: `mkiso archive withdraw {row.label}` has it archived again; or read another.",
                )
            )
    return (*found, *lost, *_strangers(ledger, store, known))


def unseen(ledger: Ledger, store: Store | None) -> str:
    """In words that nothing can be said of the volumes that were stored; empty where the store is seen, or none was."""
    if store is not None:
        return ""
    directory = ledger.store_directory
    here = volumes.c.location.startswith(f"{directory}{os.sep}", autoescape=True)
    stored = select(func.count()).select_from(volumes).where(volumes.c.state == "done")
    with ledger.reading() as connection:
        count = connection.scalar(stored.where(volumes.c.store.is_not(None) | here))
    if not count:
        return ""
    were = count_words(count, "volume was", "volumes were")
    return (
        f"STORE NOT SEEN  {were} stored, and {directory} (archive.directory) isn't this archive's store. "
        "Is it mounted? Until it is seen, nobody can say whether they are there."
    )


def undelivered(ledger: Ledger) -> tuple[Owed, ...]:
    """Volumes that are whole and not delivered, and on which no run works: what is to be done with each, and where
    it lies.
    """
    with ledger.reading() as connection:
        whole = HELD.where(volumes.c.state.in_(("mastered", "ordering", "ordered"))).order_by(volumes.c.label)
        rows = connection.execute(whole).all()
        free = [row for row in rows if row.holder_id is None or not is_alive(connection, row)]
        return tuple(
            Owed(row.label, "isn't delivered yet: the next run goes on with it.")
            if row.place == ledger.place
            else _look(connection, ledger, volume_of(row, ledger.storage.volumes_dir))
            for row in free
        )


def look(ledger: Ledger, volume: ArchiveVolume) -> Owed:
    """What a person has to know of an undelivered volume that no run can mend from here."""
    with ledger.reading() as connection:
        return _look(connection, ledger, volume)


def _look(connection: Connection, ledger: Ledger, volume: ArchiveVolume) -> Owed:
    if volume.place == ledger.place:
        words = "isn't delivered: under its label something else lies in the store. Look at it and move it away"
        return Owed(volume.label, f"{words}, or have it archived again: `mkiso archive settle {volume.label} --lost`.")
    row = connection.execute(select(places).where(places.c.id == volume.place)).one_or_none()
    where = f"on {row.host} in {row.directory}" if row is not None and row.host else "in another data directory"
    state = "isn't delivered" if volume.state == "mastered" else f"is {volume.state}"
    ways = "--stored, --here or --lost" if volume.for_store else "--made, --again, --here or --lost"
    return Owed(
        volume.label,
        f"{state} and lies {where}: let the archive run there, or say what became of it: "
        f"`mkiso archive settle {volume.label}` {ways}.",
    )


def _lost(connection: Connection) -> Iterator[Owed]:
    """What lay on volumes that are gone and lies on no other."""
    of_volume = select(
        volumes.c.label, func.count().label("images"), func.count(instances.c.study_id.distinct()).label("studies")
    )
    gone = (
        of_volume.join_from(volumes, instances)
        .where(volumes.c.state == "gone")
        .group_by(volumes.c.label)
        .order_by(volumes.c.label)
    )
    for label, images, studies in connection.execute(gone):
        yield Owed(
            label,
            f"is lost, and {images_words(images)} of {studies_words(studies)} that lay on it "
            f"{'is' if images == 1 else 'are'} on no volume. "
            f"Each night looks for them in the PACS; `mkiso archive settle {label} --forget` gives them up.",
        )


def _strangers(ledger: Ledger, store: Store | None, known: frozenset[str]) -> Iterator[Owed]:
    folders = {folder.name for folder in ledger.storage.volumes_dir.iterdir() if folder.is_dir()}
    for label in sorted(folders - known):
        folder = ledger.storage.volumes_dir / label
        way = f"`mkiso archive import {folder / image_name('disc')}`, or remove the folder."
        yield Owed(label, f"lies in {folder}, and the ledger doesn't know it: {way}")
    for label in sorted((labels_in(store.directory) if store is not None else frozenset()) - known):
        image = store.image(label) if store is not None else ""
        way = f"`mkiso archive import {image}`, or move the folder away."
        yield Owed(label, f"lies in the store, and the ledger doesn't know it: {way}")

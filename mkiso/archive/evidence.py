"""What can be seen of a volume from here: its image in the data directory, and what lies in the store under its
label.
"""

from __future__ import annotations

import errno
from pathlib import Path

from mkiso.archive.lifecycle import Evidence, Stored
from mkiso.archive.store import Store
from mkiso.archive.volumes import ArchiveVolume
from mkiso.errors import ArchiveUnusable
from mkiso.storage.files import sha256_of

_BAD_SECTORS = frozenset({errno.EIO, errno.ENODATA, errno.EUCLEAN, errno.EBADMSG})


def seen(volume: ArchiveVolume, place: str, store: Store | None, *, thorough: bool = False) -> Evidence:
    """Look at a volume from `place`. Images are hashed only where the answer matters to a run; `thorough`, for a
    person's claim, always.

    Raises ArchiveUnusable where the store, or an image here, can't be read.
    """
    here = volume.place == place
    image = (thorough or (here and volume.state == "mastered")) and _lies_whole(volume)
    return Evidence(here, volume.for_store, image, _stored(volume, store, by_hash=thorough or volume.state != "done"))


def _stored(volume: ArchiveVolume, store: Store | None, *, by_hash: bool) -> Stored:
    """A volume that is done was proved when it was stored: whether its image is there, and as long as it was, is
    looked at each night.
    """
    if store is None or (volume.state == "done" and not _should_hold(store, volume)):
        return Stored.UNSEEN
    image = store.image(volume.label)
    try:
        if not image.parent.exists():
            return Stored.ABSENT
        return Stored.WHOLE if _is_whole(image, volume, by_hash=by_hash) else Stored.OTHER
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ArchiveUnusable(f"The archive's store can't be read: {image.parent}: {reason}. Is it mounted?") from None


def _should_hold(store: Store, volume: ArchiveVolume) -> bool:
    """By its name, or by where the volume lies: a store that was adopted in the place of another one holds nothing of
    what it should.
    """
    return volume.store == store.id or volume.location == str(store.image(volume.label).parent)


def _lies_whole(volume: ArchiveVolume) -> bool:
    """Raises ArchiveUnusable where that passes, or can be mended: nothing is lost that can't be looked at now."""
    try:
        return _is_whole(volume.image, volume)
    except OSError as error:
        if error.errno in _BAD_SECTORS:
            return False
        reason = error.strerror or type(error).__name__
        raise ArchiveUnusable(f"The archive's volume {volume.image} can't be read: {reason}.") from None


def _is_whole(image: Path, volume: ArchiveVolume, *, by_hash: bool = True) -> bool:
    try:
        if not volume.sha256 or image.stat().st_size != volume.size:
            return False
        return not by_hash or sha256_of(image) == volume.sha256
    except FileNotFoundError:
        return False

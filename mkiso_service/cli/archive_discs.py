"""Reading the archive's discs for the ledger: what lies on a volume, file by file."""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkiso.archive.importing import FoundVolume


def found_volume(disc: Path, progress: Callable[[int, int], None] | None = None) -> FoundVolume:
    """What an image or a disc holds, once it is proved by what it says of itself. Raises ProofFailed, with
    `findings`, where it isn't sound.
    """
    from mkiso.archive.importing import FoundVolume
    from mkiso.archive.volumes import VOLUMES, StudyOnVolume
    from mkiso.formats.disc_check import verify_disc
    from mkiso.formats.disc_contents import listed_instances
    from mkiso.formats.image_hash import hash_extents
    from mkiso.storage.files import descriptor_of
    from mkiso.study.models import DiscFile

    report = verify_disc(disc, one_patient=False, progress=progress)
    with descriptor_of(disc) as descriptor:
        contents = VOLUMES.read(descriptor)
        hashes = hash_extents(descriptor, contents, progress).files
        listed = {each.path: each for each in listed_instances(descriptor, contents)}

    def file(path: PurePosixPath) -> DiscFile:
        extent = contents.files[path]
        return DiscFile(
            path, extent.size, hashes[extent], sop_instance_uid=listed[path].sop_instance_uid if path in listed else ""
        )

    by_study: defaultdict[tuple[str, str, str], list[DiscFile]] = defaultdict(list)
    for path, each in listed.items():
        by_study[each.study_instance_uid, each.accession_number, each.study_date].append(file(path))
    on_volume = [StudyOnVolume(*study, files) for study, files in by_study.items()]
    others = [file(path) for path in contents.files if path not in listed]
    device = stat.S_ISBLK(disc.stat().st_mode)
    return FoundVolume(disc.resolve(), device, report.volume_id, report.sha256, report.size, on_volume, others)

"""Making of an instance what a publisher takes: Implicit VR Little Endian without a change of any value, where it takes
nothing else; a compressed one uncompressed, as for discs, only where `transcode: true` asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mkiso.dataset.header import encoded_data_set
from mkiso.dataset.part10 import file_head
from mkiso.dataset.reencode import reencode
from mkiso.errors import DamagedInstance
from mkiso.media.explicit import UNCOMPRESSED, converted, not_convertible, require_unchanged
from mkiso.pictures.pool import DecompressPool
from mkiso.storage.files import sha256_of
from mkiso.study.models import Arrival


@dataclass(frozen=True, slots=True)
class Transcoder:
    """What is made of a job's instances, each once for a transfer syntax."""

    folder: Path
    pool: DecompressPool
    made: dict[tuple[str, str], Arrival] = field(default_factory=dict)

    def transcoded(self, arrival: Arrival, transfer_syntax_uid: str) -> Arrival:
        """The instance in Explicit or Implicit VR Little Endian under its own SOP Instance UID. Raises what
        mkiso.media.explicit.converted does.
        """
        key = arrival.sop_instance_uid, transfer_syntax_uid
        if key not in self.made:
            target = self.folder / f"{len(self.made)}.dcm"
            if transfer_syntax_uid == ExplicitVRLittleEndian:
                self.made[key] = converted(arrival, target, self.pool)
            elif arrival.transfer_syntax_uid in UNCOMPRESSED:
                self.made[key] = _implicit(arrival, target)
            else:
                self.made[key] = _implicit(converted(arrival, self.folder / "explicit.dcm", self.pool), target)
        return self.made[key]


@contextmanager
def transcoding(job_folder: Path) -> Iterator[Transcoder]:
    """Of the instances that lie in this folder, into one beneath it, which ends with it."""
    with (
        TemporaryDirectory(dir=job_folder, prefix="transcoded-") as folder,
        DecompressPool(job_folder, Path(folder), 1) as pool,
    ):
        yield Transcoder(Path(folder), pool)


def _implicit(arrival: Arrival, target: Path) -> Arrival:
    try:
        with encoded_data_set(arrival.path) as (data, offset, encoding), target.open("wb") as out:
            out.write(file_head(arrival.sop_class_uid, arrival.sop_instance_uid, ImplicitVRLittleEndian))
            reencode(data, offset, encoding, out, explicit=False)
    except DamagedInstance as error:
        raise not_convertible(arrival, error.words) from None
    require_unchanged(arrival)
    size, sha256 = target.stat().st_size, sha256_of(target)
    return replace(arrival, path=target, size=size, sha256=sha256, transfer_syntax_uid=str(ImplicitVRLittleEndian))

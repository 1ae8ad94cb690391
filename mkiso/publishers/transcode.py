"""Making of an instance what a publisher takes: another uncompressed encoding without a change of any value, where it
takes nothing else; a compressed one uncompressed only where `transcode: true` asks for it.
"""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID

from mkiso.dataset.elements import IMPLICIT_LITTLE
from mkiso.dataset.header import encoded_data_set
from mkiso.dataset.part10 import file_head
from mkiso.dataset.reencode import ENCODINGS, reencode
from mkiso.study.models import Arrival

_DEFLATED = "1.2.840.10008.1.2.1.99"  # Explicit VR Little Endian, once it is inflated (PS3.5 A.5)


class NotTranscodable(Exception):
    """No decoder for this transfer syntax is installed, or the instance can't be decoded."""


def transcode_to(arrival: Arrival, target: Path, transfer_syntax_uid: str) -> None:
    """Write the instance in an uncompressed transfer syntax under its own SOP Instance UID (decompression makes no new
    instance, PS3.4 B.4.1.3).
    """
    wanted = ENCODINGS[transfer_syntax_uid]
    try:
        encoding = ENCODINGS.get(arrival.transfer_syntax_uid)
        if arrival.transfer_syntax_uid == _DEFLATED or (encoding is not None and encoding.explicit):
            _reencode(arrival, target, transfer_syntax_uid)
            return
        dataset = dcmread(arrival.path)
        if UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated:
            dataset.decompress(as_rgb=False, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
        dataset.save_as(target, implicit_vr=wanted is IMPLICIT_LITTLE, little_endian=True)
    except Exception as error:  # pydicom and the decoders raise many types
        target.unlink(missing_ok=True)
        raise NotTranscodable(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def _reencode(arrival: Arrival, target: Path, transfer_syntax_uid: str) -> None:
    with encoded_data_set(arrival.path) as (data, offset, encoding), target.open("wb") as out:
        out.write(file_head(arrival.sop_class_uid, arrival.sop_instance_uid, transfer_syntax_uid))
        reencode(data, offset, encoding, out, explicit=ENCODINGS[transfer_syntax_uid] is not IMPLICIT_LITTLE)

"""Making a compressed instance uncompressed for a publisher that takes nothing else, and only where `transcode: true`
asks for it.
"""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID


class NotTranscodable(Exception):
    """No decoder for this transfer syntax is installed, or the instance can't be decoded."""


def transcode_to(source: Path, target: Path, transfer_syntax_uid: str) -> None:
    """Write the instance in an uncompressed transfer syntax under its own SOP Instance UID (decompression makes no new
    instance, PS3.4 B.4.1.3).
    """
    try:
        dataset = dcmread(source)
        if UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated:
            dataset.decompress(as_rgb=False, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
        dataset.save_as(target, implicit_vr=False, little_endian=True)
    except Exception as error:  # pydicom and the decoders raise many types
        raise NotTranscodable(str(error).splitlines()[0] if str(error) else type(error).__name__) from None

"""A disc publisher to try mkiso with: a Storage SCP (PS3.4 B) that keeps what it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, cast

from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]


class DemoPublisher:
    """A context manager. What came lies in `folder`, each as <SOP Instance UID>.dcm; with `port` 0 it listens on a free
    one, which stands in `port` afterwards.
    """

    def __init__(self, folder: Path, ae_title: str = "RIMAGE", port: int = 0) -> None:
        self.folder, self.ae_title, self.port = folder, ae_title, port

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ae = AE(ae_title=self.ae_title)
        self._ae.maximum_pdu_size = 131_072
        self._ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            if context.abstract_syntax:
                self._ae.add_supported_context(context.abstract_syntax, list(AllTransferSyntaxes))
        handlers: Any = [(evt.EVT_C_STORE, self._stored)]
        server: Any = self._ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        self.port = server.socket.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._ae.shutdown()

    def _stored(self, event: evt.Event) -> int:
        uid = cast(C_STORE, event.request).AffectedSOPInstanceUID
        (self.folder / f"{uid}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

"""An association of pynetdicom's that keeps its answers for who asked.

Its thread says that it pauses before it does (`_is_paused`), and a busy machine may stop it in between: then it takes
the answer to a request that another thread has just sent, and that thread waits for nothing. And the thread that serves
an N-EVENT-REPORT takes that word back while it still pauses: then whoever waits for it waits for ever (pynetdicom 3.0,
`Association._run_reactor` and `_serve_request`).
"""

from __future__ import annotations

import threading

from pynetdicom.association import Association


class _Checkpoint(threading.Event):
    """Where the association's thread stops: whoever clears it goes on when that thread stands."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._changed = threading.Condition()
        self._stands = False
        super().set()

    def set(self) -> None:
        with self._changed:
            super().set()
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        with self._changed:
            self._stands = True
            self._changed.notify_all()
            self._changed.wait_for(self.is_set, timeout)
            self._stands = False
        return self.is_set()

    def clear(self) -> None:
        with self._changed:
            super().clear()
            while not self._stands and self._association.is_alive():
                self._changed.wait(0.1)


class _Steady(Association):
    @property
    def _is_paused(self) -> bool:
        return True  # once the checkpoint is cleared, and nobody asks before

    @_is_paused.setter
    def _is_paused(self, paused: bool) -> None:
        pass


def steady(association: Association) -> Association:
    """The association of a requestor, without these races."""
    association._reactor_checkpoint = _Checkpoint(association)
    association.__class__ = _Steady
    return association

"""Who is signed in: a file for each session, beside the discs so that every webhook knows it, named by the hash of the
session's id, so that whoever reads the folder has no session.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from mkiso.config.access import SignIn
from mkiso.config.storage import Storage
from mkiso.storage.files import Unreadable, make_beside_discs, read_json, write_whole

MOST = 10_000
TOUCH_SECONDS = 30.0
MAX_ID = 128


@dataclass(frozen=True, slots=True)
class Session:
    """A person's session: who they are at the provider, in words and in its own id, and their roles here. `began` is in
    seconds since 1970.
    """

    user: str
    name: str
    roles: tuple[str, ...]
    began: float
    id_token: str = ""


_SESSION = TypeAdapter(Session)


class PersonSessions:
    """Begins, finds and ends sessions. Safe to use from several threads and processes."""

    def __init__(self, storage: Storage, sign_in: SignIn) -> None:
        self._folder = storage.sessions_dir
        self._idle_seconds = sign_in.idle_minutes * 60
        self._seconds = sign_in.hours * 3600

    def begin(self, session: Session) -> str:
        """A new session's id, which nobody can guess. Sessions that have ended are swept away. Raises OSError."""
        make_beside_discs(self._folder)
        self._sweep()
        session_id = secrets.token_urlsafe(32)
        write_whole(self._file(session_id), _SESSION.dump_json(session).decode(), durable=True)
        return session_id

    def find(self, session_id: str, *, used: bool = True) -> Session | None:
        """The session of this id, None where there is none or it has ended. `used`: a person does something, so its
        idle time begins anew.
        """
        if not 0 < len(session_id) <= MAX_ID:
            return None
        file, now = self._file(session_id), time.time()
        try:
            idle = now - file.stat().st_mtime
            session = read_json(file, _SESSION)
        except (OSError, Unreadable):
            return None
        if not self._lasts(idle, now - session.began):
            self.end(session_id)
            return None
        if used and idle > TOUCH_SECONDS:
            with suppress(OSError):
                os.utime(file)
        return session

    def end(self, session_id: str) -> None:
        """It is no session any more, wherever its id is kept."""
        with suppress(OSError):
            self._file(session_id).unlink()

    def _lasts(self, idle: float, age: float) -> bool:
        """A session from the future was begun while a clock was ahead: it would never end."""
        return -60 <= idle <= self._idle_seconds and -60 <= age <= self._seconds

    def _sweep(self) -> None:
        now, kept = time.time(), []
        for file in self._folder.glob("*.json"):
            with suppress(OSError):
                changed = file.stat().st_mtime
                kept.append((changed, file))
        kept.sort(reverse=True)
        for number, (changed, file) in enumerate(kept, 1):
            if number >= MOST or now - changed > self._idle_seconds:
                file.unlink(missing_ok=True)

    def _file(self, session_id: str) -> Path:
        return self._folder / f"{hashlib.sha256(session_id.encode('utf-8', 'replace')).hexdigest()}.json"

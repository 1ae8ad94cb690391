"""The password of Prefect's API, `user:password`: the configured one, else one that is made at the first start and lies
in the data directory.

Whoever has it can have discs made and printed, and read which were asked for; docs/decisions/trust-in-prefect.md says
what it doesn't let them do.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError
from mkiso.storage.files import write_whole
from mkiso.storage.room import unusable

USER = "mkiso"
_AUTH_STRING = re.compile(r"[!-9;-~]{1,100}:[!-~]{1,400}")

log = logging.getLogger("mkiso.prefect")


def with_password(settings: Settings, *, make: bool = False) -> Settings:
    """The settings with `prefect.api_auth_string` in them. `make`: the file is made where there is none.

    Raises ConfigurationError where the file is lost, empty, or can't be read.
    """
    if settings.prefect.api_auth_string.get_secret_value():
        return settings
    if make:
        _make(settings.storage)
    password = SecretStr(_read(password_file(settings.storage)))
    return settings.model_copy(update={"prefect": settings.prefect.model_copy(update={"api_auth_string": password})})


def password_file(storage: Storage) -> Path:
    """Where the password lies that nobody has configured."""
    return storage.prefect_dir / "password"


def _read(file: Path) -> str:
    try:
        text = file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        words = "isn't there: mkiso serve makes it when it starts. If it was lost while mkiso runs, restart mkiso."
        raise ConfigurationError(f"{file}, the password of Prefect's API, {words}") from None
    except OSError as error:
        words = f"can't be read: {error.strerror}. It belongs to the user that mkiso runs as, mode 0600."
        raise ConfigurationError(f"{file}, the password of Prefect's API, {words}") from None
    except UnicodeDecodeError:
        text = ""
    if not _AUTH_STRING.fullmatch(text):
        words = "is empty or isn't user:password. Remove it and start mkiso serve again: it makes another one."
        raise ConfigurationError(f"{file}, the password of Prefect's API, {words}")
    return text


def _make(storage: Storage) -> None:
    """Make the file where there is none, whole and mode 0600; of several processes that make it at once, one does."""
    file = password_file(storage)
    if file.exists():
        return
    for folder in (storage.data_dir, storage.prefect_dir):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(f"The folder {folder} can't be made", error) from None
    if (storage.prefect_dir / "prefect.db").exists():
        log.warning(
            "There is no password of Prefect's API any more: a new one is made, and `mkiso prefect password` shows it."
        )
    beside = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    try:
        write_whole(beside, f"{USER}:{secrets.token_urlsafe(24)}\n", durable=True)
        with suppress(FileExistsError):
            os.link(beside, file)
    except OSError as error:
        raise unusable(f"{file}, the password of Prefect's API, can't be made", error) from None
    finally:
        beside.unlink(missing_ok=True)

"""`mkiso config check`: everything that is wrong with the configuration, and with the files, folders and addresses of
this machine that it names. Whether other machines answer is the business of `mkiso doctor`.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate

from mkiso.audit.delivery import tls_context
from mkiso.config.disc import Viewer
from mkiso.config.file import read
from mkiso.config.publishers import Robot
from mkiso.config.settings import Audit, Settings
from mkiso.config.sources import DicomWeb
from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError
from mkiso.media.envelopes import recipients_of
from mkiso.network.tls import acceptor_context
from mkiso.sources.web import trust_of
from mkiso.storage.data_format import newer_data
from mkiso.storage.room import GIB, is_of_kernel, lacking_storage, makeable, nearest, size_words, unwritable
from mkiso.trust import trusting, why_unusable


def problems() -> list[str]:
    """Every problem of the configuration that this process would read. Raises ConfigurationError where that file can't
    be read at all.
    """
    settings, found = read()
    return found + list(lacking(settings))


def lacking(settings: Settings) -> Iterator[str]:
    """What the configuration names and this machine, or the user who asks, doesn't have, in words."""
    storage = settings.storage
    yield from tuple(lacking_storage(storage)) or newer_data(storage)
    there = nearest(storage.data_dir)
    whole, least = shutil.disk_usage(there).total, int(storage.min_free_gib * GIB)
    if least > whole and not is_of_kernel(there):
        free = f"storage.min_free_gib is {storage.min_free_gib:g} ({size_words(least)})"
        yield f"{free}, and the disk of storage.data_dir has {size_words(whole)}"
    yield from lacking_viewer(settings.viewer)
    yield from _told(lambda: recipients_of(settings.disc.recipients))
    for name, publisher in settings.publishers.items():
        if isinstance(publisher, Robot):
            yield from _folder(f"publishers.{name}.directory", publisher.directory, os.W_OK)
            if publisher.status_directory:
                yield from _folder(f"publishers.{name}.status_directory", publisher.status_directory, os.R_OK)
    for key, host in (("server.host", settings.server.host), ("receiver.host", settings.receiver.host)):
        yield from _address(key, host)
    for source in settings.all_sources:
        if isinstance(source, DicomWeb):
            yield from _told(partial(trust_of, source))
            yield from _outdated(f"{source.section}.certificate", source.certificate)
    if settings.receiver.tls.enabled:
        yield from _told(lambda: acceptor_context(settings.receiver.tls))
        yield from _outdated("receiver.tls.certificate", settings.receiver.tls.certificate)
    if settings.sign_in.issuer:
        yield from _lacking_authority("sign_in", settings.sign_in.authority)
    yield from _lacking_audit(settings.audit, storage)
    archive = settings.archive
    if archive.output == "store" and archive.enabled:
        yield from makeable("archive.directory", archive.directory)
    if url := archive.ledger_url.get_secret_value():
        from mkiso.archive.ledger import postgresql_engine  # SQLAlchemy, half a second

        yield from _told(lambda: postgresql_engine(url))


def lacking_viewer(viewer: Viewer) -> Iterator[str]:
    """What is wrong with the viewer's folder, in words."""
    if not viewer.directory:
        if viewer.executable:
            yield "viewer.executable is set and viewer.directory is empty: name the folder that the viewer is in"
        return
    folder = Path(viewer.directory)
    wrong = list(_folder("viewer.directory", folder, os.R_OK))
    yield from wrong
    if not wrong and viewer.executable and not (folder / viewer.executable.replace("\\", "/")).is_file():
        yield f"viewer.executable {viewer.executable} isn't in {folder}: check the name, upper and lower case too"


def _lacking_audit(audit: Audit, storage: Storage) -> Iterator[str]:
    if audit.enabled and audit.target.startswith("tls:"):
        try:
            tls_context(audit)
        except OSError as error:
            why = why_unusable(error, authority=audit.authority, certificate=audit.certificate, key=audit.key)
            yield f"audit can't use its authority, certificate and key: {why}"
        yield from _outdated("audit.certificate", audit.certificate)
    elif audit.enabled and (file := audit.file_below(storage.data_dir)):
        if file.is_dir():
            yield f"audit.target {file} is a folder: name a file"
        elif file.parent != storage.data_dir:
            yield from _folder("the folder of audit.target", file.parent, os.W_OK)


def _lacking_authority(section: str, authority: Path | None) -> Iterator[str]:
    try:
        trusting(authority)
    except OSError as error:
        yield f"{section} can't use its authority: {why_unusable(error, authority=authority)}"


def _outdated(key: str, file: Path | None) -> Iterator[str]:
    """Say that a certificate of ours isn't valid today. Another check tells of a file that can't be read."""
    if file is None:
        return
    with suppress(OSError, ValueError):
        certificate = load_pem_x509_certificate(file.read_bytes())
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not begins <= datetime.now(UTC) <= ends:
            yield f"{key} {file} is valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}, and not today: replace it"


def _folder(key: str, folder: Path, mode: int) -> Iterator[str]:
    try:
        next(folder.iterdir(), None)
    except PermissionError:
        yield f"{key} {folder} can't be read by this user"
    except NotADirectoryError:
        yield f"{key} {folder} is no folder"
    except FileNotFoundError:
        yield f"{key} {folder} isn't there: mount or make it, or correct the path"
    except OSError as error:
        yield f"{key} {folder} can't be used: {error.strerror}"
    else:
        if mode == os.W_OK:
            yield from unwritable(key, folder, folder)
        elif not os.access(folder, mode | os.X_OK):
            yield f"{key} {folder} can't be read by this user"


def _address(key: str, host: str) -> Iterator[str]:
    """A listener needs an address of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        yield f"{key} {host} is no address of this machine ({error.strerror}): 0.0.0.0 stands for all that it has"


def _told(attempt: Callable[[], object]) -> Iterator[str]:
    try:
        attempt()
    except ConfigurationError as error:
        yield from error.problems

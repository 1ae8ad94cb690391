"""The registry of checks: each thing that mkiso depends on, tried for real, for `/api/health` and for `mkiso doctor`.

To add one, write a function that returns in words what is well and raises an MkisoError whose words say what is wrong
and what to do, and give it a line in CHECKS. What a site hasn't configured isn't checked.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from datetime import date
from functools import partial
from pathlib import Path

import httpx
from pydantic import TypeAdapter, ValidationError

from mkiso.audit.delivery import require_target, undelivered
from mkiso.config.file import named_in
from mkiso.config.settings import Settings
from mkiso.errors import (
    ConfigurationError,
    LedgerDamaged,
    LedgerUnavailable,
    OrchestratorUnavailable,
    PatientApiUnavailable,
    PublisherUnavailable,
)
from mkiso.implementation import program_version
from mkiso.patient_api import look_up
from mkiso.pictures import confinement, pyav
from mkiso.publishers import publisher_of
from mkiso.receiver.client import receiver_status
from mkiso.receiver.pushed import studies_in
from mkiso.sources.levels import answered_levels
from mkiso.sources.registry import source_of
from mkiso.storage.data_format import newer_data
from mkiso.storage.room import NO_ROOM, lacking_storage, require_room, size_words
from mkiso.storage.rounds import why_resting
from mkiso.study.models import count_words, images_words
from mkiso.trust import is_plain, trusting, why_unreachable
from mkiso_service.api import Health
from mkiso_service.checks.check import Check, Site, Unwell
from mkiso_service.checks.configuration import lacking, lacking_viewer
from mkiso_service.openid import Provider
from mkiso_service.ports import why_taken
from mkiso_service.prefect.environment import api_url
from mkiso_service.process_states import RECENT_SECONDS, called, process_states

OFTEN = 3
"""So many ends of one process within RECENT_SECONDS are no accident."""
MAX_HEALTH_BYTES = 65_536


def checks_of(settings: Settings, *, inside: bool = False) -> list[Check]:
    """The checks of this configuration; `inside`: all of them."""
    names = settings.publishers
    sources = (Check(f"source:{name}", f"source {name}", partial(_source, name)) for name in settings.sources)
    publishers = (Check(f"publisher:{name}", f"publisher {name}", partial(_publisher, name)) for name in names)
    # The webhook's comes last: it repeats what the others find.
    checks = sorted((*CHECKS, *sources, *publishers), key=lambda check: check.name == "webhook")
    return [check for check in checks if (inside or not check.inside) and check.configured(settings)]


def _configuration(site: Site) -> str:
    own = ("storage.", "viewer.", "publishers.", "archive.directory ")  # which have checks of their own
    sources = tuple(f"{source.section} can't use " for source in site.settings.all_sources)
    if wrong := [words for words in lacking(site.settings) if not words.startswith(own + sources)]:
        raise Unwell(" ".join(f"{words.rstrip('.')}." for words in wrong))
    folder = site.settings.storage.data_dir
    return f"{named_in(os.environ)} is correct; data is kept in {folder}; this is mkiso {program_version()}"


def _disk(site: Site) -> str:
    folder = site.settings.storage.data_dir
    place = f"{folder} (storage.data_dir)" if site.inside else "storage.data_dir"
    if wrong := list(lacking_storage(site.settings.storage)):
        if not site.inside:
            keys = " and ".join(words.split(" ")[0] for words in wrong)
            raise Unwell(f"{keys} can't be used: `mkiso doctor` says why.")
        raise Unwell(f"{'. '.join(wrong)}.")
    if newer := list(newer_data(site.settings.storage)):
        raise Unwell(f"{'. '.join(newer)}." if site.inside else "A newer mkiso wrote there: `mkiso doctor` says more.")
    if not folder.exists():  # and isn't made: whoever asks may be another user than mkiso
        return f"{folder} is made at the first start" if site.inside else "not yet used"
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(b".")  # on a disk that is full an empty file finds room
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise Unwell(f"{place} can't be written: {error.strerror}. {_remedy(error)}.") from None
    require_room(site.settings.storage)
    return f"{size_words(free)} are free"


def _remedy(error: OSError) -> str:
    if error.errno in NO_ROOM:
        return "Make room there"
    if isinstance(error, PermissionError):
        return "Give it to the user that mkiso runs as"
    return "Look at that disk"  # a system that has found a fault in it writes there no more


def _sign_in(site: Site) -> str:
    return Provider(site.settings.sign_in, site.settings.server.public_url).check()


def _viewer(site: Site) -> str:
    if wrong := ". ".join(lacking_viewer(site.settings.viewer)):
        raise Unwell(f"{wrong}. Unpack the portable viewer there.")
    folder = Path(site.settings.viewer.directory)
    return f"{count_words(sum(file.is_file() for file in folder.rglob('*')), 'file')} in {folder}"


def _video(_: Site) -> str:
    return pyav.in_words()


def _decoders(site: Site) -> str:
    if confinement.is_refused():
        raise Unwell(
            "A file that takes a decoder over reaches what mkiso reaches: what mkiso runs in refuses Landlock to it. "
            "As a service: `mkiso service install`, systemctl daemon-reload, and restart it. In a container: let its "
            "seccomp profile allow landlock_create_ruleset, landlock_add_rule and landlock_restrict_self."
        )
    if not (version := confinement.landlock_version()):
        return (
            "this kernel has no Landlock (Linux 5.13 and later have it), or it is switched off: a file that takes one "
            "over reaches what mkiso reaches"
        )
    if not site.inside:
        return "each reaches its own job's files alone"
    if reached := confinement.reached():
        raise Unwell(
            f"A decoder isn't kept in: it reaches {' and '.join(sorted(reached))} of others, though this kernel has "
            f"Landlock {version}. See whether the container's own system call filter refuses something."
        )
    return f"each reaches its own job's files alone (tried just now, by Landlock {version})"


def _source(name: str, site: Site) -> str:
    source = source_of(site.settings, name, until=time.monotonic() + 2 * site.limit_seconds)
    told = source.check(site.limit_seconds, inside=site.inside)
    return f"{told.removesuffix('.')}. {answered_levels(source, date.today())}" if site.inside else told


def _receiver(site: Site) -> str:
    receiver, path = site.settings.receiver, site.settings.storage.receiver_socket
    where = f"{receiver.ae_title} on port {receiver.port}" if site.inside else "The receiver"
    elsewhere = bool(site.settings.prefect.api_url) and "receiver" not in process_states(site.settings.storage)
    if elsewhere and not path.exists() and not (site.inside and site.settings.storage.jobs_dir.is_dir()):
        return "none on this machine: the machines with a worker have theirs"
    if path.exists():
        status = receiver_status(path, site.limit_seconds)
        counts = (
            f"jobs that wait for images {status['expectations']}, connections {status['associations']}, images since "
            f"its start {status['stored']}, refused {status['refused']}"
        )
        return f"{where} listens: {counts}" if site.inside else counts
    if taken := why_taken(receiver.host, receiver.port):
        raise Unwell(
            f"{where} isn't running and its port can't be had: {taken.strerror}. End what holds it, or set "
            "receiver.port."
        )
    raise Unwell(f"{where} isn't running; its port is free. Start `mkiso {'receiver' if elsewhere else 'serve'}`.")


def _inboxes(site: Site) -> str:
    """What came to each since the receiver started."""
    told = receiver_status(site.settings.storage.receiver_socket, site.limit_seconds)["inboxes"]
    if unknown := [name for name in site.settings.inboxes if name not in told]:
        raise Unwell(f"The receiver doesn't know {', '.join(unknown)}: it started before. Restart `mkiso serve`.")
    if not site.inside:
        came, refused = (sum(count[key] for count in told.values()) for key in ("stored", "refused"))
        return f"{images_words(came)} came, {refused} refused"
    words = []
    for name, count in told.items():
        waiting = sum(not study.asked for study in studies_in(site.settings.storage, name))
        last = f", the last refusal {count['last_refusal']}" if count["last_refusal"] else ""
        studies = count_words(waiting, "study waits", "studies wait")
        words.append(f"{name}: {images_words(count['stored'])} came, {count['refused']} refused, {studies}{last}")
    return "; ".join(words)


def _patient_api(site: Site) -> str:
    api = site.settings.patient_api
    if site.inside:
        look_up(api, "0")
        return f"{api.base_url} answers"
    headers = {name: value.get_secret_value() for name, value in api.headers.items()}
    try:  # any answer over HTTP shows that it can be reached; no patient is asked for
        verify = not is_plain(api.base_url) and trusting()  # the same trust as in a job
        answer = httpx.head(api.base_url, timeout=site.limit_seconds, headers=headers, trust_env=False, verify=verify)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PatientApiUnavailable(f"The patient API can't be reached ({why_unreachable(error)}).") from None
    if answer.is_server_error and answer.status_code != httpx.codes.NOT_IMPLEMENTED:  # it knows no HEAD
        raise PatientApiUnavailable(f"The patient API answers {answer.status_code}.")
    return "answers"


def _ledger(site: Site) -> str:
    from mkiso.archive.ledger import require_postgresql  # SQLAlchemy, half a second

    try:
        require_postgresql(site.settings.archive.ledger_url.get_secret_value())
    except LedgerUnavailable as error:
        if not site.inside:
            raise Unwell("The archive's ledger can't be reached: `mkiso doctor` says why.") from None
        raise Unwell(f"{error.words} Does the server of archive.ledger_url run? Until then no night is done.") from None
    except ConfigurationError:
        if site.inside:
            raise
        raise Unwell("The archive's ledger can't be used: `mkiso doctor` says why.") from None
    return "PostgreSQL answers"


def _ledger_file(site: Site) -> str:
    from mkiso.archive.ledger import require_file  # SQLAlchemy, half a second

    return "its file is sound" if require_file(site.settings.storage) else "begins with the first night"


def _store(site: Site) -> str:
    from mkiso.archive.store import require_store  # SQLAlchemy, half a second

    if site.settings.prefect.api_url and not site.settings.storage.receiver_socket.exists():
        return "is looked at on a machine with a worker"
    try:
        return require_store(site.settings)
    except (LedgerDamaged, LedgerUnavailable):
        raise Unwell("Whose store it is can't be told without the ledger, see above.") from None


def _nginx(site: Site) -> str:
    address = site.settings.server.public_url or "ITS-ADDRESS"
    return f"what it may read can't be seen from here; this tries it: mkiso burn --url {address} ACCESSION"


def _audit(site: Site) -> str:
    audit, storage = site.settings.audit, site.settings.storage
    lost = ""
    if kept := undelivered(storage):
        since = f" since {kept.since}" if kept.since else ""
        lost = f"{size_words(kept.size)} of audit messages couldn't be delivered{since}"
    if not site.inside:
        if lost:
            raise Unwell(f"{lost}: `mkiso doctor` says what to do.")
        return "every message of this machine was delivered"
    refused = now = ""
    try:
        file = audit.file_below(storage.data_dir)
        now = f"Messages are written to {file}" if file else require_target(audit)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or str(error)
        refused = f"{audit.target} can't be reached ({why}): is the server there, and audit.target right?"
    if lost:
        raise Unwell(
            f"{lost}. {refused or f'{now}.'} mkiso doesn't send them again: give {storage.audit_undelivered} to "
            "whoever keeps the audit, and move it away."
        )
    if refused:
        raise Unwell(refused)
    return now


def _prefect(site: Site) -> str:
    try:
        told = f"answers; {count_words(site.ask_prefect(lambda prefect: prefect.queued()), 'job waits', 'jobs wait')}"
        if not site.inside:
            return told
        version = site.ask_prefect(lambda prefect: prefect.version())
    except OrchestratorUnavailable as error:
        raise Unwell(f"{error.words} Does `mkiso serve` run, or the server at prefect.api_url?") from None
    return f"Prefect {version} at {api_url(site.settings.prefect)} {told}"


def _worker(site: Site) -> str:
    if words := site.ask_prefect(lambda prefect: prefect.why_jobs_wait()):
        raise OrchestratorUnavailable(words)
    if silent := site.ask_prefect(lambda prefect: prefect.silent_workers()):
        pool = site.settings.prefect.work_pool
        raise Unwell(
            f"Nothing is heard of {' and '.join(silent)}; other machines take jobs. Start `mkiso worker` there. If the "
            f"machine is gone for good, delete its worker in Prefect: Work Pools, {pool}, Workers."
        )
    return "takes jobs"


def _schedules(site: Site) -> str:
    if words := site.ask_prefect(lambda prefect: prefect.why_schedules_rest()):
        raise Unwell(words)
    return "what is scheduled comes"


def _housekeeping(site: Site) -> str:
    if words := why_resting(site.settings.storage):
        raise Unwell(words)
    return "removes what is older than it is kept"


def _processes(site: Site) -> str:
    """Of `mkiso serve` on this machine. One that is up just now and ends again and again isn't well."""
    states, now = process_states(site.settings.storage), time.time()
    if not states:
        return "run without a supervisor here"
    pids = [state.get("pid") for state in states.values() if state.get("up")]
    if pids and not any(pid is None or Path(f"/proc/{pid}").exists() for pid in pids):
        raise Unwell("`mkiso serve` was cut off: start it again.")
    lately, wrong, seldom = f"in the last {RECENT_SECONDS // 60} minutes", [], []
    for words, again in (("started", False), ("restarted", True)):
        if away := [name for name, each in states.items() if not each.get("up") and bool(each.get("ended")) is again]:
            wrong.append(f"Being {words}: {', '.join(away)}.")
    for name, state in states.items():
        ends = sum(now - moment < RECENT_SECONDS for moment in state.get("ended", ()))
        if ends >= OFTEN:
            wrong.append(f"{called(name)} ended {ends} times {lately}: its log says why.")
        elif ends:
            seldom.append(f"{name} {ends}")
    if wrong:
        raise Unwell(" ".join(wrong))
    return f"all run; started again {lately}: {', '.join(seldom)}" if seldom else "all run"


def _webhook(site: Site) -> str:
    url = f"{site.settings.server.local_address}/api/health"
    try:
        with httpx.stream("GET", url, timeout=site.limit_seconds, trust_env=False) as answer:
            start = next(answer.iter_bytes(MAX_HEALTH_BYTES), b"")
        health = TypeAdapter(Health).validate_json(start, strict=True)
    except httpx.HTTPError as error:
        storage = site.settings.storage
        elsewhere = bool(site.settings.prefect.api_url) and "webhook" not in process_states(storage)
        if elsewhere and storage.receiver_socket.exists():  # a front may have been a worker once, and have its folders
            return "none runs on this machine, which has a worker: the front has it"
        raise Unwell(
            f"{url} can't be reached ({error}). Start `mkiso {'webhook' if elsewhere else 'serve'}`."
        ) from None
    except ValidationError:
        raise Unwell(f"What answers at {url} isn't mkiso. End that program, or set another server.port.") from None
    lacks = {name: each["detail"].removesuffix(".") for name, each in health["dependencies"].items() if not each["ok"]}
    if new := [f"{name} ({words})" for name, words in lacks.items() if name not in site.wrong]:
        raise Unwell(f"{url} says that the running service lacks {', '.join(new)}.")
    return f"{url} says what stands above" if lacks else f"{url} says ok"


def _publisher(name: str, site: Site) -> str:
    try:
        return publisher_of(name, site.settings).check()
    except PublisherUnavailable as error:
        if not site.inside:
            raise
        advice = f"Is it switched on, and publishers.{name} right? Where there is no such robot, remove it there."
        if "publishers" not in site.settings.model_fields_set:
            advice = f"No publisher is configured, so this is the default: describe your robot in publishers.{name}."
        alone = " A site without any robot writes `publishers: {}`." if len(site.settings.publishers) == 1 else ""
        raise Unwell(f"{error.words.removesuffix('.')}. {advice}{alone}") from None


def _has_ledger_file(settings: Settings) -> bool:
    return settings.archive.enabled and not settings.archive.ledger_url.get_secret_value()


def _has_store(settings: Settings) -> bool:
    return settings.archive.enabled and settings.archive.output == "store"


def _has_postgresql(settings: Settings) -> bool:
    return settings.archive.enabled and bool(settings.archive.ledger_url.get_secret_value())


CHECKS = (
    Check("configuration", "configuration", _configuration, inside=True),
    Check("disk", "disk", _disk),
    Check("viewer", "viewer", _viewer, inside=True, configured=lambda settings: bool(settings.viewer.directory)),
    Check("video", "videos", _video, inside=True, configured=lambda settings: settings.disc.pictures != "none"),
    Check("decoders", "decoders", _decoders, configured=lambda settings: settings.disc.pictures != "none"),
    Check("pacs", "PACS", partial(_source, ""), configured=lambda settings: not settings.sources),
    Check("receiver", "receiver", _receiver, of_service=True),
    Check("inboxes", "inboxes", _inboxes, of_service=True, configured=lambda settings: bool(settings.inboxes)),
    Check("patient_api", "patient API", _patient_api, configured=lambda settings: bool(settings.patient_api.base_url)),
    Check("sign_in", "sign-in provider", _sign_in, configured=lambda settings: bool(settings.sign_in.issuer)),
    Check("archive_ledger", "archive's ledger", _ledger, configured=_has_postgresql),
    Check("archive_file", "archive's ledger", _ledger_file, inside=True, configured=_has_ledger_file),
    Check("archive_store", "archive's store", _store, inside=True, configured=_has_store),
    Check("audit", "audit", _audit, configured=lambda settings: settings.audit.enabled),
    Check("prefect", "Prefect", _prefect, of_service=True),
    Check("worker", "worker", _worker, of_service=True),
    Check("schedules", "schedules", _schedules, of_service=True),
    Check("housekeeping", "housekeeping", _housekeeping),
    Check("processes", "processes", _processes, of_service=True),
    Check("webhook", "webhook", _webhook, inside=True, of_service=True),
    Check("nginx", "nginx", _nginx, inside=True, configured=lambda settings: bool(settings.server.accel_redirect)),
)

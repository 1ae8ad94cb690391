"""`mkiso service`: systemd units, folders and a user of its own for mkiso, made from the configuration.

one machine     mkiso.service, or a unit for each part (all)
several         mkiso-prefect, mkiso-webhook on the front; mkiso-receiver, mkiso-worker on each working machine
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from mkiso.config.file import INSTALLED
from mkiso.config.publishers import Publisher, Robot
from mkiso.config.settings import Settings
from mkiso.config.storage import Storage

Part = Literal["serve", "prefect", "webhook", "receiver", "worker"]

DATA = Path("/var/lib/mkiso")
FOLDER = Path("/etc/systemd/system")
SHAPES: dict[str, tuple[Part, ...]] = {
    "one": ("serve",),
    "front": ("prefect", "webhook"),
    "worker": ("receiver", "worker"),
    "all": ("prefect", "webhook", "receiver", "worker"),
}
WORDS: dict[Part, str] = {
    "serve": "mkiso: patient discs (Prefect, receiver, worker, webhook)",
    "prefect": "mkiso: Prefect server",
    "webhook": "mkiso: webhook",
    "receiver": "mkiso: receiver (Storage SCP)",
    "worker": "mkiso: worker",
}
STOP_SECONDS = 45
"""Beyond the grace time: the supervisor gives worker, receiver and Prefect ten seconds each, one after another."""

UNIT = """\
[Unit]
Description={description}
Wants=network-online.target{wants}
After=network-online.target remote-fs.target{after}
# Below a mount point that nothing is mounted on mkiso would begin anew: another archive, other order books.
RequiresMountsFor={data_dir}

[Service]
Type=exec
User=mkiso
Group=mkiso
Environment={config}
# Secrets as MKISO__SECTION__KEY=…, and PREFECT_… where Prefect is to be told something else; mode 0640, root:mkiso.
EnvironmentFile=-{environment}
ExecStart={program} {command}
Restart=on-failure
RestartSec=2
# 2: the configuration is wrong, and another start changes nothing.
RestartPreventExitStatus=2
# The main process alone is told to end, and it lets running jobs finish.
KillMode=mixed
TimeoutStopSec={stop_seconds}
# A job that runs out of memory ends alone.
OOMPolicy=continue
LimitNOFILE=8192
StandardOutput=journal
StandardError=journal

UMask=0077
StateDirectory=mkiso
StateDirectoryMode=0700
ProtectSystem=strict
{writable}ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
LockPersonality=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service landlock_create_ruleset landlock_add_rule landlock_restrict_self
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
USERS = 'u mkiso - "mkiso" /var/lib/mkiso\n'
FOLDERS = "d /etc/mkiso 0750 root mkiso -\nd /var/lib/mkiso 0700 mkiso mkiso -\n"


def files(settings: Settings, shape: str, config: Path, program: str) -> Iterator[tuple[Path, str]]:
    """Each file of a shape: where it belongs, and what it holds."""
    yield Path("/etc/sysusers.d/mkiso.conf"), USERS
    yield Path("/etc/tmpfiles.d/mkiso.conf"), FOLDERS
    for part in SHAPES[shape]:
        yield FOLDER / unit_name(part), unit(part, settings, config, program)


def others(shape: str) -> list[str]:
    """The units that do the same as those of this shape: they can't run beside each other."""
    return [unit_name(part) for part in ("serve", *SHAPES["all"]) if (part == "serve") is not (shape == "one")]


def unit_name(part: Part) -> str:
    return "mkiso.service" if part == "serve" else f"mkiso-{part}.service"


def unit(part: Part, settings: Settings, config: Path = INSTALLED, program: str = "/opt/mkiso/bin/mkiso") -> str:
    """The unit of one part."""
    ports = {
        "serve": (settings.server.port, settings.receiver.port),
        "webhook": (settings.server.port,),
        "receiver": (settings.receiver.port,),
    }
    needed = " mkiso-receiver.service" if part == "worker" else ""
    return UNIT.format(
        description=WORDS[part],
        wants=needed,
        after=needed,
        data_dir=_quoted(str(settings.storage.data_dir)),
        config=_quoted(f"MKISO_CONFIG={config}"),
        environment=f"{config.parent}/environment".replace("%", "%%"),
        program=_quoted(program),
        command=part,
        stop_seconds=int(settings.server.shutdown_grace_seconds) + STOP_SECONDS,
        writable="".join(f"ReadWritePaths={_quoted(f'-{place}')}\n" for place in writable(settings)),
        capabilities="CAP_NET_BIND_SERVICE" if min(ports.get(part, (1024,))) < 1024 else "",
    )


def _quoted(text: str) -> str:
    """One word of a unit, as it is: systemd.syntax(7)."""
    text = text.replace("%", "%%")
    return text if re.fullmatch(r"[\w/.=@%+:,-]+", text) else json.dumps(text, ensure_ascii=False)


def writable(settings: Settings) -> list[Path]:
    """The folders outside of StateDirectory that mkiso writes into."""
    storage, publishers = settings.storage, settings.publishers.values()
    places = [
        storage.data_dir,
        storage.shared_dir,
        settings.archive.directory,
        (file := settings.audit.file_below(storage.data_dir)) and file.parent,
        *(place for each in publishers for place in _folders(each)),
    ]
    return sorted(
        {place for place in places if place is not None and place.is_absolute() and not place.is_relative_to(DATA)}
    )


def _folders(publisher: Publisher) -> Iterator[Path | None]:
    if isinstance(publisher, Robot):
        yield publisher.directory
        yield publisher.status_directory


def defaults() -> Settings:
    """What a service is installed from where there is no configuration yet."""
    return Settings(storage=Storage(data_dir=DATA))

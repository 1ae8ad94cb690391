"""The commands below `mkiso service`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click


@click.group()
def service() -> None:
    """Run mkiso as a systemd service of this machine."""


@service.command()
@click.option(
    "--shape",
    type=click.Choice(["one", "front", "worker", "all"]),
    default="one",
    show_default=True,
    help="Which units to install.",
)
@click.option("--dry-run", is_flag=True, help="Print the files and write none.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    help="Write below this folder.",
)
def install(shape: str, dry_run: bool, root: Path) -> None:
    """Write the units, and say what to do next. Ports and folders come from the configuration: install again when
    they change.
    """
    from mkiso.config.file import load
    from mkiso_service.install import CONFIG, DATA, SHAPES, defaults, files, unit_name

    config = Path(os.environ.get("MKISO_CONFIG", CONFIG))
    settings = load(config) if config.is_file() else defaults()
    program = shutil.which("mkiso") or str(Path(sys.executable).with_name("mkiso"))
    for path, text in files(settings, shape, config, program):
        if dry_run:
            click.echo(f"# {path}\n{text}")
            continue
        target = root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        click.echo(f"wrote {target}")
    if not dry_run:
        units = " ".join(unit_name(part) for part in SHAPES[shape])
        click.echo(
            "\nNext:\n  systemd-sysusers && systemd-tmpfiles --create\n"
            f"  install -m 640 -g mkiso config.yaml {config}      (storage.data_dir: {DATA})\n"
            f"  systemctl daemon-reload && systemctl enable --now {units}"
        )


@service.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def backup(folder: Path) -> None:
    """Copy what can't be made again (configuration, archive ledger, order books) to a new folder below FOLDER, while
    everything runs.
    """
    from mkiso.config.file import load
    from mkiso_service.backup import back_up

    named = os.environ.get("MKISO_CONFIG")
    settings = load()
    click.echo(back_up(settings.storage, settings.archive, Path(named) if named else Path("config.yaml"), folder))
    if settings.archive.ledger_url.get_secret_value():
        click.echo("The ledger is in PostgreSQL: dump that database too (pg_dump).", err=True)

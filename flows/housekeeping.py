"""What is older than it is kept goes, and what lies on the shelf is read again."""

from __future__ import annotations

from prefect import flow

from tasks.cleaning import remove_old_files, remove_old_runs, reread_discs


@flow(name="keep_house", flow_run_name="Housekeeping")
def keep_house() -> None:
    """Remove what is older than it is kept; prove again what is kept."""
    remove_old_files()
    remove_old_runs()
    reread_discs()

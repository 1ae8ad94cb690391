"""What is older than it is kept goes."""

from __future__ import annotations

from prefect import flow

from tasks.cleaning import remove_old_files, remove_old_runs


@flow(
    name="keep_house",
    flow_run_name="Housekeeping",
    description="Removes discs, folders of failed jobs, and Prefect's runs once they are older than they are kept.",
)
def keep_house() -> None:
    """Remove what is older than it is kept."""
    remove_old_files()
    remove_old_runs()

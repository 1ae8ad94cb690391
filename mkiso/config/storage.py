"""Where data lies: the folders and files of mkiso."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from mkiso.config.section import NamedPath, Section


class Storage(Section):
    """Where data lies and how much room it must leave. Relative folders are relative to the configuration file.

    Several machines share `shared_dir`; `data_dir` is each machine's own.
    """

    data_dir: NamedPath = Path("data")
    shared_dir: NamedPath | None = None
    min_free_gib: float = Field(5, ge=0)
    keep_failed_hours: float = Field(24, ge=0, le=87_600)

    @property
    def incoming_dir(self) -> Path:
        return self.data_dir / "incoming"

    @property
    def inboxes_dir(self) -> Path:
        """What was sent to inboxes (mkiso.receiver.pushed)."""
        return self.data_dir / "inboxes"

    @property
    def spares_dir(self) -> Path:
        """Files for instances to come (mkiso.storage.spare_files)."""
        return self.data_dir / "spares"

    @property
    def jobs_dir(self) -> Path:
        return self.data_dir / "jobs"

    @property
    def discs_dir(self) -> Path:
        return (self.shared_dir or self.data_dir) / "discs"

    @property
    def reports_dir(self) -> Path:
        """Beside the discs, since both must be seen by every webhook."""
        return self.discs_dir / "jobs"

    @property
    def orders_dir(self) -> Path:
        """Beside the discs, since a rerun may land on another machine and must know what was ordered."""
        return self.discs_dir / "orders"

    @property
    def sessions_dir(self) -> Path:
        """Who is signed in; beside the discs, for every webhook."""
        return self.discs_dir / "sessions"

    @property
    def keys_dir(self) -> Path:
        """When each named key was used last, as the time of a file; beside the discs, for every webhook."""
        return self.discs_dir / "keys"

    @property
    def moves_dir(self) -> Path:
        """The lock files of C-MOVEs (mkiso.storage.slots)."""
        return self.data_dir / "moves"

    def moves_of(self, source: str) -> Path:
        """Those of one of several sources."""
        return self.moves_dir / source

    @property
    def volumes_dir(self) -> Path:
        """Archive volumes while they are made, each in a folder named by its label."""
        return self.data_dir / "volumes"

    @property
    def ledger_file(self) -> Path:
        """The archive's ledger, where it isn't in PostgreSQL."""
        return self.data_dir / "ledger.sqlite"

    @property
    def prefect_dir(self) -> Path:
        return self.data_dir / "prefect"

    @property
    def own_folders(self) -> tuple[Path, ...]:
        """The folders whose content mkiso makes and clears."""
        return (
            self.incoming_dir,
            self.spares_dir,
            self.inboxes_dir,
            self.jobs_dir,
            self.discs_dir,
            self.moves_dir,
            self.volumes_dir,
            self.prefect_dir,
        )

    @property
    def viewer_hashes(self) -> Path:
        """The hashes of the viewer's files, so that a viewer of 100 MB isn't read for every disc."""
        return self.data_dir / "viewer-hashes.json"

    @property
    def rounds_file(self) -> Path:
        """When housekeeping last went round here (mkiso.storage.rounds)."""
        return self.data_dir / "housekeeping.json"

    @property
    def audit_undelivered(self) -> Path:
        """Audit messages that couldn't be delivered."""
        return self.data_dir / "audit-undelivered.xml"

    @property
    def receiver_socket(self) -> Path:
        """The Unix socket over which jobs tell the receiver what they expect."""
        return self.data_dir / "receiver.sock"

    @property
    def pictures_socket(self) -> Path:
        """The Unix socket at which jobs get the processes that make pictures."""
        return self.data_dir / "pictures.sock"

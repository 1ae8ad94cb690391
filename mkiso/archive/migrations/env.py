"""Run by Alembic; the connection, with its transaction and lock, comes from mkiso.archive.ledger."""

from alembic import context

from mkiso.archive.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()

"""Run by alembic: migrate over the connection that the store hands in, inside its transaction."""

from alembic import context

from cifar_core.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

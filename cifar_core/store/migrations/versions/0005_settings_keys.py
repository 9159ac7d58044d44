"""Keys of settings count what a run's "auto" was resolved to, and only what differs from the defaults."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A key is derived from other columns, and computed as this release does, whatever later revisions change.
    from cifar_core.errors import ConfigError
    from cifar_core.settings.train_config import TrainConfig
    from cifar_core.store.settings_columns import settings_key

    columns: list[sa.ColumnClause[Any]] = [
        sa.column(name) for name in ("id", "config", "environment", "settings_key")
    ]
    runs, connection = sa.table("runs", *columns), op.get_bind()
    for run_id, config, environment in connection.execute(sa.select(*columns[:3])).all():
        try:
            key = settings_key(TrainConfig(**json.loads(config)), json.loads(environment or "{}"))
        except (ConfigError, TypeError, ValueError, AttributeError):
            continue  # settings that this release does not accept keep the key they have
        connection.execute(sa.update(runs).where(runs.c.id == run_id).values(settings_key=key))

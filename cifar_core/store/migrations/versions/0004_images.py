"""On how many and on which images a run was trained and tested, where they are not all."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("train_images", sa.Integer(), nullable=True))
    op.add_column("runs", sa.Column("test_images", sa.String(length=64), nullable=True))
    columns: list[sa.ColumnClause[Any]] = [
        sa.column(name) for name in ("id", "config", "seed", "subset", "train_images", "test_images")
    ]
    runs, connection = sa.table("runs", *columns), op.get_bind()
    parts = sa.select(runs.c.id, runs.c.config, runs.c.seed).where(runs.c.subset)
    for run_id, config, seed in connection.execute(parts).all():
        try:
            settings = dict(json.loads(config))
        except (TypeError, ValueError):
            continue  # a damaged row stays as it is
        limit = settings.get("test_limit")
        images = {"train_images": settings.get("train_limit")}
        images["test_images"] = None if limit is None else f"{limit} by seed {seed}"
        connection.execute(sa.update(runs).where(runs.c.id == run_id).values(images))

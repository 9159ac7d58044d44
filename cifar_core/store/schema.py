"""The tables, as the newest revision has them.

A new store is made from these tables at once; an older one is brought here by the migrations in
`migrations/`. A test holds the two together.

Times are text, ISO 8601 in UTC to the microsecond: readable in any tool, and they sort. JSON is
text, so that every database keeps it alike. `revision` on a row is the number of the write that
last touched it (see `database.py`): whoever remembers the highest number seen asks for newer ones.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

REVISIONS: tuple[str, ...] = ("0001", "0002", "0003", "0004", "0005")
"""Every revision that this release knows, oldest first; the last is what it works with."""

FIRST_IN: dict[str, str] = {"exports": "0003"}
"""Tables that came later, and the revision that brought them."""

METRICS: tuple[str, ...] = (
    "accuracy",
    "loss",
    "val_accuracy",
    "val_loss",
    "learning_rate",
    "seconds",
    "images_per_second",
)
"""What an epoch is measured by; other names go to the row's `extra`."""

STEP_METRICS: tuple[str, ...] = ("accuracy", "loss", "learning_rate", "images_per_second", "eta_s")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _time(name: str, **options: Any) -> Column[str]:
    return Column(name, String(32), **options)


def _numbers(names: tuple[str, ...]) -> list[Column[float]]:
    return [Column(name, Double) for name in names]


def _revision() -> Column[int]:
    return Column("revision", BigInteger, nullable=False)


def _job() -> list[Column[Any]]:
    """What a run and a search share: state, owner, signs of life."""
    return [
        Column("id", String(80), primary_key=True),
        Column("config", Text, nullable=False),
        Column("model", String(64), nullable=False),
        Column("name", Text, nullable=False),
        Column("seed", BigInteger, nullable=False),
        Column("state", String(16), nullable=False),
        Column("reason", Text),
        _time("created_at", nullable=False),
        _time("queued_at", nullable=False),
        _time("started_at"),
        _time("attempt_started_at"),
        _time("finished_at"),
        _time("heartbeat_at"),
        Column("beats", BigInteger, nullable=False, default=0),
        Column("attempt", Integer, nullable=False, default=0),
        Column("pid", BigInteger),
        Column("process", String(120)),
        Column("host", String(255)),
        Column("device", String(120)),
        Column("stage", Text),
        Column("eta_s", Double),
        Column("duration_s", Double),
        Column("environment", Text),
        Column("dataset", Text),
        _revision(),
    ]


counter = Table(
    "counter",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
)
"""One row: the number of the last write."""

searches = Table(
    "searches",
    metadata,
    *_job(),
    Column("tuner", String(32), nullable=False),
    Column("plan", Text),
    Column("trials_planned", Integer),
    Column("best_trial", String(80)),
    Column("best_score", Double),
    Column("best_run", String(80)),
    Index(None, "state"),
)

runs = Table(
    "runs",
    metadata,
    *_job(),
    Column("variant", String(32), nullable=False),
    Column("preset", String(120)),
    Column("protocol", String(32), nullable=False),
    Column("settings_key", String(32), nullable=False),
    Column("subset", Boolean, nullable=False),
    Column("train_images", Integer),
    Column("test_images", String(64)),
    Column("dataset_name", String(64), nullable=False),
    Column("dataset_source", Text),
    Column("fingerprint", String(128)),
    Column("search_id", String(80), ForeignKey("searches.id", ondelete="SET NULL")),
    Column("resumed_from", String(80)),
    Column("reset_revision", BigInteger, nullable=False, default=0),
    Column("epochs", Integer, nullable=False),
    Column("epochs_done", Integer, nullable=False, default=0),
    Column("epoch", Integer),
    Column("step", BigInteger),
    Column("steps", BigInteger),
    Column("total_steps", BigInteger),
    Column("images_per_second", Double),
    Column("parameters", BigInteger),
    Column("flops", Double),
    Column("training_s", Double),
    Column("best_val_accuracy", Double),
    Column("metrics", Text),
    Column("accuracy", Double),
    Column("loss", Double),
    Column("top2_accuracy", Double),
    Column("ece", Double),
    Column("latency_ms", Double),
    Index(None, "state"),
    Index(None, "created_at"),
    Index(None, "search_id"),
)

epochs = Table(
    "epochs",
    metadata,
    Column("run_id", String(80), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    *_numbers(METRICS),
    Column("extra", Text),
    _time("recorded_at", nullable=False),
    _revision(),
    Index(None, "run_id", "revision"),
)

steps = Table(
    "steps",
    metadata,
    Column("run_id", String(80), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    *_numbers(STEP_METRICS),
    Column("extra", Text),
    _revision(),
    Index(None, "run_id", "revision"),
)
"""About one a second of the epoch that is running, and a few of each recorded one."""

trials = Table(
    "trials",
    metadata,
    Column("search_id", String(80), ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True),
    Column("trial_id", String(80), primary_key=True),
    Column("number", Integer),
    Column("settings", Text),
    Column("state", String(16), nullable=False),
    Column("score", Double),
    Column("reason", Text),
    _time("started_at"),
    _time("finished_at"),
    Column("duration_s", Double),
    Column("bracket", Integer),
    Column("round", Integer),
    Column("parent", String(80)),
    Column("epochs", Integer),
    Column("first_epoch", Integer),
    Column("epochs_done", Integer, nullable=False, default=0),
    Column("parameters", BigInteger),
    Column("extra", Text),
    _revision(),
    Index(None, "search_id", "revision"),
)

trial_epochs = Table(
    "trial_epochs",
    metadata,
    Column("search_id", String(80), primary_key=True),
    Column("trial_id", String(80), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    *_numbers(METRICS),
    Column("extra", Text),
    _time("recorded_at", nullable=False),
    _revision(),
    ForeignKeyConstraint(
        ["search_id", "trial_id"], ["trials.search_id", "trials.trial_id"], ondelete="CASCADE"
    ),
    Index(None, "search_id", "revision"),
)

exports = Table(
    "exports",
    metadata,
    Column("run_id", String(80), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("format", String(16), primary_key=True),
    Column("quantize", String(16), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("images", Integer, nullable=False),
    Column("verified_on", String(120), nullable=False),
    Column("agreement", Double, nullable=False),
    Column("max_difference", Double, nullable=False),
    Column("accuracy", Double),
    Column("reference_accuracy", Double),
    Column("latency_ms", Double),
    Column("reference_latency_ms", Double),
    _time("created_at", nullable=False),
    _revision(),
)
"""The last export of a run in each format; `quantize` is "" for none. The file itself is not kept."""

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String(80), ForeignKey("runs.id", ondelete="CASCADE")),
    Column("search_id", String(80), ForeignKey("searches.id", ondelete="CASCADE")),
    _time("at", nullable=False),
    Column("kind", String(64), nullable=False),
    Column("message", Text, nullable=False),
    _revision(),
    Index(None, "run_id", "revision"),
    Index(None, "search_id", "revision"),
)

image_notes = Table(
    "image_notes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("fingerprint", String(128), nullable=False),
    Column("image_index", Integer, nullable=False),
    Column("tag", String(64), nullable=False),
    Column("note", Text, nullable=False),
    _time("created_at", nullable=False),
    _revision(),
    UniqueConstraint("fingerprint", "image_index", "tag"),
)
"""What people say of a test image, whatever run they saw it in."""

version_table = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), primary_key=True),
)
"""Alembic's own; written here when a new store is made."""


def has_table(revision: str, name: str) -> bool:
    """Whether a store of this revision has the table: an archive of an older one lacks it."""
    return revision >= FIRST_IN.get(name, REVISIONS[0])

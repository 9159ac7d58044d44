"""Columns of a run that follow from its settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cifar_core.store.columns import clean_text, limit_columns, now, to_json

if TYPE_CHECKING:
    from cifar_core.settings.train_config import TrainConfig

_LABELS = {"seed", "name", "preset", "variant", "place", "record_answers", "record_snapshots"}
"""Settings that do not change what is learned, apart from chance."""


def settings_key(config: TrainConfig, environment: Mapping[str, Any] | None = None) -> str:
    """A hash of the settings, equal for runs that differ in seed, labels and what is recorded at most.

    Only settings that differ from their defaults count, so that a release may add some.

    Args:
        config: the settings.
        environment: of a run that has begun. Where its settings say "auto", what was chosen for it counts, so
            that a run in another number format is another setting.
    """
    plain = type(config)(model=config.model).flat()
    values = {**config.flat(), **_as_computed(config, environment or {})}
    changed = {name: value for name, value in values.items() if value != plain.get(name) or name == "model"}
    rest = {name: value for name, value in changed.items() if name not in _LABELS}
    return hashlib.sha256(to_json(rest).encode()).hexdigest()[:16]


def _as_computed(config: TrainConfig, environment: Mapping[str, Any]) -> dict[str, Any]:
    """What counts of a run's record in place of its settings."""
    counted: dict[str, Any] = {}
    if config.precision == "auto" and isinstance(environment.get("precision"), str):
        counted["precision"] = environment["precision"]
    if config.jit == "auto" and isinstance(environment.get("jit"), bool):
        counted["jit"] = "on" if environment["jit"] else "off"
    changed = (
        config.warmup_epochs or config.ema_momentum or (config.optimizer == "adam" and config.weight_decay)
    )
    if environment and changed and "rules" not in environment:
        counted["rules"] = 1  # an earlier release meant something else by these three
    return counted


def settings_columns(config: TrainConfig) -> dict[str, Any]:
    """Column values of a new run that follow from its settings, and its time of creation."""
    return {
        "config": to_json(config.model_dump(mode="json")),
        "model": config.model,
        "name": clean_text(config.name),
        "seed": config.seed,
        "variant": config.variant,
        "preset": clean_text(config.preset),
        "protocol": config.protocol,
        "settings_key": settings_key(config),
        "subset": config.train_limit is not None or config.test_limit is not None,
        **limit_columns(vars(config)),
        "dataset_name": config.dataset,
        "epochs": config.epochs,
        **dict.fromkeys(("created_at", "queued_at"), now()),
    }

"""Finished runs on which another is built: its teachers, and the one whose weights it begins with."""

from __future__ import annotations

from pathlib import Path

from cifar_core.base.lazy import keras
from cifar_core.errors import ConfigError, RunNotFoundError
from cifar_core.models.model_file import load_model
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunRecord, RunState, RunStore
from cifar_core.store.artifacts import MODEL_FILE

BEST = "best"
"""As a teacher: the run with the best validation accuracy."""


def teachers(config: TrainConfig) -> list[str]:
    """The runs named as teachers."""
    return [name.strip() for name in config.teacher.split(",") if name.strip()]


def resolved(config: TrainConfig, store: RunStore | None) -> TrainConfig:
    """The settings with whole ids of the runs that they name; unchanged where they name none.

    Args:
        store: where the runs are; None for the home's.

    Raises:
        ConfigError: there is no such run, it is not finished, or it does not suit these settings.
    """
    if not config.teacher and not config.start_from:
        return config
    store = store or RunStore()
    changes = {}
    if config.teacher:
        found = [_teacher(config, name, store) for name in teachers(config)]
        changes["teacher"] = ",".join(dict.fromkeys(found))
    if config.start_from:
        record = _finished("start_from", config.start_from, store)
        if record.model != config.model:
            raise ConfigError(
                f"start_from must be a run of the same model: {record.id} is a {record.model}, and these are "
                f"settings of {config.model}."
            )
        if not config.new_head or record.dataset_name == config.dataset:
            _same_data("start_from", config, record)
        changes["start_from"] = record.id
    return config.replace(**changes)


def load_origin(run_id: str, root: Path) -> keras.Model:
    """The trained network of a run, whole id, in the folder of a store's artifacts.

    Raises:
        ConfigError: it is not there.
        ModelFileError: its file is damaged.
    """
    path = root / run_id / MODEL_FILE
    if not path.is_file():
        raise ConfigError(
            f"The run {run_id} has no trained network at {path}. Name a finished run of this store by its "
            "whole id, or bring it here with 'cifar-lab unpack'."
        )
    return load_model(path)


def origins_root(config: TrainConfig, store: RunStore | None) -> Path | None:
    """The folder of the artifacts of the store (None: the home's); None where the settings name no run."""
    return (store or RunStore()).artifacts_root if config.teacher or config.start_from else None


def _teacher(config: TrainConfig, name: str, store: RunStore) -> str:
    if name == BEST:
        runs = store.runs(dataset=config.dataset, protocol=config.protocol, state=RunState.FINISHED)
        runs = runs.dropna(subset="best_val_accuracy")
        if runs.empty:
            raise ConfigError(
                f"teacher is {BEST!r}, and no run on {config.dataset} by the {config.protocol} protocol is "
                "finished yet: train one first, or name a run."
            )
        return str(runs.loc[runs["best_val_accuracy"].idxmax(), "id"])
    record = _finished("teacher", name, store)
    _same_data("teacher", config, record)
    return record.id


def _finished(setting: str, name: str, store: RunStore) -> RunRecord:
    try:
        record = store.get(name)
    except RunNotFoundError as error:
        raise ConfigError(f"{setting} must be a finished run. {error}") from None
    if record.state is not RunState.FINISHED:
        raise ConfigError(f"{setting} must be a finished run; {record.id} is {record.state}.")
    return record


def _same_data(setting: str, config: TrainConfig, record: RunRecord) -> None:
    """What the other run learned from the test images would otherwise reach this one."""
    theirs, ours = (record.dataset_name, record.protocol), (config.dataset, config.protocol)
    if theirs != ours:
        other = setting == "start_from" and theirs[0] != ours[0]
        hint = " To start from a network of another dataset, set new_head." if other else ""
        raise ConfigError(
            f"{setting} must be a run on the same data by the same protocol: {record.id} is on "
            f"{' '.join(theirs)}, and these settings say {' '.join(ours)}.{hint}"
        )

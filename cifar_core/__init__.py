"""Train, tune and study convolutional networks on CIFAR-10.

    from cifar_core import load_dataset, preset, train
    run = train(preset("base_cnn/recommended", epochs=5), dataset=load_dataset("cifar10"))
    run.history, run.metrics["accuracy"]

Importing this package is instant: each name below loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifar_core import (
        agreement,
        answers_by_epoch,
        doubts,
        eda,
        explain,
        human,
        mistakes,
        neighbours,
        plots,
    )
    from cifar_core.config import SearchConfig, TrainConfig
    from cifar_core.data import Dataset, load_dataset
    from cifar_core.errors import CifarLabError
    from cifar_core.evaluation import evaluate
    from cifar_core.inference import Inference
    from cifar_core.labels import CLASS_NAMES
    from cifar_core.metrics import Report
    from cifar_core.models import create_model
    from cifar_core.paper import PAPER_RESULTS
    from cifar_core.recipes import preset, presets
    from cifar_core.store import RunState, RunStore
    from cifar_core.training import Run, resume, train
    from cifar_core.tuning import tune

__version__ = "0.1.0"

_HOMES = {
    "CLASS_NAMES": "labels",
    "CifarLabError": "errors",
    "Dataset": "data",
    "Inference": "inference",
    "PAPER_RESULTS": "paper",
    "Report": "metrics",
    "Run": "training",
    "RunState": "store",
    "RunStore": "store",
    "SearchConfig": "config",
    "TrainConfig": "config",
    "create_model": "models",
    "evaluate": "evaluation",
    "load_dataset": "data",
    "preset": "recipes",
    "presets": "recipes",
    "resume": "training",
    "train": "training",
    "tune": "tuning",
}

_MODULES = frozenset(
    {"agreement", "answers_by_epoch", "doubts", "eda", "explain", "human", "mistakes", "neighbours", "plots"}
)
"""Of what a run gets wrong: modules, since some of their functions have the module's own name."""

__all__ = [
    "CLASS_NAMES",
    "PAPER_RESULTS",
    "CifarLabError",
    "Dataset",
    "Inference",
    "Report",
    "Run",
    "RunState",
    "RunStore",
    "SearchConfig",
    "TrainConfig",
    "agreement",
    "answers_by_epoch",
    "create_model",
    "doubts",
    "eda",
    "evaluate",
    "explain",
    "human",
    "load_dataset",
    "mistakes",
    "neighbours",
    "plots",
    "preset",
    "presets",
    "resume",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"cifar_core.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'cifar_core' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"cifar_core.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})

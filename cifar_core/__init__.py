"""Train, tune and study convolutional networks on CIFAR-10.

    from cifar_core import load_dataset, preset, train
    run = train(preset("base_cnn/recommended", epochs=5), dataset=load_dataset("cifar10"))
    run.history, run.metrics["accuracy"]

Importing this package is instant: each name below loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from typing import TYPE_CHECKING, Any

from cifar_core.base.version import __version__ as __version__

if TYPE_CHECKING:
    from cifar_core import plots
    from cifar_core.analysis import agreement, answers_by_epoch, doubts, explain, mistakes, neighbours
    from cifar_core.analysis.evaluation import evaluate
    from cifar_core.analysis.metrics import Report
    from cifar_core.analysis.study.paper import PAPER_RESULTS
    from cifar_core.data import Dataset, eda, human, images, load_dataset
    from cifar_core.data.problem import CLASS_NAMES
    from cifar_core.errors import CifarLabError
    from cifar_core.models import create_model
    from cifar_core.serving import robustness
    from cifar_core.serving.inference import Inference
    from cifar_core.settings.presets import preset, presets
    from cifar_core.settings.search_config import SearchConfig
    from cifar_core.settings.train_config import TrainConfig
    from cifar_core.store import RunState, RunStore
    from cifar_core.training.result import Run
    from cifar_core.training.run import resume, train
    from cifar_core.training.smaller import distill, prune
    from cifar_core.tuning import tune

_HOMES = {
    "CLASS_NAMES": "data.problem",
    "CifarLabError": "errors",
    "Dataset": "data",
    "Inference": "serving.inference",
    "PAPER_RESULTS": "analysis.study.paper",
    "Report": "analysis.metrics",
    "Run": "training.result",
    "RunState": "store",
    "RunStore": "store",
    "SearchConfig": "settings.search_config",
    "TrainConfig": "settings.train_config",
    "create_model": "models",
    "distill": "training.smaller",
    "evaluate": "analysis.evaluation",
    "load_dataset": "data",
    "preset": "settings.presets",
    "presets": "settings.presets",
    "prune": "training.smaller",
    "resume": "training.run",
    "train": "training.run",
    "tune": "tuning",
}

_MODULES = {
    "agreement": "analysis.agreement",
    "answers_by_epoch": "analysis.answers_by_epoch",
    "doubts": "analysis.doubts",
    "eda": "data.eda",
    "explain": "analysis.explain",
    "human": "data.human",
    "images": "data.images",
    "mistakes": "analysis.mistakes",
    "neighbours": "analysis.neighbours",
    "plots": "plots",
    "robustness": "serving.robustness",
}
"""Modules of the public face by their short names; some of their functions have the module's own name."""

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
    "distill",
    "doubts",
    "eda",
    "evaluate",
    "explain",
    "human",
    "images",
    "load_dataset",
    "mistakes",
    "neighbours",
    "plots",
    "preset",
    "presets",
    "prune",
    "resume",
    "robustness",
    "train",
    "tune",
]


class _ShortNames:
    """Makes `import cifar_core.agreement` load `cifar_core.analysis.agreement`; finder and loader in one.

    Without the base classes of `importlib.abc`, which would take longer to import than all else here.
    """

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:  # noqa: ARG002
        package, _, name = fullname.partition(".")
        if package != "cifar_core" or name not in _MODULES:
            return None
        loader: Any = self
        return importlib.machinery.ModuleSpec(fullname, loader)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        module = importlib.import_module(f"cifar_core.{_MODULES[spec.name.partition('.')[2]]}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: Any) -> None:
        """The module ran when it was imported from its own place; only its own spec is put back."""
        module.__spec__ = module.__spec__.loader_state


sys.meta_path.append(_ShortNames())


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"cifar_core.{_MODULES[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module 'cifar_core' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"cifar_core.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})

"""CIFAR-10 from wherever it is, datasets that people bring, and a synthetic one beside them.

Names are imported on first use: a model's declaration needs a problem, and no NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifar_core.data.dataset import Dataset
    from cifar_core.data.download import download_cifar10, import_cifar10
    from cifar_core.data.load import DatasetStatus, dataset_status, load_dataset

__all__ = [
    "Dataset",
    "DatasetStatus",
    "dataset_status",
    "download_cifar10",
    "import_cifar10",
    "load_dataset",
]

_HOMES = {
    "Dataset": "dataset",
    "DatasetStatus": "load",
    "dataset_status": "load",
    "download_cifar10": "download",
    "import_cifar10": "download",
    "load_dataset": "load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

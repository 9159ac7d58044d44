"""CIFAR-10 from wherever it is, downloads and imports of it, and a synthetic dataset beside it."""

from cifar_core.data.dataset import Dataset
from cifar_core.data.download import download_cifar10, import_cifar10
from cifar_core.data.load import DATASETS, DatasetStatus, dataset_status, load_dataset

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetStatus",
    "dataset_status",
    "download_cifar10",
    "import_cifar10",
    "load_dataset",
]

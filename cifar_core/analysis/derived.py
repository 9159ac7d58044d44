"""Tables computed from a run's predictions and kept with the run until the predictions change."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_core.base.lazy import pd
from cifar_core.base.npz import open_npz
from cifar_core.errors import RunNotFoundError, StoreError
from cifar_core.store.artifacts import PREDICTIONS

if TYPE_CHECKING:
    from cifar_core.store import RunStore

_MOST_BYTES = 64 * 2**20


def keep(store: RunStore, run_id: str, name: str, table: pd.DataFrame) -> None:
    """Store a table of numbers and texts as the artifact `name` of a run, for `kept`."""
    mark = np.array(_mark(store, run_id))
    arrays: dict[str, Any] = {str(column): _plain(table[column].to_numpy()) for column in table}
    store.write_artifact(run_id, name, lambda file: np.savez_compressed(file, mark=mark, **arrays))


def kept(store: RunStore, run_id: str, name: str, columns: Sequence[str]) -> pd.DataFrame | None:
    """The table of `keep`; None if it is missing, damaged or older than the run's predictions.

    Raises:
        StoreError: the predictions are damaged.
    """
    try:
        with open_npz(store.artifact(run_id, name), _MOST_BYTES) as arrays:
            if str(arrays["mark"]) != _mark(store, store.resolve(run_id)):
                return None
            return pd.DataFrame({column: arrays[column] for column in columns})
    except (RunNotFoundError, ValueError, OSError):
        return None


def _plain(values: np.ndarray) -> np.ndarray:
    """Texts as fixed-width ones, which need no pickle."""
    return values.astype(str) if values.dtype.kind == "O" else values


def _mark(store: RunStore, run_id: str) -> str:
    """Checksums of the stored predictions, to notice that they have changed."""
    path = store.artifact(run_id, PREDICTIONS)
    try:
        with zipfile.ZipFile(path) as archive:
            return " ".join(f"{member.CRC:08x}" for member in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise StoreError(f"{path} is damaged: {error}. Evaluate the run again to replace it.") from error

"""NumPy with the function names of `keras.ops`.

The page that previews augmentation must not import Keras, and training must not run in NumPy: both call the
same functions of this package with different `ops`.
"""

from typing import Any

import numpy as np

Array = Any
"""A NumPy array or a tensor of the Keras backend."""


class NumpyOps:
    """NumPy functions; those that `keras.ops` names differently are defined here."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def cast(x: np.ndarray, dtype: str) -> np.ndarray:
        return x.astype(dtype)

    @staticmethod
    def one_hot(x: np.ndarray, num_classes: int) -> np.ndarray:
        return np.eye(num_classes, dtype="float32")[x]

    @staticmethod
    def segment_sum(data: np.ndarray, segment_ids: np.ndarray, num_segments: int) -> np.ndarray:
        return np.bincount(segment_ids, weights=data, minlength=num_segments).astype(data.dtype)


NUMPY = NumpyOps()

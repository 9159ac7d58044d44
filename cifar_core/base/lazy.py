"""Heavy packages, imported on first use, so that modules that pages read can name them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["keras", "layers", "np", "pd"]


class _LazyModule:
    """Stand-in for a module; the first access to one of its names imports it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked by tools that look at any object, which should import nothing
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)


if TYPE_CHECKING:
    import keras
    import numpy as np
    import pandas as pd
    from keras import layers
else:
    keras = _LazyModule("keras")
    layers = _LazyModule("keras.layers")
    np = _LazyModule("numpy")
    pd = _LazyModule("pandas")

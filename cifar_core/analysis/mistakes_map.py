"""Map of a run's test images by its predictions: images with similar probabilities are close together.

Between two classes lie the images that the network confuses. A server has a child process `compute` the map
and reads it with `kept_map`; scikit-learn stays out of the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cifar_core.analysis import derived
from cifar_core.analysis.mistakes import probabilities_of
from cifar_core.base.child import Progress
from cifar_core.base.lazy import pd

if TYPE_CHECKING:
    from cifar_core.store import RunStore

MAP_FILE = "mistakes-map.npz"
PLACED = 1500
"""Images placed by t-SNE, in about ten seconds; each of the others goes between the nearest of them."""
NEAREST = 3
_SMALLEST = 1e-4
_ROWS = 1000


def places(probabilities: np.ndarray, seed: int = 0) -> np.ndarray:
    """Positions of images in the plane by t-SNE (van der Maaten and Hinton, 2008) of their log probabilities.

    Args:
        probabilities: float (N, C), N at least 1; values below 1e-4 count as 1e-4.
        seed: of the sample of `PLACED` images that t-SNE places, and of t-SNE.

    Returns:
        float32 (N, 2).
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))
    logits -= logits.mean(axis=1, keepdims=True)
    total = len(logits)
    if total < 5:  # too few for t-SNE
        return np.ascontiguousarray(logits[:, :2], np.float32)
    chosen = np.sort(np.random.default_rng(seed).choice(total, min(PLACED, total), replace=False))
    found = np.empty((total, 2), np.float32)
    found[chosen] = _tsne(logits[chosen], seed)
    others = np.setdiff1d(np.arange(total), chosen)
    for start in range(0, len(others), _ROWS):
        part = others[start : start + _ROWS]
        found[part] = _between(logits[part], logits[chosen], found[chosen])
    return found


def _tsne(points: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(20.0, (len(points) - 1) / 3)
    model = TSNE(n_components=2, perplexity=perplexity, init="pca", max_iter=500, random_state=seed)
    return model.fit_transform(points)


def _between(points: np.ndarray, known: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Mean place of the nearest known points, the nearer the heavier."""
    squares = (points**2).sum(1)[:, None] + (known**2).sum(1) - 2 * points @ known.T
    near = np.argpartition(squares, NEAREST, axis=1)[:, :NEAREST]
    weight = 1 / (np.take_along_axis(squares, near, axis=1).clip(0) + 1e-3)
    return (at[near] * (weight / weight.sum(axis=1, keepdims=True))[..., None]).sum(axis=1)


def compute(run_id: str, progress: Progress) -> None:
    """Compute and keep the map of a run in the home's store; for a child process.

    Raises:
        RunNotFoundError: no such run, or it keeps no predictions.
    """
    from cifar_core.store import RunStore

    progress(0.2, "placing the images by t-SNE")
    with RunStore() as store:
        keep_map(store, run_id)


def keep_map(store: RunStore, run_id: str) -> None:
    """Compute the map of a run and store it with the run, for `kept_map`. Errors as `compute`."""
    whole = store.resolve(run_id)
    predictions = store.predictions(whole)
    table = predictions[["index"]].copy()
    table[["x", "y"]] = places(probabilities_of(predictions))
    derived.keep(store, whole, MAP_FILE, table)


def kept_map(store: RunStore, run_id: str) -> pd.DataFrame | None:
    """Stored result of `keep_map`: index, x, y, row by row of the predictions; None where there is none."""
    return derived.kept(store, run_id, MAP_FILE, ("index", "x", "y"))

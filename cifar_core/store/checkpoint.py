"""Everything that training needs to go on as if it had never been cut, in one file.

A checkpoint holds the model's variables (weights, running averages and the states of its random
generators), the optimizer's (moments, step count, rate, moving averages), and what callbacks
remember. It is an `.npz` of plain arrays: nothing in it can run code.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from cifar_core.base.npz import Arrays, open_npz
from cifar_core.errors import ResumeError

if TYPE_CHECKING:
    import keras

CHECKPOINT_FILE = "checkpoint.npz"
FORMAT = 1


@dataclass
class Progressed:
    """How far a training has come, and what its callbacks remember.

    `history` has one mapping per completed epoch. `best_epoch` counts from 1; 0 means none yet.
    `run` is the run that it belongs to, None where it is none of a store's.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_accuracy: float = -1.0
    callbacks: dict[str, dict[str, Any]] = field(default_factory=dict)
    complete: bool = False
    run: str | None = None

    @property
    def epochs_done(self) -> int:
        return len(self.history)


def write_checkpoint(stream: IO[bytes], model: keras.Model, progressed: Progressed) -> None:
    """Write model, optimizer and progress to an open binary file."""
    arrays: dict[str, Any] = {f"model_{i}": value for i, value in enumerate(_values(model.variables))}
    arrays |= {f"optimizer_{i}": value for i, value in enumerate(_values(model.optimizer.variables))}
    meta = json.dumps({"format": FORMAT, "progressed": asdict(progressed)})
    np.savez(stream, meta=np.frombuffer(meta.encode(), np.uint8), **arrays)


def read_progress(path: Path) -> Progressed:
    """Only the progress of a checkpoint.

    Raises:
        ResumeError: no such file, or not a whole checkpoint of a known format.
    """
    with _open(path) as arrays:
        return _progressed(path, arrays)


def restore_checkpoint(path: Path, model: keras.Model) -> Progressed:
    """Put a checkpoint's values into a compiled model and its built optimizer.

    Raises:
        ResumeError: the file is missing or damaged, or belongs to another architecture.
    """
    with _open(path) as arrays:
        progressed = _progressed(path, arrays)
        _assign(path, arrays, "model", model.variables)
        _assign(path, arrays, "optimizer", model.optimizer.variables)
    return progressed


def weights_bytes(weights: list[np.ndarray]) -> bytes:
    """A list of weights as the bytes of an `.npz`."""
    buffer = io.BytesIO()
    np.savez(buffer, *weights)
    return buffer.getvalue()


def read_weights(path: Path, model: keras.Model) -> list[np.ndarray]:
    """The list of weights that `weights_bytes` wrote, in the order of `model.weights`.

    Raises:
        ResumeError: no such file, damaged, or of another architecture.
    """
    with _open(path, "the weights of the best epoch") as arrays:
        weights = [arrays[f"arr_{i}"] for i in range(len(arrays.files))]
    if [w.shape for w in weights] != [tuple(variable.shape) for variable in model.weights]:
        raise ResumeError(f"The weights in {path} are of another architecture; {_INSTEAD}")
    return weights


def _values(variables: list[Any]) -> list[np.ndarray]:
    from keras import ops

    return [np.asarray(ops.convert_to_numpy(variable)) for variable in variables]


_INSTEAD = "put the run's own file back, or start a new run instead."
_DAMAGE = (OSError, ValueError, KeyError, TypeError)
"""What a file that is cut, overwritten or made by hand leads to when it is read."""


@contextmanager
def _open(path: Path, content: str = "the checkpoint") -> Iterator[Arrays]:
    """The arrays of a file; whatever is wrong with it is a ResumeError."""
    try:
        with open_npz(path) as arrays:
            yield arrays
    except FileNotFoundError:
        raise ResumeError(f"The file {path} with {content} is gone; {_INSTEAD}") from None
    except _DAMAGE as error:
        raise ResumeError(f"The file {path} with {content} is damaged ({error}); {_INSTEAD}") from None


def _progressed(path: Path, arrays: Any) -> Progressed:
    try:
        meta = json.loads(bytes(arrays["meta"]))
        if meta["format"] != FORMAT:
            raise ResumeError(
                f"The checkpoint {path} has format {meta['format']}; this release reads {FORMAT}."
            )
        return _checked(Progressed(**meta["progressed"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ResumeError(f"The checkpoint {path} is not one of ours ({error}).") from None


def _checked(progressed: Progressed) -> Progressed:
    kinds = {"history": list, "best_epoch": int, "best_accuracy": int | float, "callbacks": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(getattr(progressed, name), kind)]
    if wrong or not all(isinstance(epoch, dict) for epoch in progressed.history):
        raise ValueError(f"{', '.join(wrong) or 'history'} of another kind")
    return progressed


def _assign(path: Path, arrays: Any, kind: str, variables: list[Any]) -> None:
    saved = sum(name.startswith(f"{kind}_") for name in arrays.files)
    if saved != len(variables):
        raise ResumeError(
            f"The checkpoint {path} has {saved} {kind} variables; this {kind} has {len(variables)}."
        )
    for index, variable in enumerate(variables):
        value = arrays[f"{kind}_{index}"]
        if tuple(value.shape) != tuple(variable.shape):
            raise ResumeError(
                f"The checkpoint {path} is of another architecture: {variable.path} has shape "
                f"{tuple(variable.shape)}, the checkpoint {value.shape}."
            )
        variable.assign(value)

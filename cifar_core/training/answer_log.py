"""Log of a run's predictions for the test images after each epoch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cifar_core.analysis.answers_by_epoch import ANSWERS_FILE, UNKNOWN, read_answers
from cifar_core.training.recorder import Recorder

Predict = Callable[[np.ndarray], np.ndarray]


class AnswerLog:
    """Keeps the predicted class of each test image after each epoch, in a file of the run.

    Args:
        recorder: receives the file; without a store the predictions are kept only in memory.
        images: uint8 (N, side, side, 3).
        labels: true classes, int (N,).
        indices: positions in the whole test set, int (N,).
        epochs_done: completed epochs of a resumed run, whose predictions are read back.
    """

    def __init__(
        self,
        recorder: Recorder,
        images: np.ndarray,
        labels: np.ndarray,
        indices: np.ndarray,
        epochs_done: int,
    ) -> None:
        self._recorder, self._images = recorder, images
        self._labels, self._indices = _small(labels), indices.astype(np.int64)
        self._rows = self._earlier(epochs_done)

    @property
    def answers(self) -> np.ndarray:
        """Predicted classes so far, int8 or, with many classes, int16 (epochs, N); -1 where unknown."""
        return np.array(self._rows, np.result_type(np.int8, *self._rows)).reshape(-1, len(self._labels))

    def record(self, predict: Predict) -> None:
        """Predict for one more epoch and write the file.

        Args:
            predict: gives probabilities (N, classes) of images.
        """
        self._rows.append(_small(predict(self._images).argmax(axis=1)))
        self._recorder.artifact(
            ANSWERS_FILE,
            lambda stream: np.savez_compressed(
                stream, answers=self.answers, labels=self._labels, indices=self._indices
            ),
        )

    def _earlier(self, epochs_done: int) -> list[np.ndarray]:
        """Rows of the epochs done before; unknown for those that are no longer in the file."""
        rows: list[np.ndarray] = []
        if epochs_done and self._recorder.stored is not None:
            found = read_answers(*self._recorder.stored)
            if found is not None and np.array_equal(found.indices, self._indices):
                rows = list(found.answers[:epochs_done])
        unknown = np.full(len(self._labels), UNKNOWN, np.int8)
        return rows + [unknown] * (epochs_done - len(rows))


def _small(classes: np.ndarray) -> np.ndarray:
    """Numbers of classes as int8, or int16 where some are larger."""
    return classes.astype(np.int8 if classes.max(initial=0) <= np.iinfo(np.int8).max else np.int16)

"""Keeps what a network predicts for each test image after every epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

import numpy as np

from cifar_core.analysis.answers_by_epoch import ANSWERS_FILE, UNKNOWN, read_answers
from cifar_core.training.recorder import Recorder

Predict = Callable[[np.ndarray], np.ndarray]


class AnswerLog:
    """Asks a network for its answers after each epoch and keeps them with the run.

    Args:
        recorder: where the file goes; one without a store keeps the answers in memory alone.
        images: uint8 (N, 32, 32, 3). labels, indices: int (N,), true classes and places in the test set.
        epochs_done: epochs that a resumed run has behind it; their answers are read back.
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
        self._labels, self._indices = labels.astype(np.int8), indices.astype(np.int64)
        self._rows = self._earlier(epochs_done)

    @property
    def answers(self) -> np.ndarray:
        """int8 (epochs, images) so far."""
        return np.array(self._rows, np.int8).reshape(-1, len(self._labels))

    def record(self, predict: Predict) -> None:
        """Ask for one more epoch, and keep all of them.

        Args:
            predict: probabilities (N, 10) of the images.
        """
        self._rows.append(predict(self._images).argmax(axis=1).astype(np.int8))
        content = {"answers": self.answers, "labels": self._labels, "indices": self._indices}

        def write(stream: IO[bytes]) -> None:
            np.savez_compressed(stream, **content)

        self._recorder.artifact(ANSWERS_FILE, write)

    def _earlier(self, epochs_done: int) -> list[np.ndarray]:
        """Of the epochs before; -1 for those that are not on file any more."""
        rows: list[np.ndarray] = []
        store, run_id = self._recorder.store, self._recorder.run_id
        if epochs_done and store is not None and run_id is not None:
            found = read_answers(store, run_id)
            if found is not None and np.array_equal(found.indices, self._indices):
                rows = list(found.answers[:epochs_done])
        lacking = np.full(len(self._labels), UNKNOWN, np.int8)
        return rows + [lacking] * (epochs_done - len(rows))

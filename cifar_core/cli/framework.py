"""TensorFlow without its opening speech."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from cifar_core.settings.compute import prepare
from cifar_core.settings.train_config import TrainConfig


def load_framework(config: TrainConfig | None = None) -> None:
    """Import Keras and its backend, as suits a setting; what they print is shown only if they fail."""
    if config is not None:
        prepare(config)
    if "keras" not in sys.modules:
        with quiet():
            import keras  # noqa: F401
    # Several trainings in one process look to TensorFlow like a mistake ("retracing"), and it says so.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back stderr while native code talks; show all of it if an exception ends the block.

    TensorFlow and its converters write past Python, and before any log level counts, to the very
    stream on which a script looks for our one line.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)

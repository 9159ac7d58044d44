"""Trainings that die at a chosen moment, started cheaply.

    python -m tests.faults.mortal IMAGES

A process that has loaded the framework and drawn the images once; for each line of its input it forks a
child that trains one run and is killed with SIGKILL at the moment that the line names, by its own hand:

    {"run": "base_cnn-a1b2c3", "home": "/...", "temporary": "/...", "log": "/...", "moment": "step",
     "count": 7}

It answers {"pid": 123} at once and {"status": -9} (as `subprocess` gives it) when the child has ended.
The hooks stand here and not in the product: they wrap what the product calls.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import IO, Any


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    """Tells at the call it was set for; calls of other threads (the heartbeat's) do not count."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        if threading.current_thread() is not threading.main_thread():
            return False
        self.left -= 1
        return self.left == 0


def _before(owner: Any, name: str, due: Countdown) -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if due():
            die()
        return original(*arguments, **options)

    setattr(owner, name, wrapped)


def _after(owner: Any, name: str, due: Countdown) -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if due():
            die()
        return result

    setattr(owner, name, wrapped)


def loading(due: Countdown) -> None:
    """While the images are drawn, a class at a time."""
    from cifar_core.data import load_dataset, synthetic
    from cifar_core.training import run

    run.load_dataset = load_dataset  # the true one, not the images drawn before
    _before(synthetic, "_draw_class", due)


def step(due: Countdown) -> None:
    """After a batch, mid-epoch."""
    from cifar_core.training.callbacks import RunCallback

    _after(RunCallback, "on_train_batch_end", due)


def validating(due: Countdown) -> None:
    """After a batch of validation, before the epoch counts."""
    from cifar_core.training.callbacks import RunCallback

    _after(RunCallback, "on_test_batch_end", due)


def half_written(due: Countdown) -> None:
    """With half of a file's bytes on the disk: best weights, checkpoint, predictions or model."""
    from cifar_core.base import files

    write = files._fill

    def wrapped(file: IO[bytes], content: Any) -> None:
        write(file, content)
        if due():
            file.flush()
            os.truncate(file.name, os.path.getsize(file.name) // 2)
            die()

    files._fill = wrapped


def before_rename(due: Countdown) -> None:
    """A file is whole and does not yet have its name."""
    _before(os, "replace", due)


def after_rename(due: Countdown) -> None:
    """A file has its name; the folder's flush, the next file and the database have not followed."""
    _after(os, "replace", due)


def before_write(due: Countdown) -> None:
    """Between the files and the database."""
    from cifar_core.store.database import Database

    _before(Database, "write", due)


def inside_write(due: Countdown) -> None:
    """In the middle of a transaction: rows are changed and not committed."""
    from cifar_core.store.database import Database

    write = Database.write

    def wrapped(self: Database, action: Callable[..., Any]) -> Any:
        def dying(connection: Any, revision: int) -> Any:
            result = action(connection, revision)
            if due():
                die()
            return result

        return write(self, dying)

    Database.write = wrapped


def after_write(due: Countdown) -> None:
    """Committed, and nobody was told."""
    from cifar_core.store.database import Database

    _after(Database, "write", due)


def testing(due: Countdown) -> None:
    """While the test images are predicted."""
    from cifar_core.analysis import evaluation

    _before(evaluation, "_batch", due)


def exporting(due: Countdown) -> None:
    """While the best weights are saved as a model: half of the file is there."""
    import keras

    save = keras.Model.save

    def wrapped(self: Any, path: str, *arguments: Any, **options: Any) -> None:
        save(self, path, *arguments, **options)
        if due():
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    keras.Model.save = wrapped


def never(due: Countdown) -> None:
    """It lives, or is killed from outside."""


MOMENTS: dict[str, Callable[[Countdown], None]] = {
    hook.__name__: hook
    for hook in (
        loading,
        step,
        validating,
        half_written,
        before_rename,
        after_rename,
        before_write,
        inside_write,
        after_write,
        testing,
        exporting,
        never,
    )
}


def main(arguments: list[str]) -> None:
    from cifar_core.data import load_dataset
    from cifar_core.training import run

    images = load_dataset(arguments[0])
    run.load_dataset = lambda _: images
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_live(order))
        print(json.dumps({"pid": child}), flush=True)
        _, ended = os.waitpid(child, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(ended)}), flush=True)


def _live(order: dict[str, Any]) -> int:
    """In the child: train, and perhaps die of it. 0 where it ended as planned, else 1."""
    import tempfile
    import traceback

    from cifar_core.errors import CifarLabError
    from cifar_core.store import RunStore
    from cifar_core.training.run import resume

    os.setsid()
    log = os.open(order["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    tempfile.tempdir = order["temporary"]
    MOMENTS[order["moment"]](Countdown(order["count"]))
    try:
        resume(order["run"], store=RunStore(order["home"]))
    except CifarLabError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 1
    except BaseException:
        traceback.print_exc()
        return 2
    return 0


if __name__ == "__main__":
    main(sys.argv[1:])

"""The trained network that comes with a release, so that a first visitor has one to look at and to try.

It is a pack of one reference run (see `cifar_core.store.archive`) with its model, its predictions and what it
predicted while it learned. Convolution kernels are rounded to bfloat16, in which the run computed with them
anyway, so that they take half the space: all predictions stay as they were.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from sqlalchemy import update

from cifar_core.analysis.study.reference_runs import FOLDER
from cifar_core.base.lazy import keras
from cifar_core.errors import ConfigError
from cifar_core.store import RunStore
from cifar_core.store.archive.pack import pack, unpack
from cifar_core.store.artifacts import MODEL_FILE
from cifar_core.store.columns import to_json
from cifar_core.store.schema import runs

FILE = FOLDER.parent / "trained.zip"
KEPT = (MODEL_FILE, "predictions.npz", "snapshots.npz")
"""Files of the run that the pack holds: none that only a training would go on with."""
PRIVATE = ("command", "platform", "git_commit")
"""Facts of the run's environment that say more of the machine than of the run."""


def add(store: RunStore) -> str:
    """Add the network to a store, if it is not there, and return its run's id.

    Raises:
        StoreError: the store cannot be written.
    """
    (found,) = unpack(store, FILE, existing="new")
    return found.id


def ship(store: RunStore, run_id: str, data: str, path: Path = FILE) -> Path:
    """Write a finished run as the network of the package and return the file; for making a release.

    Args:
        data: description of its images, in place of the folder where they were.

    Raises:
        RunNotFoundError: the store has no such run.
        ConfigError: it is not finished, or was not computed in bfloat16.
    """
    record = store.get(run_id)
    precision = record.environment.get("precision")
    if record.state != "finished" or precision != "mixed_bfloat16":
        raise ConfigError(
            f"Run {run_id} is {record.state}, computed in {precision}; the network of a release is a "
            "finished run that was computed in mixed_bfloat16."
        )
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.zip"
        pack(store, [run_id], whole)
        with RunStore(Path(folder) / "home") as lean:
            (found,) = unpack(lean, whole)
            for artifact in lean.artifacts(found.id):
                if artifact.name not in KEPT:
                    lean.artifact(found.id, artifact.name).unlink()
            _round_kernels(lean.artifact(found.id, MODEL_FILE))
            of_run = runs.c.id == found.id
            environment = {name: value for name, value in record.environment.items() if name not in PRIVATE}
            values = {
                "dataset": to_json({**record.dataset, "origin": data}),
                "environment": to_json(environment),
                "host": "",
            }
            lean._db.write(
                lambda connection, _: connection.execute(update(runs).where(of_run).values(values))
            )
            pack(lean, [found.id], path, overwrite=True)
    _compress(path)
    return path


def _round_kernels(file: Path) -> None:
    """Round a saved model's convolution kernels to bfloat16."""
    model = keras.models.load_model(file, compile=False)
    for weight in model.weights:
        if len(weight.shape) == 4:
            weight.assign(keras.ops.cast(keras.ops.cast(weight, "bfloat16"), weight.dtype))
    model.save(file)


def _compress(archive: Path) -> None:
    """Compress all members of a pack, which leaves models as they are, since most would not shrink."""
    with zipfile.ZipFile(archive) as before:
        members = {name: before.read(name) for name in before.namelist()}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as after:
        for name, content in members.items():
            after.writestr(name, content)

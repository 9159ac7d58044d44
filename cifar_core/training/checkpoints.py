"""Resuming a run from its files: the checkpoint and the best epoch's weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_core.base.lazy import keras
from cifar_core.errors import ResumeError
from cifar_core.store import RunRecord, RunStore
from cifar_core.store.checkpoint import CHECKPOINT_FILE, Progressed, read_weights, restore_checkpoint
from cifar_core.training.resolve import Setup

if TYPE_CHECKING:
    from cifar_core.training.averaging import Weights


def best_file(epoch: int) -> str:
    """Name of the file with the best weights. It contains the epoch, so that it cannot be mistaken."""
    return f"best-{epoch:04d}.npz"


def remove_other_best_files(folder: Path | None, best_epoch: int) -> None:
    """Remove best weights of epochs other than the checkpoint's best: surpassed, or never committed."""
    for file in [] if folder is None else folder.glob("best-*.npz"):
        if file.name != best_file(best_epoch):
            file.unlink(missing_ok=True)


def restore(setup: Setup, model: keras.Model) -> tuple[Progressed, Weights | None]:
    """Load an earlier start of this run into the model, if there is a checkpoint.

    Returns:
        Progress so far, and the best weights if `keep="best"` and an epoch is done.

    Raises:
        ResumeError: checkpoint or best weights are missing, damaged or another run's, or the images differ.
    """
    if setup.recorder.stored is None:
        return Progressed(), None
    store, run_id = setup.recorder.stored
    record, path = store.get(run_id), store.artifact_dir(run_id) / CHECKPOINT_FILE
    if not path.exists():
        if record.epochs_done:
            raise ResumeError(
                f"Run {record.id} has {record.epochs_done} epochs on record and no checkpoint at {path}: "
                "somebody removed it. Start a new run with the same settings."
            )
        return Progressed(run=record.id), None
    before = record.dataset.get("fingerprint")
    if before and before != setup.images.dataset.fingerprint:
        raise ResumeError(
            f"Run {record.id} began on other images (fingerprint {before}) than those here "
            f"({setup.images.dataset.fingerprint}). Point to the same dataset, or start a new run."
        )
    progressed = restore_checkpoint(path, model)
    _check_belongs(store, record, path, progressed)
    remove_other_best_files(path.parent, progressed.best_epoch)
    if setup.config.keep != "best" or not progressed.best_epoch:
        return progressed, None
    return progressed, _best_weights(setup, path.parent, model, progressed)


def _check_belongs(store: RunStore, record: RunRecord, path: Path, progressed: Progressed) -> None:
    """Compare a checkpoint with the run's recorded epochs. If it has fewer, the record gets an event.

    Raises:
        ResumeError: it is another run's.
    """
    recorded = store.history(record.id).set_index("epoch").to_dict("index")
    known = [epoch for epoch in progressed.history if epoch["epoch"] in recorded]
    same = all(_same_losses(epoch, recorded[epoch["epoch"]]) for epoch in known)
    if not same or not (known or progressed.run in (None, record.id)):
        raise ResumeError(
            f"The checkpoint {path} is another run's: its losses differ from those recorded for run "
            f"{record.id}. Put this run's own checkpoint back, or start a new run."
        )
    if progressed.epochs_done < len(recorded):
        store.event(
            record.id,
            "checkpoint",
            f"the checkpoint has {progressed.epochs_done} of the {len(recorded)} epochs on record; "
            "those after it are trained again",
        )


def _same_losses(epoch: dict[str, float], recorded: dict[str, Any]) -> bool:
    """Whether the losses of one epoch agree; those that are not finite are not recorded."""
    pairs = [(epoch.get(name), recorded[name]) for name in ("loss", "val_loss")]
    return all(
        math.isclose(one, other, rel_tol=1e-9)
        for one, other in pairs
        if one is not None and other is not None and math.isfinite(one) and not math.isnan(other)
    )


def _best_weights(setup: Setup, folder: Path, model: keras.Model, progressed: Progressed) -> Weights:
    """The best epoch's weights, read before hours of training so that their loss is noticed at once.

    If the last epoch was the best, the checkpoint contains them too.
    """
    try:
        return read_weights(folder / best_file(progressed.best_epoch), model)
    except ResumeError:
        if progressed.best_epoch != progressed.epochs_done:
            raise
        from cifar_core.training.averaging import kept_weights

        return kept_weights(model, setup.images.train[0])

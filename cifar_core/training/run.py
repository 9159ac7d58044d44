"""Training of one setting: images, model, fit, test once, record.

The same function serves scripts (`store=None`: nothing is written), the command line and the app's worker
processes. `_train`, at the end, is the whole training in order.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cifar_core.base.lazy import keras
from cifar_core.data import Dataset, load_dataset
from cifar_core.errors import ConfigError, RunStateError
from cifar_core.models.cost import count
from cifar_core.settings.compute import prepare, set_variables
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.store.artifacts import MODEL_FILE
from cifar_core.store.checkpoint import Progressed
from cifar_core.training.budget import fitted
from cifar_core.training.checkpoints import restore
from cifar_core.training.failures import recorded_end
from cifar_core.training.features import whole
from cifar_core.training.fitting import fit, snapshot_log, test
from cifar_core.training.images import run_images
from cifar_core.training.network import build_model, without_optimizer
from cifar_core.training.origins import origins_root, resolved
from cifar_core.training.parallel import check_devices, together
from cifar_core.training.recorder import ProgressCallback, Recorder, StopCallback, StopRequested
from cifar_core.training.resolve import Setup, resolve
from cifar_core.training.result import Run

if TYPE_CHECKING:
    from cifar_core.training.snapshots import SnapshotLog


def train(
    config: TrainConfig,
    *,
    dataset: Dataset | None = None,
    store: RunStore | None = None,
    run_id: str | None = None,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> Run:
    """Train as `config` says, test once on the test images, and record it in `store` if one is given.

    Args:
        dataset: images to use; loaded by `config.dataset` where None.
        store: where the run is recorded; None writes nothing anywhere.
        run_id: a queued run of the store to carry out, from its checkpoint if it has one.
        progress: called with a `Progress` about once a second and after each epoch.
        should_stop: asked after each step; True stops the run within that step.

    Raises:
        DataError: no usable images.
        DivergedError: the loss became NaN or infinite.
        ResumeError: the run has a checkpoint that does not fit.
        ConfigError, ModelFileError: a teacher, or the run to start from, is not there or not usable.
        TrainingError: out of memory, or another failure inside the framework. In a store the run is
            then FAILED, with the reason.
    """
    if run_id is not None and store is None:
        raise ConfigError("run_id names a run of a store: give store=RunStore() too.")
    if dataset is not None and dataset.name != config.dataset:
        raise ConfigError(
            f"The settings say dataset={config.dataset!r}; the images given are {dataset.name!r}."
        )
    if store is None:
        return _train(config, dataset, Recorder(None, None, progress, should_stop))
    if run_id is None:
        # Before the run is created, so that missing images or an impossible limit leave no trace.
        dataset = dataset or load_dataset(config.dataset)
        run_images(config, dataset)
        config = resolved(config, store)
        prepare(config)
        check_devices(config.devices)
        run_id = store.create_run(config, claim_for=os.getpid())
    elif not store.claim(run_id, pid=os.getpid()):
        raise RunStateError(f"Run {run_id} is {store.get(run_id).state}; only a queued run can be started.")
    return carry_out(store, run_id, dataset=dataset, progress=progress, should_stop=should_stop)


def carry_out(
    store: RunStore,
    run_id: str,
    *,
    dataset: Dataset | None = None,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> Run:
    """Train a run of the store that this process has claimed. Arguments and errors as for `train`."""
    with recorded_end(store, run_id), _temporary_files(store, run_id), together():
        store.sweep(run_id)  # what an earlier, killed attempt may have left
        config = store.get(run_id).config
        return _train(config, dataset, Recorder(store, run_id, progress, should_stop))


def resume(
    run_id: str,
    *,
    store: RunStore | None = None,
    dataset: Dataset | None = None,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> Run:
    """Continue a stopped, failed or crashed run from its last completed epoch.

    It is computed as at its first start: in the same number format, and on the same kind of device also with
    the same compilation and, if this process has not loaded TensorFlow yet, kernels.

    Raises:
        RunNotFoundError: no such run.
        RunStateError: it is finished, or running now.
        ResumeError: its checkpoint is missing or damaged, or the images are not the same.
    """
    store = store or RunStore()
    record = store.get(run_id)
    if record.state is not RunState.QUEUED:
        store.requeue(record.id)
    return train(
        record.config,
        dataset=dataset,
        store=store,
        run_id=record.id,
        progress=progress,
        should_stop=should_stop,
    )


@contextmanager
def _temporary_files(store: RunStore, run_id: str) -> Iterator[None]:
    """Put Python's temporary files into a folder of the store. TensorFlow writes generated code into such
    files, and a killed process would leave them in the system's folder for good."""
    before = tempfile.tempdir
    with store.scratch(run_id) as folder:
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before


def _train(config: TrainConfig, dataset: Dataset | None, recorder: Recorder) -> Run:
    """One training in order: images, computation, model, fit, test, record."""
    began = time.monotonic()
    with recorder:
        recorder.stage("loading data")
        images = run_images(
            config, dataset or load_dataset(config.dataset), recorder.test_seed, recorder.begun
        )

        recorder.stage("starting the framework")
        compute = resolve(config, len(images.train[0]), recorder.environment)
        set_variables(compute)  # before Keras and TensorFlow are imported
        if not recorder.environment:
            config = resolved(config, recorder.store)
        root = origins_root(config, recorder.store)
        if config.time_budget and not recorder.environment:
            recorder.stage("measuring the speed")
            config, compute = fitted(config, images, compute, began, root)
        setup = Setup(config, images, compute, compute.describe(), recorder)

        recorder.stage("building the model")
        model = build_model(config, compute, images.train[0], root, images.dataset.problem)
        progressed, best_weights = restore(setup, model)
        _record_start(setup, model, progressed)

        log = snapshot_log(setup, progressed)
        try:
            fit(setup, model, progressed, best_weights, log)
        except StopRequested:
            if recorder.stored is not None:
                store, run_id = recorder.stored
                store.stopped(run_id, f"stopped on request after {progressed.epochs_done} epochs")
            return _result(setup, RunState.STOPPED, model, progressed, log)

        recorder.stage("testing")
        run = _result(setup, RunState.FINISHED, model, progressed, log)
        test(setup, run)
        _record_result(setup, run)
        return run


def _record_start(setup: Setup, model: keras.Model, progressed: Progressed) -> None:
    """Record that the run has begun, and the epochs that its checkpoint has and the database may lack."""
    if setup.recorder.stored is None:
        return
    store, run_id = setup.recorder.stored
    store.begin(
        run_id,
        config=setup.config,
        environment=setup.environment,
        dataset=setup.images.describe(),
        parameters=whole(model).count_params(),
        total_steps=setup.compute.steps_per_epoch * setup.config.epochs,
        flops=count(setup.config.model, setup.config.hyperparameters, whole(model)).flops,
        epochs_kept=progressed.epochs_done,
    )
    for epoch in progressed.history:
        store.record_epoch(run_id, int(epoch["epoch"]), {k: v for k, v in epoch.items() if k != "epoch"})


def _result(
    setup: Setup, state: RunState, model: keras.Model, progressed: Progressed, log: SnapshotLog | None
) -> Run:
    return Run(
        config=setup.config,
        state=state,
        epochs=list(progressed.history),
        model=whole(model),
        environment=setup.environment,
        best_epoch=progressed.best_epoch,
        id=setup.recorder.run_id,
        folder=setup.recorder.artifact_path(""),
        snapshots=None if log is None else log.snapshots,
    )


def _record_result(setup: Setup, run: Run) -> None:
    """Store predictions, model and metrics, in this order, and mark the run as finished."""
    if setup.recorder.stored is None:
        return
    store, run_id = setup.recorder.stored
    metrics, probabilities = run.metrics, run.probabilities
    assert metrics is not None
    assert probabilities is not None
    labels, indices = setup.images.test[1], setup.images.test_indices
    store.save_predictions(run_id, probabilities, labels, indices)
    bare = without_optimizer(setup.config, run.model, setup.compute.precision)
    # Written under the file's temporary name beside it, so that leftovers of a kill are swept with the rest.
    setup.recorder.artifact(MODEL_FILE, lambda stream: bare.save(stream.name))
    store.finish(run_id, metrics=metrics)

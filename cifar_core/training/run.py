"""Train one setting: load, build, fit, test once, record.

The same function serves scripts (`store=None`: nothing is written), the command line and the
worker processes of the app. Seeds, policies and callbacks are set here and nowhere else.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_core.analysis.metrics import Report
from cifar_core.data import Dataset, load_dataset
from cifar_core.data.dataset import stratified
from cifar_core.errors import (
    CifarLabError,
    ConfigError,
    ResumeError,
    RunNotFoundError,
    RunStateError,
    StoreError,
    TrainingError,
)
from cifar_core.models.cost import count
from cifar_core.settings.compute import prepare, resolve_jit, resolve_precision
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunRecord, RunState, RunStore
from cifar_core.training.batches import images_per_epoch, steps_per_epoch
from cifar_core.training.parallel import alone, building, check_devices, fitting
from cifar_core.training.recorder import ProgressCallback, Recorder, StopCallback

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from cifar_core.store.checkpoint import Progressed
    from cifar_core.training.answer_log import AnswerLog

log = logging.getLogger(__name__)

MODEL_FILE = "model.keras"
LAST_WORDS_S = 30.0
"""How long a run that ended waits for a store that cannot be written, to say how."""
LAST_WORDS_RETRY_S = 0.5
EVALUATION_BATCH = 500


@dataclass
class Run:
    """What a training came to.

    `epochs` has one mapping per completed epoch: epoch, accuracy, loss, val_accuracy, val_loss,
    learning_rate, seconds, images_per_second. `model` carries the weights that were tested.
    `report` and `metrics` are None for a run that was stopped, since test is looked at only once.
    `latency_ms` is the time from one image to its answer, on the device that trained.
    `id` and `folder` are None where nothing was stored.
    """

    config: TrainConfig
    state: RunState
    epochs: list[dict[str, float]]
    model: keras.Model | None = None
    report: Report | None = None
    probabilities: np.ndarray | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    best_epoch: int = 0
    id: str | None = None
    folder: Path | None = None
    latency_ms: float | None = None

    @property
    def history(self) -> pd.DataFrame:
        """One row per completed epoch."""
        import pandas as pd

        return pd.DataFrame(self.epochs)

    @property
    def epochs_done(self) -> int:
        return len(self.epochs)

    @property
    def metrics(self) -> dict[str, Any] | None:
        """Test accuracy and the other figures of `report`, with what the training took."""
        if self.report is None:
            return None
        return {
            **self.report.to_dict(),
            "best_epoch": self.best_epoch,
            "best_val_accuracy": max((epoch["val_accuracy"] for epoch in self.epochs), default=None),
            "train_seconds": sum(epoch["seconds"] for epoch in self.epochs),
            "images_per_second": float(np.median([epoch["images_per_second"] for epoch in self.epochs])),
            "latency_ms": self.latency_ms,
        }


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
        config: the settings.
        dataset: images to use; loaded by `config.dataset` where None.
        store: where the run is recorded; None writes nothing anywhere.
        run_id: a queued run of the store to carry out (its checkpoint, if any, is gone on from).
        progress: called with a `Progress` about once a second and after each epoch.
        should_stop: asked after each step; True stops the run within that step.

    Raises:
        DataError: no usable images.
        DivergedError: the loss became NaN or infinite.
        ResumeError: the run has a checkpoint that does not fit.
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
        # Before the run is made, so that missing images or an impossible limit leave no trace.
        dataset = dataset or load_dataset(config.dataset)
        dataset.limited(config.train_limit, config.test_limit, config.seed)
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
    """Train a run of the store that this process has claimed. Arguments and errors as `train`."""
    with recorded_end(store, run_id), temporary_files(store, run_id):
        store.sweep(run_id)  # of an earlier attempt that nobody reaped
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
    """Go on with a stopped, failed or crashed run from its last completed epoch.

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
def temporary_files(store: RunStore, run_id: str) -> Iterator[None]:
    """Python's temporary files go to a folder of the store for a while. TensorFlow writes the code that
    it makes into such files, and a killed process would leave them in the system's folder for good."""
    before = tempfile.tempdir
    with store.scratch(run_id) as folder:
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before


@contextmanager
def recorded_end(store: RunStore, run_id: str) -> Iterator[None]:
    """Whatever ends a run early is written down with its reason before it goes on up."""
    try:
        yield
    except KeyboardInterrupt:
        _last_words(lambda: store.stopped(run_id, "interrupted from the keyboard"))
        raise
    except RunStateError:
        raise  # it is no longer ours: another process has it, and its record is not ours to write
    except CifarLabError as error:
        told = str(error)
        _last_words(lambda: store.fail(run_id, told))
        raise
    except Exception as error:
        trace, plain = traceback.format_exc(), explained(error)
        _last_words(lambda: store.fail(run_id, str(plain)))
        _last_words(lambda: store.event(run_id, "traceback", trace))
        raise plain from error


def _last_words(say: Callable[[], None]) -> None:
    """Write down how a run ended. What ended it may be the store's own disk, full or locked: space is
    waited for, so that the run is not left "running" by a process that does not run it any more."""
    deadline = time.monotonic() + LAST_WORDS_S
    while True:
        try:
            return say()
        except (RunStateError, RunNotFoundError) as error:
            return log.info("%s", error)  # somebody else ended or deleted it first
        except StoreError as error:
            if time.monotonic() >= deadline:
                return log.error("how the run ended could not be written down: %s", error)
        time.sleep(LAST_WORDS_RETRY_S)


def explained(error: Exception) -> CifarLabError:
    """A failure inside the framework, in words."""
    text = f"{type(error).__name__}: {error}".strip()
    if isinstance(error, MemoryError) or any(
        sign in text for sign in ("ResourceExhausted", "RESOURCE_EXHAUSTED", "out of memory", "OOM when")
    ):
        return TrainingError(f"Out of memory. Use a smaller batch_size or a smaller model. ({text[:300]})")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" on which {error.filename} lies" if error.filename else ""
        return TrainingError(f"The disk{where} is full. Free some space, then resume the run. ({text[:300]})")
    return TrainingError(f"Training failed with {text[:500]}")


def _train(config: TrainConfig, dataset: Dataset | None, recorder: Recorder) -> Run:
    with recorder:
        recorder.stage("loading data")
        parts = _parts(config, dataset or load_dataset(config.dataset))
        recorder.stage("starting the framework")
        prepare(config)
        learner = _Learner(config, parts, recorder)
        return learner.run()


@dataclass(frozen=True)
class _Parts:
    """The images of one run; test images stand in for validation where the protocol says so."""

    dataset: Dataset
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.dataset.name,
            "source": self.dataset.source,
            "origin": self.dataset.origin,
            "fingerprint": self.dataset.fingerprint,
            "train": len(self.train[0]),
            "validation": len(self.validation[0]),
            "test": len(self.test[0]),
        }


def _parts(config: TrainConfig, dataset: Dataset) -> _Parts:
    data = dataset.limited(config.train_limit, config.test_limit, config.seed)
    test = (data.x_test, data.y_test)
    if config.protocol == "test-selected":
        return _Parts(dataset, (data.x_train, data.y_train), test, test)
    kept, held = data.split(config.validation_fraction, config.seed)
    return _Parts(
        dataset,
        (data.x_train[kept], data.y_train[kept]),
        (data.x_train[held], data.y_train[held]),
        test,
    )


def _same_figures(told: dict[str, float], recorded: dict[str, Any]) -> bool:
    """Of one epoch: does a checkpoint tell what is on record? What is no finite number is not recorded."""
    both = [(told.get(name), recorded[name]) for name in ("loss", "val_loss")]
    return all(
        math.isclose(one, other, rel_tol=1e-9)
        for one, other in both
        if one is not None and other is not None and math.isfinite(one) and not math.isnan(other)
    )


class _Learner:
    """One training, step by step: build, fit, test."""

    def __init__(self, config: TrainConfig, parts: _Parts, recorder: Recorder) -> None:
        self.config, self.parts, self.recorder = config, parts, recorder
        self.precision, self.jit = resolve_precision(config), resolve_jit(config)
        self.images = images_per_epoch(config, len(parts.train[0]))
        self.steps = steps_per_epoch(self.images, config.batch_size)
        self.best_weights: list[np.ndarray] | None = None

    def run(self) -> Run:
        from cifar_core.training.callbacks import StopRequested
        from cifar_core.training.environment import environment

        self.environment = environment(precision=self.precision, jit=self.jit)
        self.recorder.stage("building the model")
        model = build_model(self.config, self.steps, precision=self.precision, jit=self.jit)
        progressed = self._restore(model)
        self._begin(model, progressed)
        try:
            self._fit(model, progressed)
            self.recorder.stage("testing")
            return self._test(model, progressed)
        except StopRequested:
            return self._stopped(model, progressed)

    def _restore(self, model: keras.Model) -> Progressed:
        """Go on from the checkpoint of an earlier start of this run, if it has one."""
        from cifar_core.store.checkpoint import CHECKPOINT_FILE, Progressed, restore_checkpoint

        path = self.recorder.artifact_path(CHECKPOINT_FILE)
        if path is None:
            return Progressed()
        record = self._record()
        if not path.exists():
            if record.epochs_done:
                raise ResumeError(
                    f"Run {record.id} has {record.epochs_done} epochs on record and no checkpoint at {path}: "
                    "somebody removed it. Start a new run with the same settings."
                )
            return Progressed(run=record.id)
        before = record.dataset.get("fingerprint")
        if before and before != self.parts.dataset.fingerprint:
            raise ResumeError(
                f"Run {record.id} began on other images (fingerprint {before}) than those here "
                f"({self.parts.dataset.fingerprint}). Point to the same dataset, or start a new run."
            )
        progressed = restore_checkpoint(path, model)
        self._check_belongs(path, record, progressed)
        self.best_weights = self._earlier_best(model, progressed)
        return progressed

    def _check_belongs(self, path: Path, record: RunRecord, progressed: Progressed) -> None:
        """A checkpoint tells the same of the epochs on record, or it is another run's; one that tells
        of fewer is gone on from, and the record says so."""
        assert self.recorder.store is not None
        on_record = self.recorder.store.history(record.id).set_index("epoch").to_dict("index")
        known = [epoch for epoch in progressed.history if epoch["epoch"] in on_record]
        alike = all(_same_figures(epoch, on_record[epoch["epoch"]]) for epoch in known)
        if not alike or not (known or progressed.run in (None, record.id)):
            raise ResumeError(
                f"The checkpoint {path} is another run's: what it tells of its epochs is not what run "
                f"{record.id} has on record. Put this run's own back, or start a new run."
            )
        if progressed.epochs_done < len(on_record):
            self.recorder.store.event(
                record.id,
                "checkpoint",
                f"the checkpoint knows {progressed.epochs_done} of the {len(on_record)} epochs on record; "
                "those after it are trained again",
            )

    def _earlier_best(self, model: keras.Model, progressed: Progressed) -> list[np.ndarray] | None:
        """The best weights of an earlier start, read now, so that their loss is told before hours of
        training and not after. Where the last epoch was the best, the checkpoint has them too."""
        from cifar_core.store.checkpoint import kept_weights, read_weights
        from cifar_core.training.callbacks import best_file, drop_surpassed

        drop_surpassed(self.recorder.artifact_path(""), progressed.best_epoch)
        if self.config.keep != "best" or not progressed.best_epoch:
            return None
        path = self.recorder.artifact_path(best_file(progressed.best_epoch))
        assert path is not None
        try:
            return read_weights(path, model)
        except ResumeError:
            if progressed.best_epoch != progressed.epochs_done:
                raise
            return kept_weights(model)

    def _begin(self, model: keras.Model, progressed: Progressed) -> None:
        store, run_id = self.recorder.store, self.recorder.run_id
        if store is None or run_id is None:
            return
        store.begin(
            run_id,
            environment=self.environment,
            dataset=self.parts.describe(),
            parameters=model.count_params(),
            total_steps=self.steps * self.config.epochs,
            flops=count(self.config.model, self.config.hyperparameters, model).flops,
            epochs_kept=progressed.epochs_done,
        )
        for epoch in progressed.history:
            store.record_epoch(run_id, int(epoch["epoch"]), {k: v for k, v in epoch.items() if k != "epoch"})

    def _fit(self, model: keras.Model, progressed: Progressed) -> None:
        from cifar_core.training.batches import training_batches, validation_batches
        from cifar_core.training.callbacks import Session, controllers

        if not progressed.complete:
            steered = controllers(self.config)
            session = Session(
                self.config,
                self.recorder,
                steered,
                steps=self.steps,
                images=self.images,
                progressed=progressed,
                answers=self._answers(progressed),
                best_weights=self.best_weights,
                network=self._for_one_device(model) if self.config.record_answers else None,
            )
            self.recorder.stage("compiling the first step")
            devices = self.config.devices
            with fitting(devices):
                model.fit(
                    training_batches(
                        self.config,
                        *self.parts.train,
                        first_epoch=progressed.epochs_done,
                        epochs=self.config.epochs,
                    ),
                    validation_data=validation_batches(*self.parts.validation, EVALUATION_BATCH, devices),
                    initial_epoch=progressed.epochs_done,
                    epochs=self.config.epochs,
                    steps_per_epoch=self.steps,
                    shuffle=False,  # the batches come shuffled
                    callbacks=[*steered.values(), session],
                    verbose=0,
                )
            self.best_weights = session.best_weights
        self._set_kept_weights(model)

    def _for_one_device(self, model: keras.Model) -> keras.Model:
        """The network to be asked for answers: this one, or, of one that several devices share, a copy."""
        if self.config.devices == 1:
            return model
        with alone():
            return without_optimizer(self.config, model, self.precision)

    def _answers(self, progressed: Progressed) -> AnswerLog | None:
        """Where the answers to the test images are kept after each epoch, if they are wanted."""
        from cifar_core.training.answer_log import AnswerLog

        if not self.config.record_answers:
            return None
        indices = test_indices(self.config, self.parts.dataset)
        return AnswerLog(self.recorder, *self.parts.test, indices, progressed.epochs_done)

    def _set_kept_weights(self, model: keras.Model) -> None:
        """Put the weights that are to be tested into the model: the best epoch's, or the last's."""
        from cifar_core.store.checkpoint import kept_weights

        weights = self.best_weights
        model.set_weights(weights if weights is not None else kept_weights(model))

    def _test(self, model: keras.Model, progressed: Progressed) -> Run:
        from cifar_core.analysis.evaluation import latency, predict_probabilities
        from cifar_core.analysis.metrics import report

        images, labels = self.parts.test
        model = self._for_one_device(model)
        probabilities = predict_probabilities(
            model, images, EVALUATION_BATCH, test_flip=self.config.test_flip
        )
        run = self._result(RunState.FINISHED, model, progressed)
        run.report, run.probabilities = report(probabilities, labels), probabilities
        run.latency_ms = latency(model)
        self._store_result(run, labels)
        return run

    def _store_result(self, run: Run, labels: np.ndarray) -> None:
        store, run_id = self.recorder.store, self.recorder.run_id
        if store is None or run_id is None:
            return
        indices = test_indices(self.config, self.parts.dataset)
        store.save_predictions(run_id, run.probabilities.astype(np.float16), labels, indices)
        bare = without_optimizer(self.config, run.model, self.precision)
        # Written under the file's temporary name beside it: what a kill leaves is swept away with the rest.
        self.recorder.artifact(MODEL_FILE, lambda stream: bare.save(stream.name))
        store.finish(run_id, metrics=run.metrics)

    def _stopped(self, model: keras.Model, progressed: Progressed) -> Run:
        run = self._result(RunState.STOPPED, model, progressed)
        if self.recorder.store is not None and self.recorder.run_id is not None:
            self.recorder.store.stopped(
                self.recorder.run_id, f"stopped on request after {run.epochs_done} epochs"
            )
        return run

    def _result(self, state: RunState, model: keras.Model, progressed: Progressed) -> Run:
        return Run(
            config=self.config,
            state=state,
            epochs=list(progressed.history),
            model=model,
            environment=self.environment,
            best_epoch=progressed.best_epoch,
            id=self.recorder.run_id,
            folder=self.recorder.artifact_path(""),
        )

    def _record(self) -> RunRecord:
        assert self.recorder.store is not None
        assert self.recorder.run_id is not None
        return self.recorder.store.get(self.recorder.run_id)


def build_model(config: TrainConfig, steps_per_epoch: int, *, precision: str, jit: bool) -> keras.Model:
    """The model of a setting, seeded, compiled and with its optimizer's variables made."""
    import keras

    from cifar_core.training.optimizers import make_optimizer

    keras.utils.set_random_seed(config.seed)
    _set_determinism(config.deterministic)
    with dtype_policy(precision), building(config.devices):
        model = config.hyperparameters.build()
        model.compile(
            optimizer=make_optimizer(config, steps_per_epoch),
            loss=keras.losses.CategoricalCrossentropy(),
            metrics=["accuracy"],
            jit_compile=jit,
        )
        model.optimizer.build(model.trainable_variables)
    return model


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Keras's dtype policy while building, put back afterwards."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _set_determinism(wanted: bool) -> None:
    import keras

    if wanted and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def test_indices(config: TrainConfig, dataset: Dataset) -> np.ndarray:
    """Positions in the whole test set of the images that a run is tested on, int64 (n,)."""
    if config.test_limit is None:
        return np.arange(len(dataset.y_test))
    return stratified(dataset.y_test, config.test_limit, config.seed)


def without_optimizer(config: TrainConfig, model: keras.Model, precision: str) -> keras.Model:
    """The trained network alone, for saving (three times smaller than with Adam's moments)."""
    with dtype_policy(precision):
        bare = config.hyperparameters.build()
    bare.set_weights(model.get_weights())
    return bare

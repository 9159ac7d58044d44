"""Training variants: bare Keras or the study's pipeline, this project's, and this at any batch size.

Each maker builds a model and returns a function that trains one epoch and returns its `Measured` times. The
first steps do not count, since `fit` builds its input pipeline there, which a run does once. Batches are
prefetched during those steps as during any others, and this project's pipeline has more batches after the
epoch, so no batch that counts was prepared outside the measured time.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from cifar_core.base.devices import onednn_in_use
from cifar_core.cli.bench.subjects import STUDY_AUGMENTATION
from cifar_core.data.catalogue import SYNTHETIC
from cifar_core.settings.compute import prepare
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
from cifar_core.store.checkpoint import Progressed
from cifar_core.training.batches import steps_per_epoch, training_batches, validation_batches
from cifar_core.training.callbacks import RunCallback, controllers
from cifar_core.training.fitting import EVALUATION_BATCH
from cifar_core.training.network import build_model
from cifar_core.training.recorder import Progress, Recorder
from cifar_core.training.resolve import ResolvedCompute

Measured = dict[str, Any]
VALIDATED = 64
"""Images that every variant validates on after the epoch; the project's pipeline needs some."""
LEAD_SHARE = 8
"""One eighth of an epoch's steps passes before those that count."""


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images uint8 (count, 32, 32, 3) and labels int64 (count,)."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count)


class Clock(keras.callbacks.Callback):
    """Measures the wall and CPU time of an epoch's steps after the first eighth."""

    def __init__(self, images: int, batch_size: int) -> None:
        super().__init__()
        self.steps = steps_per_epoch(images, batch_size)
        self.lead = max(1, self.steps // LEAD_SHARE) if self.steps > 1 else 0
        self.images = images - self.lead * batch_size
        self.own: CountedSession | None = None
        self._began = self._cpu_began = 0.0
        self.ended = self.cpu_ended = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self._began, self._cpu_began = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch + 1 not in (self.lead, self.steps):
            return
        float((logs or {}).get("loss", 0.0))  # waits until a GPU has finished the step
        now = time.perf_counter(), time.process_time()
        if batch + 1 == self.steps:
            self.ended, self.cpu_ended = now
        else:
            self._began, self._cpu_began = now

    def measured(self, done: float) -> Measured:
        """Times of the epoch, in seconds; `done` is when `fit` returned."""
        counted = (self.steps - self.lead) / self.steps
        return {
            "seconds": self.ended - self._began,
            "own_seconds": None if self.own is None else counted * self.own.seconds,
            "cpu_seconds": self.cpu_ended - self._cpu_began,
            "images": self.images,
            "epoch_end_seconds": done - self.ended,
            "onednn": onednn_in_use(),
            "backend": keras.backend.backend(),
        }


class CountedSession(RunCallback):
    """A session that adds up the seconds it spends after each step, waiting for a GPU included."""

    seconds = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        began = time.perf_counter()
        super().on_train_batch_end(batch, logs)
        self.seconds += time.perf_counter() - began


def study(settings: dict[str, Any], images: int) -> Callable[[], Measured]:
    """`keras.Model.fit` on float32 arrays as in most tutorials; with Keras's old generator, as the study's
    pipeline, where images are augmented."""
    config = TrainConfig(**settings)
    x, y = _arrays(images)
    network = _network(config, steps_per_epoch(images, config.batch_size))
    data = {"x": x, "y": y, "batch_size": config.batch_size}
    if config.rotation:
        data = {"x": generator().flow(x, y, batch_size=config.batch_size)}
    validation = x[:VALIDATED], y[:VALIDATED]

    def fit(clock: Clock) -> None:
        network.fit(**data, validation_data=validation, callbacks=[clock], verbose=0)

    return _timed(fit, images, config.batch_size)


def generator() -> Any:
    """The study's ImageDataGenerator."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    own = STUDY_AUGMENTATION
    return ImageDataGenerator(
        rotation_range=own["rotation"],
        width_shift_range=own["shift"],
        height_shift_range=own["shift"],
        zoom_range=own["zoom"],
        horizontal_flip=own["flip"],
        fill_mode=own["fill"],
    )


def ours(settings: dict[str, Any], images: int, store: str | None = None) -> Callable[[], Measured]:
    """This project's pipeline with live progress, recorded into a store in the folder `store` if given."""
    config = TrainConfig(**settings)
    return _ours(config, _network(config, steps_per_epoch(images, config.batch_size)), images, store)


def at_any_batch(settings: dict[str, Any]) -> Callable[..., Measured]:
    """This project's pipeline with one model for all batch sizes; each round names its own."""
    config = TrainConfig(**settings)
    network = _network(config, 1)

    @functools.cache
    def prepared(batch_size: int, images: int) -> Callable[[], Measured]:
        return _ours(config.replace(batch_size=batch_size), network, images, None)

    return lambda batch_size, images: prepared(batch_size, images)()


def first_step(settings: dict[str, Any]) -> None:
    """Prepare, build and train one step, as a run begins."""
    config = TrainConfig(**settings)
    prepare(config)
    x, y = pictures(config.batch_size)
    batches = training_batches(config, x, y, epochs=config.epochs)
    _network(config, 1).fit(batches, steps_per_epoch=1, shuffle=False, verbose=0)


def _arrays(count: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = pictures(count)
    return x.astype("float32"), keras.utils.to_categorical(y, 10)


def _network(config: TrainConfig, steps: int) -> keras.Model:
    """The model, ready to train; on JAX its step is always compiled, as in a run."""
    compiled = config.jit == "on" or keras.backend.backend() == "jax"
    return build_model(config, ResolvedCompute(config.precision, compiled, None, steps_per_epoch=steps))


def _timed(fit: Callable[[Clock], None], images: int, batch_size: int) -> Callable[[], Measured]:
    def epoch() -> Measured:
        clock = Clock(images, batch_size)
        fit(clock)
        return clock.measured(time.perf_counter())

    return epoch


def _ours(
    config: TrainConfig, network: keras.Model, images: int, store: str | None
) -> Callable[[], Measured]:
    x, y = pictures(images)
    steps = steps_per_epoch(images, config.batch_size)
    batches = training_batches(config, x, y, epochs=config.epochs)
    validation = validation_batches(x[:VALIDATED], y[:VALIDATED], EVALUATION_BATCH)
    progressed = Progressed()
    kept = RunStore(store) if store else None
    run_id = _begun(kept, config, network) if kept else None
    reports: list[Progress] = []

    def fit(clock: Clock) -> None:
        reports.clear()
        with Recorder(kept, run_id, reports.append, None) as recorder:
            done, steered = progressed.epochs_done, controllers(config, x)
            session = clock.own = CountedSession(
                config, recorder, steered, steps=steps, images=images, progressed=progressed
            )
            network.fit(
                batches,
                validation_data=validation,
                initial_epoch=done,
                epochs=done + 1,
                steps_per_epoch=steps,
                shuffle=False,
                callbacks=[*steered.values(), session, clock],
                verbose=0,
            )

    return _timed(fit, images, config.batch_size)


def _begun(store: RunStore, config: TrainConfig, network: keras.Model) -> str:
    run_id = store.create_run(config, claim_for=os.getpid())
    dataset = {"name": SYNTHETIC, "source": SYNTHETIC, "fingerprint": "noise"}
    store.begin(run_id, environment={}, dataset=dataset, parameters=network.count_params())
    return run_id

"""What a run is trained with, decided before its model is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cifar_core.settings.compute import Computation, choice
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.batches import images_per_epoch, steps_per_epoch
from cifar_core.training.environment import environment
from cifar_core.training.images import RunImages
from cifar_core.training.recorder import Recorder


@dataclass(frozen=True)
class ResolvedCompute(Computation):
    """How one run is computed: decided at its first start, stored in its `environment`, reused on resume.

    Attributes:
        devices: devices that share each batch.
        images_per_epoch: training images used in an epoch.
        steps_per_epoch: batches in an epoch, the last, smaller one included.
    """

    devices: int
    images_per_epoch: int
    steps_per_epoch: int

    def describe(self) -> dict[str, Any]:
        """What is stored as a run's `environment`, machine and software included. Loads Keras."""
        sizes = {name: getattr(self, name) for name in ("devices", "images_per_epoch", "steps_per_epoch")}
        return {**environment(precision=self.precision, jit=self.jit), **sizes}


def resolve(config: TrainConfig, images: RunImages, recorder: Recorder) -> ResolvedCompute:
    """How a run is computed: as recorded at its first start, else the best choice for its settings here."""
    recorded: Mapping[str, Any] = {}
    if recorder.stored is not None:
        store, run_id = recorder.stored
        recorded = store.get(run_id).environment
    chosen, used = choice(config, recorded), images_per_epoch(config, len(images.train[0]))
    steps = steps_per_epoch(used, config.batch_size)
    return ResolvedCompute(chosen.precision, chosen.jit, chosen.onednn, config.devices, used, steps)


@dataclass(frozen=True)
class Setup:
    """What all steps of one training need.

    Attributes:
        config: the run's settings.
        images: its training, validation and test images.
        compute: how it is computed.
        environment: what is stored of machine, software and computation.
        recorder: receives reports and files.
    """

    config: TrainConfig
    images: RunImages
    compute: ResolvedCompute
    environment: dict[str, Any]
    recorder: Recorder

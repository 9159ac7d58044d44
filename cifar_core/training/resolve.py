"""What a run is trained with, decided before its model is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cifar_core.settings.compute import Computation, choice
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.batches import images_per_epoch, steps_per_epoch
from cifar_core.training.environment import environment
from cifar_core.training.images import RunImages
from cifar_core.training.optimizers import RULES
from cifar_core.training.parallel import agreed
from cifar_core.training.recorder import Recorder


@dataclass(frozen=True)
class ResolvedCompute(Computation):
    """How one run is computed: decided at its first start, stored in its `environment`, reused on resume.

    Attributes:
        devices: devices that share each batch.
        images_per_epoch: training images used in an epoch.
        steps_per_epoch: batches in an epoch, the last, smaller one included.
        rules: version of what settings mean, see `optimizers.RULES`.
    """

    devices: int = 1
    images_per_epoch: int = 0
    steps_per_epoch: int = 1
    rules: int = RULES

    def describe(self) -> dict[str, Any]:
        """What is stored as a run's `environment`, machine and software included. Loads Keras."""
        own = asdict(self)
        del own["onednn"]  # stored is what TensorFlow says that it uses
        return {**environment(precision=self.precision, jit=self.jit), **own}


def resolve(config: TrainConfig, images: int, recorded: Mapping[str, Any]) -> ResolvedCompute:
    """How a run or trial is computed: as at its first start, else the best choice for its settings here.

    Args:
        images: number of its training images.
        recorded: `environment` of the run or search as its first start recorded it; empty before.
    """
    chosen, used = agreed(choice(config, recorded)), images_per_epoch(config, images)
    if config.time_budget:
        used = int(recorded.get("images_per_epoch", used))
    steps = steps_per_epoch(used, config.batch_size)
    # Earlier releases recorded no rules.
    rules = RULES if not recorded or recorded.get("rules") == RULES else 1
    return ResolvedCompute(chosen.precision, chosen.jit, chosen.onednn, config.devices, used, steps, rules)


@dataclass(frozen=True)
class Setup:
    """What all steps of one training need; `environment` is what is stored of machine and computation."""

    config: TrainConfig
    images: RunImages
    compute: ResolvedCompute
    environment: dict[str, Any]
    recorder: Recorder

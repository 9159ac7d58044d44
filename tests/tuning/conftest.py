"""Searches of tests: small spaces, and a trainer that plays scripted scores instead of training."""

import math

import psutil
import pytest

from cifar_core.base.files import write_whole
from cifar_core.settings.search_config import SearchConfig
from cifar_core.training.recorder import Progress
from cifar_core.tuning import attempt
from cifar_core.tuning.trial import Outcome, checkpoint_file

BASE = {"dataset": "synthetic", "batch_size": 40, "validation_fraction": 0.2, "precision": "float32"}
SPACE = {"learning_rate": (1e-4, 1e-2), "dropout": (0.0, 0.6)}


def settings(**changes):
    base = {**BASE, **changes.pop("base", {})}
    values = {"tuner": "random", "max_trials": 4, "max_epochs": 3, "space": SPACE, "train_best": False}
    return SearchConfig(**{**values, **changes, "base": base})


def good(values):
    """A score that is best at a learning rate of 0.002 and a dropout of 0.3."""
    rate = abs(math.log10(values["learning_rate"] / 2e-3))
    return round(0.6 - 0.2 * rate - 0.3 * (values.get("dropout", 0.3) - 0.3) ** 2, 6)


class Scripted:
    """Plays trials: an epoch is a checkpoint file and a report, the score follows from the settings.
    As the real one, it reports again what a cut trial had completed.

    `script` maps trial ids to an exception to raise in the first new epoch. `log` has one
    (trial_id, epoch) for each epoch that was played.
    """

    def __init__(self):
        self.script, self.log, self.folder, self.scores = {}, [], None, good
        self.closed = 0

    def train(self, order, *, report, should_stop):
        own = checkpoint_file(self.folder, order.trial_id)
        if order.parent is not None and not own.exists():
            checkpoint_file(self.folder, order.parent).replace(own)
        done = int(own.read_text()) if own.exists() else 0
        assert done >= order.first_epoch
        for epoch in range(order.first_epoch + 1, order.epochs + 1):
            if epoch > done:
                self._play(order, epoch, own)
            metrics = {"val_accuracy": self.scores(order.values), "loss": 1.0}
            report(Progress("epoch", f"epoch {epoch}", epoch, order.epochs, metrics=metrics))
            if epoch > done and should_stop():
                from cifar_core.training.callbacks import StopRequested

                raise StopRequested
        return Outcome(self.scores(order.values), 1000)

    def _play(self, order, epoch, own):
        if order.trial_id in self.script:
            raise self.script[order.trial_id]
        self.log.append((order.trial_id, epoch))
        write_whole(own, str(epoch))

    def close(self):
        self.closed += 1


@pytest.fixture
def scripted(monkeypatch):
    """All searches of the test are played instead of trained."""
    trainer = Scripted()

    def make(config, dataset, folder, isolation):  # noqa: ARG001
        trainer.folder = folder
        return [trainer] * config.workers

    monkeypatch.setattr(attempt, "make_trainers", make)
    return trainer


def outline(trials):
    """What must be equal of two searches' trials: all but times."""
    names = ["trial_id", "number", "state", "score", "settings", "bracket", "round", "parent", "epochs"]
    names += ["first_epoch", "epochs_done"]
    return trials[names].astype(object).where(trials[names].notna(), None).to_dict("records")


def trial_workers(pid=None):
    """The processes that train trials for the search of that process, this one by default."""
    alive = [child for child in psutil.Process(pid).children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if "cifar-lab trial" in child.cmdline()]

"""A store of thirty mixed runs, and a reader of it that shares no code with `cifar_core`.

Seeds are repeated; there are limits, two designs of one network, two number formats, two protocols, and runs
that never finished. Nothing is trained: predictions are drawn, and recorded as a training records them.
"""

import json
import os
import sqlite3
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn import metrics

IMAGES = 400
LABELS = np.random.default_rng(7).permutation(np.arange(IMAGES) % 10)
PARAMETERS = {"paper": 315_722, "notebook": 122_570, None: 36_925_322}
EQUAL = {"epochs": 2, "flip": True}
SPECS = [
    ({"variant": "baseline", "epochs": 4}, (0, 1, 2, 2, 0), 0.60),
    ({"variant": "baseline", "epochs": 4, "design": "notebook"}, (0, 1), 0.55),
    ({"variant": "tuned", "learning_rate": 3e-3, **EQUAL}, (0, 4, 4), 0.68),
    ({"variant": "custom", **EQUAL}, (0, 1), 0.63),
    ({"model": "alexnet", "variant": "baseline"}, (0,), 0.70),
    ({"model": "alexnet", "variant": "tuned", "protocol": "test-selected"}, (0, 1), 0.72),
    ({"variant": "custom", "train_limit": 2000}, (0, 1), 0.40),
    ({"variant": "custom", "train_limit": 3000}, (0,), 0.45),
    ({"variant": "custom", "test_limit": 100}, (0, 1, 2), 0.60),
    ({"variant": "custom", "test_limit": 50}, (0,), 0.60),
    ({"variant": "custom", "precision": "mixed_bfloat16", "learning_rate": 2e-3}, (0, 1), 0.61),
    ({"variant": "custom", "precision": "auto", "learning_rate": 4e-3}, (0, 1, 2), 0.62),
]
"""(settings, seeds, about how accurate); the model is base_cnn unless named."""
UNFINISHED = ("queued", "stopped", "failed")
_LABELLING = {"seed", "name", "preset", "variant", "record_answers", "record_snapshots"}


def fill(store):
    """Thirty runs."""
    from cifar_core.settings.train_config import TrainConfig

    number = 0
    for settings, seeds, accuracy in SPECS:
        for seed in seeds:
            given = {"model": "base_cnn", "precision": "float32", **settings, "seed": seed}
            finish(store, TrainConfig(**given), accuracy, number)
            number += 1
    for state in UNFINISHED:
        run_id = store.create_run(TrainConfig(seed=90 + number))
        if state != "queued":
            store.claim(run_id, pid=os.getpid())
            store.begin(run_id, environment={}, dataset={"fingerprint": "f00d"}, parameters=1)
            (store.stopped if state == "stopped" else store.fail)(run_id, "on purpose")
        number += 1
    assert number == 30


def finish(store, config, accuracy, number):
    from cifar_core.analysis.metrics import report
    from cifar_core.data.dataset import TEST_SEED, stratified

    random = np.random.default_rng(number)
    run_id = store.create_run(config)
    store.claim(run_id, pid=os.getpid(), device="cpu")
    precision = ("float32", "mixed_bfloat16")[number % 2] if config.precision == "auto" else config.precision
    data = {"name": "cifar10", "source": "local folder", "fingerprint": "f00d"}
    design = getattr(config.hyperparameters, "design", None)
    store.begin(
        run_id,
        environment={"precision": precision},
        dataset=data,
        parameters=PARAMETERS[design],
        flops=1e6 * (1 + len(str(design))),
    )
    for epoch in range(1, config.epochs + 1):
        numbers = {"seconds": 20 + 10 * random.random(), "images_per_second": 900 + 200 * random.random()}
        numbers |= {"val_accuracy": accuracy + 0.1 * random.random(), "val_loss": 1.0 + random.random()}
        store.record_epoch(run_id, epoch, {"accuracy": 0.5, "loss": 1.0, **numbers})
    limit = config.test_limit
    indices = np.arange(IMAGES) if limit is None else stratified(LABELS, limit, TEST_SEED)
    probabilities = drawn(random, LABELS[indices], accuracy)
    tested = report(probabilities, LABELS[indices])
    store.save_predictions(run_id, probabilities, LABELS[indices], indices)
    store.finish(run_id, metrics={**tested.to_dict(), "latency_ms": 1 + random.random()})


def drawn(random, labels, accuracy):
    """float32 (N, 10), right for about that share of the images, which are much the same for all runs."""
    hard = np.random.default_rng(11).random(IMAGES)[: len(labels)]
    right = hard + 0.25 * random.random(len(labels)) < accuracy + 0.12
    said = np.where(right, labels, (labels + random.integers(1, 10, len(labels))) % 10)
    logits = random.normal(size=(len(labels), 10)) + 3 * np.eye(10)[said] * random.random((len(labels), 1))
    exponents = np.exp(logits)
    return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)


# --- The audit's own reading ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Run:
    """A run as its row, its epochs and its predictions say it; `row` has the JSON columns read."""

    row: dict
    epochs: list
    arrays: dict | None

    @property
    def id(self):
        return self.row["id"]

    @property
    def counts(self):
        return self.row["state"] == "finished"

    @property
    def config(self):
        return self.row["config"]

    @property
    def side(self):
        return self.row["model"], self.row["variant"]

    @cached_property
    def setting(self):
        flat = {**self.config, **self.config["hyperparameters"]}
        kept = {name: value for name, value in flat.items() if name not in _LABELLING}
        precision = self.row["environment"].get("precision")
        return json.dumps([kept, self.row["parameters"], precision], sort_keys=True)

    @cached_property
    def tested(self):
        """What its test images are: None for all of them."""
        return None if self.config["test_limit"] is None else tuple(sorted(self.arrays["indices"].tolist()))

    @property
    def board(self):
        row = self.row
        names = (row["dataset_name"], row["fingerprint"], row["protocol"], self.config["train_limit"])
        return (*names, self.tested)

    @cached_property
    def correct(self):
        order = np.argsort(self.arrays["indices"])
        return (self.arrays["predicted"] == self.arrays["labels"])[order]

    @cached_property
    def predicted(self):
        return self.arrays["predicted"][np.argsort(self.arrays["indices"])]

    @cached_property
    def labels(self):
        return self.arrays["labels"][np.argsort(self.arrays["indices"])]

    @cached_property
    def probabilities(self):
        return self.arrays["probabilities"][np.argsort(self.arrays["indices"])].astype(np.float64)

    @cached_property
    def exact(self):
        """The probabilities, with rows that sum to 1 exactly."""
        return self.probabilities / self.probabilities.sum(axis=1, keepdims=True)

    @cached_property
    def accuracy(self):
        return metrics.accuracy_score(self.labels, self.predicted)

    @cached_property
    def ece(self):
        return calibration_error(self)

    @property
    def validation(self):
        return max(epoch["val_accuracy"] for epoch in self.epochs)

    @property
    def training_s(self):
        return sum(epoch["seconds"] for epoch in self.epochs)


def calibration_error(run, bins=15):
    """Bin by bin, as C. Guo et al. write it."""
    confidence = run.probabilities.max(axis=1)
    total = 0.0
    for place in range(bins):
        low, high = place / bins, (place + 1) / bins
        here = (confidence > low) & (confidence <= high)
        if here.any():
            total += here.sum() * abs(run.correct[here].mean() - confidence[here].mean())
    return total / len(confidence)


def read(home):
    """All runs of the store in `home`, oldest first."""
    connection = sqlite3.connect(home / "lab.db")
    connection.row_factory = sqlite3.Row
    found = []
    for row in connection.execute("SELECT * FROM runs ORDER BY created_at"):
        values = dict(row)
        for name in ("config", "environment", "dataset", "metrics"):
            values[name] = json.loads(values[name]) if values[name] else {}
        epochs = connection.execute("SELECT * FROM epochs WHERE run_id = ? ORDER BY epoch", (values["id"],))
        path = home / "artifacts" / values["id"] / "predictions.npz"
        arrays = dict(np.load(path)) if path.is_file() else None
        found.append(Run(values, [dict(epoch) for epoch in epochs], arrays))
    connection.close()
    return found


def rows_by_setting(runs):
    """{(board, model, variant, setting): runs that count, one for each seed}, and the number of repeats."""
    groups = {}
    for run in runs:
        if run.counts:
            groups.setdefault((run.board, *run.side, run.setting), []).append(run)
    counted = {}
    for key, members in groups.items():
        first = {}
        for run in members:
            first.setdefault(run.row["seed"], run)
        counted[key] = (list(first.values()), len(members) - len(first))
    return counted


def rows_by_variant(runs):
    """The same for one setting of each board, model and variant: the one with the best mean validation."""
    best = {}
    for key, (members, repeats) in rows_by_setting(runs).items():
        validation = np.mean([run.validation for run in members])
        if key[:3] not in best or validation > best[key[:3]][0]:
            best[key[:3]] = (validation, key, members, repeats)
    return {key: (members, repeats) for _, key, members, repeats in best.values()}

"""Runs of ours that come with the release: what each setting reached, on which data and hardware.

They are small JSON files beside the study's figures, so that a new installation has something to
compare with. They are not in the store: nothing ranks with them, and each says what it was measured on.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cifar_core.analysis.answers_by_epoch import answers_by_epoch
from cifar_core.analysis.statistics import Spread, spread
from cifar_core.analysis.study.paper import paper_results
from cifar_core.base.files import write_whole
from cifar_core.base.lazy import pd
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.settings.presets import SAME_RUN, preset, presets
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunRecord, RunStore

FORMAT = 1
FOLDER = Path(str(resources.files(__package__) / "reference" / "runs"))

KINDS = ("as_published", "held_out", "recommended")
"""Columns of reference runs, by what they have in common with a run of the study."""
SHORTENED = "shortened"
COLUMNS = ("model", "variant", "preset", "published", *KINDS, SHORTENED)

_ENVIRONMENT = ("packages", "python", "backend", "cpu", "cores", "precision", "jit")
"""Facts kept about a run's environment: those that affect its figures, none that identifies a machine."""

_DEVICE = ("kind", "name", "gpus", "memory_gb")
_DATASET = ("name", "fingerprint", "train", "validation", "test")
_HISTORY = ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds", "images_per_second")

HEADLINE_ROWS = 4


@dataclass(frozen=True)
class ReferenceRun:
    """One finished run, on the whole dataset and for all epochs unless its settings say otherwise.

    Attributes:
        id: its id in the store that trained it.
        data: description of its images, e.g. "JPEG re-encoded CIFAR-10".
        settings: arguments of `TrainConfig`.
        dataset: fingerprint, and numbers of train, validation and test images.
        environment: versions, processor, device.
        metrics: of the test set, as `Report.to_dict`, with latency_ms and others.
        history: values per epoch by name of the metric.
        test_accuracy: after each epoch, where the run recorded its predictions; nothing was chosen by it.
        minutes: training time of all epochs.
    """

    id: str
    data: str
    settings: dict[str, Any]
    dataset: dict[str, Any]
    environment: dict[str, Any]
    metrics: dict[str, Any]
    history: dict[str, list[float | None]]
    test_accuracy: list[float] | None
    parameters: int | None
    finished_at: str
    minutes: float

    @functools.cached_property
    def config(self) -> TrainConfig:
        return TrainConfig(**self.settings)

    @property
    def accuracy(self) -> float:
        """Share of the test images that it classified correctly."""
        return float(self.metrics["accuracy"])

    @property
    def epochs(self) -> int:
        return len(self.history["val_accuracy"])

    @property
    def hardware(self) -> str:
        """ "AMD EPYC, 2 cores" (those that it might use), or the accelerator's name."""
        device = self.environment.get("device", {})
        if device.get("kind") == "gpu":
            return str(device.get("name"))
        cores = self.environment.get("cores")
        return f"{self.environment.get('cpu', 'CPU')}, {cores} core{'' if cores == 1 else 's'}"

    @property
    def command(self) -> str:
        """Command that trains it again, in the same number format if the settings fix one."""
        name = str(self.config.preset)
        also = self.config.changes_from(preset(name)).keys() & {"seed", "precision"}
        changes = {**self.changes(name), **{name: getattr(self.config, name) for name in sorted(also)}}
        flags = "".join(f" --{name.replace('_', '-')} {value}" for name, value in changes.items())
        return f"cifar-lab train --preset {self.config.preset}{flags}"

    def changes(self, name: str) -> dict[str, Any]:
        """Settings that differ from a preset, with this run's values; only those that change a run."""
        found = self.config.changes_from(preset(name))
        return {setting: ours for setting, (_, ours) in found.items() if setting not in SAME_RUN}


@functools.cache
def reference_runs() -> tuple[ReferenceRun, ...]:
    """Reference runs of this release, in the registry's order of models, best first."""
    found = [_read(path) for path in sorted(FOLDER.glob("*.json"))]
    order = list(MODELS)
    return tuple(sorted(found, key=lambda run: (order.index(run.config.model), -run.accuracy)))


def keep(store: RunStore, run_id: str, data: str, folder: Path = FOLDER) -> Path:
    """Write a finished run as a reference run of the package and return the file; for making a release.

    Args:
        data: description of its images.

    Raises:
        RunNotFoundError: the store has no such run.
        ConfigError: it is not finished, or `data` is empty.
    """
    record = store.get(run_id)
    if record.state != "finished" or not record.metrics:
        raise ConfigError(f"Run {run_id} is {record.state}; only a finished run is a reference.")
    if not data.strip():
        raise ConfigError("Say what its images were, e.g. data='CIFAR-10' or 'JPEG re-encoded CIFAR-10'.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.id}.json"
    write_whole(path, json.dumps(_content(store, record, data.strip()), indent=1, allow_nan=False) + "\n")
    reference_runs.cache_clear()
    return path


def _content(store: RunStore, record: RunRecord, data: str) -> dict[str, Any]:
    history = store.history(record.id)
    device = record.environment.get("device", {})
    shares = None
    if record.config.record_answers:
        found = answers_by_epoch(store, record.id)
        shares = [_rounded(float(share)) for share in (found.answers == found.labels).mean(axis=1)]
    return {
        "format": FORMAT,
        "id": record.id,
        "data": data,
        "settings": record.config.model_dump(mode="json"),
        "dataset": {name: record.dataset.get(name) for name in _DATASET},
        "environment": {**_some_of(record.environment, _ENVIRONMENT), "device": _some_of(device, _DEVICE)},
        "metrics": record.metrics,
        "history": {name: list(map(_rounded, history[name])) for name in _HISTORY if name in history},
        "test_accuracy": shares,
        "parameters": record.parameters,
        "finished_at": str(record.finished_at),
        "minutes": _rounded((record.training_s or math.nan) / 60),
    }


def _some_of(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _read(path: Path) -> ReferenceRun:
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.pop("format") != FORMAT:
        raise ConfigError(f"{path} is of another format than {FORMAT}, which this release reads.")
    return ReferenceRun(**content)


def _rounded(value: float) -> float | None:
    """Six digits; None for what is not known, since JSON has no NaN."""
    return float(f"{value:.6g}") if value == value else None


def reference_table(runs: Iterable[ReferenceRun] | None = None) -> pd.DataFrame:
    """The study's seven runs, one a row, with the reference runs that correspond to each.

    Columns: model, variant, preset; published (test accuracy, a share); as_published, held_out, recommended:
    lists of reference runs. `as_published` is the unchanged preset with its own protocol; `held_out` the same
    with epochs and settings chosen on held-out training images (the study's baselines do so anyway: the same
    runs); `recommended` the model's recommended preset. `shortened`: by kind, the longest runs where none has
    all epochs of its preset.
    """
    runs, rows = list(reference_runs() if runs is None else runs), []
    for published in paper_results().to_dict(orient="records"):
        wanted = {
            "as_published": (published["preset"], {}),
            "held_out": (published["preset"], {"protocol": "held-out"}),
            "recommended": (f"{published['model']}/recommended", {}),
        }
        row = {name: published[name] for name in ("model", "variant", "preset")}
        row |= {"published": published["test_accuracy"]}
        row |= {kind: _of(runs, *wanted[kind]) for kind in KINDS}
        rows.append(row | {SHORTENED: {kind: _shortened(runs, *wanted[kind]) for kind in KINDS}})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def accuracy_of(runs: Iterable[ReferenceRun]) -> Spread:
    """Mean and standard deviation of test accuracies over seeds."""
    return spread(run.accuracy for run in runs)


def headline(runs: Iterable[ReferenceRun] | None = None) -> str:
    """README's table: the most accurate models, each with its best setting by the mean over seeds."""
    best = {group[0].config.model: group for group in _alike(runs)[::-1]}
    rows = sorted(best.values(), key=lambda group: -accuracy_of(group).mean)[:HEADLINE_ROWS]
    lines = ["| network | test accuracy | minutes | seeds | trained again by |", "|:--|--:|--:|--:|:--|"]
    for group in rows:
        first = min(group, key=lambda run: run.config.seed)
        cells = (
            MODELS[first.config.model].title,
            _accuracy(group),
            f"{_minutes(group):.0f}",
            str(len(group)),
        )
        lines.append(f"| {' | '.join(cells)} | `{first.command}` |")
    return "\n".join([*lines, "", measured_on(run for row in rows for run in row)])


def costs(runs: Iterable[ReferenceRun] | None = None) -> pd.DataFrame:
    """What each setting reached and took, means over seeds, for `plots.accuracy_against_cost`.

    Columns: label, model, variant, accuracy (share), minutes, seeds. Best first.
    """
    rows = []
    for group in _alike(runs):
        config = group[0].config
        rows.append(
            {
                "label": f"{config.preset}, {epochs_of(group[0])}",
                "model": config.model,
                "variant": config.variant,
                "accuracy": accuracy_of(group).mean,
                "minutes": _minutes(group),
                "seeds": len(group),
            }
        )
    return pd.DataFrame(rows)


def _alike(runs: Iterable[ReferenceRun] | None) -> list[list[ReferenceRun]]:
    """Runs that differ in their seeds alone, together; best first by the mean."""
    groups: dict[tuple[Any, ...], list[ReferenceRun]] = {}
    for run in reference_runs() if runs is None else runs:
        key = (run.config.preset, run.epochs, *sorted(run.changes(str(run.config.preset)).items()))
        groups.setdefault(key, []).append(run)
    return sorted(groups.values(), key=lambda group: -accuracy_of(group).mean)


def markdown(runs: Iterable[ReferenceRun] | None = None) -> str:
    """The tables of docs/results.md: the study's figures beside ours, and the command for each of ours."""
    runs = tuple(reference_runs() if runs is None else runs)
    lines = [
        "| run | published | ours, as published | ours, held out | ours, recommended |",
        "|:--|--:|--:|--:|--:|",
    ]
    for row in reference_table(runs).to_dict(orient="records"):
        found = [row[kind] or row[SHORTENED][kind] for kind in KINDS]
        cells = [f"{100 * row['published']:.2f} %", *map(_cell, found)]
        lines.append(f"| `{row['preset']}` | {' | '.join(cells)} |")
    commands = [f"| {100 * run.accuracy:.2f} % | {run.config.seed} | `{run.command}` |" for run in runs]
    again = ["| test accuracy | seed | trained again by |", "|--:|--:|:--|", *commands]
    return "\n".join([*lines, "", measured_on(runs), "", *again])


def measured_on(runs: Iterable[ReferenceRun]) -> str:
    """Data and hardware that runs were measured on, as a sentence; "" for no runs."""
    runs = tuple(runs)
    data = sorted({run.data for run in runs})
    hardware = sorted({run.hardware for run in runs})
    if not runs:
        return ""
    where = f"Measured on {', '.join(data)}; {'; '.join(hardware)}."
    return f"{where} Minutes are by the clock, some beside other work or with pauses."


def _of(runs: Iterable[ReferenceRun], name: str, changes: dict[str, Any]) -> list[ReferenceRun]:
    """Runs of a preset whose only differences from it are `changes`."""
    if name not in presets():
        return []
    wanted = _not_already(name, changes)
    return [run for run in runs if run.config.preset == name and run.changes(name) == wanted]


def _shortened(runs: Iterable[ReferenceRun], name: str, changes: dict[str, Any]) -> list[ReferenceRun]:
    """The longest runs where none has all epochs of its preset; they may differ in what scales with that."""
    if name not in presets() or _of(runs, name, changes):
        return []
    wanted = _not_already(name, changes)
    known = [run for run in runs if run.config.preset == name and _out_of_proportion(run) == wanted]
    known = [run for run in known if run.epochs < preset(name).epochs]
    most = max((run.epochs for run in known), default=0)
    return [run for run in known if run.epochs == most]


def _not_already(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    already = preset(name).flat()
    return {setting: value for setting, value in changes.items() if already[setting] != value}


def _out_of_proportion(run: ReferenceRun) -> dict[str, Any]:
    """Differences from its preset, except epochs and what scales with them and with the batch size: a warm-up
    of the same share of the epochs, the same learning rate per image."""
    whole, ours = preset(str(run.config.preset)), run.config
    changes = {name: value for name, value in run.changes(str(ours.preset)).items() if name != "epochs"}
    if math.isclose(ours.warmup_epochs * whole.epochs, whole.warmup_epochs * ours.epochs, rel_tol=0.01):
        changes.pop("warmup_epochs", None)
    if math.isclose(ours.learning_rate * whole.batch_size, whole.learning_rate * ours.batch_size):
        for name in ("batch_size", "learning_rate"):
            changes.pop(name, None)
    return changes


def epochs_of(run: ReferenceRun) -> str:
    """ "50 epochs", or "10 of 60 epochs, batches of 32" where these differ from its preset."""
    whole = preset(str(run.config.preset))
    length = "" if run.epochs == whole.epochs else f" of {whole.epochs}"
    batches = "" if run.config.batch_size == whole.batch_size else f", batches of {run.config.batch_size}"
    return f"{run.epochs}{length} epochs{batches}"


def _cell(runs: list[ReferenceRun]) -> str:
    """ "81.32 % (50 epochs, 28 min)", with the spread and number of seeds where there are several."""
    if not runs:
        return "–"
    seeds = f"{len(runs)} seeds, " if len(runs) > 1 else ""
    return f"{_accuracy(runs)} ({seeds}{epochs_of(runs[0])}, {_minutes(runs):.0f} min)"


def _accuracy(runs: list[ReferenceRun]) -> str:
    """ "81.32 %", or "81.21 ± 0.16 %" of several seeds."""
    found = accuracy_of(runs)
    over = f" ± {100 * found.sd:.2f}" if found.n > 1 else ""
    return f"{100 * found.mean:.2f}{over} %"


def _minutes(runs: list[ReferenceRun]) -> float:
    return sum(run.minutes for run in runs) / len(runs)

"""Our own runs that come with the release: what each setting reached, on which data and hardware.

They are kept as small JSON files beside the study's figures, so that a new installation has something
to compare with. They are no runs of the store: nothing ranks with them, and each says what it was
measured on.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_core.analysis.diagnosis import CHANCE, NEAR_CHANCE
from cifar_core.analysis.statistics import Spread, spread
from cifar_core.analysis.study.paper import PAPER_FAULTS, paper_results
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.settings.presets import SAME_RUN, preset, presets
from cifar_core.settings.train_config import TrainConfig

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.store import RunStore

FORMAT = 1
FOLDER = Path(str(resources.files(__package__) / "reference" / "runs"))

KINDS = ("as_published", "held_out", "recommended")
"""Of reference runs, by what they share with a run of the study."""
SHORTENED = "shortened"
COLUMNS = ("model", "variant", "preset", "published", *KINDS, SHORTENED)

LAST_EPOCHS = 10
"""Among so many of a run's last epochs, chance alone decides much."""

_ENVIRONMENT = ("packages", "python", "backend", "cpu", "cores", "precision", "jit")
"""What is kept of a run's circumstances: what changes its figures, and nothing that names a machine."""

_HISTORY = ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds", "images_per_second")


@dataclass(frozen=True)
class ReferenceRun:
    """One finished run, whole data and whole epochs unless its settings say otherwise.

    Attributes:
        id: as the store that trained it called it.
        data: what its images were, in words, e.g. "JPEG re-encoded CIFAR-10".
        settings: all of them, as `TrainConfig` takes them.
        dataset: fingerprint, and numbers of train, validation and test images.
        environment: versions, processor, device.
        metrics: of the test set, as `Report.to_dict` gives them, with latency_ms and others.
        history: by name of the metric, one value per epoch.
        test_accuracy: after each epoch, where the run recorded its answers; nothing was chosen by it.
        minutes: what its epochs took together.
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
        """Share of the test images that it got right."""
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
        """What trains it again on the command line."""
        changes = self.changes(str(self.config.preset))
        if self.config.seed:
            changes["seed"] = self.config.seed
        flags = "".join(f" --{name.replace('_', '-')} {value}" for name, value in changes.items())
        return f"cifar-lab train --preset {self.config.preset}{flags}"

    def changes(self, name: str) -> dict[str, Any]:
        """What it has otherwise than a preset, but for what leaves a run the same: {setting: its value}."""
        found = self.config.changes_from(preset(name))
        return {setting: ours for setting, (_, ours) in found.items() if setting not in SAME_RUN}


# --- Reading and writing --------------------------------------------------------------------------


@functools.cache
def reference_runs() -> tuple[ReferenceRun, ...]:
    """All that come with this release, by model as the registry has them, then best first."""
    found = [_read(path) for path in sorted(FOLDER.glob("*.json"))]
    order = list(MODELS)
    return tuple(sorted(found, key=lambda run: (order.index(run.config.model), -run.accuracy)))


def keep(store: RunStore, run_id: str, data: str, folder: Path = FOLDER) -> Path:
    """Write a finished run of a store as a reference run; for those who make a release.

    Args:
        data: what its images were, in words.
        folder: where to.

    Raises:
        RunNotFoundError: the store has no such run.
        ConfigError: it is not finished, or `data` says nothing.
    """
    record = store.get(run_id)
    if record.state != "finished" or not record.metrics:
        raise ConfigError(f"Run {run_id} is {record.state}; only a finished run is a reference.")
    if not data.strip():
        raise ConfigError("Say what its images were, e.g. data='CIFAR-10' or 'JPEG re-encoded CIFAR-10'.")
    history = store.history(run_id)
    device = record.environment.get("device", {})
    content = {
        "format": FORMAT,
        "id": record.id,
        "data": data.strip(),
        "settings": record.config.model_dump(mode="json"),
        "dataset": {
            name: record.dataset.get(name) for name in ("name", "fingerprint", "train", "validation", "test")
        },
        "environment": {
            **{name: record.environment[name] for name in _ENVIRONMENT if name in record.environment},
            "device": {
                name: device[name] for name in ("kind", "name", "gpus", "memory_gb") if name in device
            },
        },
        "metrics": record.metrics,
        "history": {
            name: [_rounded(value) for value in history[name]] for name in _HISTORY if name in history
        },
        "test_accuracy": _by_epoch(store, run_id),
        "parameters": record.parameters,
        "finished_at": str(record.finished_at),
        "minutes": _rounded((record.training_s or math.nan) / 60),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.id}.json"
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    reference_runs.cache_clear()
    return path


def _read(path: Path) -> ReferenceRun:
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.pop("format") != FORMAT:
        raise ConfigError(f"{path} is of another format than {FORMAT}, which this release reads.")
    return ReferenceRun(**content)


def _rounded(value: float) -> float | None:
    """Six digits; None for what is not known, since JSON has no NaN."""
    return float(f"{value:.6g}") if value == value else None


def _by_epoch(store: RunStore, run_id: str) -> list[float] | None:
    from cifar_core.analysis.answers_by_epoch import answers_by_epoch

    if not store.get(run_id).config.record_answers:
        return None
    found = answers_by_epoch(store, run_id)
    return [_rounded(float(share)) for share in (found.answers == found.labels).mean(axis=1)]


# --- The table ------------------------------------------------------------------------------------


def reference_table(runs: Iterable[ReferenceRun] | None = None) -> pd.DataFrame:
    """One row for each of the study's seven runs: its figure and ours.

    Columns: model, variant, preset; published (share); as_published, held_out, recommended: lists of
    reference runs, empty where there is none. `as_published` is the preset as it stands, by its own
    protocol; `held_out` the same with epochs and settings chosen by images held out from train (the
    study's baselines did so themselves: the same runs); `recommended` the model's recommended preset.
    `shortened`: by kind, where none has all its preset's epochs, those that have the most of them.
    """
    import pandas as pd

    runs = list(reference_runs() if runs is None else runs)
    return pd.DataFrame(
        [_table_row(runs, published) for published in paper_results().to_dict(orient="records")],
        columns=list(COLUMNS),
    )


def _table_row(runs: list[ReferenceRun], published: dict[str, Any]) -> dict[str, Any]:
    wanted = {
        "as_published": (published["preset"], {}),
        "held_out": (published["preset"], {"protocol": "held-out"}),
        "recommended": (f"{published['model']}/recommended", {}),
    }
    return {
        **{name: published[name] for name in ("model", "variant", "preset")},
        "published": published["test_accuracy"],
        **{kind: _of(runs, *wanted[kind]) for kind in KINDS},
        SHORTENED: {kind: _shortened(runs, *wanted[kind]) for kind in KINDS},
    }


def accuracy_of(runs: Iterable[ReferenceRun]) -> Spread:
    """Mean and deviation of their test accuracies over seeds."""
    return spread(run.accuracy for run in runs)


def markdown(runs: Iterable[ReferenceRun] | None = None) -> str:
    """The table as README has it, with what it was measured on and the evidence on the study's faults."""
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
    told = [f"- **{title}.** {text}" for title, text in evidence(runs).items()]
    again = ["| test accuracy | seed | trained again by |", "|--:|--:|:--|", *commands]
    return "\n".join([*lines, "", measured_on(runs), "", *again, "", *told])


def measured_on(runs: Iterable[ReferenceRun]) -> str:
    """On what data and hardware, in one sentence; "" for no runs."""
    runs = tuple(runs)
    data = sorted({run.data for run in runs})
    hardware = sorted({run.hardware for run in runs})
    if not runs:
        return ""
    where = f"Measured on {', '.join(data)}; {'; '.join(hardware)}."
    return f"{where} Minutes are by the clock, some beside other work or with pauses."


def _of(runs: Iterable[ReferenceRun], name: str, changes: dict[str, Any]) -> list[ReferenceRun]:
    """Those that have nothing otherwise than the preset but `changes`, where it hasn't these itself."""
    if name not in presets():
        return []
    wanted = _not_already(name, changes)
    return [run for run in runs if run.config.preset == name and run.changes(name) == wanted]


def _shortened(runs: Iterable[ReferenceRun], name: str, changes: dict[str, Any]) -> list[ReferenceRun]:
    """Where no such run had all epochs: those that had the most of them, with nothing else otherwise but
    what goes in proportion."""
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
    """What it has otherwise than its preset, without the number of epochs and what follows from it and from
    the batch size: a warm-up that is as large a share of the epochs, as much learning rate per image."""
    whole, ours = preset(str(run.config.preset)), run.config
    changes = _but_for_length(run)[1]
    if math.isclose(ours.warmup_epochs * whole.epochs, whole.warmup_epochs * ours.epochs, rel_tol=0.01):
        changes.pop("warmup_epochs", None)
    if math.isclose(ours.learning_rate * whole.batch_size, whole.learning_rate * ours.batch_size):
        changes = {
            name: value for name, value in changes.items() if name not in ("batch_size", "learning_rate")
        }
    return changes


def epochs_of(run: ReferenceRun) -> str:
    """ "50 epochs"; "10 of 60 epochs, batches of 32" where its preset has more, and other batches."""
    whole = preset(str(run.config.preset))
    length = "" if run.epochs == whole.epochs else f" of {whole.epochs}"
    batches = "" if run.config.batch_size == whole.batch_size else f", batches of {run.config.batch_size}"
    return f"{run.epochs}{length} epochs{batches}"


def _cell(runs: list[ReferenceRun]) -> str:
    """ "81.32 % (50 epochs, 28 min)", with the spread and number of seeds where there are several."""
    if not runs:
        return "–"
    found = accuracy_of(runs)
    minutes = sum(run.minutes for run in runs) / len(runs)
    over = f" ± {100 * found.sd:.2f}" if found.n > 1 else ""
    seeds = f"{found.n} seeds, " if found.n > 1 else ""
    return f"{100 * found.mean:.2f}{over} % ({seeds}{epochs_of(runs[0])}, {minutes:.0f} min)"


# --- What the study's faults do, shown by runs ----------------------------------------------------


def evidence(runs: Iterable[ReferenceRun] | None = None) -> dict[str, str]:
    """By title of the study's faults, what our runs show of it; without those that they show nothing of."""
    runs = tuple(reference_runs() if runs is None else runs)
    told = (_test_selection, _lost_epochs, _trained_before, _blind_mobilenet, _untuned, _budget, _one_seed)
    found = {fault.title: tell(runs) for fault, tell in zip(PAPER_FAULTS, told, strict=True)}
    return {title: text for title, text in found.items() if text}


def _test_selection(runs: tuple[ReferenceRun, ...]) -> str:
    return " ".join(text for text in (_flattery(runs), _unrest(runs)) if text)


def _flattery(runs: tuple[ReferenceRun, ...]) -> str:
    """Among the epochs of one run: the one that test would choose against the one that validation does."""
    known = [run for run in runs if run.test_accuracy]
    if not known:
        return ""
    by_test = [max(run.test_accuracy or ()) for run in known]
    by_validation = [(run.test_accuracy or ())[_best(run)] for run in known]
    flattery = [100 * (best - fair) for best, fair in zip(by_test, by_validation, strict=True)]
    return (
        f"In {_runs(len(known))} that recorded the test accuracy after each epoch, choosing the epoch by it "
        f"flatters by {_range(flattery)} points against choosing it by held-out images (on average "
        f"{_mean(by_test)} against {_mean(by_validation)}), with the same weights learned. Settings and "
        "learning rate chosen by it come on top."
    )


def _unrest(runs: tuple[ReferenceRun, ...]) -> str:
    """How far apart the epochs lie among which one may choose, of a run that looks at test after each."""
    known = [run for run in runs if run.config.protocol == "test-selected" and run.epochs > LAST_EPOCHS]
    told = []
    for run in known:
        last = [value for value in run.history["val_accuracy"][-LAST_EPOCHS:] if value is not None]
        told.append(
            f"`{run.config.preset}` looks at test after every epoch: over its last {LAST_EPOCHS} it has "
            f"there from {_share(min(last))} to {_share(max(last))}, and {_share(last[-1])} after the last."
        )
    return " ".join(told)


def _lost_epochs(runs: tuple[ReferenceRun, ...]) -> str:
    """A run at half its epochs and at its end, where its learning rate is constant."""
    known = [run for run in _sighted(runs) if run.config.schedule == "constant" and run.epochs > 1]
    if not known:
        return ""
    run = known[0]
    half = run.epochs // 2
    values = run.history["val_accuracy"]
    return (
        f"MobileNetV2 with a constant learning rate, {_what(run)}: {_share(values[half - 1])} validation "
        f"accuracy after {half} epochs and {_share(values[-1])} after {run.epochs}."
    )


def _trained_before(runs: tuple[ReferenceRun, ...]) -> str:
    known = _of(runs, "base_cnn/paper-baseline", {})
    if not known:
        return ""
    run = known[0]
    best, held_out = _best(run), run.history["val_accuracy"]
    return (
        f"From new weights the base CNN is best after {best + 1} epochs ({_share(held_out[best])} validation "
        f"accuracy); after {run.epochs} it has {_share(run.history['accuracy'][-1])} on the images that it "
        f"trained with and {_share(held_out[-1])} on those held out: the rest was overfitting."
    )


def _blind_mobilenet(runs: tuple[ReferenceRun, ...]) -> str:
    name = "mobilenet/paper-baseline"
    steps = (
        ("as published", {}),
        ("with nothing but the momentum put right", {"bn_momentum": 0.9}),
        ("with the stem put right too", {"bn_momentum": 0.9, "stem": "cifar"}),
    )
    told = [
        f"{_mean([run.accuracy for run in found])} {words}"
        for words, changes in steps
        if (found := _of(runs, name, changes))
    ]
    if brief := _as_brief(runs):
        told.append(f"{_mean([run.accuracy for run in brief])} with the stem and the recipe of today")
    return f"The study's ten epochs: {', '.join(told)}.{_blindness(runs)}" if told else ""


def _as_brief(runs: tuple[ReferenceRun, ...]) -> list[ReferenceRun]:
    """MobileNet's recommended runs that had no more epochs than the study's baseline."""
    budget = preset("mobilenet/paper-baseline").epochs
    return [run for run in runs if run.config.preset == "mobilenet/recommended" and run.epochs == budget]


def _untuned(runs: tuple[ReferenceRun, ...]) -> str:
    """The same network and epochs, nothing searched for: what another recipe alone changes."""
    plain, better = _of(runs, "base_cnn/paper-baseline", {}), _of(runs, "base_cnn/recommended", {})
    if not plain or not better or plain[0].epochs != better[0].epochs:
        return ""
    return (
        f"In {plain[0].epochs} epochs each, the base CNN reaches {_mean([run.accuracy for run in plain])} as "
        f"published and {_mean([run.accuracy for run in better])} with normalisation, augmentation and a "
        "schedule that nobody searched for: a gain of that kind shows a recipe, and not a search."
    )


def _budget(runs: tuple[ReferenceRun, ...]) -> str:
    """One training of unchanged settings, seen after a baseline's epochs and where it was best."""
    budget = preset("mobilenet/paper-baseline").epochs
    known = [run for run in _of(runs, "base_cnn/paper-baseline", {}) if _best(run) >= budget]
    if not known:
        return ""
    early = [run.history["val_accuracy"][budget - 1] or 0.0 for run in known]
    best = [run.history["val_accuracy"][_best(run)] or 0.0 for run in known]
    return (
        f"The base CNN, with no setting changed: {_mean(early)} validation accuracy after {budget} epochs "
        f"and {_mean(best)} at the best of {known[0].epochs}. More epochs alone make that difference."
    )


def _blindness(runs: tuple[ReferenceRun, ...]) -> str:
    """For how long validation saw nothing in a run that learned as well as another with the same steps."""
    name = "mobilenet/paper-baseline"
    for seeing in _of(runs, name, {"bn_momentum": 0.9}):
        for blind in _of(runs, name, {}):
            if blind.history["accuracy"] == seeing.history["accuracy"]:
                dark = [value for value in blind.history["val_accuracy"] if value == CHANCE]
                first = seeing.history["val_accuracy"][0]
                return (
                    " The two trained alike, to the last digit of each epoch's training accuracy; but as "
                    f"published, validation stood at {_share(CHANCE)} for {len(dark)} epochs, "
                    f"and with the momentum put right it began at {_share(first)}."
                )
    return ""


def _one_seed(runs: tuple[ReferenceRun, ...]) -> str:
    groups = [_of(runs, name, {}) for name in presets()]
    known = [group for group in groups if len(group) > 1]
    told = [
        f"{100 * accuracy_of(group).sd:.2f} points for `{group[0].config.preset}` ({len(group)} seeds)"
        for group in known
    ]
    spreads = f"The standard deviation of the test accuracy over seeds is {', '.join(told)}." if told else ""
    return " ".join(text for text in (spreads, _caught(runs)) if text)


def _caught(runs: tuple[ReferenceRun, ...]) -> str:
    """A seed with which a network learned nothing, beside one with which it did in as many epochs."""
    for one in runs:
        last = one.epochs - 1
        if _learned(one, last):
            continue
        for other in runs:
            if _but_for_length(other) == _but_for_length(one) and _learned(other, last):
                caught, free = (run.history["val_accuracy"][last] for run in (one, other))
                return (
                    f"`{one.config.preset}` has {_share(caught)} validation accuracy after epoch "
                    f"{one.epochs} with seed {one.config.seed}, as by chance, and {_share(free)} with "
                    f"seed {other.config.seed}."
                )
    return ""


def _learned(run: ReferenceRun, epoch: int) -> bool:
    """Whether a run is better than chance after an epoch, counted from 0; not where it has none such."""
    values = [run.history[name][epoch : epoch + 1] for name in ("accuracy", "val_accuracy")]
    return any(share is not None and share > NEAR_CHANCE for value in values for share in value)


def _but_for_length(run: ReferenceRun) -> tuple[str | None, dict[str, Any]]:
    """What it trained, whatever its seed and number of epochs."""
    name = run.config.preset
    changes = run.changes(str(name))
    return name, {setting: value for setting, value in changes.items() if setting != "epochs"}


def _sighted(runs: tuple[ReferenceRun, ...]) -> list[ReferenceRun]:
    """MobileNet's with the momentum put right, since the others' validation says nothing."""
    name = "mobilenet/paper-baseline"
    return [run for run in runs if run.config.preset == name and "bn_momentum" in run.changes(name)]


def _what(run: ReferenceRun) -> str:
    return f"stem {run.config.hyperparameters.model_dump()['stem']}, seed {run.config.seed}"


def _best(run: ReferenceRun) -> int:
    """Index of the epoch with the best validation accuracy; the first of equals, as training keeps it."""
    values = [value if value is not None else -math.inf for value in run.history["val_accuracy"]]
    return values.index(max(values))


def _runs(number: int) -> str:
    return "one run" if number == 1 else f"{number} runs"


def _share(value: float | None) -> str:
    return f"{100 * value:.1f} %" if value is not None else "–"


def _mean(values: list[float]) -> str:
    return f"{100 * sum(values) / len(values):.2f} %"


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"

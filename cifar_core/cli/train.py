"""`train`, and how runs are reported."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cifar_core.base.fields import describe
from cifar_core.cli.app import PROGRAM, GroupedOption, command, json_option
from cifar_core.cli.framework import load_framework
from cifar_core.cli.options import model_options, read_seeds, read_values, setting_options
from cifar_core.cli.output import duration, percent, print_json
from cifar_core.cli.progress import reporting
from cifar_core.cli.signals import Stop, stopping
from cifar_core.errors import ConfigError
from cifar_core.models import model_config
from cifar_core.settings.train_config import TrainConfig

if TYPE_CHECKING:
    from cifar_core.data import Dataset
    from cifar_core.store import RunStore
    from cifar_core.training.result import Run

FAILED = 1
_MOST_BYTES = 1_000_000

_start = partial(click.option, cls=GroupedOption, heading="Start from")


@command("train")
@_start("--preset", help="Named setting to start from ('cifar-lab presets' lists them).")
@_start(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="JSON file of settings to start from, as 'cifar-lab show RUN --json' has them under settings.",
)
@_start("--seeds", metavar="N,N,...", help="Train once for each of these seeds, one after the other.")
@click.option("--store/--no-store", default=True, help="Record the run; else nothing is written.")
@click.option("--queue", is_flag=True, show_default=False, help="Only queue it, for a worker or the app.")
@json_option("Print one JSON document at the end; progress goes to stderr.")
def train(
    preset: str | None,
    config_file: Path | None,
    seeds: str | None,
    store: bool,
    queue: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Train one setting, test it once, record it.

    Start from a preset, a file or a model's defaults; flags change single settings.

    Ctrl-C stops within a step and keeps what there is; 'cifar-lab resume' goes on from there.
    """
    configs = seeded(requested(preset, config_file, given), seeds)
    if queue and not store:
        raise ConfigError("--queue keeps the run in the store: leave out --no-store.")
    record = _open_store() if store else None
    if queue and record is not None:
        return queue_all(record, configs, as_json=as_json)
    return _train_all(configs, record, as_json)


train.params += [
    *setting_options(s for name, s in describe(TrainConfig).items() if name != "preset"),
    *model_options(describe(TrainConfig)),
]


def requested(preset: str | None, config_file: Path | None, given: Mapping[str, Any]) -> TrainConfig:
    """The setting that the command line asks for.

    Raises:
        ConfigError: anything about it that is not allowed.
    """
    if preset is not None and config_file is not None:
        raise ConfigError("Start from --preset or from --config, not from both.")
    if preset is not None:
        from cifar_core.settings.presets import find_preset
        from cifar_core.settings.presets import preset as make

        return make(preset, **read_values(find_preset(preset).model, given))
    values = {} if config_file is None else _file_values(config_file)
    model = given.get("model") or values.get("model") or describe(TrainConfig)["model"].default
    if values and model != values.get("model", model):
        model_config(values["model"])  # is there such a one at all?
        raise ConfigError(
            f"{config_file} is a setting of {values['model']}; it cannot be changed to {model}."
        )
    return TrainConfig(**{**values, **read_values(model, given)})


def seeded(config: TrainConfig, seeds: str | None) -> list[TrainConfig]:
    """One setting for each seed in "0,1,2"; the setting alone where None."""
    if seeds is None:
        return [config]
    return [config.replace(seed=seed) for seed in read_seeds(seeds)]


def _file_values(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes; settings have about 2,000")
        values = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ConfigError(f"{path} cannot be read as JSON: it is nested too deeply.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path} cannot be read as JSON: {reason}.") from None
    if isinstance(values, dict) and isinstance(values.get("settings"), dict):
        values = values["settings"]
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} must hold one JSON object of settings; it holds a {type(values).__name__}."
        )
    return values


def _open_store() -> RunStore:
    from cifar_core.store import RunStore

    return RunStore()


def queue_all(store: RunStore, configs: Sequence[TrainConfig], *, as_json: bool) -> int:
    """Leave the settings to a worker; prints the runs' ids."""
    ids = [store.create_run(config) for config in configs]
    if as_json:
        print_json({"queued": ids})
    else:
        for run_id in ids:
            click.echo(f"queued {run_id}")
    return 0


def _train_all(configs: Sequence[TrainConfig], store: RunStore | None, as_json: bool) -> int:
    from cifar_core.store import RunState
    from cifar_core.training import run

    dataset = load_images(configs[0])  # before the framework, so that missing images are told at once
    runs: list[Run] = []
    with stopping() as stop, reporting(as_json=as_json) as progress:
        load_framework(configs[0])
        for config in configs:
            if dataset is None or (config.seed != configs[0].seed and config.dataset == "synthetic"):
                dataset = load_images(config)
            runs.append(
                run.train(config, dataset=dataset, store=store, progress=progress, should_stop=stop.requested)
            )
            runs[-1].model = None  # one network in memory is enough
            if runs[-1].state is not RunState.FINISHED:
                break
    return report_runs(runs, stop, as_json=as_json, planned=len(configs))


def load_images(config: TrainConfig) -> Dataset:
    """The images that a setting names."""
    from cifar_core.data import load_dataset

    return load_dataset(config.dataset)


def report_runs(runs: Sequence[Run], stop: Stop, *, as_json: bool, planned: int) -> int:
    """Print what came of it; the exit status."""
    if as_json:
        print_json(run_document(runs[0]) if planned == 1 else _runs_document(runs))
    else:
        for run in runs:
            click.echo(summary(run))
        if len(runs) > 1:
            click.echo(_spread_line(runs))
    if all(run.metrics is not None for run in runs) and len(runs) == planned:
        return 0
    click.echo(_how_to_go_on(runs[-1]), err=True)
    return stop.exit_status if stop.requested() else FAILED


def summary(run: Run) -> str:
    """One run in a line or two."""
    name = f"run {run.id}" if run.id else f"{run.config.model} (not stored)"
    epochs = f"{run.epochs_done} of {run.config.epochs} epochs"
    if run.metrics is None:
        return f"{name} {run.state} after {epochs}"
    seconds = duration(run.metrics["train_seconds"])
    text = (
        f"{name} {run.state}: test accuracy {percent(run.metrics['accuracy'])}, "
        f"loss {run.metrics['loss']:.4f}, {epochs}, {seconds}"
    )
    return text + (f"\n  {run.folder}" if run.folder else "")


def run_document(run: Run) -> dict[str, Any]:
    """One run for a script."""
    return {
        "run": run.id,
        "state": run.state,
        "settings": run.config.flat(),
        "epochs_done": run.epochs_done,
        "best_epoch": run.best_epoch,
        "metrics": run.metrics,
        "history": run.epochs,
        "environment": run.environment,
        "folder": run.folder,
    }


def _runs_document(runs: Sequence[Run]) -> dict[str, Any]:
    accuracies = _accuracies(runs)
    return {
        "runs": [run_document(run) for run in runs],
        "accuracy_mean": statistics.fmean(accuracies) if accuracies else None,
        "accuracy_sd": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
    }


def _accuracies(runs: Sequence[Run]) -> list[float]:
    return [run.metrics["accuracy"] for run in runs if run.metrics is not None]


def _spread_line(runs: Sequence[Run]) -> str:
    accuracies = _accuracies(runs)
    if len(accuracies) < 2:
        return f"{len(accuracies)} of {len(runs)} runs were tested"
    mean, spread = statistics.fmean(accuracies), statistics.stdev(accuracies)
    return f"test accuracy {100 * mean:.2f} ± {100 * spread:.2f} % (mean and sd of {len(accuracies)} seeds)"


def _how_to_go_on(run: Run) -> str:
    if run.metrics is not None:
        return f"{PROGRAM}: stopped before the remaining seeds"
    if run.id is None:
        return f"{PROGRAM}: stopped; nothing was stored, so it cannot be resumed"
    return f"{PROGRAM}: stopped; go on with: {PROGRAM} resume {run.id}"

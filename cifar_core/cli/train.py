"""`train`, `resume` and `worker`, and the report of runs that ended."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cifar_core.base.fields import describe
from cifar_core.cli.app import (
    FAILED,
    PROGRAM,
    GroupedOption,
    Stop,
    command,
    current_store,
    json_option,
    load_framework,
    run_argument,
    stopping,
    switch,
)
from cifar_core.cli.options import model_options, read_numbers, read_values, setting_options
from cifar_core.cli.output import print_result, run_document, run_summary
from cifar_core.cli.progress import reporting
from cifar_core.data.catalogue import SYNTHETIC
from cifar_core.errors import ConfigError, RunStateError
from cifar_core.models import model_config
from cifar_core.settings.train_config import TrainConfig

if TYPE_CHECKING:
    from cifar_core.data import Dataset
    from cifar_core.store import RunStore
    from cifar_core.training.result import Run

_MAX_BYTES = 1_000_000

_start = partial(click.option, cls=GroupedOption, heading="Start from")


@command("train")
@_start("--preset", help="Preset to start from ('cifar-lab presets' lists them).")
@_start(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="JSON file of settings to start from, like 'settings' in 'cifar-lab show RUN --json'.",
)
@_start("--seeds", metavar="N,N,...", help="Train once for each of these seeds, one after the other.")
@click.option("--store/--no-store", default=True, help="Record the run, or write nothing.")
@switch("--queue", help="Only queue the run, for a worker or the app.")
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
    """Train a model, test it once, record the run.

    Start from a preset, a file or a model's defaults; options change single settings.

    Ctrl-C stops after the current step and keeps the progress; 'cifar-lab resume' continues from there.
    """
    configs = seeded(requested(preset, config_file, given), seeds)
    if queue and not store:
        raise ConfigError("--queue records the run in the store: leave out --no-store.")
    from cifar_core.store import RunStore

    record = RunStore() if store else None
    if queue and record is not None:
        return queue_all(record, configs, as_json=as_json)
    return _train_all(configs, record, as_json)


train.params += [
    *setting_options(s for name, s in describe(TrainConfig).items() if name != "preset"),
    *model_options(describe(TrainConfig)),
]


def requested(preset: str | None, config_file: Path | None, given: Mapping[str, Any]) -> TrainConfig:
    """The settings given on the command line, on top of a preset, a file or the model's defaults.

    Raises:
        ConfigError: a value or a combination that is not allowed.
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
        theirs = values["model"]
        model_config(theirs)  # raises if there is no such model
        raise ConfigError(f"{config_file} is a setting of {theirs}; it cannot be changed to {model}.")
    return TrainConfig(**{**values, **read_values(model, given)})


def seeded(config: TrainConfig, seeds: str | None) -> list[TrainConfig]:
    """The settings once for each seed in "0,1,2"; unchanged if `seeds` is None."""
    if seeds is None:
        return [config]
    return [config.replace(seed=seed) for seed in read_numbers("seeds", seeds)]


def _file_values(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES:,} bytes; settings have about 2,000")
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


def queue_all(store: RunStore, configs: Sequence[TrainConfig], *, as_json: bool) -> int:
    """Queue a run for each of the settings and print the ids; returns the exit status."""
    ids = [store.create_run(config) for config in configs]
    print_result(as_json, {"queued": ids}, *(f"queued {run_id}" for run_id in ids))
    return 0


def _train_all(configs: Sequence[TrainConfig], store: RunStore | None, as_json: bool) -> int:
    from cifar_core.store import RunState
    from cifar_core.training import run

    dataset = load_images(configs[0])  # before the framework, so that missing images are reported at once
    runs: list[Run] = []
    with stopping() as stop, reporting(as_json=as_json) as progress:
        load_framework(configs[0])
        for config in configs:
            if dataset is None or (config.seed != configs[0].seed and config.dataset == SYNTHETIC):
                dataset = load_images(config)
            runs.append(
                run.train(config, dataset=dataset, store=store, progress=progress, should_stop=stop.requested)
            )
            runs[-1].model = None  # frees the memory
            if runs[-1].state is not RunState.FINISHED:
                break
    return report_runs(runs, stop, as_json=as_json, planned=len(configs))


def load_images(config: TrainConfig) -> Dataset:
    """The dataset named by the settings."""
    from cifar_core.data import load_dataset

    return load_dataset(config.dataset)


@command("prune")
@run_argument
@click.option("--channels", type=float, default=0.0, help="Share of the filters and units to remove.")
@click.option("--sparsity", type=float, default=0.0, help="Share of the weights to set to zero.")
@click.option("--epochs", type=int, show_default="a third of the run's", help="Epochs of fine-tuning.")
@click.option("--seeds", metavar="N,N,...", help="Fine-tune once for each of these seeds.")
@switch("--queue", help="Only queue the run, for a worker or the app.")
@json_option("Print one JSON document at the end; progress goes to stderr.")
def prune(
    run: str,
    channels: float,
    sparsity: float,
    epochs: int | None,
    seeds: str | None,
    queue: bool,
    as_json: bool,
) -> int:
    """Make a finished run's network smaller and fine-tune it as a new run.

    RUN is its id, or a unique prefix of it. Fewer channels make the network smaller and quicker; zeros make
    its compressed file smaller. The new run has the settings of RUN and starts from its weights.
    """
    from cifar_core.settings.smaller import pruned

    if not channels and not sparsity:
        raise ConfigError("Say what to remove: --channels 0.5, --sparsity 0.8, or both.")
    store = current_store()
    record = store.get(run)
    config = pruned(record.config, record.id, channels=channels, sparsity=sparsity, epochs=epochs)
    configs = seeded(config, seeds)
    return queue_all(store, configs, as_json=as_json) if queue else _train_all(configs, store, as_json)


@command("resume")
@run_argument
@json_option("Print one JSON document at the end; progress goes to stderr.")
def resume(run: str, as_json: bool) -> int:
    """Continue a stopped, failed or crashed run or search.

    RUN is its id, or a unique prefix of it. A run continues after its last completed epoch; a search
    repeats only the trial that was interrupted.
    """
    from cifar_core.store.lifecycle import SEARCH_PREFIX

    store = current_store()
    job_id = store.resolve(run)
    record = store.job(job_id)
    if not record.state.is_resumable() and record.state != "queued":
        raise RunStateError(
            f"{job_id} is {record.state}; only stopped, failed or crashed ones can be resumed."
        )
    resume_job = _resume_search if job_id.startswith(SEARCH_PREFIX) else _resume_run
    return resume_job(store, job_id, as_json)


def _resume_run(store: RunStore, run_id: str, as_json: bool) -> int:
    from cifar_core.training import run

    record = store.get(run_id)
    dataset = load_images(record.config)
    with stopping() as stop, reporting(as_json=as_json) as progress:
        load_framework(record.config, record.environment)
        done = run.resume(run_id, store=store, dataset=dataset, progress=progress, should_stop=stop.requested)
    return report_runs([done], stop, as_json=as_json, planned=1)


def _resume_search(store: RunStore, search_id: str, as_json: bool) -> int:
    from cifar_core.cli.tune import run_search
    from cifar_core.tuning.space import trial_config

    dataset = load_images(trial_config(store.get_search(search_id).config))
    return run_search(None, search_id, store=store, dataset=dataset, isolation=None, as_json=as_json)


@command("worker")
@click.option("--run", help="Train only this queued run, then end.")
@click.option("--device", default="local", help="Name of the device; each trains one run at a time.")
@switch("--once", help="End after one run.")
@click.option(
    "--idle-exit",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="End after so long without queued runs.",
)
@json_option()
def worker(run: str | None, device: str, once: bool, idle_exit: float | None, as_json: bool) -> int:
    """Train queued runs, one after another, until stopped.

    Ctrl-C or SIGTERM stops the current run after its step; it can be resumed.
    """
    from cifar_core.workers.worker import run_worker

    store = current_store()
    with stopping() as stop:
        done = run_worker(
            store, run, device=device, once=once, idle_exit=idle_exit, should_stop=stop.requested
        )
    print_result(as_json, {"runs": done}, f"carried out {done} run{'' if done == 1 else 's'}")
    return stop.exit_status if stop.requested() else 0


def report_runs(runs: Sequence[Run], stop: Stop, *, as_json: bool, planned: int) -> int:
    """Print the results of the runs; returns the exit status."""
    mean, sd, spread = _spread(runs)
    documents = [run_document(run) for run in runs]
    several = {"runs": documents, "accuracy_mean": mean, "accuracy_sd": sd}
    lines = [*map(run_summary, runs), *([spread] if len(runs) > 1 else [])]
    print_result(as_json, several if planned > 1 else documents[0], *lines)
    if all(run.metrics is not None for run in runs) and len(runs) == planned:
        return 0
    hint = f"; continue with: {PROGRAM} resume {runs[-1].id}"
    if runs[-1].metrics is not None:
        hint = " before the remaining seeds"
    elif runs[-1].id is None:
        hint = "; nothing was stored, so it cannot be resumed"
    click.echo(f"{PROGRAM}: stopped{hint}", err=True)
    return stop.exit_status if stop.requested() else FAILED


def _spread(runs: Sequence[Run]) -> tuple[float | None, float | None, str]:
    """Mean and standard deviation of the accuracies of those that were tested, and both in words."""
    tested = [run.metrics["accuracy"] for run in runs if run.metrics is not None]
    mean = statistics.fmean(tested) if tested else None
    if mean is None or len(tested) < 2:
        return mean, None, f"{len(tested)} of {len(runs)} runs were tested"
    sd = statistics.stdev(tested)
    words = f"test accuracy {100 * mean:.2f} ± {100 * sd:.2f} % (mean and sd of {len(tested)} seeds)"
    return mean, sd, words

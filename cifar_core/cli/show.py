"""`show`: everything about one run or search."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from cifar_core.analysis.diagnosis import remarks
from cifar_core.cli.app import command, current_store, json_option, run_argument
from cifar_core.cli.output import (
    duration,
    moment,
    percent,
    print_json,
    print_pairs,
    print_rows,
    printable,
    records,
)
from cifar_core.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from cifar_core.store import RunRecord, RunStore
    from cifar_core.store.records import SearchRecord

_TRIALS = ["trial_id", "number", "state", "score", "epochs", "epochs_done", "duration_s", "settings"]
_EXPORTS = ("format", "quantize", "bytes", "agreement", "accuracy", "reference_accuracy", "latency_ms",
            "reference_latency_ms", "images", "verified_on")  # fmt: skip
_CURVES = ["epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds"]


@command("show")
@run_argument
@json_option()
def show(run: str, as_json: bool) -> None:
    """One run or search: settings, results, history, environment.

    RUN is its id, or a unique prefix of it.
    """
    from cifar_core.store.lifecycle import SEARCH_PREFIX

    store = current_store()
    job_id = store.resolve(run)
    if job_id.startswith(SEARCH_PREFIX):
        _show_search(store, store.get_search(job_id), as_json)
        return
    record = store.get(job_id)
    if as_json:
        print_json(_document(store, record))
        return
    _show_head(record)
    _show_changes(record)
    _show_result(record)
    if exported := records(store.exports(job_id)):
        click.echo("\nexported files, each verified against the model")
        print_rows([{**row, "agreement": percent(row["agreement"])} for row in exported], _EXPORTS)
    if epochs := records(store.history(job_id)):
        click.echo("")
        print_rows(epochs, _CURVES)
    for remark in remarks(epochs, record.problem.count):
        click.echo(f"\n{remark}")
    _show_environment(store, record)


def _show_search(store: RunStore, record: SearchRecord, as_json: bool) -> None:
    trials = records(store.trials(record.id))
    if as_json:
        print_json({**_fields(record), "trials": trials, "events": records(store.events(record.id))})
        return
    _show_state("search", record)
    print_pairs(record.settings)
    click.echo("")
    print_pairs(
        {
            "trials": f"{record.trials_done} of {record.trials_planned or '?'}",
            "impossible combinations left out": (record.plan or {}).get("impossible"),
            "best trial": record.best_trial,
            "best validation accuracy": record.best_score,
            "best run": record.best_run,
            "ETA": duration(record.eta_s),
        }
    )
    if trials:
        click.echo("")
        print_rows(trials, _TRIALS + ["taken_from"] * any(trial["taken_from"] for trial in trials))


def _show_state(kind: str, record: RunRecord | SearchRecord) -> None:
    reason = f" ({printable(record.reason)})" if record.reason else ""
    click.echo(f"{kind} {record.id}: {record.state}{reason}")


def _fields(record: RunRecord | SearchRecord) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _document(store: RunStore, record: RunRecord) -> dict[str, Any]:
    history = records(store.history(record.id))
    return {
        **_fields(record),
        "differs_from_preset": _changes(record),
        "history": history,
        "remarks": remarks(history, record.problem.count),
        "exports": records(store.exports(record.id)),
        "events": records(store.events(record.id)),
        "artifacts": store.artifacts(record.id),
        "folder": store.artifact_dir(record.id),
    }


def _changes(record: RunRecord) -> dict[str, Any] | None:
    """Differences from the run's preset or, without one, the model's defaults, as {name: (there, here)}.

    None where this release does not know the preset or the settings.
    """
    from cifar_core.settings.presets import preset
    from cifar_core.settings.train_config import TrainConfig

    try:
        start = preset(record.preset) if record.preset else TrainConfig(model=record.model)
        return record.config.changes_from(start)
    except ConfigError:
        return None


def _show_head(record: RunRecord) -> None:
    _show_state("run", record)
    pairs = {
        "name": record.name,
        "model": record.model,
        "variant": record.variant,
        "preset": record.preset,
        "protocol": record.protocol,
        "seed": record.seed,
        "epochs": f"{record.epochs_done} of {record.epochs}",
        "created": moment(record.created_at.isoformat()),
        "training time": duration(record.training_s),
        "images per second": record.images_per_second,
        "parameters": record.parameters,
    }
    print_pairs({name: value for name, value in pairs.items() if value not in (None, "")})


def _show_changes(record: RunRecord) -> None:
    origin = record.preset or f"{record.model}'s defaults"
    changes = _changes(record)
    if changes is None:
        click.echo(f"\nsettings: this release has no {origin} to compare with")
        return
    changes = {name: pair for name, pair in changes.items() if name not in ("preset", "name", "variant")}
    click.echo(f"\nsettings that differ from {origin}" + ("" if changes else ": none"))
    if changes:
        print_rows([{"setting": name, "there": old, "here": new} for name, (old, new) in changes.items()])


def _show_result(record: RunRecord) -> None:
    if not record.metrics:
        click.echo("\nnot tested" + (", since it is not finished" if record.state != "finished" else ""))
        return
    figures = record.metrics
    click.echo(f"\ntest: {figures.get('n', 0):,} images, accuracy {percent(figures.get('accuracy'))}")
    names = ["loss", "top2_accuracy", "ece", "best_epoch", "best_val_accuracy"]
    names += ["latency_ms", "latency_spread_ms"]
    print_pairs({name: figures[name] for name in names if figures.get(name) is not None})
    if figures.get("per_class"):
        click.echo("")
        print_rows(figures["per_class"], ("class_name", "precision", "recall", "f1", "support"))


def _show_environment(store: RunStore, record: RunRecord) -> None:
    if record.dataset:
        click.echo("\ndataset")
        print_pairs(record.dataset)
    if record.environment:
        click.echo("\nenvironment")
        print_pairs(_flat(record.environment))
    try:
        artifacts = store.artifacts(record.id)
    except StoreError as error:
        click.echo(f"\nfiles: {error}")
        return
    click.echo(f"\nfiles in {store.artifact_dir(record.id)}")
    print_pairs({artifact.name: f"{artifact.size:,} bytes" for artifact in artifacts})


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name} ") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat

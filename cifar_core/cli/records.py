"""`leaderboard`, `runs`, `show`, `stop` and `delete`: what the store holds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cifar_core.cli.base import command, format_options, json_option, run_argument
from cifar_core.cli.output import (
    duration,
    percent,
    print_as,
    print_json,
    print_pairs,
    print_rows,
    printable,
    records,
)
from cifar_core.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from cifar_core.store import RunRecord, RunStore

_BOARD = (
    "rank",
    "model",
    "variant",
    "preset",
    "dataset",
    "protocol",
    "subset",
    "runs",
    "accuracy",
    "sd",
    "best_run",
)
_RUNS = (
    "id",
    "state",
    "model",
    "variant",
    "preset",
    "dataset",
    "epochs_done",
    "epochs",
    "accuracy",
    "created_at",
)


@command("leaderboard")
@format_options
@click.option(
    "--by", type=click.Choice(("variant", "settings")), default="variant", help="What makes one row."
)
@click.option("--model", help="Only this architecture.")
@click.option("--dataset", help="Only this dataset: cifar10 or synthetic.")
@click.option("--protocol", help="Only this protocol: held-out or test-selected.")
def leaderboard(form: str, by: Any, **only: str | None) -> None:
    """Finished runs, best mean test accuracy first.

    Ranks count within one board: the same images, the same protocol, whole runs apart from those
    on a part of the images.
    """
    _check_known(**only)
    rows = records(_store().leaderboard(by=by, **only))
    print_as(form, rows, _BOARD, "No finished run. Train one: cifar-lab train --preset base_cnn/recommended")


@command("runs")
@click.option("--state", help="Only runs in this state: queued, running, finished, stopped ...")
@click.option("--model", help="Only this architecture.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest so many.")
@format_options
def runs(state: str | None, model: str | None, limit: int | None, form: str) -> None:
    """All runs, newest first. A run whose process has died is shown as crashed."""
    _check_known(model=model, state=state)
    store = _store()
    store.reap()
    rows = records(store.runs(state=state, model=model, limit=limit))
    if form == "table":
        rows = [{**row, "created_at": _moment(row["created_at"])} for row in rows]
    print_as(form, rows, _RUNS, "No such run." if state or model else "No run yet.")


@command("show")
@run_argument
@json_option()
def show(run: str, as_json: bool) -> None:
    """One run: its settings, its figures, its circumstances.

    RUN is its id, or enough of the id's beginning.
    """
    store = _store()
    store.reap()
    record = store.get(run)
    if as_json:
        print_json(_document(store, record))
        return
    _show_head(record)
    _show_changes(record)
    _show_figures(record)
    _show_history(store, record)
    _show_circumstances(store, record)


@command("stop")
@run_argument
@json_option()
def stop(run: str, as_json: bool) -> None:
    """Ask a run to stop.

    A queued run is stopped at once, a running one within a step; it keeps its best weights and its
    history, and 'cifar-lab resume' goes on from there.
    """
    store = _store()
    store.reap()
    run_id = store.resolve(run)
    state = store.request_stop(run_id)
    if as_json:
        print_json({"run": run_id, "state": state})
    else:
        click.echo(f"{run_id} is {state}" + (" (it ends within a step)" if state == "stopping" else ""))


@command("delete")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, show_default=False, help="Do not ask.")
@json_option()
def delete(runs: Sequence[str], yes: bool, as_json: bool) -> int:
    """Remove runs or searches for good, with their files."""
    store = _store()
    store.reap()
    ids = list(dict.fromkeys(store.resolve(run) for run in runs))
    if not yes and not _agreed(ids):
        click.echo("Nothing was deleted.", err=True)
        return 1
    for run_id in ids:
        store.delete(run_id)
        if not as_json:
            click.echo(f"deleted {run_id}")
    if as_json:
        print_json({"deleted": ids})
    return 0


def _store() -> RunStore:
    from cifar_core.store import RunStore

    return RunStore()


def _check_known(
    *,
    model: str | None = None,
    dataset: str | None = None,
    protocol: str | None = None,
    state: str | None = None,
) -> None:
    """A misspelt filter is a mistake, and no empty list.

    Raises:
        ConfigError: it names what there is.
    """
    from cifar_core.config import TrainConfig
    from cifar_core.fields import describe
    from cifar_core.models import model_config
    from cifar_core.store import RunState

    if model is not None:
        model_config(model)
    declared = describe(TrainConfig)
    choices = {
        "dataset": (dataset, declared["dataset"].choices),
        "protocol": (protocol, declared["protocol"].choices),
        "state": (state, tuple(map(str, RunState))),
    }
    for name, (given, known) in choices.items():
        if given is not None and given not in known:
            raise ConfigError(f"--{name} must be one of {', '.join(known)}; got {given!r}.")


def _agreed(ids: Sequence[str]) -> bool:
    """
    Raises:
        ConfigError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise ConfigError("Deleting cannot be undone: say --yes.")
    return click.confirm(f"Delete {', '.join(ids)} with all files?", default=False)


def _moment(text: str | None) -> str | None:
    """2026-01-31T12:34:56.789+00:00 as 2026-01-31 12:34."""
    return text and text[:16].replace("T", " ")


def _document(store: RunStore, record: RunRecord) -> dict[str, Any]:
    from dataclasses import fields

    return {
        **{field.name: getattr(record, field.name) for field in fields(record)},
        "differs_from_preset": _changes(record),
        "history": records(store.history(record.id)),
        "events": records(store.events(record.id)),
        "artifacts": store.artifacts(record.id),
        "folder": store.artifact_dir(record.id),
    }


def _changes(record: RunRecord) -> dict[str, Any] | None:
    """Settings that differ from the run's preset or, without one, from the model's defaults.

    As {name: (there, here)}; None where this release does not know the preset or the settings.
    """
    from cifar_core.config import TrainConfig
    from cifar_core.presets import preset

    try:
        start = preset(record.preset) if record.preset else TrainConfig(model=record.model)
        return record.config.changes_from(start)
    except ConfigError:
        return None


def _show_head(record: RunRecord) -> None:
    click.echo(
        f"run {record.id}: {record.state}" + (f" ({printable(record.reason)})" if record.reason else "")
    )
    pairs = {
        "name": record.name,
        "model": record.model,
        "variant": record.variant,
        "preset": record.preset,
        "protocol": record.protocol,
        "seed": record.seed,
        "epochs": f"{record.epochs_done} of {record.epochs}",
        "created": _moment(record.created_at.isoformat()),
        "training time": duration(record.training_s),
        "images per second": record.images_per_second,
        "parameters": record.parameters,
    }
    print_pairs({name: value for name, value in pairs.items() if value not in (None, "")})


def _show_changes(record: RunRecord) -> None:
    origin = record.preset or f"{record.model}'s defaults"
    changes = _changes(record)
    if changes is None:
        click.echo(f"\nsettings: this release knows no {origin} to compare with")
        return
    changes = {name: pair for name, pair in changes.items() if name not in ("preset", "name", "variant")}
    click.echo(f"\nsettings that differ from {origin}" + ("" if changes else ": none"))
    if changes:
        print_rows(
            [{"setting": name, "there": there, "here": here} for name, (there, here) in changes.items()]
        )


def _show_figures(record: RunRecord) -> None:
    if not record.metrics:
        click.echo("\nnot tested" + (", since it is not finished" if record.state != "finished" else ""))
        return
    figures = record.metrics
    click.echo(f"\ntest: {figures.get('n', 0):,} images, accuracy {percent(figures.get('accuracy'))}")
    names = ("loss", "top2_accuracy", "ece", "best_epoch", "best_val_accuracy")
    print_pairs({name: figures[name] for name in names if figures.get(name) is not None})
    if figures.get("per_class"):
        click.echo("")
        print_rows(figures["per_class"], ("class_name", "precision", "recall", "f1", "support"))


def _show_history(store: RunStore, record: RunRecord) -> None:
    rows = records(store.history(record.id))
    if rows:
        click.echo("")
        columns = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds")
        print_rows(rows, [column for column in columns if column in rows[0]])


def _show_circumstances(store: RunStore, record: RunRecord) -> None:
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

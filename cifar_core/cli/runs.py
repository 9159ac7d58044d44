"""`leaderboard`, `runs`, `searches`, `stop` and `delete`: the contents of the store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from cifar_core.cli.app import command, current_store, format_options, json_option, run_argument, switch
from cifar_core.cli.output import moment, print_as, print_result, records
from cifar_core.errors import ConfigError

_BOARD = ("rank", "model", "variant", "preset", "dataset", "protocol", "subset", "runs", "accuracy", "sd",
          "best_run")  # fmt: skip
_RUNS = ("id", "state", "model", "variant", "preset", "dataset", "epochs_done", "epochs", "accuracy",
         "created_at")  # fmt: skip
_SEARCHES = ("id", "state", "model", "tuner", "trials_done", "trials_planned", "best_score", "best_run",
             "created_at")  # fmt: skip


@command("leaderboard")
@format_options
@click.option(
    "--by", type=click.Choice(("variant", "settings")), default="variant", help="What makes one row."
)
@click.option("--model", help="Only this model.")
@click.option("--dataset", help="Only this dataset, by its name in settings.")
@click.option("--protocol", help="Only this protocol: held-out or test-selected.")
def leaderboard(form: str, by: Any, model: str | None, dataset: str | None, protocol: str | None) -> None:
    """Finished runs, best mean test accuracy first.

    Ranks compare runs with the same dataset and protocol; runs on a subset of the images rank separately.
    """
    _check_known(model, dataset=dataset, protocol=protocol)
    rows = records(current_store().leaderboard(by=by, model=model, dataset=dataset, protocol=protocol))
    print_as(form, rows, _BOARD, "No finished run. Train one: cifar-lab train --preset base_cnn/recommended")


@command("runs")
@click.option("--state", help="Only runs in this state: queued, running, finished, stopped ...")
@click.option("--model", help="Only this model.")
@click.option("--limit", type=click.IntRange(min=1), help="Only this many, the newest.")
@format_options
def runs(state: str | None, model: str | None, limit: int | None, form: str) -> None:
    """All runs, newest first. A run whose process has died is shown as crashed."""
    _check_known(model, state=state)
    store = current_store()
    rows = records(store.runs(state=state, model=model, limit=limit))
    _print_dated(form, rows, _RUNS, "No such run." if state or model else "No run yet.")
    for notice in store.notices():
        click.echo(notice, err=True)


@command("searches")
@format_options
def searches(form: str) -> None:
    """All searches, newest first."""
    _print_dated(form, records(current_store().searches()), _SEARCHES, "No search yet.")


@command("stop")
@run_argument
@json_option()
def stop(run: str, as_json: bool) -> None:
    """Ask a run or search to stop.

    A queued run stops at once, a running one after its current step. It keeps its best weights and its
    history, and 'cifar-lab resume' continues from there.
    """
    store = current_store()
    run_id = store.resolve(run)
    state = store.request_stop(run_id)
    note = " (it ends after its current step)" if state == "stopping" else ""
    print_result(as_json, {"run": run_id, "state": state}, f"{run_id} is {state}{note}")


@command("delete")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@switch("--yes", help="Delete without asking.")
@json_option()
def delete(runs: Sequence[str], yes: bool, as_json: bool) -> int:
    """Delete runs or searches permanently, with their files."""
    store = current_store()
    ids = list(dict.fromkeys(store.resolve(run) for run in runs))
    if not yes and not sys.stdin.isatty():
        raise ConfigError("Deleting cannot be undone: confirm with --yes.")
    if not yes and not click.confirm(f"Delete {', '.join(ids)} with all files?", default=False):
        click.echo("Nothing was deleted.", err=True)
        return 1
    for run_id in ids:
        store.delete(run_id)
        if not as_json:
            click.echo(f"deleted {run_id}")
    print_result(as_json, {"deleted": ids})
    return 0


def _print_dated(form: str, rows: list[dict[str, Any]], columns: Sequence[str], empty: str) -> None:
    if form == "table":
        rows = [{**row, "created_at": moment(row["created_at"])} for row in rows]
    print_as(form, rows, columns, empty)


def _check_known(model: str | None, **filters: str | None) -> None:
    """Refuse a misspelt filter, which would otherwise find nothing.

    Raises:
        ConfigError: unknown model, dataset, protocol or state; the message lists the known ones.
    """
    from cifar_core.base.fields import describe
    from cifar_core.data import catalogue
    from cifar_core.models import model_config
    from cifar_core.settings.train_config import TrainConfig
    from cifar_core.store import RunState

    if model is not None:
        model_config(model)
    for name, given in filters.items():
        known = tuple(map(str, RunState)) if name == "state" else describe(TrainConfig)[name].choices
        if name == "dataset":
            known = tuple(catalogue.entries())
            if given is not None and given not in known:  # one that was removed may still have runs
                known = tuple(dict.fromkeys([*known, *sorted(set(current_store().runs()["dataset"]))]))
        if given is not None and given not in known:
            raise ConfigError(f"--{name} must be one of {', '.join(known)}; got {given!r}.")

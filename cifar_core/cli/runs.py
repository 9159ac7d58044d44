"""`leaderboard`, `runs`, `searches`, `stop` and `delete`: what the store holds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cifar_core.cli.app import command, format_options, json_option, run_argument
from cifar_core.cli.output import moment, print_as, print_json, records
from cifar_core.errors import ConfigError

if TYPE_CHECKING:
    from cifar_core.store import RunStore

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
_SEARCHES = (
    *("id", "state", "model", "tuner", "trials_done", "trials_planned"),
    *("best_score", "best_run", "created_at"),
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
        rows = [{**row, "created_at": moment(row["created_at"])} for row in rows]
    print_as(form, rows, _RUNS, "No such run." if state or model else "No run yet.")


@command("searches")
@format_options
def searches(form: str) -> None:
    """All searches, newest first."""
    store = _store()
    store.reap()
    rows = records(store.searches())
    if form == "table":
        rows = [{**row, "created_at": moment(row["created_at"])} for row in rows]
    print_as(form, rows, _SEARCHES, "No search yet.")


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
    from cifar_core.base.fields import describe
    from cifar_core.models import model_config
    from cifar_core.settings.train_config import TrainConfig
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

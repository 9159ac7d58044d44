"""`reproduce`: the study's seven runs, its figures beside ours."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

from cifar_core.cli.base import PROGRAM, command
from cifar_core.cli.framework import load_framework
from cifar_core.cli.options import read_seeds
from cifar_core.cli.output import print_as, records
from cifar_core.cli.progress import Reporter, reporting
from cifar_core.cli.signals import stopping
from cifar_core.cli.training import queue_all
from cifar_core.config import TrainConfig
from cifar_core.errors import ConfigError
from cifar_core.fields import describe

if TYPE_CHECKING:
    from cifar_core.recorder import Progress
    from cifar_core.reproduce import Watcher

_TABLE = (
    "preset",
    "protocol",
    "published",
    "ours",
    "difference",
    "epochs",
    "train_images",
    "minutes",
    "verdict",
)
_DATASET = describe(TrainConfig)["dataset"]


@command("reproduce")
@click.option(
    "--runs", "only", metavar="NAME,NAME,...", help="Presets, models or variants; all seven where not said."
)
@click.option("--scale", metavar="FLOAT", default="1", help="Share of images and epochs, above 0 to 1.")
@click.option("--dataset", metavar=f"[{'|'.join(_DATASET.choices)}]", default="cifar10", help=_DATASET.help)
@click.option("--seeds", metavar="N,N,...", default="0", help="Each run once for each of these seeds.")
@click.option("--store/--no-store", default=True, help="Record the runs.")
@click.option("--queue", is_flag=True, show_default=False, help="Only queue them, for a worker or the app.")
@click.option(
    "--table", "table_only", is_flag=True, show_default=False, help="Train nothing: only compare stored runs."
)
@click.option(
    "--format", "form", type=click.Choice(("table", "csv", "json")), default="table", help="How to print it."
)
@click.option("--json", "as_json", is_flag=True, show_default=False, help="The same as --format json.")
def reproduce(
    only: str | None,
    scale: str,
    dataset: Any,
    seeds: str,
    store: bool,
    queue: bool,
    table_only: bool,
    form: str,
) -> int:
    """Train the study's seven runs and set our test accuracy beside its own.

    The whole takes days on a few cores; --scale 0.02 takes minutes, and the table then says that
    its figures do not compare.
    """
    from cifar_core.data import load_dataset
    from cifar_core.reproduce import paper_runs, reproduction_table
    from cifar_core.reproduce import reproduce as carry_out
    from cifar_core.store import RunStore

    names = only.split(",") if only is not None else None
    configs = paper_runs(names, _scale(scale), dataset=dataset, seeds=read_seeds(seeds))
    if (queue or table_only) and not store:
        raise ConfigError("--queue and --table are about stored runs: leave out --no-store.")
    record = RunStore() if store else None
    if table_only:
        print_as(form, records(reproduction_table(record, only=names)), _TABLE)
        return 0
    if queue:
        return queue_all(record, configs, as_json=form == "json")
    images = load_dataset(dataset)
    with stopping() as stop, reporting(as_json=form != "table") as progress:
        load_framework()
        table = carry_out(
            configs,
            store=record,
            dataset=images,
            progress=_watcher(progress, sys.stdout if form == "table" else sys.stderr),
            should_stop=stop.requested,
        )
    print_as(form, records(table), _TABLE)
    if stop.requested():
        click.echo(f"{PROGRAM}: stopped before all runs were done", err=True)
        return stop.exit_status
    return 0 if table["ours"].notna().all() else 1


def _scale(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"scale must be a number above 0 and to 1 (1: the whole study); got {text!r}."
        ) from None


def _watcher(progress: Reporter, stream: TextIO) -> Watcher:
    """Says which run begins; the rest is the reporter's."""

    def watch(number: int, total: int, config: TrainConfig, event: Progress | None) -> None:
        if event is not None:
            progress(event)
        else:
            click.echo(
                f"[{number}/{total}] {config.preset}, seed {config.seed}, {config.epochs} epochs", file=stream
            )

    return watch

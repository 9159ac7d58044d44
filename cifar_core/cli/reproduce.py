"""`reproduce`: the study's seven runs, its figures beside ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cifar_core.base.fields import describe
from cifar_core.cli.app import PROGRAM, command, format_options
from cifar_core.cli.framework import load_framework
from cifar_core.cli.options import read_seeds
from cifar_core.cli.output import print_as, records
from cifar_core.cli.progress import Reporter, reporting
from cifar_core.cli.signals import stopping
from cifar_core.cli.train import queue_all
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import TrainConfig

if TYPE_CHECKING:
    from cifar_core.training.recorder import Progress
    from cifar_core.training.reproduce import Watcher

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
@format_options
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
    from cifar_core.store import RunStore
    from cifar_core.training.reproduce import paper_runs, reproduction_table
    from cifar_core.training.reproduce import reproduce as carry_out

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
        load_framework(configs[0])
        table = carry_out(
            configs,
            store=record,
            dataset=images,
            progress=_watcher(progress),
            should_stop=stop.requested,
        )
    print_as(form, records(table), _TABLE)
    if stop.requested():
        click.echo(f"{PROGRAM}: stopped before all runs were done", err=True)
        return stop.exit_status
    failed = int(table["ours"].isna().sum())
    if failed:
        click.echo(f"{PROGRAM}: {failed} of {len(table)} runs came to no figure (see verdict)", err=True)
    return 1 if failed else 0


def _scale(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"scale must be a number above 0 and to 1 (1: the whole study); got {text!r}."
        ) from None


def _watcher(progress: Reporter) -> Watcher:
    """Says which run begins; the rest is the reporter's."""

    def watch(number: int, total: int, config: TrainConfig, event: Progress | None) -> None:
        if event is not None:
            progress(event)
        else:
            of = f"{config.preset}, seed {config.seed}, {config.epochs} epochs"
            progress.say(f"[{number}/{total}] {of}")

    return watch

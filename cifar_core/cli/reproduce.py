"""`reproduce`: the study's seven runs; `reference`: the runs that come with the release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cifar_core.base.fields import describe
from cifar_core.base.files import write_whole
from cifar_core.cli.app import PROGRAM, command, format_options, load_framework, stopping, switch
from cifar_core.cli.options import read_numbers
from cifar_core.cli.output import print_as, records
from cifar_core.cli.progress import Reporter, reporting
from cifar_core.cli.train import queue_all
from cifar_core.data.catalogue import BUILT_IN, DEFAULT
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import TrainConfig

if TYPE_CHECKING:
    from cifar_core.analysis.study.reference_runs import ReferenceRun
    from cifar_core.training.recorder import Progress
    from cifar_core.training.reproduce import Watcher

_STUDY = ("preset", "protocol", "published", "ours", "difference", "epochs", "train_images", "minutes",
          "verdict")  # fmt: skip
_REFERENCE = ["preset", "epochs", "accuracy", "latency_ms", "minutes", "seed", "changes", "data", "hardware"]
_DATASET = describe(TrainConfig)["dataset"]


@command("reproduce")
@click.option(
    "--runs", "only", metavar="NAME,NAME,...", help="Presets, models or variants; by default all seven runs."
)
@click.option("--scale", metavar="FLOAT", default="1", help="Share of images and epochs, above 0 to 1.")
@click.option("--dataset", metavar=f"[{'|'.join(BUILT_IN)}]", default=DEFAULT, help=_DATASET.help)
@click.option("--seeds", metavar="N,N,...", default="0", help="Each run once for each of these seeds.")
@click.option("--store/--no-store", default=True, help="Record the runs.")
@switch("--queue", help="Only queue the runs, for a worker or the app.")
@switch("--table", "table_only", help="Train nothing; only compare stored runs.")
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
    """Train the study's seven runs and compare their test accuracy with the published one.

    All of it takes days on a few cores. --scale 0.02 takes minutes; the table then says that its numbers
    are not comparable.
    """
    from cifar_core.data import load_dataset
    from cifar_core.store import RunStore
    from cifar_core.training.reproduce import paper_runs, reproduction_table
    from cifar_core.training.reproduce import reproduce as carry_out

    names = only.split(",") if only is not None else None
    configs = paper_runs(names, _scale(scale), dataset=dataset, seeds=read_numbers("seeds", seeds))
    if (queue or table_only) and not store:
        raise ConfigError("--queue and --table are about stored runs: leave out --no-store.")
    if table_only:
        print_as(form, records(reproduction_table(RunStore(), only=names)), _STUDY)
        return 0
    if queue:
        return queue_all(RunStore(), configs, as_json=form == "json")
    record, images = RunStore() if store else None, load_dataset(dataset)
    with stopping() as stop, reporting(as_json=form != "table") as progress:
        load_framework(configs[0])
        watch, asked = _watcher(progress), stop.requested
        table = carry_out(configs, store=record, dataset=images, progress=watch, should_stop=asked)
    print_as(form, records(table), _STUDY)
    if stop.requested():
        click.echo(f"{PROGRAM}: stopped before all runs were done", err=True)
        return stop.exit_status
    failed = int(table["ours"].isna().sum())
    if failed:
        click.echo(f"{PROGRAM}: {failed} of {len(table)} runs have no result (see verdict)", err=True)
    return 1 if failed else 0


def _scale(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"scale must be a number above 0 and at most 1 (all); got {text!r}.") from None


def _watcher(progress: Reporter) -> Watcher:
    """Progress callback that prints a line when a run begins and passes other events to the reporter."""

    def watch(number: int, total: int, config: TrainConfig, event: Progress | None) -> None:
        if event is not None:
            progress(event)
        else:
            progress.say(f"[{number}/{total}] {config.preset}, seed {config.seed}, {config.epochs} epochs")

    return watch


@command("reference")
@switch("--markdown", help="Print the tables of README and docs/results.md.")
@click.option("--keep", metavar="RUN", help="Save this run of your store as a reference run of the package.")
@click.option("--data", metavar="TEXT", help="With --keep: description of its images.")
@switch("--network", help="With --keep: also as the trained network that comes with the package.")
@click.option("--figure", metavar="FILE", help="Write accuracy against minutes, as an HTML page.")
@switch("--add", help="Add the trained network that comes with this release to your store.")
@format_options
def reference(
    markdown: bool,
    keep: str | None,
    data: str | None,
    network: bool,
    figure: str | None,
    add: bool,
    form: str,
) -> int:
    """Runs that come with this release, with their results, data and hardware.

    Each can be trained again from its preset and the listed changes: cifar-lab train --preset NAME.
    """
    from cifar_core.analysis.study import reference_runs, trained
    from cifar_core.store import RunStore

    if keep is None and (data is not None or network):
        raise ConfigError("--data and --network say more of a kept run: give --keep RUN too.")
    if add:
        click.echo(f"{trained.add(RunStore())} is in your store: cifar-lab show, predict or export takes it.")
    elif keep is not None:
        store = RunStore()
        run_id = store.resolve(keep)
        click.echo(reference_runs.keep(store, run_id, data or ""))
        if network:
            click.echo(trained.ship(store, run_id, data or ""))
    elif figure is not None:
        from cifar_core.plots import accuracy_against_cost, themed

        chart = accuracy_against_cost(reference_runs.costs(), "minutes")
        write_whole(Path(figure), themed(chart).to_html())
    elif markdown:
        click.echo(f"{reference_runs.headline()}\n\n{reference_runs.markdown()}")
    else:
        print_as(form, [_row(run) for run in reference_runs.reference_runs()], _REFERENCE)
    return 0


def _row(run: ReferenceRun) -> dict[str, Any]:
    changes = run.changes(run.config.preset).items() if run.config.preset else ()
    return {
        "id": run.id,
        "preset": run.config.preset,
        "changes": ", ".join(f"{name}={value}" for name, value in changes),
        "seed": run.config.seed,
        "epochs": run.epochs,
        "accuracy": run.accuracy,
        "latency_ms": run.metrics.get("latency_ms"),
        "minutes": run.minutes,
        "data": run.data,
        "hardware": run.hardware,
    }

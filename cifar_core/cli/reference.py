"""`reference`: our own runs that come with the release, beside the study's figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cifar_core.cli.app import command, format_options
from cifar_core.cli.output import print_as
from cifar_core.errors import ConfigError

if TYPE_CHECKING:
    from cifar_core.analysis.study.reference_runs import ReferenceRun

_TABLE = ("preset", "epochs", "accuracy", "latency_ms", "minutes", "seed", "changes", "data", "hardware")


@command("reference")
@click.option("--markdown", is_flag=True, show_default=False, help="README's tables of these runs.")
@click.option("--keep", metavar="RUN", help="Write this run of your store as a reference run of the package.")
@click.option("--data", metavar="TEXT", help="With --keep: what its images were.")
@format_options
def reference(markdown: bool, keep: str | None, data: str | None, form: str) -> int:
    """The runs that come with this release: what each setting reached, on which data and hardware.

    Each can be trained again by its preset and what was changed: cifar-lab train --preset NAME.
    """
    from cifar_core.analysis.study import reference_runs

    if data is not None and keep is None:
        raise ConfigError("--data says what the images of a kept run were: give --keep RUN too.")
    if keep is not None:
        from cifar_core.store import RunStore

        store = RunStore()
        click.echo(reference_runs.keep(store, store.resolve(keep), data or ""))
    elif markdown:
        click.echo(reference_runs.markdown())
    else:
        print_as(form, [_row(run) for run in reference_runs.reference_runs()], _TABLE)
    return 0


def _row(run: ReferenceRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "preset": run.config.preset,
        "changes": ", ".join(f"{name}={value}" for name, value in run.changes(run.config.preset).items()),
        "seed": run.config.seed,
        "epochs": run.epochs,
        "accuracy": run.accuracy,
        "latency_ms": run.metrics.get("latency_ms"),
        "minutes": run.minutes,
        "data": run.data,
        "hardware": run.hardware,
    }

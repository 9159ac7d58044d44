"""`robustness`: accuracy of finished runs on corrupted images and further test sets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cifar_core.cli.app import command, current_store, json_option, load_framework
from cifar_core.cli.output import percent, print_json, print_rows

if TYPE_CHECKING:
    from cifar_core.base.lazy import pd


@command("robustness")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--test-set",
    "paths",
    multiple=True,
    metavar="FOLDER",
    help="A folder with CIFAR-10.1 or CIFAR-10-C, to measure instead of our own corruptions; several times "
    "for several.",
)
@json_option()
def robustness(runs: Sequence[str], paths: Sequence[str], as_json: bool) -> None:
    """Measure how accurate finished runs stay on corrupted test images.

    Noise, blur, low contrast, JPEG and small shifts, each at five strengths, on the test images of each run.
    Each test set is looked at once: what is on record is printed, not measured again. The results are
    recorded with the runs, for the leaderboard's part 'Robustness'.
    """
    from cifar_core.serving.robustness import OWN, measure, summary
    from cifar_core.serving.run_export import settings_if_known

    store = current_store()
    ids = [store.resolve(run) for run in runs]
    load_framework(settings_if_known(store.get(ids[0])))
    rows = measure(store, ids, corruptions=not paths, paths=paths, tell=_Progress().tell)
    if as_json:
        print_json({"rows": rows.to_dict("records")})
        return
    shown = [name for name in rows["test_set"].unique() if name != "clean"]
    for name in [one for one in shown if paths or one == OWN]:
        click.echo(f"{name}:")
        print_rows(_printed(summary(rows, name)))


def _printed(table: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {"run": str(run_id), **{str(name): percent(value) for name, value in row.items()}}
        for run_id, row in zip(table.index, table.to_dict("records"), strict=True)
    ]


class _Progress:
    """Percentages on stderr: in one place on a terminal, a line for each tenth elsewhere."""

    def __init__(self) -> None:
        self._tenth = 0

    def tell(self, share: float, text: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{share:4.0%}  {text}", err=True, nl=share == 1)
        elif int(10 * share) > self._tenth:
            self._tenth = int(10 * share)
            click.echo(f"{share:4.0%}  {text}", err=True)

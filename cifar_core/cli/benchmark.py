"""`bench`: measure speed on this machine, and the compute settings that "auto" chooses."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import click

from cifar_core.cli.app import command, handled, json_option
from cifar_core.cli.options import read_numbers
from cifar_core.cli.output import print_json, print_pairs, print_rows
from cifar_core.errors import ConfigError


@command("bench")
@click.argument(
    "part", default="all", metavar="[all|startup|augmentation|training|overhead|exports|store|settings]"
)
@click.option("--models", default="base_cnn", metavar="NAME,NAME,...", help="Models to train and export.")
@click.option("--images", type=int, default=2560, help="Images per measurement.")
@click.option("--rounds", type=int, default=3, help="How often each variant has its turn.")
@click.option(
    "--runs", default="10,100,1000,10000", metavar="N,N,...", help="Sizes of the stores that 'store' fills."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the JSON and HTML files, by default 'bench' in the lab's home.",
)
@click.option("--files/--no-files", default=True, help="Write the result to files too.")
@json_option()
def bench(
    part: str, models: str, images: int, rounds: int, runs: str, out: Path | None, files: bool, as_json: bool
) -> None:
    """Compare the speed of the study's pipeline, bare Keras and this project on this machine.

    'all' is every part but 'settings', which measures the compute settings of a model; "auto" chooses the
    fastest from then on.
    """
    from cifar_core.cli.bench import run_bench, write_files

    if out is not None and not files:
        raise ConfigError("--out names the folder for the files: leave out --no-files.")
    with handled(_end, signal.SIGTERM):
        result = run_bench(
            part,
            models=tuple(models.split(",")),
            images=images,
            rounds=rounds,
            runs=read_numbers("runs", runs, example="10,100,1000"),
            progress=lambda text: click.echo(text, err=True),
        )
    if as_json:
        print_json(result)
    else:
        _print(result)
    for file in write_files(result, out) if files else ():
        click.echo(f"wrote {file}", err=as_json)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """End like after Ctrl-C, so that processes and temporary folders are removed."""
    raise SystemExit(128 + number)


def _print(result: dict[str, Any]) -> None:
    from cifar_core.cli.bench.result import HEADINGS, by_part, circumstances, columns

    print_pairs(dict(circumstances(result)))
    for part, rows in by_part(result["rows"]):
        click.echo(f"\n{HEADINGS[part]}")
        print_rows(rows, columns(rows))

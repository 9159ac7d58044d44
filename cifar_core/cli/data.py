"""`data status`, `download`, `import`, `add`, `list` and `remove`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from cifar_core.cli.app import CONTEXT, PROGRAM, command, debug_option, json_option, stopping, switch
from cifar_core.cli.output import print_json, print_result, print_rows, printable
from cifar_core.cli.progress import counting, sharing
from cifar_core.data.problem import SIDES
from cifar_core.errors import DataError, DownloadError


@click.group("data", context_settings=CONTEXT, no_args_is_help=False)
def data() -> None:
    """Find, download or import CIFAR-10, and add datasets of your own."""


data.params.append(debug_option())


@command("status")
@switch("--verify", help="Read every batch and verify checksums too (about two seconds).")
@json_option()
def status(verify: bool, as_json: bool) -> None:
    """Where images are searched for, and what was found."""
    from cifar_core.data import dataset_status
    from cifar_core.data.locate import overruling

    found = dataset_status(verify=verify)
    lines = [f"{place}: {what}" for place, what in found.searched]
    if found.found:
        lines.append(f"CIFAR-10: {found.source}, {found.origin}")
    else:
        lines.append("CIFAR-10: not found. Download it (170 MB) with: cifar-lab data download")
        lines.append("or import a copy that you have: cifar-lab data import PATH")
        lines.append("or use synthetic images: --dataset synthetic")
    if words := overruling():
        lines.append(words)
    print_result(as_json, found, *lines)


@command("download")
@click.option("--url", "urls", multiple=True, help="URL of the official archive; several are tried in turn.")
@json_option()
def download(urls: Sequence[str], as_json: bool) -> int:
    """Download CIFAR-10 (170 MB) into the home folder; an interrupted download is resumed."""
    from cifar_core.data import download_cifar10

    unused = _say_overruling()
    with stopping() as stop:
        try:
            with counting("CIFAR-10") as progress:
                found = list(urls) or None
                folder = download_cifar10(urls=found, progress=progress, should_stop=stop.requested)
        except DownloadError as error:
            if not stop.requested():
                raise
            click.echo(f"{PROGRAM}: {error}", err=True)
            return stop.exit_status
    _print(folder, unused, as_json)
    return 0


@command("import")
@click.argument("path")
@json_option()
def import_(path: str, as_json: bool) -> None:
    """Copy CIFAR-10 from a folder or archive into the home folder, checking every batch.

    PATH is or contains cifar-10-batches-py or cifar-10-batches-bin, or is a .tar.gz, .tar or .zip of either.
    """
    from cifar_core.data import import_cifar10

    unused = _say_overruling()
    _print(import_cifar10(path), unused, as_json)


def _say_overruling() -> bool:
    """Whether the copy that is about to be made will not be used; says so."""
    from cifar_core.data.locate import overruling

    if words := overruling():
        click.echo(f"{PROGRAM}: {words}", err=True)
    return bool(words)


def _print(folder: Path, unused: bool, as_json: bool) -> None:
    words = f"A copy that is not used is in {folder}" if unused else f"CIFAR-10 is in {folder}"
    print_result(as_json, {"folder": folder, "used": not unused}, words)


@command("add")
@click.argument("name")
@click.argument("path")
@click.option(
    "--side",
    type=click.IntRange(*SIDES),
    help=f"Side of the images in pixels; by default that of the arrays where they have one, else {SIDES[0]}.",
)
@click.option("--title", default="", help="Name for people, by default the form's own or NAME.")
@switch("--skip-broken", help="Leave out files that cannot be read, rather than import nothing.")
@json_option()
def add(name: str, path: str, side: int | None, title: str, skip_broken: bool, as_json: bool) -> int:
    """Import images as the dataset NAME, from a folder by class or another form that is known.

    PATH is a folder such as pictures/cat/1.jpg, with or without train and test above the classes, or a .zip
    or .tar of it; or holds CIFAR-100, SVHN, Fashion-MNIST, Kaggle's files or Parquet files; or is a .npz of
    arrays; or hub:OWNER/NAME, a dataset of the Hugging Face Hub (extra "hub"). Afterwards '--dataset NAME'
    trains on it.
    """
    from cifar_core.data.imported import import_images

    with stopping() as stop:
        try:
            with sharing(name) as progress:
                found = import_images(
                    name, path, side=side, title=title, skip_broken=skip_broken, progress=progress,
                    should_stop=stop.requested,
                )  # fmt: skip
        except DataError as error:
            if not stop.requested():
                raise
            click.echo(f"{PROGRAM}: {error}", err=True)
            return stop.exit_status
    broken = [f"left out: {printable(one)}" for one in found.broken]
    print_result(as_json, asdict(found), *found.lines(), *broken, f"Train on it with: --dataset {name}")
    return 0


@command("list")
@json_option()
def list_(as_json: bool) -> None:
    """Datasets that this machine knows."""
    from cifar_core.data import catalogue

    rows = [
        {
            "name": entry.name,
            "title": entry.title,
            "classes": entry.problem.count,
            "side": entry.problem.side,
            "train": entry.train,
            "test": entry.test,
            "imported": entry.imported,
        }
        for entry in catalogue.entries().values()
    ]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows)


@command("remove")
@click.argument("name")
@json_option()
def remove(name: str, as_json: bool) -> None:
    """Delete an imported dataset; the files that it was imported from stay, and so do runs on it."""
    from cifar_core.data import imported

    imported.remove(name)
    print_result(as_json, {"removed": name}, f"Removed {name}.")


for _command in (status, download, import_, add, list_, remove):
    data.add_command(_command)

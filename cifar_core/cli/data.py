"""`data status`, `data download` and `data import`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from cifar_core.cli.app import CONTEXT, PROGRAM, command, debug_option, json_option, stopping, switch
from cifar_core.cli.output import print_result
from cifar_core.cli.progress import counting
from cifar_core.errors import DownloadError


@click.group("data", context_settings=CONTEXT, no_args_is_help=False)
def data() -> None:
    """Find, download or import CIFAR-10."""


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


for _command in (status, download, import_):
    data.add_command(_command)

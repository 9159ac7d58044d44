"""`data status`, `data download` and `data import`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from cifar_core.cli.app import CONTEXT, PROGRAM, command, debug_option, json_option, stopping, switch
from cifar_core.cli.output import print_result
from cifar_core.cli.progress import counting


@click.group("data", context_settings=CONTEXT, no_args_is_help=False)
def data() -> None:
    """Find, download or import CIFAR-10."""


data.params.append(debug_option())


@command("status")
@switch("--verify", help="Verify checksums too (about a second).")
@json_option()
def status(verify: bool, as_json: bool) -> None:
    """Where images are searched for, and what was found."""
    from cifar_core.data import dataset_status

    found = dataset_status(verify=verify)
    lines = [f"{place}: {what}" for place, what in found.searched]
    if found.found:
        lines.append(f"CIFAR-10: {found.source}, {found.origin}")
    else:
        lines.append("CIFAR-10: not found. Download it (170 MB) with: cifar-lab data download")
        lines.append("or import a copy that you have: cifar-lab data import PATH")
        lines.append("or use synthetic images: --dataset synthetic")
    print_result(as_json, found, *lines)


@command("download")
@click.option("--url", "urls", multiple=True, help="URL of the official archive; several are tried in turn.")
@json_option()
def download(urls: Sequence[str], as_json: bool) -> int:
    """Download CIFAR-10 (170 MB) into the home folder; an interrupted download is resumed."""
    from cifar_core.data import download_cifar10
    from cifar_core.errors import DownloadError

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
    _print(folder, as_json)
    return 0


@command("import")
@click.argument("path", type=click.Path(path_type=Path))
@json_option()
def import_(path: Path, as_json: bool) -> None:
    """Copy CIFAR-10 from a folder or archive into the home folder, checking every batch.

    PATH is or contains cifar-10-batches-py or cifar-10-batches-bin, or is the official .tar.gz of either.
    """
    from cifar_core.data import import_cifar10

    _print(import_cifar10(path), as_json)


def _print(folder: Path, as_json: bool) -> None:
    print_result(as_json, {"folder": folder}, f"CIFAR-10 is in {folder}")


for _command in (status, download, import_):
    data.add_command(_command)

"""`data status`, `data download` and `data import`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from cifar_core.cli.app import CONTEXT, command, debug_option, json_option
from cifar_core.cli.output import print_json
from cifar_core.cli.progress import counting
from cifar_core.cli.signals import stopping


@click.group("data", context_settings=CONTEXT, no_args_is_help=False)
def data() -> None:
    """Where CIFAR-10 is; fetch it; take a folder or archive."""


data.params.append(debug_option())


@command("status")
@click.option("--verify", is_flag=True, show_default=False, help="Take checksums too (about a second).")
@json_option()
def status(verify: bool, as_json: bool) -> None:
    """Where the images are looked for, and what was found."""
    from cifar_core.data import dataset_status

    found = dataset_status(verify=verify)
    if as_json:
        print_json(found)
        return
    for place, what in found.searched:
        click.echo(f"{place}: {what}")
    if found.found:
        click.echo(f"CIFAR-10: {found.source}, {found.origin}")
    else:
        click.echo("CIFAR-10: not found. Fetch it (170 MB) with: cifar-lab data download")
        click.echo("or take a copy that you have: cifar-lab data import PATH")
        click.echo("or go without: --dataset synthetic")


@command("download")
@click.option(
    "--url", "urls", multiple=True, help="Where the official archive is; several are tried in turn."
)
@json_option()
def download(urls: Sequence[str], as_json: bool) -> int:
    """Fetch CIFAR-10 (170 MB) into the home folder; a broken-off download is gone on with."""
    from cifar_core.data import download_cifar10
    from cifar_core.errors import DownloadError

    with stopping() as stop:
        try:
            with counting("CIFAR-10") as progress:
                folder = download_cifar10(
                    urls=list(urls) or None, progress=progress, should_stop=stop.requested
                )
        except DownloadError as error:
            if not stop.requested():
                raise
            click.echo(f"cifar-lab: {error}", err=True)
            return stop.exit_status
    _say(folder, as_json)
    return 0


@command("import")
@click.argument("path", type=click.Path(path_type=Path))
@json_option()
def import_(path: Path, as_json: bool) -> None:
    """Copy a folder or archive of CIFAR-10 into the home folder, checking every batch.

    PATH holds cifar-10-batches-py or cifar-10-batches-bin, or is one of them, or the official
    .tar.gz of either.
    """
    from cifar_core.data import import_cifar10

    _say(import_cifar10(path), as_json)


def _say(folder: Path, as_json: bool) -> None:
    if as_json:
        print_json({"folder": folder})
    else:
        click.echo(f"CIFAR-10 is in {folder}")


for _command in (status, download, import_):
    data.add_command(_command)

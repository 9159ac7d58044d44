"""`backup`, `restore`, `pack` and `unpack`: stores and runs as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cifar_core.cli.app import command, json_option
from cifar_core.cli.output import print_json

if TYPE_CHECKING:
    from cifar_core.store import RunStore

_file_argument = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
_force_option = click.option("--force", is_flag=True, show_default=False, help="Replace FILE if it is there.")
_check_option = click.option(
    "--check", is_flag=True, show_default=False, help="Only check FILE, every byte of it; change nothing."
)


def _store_option(which: str) -> Callable[[Any], Any]:
    return click.option(
        "--store",
        "location",
        metavar="PLACE",
        help=f"{which} store, if not the home folder's: a folder, an SQLite file, or the URL of a database "
        "(postgresql+psycopg://user:password@host/name).",
    )


@command("backup")
@_file_argument
@_store_option("The")
@_force_option
@json_option()
def backup(file: Path, location: str | None, force: bool, as_json: bool) -> None:
    """Write the whole store to one file: all runs and searches with their files, all notes.

    It may be in use meanwhile. The file is an ordinary zip with a checksum for everything in it.
    """
    from cifar_core.store.archive.backup import backup as write

    with _opened(location) as store:
        done = write(store, file, overwrite=force)
    if as_json:
        print_json(done)
        return
    click.echo(f"{done.path}  ({done.size:,} bytes): {_counted(done.runs, done.searches)}")


@command("restore")
@_file_argument
@_store_option("The new")
@click.option(
    "--replace",
    is_flag=True,
    show_default=False,
    help="Where there is a store already, move it aside (into a folder beside it) first. SQLite only.",
)
@_check_option
@json_option()
def restore(file: Path, location: str | None, replace: bool, check: bool, as_json: bool) -> None:
    """Put a backup into an empty or new store, all of it or nothing.

    The backup may come from another kind of database. What was running or waiting when it was made
    is stopped afterwards; 'cifar-lab resume' goes on.
    """
    from cifar_core.store.archive.backup import check_backup, open_backup
    from cifar_core.store.archive.backup import restore as put_back

    if check:
        with open_backup(file) as bundle:
            counts = check_backup(bundle)
        _say_checked(file, bundle.manifest, _counted(counts["runs"], counts["searches"]), as_json)
        return
    done = put_back(file, location, replace=replace)
    if as_json:
        print_json(done)
        return
    click.echo(f"{done.location}: {_counted(done.runs, done.searches)}")
    if done.kept is not None:
        click.echo(f"what was there before stands in {done.kept}")


@command("pack")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@_file_argument
@_store_option("The")
@_force_option
@json_option()
def pack(runs: Sequence[str], file: Path, location: str | None, force: bool, as_json: bool) -> None:
    """Write runs or searches to one file, with all that belongs to them, for 'unpack' elsewhere.

    RUN is an id, or enough of its beginning. A search takes its trials along, and not the run that it
    ended in: name that too.
    """
    from cifar_core.store.archive.pack import pack as write

    with _opened(location) as store:
        done = write(store, runs, file, overwrite=force)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{done.path}  ({done.size:,} bytes): {', '.join(done.ids)}")


@command("unpack")
@_file_argument
@_store_option("The")
@click.option(
    "--as-new",
    is_flag=True,
    show_default=False,
    help="Where another run has the id already, take it in under a new one.",
)
@_check_option
@json_option()
def unpack(file: Path, location: str | None, as_new: bool, check: bool, as_json: bool) -> None:
    """Take in what 'pack' wrote, all of it or nothing.

    Everything is checked first. What is here already with the same content stays as it is.
    """
    from cifar_core.store.archive.pack import check_packed, open_packed
    from cifar_core.store.archive.pack import unpack as take_in

    if check:
        with open_packed(file) as bundle:
            jobs, _ = check_packed(bundle)
        _say_checked(file, bundle.manifest, ", ".join(jobs), as_json)
        return
    with _opened(location) as store:
        done = take_in(store, file, existing="new" if as_new else "refuse")
    if as_json:
        print_json(done)
        return
    for job in done:
        renamed = "" if job.id == job.original else f" as {job.id}"
        click.echo(f"{job.original}: {job.outcome}{renamed}, {job.state}")


def _opened(location: str | None) -> RunStore:
    from cifar_core.store import RunStore

    return RunStore(location)


def _counted(runs: int, searches: int) -> str:
    return f"{runs:,} run{'' if runs == 1 else 's'}, {searches:,} search{'' if searches == 1 else 'es'}"


def _say_checked(file: Path, manifest: dict[str, Any], content: str, as_json: bool) -> None:
    about = {name: manifest[name] for name in ("kind", "version", "package", "created_at")}
    if as_json:
        print_json({"file": file, "whole": True, "content": content, **about})
    else:
        click.echo(f"{file} is whole: {content}; release {about['package']}, {about['created_at'][:19]}")

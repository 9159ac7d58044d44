"""`backup`, `restore`, `pack` and `unpack`: stores and runs as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cifar_core.cli.app import command, json_option, switch
from cifar_core.cli.output import print_result

if TYPE_CHECKING:
    from cifar_core.store import RunStore
    from cifar_core.store.archive.bundle import Bundle

_file_argument = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
_force_option = switch("--force", help="Replace FILE if it is there.")
_check_option = switch("--check", help="Only verify FILE; change nothing.")


def _store_option(which: str) -> Callable[[Any], Any]:
    return click.option(
        "--store",
        "location",
        metavar="PLACE",
        help=f"{which} store, by default the home folder's: a folder, an SQLite file or a database URL "
        "(postgresql+psycopg://user:password@host/name).",
    )


@command("backup")
@_file_argument
@_store_option("The")
@_force_option
@json_option()
def backup(file: Path, location: str | None, force: bool, as_json: bool) -> None:
    """Write the whole store to one file: all runs and searches with their files, all notes.

    The store may be in use meanwhile. The file is an ordinary zip with a checksum for every member.
    """
    from cifar_core.store.archive.backup import backup as write

    with _opened(location) as store:
        done = write(store, file, overwrite=force)
    text = f"{done.path}  ({done.size:,} bytes): {_counted(done.runs, done.searches)}"
    print_result(as_json, done, text)
    for job_id, why in done.left_out.items():
        click.echo(f"left out {job_id}: {why}", err=True)


@command("restore")
@_file_argument
@_store_option("The new")
@switch("--replace", help="Move an existing store aside (into a folder beside it) first. SQLite only.")
@_check_option
@json_option()
def restore(file: Path, location: str | None, replace: bool, check: bool, as_json: bool) -> None:
    """Restore a backup into a new or empty store, all of it or nothing.

    The backup may come from another kind of database. Runs that were running or queued when it was made
    are stopped afterwards; 'cifar-lab resume' continues them.
    """
    from cifar_core.store.archive.backup import check_backup, open_backup
    from cifar_core.store.archive.backup import restore as put_back

    if check:
        with open_backup(file) as bundle:
            counts = check_backup(bundle)
        _print_checked(bundle, _counted(counts["runs"], counts["searches"]), as_json)
        return
    done = put_back(file, location, replace=replace)
    kept = [] if done.kept is None else [f"the previous store is in {done.kept}"]
    print_result(as_json, done, f"{done.location}: {_counted(done.runs, done.searches)}", *kept)


@command("rebuild")
@_store_option("The")
@json_option()
def rebuild(location: str | None, as_json: bool) -> None:
    """Rebuild a damaged, empty or missing database.

    Runs and searches come from what can still be read of the old database, and else from their folders. It is
    moved aside; the folders are not touched. A sound database stays, and only runs that it lacks are added.
    """
    from cifar_core.store.archive.rebuild import rebuild as make

    done = make(location)
    previous = [] if done.previous is None else [f"the previous database is in {done.previous}"]
    found = [f"read from its folder: {job_id}" for job_id in done.found]
    print_result(as_json, done, f"{done.location}: {done.kept} kept", *found, *previous)
    for job_id, why in done.lost.items():
        click.echo(f"lost {job_id}: {why}", err=True)


@command("pack")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@_file_argument
@_store_option("The")
@_force_option
@json_option()
def pack(runs: Sequence[str], file: Path, location: str | None, force: bool, as_json: bool) -> None:
    """Write runs or searches with all their files to one file, for 'unpack' elsewhere.

    RUN is an id, or a unique prefix of it. A search includes its trials, but not its final run: name that
    too.
    """
    from cifar_core.store.archive.pack import pack as write

    with _opened(location) as store:
        done = write(store, runs, file, overwrite=force)
    print_result(as_json, done, f"{done.path}  ({done.size:,} bytes): {', '.join(done.ids)}")


@command("unpack")
@_file_argument
@_store_option("The")
@switch("--as-new", help="Add a run under a new id where another run has its id.")
@_check_option
@json_option()
def unpack(file: Path, location: str | None, as_new: bool, check: bool, as_json: bool) -> None:
    """Add what 'pack' wrote to a store, all of it or nothing.

    Everything is verified first. Runs that are here already with the same content stay unchanged.
    """
    from cifar_core.store.archive.pack import check_packed, open_packed
    from cifar_core.store.archive.pack import unpack as take_in

    if check:
        with open_packed(file) as bundle:
            jobs, _ = check_packed(bundle)
        _print_checked(bundle, ", ".join(jobs), as_json)
        return
    with _opened(location) as store:
        done = take_in(store, file, existing="new" if as_new else "refuse")
    renamed = ["" if job.id == job.original else f" as {job.id}" for job in done]
    lines = [
        f"{job.original}: {job.outcome}{new}, {job.state}" for job, new in zip(done, renamed, strict=True)
    ]
    print_result(as_json, done, *lines)


def _opened(location: str | None) -> RunStore:
    from cifar_core.store import RunStore

    return RunStore(location)


def _counted(runs: int, searches: int) -> str:
    return f"{runs:,} run{'' if runs == 1 else 's'}, {searches:,} search{'' if searches == 1 else 'es'}"


def _print_checked(bundle: Bundle, content: str, as_json: bool) -> None:
    about = bundle.manifest.model_dump(include={"kind", "version", "package", "created_at"})
    text = f"{bundle.path} is whole: {content}; release {about['package']}, {about['created_at'][:19]}"
    print_result(as_json, {"file": bundle.path, "whole": True, "content": content, **about}, text)

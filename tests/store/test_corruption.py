"""Random damage to a store's database and to its runs' folders: it is said in words, and what is not damaged
stays readable, can be packed and is in the backup.

    CIFAR_LAB_CORRUPTIONS=500 CIFAR_LAB_CORRUPTION_SEED=0 pytest -m slow tests/store/test_corruption.py
"""

import functools
import os
import random
import shutil
from contextlib import suppress

import pytest

from cifar_core.cli import main
from cifar_core.errors import CifarLabError, StoreError
from cifar_core.store import RunState, RunStore, database
from cifar_core.store.archive.backup import backup, restore
from cifar_core.store.archive.pack import pack
from cifar_core.store.archive.rebuild import rebuild
from cifar_core.store.contents import RECORD
from tests.store.corruption import damage
from tests.store.full_store import fill

CASES = int(os.environ.get("CIFAR_LAB_CORRUPTIONS", "40"))
FIRST = int(os.environ.get("CIFAR_LAB_CORRUPTION_SEED", "0"))


@pytest.fixture(autouse=True, scope="module")
def _quickly():
    """One engine for a database that is opened again and again; and no waiting for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_engine", functools.cache(database._engine))
        patch.setattr(os, "fsync", lambda _file: None)
        yield


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Two copies of a store, one closed and one with its log as a killed process leaves it, and what is read
    from each run."""
    folder = tmp_path_factory.mktemp("sound")
    with RunStore(folder / "home") as store:
        fill(store, states=("stopped", "crashed"))
        runs = {run_id: seen(store, run_id) for run_id in store.runs()["id"]}
        shutil.copytree(folder / "home", folder / "killed")
    return [folder / "home", folder / "killed"], runs


def seen(store, run_id):
    """What is read of a run: all of it, but for its times and the number of its last write."""
    record = store.get(run_id)
    files = {file.name: file.size for file in store.artifacts(run_id)}
    return files, record.settings, record.state, record.metrics, store.history(run_id).to_json()


def read_everything(store):
    """Ask for everything; only errors in words may come. Gives what could be read of each run."""
    found = {}
    questions = [
        store.notices, store.leaderboard, store.reap, store.sweep, store.unfinished, store.standing,
        store.cursor, store.is_intact, lambda: store.image_tags("f00d"),
        lambda: store.live(list(store.runs()["id"])),
    ]  # fmt: skip
    for question in questions:
        with suppress(CifarLabError):
            question()
    of_search = (store.get_search, store.trials, store.trial_history, store.events, store.live_search)
    for search_id in store.searches()["id"]:
        for question in of_search:
            with suppress(CifarLabError):
                question(search_id)
    for run_id in store.runs()["id"]:
        for question in (store.events, store.exports, store.predictions):
            with suppress(CifarLabError):
                question(run_id)
        with suppress(CifarLabError):
            found[run_id] = seen(store, run_id)
    return found


def saved(store, ids, folder):
    """Which runs can be packed, what is read of them in a restored backup, and what that left out."""
    done = backup(store, folder / "lab.zip")
    packed = set()
    for run_id in ids:
        with suppress(CifarLabError):
            pack(store, [run_id], folder / "run.zip", overwrite=True)
            packed.add(run_id)
    restore(folder / "lab.zip", folder / "copy")
    with RunStore(folder / "copy") as copy:
        return packed, read_everything(copy), done.left_out


def check(home, runs, folder, damaged, capsys):
    """What must hold after `damaged`, as `damage` returns it."""
    _, touched, in_database = damaged
    for command in (["runs"], ["searches"], ["leaderboard"], ["show", next(iter(runs))]):
        main(command)
    for engine in database._engines:  # a command ends with its process, and does not close them
        engine.dispose()
    said = "".join(capsys.readouterr())
    assert "fault of the program" not in said, said
    assert "Traceback" not in said, said
    try:
        with RunStore(home) as store:
            before = read_everything(store)
            packed, restored, left_out = saved(store, before, folder)
        if not in_database:
            assert set(before) >= set(runs) - touched
        for run_id in set(before) - touched - set(left_out):
            same = before[run_id] == runs[run_id]
            assert same or in_database, f"{run_id} reads otherwise"
            assert run_id in packed, f"{run_id} can't be packed"
            assert ended(restored[run_id]) == ended(before[run_id]), f"{run_id} is not in the backup"
    except StoreError:
        assert in_database or not (home / "artifacts").is_dir(), "one damaged folder hides the others"
    if in_database and not any(no_plain_file(path) for path in home.glob("lab.db*")):
        rebuilt(home, runs)
    elif not in_database and (home / "artifacts").is_dir():
        for path in home.glob("lab.db*"):
            path.unlink()
        rebuilt(home, set(runs) - touched)


def rebuilt(home, runs):
    """All runs that have a record in their folder are there again; the database of another program stays."""
    try:
        done = rebuild(home)
    except StoreError as error:
        if "belongs to something else" in str(error):
            return
        raise
    with RunStore(home) as store:
        after = read_everything(store)
    without = {run_id for run_id in runs if not os.path.exists(home / "artifacts" / run_id / RECORD)}
    assert set(after) >= set(runs) - without, f"lost: {done}"


def ended(run):
    """The run; one that seems to be running, since a part of the log is lost, as a restore ends it."""
    files, settings, state, *rest = run
    return files, settings, RunState.CRASHED if state.is_active() else state, *rest


def no_plain_file(path):
    """Something that only its owner can put right."""
    return path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK | os.W_OK)


@pytest.mark.slow
def test_random_damage_is_said_in_words_and_spares_the_rest(sound, tmp_path, capsys, monkeypatch):
    homes, runs = sound
    home = tmp_path / "case" / "home"
    monkeypatch.setenv("CIFAR_LAB_HOME", str(home))
    failed = {}
    for seed in range(FIRST, FIRST + CASES):
        chance = random.Random(seed)
        shutil.copytree(homes[seed % 2], home)
        damaged = None
        try:
            damaged = damage(home, chance)
            check(home, runs, home.parent, damaged, capsys)
        except Exception as error:
            failed[seed] = f"{damaged and damaged[0]}: {error!r}"[:1000]
            if len(failed) == 1:
                first = error
        for path in (home, *home.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(home.parent)
    if failed:
        first.add_note("\n".join(f"seed {seed}: {what}" for seed, what in failed.items()))
        raise first

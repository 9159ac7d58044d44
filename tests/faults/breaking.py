"""Disks that are full or read-only, clocks that jump: made for real where the machine allows it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

from sqlalchemy.exc import OperationalError

from cifar_core.base import files
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import columns, database
from tests.faults.observing import SETTINGS

SMALL: TrainConfig = SETTINGS.replace(train_limit=None, test_limit=None)
"""For the 200 drawn images of the fixture `tiny`."""
SAME = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate")


def alike(run, whole):
    """Do two runs have the same history, less times?"""
    kept = [[{name: row[name] for name in SAME} for row in one.epochs] for one in (run, whole)]
    return kept[0] == kept[1]


def mounted(folder: Path, *options: str) -> bool:
    """Mount something on a folder; False where that is not allowed."""
    if shutil.which("mount") is None or os.name != "posix":
        return False
    return subprocess.run(["mount", *options, str(folder)], capture_output=True).returncode == 0


class SmallDisk:
    """A file system of its own, with a ballast file that fills it."""

    def __init__(self, folder: Path) -> None:
        self.ballast = folder / "ballast"

    def fill(self, *, but: int = 0) -> None:
        """Leave so many bytes free."""
        with self.ballast.open("wb", buffering=0) as file:  # a buffer would be written once more at the end
            free = shutil.disk_usage(self.ballast.parent).free - but
            while free > 0:
                try:
                    free -= file.write(b"x" * min(free, 65536))
                except OSError:
                    break

    def free(self) -> None:
        self.ballast.unlink()


class InjectedDisk:
    """The same by exceptions where the machine does not let us mount."""

    def __init__(self, patch, cause="database or disk is full", number=errno.ENOSPC) -> None:
        self.patch, self.cause, self.number = patch, cause, number

    def fill(self, *, but: int = 0) -> None:
        write, transaction = files._fill, database.Database._transaction

        def half(file, content):
            write(file, content)
            file.flush()
            os.truncate(file.name, os.path.getsize(file.name) // 2)
            raise OSError(self.number, os.strerror(self.number))

        def full(database, action, *, write):
            if write:
                raise OperationalError("COMMIT", None, Exception(self.cause))
            return transaction(database, action, write=False)

        self.patch.setattr(files, "_fill", half)
        if not but:
            self.patch.setattr(database.Database, "_transaction", full)

    def free(self) -> None:
        self.patch.undo()


@contextmanager
def read_only(folder: Path):
    """A folder that nobody can write to, root included; gives False where that cannot be had."""
    with ExitStack() as after:
        if os.geteuid() != 0:
            places = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
            for place in places:
                after.callback(place.chmod, place.stat().st_mode)
                place.chmod(0o555)
            yield True
            return
        bound = mounted(folder, "--bind", str(folder))
        if bound:
            after.callback(subprocess.run, ["umount", str(folder)], check=True)
        yield bound and mounted(folder, "-o", "remount,bind,ro")


class Clock:
    """The wall clock of the store; `shift` it."""

    def __init__(self, patch) -> None:
        self.offset, true = timedelta(), columns.datetime
        clock = self

        class Shifted(true):
            @classmethod
            def now(cls, tz=None):
                return true.now(tz) + clock.offset

        patch.setattr(columns, "datetime", Shifted)

    def shift(self, **by) -> None:
        self.offset += timedelta(**by)

"""A store on a node of the cluster that sends every change of a run to the driver, which repeats it.

A run's rows and files travel to the node with it, into a store of the node's own in a temporary folder, on
which the training works as on any. Changes are sent in order, files with their content, and the driver
repeats them on the real store: what a run leaves there is what a local worker would have written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_core.store import RunStore
from cifar_core.store.rows import Row
from cifar_core.training.origins import teachers

Change = tuple[str, tuple[Any, ...], dict[str, Any]]
"""Name of a method of `RunStore`, and its arguments."""
MIRRORED = (
    "begin",
    "set_stage",
    "record_step",
    "record_epoch",
    "save_predictions",
    "event",
    "stopped",
    "fail",
    "finish",
)
"""Methods by which a training changes its run, beside `write_artifact`."""


@dataclass(frozen=True)
class Parcel:
    """A run with all that its training needs of the store, and the runs that it is built on.

    `rows` are by run and table, `files` by run and name.
    """

    run_id: str
    rows: Mapping[str, Mapping[str, list[Row]]]
    files: Mapping[str, Mapping[str, bytes]]


def pack_run(store: RunStore, run_id: str) -> Parcel:
    """
    Raises:
        ConfigError: a teacher, or the run to start from, is not there.
    """
    from cifar_core.training.origins import resolved

    config = resolved(store.get(run_id).config, store)
    others = [*teachers(config), *([config.start_from] if config.start_from else [])]
    jobs = [run_id, *dict.fromkeys(others)]
    files = {job: _files(store, job) for job in jobs}
    return Parcel(run_id, {job: store.job_rows(job) for job in jobs}, files)


def _files(store: RunStore, job_id: str) -> dict[str, bytes]:
    with store.open_files(job_id) as files:
        return {name: file.read() for name, file, _ in files}


class MirrorStore(RunStore):
    """A node's store of one run; `send` gets each change of it.

    Args:
        folder: an empty folder for it.
        parcel: the run.
        send: called with every change, from any thread.
    """

    def __init__(self, folder: Path, parcel: Parcel, send: Callable[[Change], None]) -> None:
        super().__init__(folder / "store")
        self._mirrored, self._send = parcel.run_id, send
        self._files = set(parcel.files[parcel.run_id])
        self.artifacts_root.mkdir(parents=True)
        sources = {job: folder / "files" / job for job in parcel.rows}
        for job, source in sources.items():
            source.mkdir(parents=True)
            for name, content in parcel.files[job].items():
                (source / name).write_bytes(content)

        def rows(name: str) -> list[Row]:
            found = [row for tables in parcel.rows.values() for row in tables.get(name, ())]
            return [{**row, "search_id": None} for row in found] if name == "runs" else found

        self.take_in_all(rows, 0, sources)  # ends the run as crashed, since no process works on it here
        self.requeue(parcel.run_id)

    def write_artifact(self, run_id: str, name: str, content: Any) -> Path:
        path = super().write_artifact(run_id, name, content)
        if run_id == self._mirrored:
            self._files.add(name)
            self._send(("write_artifact", (name, path.read_bytes()), {}))
        return path

    def send_change(self, change: Change) -> None:
        """Send a change, and what the training has removed before it."""
        for name in [name for name in self._files if not self.has_artifact(self._mirrored, name)]:
            self._files.remove(name)
            self._send(("remove_artifact", (name,), {}))
        self._send(change)


def _mirrored(name: str) -> Any:
    original = getattr(RunStore, name)

    def method(self: MirrorStore, run_id: str, *args: Any, **kwargs: Any) -> Any:
        result = original(self, run_id, *args, **kwargs)
        if run_id == self._mirrored:
            self.send_change((name, args, kwargs))
        return result

    return method


for _name in MIRRORED:
    setattr(MirrorStore, _name, _mirrored(_name))

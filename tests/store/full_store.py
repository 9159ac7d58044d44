"""A store with something of everything in it, and all that a store holds as values to compare."""

import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np

from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import database
from cifar_core.store.checkpoint import FORMAT
from cifar_core.store.contents import ALL, RECORD

MIGRATIONS = Path(database.__file__).parent / "migrations"

DATASET = {"name": "cifar10", "source": "local folder", "fingerprint": "f00d"}

EXPORT = {
    "format": "tflite",
    "quantize": None,
    "bytes": 1000,
    "sha256": "0123456789abcdef" * 4,
    "images": 20,
    "verified_on": "cifar10 test",
    "agreement": 1.0,
    "max_difference": 1e-6,
}


OTHER_STATES = ("stopped", "failed", "crashed", "running", "stopping", "queued")


def fill(store, states=OTHER_STATES):
    """A search with its best run, a run in each of these other states, files, a note."""
    search_id = store.create_search(SearchConfig(max_trials=2), claim_for=os.getpid())
    store.begin_search(search_id, environment={"python": "3"}, dataset=DATASET, plan={"rounds": [1, 2]})
    for number, trial in enumerate(("t0", "t1"), start=1):
        store.record_trial(search_id, trial, number=number, settings={"learning_rate": 0.1 * number})
        store.record_trial(search_id, trial, state="running")
        store.record_trial_epoch(search_id, trial, 1, {"val_accuracy": 0.1 * number, "note": [1, None]})
        store.record_trial(search_id, trial, state="finished", score=0.1 * number)
    store.write_artifact(search_id, "trial-t1.npz", arrays(1))
    best = trained(store, state="finished", name="Löss <b>💥</b>", search_id=search_id)
    store.finish_search(search_id, best_trial="t1", best_score=0.2, best_run=best)
    for state in states:
        trained(store, state=state, seed=7)
    store.tag_image("f00d", 3, "wrong label", "it is a ship")


def trained(store, *, state="finished", search_id=None, epochs=3, **settings):
    """A run as a training leaves it in this state, with files that pass for its own; gives its id."""
    run_id = store.create_run(TrainConfig(**settings), search_id=search_id)
    if state == "queued":
        return run_id
    assert store.claim(run_id, pid=os.getpid(), device="cpu")
    store.begin(run_id, environment={"python": "3"}, dataset=DATASET, parameters=100, total_steps=30)
    for epoch in range(1, epochs + 1):
        store.write_artifact(run_id, "checkpoint.npz", checkpoint(epoch))
        store.record_epoch(
            run_id, epoch, {"loss": 1 / epoch, "val_accuracy": 0.1 * epoch, "seconds": 2.0, "x": 1}
        )
    store.write_artifact(run_id, "best-0003.npz", arrays(3))
    if state == "finished":
        probabilities = np.eye(10)[np.arange(20) % 10]
        store.save_predictions(run_id, probabilities, np.arange(20) % 10, np.arange(20))
        store.write_artifact(run_id, "model.keras", b"a model" * 1000)
        store.finish(run_id, metrics={"accuracy": 0.5, "loss": 1.0, "ece": 0.05, "n": 20})
        store.record_export(run_id, **{**EXPORT, "quantize": "int8"})
        store.record_export(run_id, **EXPORT, accuracy=0.5, reference_accuracy=0.5, latency_ms=1.5)
    elif state == "stopping":
        store.record_step(run_id, 4, 1, 10, {"loss": 0.3})
        store.request_stop(run_id)
    elif state != "running":
        {"stopped": store.stopped, "failed": store.fail, "crashed": store.crash}[state](
            run_id, "for the test"
        )
    return run_id


def checkpoint(epochs):
    """The bytes of a checkpoint that knows so many epochs."""
    history = [{"epoch": epoch, "loss": 1 / epoch} for epoch in range(1, epochs + 1)]
    meta = json.dumps({"format": FORMAT, "progressed": {"history": history, "best_epoch": epochs}})
    return arrays(epochs, meta=np.frombuffer(meta.encode(), np.uint8))


def arrays(value, **more):
    buffer = io.BytesIO()
    np.savez(buffer, arr_0=np.full(200, value, np.float32), **more)
    return buffer.getvalue()


def contents(store):
    """Everything that the store holds: rows of every table, bytes of every file but the rows' copies."""
    with store.all_rows() as held:
        tables = {name: list(held.rows(name)) for name in ALL}
    root = store.artifacts_root
    files = {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.name != RECORD
    }
    return tables, files


def rewritten(file, target, changes, manifest_changes=None):
    """The archive with other members (None leaves one out), and a manifest that agrees with them."""
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(target, "w") as copy:
        manifest = json.loads(source.read("manifest.json"))
        old = {name: source.read(name) for name in source.namelist() if name != "manifest.json"}
        new = {name: change(old.get(name, b"")) for name, change in changes.items()}
        contents = {name: content for name, content in {**old, **new}.items() if content is not None}
        for name, content in contents.items():
            copy.writestr(name, content, zipfile.ZIP_DEFLATED)
        manifest["members"] = {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in contents.items()
        }
        copy.writestr("manifest.json", json.dumps({**manifest, **(manifest_changes or {})}))
    return target


def from_the_first(folder):
    """The migrations below `folder`, with a first one that makes the tables as the first release did."""
    migrations = shutil.copytree(MIGRATIONS, folder / "from-the-first")
    shutil.copy(Path(__file__).parent / "first_schema" / "0001_first.py", migrations / "versions")
    return migrations

"""Export of a run's model, verified on the run's own test images and recorded in the store.

What a file for download is made for waits in a cache, `<home>/cache/exports`, and not among the run's
files: it can be made again at any time, so no backup and no packed run needs to carry it. The cache is
kept below `MOST_BYTES`; what was made longest ago goes first.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from cifar_core.base import paths
from cifar_core.base.child import Progress
from cifar_core.base.files import whole_file
from cifar_core.data import Dataset, load_dataset
from cifar_core.data.dataset import stratified
from cifar_core.errors import ConfigError, DataError
from cifar_core.serving.formats import ExportResult, check_format, default_name, export_model
from cifar_core.settings.compute import prepare
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunRecord, RunStore
from cifar_core.store.artifacts import MODEL_FILE, store_errors

TEST_IMAGES = 1000
"""Default number of test images on which a file is verified."""
ALL_IMAGES = 10_000
MEASURED: tuple[tuple[str, str | None], ...] = (
    ("tflite", None),
    ("tflite", "float16"),
    ("tflite", "int8"),
    ("onnx", None),
)
"""Formats and quantizations that are measured for the leaderboard."""
CALIBRATION_IMAGES = 200
MOST_BYTES = 1_000_000_000
"""Largest size of the cache in bytes: ten of the study's largest model."""


def export_run(
    store: RunStore,
    run_id: str,
    format: str,  # noqa: A002 - the word of `export_model`
    destination: str | os.PathLike[str],
    *,
    quantize: str | None = None,
    test_images: int = TEST_IMAGES,
    overwrite: bool = False,
    tell: Progress = lambda _share, _text: None,
) -> ExportResult:
    """Export a run's model, verify the file on the run's test images, and record the figures.

    The test images are those that the run was tested on, or a sample of them, drawn by the run's seed
    with every class in proportion. int8 is set up with images of the run's training split alone. Where
    the dataset is not on this machine the file is verified on drawn pictures; the record says so.

    Args:
        store: where the run is, and where the figures go (`RunStore.exports` reads them).
        run_id: its id, or the beginning of it.
        format: "keras", "saved_model", "tflite" or "onnx".
        destination: as for `export_model`.
        quantize: as for `export_model`.
        test_images: how many; all of them where there are not more.
        overwrite: replace what is at `destination`.
        tell: told the share that is done (0..1) and what comes next.

    Raises:
        RunNotFoundError: no such run, or it has no trained network.
        DataError: int8, and the dataset is not on this machine.
        ConfigError, ExportError: as `export_model`; nothing was written or recorded.
    """
    check_format(format, quantize)
    if test_images < 1:
        raise ConfigError(f"test_images must be a whole number from 1; got {test_images!r}.")
    record = store.get(run_id)
    model = store.artifact(record.id, MODEL_FILE)
    tell(0.0, "reading the test images")
    evidence = _evidence(record, test_images, needed=quantize == "int8")
    result = export_model(
        model,
        format,  # type: ignore[arg-type]
        destination,
        quantize=quantize,  # type: ignore[arg-type]
        classes=record.problem.classes,
        overwrite=overwrite,
        tell=tell,
        **evidence,
    )
    _record(store, record.id, result)
    return result


def _record(store: RunStore, run_id: str, result: ExportResult) -> None:
    store.record_export(run_id, **{name: value for name, value in asdict(result).items() if name != "path"})


def measure(
    store: RunStore,
    run_id: str,
    *,
    test_images: int = ALL_IMAGES,
    tell: Progress = lambda _share, _text: None,
) -> list[ExportResult]:
    """Write a run's network in every form of `MEASURED`, run each file on the test images, record the
    figures, and throw the files away. Arguments and errors as of `export_run`.

    Returns:
        One result for each file, and one for each LiteRT file compressed by gzip, of the format "tflite.gz".
    """
    record, results = store.get(run_id), []
    with store.scratch(record.id) as folder:
        for place, (form, quantize) in enumerate(MEASURED):

            def part(share: float, text: str, place: int = place, form: str = form) -> None:
                tell((place + share) / len(MEASURED), f"{form}: {text}")

            file = folder / default_name(record.id, form, quantize)
            result = export_run(
                store, record.id, form, file, quantize=quantize, test_images=test_images, tell=part
            )
            results.append(result)
            if form == "tflite":
                results.append(_compressed(result))
                _record(store, record.id, results[-1])
    return results


def _compressed(result: ExportResult) -> ExportResult:
    """The figures of an exported file after gzip, which makes zeros small."""
    data = gzip.compress(result.path.read_bytes(), mtime=0)
    digest = hashlib.sha256(data).hexdigest()
    return replace(result, format=f"{result.format}.gz", bytes=len(data), sha256=digest)


def measure_at_home(run_id: str, tell: Progress) -> None:
    """`measure` of a run in the home's store, for a child process."""
    with RunStore() as store:
        _prepare_framework(store.get(run_id))
        measure(store, run_id, tell=tell)


def make_download(
    store: RunStore,
    run_id: str,
    format: str,  # noqa: A002
    quantize: str | None,
    tell: Progress = lambda _share, _text: None,
) -> Path:
    """Export a run into the cache as one file (a SavedModel as a zip), and keep the cache small.

    Raises:
        As `export_run`; StoreError: the disk is full.
    """
    store.sweep(run_id)  # what an export that was cancelled has left
    target = download_path(run_id, format, quantize)
    target.parent.mkdir(parents=True, exist_ok=True)
    with store.scratch(run_id) as folder:
        made = folder / default_name(run_id, format, quantize)
        export_run(store, run_id, format, made, quantize=quantize, tell=tell)
        tell(0.98, "putting it in its place")
        with store_errors(target), whole_file(target) as stream:
            _write_one_file(made, stream)
    sweep_downloads(store, keep=target)
    return target


def make_download_at_home(run_id: str, format: str, quantize: str | None, tell: Progress) -> None:  # noqa: A002
    """`make_download` of a run in the home's store, with the framework set up as its training wants it; for a
    child process.

    Raises:
        As `make_download`.
    """
    check_format(format, quantize)
    with RunStore() as store:
        record = store.get(run_id)
        _prepare_framework(record)
        make_download(store, record.id, format, quantize, tell)


def _prepare_framework(record: RunRecord) -> None:
    config = settings_if_known(record)
    if config is not None:
        prepare(config)


def download_path(run_id: str, format: str, quantize: str | None) -> Path:  # noqa: A002
    """Path of an export in the cache; it need not exist."""
    name = default_name(run_id, format, quantize)
    return _cache() / (f"{name}.zip" if format == "saved_model" else name)


def settings_if_known(record: RunRecord) -> TrainConfig | None:
    """A run's settings, or None if this release cannot read them; exporting works without them."""
    try:
        return record.config
    except ConfigError:
        return None


def sweep_downloads(store: RunStore, keep: Path | None = None) -> list[Path]:
    """Remove exports of deleted runs from the cache, and the oldest ones until it is small enough.

    Args:
        keep: this one stays, however large.

    Returns:
        What was removed.
    """
    files = [file for file in _cache().glob("*") if file.is_file() and not file.name.startswith(".")]
    files.sort(key=lambda file: (file == keep, file.stat().st_mtime), reverse=True)
    known, swept, total = set(store.runs()["id"]), [], 0
    for file in files:
        total += file.stat().st_size
        orphan = not any(file.name.startswith((f"{run_id}.", f"{run_id}-")) for run_id in known)
        if file != keep and (orphan or total > MOST_BYTES):
            total -= file.stat().st_size
            file.unlink(missing_ok=True)
            swept.append(file)
    return swept


def _cache() -> Path:
    return paths.home() / "cache" / "exports"


def _evidence(record: RunRecord, count: int, *, needed: bool) -> dict[str, Any]:
    """Images of the run's own dataset, as arguments of `export_model`: to verify a file on and, for int8, to
    calibrate it with. None if the dataset is not on this machine, an error if it is `needed`."""
    try:
        config = record.config
        whole = load_dataset(config.dataset)
        data = whole.limited(config.train_limit, config.test_limit, config.seed, record.test_seed)
    except (DataError, ConfigError):
        if needed:
            raise
        return {}
    chosen: slice | np.ndarray = slice(None)
    if count < len(data.y_test):
        chosen = stratified(data.y_test, count, config.seed, data.problem.count)
    same = record.fingerprint in (None, whole.fingerprint)
    return {
        "images": data.x_test[chosen],
        "labels": data.y_test[chosen],
        "images_name": f"{whole.name} test" + ("" if same else ", another copy than the run's"),
        "calibration": _calibration(record, data),
    }


def _calibration(record: RunRecord, data: Dataset) -> np.ndarray:
    """Training images of the run, none of its validation part."""
    trained = np.arange(len(data.y_train))
    if record.config.protocol != "test-selected":  # that one has no validation part
        trained, _ = data.split(record.config.validation_fraction, record.config.seed)
    count = min(CALIBRATION_IMAGES, len(trained))
    return data.x_train[
        trained[stratified(data.y_train[trained], count, record.config.seed, data.problem.count)]
    ]


def _write_one_file(made: Path, stream: IO[bytes]) -> None:
    if made.is_file():
        with made.open("rb") as source:
            shutil.copyfileobj(source, stream)
        return
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(made.rglob("*")):
            archive.write(file, Path(made.name) / file.relative_to(made))

"""`evaluate`, `predict` and `export`: use of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from cifar_core.base.lazy import keras
from cifar_core.base.paths import as_pasted
from cifar_core.cli.app import PROGRAM, command, json_option, load_framework, quiet, run_argument, switch
from cifar_core.cli.output import percent, print_json, print_pairs, print_result, print_rows, printable
from cifar_core.data.problem import MOST_CLASSES
from cifar_core.errors import ImageError, RunStateError, StoreError
from cifar_core.models.model_file import load_model

if TYPE_CHECKING:
    from cifar_core.analysis.metrics import Report
    from cifar_core.settings.train_config import TrainConfig
    from cifar_core.store import RunRecord

_LOSS_TOLERANCE = 1e-3


@command("evaluate")
@run_argument
@json_option()
def evaluate(run: str, as_json: bool) -> None:
    """Test a run's stored model again on its dataset, and compare with the recorded result.

    RUN is its id, or a unique prefix of it.
    """
    from cifar_core.analysis.evaluation import evaluate as measure
    from cifar_core.data import load_dataset

    record, path = stored_model(run)
    dataset = load_dataset(record.config.dataset)
    limits = record.config.train_limit, record.config.test_limit
    limited = dataset.limited(*limits, record.config.seed, record.test_seed)
    model = _load_model(path, record.config)
    report = measure(
        model,
        limited.x_test,
        limited.y_test,
        test_views=record.config.test_views,
        classes=dataset.class_names,
    )
    same_images = dataset.fingerprint == record.dataset.get("fingerprint", dataset.fingerprint)
    verdict = _verdict(record.metrics, report, same_images=same_images)
    document = {
        "run": record.id,
        "metrics": report.to_dict(),
        "recorded": {name: (record.metrics or {}).get(name) for name in ("accuracy", "loss", "n")},
        "same_images": same_images,
        "equal": verdict == _EQUAL,
        "verdict": verdict,
    }
    print_result(
        as_json,
        document,
        f"run {record.id} on {report.n:,} test images of {dataset.name} ({dataset.source})",
        f"accuracy {percent(report.accuracy)}, loss {report.loss:.4f}, ece {report.ece:.4f}",
        verdict,
    )
    if not as_json:
        print_rows(report.to_dict()["per_class"])


@command("predict")
@run_argument
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1, MOST_CLASSES), default=3, help="Classes to print.")
@json_option()
def predict(run: str, images: Sequence[str], top: int, as_json: bool) -> int:
    """Classify image files, or all pictures in folders, with a run's model.

    Reads PNG, JPEG, GIF, BMP, WebP, TIFF and AVIF; the central square is scaled to the side that the model
    takes. A file that cannot be read is named, the others are classified, and the exit status is 1."""
    from cifar_core.analysis.evaluation import predict_probabilities

    record, path = stored_model(run)
    pixels, refused = _read_images(images, record.problem.side)  # all images, before the slow part
    model = _load_model(path, record.config)
    probabilities = predict_probabilities(
        model, np.stack(list(pixels.values())), test_views=record.config.test_views
    )
    found = {}
    for name, row in zip(pixels, probabilities, strict=True):
        order = np.argsort(-row, kind="stable")[:top]
        found[name] = [
            {"class": record.problem.classes[place], "probability": float(row[place])} for place in order
        ]
    if as_json:
        images_found = [{"image": name, "classes": best} for name, best in found.items()]
        errors = [{"image": name, "error": error} for name, error in refused.items()]
        print_json({"run": record.id, "images": images_found, "refused": errors})
    else:
        for name, best in found.items():
            words = ", ".join(f"{one['class']} {percent(one['probability'])}" for one in best)
            click.echo(f"{printable(name)}: {words}")
    for error in refused.values():
        click.echo(f"{PROGRAM}: error: {printable(error)}", err=True)
    return 1 if refused else 0


def _read_images(given: Sequence[str], side: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(pixels, errors) of picture files and of the pictures in folders, by path.

    Raises:
        ImageError: none of them can be read.
    """
    from cifar_core.data.images import EXTENSIONS, read_image

    pixels: dict[str, np.ndarray] = {}
    refused: dict[str, str] = {}
    for text in given:
        path = as_pasted(text)
        files = [path]
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.suffix.lower()[1:] in EXTENSIONS]
            if not files:
                refused[str(path)] = f"There are no pictures in {path}."
        for file in files:
            try:
                pixels[str(file)] = read_image(file, side)
            except ImageError as error:
                refused[str(file)] = str(error)
    if not pixels:
        raise ImageError(" ".join(refused.values()))
    return pixels, refused


@command("export")
@run_argument
@click.option(
    "--format",
    "form",
    required=True,
    metavar="[keras|saved_model|tflite|onnx]",
    help="File format; saved_model is a folder.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="Target, by default RUN with the format's suffix."
)
@click.option(
    "--quantize",
    metavar="[float16|int8]",
    help="For tflite: float16 halves the file size, int8 (calibrated with training images) quarters it.",
)
@click.option(
    "--test-images",
    type=click.IntRange(min=1),
    default=1000,
    metavar="N",
    help="Number of test images on which the file is verified, at most all.",
)
@switch("--force", help="Replace an existing file.")
@json_option()
def export(
    run: str,
    form: str,
    output: Path | None,
    quantize: str | None,
    test_images: int,
    force: bool,
    as_json: bool,
) -> None:
    """Write a run's model as a Keras, SavedModel, TFLite or ONNX file.

    The file is verified against the model on the run's test images; the results are recorded with the run
    and printed by 'show'.
    """
    from cifar_core.serving.formats import check_format, check_request, default_name
    from cifar_core.serving.run_export import export_run, settings_if_known
    from cifar_core.store import RunStore

    check_format(form, quantize)
    record, _ = stored_model(run)
    target = (output or Path(default_name(record.id, form, quantize))).expanduser().absolute()
    check_request(form, target, quantize, overwrite=force)
    load_framework(settings_if_known(record))
    with quiet():
        result = export_run(
            RunStore(), record.id, form, target, quantize=quantize, test_images=test_images, overwrite=force
        )
    if as_json:
        print_json({"run": record.id, **vars(result)})
        return
    click.echo(f"{result.path}  ({result.bytes:,} bytes)")
    click.echo(f"verified on {result.images:,} images: {result.verified_on}")
    print_pairs(
        {
            "same class as the model": percent(result.agreement),
            "probabilities differ by": f"at most {result.max_difference:.2g}",
            "accuracy": f"{percent(result.accuracy)} (the model: {percent(result.reference_accuracy)})",
            "one image takes": f"{result.latency_ms:.2f} ms (Keras: {result.reference_latency_ms:.2f} ms)",
            "SHA-256": result.sha256,
        }
    )


@command("measure")
@run_argument
@click.option(
    "--test-images", type=click.IntRange(min=1), default=10_000, metavar="N", help="At most all there are."
)
@json_option()
def measure(run: str, test_images: int, as_json: bool) -> None:
    """Write a run's model as LiteRT (float32, float16, int8) and ONNX, and measure each file.

    Size, accuracy, agreement with the model and the time of one image are recorded with the run, for the
    leaderboard's part 'Exported files'; the files are thrown away.
    """
    from cifar_core.serving.run_export import measure as measured
    from cifar_core.serving.run_export import settings_if_known
    from cifar_core.store import RunStore

    record, _ = stored_model(run)
    load_framework(settings_if_known(record))
    with quiet():
        results = measured(RunStore(), record.id, test_images=test_images)
    rows = [{name: value for name, value in vars(result).items() if name != "path"} for result in results]
    if as_json:
        print_json({"run": record.id, "files": rows})
        return
    shown = ("format", "quantize", "bytes", "accuracy", "agreement", "latency_ms", "reference_latency_ms")
    print_rows([{name: row[name] for name in shown} for row in rows])


def stored_model(run: str) -> tuple[RunRecord, Path]:
    """The record of a run and the path of its trained model.

    Raises:
        RunNotFoundError: no such run.
        RunStateError: the run is not finished, so it has no model.
    """
    from cifar_core.store import RunStore
    from cifar_core.store.artifacts import MODEL_FILE

    store = RunStore()
    record = store.get(run)
    try:
        return record, store.artifact(record.id, MODEL_FILE)
    except StoreError as error:
        if record.state.is_finished() and record.metrics is not None:
            raise
        raise RunStateError(f"Run {record.id} is {record.state}; only a finished run has a model.") from error


_EQUAL = "equal to what was recorded"


def _verdict(recorded: dict[str, Any] | None, report: Report, *, same_images: bool) -> str:
    if not recorded or recorded.get("accuracy") is None:
        return "nothing was recorded to compare with"
    if recorded["accuracy"] == report.accuracy and abs(recorded["loss"] - report.loss) <= _LOSS_TOLERANCE:
        return _EQUAL
    why = "" if same_images else "; the images are not the same"
    accuracy, loss = percent(recorded["accuracy"]), f"{recorded['loss']:.4f}"
    return f"NOT equal to what was recorded: accuracy {accuracy}, loss {loss}{why}"


def _load_model(path: Path, config: TrainConfig) -> keras.Model:
    load_framework(config)
    return load_model(path)

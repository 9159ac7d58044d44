"""`evaluate`, `predict` and `export`: use of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from cifar_core.base.labels import CLASS_NAMES
from cifar_core.cli.app import command, json_option, load_framework, quiet, run_argument, switch
from cifar_core.cli.output import percent, print_json, print_pairs, print_result, print_rows, printable
from cifar_core.errors import RunStateError, StoreError
from cifar_core.serving.model_file import load_model

if TYPE_CHECKING:
    import keras

    from cifar_core.analysis.metrics import Report
    from cifar_core.serving.formats import ExportResult
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
    limited = dataset.limited(record.config.train_limit, record.config.test_limit, record.config.seed)
    model = _load_model(path, record.config)
    report = measure(model, limited.x_test, limited.y_test, test_flip=record.config.test_flip)
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
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1, len(CLASS_NAMES)), default=3, help="Classes to print.")
@json_option()
def predict(run: str, images: Sequence[Path], top: int, as_json: bool) -> None:
    """Classify image files with a run's model.

    Reads PNG, JPEG, GIF, BMP, WebP and TIFF; the central square is scaled to 32x32.
    """
    from cifar_core.analysis.evaluation import predict_probabilities
    from cifar_core.serving.images import read_image

    record, path = stored_model(run)
    pixels = np.stack([read_image(image) for image in images])  # all images, before the slow part
    model = _load_model(path, record.config)
    probabilities = predict_probabilities(model, pixels, test_flip=record.config.test_flip)
    found = [(str(image), _top(row, top)) for image, row in zip(images, probabilities, strict=True)]
    if as_json:
        print_json({"run": record.id, "images": [{"image": name, "classes": best} for name, best in found]})
        return
    for name, best in found:
        words = ", ".join(f"{one['class']} {percent(one['probability'])}" for one in best)
        click.echo(f"{printable(name)}: {words}")


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
    else:
        _print_export(result)


def _print_export(result: ExportResult) -> None:
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


def stored_model(run: str) -> tuple[RunRecord, Path]:
    """The record of a run and the path of its trained model.

    Raises:
        RunNotFoundError: no such run.
        RunStateError: the run is not finished, so it has no model.
    """
    from cifar_core.store import RunStore
    from cifar_core.training.run import MODEL_FILE

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


def _top(probabilities: np.ndarray, count: int) -> list[dict[str, Any]]:
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [{"class": CLASS_NAMES[place], "probability": float(probabilities[place])} for place in order]

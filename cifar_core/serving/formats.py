"""Trained models exported to files for other programs: Keras, TensorFlow SavedModel, LiteRT (TFLite), ONNX.

Every written file is run, and its predictions on some images are compared with the model's; a file that does
not agree is deleted. All formats take float32 images (N, side, side, 3) in 0..255 and give float32
probabilities (N, classes).

`cifar_core.serving.run_export` exports a run of the store, checks it on the run's own images and records it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cifar_core.analysis.evaluation import check_images, image_shape, predict_probabilities
from cifar_core.analysis.metrics import class_labels
from cifar_core.base.lazy import keras
from cifar_core.errors import ConfigError, ExportError
from cifar_core.serving.converters import check_backend, convert, in_float32, name_classes
from cifar_core.serving.runtimes import (
    BATCH,
    damage_in_words,
    in_batches,
    keras_probabilities,
    latencies,
    loaded,
    open_exported,
)

Format = Literal["keras", "saved_model", "tflite", "onnx"]
Quantize = Literal["float16", "int8"]

SUFFIXES: dict[str, str] = {"keras": ".keras", "saved_model": "", "tflite": ".tflite", "onnx": ".onnx"}
FORMATS: tuple[str, ...] = tuple(SUFFIXES)
QUANTIZATIONS: tuple[str, ...] = ("float16", "int8")

PATTERN_CHARACTERS = set("[*?" if os.sep == "\\" else "[*?\\")
DRAWN = "drawn pictures"
DRAWN_IMAGES = 64
TOLERANCE = 1e-3
"""Largest difference of a probability allowed without quantization; rounding alone gives 1e-6."""
LEAST_AGREEMENT = 0.5
LARGE_DIFFERENCE = 0.2
"""A quantized file is refused if it gives fewer than half of the images the model's class and a probability
differs by more than this: a model that hardly decides may change its mind on small differences."""


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how well it agrees with the model.

    Attributes:
        path: the file, or the folder of a SavedModel.
        format, quantize: as asked.
        bytes: size of everything written.
        sha256: checksum in hex, as `digest` gives it.
        images: number of images on which file and model were compared.
        verified_on: description of these images.
        agreement: share of them, 0..1, to which both give the same class.
        max_difference: largest difference of a probability over all of them.
        accuracy: share of them that the file classifies correctly; None without labels.
        reference_accuracy: the same of the model.
        latency_ms: median milliseconds of the file for one image; on one thread where the runtime has that
            setting (LiteRT, ONNX).
        reference_latency_ms: the same of the model in Keras; their calls alternate.
    """

    path: Path
    format: str
    quantize: str | None
    bytes: int
    sha256: str
    images: int
    verified_on: str
    agreement: float
    max_difference: float
    accuracy: float | None
    reference_accuracy: float | None
    latency_ms: float
    reference_latency_ms: float


def export_model(
    model_or_path: keras.Model | str | os.PathLike[str],
    format: Format,  # noqa: A002 - the word that keras's own export uses
    destination: str | os.PathLike[str],
    *,
    quantize: Quantize | None = None,
    calibration: np.ndarray | None = None,
    images: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    images_name: str = "pictures given by the caller",
    classes: Sequence[str] = (),
    overwrite: bool = False,
    tell: Callable[[float, str], object] = lambda _share, _text: None,
) -> ExportResult:
    """Write a model to `destination`, run the written file, and compare the two.

    A model of mixed precision is exported, and compared, in float32, since not every format knows bfloat16.
    Nothing appears at `destination` before the file is complete and agrees.

    Args:
        model_or_path: a Keras model, or a `.keras` file.
        format: "keras", "saved_model" (a folder), "tflite" or "onnx".
        destination: a file with the format's suffix; for "saved_model" a folder.
        quantize: for "tflite" only. "float16" halves the file; "int8" makes it a quarter, computes in whole
            numbers where it can, and needs `calibration`.
        calibration: training images, uint8 (N, side, side, 3); the first 500 set the ranges of int8.
        images: images to compare on, uint8 (N, side, side, 3); 64 drawn ones if None.
        labels: (N,), true class of each of `images`; with them both accuracies are measured.
        images_name: description of `images` for the result.
        classes: names of the classes, which the file then holds, see `converters.name_classes`.
        overwrite: replace what is at `destination`.
        tell: called with the share that is done (0..1) and the next step.

    Raises:
        ConfigError: unknown format or quantization, wrong suffix, int8 without calibration, labels that do
            not fit the images, or `destination` exists.
        ExportError: a package is missing, the converter fails, or the file cannot be run or does not agree.
    """
    target = Path(destination).expanduser().absolute()
    check_request(format, target, quantize, overwrite=overwrite)
    if quantize == "int8" and (calibration is None or not len(calibration)):
        raise ConfigError("int8 needs calibration: some hundred training images, uint8 (N, side, side, 3).")
    with _quiet():
        tell(0.0, "loading the model")
        model = loaded(model_or_path)
        pictures = _Pictures.of(model, images, labels, images_name)
        if format != "keras":
            model = in_float32(model)
        check_backend(format)
        with _work_folder(target) as work:
            written = work / target.name

            def write(network: keras.Model) -> None:
                convert(network, format, written, quantize, calibration)
                if classes:
                    name_classes(format, written, classes)

            return _export(model, format, quantize, write, pictures, written, target, tell)


def _export(
    model: keras.Model,
    format: str,  # noqa: A002
    quantize: str | None,
    write: Callable[[keras.Model], None],
    pictures: _Pictures,
    written: Path,
    target: Path,
    tell: Callable[[float, str], object],
) -> ExportResult:
    """Write to `written`, compare, and move to `target`."""
    tell(0.2, "asking the model")  # first: Keras exports only what was called once
    expected = predict_probabilities(model, pictures.images, batch_size=BATCH)
    tell(0.4, "writing the file")
    write(model)
    tell(0.7, f"running the file on {len(expected):,} images")
    with damage_in_words(format):
        run = open_exported(written, format)
        found = in_batches(run, pictures.images)
        difference, agreement = _verify(format, quantize, expected, found)
        tell(0.95, "taking the time of one image")
        own, reference = latencies(image_shape(model), run, lambda image: keras_probabilities(model, image))
    size, checksum = _size(written), digest(written)
    _move(written, target)
    return ExportResult(
        path=target,
        format=format,
        quantize=quantize,
        bytes=size,
        sha256=checksum,
        images=len(expected),
        verified_on=pictures.name,
        agreement=agreement,
        max_difference=difference,
        accuracy=pictures.accuracy(found),
        reference_accuracy=pictures.accuracy(expected),
        latency_ms=own,
        reference_latency_ms=reference,
    )


def default_name(stem: str, format: str, quantize: str | None = None) -> str:  # noqa: A002
    """A file name for an export: "base_cnn-8f3a1c.tflite", "base_cnn-8f3a1c-int8.tflite" ..."""
    parts = [stem, quantize, "saved_model" if format == "saved_model" else None]
    return "-".join(part for part in parts if part) + SUFFIXES.get(format, "")


def check_format(format: str, quantize: str | None) -> None:  # noqa: A002
    """Check a format and a quantization.

    Raises:
        ConfigError: one is unknown, or the two do not go together.
    """
    if format not in FORMATS:
        raise ConfigError(f"Unknown format {format!r}; known are: {', '.join(FORMATS)}.")
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise ConfigError(f"Unknown quantization {quantize!r}; known are: {', '.join(QUANTIZATIONS)}.")
    if quantize is not None and format != "tflite":
        raise ConfigError(f"Only tflite can be quantized; got format={format!r} with quantize={quantize!r}.")


def check_request(format: str, destination: Path, quantize: str | None, *, overwrite: bool) -> None:  # noqa: A002
    """Check an export's format, quantization and destination without loading a framework.

    Raises:
        ConfigError: as `export_model`.
    """
    check_format(format, quantize)
    suffix = SUFFIXES[format]
    if suffix and destination.suffix != suffix:
        raise ConfigError(f"A {format} file must end with {suffix}; got {destination.name!r}.")
    if format == "saved_model" and (bad := sorted(set(str(destination)) & PATTERN_CHARACTERS)):
        raise ConfigError(
            f"TensorFlow takes {' '.join(bad)} in a path for a pattern, so a SavedModel cannot be written to "
            f"{destination}; choose a path without it."
        )
    if destination.exists() and not overwrite:
        raise ConfigError(
            f"{destination} exists already; choose another name, or have it replaced (overwrite, --force)."
        )
    if destination.exists() and not _replaceable(destination, format):
        raise ConfigError(f"{destination} is something else than an earlier {format} export; it stays.")
    if not destination.parent.is_dir():
        raise ConfigError(f"There is no folder {destination.parent} to write to.")


def digest(path: Path) -> str:
    """SHA-256 in hex of a file. Of a folder: of the lines "DIGEST  NAME" of all files in it, as
    `sha256sum` prints them, sorted by name."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{digest(path / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def _replaceable(path: Path, format: str) -> bool:  # noqa: A002
    """A folder is replaced only if it is an export, so that a typing error deletes nobody's folder."""
    if format != "saved_model":
        return path.is_file()
    return path.is_dir() and ((path / "saved_model.pb").is_file() or not any(path.iterdir()))


@dataclass(frozen=True)
class _Pictures:
    """Images that a file is verified on; `labels` is None where the true classes are not known."""

    images: np.ndarray
    labels: np.ndarray | None
    name: str

    @classmethod
    def of(
        cls, model: keras.Model, images: np.ndarray | None, labels: np.ndarray | None, name: str
    ) -> _Pictures:
        shape = image_shape(model)
        if images is None:
            return cls(_drawn(shape[0]), None, DRAWN)
        images = check_images(images, shape)
        labels = None if labels is None else class_labels(labels, model.output_shape[-1])
        if labels is not None and len(labels) != len(images):
            raise ConfigError(
                f"{len(images):,} images and {len(labels):,} labels: give one label for each image."
            )
        return cls(images, labels, name)

    def accuracy(self, probabilities: np.ndarray) -> float | None:
        return None if self.labels is None else float((probabilities.argmax(1) == self.labels).mean())


def _drawn(side: int) -> np.ndarray:
    """Smooth random images, uint8 (64, side, side, 3): noise would not make a model respond."""
    from PIL import Image

    rough = np.random.default_rng(0).integers(0, 256, (DRAWN_IMAGES, 6, 6, 3), dtype=np.uint8)
    size = side, side
    return np.stack([np.asarray(Image.fromarray(r).resize(size, Image.Resampling.BICUBIC)) for r in rough])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the converters' own deprecation warnings, which users cannot act upon."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


@contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target, so that the last step is a rename on one disk."""
    try:
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ExportError(f"Cannot write in {target.parent}: {error.strerror}.") from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _verify(
    format: str,  # noqa: A002
    quantize: str | None,
    expected: np.ndarray,
    found: np.ndarray,
) -> tuple[float, float]:
    """(largest difference, agreement) of a file's predictions; an error where they are too different."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise ExportError(
            f"The {format} file gives {found.shape} where the model gives {expected.shape} finite "
            "probabilities; nothing was written."
        )
    difference = float(np.abs(expected - found).max())
    agreement = float((expected.argmax(1) == found.argmax(1)).mean())
    if quantize is None and difference > TOLERANCE:
        raise ExportError(
            f"The {format} file does not agree with the model: probabilities differ by up to "
            f"{difference:.3g} (at most {TOLERANCE:g} is rounding); nothing was written."
        )
    if agreement < LEAST_AGREEMENT and difference > LARGE_DIFFERENCE:
        raise ExportError(
            f"The {quantize} {format} file does not agree with the model: it gives {agreement:.0%} of "
            f"{len(found):,} images the same class (at least {LEAST_AGREEMENT:.0%} is asked). Export it "
            "without --quantize, or with another; nothing was written."
        )
    return difference, agreement


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _move(written: Path, target: Path) -> None:
    """Put the finished export in place; an earlier folder goes only once the new one stands ready."""
    if target.is_dir():
        target.rename(written.parent / "replaced")
    os.replace(written, target)

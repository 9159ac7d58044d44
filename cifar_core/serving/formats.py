"""A trained network as a file for elsewhere: Keras, TensorFlow SavedModel, LiteRT (TFLite), ONNX.

Every file is run before it counts as written: what it says about some pictures is compared with
what the network says, and a file that does not agree is thrown away. All of them take float32
images (N, 32, 32, 3) in 0..255 and give float32 probabilities (N, 10).

`cifar_core.serving.run_export` exports a run of the store, on the run's own images, and records it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cifar_core.analysis.evaluation import check_images, predict_probabilities
from cifar_core.analysis.metrics import class_labels
from cifar_core.base.labels import IMAGE_SHAPE, NUM_CLASSES
from cifar_core.errors import CifarLabError, ConfigError, ExportError, ModelFileError
from cifar_core.serving.model_file import load_model

if TYPE_CHECKING:
    import keras

Format = Literal["keras", "saved_model", "tflite", "onnx"]
Quantize = Literal["float16", "int8"]

SUFFIXES: dict[str, str] = {"keras": ".keras", "saved_model": "", "tflite": ".tflite", "onnx": ".onnx"}
FORMATS: tuple[str, ...] = tuple(SUFFIXES)
QUANTIZATIONS: tuple[str, ...] = ("float16", "int8")
PACKAGES = {"tflite": ("ai-edge-litert",), "onnx": ("tf2onnx", "onnx", "onnxruntime")}

DRAWN = "drawn pictures"
DRAWN_IMAGES = 64
MAX_CALIBRATION = 500
TOLERANCE = 1e-3
"""Largest difference of a probability that a faithful copy may show; rounding alone makes 1e-6."""
LEAST_AGREEMENT = 0.5
LARGE_DIFFERENCE = 0.2
"""A quantized copy that gives most images another class is none, unless its network hardly decides."""
LATENCY_CALLS = 25
_BATCH = 250
"""Images per call: the widest network's intermediate results of 10,000 would take many GB."""

Runner = Callable[[np.ndarray], np.ndarray]
"""Images float32 (N, 32, 32, 3) in 0..255 to probabilities float32 (N, 10)."""


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how well it agrees with the network.

    Attributes:
        path: the file, or the folder of a SavedModel.
        format, quantize: as asked.
        bytes: size of all that was written.
        sha256: of the file, in hex; of a folder as `digest` says.
        images: on how many pictures the two were compared.
        verified_on: which pictures these were, for people.
        agreement: share of them, 0..1, to which both give the same class.
        max_difference: largest difference of a probability over all of them.
        accuracy: share of them that the file gives its label; None without labels.
        reference_accuracy: the same of the network.
        latency_ms: median milliseconds from one image to its probabilities, by the file; one thread
            where the runtime lets choose (LiteRT, ONNX).
        reference_latency_ms: the same of the network in Keras, its calls in turns with the file's.
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
    overwrite: bool = False,
    tell: Callable[[float, str], None] = lambda _share, _text: None,
) -> ExportResult:
    """Write the network to `destination`, run the written file, and compare.

    A network of mixed precision is exported in float32, since not every format knows bfloat16;
    the comparison is with that float32 network. Nothing appears at `destination` before the file
    is complete and agrees.

    Args:
        model_or_path: a Keras model, or a `.keras` file.
        format: "keras", "saved_model" (a folder), "tflite" or "onnx".
        destination: a file with the format's suffix; for "saved_model" a folder.
        quantize: for "tflite" only. "float16" halves the file; "int8" makes it a quarter, computes
            in whole numbers where it can, and needs `calibration`.
        calibration: training images, uint8 (N, 32, 32, 3); the first 500 set the ranges of int8.
        images: pictures to compare on, uint8 (N, 32, 32, 3), all of them; 64 drawn ones where None.
        labels: (N,), the true class of each of `images`: then both accuracies are measured.
        images_name: what the result says that it was verified on.
        overwrite: replace what is at `destination`.
        tell: told the share that is done (0..1) and what comes next.

    Raises:
        ConfigError: unknown format or quantization, wrong suffix, int8 without calibration, labels
            that do not fit the images, or `destination` exists.
        ExportError: a package lacks, the converter fails, or the file cannot be run or does not agree.
    """
    target = _check(format, Path(destination), quantize, calibration, overwrite)
    pictures = _Pictures.of(images, labels, images_name)
    with _quiet():
        tell(0.0, "loading the network")
        model = _loaded(model_or_path)
        plain = model if format == "keras" else in_float32(model)
        _check_backend(format)
        with _work_folder(target) as work:
            written = work / target.name
            tell(0.2, "asking the network")  # first: Keras exports only what was called once
            expected = predict_probabilities(plain, pictures.images, batch_size=_BATCH)
            tell(0.4, "writing the file")
            _write(plain, format, written, quantize, calibration)
            tell(0.7, f"running the file on {len(expected):,} images")
            with _damage_in_words(format):
                run = open_exported(written, format)
                found = _in_batches(run, pictures.images)
                _verify(format, quantize, expected, found)
                tell(0.95, "taking the time of one image")
                own, reference = _latencies(run, lambda image: _probabilities(plain, image))
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
        agreement=float((expected.argmax(1) == found.argmax(1)).mean()),
        max_difference=float(np.abs(expected - found).max()),
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
    """
    Raises:
        ConfigError: unknown format or quantization, or two that do not go together.
    """
    if format not in FORMATS:
        raise ConfigError(f"Unknown format {format!r}; known are: {', '.join(FORMATS)}.")
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise ConfigError(f"Unknown quantization {quantize!r}; known are: {', '.join(QUANTIZATIONS)}.")
    if quantize is not None and format != "tflite":
        raise ConfigError(f"Only tflite can be quantized; got format={format!r} with quantize={quantize!r}.")


def check_request(format: str, destination: Path, quantize: str | None, *, overwrite: bool) -> None:  # noqa: A002
    """Whether this can be exported there at all, told without loading a framework.

    Raises:
        ConfigError: as `export_model`.
    """
    check_format(format, quantize)
    suffix = SUFFIXES[format]
    if suffix and destination.suffix != suffix:
        raise ConfigError(f"A {format} file must end with {suffix}; got {destination.name!r}.")
    if destination.exists() and not overwrite:
        raise ConfigError(
            f"{destination} exists already; choose another name, or have it replaced (overwrite, --force)."
        )
    if destination.exists() and not _replaceable(destination, format):
        raise ConfigError(f"{destination} is something else than an earlier {format} export; it stays.")
    if not destination.parent.is_dir():
        raise ConfigError(f"There is no folder {destination.parent} to write to.")


def run_exported(path: Path, format: str, images: np.ndarray) -> np.ndarray:  # noqa: A002
    """Probabilities that an exported file gives, float32 (N, 10).

    Args:
        images: (N, 32, 32, 3) in 0..255.

    Raises:
        ExportError: the runtime's package lacks, or it cannot run the file.
    """
    with _damage_in_words(format):
        return _in_batches(open_exported(path, format), images)


def open_exported(path: Path, format: str) -> Runner:  # noqa: A002
    """An exported file as a function of images. Raises what its runtime raises."""
    openers: dict[str, Callable[[Path], Runner]] = {
        "keras": _open_keras,
        "saved_model": _open_saved_model,
        "tflite": _open_tflite,
        "onnx": _open_onnx,
    }
    return openers[format](path)


def digest(path: Path) -> str:
    """SHA-256 in hex of a file. Of a folder: of the lines "DIGEST  NAME" of all files in it, as
    `sha256sum` prints them, sorted by name."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{digest(path / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def in_float32(model: keras.Model) -> keras.Model:
    """The same network with every layer computing in float32; `model` itself if it does already."""
    config = model.get_config()
    plain = _without_mixed(config)
    return model if plain == config else _twin(model, plain)


def _twin(model: keras.Model, config: dict[str, Any] | None = None) -> keras.Model:
    """The network again, as `config` or its own configuration says, not compiled: without its optimizer."""
    twin = type(model).from_config(model.get_config() if config is None else config)
    twin.set_weights(model.get_weights())
    return twin


def _without_mixed(value: Any) -> Any:
    """A model's configuration with each dtype policy replaced by float32."""
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy":
            return {**value, "config": {**value["config"], "name": "float32"}}
        return {
            key: "float32" if key == "dtype" and isinstance(item, str) else _without_mixed(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_without_mixed(item) for item in value)
    return value


def _check(
    format: str,  # noqa: A002
    destination: Path,
    quantize: str | None,
    calibration: np.ndarray | None,
    overwrite: bool,
) -> Path:
    target = destination.expanduser().absolute()
    check_request(format, target, quantize, overwrite=overwrite)
    if quantize == "int8" and (calibration is None or not len(calibration)):
        raise ConfigError("int8 needs calibration: some hundred training images, uint8 (N, 32, 32, 3).")
    return target


def _replaceable(path: Path, format: str) -> bool:  # noqa: A002
    """A folder is replaced only where it is an export: a slip must not delete somebody's folder."""
    if format != "saved_model":
        return path.is_file()
    return path.is_dir() and ((path / "saved_model.pb").is_file() or not any(path.iterdir()))


@dataclass(frozen=True)
class _Pictures:
    """What a file is verified on; `labels` None where nobody knows the true classes."""

    images: np.ndarray
    labels: np.ndarray | None
    name: str

    @classmethod
    def of(cls, images: np.ndarray | None, labels: np.ndarray | None, name: str) -> _Pictures:
        if images is None:
            return cls(_drawn(), None, DRAWN)
        images, labels = check_images(images), None if labels is None else class_labels(labels)
        if labels is not None and len(labels) != len(images):
            raise ConfigError(
                f"{len(images):,} images and {len(labels):,} labels: give one label for each image."
            )
        return cls(images, labels, name)

    def accuracy(self, probabilities: np.ndarray) -> float | None:
        return None if self.labels is None else float((probabilities.argmax(1) == self.labels).mean())


def _drawn() -> np.ndarray:
    """Smooth random pictures, uint8 (64, 32, 32, 3): noise would show no network anything."""
    from PIL import Image

    rough = np.random.default_rng(0).integers(0, 256, (DRAWN_IMAGES, 6, 6, 3), dtype=np.uint8)
    size = IMAGE_SHAPE[:2]
    return np.stack([np.asarray(Image.fromarray(r).resize(size, Image.Resampling.BICUBIC)) for r in rough])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the converters' own deprecations, which nobody here can act upon."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


def _loaded(model_or_path: keras.Model | str | os.PathLike[str]) -> keras.Model:
    import keras

    if isinstance(model_or_path, keras.Model):
        return model_or_path
    path = Path(model_or_path)
    if not path.is_file():
        raise ExportError(f"There is no model at {path}.")
    try:
        return load_model(path)
    except ModelFileError as error:
        raise ExportError(str(error)) from error


def _probabilities(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict_on_batch(images.astype(np.float32)), dtype=np.float32)


def _check_backend(format: str) -> None:  # noqa: A002
    """A `.keras` file is the same from every backend; the other formats are made by TensorFlow's tools."""
    import keras

    backend = keras.backend.backend()
    if format != "keras" and backend != "tensorflow":
        raise ExportError(
            f"Exporting to {format} is TensorFlow's work, and Keras runs on {backend} here. Export to keras, "
            "or with the environment variable KERAS_BACKEND=tensorflow where TensorFlow is installed: the "
            ".keras file of a run is the same for both."
        )


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


def _write(
    model: keras.Model,
    format: str,  # noqa: A002
    path: Path,
    quantize: str | None,
    calibration: np.ndarray | None,
) -> None:
    writers: dict[str, Callable[[], None]] = {
        # Keras writes the optimizer's numbers too, two for each weight, whatever `include_optimizer` says.
        "keras": lambda: _twin(model).save(path),
        "saved_model": lambda: model.export(path, format="tf_saved_model", verbose=False),
        "onnx": lambda: _with_erf(model).export(path, format="onnx", verbose=False),
        "tflite": lambda: model.export(
            path, format="litert", verbose=False, **_converter_options(quantize, calibration)
        ),
    }
    with _in_words(format, f"The conversion to {format} failed"):
        writers[format]()


def _with_erf(model: keras.Model) -> keras.Model:
    """The same network with GELU written by erf: TensorFlow writes it by erfc, which ONNX lacks."""
    import keras

    if not any(_is_gelu(layer) for layer in model.layers):
        return model
    twin = _twin(model)
    for layer in filter(_is_gelu, twin.layers):
        layer.activation = lambda x: 0.5 * x * (1 + keras.ops.erf(x / np.float32(np.sqrt(2))))
    twin(np.zeros((1, *IMAGE_SHAPE), np.float32))  # Keras exports only what was called once
    return twin


def _is_gelu(layer: keras.Layer) -> bool:
    import keras

    return getattr(layer, "activation", None) is keras.activations.gelu


def _converter_options(quantize: str | None, calibration: np.ndarray | None) -> dict[str, Any]:
    if quantize is None:
        return {}
    import tensorflow as tf

    options: dict[str, Any] = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    if quantize == "float16":
        return {**options, "target_spec": {"supported_types": [tf.float16]}}
    assert calibration is not None
    samples = calibration[:MAX_CALIBRATION].astype(np.float32)
    return {**options, "representative_dataset": lambda: ([sample[None]] for sample in samples)}


def _lacking(format: str, error: ImportError) -> ExportError:  # noqa: A002
    packages = " ".join(PACKAGES.get(format, ()))
    return ExportError(f"Exporting to {format} needs more packages ({error}): pip install {packages}")


def _damage_in_words(format: str) -> AbstractContextManager[None]:  # noqa: A002
    return _in_words(format, f"The {format} file cannot be run")


@contextmanager
def _in_words(format: str, failed: str) -> Iterator[None]:  # noqa: A002
    """Whatever goes wrong as an ExportError that begins with `failed`, or names the packages that lack."""
    try:
        yield
    except CifarLabError:
        raise
    except ImportError as error:
        raise _lacking(format, error) from error
    except Exception as error:  # each converter and runtime raises errors of its own
        raise ExportError(f"{failed}: {type(error).__name__}: {error}") from error


def _in_batches(run: Runner, images: np.ndarray) -> np.ndarray:
    parts = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    return np.concatenate([np.asarray(run(part.astype(np.float32)), np.float32) for part in parts])


def _open_keras(path: Path) -> Runner:
    model = _loaded(path)
    return lambda images: _probabilities(model, images)


def _open_saved_model(path: Path) -> Runner:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # held by a name: its function does not keep its variables
    return lambda images: loaded.serve(tf.constant(images)).numpy()


def _open_tflite(path: Path) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def one(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source, image[None])
        interpreter.invoke()
        return interpreter.get_tensor(result)[0]

    return lambda images: np.stack([one(image) for image in images])


def _open_onnx(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _latencies(*runners: Runner) -> list[float]:
    """Median milliseconds of each for one image, in turns, so that a busy moment falls on all of them.
    The first call of each is not counted: it may compile."""
    image = np.zeros((1, *IMAGE_SHAPE), np.float32)
    times: list[list[float]] = [[] for _ in runners]
    for _ in range(1 + LATENCY_CALLS):
        for run, taken in zip(runners, times, strict=True):
            began = time.perf_counter()
            run(image)
            taken.append(time.perf_counter() - began)
    return [1000 * float(np.median(taken[1:])) for taken in times]


def _verify(format: str, quantize: str | None, expected: np.ndarray, found: np.ndarray) -> None:  # noqa: A002
    """Quantized copies may differ, and say by how much; all others must give the same numbers."""
    if found.shape != expected.shape or found.shape[1] != NUM_CLASSES or not np.isfinite(found).all():
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


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _move(written: Path, target: Path) -> None:
    """Put the finished export in place; an earlier folder goes only once the new one stands ready."""
    if target.is_dir():
        target.rename(written.parent / "replaced")
    os.replace(written, target)

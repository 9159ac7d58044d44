"""Train `resnet18/recommended` and then the study's presets on a GPU within a time budget.

Each preset is trained by its own process, several at once if requested, and its result is written as soon
as it is known. When the budget is spent, running presets are stopped properly, and the others are listed as
not begun. Started by `gpu_check.sh`, which installs the packages; see docs/gpu.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WHEELS = HERE.parent / ".wheels"
NEEDED = ("keras>=3.12,<3.16", "pydantic>=2.10,<3", "sqlalchemy>=2.0.36,<2.2", "alembic>=1.14,<2",
          "pandas>=2.2,<4", "pillow>=11,<14", "psutil>=6,<8", "click>=8.1,<9",
          "filelock>=3.16,<5")  # fmt: skip
"""Packages needed to train, store and read runs, without pages, searches, figures and TensorFlow."""
GIVEN = "numpy scipy ml-dtypes opt-einsum jax jaxlib packaging"
"""Packages that a machine with JAX already has."""
MAX_MIB = 64

FIRST = "resnet18/recommended"
TARGET = 0.94
TRAINING_PASSES = 3
"""Cost of a training step in forward passes: one forward, two for the gradients."""
TINY: dict[str, Any] = {
    "dataset": "synthetic",
    "epochs": 1,
    "train_limit": 64,
    "test_limit": 20,
    "batch_size": 16,
}
TINY_NETWORK: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 4},
    "mobilenet": {"width": 0.1},
    "alexnet": {"units_dense1": 16, "units_dense2": 16},
}
GRACE_S = 30.0
"""Seconds that a process may take to stop after the budget before it is killed."""


def main() -> int:
    options = _arguments()
    if options.prepare:
        return prepare(options.python, options.given)
    if options.missing:
        print(*missing(), sep="\n", end="\n" * bool(missing()))
        return 0
    if options.one:
        return train_one(options)
    if options.matmul:
        print(json.dumps(matmul_rate(256 if options.tiny else 8192)))
        return 0
    return check(options)


def _arguments() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("--data", help="a folder that holds cifar-10-batches-py, or the official archive")
    add("--what", default="CIFAR-10", help="description of the images, for the record (default: %(default)s)")
    add("--out", type=Path, default=Path("gpu-results"), help="folder for the results (default: %(default)s)")
    add("--home", type=Path, help="folder for the store of runs (default: home, in the results)")
    add("--budget", type=float, default=540, help="seconds for all of it (default: %(default)g)")
    add("--at-once", type=int, default=3, help="study's presets trained at once (default: %(default)s)")
    add("--presets", help="comma-separated; default: resnet18/recommended, then the study's seven")
    add("--tiny", action="store_true", help="synthetic images and a few steps, to see whether it works")
    add("--prepare", action="store_true", help="download the wheels that a bare machine needs")
    add("--python", default="3.12", help="with --prepare: the Python of that machine (default: %(default)s)")
    add("--given", default=GIVEN, help="with --prepare: packages it has already (default: %(default)s)")
    for inner in ("--missing", "--matmul"):
        add(inner, action="store_true", help=argparse.SUPPRESS)
    add("--one", help=argparse.SUPPRESS)
    add("--until", type=float, default=float("inf"), help=argparse.SUPPRESS)
    return parser.parse_args()


# --- Packages -----------------------------------------------------------------------------------


def prepare(python: str, given: str) -> int:
    """Download wheels for Linux on x86-64 of all needed packages that are not `given`."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    systems = [f"manylinux_2_{minor}_x86_64" for minor in (34, 31, 28, 27, 24, 17)]
    systems += ["manylinux2014_x86_64", "manylinux1_x86_64"]
    _download(python, [word for system in systems for word in ("--platform", system)], NEEDED)
    for wheel in WHEELS.glob("*.whl"):
        if _name(wheel) in {_normal(name) for name in given.split()}:
            wheel.unlink()
    for wheel in list(WHEELS.glob("sqlalchemy-*-cp*.whl")):  # half the size without compiled parts
        _download(python, ["--platform", "any", "--no-deps"], [f"sqlalchemy=={wheel.name.split('-')[1]}"])
        wheel.unlink()
    for wheel in sorted(WHEELS.glob("*.whl")):
        _squeeze(wheel)
        print(f"{wheel.stat().st_size / 1e6:6.2f} MB  {wheel.name}")
    total = sum(wheel.stat().st_size for wheel in WHEELS.glob("*.whl")) / 2**20
    print(f"{total:6.2f} MiB in all, in {WHEELS}")
    if total > MAX_MIB:
        print(f"more than {MAX_MIB} MiB: name more packages of the machine in --given", file=sys.stderr)
    return int(total > MAX_MIB)


def _download(python: str, systems: list[str], wanted: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    command += ["--dest", str(WHEELS)]
    command += ["--python-version", python, "--implementation", "cp", *systems]
    subprocess.run([*command, *wanted], check=True)


def _squeeze(wheel: Path) -> None:
    """Compress a wheel more tightly, since uploads to machines without a network are often limited."""
    packed = wheel.with_suffix(".part")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    packed.replace(wheel)


def missing() -> list[Path]:
    """Wheels whose packages are not installed here in any version."""
    return [wheel for wheel in sorted(WHEELS.glob("*.whl")) if not _installed(_name(wheel))]


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _name(wheel: Path) -> str:
    return _normal(wheel.name.partition("-")[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- One process each ---------------------------------------------------------------------------


def matmul_rate(size: int) -> dict[str, Any]:
    """Floating-point operations per second of bfloat16 products of two random matrices, and the device."""
    import jax
    import jax.numpy as jnp

    left, right = (
        jax.random.normal(key, (size, size), jnp.bfloat16) for key in jax.random.split(jax.random.key(0))
    )
    multiply = jax.jit(lambda a, b: a @ b)
    for _ in range(3):
        multiply(left, right).block_until_ready()
    began = time.perf_counter()
    for _ in range(10):
        answer = multiply(left, right)
    answer.block_until_ready()
    seconds = (time.perf_counter() - began) / 10
    device = jax.devices()[0]
    return {
        "flops_per_second": 2 * size**3 / seconds,
        "size": size,
        "device": device.device_kind,
        "kind": device.platform,
    }


def train_one(options: argparse.Namespace) -> int:
    """Train one preset into the store and write its result."""
    from cifar_core.models.cost import count
    from cifar_core.store import RunState, RunStore
    from cifar_core.training.run import train

    config = _config(options)
    store = RunStore()
    began = time.time()
    run = train(config, store=store, should_stop=lambda: time.time() > options.until)
    per_image = count(config.model, config.hyperparameters, run.model).flops * TRAINING_PASSES
    speeds = sorted(row["images_per_second"] for row in run.epochs)
    metrics = run.metrics or {}
    result = {
        "preset": options.one,
        "run": run.id,
        "state": str(run.state),
        "epochs": run.epochs_done,
        "of_epochs": config.epochs,
        "test_accuracy": metrics.get("accuracy"),
        "best_val_accuracy": max((row["val_accuracy"] for row in run.epochs), default=None),
        "train_seconds": sum(row["seconds"] for row in run.epochs),
        "seconds_with_start": time.time() - began,
        "seconds_to_94_on_validation": _time_to(TARGET, run.epochs),
        "images_per_second": speeds[len(speeds) // 2] if speeds else None,
        "training_flops_per_image": per_image,
        "precision": run.environment["precision"],
        "batch_size": config.batch_size,
        "side_by_side": options.at_once,
    }
    if run.state is RunState.FINISHED:
        _keep(store, str(run.id), options)
    _write(options.out / "results" / f"{_file(options.one)}.json", result)
    return 0


def _config(options: argparse.Namespace) -> Any:
    from cifar_core.settings.presets import preset

    if options.tiny:
        return preset(options.one, **TINY, **TINY_NETWORK.get(options.one.partition("/")[0], {}))
    plain = preset(options.one)
    # The study computed in float32; what "auto" chooses on a GPU is much faster and as accurate.
    return plain.replace(precision="auto")


def _time_to(target: float, epochs: list[dict[str, float]]) -> float | None:
    seconds = 0.0
    for row in epochs:
        seconds += row["seconds"]
        if row["val_accuracy"] >= target:
            return seconds
    return None


def _keep(store: Any, run_id: str, options: argparse.Namespace) -> None:
    """Write a reference run as `cifar-lab reference --keep` does, into the results."""
    from cifar_core.analysis.study.reference_runs import keep

    folder = options.out / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    keep(store, run_id, "synthetic images" if options.tiny else options.what, folder)


# --- All of them --------------------------------------------------------------------------------


def check(options: argparse.Namespace) -> int:
    """Measure the GPU, train all presets within the budget and print a table of results."""
    deadline = time.time() + options.budget
    options.out = options.out.resolve()
    (options.out / "results").mkdir(parents=True, exist_ok=True)
    options.home = (options.home or options.out / "home").resolve()
    summary: dict[str, Any] = {
        "machine": _machine(),
        "packages": _packages(),
        "budget_seconds": options.budget,
        "tiny": options.tiny,
        "data": options.what,
        "matmul": _measured(options),
        "runs": [],
    }
    names = options.presets.split(",") if options.presets else _presets()
    first, rest = [name for name in names if name == FIRST], [name for name in names if name != FIRST]
    for group, at_once in ((first, 1), (rest, max(1, options.at_once))):
        _train_all(group, at_once, deadline, options, summary)
    print(_table(summary))
    ended = ("finished", "stopped", "not begun")
    failed = [row["preset"] for row in summary["runs"] if row["state"] not in ended]
    if failed:
        print(f"failed: {', '.join(failed)}; see {options.out / 'results'}", file=sys.stderr)
    return 1 if failed else 0


def _train_all(
    names: list[str], at_once: int, deadline: float, options: argparse.Namespace, summary: dict[str, Any]
) -> None:
    waiting = list(names)
    running: dict[str, subprocess.Popen[bytes]] = {}
    while waiting or running:
        while waiting and len(running) < at_once and time.time() < deadline:
            name = waiting.pop(0)
            print(f"{time.strftime('%H:%M:%S')} {name} begins, {deadline - time.time():.0f} s left")
            running[name] = _begin(name, at_once, deadline, options)
        if not running:
            break
        time.sleep(0.2)
        for name, process in list(running.items()):
            if process.poll() is None and time.time() > deadline + GRACE_S:
                process.kill()
            if process.poll() is not None:
                del running[name]
                summary["runs"].append(_result(name, process.returncode, options))
                _report(summary, options)
    summary["runs"] += [{"preset": name, "state": "not begun"} for name in waiting]
    _report(summary, options)


def _begin(name: str, at_once: int, deadline: float, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--one", name, "--out", str(options.out), "--until", str(deadline),
               "--at-once", str(at_once), "--what", options.what, *["--tiny"] * options.tiny]  # fmt: skip
    log = (options.out / "results" / f"{_file(name)}.log").open("wb")
    with log:
        return subprocess.Popen(
            command, env=_environment(options, at_once), stdout=log, stderr=subprocess.STDOUT
        )


def _environment(options: argparse.Namespace, at_once: int = 1) -> dict[str, str]:
    env = {**os.environ, "CIFAR_LAB_HOME": str(options.home)}
    if options.data:
        env["CIFAR_LAB_DATA"] = str(Path(options.data).resolve())
    if at_once > 1:  # by default JAX reserves three quarters of the GPU's memory
        env["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / at_once:.2f}"
    return env


def _result(name: str, returncode: int, options: argparse.Namespace) -> dict[str, Any]:
    file = options.out / "results" / f"{_file(name)}.json"
    if returncode == 0 and file.exists():
        return json.loads(file.read_text())
    lines = file.with_suffix(".log").read_text(errors="replace").splitlines()
    return {"preset": name, "state": f"failed ({returncode})", "last_output": lines[-5:]}


def _report(summary: dict[str, Any], options: argparse.Namespace) -> None:
    rate = summary["matmul"].get("flops_per_second")
    for row in summary["runs"]:
        if rate and row.get("images_per_second"):
            row["share_of_matmul_rate"] = row["images_per_second"] * row["training_flops_per_image"] / rate
    _write(options.out / "results.json", summary)
    with zipfile.ZipFile(options.out / "reference.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((options.out / "reference").glob("*.json")):
            archive.write(file, file.name)


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--matmul", *["--tiny"] * options.tiny]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment(options))
    if answer.returncode != 0:
        return {"failed": answer.stderr.strip().splitlines()[-1:]}
    return json.loads(answer.stdout.splitlines()[-1])


def _machine() -> dict[str, Any]:
    from cifar_core.base.devices import device_summary

    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    cards = ""
    if shutil.which("nvidia-smi"):
        cards = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return {**asdict(device_summary()), "cards": cards.splitlines(), "python": platform.python_version()}


def _packages() -> dict[str, str]:
    names = ("keras", "jax", "jaxlib", "numpy", "tensorflow")
    return {name: version(name) for name in names if _installed(name)}


def _presets() -> list[str]:
    from cifar_core.settings.presets import presets

    return [FIRST, *(name for name in presets() if "/paper-" in name)]


def _table(summary: dict[str, Any]) -> str:
    rate = summary["matmul"].get("flops_per_second")
    card = summary["matmul"].get("device") or summary["machine"]["name"]
    speed = f"bfloat16 matrix products at {rate / 1e12:.3g} TFLOP/s" if rate else "no matrix rate"
    columns = ("preset", "state", "epochs", "test", "minutes", "s to 94 %", "images/s", "of rate", "at once")
    rows = [columns, *(_cells(row) for row in summary["runs"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join([f"{card}: {speed}", *("  ".join(row).rstrip() for row in padded)])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    def shown(name: str, form: str, factor: float = 1.0) -> str:
        value = row.get(name)
        return "–" if value is None else form.format(value * factor)

    epochs = f"{row['epochs']}/{row['of_epochs']}" if "epochs" in row else "–"
    return (
        row["preset"],
        row["state"],
        epochs,
        shown("test_accuracy", "{:.2f} %", 100),
        shown("train_seconds", "{:.2f}", 1 / 60),
        shown("seconds_to_94_on_validation", "{:.0f}"),
        shown("images_per_second", "{:,.0f}"),
        shown("share_of_matmul_rate", "{:.1f} %", 100),
        shown("side_by_side", "{:.0f}"),
    )


def _file(preset: str) -> str:
    return preset.replace("/", "-")


def _write(path: Path, content: dict[str, Any]) -> None:
    from cifar_core.base.files import write_whole

    write_whole(path, json.dumps(content, indent=1))


if __name__ == "__main__":
    sys.exit(main())

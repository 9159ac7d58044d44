"""Train the study's presets, and `resnet18/recommended` before them, on a GPU within a budget of time.

Each preset is trained by a process of its own, several side by side where asked; what it came to is
written as soon as it is there. When the budget is spent, what still trains is stopped in order, and what
had not begun is listed as such. Started by `gpu_check.sh`, which sees to the packages; see docs/gpu.md.
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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WHEELS = HERE.parent / ".wheels"
NEEDED = ("keras>=3.12,<3.16", "pydantic>=2.10,<3", "sqlalchemy>=2.0.36,<2.2", "alembic>=1.14,<2",
          "pandas>=2.2,<4", "pillow>=11,<14", "psutil>=6,<8", "click>=8.1,<9")  # fmt: skip
"""What training, storing and reading runs needs; neither page, search, figure nor TensorFlow."""
GIVEN = "numpy scipy ml-dtypes opt-einsum jax jaxlib packaging"
"""What a machine with JAX has already."""
LIMIT_MB = 64

FIRST = "resnet18/recommended"
TARGET = 0.94
TRAINING_PASSES = 3
"""A training step costs about three forward passes: one forward, two for the gradients."""
TINY = {"dataset": "synthetic", "epochs": 1, "train_limit": 64, "test_limit": 20, "batch_size": 16}
TINY_NETWORK = {"resnet18": {"width": 4}, "mobilenet": {"width": 0.1},
                "alexnet": {"units_dense1": 16, "units_dense2": 16}}  # fmt: skip
GRACE_S = 30.0
"""So long after the budget a process may still need to stop, before it is ended."""


def main() -> int:
    options = _arguments()
    if options.prepare:
        return prepare(options.python, options.given)
    if options.lacking:
        print(*lacking(), sep="\n", end="\n" * bool(lacking()))
        return 0
    if options.one:
        return train_one(options)
    if options.matmul:
        print(json.dumps(matmul_rate(256 if options.tiny else 8192)))
        return 0
    return check(options)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", help="a folder that holds cifar-10-batches-py, or the official archive")
    add(
        "--what",
        default="CIFAR-10",
        help="what the images are, in words, for the record (default: %(default)s)",
    )
    add("--out", type=Path, default=Path("gpu-results"), help="folder for the results (default: %(default)s)")
    add("--home", type=Path, help="folder for the store of runs (default: home, in the results)")
    add("--budget", type=float, default=540, help="seconds for all of it (default: %(default)g)")
    add("--at-once", type=int, default=3, help="study's presets trained side by side (default: %(default)s)")
    add("--presets", help="comma-separated; default: resnet18/recommended, then the study's seven")
    add("--tiny", action="store_true", help="drawn scenes and a few steps: does it work at all?")
    add("--prepare", action="store_true", help="download the wheels that a bare machine needs")
    add("--python", default="3.12", help="with --prepare: the Python of that machine (default: %(default)s)")
    add("--given", default=GIVEN, help="with --prepare: packages it has already (default: %(default)s)")
    for inner in ("--lacking", "--matmul"):
        add(inner, action="store_true", help=argparse.SUPPRESS)
    add("--one", help=argparse.SUPPRESS)
    add("--until", type=float, default=float("inf"), help=argparse.SUPPRESS)
    return parser.parse_args()


# --- Packages -----------------------------------------------------------------------------------


def prepare(python: str, given: str) -> int:
    """Download the wheels for Linux on x86-64, without those of packages that the machine has."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    systems = [f"manylinux_2_{minor}_x86_64" for minor in (34, 31, 28, 27, 24, 17)]
    systems += ["manylinux2014_x86_64", "manylinux1_x86_64"]
    _download(python, [word for system in systems for word in ("--platform", system)], NEEDED)
    for wheel in WHEELS.glob("*.whl"):
        if _name(wheel) in {_normal(name) for name in given.split()}:
            wheel.unlink()
    for wheel in list(WHEELS.glob("sqlalchemy-*-cp*.whl")):  # half the size in plain Python, and quick enough
        _download(python, ["--platform", "any", "--no-deps"], [f"sqlalchemy=={wheel.name.split('-')[1]}"])
        wheel.unlink()
    for wheel in sorted(WHEELS.glob("*.whl")):
        _squeeze(wheel)
        print(f"{wheel.stat().st_size / 1e6:6.2f} MB  {wheel.name}")
    total = sum(wheel.stat().st_size for wheel in WHEELS.glob("*.whl")) / 2**20
    print(f"{total:6.2f} MiB in all, in {WHEELS}")
    if total > LIMIT_MB:
        print(f"more than {LIMIT_MB} MiB: name more of what the machine has in --given", file=sys.stderr)
    return int(total > LIMIT_MB)


def _download(python: str, systems: list[str], wanted: Sequence[str]) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--only-binary=:all:",
        "--dest",
        str(WHEELS),
    ]
    command += ["--python-version", python, "--implementation", "cp", *systems]
    subprocess.run([*command, *wanted], check=True)


def _squeeze(wheel: Path) -> None:
    """The same wheel, packed more tightly: what travels to a machine without network is often limited."""
    packed = wheel.with_suffix(".part")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    packed.replace(wheel)


def lacking() -> list[Path]:
    """Wheels of packages that are not installed here, in any version."""
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
    """Bfloat16 products of two matrices of random numbers: how many floating-point operations a second."""
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
    """Train one preset into the store, and write what it came to beside the others."""
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
        _keep(store, run.id, options)
    _write(options.out / "results" / f"{_file(options.one)}.json", result)
    return 0


def _config(options: argparse.Namespace) -> Any:
    from cifar_core.settings.presets import preset

    if options.tiny:
        return preset(options.one, **TINY, **TINY_NETWORK.get(options.one.partition("/")[0], {}))
    plain = preset(options.one)
    # The study computed in float32. What "auto" takes on this card is much faster and no less accurate.
    return plain.replace(precision="auto")


def _time_to(target: float, epochs: list[dict[str, float]]) -> float | None:
    seconds = 0.0
    for row in epochs:
        seconds += row["seconds"]
        if row["val_accuracy"] >= target:
            return seconds
    return None


def _keep(store: Any, run_id: str, options: argparse.Namespace) -> None:
    """As `cifar-lab reference --keep` writes it, but into the results."""
    from cifar_core.analysis.study.reference_runs import keep

    folder = options.out / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    keep(store, run_id, "drawn scenes" if options.tiny else options.what, folder)


# --- All of them --------------------------------------------------------------------------------


def check(options: argparse.Namespace) -> int:
    """Measure the card, train all presets within the budget, say what came of it."""
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
    failed = [
        row["preset"] for row in summary["runs"] if row["state"] not in ("finished", "stopped", "not begun")
    ]
    if failed:
        print(f"failed: {', '.join(failed)}; see {options.out / 'results'}", file=sys.stderr)
    return 1 if failed else 0


def _train_all(
    names: list[str], at_once: int, deadline: float, options: argparse.Namespace, summary: dict[str, Any]
) -> None:
    waiting, running = list(names), {}
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
    if at_once > 1:  # JAX takes three quarters of a GPU's memory at its start, unless told
        env["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / at_once:.2f}"
    return env


def _result(name: str, returncode: int, options: argparse.Namespace) -> dict[str, Any]:
    file = options.out / "results" / f"{_file(name)}.json"
    if returncode == 0 and file.exists():
        return json.loads(file.read_text())
    lines = file.with_suffix(".log").read_text(errors="replace").splitlines()
    return {"preset": name, "state": f"failed ({returncode})", "last_words": lines[-5:]}


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
    cards = (
        subprocess.run(query, capture_output=True, text=True, check=False).stdout
        if shutil.which("nvidia-smi")
        else ""
    )
    return {**device_summary().to_dict(), "cards": cards.splitlines(), "python": platform.python_version()}


def _packages() -> dict[str, str]:
    return {
        name: version(name) for name in ("keras", "jax", "jaxlib", "numpy", "tensorflow") if _installed(name)
    }


def _presets() -> list[str]:
    from cifar_core.settings.presets import presets

    return [FIRST, *(name for name in presets() if "/paper-" in name)]


def _table(summary: dict[str, Any]) -> str:
    rate = summary["matmul"].get("flops_per_second")
    card = summary["matmul"].get("device") or summary["machine"]["name"]
    head = (
        f"{card}: bfloat16 matrix products at {rate / 1e12:.3g} TFLOP/s"
        if rate
        else f"{card}: no matrix rate"
    )
    columns = (
        "preset",
        "state",
        "epochs",
        "test",
        "minutes",
        "s to 94 %",
        "images/s",
        "of the rate",
        "beside",
    )
    rows = [columns, *(_cells(row) for row in summary["runs"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([head, *lines])


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
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=1))
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())

"""The benchmark's parts and its result; the times themselves are not tested."""

import importlib
import json
import os
import re
import subprocess
from contextlib import contextmanager
from functools import partial

import pytest
from click.testing import CliRunner
from markupsafe import escape

from cifar_core.base.devices import ONEDNN_VARIABLE
from cifar_core.cli import bench
from cifar_core.cli.app import root
from cifar_core.cli.bench import parts, run_bench, variants_store, write_files
from cifar_core.cli.bench.result import HEADINGS, columns, row, with_ratios
from cifar_core.cli.bench.subjects import STUDY_AUGMENTATION, automatic, studied, subjects
from cifar_core.cli.bench.turns import in_turns
from cifar_core.errors import BenchError, ConfigError
from cifar_core.settings import compute
from cifar_core.settings.presets import preset
from cifar_core.store import RunStore

# Keras's old generator, in the study's pipeline, uses a deprecated name of SciPy.
pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")

# --- Rows -----------------------------------------------------------------------------------------


def test_rows_have_the_median_the_spread_and_how_many_times_as_fast_they_are():
    rows = with_ratios(
        [
            row("p", "s", "first", "images/s", [10, 30, 20]),
            row("p", "s", "second", "images/s", [40, 60, 50]),
            row("p", "t", "first", "ms", [4]),
            row("p", "t", "second", "ms", [2], batch_size=64),
            row("p", "u", "first", "MB", [4]),
            row("p", "v", "steady", "images/s", [10, 20, 40]),
            row("p", "v", "alike, on a machine that changes", "images/s", [20, 30, 40]),
        ]
    )
    assert [(one["median"], one["low"], one["high"]) for one in rows[:2]] == [(20, 10, 30), (50, 40, 60)]
    assert [one["ratio"] for one in rows] == [1, 2.5, 1, 2, None, 1, 1.5]
    assert columns(rows[:2]) == ["subject", "variant", "unit", "median", "low", "high", "ratio"]
    assert columns(rows)[-1] == "batch_size"


# --- Subjects -------------------------------------------------------------------------------------


def test_subjects_are_the_presets_designs_the_studys_first():
    assert subjects("resnet18")[0].config.hyperparameters == preset("resnet18/paper-baseline").hyperparameters
    assert [one.title for one in subjects("resnet18")] == ["resnet18", "resnet18 (standard design)"]
    assert [one.title for one in studied("resnet18")] == ["resnet18"]
    assert [one.title for one in studied("mobilenet")] == ["mobilenet", "mobilenet (cifar-fast stem)"]
    assert studied("mobilenet")[0].config.hyperparameters.stem == "imagenet"
    assert [one.title for one in subjects("wrn28_10")] == ["wrn28_10"]
    assert STUDY_AUGMENTATION == {"rotation": 15, "shift": 0.1, "zoom": 0.1, "flip": True, "fill": "nearest"}


def test_auto_is_measured_as_it_would_train(monkeypatch):
    config = studied("alexnet")[0].config
    chosen = compute.Choice("mixed_bfloat16", True, False, 256)
    monkeypatch.setattr(compute, "choice", lambda *_: chosen)
    fixed, environment = automatic(config)
    assert (fixed.precision, fixed.jit, fixed.batch_size) == ("mixed_bfloat16", "on", 256)
    assert environment == {ONEDNN_VARIABLE: "0"}


# --- Parts ----------------------------------------------------------------------------------------


def made(task):
    module, _, name = task.maker.partition(":")
    return getattr(importlib.import_module(module), name)(**task.options)


@pytest.fixture(autouse=True)
def _short_histories(monkeypatch):
    monkeypatch.setattr(variants_store, "EPOCHS", 3)


def by_variant(result):
    return {(one["subject"], one["variant"]): one for one in result["rows"]}


@pytest.fixture
def recorded(monkeypatch):
    """Tasks that would have been done in processes; each variant "measures" as many seconds as its number."""
    seen = {}

    common = {"images": 64, "epoch_end_seconds": 2.0, "onednn": "on", "backend": "tensorflow"}

    def pretend(tasks, rounds, **_):
        seen.update(tasks)
        more = {
            "cpu_seconds": 1.0,
            "own_seconds": 0.5,
            "ms": [1.0],
            "megabytes": 1.0,
            "agreement": 1.0,
            "max_difference": 0.0,
        }
        return {name: [{**common, **more, "seconds": n}] * rounds for n, name in enumerate(tasks, start=1)}

    @contextmanager
    def pretend_workers(tasks):
        yield {name: lambda n=n, **_: {**common, "seconds": n} for n, name in enumerate(tasks, start=1)}

    monkeypatch.setattr(parts, "in_processes", pretend)
    monkeypatch.setattr(parts, "workers", pretend_workers)
    return seen


@pytest.mark.slow
def test_augmentation_is_measured_against_the_old_generator(monkeypatch):
    def in_this_process(tasks, rounds, **_):
        return in_turns({name: made(one) for name, one in tasks.items()}, rounds, warm_up=False)

    monkeypatch.setattr(parts, "in_processes", in_this_process)
    monkeypatch.setattr("cifar_core.cli.bench.variants_augmentation.RUN_EPOCHS", 10)  # too few to compile for
    rows = by_variant(run_bench("augmentation", images=96, rounds=1))
    names = ["ImageDataGenerator", "stacked Keras layers", "ours"]
    assert list(rows) == [("batch 64", name) for name in names]
    assert rows["batch 64", "ImageDataGenerator"]["ratio"] == 1
    assert all(one["median"] > 0 and one["images_per_cpu_second"] > 0 for one in rows.values())


def test_training_compares_as_published_bare_and_ours(recorded):
    rows = by_variant(run_bench("training", models=("alexnet", "mobilenet"), images=64, rounds=1))
    assert {subject for subject, _ in rows} == {
        f"{model}, {how}"
        for model in ("alexnet", "mobilenet", "mobilenet (cifar-fast stem)")
        for how in ("plain", "augmented")
    }
    assert ("alexnet, plain", "bare fit") in rows
    assert ("alexnet, augmented", "bare fit") not in rows
    assert rows["alexnet, plain", "ours"]["ratio"] == pytest.approx(1 / 3)
    assert (
        rows["alexnet, plain", "ours, auto"]["batch_size"]
        == compute.choice(preset("alexnet/paper-baseline")).batch_size
    )
    assert recorded["study's pipeline"].environment == {}
    study = recorded["study's pipeline"].options["settings"]
    assert (study["precision"], study["batch_size"], study["rotation"]) == ("float32", 64, 15)


def test_overhead_weighs_the_end_of_an_epoch_by_the_studys_images(recorded):
    rows = by_variant(run_bench("overhead", images=64, rounds=1))
    ours = rows["base_cnn, epochs of 40,000 images", "ours, progress"]
    assert ours["steps_images_per_second"] == 32
    assert ours["median"] == pytest.approx(40_000 / (40_000 / 32 + 2))
    assert ours["own_share"] == 0.25
    assert recorded["ours, progress and recording"].options["store"]
    assert not os.path.exists(recorded["ours, progress and recording"].options["store"])


def test_an_export_that_cannot_be_made_is_left_out_and_said(monkeypatch):
    told = []
    good = {"ms": [2.0], "megabytes": 1.0, "agreement": 1.0, "max_difference": 0.0, "images": 64}

    def pretend(tasks, *_, **__):
        return {name: [{"missing": "pip install onnx"} if name == "onnx" else good] for name in tasks}

    monkeypatch.setattr(parts, "in_processes", pretend)
    rows = run_bench("exports", progress=told.append)["rows"]
    assert [one["variant"] for one in rows] == [name for name in parts.EXPORTS if name != "onnx"]
    assert any("onnx is left out: pip install onnx" in line for line in told)


def pretended(monkeypatch, seconds, clock=None):
    """Processes that take so many seconds for each image, by the names of their ways; (name, images) of all
    turns."""
    turns = []

    @contextmanager
    def pretend(tasks):
        def measure(name, images):
            turns.append((name, images))
            if clock is not None:
                clock[0] += images * seconds(name)
            return {"images": images, "seconds": images * seconds(name), "onednn": "on", "backend": "any"}

        assert len({one.process for one in tasks.values()}) == 2, "a process for each way, not for each size"
        yield {name: partial(measure, name) for name in tasks}

    monkeypatch.setattr(parts, "workers", pretend)
    ways = [
        compute.Choice("float32", False, onednn, size, "candidate")
        for size in (64, 32)
        for onednn in (False, True)
    ]
    monkeypatch.setattr(compute, "candidates", lambda _: ways)
    return turns


def test_settings_are_measured_and_auto_takes_the_fastest(monkeypatch, home):
    turns = pretended(monkeypatch, lambda name: 0.01 if "off" in name and "64" in name else 0.02)
    told = []
    rows = run_bench("settings", models=("base_cnn",), rounds=2, progress=told.append)["rows"]
    assert [(one["variant"], one["ratio"]) for one in rows] == [
        ("float32, oneDNN off, batch 64", 1),
        ("float32, oneDNN on, batch 64", pytest.approx(0.5)),
        ("float32, oneDNN off, batch 32", pytest.approx(0.5)),
    ], "other sizes are tried the fastest way only"
    assert turns[:3] == [
        ("float32, oneDNN off, batch 64", 4 * 64),
        ("float32, oneDNN on, batch 64", 4 * 64),
        ("float32, oneDNN off, batch 64", 5 * 64),
    ], "the second turn lasts about as long as planned"
    assert "  float32, oneDNN on, batch 64: 50 images/s" in told
    found = compute.choice(preset("base_cnn/paper-baseline"))
    assert (found.onednn, found.batch_size, found.source) == (False, 64, "this machine")
    assert (
        "auto for base_cnn is now: float32, oneDNN off, batch 64 (by measurement on this machine)" in told[-1]
    )
    assert compute.measurements_file().is_relative_to(home)


def test_what_does_not_fit_into_the_time_is_not_tried(monkeypatch):
    clock = [0.0]
    turns = pretended(monkeypatch, lambda _: 0.2, clock)
    monkeypatch.setattr(parts.time, "monotonic", lambda: clock[0])
    rows = run_bench("settings", models=("base_cnn",), rounds=3)["rows"]
    assert [one["variant"] for one in rows] == [
        "float32, oneDNN off, batch 64",
        "float32, oneDNN on, batch 64",
    ]
    assert clock[0] <= parts.SETTINGS_SECONDS
    assert len(turns) == 2


def test_stores_are_filled_and_timed(tmp_path):
    result = run_bench("store", rounds=1, runs=(2, 12))
    rows = by_variant(result)
    assert {variant for _, variant in rows} == {"2 runs", "12 runs"}
    assert {subject for subject, _ in rows} >= {"leaderboard by settings", "record an epoch", "size on disk"}
    assert rows["size on disk", "12 runs"]["unit"] == "MB"
    with RunStore(tmp_path) as store:
        run_id = variants_store.fill(store, 12)
        assert len(store.runs()) == 12
        board = store.leaderboard(by="settings")
        assert (len(board), board["runs"].sum()) == (3, 12)
        assert all(len(store.history(one)) == variants_store.EPOCHS for one in store.runs()["id"])
        assert store.get(run_id).state == "finished"


def test_start_up_is_measured_in_fresh_processes(monkeypatch):
    seen = []

    def run(command, **_):
        seen.append(command)
        return subprocess.CompletedProcess(command, 1 if "first_step" in command[2] else 0, "", "no memory")

    monkeypatch.setattr(parts.subprocess, "run", run)
    with pytest.raises(BenchError, match=r"'first step of base_cnn'.*status 1\. Its last output: no memory"):
        run_bench("startup", rounds=1)
    assert len(seen) == 3


@pytest.mark.slow
def test_one_model_is_trained_recorded_and_begun_for_real(tmp_path):
    """The makers that the fakes above stand for, each in this one process."""
    from cifar_core.cli.bench import variants_training as variants

    config = studied("base_cnn")[0].config.replace(precision="float32", batch_size=32, epochs=10)
    settings = config.model_dump(mode="json")
    augmented = config.replace(**STUDY_AUGMENTATION).model_dump(mode="json")
    ours = variants.ours(augmented, 96, store=str(tmp_path))
    for epoch in (variants.study(settings, 96), variants.study(augmented, 96), ours, ours):
        found = epoch()
        assert found["images"] == 64  # the first step of three does not count
        assert found["seconds"] > 0
        assert found["epoch_end_seconds"] > 0
        assert (found["own_seconds"] is None) == (epoch is not ours)
        assert 0 <= (found["own_seconds"] or 0) < found["seconds"]
    store = RunStore(tmp_path)
    (run_id,) = store.runs()["id"]
    assert list(store.history(run_id)["epoch"]) == [1, 2]
    assert store.artifact(run_id, "checkpoint.npz").exists()
    at_any_batch = variants.at_any_batch(settings)
    found = [at_any_batch(batch_size=size, images=96)["images"] for size in (96, 48, 96)]
    assert found == [96, 48, 96]
    variants.first_step(settings)


@pytest.mark.slow
def test_exports_are_written_timed_and_compared(tmp_path):
    from cifar_core.cli.bench.variants_export import exported

    settings = studied("base_cnn")[0].config.model_dump(mode="json")
    measured = exported(settings, str(tmp_path))
    found = measured(format="tflite", quantize="float16")
    assert found["ms"][0] > 0
    assert found["agreement"] > 0.9
    assert found["megabytes"] < measured(format="keras", quantize=None)["megabytes"]


# --- The result -----------------------------------------------------------------------------------


@pytest.fixture
def result(recorded, monkeypatch):  # noqa: ARG001 - nothing is trained
    """Of all parts, where only the stores are real."""
    monkeypatch.setattr(parts, "_fresh", lambda *_: lambda: {"seconds": 1.0})
    everything = run_bench("all", images=64, rounds=1, runs=(2,))
    return {**everything, "rows": [*everything["rows"], *run_bench("settings", rounds=1)["rows"]]}


def test_the_result_names_its_circumstances(result):
    assert result["schema"] == 1
    assert result["machine"]["cores"] >= 1
    assert {"cpu", "memory_gb", "gpu", "onednn_by_default"} <= result["machine"].keys()
    assert {"tensorflow", "keras", "numpy"} <= result["software"]["packages"].keys()
    assert result["software"]["backend"] == "tensorflow"
    assert result["load_average"].keys() == {"start", "end"}
    assert {"part", "subject", "variant", "unit", "median", "low", "high", "ratio"} <= set.intersection(
        *(set(one) for one in result["rows"])
    )
    trained = [one for one in result["rows"] if one["part"] == "training"]
    assert all({"precision", "onednn", "batch_size", "backend"} <= one.keys() for one in trained)


def test_files_are_whole_and_replace_none(result, home, tmp_path):
    first = write_files(result)
    assert [file.parent for file in first] == [home / "bench"] * 2
    assert json.loads(first[0].read_text()) == json.loads(json.dumps(result))
    page = first[1].read_text()
    assert "Plotly.newPlot" in page
    assert not re.search(r"<script[^>]+src=|<link|@import", page), "it needs no network"
    for part in bench.PARTS:
        assert f"<h2>{escape(HEADINGS[part])}</h2>" in page
    assert result["machine"]["cpu"] in page
    second = write_files(result)
    assert second[0].name == f"{first[0].stem}-2.json"
    assert write_files(result, tmp_path / "else" / "where")[0].parent == tmp_path / "else" / "where"
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="--out"):
        write_files(result, tmp_path / "file" / "folder")


def test_the_figure_has_a_bar_for_each_variant_with_its_spread():
    from cifar_core.plots import speed_bars

    rows = with_ratios([row("p", "s", name, "ms", [2 * n, 3 * n]) for n, name in ((1, "a"), (2, "b"))])
    bars, labels = speed_bars(rows).data
    assert list(bars.y) == ["a", "b"]
    assert list(bars.error_x.array) == [0.5, 1.0]
    assert labels.text[1].startswith("0.50x")
    assert labels.x[1] > 6, "beyond the line"
    with pytest.raises(ConfigError, match="Rows must all have one of the units"):
        speed_bars([*rows, row("p", "s", "c", "MB", [1])])


# --- The command ----------------------------------------------------------------------------------


def test_the_command_prints_one_document_or_tables_and_says_where_the_files_are(tmp_path, monkeypatch):
    rows = [row("store", "history of one run", "1 runs", "ms", [2.5], runs=1)]
    monkeypatch.setitem(bench.PARTS, "store", lambda request: rows if request.runs == (1, 2) else [])
    words = ["bench", "store", "--runs", "1,2", "--rounds", "1"]
    done = CliRunner().invoke(root, [*words, "--json", "--out", str(tmp_path)])
    document = json.loads(done.stdout)
    assert document["runs"] == [1, 2]
    assert document["rows"] == rows
    written = [line.removeprefix("wrote ") for line in done.stderr.splitlines() if line.startswith("wrote ")]
    assert sorted(written) == sorted(str(file) for file in tmp_path.iterdir())
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".html"}
    done = CliRunner().invoke(root, [*words, "--no-files"])
    assert "Stores of many runs" in done.stdout
    assert "history of one run" in done.stdout
    assert "wrote" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"part": "coffee"}, "Unknown part 'coffee'"),
        ({"models": ("lenet",)}, "Unknown model 'lenet'"),
        ({"models": ("vit", "vit")}, "each model once"),
        ({"images": 3}, "needs at least 64 images"),
        ({"rounds": 0}, "1 round; got 2560 and 0"),
        ({"runs": (10, 0)}, "runs must be numbers from 1"),
    ],
)
def test_a_senseless_measurement_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        run_bench(**arguments)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--runs", "ten"], "runs must be whole numbers"),
        (["--out", "x", "--no-files"], "leave out --no-files"),
    ],
)
def test_options_that_contradict_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(root, ["bench", "store", *words], catch_exceptions=False)

"""The runs that come with the release: that they are what they say, and what is read from them."""

import dataclasses
import json
import re
import statistics
from pathlib import Path

import pytest

from cifar_core.analysis.study import reference_runs as module
from cifar_core.analysis.study.paper import PAPER_FAULTS
from cifar_core.analysis.study.reference_runs import (
    costs,
    headline,
    keep,
    markdown,
    reference_runs,
    reference_table,
)
from cifar_core.cli import main
from cifar_core.cli.options import read_value
from cifar_core.data.problem import CIFAR10
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.settings.presets import preset
from cifar_core.settings.train_config import TrainConfig, train_settings
from cifar_core.store import RunStore

CHECKOUT = Path(__file__).parents[2]
EVERY = reference_runs()


def like(run, accuracy=None, test_accuracy=None, history=None, **changes):
    """A reference run like this one but for what is said."""
    settings = {**run.settings, **{name: value for name, value in changes.items() if name in run.settings}}
    own = {name: value for name, value in changes.items() if name not in run.settings}
    settings["hyperparameters"] = {**run.settings["hyperparameters"], **own}
    return dataclasses.replace(
        run,
        settings=settings,
        metrics={**run.metrics, **({} if accuracy is None else {"accuracy": accuracy})},
        test_accuracy=test_accuracy,
        history={**run.history, **(history or {})},
    )


@pytest.fixture(scope="module")
def any_run():
    return EVERY[0]


def test_some_come_with_the_release():
    assert {run.config.preset for run in EVERY} >= {"base_cnn/paper-baseline", "base_cnn/recommended"}


def test_they_come_in_the_order_of_the_models_and_then_best_first():
    places = [(list(MODELS).index(run.config.model), -run.accuracy) for run in EVERY]
    assert places == sorted(places)
    assert EVERY[0].config.model == "base_cnn", "not the one cut short, of all"


@pytest.mark.parametrize("run", EVERY, ids=lambda run: run.id)
def test_each_is_whole_and_consistent(run):
    assert run.config.train_limit is run.config.test_limit is None
    assert run.dataset["test"] == sum(map(sum, run.metrics["confusion"])) == 10_000
    right = sum(row[place] for place, row in enumerate(run.metrics["confusion"]))
    assert run.accuracy == pytest.approx(right / 10_000)
    assert run.epochs == run.config.epochs == len(run.history["accuracy"])
    assert run.minutes == pytest.approx(sum(run.history["seconds"]) / 60, rel=1e-3)
    assert run.data
    assert run.hardware


@pytest.mark.parametrize("run", EVERY, ids=lambda run: run.id)
def test_its_command_trains_the_same(run):
    words = run.command.split()
    assert words[:3] == ["cifar-lab", "train", "--preset"]
    declared = train_settings(run.config.model)
    flags = {flag[2:].replace("-", "_"): text for flag, text in zip(words[4::2], words[5::2], strict=True)}
    again = preset(words[3], **{name: read_value(declared[name], text) for name, text in flags.items()})
    differs = set(again.changes_from(run.config)) - {"name", "variant", "record_answers"}
    assert not differs


@pytest.mark.parametrize("path", sorted(module.FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_no_file_names_the_machine_that_trained(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r'"(/|[A-Z]:\\\\)|hostname|"host"|"command"|"origin"', text)


def test_a_row_for_each_of_the_study_with_its_own_protocol():
    base = next(run for run in EVERY if run.config.preset == "base_cnn/paper-baseline")
    tuned = preset("alexnet/paper-tuned")
    selected = dataclasses.replace(base, settings=tuned.model_dump(mode="json"))
    fair = dataclasses.replace(
        base, settings=tuned.model_copy(update={"protocol": "held-out"}).model_dump(mode="json")
    )
    changed = like(base, batch_size=32)
    table = reference_table([base, selected, fair, changed]).set_index("preset")
    assert len(table) == 7
    assert table.loc["base_cnn/paper-baseline", "as_published"] == [base]
    assert table.loc["base_cnn/paper-baseline", "held_out"] == [base], "the study held images out there too"
    assert table.loc["alexnet/paper-tuned", "as_published"] == [selected]
    assert table.loc["alexnet/paper-tuned", "held_out"] == [fair]
    assert table.loc["resnet18/paper-tuned", "as_published"] == []


def test_seeds_come_as_mean_and_spread_in_the_text():
    base = next(run for run in EVERY if run.config.preset == "base_cnn/paper-baseline")
    text = markdown([like(base, 0.70), like(base, 0.72, seed=1)])
    assert "71.00 ± 1.41 % (2 seeds, 50 epochs" in text
    assert "--seed 1" in text


def as_trained(run, name, epochs, accuracy, *, seed=0, values=None):
    """A reference run of another preset after so many epochs."""
    settings = preset(name, epochs=epochs, seed=seed).model_dump(mode="json")
    values = values or [accuracy] * epochs
    history = {**run.history, "accuracy": values, "val_accuracy": values}
    metrics = {**run.metrics, "accuracy": accuracy}
    return dataclasses.replace(run, settings=settings, history=history, metrics=metrics, minutes=60)


def test_where_none_was_trained_to_its_end_the_farthest_stands_marked(any_run):
    name = "alexnet/paper-baseline"
    two, four = as_trained(any_run, name, 2, 0.6), as_trained(any_run, name, 4, 0.7)
    table = reference_table([two, four]).set_index("preset")
    assert table.loc[name, "as_published"] == []
    assert table.loc[name, "shortened"] == {"as_published": [four], "held_out": [four], "recommended": []}
    cell = "70.00 % (4 of 10 epochs, 60 min)"
    assert f"| {cell} | {cell} | – |" in markdown([two, four]), (
        "the study's baselines are held out themselves"
    )
    whole = as_trained(any_run, name, 10, 0.73)
    table = reference_table([two, four, whole]).set_index("preset")
    assert (table.loc[name, "as_published"], table.loc[name, "shortened"]["as_published"]) == ([whole], [])
    other = like(four, learning_rate=0.01)
    assert not any(reference_table([other]).set_index("preset").loc[name, "shortened"].values())


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"batch_size": 32, "learning_rate": 0.025, "warmup_epochs": 0.333}, True),
        ({"batch_size": 32, "learning_rate": 0.025}, True),
        ({"batch_size": 32}, False),
        ({"learning_rate": 0.025}, False),
        ({"warmup_epochs": 1.0}, False),
        ({"batch_size": 32, "learning_rate": 0.025, "warmup_epochs": 0.333, "weight_decay": 0.0}, False),
        ({"warmup_epochs": 0.333}, True),
    ],
)
def test_a_short_recipe_may_have_other_batches_in_proportion(any_run, changes, counts):
    name = "mobilenet/recommended"
    run = like(as_trained(any_run, name, 10, 0.85), **changes)
    row = reference_table([run]).set_index("preset").loc["mobilenet/paper-tuned"]
    assert row["recommended"] == []
    assert row["shortened"]["recommended"] == ([run] if counts else [])
    said = "85.00 % (10 of 60 epochs" + (", batches of 32" if "batch_size" in changes else "")
    assert (said in markdown([run])) is counts


def between(name, mark):
    """What stands in a page between the two marks of a table."""
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    return text.split(f"<!-- {mark} -->")[1].split(f"<!-- /{mark} -->")[0].strip()


def test_readme_and_the_results_have_the_tables_as_the_command_prints_them():
    assert between("README.md", "headline") == headline()
    assert between("docs/results.md", "results") == markdown()


def test_the_headline_has_each_models_most_accurate_setting_and_how_many_seeds(any_run):
    low, high = (
        as_trained(any_run, "base_cnn/paper-baseline", 50, 0.60),
        as_trained(any_run, "base_cnn/recommended", 50, 0.80),
    )
    again = like(as_trained(any_run, "base_cnn/recommended", 50, 0.82), seed=1)
    other = as_trained(any_run, "mobilenet/recommended", 60, 0.90)
    rest = ("alexnet", "resnet18", "resnet9")
    more = [as_trained(any_run, f"{name}/recommended", 30, 0.7) for name in rest]
    rows = [
        line
        for line in headline([low, again, *more, high, other]).splitlines()
        if line.startswith("| ") and "%" in line
    ]
    cells = [row.split(" | ") for row in rows]
    assert [row[0] for row in cells][:2] == ["| MobileNetV2", "| Base CNN"]
    assert [row[1] for row in cells] == ["90.00 %", "81.00 ± 1.41 %", "70.00 %", "70.00 %"]
    assert [row[3] for row in cells] == ["1", "2", "1", "1"]
    assert "`cifar-lab train --preset base_cnn/recommended`" in rows[1]


# --- The figures in the text about the study's faults ---------------------------------------------


def of(name, **changes):
    """Reference runs of a preset that differ from it in these settings alone."""
    return [run for run in EVERY if run.config.preset == name and run.changes(name) == changes]


def mean(values):
    return f"{100 * statistics.mean(values):.2f}"


def accuracy(name, **changes):
    return mean(run.accuracy for run in of(name, **changes))


def share(value):
    return f"{100 * value:.1f}"


def best(run):
    """Index of the epoch with the best validation accuracy, the first of equals."""
    values = run.history["val_accuracy"]
    return values.index(max(values))


def selection():
    recorded = [run for run in EVERY if run.test_accuracy]
    by_test = [max(run.test_accuracy) for run in recorded]
    by_validation = [run.test_accuracy[best(run)] for run in recorded]
    points = [100 * (high - fair) for high, fair in zip(by_test, by_validation, strict=True)]
    (tuned,) = of("mobilenet/paper-tuned")
    last = tuned.history["val_accuracy"][-10:]
    return [
        *(str(len(recorded)), f"{min(points):.2f}", f"{max(points):.2f}", mean(by_test), mean(by_validation)),
        *("10", share(min(last)), share(max(last)), share(last[-1])),
    ]


def lost_epochs():
    (run,) = of("mobilenet/paper-baseline", bn_momentum=0.9)
    assert run.config.schedule == "constant"
    values = run.history["val_accuracy"]
    half = len(values) // 2
    return ["0", share(values[half - 1]), str(half), share(values[-1]), str(len(values))]


def trained_before():
    run = of("base_cnn/paper-baseline")[0]
    held_out = run.history["val_accuracy"]
    last = (run.history["accuracy"][-1], held_out[-1])
    return [str(best(run) + 1), share(held_out[best(run)]), str(run.epochs), *map(share, last)]


def blind_mobilenet():
    name = "mobilenet/paper-baseline"
    (blind,), (seeing,) = of(name), of(name, bn_momentum=0.9)
    assert blind.history["accuracy"] == seeing.history["accuracy"], "the two trained alike"
    modern = [run for run in EVERY if run.config.preset == "mobilenet/recommended"]
    assert {run.epochs for run in modern} == {blind.epochs} == {10}
    chance = 1 / CIFAR10.count
    dark = [value for value in blind.history["val_accuracy"] if value == chance]
    figures = (accuracy(name), accuracy(name, bn_momentum=0.9), mean(run.accuracy for run in modern))
    return [*figures, share(chance), str(len(dark)), share(seeing.history["val_accuracy"][0])]


def untuned():
    names = ("base_cnn/paper-baseline", "base_cnn/recommended")
    (epochs,) = {run.epochs for name in names for run in of(name)}
    return [str(epochs), *map(accuracy, names)]


def budgets():
    runs = of("base_cnn/paper-baseline")
    values = [run.history["val_accuracy"] for run in runs]
    after = mean(of_run[9] for of_run in values)
    return [str(len(runs)), after, "10", mean(map(max, values)), str(runs[0].epochs)]


def one_seed():
    groups = [of(name) for name in ("base_cnn/paper-baseline", "base_cnn/recommended")]
    spread = [statistics.stdev(100 * run.accuracy for run in group) for group in groups]
    return [text for sd, group in zip(spread, groups, strict=True) for text in (f"{sd:.2f}", str(len(group)))]


FIGURES = (selection, lost_epochs, trained_before, blind_mobilenet, untuned, budgets, one_seed)


@pytest.mark.parametrize("number", range(len(PAPER_FAULTS)), ids=[figures.__name__ for figures in FIGURES])
def test_every_figure_in_the_text_on_a_fault_is_that_of_the_runs(number):
    fault, figures = PAPER_FAULTS[number], FIGURES[number]
    text = re.sub("`[^`]*`", "", fault.evidence)
    assert re.findall(r"(?<![\w.])\d+(?:\.\d+)?", text) == figures()


def test_the_results_say_the_same_of_the_faults_as_the_page():
    results = (CHECKOUT / "docs/results.md").read_text(encoding="utf-8")
    assert [f"- **{fault.title}.** {fault.evidence}" for fault in PAPER_FAULTS] == [
        line for line in results.splitlines() if line.startswith("- **")
    ]


def test_without_runs_the_table_has_dashes():
    assert "–" in markdown([])


@pytest.mark.slow
def test_a_finished_run_of_a_store_can_be_kept(tiny, tmp_path):
    config = TrainConfig(
        model="base_cnn",
        dataset="synthetic",
        epochs=2,
        batch_size=64,
        precision="float32",
        record_answers=True,
    )
    from cifar_core.training.run import train

    store = RunStore(tmp_path / "store")
    run = train(config, dataset=tiny, store=store)
    path = keep(store, run.id, "drawn scenes", tmp_path / "kept")
    kept = module._read(path)
    assert kept.config == config
    assert kept.accuracy == run.report.accuracy
    assert kept.history["val_accuracy"] == pytest.approx(list(run.history["val_accuracy"]), rel=1e-5)
    assert len(kept.test_accuracy) == 2
    assert kept.test_accuracy[run.best_epoch - 1] == pytest.approx(run.report.accuracy)
    assert kept.data == "drawn scenes"


def test_what_is_no_reference_is_refused(tmp_path):
    store = RunStore(tmp_path / "store")
    queued = store.create_run(TrainConfig())
    with pytest.raises(ConfigError, match="queued; only a finished run"):
        keep(store, queued, "CIFAR-10", tmp_path)
    done = store.create_run(TrainConfig())
    store.claim(done, pid=1)
    store.finish(done, metrics={"accuracy": 0.5})
    with pytest.raises(ConfigError, match="what its images were"):
        keep(store, done, " ", tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_a_file_of_another_format_is_refused(tmp_path, any_run):
    path = tmp_path / "run.json"
    content = {**dataclasses.asdict(any_run), "format": 2}
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="another format"):
        module._read(path)


def test_the_costs_have_a_row_for_each_setting_whatever_its_seeds(any_run):
    runs = [
        as_trained(any_run, "base_cnn/recommended", epochs, accuracy, seed=seed)
        for epochs, accuracy, seed in ((10, 0.7, 0), (50, 0.8, 0), (50, 0.9, 1))
    ]
    found = costs(runs)
    assert found["label"].tolist() == [
        "base_cnn/recommended, 50 epochs",
        "base_cnn/recommended, 10 of 50 epochs",
    ]
    assert found["accuracy"].tolist() == pytest.approx([0.85, 0.7])
    assert found[["seeds", "minutes"]].to_numpy().tolist() == [[2, 60], [1, 60]]


def test_the_command_draws_them(tmp_path):
    assert main(["reference", "--figure", str(tmp_path / "minutes.html")]) == 0
    page = (tmp_path / "minutes.html").read_text(encoding="utf-8")
    assert "airbench\\u002fquick, 3 epochs" in page
    assert "Training time (min)" in page

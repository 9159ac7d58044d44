"""The runs that come with the release: that they are what they say, and what is read from them."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from cifar_core.analysis.study import reference_runs as module
from cifar_core.analysis.study.paper import PAPER_FAULTS
from cifar_core.analysis.study.reference_runs import evidence, keep, markdown, reference_runs, reference_table
from cifar_core.cli.options import read_value
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.settings.presets import preset
from cifar_core.settings.train_config import TrainConfig, train_settings
from cifar_core.store import RunStore
from cifar_core.training.run import train

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
    assert "1.41 points for `base_cnn/paper-baseline` (2 seeds)" in text
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


def test_a_seed_that_learned_nothing_is_told_beside_one_that_did(any_run):
    name, title = "alexnet/paper-baseline", PAPER_FAULTS[-1].title
    caught = as_trained(any_run, name, 1, 0.1)
    free = as_trained(any_run, name, 4, 0.7, seed=1, values=[0.53, 0.6, 0.65, 0.7])
    said = evidence([caught, free])[title]
    assert f"`{name}` has 10.0 % validation accuracy after epoch 1 with seed 0, as by chance" in said
    assert "53.0 % with seed 1" in said
    assert title not in evidence([caught, like(free, learning_rate=0.01)]), (
        "another recipe says nothing of seeds"
    )
    assert title not in evidence([free, as_trained(any_run, name, 1, 0.5)])


def test_how_far_test_selection_flatters_is_counted_from_the_epochs():
    base = next(run for run in EVERY if run.config.preset == "base_cnn/paper-baseline")
    history = {"val_accuracy": [0.5, 0.9, 0.7]}
    told = evidence([like(base, history=history, test_accuracy=[0.60, 0.64, 0.66])])
    assert "66.00 % against 64.00 %" in told[PAPER_FAULTS[0].title]
    assert "2.00 points" in told[PAPER_FAULTS[0].title]
    assert PAPER_FAULTS[0].title not in evidence([like(base)])


def test_a_run_that_looks_at_test_after_each_epoch_tells_how_far_its_last_ones_lie_apart(any_run):
    title = PAPER_FAULTS[0].title
    values = [0.9, *[0.3, 0.2, 0.5, 0.4, 0.45] * 2]
    run = as_trained(any_run, "mobilenet/paper-tuned", 11, 0.45, values=values)
    said = evidence([dataclasses.replace(run, test_accuracy=None)])[title]
    assert "`mobilenet/paper-tuned`" in said
    assert "from 20.0 % to 50.0 %, and 45.0 % after the last" in said, (
        "its first epoch is none of the last ten"
    )
    held_out = as_trained(any_run, "mobilenet/paper-baseline", 11, 0.45, values=values)
    assert title not in evidence([dataclasses.replace(held_out, test_accuracy=None)])


def test_mobilenet_is_put_right_step_by_step():
    base = next(run for run in EVERY if run.config.preset == "base_cnn/paper-baseline")
    settings = preset("mobilenet/paper-baseline").model_dump(mode="json")
    plain = dataclasses.replace(base, settings=settings)
    told = evidence(
        [
            like(plain, 0.2),
            like(plain, 0.6, bn_momentum=0.9, history={"val_accuracy": [0.3, 0.4, 0.5, 0.6]}),
            like(plain, 0.8, bn_momentum=0.9, stem="cifar"),
        ]
    )
    said = told[PAPER_FAULTS[3].title]
    assert [said.index(figure) for figure in ("20.00 %", "60.00 %", "80.00 %")] == sorted(
        said.index(figure) for figure in ("20.00 %", "60.00 %", "80.00 %")
    )
    assert "stood at" in said, "all of these have the same training accuracies"
    assert "40.0 % validation accuracy after 2 epochs and 60.0 % after 4" in told[PAPER_FAULTS[1].title]


def alike(epochs):
    """The history of a run that was as good after each epoch."""
    return {"accuracy": [0.5] * epochs, "val_accuracy": [0.5] * epochs}


def test_mobilenets_recipe_counts_beside_the_study_only_in_as_many_epochs():
    base = next(run for run in EVERY if run.config.preset == "base_cnn/paper-baseline")
    modern = preset("mobilenet/recommended", epochs=10).model_dump(mode="json")
    ten = dataclasses.replace(base, settings=modern, history=alike(10))
    title = PAPER_FAULTS[3].title
    assert "77.00 % with the stem and the recipe of today" in evidence([like(ten, 0.77)])[title]
    longer = dataclasses.replace(ten, history=alike(60))
    assert title not in evidence([longer])


def test_what_a_recipe_and_what_more_epochs_change_is_said_of_equal_trainings():
    base = next(run for run in EVERY if run.config.preset == "base_cnn/paper-baseline")
    better = next(run for run in EVERY if run.config.preset == "base_cnn/recommended")
    told = evidence([like(base, 0.60), like(better, 0.80)])
    assert "60.00 % as published and 80.00 %" in told[PAPER_FAULTS[4].title]
    assert PAPER_FAULTS[4].title not in evidence([like(better, 0.80)])

    values = [0.5] * 9 + [0.61] + [0.6] * 5 + [0.66] + [0.6] * (base.epochs - 16)
    told = evidence([like(base, history={"val_accuracy": values})])
    assert "61.00 % validation accuracy after 10 epochs and 66.00 %" in told[PAPER_FAULTS[5].title]
    early = [0.5] * 5 + [0.66] + [0.6] * (base.epochs - 6)
    assert PAPER_FAULTS[5].title not in evidence([like(base, history={"val_accuracy": early})])


def test_runs_that_trained_otherwise_are_not_said_to_have_trained_alike():
    base = next(run for run in EVERY if run.config.preset == "base_cnn/paper-baseline")
    plain = dataclasses.replace(base, settings=preset("mobilenet/paper-baseline").model_dump(mode="json"))
    dark = {"accuracy": [0.3, 0.4, 0.5], "val_accuracy": [0.1, 0.1, 0.3]}
    seeing = like(plain, bn_momentum=0.9, history={**dark, "val_accuracy": [0.36, 0.4, 0.5]})
    title = PAPER_FAULTS[3].title
    assert "10.0 % for 2 epochs" in evidence([like(plain, history=dark), seeing])[title]
    assert "began at 36.0 %" in evidence([like(plain, history=dark), seeing])[title]
    other = like(plain, history={**dark, "accuracy": [0.3, 0.4, 0.6]})
    assert "stood at" not in evidence([other, seeing])[title]


def test_readme_has_the_table_as_the_command_prints_it():
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert text.split("<!-- results -->")[1].split("<!-- /results -->")[0].strip() == markdown()


def test_nothing_known_says_nothing():
    assert evidence([]) == {}
    assert "–" in markdown([])


def test_a_finished_run_of_a_store_can_be_kept(tiny, tmp_path):
    config = TrainConfig(
        model="base_cnn",
        dataset="synthetic",
        epochs=2,
        batch_size=64,
        precision="float32",
        record_answers=True,
    )
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

import math
from types import SimpleNamespace

import pytest

from cifar_core.analysis.study.paper import PAPER_RESULTS
from cifar_core.errors import ConfigError, DivergedError
from cifar_core.settings.presets import preset, presets
from cifar_core.training.reproduce import COLUMNS, Outcome, paper_runs, reproduce, reproduction_table

NAMES = list(PAPER_RESULTS["preset"])


def row(table, name):
    return table.set_index("preset").loc[name]


def test_the_whole_study_is_its_presets():
    assert paper_runs() == [preset(name) for name in NAMES]


@pytest.mark.parametrize(
    ("scale", "train", "test", "epochs"),
    [(0.5, 25_000, 5000, 25), (0.02, 1000, 200, 1), (0.0001, 200, 100, 1), (0.123, 6150, 1230, 6)],
)
def test_scale_takes_from_images_and_epochs(scale, train, test, epochs):
    config = paper_runs("base_cnn", scale)[0]
    assert (config.train_limit, config.test_limit, config.epochs) == (train, test, epochs)
    assert config.variant == "custom"
    assert config.preset == "base_cnn/paper-baseline"
    smaller = paper_runs("base_cnn", scale, dataset="synthetic")[0]
    assert smaller.train_limit == max(200, 10 * round(scale * 1000))


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (None, NAMES),
        ("alexnet", NAMES[1:3]),
        ("tuned", [NAMES[2], NAMES[4], NAMES[6]]),
        (["resnet18/paper-tuned", "base_cnn"], [NAMES[0], NAMES[4]]),
    ],
)
def test_some_of_the_runs(only, names):
    assert [config.preset for config in paper_runs(only)] == names
    assert list(reproduction_table([], only=only)["preset"]) == names


def test_several_seeds():
    assert [config.seed for config in paper_runs("base_cnn", seeds=(0, 1, 2))] == [0, 1, 2]


@pytest.mark.parametrize("scale", [0, -1, 1.1, math.nan, "half"])
def test_scales_that_cannot_be(scale):
    with pytest.raises(ConfigError, match="scale must be a number above 0"):
        paper_runs(scale=scale)


@pytest.mark.parametrize("only", ["vit", "vit/recommended", ["alexnet", "lenet"], []])
def test_runs_that_the_study_has_not(only):
    with pytest.raises(ConfigError, match=r"Not a run of the study: .*base_cnn/paper-baseline"):
        paper_runs(only)


def test_a_table_without_runs_is_complete():
    table = reproduction_table([])
    assert list(table.columns) == list(COLUMNS)
    assert list(table["preset"]) == NAMES
    assert table["published"].tolist() == PAPER_RESULTS["test_accuracy"].tolist()
    assert (table["verdict"] == "not run").all()
    assert table["ours"].isna().all()


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [
        (0.73, "reproduced"),
        (0.741, "reproduced"),
        (0.744, "higher than published"),
        (0.716, "lower than published"),
    ],
)
def test_verdict_of_a_whole_run(accuracy, verdict):
    """Standard error of a difference of two accuracies near 73 % of 10,000: 0.63 points, so 1.23."""
    result = row(reproduction_table([Outcome(preset(NAMES[1]), accuracy, 120, "alexnet-1")]), NAMES[1])
    assert result["verdict"] == verdict
    assert result["difference"] == pytest.approx(accuracy - 0.73)
    assert (result["minutes"], result["seeds"], result["runs"]) == (2, 1, "alexnet-1")
    assert (result["epochs"], result["train_images"], result["test_images"]) == (10, 50_000, 10_000)


def test_spread_over_seeds_widens_what_luck_allows():
    outcomes = [
        Outcome(config, accuracy)
        for config, accuracy in zip(paper_runs(NAMES[1], seeds=(0, 1, 2)), (0.73, 0.75, 0.77), strict=True)
    ]
    result = row(reproduction_table(outcomes), NAMES[1])
    assert (result["ours"], result["sd"], result["seeds"]) == (pytest.approx(0.75), pytest.approx(0.02), 3)
    assert result["verdict"] == "reproduced"
    assert math.isnan(result["minutes"])


def test_scaled_runs_are_not_compared():
    outcomes = [Outcome(config, 0.73) for config in paper_runs(["base_cnn", "alexnet"], 0.02)]
    outcomes += [Outcome(preset(NAMES[3], dataset="synthetic"), 0.99)]
    outcomes += [Outcome(preset(NAMES[5], train_limit=5000), 0.24)]
    table = reproduction_table(outcomes)
    assert row(table, NAMES[0])["verdict"] == "not comparable: 2 % of the data, 1 of 50 epochs"
    assert row(table, NAMES[1])["verdict"] == "not comparable: 2 % of the data, 1 of 10 epochs"
    assert row(table, NAMES[3])["verdict"] == "not comparable: drawn images, not CIFAR-10"
    assert row(table, NAMES[5])["verdict"] == "not comparable: 10 % of the training images"
    assert row(table, NAMES[0])["train_images"] == 1000


def test_the_run_nearest_to_the_study_counts():
    whole, scaled = preset(NAMES[1]), paper_runs(NAMES[1], 0.5)[0]
    other = preset(NAMES[1], dropout_rate1=0.2)
    honest = preset(NAMES[2], protocol="held-out")
    outcomes = [Outcome(whole, 0.70), Outcome(whole, 0.72), Outcome(scaled, 0.9), Outcome(other, 0.95)]
    table = reproduction_table([*outcomes, Outcome(honest, 0.9)])
    assert row(table, NAMES[1])["ours"] == 0.72, "of the same seed the last"
    assert row(table, NAMES[2])["verdict"] == "not run", "another protocol is another recipe"
    assert row(reproduction_table(outcomes[2:]), NAMES[1])["ours"] == 0.9


def test_other_presets_do_not_appear():
    others = [Outcome(preset(name), 0.9) for name in presets() if name.endswith("recommended")]
    assert (reproduction_table(others)["verdict"] == "not run").all()


def test_a_run_without_a_figure_tells_its_state():
    outcomes = [Outcome(preset(NAMES[0]), problem="failed: out of memory")]
    assert row(reproduction_table(outcomes), NAMES[0])["verdict"] == "failed: out of memory"
    outcomes.append(Outcome(preset(NAMES[0]), 0.66))
    assert row(reproduction_table(outcomes), NAMES[0])["verdict"] == "reproduced"


@pytest.fixture
def scripted(monkeypatch):
    """`train` replaced by a script: accuracy, or an error to raise, by preset."""
    import cifar_core.training.run

    calls = []
    script = dict.fromkeys(NAMES, 0.7)

    def train(config, *, dataset, store, progress, should_stop):  # noqa: ARG001
        calls.append(config)
        progress("an event")
        result = script[config.preset]
        if isinstance(result, Exception):
            raise result
        metrics = None if result is None else {"accuracy": result, "train_seconds": 60.0}
        state = "stopped" if result is None else "finished"
        return SimpleNamespace(config=config, metrics=metrics, state=state, id="run")

    monkeypatch.setattr(cifar_core.training.run, "train", train)
    return SimpleNamespace(calls=calls, script=script)


def test_all_seven_run_and_a_failure_does_not_end_the_others(scripted):
    scripted.script[NAMES[2]] = DivergedError("the loss is NaN")
    scripted.script[NAMES[3]] = None
    table = reproduce(scale=0.02)
    assert [config.preset for config in scripted.calls] == NAMES
    assert row(table, NAMES[2])["verdict"] == "failed: the loss is NaN"
    assert row(table, NAMES[3])["verdict"] == "stopped"
    assert table["ours"].notna().sum() == 5
    assert row(table, NAMES[0])["minutes"] == 1


@pytest.mark.usefixtures("scripted")
def test_only_the_runs_given_are_in_the_table_and_progress_names_them():
    seen = []
    table = reproduce(paper_runs("alexnet", 0.02), progress=lambda *event: seen.append(event))
    assert list(table["preset"]) == NAMES[1:3]
    assert [(number, total, config.preset, event) for number, total, config, event in seen] == [
        (1, 2, NAMES[1], None),
        (1, 2, NAMES[1], "an event"),
        (2, 2, NAMES[2], None),
        (2, 2, NAMES[2], "an event"),
    ]


def test_runs_of_other_presets_are_refused_before_anything_is_trained(scripted):
    with pytest.raises(ConfigError, match="Not a run of the study: 'vit/recommended'"):
        reproduce([preset(NAMES[0]), preset("vit/recommended")])
    assert not scripted.calls


def test_no_other_run_begins_after_a_stop(scripted):
    table = reproduce(scale=0.02, should_stop=lambda: len(scripted.calls) >= 2)
    assert len(scripted.calls) == 2
    assert table["ours"].notna().sum() == 2
    assert len(table) == 7


def test_table_from_a_store(home):
    from cifar_core.store import RunStore

    with RunStore() as store:
        done = store.create_run(preset(NAMES[0]))
        queued = store.create_run(preset(NAMES[1]))
        other = store.create_run(preset("resnet9/recommended"))
        for run_id in (done, other):
            store.claim(run_id, pid=1, host="here")
            store.begin(run_id, environment={}, dataset={}, parameters=1, total_steps=1)
            store.finish(run_id, metrics={"accuracy": 0.7, "train_seconds": 600.0})
        table = reproduction_table(store)
    assert home.exists()
    first = row(table, NAMES[0])
    assert (first["ours"], first["minutes"], first["runs"]) == (0.7, 10, done)
    assert first["verdict"] == "higher than published"
    assert row(table, NAMES[1])["verdict"] == "queued"
    assert queued != done
    assert (table["verdict"] == "not run").sum() == 5

"""The Tune page: every start, every space, what is refused, what a click starts, every state of a search."""

import functools
import json
import re

import pytest

from cifar_core.models import MODELS
from cifar_core.plots import search as search_figures
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState
from cifar_core.tuning import SEARCH_PRESETS, check_search, search_preset, searchable, stopping_after_trial
from pages.shared import resources
from pages.shared.draft import presets_of
from pages.tune import draft, entry, tabs
from pages.tune.watch import WatchedSearch
from tests.pages import live_runs, tune_searches
from tests.pages.scenes import open_on_scenes

PAGE = "pages/tune/tune.py"
pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def tune(open_page):  # noqa: ARG001 - it closes what the page has opened
    """The page on drawn scenes."""
    return functools.partial(open_on_scenes, "tune")


def store():
    return resources.store()


def settings(test):
    return test.session_state["tune_settings"]


def the_config(test):
    return draft.config(settings(test))


def launch(test):
    return next(button for button in test.button if (button.key or "").startswith("tune_launch_"))


def widget(test, name):
    """The widget of a setting by its name, or by its name and part: "dropout_mode"."""
    key = f"tune_{test.session_state['_tune_generation']}_{name}"
    return next(item for item in test.main if getattr(item, "key", None) == key)


def button(test, label):
    return next(item for item in test.button if item.label == label)


def html(test):
    return "".join(element.proto.body for element in test.main.get("html"))


def words(test):
    return "\n".join(str(item.value) for item in (*test.markdown, *test.caption, *test.info, *test.warning))


def figures(test):
    found = [json.loads(item.proto.json) for item in test.main if item.type == "bidi_component"]
    return [data["figure"] for data in found if "figure" in data]


def address(test, name):
    value = test.query_params.get(name)
    return value[0] if isinstance(value, list) else value


# --- Setting up -----------------------------------------------------------------------------------


def test_an_empty_store_offers_a_search_and_says_that_there_is_none_yet(tune):
    test = tune()
    assert test.title[0].value == "Tune"
    assert "There are no searches yet" in test.info[0].value
    assert not launch(test).disabled
    assert (address(test, "model"), address(test, "preset")) == ("base_cnn", "own")


@pytest.mark.parametrize("model", MODELS)
def test_every_model_begins_with_a_valid_search(model):
    assert check_search(draft.config(draft.of_model(model))).trials == 30
    assert check_search(draft.config(draft.own(model))).trials == 30


@pytest.mark.slow
def test_every_model_and_every_start_can_be_launched(tune):
    test = tune()
    for model in reversed(MODELS):
        test.pills("tune_model").set_value(model).run()
        assert settings(test)["model"] == model
        assert not launch(test).disabled
        assert not test.error
        assert check_search(the_config(test)).trials == 30
        for start in [*presets_of(model), draft.OWN]:
            test.pills("tune_start").set_value(start).run()
            assert not test.exception
            assert not test.error, test.error[0].value
            assert the_config(test).preset == (None if start == "own" else start)


@pytest.mark.slow
def test_hostile_addresses_are_a_calm_message(tune):
    test = tune()
    for model, preset in [
        ("nope", ""), ("<b>x</b>", "own"), ("alexnet", "nope/x"), ("", "../../etc"), ("a" * 3000, "a" * 3000)
    ]:  # fmt: skip
        test.query_params["model"], test.query_params["preset"] = model, preset
        test.run()
        assert not test.exception
        assert not launch(test).disabled
        assert "nknown" in test.info[0].value
        for message in test.info:
            assert not re.search(r"(?<!\\)[<\[*]", message.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.1", "at least two values"),
        ("0.1, 0.2", "Two numbers would be a range"),
        ("a, b, c", "is not a number"),
        ("0.1, 0.2, 7", "must be a number"),
        ("0.1, 0.1, 0.2", "names a value twice"),
        ("0.1, nan, 0.2", "is not a number"),
        ("0.1, 0.2, 0.4", ""),
    ],
)
def test_what_is_wrong_with_listed_values_is_said(text, said):
    problem = entry.problem("base_cnn", searchable("base_cnn")["dropout"], ("text", text))
    assert said in problem
    assert bool(said) == bool(problem)


@pytest.mark.slow
def test_what_is_wrong_stands_beside_the_field_and_nothing_is_lost(tune):
    test = tune(model="base_cnn")
    widget(test, "dropout_mode").set_value("Values").run()
    widget(test, "dropout_text").set_value("a, b, c").run()
    assert not test.exception
    beside = [item.value for item in test.markdown if item.value.startswith(":red[")]
    assert len(beside) == 1
    assert "is not a number" in beside[0].replace("\\", "")
    assert launch(test).disabled
    assert widget(test, "dropout_text").value == "a, b, c"
    test.pills("tune_group").set_value("Optimizer").run()
    test.pills("tune_group").set_value("Model").run()
    assert widget(test, "dropout_text").value == "a, b, c"
    widget(test, "dropout_text").set_value("0.1, 0.2, 0.4").run()
    assert not launch(test).disabled
    next(b for b in test.button if b.key == "tune_let_go_dropout").click().run()
    assert "dropout" not in the_config(test).space
    assert widget(test, "dropout_mode").value == "Fixed"


def test_an_entry_becomes_another_kind_and_back():
    rate = searchable("base_cnn")["learning_rate"]
    assert entry.of_values(rate, (1e-4, 1e-2)) == ("range", 1e-4, 1e-2)
    assert entry.as_list(rate, ("range", 1e-4, 1e-2)) == ("text", "0.0001, 0.0003162, 0.001, 0.003162, 0.01")
    assert entry.as_range(rate, ("text", "0.001, 0.01, 0.0005"), 0.001) == ("range", 0.0005, 0.01)
    assert entry.as_range(rate, ("text", "nonsense"), 0.001)[0] == "range"
    low, high = entry.range_including(rate, 0.9)[1:]
    assert low <= 0.9 <= high
    assert entry.text_of(rate, ("range", 1e-4, 1e-2)) == "0.0001 to 0.01"
    flip = searchable("base_cnn")["flip"]
    assert entry.text_of(flip, entry.proposal(flip, True)) == "on / off"


@pytest.mark.slow
def test_the_studys_search_is_exactly_the_preset(tune):
    test = tune(preset="alexnet/paper-search")
    assert settings(test)["model"] == "alexnet"
    named = search_preset("alexnet/paper-search", base={"dataset": "synthetic"})
    assert the_config(test) == named
    assert "both dense widths" in words(test)
    assert ">30<" in html(test)
    assert ">120<" in html(test)
    test.pills("tune_search").set_value("own").run()
    assert address(test, "preset") == "own"
    assert the_config(test) != named


@pytest.mark.slow
def test_all_groups_of_a_model_can_be_looked_through(tune):
    test = tune(model="vit")
    for group in draft.groups("vit"):
        test.pills("tune_group").set_value(group).run()
        assert not test.exception
    assert not launch(test).disabled


@pytest.mark.slow
def test_a_number_is_fixed_drawn_from_a_range_or_listed(tune):
    test = tune(model="base_cnn")
    assert the_config(test).space["dropout"] == (0.0, 0.6)
    widget(test, "dropout_From").set_value(0.2).run()
    assert the_config(test).space["dropout"] == (0.2, 0.6)
    assert "0\\.2 to 0\\.6" in next(b.label for b in test.button if b.key == "tune_let_go_dropout")
    widget(test, "dropout_mode").set_value("Values").run()
    widget(test, "dropout_text").set_value("0.1, 0.3; 0.5").run()
    assert the_config(test).space["dropout"] == (0.1, 0.3, 0.5)
    widget(test, "dropout_mode").set_value("Fixed").run()
    widget(test, "dropout").set_value(0.25).run()
    assert "dropout" not in the_config(test).space
    assert the_config(test).base["dropout"] == 0.25
    widget(test, "dropout_mode").set_value("Range").run()
    assert the_config(test).space["dropout"] == (0.0, 0.6)


@pytest.mark.slow
def test_choices_and_switches_are_narrowed(tune):
    test = tune(model="base_cnn")
    test.pills("tune_group").set_value("Optimizer").run()
    widget(test, "optimizer_mode").set_value("Values").run()
    assert the_config(test).space["optimizer"] == ("adam", "adamw", "sgd")
    widget(test, "optimizer_values").set_value(["sgd", "adam"]).run()
    assert the_config(test).space["optimizer"] == ("adam", "sgd")
    test.pills("tune_group").set_value("Augmentation").run()
    widget(test, "flip_mode").set_value("Values").run()
    assert the_config(test).space["flip"] == (True, False)
    assert not launch(test).disabled


@pytest.mark.slow
def test_an_empty_range_and_an_empty_space_are_refused(tune):
    test = tune(model="base_cnn")
    widget(test, "dropout_From").set_value(0.6).run()
    assert "Both ends are 0" in test.error[0].value
    widget(test, "dropout_From").set_value(0.7).run()
    assert "is empty" in test.error[0].value.replace("\\", "")
    button(test, "Fix all").click().run()
    assert "Nothing is explored yet" in test.error[0].value
    assert launch(test).disabled
    button(test, "Explore all that have a range").click().run()
    assert not test.error
    assert len(the_config(test).space) > 10


@pytest.mark.slow
def test_what_contradicts_is_said_at_the_button(tune):
    test = tune(model="base_cnn")
    test.pills("tune_group").set_value("Schedule").run()
    widget(test, "warmup_epochs").set_value(2.0).run()
    widget(test, "schedule_mode").set_value("Values").run()
    assert "warmup_epochs is for" in test.error[0].value.replace("\\", "")
    assert launch(test).disabled


@pytest.mark.slow
def test_each_tuner_shows_its_own_options_and_plan(tune):
    test = tune(model="base_cnn")
    for tuner, trials in (("random", 20), ("bayesian", 20), ("grid", 20), ("hyperband", 30)):
        widget(test, "option_tuner").set_value(tuner).run()
        test.run()
        keys = [getattr(item, "key", None) or "" for item in test.main]
        assert any("option_factor" in key for key in keys) == (tuner == "hyperband")
        assert any("option_max_trials" in key for key in keys) == (tuner != "hyperband")
        assert f">{trials}<" in html(test)
    assert "Brackets and rounds" in [item.label for item in test.expander]


@pytest.mark.slow
def test_a_limit_of_images_holds_for_all_trials(tune):
    test = tune(model="base_cnn")
    test.pills("tune_group").set_value("Data").run()
    widget(test, "train_limit_set").set_value(True).run()
    widget(test, "train_limit").set_value(500).run()
    assert the_config(test).base["train_limit"] == 500
    assert "400 images to train on, 100 for validation" in words(test)
    widget(test, "train_limit").set_value(40_000).run()
    assert "train_limit must be at most 10,000" in test.error[0].value.replace("\\", "")


@pytest.mark.slow
def test_without_images_nothing_can_be_launched(open_page):
    test = open_page(PAGE)
    assert launch(test).disabled
    button(test, "Use synthetic scenes").click().run()
    assert not launch(test).disabled


@pytest.mark.slow
def test_a_launch_queues_one_search_and_opens_it(tune, quiet):
    test = tune(model="base_cnn")
    wanted = the_config(test)
    clicked = launch(test)
    clicked.click().run()
    assert not test.exception
    ids = store().searches()["id"].tolist()
    assert len(ids) == 1
    assert store().get_search(ids[0]).config == wanted
    assert address(test, "search") == ids[0]
    assert quiet
    assert "Queued" in html(test)
    test.run()
    assert len(store().searches()) == 1
    button(test, "Set up a new search").click().run()
    assert not launch(test).disabled
    launch(test).click().run()
    assert len(store().searches()) == 2


# --- One search -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_unknown_search_is_said_and_a_new_one_offered(tune):
    test = tune()
    for asked in ["search-nope", "<script>x</script>", "%00", "a" * 5000, "../x"]:
        test.query_params["search"] = asked
        test.run()
        assert not test.exception
        assert "No " in test.info[0].value
        assert not re.search(r"(?<!\\)[<\[*]", test.info[0].value)
        assert launch(test)


def states(opened):
    """A search in each state by name."""
    stopped = tune_searches.running(opened, 4, 1)
    opened.stopped(stopped, "stopped on request after 4 trials")
    failed = tune_searches.running(opened, 2, 0)
    tune_searches.fail_trial(opened, failed, 3, reason="<b>Out of memory</b>")
    opened.fail(failed, "3 trials in a row failed")
    crashed = tune_searches.starting(opened)
    opened.crash(crashed, "The worker process ended without a word.")
    stopping = tune_searches.running(opened, 1, 1, tuner="random")
    opened.request_stop(stopping)
    return {
        "Queued": tune_searches.queued(opened),
        "Starting": tune_searches.starting(opened),
        "Running, trial 6 of 30": tune_searches.running(opened, 5, 1),
        "Running, trial 1 of 20": tune_searches.running(opened, 0, 0, tuner="grid"),
        "Stopping…": stopping,
        "Stopped": stopped,
        "Failed": failed,
        "Crashed": crashed,
        "Finished": tune_searches.finished(opened),
    }


@pytest.mark.slow
def test_every_state_is_told_and_every_tab_says_what_there_is(tune):
    test = tune()
    known = states(store())
    for title, search_id in known.items():
        test.query_params["search"] = search_id
        test.run()
        assert not test.exception
        assert title in html(test)
        assert test.title[0].value == search_id
    for tab in tabs.TABS:
        test = tune(tab=tab)
        for title in ("Queued", "Failed", "Running, trial 6 of 30", "Running, trial 1 of 20"):
            test.query_params["search"] = known[title]
            test.run()
            assert not test.exception
            assert title in html(test)
            assert "<b>Out" not in json.dumps(figures(test))
            assert figures(test) or test.main.dataframe or test.info


def test_a_running_search_is_shown_live_and_listed(tune):
    search_id = tune_searches.running(store(), 3, 1)
    test = tune(search=search_id[:9])
    assert address(test, "search") == search_id
    assert test.title[0].value == search_id
    assert "Running, trial 4 of 30" in html(test)
    test.query_params.pop("search")
    test.run()
    found = [json.loads(element.proto.json) for element in test.main if element.type == "bidi_component"]
    (row,) = next(data["rows"] for data in found if "rows" in data)
    assert row["href"] == f"tune?search={search_id}"
    assert row["cells"][0] == ["▶ running", "trial 4 of 30"]
    assert row["cells"][2][0] == "3 of 30"


def test_hyperbands_tree_shows_what_is_planned_and_who_was_promoted(tune):
    test = tune(search=tune_searches.running(store(), 17, 1))
    tree = figures(test)[0]
    lines, way, planned, trials = tree["data"]
    assert len(trials["x"]) == 18
    assert len(planned["x"]) == 30 - 18
    pairs = [pair for trace in (lines, way) for pair in zip(trace["x"][::3], trace["x"][1::3], strict=True)]
    assert sorted(pairs) == [(2.0, 4.0)] * 4 + [(4.0, 10.0)] * 2
    assert way["x"] == [2.0, 4.0, None, 4.0, 10.0, None]
    assert [note["text"] for note in tree["layout"]["annotations"]] == ["bracket 1", "bracket 2", "bracket 3"]


def test_curves_of_promoted_trials_begin_where_their_parents_ended(home):  # noqa: ARG001
    watch = watched(tune_searches.running(store(), 14, 1))
    drawn = search_figures.trial_curves(
        watch.trials,
        lambda trial_id: watch.points(trial_id, "val_accuracy"),
        "Accuracy",
        factor=100,
        winners=watch.winners,
    )
    names = [trace["name"] for trace in drawn["data"]]
    assert names == ["others", "running now", f"best: trial {watch.best['number']}"]
    best = drawn["data"][2]
    assert [x for x in best["x"] if x is not None] == [1, 2, 2, 3, 4]
    assert drawn["data"][1]["x"][:2] == [2, 3]


def watched(search_id):
    watch = WatchedSearch(search_id, store().get_search(search_id).config)
    watch.update(store())
    return watch


def test_only_new_rows_are_read(home):  # noqa: ARG001
    search_id = tune_searches.running(store(), 3, 1)
    watch = watched(search_id)
    version = watch.version
    told, _ = store().live_search(search_id, watch._cursor)
    assert (told.search, told.trials, told.epochs) == (None, [], [])
    watch.update(store())
    assert watch.version == version
    store().record_trial_epoch(search_id, "0004", 2, {"val_accuracy": 0.5, "val_loss": 1.0})
    watch.update(store())
    assert watch.version == version + 1
    assert sorted(watch.epochs["0004"]) == [1, 2]
    assert watch.status.trials_done == 3


@pytest.mark.slow
def test_what_mattered_waits_for_enough_trials(tune):
    test = tune(search=tune_searches.running(store(), 1, 1), tab="What mattered")
    assert "from 2 finished trials" in test.info[0].value
    test = tune(search=tune_searches.running(store(), 4, 1), tab="What mattered")
    assert "at least 5 finished trials" in test.info[0].value.replace("\\", "")
    test = tune(search=tune_searches.finished(store()), tab="What mattered")
    parallel, importance, *against = figures(test)
    assert [axis["label"] for axis in parallel["data"][0]["dimensions"]] == [
        "batch norm", "dropout", "optimizer", "learning rate", "validation (%)"
    ]  # fmt: skip
    assert importance["data"][0]["y"][-1] == "learning rate"
    assert len(against) == 4


def test_the_table_of_trials_has_all_of_them(home):  # noqa: ARG001
    search_id = tune_searches.running(store(), 14, 1)
    tune_searches.fail_trial(store(), search_id, 15)
    rows = tabs.table(watched(search_id))
    assert rows["Trial"].tolist() == list(range(1, 16))
    assert rows["State"].tolist() == ["finished"] * 14 + ["failed"]
    assert rows["Reason"].iloc[-1] == "The loss is no longer a finite number."
    assert rows["Continues"].notna().sum() == 3
    trials = store().trials(search_id)
    assert rows["Learning rate"].tolist() == [values["learning_rate"] for values in trials["settings"]]


@pytest.mark.slow
def test_the_winner_leads_to_its_run_and_to_the_train_page(tune):
    run = live_runs.finished(store(), variant="tuned")
    test = tune(search=tune_searches.finished(store(), best_run=run))
    assert "The winner: trial 17" in words(test)
    found = [json.loads(element.proto.json) for element in test.main if element.type == "bidi_component"]
    labels = [data["label"] for data in found if "href" in data]
    assert any("on the test images" in label for label in labels)
    assert "Tuned against baseline" in labels
    store().delete(run)
    test = tune(search=store().searches()["id"][0])
    assert "was deleted" in words(test)
    button(test, "Train these settings").click().run()
    assert not test.exception
    assert test.session_state["train_settings"]["variant"] == "tuned"
    assert test.title[0].value == "Train"


def test_stop_after_the_trial_is_asked_once_and_shown(tune):
    search_id = tune_searches.running(store(), 3, 1)
    test = tune(search=search_id)
    button(test, "Stop after this trial").click().run()
    assert stopping_after_trial(store(), search_id)
    assert button(test, "Stops after this trial…").disabled
    assert store().get_search(search_id).state is RunState.RUNNING


@pytest.mark.slow
def test_stop_now_resume_and_delete(tune):
    search_id = tune_searches.running(store(), 3, 1)
    test = tune(search=search_id)
    button(test, "Stop now").click().run()
    assert store().get_search(search_id).state is RunState.STOPPING
    assert "Stopping…" in html(test)
    store().stopped(search_id, "stopped on request after 3 trials")
    test = tune(search=search_id)
    assert "stopped on request after 3 trials" in html(test)
    button(test, "Resume with trial 4").click().run()
    assert store().get_search(search_id).state is RunState.QUEUED
    assert "continues after 3 trials" in html(test)
    button(test, "Take out of the queue").click().run()
    assert store().get_search(search_id).state is RunState.STOPPED
    button(test, "Delete for good").click().run()
    assert store().searches().empty
    assert test.title[0].value == "Tune"
    assert address(test, "search") is None


@pytest.mark.slow
def test_a_click_that_comes_too_late_is_told(tune):
    search_id = tune_searches.running(store(), 3, 1)
    test = tune(search=search_id)
    store().stopped(search_id, "stopped elsewhere")
    button(test, "Stop now").click().run()
    assert not test.exception
    assert "can't be stopped" in test.warning[0].value.replace("\\", "")


@pytest.mark.slow
def test_a_copy_of_a_search_is_set_up_as_it_was(tune):
    search_id = tune_searches.finished(store())
    test = tune(search=search_id)
    button(test, "Set up a copy").click().run()
    assert not test.exception
    assert test.title[0].value == "Tune"
    assert the_config(test) == store().get_search(search_id).config


@pytest.mark.slow
def test_a_finished_search_is_widened(tune):
    search_id = tune_searches.finished(store(), tuner="random", max_trials=3, train_best=False)
    test = tune(search=search_id)
    assert "6 trials, 3 of them taken along." in words(test)
    next(box for box in test.number_input if box.key == f"widen_max_trials_{search_id}").set_value(3).run()
    assert "Nothing would be new" in words(test)
    assert button(test, "Launch the wider search").disabled
    next(box for box in test.number_input if box.key == f"widen_max_trials_{search_id}").set_value(5).run()
    button(test, "Launch the wider search").click().run()
    assert not test.exception
    new = address(test, "search")
    record = store().get_search(new)
    assert (record.config.widens, record.config.max_trials, record.state) == (search_id, 5, RunState.QUEUED)
    assert "3 of 5" in html(test)
    assert "3 taken along" in html(test)
    assert tabs.table(watched(new))["Taken from"].tolist() == [f"{search_id}/000{n}" for n in (1, 2, 3)]


@pytest.mark.slow
def test_impossible_combinations_are_said_before_and_after(tune):
    space = {"schedule": ("constant", "one_cycle", "plateau"), "warmup_epochs": (0.0, 1.0, 1.5)}
    search_id = tune_searches.finished(store(), tuner="grid", space=space, max_epochs=3)
    test = tune(search=search_id)
    assert "5 of 5" in html(test)
    assert "4 impossible, left out" in html(test)
    button(test, "Set up a copy").click().run()
    assert "of 5 possible settings" in html(test)
    assert "4 combinations contradict themselves and are left out." in words(test)
    assert not launch(test).disabled


def test_a_cut_trial_counts_as_done_in_no_list(tune):
    search_id = tune_searches.running(store(), 3, 1)
    store().request_stop(search_id)
    store().stopped(search_id, "stopped on request")
    test = tune(search=search_id)
    assert "3 of 30" in html(test)
    test.query_params.pop("search")
    test.run()
    found = [json.loads(element.proto.json) for element in test.main if element.type == "bidi_component"]
    (row,) = next(data["rows"] for data in found if "rows" in data)
    assert row["cells"][2][0] == "3 of 30"


@pytest.mark.parametrize("name", SEARCH_PRESETS)
def test_every_search_preset_survives_the_page(name):
    made = search_preset(name)
    assert draft.config(draft.of_search(made)) == made


def test_a_search_of_another_release_is_said_to_be_one(tune, monkeypatch):
    search_id = tune_searches.queued(store())
    monkeypatch.setattr(SearchConfig, "_check_space", _refused, raising=False)
    record = store().get_search(search_id)
    monkeypatch.setattr(type(record), "config", property(_refused))
    test = tune(search=search_id)
    assert "another release" in words(test)


def _refused(*_):
    from cifar_core.errors import ConfigError

    raise ConfigError("Unknown setting 'old'.")

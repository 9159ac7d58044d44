"""The Train page: every model, every preset, what is refused, what is kept, what a click starts."""

import dataclasses
import functools

import pytest

from cifar_core.base.devices import device_summary
from cifar_core.models import MODELS
from cifar_core.settings.presets import PRESETS, SCENES_EPOCHS, begin_with, preset
from cifar_core.settings.train_config import TrainConfig, train_settings
from pages.shared import model_summary, navigation, resources
from pages.shared.launch import roughly
from pages.train import draft, essentials
from pages.train import launch as launch_panel
from tests.pages import live_runs
from tests.pages.conftest import network
from tests.pages.scenes import open_on_scenes

PAGE = "pages/train/train.py"
FIRST = {*draft.ESSENTIAL, "augmentation"}
"""Widgets that are always shown."""
pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def train(open_page):  # noqa: ARG001 - it closes what the page has opened
    """The page on drawn scenes."""
    return functools.partial(open_on_scenes, "train")


def launch(test):
    return next(button for button in test.button if (button.key or "").startswith("train_launch_"))


def settings(test):
    return test.session_state["train_settings"]


def put(test, **values):
    """Set these settings as another page or a preset would, with new widgets."""
    settings(test).update(values)
    test.session_state["_train_generation"] += 1
    test.run()


def widgets(test):
    """The settings' widgets by the setting's name; a setting that may be nothing by its switch."""
    prefix = f"train_{test.session_state['_train_generation']}_"
    keyed = [item for item in test.main if (getattr(item, "key", None) or "").startswith(prefix)]
    return {item.key.removeprefix(prefix).removesuffix("_set"): item for item in keyed}


def widget(test, name):
    return widgets(test)[name]


def open_group(test, group):
    return test.pills("train_group").set_value(group).run()


def captions(test):
    return "\n".join(element.value for element in test.caption)


def html(test):
    return "".join(element.proto.body for element in test.main.get("html"))


def all_runs():
    return resources.store().runs()


@pytest.mark.slow
def test_without_the_images_scenes_are_offered_with_a_shorter_first_training(open_page):
    test = open_page(PAGE)
    assert not test.exception
    assert "not on this machine yet" in test.warning[0].value
    assert launch(test).disabled
    whole = preset("base_cnn/quick")
    assert settings(test)["epochs"] == whole.epochs
    test.button("train_synthetic").click().run()
    assert not test.exception
    assert not test.warning
    assert not launch(test).disabled
    assert draft.config(settings(test)) == preset("base_cnn/quick", dataset="synthetic", epochs=SCENES_EPOCHS)
    assert f"{SCENES_EPOCHS} epochs are enough" in captions(test)
    assert test.button("back_epochs")
    test.button("train_other_dataset").click().run()
    assert not test.exception
    assert draft.config(settings(test)) == whole


@pytest.mark.slow
def test_each_model_is_chosen_with_a_click_and_shows_its_settings(train):
    test = train()
    for model in reversed(MODELS):
        test.pills("train_model").set_value(model).run()
        assert not test.exception
        assert test.subheader[0].value == MODELS[model].title
        assert settings(test)["model"] == test.query_params["model"] == model
        assert settings(test)["preset"] == test.query_params["preset"] == f"{model}/quick"
        assert set(MODELS[model].model_fields) | FIRST == set(widgets(test))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("gpus", "kind"), [(0, "quick"), (1, "recommended")])
def test_a_model_begins_with_what_suits_the_machine(model, gpus, kind, monkeypatch):
    here = dataclasses.replace(device_summary(), gpus=gpus)
    monkeypatch.setattr(draft, "device_summary", lambda: here)
    assert draft.first_preset(model) == f"{model}/{kind}"


ALONE = [name for name in PRESETS if not preset(name).teacher]
"""Presets that need no finished run."""


@pytest.mark.parametrize("name", ALONE)
def test_each_preset_survives_the_page_s_settings(name):
    whole = begin_with(name, "synthetic")
    assert draft.config(whole.flat()) == whole


def test_a_teacher_is_named_once_there_is_one(train):
    test = train()
    test.query_params.update(model="base_cnn", preset="base_cnn/distilled")
    test.run()
    assert launch(test).disabled
    assert "no run on synthetic" in "".join(error.value for error in test.error)
    run_id = live_runs.finished(resources.store(), dataset="synthetic")
    test.run()
    assert not launch(test).disabled
    assert draft.config(settings(test)).teacher == run_id


@pytest.mark.slow
def test_each_preset_in_the_address_is_taken_whole(train):
    test = train()
    for name in ALONE:
        test.query_params["preset"] = name
        test.query_params["model"] = PRESETS[name].model
        test.run()
        assert not test.exception
        assert draft.config(settings(test)) == begin_with(name, "synthetic")
        whole = begin_with(name, "synthetic") == preset(name, dataset="synthetic")
        assert ("Exactly the preset" in captions(test)) == whole
        assert not launch(test).disabled


@pytest.mark.slow
def test_each_group_has_a_widget_for_each_setting(train):
    test = train()
    for group, names in draft.groups("base_cnn").items():
        open_group(test, group)
        assert not test.exception
        assert set(names) | FIRST == set(widgets(test))


@pytest.mark.parametrize("gpus", [0, 2])
def test_the_number_of_devices_is_a_setting_where_there_are_several(monkeypatch, gpus):
    here = dataclasses.replace(device_summary(), gpus=gpus)
    monkeypatch.setattr(draft, "device_summary", lambda: here)
    assert ("devices" in draft.groups("base_cnn")["Device"]) == (gpus == 2)
    assert "devices" in draft.groups("base_cnn", place="cluster")["Device"]


@pytest.mark.slow
def test_nonsense_in_the_address_is_said_and_passed_over(train):
    test = train(preset="base_cnn/recomended")
    assert "nknown" in test.info[0].value
    test.query_params["model"] = "unicorn"
    test.run()
    assert "nknown model" in test.info[0].value
    assert settings(test)["model"] == "base_cnn"


@pytest.mark.slow
def test_a_launch_queues_exactly_one_run_and_shows_it_and_the_page_opened_anew_may_launch_again(train, quiet):
    test = train()
    assert test.query_params["model"] == "base_cnn"
    assert test.query_params["preset"] == "base_cnn/quick"
    assert "Per epoch" in html(test)
    assert "Memory" in html(test)
    launch(test).click().run()
    assert not test.exception
    runs = all_runs()
    assert runs["state"].tolist() == ["queued"]
    assert quiet
    assert resources.store().get(runs["id"][0]).config == begin_with("base_cnn/quick", "synthetic")
    assert test.title[0].value == "Runs"
    assert test.query_params["runs"] == runs["id"][0]
    test.switch_page(str(navigation.ROOT / PAGE)).run()
    launch(test).click().run()
    assert not test.exception
    assert len(all_runs()) == 2


def test_a_first_try_s_epochs_are_put_back_with_their_warm_up(train):
    test = train()
    test.button("back_epochs").click().run()
    assert "Exactly the preset" in captions(test)


@pytest.mark.slow
def test_epochs_that_somebody_has_set_stay_when_the_dataset_changes(open_page):
    test = open_page(PAGE)
    put(test, epochs=30)
    test.button("train_synthetic").click().run()
    assert settings(test)["epochs"] == 30
    test.button("train_other_dataset").click().run()
    assert settings(test)["epochs"] == 30


def test_groups_hold_every_setting_that_people_choose_here():
    chosen = {name for names in draft.groups("vit").values() for name in names}
    elsewhere = {"model", "variant", "preset", "dataset", "devices"}
    assert set(train_settings("vit")) - chosen == elsewhere | draft.ESSENTIAL


def test_a_setting_is_found_by_its_words(train):
    test = train()
    test.text_input("train_find").set_value("label smoothing").run()
    assert not test.exception
    assert set(widgets(test)) == FIRST | {"label_smoothing"}
    test.text_input("train_find").set_value("unicorn").run()
    assert "No setting has all of these words" in captions(test)


def test_any_number_of_images_may_be_typed_and_a_handful_is_questioned(train):
    test = train()
    widget(test, "train_limit").set_value("2000").run()
    assert settings(test)["train_limit"] == 2000
    assert launch(test).label == "Launch"
    assert not test.warning
    put(test, train_limit=40)
    assert launch(test).label == "Launch on 36 images anyway"
    assert "36 images only" in test.warning[0].value
    widget(test, "train_limit").set_value("all").run()
    assert settings(test)["train_limit"] is None


@pytest.mark.slow
def test_one_choice_sets_the_whole_augmentation(train):
    test = train(preset="base_cnn/paper-baseline")
    widget(test, "augmentation").set_value("Flip, crop").run()
    assert not test.exception
    chosen = settings(test)
    assert (chosen["flip"], chosen["crop_padding"], chosen["cutout"], chosen["rotation"]) == (True, 4, 0, 0)
    put(test, rotation=10.0)
    assert widget(test, "augmentation").value == "As set below"


def test_a_browser_may_send_back_that_the_augmentation_is_one_s_own():
    essentials._augment(essentials.OWN)  # its callback, after a preset was chosen


@pytest.mark.slow
def test_more_devices_than_there_are_can_be_seen_and_set_right(train):
    test = train()
    settings(test)["devices"] = 2
    open_group(test, "Device")
    assert "this machine's GPUs are 0: set devices to 1" in test.error[0].value.replace("\\", "")
    assert launch(test).disabled
    settings(test)["place"] = "cluster"
    assert not test.run().error
    settings(test)["place"] = "any"
    assert test.run().error
    widget(test, "devices").set_value(1).run()
    assert not test.error


@pytest.mark.slow
def test_a_change_is_shown_and_can_be_put_back(train):
    test = open_group(train(preset="base_cnn/recommended"), "Budget")
    widget(test, "epochs").set_value(70).run()
    assert not test.exception
    back = test.button("back_epochs")
    assert "50" in back.label
    assert "70" in back.label
    assert settings(test)["variant"] == "custom"
    back.click().run()
    assert settings(test)["epochs"] == 50
    assert widget(test, "epochs").value == 50
    test.button("back_warmup_epochs").click().run()  # a first try on drawn scenes warms up for less
    assert "Exactly the preset" in captions(test)


@pytest.mark.slow
def test_put_all_back_takes_the_limits_too_and_leaves_the_seed(train):
    test = train()
    put(test, train_limit=500, learning_rate=0.5, seed=7)
    test.button("train_reset").click().run()
    assert (settings(test)["train_limit"], settings(test)["seed"]) == (None, 7)
    assert settings(test)["learning_rate"] == preset("base_cnn/quick").learning_rate


@pytest.mark.slow
def test_a_contradiction_is_said_beside_the_button_and_nothing_is_lost(train):
    test = open_group(train(), "Budget")
    settings(test)["warmup_epochs"] = 2.0
    widget(test, "epochs").set_value(2).run()
    assert "warmup" in test.error[0].value
    assert launch(test).disabled
    assert settings(test)["epochs"] == 2
    open_group(test, "Schedule")
    widget(test, "warmup_epochs").set_value(0.0).run()
    assert not test.error
    assert not launch(test).disabled


@pytest.mark.slow
def test_hyperparameters_that_make_no_network_are_said(train):
    test = train(model="vit")
    widget(test, "heads").set_value(3).run()
    assert not test.exception
    assert launch(test).disabled
    assert "heads" in test.error[0].value


def test_a_limit_above_what_there_is_is_refused(train):
    test = train()
    put(test, train_limit=20_000)
    assert "must be at most 10,000 with Synthetic scenes" in test.error[0].value.replace("\\", "")


@pytest.mark.slow
def test_a_second_click_on_the_same_button_starts_nothing_more(train, monkeypatch):
    gone = []
    monkeypatch.setattr(launch_panel.navigation, "go", lambda *_, **to: gone.append(to))  # the page stays
    test = train()
    launch(test).click().run()
    launch(test).click().run()
    assert len(all_runs()) == 1
    assert gone[0] == {"runs": all_runs()["id"][0]}


@pytest.mark.slow
def test_a_click_on_what_has_just_become_wrong_is_forgotten(train):
    test = open_group(train(preset="base_cnn/recommended"), "Budget")
    put(test, warmup_epochs=2.0)
    widget(test, "epochs").set_value(2)
    launch(test).click().run()
    assert not test.exception
    assert all_runs().empty
    widget(test, "epochs").set_value(20).run()
    assert all_runs().empty
    assert not launch(test).disabled


@pytest.mark.slow
def test_several_seeds_are_several_runs(train):
    test = train()
    put(test, seed=5)
    test.number_input("train_seeds").set_value(3).run()
    assert launch(test).label == "Launch 3 runs"
    launch(test).click().run()
    assert sorted(all_runs()["seed"]) == [5, 6, 7]
    assert all_runs()["settings_key"].nunique() == 1


def test_seeds_that_run_out_queue_nothing():
    with pytest.raises(ValueError, match="seed must be"):
        launch_panel.create_runs(TrainConfig(seed=2**31 - 1), [2**31 - 1, 2**31])
    assert all_runs().empty


@pytest.mark.slow
def test_settings_survive_other_pages(train):
    test = open_group(train(model="resnet18"), "Optimizer")
    widget(test, "learning_rate").set_value(0.05).run()
    test.switch_page(str(navigation.ROOT / "pages/home/home.py")).run()
    test.switch_page(str(navigation.ROOT / PAGE)).run()
    assert not test.exception
    assert settings(test)["learning_rate"] == 0.05
    assert test.query_params["preset"] == "resnet18/quick"
    assert test.button("back_learning_rate")


@pytest.mark.slow
def test_the_overview_s_button_opens_its_preset(train):
    test = train(model="vit")
    test.switch_page(str(navigation.ROOT / "pages/home/home.py")).run()
    test.button("go_train").click().run()
    assert not test.exception
    assert settings(test)["preset"] == "base_cnn/quick"


@pytest.mark.slow
def test_a_cloned_run_brings_its_settings_its_dataset_and_its_variant(open_page):
    test = open_page()
    config = preset("alexnet/paper-tuned", dataset="synthetic", seed=9, epochs=3, variant="tuned")
    test.session_state["train_settings"] = config.flat()
    test.switch_page(str(navigation.ROOT / PAGE)).run()
    assert not test.exception
    assert test.session_state["chosen_dataset"] == "synthetic"
    assert draft.config(settings(test)) == config
    assert test.button("back_epochs")


def test_a_change_of_recipe_makes_a_baseline_custom_and_a_seed_does_not():
    baseline = preset("alexnet/paper-baseline", seed=3, train_limit=500).flat()
    assert draft.config(baseline).variant == "baseline"
    changed = {**baseline, "learning_rate": 0.01, "variant": "custom"}
    assert draft.config(changed).variant == "custom"


@pytest.mark.slow
def test_another_preset_keeps_seed_note_and_limits(train):
    test = train()
    put(test, seed=4, name="mine", train_limit=900)
    test.pills("train_start").set_value("base_cnn/paper-baseline").run()
    assert not test.exception
    chosen = settings(test)
    assert (chosen["seed"], chosen["name"], chosen["train_limit"]) == (4, "mine", 900)
    assert draft.config(chosen).variant == "baseline"
    assert test.query_params["preset"] == "base_cnn/paper-baseline"


def test_plain_defaults_have_an_address_too(train):
    test = train(model="vit", preset="none")
    assert draft.config(settings(test)) == TrainConfig(model="vit", dataset="synthetic")
    assert test.query_params["preset"] == "none"


@pytest.mark.slow
def test_the_queue_has_places_and_a_way_out(train):
    store = resources.store()
    first, second = (store.create_run(TrainConfig(seed=seed)) for seed in (0, 1))
    test = train()
    told = "\n".join(element.value for element in test.main.markdown).replace("\\", "")
    assert f"1. {first}" in told
    assert f"2. {second}" in told
    test.button(f"queue_cancel_{first}").click().run()
    assert not test.exception
    assert store.get(first).state == "stopped"
    told = "\n".join(element.value for element in test.main.markdown).replace("\\", "")
    assert f"1. {second}" in told


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (41.7, "42 s"),
        (89, "89 s"),
        (200, "3.3 min"),
        (758, "13 min"),
        (27_400, "7.6 h"),
        (260_000, "3.0 days"),
    ],
)
def test_estimates_have_no_more_digits_than_they_are_worth(seconds, words):
    assert roughly(seconds) == words


def test_the_drawing_shows_maps_by_size_and_channels():
    strip = model_summary.strip(network("base_cnn"))
    assert "height: 96px" in strip
    assert f"height: {model_summary.LOWEST_PX}px" in strip
    assert "conv: convolution, gives 32 × 32 × 8, 224 parameters" in strip
    assert "images" not in strip.partition("aria-label")[2].partition(">")[2]


@pytest.mark.parametrize("model", MODELS)
def test_sources_become_links_and_nothing_else(model):
    linked = model_summary.linked(MODELS[model].source)
    assert linked.count("](http") == MODELS[model].source.count("http")

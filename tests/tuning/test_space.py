"""The search space: from declarations to KerasTuner, and what is refused."""

from itertools import permutations

import pytest

from cifar_core.errors import ConfigError
from cifar_core.models import models
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import train_settings
from cifar_core.tuning.plan import make_plan
from cifar_core.tuning.space import (
    SEARCH_PRESETS,
    check_space,
    combinations,
    dimensions,
    hyperparameters,
    search_preset,
    searchable,
    survey,
    trial_config,
    tuned_config,
)


def by_name(config):
    return {dimension.name: dimension for dimension in dimensions(config)}


@pytest.mark.parametrize("model", models())
def test_an_empty_space_explores_what_the_declarations_name(model):
    config = SearchConfig(model=model, max_epochs=5)
    found = {dimension.name for dimension in check_space(config)}
    assert found == {name for name, item in searchable(model).items() if item.search is not None}
    assert len(found) >= 10


def test_what_the_base_lacks_the_space_may_bring():
    config = SearchConfig(base={"optimizer": "adamw"}, space={"weight_decay": (1e-4, 1e-1)})
    check_space(config)
    assert trial_config(config).weight_decay == 1e-4


def test_a_range_is_drawn_in_the_declared_steps_with_both_ends():
    found = by_name(
        SearchConfig(model="alexnet", space={"dropout_rate1": (0.3, 0.7), "units_dense1": (1024, 4096)})
    )
    assert found["dropout_rate1"].values == (0.3, 0.4, 0.5, 0.6, 0.7)
    assert found["units_dense1"].values == (1024, 2048, 3072, 4096)


@pytest.mark.parametrize(
    ("name", "given", "values", "log"),
    [
        ("learning_rate", (1e-4, 1e-2), None, True),
        ("learning_rate", (1e-4, 1e-3, 1e-2), (1e-4, 1e-3, 1e-2), True),
        ("batch_size", (32, 256), (32, 64, 128, 256), True),
        ("cutout", (0, 3), (0, 1, 2, 3), False),
        ("optimizer", ("adam", "sgd"), ("adam", "sgd"), False),
        ("flip", (True, False), (True, False), False),
    ],
)
def test_what_is_given_becomes_a_dimension(name, given, values, log):
    dimension = by_name(SearchConfig(space={name: given}))[name]
    assert dimension.values == values
    assert dimension.log is log


def test_one_value_fixes_a_setting_and_is_no_dimension():
    config = SearchConfig(space={"learning_rate": (1e-4, 1e-2), "dropout": (0.25,)})
    assert set(by_name(config)) == {"learning_rate"}
    assert trial_config(config, {"learning_rate": 1e-3}).hyperparameters.dropout == 0.25
    assert tuned_config(config, {"learning_rate": 1e-3}).hyperparameters.dropout == 0.25


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": {"epochs": (1, 5)}}, "can't explore epochs"),
        ({"space": {"seed": (0, 1, 2)}}, "can't explore seed"),
        ({"space": {"validation_fraction": (0.1, 0.2)}}, "can't explore validation_fraction"),
        ({"space": {"learning_rate": (1e-2, 1e-3)}}, "is empty"),
        ({"space": {"weight_decay": (0.0, 0.1)}}, "must begin above 0"),
        ({"space": {"cutout": (0, 1.5)}}, "cutout must be a whole number"),
        ({"space": {"flip": (True, True)}}, "names a value twice"),
        ({"space": {"flip": ("yes", "no")}}, "flip must be true or false"),
        ({"space": {"cutout": (True, 8)}}, "cutout must be"),
        ({"space": {"dropout": (0.3,)}}, "nothing to explore"),
        ({"space": {"optimizer": ("adam", "adamw")}}, "optimizer='adamw' .* weight_decay"),
        ({"space": {"dropout": (0.1, 0.3)}, "base": {"protocol": "test-selected"}}, "never by the test set"),
        ({"space": {"dropout": (0.1, 0.3)}, "base": {"time_budget": 5}}, "leave time_budget out"),
        ({"preset": "alexnet/paper-tuned", "model": "alexnet"}, "never by the test set"),
        ({"preset": "alexnet/paper-tuned"}, "preset of alexnet"),
        ({"base": {"epohcs": 3}}, "Unknown setting 'epohcs'"),
    ],
)
def test_what_no_search_can_do_is_refused_with_a_reason(changes, words):
    with pytest.raises(ConfigError, match=words):
        check_space(SearchConfig(**changes))


@pytest.mark.parametrize(
    "space", [{"dropout": (0.0, 0.95)}, {"learning_rate": (0.0, 1e-2)}, {"nonsense": (1, 2)}, {"dropout": ()}]
)
def test_values_outside_the_declared_range_are_refused_by_the_settings(space):
    with pytest.raises(ConfigError):
        SearchConfig(space=space)


@pytest.mark.parametrize("tuner", ["grid", "random", "hyperband", "bayesian"])
def test_whether_a_space_is_accepted_does_not_depend_on_the_order_of_its_values(tuner):
    rate = {} if tuner == "grid" else {"learning_rate": (1e-4, 1e-2)}
    for schedules in permutations(("constant", "one_cycle", "plateau")):
        for warmups in permutations((0.0, 1.0, 1.5)):
            space = {"schedule": schedules, "warmup_epochs": warmups, **rate}
            config = SearchConfig(tuner=tuner, space=space)
            check_space(config)
            assert trial_config(config).schedule in schedules
            assert survey(config).impossible == (4 if tuner == "grid" else None)


def test_a_value_that_nothing_goes_with_is_refused_in_any_order_of_a_large_space():
    large = {"cutout": (0, 32), "crop_padding": (0, 16), "rotation": (0.0, 45.0), "mixup": (0.0, 2.0)}
    for optimizers in (("adam", "adamw"), ("adamw", "adam")):
        with pytest.raises(ConfigError, match=r"optimizer='adamw' .* weight_decay"):
            check_space(SearchConfig(tuner="grid", space={"optimizer": optimizers, **large}))
    both = {"optimizer": ("adam", "adamw"), "weight_decay": (0.0, 1e-3, 0.1)}
    config = SearchConfig(tuner="grid", space={**both, **large})
    check_space(config)
    assert survey(config).impossible is None


def test_a_contradiction_that_no_value_of_the_space_makes_is_not_blamed_on_one():
    base = {"train_limit": 20, "validation_fraction": 0.01}
    config = SearchConfig(model="base_cnn", tuner="random", base=base, space={"dropout": (0.1, 0.5)})
    with pytest.raises(ConfigError, match=r"No combination .*: validation_fraction=0.01 of 20.*Change it in"):
        check_space(config)


def test_hyperband_refuses_a_space_with_fewer_settings_than_it_starts():
    config = SearchConfig(space={"flip": (True, False), "dropout": (0.1, 0.2, 0.3)})
    with pytest.raises(ConfigError, match="starts 22 different settings; the space has only 6"):
        make_plan(config)


def test_a_grid_takes_points_of_a_range_evenly_on_its_scale():
    (rate,) = dimensions(SearchConfig(tuner="grid", space={"learning_rate": (1e-4, 1e-2)}))
    assert rate.on_grid() == pytest.approx((1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2), rel=1e-5)
    assert combinations([rate], grid=True) == 5
    assert combinations([rate]) is None


def test_kerastuner_draws_every_value_and_nothing_else():
    found = dimensions(
        SearchConfig(model="alexnet", space={"dropout_rate1": (0.3, 0.7), "flip": (True, False)})
    )
    space = hyperparameters(found)
    drawn = {
        space.space[i].name: {space.space[i].random_sample(seed) for seed in range(200)} for i in range(2)
    }
    assert drawn == {"dropout_rate1": {0.3, 0.4, 0.5, 0.6, 0.7}, "flip": {True, False}}


def test_a_log_range_is_drawn_evenly_in_the_exponent():
    (rate,) = hyperparameters(dimensions(SearchConfig(space={"learning_rate": (1e-4, 1e-2)}))).space
    drawn = [rate.random_sample(seed) for seed in range(2000)]
    assert min(drawn) >= 1e-4
    assert max(drawn) <= 1e-2
    assert sum(value < 1e-3 for value in drawn) / len(drawn) == pytest.approx(0.5, abs=0.05)


def test_trials_are_cut_from_the_full_training_and_the_winner_is_never_shorter():
    config = SearchConfig(base={"epochs": 50}, max_epochs=9, space={"dropout": (0.0, 0.6)})
    assert trial_config(config, {"dropout": 0.1}).epochs == 9
    assert tuned_config(config, {"dropout": 0.1}).epochs == 50
    assert tuned_config(config.replace(max_epochs=60), {"dropout": 0.1}).epochs == 60
    assert tuned_config(config, {"dropout": 0.1}).variant == "tuned"
    assert trial_config(config, {"dropout": 0.1}).variant == "custom"


def test_the_studys_search_is_a_preset():
    config = search_preset("alexnet/paper-search", seed=3, base={"train_limit": 5000})
    assert (config.max_epochs, config.factor, config.seed, config.tuner) == (10, 3, 3, "hyperband")
    assert {dimension.name: dimension.extremes() for dimension in check_space(config)} == {
        "units_dense1": (1024, 2048, 3072, 4096),
        "dropout_rate1": (0.3, 0.4, 0.5, 0.6, 0.7),
        "units_dense2": (1024, 2048, 3072, 4096),
        "dropout_rate2": (0.3, 0.4, 0.5, 0.6, 0.7),
        "learning_rate": (1e-4, 1e-2),
    }
    trial = trial_config(config)
    assert (trial.protocol, trial.train_limit, trial.batch_size, trial.rotation) == ("held-out", 5000, 64, 15)
    assert (make_plan(config).trials, make_plan(config).epochs) == (30, 120)


def test_every_search_preset_is_possible_and_unknown_ones_are_named():
    for name in SEARCH_PRESETS:
        check_space(search_preset(name))
    with pytest.raises(ConfigError, match="alexnet/paper-search"):
        search_preset("alexnet/paper")


def test_no_searchable_setting_says_what_is_learnt_from():
    names = set(searchable("base_cnn"))
    assert names <= set(train_settings("base_cnn"))
    assert not names & {
        "seed",
        "dataset",
        "protocol",
        "validation_fraction",
        "train_limit",
        "epochs",
        "model",
    }

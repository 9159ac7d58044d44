"""Settings: every bad value has its message, every good one survives the trip through JSON."""

import math

import pytest

from cifar_core.base.fields import describe
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig, train_settings

BAD = [
    ({"model": "lenet"}, "Unknown model 'lenet'; known are: base_cnn"),
    ({"model": 3}, "Unknown model 3"),
    ({"model": ["alexnet"]}, "Unknown model"),
    ({"batch_size": 0}, "batch_size must be a whole number from 1 to 4096; got 0."),
    ({"learning_rate": -1}, "learning_rate must be a number above 0 and to 10; got -1."),
    ({"learning_rate": math.nan}, "got nan"),
    ({"learning_rate": math.inf}, "got inf"),
    ({"epochs": "ten"}, "epochs must be a whole number from 1 to 1000; got 'ten'."),
    ({"epochs": 2.5}, "got 2.5"),
    ({"epochs": True}, "got True"),
    ({"epochs": None}, "got None"),
    ({"optimizer": "lion"}, "optimizer must be one of adam, adamw, sgd, muon; got 'lion'."),
    ({"momentum": 1.0}, "momentum must be a number from 0 and below 1; got 1.0."),
    ({"colour": 1}, "Unknown setting 'colour' for base_cnn; known are: alternating_flip, batch_norm"),
    ({"dropout": 3}, "dropout must be a number from 0 to 0.9; got 3."),
    ({"hyperparameters": 3}, "hyperparameters must be a mapping"),
    ({"hyperparameters": {"depth": 3}}, "Unknown setting 'depth'"),
    ({"schedule": "plateau", "warmup_epochs": 2}, "warmup_epochs is for the schedules constant and cosine"),
    ({"epochs": 2, "warmup_epochs": 2}, "warmup_epochs (2) must be less than epochs (2)"),
    ({"schedule": "cosine", "min_learning_rate": 0.1}, "must not be above learning_rate"),
    ({"optimizer": "adamw"}, "adamw needs a weight_decay"),
    (
        {"train_limit": 20, "validation_fraction": 0.01},
        "validation_fraction=0.01 of 20 training images leaves 20 to train on and 0 for validation",
    ),
    ({"train_limit": 100, "validation_fraction": 0.03, "devices": 4}, "at least 4 (one per device)"),
    (
        {"protocol": "test-selected", "test_limit": 10, "devices": 16},
        "Raise test_limit, or use fewer devices",
    ),
    ({"schedule": "linear", "warmup_epochs": 2}, "warmup_epochs is for the schedules constant and cosine"),
    ({"alternating_flip": True}, "set flip=True too"),
    ({"test_views": "all"}, "test_views must be one of one, flip, flip-shift; got 'all'."),
    ({"bias_rate": 0}, "bias_rate must be a number from 0.001 to 1000; got 0."),
    ({"name": "x" * 201}, "name must be text of at most 200 characters"),
]


@pytest.mark.parametrize(("values", "message"), BAD, ids=[str(values) for values, _ in BAD])
def test_a_bad_value_is_named_with_what_is_allowed(values, message):
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**values)
    assert message in str(caught.value)


def test_every_wrong_field_is_named_at_once():
    with pytest.raises(
        ConfigError, match=r"(?s)epochs must be.*batch_size must be|batch_size must be.*epochs must be"
    ):
        TrainConfig(batch_size=0, epochs=0)


def test_hyperparameters_may_stand_beside_the_other_settings():
    beside = TrainConfig(model="mobilenet", stem="cifar")
    inside = TrainConfig(model="mobilenet", hyperparameters={"stem": "cifar"})
    assert beside == inside
    assert beside.hyperparameters.stem == "cifar"


@pytest.mark.parametrize("model", MODELS)
def test_json_round_trip_keeps_everything(model):
    config = TrainConfig(model=model, epochs=3, name="naïve ' \" <b>", train_limit=100)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
    assert TrainConfig(**config.model_dump()) == config


@pytest.mark.parametrize(("stored", "views"), [(True, "flip"), (False, "one")])
def test_settings_of_earlier_releases_say_test_flip(stored, views):
    assert TrainConfig(test_flip=stored) == TrainConfig(test_views=views)


def test_settings_cannot_be_changed_in_place():
    config = TrainConfig()
    with pytest.raises(Exception, match="frozen"):
        config.epochs = 3
    with pytest.raises(Exception, match="frozen"):
        config.hyperparameters.dropout = 0.5


def test_replace_validates_and_changes_from_tells_only_what_differs():
    config = TrainConfig(epochs=5)
    changed = config.replace(epochs=6, dropout=0.25)
    assert changed.changes_from(config) == {"epochs": (5, 6), "dropout": (0.0, 0.25)}
    with pytest.raises(ConfigError, match="epochs"):
        config.replace(epochs=0)


@pytest.mark.parametrize("model", MODELS)
def test_no_hyperparameter_shares_a_name_with_a_training_setting(model):
    assert not set(describe(MODELS[model])) & set(describe(TrainConfig))


@pytest.mark.parametrize("model", MODELS)
def test_declared_defaults_lie_in_the_declared_range_and_are_explained(model):
    for setting in train_settings(model).values():
        assert len(setting.help) > 15, setting.name
        if setting.kind in ("int", "float") and setting.default is not None:
            assert setting.low is None or setting.default >= setting.low
            assert setting.high is None or setting.default <= setting.high
        if setting.kind == "choice":
            assert setting.default in setting.choices


@pytest.mark.parametrize("model", MODELS)
def test_declared_search_ranges_are_allowed_values(model):
    settings = train_settings(model)
    searched = {name: s.search for name, s in settings.items() if s.search is not None}
    assert SearchConfig(model=model, space=searched).space.keys() == searched.keys()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"colour": (1, 2)}, "Unknown setting 'colour'"),
        ({"learning_rate": ()}, "is empty"),
        ({"learning_rate": (0.0, 0.1)}, "learning_rate must be a number above 0"),
        ({"learning_rate": ("low", "high")}, "learning_rate must be a number"),
        ({"optimizer": ("adam", "lion")}, "optimizer must be one of"),
    ],
)
def test_a_search_space_is_checked_against_the_declarations(space, message):
    with pytest.raises(ConfigError, match=message):
        SearchConfig(space=space)

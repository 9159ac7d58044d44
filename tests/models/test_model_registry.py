"""The registry and the declarations of hyperparameters; nothing here needs Keras."""

import itertools
import json
import subprocess
import sys

import pytest

from cifar_core.base.fields import describe
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS, create_model, model_config, models
from cifar_core.models.blocks import divisible
from cifar_core.settings.train_config import TrainConfig

SETTINGS = [(name, field) for name, cls in MODELS.items() for field in describe(cls).values()]
SETTING_IDS = [f"{name}-{field.name}" for name, field in SETTINGS]


def test_importing_the_registry_leaves_keras_alone():
    code = (
        "import sys; from cifar_core.models import MODELS; [cls() for cls in MODELS.values()]; "
        "import cifar_core.models.cost; "
        "loaded = {'keras', 'tensorflow', 'jax', 'numpy'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_wanted_models_are_there_in_the_order_people_meet_them():
    assert models() == [
        "base_cnn",
        "alexnet",
        "resnet18",
        "mobilenet",
        "resnet9",
        "airbench",
        "wrn28_10",
        "pyramidnet",
        "efficientnet_b0",
        "vit",
        "transfer",
    ]


def test_every_model_is_among_the_small_ones_that_other_tests_run(all_small):
    assert {small.name for small in all_small} == set(models())


@pytest.mark.parametrize(("name", "field"), SETTINGS, ids=SETTING_IDS)
def test_every_choice_of_every_model_is_among_them_too(name, field, all_small):
    run = {
        getattr(MODELS[name](**small.hyperparameters), field.name)
        for small in all_small
        if small.name == name
    }
    if (name, field.name) == ("efficientnet_b0", "scale"):
        return  # larger numbers in the same code; test_cost.py builds them
    assert run >= {"choice": set(field.choices), "bool": {True, False}}.get(field.kind, set())


@pytest.mark.parametrize("name", ["lenet", "", "BASE_CNN", None, 3])
def test_an_unknown_model_is_refused_with_the_list_of_known_ones(name):
    with pytest.raises(ConfigError, match=r"Unknown model .*; known are: base_cnn, alexnet, .*transfer\."):
        model_config(name)


@pytest.mark.parametrize("name", models())
def test_a_model_says_what_it_is_and_where_it_comes_from(name):
    cls = MODELS[name]
    assert cls.title
    assert len(cls.summary) > 60
    assert any(char.isdigit() for char in cls.source), "a year or an address"


@pytest.mark.parametrize("field", [field for _, field in SETTINGS], ids=SETTING_IDS)
def test_a_setting_is_declared_in_full(field):
    assert len(field.help) > 20
    assert field.group == "Model"
    if field.kind in ("int", "float"):
        assert field.low is not None
        assert field.high is not None
        assert field.step is not None or field.scale == "log"


def test_no_hyperparameter_is_named_like_a_setting_of_training():
    for name, cls in MODELS.items():
        both = set(cls.model_fields) & {*TrainConfig.model_fields, "name"}
        assert not both, f"{name}: {both}"


@pytest.mark.parametrize("name", models())
def test_every_field_is_declared_with_setting(name):
    assert set(describe(MODELS[name])) == set(MODELS[name].model_fields)


def test_hyperparameters_survive_json(small):
    config = MODELS[small.name](**small.hyperparameters)
    assert MODELS[small.name](**json.loads(config.model_dump_json())) == config
    assert MODELS[small.name](**json.loads(json.dumps(config.model_dump()))) == config


@pytest.mark.parametrize(("name", "field"), SETTINGS, ids=SETTING_IDS)
def test_each_single_value_that_is_declared_is_allowed(name, field):
    ends = [end for end, open_ in ((field.low, field.low_open), (field.high, field.high_open)) if not open_]
    values = {"bool": [True, False], "choice": field.choices, "text": []}.get(field.kind, ends)
    if field.name in ("depth", "dim", "heads"):  # what they may be hangs on more than their range
        values = []
    for value in [field.default, *values, *(field.search or ())]:
        assert getattr(MODELS[name](**{field.name: value}), field.name) == value


def explored(field):
    """The values of a search: the choices, or from end to end in the declared steps."""
    low, *_, high = field.search
    if field.kind != "int" or len(field.search) > 2:
        return field.search
    return (*range(low, high, int(field.step or 1)), high)


@pytest.mark.parametrize("name", models())
def test_a_search_meets_no_contradiction(name):
    searched = [field for field in describe(MODELS[name]).values() if field.search]
    assert searched
    combinations = itertools.product(
        *(explored(field) for field in searched if field.kind in ("int", "choice"))
    )
    names = [field.name for field in searched if field.kind in ("int", "choice")]
    for values in combinations:
        MODELS[name](**dict(zip(names, values, strict=True)))


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("wrn28_10", {"depth": 27}, r"depth must be 6n \+ 4 .*got 27\. The nearest are 22 and 28"),
        ("pyramidnet", {"depth": 21}, r"depth must be 6n \+ 2 without .*got 21\. The nearest are 20 and 26"),
        ("pyramidnet", {"depth": 23, "bottleneck": True}, r"must be 9n \+ 2 with .*nearest are 20 and 29"),
        (
            "vit",
            {"dim": 100, "heads": 8},
            r"dim must be a multiple of heads, .*got dim=100 with heads=8\. Take dim=104",
        ),
        ("vit", {"dim": 30, "heads": 3}, r"dim must be .*of 4 .*got dim=30 with heads=3\. Take dim=36"),
        ("vit", {"patch": 5}, r"patch must be one of 2, 4, 8; got 5"),
        ("resnet18", {"design": "wide"}, r"design must be one of standard, paper; got 'wide'"),
        ("mobilenet", {"stem": "mnist"}, r"stem must be one of cifar, cifar-fast, imagenet"),
        ("mobilenet", {"bn_momentum": 1.0}, r"bn_momentum must be a number from 0 to 0\.9999, or nothing"),
        ("alexnet", {"dropout_rate1": 1.0}, r"dropout_rate1 must be a number from 0 to 0\.9; got 1\.0"),
        ("alexnet", {"units_dense1": True}, r"units_dense1 must be a whole number from 16 to 8192; got True"),
        ("alexnet", {"units": 512}, r"Unknown setting 'units'; known are: .*units_dense1"),
    ],
)
def test_what_is_wrong_is_said_plainly(name, wrong, message):
    with pytest.raises(ConfigError, match=message):
        create_model(name, **wrong)


def test_alexnet_explores_what_the_study_explored():
    fields = describe(MODELS["alexnet"])
    for name in ("units_dense1", "units_dense2"):
        assert (fields[name].search, fields[name].step, fields[name].default) == ((1024, 4096), 1024, 4096)
    for name in ("dropout_rate1", "dropout_rate2"):
        assert (fields[name].search, fields[name].step, fields[name].default) == ((0.3, 0.7), 0.1, 0.5)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [(32, 32), (3.2, 8), (12, 16), (11, 16), (18, 24), (24 * 1.4, 32), (1280.0, 1280)],
)
def test_divisible_takes_the_nearest_multiple_but_never_loses_a_tenth(filters, expected):
    assert divisible(filters) == expected

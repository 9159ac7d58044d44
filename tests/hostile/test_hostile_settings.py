"""Settings from another release, another program or a bad day: a valid object, or one `ConfigError`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_core.base.fields import describe
from cifar_core.cli.options import read_numbers, read_values
from cifar_core.cli.train import requested
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.settings.presets import find_preset, preset
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig, train_settings
from tests.hostile.hostile import JSON, LONG, TEXTS, bounded, examples, fed, in_words, mutated

WHOLE = [json.dumps(TrainConfig(model=model).model_dump()).encode() for model in MODELS]
NAMES = sorted(
    {*describe(TrainConfig), *(name for model in MODELS for name in train_settings(model)), "hyperparameters"}
)
SEARCH_NAMES = [*describe(SearchConfig), "space", "base"]
HUGE = int("9" * 4000) ** 2
WRONG = JSON | st.sampled_from(
    [HUGE, -HUGE, float("nan"), float("inf"), 1e308, "9" * 5000, LONG, b"x", object(), {1: 2}, {}, []]
)


def deep(depth=10_000):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def made(kind, values):
    """The settings, or None where they were refused in words."""
    with bounded():
        try:
            config = kind(**values)
        except ConfigError as error:
            in_words(error)
            return None
    assert kind(**json.loads(json.dumps(config.model_dump(), allow_nan=False))) == config
    return config


@given(values=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=9), WRONG, max_size=4))
@examples(2)
def test_any_values_are_settings_or_a_config_error(values):
    fed("TrainConfig")
    made(TrainConfig, values)


@given(model=st.sampled_from(sorted(MODELS)), name=st.sampled_from(NAMES), value=WRONG)
@examples(2)
def test_one_wrong_value_among_right_ones(model, name, value):
    fed("TrainConfig")
    made(TrainConfig, {"model": model, name: value})


@given(values=st.dictionaries(st.sampled_from(SEARCH_NAMES), WRONG, max_size=4))
@examples()
def test_any_values_are_a_search_or_a_config_error(values):
    fed("SearchConfig")
    made(SearchConfig, values)


@given(
    name=st.sampled_from(sorted(train_settings("base_cnn"))) | st.text(max_size=5),
    space=st.lists(WRONG, max_size=4) | WRONG,
)
@examples(2)
def test_any_space_is_a_search_or_a_config_error(name, space):
    fed("SearchConfig")
    made(SearchConfig, {"space": {name: space}})


@pytest.mark.parametrize("kind", [TrainConfig, SearchConfig])
@pytest.mark.parametrize(
    "value",
    [deep(), {"a": deep()}, HUGE, {"x" * 10_000_000: 1}, "y" * 10_000_000, ["z"] * 1_000_000, float("nan")],
    ids=["deep list", "deep dict", "huge number", "long key", "long text", "long list", "nan"],
)
def test_deep_long_and_huge_values_in_every_field(kind, value):
    for name in (*kind.model_fields, "unheard_of"):
        fed(kind.__name__)
        with pytest.raises(ConfigError) as caught, bounded():
            kind(**{name: value})
        in_words(caught.value)


@pytest.mark.parametrize(
    "values",
    [(float("nan"), 0.5), (0.1, float("inf")), (True, False), ("0.1", "0.2"), (HUGE, 1), (None, 1), ([], 1)],
)
def test_a_range_of_what_are_no_numbers(values):
    fed("SearchConfig")
    with pytest.raises(ConfigError):
        SearchConfig(space={"dropout": values})


@given(data=mutated(*WHOLE) | JSON.map(lambda value: json.dumps(value).encode()))
@examples(2)
def test_any_file_of_settings_is_settings_or_a_config_error(data, tmp_path_factory):
    fed("settings file")
    file = tmp_path_factory.getbasetemp() / "settings.json"
    file.write_bytes(data)
    with bounded():
        try:
            requested(None, file, {})
        except ConfigError as error:
            in_words(error)


ODD_FILES = {
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "nested settings": b'{"settings":' * 50_000 + b"{}" + b"}" * 50_000,
    "a number of a million digits": b'{"epochs": ' + b"9" * 1_000_000 + b"}",
    "a model of many digits": b'{"model": ' + b"9" * 4000 + b"}",
    "not text": b"\xff\xfe\x00{",
    "with a byte order mark": b"\xef\xbb\xbf{}",
    "not a number": b'{"learning_rate": NaN}',
    "no end": b'{"epochs": Infinity}',
    "a lone surrogate": b'{"name": "\\ud800"}',
    "a lone surrogate as a name": b'{"\\ud800": 1}',
    "nothing": b"",
    "a list": b"[]",
    "a model that is a list": b'{"model": []}',
    "a model that is a dict": b'{"model": {"a": 1}}',
    "hyperparameters of the wrong kind": b'{"hyperparameters": [1]}',
    "hyperparameters within": b'{"hyperparameters": {"hyperparameters": {}}}',
    "from a later release": b'{"schema": 99, "model": "transformer_xl", "epochs": 3}',
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_files_of_settings(name, tmp_path):
    fed("settings file")
    file = tmp_path / "settings.json"
    file.write_bytes(ODD_FILES[name])
    with pytest.raises(ConfigError) as caught, bounded():
        requested(None, file, {})
    in_words(caught.value)


def test_a_name_twice_takes_the_last_as_json_does(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text('{"epochs": 3, "epochs": 5}')
    assert requested(None, file, {}).epochs == 5


@pytest.mark.parametrize("path", ["/dev/zero", "/", "/proc/self/mem", "nowhere", "a\0b"])
def test_a_file_of_settings_that_is_none(path):
    from pathlib import Path

    fed("settings file")
    with pytest.raises(ConfigError), bounded():
        requested(None, Path(path), {})


@given(name=st.text(max_size=30) | st.sampled_from(TEXTS) | WRONG)
@examples()
def test_any_preset_is_one_or_a_config_error(name):
    fed("preset")
    for ask in (find_preset, preset):
        with bounded():
            try:
                ask(name)
            except ConfigError as error:
                in_words(error)


@given(
    model=st.sampled_from(sorted(MODELS)),
    name=st.sampled_from(NAMES),
    text=st.text(max_size=20) | st.sampled_from([*TEXTS, "nan", "inf", "1e999", "9" * 5000, "٣"]),
)
@examples(2)
def test_any_flag_is_a_value_or_a_config_error(model, name, text):
    fed("flag")
    with bounded():
        try:
            TrainConfig(**{"model": model, **read_values(model, {name: text})})
        except ConfigError as error:
            in_words(error)


@given(
    text=st.text(max_size=20)
    | st.sampled_from([*TEXTS, "0,1,2", "0-99999999999", "9" * 5000, ",,", "1," * 100_000])
)
@examples()
def test_any_seeds_are_numbers_or_a_config_error(text):
    fed("seeds")
    with bounded():
        try:
            read_numbers("seeds", text)
        except ConfigError as error:
            in_words(error)

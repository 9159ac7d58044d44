"""Bad arguments, flags from declarations, help: all of it answered before any framework is loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifar_core.base.fields import describe
from cifar_core.cli.app import COMMANDS
from cifar_core.cli.options import flag, model_options, read_numbers, read_value, read_values, setting_options
from cifar_core.cli.train import requested, seeded
from cifar_core.cli.tune import read_space, search_config
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.settings.presets import presets
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig, train_settings


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--epochs", "ten"], "epochs must be a whole number from 1 to 1000; got 'ten'"),
        (["train", "--epochs", "1.5"], "epochs must be a whole number"),
        (["train", "--batch-size", "0"], "batch_size must be a whole number from 1 to 4096; got 0"),
        (["train", "--learning-rate", "-1"], "learning_rate must be a number above 0"),
        (["train", "--learning-rate", "nan"], "learning_rate must be"),
        (["train", "--learning-rate", "1e999"], "learning_rate must be"),
        (["train", "--optimizer", "adamm"], "one of adam, adamw, sgd, muon; got 'adamm'"),
        (["train", "--model", "lenet"], "Unknown model 'lenet'; known are: base_cnn, alexnet"),
        (["train", "--preset", "base_cnn/recomended"], "Did you mean base_cnn/recommended"),
        (["train", "--preset", "base_cnn/recommended", "--model", "vit"], "vit"),
        (["train", "--model", "resnet18", "--units-dense1", "64"], "--units-dense1 is a setting of alexnet"),
        (["train", "--dataset", "mnist"], "no dataset 'mnist' on this machine; there are: cifar10"),
        (["train", "--optimizer", "adamw"], "adamw needs a weight_decay"),
        (["train", "--epoks", "3"], "No such option '--epoks'"),
        (["train", "--epochs"], "requires an argument"),
        (["train", "extra"], "unexpected extra argument"),
        (["train", "--seeds", "1,x"], "seeds must be whole numbers"),
        (["train", "--seeds", "1,1"], "all different"),
        (["train", "--config", "/nowhere.json"], "No such file"),
        (["train", "--queue", "--no-store"], "--no-store"),
        (["trian"], "Did you mean train?"),
        (["tune", "--tuner", "grit"], "one of hyperband, random, bayesian, grid; got 'grit'"),
        (["tune", "--max-trials", "0"], "max_trials must be"),
        (["tune", "--space", "dropout"], "NAME=LOW:HIGH"),
        (["tune", "--space", "warmth=1:2"], "Unknown setting 'warmth'"),
        (["tune", "--space", "dropout=0:7"], "dropout must be"),
        (["tune", "--space", "dropout=0:0.5", "--space", "dropout=0.1,0.2"], "names dropout twice"),
        (["tune", "--space", "optimizer=adam:sgd"], "LOW:HIGH is for numbers"),
        (["reproduce", "--scale", "2"], "scale must be a number"),
        (["reproduce", "--scale", "much"], "scale must be a number"),
        (["reproduce", "--runs", "lenet"], "Not a run of the study"),
        (["reproduce", "--dataset", "mnist"], "Unknown dataset 'mnist'"),
        (["leaderboard", "--format", "xml"], "'xml' is not one of 'table', 'csv', 'json'"),
        (["leaderboard", "--model", "lenet"], "Unknown model 'lenet'"),
        (["runs", "--state", "done"], "--state must be one of queued, running"),
        (["runs", "--limit", "0"], "--limit"),
        (["show", "base_cnn-000000"], "No run 'base_cnn-000000'"),
        (["show"], "Missing argument 'RUN'"),
        (["resume", "nothing"], "No run 'nothing'"),
        (["stop", "nothing"], "No run 'nothing'"),
        (["delete", "nothing", "--yes"], "No run 'nothing'"),
        (["evaluate", "nothing"], "No run 'nothing'"),
        (["predict", "nothing", "x.png"], "No run 'nothing'"),
        (["predict", "nothing"], "Missing argument 'IMAGE...'"),
        (["export", "nothing", "--format", "pickle"], "Unknown format 'pickle'; known are: keras"),
        (["export", "nothing", "--format", "onnx", "--quantize", "int8"], "Only tflite can be quantized"),
        (["export", "nothing", "--format", "keras"], "No run 'nothing'"),
        (["describe", "lenet"], "Unknown model 'lenet'"),
        (["presets", "--model", "lenet"], "Unknown model 'lenet'"),
        (["bench", "memory"], "Unknown part 'memory'"),
        (["worker", "--run", "nothing"], "No run 'nothing'"),
        (["data", "download", "--url", "ftp://x"], "must begin with https:// or http://"),
        (["data", "nothing"], "No such command 'nothing'"),
        (["data"], "Missing command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments_are_one_line_and_status_2(lab, words, said):
    outcome = lab(*words)
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.startswith("cifar-lab: error: ")
    assert outcome.err.count("\n") == 1
    assert said in outcome.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train"], "cifar-lab data download"),
        (["data", "import", "/nowhere"], "No CIFAR-10 at /nowhere"),
    ],
)
def test_missing_data_is_one_line_and_status_1(lab, words, said):
    outcome = lab(*words)
    assert (outcome.status, outcome.out) == (1, "")
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(lab, name):
    outcome = lab(name, "--help")
    assert outcome.status == 0
    assert outcome.err == ""
    assert "Usage: cifar-lab" in outcome.out


def test_the_help_of_train_tells_every_setting_with_its_default_and_range(lab):
    text = " ".join(lab("train", "--help").out.split())
    for model in MODELS:
        for name, declared in train_settings(model).items():
            assert flag(name) in text
            if name in describe(TrainConfig) and declared.kind in ("int", "float"):
                assert declared.help in text
                assert declared.allowed() in text
    assert "[a whole number from 1 to 4096; default: 128]" in text
    assert "--flip / --no-flip" in text
    for heading in ("Start from:", "Budget:", "Optimizer:", "Augmentation:", "Only for alexnet:"):
        assert heading in text


def test_top_level_help_lists_all_commands(lab):
    text = lab("--help").out
    for name in COMMANDS:
        assert f"  {name} " in text


def test_no_command_shows_the_help_and_is_a_mistake(lab):
    outcome = lab()
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == lab("--help").out


def test_version(lab):
    import cifar_core

    assert lab("--version").out.strip() == f"cifar-lab {cifar_core.__version__}"


def other_value(declared):
    """Some allowed value other than the default, as text, and as the setting has it."""
    if declared.kind == "bool":
        return (not declared.default,) * 2
    if declared.kind == "choice":
        value = next(choice for choice in declared.choices if choice != declared.default)
        return str(value), value
    if declared.kind == "text":
        return "a word", "a word"
    middle = (declared.low + min(declared.high, declared.low + 4)) / 2
    value = round(middle) if declared.kind == "int" else middle
    return str(value), value


CHANGEABLE = [
    (model, name)
    for model in MODELS
    for name, declared in train_settings(model).items()
    if name not in ("model", "preset") and (name in describe(MODELS[model]) or model == "base_cnn")
]
SPECIAL = {
    "depth": 16,
    "pyramidnet.depth": 26,
    "dim": 96,
    "heads": 4,
    "teacher": "best",
    "start_from": "vit-0a1b2c",
    "dataset": "own",
}
"""Settings that take only some values of their kind."""
COMPANIONS = {
    "alternating_flip": {"flip": "true"},
    "optimizer": {"weight_decay": "0.01"},
    "warmup_epochs": {"epochs": "20"},
    "min_learning_rate": {"learning_rate": "5"},
    "channel_pruning": {"start_from": "vit-0a1b2c"},
    "new_head": {"start_from": "vit-0a1b2c"},
    "devices": {"batch_size": "120"},
}


@pytest.mark.parametrize(("model", "name"), CHANGEABLE)
def test_every_flag_sets_its_setting(model, name):
    text, value = other_value(train_settings(model)[name])
    value = SPECIAL.get(f"{model}.{name}", SPECIAL.get(name, value))
    text = str(value) if name in SPECIAL else text
    config = requested(None, None, {"model": model, **COMPANIONS.get(name, {}), name: text})
    assert config.flat()[name] == value


def test_flags_of_all_settings_exist_once():
    options = [*setting_options(describe(TrainConfig).values()), *model_options(describe(TrainConfig))]
    names = [option.name for option in options]
    assert len(set(names)) == len(names)
    assert set(names) == set().union(*(train_settings(model) for model in MODELS))


def test_no_flag_means_no_change():
    assert requested(None, None, dict.fromkeys(describe(TrainConfig))) == TrainConfig()


def test_a_preset_with_changes():
    config = requested("resnet18/recommended", None, {"epochs": "5", "seed": "3"})
    assert (config.model, config.epochs, config.seed, config.preset) == (
        "resnet18",
        5,
        3,
        "resnet18/recommended",
    )


@pytest.mark.parametrize("name", presets())
def test_a_file_of_settings_comes_back_the_same(tmp_path, name):
    config = requested(name, None, {})
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(config.flat()))
    assert requested(None, path, {}) == config
    path.write_text(json.dumps({"run": "x", "settings": config.model_dump()}))
    assert requested(None, path, {}) == config
    assert requested(None, path, {"seed": "7"}) == config.replace(seed=7)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "one JSON object"),
        ('{"epoks": 1}', "Unknown setting 'epoks'"),
        ('{"model": "vit"}', "a setting of vit; it cannot be changed to alexnet"),
    ],
)
def test_a_bad_file_of_settings(tmp_path, content, said):
    path = tmp_path / "settings.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=said):
        requested(None, path, {"model": "alexnet"} if "vit" in content else {})


def test_preset_and_file_exclude_each_other(tmp_path):
    with pytest.raises(ConfigError, match="not from both"):
        requested("base_cnn/recommended", tmp_path / "x.json", {})


def test_none_empties_an_optional_setting():
    assert read_value(describe(TrainConfig)["train_limit"], "none") is None
    with pytest.raises(ConfigError, match="got 'none'"):
        read_value(describe(TrainConfig)["epochs"], "none")


def test_seeds():
    assert [config.seed for config in seeded(TrainConfig(), "0,1,5")] == [0, 1, 5]
    assert seeded(TrainConfig(seed=4), None) == [TrainConfig(seed=4)]
    for wrong in ("", "1,", "1.5", "2,2"):
        with pytest.raises(ConfigError, match="seeds must be"):
            read_numbers("seeds", wrong)


ANY_TEXT = st.one_of(st.text(max_size=12), st.integers().map(str), st.floats().map(str))


@pytest.mark.slow
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(describe(TrainConfig))), ANY_TEXT)
def test_any_text_gives_a_setting_or_a_config_error(name, text):
    try:
        config = requested(None, None, {name: text})
    except ConfigError as error:
        assert str(error)  # noqa: PT017 - either outcome is right, and this is what must hold of the error
    else:
        assert isinstance(config, TrainConfig)


def test_a_search_from_flags():
    config = search_config(
        ["dropout=0:0.5", "batch-size=64,128", "optimizer=adam,sgd", "batch_norm=true,false"],
        {"tuner": "random", "max_trials": "7", "epochs": "4", "seed": None, "l2": "0.001"},
    )
    assert config == SearchConfig(
        model="base_cnn",
        tuner="random",
        max_trials=7,
        base={"epochs": 4, "l2": 0.001},
        space={
            "dropout": (0.0, 0.5),
            "batch_size": (64, 128),
            "optimizer": ("adam", "sgd"),
            "batch_norm": (True, False),
        },
    )


def test_a_search_takes_its_model_from_the_preset():
    assert search_config([], {"preset": "resnet18/recommended"}).model == "resnet18"
    study = search_config([], {"preset": "alexnet/paper-search", "seed": "5"})
    assert (study.model, study.seed, study.max_epochs) == ("alexnet", 5, 10)
    assert set(study.space) >= {"units_dense1", "learning_rate"}
    with pytest.raises(ConfigError, match="a search of alexnet, not of vit"):
        search_config([], {"preset": "alexnet/paper-search", "model": "vit"})


def test_a_space_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="NAME=LOW:HIGH"):
        read_space("base_cnn", ["dropout="])


def test_values_of_another_model_name_those_that_have_them():
    with pytest.raises(ConfigError, match=r"--units-dense1 is a setting of alexnet, not of vit; vit has: --"):
        read_values("vit", {"units_dense1": "64"})


def test_help_and_mistakes_load_no_framework():
    code = (
        "import sys; from cifar_core.cli import main\n"
        "main(['--help'])\n"
        "light = {'pydantic', 'pandas', 'numpy', 'sqlalchemy'} & set(sys.modules)\n"
        "main(['train', '--epochs', 'ten']); main(['train', '--help']); main(['models'])\n"
        "main(['presets']); main(['tune', '--tuner', 'x']); main(['export', 'x', '--format', 'y'])\n"
        "print(sorted(light), [m for m in ('keras', 'tensorflow', 'keras_tuner') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] []"


def test_app_starts_the_dashboard_of_this_checkout_at_the_port_asked_for(lab, monkeypatch):
    from cifar_core.cli import start

    called = []
    monkeypatch.setattr(start.subprocess, "call", lambda words: called.append(words) or 0)
    assert lab("app", "--port", "8600", "--no-browser").status == 0
    [words] = called
    assert words[1:4] == ["-m", "streamlit", "run"]
    assert (Path(words[4]).name, Path(words[4]).with_name("pages").is_dir()) == ("app.py", True)
    assert words[5:] == ["--server.port=8600", "--server.headless=true"]


def test_without_streamlit_app_says_what_to_install(lab, monkeypatch):
    monkeypatch.setitem(sys.modules, "streamlit", None)
    outcome = lab("app")
    assert outcome.status == 1
    assert "pip install streamlit" in outcome.err


def test_a_variable_that_wins_is_named_before_an_import(lab, monkeypatch, tmp_path):
    """Also where the import then fails: the words come first."""
    monkeypatch.setenv("CIFAR_LAB_DATA", str(tmp_path / "typo"))
    outcome = lab("data", "import", str(tmp_path / "nothing"))
    assert outcome.status == 1
    before, after = outcome.err.split("No CIFAR-10 at")
    assert "`unset CIFAR_LAB_DATA`" in before
    assert "nothing there" in after
    monkeypatch.setattr("cifar_core.data.import_cifar10", lambda path: Path(path))
    assert lab("data", "import", "/copy").out == "A copy that is not used is in /copy\n"
    monkeypatch.delenv("CIFAR_LAB_DATA")
    assert lab("data", "import", "/copy").out == "CIFAR-10 is in /copy\n"
    assert "unset" not in lab("data", "status").out

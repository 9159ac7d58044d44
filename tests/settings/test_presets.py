import pytest

from cifar_core.analysis.study.paper import PAPER_RESULTS
from cifar_core.errors import ConfigError
from cifar_core.models import models
from cifar_core.settings.presets import PRESETS, SCENES_EPOCHS, begin_with, find_preset, preset, presets
from cifar_core.settings.train_config import TrainConfig

PAPER_MODELS = ("base_cnn", "alexnet", "resnet18", "mobilenet")
AUGMENTATION = {"rotation": 15, "shift": 0.1, "flip": True, "zoom": 0.1, "fill": "nearest"}


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_a_valid_setting_that_knows_its_name(name):
    config = preset(name)
    assert config.preset == name
    assert config.model == name.split("/")[0]
    assert config.variant == PRESETS[name].variant
    assert preset(name, epochs=1).epochs == 1
    assert TrainConfig(**config.model_dump()) == config


def test_every_model_has_a_quick_and_a_recommended_preset_and_four_are_in_the_study():
    assert {f"{model}/{kind}" for model in models() for kind in ("quick", "recommended")} <= set(presets())
    assert [name for name in presets() if name.endswith("baseline")] == [
        f"{model}/paper-baseline" for model in PAPER_MODELS
    ]
    assert [name for name in presets() if name.endswith("tuned")] == [
        f"{model}/paper-tuned" for model in PAPER_MODELS[1:]
    ]
    assert len(presets()) == 2 * len(models()) + 7 + 2  # and a distilled and a fine-tuned one


@pytest.mark.parametrize("item", PRESETS.values(), ids=lambda item: item.name)
def test_each_says_why_in_one_line(item):
    assert 40 < len(item.why) <= 110
    assert "\n" not in item.why
    assert item.kind in ("paper-baseline", "paper-tuned", "quick", "distilled", "fine-tuning", "recommended")


def test_base_cnn_as_published():
    config = preset("base_cnn/paper-baseline")
    assert config.changes_from(TrainConfig(model="base_cnn")) == {
        "variant": ("custom", "baseline"),
        "preset": (None, "base_cnn/paper-baseline"),
        "validation_fraction": (0.1, 0.2),
        "epochs": (10, 50),
        "precision": ("auto", "float32"),
    }
    assert config.keep == "best"  # chosen on validation; the study reports the last epoch
    assert (config.optimizer, config.learning_rate, config.batch_size) == ("adam", 1e-3, 128)


@pytest.mark.parametrize("model", PAPER_MODELS[1:])
def test_other_baselines_as_published(model):
    config = preset(f"{model}/paper-baseline")
    expected = {
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "batch_size": 64,
        "epochs": 10,
        "validation_fraction": 0.2,
        "protocol": "held-out",
        "schedule": "constant",
        "keep": "last",
        "flip": False,
        "rotation": 0,
        "weight_decay": 0,
        "label_smoothing": 0,
    }
    assert {name: config.flat()[name] for name in expected} == expected


@pytest.mark.parametrize("model", PAPER_MODELS[1:])
def test_tuned_as_published(model):
    settings = preset(f"{model}/paper-tuned").flat()
    expected = {
        **AUGMENTATION,
        "protocol": "test-selected",
        "batch_size": 64,
        "epochs": 10 if model == "alexnet" else 50,
        "learning_rate": 2.326e-4 if model == "alexnet" else 1e-3,
        "keep": "best" if model == "alexnet" else "last",
        "schedule": "constant" if model == "mobilenet" else "plateau",
        "crop_padding": 0,
    }
    assert {name: settings[name] for name in expected} == expected


def test_what_is_particular_to_each_network():
    alexnet, mobilenet = preset("alexnet/paper-tuned").flat(), preset("mobilenet/paper-tuned").flat()
    assert [alexnet[f"{what}{place}"] for place in (1, 2) for what in ("units_dense", "dropout_rate")] == [
        4096,
        0.5,
        2048,
        0.6,
    ]
    assert (alexnet["plateau_factor"], alexnet["plateau_patience"], alexnet["min_learning_rate"]) == (
        0.5,
        3,
        1e-6,
    )
    assert (mobilenet["stem"], mobilenet["bn_momentum"], mobilenet["dropout"]) == ("imagenet", 0.999, 0.5)
    assert preset("mobilenet/paper-baseline").flat()["dropout"] == 0
    assert preset("resnet18/paper-baseline").flat()["design"] == "paper"
    assert preset("resnet18/recommended").flat()["design"] == "standard"
    assert preset("mobilenet/recommended").flat()["stem"] == "cifar"


def test_recommended_base_cnn_is_the_same_net_and_budget():
    published, recommended = preset("base_cnn/paper-baseline"), preset("base_cnn/recommended")
    assert recommended.epochs == published.epochs
    assert recommended.flat()["design"] == published.flat()["design"]
    assert recommended.protocol == "held-out"


@pytest.mark.parametrize("row", PAPER_RESULTS.to_dict(orient="records"), ids=lambda row: row["preset"])
def test_presets_agree_with_the_table_of_published_results(row):
    config = preset(row["preset"])
    for name in ("model", "variant", "protocol", "epochs", "batch_size"):
        assert getattr(config, name) == row[name], name


@pytest.mark.parametrize(
    ("changes", "variant"),
    [
        ({"seed": 3}, "tuned"),
        ({"name": "again", "train_limit": 1000, "test_limit": 100}, "tuned"),
        ({"protocol": "held-out"}, "tuned"),
        ({"precision": "mixed_bfloat16", "dataset": "synthetic"}, "tuned"),
        ({"epochs": 50}, "tuned"),
        ({"epochs": 5}, "custom"),
        ({"dropout": 0.3}, "custom"),
        ({"flip": False, "seed": 3}, "custom"),
        ({"epochs": 5, "variant": "baseline"}, "baseline"),
    ],
)
def test_a_changed_recipe_is_custom(changes, variant):
    config = preset("mobilenet/paper-tuned", **changes)
    assert config.variant == variant
    assert config.preset == "mobilenet/paper-tuned"
    assert {name: config.flat()[name] for name in changes} == changes


def test_a_warm_up_keeps_its_share_unless_it_is_named():
    assert preset("resnet18/recommended").warmup_epochs == 2
    assert preset("resnet18/recommended", epochs=5).warmup_epochs == 0.25
    assert preset("resnet18/recommended", epochs=5, warmup_epochs=1).warmup_epochs == 1
    assert preset("resnet18/recommended", learning_rate=0.05).warmup_epochs == 2


def test_an_unknown_preset_names_near_ones_and_all():
    with pytest.raises(ConfigError, match=r"Did you mean alexnet/paper-tuned.*Known are: base_cnn") as caught:
        preset("alexnet/papertuned")
    assert all(name in str(caught.value) for name in presets())
    with pytest.raises(ConfigError, match=r"Unknown preset ''\. Known"):
        preset("")
    with pytest.raises(ConfigError, match="Unknown preset None"):
        find_preset(None)


def test_other_mistakes_are_named():
    with pytest.raises(ConfigError, match="is a preset of alexnet; for 'vit'"):
        preset("alexnet/recommended", model="vit")
    with pytest.raises(ConfigError, match="No preset for model 'lenet'; there are presets for: base_cnn"):
        presets("lenet")
    with pytest.raises(ConfigError, match="Unknown setting 'learnrate'"):
        preset("alexnet/recommended", learnrate=1)
    with pytest.raises(ConfigError, match="epochs must be"):
        preset("resnet18/recommended", epochs="ten")


def test_presets_of_one_model():
    assert presets("resnet18") == [
        f"resnet18/{kind}" for kind in ("paper-baseline", "paper-tuned", "quick", "recommended")
    ]
    assert presets("vit") == ["vit/quick", "vit/recommended"]


def test_a_recommended_preset_begins_short_on_drawn_scenes_and_the_study_s_stay():
    short = begin_with("base_cnn/recommended", "synthetic")
    assert short == preset("base_cnn/recommended", dataset="synthetic", epochs=SCENES_EPOCHS)
    for name in PRESETS:
        begun = begin_with(name, "synthetic")
        assert begun.dataset == "synthetic"
        assert begin_with(name, "cifar10") == preset(name)
        if find_preset(name).variant == "custom":
            assert begun.epochs <= SCENES_EPOCHS
        else:
            assert begun == preset(name, dataset="synthetic")

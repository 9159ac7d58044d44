"""Counting: against sums done by hand, against published numbers, and the cache that spares pages Keras."""

import os
import subprocess
import sys
import time

import pytest
from pydantic import TypeAdapter

from cifar_core.errors import CifarLabError, ConfigError
from cifar_core.models import cost as module
from cifar_core.models.cost import Architecture, Layer, architecture, describe_architecture


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "hyperparameters", "parameters", "trainable", "million_multiply_adds"),
    [
        ("base_cnn", {}, 315_722, 315_722, 4.19),
        ("base_cnn", {"design": "notebook"}, 122_570, 122_570, 4.53),
        ("alexnet", {}, 36_925_322, 36_925_322, 291),
        ("resnet18", {"design": "paper"}, 3_274_378, 3_270_666, 471),
        # kuangliu/pytorch-cifar's ResNet18: 11,173,962 and 0.56 billion.
        ("resnet18", {"design": "standard"}, 11_183_562, 11_173_962, 556),
        ("mobilenet", {"stem": "imagenet"}, 2_270_794, 2_236_682, 6.1),
        ("mobilenet", {"stem": "cifar"}, 2_270_794, 2_236_682, 88),
        ("mobilenet", {"stem": "cifar-fast"}, 2_270_794, 2_236_682, 24.5),
        # davidcpage/cifar10-fast: 6,573,120 trainable.
        ("resnet9", {}, 6_577_600, 6_573_120, 379),
        # KellerJordan/cifar10-airbench; besides, 312 in the whitening layer and 2,304 averages.
        ("airbench", {}, 1_973_944, 1_971_328, 118),
        # The paper: 36.5 million, 5.2 billion.
        ("wrn28_10", {}, 36_497_146, 36_479_194, 5_243),
        # The paper prints 1.7, 3.8 and 26.0 million.
        ("pyramidnet", {"depth": 110, "widening": 48}, 1_752_754, 1_739_730, 394),
        ("pyramidnet", {"depth": 110, "widening": 84}, 3_874_018, 3_855_054, 758),
        ("pyramidnet", {"depth": 272, "widening": 200, "bottleneck": True}, 26_259_626, 26_049_562, 4_447),
        # torchvision's 5,288,548 less a head of 1,000 classes (1,281,000), plus one of ten (12,810).
        ("efficientnet_b0", {}, 4_062_374, 5_288_548 - 1_281_000 + 12_810, 116),
        # Keras's own B2 and B7, whose heads are of 1,000 classes.
        ("efficientnet_b0", {"scale": "b2"}, 7_782_652, 9_109_994 - 1_409_000 + 14_090, 205),
        ("efficientnet_b0", {"scale": "b7"}, 64_123_290, 66_347_960 - 2_561_000 + 25_610, 1_651),
        ("vit", {}, 3_705_354, 3_705_354, 250),
    ],
)
def test_full_sizes(name, hyperparameters, parameters, trainable, million_multiply_adds):
    described = describe_architecture(name, **hyperparameters)
    assert described.parameters == parameters
    assert described.trainable_parameters == trainable
    assert described.multiply_adds / 1e6 == pytest.approx(million_multiply_adds, rel=0.01)
    assert described.flops > 2 * described.multiply_adds
    assert described.parameter_bytes == 4 * parameters
    assert sum(layer.parameters for layer in described.layers) == parameters


@pytest.mark.slow
def test_mobilenet_at_its_home_size_costs_what_the_paper_says():
    """300 million multiply-adds at 224x224: 49 times the area of 32x32 (but for the classifier)."""
    described = describe_architecture("mobilenet", stem="imagenet")
    classifier = described.layers[-1].multiply_adds
    assert (described.multiply_adds - classifier) * 49 + 1_280_000 == pytest.approx(300e6, rel=0.02)


def test_base_cnn_by_hand():
    described = describe_architecture("base_cnn")
    by_hand = [
        ("InputLayer", (32, 32, 3), 0, 0, 0),
        ("Rescaling", (32, 32, 3), 0, 0, 2 * 3_072),
        ("Conv2D", (30, 30, 32), 896, 900 * 32 * 27, 900 * 32),
        ("ReLU", (30, 30, 32), 0, 0, 28_800),
        ("MaxPooling2D", (15, 15, 32), 0, 0, 7_200 * 4),
        ("Conv2D", (13, 13, 64), 18_496, 169 * 64 * 288, 169 * 64),
        ("ReLU", (13, 13, 64), 0, 0, 10_816),
        ("MaxPooling2D", (6, 6, 64), 0, 0, 2_304 * 4),
        ("Flatten", (2_304,), 0, 0, 0),
        ("Dense", (128,), 295_040, 2_304 * 128, 128),
        ("ReLU", (128,), 0, 0, 128),
        ("Dense", (10,), 1_290, 1_280, 10 + 10),
    ]
    layers = [layer for layer in described.layers if layer.type != "InputLayer"]
    assert len(layers) == len(by_hand) - 1
    for layer, (kind, shape, parameters, multiply_adds, others) in zip(layers, by_hand[1:], strict=True):
        assert (layer.type, layer.output_shape, layer.parameters) == (kind, shape, parameters)
        assert layer.multiply_adds == multiply_adds
        assert layer.flops == 2 * multiply_adds + others
    kept = 3_072 + 2 * 28_800 + 7_200 + 2 * 10_816 + 2_304 + 2 * 128 + 10
    assert described.activation_bytes == 4 * kept
    assert described.hyperparameters["design"] == "paper"


def test_attention_by_hand():
    """Sixteen squares of 8 numbers, two heads of 4."""
    described = describe_architecture("vit", patch=8, dim=8, heads=2, depth=1)
    (attention,) = (layer for layer in described.layers if layer.type == "MultiHeadAttention")
    projections, products = 4 * 16 * 8 * 8, 2 * 2 * 16 * 16 * 4
    assert attention.multiply_adds == projections + products
    assert attention.parameters == 4 * (8 * 8 + 8)
    assert attention.flops == 2 * (projections + products) + 3 * 2 * 16 * 16 + 4 * 16 * 8
    assert attention.activations == 5 * 16 * 8 + 2 * 16 * 16


@pytest.mark.slow
def test_connections_show_the_shortcuts():
    layers = {layer.name: layer for layer in describe_architecture("mobilenet", width=0.1).layers}
    assert layers["images"].connected_to == ()
    assert layers["rescaling"].connected_to == ("images",)
    assert layers["block_4_add"].connected_to == ("block_3_project_bn", "block_4_project_bn")
    for layer in layers.values():
        assert set(layer.connected_to) <= set(layers)


def test_a_layer_nobody_can_count_is_not_passed_over_in_silence():
    import keras

    unknown = keras.layers.UpSampling2D(name="bigger")
    unknown(keras.Input((4, 4, 1)))
    with pytest.raises(CifarLabError, match="'bigger' is of the type UpSampling2D"):
        module._layer(unknown)


@pytest.mark.slow
def test_a_page_gets_its_answer_without_importing_keras(home, tmp_path):
    code = (
        "import sys, json; from dataclasses import asdict; from cifar_core.models.cost import architecture; "
        "answer = architecture('base_cnn', dropout=0.25); "
        "assert not {'keras', 'tensorflow'} & set(sys.modules); print(json.dumps(asdict(answer)))"
    )
    # Started elsewhere: the process that it starts must find the package all the same.
    path = os.pathsep.join(
        filter(None, [str(module.Path(module.__file__).parents[2]), os.environ.get("PYTHONPATH")])
    )
    command = [sys.executable, "-c", code]
    options = {"capture_output": True, "text": True, "check": True, "cwd": tmp_path}
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, **options)
    answer = TypeAdapter(Architecture).validate_json(done.stdout)
    assert (answer.model, answer.parameters, answer.hyperparameters["dropout"]) == ("base_cnn", 315_722, 0.25)
    files = list((home / "cache" / "architectures").iterdir())
    assert len(files) == 1, "the answer, and nothing half-written"
    started = time.perf_counter()
    assert architecture("base_cnn", dropout=0.25) == answer
    assert time.perf_counter() - started < 0.5


@pytest.fixture
def asked(monkeypatch):
    """Questions that reached the process, which here answers at once."""
    questions = []

    def answer(question, **_):
        questions.append(question)
        layer = Layer("images", "InputLayer", (32, 32, 3), 0, 0, 0, 0, ())
        name, _ = question.args
        return Architecture(name, question.keywords, len(questions), 0, 0, 0, 0, 0, (layer,))

    monkeypatch.setattr(module, "ask", answer)
    return questions


def test_the_same_question_is_asked_once_however_it_is_put(asked):
    first = architecture("resnet18")
    assert architecture("resnet18", design="standard", width=64) == first
    assert len(asked) == 1
    assert architecture("resnet18", width=32) != first
    assert architecture("resnet9") != first
    assert len(asked) == 3


def test_new_sources_ask_anew(asked, monkeypatch):
    architecture("base_cnn")
    monkeypatch.setattr(module, "_sources_digest", lambda: "another release")
    architecture("base_cnn")
    assert len(asked) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"layers": []}', '{"layers": [{"name": "x"}]}', "\x00"])
@pytest.mark.usefixtures("asked")
def test_a_damaged_cache_file_is_written_anew(damage, home, caplog):
    architecture("base_cnn")
    (file,) = (home / "cache" / "architectures").iterdir()
    file.write_text(damage)
    assert architecture("base_cnn").parameters == 2
    assert "damaged cache file" in caplog.text
    assert architecture("base_cnn").parameters == 2


def test_a_home_that_cannot_be_written_costs_only_the_cache(asked, home, caplog):
    home.write_text("a file where the folder should be")
    assert architecture("base_cnn").model == "base_cnn"
    assert "Cannot keep" in caplog.text
    assert len(asked) == 1


def test_mistakes_are_found_before_any_process_is_started(asked):
    with pytest.raises(ConfigError, match="Unknown model"):
        architecture("lenet")
    with pytest.raises(ConfigError, match="design must be one of"):
        architecture("base_cnn", design="wide")
    assert not asked


def test_a_process_that_dies_is_reported(monkeypatch):
    monkeypatch.setattr(module, "describe_architecture", os.abort)
    with pytest.raises(CifarLabError, match=r"base_cnn could not be built\. TypeError"):
        architecture("base_cnn")
    monkeypatch.setattr(module, "CHILD_SECONDS", 0.01)
    with pytest.raises(CifarLabError, match=r"could not be built\. There was no answer within 0\.01 s"):
        architecture("base_cnn")

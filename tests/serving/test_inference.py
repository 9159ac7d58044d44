"""Models asked in a child process: their answers and errors. Processes that die, hang or idle are tested with
`cifar_core.base.child`."""

import os
import time

import numpy as np
import pytest

from cifar_core.errors import ModelFileError
from cifar_core.serving import inference
from cifar_core.serving.inference import Inference, InferenceError, LoadedModels

IMAGE = np.zeros((1, 32, 32, 3), np.uint8)


def test_a_process_that_does_not_answer_is_an_inference_error_and_replaced_by_the_next(monkeypatch):
    asking = Inference(patience_s=20)
    monkeypatch.setattr(inference, "predict", os._exit)  # refuses five arguments
    try:
        with pytest.raises(InferenceError, match=r"gave no answer\. TypeError"):
            asking.ask("a", IMAGE)
        assert asking.running()
        with pytest.raises(InferenceError, match=r"gave no answer.*exit status 3"):
            asking._call(os._exit, 3)
        assert not asking.running()
        asking.patience_s = 0.5
        with pytest.raises(InferenceError, match=r"within 0\.5 s.*less busy"):
            asking._call(time.sleep, 30)
        asking.patience_s = 20
        assert asking._call(os.getpid) != os.getpid()
        assert asking.running()
    finally:
        asking.close()
    assert not asking.running()


def test_errors_that_name_what_is_wrong_arrive_as_they_are(tmp_path):
    asking = Inference()
    try:
        with pytest.raises(InferenceError, match=r"^There is no model at .*none\.keras \(No such file"):
            asking.ask(tmp_path / "none.keras", IMAGE)
        (tmp_path / "damaged.keras").write_bytes(b"PK no zip")
        with pytest.raises(InferenceError, match=r"^The model .*damaged\.keras cannot be loaded"):
            list(asking.feature_parts(tmp_path / "damaged.keras", IMAGE))
    finally:
        asking.close()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    import keras

    path = tmp_path_factory.mktemp("model") / "model.keras"
    layers = keras.layers
    body = [layers.Conv2D(4, 3, strides=4, activation="relu"), layers.GlobalAveragePooling2D()]
    keras.Sequential([layers.Input((32, 32, 3)), *body, layers.Dense(10, "softmax")]).save(path)
    return path


@pytest.mark.slow
def test_a_model_that_would_run_code_or_gives_no_classes_is_refused(tmp_path):
    import keras

    layers = keras.layers
    head = [layers.Lambda(lambda x: x), layers.Flatten(), layers.Dense(10, "softmax")]
    keras.Sequential([layers.Input((32, 32, 3)), *head]).save(tmp_path / "code.keras")
    with pytest.raises(ModelFileError, match="Lambda"):
        LoadedModels().get(str(tmp_path / "code.keras"))
    keras.Sequential([layers.Input((32, 32, 3)), *head[1:2]]).save(tmp_path / "flat.keras")
    with pytest.raises(InferenceError, match=r"gives \(None, 3072\), not probabilities \(N, 2 to 1,000"):
        LoadedModels().get(str(tmp_path / "flat.keras"))


@pytest.mark.slow
def test_the_models_asked_last_are_kept(tmp_path, model_file):
    models = LoadedModels(kept=2)
    paths = [str(tmp_path / f"{name}.keras") for name in "abc"]
    loaded = []
    for path in paths:
        with open(path, "wb") as file:
            file.write(model_file.read_bytes())
        loaded.append(models.get(path))
    assert models.get(paths[1]) is loaded[1]
    assert models.get(paths[0]) is not loaded[0]
    os.utime(paths[0], (0, 0))
    changed = models.get(paths[0])
    assert changed is not loaded[0], "a file that was written anew is another model"
    assert len(models._models) == 2


@pytest.mark.slow
def test_the_process_says_what_the_model_says(model_file):
    import keras

    from cifar_core.analysis.evaluation import predict_probabilities
    from cifar_core.analysis.explain import grad_cam

    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    model = keras.models.load_model(model_file)
    asking = Inference(idle_s=1)
    try:
        answer = asking.ask(model_file, images, explain=3, test_views="flip")
        assert answer.heat is not None
        assert answer.probabilities.dtype == answer.heat.dtype == np.float32
        expected = predict_probabilities(model, images, test_views="flip")
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
        np.testing.assert_allclose(answer.heat[1], grad_cam(model, images[1], 3), atol=1e-3)
        for _ in range(100):
            if not asking.running():
                break
            time.sleep(0.1)
        assert not asking.running(), "nobody asked for a second"
    finally:
        asking.close()

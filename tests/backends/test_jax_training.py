"""What is different inside a training under JAX, which keeps the variables in its compiled step."""

from importlib.util import find_spec

import pytest

from cifar_core.base.devices import keras_backend

pytestmark = pytest.mark.skipif(find_spec("jax") is None, reason="needs JAX: pip install 'cifar-lab[jax]'")


@pytest.fixture(autouse=True)
def on_jax():
    if keras_backend() != "jax":
        pytest.skip(f"Keras runs on {keras_backend()}; set KERAS_BACKEND=jax")


def test_the_learning_rate_inside_an_epoch_is_the_schedules(tiny, monkeypatch):
    from cifar_core.settings.train_config import TrainConfig
    from cifar_core.training import callbacks
    from cifar_core.training.run import train

    monkeypatch.setattr(callbacks, "STEP_SECONDS", 0.0)
    told = []
    config = TrainConfig(
        dataset="synthetic", epochs=2, batch_size=45, schedule="cosine", learning_rate=0.1, optimizer="sgd"
    )
    train(config, dataset=tiny, progress=told.append)
    rates = [report.metrics["learning_rate"] for report in told if report.kind == "step"]
    assert len(rates) == 8
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.09 > 0.01 > rates[-1]


def test_what_tensorflow_writes_is_refused_in_words_and_the_rest_is_exported(tmp_path):
    from cifar_core.errors import ExportError
    from cifar_core.models import create_model
    from cifar_core.serving.formats import FORMATS, default_name, export_model

    model = create_model("base_cnn")
    for form in FORMATS:
        target = tmp_path / default_name("a", form)
        if form == "keras":
            assert export_model(model, form, target).agreement == 1.0
        else:
            with pytest.raises(ExportError, match="KERAS_BACKEND=tensorflow"):
                export_model(model, form, target)
            assert not target.exists()

"""One tiny run that is stopped in its second epoch and resumed, shared by the quick tests."""

from types import SimpleNamespace

import pytest

from cifar_core.settings import compute
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore


def settings(**changes):
    """Settings of a training on `tiny`: 160 training images, five steps an epoch."""
    return TrainConfig(
        **{
            "model": "base_cnn",
            "dataset": "synthetic",
            "epochs": 3,
            "batch_size": 32,
            "validation_fraction": 0.2,
            "precision": "float32",
            **changes,
        }
    )


@pytest.fixture(scope="session")
def small_run(tiny, tmp_path_factory):
    """Number formats are "auto", and before the run is resumed this machine is measured to prefer another."""
    from cifar_core.training.run import resume, train

    home = tmp_path_factory.mktemp("small-run")
    config = settings(precision="auto", batch_size=64, dropout=0.3, flip=True, record_answers=True)
    with pytest.MonkeyPatch.context() as patch, RunStore(home) as store:
        patch.setenv("CIFAR_LAB_HOME", str(home))
        first, asked, reports = compute.choice(config), [], []
        other = "float32" if first.precision == "mixed_bfloat16" else "mixed_bfloat16"
        stopped = train(
            config,
            dataset=tiny,
            store=store,
            progress=reports.append,
            should_stop=lambda: (
                len(asked.append(0) or asked) >= 7
            ),  # three steps, a validation batch and the answers; then two steps
        )
        record = store.get(stopped.id)
        row = {"precision": other, "jit": first.jit, "onednn": None, "batch_size": 64}
        design = config.hyperparameters.model_dump()
        compute.remember(config.model, design, [{**row, "images_per_second": 9e9}])
        preferred = compute.choice(config).precision
        finished = resume(stopped.id, store=store, dataset=tiny, progress=reports.append)
        yield SimpleNamespace(
            config=config,
            store=store,
            first=first,
            preferred=preferred,
            stopped=stopped,
            stopped_record=record,
            finished=finished,
            asked=asked,
            reports=reports,
        )

"""The benchmark runs and its table is complete; the times themselves are not tested."""

import pytest

from cifar_core.bench import run_bench
from cifar_core.errors import ConfigError

# Keras's old generator, the published pipeline, asks SciPy by a name that SciPy gives up.
pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")


def test_augmentation_is_measured_against_the_old_generator():
    result = run_bench("augmentation", images=64, rounds=1)
    rows = {row["variant"]: row for row in result["rows"]}
    assert set(rows) == {"ImageDataGenerator", "stacked Keras layers", "ours"}
    assert rows["ImageDataGenerator"]["ratio"] == 1
    assert all(row["images_per_second"] > 0 for row in rows.values())
    assert result["device"]["cores"] >= 1


@pytest.mark.slow
def test_training_is_measured_as_published_bare_and_ours():
    rows = run_bench("training", models=("base_cnn",), images=64, rounds=1)["rows"]
    variants = [(row["subject"], row["variant"]) for row in rows]
    assert ("base_cnn, plain", "bare fit") in variants
    assert ("base_cnn, augmented", "ours, recommended") in variants
    assert len(variants) == len(set(variants)) == 7


def test_start_up_is_measured_in_fresh_processes():
    rows = run_bench("startup", rounds=1)["rows"]
    assert rows[0]["seconds"] < rows[1]["seconds"]  # the core alone against the framework


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"part": "coffee"}, "Unknown part 'coffee'"),
        ({"models": ("lenet",)}, "Unknown model 'lenet'"),
        ({"images": 3}, "needs 64 images"),
        ({"rounds": 0}, "1 round"),
    ],
)
def test_a_senseless_measurement_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        run_bench(**arguments)

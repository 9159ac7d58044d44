"""Settings that fine-tune a smaller version of a run's network."""

import pytest

from cifar_core.errors import ConfigError
from cifar_core.settings.presets import preset
from cifar_core.settings.smaller import pruned
from cifar_core.store.settings_columns import settings_key


def test_a_run_is_pruned_by_its_own_recipe_in_a_third_of_its_epochs():
    dense = preset("base_cnn/recommended", seed=3)
    small = pruned(dense, "base_cnn-0a1b2c", channels=0.5, sparsity=0.8)
    assert small.changes_from(dense) == {
        "start_from": ("", "base_cnn-0a1b2c"),
        "channel_pruning": (0, 0.5),
        "sparsity": (0, 0.8),
        "epochs": (50, 17),
        "warmup_epochs": (2, 0.68),
    }
    assert pruned(dense.replace(epochs=3, warmup_epochs=0), "a", sparsity=0.5).epochs == 2
    assert pruned(dense, "a", sparsity=0.5, epochs=4).epochs == 4
    with pytest.raises(ConfigError, match="sparsity must be"):
        pruned(dense, "a", sparsity=1.5)


def test_a_limit_on_time_or_patience_does_not_cut_the_fine_tuning_short():
    small = pruned(
        preset("base_cnn/recommended", time_budget=5, early_stopping_patience=3), "a", sparsity=0.5
    )
    assert (small.time_budget, small.early_stopping_patience) == (0, 0)


def test_settings_that_are_off_leave_the_key_of_earlier_runs():
    assert settings_key(preset("resnet9/recommended")) == "d621af90a2d7381c"

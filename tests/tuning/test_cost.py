"""What is said of a search's cost before it starts."""

import pytest

from cifar_core.base.devices import DeviceSummary
from cifar_core.models.cost import Architecture, Layer
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunStore
from cifar_core.training import estimate
from cifar_core.tuning import SEARCH_PRESETS, make_plan, middle, plan, search_cost, search_preset
from cifar_core.tuning.space import trial_config
from tests.tuning.conftest import settings

CPU = DeviceSummary("cpu", "a processor", 16.0, 2, "float32")
TWO_GPUS = DeviceSummary("gpu", "a card", 16.0, 8, "float32", 2)
LAYER = Layer("one", "Conv2D", (32, 32, 8), 1000, 10**6, 2 * 10**6, 10**5, ())
NETWORK = Architecture("base_cnn", {}, 1000, 1000, 10**6, 2 * 10**6, 4000, 4 * 10**5, (LAYER,))


@pytest.fixture(autouse=True)
def device(monkeypatch):
    chosen = {"now": CPU}
    for module in (plan, estimate):
        monkeypatch.setattr(module, "device_summary", lambda: chosen["now"])
    return chosen


def told(config, network=NETWORK):
    return search_cost(config, make_plan(config), network, RunStore())


def test_trials_cost_their_epochs_and_their_beginnings():
    config = settings(max_trials=4, max_epochs=3)
    per_epoch = estimate.estimate(trial_config(config, middle(config)), NETWORK, None).seconds_per_epoch
    found = told(config)
    assert found.trials == pytest.approx(estimate.START_SECONDS + 4 * plan.TRIAL_SECONDS + 12 * per_epoch)
    assert found.winner == 0
    assert found.total == found.trials
    assert "Worked out" in found.why


def test_the_winner_costs_a_full_training():
    whole, bare = told(settings(train_best=True)), told(settings())
    assert whole.trials == bare.trials
    assert whole.winner > estimate.START_SECONDS
    assert told(settings(train_best=True, base={"epochs": 50})).winner > 2 * whole.winner


def test_only_workers_with_a_gpu_of_their_own_save_time(device):
    alone = told(settings()).trials
    assert told(settings(workers=4)).trials == alone
    device["now"] = TWO_GPUS
    one, four = told(settings()).trials, told(settings(workers=4)).trials
    assert four - estimate.START_SECONDS == pytest.approx((one - estimate.START_SECONDS) / 2)


def test_an_unknown_network_and_no_run_tell_nothing():
    assert told(settings(), network=None) is None


def test_the_middle_is_inside_each_dimension():
    values = middle(
        settings(space={"learning_rate": (1e-4, 1e-2), "dropout": (0.0, 0.6), "flip": (True, False)})
    )
    assert values == {"learning_rate": pytest.approx(1e-3), "dropout": 0.3, "flip": False}


def test_a_middle_that_contradicts_itself_gives_way_to_a_corner():
    space = {"schedule": ("constant", "plateau", "cosine"), "learning_rate": (1e-4, 1e-2)}
    config = SearchConfig(space=space, base={"warmup_epochs": 1.0})
    assert middle(config) == {"schedule": "constant", "learning_rate": 1e-4}


@pytest.mark.parametrize("name", SEARCH_PRESETS)
def test_every_search_preset_can_be_told(name):
    found = told(search_preset(name))
    assert found.total > found.trials > 0
    assert found.factor > 1

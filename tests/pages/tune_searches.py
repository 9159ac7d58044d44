"""Searches in every state, written to a store as a worker would, without any training."""

import os

import numpy as np

from cifar_core.settings.search_config import SearchConfig
from cifar_core.store.records import RunState
from cifar_core.tuning import dimensions, make_plan
from tests.pages.live_runs import DATA, ENVIRONMENT

SPACE = {
    "learning_rate": (1e-4, 1e-2),
    "dropout": (0.0, 0.6),
    "optimizer": ("adam", "sgd"),
    "batch_norm": (True, False),
}


def settings(**changes):
    base = {"dataset": "synthetic", "train_limit": 400, **changes.pop("base", {})}
    return SearchConfig(**{"max_epochs": 10, "space": SPACE, "base": base, **changes})


def queued(store, **changes):
    return store.create_search(settings(**changes))


def starting(store, **changes):
    search_id = queued(store, **changes)
    assert store.claim(search_id, pid=os.getpid(), device="cpu")
    store.set_stage(search_id, "loading data")
    return search_id


def running(store, done=5, epochs=1, **changes):
    """A search that trains its trial number done + 1, after so many epochs of it."""
    search_id = starting(store, **changes)
    config = settings(**changes)
    plan = make_plan(config)
    store.begin_search(
        search_id, environment=ENVIRONMENT, dataset=DATA, plan=plan.to_dict(), trials_planned=plan.trials
    )
    random = np.random.default_rng(0)
    told = {}
    for number in range(1, done + 1):
        told[number] = finish_trial(store, search_id, config, number, told, random)
    if done < plan.trials and epochs is not None:
        begin_trial(store, search_id, config, done + 1, told, random)
        record_epochs(store, search_id, done + 1, plan.slot(done + 1), epochs)
        store.record_search(search_id, stage=f"trial {done + 1} of {plan.trials}", eta_s=90.0)
    return search_id


def begin_trial(store, search_id, config, number, told, random):
    """Begin the trial of that number; its (score to be, settings)."""
    slot = make_plan(config).slot(number)
    values, parent = drawn(config, random), None
    if slot.round:
        parent = _promoted(config, number, slot, told)
        values = told[parent][1]
    store.record_trial(
        search_id,
        f"{number:04d}",
        number=number,
        state=RunState.RUNNING,
        settings=values,
        bracket=slot.bracket,
        round=slot.round,
        parent=None if parent is None else f"{parent:04d}",
        epochs=slot.epochs,
        first_epoch=slot.first_epoch,
    )
    return score(values, slot.epochs), values


def finish_trial(store, search_id, config, number, told, random):
    outcome = begin_trial(store, search_id, config, number, told, random)
    slot = make_plan(config).slot(number)
    record_epochs(store, search_id, number, slot, slot.epochs - slot.first_epoch)
    store.record_trial(
        search_id,
        f"{number:04d}",
        state=RunState.FINISHED,
        score=outcome[0],
        duration_s=2.0 * (slot.epochs - slot.first_epoch),
        parameters=300_000,
    )
    store.record_search(search_id, best_trial=f"{number:04d}", best_score=outcome[0])
    return outcome


def record_epochs(store, search_id, number, slot, count):
    for epoch in range(slot.first_epoch + 1, slot.first_epoch + count + 1):
        gain = 1 - 0.8**epoch
        metrics = {"val_accuracy": 0.1 + (0.4 + 0.01 * number) * gain, "val_loss": 2.3 - gain, "seconds": 2.0}
        store.record_trial_epoch(search_id, f"{number:04d}", epoch, metrics)


def drawn(config, random):
    return {d.name: _draw(d, random) for d in dimensions(config)}


def _draw(dimension, random):
    if dimension.values is not None:
        return dimension.values[int(random.integers(len(dimension.values)))]
    share = float(random.random())
    if dimension.log:
        return dimension.low * (dimension.high / dimension.low) ** share
    return dimension.low + (dimension.high - dimension.low) * share


def score(values, epochs):
    rate = abs(np.log10(values.get("learning_rate", 1e-3) / 2e-3))
    return round(
        float(0.7 - 0.2 * rate - 0.4 * (values.get("dropout", 0.3) - 0.3) ** 2 - 0.3 * 0.7**epochs), 6
    )


def _promoted(config, number, slot, told):
    """The best trial of the round before that has not been promoted yet."""
    plan = make_plan(config)
    before = [n for n in told if _same_bracket(plan.slot(n), slot) and plan.slot(n).round == slot.round - 1]
    here = [n for n in range(1, number) if plan.slot(n) == slot]
    return sorted(before, key=lambda n: -told[n][0])[len(here)]


def _same_bracket(one, other):
    return (one.iteration, one.bracket) == (other.iteration, other.bracket)


def fail_trial(store, search_id, number, reason="The loss is no longer a finite number."):
    store.record_trial(search_id, f"{number:04d}", state=RunState.FAILED, reason=reason, duration_s=1.0)


def finished(store, best_run=None, **changes):
    search_id = running(store, make_plan(settings(**changes)).trials, **changes)
    trials = store.trials(search_id)
    best = trials.sort_values("score").iloc[-1]
    store.finish_search(
        search_id, best_trial=best["trial_id"], best_score=float(best["score"]), best_run=best_run
    )
    return search_id

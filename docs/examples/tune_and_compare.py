# %% [markdown]
# # Tune and compare
#
# Search for better settings, then ask whether they are better: several seeds each, on the same test images,
# with an exact test and an interval. It uses the drawn scenes and takes about ten minutes on two cores.

# %%
import numpy as np

from cifar_core import RunStore, SearchConfig, load_dataset, plots, preset, train, tune
from cifar_core.analysis.statistics import compare, spread
from cifar_core.tuning import importance, make_plan

TRIALS = 6
TRIAL_EPOCHS = 3
EPOCHS = 6
SEEDS = (0, 1, 2)
LIMIT = 2000  # training images

# %% [markdown]
# ## Search
#
# Each trial trains a variant for a short while and is judged by validation images. The test images have no
# part in it. `space` names what is tried; everything else is as in the preset that all trials start from.

# %%
config = SearchConfig(
    model="base_cnn",
    tuner="random",
    max_trials=TRIALS,
    max_epochs=TRIAL_EPOCHS,
    preset="base_cnn/paper-baseline",
    base={"dataset": "synthetic", "train_limit": LIMIT},
    space={"learning_rate": (1e-4, 1e-2), "dropout": (0.0, 0.5), "optimizer": ("adam", "sgd")},
    train_best=False,
)
plan = make_plan(config)
print(f"{plan.trials} trials, {plan.epochs} epochs")

# %%
store, dataset = RunStore(), load_dataset("synthetic")
result = tune(config, store=store, dataset=dataset)
result.trials[["number", "state", "score", "epochs", "settings"]]

# %% [markdown]
# ## What mattered?
#
# The importance of each setting within the ranges that were searched. With few trials the honest answer is
# often that there are not enough to tell; then all importances are 0.

# %%
importance(config, result.trials)

# %% [markdown]
# ## Baseline and winner, with several seeds each
#
# One run each proves little. Both get the same images, the same epochs and the same seeds.

# %%
same = {"dataset": "synthetic", "train_limit": LIMIT, "epochs": EPOCHS}
baseline = preset("base_cnn/paper-baseline", **same)
tuned = result.best_config.replace(epochs=EPOCHS, train_limit=LIMIT)
print("The search changed:", tuned.changes_from(baseline))


# %%
def trained(settings):
    """A finished run for each seed."""
    return [train(settings.replace(seed=seed), dataset=dataset, store=store) for seed in SEEDS]


runs = {"baseline": trained(baseline), "tuned": trained(tuned)}
for name, found in runs.items():
    print(f"{name}: {spread(run.metrics['accuracy'] for run in found).percent()}")


# %% [markdown]
# ## Is it better?
#
# Which test images did each run classify correctly? The comparison is of means over all seeds, on the same
# images. Read the interval first: it says how large the difference may be.


# %%
def right(found):
    """bool (runs, test images)"""
    return np.stack([store.predictions(run.id)["correct"] for run in found])


comparison = compare(right(runs["tuned"]), right(runs["baseline"]))
print(comparison)

# %%
plots.difference_intervals({"tuned": comparison}, against="baseline")

# %% [markdown]
# *No evidence* is not *equal*: the interval says which differences are still possible. And "better on these
# images" is not "better because of the search": try settings that nobody searched for, too. More: [Compare
# fairly](../compare-fairly.md), [Tuning](../tuning.md).

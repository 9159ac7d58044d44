"""One row of the study's table, reproduced with `cifar_core` alone.

    pip install -e .
    python docs/examples/reproduce_one_row.py

Editors that know `# %%` (VS Code, PyCharm, Spyder, Jupytext) run it cell by cell, as a notebook.
Variables of the environment make it another row, or a quick look:

    ROW      alexnet/paper-baseline, or another of the study's seven presets (default: the base CNN's)
    SCALE    share of the images and of the epochs (default 1; 0.1 costs a hundredth)
    DATASET  cifar10 (default), or synthetic where there is no CIFAR-10
    FIGURES  folder for the two figures (default: the current one)

The base CNN's 50 epochs take about half an hour on two cores.
"""

import os
from pathlib import Path

from cifar_core import PAPER_RESULTS, evaluate, load_dataset, plots, train
from cifar_core.training.reproduce import paper_runs, reproduction_table

# %% The settings: everything that the study's run is, in one object
ROW = os.environ.get("ROW", "base_cnn/paper-baseline")
SCALE = float(os.environ.get("SCALE", "1"))
DATASET = os.environ.get("DATASET", "cifar10")
FIGURES = Path(os.environ.get("FIGURES", "."))

[config] = paper_runs(ROW, scale=SCALE, dataset=DATASET)
print(f"{config.model}: {config.epochs} epochs of batches of {config.batch_size}, {config.optimizer}")

# %% The images, and which they are: a figure counts for its data only
JPEG_RE_ENCODED = "2d480e5948d0ea95fd6c753e9570e5306eea0f380781c425748469810b9805d8"
"""Fingerprint of the copy that README's results were made on: CIFAR-10 once saved as JPEG."""

dataset = load_dataset(config.dataset)
if dataset.fingerprint == JPEG_RE_ENCODED:
    images = "JPEG re-encoded CIFAR-10, not the official bytes"
elif dataset.source == "official archive":
    images = "CIFAR-10, the official files"
elif dataset.name == "synthetic":
    images = "drawn scenes, which compare with nothing"
else:
    images = f"CIFAR-10 from {dataset.origin}, not the official bytes"
print(f"Images: {images}")

# %% Train: validation images are cut from the training images, test is looked at once, at the end


def say(progress):
    if progress.kind == "epoch":
        share = progress.metrics["val_accuracy"]
        print(f"epoch {progress.epoch} of {progress.epochs}: {share:.2%} on validation")


run = train(config, dataset=dataset, progress=say)
print(run.history[["epoch", "accuracy", "val_accuracy", "seconds"]].round(3).to_string(index=False))

# %% Test again, by hand: what `run.metrics` says is what the network does
tested = dataset.limited(config.train_limit, config.test_limit, config.seed)
report = evaluate(run.model, tested.x_test, tested.y_test)
assert abs(report.accuracy - run.metrics["accuracy"]) < 1e-6
print(report.per_class.round(3).to_string(index=False))

# %% Beside the published figure
published = PAPER_RESULTS.set_index("preset").loc[ROW, "test_accuracy"]
print(f"Published {published:.2%}, here {report.accuracy:.2%} on {images}")
table = reproduction_table([run], only=ROW)
print(table[["preset", "published", "ours", "difference", "verdict"]].to_string(index=False))

# %% Its course beside the study's, and the two figures side by side
mine = plots.Curve(label="here", model=config.model, variant=config.variant, history=run.history)
study = plots.reference_curve(config.model, config.variant)
curves = plots.learning_curves([curve for curve in (study, mine) if curve is not None])
curves.write_html(FIGURES / "curves.html")
plots.published_comparison(table).write_html(FIGURES / "published_and_here.html")
print(f"Figures: {FIGURES / 'curves.html'}, {FIGURES / 'published_and_here.html'}")

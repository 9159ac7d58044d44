"""How often importance finds something in simulated searches: pure noise, and effects of a known size.

python -m tests.tuning.importance_noise     # the table of docs/tuning.md; a few minutes
"""

import importlib
import sys

import numpy as np
import pandas as pd

from cifar_core.settings.search_config import SearchConfig

SPACE = {
    "learning_rate": (1e-4, 1e-2),
    "dropout": (0.0, 0.6),
    "optimizer": ("adam", "sgd", "adamw"),
    "flip": (True, False),
    "label_smoothing": (0.0, 0.2),
    "batch_norm": (True, False),
}
RATE_SD, DROPOUT_SD = 0.3775, 0.6 / np.sqrt(12)
"""Standard deviations of the two effects, each over its range."""
SIZES = (8, 12, 20, 40, 80)
SEARCHES = 400


def config(settings):
    """A search over the first so many settings."""
    return SearchConfig(tuner="random", space=dict(list(SPACE.items())[:settings]))


def trials(random, count, explained=0.0, *, alone=False, rounds=False, adaptive=False):
    """Finished trials. Of the variance of their scores, learning rate and dropout make `explained`, or the
    learning rate `alone`; with `rounds`, epochs differ and make as much again as all else; an `adaptive`
    search draws the later half of its trials near the best of the first half."""
    rows = [
        {
            name: bounds[random.integers(len(bounds))]
            if isinstance(bounds[0], str | bool)
            else float(10 ** random.uniform(-4, -2))
            if name == "learning_rate"
            else float(random.uniform(*bounds))
            for name, bounds in SPACE.items()
        }
        for _ in range(count)
    ]
    rate = np.array([-((np.log10(row["learning_rate"]) + 3.2) ** 2) for row in rows])
    dropout = np.array([row["dropout"] for row in rows])
    effect = rate / RATE_SD if alone else (rate / RATE_SD - dropout / DROPOUT_SD) / np.sqrt(2)
    scores = np.sqrt(explained) * effect + np.sqrt(1 - explained) * random.normal(size=count)
    epochs = random.choice([2, 5, 15], count) if rounds else np.full(count, 5)
    scores = scores + np.log(epochs) * 1.2
    if adaptive:
        best = rows[int(scores[: count // 2].argmax())]
        for row in rows[count // 2 :]:
            row["learning_rate"] = float(best["learning_rate"] ** 0.8 * row["learning_rate"] ** 0.2)
            row["dropout"] = 0.8 * best["dropout"] + 0.2 * row["dropout"]
            row |= {name: best[name] for name in ("optimizer", "flip") if random.random() < 0.7}
    return pd.DataFrame({"state": "finished", "score": scores, "settings": rows, "epochs": epochs})


def share_found(count, explained=0.0, *, settings=6, searches=SEARCHES, seed=0, **kinds):
    """Share of searches in which something is said to have mattered; `kinds` as for `trials`."""
    importance = importlib.import_module("cifar_core.tuning.importance").importance
    random = np.random.default_rng([seed, count, int(100 * explained), settings, *kinds.values()])
    drawn = (trials(random, count, explained, **kinds) for _ in range(searches))
    found = [importance(config(settings), each)["importance"].any() for each in drawn]
    return float(np.mean(found))


CASES = (
    {"settings": 2}, {}, {"rounds": True}, {"adaptive": True},
    {"explained": 0.5}, {"explained": 0.8}, {"explained": 0.5, "alone": True},
)  # fmt: skip


def table():
    lines = []
    for count in SIZES:
        shares = [share_found(count, **case) for case in CASES]
        lines.append(f"| {count} | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |")
        sys.stderr.write(lines[-1] + "\n")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")

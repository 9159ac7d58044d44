"""Tuned against baseline: is it better, and what of it do epochs and augmentation explain?

Each side is one setting with all its seeds, a row of `RunStore.leaderboard(by="settings")`. Every difference
is one of means over seeds on the same test images, so that all of them add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from cifar_core.analysis.boards import Board, same_images
from cifar_core.analysis.comparison import Read, compare_answers, together
from cifar_core.analysis.statistics import Comparison, Spread
from cifar_core.base.lazy import pd
from cifar_core.errors import CifarLabError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore

LEAST_SEEDS = 3
"""Smallest number of seeds whose spread is shown as meaningful."""
EQUAL_BUDGET = ("epochs", "protocol", "validation_fraction", "train_limit", "test_limit", "mixup", "cutmix")
"""Settings that `fair_config` takes from the tuned run, with its augmentation."""
FAIR_NAME = "baseline with the tuned run's epochs and augmentation"


@dataclass(frozen=True)
class Group:
    """Finished runs with the same settings, one for each seed.

    Attributes:
        ids: oldest first.
        repeats: number of further runs that repeat one of the seeds.
        spread: of the test accuracies.
        epochs: mean of the completed ones.
        training_s: mean seconds of one training; NaN where not recorded.
        search_s: seconds of the searches that found the settings; NaN for none.
    """

    model: str
    variant: str
    protocol: str
    ids: tuple[str, ...]
    repeats: int
    spread: Spread
    epochs: float
    training_s: float
    search_s: float

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of the leaderboard by settings."""
        same = ("model", "variant", "protocol", "repeats", "epochs", "training_s", "search_s")
        return cls(
            **{name: row[name] for name in same},
            ids=tuple(row["run_ids"].split()),
            spread=Spread(row["runs"], row["accuracy"], row["sd"]),
        )


@dataclass(frozen=True)
class Pair:
    """A model's tuned runs against its baseline; one of them may be missing.

    Attributes:
        result: of tuned against baseline; a sentence if they cannot be tested; None without one of them.
    """

    model: str
    baseline: Group | None
    tuned: Group | None
    result: Comparison | str | None

    @property
    def same_protocol(self) -> bool:
        return not (self.baseline and self.tuned) or self.baseline.protocol == self.tuned.protocol


def pairs(rows: pd.DataFrame, board: Board, read: Read) -> list[Pair]:
    """One pair per model that has a baseline or a tuned run on the board's images.

    Of several settings, the one with the best mean validation accuracy stands for a side, as in the
    leaderboard by variant: were the best on test taken, the test set would choose. Sides of the board's
    protocol come first; one of another protocol is taken where there is no other.

    Args:
        rows: `RunStore.leaderboard(by="settings")`.
        read: gives a run's predictions by its id.
    """
    here = rows[same_images(rows, board) & rows["variant"].isin(("baseline", "tuned"))]
    order = ["here", "validation", "runs", "settings_key"]
    best = here.assign(here=here["protocol"] == board.protocol, validation=here["validation"].fillna(-1))
    best = best.sort_values(order, ascending=False).drop_duplicates(["model", "variant"])
    sides: dict[str, dict[str, Group]] = {}
    for row in best.to_dict("records"):
        sides.setdefault(row["model"], {})[row["variant"]] = Group.of(row)
    return [_pair(model, side.get("baseline"), side.get("tuned"), read) for model, side in sides.items()]


def _pair(model: str, baseline: Group | None, tuned: Group | None, read: Read) -> Pair:
    result = compare_groups(tuned, baseline, read) if baseline and tuned else None
    return Pair(model, baseline, tuned, result)


def compare_groups(a: Group, b: Group, read: Read) -> Comparison | str:
    """A against B by the means of all their runs, or why they can't be tested."""
    return compare_answers(together(a.ids, read), together(b.ids, read))


def fair_config(baseline: TrainConfig, tuned: TrainConfig) -> TrainConfig:
    """The baseline given the tuned run's epochs, images and augmentation, and nothing else of it: what
    is then still between the two was brought by the tuned settings.

    A warm-up keeps its share of the epochs. The variant is `custom`, so that the leaderboard's
    baseline stays what it is.

    Raises:
        ConfigError: the two together contradict each other.
    """
    from cifar_core.base.fields import describe

    augmentation = [name for name, item in describe(TrainConfig).items() if item.group == "Augmentation"]
    given = {name: getattr(tuned, name) for name in (*EQUAL_BUDGET, *augmentation)}
    warmup = round(baseline.warmup_epochs * tuned.epochs / baseline.epochs, 3)
    return baseline.replace(**given, warmup_epochs=warmup, variant="custom", name=FAIR_NAME, seed=0)


def group_with(rows: pd.DataFrame, board: Board, settings_key: str) -> Group | None:
    """Finished runs with exactly these settings on the board's images; None where there are none.

    Args:
        rows: `RunStore.leaderboard(by="settings")`.
    """
    same = rows[same_images(rows, board) & (rows["settings_key"] == settings_key)]
    same = same.sort_values("runs", ascending=False, kind="stable")
    return None if same.empty else Group.of(same.iloc[0].to_dict())


@dataclass(frozen=True)
class Fair:
    """A pair's tuned runs against its baseline at equal epochs and augmentation.

    Attributes:
        group: finished runs of the baseline with the tuned budget, if any.
        result: of tuned against them; a sentence if they cannot be tested.
        budget: of them against the baseline, likewise: what epochs and augmentation alone make.
        waiting: number of such runs that are queued or running.
        changes: names of the settings in which they differ from the baseline; none: it had that budget.
        obstacle: why there can be no such run; "" if there can.
    """

    group: Group | None = None
    result: Comparison | str | None = None
    budget: Comparison | str | None = None
    waiting: int = 0
    changes: tuple[str, ...] = ()
    obstacle: str = ""

    @property
    def already(self) -> bool:
        """Whether the baseline itself had the tuned budget."""
        return not (self.changes or self.obstacle)


def fair_comparison(
    store: RunStore, rows: pd.DataFrame, runs: pd.DataFrame, board: Board, pair: Pair, read: Read
) -> Fair:
    """The tuned runs of a pair against the baseline with their budget (`fair_config`).

    Args:
        rows: `RunStore.leaderboard(by="settings")`.
        runs: `RunStore.runs()`.
        read: gives a run's predictions by its id.
    """
    from cifar_core.settings.presets import SAME_RUN
    from cifar_core.store import RunState
    from cifar_core.store.settings_columns import settings_key

    if not (pair.baseline and pair.tuned):
        return Fair()
    try:
        record = store.get(pair.baseline.ids[0])
        baseline, tuned = record.config, store.get(pair.tuned.ids[0]).config
        fair = fair_config(baseline, tuned)
    except CifarLabError as error:
        return Fair(obstacle=str(error))
    changes = tuple(name for name in fair.changes_from(baseline) if name not in SAME_RUN)
    if not changes:
        return Fair(group=pair.baseline, result=pair.result)
    key = settings_key(fair, record.environment)
    states = runs.loc[runs["settings_key"].isin((key, settings_key(fair))), "state"]  # begun, or queued
    waiting = sum(not RunState(state).is_finished() for state in states)
    group = group_with(rows, board, key)
    if group is None:
        return Fair(waiting=waiting, changes=changes)
    result, budget = compare_groups(pair.tuned, group, read), compare_groups(group, pair.baseline, read)
    return Fair(group, result, budget, waiting, changes)

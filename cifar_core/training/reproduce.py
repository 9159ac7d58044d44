"""Reproduction of the study's seven runs: settings, training, and published accuracies beside ours.

A difference gets a verdict only if our run is the study's complete recipe on all images; for a scaled-down
run the table says how it was scaled instead.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cifar_core.analysis.statistics import Spread, spread
from cifar_core.analysis.study.paper import paper_results
from cifar_core.base.lazy import pd
from cifar_core.data import Dataset
from cifar_core.data.catalogue import BUILT_IN, DEFAULT
from cifar_core.errors import CifarLabError, ConfigError
from cifar_core.settings.presets import SAME_RUN, find_preset, preset
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunRecord, RunStore
from cifar_core.training.estimate import is_readable
from cifar_core.training.recorder import Progress, StopCallback
from cifar_core.training.result import Run

SMALLEST_TRAIN, SMALLEST_TEST = 200, 100
"""Twenty training and ten test images of each class; with fewer, an accuracy means nothing."""

COLUMNS = (
    "preset", "model", "variant", "protocol", "published", "ours", "sd", "difference", "verdict", "seeds",
    "epochs", "train_images", "test_images", "minutes", "runs", "note",
)  # fmt: skip

_DTYPES = {
    **dict.fromkeys(("ours", "sd", "difference", "minutes"), "float64"),
    **dict.fromkeys(("epochs", "train_images", "test_images"), "Int64"),
}
_SAME_RECIPE = SAME_RUN | {"train_limit", "test_limit", "epochs", "dataset"}
"""Settings in which a run may differ from its preset: scale, seed and labels."""


@dataclass(frozen=True)
class Outcome:
    """Result of one run.

    Attributes:
        accuracy: share of the test images in 0..1; None if `problem` says why there is none.
        seconds: of training.
        id: of the run in the store.
        problem: state and reason of a run without an accuracy.
    """

    config: TrainConfig
    accuracy: float | None = None
    seconds: float | None = None
    id: str | None = None
    problem: str | None = None


Watcher = Callable[[int, int, TrainConfig, "Progress | None"], None]
"""Called with a run's number (from 1), how many there are, its settings, and its report (None at its
start)."""


def paper_runs(
    only: str | Iterable[str] | None = None,
    scale: float = 1.0,
    *,
    dataset: str = DEFAULT,
    seeds: Sequence[int] = (0,),
) -> list[TrainConfig]:
    """Settings of the study's seven runs, in its order.

    Args:
        only: presets ("alexnet/paper-tuned"), models ("alexnet") or variants ("tuned"); None takes all.
        scale: share of images and of epochs, above 0 and at most 1: 0.1 costs a hundredth. At least one
            epoch, 200 training and 100 test images; images are drawn stratified by class.
        dataset: SYNTHETIC if there is no CIFAR-10; its accuracies are not comparable with the study's.
        seeds: each run is made once per seed.

    Raises:
        ConfigError: a name that is none of the study's runs, an unknown dataset, or a scale out of range.
    """
    if not isinstance(scale, int | float) or not 0 < scale <= 1:
        raise ConfigError(
            f"scale must be a number above 0 and at most 1 (1: the whole study); got {scale!r}."
        )
    if dataset not in BUILT_IN:
        raise ConfigError(f"Unknown dataset {dataset!r}; known are: {', '.join(BUILT_IN)}.")
    return [
        preset(name, dataset=dataset, seed=seed, **_scaled(preset(name).epochs, scale, dataset))
        for name in _chosen(only)
        for seed in seeds
    ]


def reproduce(
    runs: Sequence[TrainConfig] | None = None,
    *,
    store: RunStore | None = None,
    dataset: Dataset | None = None,
    scale: float = 1.0,
    progress: Watcher | None = None,
    should_stop: StopCallback | None = None,
) -> pd.DataFrame:
    """Train the study's runs one after another and compare our accuracies with the published ones.

    A run that fails does not end the others: its row gives the reason.

    Args:
        runs: settings from `paper_runs`; None takes all seven at `scale`.
        store: where each run is recorded; None records nothing.
        dataset: images; loaded if None.
        scale: as for `paper_runs`.
        progress: called as each run starts and with each of its reports.
        should_stop: asked after each step; True stops the current run and starts no other.

    Returns:
        `reproduction_table` of the runs made.

    Raises:
        ConfigError: a setting that is not from one of the study's presets.
    """
    from cifar_core.training.run import train

    runs = paper_runs(scale=scale) if runs is None else list(runs)
    chosen = _chosen([str(config.preset) for config in runs])
    outcomes = []
    for number, config in enumerate(runs, start=1):
        if should_stop is not None and should_stop():
            break
        report = functools.partial(progress or (lambda *_: None), number, len(runs), config)
        report(None)
        try:
            run = train(config, dataset=dataset, store=store, progress=report, should_stop=should_stop)
        except CifarLabError as error:
            outcomes.append(Outcome(config, problem=f"failed: {error}"))
        else:
            # Keep only the numbers: seven models at once would take half a gigabyte.
            outcomes.append(_outcome(run))
    return reproduction_table(outcomes, only=chosen)


def reproduction_table(
    runs: RunStore | Iterable[RunRecord | Run | Outcome], *, only: str | Iterable[str] | None = None
) -> pd.DataFrame:
    """One row per run of the study, in its order, whether we ran it or not.

    Of the runs of a preset those closest to the study count: the complete recipe on all images of CIFAR-10
    before scaled ones, and of these the largest. Runs with any other setting changed are another recipe and
    are left out. Of several with the same seed the last counts.

    Columns: preset, model, variant, protocol; published, ours (mean over seeds), sd (over seeds, NaN for
    one), difference (ours - published), all in 0..1; verdict; seeds (their number), epochs, train_images,
    test_images, minutes (mean training time), runs (their ids), note (the study's).

    The verdict of a complete run is "reproduced" if the difference lies within the 95 % margin of two samples
    of 10,000 images (and of the spread over seeds, if known), else "higher than published" or "lower than
    published"; of a scaled one "not comparable" with the scaling; of one without an accuracy its state
    ("running", "failed: ..."), or "not run".

    Args:
        runs: a store, or runs in order of age.
        only: as for `paper_runs`.
    """
    chosen = _chosen(only)
    if isinstance(runs, RunStore):
        frame = runs.runs()
        ids = frame.loc[frame["preset"].isin(_chosen(None)), "id"][::-1]  # oldest first
        runs = [record for record in map(runs.get, ids) if is_readable(record)]
    outcomes = [_outcome(run) for run in runs]
    rows = [
        _row(published, [item for item in outcomes if item.config.preset == published["preset"]])
        for published in paper_results().to_dict(orient="records")
        if published["preset"] in chosen
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_DTYPES)


def _chosen(only: str | Iterable[str] | None) -> list[str]:
    """Names of the study's presets that `only` selects, in the study's order."""
    published = list(paper_results()["preset"])
    if only is None:
        return published
    wanted = [only] if isinstance(only, str) else list(only)
    handles = {name: (name, find_preset(name).model, find_preset(name).variant) for name in published}
    unknown = [word for word in wanted if not any(word in names for names in handles.values())]
    if unknown or not wanted:
        raise ConfigError(
            f"Not a run of the study: {', '.join(map(repr, unknown)) or 'nothing given'}. Name presets "
            f"({', '.join(published)}), models or variants (baseline, tuned)."
        )
    return [name for name, names in handles.items() if not set(wanted).isdisjoint(names)]


def _scaled(epochs: int, scale: float, dataset: str) -> dict[str, Any]:
    if scale == 1:
        return {}
    train, test = (10 * round(total * scale / 10) for total in _images(dataset))  # as many of each class
    return {
        "train_limit": max(SMALLEST_TRAIN, train),
        "test_limit": max(SMALLEST_TEST, test),
        "epochs": max(1, round(epochs * scale)),
    }


def _outcome(run: RunRecord | Run | Outcome) -> Outcome:
    if isinstance(run, Outcome):
        return run
    if run.metrics is None or run.metrics.get("accuracy") is None:
        reason = getattr(run, "reason", None)
        return Outcome(run.config, id=run.id, problem=f"{run.state}: {reason}" if reason else str(run.state))
    return Outcome(run.config, float(run.metrics["accuracy"]), run.metrics.get("train_seconds"), run.id)


def _row(published: dict[str, Any], outcomes: list[Outcome]) -> dict[str, Any]:
    row = {name: published.get(name) for name in ("preset", "model", "variant", "protocol", "note")}
    row |= {"published": published["test_accuracy"], "seeds": 0, "runs": ""}
    changes = [set(item.config.changes_from(preset(str(item.config.preset)))) for item in outcomes]
    outcomes = [item for item, changed in zip(outcomes, changes, strict=True) if changed <= _SAME_RECIPE]
    tested = _nearest([item for item in outcomes if item.accuracy is not None])
    if not tested:
        problems = [item.problem for item in outcomes if item.problem]
        return {**row, "verdict": problems[-1] if problems else "not run"}
    ours = spread(item.accuracy for item in tested if item.accuracy is not None)
    seconds, config = [item.seconds for item in tested if item.seconds is not None], tested[0].config
    train, test = _sizes(config)
    return {
        **row,
        "ours": ours.mean,
        "sd": ours.sd,
        "difference": ours.mean - published["test_accuracy"],
        "verdict": _verdict(published, config, ours),
        "seeds": ours.n,
        "epochs": config.epochs,
        "train_images": train,
        "test_images": test,
        "minutes": statistics.fmean(seconds) / 60 if seconds else math.nan,
        "runs": " ".join(item.id for item in tested if item.id),
    }


def _nearest(outcomes: list[Outcome]) -> list[Outcome]:
    """Runs of the largest scale, the last of each seed."""
    groups: dict[tuple[Any, ...], dict[int, Outcome]] = {}
    for item in outcomes:
        train, test = _sizes(item.config)
        size = item.config.dataset == DEFAULT, train * item.config.epochs, train, test
        groups.setdefault(size, {})[item.config.seed] = item
    return list(groups[max(groups)].values()) if groups else []


def _images(dataset: str) -> tuple[int, int]:
    """Training and test images of a dataset of the lab."""
    return BUILT_IN[dataset].train, BUILT_IN[dataset].test


def _sizes(config: TrainConfig) -> tuple[int, int]:
    """Training images (validation included) and test images."""
    train, test = _images(config.dataset)
    return config.train_limit or train, config.test_limit or test


def _verdict(published: dict[str, Any], config: TrainConfig, ours: Spread) -> str:
    if scaled := _scale_words(config):
        return f"not comparable: {', '.join(scaled)}"
    theirs, images = published["test_accuracy"], _images(DEFAULT)[1]
    difference = ours.mean - theirs
    # 1.96 standard errors of the difference: binomial for the test images, as if the two runs had different
    # ones (which of them the study predicted correctly is unknown), and the spread over seeds, which the
    # study's single run has too.
    sampling = (theirs * (1 - theirs) + ours.mean * (1 - ours.mean)) / images
    seeds = ours.sd**2 * (1 + 1 / ours.n) if ours.n > 1 else 0.0
    if abs(difference) <= 1.96 * math.sqrt(sampling + seeds):
        return "reproduced"
    return "higher than published" if difference > 0 else "lower than published"


def _scale_words(config: TrainConfig) -> list[str]:
    """How a run is scaled down from the study's; [] if it is complete."""
    if config.dataset != DEFAULT:
        return ["drawn images, not CIFAR-10"]
    train, test = (given / whole for given, whole in zip(_sizes(config), _images(DEFAULT), strict=True))
    shares = {"data": train} if train == test else {"training images": train, "test images": test}
    words = [f"{100 * share:.3g} % of the {what}" for what, share in shares.items() if share < 1]
    epochs = preset(str(config.preset)).epochs
    if config.epochs != epochs:
        words.append(f"{config.epochs} of {epochs} epochs")
    return words

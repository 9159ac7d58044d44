"""What a run's mistakes have in common: pairs, classes, confidence, calibration."""

from __future__ import annotations

import numpy as np
import streamlit as st

from cifar_core.analysis.metrics import expected_calibration_error, reliability_bins
from cifar_core.analysis.mistakes import confidence_histogram, confused_pairs, worst_classes
from cifar_core.base.lazy import pd
from cifar_core.data import catalogue
from pages.mistakes.data import Answered
from pages.shared import figure
from pages.shared.words import count, percent

ABOUT_PAIRS = "Which class was most often taken for which, in images. Pairs are counted in each direction."
ABOUT_CLASSES = "Of each class, the share of its test images that the run got wrong."
ABOUT_CONFIDENCE = (
    "Confidence of correct and of wrong predictions, each as a share of its own kind. The further apart "
    "the two, the more informative the confidence; wrong predictions at the right edge are confident errors."
)
ABOUT_CALIBRATION = (
    "Test images sorted by how sure the network was. A bar that ends on the dashed line is well calibrated. "
    "The expected calibration error is the mean gap, each image counted once."
)


MANY = 20
"""Classes, above which their bars need more room."""


def show(answers: Answered) -> None:
    """Four figures of one run."""
    table = answers.table
    if table["correct"].all():
        st.info("This run has no image wrong.")
    else:
        _within_superclasses(answers)
        left, right = st.columns(2, gap="large")
        with left:
            _pairs(answers)
        with right:
            _classes(answers)
    left, right = st.columns(2, gap="large")
    with left:
        _confidence(table)
    with right:
        _calibration(answers)


def _within_superclasses(answers: Answered) -> None:
    """How many mistakes stay within a superclass, where the dataset has such."""
    entry = catalogue.find(answers.run["dataset"])
    if entry is None or not entry.superclasses or entry.problem.classes != answers.classes:
        return
    wrong = answers.table[~answers.table["correct"]]
    larger = np.array(entry.superclasses)
    same = larger[wrong["label"]] == larger[wrong["predicted"]]
    right = 1 - (len(wrong) - same.sum()) / len(answers.table)
    st.markdown(
        f"**{percent(same.mean(), 1)} of the mistakes** stay within a superclass ({count(same.sum())} of "
        f"{count(len(wrong))}); of the superclasses alone the run gets {percent(right, 1)} right."
    )


def _pairs(answers: Answered) -> None:
    from cifar_core.plots.mistakes import confused_pairs_bars

    pairs, names = confused_pairs(answers.table), answers.classes
    first = pairs.iloc[0]
    named = f"{names[int(first['true'])]} → {names[int(first['predicted'])]}"
    figure.show(
        "Most confused pairs",
        ABOUT_PAIRS,
        confused_pairs_bars(pairs, classes=names).update_layout(title=None),
        key="confused_pairs",
        alt=f"The most confused pairs of classes; first {named} with {int(first['images'])} images.",
        header=("true", "predicted", "images", "share", "mean confidence"),
        rows=lambda: [
            (names[pair.true], names[pair.predicted], pair.images, pair.share, pair.confidence)
            for pair in pairs.itertuples()
        ],
        height=400,
    )


def _classes(answers: Answered) -> None:
    from cifar_core.plots.mistakes import worst_classes_bars

    classes = worst_classes(answers.table)
    names = [answers.classes[true] for true in classes["true"]]
    figure.show(
        "Worst classes",
        ABOUT_CLASSES,
        worst_classes_bars(classes, answers.classes).update_layout(title=None),
        key="worst_classes",
        alt=f"Wrong images by class; worst is {names[0]} with {percent(classes['share'].iloc[0], 1)}.",
        header=("class", "images", "wrong", "share"),
        rows=lambda: [(name, *row[1:]) for name, row in zip(names, classes.to_numpy().tolist(), strict=True)],
        height=400 if len(names) <= MANY else 600,
    )


def _confidence(table: pd.DataFrame) -> None:
    from cifar_core.plots.mistakes import confidence_bars

    bins = confidence_histogram(table)
    figure.show(
        "Confidence of right and wrong",
        ABOUT_CONFIDENCE,
        confidence_bars(bins).update_layout(title=None),
        key="confidence_right_wrong",
        alt="Histogram of the confidence of correct and of wrong predictions.",
        header=tuple(bins.columns),
        rows=lambda: bins.to_numpy().tolist(),
        height=440,
    )


def _calibration(answers: Answered) -> None:
    from cifar_core.plots import reliability_diagram

    table = answers.table
    bins = reliability_bins(table["confidence"].to_numpy(), table["correct"].to_numpy())
    error = expected_calibration_error(bins)
    figure.show(
        f"Calibration: error {percent(error)}",
        ABOUT_CALIBRATION,
        reliability_diagram(bins, error, model=answers.run["model"]).update_layout(title=None),
        key="gallery_calibration",
        alt=f"Accuracy by confidence; expected calibration error {percent(error)}.",
        header=tuple(bins.columns),
        rows=lambda: bins.to_numpy().tolist(),
        height=440,
    )

"""Which of two runs is better on the same test images: the test, and where their predictions differ."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from cifar_core.analysis.metrics import confusion_matrix
from cifar_core.analysis.mistakes import changes_by_class
from cifar_core.analysis.statistics import compare
from cifar_core.base.lazy import pd
from cifar_core.plots.runs import fixed_and_broken_by_class
from pages.mistakes.data import Answered
from pages.shared import figure
from pages.shared.words import comparison_sentence

LEADS = {"better": "B is better", "no evidence": "No evidence that either is better", "worse": "A is better"}
ABOUT_CLASSES = (
    "Of each class, how many test images only B predicted correctly (fixed) and how many only A (broken). "
    "Images that both got right or wrong do not show which is better, so they are left out."
)
ABOUT_CONFUSION = (
    "For each true class (row) and predicted class (column), how many more images run B put there "
    "than run A. On the diagonal blue is good for B, elsewhere bad."
)


def verdict(a: Answered, b: Answered, table: pd.DataFrame) -> None:
    """Whether B is better than A, by the exact McNemar test over the same images (`changes`)."""
    right_a, right_b = (table["predicted_" + side] == table["label"] for side in "ab")
    result = compare(right_b.to_numpy(), right_a.to_numpy())
    st.markdown(f"**{LEADS[result.verdict]}.** B minus A: {comparison_sentence(result)}")
    if a.run["protocol"] != b.run["protocol"]:
        st.warning(
            "The protocols differ: the run that was selected on the test set is flattered by these images.",
            icon=":material/warning:",
        )


def by_class(table: pd.DataFrame, classes: Sequence[str]) -> None:
    """Images fixed and broken, by class."""
    counts = changes_by_class(table, classes)
    figure.show(
        "By class",
        ABOUT_CLASSES,
        fixed_and_broken_by_class(counts),
        key="by_class",
        alt="Bars: images of each class that only B or only A predicted correctly.",
        header=tuple(counts.columns),
        rows=lambda: counts.to_numpy().tolist(),
        height=400,
    )


def confusion(table: pd.DataFrame, classes: Sequence[str]) -> None:
    """Confusion matrix of B less that of A."""
    from cifar_core.plots import confusion_difference

    before, after = (
        confusion_matrix(table["label"], table["predicted_" + side], len(classes)) for side in "ab"
    )
    chart = confusion_difference(after, before, labels=("B", "A"), classes=classes)
    chart.update_layout(title=None)  # the heading says it
    chart.update_traces(showscale=False)  # each cell holds its number, and a phone has no room for both
    figure.show(
        "How the predictions changed",
        ABOUT_CONFUSION,
        chart,
        key="confusion_difference",
        alt="Images in each cell of the confusion matrix, run B less run A.",
        header=("true class", *classes),
        rows=lambda: [[name, *row] for name, row in zip(classes, (after - before).tolist(), strict=True)],
        height=540,
    )

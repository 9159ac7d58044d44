"""Plotly figures from numbers and tables.

Each function returns a `go.Figure` with titled axes, a `uirevision` (new data leave zoom and hidden traces
unchanged) and a transparent background, so that it suits light and dark pages. Inputs are shares in 0..1;
axes show them in per cent.
"""

from cifar_core.plots.comparison import (
    COSTS,
    accuracy_against_cost,
    difference_intervals,
    leaderboard_dumbbell,
    published_comparison,
)
from cifar_core.plots.curves import (
    MEASURES,
    Curve,
    band_traces,
    curve_layout,
    curve_traces,
    last_epoch,
    learning_curves,
    reference_curve,
    seed_bands,
    smooth,
)
from cifar_core.plots.layout import TEMPLATE, figure, themed
from cifar_core.plots.mistakes import (
    agreement_matrix,
    confidence_bars,
    confused_pairs_bars,
    worst_classes_bars,
)
from cifar_core.plots.results import (
    class_distribution,
    confusion_difference,
    confusion_matrix,
    per_class_bars,
    prediction_bars,
    reliability_diagram,
)
from cifar_core.plots.speed import UNITS, speed_bars

__all__ = [
    "COSTS",
    "MEASURES",
    "TEMPLATE",
    "UNITS",
    "Curve",
    "accuracy_against_cost",
    "agreement_matrix",
    "band_traces",
    "class_distribution",
    "confidence_bars",
    "confused_pairs_bars",
    "confusion_difference",
    "confusion_matrix",
    "curve_layout",
    "curve_traces",
    "difference_intervals",
    "figure",
    "last_epoch",
    "leaderboard_dumbbell",
    "learning_curves",
    "per_class_bars",
    "prediction_bars",
    "published_comparison",
    "reference_curve",
    "reliability_diagram",
    "seed_bands",
    "smooth",
    "speed_bars",
    "themed",
    "worst_classes_bars",
]

"""Learning curves of training and validation per epoch, with optional smoothing and reference curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from cifar_core.analysis.study.paper import paper_curves
from cifar_core.base.fields import known
from cifar_core.base.lazy import pd
from cifar_core.errors import ConfigError
from cifar_core.plots.layout import TEMPLATE, layout_of
from cifar_core.plots.palette import NEUTRAL, REFERENCE_DASH, faded, model_colour, variant_dash

Trace = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A quantity of a learning curve: its columns in a history, axis title, factor and unit.

    Attributes:
        from_zero: whether the axis starts at zero. Plotly would draw a constant learning rate of 0.001 on an
            axis from -1 to 1, where it looks like zero.
    """

    train: str
    validation: str | None
    title: str
    factor: float = 1.0
    unit: str = ""
    from_zero: bool = False


MEASURES: dict[str, Measure] = {
    "accuracy": Measure("accuracy", "val_accuracy", "Accuracy (%)", 100, " %"),
    "loss": Measure("loss", "val_loss", "Loss (nats)"),
    "learning_rate": Measure("learning_rate", None, "Learning rate", from_zero=True),
    "images_per_second": Measure("images_per_second", None, "Training speed (images/s)", from_zero=True),
    "seconds": Measure("seconds", None, "Time of the epoch (s)", unit=" s", from_zero=True),
}

MAX_TICKED_EPOCHS = 12
"""Up to this many epochs each has a tick on the axis; Plotly's own choice would have half epochs too."""

STROKES: dict[tuple[bool, bool], dict[str, Any]] = {
    (False, False): {"width": 2.6, "opacity": 1},
    (False, True): {"width": 1.4, "opacity": 0.75, "dash": "2px,2px"},
    (True, False): {"width": 1.6, "opacity": 0.6, "dash": REFERENCE_DASH},
    (True, True): {"width": 1.2, "opacity": 0.4, "dash": "2px,3px"},
}
"""Look of a line, by whether it is a reference curve and whether it is a training curve."""
X_TITLES = {"epoch": "Epoch", "minutes": "Training time (min)"}


@dataclass(frozen=True)
class Curve:
    """History of one run for `learning_curves`.

    Attributes:
        label: name in the legend.
        history: one row per point with `epoch` (fractional inside an epoch) and some of accuracy,
            val_accuracy, loss, val_loss, learning_rate, images_per_second, seconds; `minutes` for an axis of
            time.
        model: gives the colour.
        variant: gives the dash of `seed_bands`.
        reference: whether it is a published curve, drawn grey and behind the others.
        colour: instead of the model's.
        dash: of the validation curve.
    """

    label: str
    history: pd.DataFrame
    model: str = ""
    variant: str = "custom"
    reference: bool = False
    colour: str = ""
    dash: str = "solid"

    @property
    def drawn_in(self) -> str:
        """Its colour."""
        return NEUTRAL if self.reference else self.colour or model_colour(self.model)


def reference_curve(model: str, variant: str = "baseline") -> Curve | None:
    """The study's published curve, counted in passes over the data; None where the study printed none.

    Its epochs of a single step are left out.
    """
    history = paper_curves(model, variant)
    history = history[history["complete"]].assign(epoch=lambda rows: rows["passes"])
    if history.empty:
        return None
    return Curve(f"study, {variant}", history, model, variant, reference=True)


def learning_curves(
    curves: Sequence[Curve],
    measure: str = "accuracy",
    *,
    smoothing: float = 0.0,
    log_x: bool = False,
    log_y: bool = False,
    train: bool = True,
    height: int = 380,
) -> go.Figure:
    """Validation curves as strong lines, training curves as thin, dotted ones of the same colour.

    Args:
        curves: any number; references are drawn behind the others.
        measure: a key of MEASURES.
        smoothing: weight of `smooth` in 0..1 (1 excluded); above 0 the raw curve is shown faintly too.
        train: whether to show the training curve where there is a validation curve too.
        height: in pixels.

    Raises:
        ConfigError: unknown measure, or smoothing outside 0..1.
    """
    traces = curve_traces(curves, measure, smoothing=smoothing, train=train)
    last = last_epoch(traces)
    layout = curve_layout(measure, log_x=log_x, log_y=log_y, height=height, last=last)
    return go.Figure(data=traces, layout=layout)


def curve_traces(
    curves: Sequence[Curve],
    measure: str = "accuracy",
    *,
    smoothing: float = 0.0,
    train: bool = True,
    x: str = "epoch",
) -> list[dict[str, Any]]:
    """The traces of `learning_curves` as plain JSON, with None for missing values, over "epoch" or "minutes".

    They cost about a tenth of a figure, for pages that redraw every second.
    """
    chosen = known("measure", measure, MEASURES)
    _check_smoothing(smoothing)
    ordered = sorted(curves, key=lambda curve: not curve.reference)
    return [trace for curve in ordered for trace in _curve_traces(curve, chosen, smoothing, train, x)]


def last_epoch(traces: Iterable[dict[str, Any]]) -> float:
    """The last epoch of any of the traces; 0 without points."""
    return max((max(trace["x"]) for trace in traces if len(trace["x"])), default=0.0)


def curve_layout(
    measure: str = "accuracy",
    *,
    log_x: bool = False,
    log_y: bool = False,
    height: int = 380,
    last: float = math.inf,
) -> dict[str, Any]:
    """The layout of `learning_curves` as plain JSON; `last` is the last epoch shown."""
    chosen = known("measure", measure, MEASURES)
    layout = layout_of(
        f"curves-{measure}-{log_x}-{log_y}",
        x="Epoch",
        y=chosen.title,
        height=height,
        hovermode="x unified",
        xaxis=epoch_axis(last, log_x),
        yaxis=value_axis(chosen, log_y),
    )
    return {**layout, "template": TEMPLATE.to_plotly_json()}


def seed_bands(
    groups: Iterable[Sequence[Curve]], measure: str = "accuracy", *, height: int = 380
) -> go.Figure:
    """Mean of each group of runs, with a band of one standard deviation (n - 1) around it.

    Epochs that some runs of a group have not reached are left out. A single run has no band.
    """
    traces = band_traces(groups, measure)
    layout = curve_layout(measure, height=height, last=last_epoch(traces))
    return go.Figure(data=traces, layout={**layout, "uirevision": f"bands-{measure}"})


def band_traces(groups: Iterable[Sequence[Curve]], measure: str = "accuracy") -> list[dict[str, Any]]:
    """The traces of `seed_bands` as plain JSON, each group's band before its line."""
    chosen = known("measure", measure, MEASURES)
    return [trace for group in groups if group for trace in _band_traces(group, chosen)]


def smooth(values: np.ndarray, weight: float) -> np.ndarray:
    """Exponential moving average with bias correction, as TensorBoard's; weight 0 changes nothing.

    NaN stays NaN and does not count.

    Raises:
        ConfigError: weight outside 0..1 (1 excluded).
    """
    _check_smoothing(weight)
    finite = pd.Series(np.where(np.isfinite(values), values, np.nan), dtype=np.float64)
    return finite.ewm(alpha=1 - weight, ignore_na=True).mean().where(finite.notna()).to_numpy()


def _check_smoothing(weight: float) -> None:
    if not 0 <= weight < 1:
        raise ConfigError(f"smoothing must be a number from 0 to below 1; got {weight!r}.")


def epoch_axis(last: float, log: bool = False) -> dict[str, Any]:
    whole = {"dtick": 1} if 2 <= last <= MAX_TICKED_EPOCHS and not log else {}
    return {"type": "log" if log else "linear", **whole}


def value_axis(measure: Measure, log: bool = False) -> dict[str, Any]:
    return {"type": "log" if log else "linear", "rangemode": "tozero" if measure.from_zero else "normal"}


def _curve_traces(curve: Curve, measure: Measure, smoothing: float, train: bool, x: str) -> list[Trace]:
    columns = []
    has_validation = measure.validation is not None and measure.validation in curve.history
    if measure.train in curve.history and (train or not has_validation):
        columns.append((measure.train, "training" if has_validation else "", has_validation))
    if has_validation:
        columns.append((str(measure.validation), "validation", False))
    return [
        trace
        for column, part, thin in columns
        if curve.history[column].notna().any()
        for trace in _line(curve, measure, column, part, thin, smoothing, x)
    ]


def _line(
    curve: Curve, measure: Measure, column: str, part: str, thin: bool, smoothing: float, over: str
) -> list[Trace]:
    """The line of one column, and behind it the raw values where it is smoothed."""
    raw = curve.history[column].to_numpy(np.float64) * measure.factor
    name = f"{curve.label}, {part}" if part else curve.label
    smoothed = smoothing > 0 and not curve.reference
    look = {"color": curve.drawn_in, "dash": curve.dash, **STROKES[curve.reference, thin]}
    opacity = look.pop("opacity")
    x = _plain(curve.history[over].to_numpy(np.float64))
    shared = {"type": "scatter", "x": x, "legendgroup": curve.label}
    line = {
        **shared,
        "y": _plain(smooth(raw, smoothing) if smoothed else raw),
        "name": name,
        "mode": "lines+markers" if len(x) == 1 else "lines",
        "line": look,
        "opacity": opacity,
        "hovertemplate": f"%{{y:.4g}}{measure.unit}",
    }
    if not smoothed:
        return [line]
    behind = {
        **shared,
        "y": _plain(raw),
        "name": f"{name} (raw)",
        "showlegend": False,
        "mode": "lines",
        "line": {"color": curve.drawn_in, "width": 1},
        "opacity": 0.25,
        "hoverinfo": "skip",
    }
    return [behind, line]


def _plain(values: np.ndarray) -> list[float | None]:
    """Values with six significant digits, enough for a screen at a third of the bytes; None for NaN."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]


def _band_traces(group: Sequence[Curve], measure: Measure) -> list[dict[str, Any]]:
    column = measure.validation or measure.train
    runs = [curve.history.set_index("epoch")[column] * measure.factor for curve in group]
    table = pd.concat(runs, axis=1, join="inner").dropna()
    mean, sd = table.mean(axis=1), table.std(axis=1, ddof=1)
    first = group[0]
    shared = {"type": "scatter", "legendgroup": first.label}
    line = {
        **shared,
        "x": table.index.tolist(),
        "y": mean.tolist(),
        "name": f"{first.label} (n = {len(runs)})",
        "mode": "lines",
        "line": {"color": first.drawn_in, "dash": variant_dash(first.variant), "width": 2.4},
        "hovertemplate": f"%{{y:.4g}}{measure.unit}",
    }
    if len(runs) < 2:
        return [line]
    band = {
        **shared,
        "x": [*table.index, *table.index[::-1]],
        "y": [*(mean + sd), *(mean - sd)[::-1]],
        "name": f"{first.label} ± sd",
        "showlegend": False,
        "fill": "toself",
        "fillcolor": faded(first.drawn_in, 0.2),
        "line": {"width": 0},
        "hoverinfo": "skip",
    }
    return [band, line]

"""Learning curves: train and validation per epoch, smoothed if wanted, the study's beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from cifar_core.analysis.study.paper import paper_curves
from cifar_core.errors import ConfigError
from cifar_core.plots.layout import TEMPLATE, figure, layout_of
from cifar_core.plots.palette import NEUTRAL, REFERENCE_DASH, faded, model_colour, variant_dash

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Measure:
    """What a learning curve can show: columns of a history, the axis title and a factor to its unit.

    Attributes:
        from_zero: its axis begins at zero. Of a constant learning rate of 0.001 Plotly would draw the axis
            from -1 to 1, on which it looks like zero.
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

FEW_EPOCHS = 12
"""Up to here every epoch has its mark on the axis: Plotly's own choice has half epochs too."""

STROKES = {
    (False, False): (2.4, 1),
    (False, True): (1.3, 0.7),
    (True, False): (1.8, 0.9),
    (True, True): (1.3, 0.5),
}
"""(width, opacity) of a line, by whether it is a reference and whether it is thin: a training curve."""


@dataclass(frozen=True)
class Curve:
    """One run's history as a plot needs it.

    Attributes:
        label: name in the legend.
        history: one row per epoch with `epoch` (may be fractional inside the running epoch) and
            some of accuracy, val_accuracy, loss, val_loss, learning_rate, images_per_second, seconds.
        model, variant: give the colour and the dash.
        reference: drawn faint and grey, behind the others: the study's own curve.
    """

    label: str
    history: pd.DataFrame
    model: str = ""
    variant: str = "custom"
    reference: bool = False


def reference_curve(model: str, variant: str = "baseline") -> Curve | None:
    """The study's curve of that run, counted in passes over the data: its one-step epochs are left
    out. None where the study printed none."""
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
    """Validation as a strong line, train as a thin one of the same colour and dash.

    Args:
        curves: one or many; references go behind the others.
        measure: a key of MEASURES.
        smoothing: weight of the past in 0..1, as `smooth`; above 0 the raw curve stays, faint.
        log_x: logarithmic axis of epochs.
        log_y: logarithmic axis of the measure.
        train: whether to draw the training curve where validation has one too.
        height: in pixels.

    Raises:
        ConfigError: unknown measure, or smoothing outside 0..1.
    """
    traces = curve_traces(curves, measure, smoothing=smoothing, train=train)
    last = last_epoch(traces)
    layout = curve_layout(measure, log_x=log_x, log_y=log_y, height=height, last=last)
    return go.Figure(data=traces, layout=layout)


def curve_traces(
    curves: Sequence[Curve], measure: str = "accuracy", *, smoothing: float = 0.0, train: bool = True
) -> list[dict[str, Any]]:
    """The traces of `learning_curves` as plain JSON, for a page that draws them itself every second:
    about a tenth of a figure's cost. Missing values are None."""
    chosen = _measure(measure)
    _check_smoothing(smoothing)
    ordered = sorted(curves, key=lambda curve: not curve.reference)
    return [trace for curve in ordered for trace in _curve_traces(curve, chosen, smoothing, train)]


def last_epoch(traces: Iterable[dict[str, Any]]) -> float:
    """The last epoch that any of these traces, whose epochs ascend, reaches; 0 where they have no point."""
    return max((trace["x"][-1] for trace in traces if len(trace["x"])), default=0.0)


def curve_layout(
    measure: str = "accuracy",
    *,
    log_x: bool = False,
    log_y: bool = False,
    height: int = 380,
    last: float = math.inf,
) -> dict[str, Any]:
    """The layout of `learning_curves` as plain JSON; `last` is the last epoch drawn."""
    chosen = _measure(measure)
    layout = layout_of(
        f"curves-{measure}-{log_x}-{log_y}",
        x="Epoch",
        y=chosen.title,
        height=height,
        hovermode="x unified",
        xaxis=_epoch_axis(last, log_x),
        yaxis=_value_axis(chosen, log_y),
    )
    return {**layout, "template": TEMPLATE.to_plotly_json()}


def seed_bands(
    groups: Iterable[Sequence[Curve]], measure: str = "accuracy", *, height: int = 380
) -> go.Figure:
    """Mean over seeds with a band of one standard deviation (n - 1): one group of runs, one line.

    Epochs that not all runs of a group have reached are left out. A single run has no band.
    """
    chosen = _measure(measure)
    traces = [trace for group in groups if group for trace in _band_traces(group, chosen)]
    return figure(
        traces,
        name=f"bands-{measure}",
        x="Epoch",
        y=chosen.title,
        height=height,
        xaxis=_epoch_axis(last_epoch(traces)),  # a band goes back, its line does not
        yaxis=_value_axis(chosen),
    )


def smooth(values: np.ndarray, weight: float) -> np.ndarray:
    """Exponential moving average that starts unbiased, as TensorBoard's: weight 0 changes nothing.

    NaN stays NaN and is passed over.

    Raises:
        ConfigError: weight outside 0..1 (1 excluded).
    """
    _check_smoothing(weight)
    result = np.full(len(values), np.nan)
    total = mass = 0.0
    for place, value in enumerate(np.asarray(values, np.float64).tolist()):
        if math.isfinite(value):
            total = weight * total + (1 - weight) * value
            mass = weight * mass + (1 - weight)
            result[place] = total / mass
    return result


def _measure(name: str) -> Measure:
    if name not in MEASURES:
        raise ConfigError(f"Unknown measure {name!r}; known are: {', '.join(MEASURES)}.")
    return MEASURES[name]


def _check_smoothing(weight: float) -> None:
    if not 0 <= weight < 1:
        raise ConfigError(f"smoothing must be a number from 0 to below 1; got {weight!r}.")


def _epoch_axis(last: float, log: bool = False) -> dict[str, Any]:
    whole = {"dtick": 1} if 2 <= last <= FEW_EPOCHS and not log else {}
    return {"type": "log" if log else "linear", **whole}


def _value_axis(measure: Measure, log: bool = False) -> dict[str, Any]:
    return {"type": "log" if log else "linear", "rangemode": "tozero" if measure.from_zero else "normal"}


def _curve_traces(curve: Curve, measure: Measure, smoothing: float, train: bool) -> list[dict[str, Any]]:
    columns = []
    has_validation = measure.validation is not None and measure.validation in curve.history
    if measure.train in curve.history and (train or not has_validation):
        columns.append((measure.train, "train" if has_validation else "", has_validation))
    if has_validation:
        columns.append((measure.validation, "validation", False))
    return [
        trace
        for column, part, thin in columns
        if curve.history[column].notna().any()
        for trace in _line(curve, measure, column, part, thin, smoothing)
    ]


def _line(
    curve: Curve, measure: Measure, column: str, part: str, thin: bool, smoothing: float
) -> list[dict[str, Any]]:
    """The line, and behind it, where it is smoothed, the raw one."""
    raw = curve.history[column].to_numpy(np.float64) * measure.factor
    x = _plain(curve.history["epoch"].to_numpy(np.float64))
    colour = NEUTRAL if curve.reference else model_colour(curve.model)
    dash = REFERENCE_DASH if curve.reference else variant_dash(curve.variant)
    name = f"{curve.label}, {part}" if part else curve.label
    smoothed = smoothing > 0 and not curve.reference
    width, opacity = STROKES[curve.reference, thin]
    line = {
        "type": "scatter",
        "x": x,
        "y": _plain(smooth(raw, smoothing) if smoothed else raw),
        "name": name,
        "legendgroup": curve.label,
        "mode": "lines+markers" if len(x) == 1 else "lines",
        "line": {"color": colour, "dash": dash, "width": width},
        "opacity": opacity,
        "hovertemplate": f"%{{y:.4g}}{measure.unit}",
    }
    if not smoothed:
        return [line]
    behind = {
        "type": "scatter",
        "x": x,
        "y": _plain(raw),
        "name": f"{name} (raw)",
        "legendgroup": curve.label,
        "showlegend": False,
        "mode": "lines",
        "line": {"color": colour, "width": 1},
        "opacity": 0.25,
        "hoverinfo": "skip",
    }
    return [behind, line]


def _plain(values: np.ndarray) -> list[float | None]:
    """Six significant digits are more than a screen shows, and a third of the bytes."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]


def _band_traces(group: Sequence[Curve], measure: Measure) -> list[go.Scatter]:
    import pandas as pd

    column = measure.validation or measure.train
    runs = [curve.history.set_index("epoch")[column] * measure.factor for curve in group]
    table = pd.concat(runs, axis=1, join="inner").dropna()
    mean, sd = table.mean(axis=1), table.std(axis=1, ddof=1)
    first = group[0]
    colour = model_colour(first.model)
    line = go.Scatter(
        x=table.index,
        y=mean,
        name=f"{first.label} (n = {len(runs)})",
        legendgroup=first.label,
        mode="lines",
        line={"color": colour, "dash": variant_dash(first.variant), "width": 2.4},
        hovertemplate=f"%{{y:.4g}}{measure.unit}",
    )
    if len(runs) < 2:
        return [line]
    band = go.Scatter(
        x=np.concatenate([table.index, table.index[::-1]]),
        y=np.concatenate([mean + sd, (mean - sd)[::-1]]),
        name=f"{first.label} ± sd",
        legendgroup=first.label,
        showlegend=False,
        fill="toself",
        fillcolor=faded(colour, 0.2),
        line={"width": 0},
        hoverinfo="skip",
    )
    return [band, line]

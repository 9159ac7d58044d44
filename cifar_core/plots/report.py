"""One run as a single HTML file that needs no network, no server and no other file.

Settings with what differs from their origin, curves, test result, calibration, environment, data and
events: the evidence beside the number. Plotly's script is inside, so that the figures stay interactive.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cifar_core.analysis.diagnosis import remarks
from cifar_core.base.fields import number
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.plots import html
from cifar_core.settings.presets import PRESETS, preset
from cifar_core.settings.train_config import TrainConfig

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from cifar_core.analysis.metrics import Report
    from cifar_core.store import RunRecord, RunStore

LABELS = frozenset({"name", "preset", "variant"})
"""Settings that only say what a run is called."""
NOTHING = "–"


@dataclass(frozen=True)
class Difference:
    """One setting of a run that is not as in what it is compared with."""

    name: str
    theirs: Any
    ours: Any


@dataclass(frozen=True)
class Comparison:
    """A run's settings beside those of a preset. `differences` is empty where all are alike."""

    preset: str
    differences: tuple[Difference, ...]


def baseline_of(model: str) -> str | None:
    """The preset that a model's runs are measured against: the study's baseline, else the recommended
    one; None for a model without presets."""
    return next(
        (name for kind in ("paper-baseline", "recommended") if (name := f"{model}/{kind}") in PRESETS), None
    )


def comparisons(config: TrainConfig) -> list[Comparison]:
    """What differs from the preset that the settings started from, and from the model's baseline; the
    two are one where they are the same. Names and labels do not count."""
    names = dict.fromkeys(name for name in (config.preset, baseline_of(config.model)) if name in PRESETS)
    return [
        Comparison(
            name,
            tuple(
                Difference(setting, theirs, ours)
                for setting, (theirs, ours) in config.changes_from(preset(name)).items()
                if setting not in LABELS
            ),
        )
        for name in names
    ]


def shown(value: Any) -> str:
    """A setting's value as people read it."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else str(value)


def flat_items(values: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested JSON as (path, text) pairs: `packages › keras`, "3.15.1"."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        path = f"{above} › {name}" if above else str(name)
        if isinstance(value, Mapping):
            pairs += flat_items(value, path)
        elif isinstance(value, list | tuple):
            pairs.append((path, " ".join(shown(item) for item in value) or NOTHING))
        else:
            pairs.append((path, shown(value)))
    return pairs


def result_of(record: RunRecord) -> Report | None:
    """The run's result on test; None where it has none.

    Raises:
        ConfigError: it has figures, but not a whole report (recorded by other means than a training).
    """
    from cifar_core.analysis.metrics import Report

    return Report.from_dict(record.metrics) if record.metrics else None


def confusion_figure(report: Report, *, errors_only: bool = False) -> go.Figure:
    """The confusion matrix with its scale above, so that on a phone the squares have the whole width."""
    from cifar_core.plots import confusion_matrix

    bar = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "thickness": 10, "title": {"side": "top"}}
    chart = confusion_matrix(report.confusion, errors_only=errors_only)
    return chart.update_traces(colorbar=bar).update_yaxes(constraintoward="top")


def html_report(store: RunStore, run_id: str) -> str:
    """The whole report of one run, in any state, as one HTML document of about 5 MB.

    What a run does not have yet is said, with the reason, in its place.

    Raises:
        RunNotFoundError: no such run.
    """
    record = store.get(run_id)
    parts = [
        _head(record),
        html.section("Settings", _settings(record)),
        html.section("Learning curves", _curves(store, record)),
        html.section("Result on the test images", _result(record)),
        html.section("Data", html.pairs(flat_items(record.dataset), "It had not read the images yet.")),
        html.section("Environment", html.pairs(flat_items(record.environment), "It had not begun yet.")),
        html.section("Events", _events(store, record)),
        html.section("All settings as JSON", f"<pre>{html.escaped(settings_json(record))}</pre>"),
    ]
    return html.page(f"{record.id} · CIFAR Lab", "".join(parts))


def settings_json(record: RunRecord) -> str:
    """A run's settings as `cifar-lab train --settings` reads them."""
    return json.dumps(record.settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _head(record: RunRecord) -> str:
    title = MODELS[record.model].title if record.model in MODELS else record.model
    lines = [
        f"{title}, {record.variant}, {record.preset or 'no preset'}, seed {record.seed}, {record.protocol}",
        f"{record.state.capitalize()}. {record.reason or ''}",
        f"{record.epochs_done} of {record.epochs} epochs; created {record.created_at:%Y-%m-%d %H:%M} UTC",
        record.name,
    ]
    leads = "".join(f'<p class="lead">{html.escaped(line)}</p>' for line in lines if line.strip())
    return f"<h1>{html.escaped(record.id)}</h1>{leads}"


def _settings(record: RunRecord) -> str:
    try:
        config = record.config
    except ConfigError as error:
        return f"<p>{html.escaped(f'Stored by another release, and not readable by this one. {error}')}</p>"
    return "".join(_comparison(comparison) for comparison in comparisons(config)) or (
        "<p>There is no preset to compare these settings with.</p>"
    )


def _comparison(comparison: Comparison) -> str:
    if not comparison.differences:
        return f"<p>As the preset {html.escaped(comparison.preset)}.</p>"
    rows = [(change.name, shown(change.theirs), shown(change.ours)) for change in comparison.differences]
    return f"<p>Beside the preset {html.escaped(comparison.preset)}:</p>" + html.table(
        ("setting", "preset", "this run"), rows
    )


def _curves(store: RunStore, record: RunRecord) -> str:
    from cifar_core.plots import Curve, learning_curves, reference_curve
    from cifar_core.store.schema import METRICS

    history = store.history(record.id)
    if history.empty:
        return "<p>No epoch was completed, so there is no curve.</p>"
    curve = Curve("this run", history, record.model, record.variant)
    study = reference_curve(record.model, "tuned" if record.variant == "tuned" else "baseline")
    curves = [curve, *([study] if study is not None and record.dataset_name == "cifar10" else [])]
    figures = [learning_curves(curves, measure) for measure in ("accuracy", "loss")]
    names, epochs = ("epoch", *METRICS), history.to_dict("records")
    rows = [[shown(_none(row[name])) for name in names] for row in epochs]
    table = html.table(names, rows, right=range(len(names)))
    said = "".join(f"<p>{html.escaped(remark)}</p>" for remark in remarks(epochs))
    return html.pair(figures) + said + f"<details><summary>Every epoch</summary>{table}</details>"


def _result(record: RunRecord) -> str:
    try:
        report = result_of(record)
    except ConfigError as error:
        return f"<p>{html.escaped(error)}</p>"
    if report is None:
        return "<p>None: test is looked at once, when a run is finished, and this one is not.</p>"
    from cifar_core.plots import reliability_diagram

    head = [
        ("images", f"{report.n:,}"),
        ("accuracy", f"{100 * report.accuracy:.2f} %"),
        ("loss", f"{report.loss:.4f} nats"),
        ("true class among the two most probable", f"{100 * report.top2_accuracy:.2f} %"),
        ("expected calibration error", f"{100 * report.ece:.2f} %"),
    ]
    rows = [
        (
            row["class_name"],
            *(f"{100 * row[name]:.1f}" for name in ("precision", "recall", "f1")),
            f"{row['support']:,}",
        )
        for row in report.per_class.to_dict("records")
    ]
    classes = html.table(("class", "precision %", "recall %", "F1 %", "images"), rows, right=range(1, 5))
    figures = [
        confusion_figure(report),
        reliability_diagram(report.reliability, report.ece, model=record.model),
    ]
    return html.pairs(head, "") + html.pair(figures) + classes


def _events(store: RunStore, record: RunRecord) -> str:
    rows = [
        (row["at"][:19].replace("T", " "), row["kind"], row["message"])
        for row in store.events(record.id).to_dict("records")
    ]
    return html.table(("UTC", "what", "message"), rows)


def _none(value: float) -> float | None:
    return None if value != value else value

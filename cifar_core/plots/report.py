"""HTML report of one run, and the comparisons and formatted values that the run's page shows too.

The report is one self-contained file: differences from the preset, curves, test result, calibration, pictures
of mistakes, data, environment and events.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from cifar_core.analysis.diagnosis import remarks
from cifar_core.analysis.metrics import Report
from cifar_core.base.csv_text import records
from cifar_core.base.fields import number
from cifar_core.data.catalogue import DEFAULT
from cifar_core.errors import ConfigError, DataError, RunNotFoundError, StoreError
from cifar_core.models import MODELS
from cifar_core.plots import (
    Curve,
    confusion_matrix,
    html,
    learning_curves,
    reference_curve,
    reliability_diagram,
)
from cifar_core.settings.presets import PRESETS, preset
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunRecord, RunStore

LABELS = frozenset({"name", "preset", "variant"})
"""Settings that name a run and change nothing about its training."""
NOTHING = "–"
MOST_PICTURES = 24


@dataclass(frozen=True)
class Difference:
    """A setting with its value in the preset (`theirs`) and in the run (`ours`)."""

    name: str
    theirs: Any
    ours: Any


@dataclass(frozen=True)
class Comparison:
    """How a run's settings differ from a preset's."""

    preset: str
    differences: tuple[Difference, ...]


def baseline_of(model: str) -> str | None:
    """Name of the model's baseline preset: the study's, else the recommended one; None without presets."""
    names = (f"{model}/paper-baseline", f"{model}/recommended")
    return next((name for name in names if name in PRESETS), None)


def comparisons(config: TrainConfig) -> list[Comparison]:
    """Differences from the preset that the settings started from, and from the model's baseline preset.

    One comparison where both are the same preset; settings in LABELS are left out.
    """
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
    """A setting's value as text for people: "yes", "0.001", "–" for nothing."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else str(value)


def flat_items(values: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested JSON as (path, text) pairs, such as ("packages › keras", "3.15.1")."""
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
    """The run's report on the test images; None where it has not been tested.

    Raises:
        ConfigError: the stored metrics are not a whole report (recorded by other means than a training).
    """
    return Report.from_dict(record.metrics) if record.metrics else None


def confusion_figure(report: Report, *, errors_only: bool = False) -> go.Figure:
    """The confusion matrix with its colour bar above, so that the cells use the whole width of a phone."""
    bar = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "thickness": 10, "title": {"side": "top"}}
    chart = confusion_matrix(report.confusion, errors_only=errors_only, classes=report.classes)
    return chart.update_traces(colorbar=bar).update_yaxes(constraintoward="top")


def html_report(store: RunStore, run_id: str) -> str:
    """The report of one run, in any state, as one HTML document of about 2 MB.

    A part that the run does not have yet is replaced by the reason.

    Raises:
        RunNotFoundError: no such run.
    """
    record = store.get(run_id)
    return html.render(
        "report.html",
        record=record,
        lead=_lead(record),
        **_settings(record),
        **_curves(store, record),
        **_result(record),
        **_mistakes(store, record),
        dataset=flat_items(record.dataset),
        environment=flat_items(record.environment),
        events=[
            (row["at"][:19].replace("T", " "), row["kind"], row["message"])
            for row in store.events(run_id).to_dict("records")
        ],
        settings=settings_json(record),
    )


def settings_json(record: RunRecord) -> str:
    """A run's settings as JSON that `cifar-lab train --config` reads."""
    return json.dumps(record.settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _lead(record: RunRecord) -> list[str]:
    title = MODELS[record.model].title if record.model in MODELS else record.model
    lines = (
        f"{title}, {record.variant}, {record.preset or 'no preset'}, seed {record.seed}, {record.protocol}",
        f"{record.state.capitalize()}. {record.reason or ''}",
        f"{record.epochs_done} of {record.epochs} epochs; created {record.created_at:%Y-%m-%d %H:%M} UTC",
        record.name,
    )
    return [line for line in lines if line.strip()]


def _settings(record: RunRecord) -> dict[str, Any]:
    try:
        config = record.config
    except ConfigError as error:
        return {"unreadable": str(error), "comparisons": []}
    found = [
        (one.preset, [(change.name, shown(change.theirs), shown(change.ours)) for change in one.differences])
        for one in comparisons(config)
    ]
    return {"unreadable": "", "comparisons": found}


def _curves(store: RunStore, record: RunRecord) -> dict[str, Any]:
    from cifar_core.store.schema import METRICS

    history = store.history(record.id)
    curves = [Curve("this run", history, record.model, record.variant)]
    study = reference_curve(record.model, "tuned" if record.variant == "tuned" else "baseline")
    if study is not None and record.dataset_name == DEFAULT:
        curves.append(study)
    columns = ("epoch", *METRICS)
    return {
        "curves": [learning_curves(curves, measure) for measure in ("accuracy", "loss")],
        "epoch_columns": columns,
        "epochs": [[shown(row[name]) for name in columns] for row in records(history)],
        "remarks": remarks(records(history), record.problem.count),
    }


def _result(record: RunRecord) -> dict[str, Any]:
    try:
        report = result_of(record)
    except ConfigError as error:
        return {"result": None, "no_result": str(error)}
    if report is None:
        reason = "None: test is looked at once, when a run is finished, and this one is not."
        return {"result": None, "no_result": reason}
    summary = [
        ("images", f"{report.n:,}"),
        ("accuracy", f"{100 * report.accuracy:.2f} %"),
        ("loss", f"{report.loss:.4f} nats"),
        ("true class among the two most probable", f"{100 * report.top2_accuracy:.2f} %"),
        ("expected calibration error", f"{100 * report.ece:.2f} %"),
    ]
    classes = [
        (row.class_name, f"{100 * row.precision:.1f}", f"{100 * row.recall:.1f}", f"{100 * row.f1:.1f}",
         f"{row.support:,}")
        for row in report.per_class.itertuples()
    ]  # fmt: skip
    reliability = reliability_diagram(report.reliability, report.ece, model=record.model)
    figures = [confusion_figure(report), reliability]
    return {"result": {"summary": summary, "classes": classes, "figures": figures}}


def _mistakes(store: RunStore, record: RunRecord) -> dict[str, Any]:
    """The most confident mistakes as (picture, caption)."""
    from cifar_core.analysis.mistakes import matches, mistakes, narrowed, ordered
    from cifar_core.data import eda

    try:
        table = mistakes(store.predictions(record.id))
        dataset = eda.opened(record.dataset_name)
    except (RunNotFoundError, StoreError, DataError) as error:
        return {"mistakes": [], "no_mistakes": str(error)}
    if (
        dataset is None
        or not (record.subset or record.fingerprint == dataset.fingerprint)
        or not matches(table, dataset.y_test)
    ):
        return {
            "mistakes": [],
            "no_mistakes": "The images that the run was tested on are not on this machine.",
        }
    rows = ordered(narrowed(table)).head(MOST_PICTURES)
    names = record.problem.classes
    pictures = [
        (
            _picture(dataset.x_test[row.index]),
            f"{names[row.label]} → {names[row.predicted]}, {100 * row.confidence:.1f} %",
        )
        for row in rows.itertuples(index=False)
    ]
    return {"mistakes": pictures, "no_mistakes": "None: every test image was predicted correctly."}


def _picture(image: np.ndarray) -> str:
    """A uint8 image (H, W, 3) as the data URL of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

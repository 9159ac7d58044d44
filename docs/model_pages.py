"""A page of the documentation for each network: drawing, cost, presets, results, curves, hyperparameters.

Everything is read from the code and from the runs that come with the release; the drawing is that of the app.
"""

import functools
import html
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cifar_core.analysis.study.reference_runs import ReferenceRun, epochs_of, reference_runs
from cifar_core.base.fields import Setting, describe
from cifar_core.cli.app import load_framework
from cifar_core.models import MODELS
from cifar_core.models.cost import Architecture, describe_architecture
from cifar_core.plots.palette import run_colour
from cifar_core.settings.presets import find_preset, preset, presets
from pages.shared.model_summary import ABOUT, STYLE, legend, linked, strip
from pages.shared.words import compact, count, size

CODE = """```python
from cifar_core import create_model, preset, train

# A Keras model: takes images in 0..255, gives ten probabilities.
network = create_model("{name}")
run = train(preset("{name}/recommended"))
```

```sh
cifar-lab train --preset {name}/recommended
```"""
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 260, 44, 34
"""Of the figure of curves, and of its margins for the axes' numbers, in its own units."""


def overview() -> str:
    """All networks in one table, each with a link to its page."""
    rows = []
    for name, cls in MODELS.items():
        cost, runs = architecture(name), _runs(name)
        best = f"{100 * runs[0].accuracy:.2f} % ({epochs_of(runs[0])})" if runs else "–"
        link = f"[{cls.title}](models/{name}.md)"
        rows.append([link, f"`{name}`", count(cost.parameters), compact(cost.flops), best])
    return table(["network", "name", "parameters", "FLOPs", "best run that comes with the release"], rows)


def page(name: str) -> str:
    """The page of one network, as Markdown."""
    cls, cost = MODELS[name], architecture(name)
    parts = [
        f"# {cls.title}",
        f"`{name}`: {cls.summary}",
        f"Source: {linked(cls.source)}.",
        f"{STYLE}{strip(cost)}{legend(cost)}",
        ABOUT.replace("Point at a bar", "Hold the pointer over a bar"),
        "## What it costs",
        _cost(cost),
        "## Use it",
        CODE.format(name=name),
        "## Presets",
        _presets(name),
        "## Results",
        *_results(_runs(name)),
        "## Hyperparameters",
        settings(describe(cls)),
    ]
    return "\n\n".join(parts)


@functools.cache
def architecture(name: str) -> Architecture:
    """Layers and cost with the default hyperparameters."""
    load_framework()
    return describe_architecture(name)


def settings(declared: dict[str, Setting]) -> str:
    """Table of settings as they are declared."""
    rows = [[f"`{one.name}`", f"`{one.default!r}`", one.allowed(), one.help] for one in declared.values()]
    return table(["setting", "default", "allowed", "what it does"], rows)


def table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _cost(cost: Architecture) -> str:
    rows = [
        ["parameters", f"{count(cost.parameters)}, of which {count(cost.trainable_parameters)} are trained"],
        ["one image, forward", f"{compact(cost.multiply_adds)} multiply-adds, {compact(cost.flops)} FLOPs"],
        ["weights in float32", size(cost.parameter_bytes)],
        ["memory of one image in training", size(cost.activation_bytes)],
        ["layers", str(len(cost.layers))],
    ]
    return table(["with default hyperparameters", ""], rows)


def _presets(name: str) -> str:
    lines = []
    for known in presets(name):
        config = preset(known)
        budget = f"{config.epochs} epochs, batches of {config.batch_size}"
        rate = f"{config.optimizer} with learning rate {config.learning_rate:g}"
        lines.append(f"- `{known}` ({budget}, {rate}): {cell(find_preset(known).why)}")
    return "\n".join(lines)


# --- Results --------------------------------------------------------------------------------------


def _runs(name: str) -> list[ReferenceRun]:
    return [run for run in reference_runs() if run.config.model == name]


def _results(runs: list[ReferenceRun]) -> list[str]:
    if not runs:
        return ["No whole run of this network comes with the release yet."]
    rows = [
        [f"{100 * run.accuracy:.2f} %", epochs_of(run), f"{run.minutes:.0f}", f"`{run.command}`"]
        for run in runs
    ]
    data = ", ".join(sorted({run.data for run in runs}))
    machines = "; ".join(sorted({run.hardware for run in runs}))
    return [
        f"Runs that come with the release, on {data} ({machines}):",
        table(["test accuracy", "epochs", "minutes", "trained again by"], rows),
        curves(runs),
        "Lines: accuracy on the images it was validated on, after each epoch; dotted: on training images.",
    ]


def curves(runs: list[ReferenceRun]) -> str:
    """Accuracy over epochs as inline SVG, one colour a run, with a legend below it."""
    longest = max(run.epochs for run in runs)
    keys = ("accuracy", "val_accuracy")
    lines = [_line(run, key, longest, place) for place, run in enumerate(runs) for key in keys]
    grid = "".join(
        f'<path d="M{LEFT} {_y(share)}H{WIDTH}" stroke="currentColor" opacity="0.15"/>'
        f'<text x="{LEFT - 6}" y="{_y(share) + 4}" text-anchor="end">{share:.0%}</text>'
        for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    )
    epochs = "".join(
        f'<text x="{_x(epoch, longest)}" y="{HEIGHT - 12}" text-anchor="middle">{epoch}</text>'
        for epoch in sorted({1, (longest + 1) // 2, longest})
    )
    names = "".join(
        f'<span><i style="background: {_colour(place)}"></i>{html.escape(_name(run))}</span>'
        for place, run in enumerate(runs)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Accuracy over epochs"'
        f' fill="currentColor" font-size="11" style="width: 100%; max-width: {WIDTH}px">'
        f"{grid}{epochs}{''.join(lines)}</svg>"
        f'<div class="lab-legend">{names}</div>'
    )


def _line(run: ReferenceRun, key: str, longest: int, place: int) -> str:
    shares = [(epoch, share) for epoch, share in enumerate(run.history[key], 1) if share is not None]
    points = " ".join(f"{_x(epoch, longest)},{_y(share)}" for epoch, share in shares)
    dots = "" if key.startswith("val") else ' stroke-dasharray="2 3" opacity="0.7"'
    words = f"<title>{html.escape(_name(run))}: {'validation' if not dots else 'training'}</title>"
    return (
        f'<polyline points="{points}" fill="none" style="stroke: {_colour(place)}" stroke-width="2"{dots}>'
        f"{words}</polyline>"
    )


def _colour(place: int) -> str:
    """A run's colour on the pages' light and dark theme, as CSS."""
    light, dark = run_colour(place).split("|")
    return f"light-dark({light}, {dark})"


def _name(run: ReferenceRun) -> str:
    changes = {**run.changes(str(run.config.preset)), "seed": run.config.seed}
    return ", ".join([str(run.config.preset), *(f"{name} {value}" for name, value in changes.items())])


def _x(epoch: int, longest: int) -> float:
    return round(LEFT + (WIDTH - LEFT - 8) * (epoch - 1) / max(1, longest - 1), 1)


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 10) * share, 1)

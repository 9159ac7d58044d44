"""A running training as people follow it: a bar on a terminal, one line for each epoch in a pipe."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from cifar_core.cli.output import duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from cifar_core.training.recorder import Progress
    from cifar_core.tuning import SearchProgress

_CURVES = ("loss", "accuracy", "val_loss", "val_accuracy")


class Reporter(Protocol):
    """What to hand to `train(progress=...)`; `say` prints one line of our own in between."""

    def __call__(self, report: Progress) -> None: ...

    def say(self, text: str) -> None: ...


@contextmanager
def reporting(*, as_json: bool) -> Iterator[Reporter]:
    """Progress on stdout, or on stderr where stdout is to hold one document."""
    stream = sys.stderr if as_json else sys.stdout
    if stream.isatty():
        with _bars(stream) as bars:
            yield _BarReporter(bars)
    else:
        yield _LineReporter(stream)


def search_reporter(reporter: Reporter) -> Callable[[SearchProgress], None]:
    """What to hand to `tune(progress=...)`: one line for each trial, and the winner's training whole."""
    from cifar_core.training.recorder import Progress

    def report(event: SearchProgress) -> None:
        if event.kind == "trial":
            reporter.say(trial_line(event))
        elif event.training is None:
            reporter(Progress("stage", event.stage))
        elif event.kind != "epoch":
            reporter(event.training)

    return report


def epoch_line(report: Progress) -> str:
    """The figures of one completed epoch in one line."""
    figures = report.metrics
    parts = [f"epoch {report.epoch:>{len(str(report.epochs))}}/{report.epochs}"]
    parts += [f"{name} {figures[name]:.4f}" for name in _CURVES if name in figures]
    speed = report.images_per_second or figures.get("images_per_second")
    parts += [f"{speed:,.0f} images/s"] if speed else []
    parts += [f"{figures['seconds']:.1f} s"] if "seconds" in figures else []
    parts += [f"ETA {duration(report.eta_s)}"] if report.eta_s else []
    return "  ".join(parts)


def trial_line(event: SearchProgress) -> str:
    """How far a search is, in one line."""
    status = event.status
    parts = [event.stage, f"{status.trials_done}/{status.trials_planned} trials"]
    parts += [f"{status.epochs_done}/{status.epochs_planned} epochs"]
    parts += [f"best val_accuracy {event.best_score:.4f}"] if event.best_score is not None else []
    parts += [f"ETA {duration(status.eta_s)}"] if status.eta_s else []
    return "  ".join(parts)


class _LineReporter:
    """One line for each epoch. A reader who went away does not end the training."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._heard = stream, True

    def __call__(self, report: Progress) -> None:
        if report.kind == "epoch":
            self.say(epoch_line(report))

    def say(self, text: str) -> None:
        if not self._heard:
            return
        try:
            print(text, file=self._stream, flush=True)
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            self._heard = False


class _BarReporter:
    """A bar over the steps of the running epoch; completed epochs stay above it as lines."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task = bars.add_task("starting", total=None, figures="")

    def __call__(self, report: Progress) -> None:
        if report.kind == "stage":
            self._bars.update(self._task, description=report.stage, completed=0, total=1, figures="")
        elif report.kind == "step":
            self._bars.update(self._task, **_shown(report))
        else:
            self.say(epoch_line(report))
            self._bars.update(
                self._task, description=f"epoch {report.epoch}/{report.epochs} done", completed=report.steps
            )

    def say(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)


def _shown(report: Progress) -> dict[str, Any]:
    figures = [f"{report.step}/{report.steps}"]
    figures += [f"{report.images_per_second:,.0f} images/s"] if report.images_per_second else []
    figures += [f"{name} {report.metrics[name]:.4f}" for name in _CURVES if name in report.metrics]
    figures += [f"ETA {duration(report.eta_s)}"] if report.eta_s else []
    return {
        "description": f"epoch {report.epoch}/{report.epochs}",
        "completed": report.step,
        "total": report.steps,
        "figures": "  ".join(figures),
    }


@contextmanager
def _bars(stream: TextIO) -> Iterator[Bars]:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=Console(file=stream), transient=True) as bars:
        yield bars


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A callable(done, total) for a download, in bytes: a bar, or a line for every tenth."""
    if not sys.stderr.isatty():
        yield _Tenths(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


class _Tenths:
    def __init__(self, what: str) -> None:
        self._what, self._said = what, -1

    def __call__(self, done: int, total: int | None) -> None:
        tenth = 10 * done // total if total else 0
        if tenth != self._said:
            self._said = tenth
            share = f"{10 * tenth} % of {total / 1e6:.1f} MB" if total else "begun"
            print(f"{self._what}: {share}", file=sys.stderr, flush=True)

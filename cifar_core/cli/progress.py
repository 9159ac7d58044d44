"""Progress of trainings, searches and downloads: a bar on a terminal, lines of text elsewhere."""

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
    """Callback for `train(progress=...)`; `say` prints a line in between."""

    def __call__(self, report: Progress) -> None: ...

    def say(self, text: str) -> None: ...


@contextmanager
def reporting(*, as_json: bool) -> Iterator[Reporter]:
    """Report progress on stdout, or on stderr where stdout is for a JSON document."""
    stream = sys.stderr if as_json else sys.stdout
    if stream.isatty():
        with _bars(stream) as bars:
            yield _BarReporter(bars)
    else:
        yield _LineReporter(stream)


def search_reporter(reporter: Reporter) -> Callable[[SearchProgress], None]:
    """Callback for `tune(progress=...)`: a line per trial, and full progress of the final training."""
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
    """Metrics of a completed epoch in one line of text."""
    figures = report.metrics
    parts = [f"epoch {report.epoch:>{len(str(report.epochs))}}/{report.epochs}"]
    parts += [f"{name} {figures[name]:.4f}" for name in _CURVES if name in figures]
    speed = report.images_per_second or figures.get("images_per_second")
    parts += [f"{speed:,.0f} images/s"] if speed else []
    parts += [f"{figures['seconds']:.1f} s"] if "seconds" in figures else []
    parts += [f"ETA {duration(report.eta_s)}"] if report.eta_s else []
    return "  ".join(parts)


def trial_line(event: SearchProgress) -> str:
    """Progress of a search in one line of text."""
    status = event.status
    parts = [event.stage, f"{status.trials_done}/{status.trials_planned} trials"]
    parts += [f"{status.epochs_done}/{status.epochs_planned} epochs"]
    parts += [f"best val_accuracy {event.best_score:.4f}"] if event.best_score is not None else []
    parts += [f"ETA {duration(status.eta_s)}"] if status.eta_s else []
    return "  ".join(parts)


class _LineReporter:
    """One line per epoch; a closed pipe does not end the training."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._closed = stream, False

    def __call__(self, report: Progress) -> None:
        if report.kind == "epoch":
            self.say(epoch_line(report))

    def say(self, text: str) -> None:
        if self._closed:
            return
        try:
            print(text, file=self._stream, flush=True)
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            self._closed = True


class _BarReporter:
    """A bar over the steps of the current epoch, below one line per completed epoch."""

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


def _bars(stream: TextIO) -> Bars:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=24),
        progress.TextColumn("{task.fields[figures]}", markup=False),
        progress.TimeElapsedColumn(),
    )
    return progress.Progress(*columns, console=Console(file=stream), transient=True)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A callback(done, total) for a download, in bytes: a bar, or a line for every tenth."""
    printed = -1

    def tenths(done: int, total: int | None) -> None:
        nonlocal printed
        tenth = 10 * done // total if total else 0
        if tenth != printed:
            printed = tenth
            share = f"{10 * tenth} % of {total / 1e6:.1f} MB" if total else "started"
            print(f"{what}: {share}", file=sys.stderr, flush=True)

    if not sys.stderr.isatty():
        yield tenths
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def sharing(what: str) -> Iterator[Callable[[float, str], None]]:
    """A callback(share done in 0..1, what is being done): a bar, or a line for every tenth."""
    printed = -1

    def tenths(share: float, doing: str) -> None:
        nonlocal printed
        if int(10 * share) != printed:
            printed = int(10 * share)
            print(f"{what}: {10 * printed} %, {doing}", file=sys.stderr, flush=True)

    if not sys.stderr.isatty():
        yield tenths
        return
    with _bars(sys.stderr) as bars:
        task = bars.add_task(what, total=1.0, figures="")
        yield lambda share, doing: bars.update(task, completed=share, figures=doing)

"""What a run is and does, in words and as small pieces of HTML. Everything from outside is escaped."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cifar_core.store import RunState
from pages.shared.table import Fact, Headline
from pages.shared.words import NOTHING, clock, count, duration, number, percent, shortened

if TYPE_CHECKING:
    from cifar_core.store.watch import Watched


BEST = "Best validation"
"""Label of the highest validation accuracy of a run's epochs."""


def headline(run: Watched, place: tuple[int, int] | None = None) -> Headline:
    """State in words.

    Args:
        run: as last read.
        place: of a queued run, (its place in the queue from 1, how many wait).
    """
    row, state = run.row, run.state
    if state is RunState.QUEUED:
        return Headline("Queued", _queued(row, place))
    if state is RunState.STOPPING:
        return Headline("Stopping…", "it ends after the step it is in; completed epochs are kept")
    if state is RunState.RUNNING:
        return _running(run)
    reason = shortened(str(row.get("reason") or ""))
    unknown = "" if state is RunState.FINISHED else "no reason was recorded"
    return Headline(state.capitalize(), reason or unknown)


def _queued(row: dict[str, Any], place: tuple[int, int] | None) -> str:
    number, waiting = place or (1, 1)
    where = "next in line" if number == 1 else f"number {number} of {waiting} in the queue"
    done = row.get("epochs_done") or 0
    return f"{where}; it goes on after epoch {done}" if done else where


def _running(run: Watched) -> Headline:
    row = run.row
    stage = str(row.get("stage") or "starting")
    if not stage.startswith("epoch"):
        title = "Testing" if stage == "testing" else "Starting"
        words = "on the test images, once" if stage == "testing" else stage
        return Headline(title, f"{words}, for {duration(time.monotonic() - run.stage_since)}")
    epoch = min(current_epoch(run), row["epochs"])
    step = f"step {count(row['step'])} of {count(row['steps'])}" if row["step"] and row["steps"] else "begins"
    if row["step"] and row["step"] == row["steps"] and epoch in run.epochs:
        step = "complete"
    return Headline(f"Running, epoch {epoch} of {row['epochs']}", step)


def current_epoch(run: Watched) -> int:
    """The epoch that runs, from 1: that of its last step, or what its stage says."""
    words = str(run.row.get("stage") or "").split()
    said = int(words[1]) if len(words) > 1 and words[0] == "epoch" and words[1].isdigit() else 0
    return max(said, run.row.get("epoch") or 0, 1)


def share_done(run: Watched) -> float:
    """Part of the planned epochs that is done, 0..1, steps of the running one included."""
    row = run.row
    within = 0.0
    if run.steps and max(run.steps)[0] > len(run.epochs):
        step = max(run.steps)[1]
        within = min(step / max(row.get("steps") or step, 1), 1.0)
    return min((len(run.epochs) + within) / max(row.get("epochs") or 1, 1), 1.0)


def facts(run: Watched) -> list[Fact]:
    """The four numbers that tell most of a run in its state."""
    row = run.row
    done = f"{len(run.epochs)} of {row.get('epochs', NOTHING)}"
    best: Fact = (BEST, percent(row.get("best_val_accuracy")), "")
    if run.state is RunState.FINISHED:
        speed = f"{count(row.get('images_per_second'))} images/s"
        return [
            ("Test accuracy", percent(row.get("accuracy")), f"loss {number(row.get('loss'))}"),
            best,
            ("Epochs", done, ""),
            ("Training time", duration(_seconds(run)), speed),
        ]
    if not run.state.is_active():
        return [best, ("Epochs", done, ""), ("Training time", duration(_seconds(run) or None), "")]
    return [
        ("Validation accuracy", percent(run.last.get("val_accuracy")), f"best {best[1]}"),
        ("Images per second", count(row.get("images_per_second")), ""),
        ("Time per epoch", *_seconds_per_epoch(run)),
        ("Done at", *end(run)),
    ]


def _seconds_per_epoch(run: Watched) -> tuple[str, str]:
    seconds = run.last.get("seconds")
    if seconds is not None:
        return duration(seconds), "the last one"
    eta, left = run.row.get("eta_s"), (run.row.get("epochs") or 1) * (1 - share_done(run))
    if eta is None or not run.steps or left <= 0:
        return NOTHING, ""
    return duration(eta / left), "estimated"


def _seconds(run: Watched) -> float:
    return sum(row["seconds"] or 0.0 for row in run.epochs.values())


def end(run: Watched) -> tuple[str, str]:
    """(time of day at which it will be done, in how long)."""
    if not run.state.is_active() or run.ends_at is None:
        return NOTHING, ""
    left = (run.ends_at - datetime.now(UTC)).total_seconds()
    return clock(run.ends_at), f"in {duration(left)}" if left > 0 else "any moment"

"""What a run is and does, in words and as small pieces of HTML. Everything from outside is escaped."""

from __future__ import annotations

import html
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from cifar_core.models import MODELS
from cifar_core.palette import model_colour
from cifar_core.store.states import RunState
from pages.shared.words import NOTHING, count, duration, percent

if TYPE_CHECKING:
    from pages.train._watch import Watched

MOST_WORDS = 600
"""Longer reasons are cut in the head of a page; the run's page has them whole among its events."""

STYLE = """<style>
.lab-state { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 10px; line-height: 1.35; }
.lab-state b { font-size: 1.15rem; font-weight: 650; }
.lab-state span { overflow-wrap: anywhere; }
.lab-dot { display: inline-block; width: 0.75em; height: 0.75em; border-radius: 50%; flex: none; }
.lab-facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(108px, 1fr)); gap: 10px 14px;
  margin: 0 !important; padding: 0 !important; }
.lab-facts div { min-width: 0; }
.lab-facts dt { font-size: 0.8rem; opacity: 0.72; }
.lab-facts dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.lab-facts small { display: block; font-weight: 400; opacity: 0.72; }
.lab-scroll { overflow-x: auto; }
.lab-table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.lab-table th { text-align: left; font-size: 0.8rem; font-weight: 500; opacity: 0.72; }
.lab-table th, .lab-table td { padding: 4px 14px 4px 0; white-space: nowrap;
  border-bottom: 1px solid rgb(128 128 128 / 25%); }
.lab-table .n { text-align: right; }
.lab-table .w { white-space: normal; min-width: 5em; overflow-wrap: anywhere; vertical-align: top; }
.lab-table.dotted .w { min-width: 9.5em; }
.lab-table.pairs td:first-child { width: 40%; }
</style>"""

Fact = tuple[str, str, str]
"""Label, value, and a small line below it ("" for none)."""


@dataclass(frozen=True)
class Headline:
    """The truth about a run in one line."""

    title: str
    detail: str = ""


def plain(text: Any) -> str:
    """Text that markdown shows as it is: one line, no formatting, no links, no HTML."""
    line = " ".join(str(text).split())
    return "".join(f"\\{sign}" if sign in string.punctuation else sign for sign in line)


def shortened(text: str, most: int = MOST_WORDS) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def model_title(model: str) -> str:
    return MODELS[model].title if model in MODELS else model


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
    if state is RunState.FINISHED:
        accuracy = row.get("accuracy")
        tested = "no test accuracy was recorded" if accuracy is None else f"test accuracy {percent(accuracy)}"
        return Headline("Finished", f"{tested}; {reason}" if reason else tested)
    return Headline(state.capitalize(), reason or "no reason was recorded")


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
    if run.steps:
        epoch, step = max(run.steps)
        within = min(step / max(row.get("steps") or step, 1), 1.0) if epoch > len(run.epochs) else 0.0
    return min((len(run.epochs) + within) / max(row.get("epochs") or 1, 1), 1.0)


def facts(run: Watched) -> list[Fact]:
    """What there is to know of a run in numbers, by its state."""
    row = run.row
    best: Fact = ("Best validation accuracy", percent(row.get("best_val_accuracy")), "")
    if run.state is RunState.FINISHED:
        return [
            ("Test accuracy", percent(row.get("accuracy")), ""),
            ("Test loss", number(row.get("loss")), ""),
            best,
            ("Epochs", f"{len(run.epochs)} of {row.get('epochs')}", ""),
            ("Images per second", count(row.get("images_per_second")), "in the mean"),
            ("Time per epoch", duration(_mean_seconds(run)), "in the mean"),
        ]
    told = [
        ("Epochs done", f"{len(run.epochs)} of {row.get('epochs', NOTHING)}", ""),
        ("Step", _step(run), "of the running epoch"),
        ("Images per second", count(row.get("images_per_second")), ""),
        ("Time per epoch", *_seconds_per_epoch(run)),
        ("Done at", *_end(run)),
        ("Learning rate", number(run.latest("learning_rate")), ""),
        ("Validation accuracy", percent(run.last.get("val_accuracy")), "of the last epoch"),
        best,
    ]
    return told if run.state.is_active() else [fact for fact in told if fact[1] != NOTHING]


def _step(run: Watched) -> str:
    if not run.state.is_active() or not run.steps:
        return NOTHING
    return f"{count(max(run.steps)[1])} of {count(run.row.get('steps'))}"


def _seconds_per_epoch(run: Watched) -> tuple[str, str]:
    seconds = run.last.get("seconds")
    if seconds is not None:
        return duration(seconds), "the last one"
    eta, left = run.row.get("eta_s"), (run.row.get("epochs") or 1) * (1 - share_done(run))
    if eta is None or not run.steps or left <= 0:
        return NOTHING, ""
    return duration(eta / left), "estimated"


def _mean_seconds(run: Watched) -> float | None:
    known = [row["seconds"] for row in run.epochs.values() if row.get("seconds") is not None]
    return sum(known) / len(known) if known else None


def _end(run: Watched) -> tuple[str, str]:
    if not run.state.is_active() or run.ends_at is None:
        return NOTHING, ""
    left = (run.ends_at - datetime.now(UTC)).total_seconds()
    return clock(run.ends_at), f"in {duration(left)}" if left > 0 else "any moment"


def facts_of_speed(run: Watched) -> tuple[str, str]:
    """(images per second, when it is done) for a line of a table."""
    return count(run.row.get("images_per_second")), _end(run)[0]


def number(value: float | None) -> str:
    """Four significant digits; "–" for None or NaN."""
    return NOTHING if value is None or value != value else f"{value:.4g}"


def clock(moment: datetime | None) -> str:
    """A UTC time as the reader's clock shows it: "14:32", with the date if it is another day."""
    if moment is None:
        return NOTHING
    local = moment.astimezone(_timezone())
    today = datetime.now(UTC).astimezone(_timezone()).date()
    return f"{local:%H:%M}" if local.date() == today else f"{local:%d %b %H:%M}"


def date_and_time(moment: datetime | str | None) -> str:
    """A UTC time, or its ISO text, as "24 Nov 2026, 14:32:05" on the reader's clock."""
    if not moment:
        return NOTHING
    parsed = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return f"{parsed.astimezone(_timezone()):%d %b %Y, %H:%M:%S}"


def _timezone() -> tzinfo | None:
    """Of the reader's browser; the server's own where it does not say."""
    name = st.context.timezone
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError):
        return None


# --- HTML ---------------------------------------------------------------------------------------


def state_html(run: Watched, said: Headline) -> str:
    dot = f'<i class="lab-dot" style="background: {model_colour(run.about["model"])}"></i>'
    detail = f"<span>{html.escape(said.detail)}</span>" if said.detail else ""
    return f'<div class="lab-state" role="status">{dot}<b>{html.escape(said.title)}</b>{detail}</div>'


def facts_html(rows: Sequence[Fact]) -> str:
    """Labelled numbers side by side, as many in a row as there is room for."""
    cells = "".join(
        f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}"
        f"{f'<small>{html.escape(more)}</small>' if more else ''}</dd></div>"
        for label, value, more in rows
    )
    return f'<dl class="lab-facts">{cells}</dl>'


def table_html(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    dots: Sequence[str] | None = None,
) -> str:
    """A small table of texts that scrolls sideways on a narrow screen; all cells are escaped.

    Args:
        right: columns of numbers, aligned to the right and never wrapped, as the others may be.
        dots: a colour before each row's first cell.
    """
    kinds = ["n" if place in right else "w" for place in range(len(header))]
    head = "".join(
        f'<th class="{kind}">{html.escape(text)}</th>' for kind, text in zip(kinds, header, strict=True)
    )
    lines = []
    for number_of_row, texts in enumerate(rows):
        dot = f'<i class="lab-dot" style="background: {dots[number_of_row]}"></i> ' if dots else ""
        cells = [
            f'<td class="{kind}">{html.escape(text)}</td>' for kind, text in zip(kinds, texts, strict=True)
        ]
        cells[0] = cells[0].replace(">", f">{dot}", 1)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    table = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    kind = "lab-table" + (" pairs" if kinds == ["w", "w"] else "") + (" dotted" if dots else "")
    return f'<div class="lab-scroll"><table class="{kind}">{table}</table></div>'

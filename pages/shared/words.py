"""Numbers, times and foreign text as people read them; the same on every page."""

from __future__ import annotations

import re
import string
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from cifar_core.models import MODELS

if TYPE_CHECKING:
    from cifar_core.analysis.statistics import Comparison

NOTHING = "–"
_COMMAND = re.compile(r"`([^`]*[^`\s][^`]*)`")
MOST_WORDS = 600
"""Longer reasons are cut in the head of a page; the run's page has them whole among its events."""


def percent(share: float | None, digits: int = 2) -> str:
    """0.6648 as "66.48 %"; "–" for None or a number that is none."""
    if share is None or share != share:
        return NOTHING
    return f"{100 * share:.{digits}f} %"


def count(number: float | None) -> str:
    """36925322 as "36,925,322"."""
    if number is None or number != number:
        return NOTHING
    return f"{round(number):,}"


def compact(number: float | None) -> str:
    """36925322 as "36.9 M", 315722 as "316 k"."""
    if number is None or number != number:
        return NOTHING
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def duration(seconds: float | None) -> str:
    """75 as "1 min 15 s", 4000 as "1 h 07 min", 2.34 as "2.3 s"."""
    if seconds is None or seconds != seconds:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def milliseconds(number: float | None) -> str:
    """0.842 as "0.84 ms", 12.34 as "12 ms"."""
    if number is None or number != number:
        return NOTHING
    return f"{number:.2g} ms" if number < 100 else f"{round(number):,} ms"


def size(number_of_bytes: float) -> str:
    """170498071 as "170.5 MB" (powers of ten, as disks are sold)."""
    for unit_size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number_of_bytes >= unit_size:
            return f"{number_of_bytes / unit_size:.1f} {unit}"
    return f"{round(number_of_bytes)} bytes"


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """A UTC time as "3 min ago"; "–" for None."""
    if moment is None:
        return NOTHING
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if seconds < 5:
        return "just now"
    for length, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {'day' if unit == 'days' and number == 1 else unit} ago"
    return f"{int(seconds)} s ago"


def plain(text: Any) -> str:
    """Text that markdown shows as it is: one line, no formatting, no links, no HTML."""
    return _escaped(_one_line(text))


def message(error: Any) -> str:
    """An error's words as `plain` has them, but its commands, between backticks, look like commands."""
    parts = _COMMAND.split(_one_line(error))
    return "".join(f"`{part}`" if odd % 2 else _escaped(part) for odd, part in enumerate(parts))


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())


def _escaped(line: str) -> str:
    return "".join(f"\\{sign}" if sign in string.punctuation else sign for sign in line)


def shortened(text: str, most: int = MOST_WORDS) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def joined(*pieces: object) -> str:
    """Short pieces of a line, with dots between them; empty ones are left out."""
    return " · ".join(text for piece in pieces if (text := str(piece or "").strip()))


def model_title(model: str) -> str:
    return MODELS[model].title if model in MODELS else model


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


def comparison_sentence(result: Comparison) -> str:
    """A comparison of two runs, or of two settings with several seeds, in one sentence."""
    p_value = "p < 0.0001" if result.p_value < 1e-4 else f"p = {result.p_value:.2g}"
    seeds = result.runs_a + result.runs_b > 2
    means = f"means of {result.runs_a} and {result.runs_b} seeds; " if seeds else ""
    return (
        f"{points(result.difference)} over {result.n:,} test images ({means}95 % interval "
        f"{100 * result.low:+.2f} to {100 * result.high:+.2f}; "
        f"exact {'test over images' if seeds else 'McNemar'}, {p_value})."
    )


def points(difference: float) -> str:
    """0.0123 as "+1.23 points"."""
    return f"{100 * difference:+.2f} points"


def mean_and_sd(accuracy: float, sd: float) -> str:
    """ "80.55 ± 0.21 %", without a spread where there is none to tell."""
    if sd is None or sd != sd:
        return percent(accuracy)
    return f"{100 * accuracy:.2f} ± {100 * sd:.2f} %"

"""Labelled numbers and tables of texts as HTML, for any page. Everything from outside is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

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
.lab-table .n { text-align: right; vertical-align: top; }
.lab-table .w { white-space: normal; min-width: 5em; overflow-wrap: anywhere; vertical-align: top; }
.lab-table.dotted .w { min-width: 9.5em; }
.lab-table.pairs td:first-child { width: 40%; }
</style>"""

Fact = tuple[str, str, str]
"""Label, value, and a small line below it ("" for none)."""


@dataclass(frozen=True)
class Headline:
    """State of a run or search in one line."""

    title: str
    detail: str = ""


def state_html(headline: Headline, colour: str) -> str:
    """A headline behind a dot in the model's color."""
    detail = f"<span>{html.escape(headline.detail)}</span>" if headline.detail else ""
    dot = f'<i class="lab-dot" style="background: {colour}"></i>'
    return f'<div class="lab-state" role="status">{dot}<b>{html.escape(headline.title)}</b>{detail}</div>'


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

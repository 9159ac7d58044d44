"""Labelled numbers and tables of texts as HTML, for any page. Everything from outside is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

from cifar_core.plots.palette import BAD, GOOD, NEUTRAL

STYLE = """<style>
.lab-state { display: flex; flex-wrap: wrap; align-items: center; gap: 2px 10px; line-height: 1.35; }
.lab-state b { font-size: 1.15rem; font-weight: 650; }
.lab-state span { overflow-wrap: anywhere; }
.lab-icon { display: inline-grid; place-items: center; width: 1.5em; height: 1.5em; flex: none;
  border-radius: 50%; font-style: normal; font-size: 0.8rem; color: light-dark(#fff, #0e1117); }
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
.lab-table .w { white-space: normal; min-width: 5em; overflow-wrap: break-word; vertical-align: top; }
.lab-table.dotted .w { min-width: 9.5em; }
.lab-table.pairs td:first-child { width: 40%; }
@media (max-width: 640px) { /* a wide table's rows become cards, with each heading before its value */
  .lab-table.wide, .wide tbody, .wide td { display: block; }
  .wide thead { display: none; }
  .wide tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 6px 12px;
    padding: 10px 0; border-bottom: 1px solid rgb(128 128 128 / 25%); }
  .lab-table.wide td { padding: 0; border: 0; text-align: left; white-space: normal; }
  .wide td:first-child { grid-column: 1 / -1; font-weight: 600; }
  .wide td:not(:first-child)::before { content: attr(data-label); display: block; font-size: 0.75rem;
    opacity: 0.72; }
}
</style>"""

NARROW = 4
"""Columns that a phone has room for."""
Fact = tuple[str, str, str]
"""Label, value, and a small line below it ("" for none)."""


class Headline(NamedTuple):
    """State of a run or search in one line."""

    title: str
    detail: str = ""


STATE_ICONS = {"queued": "◷", "running": "▶", "finished": "✓", "stopped": "■", "stopping": "■"}
"""Before a state's name; a cross for those that went wrong."""


def css(colour: str) -> str:
    """A colour for a style sheet: of "#light|#dark" the one of the page's theme."""
    return f"light-dark({colour.replace('|', ', ')})" if "|" in colour else colour


STATE_COLOURS = {"finished": GOOD, "failed": BAD, "crashed": BAD}


def state_html(headline: tuple[str, str], state: str, colour: str = "") -> str:
    """A headline behind the state's icon.

    Args:
        colour: of the icon, such as that of the run in figures; one that goes with the state where "".
    """
    colour = colour or STATE_COLOURS.get(state, NEUTRAL)
    title, detail = map(html.escape, headline)
    more = f"<span>{detail}</span>" if detail else ""
    icon = f'<i class="lab-icon" style="background: {colour}">{STATE_ICONS.get(state, "✕")}</i>'
    return f'<div class="lab-state" role="status">{icon}<b>{title}</b>{more}</div>'


def facts_html(rows: Sequence[Fact]) -> str:
    """Labelled numbers side by side, as many in a row as there is room for."""
    cells = "".join(
        f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}"
        f"{f'<small>{html.escape(more)}</small>' if more else ''}</dd></div>"
        for label, value, more in rows
    )
    return f'<dl class="lab-facts">{cells}</dl>'


def _breakable(text: str) -> str:
    """Escaped; a long name such as "base_cnn/recommended" is broken behind its stroke only."""
    return html.escape(text).replace("/", "/<wbr>")


def table_html(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    dots: Sequence[str] | None = None,
) -> str:
    """A small table of texts, all escaped; on a narrow screen one of more than `NARROW` columns is made of
    cards, any other scrolls sideways where it must.

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
            f'<td class="{kind}" data-label="{html.escape(label)}">{_breakable(text)}</td>'
            for kind, label, text in zip(kinds, header, texts, strict=True)
        ]
        cells[0] = cells[0].replace(">", f">{dot}", 1)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    table = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    wide = " wide" if len(header) > NARROW else ""
    kind = f"lab-table{wide}" + (" pairs" if kinds == ["w", "w"] else "") + (" dotted" if dots else "")
    return f'<div class="lab-scroll"><table class="{kind}">{table}</table></div>'

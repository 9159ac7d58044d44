"""HTML pages that need no network, no server and no other file: tables, and Plotly figures in them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b2430; background: #fff; max-width: 1100px;
  margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 1.8rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2em 0 0.6em; }
p.lead { margin: 4px 0 0; color: #4a5563; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 16px 3px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #d5dde5;
  overflow-wrap: anywhere; }
th { font-weight: 500; color: #4a5563; } td.n, th.n { text-align: right; white-space: nowrap; }
.scroll { overflow-x: auto; } .pair { display: grid; gap: 16px; grid-template-columns: 1fr; }
@media (min-width: 900px) { .pair { grid-template-columns: 1fr 1fr; } }
.pair > div { min-width: 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: 0.85rem; }
"""


def page(title: str, body: str) -> str:
    """A whole document of about 5 MB: Plotly's script is inside, so that its figures stay interactive.

    Args:
        title: plain text.
        body: HTML, as the other functions give it.
    """
    from plotly.offline import get_plotlyjs

    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><script>{get_plotlyjs()}</script></head>"
        f"<body>{body}</body></html>\n"
    )


def section(title: str, content: str) -> str:
    """A heading, as plain text, and what stands below it, as HTML."""
    return f"<h2>{escaped(title)}</h2>{content}"


def escaped(text: object) -> str:
    """Plain text as HTML."""
    return html.escape(str(text))


def pairs(pairs: Sequence[tuple[str, str]], without: str) -> str:
    """Names and values below one another; `without` in words where there are none."""
    return table(("", ""), pairs) if pairs else f"<p>{escaped(without)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """A table of plain texts; the columns in `right`, counted from 0, hold numbers."""
    numbers = set(right)

    def line(tag: str, texts: Sequence[str]) -> str:
        cells = (
            f"<{tag}{' class=n' if place in numbers else ''}>{escaped(text)}</{tag}>"
            for place, text in enumerate(texts)
        )
        return f"<tr>{''.join(cells)}</tr>"

    head = f"<thead>{line('th', header)}</thead>" if any(header) else ""
    body = "".join(line("td", row) for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def pair(figures: Sequence[go.Figure]) -> str:
    """Figures beside one another, two in a line where the page is wide enough."""
    return f'<div class="pair">{"".join(f"<div>{figure(chart)}</div>" for chart in figures)}</div>'


def figure(chart: go.Figure) -> str:
    """A Plotly figure, for a page that has the script."""
    from cifar_core.plots import themed

    return themed(chart).to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"displaylogo": False, "responsive": True, "showSendToCloud": False},
    )

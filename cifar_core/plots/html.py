"""Self-contained HTML documents with interactive Plotly figures, from the templates beside this module.

Every value is escaped by Jinja2; only figures, which Plotly writes, are inserted as HTML.
"""

from __future__ import annotations

import base64
import functools
import gzip
import json
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cifar_core.plots.layout import themed


def render(template: str, **values: Any) -> str:
    """A whole document of about 2 MB, most of it Plotly's script, packed, so that it needs no network.

    Args:
        template: name of a file in the folder `templates`.
        values: what the template uses; texts are plain texts.
    """
    return _environment().get_template(template).render(packed_plotly=_packed_plotly(), **values)


@functools.cache
def _packed_plotly() -> str:
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cifar_core.plots"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    return environment


def _figure(chart: go.Figure) -> Markup:
    """A place for the figure and the figure as JSON, which the document's script draws there."""
    spec = json.loads(themed(chart).to_json())
    spec["config"] = {"displaylogo": False, "responsive": True, "showSendToCloud": False}
    text = json.dumps(spec).replace("<", "\\u003c")  # so that no text in it ends the script
    return Markup(f'<div></div><script type="application/json" class="figure">{text}</script>')

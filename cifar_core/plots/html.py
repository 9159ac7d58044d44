"""Self-contained HTML documents with interactive Plotly figures, from the templates beside this module.

Every value is escaped by Jinja2; only figures, which Plotly writes, are inserted as HTML.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cifar_core.plots.layout import themed

if TYPE_CHECKING:
    import plotly.graph_objects as go


def render(template: str, **values: Any) -> str:
    """A whole document of about 5 MB, most of it Plotly's script, so that it needs no network.

    Args:
        template: name of a file in the folder `templates`.
        values: what the template uses; texts are plain texts.
    """
    from plotly.offline import get_plotlyjs

    return _environment().get_template(template).render(plotly_script=Markup(get_plotlyjs()), **values)


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
    config = {"displaylogo": False, "responsive": True, "showSendToCloud": False}
    return Markup(themed(chart).to_html(full_html=False, include_plotlyjs=False, config=config))

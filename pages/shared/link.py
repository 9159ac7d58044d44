"""A link to another page after which the browser's Back leads to this very view.

`st.page_link` and `st.switch_page` with query parameters add two entries to the browser's history where
the page has values in its address, and the first of them is this page with the other one's parameters.
"""

from __future__ import annotations

import urllib.parse

import streamlit as st

from pages.shared import navigation

_mount = st.components.v2.component(
    "cifar_lab.link",
    html="<a></a>",
    css="""
a { display: inline-block; padding: 8px 12px; border: 1px solid var(--st-border-color); border-radius: 8px;
  font: 14px/1.6 var(--st-font); color: var(--st-text-color); text-decoration: none; white-space: nowrap; }
a:hover { border-color: var(--st-primary-color); color: var(--st-link-color); }
a:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
a.primary { background: var(--st-primary-color); border-color: var(--st-primary-color); color: #fff; }
a.primary:hover { filter: brightness(0.92); }
""",
    js="""
export default function ({ data, parentElement }) {
  const link = parentElement.querySelector("a");
  link.textContent = data.label;
  link.href = data.href;
  link.className = data.primary ? "primary" : "";
  link.onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    window.history.pushState({}, "", link.href);
    window.dispatchEvent(new PopStateEvent("popstate"));
  };
}
""",
)


def link(label: str, path: str, *, key: str, primary: bool = False, **parameters: str) -> None:
    """A link that looks like a button and stays in the session.

    Args:
        label: shown as it is, never as markdown.
        path: of a page, as `navigation.entry` knows it.
        key: unique on the page.
        primary: the page's one filled button.
        parameters: of the address.
    """
    query = urllib.parse.urlencode(parameters)
    href = f"{navigation.entry(path).path}?{query}"
    _mount(
        key=key, data={"label": label, "href": href, "primary": primary}, width="content", height="content"
    )

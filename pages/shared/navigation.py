"""The pages of the app and links between them.

To add a page: write `pages/<folder>/<name>.py` and add one line to `PAGES`.
No file stands in `pages/` itself: Streamlit's old multipage mode looks there and would answer the
first visit to a deep link without ever running `app.py`.
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import streamlit as st

ROOT = Path(__file__).parents[2]
LOGO = str(Path(__file__).with_name("logo.svg"))

TRAIN_SETTINGS = "train_settings"
"""Session state key of the settings with which the Train page starts, as `TrainConfig.flat` returns them."""

CLONED = "cloned"
"""Session state key, and kind of event: the run whose settings a new run began with."""


@dataclass(frozen=True)
class Entry:
    """One page.

    Attributes:
        file: relative to the checkout.
        path: address under the server's root; the first page has the root itself.
        in_menu: False for a page that is only reached by its address or by links.
    """

    file: str
    title: str
    path: str
    icon: str
    in_menu: bool = True


PAGES: tuple[Entry, ...] = (
    Entry("pages/home/home.py", "Home", "", ":material/home:"),
    Entry("pages/dataset/dataset.py", "Dataset", "dataset", ":material/photo_library:"),
    Entry("pages/train/train.py", "Train", "train", ":material/model_training:"),
    Entry("pages/tune/tune.py", "Tune", "tune", ":material/tune:"),
    Entry("pages/runs/runs.py", "Runs", "runs", ":material/show_chart:"),
    Entry("pages/leaderboard/leaderboard.py", "Leaderboard", "leaderboard", ":material/leaderboard:"),
    Entry("pages/mistakes/mistakes.py", "Mistakes", "gallery", ":material/image_search:"),
    Entry("pages/try_it/try_it.py", "Try it", "try", ":material/photo_camera:"),
    Entry("pages/runs/run.py", "Run", "run", ":material/article:", in_menu=False),
    Entry("pages/runs/compare.py", "Compare", "compare", ":material/compare_arrows:", in_menu=False),
)


def navigation(*, hidden: bool = False) -> Any:
    """The page that the address asks for, with the menu in the sidebar; call `.run()` on it.

    Args:
        hidden: no menu.
    """
    pages = [_page(entry) for entry in PAGES]
    return st.navigation(pages, position="hidden" if hidden else "sidebar", expanded=True)


def _page(entry: Entry) -> Any:
    return st.Page(
        ROOT / entry.file,
        title=entry.title,
        icon=entry.icon,
        url_path=entry.path or None,
        default=not entry.path,
        visibility="visible" if entry.in_menu else "hidden",
    )


def entry(path: str) -> Entry:
    """The page at this address; KeyError with the known ones where there is none."""
    for candidate in PAGES:
        if candidate.path == path:
            return candidate
    raise KeyError(f"no page at {path!r}; there are: {', '.join(repr(page.path) for page in PAGES)}")


def go(path: str, **parameters: str) -> None:
    """Leave this run of the page for another page, with query parameters; does not return."""
    st.switch_page(ROOT / entry(path).file, query_params=parameters)


def train(settings: dict[str, Any], *, cloned_from: str = "") -> None:
    """Open the Train page with these settings."""
    st.session_state[TRAIN_SETTINGS], st.session_state[CLONED] = settings, cloned_from
    go("train")


def address(path: str, **parameters: str) -> str:
    """The page's address with its parameters, relative to the server's root."""
    return f"{entry(path).path}?{urllib.parse.urlencode(parameters)}"


_mount = st.components.v2.component(
    "cifar_lab.link",
    html="<a></a>",
    css="""
a { box-sizing: border-box; display: inline-block; padding: 6px 12px; border-radius: 8px;
  border: 1px solid var(--st-border-color); font: 14px/1.6 var(--st-font);
  color: var(--st-text-color); text-decoration: none;
  text-align: center; max-width: 100%; }
a.wide { display: block; }
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
  link.className = data.look;
  link.onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    window.history.pushState({}, "", link.href);
    window.dispatchEvent(new PopStateEvent("popstate"));
  };
}
""",
)


def link(
    path: str, label: str | None = None, *, primary: bool = False, wide: bool = False, **parameters: str
) -> None:
    """A link to another page that looks like a button, keeps the session and sets the query parameters.

    Browser's Back leads to this very view: `st.page_link` and `st.switch_page` add two entries to the
    history where the page has values in its address, the first of them this page with the other one's.

    Args:
        path: of the page.
        label: shown as it is, never as markdown; the page's title where None.
        primary: the page's one filled button.
        wide: as wide as its place.
        parameters: of the address.
    """
    href, label = address(path, **parameters), label or entry(path).title
    data = {"label": label, "href": href, "look": f"{'primary ' * primary}{'wide' * wide}"}
    width: Literal["stretch", "content"] = "stretch" if wide else "content"
    _mount(key=f"link {label} {href}", data=data, width=width, height="content")

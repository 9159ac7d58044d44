"""The pages of the app and links between them.

To add a page: write `pages/<folder>/<name>.py` and add one line to `PAGES`.
No file stands in `pages/` itself: Streamlit's old multipage mode looks there and would answer the
first visit to a deep link without ever running `app.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

ROOT = Path(__file__).parents[2]
LOGO = str(Path(__file__).with_name("logo.svg"))

TRAIN_SETTINGS = "train_settings"
"""Session state key of the settings with which the Train page starts, as `TrainConfig.flat` returns them."""


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


def known(path: str) -> bool:
    """Is there a page at this address?"""
    return any(entry.path == path for entry in PAGES)


def entry(path: str) -> Entry:
    """The page at this address; KeyError with the known ones where there is none."""
    for candidate in PAGES:
        if candidate.path == path:
            return candidate
    raise KeyError(f"no page at {path!r}; there are: {', '.join(repr(page.path) for page in PAGES)}")


def go(path: str, **parameters: str) -> None:
    """Leave this run of the page for another page, with query parameters; does not return."""
    st.switch_page(ROOT / entry(path).file, query_params=parameters)


def link(path: str, label: str | None = None, **parameters: str) -> None:
    """A link to another page that keeps the session and sets the query parameters."""
    page = entry(path)
    st.page_link(ROOT / page.file, label=label or page.title, icon=page.icon, query_params=parameters or None)

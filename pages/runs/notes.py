"""What people wrote about runs: tags and a note; and which run another was cloned from. Kept as events."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from cifar_core.errors import CifarLabError
from pages.shared import access, resources
from pages.shared.navigation import CLONED
from pages.shared.words import message

TAGS, NOTE = "tags", "note"
MAX_LENGTH = 1000
"""Characters."""


@dataclass(frozen=True)
class Notes:
    """Of one run."""

    tags: tuple[str, ...] = ()
    note: str = ""
    cloned_from: str = ""


def read() -> dict[str, Notes]:
    """Of all runs that have any, by id."""
    found = resources.store().last_messages((TAGS, NOTE, CLONED))
    return {
        run_id: Notes(tags_of(kinds.get(TAGS, "")), kinds.get(NOTE, ""), kinds.get(CLONED, ""))
        for run_id, kinds in found.items()
    }


def tags_of(text: str) -> tuple[str, ...]:
    """Tags in a text: words apart by commas or spaces, each once, with or without "#"."""
    return tuple(dict.fromkeys(word.strip("#") for word in text.replace(",", " ").split() if word.strip("#")))


def edit(run_id: str) -> None:
    """A button that opens the run's tags and its note, to change them."""
    box = st.popover("Tags, note", key=f"notes_{run_id}", type="tertiary", on_change="rerun")
    if not box.open:
        return
    known = read().get(run_id, Notes())
    with box:
        for kind, widget, value in (
            (TAGS, st.text_input, " ".join(known.tags)),
            (NOTE, st.text_area, known.note),
        ):
            widget(
                kind.capitalize(),
                value=value,
                max_chars=MAX_LENGTH,
                key=f"{kind}_{run_id}",
                disabled=not access.may_launch(),
                on_change=_keep,
                args=(run_id, kind),
            )


@access.only_launchers
def _keep(run_id: str, kind: str) -> None:
    try:
        resources.store().event(run_id, kind, st.session_state[f"{kind}_{run_id}"])
    except CifarLabError as error:
        st.toast(message(error))

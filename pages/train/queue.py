"""What runs and what waits, in order, with a way out of the queue. For a fragment."""

from __future__ import annotations

from typing import Any

import streamlit as st

from cifar_core.errors import CifarLabError
from cifar_core.models import MODELS
from cifar_core.store import RunStore
from cifar_core.store.records import UNFINISHED, RunState
from pages.shared import access, navigation, resources
from pages.shared.pace import paced
from pages.shared.words import ago, message, plain

POLL_SECONDS = 2.0
MOST = 30


def show() -> None:
    """The queue, followed as long as there is one; nothing where nothing waits or runs."""
    waiting = bool(resources.store().count(RunState.QUEUED) or _active(resources.store()))
    if waiting:
        st.fragment(_queue, run_every=paced(POLL_SECONDS))()


def _active(store: RunStore) -> int:
    return store.count(RunState.RUNNING) + store.count(RunState.STOPPING)


def _queue() -> None:
    rows = _in_order(resources.store())
    if not rows:
        st.rerun()  # the last one has ended: the page shows no queue any more, and nothing polls
    with st.container(border=True):
        st.subheader("Running and waiting", anchor=False)
        place = 0
        for row in rows[:MOST]:
            queued = row["state"] == RunState.QUEUED
            place += queued
            _line(row, place if queued else None)
        if len(rows) > MOST:
            st.caption(f"and {len(rows) - MOST} more")


def _in_order(store: RunStore) -> list[dict[str, Any]]:
    """Running ones first, then by place in the queue: as the supervisor takes them."""
    ids = store.runs(state=UNFINISHED)["id"].tolist()[::-1]
    records = sorted(
        (store.get(run_id) for run_id in ids),
        key=lambda record: (record.state is RunState.QUEUED, record.queued_at, record.id),
    )
    return [vars(record) for record in records]


def _line(row: dict[str, Any], place: int | None) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(_told(row, place), width="stretch")
        if st.button("Watch", key=f"queue_watch_{row['id']}", type="tertiary"):
            navigation.go("runs", runs=row["id"])
        if place is not None:
            access.button(
                "Cancel",
                key=f"queue_cancel_{row['id']}",
                type="tertiary",
                icon=":material/close:",
                help="Take it out of the queue; it can be put back on its own page.",
                on_click=_cancel,
                args=(row["id"],),
            )


def _told(row: dict[str, Any], place: int | None) -> str:
    title = MODELS[row["model"]].title if row["model"] in MODELS else row["model"]
    what = f"{plain(title)} · {row['epochs']} epochs · seed {row['seed']}"
    if place is not None:
        return f"**{place}. {plain(row['id'])}**  \n:small[{what} · queued {ago(row['queued_at'])}]"
    stage = "stopping…" if row["state"] == RunState.STOPPING else row["stage"] or "starting"
    return f"**{plain(row['id'])}**, {plain(str(stage))}  \n:small[{what}]"


def _cancel(run_id: str) -> None:
    """It may have begun in this very moment: then it is asked to stop, which is what was wanted."""
    try:
        resources.store().request_stop(run_id)
    except CifarLabError as error:
        st.toast(message(error))

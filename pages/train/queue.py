"""Running and queued runs, with a button to remove each from the queue."""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from cifar_core.errors import CifarLabError, StoreError
from cifar_core.store import RunRecord, RunStore
from cifar_core.store.records import UNFINISHED, RunState
from pages.shared import access, navigation, resources
from pages.shared.pace import paced
from pages.shared.words import ago, message, model_title, plain

POLL_SECONDS = 2.0
MAX_SHOWN = 30
ON_A_PHONE = """<style>@media (min-width: 641px) {
  .st-key-queue_link, :has(> .st-key-queue_link):not(:has(h1)) { display: none; } }</style>"""


def show() -> None:
    """The queue, updated while it has entries; nothing where it is empty."""
    if any(resources.store().count(state) for state in UNFINISHED):
        st.fragment(_queue, run_every=paced(POLL_SECONDS))()


def link() -> None:
    """On a phone the queue stands far below: a link to it, where there is one."""
    number = 0
    with suppress(StoreError):  # which the rest of the page tells
        number = sum(resources.store().count(state) for state in UNFINISHED)
    if number:
        st.html(ON_A_PHONE)
        with st.container(key="queue_link"):
            st.markdown(f"[{number} running or queued](#queue)")


def _queue() -> None:
    records = _in_order(resources.store())
    if not records:
        st.rerun()  # the last one has ended: the page shows no queue any more and stops polling
    with st.container(border=True):
        st.subheader("Running and queued", anchor="queue")
        place = 0
        for record in records[:MAX_SHOWN]:
            queued = record.state is RunState.QUEUED
            place += queued
            _line(record, place if queued else None)
        if len(records) > MAX_SHOWN:
            st.caption(f"and {len(records) - MAX_SHOWN} more")


def _in_order(store: RunStore) -> list[RunRecord]:
    """Running ones first, then queued ones in the order in which they will start."""
    records = [store.get(run_id) for run_id in store.runs(state=UNFINISHED)["id"]]
    return sorted(records, key=lambda record: (record.state is RunState.QUEUED, record.queued_at, record.id))


def _line(record: RunRecord, place: int | None) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(_description(record, place), width="stretch")
        if st.button("Watch", key=f"queue_watch_{record.id}", type="tertiary"):
            navigation.go("runs", runs=record.id)
        if place is not None:
            access.button(
                "Cancel",
                key=f"queue_cancel_{record.id}",
                type="tertiary",
                icon=":material/close:",
                help="Remove it from the queue; its own page can put it back.",
                on_click=_cancel,
                args=(record.id,),
            )


def _description(record: RunRecord, place: int | None) -> str:
    run_id = plain(record.id)
    what = f"{plain(model_title(record.model))} · {record.epochs} epochs · seed {record.seed}"
    if place is not None:
        return f"**{place}. {run_id}**  \n:small[{what} · queued {ago(record.queued_at)}]"
    stage = "stopping…" if record.state is RunState.STOPPING else record.stage or "starting"
    return f"**{run_id}**, {plain(stage)}  \n:small[{what}]"


def _cancel(run_id: str) -> None:
    """A run that has just begun is asked to stop, which is what was wanted."""
    try:
        resources.store().request_stop(run_id)
    except CifarLabError as error:
        st.toast(message(error))

"""What every page tells at its side: the data in use, the device, and what is running now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.shared import navigation, resources

if TYPE_CHECKING:
    from cifar_core.devices import DeviceSummary

POLL_SECONDS = 2.0
SHOWN_RUNS = 4


def show() -> None:
    """Draw the sidebar's part below the menu."""
    with st.sidebar:
        _dataset()
        _device(resources.device())
        active = active_runs()
        # A fragment polls only while there is something to follow.
        st.fragment(_running, run_every=POLL_SECONDS if active else None)()


def active_runs() -> list[dict[str, Any]]:
    """Runs that are running, stopping or queued, in this order; rows of `RunStore.runs`."""
    from cifar_core.store.states import UNFINISHED

    frame = resources.store().runs(state=UNFINISHED)
    rows = frame[["id", "state", "stage", "epochs", "epochs_done", "step", "steps", "created_at"]].to_dict(
        "records"
    )
    return sorted(rows, key=lambda row: (row["state"] == "queued", row["created_at"]))


def _dataset() -> None:
    name = resources.chosen_dataset()
    if name == "synthetic":
        _fact("Dataset", resources.DATASETS[name], "drawn by a program, not photographs")
        return
    state = resources.dataset_state()
    if state.found:
        _fact("Dataset", resources.DATASETS[name], str(state.source))
        return
    _fact("Dataset", "CIFAR-10 is not here yet")
    navigation.link("dataset", "Get the images")


def _device(device: DeviceSummary) -> None:
    if device.kind == "gpu":
        more = f" × {device.gpus}" if device.gpus > 1 else ""
        _fact("Device", f"{device.name}{more}", f"{device.memory_gb:g} GB memory · {device.precision}")
    else:
        cores = "1 core" if device.cores == 1 else f"{device.cores} cores"
        _fact("Device", f"CPU, {cores}", f"{device.name} · {device.precision}")


def _fact(label: str, value: str, detail: str = "") -> None:
    tail = f"  \n:small[{_plain(detail)}]" if detail else ""
    st.markdown(f":small[:gray[{label}]]  \n**{_plain(value)}**{tail}")


def _plain(text: str) -> str:
    """Text whose brackets and colons markdown must not read as its own."""
    return "".join("\\" + sign if sign in r"\[]*_`:$<>" else sign for sign in text)


def _running() -> None:
    runs = active_runs()
    was_active = st.session_state.pop("_sidebar_active", False)
    if not runs:
        if was_active:
            st.rerun()  # the last one has ended: let the page show it, and stop polling
        st.markdown(":small[:gray[Running]]  \nNothing")
        return
    st.session_state["_sidebar_active"] = True
    st.markdown(":small[:gray[Running]]")
    for run in runs[:SHOWN_RUNS]:
        _run(run)
    if len(runs) > SHOWN_RUNS:
        st.caption(f"and {len(runs) - SHOWN_RUNS} more in the queue")


def _run(run: dict[str, Any]) -> None:
    st.progress(_share(run), text=f"{_plain(run['id'])}  \n:small[{_doing(run)}]")
    waiting = run["state"] == "queued"
    if st.button(
        "Take out of the queue" if waiting else "Stop",
        key=f"sidebar_stop_{run['id']}",
        disabled=run["state"] == "stopping",
        width="stretch",
    ):
        resources.store().request_stop(run["id"])
        st.rerun()


def _share(run: dict[str, Any]) -> float:
    """Part of the whole run that is done, 0..1, steps of the running epoch included."""
    within = run["step"] / run["steps"] if run["steps"] and run["steps"] > 0 else 0.0
    share = (run["epochs_done"] + within) / run["epochs"]
    return min(share, 1.0) if share == share else 0.0


def _doing(run: dict[str, Any]) -> str:
    if run["state"] == "queued":
        return "waiting in the queue"
    if run["state"] == "stopping":
        return "stopping…"
    epoch = min(run["epochs_done"] + 1, run["epochs"])
    stage = run["stage"]
    if stage and not str(stage).startswith("epoch"):
        return _plain(str(stage))
    return f"epoch {epoch} of {run['epochs']}"

"""What every page tells at its side: the data in use, the device, and what is running now."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from cifar_core.data import catalogue
from cifar_core.errors import StoreError
from cifar_core.workers.cluster.status import ClusterStatus, cluster_statuses, node_of
from pages.shared import access, navigation, notify, rebuild, resources, sign_in
from pages.shared.pace import paced
from pages.shared.words import plain

if TYPE_CHECKING:
    from cifar_core.base.devices import DeviceSummary

POLL_SECONDS = 2.0
SHOWN_JOBS = 4
SHOWN_NODES = 6
WIDTH = 250
"""Pixels."""
ROOM = """<style>
@media (min-width: 768px) { .stMainBlockContainer { padding-left: 3rem; padding-right: 3rem; } }
@media (max-width: 640px) { .stTabs [role="tablist"] { flex-wrap: wrap; row-gap: 0; overflow: visible; } }
</style>"""
"""Pages use more of the window's width than Streamlit would give them; on a phone tabs take several lines."""


@dataclass(frozen=True)
class Job:
    """A run or a search that is not over: what the sidebar tells of it. `share` is in 0..1."""

    id: str
    state: str
    share: float
    doing: str


def show() -> None:
    """Draw the sidebar's part below the menu."""
    with st.sidebar:
        st.html(ROOM)
        sign_in.who()
        _dataset()
        _device(resources.device())
        try:
            for cluster in cluster_statuses(resources.store()):
                _cluster(cluster)
            jobs = active_jobs()
        except StoreError as error:
            # The page says why; the menu and the rest of the sidebar go on.
            st.markdown(":small[:gray[Running]]  \nThe records cannot be read")
            rebuild.offer(error)
            return
        # A fragment polls only while there is something to follow.
        st.fragment(_running, run_every=paced(POLL_SECONDS) if jobs else None)(jobs)


def active_jobs() -> list[Job]:
    """Runs and searches that are running or stopping, then those in the queue, each oldest first."""
    told = {"run": _run_job, "search": _search_job}
    lacking = _lacking(cluster_statuses(resources.store()))
    jobs = [told[row["kind"]](row) for row in resources.store().unfinished()]
    jobs = [replace(job, doing=f"waiting: {lacking[job.id]}") if job.id in lacking else job for job in jobs]
    return sorted(jobs, key=lambda job: job.state == "queued")


def _run_job(row: dict[str, Any]) -> Job:
    epochs, done = row["epochs"], row["epochs_done"]
    within = _number(row["step"]) / max(_number(row["steps"]), 1)
    text = f"epoch {min(done + 1, epochs)} of {epochs}"
    return _job(row, min((done + within) / epochs, 1.0), text)


def _search_job(row: dict[str, Any]) -> Job:
    done, planned = _number(row["trials_done"]), _number(row["trials_planned"])
    text = f"{done:.0f} of {planned:.0f} trials" if planned else f"{done:.0f} trials"
    return _job(row, min(done / planned, 1.0) if planned else 0.0, text)


def _job(row: dict[str, Any], share: float, progress: str) -> Job:
    stage = row["stage"] or ""
    doing = {"queued": "waiting in the queue", "stopping": "stopping…"}.get(row["state"])
    if doing is None:
        doing = progress if not stage or stage.startswith("epoch") else f"{progress} · {stage}"
        node = node_of(row["device"])
        doing += f" · on {node}" if node else ""
    return Job(row["id"], str(row["state"]), share, doing)


def _number(value: Any) -> float:
    """What is not known yet counts as none."""
    return 0.0 if value is None else float(value)


def _dataset() -> None:
    name = resources.chosen_dataset()
    if name == catalogue.SYNTHETIC:
        _fact("Dataset", resources.title_of(name), "drawn by a program, not photographs")
        return
    if name != catalogue.DEFAULT:
        known = catalogue.find(name)
        size = "" if known is None else f"{known.problem.count} classes, {known.problem.side} pixels"
        _fact("Dataset", resources.title_of(name), size or "not on this machine")
        return
    state = resources.dataset_state()
    if state.found:
        _fact("Dataset", resources.title_of(name), str(state.source))
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


def _lacking(clusters: list[ClusterStatus]) -> dict[str, str]:
    """By job: what it waits for, where it waits on every cluster."""
    everywhere = set.intersection(*(set(one.waiting) for one in clusters)) if clusters else set()
    return {job: clusters[0].waiting[job] for job in everywhere}


def _cluster(status: ClusterStatus) -> None:
    slots, used = (sum(getattr(node, name) for node in status.nodes) for name in ("slots", "used"))
    nodes = " · ".join(f"{node.name} {node.used}/{node.slots}" for node in status.nodes[:SHOWN_NODES])
    _fact("Cluster", f"{used} of {slots} slots in use", nodes)


def _fact(label: str, value: str, detail: str = "") -> None:
    tail = f"  \n:small[{plain(detail)}]" if detail else ""
    st.markdown(f":small[:gray[{label}]]  \n**{plain(value)}**{tail}")


def _running(drawn_with: list[Job]) -> None:
    jobs = active_jobs()
    if drawn_with and not jobs:
        st.rerun()  # the last one has ended: let the page show it, and stop polling
    if not jobs:
        st.markdown(":small[:gray[Running]]  \nNothing")
        notify.show(())
        return
    st.markdown(":small[:gray[Running]]")
    for job in jobs[:SHOWN_JOBS]:
        _show_job(job)
    if len(jobs) > SHOWN_JOBS:
        st.caption(f"and {len(jobs) - SHOWN_JOBS} more in the queue")
    notify.show([job.id for job in jobs])


def _show_job(job: Job) -> None:
    st.progress(job.share, text=f"{plain(job.id)}  \n:small[{plain(job.doing)}]")
    access.button(
        "Take out of the queue" if job.state == "queued" else "Stop",
        key=f"sidebar_stop_{job.id}",
        disabled=job.state == "stopping",
        width="stretch",
        on_click=_stop,
        args=(job.id,),
    )


def _stop(job_id: str) -> None:
    from cifar_core.errors import RunStateError

    with contextlib.suppress(RunStateError):  # it ended by itself while somebody was clicking
        resources.store().request_stop(job_id)

"""The Runs page: curves of the ticked runs (`?runs=a,b`), one of them in numbers, and a table of all."""

from __future__ import annotations

from typing import Any

import streamlit as st

from cifar_core.base.lazy import pd
from cifar_core.errors import StoreError
from cifar_core.store.records import UNFINISHED
from cifar_core.store.watch import Watch, Watched
from pages.runs import comparison, listing, panel
from pages.shared import log, navigation, pace, rebuild, resources, trained
from pages.shared.snapshot import current_runs
from pages.shared.words import message, plain, shortened

MOST_RUNS = 24
"""Shown together."""
MOST_ID = 80
WATCH = "_live_watch"


def page() -> None:
    try:
        frame = current_runs()
    except StoreError as error:
        st.title("Runs", anchor=False)
        st.error(message(error))
        return
    rebuild.notices(resources.store())
    if frame.empty:
        _empty()
        return
    chosen = _choose(frame)
    unfinished = bool(frame["state"].isin(UNFINISHED).any())
    st.fragment(_live, run_every=pace.poll(unfinished))(chosen, unfinished)
    if len(chosen) > 1:
        comparison.show(frame.set_index("id", drop=False).loc[chosen])


def _empty() -> None:
    st.title("Runs", anchor=False)
    _say_missing(_asked())
    st.info(
        "Nothing has been trained here yet. A run appears in this place as soon as it is started, with its "
        "curves, its log and its buttons."
    )
    with st.container(horizontal=True, gap="small"):
        navigation.link("train", "Train the first network", primary=True)
        trained.offer()


# --- Which runs ---------------------------------------------------------------------------------


def _asked() -> list[str]:
    """Ids that the address names, each once; `?runs=a,b` and `?runs=a&runs=b` say the same."""
    words = [word.strip() for part in st.query_params.get_all("runs") for word in part.split(",")]
    return list(dict.fromkeys(word for word in words if word))


def _choose(frame: pd.DataFrame) -> list[str]:
    """The runs to show. The address is the truth; the first choice is written into it, so that it stays."""
    known = set(frame["id"])
    if "runs" not in st.query_params:
        st.query_params["runs"] = ",".join(_first_choice(frame))
    asked = _asked()
    chosen = [run_id for run_id in asked if run_id in known]
    _say_missing([run_id for run_id in asked if run_id not in known])
    if len(chosen) > MOST_RUNS:
        st.info(f"{len(chosen)} runs are asked for; the first {MOST_RUNS} are shown.")
    return chosen[:MOST_RUNS]


def _first_choice(frame: pd.DataFrame) -> list[str]:
    """What trains now and then what waits, each in the order in which it came; or the newest run."""
    active = frame[frame["state"].isin(UNFINISHED)].sort_values(
        ["state", "created_at"], ascending=[False, True]
    )
    return active["id"].tolist()[:MOST_RUNS] or frame["id"].tolist()[:1]


def _tick(ticked: list[str], shown: list[str]) -> None:
    _write(listing.after_ticking(_asked(), ticked, shown))


def _write(run_ids: list[str]) -> None:
    st.query_params["runs"] = ",".join(run_ids)


def _say_missing(unknown: list[str]) -> None:
    if not unknown:
        return
    names = ", ".join(plain(shortened(name, MOST_ID)) for name in unknown[:5])
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    st.info(
        f"Not in this store: {names}{more}. Deleted, or of another machine. "
        "What there is can be chosen below."
    )


# --- Live ---------------------------------------------------------------------------------------


def _live(chosen: list[str], polling: bool) -> None:
    store, frame = resources.store(), current_runs()
    known = set(frame["id"])
    if [run_id for run_id in _asked() if run_id in known][:MOST_RUNS] != chosen:
        st.rerun()  # others were ticked, or one was deleted
    if polling and not frame["state"].isin(UNFINISHED).any():
        st.rerun()  # the last one has ended: nothing more to poll for
    baseline = st.query_params.get(listing.BASELINE, "")
    drawn = [*chosen, *([baseline] if baseline in known and baseline not in chosen else [])]
    watch = panel.watch(store, WATCH, _about(frame, drawn))
    colours = panel.places(drawn)
    view, measures = panel.header("Runs", baseline if baseline in known and len(drawn) > 1 else "")
    if watch.runs:
        runs = list(watch.runs.values())
        panel.show(
            runs, lambda: _focus(watch), measures, view, colours, here="runs", after_deletion=_leave_out
        )
    else:
        st.info("Tick runs in the table to see their curves here.")
    listing.show(frame, chosen, colours, _tick)
    if watch.runs:
        box = st.expander("Log", key="log", bind="query-params", on_change="rerun")
        if box.open:
            run = watch.runs.get(st.session_state.get("focus", "")) or next(iter(watch.runs.values()))
            with box:
                st.caption(f"The log of {plain(run.id)}.")
                log.show(store, run)


def _about(frame: pd.DataFrame, run_ids: list[str]) -> list[dict[str, Any]]:
    rows = frame[frame["id"].isin(run_ids)].to_dict("records")
    return sorted(rows, key=lambda run: run_ids.index(run["id"]))


def _focus(watch: Watch) -> Watched:
    """The run whose numbers and buttons stand beside the curves."""
    if len(watch.runs) == 1:
        return next(iter(watch.runs.values()))
    chosen = st.selectbox(
        "Numbers of", list(watch.runs), key="focus", bind="query-params", label_visibility="collapsed"
    )
    return watch.runs[chosen]


def _leave_out(run: Watched) -> None:
    """After its deletion: the others stay."""
    _write([other for other in _asked() if other != run.id])
    st.rerun()


page()

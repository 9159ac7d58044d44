"""The Runs page: chosen runs as they train (`?runs=a,b`), several of them compared, and all runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from cifar_core.errors import StoreError
from cifar_core.plots.live import View
from cifar_core.plots.palette import model_colour
from cifar_core.store import RunState, RunStore
from cifar_core.store.watch import Watch, Watched
from pages.runs import comparison, panel, words
from pages.shared import log, navigation, pace, resources
from pages.shared.table import STYLE, table_html
from pages.shared.words import NOTHING, message, model_title, percent, plain, shortened

if TYPE_CHECKING:
    import pandas as pd

MOST_RUNS = 24
"""Watched at once."""
UNFINISHED = [state for state in RunState if not state.is_finished()]
MOST_ID = 80
CHOSEN = "live_chosen"
WATCH = "_live_watch"
TABS = ("Curves", "Speed and rate", "Log")


def page() -> None:
    st.title("Runs", anchor=False)
    try:
        store = resources.store()
        frame = store.runs()
    except StoreError as error:
        st.error(message(error))
        return
    if frame.empty:
        _empty()
        return
    chosen = _choose(frame)
    if chosen:
        about = frame[frame["id"].isin(chosen)].to_dict("records")
        about.sort(key=lambda run: chosen.index(run["id"]))
        unfinished = any(run["state"] in UNFINISHED for run in about)
        st.fragment(_live, run_every=pace.poll(unfinished))(about, unfinished)
    if len(chosen) > 1:
        comparison.show(frame.set_index("id", drop=False).loc[chosen])
    _all_runs(frame)


def _empty() -> None:
    unknown = _asked()
    if unknown:
        _say_missing(unknown)
    st.info(
        "Nothing has been trained here yet. A run appears in this place as soon as it is started, with its "
        "curves, its log and its buttons."
    )
    if navigation.known("train"):
        navigation.link("train", "Start a training")


# --- Which runs ---------------------------------------------------------------------------------


def _asked() -> list[str]:
    """Ids that the address names, each once; `?runs=a,b` and `?runs=a&runs=b` say the same."""
    words = [word.strip() for part in st.query_params.get_all("runs") for word in part.split(",")]
    return list(dict.fromkeys(word for word in words if word))


def _choose(frame: pd.DataFrame) -> list[str]:
    """The runs to watch. The address is the truth; the widget shows it and changes it."""
    known = frame["id"].tolist()
    if "runs" not in st.query_params:
        st.query_params["runs"] = ",".join(_first_choice(frame))
    asked = _asked()
    chosen = [run_id for run_id in asked if run_id in set(known)]
    _say_missing([run_id for run_id in asked if run_id not in chosen])
    if len(chosen) > MOST_RUNS:
        st.info(f"{len(chosen)} runs are asked for; the first {MOST_RUNS} are shown.")
    st.session_state[CHOSEN] = chosen[:MOST_RUNS]
    names = {run["id"]: str(run["name"] or "").strip() for run in frame[["id", "name"]].to_dict("records")}
    return st.multiselect(
        "Watch",
        known,
        key=CHOSEN,
        format_func=lambda run_id: f"{run_id}  {names[run_id]}".strip(),
        max_selections=MOST_RUNS,
        placeholder="Choose one run or several",
        on_change=_write_address,
    )


def _first_choice(frame: pd.DataFrame) -> list[str]:
    """What trains now and then what waits, each in the order in which it came; or the newest run."""
    active = frame[frame["state"].isin(UNFINISHED)].sort_values(
        ["state", "created_at"], ascending=[False, True]
    )
    return active["id"].tolist()[:MOST_RUNS] or frame["id"].tolist()[:1]


def _write_address() -> None:
    st.query_params["runs"] = ",".join(st.session_state[CHOSEN])


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


def _live(about: list[dict[str, Any]], polling: bool) -> None:
    store = resources.store()
    watch = panel.watch(store, WATCH, about)
    if len(watch.runs) < len(about) or (polling and not watch.unfinished()):
        st.rerun()  # one was deleted elsewhere, or the last one has ended: nothing more to poll for
    runs = list(watch.runs.values())
    places = panel.places_in_queue(store, runs)
    run = _focus(watch, places)
    panel.show(run, here="runs", after_deletion=lambda: _leave_out(run.id), places=places)
    tabs = st.tabs(list(TABS), key="tab", bind="query-params")
    for tab, show in zip(tabs, (_curves, _speed, _log_tail), strict=True):
        if tab.open:
            with tab:
                show(store, runs, run)


def _focus(watch: Watch, places: dict[str, int]) -> Watched:
    """The run whose numbers, buttons and log are shown; of several, all are told in a table first."""
    runs = list(watch.runs.values())
    if len(runs) == 1:
        return runs[0]
    st.html(STYLE + _table(runs, places))
    chosen = st.selectbox(
        "Numbers, buttons and log of", list(watch.runs), key="focus", bind="query-params", width=420
    )
    return watch.runs[chosen]


def _table(runs: list[Watched], places: dict[str, int]) -> str:
    header = ("Run", "State", "Epochs", "Validation", "Test", "Images/s", "Done at")
    rows = [_row(run, places, len(places)) for run in runs]
    return table_html(
        header, rows, right=(2, 3, 4, 5, 6), dots=[model_colour(run.about["model"]) for run in runs]
    )


def _row(run: Watched, places: dict[str, int], waiting: int) -> tuple[str, ...]:
    said = words.headline(run, (places[run.id], waiting) if run.id in places else None)
    speed, ends = words.facts_of_speed(run)
    name = str(run.about["name"] or "").strip()
    return (
        f"{run.id}  {shortened(name, 40)}".strip(),
        f"{said.title}: {shortened(said.detail, 70)}" if said.detail else said.title,
        f"{len(run.epochs)} / {run.row.get('epochs', NOTHING)}",
        percent(run.last.get("val_accuracy")),
        percent(run.row.get("accuracy")),
        speed,
        ends,
    )


def _leave_out(run_id: str) -> None:
    """After its deletion: the others stay watched."""
    st.query_params["runs"] = ",".join(other for other in _asked() if other != run_id)
    st.rerun()


def _curves(_: RunStore, runs: list[Watched], __: Watched) -> None:
    panel.curves(runs, ("accuracy", "loss"), panel.controls(), key="live")
    panel.explain()


def _speed(_: RunStore, runs: list[Watched], __: Watched) -> None:
    panel.curves(runs, ("learning_rate", "images_per_second"), View(study=False), key="live")


def _log_tail(store: RunStore, runs: list[Watched], run: Watched) -> None:
    if len(runs) > 1:
        st.caption(f"The log of {plain(run.id)}.")
    log.show(store, run)


# --- All ----------------------------------------------------------------------------------------


def _all_runs(frame: pd.DataFrame) -> None:
    st.subheader("All runs", anchor=False)
    # The key holds the number of runs: a choice of rows means nothing once the rows have moved.
    picked = st.dataframe(
        _listed(frame),
        key=f"live_list_{len(frame)}",
        hide_index=True,
        placeholder=NOTHING,
        on_select="rerun",
        selection_mode="multi-row",
        height="content" if len(frame) <= 10 else 390,
        column_config={
            "Validation": st.column_config.NumberColumn(format="%.2f %%", help="Best of its epochs"),
            "Test": st.column_config.NumberColumn(format="%.2f %%"),
            "Created": st.column_config.DatetimeColumn(format="D MMM YYYY, HH:mm"),
        },
    )
    rows = [row for row in picked["selection"]["rows"] if row < len(frame)][:MOST_RUNS]
    ids = [frame["id"].iloc[row] for row in rows]
    with st.container(horizontal=True, gap="small"):
        if st.button("Open the run", disabled=len(ids) != 1, icon=":material/article:", key="list_open"):
            navigation.go("run", id=ids[0])
        if st.button("Watch these", disabled=not ids, icon=":material/show_chart:", key="list_watch"):
            st.query_params["runs"] = ",".join(ids)
            st.rerun()
    if not ids:
        st.caption("Tick one run to open it, or several to watch them together.")


def _listed(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    columns = {
        "Run": frame["id"],
        "State": frame["state"],
        "Model": [model_title(model) for model in frame["model"]],
        "Variant": frame["variant"],
        "Epochs": [
            f"{done} / {planned}" for done, planned in zip(frame["epochs_done"], frame["epochs"], strict=True)
        ],
        "Validation": 100 * frame["best_val_accuracy"],
        "Test": 100 * frame["accuracy"],
        "Created": pd.to_datetime(frame["created_at"]),
        "Preset": frame["preset"].fillna(""),
        "Note": frame["name"],
    }
    return pd.DataFrame(columns)


page()

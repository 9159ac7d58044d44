"""Search for good settings: set up a search, start it, watch it, go on with it.

`?search=search-1a2b3c` shows one search, live; without it, the page sets up a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from cifar_core.errors import CifarLabError, ConfigError, RunNotFoundError, StoreError
from cifar_core.models import MODELS
from cifar_core.store import SearchRecord
from cifar_core.store.records import UNFINISHED
from pages.runs import panel
from pages.shared import resources
from pages.shared.widgets import setting_widget
from pages.shared.words import NOTHING, message, model_title, plain
from pages.tune import draft, launch, live, space

if TYPE_CHECKING:
    import pandas as pd

MODEL, SEARCH, START, LISTED = "tune_model", "tune_search", "tune_start", "tune_list"
PLAIN_DEFAULTS = "Plain defaults"
SEARCH_PRESETS_SPOKEN = {"paper-search": "The study's search"}
START_SPOKEN = {"paper-baseline": "The study's baseline", "paper-tuned": "The study's tuned"}


def page() -> None:
    asked = st.query_params.get("search", "").strip()
    try:
        frame = resources.store().searches()
        record = _record(asked) if asked else None
    except StoreError as error:
        st.title("Tune", anchor=False)
        st.error(message(error))
        return
    if record is None:
        _set_up(asked)
    else:
        _live(record)
    _all_searches(frame)


def _record(asked: str) -> SearchRecord | None:
    """The search that the address names; None with the reason said where there is none."""
    try:
        return resources.store().get_search(asked)
    except RunNotFoundError as error:
        st.session_state[draft.SAID] = str(error)
        return None


# --- One search -----------------------------------------------------------------------------------


def _live(record: SearchRecord) -> None:
    if st.query_params["search"] != record.id:  # its beginning is enough to name it
        st.query_params["search"] = record.id
    st.title(record.id, anchor=False)
    pieces = [model_title(record.model), record.tuner, f"seed {record.seed}", _images(record)]
    st.markdown(" · ".join(plain(piece) for piece in pieces if piece))
    if record.name.strip():
        st.markdown(f"*{plain(record.name)}*")
    st.button(
        "Set up a new search", key="tune_new", type="tertiary", icon=":material/add:", on_click=_new_search
    )
    try:
        _ = record.config
    except ConfigError as error:
        st.warning(f"This search is of another release and can't be shown here. {message(error)}")
        return
    polling = not record.state.is_finished()
    st.fragment(live.show, run_every=panel.poll(polling))(record.id, polling)


def _images(record: SearchRecord) -> str:
    base = record.settings.get("base", {})
    name = resources.DATASETS.get(str(base.get("dataset", "cifar10")), "")
    limit = base.get("train_limit")
    return f"{name}, {limit:,} training images" if limit else name


def _new_search() -> None:
    st.query_params.clear()


# --- A new search ---------------------------------------------------------------------------------


def _set_up(asked: str) -> None:
    st.title("Tune", anchor=False)
    if asked:
        del st.query_params["search"]
    launch.ONCE.renew(arrived=MODEL not in st.session_state)
    settings = draft.current()
    if said := st.session_state.pop(draft.SAID, None):
        st.info(plain(said))
    st.caption(
        "Trains many variants of a network for a short while, each judged on images cut from the training "
        "set, and then the best one in full. The test images are looked at once, by that last run."
    )
    _choose_model(settings)
    _choose_search(settings)
    left, right = st.columns([5, 4], gap="large")
    with left:
        space.show(settings)
    with right, st.container(border=True):
        st.subheader("Search", anchor=False)
        _options(settings)
        try:
            launch.show(settings)
        except CifarLabError as error:
            st.error(message(error))


def _choose_model(settings: draft.Settings) -> None:
    st.session_state[MODEL] = settings["model"]
    st.pills(
        "Model",
        list(MODELS),
        format_func=model_title,
        required=True,
        wrap=True,
        key=MODEL,
        on_change=lambda: draft.choose_model(st.session_state[MODEL]),
    )


def _choose_search(settings: draft.Settings) -> None:
    model = settings["model"]
    with st.container(horizontal=True, gap="large", vertical_alignment="bottom"):
        if named := draft.searches_of(model):
            st.session_state[SEARCH] = settings["search"]
            st.pills(
                "Search",
                [*named, draft.OWN],
                format_func=_search_spoken,
                required=True,
                key=SEARCH,
                on_change=lambda: draft.choose_search(st.session_state[SEARCH]),
            )
        st.session_state[START] = settings["start"] or draft.OWN
        st.pills(
            "All trials start from",
            [*draft.starts_of(model), draft.OWN],
            format_func=_start_spoken,
            required=True,
            wrap=True,
            key=START,
            on_change=_start_chosen,
            help="What all trials have where nothing is explored or fixed below.",
        )
    st.caption(plain(draft.why(settings)))
    if draft.held_out(settings["start"]):
        st.caption(
            "That preset was chosen by the test images; trials are chosen by images cut from the training "
            "set instead (protocol held-out)."
        )


def _search_spoken(name: str) -> str:
    kind = name.partition("/")[2]
    return "My own" if name == draft.OWN else SEARCH_PRESETS_SPOKEN.get(kind, kind)


def _start_spoken(name: str) -> str:
    kind = name.partition("/")[2]
    return PLAIN_DEFAULTS if name == draft.OWN else START_SPOKEN.get(kind, kind.capitalize())


def _start_chosen() -> None:
    chosen = st.session_state[START]
    draft.choose_start(None if chosen == draft.OWN else chosen)


def _options(settings: draft.Settings) -> None:
    """The search's own settings, as they are declared; those of other tuners are left out."""
    options = settings["options"]
    tuner = draft.OPTIONS["tuner"]
    chosen = st.segmented_control(
        "Tuner",
        tuner.choices,
        default=options["tuner"],
        format_func=str.capitalize,
        required=True,
        key=draft.key("option_tuner"),
        help=tuner.help,
    )
    draft.set_option("tuner", chosen)
    for name, declared in draft.OPTIONS.items():
        if name in options and name != "tuner" and _belongs(name, chosen):
            value = setting_widget(declared, options[name], key=draft.key(f"option_{name}"))
            draft.set_option(name, value)


def _belongs(name: str, tuner: str) -> bool:
    hyperband = tuner == "hyperband"
    return name not in (draft.OF_OTHERS if hyperband else draft.OF_HYPERBAND)


# --- All ------------------------------------------------------------------------------------------


def _all_searches(frame: pd.DataFrame) -> None:
    st.subheader("All searches", anchor=False)
    if frame.empty:
        st.info("Nothing has been searched here yet. A search is listed here as soon as it is launched.")
        return
    # The key holds the number of searches: a choice of rows means nothing once the rows have moved.
    picked = st.dataframe(
        _listed(frame),
        key=f"{LISTED}_{len(frame)}",
        hide_index=True,
        placeholder=NOTHING,
        on_select="rerun",
        selection_mode="single-row",
        height="content" if len(frame) <= 10 else 390,
        column_config={
            "Best": st.column_config.NumberColumn(format="%.2f %%", help="Validation accuracy"),
            "Created": st.column_config.DatetimeColumn(format="D MMM YYYY, HH:mm"),
        },
    )
    rows = [row for row in picked["selection"]["rows"] if row < len(frame)]
    chosen = frame["id"].iloc[rows[0]] if rows else None
    st.button(
        "Open the search",
        key="tune_open",
        icon=":material/monitoring:",
        disabled=chosen is None,
        on_click=launch.open_search,
        args=(chosen,),
    )
    if chosen is None:
        st.caption("Tick one to open it.")


def _listed(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    running = frame["state"].isin(UNFINISHED) & frame["stage"].notna()
    return pd.DataFrame(
        {
            "Search": frame["id"],
            "State": frame["state"].where(~running, frame["state"] + ": " + frame["stage"].fillna("")),
            "Model": [model_title(model) for model in frame["model"]],
            "Tuner": frame["tuner"],
            "Trials": [
                f"{done} / {NOTHING if planned != planned or planned is None else int(planned)}"
                for done, planned in zip(frame["trials_done"], frame["trials_planned"], strict=True)
            ],
            "Best": 100 * frame["best_score"].astype(float),
            "Created": pd.to_datetime(frame["created_at"]),
            "Run": frame["best_run"].fillna(""),
            "Note": frame["name"],
        }
    )


page()

"""The Tune page: set up a search, start it, watch it, continue it.

`?search=search-1a2b3c` shows one search, live; without it, the page sets up a new one.
"""

from __future__ import annotations

import streamlit as st

from cifar_core.base.lazy import pd
from cifar_core.data import catalogue
from cifar_core.errors import CifarLabError, ConfigError, RunNotFoundError, StoreError
from cifar_core.plots.palette import model_colour
from cifar_core.store import SearchRecord
from cifar_core.store.records import UNFINISHED
from pages.shared import navigation, resources
from pages.shared.draft import Settings, presets_of
from pages.shared.pace import paced
from pages.shared.run_table import Column, Row, table
from pages.shared.table import STATE_ICONS
from pages.shared.widgets import setting_widget
from pages.shared.words import NOTHING, date_and_time, message, model_title, percent, plain, shortened
from pages.tune import draft, launch, live, space
from pages.tune.draft import DRAFT

POLL_SECONDS = 1.0
COLUMNS = (
    Column("search", "Search", text=True),
    Column("state", "State", text=True),
    Column("tuner", "Tuner", text=True),
    Column("trials", "Trials"),
    Column("best", "Best validation", help="Highest validation accuracy of its trials"),
    Column("created", "Created", text=True),
)
SEARCH_LABELS = {draft.OWN: "My own", "paper-search": "The study's search"}


def page() -> None:
    asked = st.query_params.get("search", "").strip()
    record = None
    try:
        searches = resources.store().searches()
        if asked:
            record = resources.store().get_search(asked)
    except RunNotFoundError as error:
        DRAFT.report(error)
    except StoreError as error:
        st.title("Tune", anchor=False)
        st.error(message(error))
        return
    if record is None:
        st.query_params.pop("search", None)
        _set_up()
    else:
        _live(record)
    _all_searches(searches)


# --- One search -----------------------------------------------------------------------------------


def _live(record: SearchRecord) -> None:
    if st.query_params["search"] != record.id:  # the beginning of an id is enough to name it
        st.query_params["search"] = record.id
    st.title(record.id, anchor=False)
    parts = [model_title(record.model), record.tuner, f"seed {record.seed}", _images(record)]
    st.markdown(" · ".join(plain(part) for part in parts if part))
    if record.name.strip():
        st.markdown(f"*{plain(record.name)}*")
    st.button(
        "Set up a new search",
        key="tune_new",
        type="tertiary",
        icon=":material/add:",
        on_click=st.query_params.clear,
    )
    try:
        _ = record.config
    except ConfigError as error:
        st.warning(f"This search was made by another release and can't be shown here. {message(error)}")
        return
    polling = not record.state.is_finished()
    st.fragment(live.show, run_every=paced(POLL_SECONDS) if polling else None)(record.id, polling)


def _images(record: SearchRecord) -> str:
    base = record.settings.get("base", {})
    name = resources.title_of(str(base.get("dataset", catalogue.DEFAULT)))
    limit = base.get("train_limit")
    return f"{name}, {limit:,} training images" if limit else name


# --- A new search ---------------------------------------------------------------------------------


def _set_up() -> None:
    st.title("Tune", anchor=False)
    # Streamlit forgets a page's widgets while another page is shown: the models' row tells an arrival.
    launch.ONCE.renew(arrived="tune_model" not in st.session_state)
    settings = draft.current()
    DRAFT.show_report()
    st.caption(
        "Trains many variants of a model for a short time, each judged on images held out from the training "
        "set, and then trains the best one in full. Only that last run uses the test images, once."
    )
    DRAFT.choose_model(draft.choose_model)
    _choose_start(settings)
    left, right = st.columns([5, 4], gap="large")
    with left:
        space.show(settings)
    with right, st.container(border=True):
        st.subheader("Search", anchor=False)
        _options(settings["options"])
        try:
            launch.show(settings)
        except CifarLabError as error:
            st.error(message(error))


def _choose_start(settings: Settings) -> None:
    """The search preset, where the model has one, and what all trials start from."""
    model = settings["model"]
    with st.container(horizontal=True, gap="large", vertical_alignment="bottom"):
        if named := draft.searches_of(model):
            st.session_state["tune_search"] = settings["search"]
            st.pills(
                "Search",
                [*named, draft.OWN],
                format_func=_search_label,
                required=True,
                key="tune_search",
                on_change=lambda: draft.choose_search(st.session_state["tune_search"]),
            )
        DRAFT.choose_preset(
            "All trials start from",
            [*presets_of(model), draft.OWN],
            settings["start"] or draft.OWN,
            lambda chosen: draft.choose_start(None if chosen == draft.OWN else chosen),
            help="The values of all settings that are neither explored nor fixed below.",
        )
    st.caption(plain(draft.why(settings)))
    if draft.held_out(settings["start"]):
        st.caption(
            "That preset was selected on the test images; trials are selected on images held out from the "
            "training set instead (protocol held-out)."
        )


def _search_label(name: str) -> str:
    kind = name.rpartition("/")[2]
    return SEARCH_LABELS.get(kind, kind)


def _options(options: Settings) -> None:
    """The search's own settings as they are declared, without those of other tuners."""
    tuner = draft.OPTIONS["tuner"]
    options["tuner"] = st.segmented_control(
        "Tuner",
        tuner.choices,
        default=options["tuner"],
        format_func=str.capitalize,
        required=True,
        key=DRAFT.key("option_tuner"),
        help=tuner.help,
    )
    hidden = draft.NOT_HYPERBAND if options["tuner"] == "hyperband" else draft.ONLY_HYPERBAND
    for name, declared in draft.OPTIONS.items():
        if name not in ("tuner", *hidden):
            options[name] = setting_widget(declared, options[name], key=DRAFT.key(f"option_{name}"))


# --- All ------------------------------------------------------------------------------------------


def _all_searches(searches: pd.DataFrame) -> None:
    st.subheader("All searches", anchor=False)
    if searches.empty:
        st.info("There are no searches yet. A search is listed here as soon as it is launched.")
        return
    table(
        COLUMNS, [_row(row) for row in searches.to_dict("records")], key="tune_list", caption="All searches."
    )


def _row(search: Settings) -> Row:
    stage = str(search["stage"] or "") if search["state"] in UNFINISHED else ""
    planned = search["trials_planned"]
    run = str(search["best_run"] or "")
    return Row(
        id=search["id"],
        name=search["id"],
        about=shortened(" · ".join(filter(None, (model_title(search["model"]), search["name"]))), 90),
        colour=model_colour(search["model"]),
        cells=[
            (f"{STATE_ICONS.get(search['state'], '✕')} {search['state']}", stage),
            (search["tuner"], ""),
            (f"{search['trials_done']} of {NOTHING if planned != planned else int(planned)}", ""),
            (percent(search["best_score"]), ""),
            (date_and_time(search["created_at"])[:-3], ""),
        ],
        href=navigation.address("tune", search=search["id"]),
        links=[(f"its run, {run}", navigation.address("run", id=run))] if run else [],
    )


page()

"""One run whole: `?id=base_cnn-8f3a1c`. Shows what there is in every state, and says what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

from cifar_core.analysis.snapshots import SNAPSHOTS_FILE
from cifar_core.base.csv_text import csv_of
from cifar_core.base.fields import Setting
from cifar_core.errors import ConfigError, RunNotFoundError, StoreError
from cifar_core.plots import report as reports
from cifar_core.store import RunRecord, RunState, RunStore
from cifar_core.store.artifacts import MODEL_FILE, PREDICTIONS
from cifar_core.store.watch import CONSTANT, Watched
from cifar_core.workers.worker import LOG_FILE
from pages.runs import export, learning, notes, panel
from pages.shared import figure, log, navigation, pace, resources, words
from pages.shared.table import STYLE, Fact, facts_html, table_html
from pages.shared.words import date_and_time, message, model_title, number, plain

if TYPE_CHECKING:
    from cifar_core.analysis.metrics import Report

WATCH = "_run_watch"
MOST_OFFERED = 100
FILES = {
    MODEL_FILE: "the trained network; keras.models.load_model opens it",
    PREDICTIONS: "predicted probabilities of every test image, as arrays",
    LOG_FILE: "what the worker printed",
    "checkpoint.npz": "what Resume continues from",
    "answers.npz": "what it predicted for training images, asked as a teacher, as arrays",
    SNAPSHOTS_FILE: "what it predicted for 24 images after each epoch, as arrays",
}
CONFIG = "JSON; `cifar-lab train --config` reads it"
ABOUT_CONFUSION = (
    "Each row is a true class and sums to 100 %: the diagonal is what was recognised, everything beside it "
    "a mistake. Read along a row to see what that class was taken for."
)
ABOUT_CALIBRATION = (
    "Test images sorted by how sure the network was. A bar that ends on the dashed line is well calibrated: "
    "of the images that it predicted with 80 % confidence, 80 % are right. A bar below it means too sure. "
    "The expected calibration error is the mean gap, each image counted once."
)
ABOUT_CLASSES = (
    "Recall: the share of a class's images that was recognised. Precision: the share of its predictions of "
    "that class that are right. F1 is their harmonic mean. Images: how many of the class were tested."
)


def page() -> None:
    record = _asked_run()
    if record is None:
        return
    about = [
        {name: getattr(record, name) for name in CONSTANT if name != "dataset"}
        | {"dataset": record.dataset_name}
    ]
    polling = not record.state.is_finished()
    st.fragment(_now, run_every=pace.poll(polling))(about, polling)


def _asked_run() -> RunRecord | None:
    """The run that the address names; where there is none by that name, a way to one."""
    asked = st.query_params.get("id", "").strip()
    try:
        store = resources.store()
        if asked:
            return store.get(asked)
        _offer(store, "Which run?")
    except RunNotFoundError as error:
        _offer(store, "No such run", message(error))
    except StoreError as error:
        st.title("Run", anchor=False)
        st.error(message(error))
    return None


def _offer(store: RunStore, title: str, why: str = "") -> None:
    st.title(title, anchor=False)
    if why:
        st.info(why)
    known = store.runs(limit=MOST_OFFERED)["id"].tolist()
    if not known:
        st.info("Nothing has been trained here yet: a run has its page as soon as it is started.")
        navigation.link("train", "Train the first network", primary=True)
    elif chosen := st.selectbox("Open a run", known, index=None, placeholder="Choose one", key="run_choice"):
        navigation.go("run", id=chosen)
    navigation.link("runs", "All runs")


def _subtitle(record: RunRecord) -> None:
    pieces = [
        model_title(record.model),
        record.variant,
        record.preset or "no preset",
        f"seed {record.seed}",
        record.protocol,
        resources.title_of(record.dataset_name),
        *(["on a part of the images"] if record.subset else []),
    ]
    st.markdown(" · ".join(plain(piece) for piece in pieces))
    if record.name.strip():
        st.markdown(f"*{plain(record.name)}*")
    if source := notes.read().get(record.id, notes.Notes()).cloned_from:
        st.markdown(f"Cloned from [{plain(source)}]({navigation.address('run', id=source)})")
    for words_before, name in (("Learned from", "teacher"), ("Made from", "start_from")):
        for other in filter(None, str(record.settings.get(name) or "").split(",")):
            _origin(words_before, other, record.id)


def _origin(words_before: str, other: str, run_id: str) -> None:
    """A run that this one was built on, with ways to see them side by side."""
    two = navigation.address("gallery", view="Two runs", a=other, b=run_id, group="broken")
    both = navigation.address("runs", runs=f"{other},{run_id}")
    st.markdown(
        f"{words_before} [{plain(other)}]({navigation.address('run', id=other)}) · [side by side]({both}) · "
        f"[what it gets wrong that the other doesn't]({two})"
    )


# --- The page, once a second while the run goes on ------------------------------------------------


def _now(about: list[dict[str, Any]], polling: bool) -> None:
    store = resources.store()
    watch = panel.watch(store, WATCH, about)
    if not watch.runs or (polling and not watch.unfinished()):
        st.rerun()  # it was deleted elsewhere, or has ended: there is more to show, and nothing to wait for
    run = next(iter(watch.runs.values()))
    view, measures = panel.header(run.id)
    _subtitle(store.get(run.id))
    colours = panel.places([run.id])
    panel.show(
        [run], run, measures, view, colours, here="run", after_deletion=lambda _: navigation.go("runs")
    )
    learning.show(store, run)
    tabs = st.tabs(list(TABS), key="part", bind="query-params")
    for tab, show in zip(tabs, TABS.values(), strict=True):
        if tab.open:
            with tab:
                show(store, run)


def _result(store: RunStore, run: Watched) -> None:
    record = store.get(run.id)
    try:
        result = reports.result_of(record)
    except ConfigError as error:
        st.warning(f"This run has test figures, but not all that this page shows. {message(error)}")
        return
    if result is None:
        st.info(_why_no_result(run))
        return
    st.html(STYLE + facts_html(_result_facts(record, result)))
    _confusion(result)
    _per_class(result)
    _calibration(record, result)


def _why_no_result(run: Watched) -> str:
    if not run.state.is_finished():
        return "No result yet: the test images are looked at once, when training is done."
    return (
        f"No result: the run is {run.state} and the test images are looked at once, when a run is finished. "
        "Resume it to get one."
    )


def _result_facts(record: RunRecord, result: Report) -> list[Fact]:
    figures = record.metrics or {}
    spread = figures.get("latency_spread_ms")
    within = "" if spread is None else f", within {words.milliseconds(spread)}"
    return [
        (
            "Test accuracy",
            words.percent(result.accuracy),
            f"{result.n - result.errors:,} of {result.n:,} images",
        ),
        ("Test loss", f"{result.loss:.4f}", "nats"),
        (
            "Top-2 accuracy",
            words.percent(result.top2_accuracy),
            "true class is in the two most probable",
        ),
        ("Calibration error", words.percent(result.ece), "expected, 15 bins"),
        (
            "Latency",
            words.milliseconds(figures.get("latency_ms")),
            f"one image, where it was trained{within}",
        ),
        ("Best epoch", number(figures.get("best_epoch")), "by validation accuracy"),
        ("Parameters", words.count(record.parameters), ""),
    ]


def _confusion(result: Report) -> None:
    only = st.toggle("Mistakes only", key="mistakes", bind="query-params", help="Leave the diagonal out.")
    figure.show(
        "Confusion matrix",
        ABOUT_CONFUSION,
        reports.confusion_figure(result, errors_only=only),
        key="confusion",
        alt=f"Confusion matrix of {result.n:,} test images, accuracy {words.percent(result.accuracy)}.",
        header=("true class", *result.classes),
        rows=lambda: [
            [name, *row] for name, row in zip(result.classes, result.confusion.tolist(), strict=True)
        ],
        height=540,
    )


def _per_class(result: Report) -> None:
    rows = [
        (
            row["class_name"],
            *(f"{100 * row[name]:.1f} %" for name in ("precision", "recall", "f1")),
            f"{row['support']:,}",
        )
        for row in result.per_class.to_dict("records")
    ]
    figure.heading("By class", ABOUT_CLASSES, table=lambda: csv_of(result.per_class), name="by_class.csv")
    header = ("Class", "Precision", "Recall", "F1", "Images")
    st.html(STYLE + table_html(header, rows, right=(1, 2, 3, 4)))


def _calibration(record: RunRecord, result: Report) -> None:
    from cifar_core.plots import reliability_diagram

    header = tuple(result.reliability.columns)
    figure.show(
        "Calibration",
        ABOUT_CALIBRATION,
        reliability_diagram(result.reliability, result.ece, model=record.model).update_layout(title=None),
        key="calibration",
        alt=f"Accuracy by confidence; expected calibration error {words.percent(result.ece)}.",
        header=header,
        rows=lambda: result.reliability.to_numpy().tolist(),
        height=460,
    )


def _settings(store: RunStore, run: Watched) -> None:
    record = store.get(run.id)
    try:
        config = record.config
    except ConfigError as error:
        st.warning(
            f"These settings were stored by another release and are shown as they are. {message(error)}"
        )
        st.html(STYLE + table_html(("Setting", "Value"), reports.flat_items(record.settings)))
        return
    compared = reports.comparisons(config)
    for comparison in compared:
        _comparison(comparison)
    if not compared:
        st.caption("There is no preset of this model to compare the settings with.")
    st.subheader("All settings", anchor=False)
    for group, rows in _by_group(config.flat(), config.model).items():
        st.markdown(f"**{group}**")
        st.html(STYLE + table_html(("Setting", "Value"), rows))


def _comparison(comparison: reports.Comparison) -> None:
    st.subheader(f"Beside {plain(comparison.preset)}", anchor=False)
    if not comparison.differences:
        st.caption("Nothing differs.")
        return
    rows = [
        (_label(change.name), reports.shown(change.theirs), reports.shown(change.ours))
        for change in comparison.differences
    ]
    st.html(STYLE + table_html(("Setting", "Preset", "This run"), rows))


def _by_group(values: dict[str, Any], model: str) -> dict[str, list[tuple[str, str]]]:
    """(label, value) of every setting under its declared heading."""
    from cifar_core.settings.train_config import train_settings

    declared: dict[str, Setting] = train_settings(model)
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, setting in declared.items():
        unit = f" {setting.unit}" if setting.unit and values.get(name) is not None else ""
        text = (_label(name, setting), reports.shown(values.get(name)) + unit)
        groups.setdefault(setting.group, []).append(text)
    return groups


def _label(name: str, setting: Setting | None = None) -> str:
    text = setting.label if setting else name.replace("_", " ")
    return f"{text[:1].upper()}{text[1:]}"


def _circumstances(store: RunStore, run: Watched) -> None:
    record = store.get(run.id)
    times = [
        ("created", date_and_time(record.created_at)),
        ("started", date_and_time(record.started_at)),
        ("ended", date_and_time(record.finished_at)),
        ("took", words.duration(record.duration_s)),
        ("training alone", words.duration(record.training_s)),
        ("attempts", str(record.attempt)),
        ("host", record.host or words.NOTHING),
        ("device", record.device or words.NOTHING),
    ]
    missing = "Not known yet: it is written down when a worker begins the run."
    if record.state.is_finished():
        missing = "Not known: the run ended before it was written down."
    for title, pairs in (
        ("Images", reports.flat_items(record.dataset)),
        ("Environment", reports.flat_items(record.environment)),
        ("Times and place", times),
    ):
        st.subheader(title, anchor=False)
        if pairs:
            st.html(STYLE + table_html(("", ""), pairs))
        else:
            st.caption(missing)


def _events_and_log(store: RunStore, run: Watched) -> None:
    st.subheader("Events", anchor=False)
    rows = [
        (date_and_time(row["at"]), row["kind"], row["message"])
        for row in store.events(run.id).to_dict("records")
    ]
    st.html(STYLE + table_html(("When", "What", "Message"), rows))
    st.subheader("Log", anchor=False)
    log.show(store, run)


def _files(store: RunStore, run: Watched) -> None:
    record = store.get(run.id)
    there = {artifact.name: artifact for artifact in store.artifacts(run.id)}
    csv = "CSV, one line per"
    offers: list[tuple[str, str, Callable[[], str | bytes], str, bool]] = [
        ("Report", "html", lambda: reports.html_report(store, run.id), "one HTML file, plots inside", True),
        ("Settings", "settings.json", lambda: reports.settings_json(record), CONFIG, True),
        ("History", "history.csv", lambda: csv_of(store.history(run.id)), f"{csv} epoch", bool(run.epochs)),
        (
            *("Predictions", "predictions.csv", lambda: csv_of(store.predictions(run.id))),
            *(f"{csv} test image", PREDICTIONS in there),
        ),
    ]
    for label, ending, content, about, offered in offers:
        if offered:
            _download(label, f"{run.id}.{ending}", content, about)
    if MODEL_FILE in there:
        path = store.artifact(run.id, MODEL_FILE)
        about = f"{words.size(there[MODEL_FILE].size)}; {FILES[MODEL_FILE]}"
        _download("Model", f"{run.id}.keras", path.read_bytes, about)
        if run.state is RunState.FINISHED:
            export.show(store, run)
    else:
        st.caption("No trained model and no predictions yet: they are written when a run is finished.")
    if there:
        st.subheader("All files of the run", anchor=False)
        st.caption(f"In {plain(store.artifact_dir(run.id))}")
        rows = [
            (item.name, words.size(item.size), date_and_time(item.modified_at), FILES.get(item.name, ""))
            for item in there.values()
        ]
        st.html(STYLE + table_html(("File", "Size", "Written", "What it is"), rows, right=(1,)))


def _download(label: str, name: str, content: Callable[[], str | bytes], about: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.download_button(
            label, content, file_name=name, key=f"file_{label}", icon=":material/download:", on_click="ignore"
        )
        st.caption(about)


TABS: dict[str, Callable[[RunStore, Watched], None]] = {
    "Test result": _result,
    "Settings": _settings,
    "Images and environment": _circumstances,
    "Events and log": _events_and_log,
    "Files": _files,
}

page()

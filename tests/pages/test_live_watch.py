"""Accumulating what is new, words for every state, and curves: no page, no browser."""

import json
import os

import numpy as np
import pytest

from cifar_core.plots import live as curves
from cifar_core.plots.live import View, live_figure, thinned
from cifar_core.store import RunStore
from cifar_core.store.watch import Watch
from pages.runs import words
from pages.shared import log
from pages.shared.table import Headline, facts_html, state_html, table_html
from pages.shared.words import plain
from tests.pages import live_runs


@pytest.fixture
def store(home):  # noqa: ARG001 - the home must be the test's own
    with RunStore() as opened:
        yield opened


def watching(store, *run_ids):
    rows = store.runs().set_index("id", drop=False).loc[list(run_ids)].to_dict("records")
    watch = Watch(rows)
    watch.update(store)
    return watch


def said(store, run_id, place=None):
    headline = words.headline(watching(store, run_id).runs[run_id], place)
    return headline.title, headline.detail


def test_points_come_by_and_by_and_grow_inside_the_epoch(store):
    run_id = live_runs.running(store, 2, step=3)
    watch = watching(store, run_id)
    run = watch.runs[run_id]
    np.testing.assert_allclose(run.frame()["epoch"], [1, 2, 2.1, 2.2, 2.3])
    assert run.frame()["val_accuracy"].notna().tolist() == [True, True, False, False, False]
    store.record_step(run_id, 3, 4, 10, live_runs.step_metrics(2, 4))
    watch.update(store)
    assert run.frame()["epoch"].iloc[-1] == 2.4
    store.record_epoch(run_id, 3, live_runs.epoch_metrics(3))
    watch.update(store)
    assert run.frame()["epoch"].tolist() == [1, 2, 3]
    assert run.frame().iloc[-1]["loss"] == live_runs.epoch_metrics(3)["loss"]


def test_nothing_new_changes_nothing_and_is_not_drawn_again(store):
    run_id = live_runs.running(store, 2)
    watch = watching(store, run_id)
    run = watch.runs[run_id]
    first, version = live_figure([run], "accuracy", View()), run.version
    store.heartbeat(run_id)
    watch.update(store)
    again = live_figure([run], "accuracy", View())
    assert run.version == version
    assert all(one is other for one, other in zip(first["data"], again["data"], strict=True))


def test_an_epoch_that_is_cut_back_on_resume_goes(store):
    run_id = live_runs.failed(store, 3)
    watch = watching(store, run_id)
    store.requeue(run_id)
    store.claim(run_id, pid=os.getpid(), device="cpu")
    store.begin(run_id, environment={}, dataset={}, parameters=1, epochs_kept=2)
    watch.update(store)
    assert watch.runs[run_id].frame()["epoch"].tolist() == [1, 2]


def test_points_of_a_cut_epoch_go_when_the_run_ends(store):
    run_id = live_runs.running(store, 1, step=5)
    watch = watching(store, run_id)
    store.stopped(run_id)
    watch.update(store)
    assert watch.runs[run_id].frame()["epoch"].tolist() == [1]
    assert not watch.unfinished()


def test_a_run_deleted_elsewhere_is_dropped(store):
    kept, gone = live_runs.queued(store), live_runs.queued(store)
    watch = watching(store, kept, gone)
    store.delete(gone)
    watch.update(store)
    assert list(watch.runs) == [kept]


def test_every_state_has_its_words(store):
    waiting = live_runs.queued(store)
    assert said(store, waiting) == ("Queued", "next in line")
    assert said(store, waiting, (2, 3)) == ("Queued", "number 2 of 3 in the queue")
    starting = live_runs.starting(store, "building the model")
    title, detail = said(store, starting)
    assert (title, detail.partition(", for")[0]) == ("Starting", "building the model")
    run_id = live_runs.running(store, 1, step=4)
    assert said(store, run_id) == ("Running, epoch 2 of 5", "step 4 of 10")
    store.request_stop(run_id)
    assert said(store, run_id)[0] == "Stopping…"
    store.stopped(run_id, "stopped on request after 1 epochs")
    assert said(store, run_id) == ("Stopped", "stopped on request after 1 epochs")
    assert said(store, live_runs.failed(store, reason="no images")) == ("Failed", "no images")
    assert said(store, live_runs.finished(store))[1].startswith("test accuracy ")
    crashed = live_runs.running(store)
    store.crash(crashed, "the worker process 7 was ended by SIGKILL (often: out of memory)")
    assert said(store, crashed)[0] == "Crashed"
    tested = live_runs.starting(store, "testing")
    assert said(store, tested)[0] == "Testing"


def test_numbers_of_a_running_run(store):
    run_id = live_runs.running(store, 1, step=4)
    facts = {label: value for label, value, _ in words.facts(watching(store, run_id).runs[run_id])}
    assert facts["Epochs done"] == "1 of 5"
    assert facts["Step"] == "4 of 10"
    assert facts["Images per second"] == "3,000"
    assert facts["Time per epoch"] == "4.0 s"
    assert facts["Learning rate"] == "0.001"
    assert facts["Done at"] != words.NOTHING


@pytest.mark.parametrize(
    "text", ["<b>x</b>", "a *b* _c_ `d`", "[a](http://b)", ":red[x] $y$ # z", "|a|\n- b"]
)
def test_free_text_stays_text(text):
    shown = plain(text)
    assert "\n" not in shown
    assert shown.replace("\\", "") == " ".join(text.split())
    bare = [sign for before, sign in zip(" " + shown, shown, strict=False) if before != "\\"]
    assert not set(bare) & set("<>*_`[]()$:#|-&~!")


def test_names_are_escaped_in_tables_and_legends(store):
    hostile = "<img src=x onerror=alert(1)>"
    run_id = live_runs.running(store, 2, name=hostile)
    run = watching(store, run_id).runs[run_id]
    assert "<img" not in table_html(("a",), [(hostile,)])
    assert "<img" not in facts_html([(hostile, hostile, hostile)])
    assert "<img" not in state_html(Headline(hostile, hostile), "#000")
    assert "<img" not in json.dumps(live_figure([run], "accuracy", View()))


def test_smoothing_keeps_the_raw_curve_faint_behind(store):
    run = watching(store, run_id := live_runs.running(store, 5)).runs[run_id]
    traces = {
        trace["name"]: trace for trace in live_figure([run], "loss", View(smoothing=0.9, study=False))["data"]
    }
    raw, smooth = traces[f"{run_id}, validation (raw)"], traces[f"{run_id}, validation"]
    assert raw["opacity"] < 0.5 < smooth["opacity"]
    np.testing.assert_allclose(raw["y"], run.frame()["val_loss"], rtol=1e-5)
    assert smooth["y"][-1] > raw["y"][-1]  # it lags behind a falling curve


def test_the_study_stands_behind_a_run_of_its_model_on_cifar10_only(store):
    cifar = watching(store, run_id := live_runs.running(store, 2, model="alexnet")).runs[run_id]
    assert any("study" in trace["name"] for trace in live_figure([cifar], "accuracy", View())["data"])
    assert not any(
        "study" in trace["name"] for trace in live_figure([cifar], "accuracy", View(study=False))["data"]
    )
    drawn = watching(store, run_id := live_runs.running(store, 2, dataset="synthetic")).runs[run_id]
    assert not any("study" in trace["name"] for trace in live_figure([drawn], "accuracy", View())["data"])


def test_runs_that_look_alike_get_symbols(store):
    ids = [live_runs.running(store, 3, seed=seed) for seed in range(3)]
    other = live_runs.running(store, 3, model="alexnet")
    watch = watching(store, *ids, other)
    data = live_figure(list(watch.runs.values()), "accuracy", View(study=False))["data"]
    symbols = [trace["marker"]["symbol"] for trace in data if "marker" in trace]
    assert symbols == ["circle", "square", "diamond"]


def test_a_single_point_is_visible(store):
    run = watching(store, run_id := live_runs.running(store, 1, step=5)).runs[run_id]
    traces = {trace["name"]: trace for trace in live_figure([run], "accuracy", View(study=False))["data"]}
    assert traces[f"{run_id}, validation"]["mode"] == "markers"
    assert traces[f"{run_id}, train"]["mode"] == "lines"


def test_no_point_is_no_trace(store):
    run = watching(store, run_id := live_runs.queued(store)).runs[run_id]
    assert live_figure([run], "accuracy", View())["data"] == []
    assert curves.description([run], "accuracy").endswith("No point yet.")


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 1000])
def test_thinning_keeps_the_ends(count):
    points = list(range(count))
    kept = thinned(points)
    assert len(kept) == min(count, curves.MAX_POINTS)
    assert kept[:1] == points[:1]
    assert kept[-1:] == points[-1:]


def test_the_log_tail_is_its_end_without_control_characters(store):
    run_id = live_runs.queued(store)
    assert log.tail(store, run_id) is None
    text = "".join(f"\x1b[32mline {number}\x1b[0m\n" for number in range(5000))
    store.write_artifact(run_id, "log.txt", text + "half \xff\x07 line")
    lines = log.tail(store, run_id).splitlines()
    assert len(lines) == log.TAIL_LINES
    assert lines[-1] == "half \xff line"
    assert lines[-2] == "line 4999"

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
    np.testing.assert_allclose(run.frame()["epoch"], [1, 2, 2.1, 2.2, 2.3, 2.4, 3])
    np.testing.assert_allclose(run.frame()["minutes"], run.frame()["epoch"] * 4 / 60)
    (of_row,) = watching(store, run_id).runs.values()
    assert of_row.frame().equals(run.frame()), "who comes later sees the same points"


def test_training_points_are_means_since_the_point_before(store):
    run_id = live_runs.running(store, 1)
    for step, mean in ((2, 0.5), (5, 0.8)):
        store.record_step(run_id, 2, step, 10, {"accuracy": mean})
    watch = watching(store, run_id)
    store.record_epoch(run_id, 2, {"accuracy": 0.7})
    watch.update(store)
    inside = watch.runs[run_id].frame()["accuracy"].to_numpy()[1:]
    np.testing.assert_allclose(inside, [0.5, (5 * 0.8 - 2 * 0.5) / 3, (10 * 0.7 - 5 * 0.8) / 5])


def test_nothing_new_changes_nothing_and_is_not_drawn_again(store):
    run_id = live_runs.running(store, 2)
    watch = watching(store, run_id)
    run = watch.runs[run_id]
    view = View(study=False)
    first, version = live_figure([run], ["accuracy"], view), run.version
    store.heartbeat(run_id)
    watch.update(store)
    again = live_figure([run], ["accuracy"], view)
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
    assert said(store, live_runs.finished(store)) == ("Finished", "")
    crashed = live_runs.running(store)
    store.crash(crashed, "the worker process 7 was ended by SIGKILL (often: out of memory)")
    assert said(store, crashed)[0] == "Crashed"
    tested = live_runs.starting(store, "testing")
    assert said(store, tested)[0] == "Testing"


def test_four_numbers_of_a_run_by_its_state(store):
    run_id = live_runs.running(store, 1, step=4)
    facts = {label: value for label, value, _ in words.facts(watching(store, run_id).runs[run_id])}
    assert list(facts) == ["Validation accuracy", "Images per second", "Time per epoch", "Done at"]
    assert facts["Images per second"] == "3,000"
    assert facts["Time per epoch"] == "4.0 s"
    assert facts["Done at"] != words.NOTHING
    done = live_runs.finished(store)
    facts = {label: value for label, value, _ in words.facts(watching(store, done).runs[done])}
    assert list(facts) == ["Test accuracy", "Best validation", "Epochs", "Training time"]
    assert (facts["Epochs"], facts["Training time"]) == ("5 of 5", "20 s")


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
    assert "<img" not in state_html(Headline(hostile, hostile), "running", "#000")
    assert "<img" not in json.dumps(live_figure([run], ["accuracy"], View()))


def test_smoothing_keeps_the_raw_curve_faint_behind(store):
    run = watching(store, run_id := live_runs.running(store, 5)).runs[run_id]
    traces = {
        trace["name"]: trace
        for trace in live_figure([run], ["loss"], View(smoothing=0.9, study=False))["data"]
    }
    raw, smooth = traces[f"{run_id}, validation (raw)"], traces[f"{run_id}, validation"]
    assert raw["opacity"] < 0.5 < smooth["opacity"]
    np.testing.assert_allclose(raw["y"], run.frame()["val_loss"], rtol=1e-5)
    assert smooth["y"][-1] > raw["y"][-1]  # it lags behind a falling curve


def test_the_study_stands_behind_a_run_of_its_model_on_cifar10_only(store):
    cifar = watching(store, run_id := live_runs.running(store, 2, model="alexnet")).runs[run_id]
    assert any("study" in trace["name"] for trace in live_figure([cifar], ["accuracy"], View())["data"])
    assert not any(
        "study" in trace["name"] for trace in live_figure([cifar], ["accuracy"], View(study=False))["data"]
    )
    drawn = watching(store, run_id := live_runs.running(store, 2, dataset="synthetic")).runs[run_id]
    assert not any("study" in trace["name"] for trace in live_figure([drawn], ["accuracy"], View())["data"])


def test_the_legend_names_the_study_once_also_behind_a_model_that_it_lacks(store):
    ids = [live_runs.running(store, 2, model=model) for model in ("resnet9", "alexnet", "base_cnn")]
    data = live_figure(list(watching(store, *ids).runs.values()), ["accuracy", "loss"], View())["data"]
    study = [trace for trace in data if trace["name"] == "the study"]
    assert len(study) == 4
    assert sum(trace["showlegend"] for trace in study) == 1


def test_two_runs_of_one_model_never_look_alike(store):
    ids = [live_runs.running(store, 3, seed=seed) for seed in range(3)]
    watch = watching(store, *ids)
    data = live_figure(list(watch.runs.values()), ["accuracy", "loss"], View(study=False))["data"]
    of_validation = [trace for trace in data if trace["opacity"] == 1 and trace["yaxis"] == "y"]
    assert len({trace["line"]["color"] for trace in of_validation}) == 3
    assert {(trace["line"]["dash"], trace["line"]["width"] >= 2) for trace in of_validation} == {
        ("solid", True)
    }


def test_one_legend_for_all_panels(store):
    run = watching(store, run_id := live_runs.running(store, 3)).runs[run_id]
    figure = live_figure([run], ["accuracy", "loss", "learning_rate"], View())
    listed = [trace for trace in figure["data"] if trace.get("showlegend", True)]
    assert {trace["yaxis"] for trace in listed} == {"y"}
    assert {trace["yaxis"] for trace in figure["data"]} == {"y", "y2", "y3"}
    assert len({trace["uid"] for trace in figure["data"]}) == len(figure["data"])
    assert figure["layout"]["xaxis"]["anchor"] == "y3"
    tops = [figure["layout"][axis]["domain"] for axis in ("yaxis", "yaxis2", "yaxis3")]
    assert tops[0][1] == 1
    assert tops[0][0] > tops[1][1] > tops[1][0] > tops[2][1] > tops[2][0] == pytest.approx(0)


def test_over_time_the_axis_counts_minutes_of_training(store):
    run = watching(store, run_id := live_runs.running(store, 3, step=5)).runs[run_id]
    figure = live_figure([run], ["accuracy"], View(x="minutes"))
    validation = next(trace for trace in figure["data"] if trace["name"].endswith("validation"))
    assert validation["x"] == pytest.approx([4 / 60, 8 / 60, 12 / 60], rel=1e-4)
    assert "min" in figure["layout"]["xaxis"]["title"]["text"]
    assert not any("study" in trace["name"] for trace in figure["data"])


def test_with_a_baseline_the_others_show_their_difference(store):
    ids = [live_runs.running(store, 3, seed=seed) for seed in range(2)]
    store.record_epoch(ids[1], 2, {"accuracy": 0.5, "val_accuracy": 0.6})
    store.record_epoch(ids[0], 4, live_runs.epoch_metrics(4))
    watch = watching(store, *ids)
    figure = live_figure(list(watch.runs.values()), ["accuracy"], View(baseline=ids[0]))
    validation, training = figure["data"][::-1]
    assert validation["name"] == ids[1]
    base = 100 * live_runs.epoch_metrics(2)["val_accuracy"]
    assert validation["y"] == pytest.approx([0, 60 - base, 0], abs=1e-3)
    assert training["opacity"] < 1
    assert ids[0] in figure["layout"]["yaxis"]["title"]["text"]


def test_a_single_point_is_visible(store):
    run = watching(store, run_id := live_runs.running(store, 1, step=5)).runs[run_id]
    traces = {trace["name"]: trace for trace in live_figure([run], ["accuracy"], View(study=False))["data"]}
    assert traces[f"{run_id}, validation"]["marker"]["size"] == [9]
    assert traces[f"{run_id}, training"]["mode"] == "lines"


def test_no_point_is_no_trace(store):
    run = watching(store, run_id := live_runs.queued(store)).runs[run_id]
    assert live_figure([run], ["accuracy"], View())["data"] == []
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

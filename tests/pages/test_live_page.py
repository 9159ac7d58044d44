"""The Runs page: no runs, unknown runs, hostile addresses, every state, and its buttons."""

import json
import re

import pytest

from pages.shared import resources
from tests.pages import live_runs

PAGE = "pages/runs/runs.py"


def store():
    return resources.store()


def everything(test):
    """All texts of the page's main part."""
    return "\n".join(
        str(getattr(element, "value", None) or getattr(element, "body", "")) for element in test.main
    )


def html_of(test):
    return "\n".join(element.proto.body for element in test.main if element.type == "html")


def figures(test):
    found = [json.loads(element.proto.json) for element in test.main if element.type == "bidi_component"]
    return [data["figure"] for data in found if "figure" in data]


def button(test, label):
    return next(element for element in test.button if element.label == label)


def test_an_empty_store_says_what_will_stand_here(open_page):
    test = open_page(PAGE)
    assert not test.exception
    assert test.title[0].value == "Runs"
    assert "Nothing has been trained here yet" in test.info[0].value


@pytest.mark.parametrize(
    "runs",
    [
        "nope-123456",
        "<script>alert(1)</script>,../../etc/passwd",
        ",,,",
        "a" * 5000,
        "%00,'; DROP TABLE runs",
    ],
)
@pytest.mark.parametrize("filled", [False, True])
def test_unknown_runs_in_the_address_are_a_calm_message(open_page, runs, filled):
    if filled:
        live_runs.failed(store())
    test = open_page(PAGE, runs=runs)
    assert not test.exception
    if runs.strip(","):
        assert "Not in this store" in test.info[0].value
    assert not re.search(r"(?<!\\)[<\[*]", test.info[0].value if test.info else "")


@pytest.mark.parametrize("bad", ["99", "-1", "nan", "x", ""])
def test_hostile_values_of_the_controls_are_passed_over(open_page, bad):
    run_id = live_runs.failed(store(), 2)
    test = open_page(PAGE, runs=run_id, smoothing=bad, logx=bad, tab=bad, focus=bad, train=bad)
    assert not test.exception
    assert 0 <= test.slider(key="smoothing").value <= 0.95


def test_the_address_sets_the_view(open_page):
    first, second = live_runs.failed(store(), 3), live_runs.failed(store(), 2)
    test = open_page(PAGE, runs=f"{second},{first}", smoothing="0.5", logy="true", focus=first)
    assert not test.exception
    assert test.multiselect(key="live_chosen").value == [second, first]
    assert test.slider(key="smoothing").value == 0.5
    assert test.selectbox(key="focus").value == first
    accuracy, loss = figures(test)
    assert accuracy["layout"]["yaxis"]["type"] == loss["layout"]["yaxis"]["type"] == "log"
    assert any("(raw)" in trace["name"] for trace in accuracy["data"])


def test_without_an_address_it_shows_what_runs_and_says_so_in_the_address(open_page):
    live_runs.failed(store(), 2)
    waiting = live_runs.queued(store())
    running = live_runs.running(store(), 1, step=2)
    test = open_page(PAGE)
    assert test.query_params["runs"] in (f"{running},{waiting}", [f"{running},{waiting}"])
    assert "Running, epoch 2 of 5" in html_of(test)


@pytest.mark.slow
def test_choosing_other_runs_changes_the_address(open_page):
    first, second = live_runs.failed(store(), 1), live_runs.failed(store(), 1)
    test = open_page(PAGE, runs=first)
    test.multiselect(key="live_chosen").set_value([first, second]).run()
    assert not test.exception
    assert test.query_params["runs"] in (f"{first},{second}", [f"{first},{second}"])
    test.multiselect(key="live_chosen").set_value([]).run()
    assert not test.exception
    assert figures(test) == []


@pytest.mark.slow
def test_stop_asks_the_store_and_shows_it(open_page):
    run_id = live_runs.running(store(), 1, step=2)
    test = open_page(PAGE, runs=run_id)
    button(test, "Stop").click().run()
    assert store().get(run_id).state == "stopping"
    assert "Stopping…" in html_of(test)
    assert next(element for element in test.button if element.key == f"stop_{run_id}").disabled


@pytest.mark.slow
def test_resume_puts_it_back_into_the_queue(open_page):
    run_id = live_runs.failed(store(), 2)
    test = open_page(PAGE, runs=run_id)
    button(test, "Resume after epoch 2").click().run()
    assert not test.exception
    assert store().get(run_id).state == "queued"
    assert "next in line; it goes on after epoch 2" in html_of(test)


@pytest.mark.slow
def test_a_click_that_comes_too_late_is_explained(open_page):
    run_id = live_runs.failed(store(), 2)
    test = open_page(PAGE, runs=run_id)
    store().requeue(run_id)  # another session was quicker
    button(test, "Resume after epoch 2").click().run()
    assert not test.exception
    assert store().get(run_id).state == "queued"


@pytest.mark.slow
def test_clone_hands_the_settings_over(open_page):
    run_id = live_runs.failed(store(), 1, learning_rate=0.0123)
    test = open_page(PAGE, runs=run_id)
    button(test, "Clone and change").click().run()
    assert test.session_state["train_settings"]["learning_rate"] == 0.0123


@pytest.mark.slow
def test_delete_takes_two_clicks_and_leaves_the_others_watched(open_page):
    kept, gone = live_runs.failed(store(), 1), live_runs.failed(store(), 1)
    test = open_page(PAGE, runs=f"{gone},{kept}")
    button(test, "Delete for good").click().run()
    assert not test.exception
    assert store().runs()["id"].tolist() == [kept]
    assert test.multiselect(key="live_chosen").value == [kept]
    assert not test.info


@pytest.mark.slow
def test_a_running_run_cannot_be_deleted(open_page):
    run_id = live_runs.running(store(), 1)
    test = open_page(PAGE, runs=run_id)
    assert not [element for element in test.button if element.label == "Delete for good"]


@pytest.mark.slow
def test_the_reason_of_a_failure_is_text(open_page):
    run_id = live_runs.failed(store(), reason="<img src=x> *no* images", name="<i>my</i> **run**")
    test = open_page(PAGE, runs=run_id)
    assert not test.exception
    assert "&lt;img src=x&gt; *no* images" in html_of(test)
    assert "<i>my" not in html_of(test)
    assert "No curve: no epoch was completed." in test.info[0].value


@pytest.mark.slow
def test_the_log_tab(open_page):
    run_id = live_runs.finished(store())
    test = open_page(PAGE, runs=run_id, tab="Log")
    assert not test.exception
    assert "epoch 1 done\n<b>bold</b>" in test.code[0].value
    without = open_page(PAGE, runs=live_runs.queued(store()), tab="Log")
    assert "No log yet" in without.info[0].value


def test_what_a_practised_eye_sees_in_the_curves_is_said(open_page):
    run_id = live_runs.starting(store())
    store().record_epoch(
        run_id,
        1,
        {"accuracy": 0.1, "loss": 2.303, "val_accuracy": 0.1, "val_loss": 2.303},
    )
    test = open_page(PAGE, runs=run_id)
    assert not test.exception
    assert any("no better than chance" in element.value for element in test.caption)


def test_of_a_run_that_learns_nothing_is_said(open_page):
    test = open_page(PAGE, runs=live_runs.running(store(), 4))
    assert not test.exception
    assert not any("lightbulb" in element.value for element in test.caption)

"""The Runs page: no runs, unknown runs, hostile addresses, every state, and its buttons."""

import json
import re

import pytest

from pages.runs import listing, panel
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


def listed(test):
    """Rows of the table of all runs, with its columns."""
    found = [json.loads(element.proto.json) for element in test.main if element.type == "bidi_component"]
    return next(data for data in found if "rows" in data)


def ticked(test):
    return {row["id"] for row in listed(test)["rows"] if row["ticked"]}


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
    assert ticked(test) == {second, first}
    assert test.slider(key="smoothing").value == 0.5
    assert test.selectbox(key="focus").value == first
    (figure,) = figures(test)
    assert figure["layout"]["yaxis"]["type"] == figure["layout"]["yaxis2"]["type"] == "log"
    assert any("(raw)" in trace["name"] for trace in figure["data"])


def test_without_an_address_it_shows_what_runs_and_says_so_in_the_address(open_page):
    live_runs.failed(store(), 2)
    waiting = live_runs.queued(store())
    running = live_runs.running(store(), 1, step=2)
    test = open_page(PAGE)
    assert test.query_params["runs"] in (f"{running},{waiting}", [f"{running},{waiting}"])
    assert "Running, epoch 2 of 5" in html_of(test)


def test_without_a_ticked_run_the_table_says_what_to_do(open_page):
    live_runs.failed(store(), 1)
    test = open_page(PAGE, runs="")
    assert not test.exception
    assert figures(test) == []
    assert "Tick runs" in test.info[0].value
    assert ticked(test) == set()


def test_ticking_leaves_what_is_not_shown_and_adds_at_the_end():
    assert listing.after_ticking(["a", "b", "hidden"], ["b", "c"], ["a", "b", "c"]) == ["b", "hidden", "c"]


def test_a_run_keeps_its_colour_whatever_comes_and_goes(monkeypatch):
    monkeypatch.setattr(panel.st, "session_state", {})
    assert panel.places(["a", "b", "c"]) == {"a": 0, "b": 1, "c": 2}
    assert panel.places(["b", "c", "d"]) == {"b": 1, "c": 2, "d": 0}
    assert panel.places(["d", "e"]) == {"d": 0, "e": 1}


def test_a_pinned_run_is_what_the_others_are_compared_with(open_page):
    base, other = live_runs.finished(store(), 3), live_runs.finished(store(), 5)
    test = open_page(PAGE, runs=other, baseline=base, columns=["Best validation", "Epochs"])
    assert not test.exception
    rows = {row["id"]: row for row in listed(test)["rows"]}
    assert rows[base]["pinned"]
    gain = 100 * (live_runs.epoch_metrics(5)["val_accuracy"] - live_runs.epoch_metrics(3)["val_accuracy"])
    assert [below for _, below in rows[other]["cells"]] == ["+2", f"{gain:+.2f} points"]
    (figure,) = figures(test)
    assert "less" in figure["layout"]["yaxis"]["title"]["text"]
    assert base not in {trace["name"] for trace in figure["data"]}


def test_accuracies_on_other_test_images_are_not_subtracted(open_page):
    base, other = live_runs.finished(store(), 3), live_runs.finished(store(), 3, test_limit=500)
    test = open_page(PAGE, runs=other, baseline=base, columns=["Test accuracy", "Test loss", "Epochs"])
    rows = {row["id"]: row for row in listed(test)["rows"]}
    assert [below for _, below in rows[other]["cells"]] == ["+0", "", ""]


@pytest.mark.parametrize(
    ("find", "found"),
    [
        ("FAILED", 1),
        ("base", 2),
        ("base queued", 1),
        ("#idea", 1),
        ("#ide", 0),
        ("lr too", 1),
        ("nothing", 0),
    ],
)
def test_runs_are_found_by_words_and_tags(open_page, find, found):
    live_runs.queued(store())
    noted = live_runs.failed(store(), 1)
    store().event(noted, "tags", "old")
    store().event(noted, "tags", "idea #second")
    store().event(noted, "note", "LR too high")
    test = open_page(PAGE, find=find)
    assert not test.exception
    if not found:
        assert "No run has all of these words" in "".join(info.value for info in test.info)
        return
    rows = listed(test)["rows"]
    assert len(rows) == found
    assert all(row.get("tags", []) == (["idea", "second"] if row["id"] == noted else []) for row in rows)


@pytest.mark.parametrize(
    ("sort", "order"), [("-best_val_accuracy", [5, 3, None]), ("epochs_done", [0, 3, 5])]
)
def test_the_table_is_sorted_with_unknown_numbers_last(open_page, sort, order):
    for done in (3, 5, 0):
        live_runs.running(store(), done)
    rows = listed(open_page(PAGE, sort=sort, columns=["Epochs"]))["rows"]
    assert [int(row["cells"][0][0].split()[0]) for row in rows] == [number or 0 for number in order]


def test_the_table_says_what_trains_now(open_page):
    run_id = live_runs.running(store(), 2, step=3)
    (row,) = listed(open_page(PAGE, runs=run_id))["rows"]
    assert row["cells"][0] == ["▶ running", "epoch 3"]


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
    button(test, "Change and train again").click().run()
    assert test.title[0].value == "Train"
    assert test.session_state["train_settings"]["learning_rate"] == 0.0123
    assert test.session_state["cloned"] == run_id


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("Distil into Base CNN", {"preset": "base_cnn/distilled", "teacher": "ID", "model": "base_cnn"}),
        ("Remove half of its channels", {"start_from": "ID", "channel_pruning": 0.5, "model": "resnet9"}),
        ("Set 80 % of its weights to zero", {"start_from": "ID", "sparsity": 0.8, "learning_rate": 0.0123}),
    ],
)
def test_a_finished_run_leads_to_smaller_ones(open_page, way, expected):
    run_id = live_runs.finished(store(), model="resnet9", learning_rate=0.0123)
    test = open_page(PAGE, runs=run_id)
    test.session_state[f"smaller_{run_id}"] = True
    test.run()
    button(test, way).click().run()
    assert test.title[0].value == "Train"
    settings = test.session_state["train_settings"]
    wanted = {name: run_id if value == "ID" else value for name, value in expected.items()}
    assert {name: settings[name] for name in wanted} == wanted


@pytest.mark.slow
def test_delete_takes_two_clicks_and_leaves_the_others_watched(open_page):
    kept, gone = live_runs.failed(store(), 1), live_runs.failed(store(), 1)
    test = open_page(PAGE, runs=f"{gone},{kept}")
    button(test, "Delete for good").click().run()
    assert not test.exception
    assert store().runs()["id"].tolist() == [kept]
    assert ticked(test) == {kept}
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
    test = open_page(PAGE, runs=run_id, log="true")
    assert not test.exception
    assert "epoch 1 done\n<b>bold</b>" in test.code[0].value
    without = open_page(PAGE, runs=live_runs.queued(store()), log="true")
    assert any("No log yet" in info.value for info in without.info)


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

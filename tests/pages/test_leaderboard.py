"""The leaderboard without a browser: empty and odd states, ranks, pairs, files, buttons."""

import csv
import io
import json
import urllib.parse

import numpy as np
import pandas as pd
import pytest

from cifar_core.base.csv_text import csv_of
from cifar_core.errors import StoreError
from cifar_core.settings.presets import preset
from cifar_core.settings.search_config import SearchConfig
from pages.leaderboard import ranking
from pages.shared import downloads, resources, run_table, snapshot
from tests.pages.board_runs import IMAGES, LABELS, finished

PAGE = "pages/leaderboard/leaderboard.py"
TUNED, COST, MISSING = "Tuned against baseline", "Accuracy and cost", "Not on this board"
FILES = "Exported files"
HOSTILE = '<img src=x onerror=alert(1)> **b** [x](javascript:alert(1)) =HYPERLINK("http://x")'


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """No supervisor: nothing that a test queues may begin to train. Gives how often one was asked for."""
    asked = []
    monkeypatch.delenv("CIFAR_LAB_SUPERVISE", raising=False)
    monkeypatch.setattr(resources, "supervisor", lambda: asked.append(1))
    return asked


@pytest.fixture
def store():
    return resources.store()


def components(test):
    """What each component of the page was given."""
    return [json.loads(element.proto.json) for element in test.main if element.type == "bidi_component"]


def tables(test):
    return [data for data in components(test) if "columns" in data]


def figures(test):
    return [data["figure"] for data in components(test) if "figure" in data]


def cell(row, data, key):
    keys = [column["key"] for column in data["columns"]]
    return row["cells"][keys.index(key) - 1]


def text(test):
    parts = [element.value for kind in ("markdown", "info", "warning", "caption", "subheader", "success")
             for element in getattr(test, kind)]  # fmt: skip
    return "\n".join([*parts, *(element.proto.body for element in test.main if element.type == "html")])


# --- Empty states -------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["", TUNED, COST, MISSING, FILES, "nonsense"])
def test_it_is_never_blank(open_page, view):
    test = open_page(PAGE, view=view)
    assert not test.exception
    assert "Nothing has been trained here yet" in text(test)
    assert "89.85 %" in text(test)
    assert "chosen on the test set" in text(test)


@pytest.mark.slow
def test_the_first_button_leads_to_a_training(open_page):
    test = open_page(PAGE)
    test.button("go_train").click().run()
    assert not test.exception
    assert test.title[0].value == "Train"


@pytest.mark.slow
def test_unfinished_runs_are_told_with_their_reason(open_page, store):
    run_id = store.create_run(preset("base_cnn/paper-baseline", name=HOSTILE))
    test = open_page(PAGE)
    assert not test.exception
    assert "No run is finished yet" in text(test)
    (data,) = tables(test)
    assert data["rows"][0]["id"] == run_id
    assert "1 run: waiting in the queue" in text(test)


@pytest.mark.slow
@pytest.mark.parametrize("view", ["Ranking", TUNED, COST, MISSING])
def test_a_single_run_without_answers_or_content_breaks_no_part(open_page, store, view):
    finished(store, 0.5, answers=False, fingerprint=None)
    test = open_page(PAGE, view=view)
    assert not test.exception


def test_an_address_full_of_nonsense_opens_the_page(open_page, store):
    finished(store, 0.5)
    nonsense = {"board": "x", "models": "y", "variants": "z", "by": "w", "sort": "q", "view": "v"}
    test = open_page(PAGE, **nonsense, order="up", chosen=",,a,", page="99")
    assert not test.exception
    assert len(tables(test)[0]["rows"]) == 1
    assert test.query_params["board"] == test.selectbox("board").value, "what nobody chose stays, too"


def test_a_store_that_cannot_be_read_is_told(open_page, store, monkeypatch):
    def fail():
        raise StoreError("The disk is gone. Put it back.")

    monkeypatch.setattr(store, "standing", fail)
    test = open_page(PAGE)
    assert not test.exception
    assert "The disk is gone" in test.error[0].value


# --- Ranking ------------------------------------------------------------------------------------


def test_rows_hold_their_numbers_and_the_study_beside_them(open_page, store):
    ids = [
        finished(store, 0.66 + 0.01 * seed, preset="base_cnn/paper-baseline", seed=seed) for seed in range(3)
    ]
    test = open_page(PAGE, columns=[column.label for column in ranking.COLUMNS[1:]])
    assert not test.exception
    (data,) = tables(test)
    (row,) = data["rows"]
    assert (row["id"], row["href"], row["rank"]) == (ids[2], f"run?id={ids[2]}", "1")
    assert cell(row, data, "accuracy") == ["67.00 ± 1.00 %", "best 68.00 %"]
    assert cell(row, data, "runs") == ["3", ""]
    assert cell(row, data, "published") == ["66.48 %", ""]
    assert cell(row, data, "parameters") == ["316 k", ""]
    assert cell(row, data, "latency_ms") == ["1.5 ms", ""]
    assert cell(row, data, "training_s") == ["1 min 00 s", "2 epochs"]
    assert cell(row, data, "images_per_second") == ["1,000", ""]
    assert cell(row, data, "ece") == ["5.0 %", ""]


@pytest.mark.slow
def test_rows_that_cannot_be_told_apart_share_a_rank(open_page, store):
    finished(store, 0.90, preset="resnet9/recommended")
    finished(store, 0.8925, preset="resnet18/recommended")
    finished(store, 0.70, preset="alexnet/paper-baseline")
    test = open_page(PAGE)
    ranks = [(row["name"], row["rank"]) for row in tables(test)[0]["rows"]]
    assert ranks == [("ResNet-9", "1="), ("ResNet-18", "1="), ("AlexNet", "3")]
    filtered = open_page(PAGE, models="AlexNet")
    assert [row["rank"] for row in tables(filtered)[0]["rows"]] == ["3"]


@pytest.mark.slow
def test_filters_order_and_grouping_come_from_the_address(open_page, store):
    finished(store, 0.66, preset="base_cnn/paper-baseline")
    finished(store, 0.73, preset="alexnet/paper-baseline")
    finished(store, 0.81, preset="alexnet/paper-tuned", protocol="held-out", epochs=3)
    finished(store, 0.83, preset="alexnet/paper-tuned", protocol="held-out", epochs=4, variant="tuned")
    both = open_page(PAGE, sort="accuracy", order="up")
    assert [cell(row, tables(both)[0], "accuracy")[0] for row in tables(both)[0]["rows"]] == [
        "66.00 %", "73.00 %", "81.00 %", "83.00 %",
    ]  # fmt: skip
    tuned = open_page(PAGE, variants="tuned", by="settings")
    assert [row["about"].split(" · ")[0] for row in tables(tuned)[0]["rows"]] == ["tuned"]
    nothing = open_page(PAGE, models="Base CNN", variants="tuned")
    assert not nothing.exception
    assert "No row passes the filters" in text(nothing)


@pytest.mark.slow
def test_what_cannot_be_compared_has_a_board_of_its_own(open_page, store):
    finished(store, 0.6)
    finished(store, 0.9, dataset="synthetic")
    finished(store, 0.8, protocol="test-selected")
    finished(store, 0.7, train_limit=100)
    finished(store, 0.5, fingerprint="beef")
    test = open_page(PAGE)
    board = test.selectbox("board")
    assert [len(tables(test)[0]["rows"]), len(board.options)] == [1, 5]
    assert sum("CIFAR-10, held-out, all images" in option for option in board.options) == 2
    board.set_value("Synthetic scenes, held-out, all images").run()
    assert not test.exception
    assert cell(tables(test)[0]["rows"][0], tables(test)[0], "accuracy")[0] == "90.00 %"
    assert cell(tables(test)[0]["rows"][0], tables(test)[0], "published")[0] == "–"


def test_few_columns_at_first_and_a_line_from_baseline_to_tuned_above_them(open_page, store):
    pair(store)
    test = open_page(PAGE)
    assert not test.exception
    assert [column["key"] for column in tables(test)[0]["columns"]] == ["model", *ranking.FIRST]
    (chart,) = figures(test)
    drawn = {trace["name"]: trace for trace in chart["data"]}
    assert drawn["alexnet, line"]["x"] == pytest.approx([73, 81])
    assert drawn["alexnet, tuned"]["x"] == pytest.approx([81])
    assert [note["text"] for note in chart["layout"]["annotations"]] == ["+8.00"]
    assert figures(open_page(PAGE, models="Base CNN")) == []


def test_the_search_cost_stands_beside_what_it_found(open_page, store):
    search = store.create_search(SearchConfig(model="alexnet"))
    finished(store, 0.8, model="alexnet", variant="tuned", search_id=search)
    test = open_page(PAGE, columns="Search")
    data = tables(test)[0]
    assert cell(data["rows"][0], data, "search_s") == ["–", ""]  # it has not ended yet


@pytest.mark.slow
def test_names_of_all_kinds_reach_the_page_as_text(open_page, store):
    finished(store, 0.6, name=HOSTILE, preset="base_cnn/paper-baseline")
    store.create_run(preset("base_cnn/paper-baseline", name=HOSTILE))
    for view in ("Ranking", TUNED, COST, MISSING):
        test = open_page(PAGE, view=view)
        assert not test.exception
        assert "onerror" not in text(test)
        assert "onerror" not in json.dumps(figures(test))


def test_a_second_page_of_rows(open_page, store, monkeypatch):
    monkeypatch.setattr(ranking, "PAGE", 2)
    for number in range(5):
        finished(store, 0.5 + 0.05 * number, model="base_cnn", weight_decay=0.001 * number, answers=False)
    test = open_page(PAGE, by="settings", page="3")
    assert not test.exception
    assert [cell(row, tables(test)[0], "accuracy")[0] for row in tables(test)[0]["rows"]] == ["50.00 %"]


# --- Choosing rows ------------------------------------------------------------------------------


def test_ticked_rows_can_be_compared(open_page, store):
    baseline = [finished(store, 0.66, preset="base_cnn/paper-baseline", seed=seed) for seed in range(2)]
    other = finished(store, 0.73, preset="alexnet/paper-baseline")
    test = open_page(PAGE, chosen=f"{baseline[0]},{other}")
    assert [row["ticked"] for row in tables(test)[0]["rows"]] == [True, True]
    (found,) = [data for data in components(test) if data.get("label") == "Compare 2 rows"]
    asked = urllib.parse.parse_qs(urllib.parse.urlparse(found["href"]).query)["runs"][0].split(",")
    assert set(asked) == {*baseline, other}
    assert other in asked[:2]  # in turn one run of each row


@pytest.mark.slow
def test_more_seeds_are_queued_with_seeds_that_nobody_has(open_page, store, started):
    run_id = finished(store, 0.66, preset="base_cnn/paper-baseline", seed=1)
    test = open_page(PAGE, chosen=run_id)
    test.button("more_seeds").click().run()
    assert not test.exception
    queued = store.runs(state="queued")
    assert sorted(queued["seed"]) == [0, 2, 3]
    assert set(queued["settings_key"]) == {store.get(run_id).settings_key}
    assert started == [1]
    assert "3 runs are in the queue" in text(test)
    test.button("more_seeds").click().run()
    assert sorted(store.runs(state="queued")["seed"]) == [0, 2, 3, 4, 5, 6]


def test_the_address_remembers_order_and_ticks(monkeypatch):
    address = {}
    monkeypatch.setattr(ranking.st, "query_params", address)
    assert ranking.order() == ("accuracy", True)
    ranking._sort_by("parameters")
    assert ranking.order() == ("parameters", True)
    ranking._sort_by("parameters")
    assert ranking.order() == ("parameters", False)
    ranking._sort_by("model")
    assert ranking.order() == ("model", False)
    ranking._sort_by("no such column")
    assert ranking.order() == ("model", False)
    ranking._tick(["a", "b"], ["a", "b", "c"])
    ranking._tick(["d"], ["d", "e"])
    assert ranking.chosen() == ["a", "b", "d"]
    ranking._tick([], ["a", "b", "c"])
    assert address["chosen"] == "d"
    ranking._tick([], ["d"])
    assert "chosen" not in address


# --- Tuned against baseline -----------------------------------------------------------------------


def pair(store, tuned=0.81, **changes):
    first = finished(store, 0.73, preset="alexnet/paper-baseline")
    second = finished(store, tuned, preset="alexnet/paper-tuned", **{"protocol": "held-out", **changes})
    return first, second


def test_better_in_words_with_interval_and_test(open_page, store):
    pair(store)
    test = open_page(PAGE, view=TUNED)
    assert not test.exception
    assert "**Tuned is better.** +8.00 points over 400 test images (95 % interval" in text(test)
    assert "exact McNemar, p < 0.0001" in text(test)
    assert "The two protocols differ" not in text(test)
    dumbbell, intervals = figures(test)
    assert any(trace.get("name") == "published" for trace in dumbbell["data"])
    assert intervals["data"][0]["y"] == ["AlexNet"]


@pytest.mark.parametrize(
    ("tuned", "words"), [(0.73, "No evidence"), (0.60, "Tuned is worse"), (0.735, "No evidence")]
)
def test_other_verdicts(open_page, store, tuned, words):
    pair(store, tuned)
    test = open_page(PAGE, view=TUNED)
    assert not test.exception
    assert words in text(test)


def test_a_test_selected_figure_is_shown_and_said_to_flatter(open_page, store):
    pair(store, protocol="test-selected")
    test = open_page(PAGE, view=TUNED)
    assert not test.exception
    assert "selected on the test set" in test.warning[0].value
    assert "favours tuned" in test.warning[0].value


def test_different_images_are_never_tested(open_page, store):
    first = finished(store, 0.73, preset="alexnet/paper-baseline", answers=False)
    store.save_predictions(first, np.eye(10)[LABELS[:100]], LABELS[:100], np.arange(100))
    finished(store, 0.81, preset="alexnet/paper-tuned", protocol="held-out")
    test = open_page(PAGE, view=TUNED)
    assert not test.exception
    assert "**Not comparable.** The two were tested on different images" in text(test)


def test_a_side_that_lacks_is_told(open_page, store):
    finished(store, 0.73, preset="alexnet/paper-baseline")
    finished(store, 0.31, preset="mobilenet/paper-tuned", protocol="held-out")
    finished(store, 0.95, preset="resnet18/recommended")
    test = open_page(PAGE, view=TUNED)
    assert not test.exception
    assert "No tuned run yet" in text(test)
    assert "No baseline yet" in text(test)
    heads = [item.value for item in test.subheader]
    assert heads[-2:] == ["AlexNet", "MobileNetV2"]


@pytest.mark.slow
def test_the_fair_baseline_is_queued_and_then_shown(open_page, store, started):
    pair(store, epochs=30, variant="tuned")
    test = open_page(PAGE, view=TUNED)
    assert "Not known yet" in text(test)
    test.button("fair_alexnet").click().run()
    assert not test.exception
    queued = [store.get(run_id).config for run_id in store.runs(state="queued")["id"]]
    assert {(config.epochs, config.rotation, config.flip, config.learning_rate) for config in queued} == {
        (30, 15.0, True, 1e-3)
    }
    assert sorted(config.seed for config in queued) == [0, 1, 2]
    assert {config.variant for config in queued} == {"custom"}
    assert started == [1]
    assert "3 such runs are under way" in text(test)
    assert all(button.key != "fair_alexnet" for button in test.button)

    values = queued[0].flat() | {"preset": None}
    values.pop("hyperparameters", None)
    finished(store, 0.80, **values)
    shown = open_page(PAGE, view=TUNED)
    assert not shown.exception
    assert "make +7.00 points, the other settings +1.00 points" in text(shown)


def test_equal_budgets_need_no_fair_baseline(open_page, store):
    finished(store, 0.73, model="base_cnn", variant="baseline", epochs=2)
    finished(store, 0.80, model="base_cnn", variant="tuned", epochs=2, learning_rate=3e-3)
    test = open_page(PAGE, view=TUNED)
    assert not test.exception
    assert "The baseline had the same, so none of the difference comes from them." in text(test)


# --- The other parts ----------------------------------------------------------------------------


@pytest.mark.parametrize("cost", ["Parameters", "FLOPs", "Latency", "Training time", "Epochs"])
def test_the_front_joins_what_nobody_beats(open_page, store, cost):
    finished(store, 0.6, preset="base_cnn/paper-baseline")
    finished(store, 0.7, preset="alexnet/paper-baseline")
    test = open_page(PAGE, view=COST, cost=cost)
    assert not test.exception
    front = next(trace for trace in figures(test)[0]["data"] if trace["name"] == "front")
    assert len(tables(test)[0]["rows"]) >= 1
    assert front["mode"] == "lines"


def exported(store, run_id, form, quantize, size, accuracy, ms):
    store.record_export(
        run_id,
        format=form,
        quantize=quantize,
        bytes=size,
        sha256="0" * 64,
        images=10_000,
        verified_on="cifar10 test",
        agreement=0.99,
        max_difference=0.1,
        accuracy=accuracy,
        latency_ms=ms,
    )


def test_files_stand_by_what_they_cost_with_a_way_to_what_the_small_ones_lack(open_page, store):
    large = finished(store, 0.8)
    small = finished(store, 0.7, start_from=large, channel_pruning=0.5)
    elsewhere = finished(store, 0.9, dataset="synthetic")
    exported(store, large, "tflite", None, 1_200_000, 0.80, 0.2)
    exported(store, large, "tflite", "int8", 330_000, 0.79, 0.1)
    exported(store, large, "onnx", None, 1_300_000, 0.80, 0.3)
    exported(store, small, "tflite", None, 400_000, 0.70, 0.15)
    exported(store, elsewhere, "tflite", None, 100, 0.9, 0.2)
    test = open_page(PAGE, part=FILES)
    assert not test.exception
    rows = tables(test)[0]["rows"]
    assert [row["name"] for row in rows] == [
        "LiteRT float32 ●",
        "ONNX float32",
        "LiteRT int8 ●",
        "LiteRT float32",
    ]
    assert {row["id"] for row in rows} == {large, small}
    [(_, address)] = [link for link in rows[3]["links"] if large in link[0]]
    asked = urllib.parse.parse_qs(urllib.parse.urlparse(address).query)
    assert (asked["a"], asked["b"], asked["group"]) == ([large], [small], ["broken"])
    assert [row["cells"][2][0] for row in rows] == ["1.2 MB", "1.3 MB", "330.0 kB", "400.0 kB"]
    assert not open_page(PAGE, part=FILES, against="One image").exception


def test_who_is_missing_and_why(open_page, store):
    finished(store, 0.6)
    finished(store, 0.9, dataset="synthetic")
    failed = store.create_run(preset("vit/recommended"))
    store.claim(failed, pid=1)
    store.fail(failed, HOSTILE)
    test = open_page(PAGE, view=MISSING)
    assert not test.exception
    assert "**1 of 3 runs** are on the board" in text(test)
    assert "1 run: failed" in text(test)
    assert "1 run: another dataset" in text(test)
    reasons = [row["cells"] for data in tables(test) for row in data["rows"] if row["id"] == failed]
    assert reasons[0][1][0].startswith("<img src=x")  # as text: the table never makes HTML of it
    test.button("open_Synthetic scenes, held-out, all images").click().run()
    assert not test.exception
    assert test.selectbox("board").value == "Synthetic scenes, held-out, all images"


# --- Files and memory ---------------------------------------------------------------------------


def test_a_spreadsheet_never_executes_a_name():
    names = ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "plain", 'quote"d, text', "line\nbreak"]
    frame = pd.DataFrame({"name": names, "value": [-1.5] * len(names)})
    rows = list(csv.reader(io.StringIO(csv_of(frame))))
    assert rows[0] == ["name", "value"]
    assert [row[0] for row in rows[1:]] == [
        *("'" + name for name in names[:4]),
        "'\t'=1",
        "'\n'=1",
        *names[6:],
    ]
    assert {row[1] for row in rows[1:]} == {"-1.5"}


def test_json_knows_what_is_not_known():
    frame = pd.DataFrame({"a": [1.5, np.nan], "b": [True, False], "n": [1, 2], "t": [None, "é"]})
    assert json.loads(downloads.as_json(frame)) == [
        {"a": 1.5, "b": True, "n": 1, "t": None},
        {"a": None, "b": False, "n": 2, "t": "é"},
    ]


def test_results_are_read_once_while_nobody_writes(store):
    finished(store, 0.6)
    first = snapshot.snapshot()
    assert snapshot.snapshot().runs is first.runs
    finished(store, 0.7)
    assert len(snapshot.snapshot().runs) == 2


def test_answers_are_read_once(store, monkeypatch):
    run_id = finished(store, 0.6)
    read = snapshot.reader(store.runs())
    assert read(run_id).correct.sum() == round(0.6 * IMAGES)
    monkeypatch.setattr(store, "prediction_arrays", lambda _: pytest.fail("read again"))
    assert snapshot.reader(store.runs())(run_id) is read(run_id)


def test_the_table_puts_data_in_as_text_only():
    script = (run_table.HERE / "run_table.js").read_text(encoding="utf-8")
    assert not any(
        word in script for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write")
    )

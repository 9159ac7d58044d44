"""Runs compared, in Runs and in Mistakes, without a browser: any runs, in any state."""

import base64
import json

import numpy as np
import pytest

from cifar_core.analysis import comparison
from cifar_core.settings.train_config import TrainConfig
from pages.shared import resources
from tests.pages.board_runs import finished

RUNS, MISTAKES = "pages/runs/runs.py", "pages/mistakes/mistakes.py"
COMPARE = "pages/runs/compare.py"
PARTS = ("Settings that differ", "Mean over seeds")
HOSTILE = "<img src=x onerror=alert(1)> **b** [x](javascript:alert(1))"


@pytest.fixture
def store():
    return resources.store()


def components(test, part):
    found = [json.loads(element.proto.json) for element in test.main if element.type == "bidi_component"]
    return [data for data in found if part in data]


def text(test):
    parts = [element.value for kind in ("markdown", "info", "warning", "caption", "subheader")
             for element in getattr(test, kind)]  # fmt: skip
    return "\n".join([*parts, *(element.proto.body for element in test.main if element.type == "html")])


def compared(test):
    """Ids of the ticked runs in the table."""
    return {row["id"] for data in components(test, "columns") for row in data["rows"] if row["ticked"]}


def link(test, label):
    """Address of the link with this label."""
    (found,) = [data["href"] for data in components(test, "href") if label in data["label"]]
    return found


def test_one_run_alone_is_not_compared(open_page, store):
    test = open_page(RUNS, runs=finished(store, 0.6))
    assert not test.exception
    assert not test.get("tab")


@pytest.mark.parametrize("part", PARTS)
def test_runs_in_odd_states_break_nothing(open_page, store, part):
    queued = store.create_run(TrainConfig(name=HOSTILE))
    done = finished(store, 0.6, name=HOSTILE, answers=False)
    test = open_page(RUNS, runs=f"{queued},{done},{HOSTILE},gone-123456", shown=part)
    assert not test.exception
    assert compared(test) == {queued, done}
    assert "Not in this store" in text(test)
    assert "<img" not in text(test).replace("\\<img", "")
    if part == PARTS[1]:
        assert f"Without an epoch yet: {queued}" in text(test).replace("\\", "")


@pytest.mark.slow
def test_results_settings_and_seed_bands(open_page, store):
    ids = [finished(store, 0.6 + 0.01 * seed, seed=seed) for seed in range(3)]
    other = finished(store, 0.7, learning_rate=0.005)
    model = finished(store, 0.8, model="alexnet")
    test = open_page(RUNS, runs=",".join(ids[:2]))
    assert not test.exception
    assert "No setting differs" in text(test)
    test.query_params["runs"] = ",".join([*ids, other])
    test.run()
    assert not test.exception
    assert compared(test) == {*ids, other}
    assert link(test, "predict differently") == f"gallery?view=Two+runs&a={ids[0]}&b={other}"
    assert "Learning rate" in text(test)
    assert "0.005" in text(test)
    assert "Batch size" not in text(test)
    assert f"{ids[0]} and 2 more seeds" in text(test)

    test = open_page(RUNS, runs=",".join([*ids, model]), shown=PARTS[1])
    assert not test.exception
    (figure,) = [
        data["figure"] for data in components(test, "figure") if "Validation accuracy of" in data["alt"]
    ]
    names = [trace["name"] for trace in figure["data"]]
    assert len(names) == 3
    assert sum("(n = 3)" in name for name in names) == 1
    assert sum("± sd" in name for name in names) == 1


def test_which_two_to_compare(store):
    first, seed = finished(store, 0.5, answers=False), finished(store, 0.5, seed=1, answers=False)
    queued, other = store.create_run(TrainConfig(epochs=3)), finished(store, 0.5, epochs=3, answers=False)
    runs = store.runs().set_index("id", drop=False)
    assert comparison.two_to_compare(runs.loc[[first, seed, queued, other]]) == (first, other)
    assert comparison.two_to_compare(runs.loc[[first, seed, queued]]) == (first, seed)
    assert comparison.two_to_compare(runs.loc[[queued, other]]) is None


def test_too_many_are_told(open_page, store):
    ids = [store.create_run(TrainConfig(seed=seed)) for seed in range(25)]
    test = open_page(RUNS, runs=",".join(ids))
    assert not test.exception
    assert "the first 24 are shown" in text(test)
    assert len(compared(test)) == 24


@pytest.mark.slow
def test_disagreement_is_counted_and_named(open_page, store):
    a, b = finished(store, 0.7, learning_rate=0.005), finished(store, 0.8, protocol="test-selected")
    test = open_page(MISTAKES, view="Two runs", a=a, b=b)
    assert not test.exception
    assert "**B is better.** B minus A: +10.00 points over 400 test images" in text(test)
    assert "exact McNemar, p < 0.0001" in text(test)
    assert "The protocols differ" in text(test)
    assert "Fixed</dt><dd>40<" in text(test)
    figures = {data["name"]: data["figure"]["data"] for data in components(test, "figure")}
    fixed, broken = figures["by_class"]
    assert (sum(fixed["x"]), sum(broken["x"])) == (40, 0)
    z = figures["confusion_difference"][0]["z"]
    matrix = np.frombuffer(base64.b64decode(z["bdata"]), z["dtype"]).reshape(10, 10)
    assert (matrix.sum(), matrix.trace()) == (0, 40)
    test.query_params["group"] = "broken"
    test.query_params["a"], test.query_params["b"] = b, b
    assert "A and B are the same run" in text(test.run())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "where", "expected"),
    [
        ({"runs": "a-1,b-2"}, "Runs", {"runs": "a-1,b-2"}),
        ({"runs": ["a-1", "b-2"], "shown": "Curves"}, "Runs", {"runs": "a-1,b-2"}),
        (
            {"runs": "a-1,b-2,c-3", "shown": "Images", "kind": "both are wrong", "class": "cat"},
            "Mistakes",
            {"view": "Two runs", "group": "both wrong", "class": "cat"},
        ),
    ],
)
def test_old_addresses_lead_to_the_new_places(open_page, store, asked, where, expected):
    ids = {"a-1": finished(store, 0.5), "b-2": finished(store, 0.6, epochs=3), "c-3": "c-3"}

    def known(value):
        for short, run in ids.items():
            value = value.replace(short, run)
        return value

    given = {
        name: [known(one) for one in value] if isinstance(value, list) else known(value)
        for name, value in asked.items()
    }
    test = open_page(COMPARE, **given)
    assert not test.exception
    assert test.title[0].value == where
    found = {name: test.query_params[name] for name in expected}
    assert found == {name: known(value) for name, value in expected.items()}
    if where == "Mistakes":
        assert (test.query_params["a"], test.query_params["b"]) == (ids["a-1"], ids["b-2"])


def test_the_old_address_without_runs_leads_to_runs(open_page):
    test = open_page(COMPARE)
    assert not test.exception
    assert test.title[0].value == "Runs"

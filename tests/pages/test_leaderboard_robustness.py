"""Leaderboard, part Robustness: several runs side by side, and those that are not measured yet."""

import pandas as pd
import pytest

from cifar_core.analysis import derived
from cifar_core.data.corruptions import KINDS, STRENGTHS
from cifar_core.serving.robustness import CLEAN, OWN, ROBUSTNESS_FILE
from pages.leaderboard import robustness
from pages.shared import resources
from tests.pages.board_runs import IMAGES, finished
from tests.pages.test_leaderboard import cell, figures, tables, text

PAGE = "pages/leaderboard/leaderboard.py"


@pytest.fixture(autouse=True)
def _nothing_starts(monkeypatch):
    monkeypatch.delenv("CIFAR_LAB_SUPERVISE", raising=False)
    monkeypatch.setattr(resources, "supervisor", lambda: None)


def measured(store, run_id, clean, step, more=()):
    """Each strength costs `step` of the images."""
    rows = [(CLEAN, CLEAN, 0, clean)]
    rows += [(OWN, kind, strength, clean - strength * step) for kind in KINDS for strength in STRENGTHS]
    columns = ("test_set", "kind", "strength", "correct")
    table = pd.DataFrame([*rows, *more], columns=columns).assign(images=IMAGES, test_images="400-f00d")
    derived.keep(store, run_id, ROBUSTNESS_FILE, table)


def test_runs_stand_side_by_side_and_the_rest_can_be_measured(open_page, monkeypatch):
    store = resources.store()
    base = finished(store, 0.70, preset="alexnet/paper-baseline")
    tuned = finished(store, 0.80, preset="alexnet/paper-tuned", protocol="held-out")
    other = finished(store, 0.60, preset="base_cnn/paper-baseline")
    finished(store, 0.9, dataset="synthetic")
    measured(store, base, 280, 40, more=[("CIFAR-10.1 v6", "CIFAR-10.1 v6", 0, 200)])
    measured(store, tuned, 320, 20)
    test = open_page(PAGE, part="Robustness")
    assert not test.exception
    (chart,) = figures(test)
    drawn = {(trace["name"], trace["xaxis"]): trace["y"] for trace in chart["data"]}
    assert len(drawn) == 2 * len(KINDS)
    assert [y for (name, axis), y in drawn.items() if "tuned" in name and axis == "x"] == [
        pytest.approx([80, 75, 70, 65, 60, 55])
    ]
    (data,) = tables(test)
    assert [row["id"] for row in data["rows"]] == [base, tuned]
    assert cell(data["rows"][1], data, "clean") == ["80.00 %", "+10.00 points"]
    assert cell(data["rows"][1], data, "jpeg") == ["65.00 %", "+25.00 points"]
    assert cell(data["rows"][0], data, "mean") == ["40.00 %", ""]
    assert f"not measured yet: {other}" in text(test)
    started = []
    monkeypatch.setattr(robustness, "in_process", lambda *call: started.append(call) or bool)
    test.button("measure_robustness").click().run()
    assert [call[1:] for call in started] == [([other], ())]
    further = open_page(PAGE, part="Robustness", test_set="CIFAR-10.1 v6")
    assert not further.exception
    (data,) = tables(further)
    assert cell(data["rows"][0], data, "mean") == ["50.00 %", ""]


def test_a_single_run_that_is_not_measured_offers_it(open_page):
    finished(resources.store(), 0.5)
    test = open_page(PAGE, part="Robustness")
    assert not test.exception
    assert test.button("measure_robustness").label == "Measure 1 run"

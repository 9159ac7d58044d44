"""Figures of searches and of datasets: hand-made trials and numbers, and Plotly's own validation."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from cifar_core.base.fields import value_text
from cifar_core.plots import dataset, search
from cifar_core.plots.search import Axis

RATE = Axis("learning_rate", "learning rate", None, None, 1e-4, 1e-2, log=True)
UNITS = Axis("units", "units", "units", (64, 128), 64, 128)
OPTIMIZER = Axis("optimizer", "<optimizer>", None, ("adam", "sgd"))
AXES = (RATE, UNITS, OPTIMIZER)


def trial(number, score, *, state="finished", parent=None, epochs=2, optimizer="adam"):
    settings = {"learning_rate": 10.0 ** -(2 + number % 3), "units": 64, "optimizer": optimizer}
    return {
        "number": number, "trial_id": f"{number:04d}", "state": state, "score": score, "parent": parent,
        "epochs": epochs, "settings": settings,
    }  # fmt: skip


TRIALS = [
    trial(1, 0.25),
    trial(2, 0.5, optimizer="sgd"),
    trial(3, None, state="failed"),
    trial(4, 0.75, parent="0002", epochs=8, optimizer="sgd"),
    trial(5, None, state="running"),
]
TREE = [
    {
        "rounds": [
            {"planned": 4, "epochs": 2, "trials": [TRIALS[0], TRIALS[1], TRIALS[2]]},
            {"planned": 2, "epochs": 8, "trials": [TRIALS[3]]},
        ]
    }
]


def hover(shown):
    return f"trial {shown['number']}"


def test_progress_has_the_best_so_far_and_failures_on_the_lowest_score():
    line, done, failed = search.search_progress(TRIALS, 6, hover)["data"]
    assert (line["x"], line["y"]) == ([1, 2, 4], [25.0, 50.0, 75.0])
    assert done["text"] == ["trial 1", "trial 2", "trial 4"]
    assert (failed["x"], failed["y"]) == ([3], [25.0])


def test_brackets_rank_the_trials_of_a_round_and_connect_those_that_went_on():
    drawn, height = search.bracket_tree(TREE, TRIALS, ["0002", "0004"], hover)
    promoted, best, planned, trials = drawn["data"]
    assert not promoted["x"]
    assert best["x"] == [2.0, 8.0, None]
    assert best["y"] == [-0.5, -1.0, None]
    assert sorted(zip(planned["x"], planned["y"], strict=True)) == [(2.0, -3.5), (8.0, -3.0)]
    assert dict(zip(trials["text"], trials["y"], strict=True)) == {
        "trial 1": -1.5, "trial 2": -0.5, "trial 3": -2.5, "trial 4": -1.0
    }  # fmt: skip
    assert search.MIN_TREE_PX <= height <= search.MAX_TREE_PX


def test_settings_are_placed_by_their_scale_and_their_order():
    rate, units, optimizer, score = search.settings_and_score(TRIALS, AXES)["data"][0]["dimensions"]
    assert rate["values"] == [-3, -4, -3]
    assert rate["range"] == [-4, -2]
    assert rate["ticktext"][0] == "0.0001"
    assert units["range"] == [64, 128]
    assert (optimizer["label"], optimizer["values"]) == ("&lt;optimizer&gt;", [0, 1, 1])
    assert score["values"] == [25.0, 50.0, 75.0]


def test_longer_trials_have_larger_points_and_the_best_one_its_colour():
    drawn = search.score_against(TRIALS, OPTIMIZER, hover, best="0004")
    assert drawn["data"][0]["x"] == ["adam", "sgd", "sgd"]
    assert drawn["data"][0]["marker"]["size"] == [9.5, 9.5, 13.0]
    assert drawn["data"][0]["marker"]["color"][2] == search.BEST
    assert drawn["layout"]["xaxis"]["categoryarray"] == ["adam", "sgd"]
    assert search.score_against(TRIALS, UNITS, hover)["layout"]["xaxis"]["title"]["text"] == "units (units)"


def test_importance_is_shown_with_the_most_important_on_top():
    table = pd.DataFrame({"label": ["a", "<b>"], "importance": [0.75, 0.25], "sd": [0.1, 0.2]})
    bar = search.importance_bars(table)["data"][0]
    assert (bar["y"], bar["x"]) == (["&lt;b&gt;", "a"], [25.0, 75.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "on"), (False, "off"), (None, "none"), ("", "none"), (1e-4, "0.0001"), ("a", "a")],
)
def test_values_as_text(value, text):
    assert value_text(value) == text


def test_the_map_has_every_image_once_in_its_class():
    labels = np.array([3, 0, 3])
    dots = dataset.image_map(np.arange(6.0).reshape(3, 2), labels)["data"]
    assert dots[3]["customdata"] == [0, 2]
    assert (dots[3]["x"], dots[3]["y"]) == ([0.0, 4.0], [1.0, 5.0])
    assert sum(len(each["customdata"]) for each in dots) == 3


def test_hues_are_percentages_and_their_swatches_touch():
    drawn = dataset.hue_by_class(np.full((10, 36), 1 / 36))
    assert drawn["data"][0]["z"][0][0] == 2.78
    assert drawn["layout"]["shapes"][0]["x1"] == drawn["layout"]["shapes"][1]["x0"]


def test_plotly_accepts_every_figure():
    points = {"0001": [(1, 0.1), (2, 0.25)], "0002": [(1, 0.5)]}
    quantiles = np.sort(np.random.default_rng(0).random((10, 5)), axis=1)
    figures = [
        search.search_progress(TRIALS, 6, hover),
        search.bracket_tree(TREE, TRIALS, ["0004"], hover)[0],
        search.trial_curves(TRIALS, lambda key: points.get(key, []), "Accuracy", winners=["0002"]),
        search.settings_and_score(TRIALS, AXES),
        *(search.score_against(TRIALS, axis, hover) for axis in AXES),
        search.importance_bars(pd.DataFrame({"label": ["a"], "importance": [1.0], "sd": [0.1]})),
        dataset.light_by_class(quantiles, quantiles),
        dataset.hue_by_class(np.full((10, 36), 1 / 36)),
        dataset.image_map(np.zeros((3, 2)), np.arange(3)),
    ]
    for drawn in figures:
        assert go.Figure(drawn).data

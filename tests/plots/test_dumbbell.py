"""The figure that tells tuned from baseline."""

import pandas as pd
import pytest

from cifar_core.plots.dumbbell import accuracy_interval, dumbbell


def test_the_interval_is_wilsons():
    # E. B. Wilson, 1927; the values of statsmodels' proportion_confint(8055, 10000, method="wilson")
    assert accuracy_interval(0.8055, 10_000) == pytest.approx((0.79763, 0.81314), abs=1e-4)
    assert accuracy_interval(0.0, 10)[0] == pytest.approx(0.0)
    assert accuracy_interval(1.0, 10)[1] == pytest.approx(1.0)


def test_models_by_their_best_and_the_gain_where_both_are_there():
    rows = pd.DataFrame(
        [("alexnet", "baseline", 0.73), ("alexnet", "tuned", 0.8), ("base_cnn", "custom", 0.9)],
        columns=["model", "variant", "accuracy"],
    )
    chart = dumbbell(rows, 10_000)
    assert chart["layout"]["yaxis"]["categoryarray"] == ["alexnet", "base_cnn"]
    assert [(note["y"], note["text"]) for note in chart["layout"]["annotations"]] == [("alexnet", "+7.00")]
    lines = [trace["name"] for trace in chart["data"] if trace["mode"] == "lines"]
    assert lines == ["alexnet, line"]
    tuned = next(trace for trace in chart["data"] if trace["name"] == "alexnet, tuned")
    low, high = accuracy_interval(0.8, 10_000)
    assert tuned["error_x"]["array"] == pytest.approx([100 * (high - 0.8)])
    assert tuned["error_x"]["arrayminus"] == pytest.approx([100 * (0.8 - low)])

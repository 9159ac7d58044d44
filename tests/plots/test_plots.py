import json
import subprocess
import sys

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from cifar_core import plots
from cifar_core.analysis.metrics import report
from cifar_core.analysis.mistakes import confidence_histogram, confused_pairs, worst_classes
from cifar_core.analysis.statistics import compare
from cifar_core.analysis.study.paper import PAPER_RESULTS
from cifar_core.data.problem import CLASS_NAMES
from cifar_core.errors import ConfigError
from cifar_core.plots import Curve
from cifar_core.plots.palette import NEUTRAL, REFERENCE_DASH, model_colour
from cifar_core.training.reproduce import Outcome, paper_runs, reproduction_table


def history(epochs=6, shift=0.0):
    steps = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {
            "epoch": steps,
            "accuracy": 0.5 + 0.05 * steps + shift,
            "val_accuracy": 0.45 + 0.05 * steps + shift,
            "loss": 2.0 / steps,
            "val_loss": 2.2 / steps,
            "learning_rate": 1e-3,
        }
    )


@pytest.fixture
def evaluated():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 10
    probabilities = rng.dirichlet(np.full(10, 0.3), 200) + np.eye(10)[labels] * 0.6
    return report(probabilities / probabilities.sum(axis=1, keepdims=True), labels)


@pytest.fixture
def answers():
    """Two classes: of 40 airplanes 10 are taken for ships and 5 for birds, and 5 of 20 trucks for ships."""
    label, predicted, confidence = np.array(
        [(0, 0, 0.9)] * 25 + [(0, 8, 0.8)] * 10 + [(0, 2, 0.4)] * 5 + [(9, 9, 0.99)] * 15 + [(9, 8, 0.6)] * 5
    ).T
    table = {"index": np.arange(60), "label": label.astype(int), "predicted": predicted.astype(int)}
    return pd.DataFrame({**table, "confidence": confidence, "correct": label == predicted})


@pytest.fixture
def comparison():
    right = np.arange(1000) < 900
    return {
        "close": compare(right ^ (np.arange(1000) < 2), right),
        "far": compare(np.arange(1000) < 700, right),
    }


@pytest.fixture
def results():
    return pd.DataFrame(
        {
            "label": ["a", "b", "c"],
            "model": ["alexnet", "alexnet", "vit"],
            "variant": ["baseline", "tuned", "custom"],
            "accuracy": [0.73, 0.8, 0.78],
            "sd": [0.01, np.nan, 0.02],
            "parameters": [37_000_000, 29_000_000, 3_000_000],
        }
    )


@pytest.fixture
def every_figure(evaluated, comparison, results, answers):
    curve = Curve("mine", history(), "resnet18", "tuned")
    table = reproduction_table([Outcome(config, 0.7, 60) for config in paper_runs("alexnet")])
    return {
        "curves": plots.learning_curves([curve, plots.reference_curve("resnet18", "tuned")], smoothing=0.5),
        "loss": plots.learning_curves([curve], "loss", log_y=True),
        "rate": plots.learning_curves([curve], "learning_rate"),
        "bands": plots.seed_bands([[curve, curve]]),
        "confusion": plots.confusion_matrix(evaluated.confusion),
        "errors": plots.confusion_matrix(evaluated.confusion, errors_only=True),
        "difference": plots.confusion_difference(evaluated.confusion, evaluated.confusion.T),
        "classes": plots.per_class_bars({"a": evaluated.per_class}, models={"a": "vit"}),
        "reliability": plots.reliability_diagram(evaluated.reliability, evaluated.ece, model="vit"),
        "distribution": plots.class_distribution({"train": np.full(10, 5000), "test": np.full(10, 1000)}),
        "prediction": plots.prediction_bars(np.full(10, 0.1), label=3, top=5),
        "leaderboard": plots.leaderboard_dumbbell(results, PAPER_RESULTS),
        "published": plots.published_comparison(table),
        "intervals": plots.difference_intervals(comparison, against="best"),
        "cost": plots.accuracy_against_cost(results),
        "pairs": plots.confused_pairs_bars(confused_pairs(answers)),
        "worst": plots.worst_classes_bars(worst_classes(answers)),
        "confidence": plots.confidence_bars(confidence_histogram(answers)),
        "agreement": plots.agreement_matrix(pd.DataFrame(np.eye(2), ["a", "b"], ["a", "b"])),
    }


def test_every_figure_keeps_its_view_names_its_axes_and_suits_both_themes(every_figure):
    for name, chart in every_figure.items():
        layout = json.loads(chart.to_json())["layout"]
        assert layout["uirevision"], name
        assert layout["xaxis"]["title"]["text"], name
        assert layout["yaxis"]["title"]["text"], name
        assert layout["template"]["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)", name
        assert "color" not in layout.get("font", {}), name
        assert chart.data, name
        text = chart.to_json()
        assert '"black"' not in text, name
        assert '"#000000"' not in text, name


def test_every_public_name_is_there(every_figure):
    assert all(hasattr(plots, name) for name in plots.__all__)
    assert len({chart.layout.uirevision for chart in every_figure.values()}) >= len(every_figure) - 1


def test_uirevision_stays_while_data_grow():
    short, long = (plots.learning_curves([Curve("a", history(n), "vit")]) for n in (3, 6))
    assert short.layout.uirevision == long.layout.uirevision
    other = plots.learning_curves([Curve("a", history(), "vit")], "loss")
    assert other.layout.uirevision != long.layout.uirevision


def test_learning_curve_shows_percent_in_the_models_colour_and_training_thin_and_dotted():
    train, validation = plots.learning_curves([Curve("mine", history(), "resnet18", "baseline")]).data
    assert (train.name, validation.name) == ("mine, training", "mine, validation")
    assert validation.y[-1] == pytest.approx(75)
    assert train.line.color == validation.line.color == model_colour("resnet18")
    assert (validation.line.dash, train.line.dash) == ("solid", "2px,2px")
    assert validation.line.width > train.line.width
    only = plots.learning_curves([Curve("mine", history(), "resnet18")], train=False)
    assert [trace.name for trace in only.data] == ["mine, validation"]


@pytest.mark.parametrize("measure", ["learning_rate", "images_per_second", "seconds"])
def test_what_may_stay_constant_is_drawn_from_zero(measure):
    # Of a constant value Plotly makes an axis one wide on both sides: 0.001 would look like 0.
    assert plots.curve_layout(measure)["yaxis"]["rangemode"] == "tozero"
    assert plots.curve_layout("accuracy")["yaxis"]["rangemode"] == "normal"


@pytest.mark.parametrize(
    ("epochs", "log_x", "dtick"), [(2, False, 1), (12, False, 1), (13, False, None), (12, True, None)]
)
def test_few_epochs_are_marked_whole(epochs, log_x, dtick):
    chart = plots.learning_curves([Curve("mine", history(epochs), "vit")], log_x=log_x)
    assert chart.layout.xaxis.dtick == dtick
    if not log_x:
        bands = plots.seed_bands([[Curve("mine", history(epochs), "vit")] * 2])
        assert bands.layout.xaxis.dtick == dtick


def test_inside_the_first_epoch_the_axis_marks_parts_of_it():
    assert plots.last_epoch([]) == 0
    assert plots.last_epoch([{"x": [0.1, 0.4]}, {"x": []}]) == 0.4
    assert "dtick" not in plots.curve_layout(last=0.4)["xaxis"]


def test_the_studys_validation_curve_is_stronger_than_its_training_curve_and_fainter_than_ours():
    curves = [Curve("mine", history(), "resnet18"), plots.reference_curve("resnet18")]
    by_name = {trace.name: trace for trace in plots.learning_curves(curves).data}
    train, validation, ours = (
        by_name[name]
        for name in ("study, baseline, training", "study, baseline, validation", "mine, validation")
    )
    assert train.line.width < validation.line.width < ours.line.width
    assert train.opacity < validation.opacity < ours.opacity


def test_smoothed_curves_keep_the_raw_ones_faint_behind():
    traces = plots.learning_curves([Curve("mine", history(), "vit")], smoothing=0.8).data
    assert [trace.name for trace in traces] == [
        "mine, training (raw)",
        "mine, training",
        "mine, validation (raw)",
        "mine, validation",
    ]
    raw, smoothed = traces[2:]
    assert raw.opacity < 0.5
    assert not raw.showlegend
    assert raw.y[-1] == pytest.approx(75)
    assert smoothed.y[-1] < 75


def test_live_pages_get_the_same_as_plain_json():
    broken = history()
    broken.loc[2, "val_loss"] = np.nan
    curves = [Curve("mine", broken, "vit"), plots.reference_curve("resnet18")]
    plain = {
        "data": plots.curve_traces(curves, "loss", smoothing=0.5),
        "layout": plots.curve_layout("loss", log_y=True, last=6),
    }
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    whole = plots.learning_curves(curves, "loss", smoothing=0.5, log_y=True)
    assert go.Figure(plain).to_plotly_json() == whole.to_plotly_json()
    raw = next(trace for trace in plain["data"] if trace["name"] == "mine, validation (raw)")
    assert raw["y"] == [2.2, 1.1, None, 0.55, 0.44, 0.366667]


def test_the_studys_curve_is_grey_behind_and_counts_whole_passes():
    reference = plots.reference_curve("resnet18", "tuned")
    assert reference.history["epoch"].tolist() == list(range(1, 26))
    traces = plots.learning_curves([Curve("mine", history(), "resnet18"), reference], smoothing=0.5).data
    assert traces[0].name == "study, tuned, training"
    assert traces[0].line.color == traces[1].line.color == NEUTRAL
    assert traces[1].line.dash == REFERENCE_DASH
    assert traces[1].y[0] == pytest.approx(39.0), "never smoothed: it is what was printed"
    assert plots.reference_curve("alexnet", "tuned") is None


def test_a_history_of_one_epoch_or_none_is_drawn():
    assert plots.learning_curves([Curve("a", history(1))]).data[0].mode == "lines+markers"
    assert not plots.learning_curves([Curve("a", history(0))]).data
    assert not plots.learning_curves([]).data


def test_a_curve_may_have_a_colour_of_its_own_and_bands_one_for_each_theme():
    assert (
        plots.learning_curves([Curve("a", history(), "vit", colour="#123456")]).data[0].line.color
        == "#123456"
    )
    both = Curve("a", history(), "vit", colour="#123456|#abcdef")
    band, line = plots.band_traces([[both, both]])
    assert line["line"]["color"] == "#123456|#abcdef"
    assert band["fillcolor"] == "rgba(18, 52, 86, 0.2)|rgba(171, 205, 239, 0.2)"


def test_smoothing_by_hand():
    assert plots.smooth([1, 2, 4], 0).tolist() == [1, 2, 4]
    # Weight 1/2, unbiased: 1; (1/4 + 2/2) / (3/4); (1/8 + 2/4 + 4/2) / (7/8).
    assert plots.smooth([1, 2, 4], 0.5) == pytest.approx([1, 5 / 3, 3])
    assert plots.smooth([1, np.nan, 2], 0.5) == pytest.approx([1, np.nan, 5 / 3], nan_ok=True)
    assert plots.smooth([3] * 5, 0.99) == pytest.approx([3] * 5)


def test_band_over_seeds():
    group = [Curve("a", history(6), "vit"), Curve("a", history(4, shift=0.02), "vit")]
    band, line = plots.seed_bands([group]).data
    assert line.name == "a (n = 2)"
    assert list(line.x) == [1, 2, 3, 4], "only epochs that all have reached"
    assert line.y[0] == pytest.approx(51)
    assert max(np.subtract(band.y[:4], line.y)) == pytest.approx(np.sqrt(2))
    (alone,) = plots.seed_bands([group[:1]]).data
    assert len(alone.x) == 6


def test_confusion_matrix_shows_shares_of_the_true_class():
    confusion = np.diag(np.full(10, 20))
    confusion[3, 3], confusion[3, 5] = 15, 5
    heat = plots.confusion_matrix(confusion).data[0]
    assert heat.z[3][5] == 25
    assert heat.z[3][3] == 75
    assert heat.customdata[3][5] == 5
    assert list(heat.y) == list(CLASS_NAMES)
    errors = plots.confusion_matrix(confusion, errors_only=True).data[0]
    assert np.isnan(errors.z[3][3])
    assert errors.z[3][5] == 25
    assert plots.confusion_matrix(np.zeros((10, 10), int)).data[0].z[0][0] == 0
    difference = plots.confusion_difference(confusion, np.diag(np.full(10, 20))).data[0]
    assert (difference.z[3][5], difference.z[3][3], difference.zmin, difference.zmax) == (5, -5, -5, 5)


def test_reliability_diagram_leaves_empty_bins_out(evaluated):
    accuracy, gap, _, images = plots.reliability_diagram(evaluated.reliability, evaluated.ece).data
    filled = evaluated.reliability[evaluated.reliability["count"] > 0]
    assert len(accuracy.x) == len(filled) < 15
    assert sum(images.y) == evaluated.n
    assert accuracy.y + gap.y == pytest.approx(100 * filled["confidence"].to_numpy())


def test_prediction_bars_put_the_best_on_top():
    probabilities = np.array([0.05, 0, 0.1, 0.6, 0, 0.25, 0, 0, 0, 0])
    bar = plots.prediction_bars(probabilities, label=5, top=3).data[0]
    assert list(bar.y) == ["bird", "dog (true)", "cat"]
    assert list(bar.x) == pytest.approx([10, 25, 60])
    assert list(bar.marker.line.width) == [0, 3, 0]


def test_leaderboard_puts_the_best_model_on_top(results):
    chart = plots.leaderboard_dumbbell(results, PAPER_RESULTS)
    assert list(chart.layout.yaxis.categoryarray) == ["vit", "alexnet"]
    marks = chart.data[-1]
    assert (marks.name, len(marks.x)) == ("published", 2)
    shown = [trace.name for trace in chart.data if trace.showlegend is not False]
    assert shown == ["baseline", "custom", "tuned", "published"]
    bar = next(trace for trace in chart.data if trace.mode == "lines" and trace.y[0] == "alexnet")
    assert list(bar.x) == pytest.approx([73, 80])


def test_published_comparison_without_any_run_of_ours():
    chart = plots.published_comparison(reproduction_table([]))
    assert len(chart.data[1].x) == 7
    assert len(chart.data[2].x) == 0


def test_intervals_are_strong_only_where_it_is_not_luck(comparison):
    points = plots.difference_intervals(comparison, against="best").data[0]
    assert list(points.y) == ["close", "far"]
    assert list(points.marker.symbol) == ["circle-open", "circle"]
    assert points.x[1] == pytest.approx(-20)


def test_a_figure_for_a_report_has_its_own_background_and_leaves_the_first_alone(results):
    chart = plots.accuracy_against_cost(results)
    dark, light = plots.themed(chart, dark=True), plots.themed(chart)
    assert dark.layout.paper_bgcolor == "#0e1117"
    assert light.layout.paper_bgcolor == "#ffffff"
    assert chart.layout.paper_bgcolor is None
    assert isinstance(dark, go.Figure)


def test_mistakes_are_named(results, evaluated):
    curve = Curve("a", history())
    cases = [
        (lambda: plots.learning_curves([curve], "speed"), "Unknown measure 'speed'; known are: accuracy"),
        (lambda: plots.seed_bands([[curve]], "speed"), "Unknown measure"),
        (lambda: plots.learning_curves([curve], smoothing=1), "smoothing"),
        (lambda: plots.per_class_bars({"a": evaluated.per_class}, "support"), "Unknown measure 'support'"),
        (lambda: plots.accuracy_against_cost(results, "money"), "Unknown cost 'money'"),
        (lambda: plots.leaderboard_dumbbell(results.drop(columns="accuracy")), "has no column accuracy"),
    ]
    for call, message in cases:
        with pytest.raises(ConfigError, match=message):
            call()


def test_plots_do_not_import_keras():
    modules = "cifar_core.plots, cifar_core.training.reproduce"
    code = f"import sys, {modules}; print({{'keras', 'pandas'}} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_figures_of_mistakes_show_the_numbers_of_their_tables(answers):
    (pairs,) = plots.confused_pairs_bars(confused_pairs(answers), most=2).data
    assert list(pairs.y) == ["airplane → ship", "airplane → bird"]
    assert list(pairs.x) == [10, 5]
    np.testing.assert_allclose(pairs.customdata, [[25, 80], [12.5, 40]])
    (worst,) = plots.worst_classes_bars(worst_classes(answers)).data
    assert list(worst.y) == ["airplane", "truck"]
    np.testing.assert_allclose(worst.x, [37.5, 25])
    right, wrong = plots.confidence_bars(confidence_histogram(answers)).data
    assert (right.name, wrong.name) == ("right (40)", "wrong (20)")
    assert sum(right.y) == pytest.approx(100)
    assert dict(zip(wrong.x, wrong.y, strict=True))[82.5] == pytest.approx(50)


def test_a_run_without_a_mistake_has_figures_too(answers):
    perfect = answers[answers["correct"]]
    assert len(plots.confused_pairs_bars(confused_pairs(perfect)).data[0].x) == 0
    assert sum(plots.confidence_bars(confidence_histogram(perfect)).data[1].y) == 0


def test_agreement_is_in_per_cent_or_as_kappa():
    table = pd.DataFrame([[1, 0.8], [0.8, 1]], ["a", "b"], ["a", "b"])
    (shares,), (kappa,) = (plots.agreement_matrix(table, measure).data for measure in ("share", "kappa"))
    np.testing.assert_allclose(shares.z, [[100, 80], [80, 100]])
    np.testing.assert_allclose(kappa.z, [[1, 0.8], [0.8, 1]])

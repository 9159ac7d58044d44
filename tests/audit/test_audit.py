"""Every number of Leaderboard, Runs, Mistakes and `cifar-lab leaderboard`, worked out again from the files.

The reference is `mixed_runs`, scikit-learn, SciPy and statsmodels; nothing of `cifar_core.analysis` is used.
"""

import base64
import html
import itertools
import json
import re
import statistics

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from pages.leaderboard.ranking import COLUMNS
from tests.audit.mixed_runs import IMAGES, rows_by_setting, rows_by_variant

pytestmark = pytest.mark.slow

LEADERBOARD, RUNS = "pages/leaderboard/leaderboard.py", "pages/runs/runs.py"
MISTAKES = "pages/mistakes/mistakes.py"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
WHOLE = ("cifar10", "f00d", "held-out", None, None)


def exact_p(a, b):
    """P-value of the difference of means of two lists of runs, by adding up all signs image by image."""
    ahead = np.sum([run.correct for run in a], axis=0) * len(b) - np.sum(
        [run.correct for run in b], axis=0
    ) * len(a)
    sizes = np.abs(ahead[ahead != 0]).astype(int)
    chances = np.ones(1)
    for size in sizes:
        step = np.zeros(2 * size + 1)
        step[0] = step[-1] = 0.5
        chances = np.convolve(chances, step)
    sums = np.arange(len(chances)) - sizes.sum()
    p = chances[np.abs(sums) >= abs(ahead.sum())].sum()
    if len(a) == len(b) == 1:
        one, other = a[0].correct, b[0].correct
        table = [[(one & other).sum(), (one & ~other).sum()], [(~one & other).sum(), (~one & ~other).sum()]]
        assert p == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-9)
    return p


def mean(runs):
    return statistics.fmean(run.accuracy for run in runs)


def gap(a, b):
    """Difference of means, rounded once: 1.375 points must not depend on the order of sums."""
    right_a, right_b = (sum(int(run.correct.sum()) for run in runs) for runs in (a, b))
    return (right_a * len(b) - right_b * len(a)) / (len(a) * len(b) * len(a[0].correct))


def mean_and_sd(runs):
    if len(runs) == 1:
        return f"{100 * mean(runs):.2f} %"
    return f"{100 * mean(runs):.2f} ± {100 * statistics.stdev(run.accuracy for run in runs):.2f} %"


def components(test, part):
    found = [json.loads(element.proto.json) for element in test.main if element.type == "bidi_component"]
    return [data for data in found if part in data]


def figures(test):
    return {data["name"]: data["figure"] for data in components(test, "figure")}


def text(test):
    parts = [element.value for kind in ("markdown", "info", "warning", "caption", "subheader")
             for element in getattr(test, kind)]  # fmt: skip
    bodies = [element.proto.body for element in test.main if element.type == "html"]
    return "\n".join([*parts, *map(html.unescape, bodies)])


def numbers(value):
    """A list of Plotly's, whichever way it is written."""
    if isinstance(value, dict):
        array = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
        return array.reshape([int(n) for n in value["shape"].split(",")]) if "shape" in value else array
    return np.array(value)


def facts(test):
    """{label: (value, line below)} of all facts on the page."""
    found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)(?:<small>(.*?)</small>)?</dd>", text(test))
    return {label: (value, more) for label, value, more in found}


# --- The command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("by", "reference"), [("settings", rows_by_setting), ("variant", rows_by_variant)])
def test_the_command_prints_what_the_files_hold(audited, capsys, by, reference):
    from cifar_core.cli import main

    assert main(["leaderboard", "--format", "json", "--by", by]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = reference(audited)
    every = rows_by_setting(audited)
    by_ids = {
        " ".join(run.id for run in runs): (key, runs, repeats) for key, (runs, repeats) in expected.items()
    }
    assert sorted(row["run_ids"] for row in printed) == sorted(by_ids)
    for row in printed:
        key, runs, repeats = by_ids[row["run_ids"]]
        accuracies = [run.accuracy for run in runs]
        best = max(runs, key=lambda run: run.accuracy)
        numbers_of = {
            "accuracy": mean(runs),
            "best": best.accuracy,
            "ece": statistics.fmean(run.ece for run in runs),
            "parameters": runs[0].row["parameters"],
            "flops": runs[0].row["flops"],
            "latency_ms": statistics.fmean(run.row["metrics"]["latency_ms"] for run in runs),
            "training_s": statistics.fmean(run.training_s for run in runs),
            "epochs": len(runs[0].epochs),
            "validation": statistics.fmean(run.validation for run in runs),
        }
        assert {name: row[name] for name in numbers_of} == pytest.approx(numbers_of, rel=1e-6), key
        assert row["accuracy"] == pytest.approx(mean(runs), rel=1e-12)
        assert (row["runs"], row["repeats"]) == (len(runs), repeats)
        assert row["sd"] == (pytest.approx(statistics.stdev(accuracies)) if len(runs) > 1 else None)
        assert row["settings"] == sum(other[:3] == key[:3] for other in every)
        assert row["train_images"] == key[0][3]
        assert (row["model"], row["variant"]) == key[1:3]
        better = sum(k[0] == key[0] and mean(r) > mean(runs) for k, (r, _) in expected.items())
        assert row["rank"] == better + 1


# --- Leaderboard ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "reference"), [("settings", rows_by_setting), ("model and variant", rows_by_variant)]
)
def test_the_ranking_of_each_board(open_page, audited, by, reference):
    expected = reference(audited)
    shown_boards = open_page(LEADERBOARD, by=by).selectbox(key="board").options
    boards = {key[0] for key in expected}
    assert len(shown_boards) == len(boards)
    seen = set()
    for name in shown_boards:
        test = open_page(LEADERBOARD, by=by, board=name, columns=[column.label for column in COLUMNS[1:]])
        assert not test.exception
        (table,) = components(test, "columns")
        here = {" ".join(sorted(run.id for run in runs)): (key, runs, repeats)
                for key, (runs, repeats) in expected.items()}  # fmt: skip
        best_of = {
            max(runs, key=lambda run: run.accuracy).id: (key, runs, n) for key, runs, n in here.values()
        }
        rows = [(row, *best_of[row["id"]]) for row in table["rows"]]
        (board,) = {key[0] for _, key, _, _ in rows}
        seen.add(board)
        assert len(rows) == sum(key[0] == board for key in expected)
        assert [r["rank"] for r, *_ in rows] == ranks([runs for _, _, runs, _ in rows])
        columns = [column["key"] for column in table["columns"]][1:]
        for row, _, runs, repeats in rows:
            cells = dict(zip(columns, row["cells"], strict=True))
            best = max(run.accuracy for run in runs)
            assert cells["accuracy"] == [mean_and_sd(runs), f"best {100 * best:.2f} %"]
            assert cells["runs"][0] == str(len(runs))
            assert (f"{repeats} repeat" in cells["runs"][1]) == bool(repeats)
            size, unit = (1e6, "M") if runs[0].row["parameters"] > 1e6 else (1e3, "k")
            assert cells["parameters"][0] == f"{runs[0].row['parameters'] / size:.3g} {unit}"
            assert cells["ece"][0] == f"{100 * statistics.fmean(run.ece for run in runs):.1f} %"
            assert cells["training_s"][1] == f"{len(runs[0].epochs)} epochs"
    assert seen == boards


def ranks(rows):
    """Of lists of runs, best mean first; "=" where shared."""
    found, leader, rank = [], None, 0
    for place, runs in enumerate(rows, start=1):
        if leader is None or exact_p(leader, runs) < 0.05:
            leader, rank = runs, place
        found.append(rank)
    return [f"{rank}{'=' if found.count(rank) > 1 else ''}" for rank in found]


def test_tuned_against_baseline(open_page, audited):
    groups = {key[1:3]: runs for key, (runs, _) in rows_by_variant(audited).items() if key[0] == WHOLE}
    baseline, tuned = groups["base_cnn", "baseline"], groups["base_cnn", "tuned"]
    fair = next(
        runs for key, (runs, _) in rows_by_setting(audited).items()
        if key[0] == WHOLE and runs[0].config["flip"] and runs[0].row["variant"] == "custom"
    )  # fmt: skip
    test = open_page(LEADERBOARD, part="Tuned against baseline")
    assert not test.exception
    shown, drawn = text(test), figures(test)
    points = {
        name: 100 * gap(a, b)
        for name, a, b in (("all", tuned, baseline), ("fair", tuned, fair), ("budget", fair, baseline))
    }
    seeds = f"means of {len(tuned)} and {len(baseline)} seeds"
    p = exact_p(tuned, baseline)
    p_text = "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
    assert f"{points['all']:+.2f} points over {IMAGES} test images ({seeds}; 95 % interval" in shown
    assert p_text in shown
    made = f"Of the {points['all']:+.2f} points from baseline to tuned, epochs and flip make"
    assert f"{made} {points['budget']:+.2f} points, the other settings {points['fair']:+.2f} points." in shown
    intervals = drawn["differences"]["data"][0]
    for label, (a, b) in {"Base CNN": (tuned, baseline), "Base CNN, equal budget": (tuned, fair)}.items():
        place = intervals["y"].index(label)
        ahead = np.mean([run.correct for run in a], axis=0) - np.mean([run.correct for run in b], axis=0)
        assert numbers(intervals["x"])[place] == pytest.approx(100 * ahead.mean())
        found = stats.bootstrap((ahead,), np.mean, method="percentile", n_resamples=9999, rng=1)
        low, high = found.confidence_interval
        errors = intervals["error_x"]
        assert 100 * (ahead.mean() - low) == pytest.approx(numbers(errors["arrayminus"])[place], abs=0.3)
        assert 100 * (high - ahead.mean()) == pytest.approx(numbers(errors["array"])[place], abs=0.3)
    pairs = [[(a.correct & ~b.correct).sum() for b in baseline] for a in tuned]
    assert f"<dt>Only tuned is right</dt><dd>{np.mean(pairs):,.0f}<" in shown
    assert f"<dd>{mean_and_sd(tuned)}<" in shown
    assert f"<dd>{mean_and_sd(baseline)}<" in shown


@pytest.mark.parametrize(("cost", "column"), [("Parameters", "parameters"), ("Epochs", "epochs")])
def test_the_front(open_page, audited, cost, column):
    rows = [runs for key, (runs, _) in rows_by_variant(audited).items() if key[0] == WHOLE]
    points = [(len(r[0].epochs) if column == "epochs" else r[0].row["parameters"], mean(r)) for r in rows]
    front = [p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)]
    test = open_page(LEADERBOARD, part="Accuracy and cost", cost=cost)
    *dots, line = figures(test)[f"cost_{column}"]["data"]
    drawn = [(x, y) for dot in dots for x, y in zip(numbers(dot["x"]), numbers(dot["y"]), strict=True)]
    np.testing.assert_allclose(sorted(drawn), sorted((x, 100 * y) for x, y in points))
    joined = zip(numbers(line["x"]), numbers(line["y"]), strict=True)
    np.testing.assert_allclose(sorted(joined), sorted((x, 100 * y) for x, y in front))


def test_the_dumbbells_accuracies_intervals_and_gains(open_page, audited):
    boards = {}
    for key, (runs, _) in rows_by_variant(audited).items():
        boards.setdefault(key[0], {})[key[1:3]] = runs
    for name in open_page(LEADERBOARD).selectbox(key="board").options:
        drawn = figures(open_page(LEADERBOARD, board=name))["board_dumbbell"]
        points = {trace["name"]: trace for trace in drawn["data"] if "error_x" in trace}
        (rows,) = [rows for rows in boards.values() if shown_alike(rows, points)]
        images = 10_000 if rows[next(iter(rows))][0].tested is None else len(rows[next(iter(rows))][0].labels)
        for (model, variant), runs in rows.items():
            point, accuracy = points[f"{model}, {variant}"], mean(runs)
            low, high = proportion_confint(accuracy * images, images, method="wilson")
            assert point["x"] == pytest.approx([100 * accuracy])
            assert point["error_x"]["array"] == pytest.approx([100 * (high - accuracy)], rel=1e-3)
            assert point["error_x"]["arrayminus"] == pytest.approx([100 * (accuracy - low)], rel=1e-3)
        gains = {note["y"]: note["text"] for note in drawn["layout"].get("annotations", [])}
        both = {model for model, _ in rows if {(model, "baseline"), (model, "tuned")} <= rows.keys()}
        assert gains == {
            model: f"{100 * (mean(rows[model, 'tuned']) - mean(rows[model, 'baseline'])):+.2f}"
            for model in both
        }


def shown_alike(rows, points):
    """Whether these are the accuracies of the points."""
    return {f"{model}, {variant}" for model, variant in rows} == set(points) and all(
        points[f"{model}, {variant}"]["x"] == pytest.approx([100 * mean(runs)])
        for (model, variant), runs in rows.items()
    )


def test_who_is_missing(open_page, audited):
    here = [run for run in audited if run.counts and run.board == WHOLE]
    shown = text(open_page(LEADERBOARD, part="Not on this board"))
    assert f"**{len(here)} of {len(audited)} runs**" in shown
    counted = sum(int(n) for n in re.findall(r"^(\d+) runs?: ", shown, re.MULTILINE))
    assert counted == len(audited) - len(here)


# --- Runs -----------------------------------------------------------------------------------------


def test_the_table_and_the_curves_of_runs(open_page, audited):
    chosen = [run for run in audited if run.row["variant"] == "baseline" and run.row["model"] == "base_cnn"]
    test = open_page(RUNS, runs=",".join(run.id for run in chosen), shown="Mean over seeds")
    assert not test.exception
    (table,) = [data for data in components(test, "columns") if "rows" in data]
    assert sorted(row["id"] for row in table["rows"]) == sorted(run.id for run in audited)
    keys = [column["key"] for column in table["columns"]][1:]
    by_id = {run.id: run for run in audited}
    for row in table["rows"]:
        cells, run = dict(zip(keys, row["cells"], strict=True)), by_id[row["id"]]
        if run.counts:
            assert f"{100 * run.accuracy:.2f} %" in cells["accuracy"][0]
    groups = {}
    for run in chosen:
        groups.setdefault(run.setting, {}).setdefault(run.row["seed"], run)
    (drawn,) = [
        data["figure"] for data in components(test, "figure") if "Validation accuracy of" in data["alt"]
    ]
    lines = [trace for trace in drawn["data"] if "± sd" not in trace["name"]]
    for seeds, line in zip(groups.values(), lines, strict=True):
        curve = np.mean([[e["val_accuracy"] for e in run.epochs] for run in seeds.values()], axis=0)
        assert numbers(line["y"]) == pytest.approx(100 * curve)
        assert f"(n = {len(seeds)})" in line["name"]


def test_differences_to_the_pinned_run(open_page, audited):
    base = next(run for run in audited if run.counts and run.tested is None)
    test = open_page(RUNS, runs=base.id, baseline=base.id, columns=["Test accuracy", "Epochs", "Parameters"])
    (table,) = [data for data in components(test, "columns") if "rows" in data]
    keys, by_id = [column["key"] for column in table["columns"]][1:], {run.id: run for run in audited}
    seen = 0
    for row in table["rows"]:
        run, cells = by_id[row["id"]], dict(zip(keys, row["cells"], strict=True))
        alike = run.counts and run.tested == base.tested and run is not base
        seen += alike
        assert cells["accuracy"][1] == (
            f"{100 * (run.accuracy - base.accuracy):+.2f} points" if alike else ""
        )
        if run.counts and run is not base:
            assert cells["epochs_done"][1] == f"{len(run.epochs) - len(base.epochs):+d}"
            more = run.row["parameters"] - base.row["parameters"]
            assert cells["parameters"][1] == f"{more:+,.3g}"
    assert seen > 10


# --- Mistakes -------------------------------------------------------------------------------------


def pick(audited, count=3):
    """Runs that were tested on all images, of different seeds."""
    return [run for run in audited if run.counts and run.tested is None][:count]


def test_one_run(open_page, audited):
    for run in (pick(audited)[0], next(run for run in audited if run.tested)):
        test = open_page(MISTAKES, run=run.id)
        assert not test.exception
        wrong = int((~run.correct).sum())
        assert f"**{wrong:,} images** · {wrong:,} of {len(run.labels):,} are wrong" in text(test)
        assert wrong == round((1 - run.row["accuracy"]) * len(run.labels))
        cells = figures(test)["cells"]["data"][0]["z"]
        matrix = metrics.confusion_matrix(run.labels, run.predicted, labels=range(10))
        shown = np.array([[cell or 0 for cell in row] for row in cells])
        np.testing.assert_array_equal(shown, matrix - np.diag(np.diag(matrix)))


def test_two_runs(open_page, audited):
    a, b = pick(audited, 2)
    test = open_page(MISTAKES, view="Two runs", a=a.id, b=b.id)
    assert not test.exception
    shown, found = text(test), facts(test)
    fixed, broken = int((~a.correct & b.correct).sum()), int((a.correct & ~b.correct).sum())
    assert found["Fixed"] == (f"{fixed:,}", f"{100 * fixed / IMAGES:.1f} %")
    assert found["Broken"] == (f"{broken:,}", f"{100 * broken / IMAGES:.1f} %")
    assert found["Both wrong"][0] == f"{int((~a.correct & ~b.correct).sum()):,}"
    assert found["Both right"][0] == f"{int((a.correct & b.correct).sum()):,}"
    assert found["Accuracy of A"][0] == f"{100 * a.accuracy:.2f} %"
    assert found["Accuracy of B"] == (
        f"{100 * b.accuracy:.2f} %",
        f"{100 * (b.accuracy - a.accuracy):+.2f} points",
    )
    p = exact_p([b], [a])
    assert f"{100 * (b.accuracy - a.accuracy):+.2f} points over {IMAGES} test images" in shown
    assert f"exact McNemar, {'p < 0.0001' if p < 1e-4 else f'p = {p:.2g}'}" in shown
    bars = figures(test)["by_class"]["data"]
    for label, name in enumerate(CLASSES):
        of = a.labels == label
        assert bars[0]["x"][bars[0]["y"].index(name)] == (of & ~a.correct & b.correct).sum()
        assert -bars[1]["x"][bars[1]["y"].index(name)] == (of & a.correct & ~b.correct).sum()
    difference = numbers(figures(test)["confusion_difference"]["data"][0]["z"])
    after, before = (metrics.confusion_matrix(run.labels, run.predicted, labels=range(10)) for run in (b, a))
    np.testing.assert_array_equal(difference.reshape(10, 10), after - before)


def test_hardest(open_page, audited):
    runs = [run for run in audited if run.counts and run.tested is None]
    test = open_page(MISTAKES, view="Hardest")
    assert not test.exception
    right = np.sum([run.correct for run in runs], axis=0)
    found = facts(test)
    assert found["Runs"][0] == str(len(runs))
    assert found["Every run is wrong"][0] == f"{(right == 0).sum():,}"
    assert found["Every run is right"][0] == f"{(right == len(runs)).sum():,}"
    assert found["At least one is right"][0] == f"{100 * (right > 0).mean():.2f} %"
    votes = np.array([[(run.predicted == label) for label in range(10)] for run in runs]).sum(axis=0)
    total = np.mean([run.probabilities for run in runs], axis=0)
    majority = (votes.T + total / 2).argmax(axis=1)
    assert found["Majority vote is right"][0] == f"{100 * (majority == runs[0].labels).mean():.2f} %"
    by_id = {run.id: run for run in runs}
    for measure, reference in (
        ("Same prediction", lambda x, y: 100 * metrics.accuracy_score(x, y)),
        ("Cohen's kappa", lambda x, y: metrics.cohen_kappa_score(x, y)),
    ):
        shown = open_page(MISTAKES, view="Hardest", measure=measure)
        (heat,) = [
            figure["data"][0] for name, figure in figures(shown).items() if name.startswith("agreement")
        ]
        values = numbers(heat["z"]).reshape(len(heat["y"]), len(heat["x"]))
        for (row, one), (column, other) in itertools.product(enumerate(heat["y"]), enumerate(heat["x"])):
            expected = reference(by_id[one].predicted, by_id[other].predicted)
            assert values[row, column] == pytest.approx(expected)


def test_summary(open_page, audited):
    run = pick(audited)[0]
    test = open_page(MISTAKES, view="Summary", run=run.id)
    assert not test.exception
    drawn = figures(test)
    matrix = metrics.confusion_matrix(run.labels, run.predicted, labels=range(10))
    pairs = drawn["confused_pairs"]["data"][0]
    for name, count in zip(pairs["y"], numbers(pairs["x"]), strict=True):
        true, predicted = (CLASSES.index(part) for part in name.split(" → "))
        assert count == matrix[true, predicted]
    _, recall, _, _ = metrics.precision_recall_fscore_support(run.labels, run.predicted, labels=range(10))
    worst = drawn["worst_classes"]["data"][0]
    shares = [100 * (1 - recall[CLASSES.index(name)]) for name in worst["y"]]
    assert numbers(worst["x"]) == pytest.approx(shares)
    confidence = run.probabilities[np.arange(IMAGES), run.predicted]
    for trace, kind in zip(drawn["confidence_right_wrong"]["data"], (run.correct, ~run.correct), strict=True):
        assert list(numbers(trace["customdata"])) == list(np.histogram(confidence[kind], 20, (0, 1))[0])
    assert f"Calibration: error {100 * run.ece:.2f} %" in text(test)
    exact = run.probabilities / run.probabilities.sum(axis=1, keepdims=True)
    assert run.row["metrics"]["loss"] == pytest.approx(metrics.log_loss(run.labels, exact), rel=1e-5)
    top = metrics.top_k_accuracy_score(run.labels, run.probabilities, k=2, labels=range(10))
    assert run.row["metrics"]["top2_accuracy"] == pytest.approx(top)

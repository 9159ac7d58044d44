"""Doubtful labels: Cleanlab's scores against the definition, and what is left without near-duplicates."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cifar_core.analysis import doubts
from cifar_core.base.child import ask
from cifar_core.data.problem import CLASS_NAMES
from cifar_core.errors import ConfigError, RunNotFoundError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore

IMAGES = 150


def predictions(seed=0, images=IMAGES, labels=None):
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(10, 0.3), images).astype(np.float16).astype(np.float32)
    labels = np.random.default_rng(50).integers(0, 10, images) if labels is None else labels
    predicted = rows.argmax(axis=1)
    table = {
        "index": np.arange(images) * 3,
        "label": labels,
        "predicted": predicted,
        "confidence": rows.max(axis=1),
        "correct": predicted == labels,
    }
    table |= {f"p_{name}": rows[:, place] for place, name in enumerate(CLASS_NAMES)}
    return pd.DataFrame(table)


def margin(row, label):
    """Cleanlab's normalised margin, by its definition: of shares that sum to 1, mapped to 0..1."""
    shares = [value / sum(row) for value in row]
    return (shares[label] - max(share for place, share in enumerate(shares) if place != label) + 1) / 2


def own(row, label):
    return row[label] / sum(row)


def rows_of(table):
    return table[[f"p_{name}" for name in CLASS_NAMES]].to_numpy(np.float64).tolist()


@pytest.mark.parametrize(("method", "expected"), [("normalized_margin", margin), ("self_confidence", own)])
def test_the_scores_are_what_their_definition_says(method, expected):
    table = predictions()
    found = doubts.label_quality(table.sample(frac=1, random_state=1), method).set_index("index")
    for row, values in zip(table.itertuples(), rows_of(table), strict=True):
        assert found["quality"][row.index] == pytest.approx(expected(values, row.label), abs=1e-6)
        assert found["predicted"][row.index] == row.predicted
    assert found["quality"].is_monotonic_increasing
    assert found["rank"].tolist() == list(range(1, IMAGES + 1))
    assert found["quality"].between(0, 1).all()


def test_of_several_runs_the_mean_counts():
    tables = [predictions(seed) for seed in (0, 1, 2)]
    found = doubts.label_quality(tables).set_index("index")
    for place, index in enumerate(tables[0]["index"]):
        label = int(tables[0]["label"][place])
        rows = [rows_of(table)[place] for table in tables]
        assert found["quality"][index] == pytest.approx(
            np.mean([margin(row, label) for row in rows]), abs=1e-6
        )
        assert found["predicted"][index] == int(np.argmax(np.sum(rows, axis=0)))
    assert len(found) == IMAGES


def test_a_swapped_label_is_found():
    """Of answers that are right and sure but for one image whose label was exchanged."""
    labels = np.arange(IMAGES) % 10
    table = predictions(labels=labels)
    for place, name in enumerate(CLASS_NAMES):
        table[f"p_{name}"] = np.where(labels == place, 0.91, 0.01)
    table.loc[77, "label"] = (labels[77] + 1) % 10
    found = doubts.label_quality(table)
    assert found["index"][0] == 77 * 3
    assert found["predicted"][0] == labels[77]


def test_the_entropy_based_score_is_there_too():
    found = doubts.label_quality(predictions(), "confidence_weighted_entropy")
    assert found["quality"].between(0, 1).all()
    assert found["quality"].nunique() > IMAGES // 2


@pytest.mark.parametrize("images", [1, 2, 12])
def test_few_images_and_lacking_classes_are_no_trouble(images):
    assert len(doubts.label_quality(predictions(images=images))) == images


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "no predictions"),
        (predictions().iloc[:0], "no predictions"),
        (predictions().drop(columns="p_cat"), "probabilities of 9 classes, and the label 9"),
        ([predictions(), predictions(images=20)], "different images"),
        ([predictions(), predictions().assign(label=0)], "different images"),
    ],
)
def test_what_cannot_be_judged_is_said(given, words):
    with pytest.raises(ConfigError, match=words):
        doubts.label_quality(given)


def test_an_unknown_method_is_said():
    with pytest.raises(ConfigError, match="known are: normalized_margin, self_confidence"):
        doubts.label_quality(predictions(), "guess")


# -- Without some images ---------------------------------------------------------------------------


DUPLICATES = {
    "test": np.array([30, 3, 6, 1]),  # 1 was not tested
    "train": np.array([5, 2, 0, 4]),
    "likeness": np.array([1.0, 0.985, 0.96, 0.91], np.float32),
    "mirrored": np.array([False, True, False, False]),
}


def test_without_leaves_out_exactly_those():
    table = predictions()
    left = doubts.without(table, [30, 3, 6, 999])
    kept = [row for row in table.itertuples() if row.index not in (30, 3, 6)]
    assert left.n == len(kept) == IMAGES - 3
    assert left.accuracy == pytest.approx(sum(row.correct for row in kept) / len(kept))
    assert doubts.without(table, []).n == IMAGES
    with pytest.raises(ConfigError, match="No test image remains"):
        doubts.without(table, table["index"])


def test_the_effect_of_duplicates_agrees_with_counting():
    table = predictions()
    found = doubts.effect_of_duplicates(table, DUPLICATES)
    assert found["likeness"].tolist() == [0.9, 0.95, 0.98, 0.99]
    for row, alike in zip(found.itertuples(), [(30, 3, 6), (30, 3, 6), (30, 3), (30,)], strict=True):
        on = [each.correct for each in table.itertuples() if each.index in alike]
        rest = [each.correct for each in table.itertuples() if each.index not in alike]
        assert (row.duplicates, row.images) == (len(alike), len(rest))
        assert row.on_duplicates == pytest.approx(sum(on) / len(on))
        assert row.accuracy_without == pytest.approx(sum(rest) / len(rest))
        assert row.change == pytest.approx(sum(rest) / len(rest) - table["correct"].mean())
    none = doubts.effect_of_duplicates(table, {name: values[:0] for name, values in DUPLICATES.items()})
    assert none["duplicates"].eq(0).all()
    assert none["on_duplicates"].isna().all()
    assert none["change"].eq(0).all()


def test_twins_tell_both_labels():
    table = predictions()
    train_labels = np.arange(6)
    found = doubts.twins(table, DUPLICATES, train_labels)
    assert found["index"].tolist() == [30, 3, 6]
    assert found["train_label"].tolist() == [5, 2, 0]
    for row in found.itertuples():
        assert row.label == table.set_index("index")["label"][row.index]
        assert row.same_label == (row.label == row.train_label)
    assert found["mirrored"].tolist() == [False, True, False]


# -- Kept with a run --------------------------------------------------------------------------------


@pytest.fixture
def store(home):  # noqa: ARG001 - the home must be the test's own
    with RunStore() as opened:
        yield opened


def save(store, run_id, seed):
    table = predictions(seed)
    rows = np.array(rows_of(table))
    store.save_predictions(run_id, rows, table["label"].to_numpy(), table["index"].to_numpy())


@pytest.mark.slow
def test_what_another_process_keeps_is_read_again_without_cleanlab(store):
    run_id = store.create_run(TrainConfig())
    save(store, run_id, 1)
    assert doubts.kept_quality(store, run_id) is None
    told = []
    ask(doubts.score, run_id, name="doubts", progress=lambda *how_far: told.append(how_far))
    assert told == [(0.3, "asking Cleanlab")]
    pd.testing.assert_frame_equal(
        doubts.kept_quality(store, run_id), doubts.label_quality(store.predictions(run_id))
    )
    code = (
        "import sys\nfrom cifar_core.analysis.doubts import kept_quality\n"
        "from cifar_core.store import RunStore\n"
        f"assert len(kept_quality(RunStore(), {run_id!r})) == {IMAGES}\n"
        "sys.exit('loaded' if {'cleanlab', 'sklearn', 'keras'} & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scores_of_older_predictions_and_damaged_ones_are_not_shown(store):
    run_id = store.create_run(TrainConfig())
    save(store, run_id, 1)
    doubts.keep_quality(store, run_id)
    assert doubts.kept_quality(store, run_id) is not None
    save(store, run_id, 2)
    assert doubts.kept_quality(store, run_id) is None
    for content in (b"", b"PK nothing"):
        store.write_artifact(run_id, doubts.QUALITY_FILE, content)
        assert doubts.kept_quality(store, run_id) is None


def test_a_run_without_predictions_is_said(store):
    run_id = store.create_run(TrainConfig())
    with pytest.raises(RunNotFoundError, match="predictions"):
        doubts.keep_quality(store, run_id)
    with pytest.raises(RunNotFoundError, match="predictions"):
        doubts.score(run_id, lambda *_: None)

"""The remaining numbers of the command and the doubts of Mistakes, worked out again."""

import json
import re
import statistics
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics

from tests.audit.mixed_runs import IMAGES, rows_by_setting, rows_by_variant
from tests.audit.test_audit import (
    MISTAKES,
    facts,
    pick,
    text,
)

pytestmark = pytest.mark.slow

TEXTS = {"model", "variant", "preset", "dataset", "source", "protocol", "subset", "test_images", "best_run",
         "run_ids", "fingerprint", "settings_key"}  # fmt: skip
CHECKED = {"rank", "train_images", "runs", "repeats", "accuracy", "sd", "best", "ece", "parameters", "flops",
           "latency_ms", "training_s", "epochs", "validation", "settings"}  # fmt: skip
"""Numbers of the command that `test_the_command_prints_what_the_files_hold` compares."""


def speed(run):
    """Its epochs' median images per second, but for the first, which compiles."""
    return np.median([epoch["images_per_second"] for epoch in run.epochs][1:])


@pytest.mark.parametrize(("by", "reference"), [("settings", rows_by_setting), ("variant", rows_by_variant)])
def test_no_number_of_the_command_is_left_out(audited, capsys, by, reference):
    from cifar_core.cli import main

    assert main(["leaderboard", "--format", "json", "--by", by]) == 0
    printed = json.loads(capsys.readouterr().out)
    by_ids = {" ".join(run.id for run in runs): runs for runs, _ in reference(audited).values()}
    for row in printed:
        assert set(row) == {*TEXTS, *CHECKED, "images_per_second", "search_s"}
        runs = by_ids[row["run_ids"]]
        assert row["images_per_second"] == pytest.approx(statistics.fmean(map(speed, runs)))
        assert row["search_s"] is None
        assert row["subset"] == (runs[0].config["train_limit"] is not None or runs[0].tested is not None)
        images = row["test_images"]
        assert (images is None) == (runs[0].tested is None)
        assert images is None or images.startswith(f"{len(runs[0].labels)}-")
        assert row["best_run"] in [run.id for run in runs if run.accuracy == row["best"]]


# --- Doubts -----------------------------------------------------------------------------------------


def margin(run):
    """Label quality: how far the label's probability lies behind the greatest other one, as 0..1."""
    mine = run.exact[np.arange(len(run.labels)), run.labels]
    others = np.where(np.eye(10, dtype=bool)[run.labels], -1, run.exact).max(axis=1)
    return (mine - others + 1) / 2


def test_the_doubtful_labels(open_page, audited):
    from cifar_core.analysis import doubts
    from cifar_core.store import RunStore

    run = pick(audited)[0]
    with RunStore() as store:
        doubts.keep_quality(store, run.id)
    shown = text(open_page(MISTAKES, view="Doubts", run=run.id))
    assert f"{(~run.correct).sum():,} images that the run puts into another class" in shown
    with RunStore() as store:
        table = doubts.kept_quality(store, run.id)
    quality = margin(run)
    assert table["quality"].to_numpy() == pytest.approx(np.sort(quality), rel=1e-6)
    assert quality[table["index"]] == pytest.approx(table["quality"].to_numpy(), rel=1e-6)
    assert table["rank"].tolist() == list(range(1, IMAGES + 1))


def test_accuracy_without_near_duplicates(open_page, audited, monkeypatch):
    from pages.mistakes import doubts

    run, random = pick(audited)[0], np.random.default_rng(5)
    found = {"test": random.permutation(IMAGES)[:60], "train": random.integers(0, 500, 60)}
    found |= {"likeness": np.sort(random.uniform(0.9, 1, 60))[::-1], "mirrored": random.random(60) < 0.5}
    y_train = random.integers(0, 10, 500)
    dataset = SimpleNamespace(answer=lambda _: found, y_train=y_train, x_test=None, name="cifar10")
    monkeypatch.setattr(doubts, "pictures", lambda _: dataset)
    shown = text(open_page(MISTAKES, view="Doubts", doubt="Near-duplicates", run=run.id))
    rows = re.findall(r"<tr><t[dh][^>]*>(0\.9\d)</t[dh]>(.*?)</tr>", shown, re.DOTALL)
    assert len(rows) == 4
    for level, cells in rows:
        out = np.isin(np.arange(IMAGES), found["test"][found["likeness"] >= float(level)])
        values = re.findall(r"<td[^>]*>(.*?)</td>", cells)
        without = metrics.accuracy_score(run.labels[~out], run.predicted[~out])
        on = f"{100 * run.correct[out].mean():.1f} %" if out.any() else "–"
        change = f"{100 * (without - run.accuracy):+.2f} points"
        assert values == [f"{out.sum():,}", on, f"{100 * without:.2f} %", change]
    assert "60 test images, the most alike first" in shown


def test_whose_fault_a_mistake_is(open_page, audited, monkeypatch, tmp_path):
    from pages.mistakes import data

    run, random = pick(audited)[0], np.random.default_rng(6)
    votes = random.multinomial(50, [0.1] * 10, 10_000)
    chosen = np.resize(run.labels, 10_000)
    chosen[:IMAGES:25] = run.predicted[::25]
    chosen[5:IMAGES:50] = (run.labels[5::50] + 1) % 10
    votes[np.arange(10_000), chosen] += random.integers(30, 400, 10_000)
    shares = votes / votes.sum(axis=1, keepdims=True)
    monkeypatch.setattr(data.human, "found", lambda: tmp_path)
    monkeypatch.setattr(data, "_votes", lambda _: data.human.HumanVotes(shares, votes, "here"))
    test = open_page(MISTAKES, view="Doubts", doubt="People", run=run.id)
    assert not test.exception
    of_label, majority = shares[np.arange(IMAGES), run.labels], shares[:IMAGES].argmax(axis=1)
    wrong = ~run.correct
    with_people = wrong & (majority == run.predicted)
    hard = wrong & ~with_people & ((of_label < 0.8) | (majority != run.labels))
    expected = {
        "People and model disagree with the label": with_people,
        "Hard for people too": hard,
        "Only the model fails": wrong & ~with_people & ~hard,
    }
    assert all(mask.any() for mask in expected.values())
    found = facts(test)
    for label, mask in expected.items():
        share = f"{100 * mask.sum() / wrong.sum():.1f} % of the mistakes"
        assert found[label] == (f"{mask.sum():,}", share), label
    assert found["People give the label"][0] == f"{100 * of_label.mean():.1f} %"
    assert found["…of this run's mistakes"][0] == f"{100 * of_label[wrong].mean():.1f} %"
    assert f"{wrong.sum():,} images, those first whose label the fewest people give" in text(test)

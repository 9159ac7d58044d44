"""What may be ranked with what; by hand-made runs."""

import pandas as pd
import pytest

from cifar_core.analysis.boards import Board, absences, boards, on_board, same_test_images

WHOLE = Board("cifar10", "f00d", "held-out")
DEFAULTS = {
    "model": "alexnet", "variant": "baseline", "preset": "alexnet/paper-baseline", "dataset": "cifar10",
    "fingerprint": "f00d", "train_images": None, "test_images": None, "protocol": "held-out", "seed": 0,
    "state": "finished", "accuracy": 0.7, "settings_key": "k",
}  # fmt: skip


def runs(*changes):
    """Rows as `RunStore.runs` gives them, newest first; the first change is the newest run."""
    frame = pd.DataFrame([{"id": f"r{number}", **DEFAULTS, **row} for number, row in enumerate(changes)])
    kinds = {"fingerprint": object, "test_images": object, "train_images": float, "accuracy": float}
    return frame.astype(kinds)


def test_boards_part_what_cannot_be_compared_and_put_whole_cifar_first():
    frame = runs(
        {"dataset": "synthetic"}, {"dataset": "synthetic"}, {"test_images": "20-a"}, {"test_images": "20-a"},
        {"protocol": "test-selected"}, {}, {"fingerprint": "beef"}, {"fingerprint": "beef"},
        {"state": "running", "accuracy": None}, {"fingerprint": None}, {"test_images": "20-b"},
        {"train_images": 2000}, {"train_images": 3000}, {"train_images": 2000, "test_images": "20-a"},
    )  # fmt: skip
    found = boards(frame)
    assert found == [
        Board("cifar10", "beef", "held-out", runs=2),
        Board("cifar10", "", "held-out", runs=1),
        Board("cifar10", "f00d", "held-out", runs=1),
        Board("cifar10", "f00d", "test-selected", runs=1),
        Board("synthetic", "f00d", "held-out", runs=2),
        Board("cifar10", "f00d", "held-out", 0, "20-a", 2),
        Board("cifar10", "f00d", "held-out", 3000, "", 1),
        Board("cifar10", "f00d", "held-out", 2000, "", 1),
        Board("cifar10", "f00d", "held-out", 2000, "20-a", 1),
        Board("cifar10", "f00d", "held-out", 0, "20-b", 1),
    ]
    assert [board.subset for board in found] == [False] * 5 + [True] * 5
    assert [int(on_board(frame[frame["state"] == "finished"], board).sum()) for board in found] == [
        board.runs for board in found
    ]


def test_the_same_test_images_are_those_of_the_same_content_and_part():
    frame = runs({}, {"test_images": "20-a"}, {"train_images": 50}, {"fingerprint": "beef"}, {"model": "vit"})
    assert same_test_images(frame, frame.iloc[0]).tolist() == [True, False, True, False, True]
    assert same_test_images(frame, frame.iloc[1]).tolist() == [False, True, False, False, False]


def test_no_runs_make_no_board_and_no_absence():
    empty = runs({}).iloc[:0]
    assert boards(empty) == []
    assert absences(empty, None) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": "queued", "accuracy": None}, "waiting in the queue"),
        ({"state": "running", "accuracy": None}, "training now"),
        ({"state": "stopped", "accuracy": None}, "stopped before the end"),
        ({"state": "failed", "accuracy": None}, "failed"),
        ({"state": "crashed", "accuracy": None}, "crashed"),
        ({"accuracy": None}, "finished without a test accuracy"),
        ({"dataset": "synthetic"}, "another dataset"),
        ({"test_images": "20-a"}, "tested on another part of the images"),
        ({"train_images": 2000, "test_images": "20-a"}, "trained on another number of images"),
        ({"fingerprint": "beef"}, "other images under the same name"),
        ({"fingerprint": None}, "other images under the same name"),
        ({"protocol": "test-selected"}, "another protocol"),
    ],
)
def test_every_run_that_is_not_on_the_board_has_one_reason(change, reason):
    found = absences(runs(change, {}), WHOLE)
    assert [(absence.reason, absence.ids) for absence in found] == [(reason, ("r0",))]
    assert found[0].remedy


def test_absences_come_most_frequent_first_and_are_counted_once():
    frame = runs(
        {"dataset": "synthetic", "train_images": 50}, {"state": "failed"},
        {"state": "failed", "protocol": "test-selected"}, {},
    )  # fmt: skip
    assert [(absence.reason, len(absence.ids)) for absence in absences(frame, WHOLE)] == [
        ("failed", 2),
        ("another dataset", 1),
    ]
    assert [absence.reason for absence in absences(frame, None)] == ["failed"]

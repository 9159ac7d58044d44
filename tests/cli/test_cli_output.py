"""What is printed: strict JSON, safe CSV, plain tables, progress."""

import csv
import errno
import io
import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_core.cli import output, progress
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState
from cifar_core.training.recorder import Progress


def test_plain_is_strict_json():
    value = {
        "nan": float("nan"),
        "infinite": [math.inf, np.float32(-np.inf)],
        "numpy": [np.float32(0.5), np.int64(3), np.bool_(True), np.arange(3)],
        "time": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "missing time": pd.NaT,
        "path": Path("/a/b"),
        "state": RunState.FINISHED,
        "frame": pd.DataFrame({"a": [1.0, np.nan], "b": ["x", None]}),
        "tuple": (1, None, True, "x"),
        "settings": TrainConfig(epochs=3),
    }
    plain = json.loads(json.dumps(output.plain(value), allow_nan=False))
    assert plain["nan"] is None
    assert plain["infinite"] == [None, None]
    assert plain["numpy"] == [0.5, 3, True, [0, 1, 2]]
    assert plain["time"] == "2026-01-02T03:04:00+00:00"
    assert plain["missing time"] is None
    assert plain["path"] == "/a/b"
    assert plain["state"] == "finished"
    assert plain["frame"] == [{"a": 1.0, "b": "x"}, {"a": None, "b": None}]
    assert plain["tuple"] == [1, None, True, "x"]
    assert plain["settings"]["epochs"] == 3


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_cells_are_no_formulas(start):
    text = output.csv_text([{"name": f"{start}cmd|'/c calc'!A1", "accuracy": -0.5}])
    name, accuracy = list(csv.reader(io.StringIO(text)))[1]
    assert name == f"'{start}cmd|'/c calc'!A1".replace("\r", "\n")
    assert accuracy == "-0.5"


NUMBERS = st.one_of(st.floats(), st.none(), st.integers())


@given(st.lists(st.fixed_dictionaries({"a": st.text(), "b": NUMBERS})))
def test_any_csv_reads_back_and_starts_no_formula(rows):
    lines = list(csv.reader(io.StringIO(output.csv_text(rows, ["a", "b"]), newline="")))
    assert lines[0] == ["a", "b"]
    assert len(lines) == 1 + len(rows)
    for row, line in zip(rows, lines[1:], strict=True):
        text = row["a"].replace("\r\n", "\n").replace("\r", "\n")
        assert re.sub(r"(^|[;\t\n])'", r"\1", line[0]) == re.sub(r"(^|[;\t\n])'", r"\1", text)
        assert not line[0].startswith(("=", "+", "-", "@", "\t", "\r"))


@given(st.text())
def test_printable_text_moves_no_cursor(text):
    shown = output.printable(text)
    assert len(shown) == len(text)
    assert "\x1b" not in shown
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (75.2, "1:15"), (3661, "1:01:01"), (None, "–"), (math.nan, "–")],
)
def test_duration(seconds, text):
    assert output.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (0.66521, "accuracy", "0.6652"),
        (0.00012345678, "loss", "0.0001235"),
        (math.nan, "loss", "–"),
        (None, "", "–"),
        (True, "", "yes"),
        (36_925_322, "parameters", "36925322"),
        ([1, 2], "", "[1, 2]"),
        ("a\x1b[2Jb", "", "a�[2Jb"),
    ],
)
def test_cell(value, name, text):
    assert output.cell(value, name) == text


def test_a_plain_table_is_aligned(capsys):
    output.print_rows([{"run_id": "a-1", "accuracy": 0.5}, {"run_id": "bbbbb-2", "accuracy": None}])
    assert capsys.readouterr().out == "run id   accuracy\na-1        0.5000\nbbbbb-2         –\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_table_on_a_terminal_shows_brackets_as_they_are(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    output.print_rows([{"name": "[bold]x[/bold]", "accuracy": 0.25}])
    assert "[bold]x[/bold]" in terminal.getvalue()
    assert "0.2500" in terminal.getvalue()


def epoch(number: int, **metrics: float) -> Progress:
    return Progress("epoch", "", number, 10, 40, 40, metrics, 4312.0, 83.0)


def test_one_line_for_each_epoch(capsys):
    with progress.reporting(as_json=False) as report:
        report(Progress("stage", "loading data"))
        report(Progress("step", "", 1, 10, 3, 40, {"loss": 2.0}, 100.0, 5.0))
        report(epoch(1, loss=1.5, accuracy=0.4, val_loss=1.4, val_accuracy=0.45, seconds=9.26))
        report(epoch(10, loss=1.0))
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out == (
        "epoch  1/10  loss 1.5000  accuracy 0.4000  val_loss 1.4000  val_accuracy 0.4500  "
        "4,312 images/s  9.3 s  ETA 1:23\n"
        "epoch 10/10  loss 1.0000  4,312 images/s  ETA 1:23\n"
    )


def test_with_json_progress_goes_to_stderr(capsys):
    with progress.reporting(as_json=True) as report:
        report(epoch(1, loss=1.5))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("epoch  1/10  loss 1.5000")


@pytest.mark.parametrize(("number", "ends"), [(errno.EPIPE, False), (errno.ENOSPC, True)])
def test_a_reader_who_left_does_not_end_the_training(number, ends):
    written = []

    class Pipe:
        def write(self, text):
            written.append(text)
            raise OSError(number, "x")

    report = progress._LineReporter(Pipe())
    if ends:
        with pytest.raises(OSError, match="x"):
            report(epoch(1, loss=1.5))
        return
    report(epoch(1, loss=1.5))
    report(epoch(2, loss=1.4))
    assert len(written) == 1


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with progress.reporting(as_json=False) as report:
        report(Progress("stage", "compiling the [first] step"))
        report._bars.refresh()
        report(Progress("step", "", 2, 10, 7, 40, {"loss": 1.25, "accuracy": 0.5}, 4312.0, 83.0))
        report._bars.refresh()
        report(epoch(2, loss=1.125))
    shown = terminal.getvalue()
    assert "compiling the [first] step" in shown
    assert "epoch 2/10" in shown
    assert "7/40  4,312 images/s  loss 1.2500  accuracy 0.5000  ETA 1:23" in shown
    assert "loss 1.1250" in shown


def test_a_search_says_one_line_for_each_trial(capsys):
    status = SimpleNamespace(trials_done=3, trials_planned=30, epochs_done=6, epochs_planned=120, eta_s=754.0)

    def event(kind, stage="", training=None):
        return SimpleNamespace(kind=kind, stage=stage, training=training, status=status, best_score=0.5125)

    with progress.reporting(as_json=False) as reporter:
        report = progress.search_reporter(reporter)
        report(event("stage", "trial 3 of 30"))
        report(event("epoch", training=epoch(1, loss=9.0)))
        report(event("trial", "trial 3 ended"))
        report(event("final", training=epoch(1, loss=1.5)))
    assert capsys.readouterr().out.splitlines() == [
        "trial 3 ended  3/30 trials  6/120 epochs  best val_accuracy 0.5125  ETA 12:34",
        "epoch  1/10  loss 1.5000  4,312 images/s  ETA 1:23",
    ]


def test_a_download_tells_every_tenth(capsys):
    with progress.counting("CIFAR-10") as count:
        for done in range(0, 101, 5):
            count(done * 1_000_000, 100_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "CIFAR-10: 0 % of 100.0 MB"
    assert lines[-1] == "CIFAR-10: 100 % of 100.0 MB"
    assert len(lines) == 11

"""`train`, `resume`, `tune`, `reproduce` with trainings that are made up: statuses, documents, signals."""

import errno
import os
import signal

import numpy as np
import pytest

import cifar_core.cli.reproduce
import cifar_core.cli.train
import cifar_core.cli.tune
from cifar_core.analysis.metrics import report
from cifar_core.cli.app import stopping
from cifar_core.errors import DivergedError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.training import run
from cifar_core.training.recorder import Progress
from cifar_core.training.result import Run
from tests.pages import tune_searches

EPOCH = {
    "epoch": 1,
    "loss": 1.5,
    "accuracy": 0.4,
    "val_loss": 1.6,
    "val_accuracy": 0.5,
    "seconds": 2.0,
    "images_per_second": 100.0,
}


def made_up(
    config: TrainConfig, tiny, state: RunState = RunState.FINISHED, run_id: str | None = "made-up"
) -> Run:
    """A run of one epoch whose every prediction is "airplane" (seed 0) or right."""
    labels = tiny.y_test
    predicted = np.zeros_like(labels) if config.seed == 0 else labels
    run = Run(config=config, state=state, epochs=[dict(EPOCH)], best_epoch=1, id=run_id)
    if state is RunState.FINISHED:
        run.report = report(np.eye(10)[predicted], labels)
    return run


@pytest.fixture
def calls(monkeypatch, tiny):
    """What training was asked for; no framework and no dataset is loaded."""
    made = []

    def train(config, *, store, progress, should_stop, **_):
        made.append({"config": config, "store": store})
        progress(Progress("epoch", "", 1, config.epochs, 2, 2, EPOCH, 100.0, 0.0))
        if should_stop():
            return made_up(config, tiny, RunState.STOPPED, "made-up" if store else None)
        return made_up(config, tiny, run_id=f"made-up-{config.seed}" if store else None)

    monkeypatch.setattr(run, "train", train)
    for module in (
        cifar_core.cli.train,
        cifar_core.cli.tune,
        cifar_core.cli.reproduce,
    ):
        monkeypatch.setattr(module, "load_framework", lambda *_: None)
    monkeypatch.setattr(cifar_core.cli.train, "load_images", lambda _: tiny)
    return made


def test_train_for_people(lab, calls):
    outcome = lab("train", "--epochs", "1", "--model", "alexnet", "--units-dense1", "64", "--flip")
    assert outcome.status == 0
    assert outcome.err == ""
    lines = outcome.out.splitlines()
    assert lines[0].startswith(
        "epoch 1/1  loss 1.5000  accuracy 0.4000  val_loss 1.6000  val_accuracy 0.5000"
    )
    assert lines[1].startswith("run made-up-0 finished: test accuracy 10.00 %")
    assert calls[0]["config"] == TrainConfig(model="alexnet", epochs=1, units_dense1=64, flip=True)
    assert isinstance(calls[0]["store"], RunStore)


def test_train_for_scripts(lab, calls):
    outcome = lab("train", "--epochs", "1", "--json")
    document = outcome.document
    assert document["run"] == "made-up-0"
    assert document["state"] == "finished"
    assert document["settings"] == calls[0]["config"].flat()
    assert document["metrics"]["accuracy"] == pytest.approx(0.1)
    assert document["history"] == [EPOCH]
    assert outcome.err.startswith("epoch 1/1")


def test_no_store(lab, calls, home):
    outcome = lab("train", "--no-store")
    assert outcome.status == 0
    assert calls[0]["store"] is None
    assert "base_cnn (not stored) finished" in outcome.out
    assert not home.exists()


def test_several_seeds(lab, calls):
    document = lab("train", "--seeds", "0,1,2", "--json").document
    assert [call["config"].seed for call in calls] == [0, 1, 2]
    assert [run["run"] for run in document["runs"]] == ["made-up-0", "made-up-1", "made-up-2"]
    assert document["accuracy_mean"] == pytest.approx(0.7)
    assert document["accuracy_sd"] == pytest.approx(0.5196152)
    assert "70.00 ± 51.96 % (mean and sd of 3 seeds)" in lab("train", "--seeds", "0,1,2").out


def test_queue_only_queues(lab, calls):
    outcome = lab("train", "--queue", "--seeds", "0,1", "--name", "later", "--json")
    ids = outcome.document["queued"]
    with RunStore() as store:
        assert [store.get(run_id).state for run_id in ids] == [RunState.QUEUED] * 2
        assert [store.get(run_id).config.seed for run_id in ids] == [0, 1]
        assert store.get(ids[0]).name == "later"
    assert calls == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("words", [[], ["--no-store"], ["--seeds", "0,1"], ["--json"]])
def test_a_signal_stops_and_tells_how_to_go_on(lab, calls, monkeypatch, number, status, words):
    trained = run.train

    def interrupted(config, **options):
        os.kill(os.getpid(), number)
        return trained(config, **options)

    monkeypatch.setattr(run, "train", interrupted)
    before = signal.getsignal(number)
    outcome = lab("train", *words)
    assert outcome.status == status
    assert len(calls) == 1  # a second seed is not begun
    last = outcome.err.splitlines()[-1]
    expected = "nothing was stored" if "--no-store" in words else "continue with: cifar-lab resume made-up"
    assert expected in last
    assert signal.getsignal(number) is before
    if "--json" in words:
        assert outcome.document["state"] == "stopped"
        assert outcome.document["metrics"] is None


def test_stopped_by_somebody_else_is_no_success(lab, calls, monkeypatch, tiny):
    monkeypatch.setattr(run, "train", lambda config, **_: made_up(config, tiny, RunState.STOPPED))
    outcome = lab("train")
    assert outcome.status == 1
    assert "continue with: cifar-lab resume made-up" in outcome.err
    assert calls == []


def test_a_second_signal_interrupts_at_once():
    with stopping() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (DivergedError("The loss is NaN."), 1, "cifar-lab: error: The loss is NaN.\n"),
        (KeyboardInterrupt(), 130, "cifar-lab: interrupted\n"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "cifar-lab: error: unexpected ZeroDivisionError: division by zero "
            "(this is a bug; --debug shows the traceback)\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            1,
            "cifar-lab: error: No space left on device: /x\n",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
        (DivergedError("two\nlines"), 1, "cifar-lab: error: two lines\n"),
    ],
)
@pytest.mark.usefixtures("calls")
def test_what_a_failure_says(lab, monkeypatch, error, status, said):
    def train(_, **__):
        raise error

    monkeypatch.setattr(run, "train", train)
    outcome = lab("train")
    assert (outcome.status, outcome.err) == (status, said)


@pytest.mark.parametrize(
    "words", [["--debug", "train"], ["train", "--debug"], ["train", "--epochs", "2", "--debug"]]
)
@pytest.mark.usefixtures("calls")
def test_debug_shows_the_traceback(lab, monkeypatch, words):
    def train(_, **__):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(run, "train", train)
    outcome = lab(*words)
    assert outcome.status == 1
    assert "Traceback (most recent call last)" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("cifar-lab: error: unexpected ZeroDivisionError")


def test_resume(lab, calls, monkeypatch, tiny):
    with RunStore() as store:
        run_id = store.create_run(TrainConfig(dataset="synthetic"))
        store.request_stop(run_id)
    asked = []

    def resume(given, **options):
        asked.append((given, options["dataset"]))
        return made_up(TrainConfig(dataset="synthetic"), tiny, run_id=given)

    monkeypatch.setattr(run, "resume", resume)
    monkeypatch.setattr(cifar_core.cli.train, "load_images", lambda _: tiny)
    document = lab("resume", run_id[:-1], "--json").document
    assert asked == [(run_id, tiny)]
    assert document["run"] == run_id
    assert calls == []


def test_reproduce(lab, calls, monkeypatch, tiny):
    monkeypatch.setattr("cifar_core.data.load_dataset", lambda *_, **__: tiny)
    outcome = lab("reproduce", "--runs", "base_cnn,alexnet", "--scale", "0.02", "--dataset", "synthetic")
    assert outcome.status == 0
    assert [call["config"].preset for call in calls] == [
        "base_cnn/paper-baseline",
        "alexnet/paper-baseline",
        "alexnet/paper-tuned",
    ]
    assert "[3/3] alexnet/paper-tuned, seed 0, 1 epochs" in outcome.out
    assert "not comparable" in outcome.out
    rows = lab(
        "reproduce", "--runs", "base_cnn", "--scale", "0.02", "--dataset", "synthetic", "--json"
    ).document
    assert rows[0]["ours"] == pytest.approx(0.1)


@pytest.mark.usefixtures("calls")
def test_reproduce_with_a_failed_run_is_no_success(lab, monkeypatch, tiny):
    def train(_, **__):
        raise DivergedError("The loss is NaN.")

    monkeypatch.setattr("cifar_core.data.load_dataset", lambda *_, **__: tiny)
    monkeypatch.setattr(run, "train", train)
    outcome = lab("reproduce", "--runs", "base_cnn", "--scale", "0.02", "--dataset", "synthetic")
    assert outcome.status == 1
    assert "failed: The loss is NaN." in outcome.out
    assert "1 of 1 runs have no result" in outcome.err


def test_tune_refuses_an_impossible_search_before_it_loads_anything(lab):
    outcome = lab("tune", "--dataset", "synthetic", "--optimizer", "adamw", "--space", "dropout=0:0.5")
    assert outcome.status == 2
    assert "weight_decay" in outcome.err


def test_tune_widens_a_finished_search_and_nothing_else(lab, monkeypatch, tiny):
    with RunStore() as store:
        search_id = tune_searches.finished(store, tuner="random", max_trials=2)
    monkeypatch.setattr("cifar_core.data.load_dataset", lambda *_, **__: tiny)
    asked = []
    monkeypatch.setattr(cifar_core.cli.tune, "run_search", lambda config, **_: asked.append(config) or 0)
    words = ("tune", "--widen", search_id[:-1])
    assert lab(*words, "--max-trials", "9", "--epochs", "30").status == 0
    assert (asked[0].widens, asked[0].max_trials, asked[0].base["epochs"]) == (search_id, 9, 30)
    for more, reason in (
        (("--max-trials", "1"), "at least 2"),
        (("--seed", "4"), "can't be widened by seed"),
        (("--max-trials", "9", "--space", "dropout=0:0.5"), "--space would begin a new search"),
        (("--max-trials", "9", "--no-store"), "leave out --no-store"),
    ):
        outcome = lab(*words, *more)
        assert outcome.status == 2
        assert reason in outcome.err
    assert len(asked) == 1

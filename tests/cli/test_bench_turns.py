"""Variants of the benchmark take turns, each in a worker process; failures name the variant."""

import subprocess
import sys
import time

import psutil
import pytest

from cifar_core.base.devices import ONEDNN_VARIABLE
from cifar_core.cli.bench.turns import Task, in_processes, in_turns, workers
from cifar_core.errors import BenchError


def task(maker, environment=None, each=None, **options):
    return Task(f"tests.cli.bench_variants:{maker}", options, environment or {}, each or {})


def test_all_have_a_turn_before_one_has_its_next():
    order = []
    variants = {name: lambda name=name: order.append(name) or {"seconds": len(order)} for name in "abc"}
    found = in_turns(variants, 2)
    assert order == list("abcabcabc")
    assert {name: [one["seconds"] for one in rounds] for name, rounds in found.items()} == {
        "a": [4, 7],
        "b": [5, 8],
        "c": [6, 9],
    }


@pytest.mark.slow
def test_each_variant_has_a_process_of_its_own_which_is_kept_and_ends(monkeypatch):
    monkeypatch.setenv(ONEDNN_VARIABLE, "1")
    tasks = {
        "default": task("counting"),
        "off": task("counting", {ONEDNN_VARIABLE: "0"}),
        "chatty": task("chatty"),
    }
    found = in_processes(tasks, 2)
    assert [one["asked"] for one in found["default"]] == [2, 3]  # the first warmed up
    assert [one["onednn"] for one in (found["default"][0], found["off"][0])] == [None, "0"]
    pids = {one["pid"] for name in ("default", "off") for one in found[name]}
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.slow
def test_variants_that_differ_only_in_their_rounds_share_a_process():
    tasks = {f"by {step}": task("counting", each={"step": step}) for step in (1, 10)}
    found = in_processes(tasks, 1, warm_up=False)
    assert [found[name][0]["asked"] for name in tasks] == [1, 11]
    assert found["by 1"][0]["pid"] == found["by 10"][0]["pid"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("culprit", "message"),
    [
        (task("impossible"), "'culprit' could not be measured: no such network"),
        (task("breaking", at=2), "'culprit' could not be measured: ValueError: a bad number"),
        (task("dying", code=0), "'culprit'.*ended with exit status 7. Its last output: .*out of luck"),
        (task("dying", code=9), "'culprit'.*ended by SIGKILL. The machine may be out of memory"),
        (Task("tests.cli.bench_variants:nobody"), "'culprit'.*has no attribute 'nobody'"),
    ],
    ids=["cannot be made", "fails", "ends", "is killed", "does not exist"],
)
def test_a_variant_that_fails_is_named_and_no_process_is_left(culprit, message):
    with pytest.raises(BenchError, match=message):
        in_processes({"well": task("counting"), "culprit": culprit}, 2)
    assert not _workers()


@pytest.mark.slow
def test_processes_end_when_the_measurement_is_interrupted():
    def interrupted():
        with workers({"a": task("sleeping"), "b": task("counting")}) as variants:
            variants["b"]()
            until(lambda: len(_workers()) == 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not _workers()


_PARENT = """
from cifar_core.cli.bench.turns import Task, in_processes
in_processes({"slow": Task("tests.cli.bench_variants:sleeping")}, 1)
"""


@pytest.mark.slow
def test_a_worker_in_the_middle_of_a_round_ends_with_who_started_it():
    parent = subprocess.Popen([sys.executable, "-c", _PARENT])
    try:
        until(lambda: _workers(parent.pid))
        (worker,) = _workers(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def _workers(pid=None):
    """Of this process or that one; a test session has other children too, as a database."""
    return [one for one in psutil.Process(pid).children() if "cifar-lab bench" in one.cmdline()]


def until(so, seconds=30):
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)

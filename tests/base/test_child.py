"""Calls in child processes: answers, progress, errors, and processes that die, hang or idle."""

import os
import subprocess
import sys
import threading
import time

import psutil
import pytest

from cifar_core.base.child import Child, ChildError, ask
from cifar_core.errors import ConfigError
from tests.base import child_calls


def until(so, seconds=20):
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def shared():
    """One process for all calls that leave it alive."""
    with Child("cifar-lab test") as child:
        yield child


def test_one_process_carries_out_many_calls(shared):
    assert shared.call(child_calls.pid) == shared.call(child_calls.pid) == shared.pid != os.getpid()
    assert shared.running()


def test_progress_is_reported_and_what_is_printed_goes_nowhere(shared, capfd):
    seen = []
    assert shared.call(child_calls.chatty, 3, progress=lambda *told: seen.append(told)) == 3
    assert seen == [(0.0, "step 0"), (1 / 3, "step 1"), (2 / 3, "step 2")]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("refuse", ConfigError, "no such network"),
        ("fail", ChildError, "ValueError: a bad number"),
        ("unpicklable error", ChildError, "only in the child"),
        ("unpicklable result", ChildError, "pickle"),
    ],
)
def test_errors_arrive_and_the_process_stays(shared, what, error, message):
    pid = shared.call(child_calls.pid)
    with pytest.raises(error, match=message):
        shared.call(child_calls.failing, what)
    assert shared.call(child_calls.pid) == pid


def test_a_function_that_the_child_cannot_import_is_named(shared, monkeypatch):
    monkeypatch.setattr(child_calls, "only_here", child_calls.pid, raising=False)
    monkeypatch.setattr(child_calls.pid, "__qualname__", "only_here")
    monkeypatch.setattr(child_calls.pid, "__name__", "only_here")
    with pytest.raises(ChildError, match="only_here"):
        shared.call(child_calls.only_here)


@pytest.mark.slow
def test_a_death_is_reported_with_its_last_output_and_the_next_call_starts_another():
    with Child("cifar-lab test") as child:
        with pytest.raises(ChildError, match=r"exit status 3\..*the last straw"):
            child.call(child_calls.die, 3)
        assert not child.running()
        with pytest.raises(ChildError, match=r"SIGKILL\. The machine may be out of memory"):
            child.call(child_calls.die, -9)
        assert child.call(child_calls.pid)


@pytest.mark.slow
def test_a_process_that_takes_too_long_or_is_stopped_is_killed():
    with Child("cifar-lab test") as child:
        child.call(child_calls.pid)
        asleep = psutil.Process(child.pid)
        with pytest.raises(ChildError, match=r"within 0\.5 s"):
            child.call(time.sleep, 60, timeout=0.5)
        assert not asleep.is_running()
        stop = threading.Event()
        threading.Timer(0.5, stop.set).start()
        with pytest.raises(ChildError, match="Stopped"):
            child.call(time.sleep, 60, stop=stop.is_set)
        assert child.call(child_calls.pid)


@pytest.mark.slow
def test_it_ends_when_idle_and_when_closed_during_a_call():
    with Child("cifar-lab test", idle_s=0.3) as child:
        first = child.call(child_calls.pid)
        until(lambda: not child.running())
        assert child.call(child_calls.pid) != first
        for _ in range(10):  # which of two threads is told first how it ended is chance
            child.call(child_calls.pid)
            threading.Timer(0.3, child.close).start()
            with pytest.raises(ChildError, match="SIGKILL"):
                child.call(time.sleep, 60)


def test_variables_are_set_and_removed_before_anything_is_called(monkeypatch):
    monkeypatch.setenv("CIFAR_LAB_TEST_REMOVED", "1")
    environment = {"CIFAR_LAB_TEST_GIVEN": "2", "CIFAR_LAB_TEST_REMOVED": None}
    names = list(environment)
    assert ask(child_calls.variables, names, name="cifar-lab test", environment=environment) == ["2", None]


_PARENT = """
import time
from cifar_core.base.child import ask
print("started", flush=True)
ask(time.sleep, 60, name="cifar-lab orphan")
"""


@pytest.mark.slow
def test_a_child_in_the_middle_of_a_call_ends_with_its_parent():
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE)
    try:
        find = lambda: [  # noqa: E731
            one for one in psutil.Process(parent.pid).children() if "cifar-lab orphan" in one.cmdline()
        ]
        until(find)
        (orphan,) = find()
    finally:
        parent.kill()
        parent.communicate()
    until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.slow
def test_the_interpreter_exits_at_once_though_a_call_is_in_progress():
    code = (
        "import threading, time\nfrom cifar_core.base.child import Child\n"
        "child = Child('cifar-lab test')\nchild.call(time.sleep, 0)\n"
        "threading.Thread(target=child.call, args=(time.sleep, 60), daemon=True).start()\ntime.sleep(0.5)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.slow
def test_the_main_script_is_not_run_again(tmp_path):
    script = tmp_path / "app.py"
    script.write_text(
        "print('script')\nimport os\nfrom cifar_core.base.child import ask\nassert ask(os.getpid, name='x')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, env=environment
    )
    assert (done.stdout, done.stderr) == ("script\n", "")

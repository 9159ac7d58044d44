"""Taking a run's network away: the section on the Run page, with a process that only seems to export."""

import time

import pytest

from cifar_core.serving.run_export import download_path
from pages.runs import export
from pages.shared import access, resources, tasks
from tests.base import child_calls
from tests.pages import live_runs
from tests.store.full_store import EXPORT

PAGE = "pages/runs/run.py"


@pytest.fixture
def run_id(home):  # noqa: ARG001 - the home must be the test's own
    return live_runs.finished(resources.store())


@pytest.fixture
def process(monkeypatch):
    """What the pages' processes were asked; they write the file, or complain."""

    class Process:
        asked, complaint, hold = [], "", None

    def in_process(function, *arguments):
        def work(task):
            Process.asked.append((function.__name__, *arguments))
            if Process.hold:
                Process.hold.wait(20)
            if Process.complaint:
                task.error = Process.complaint
                return
            run_id, form, quantize = arguments
            path = download_path(run_id, form, quantize)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * 1500)
            figures = {**EXPORT, "format": form, "quantize": quantize}
            resources.store().record_export(
                run_id, **figures, accuracy=0.801, reference_accuracy=0.808, latency_ms=0.31
            )

        return work

    Process.asked = []
    monkeypatch.setattr(export, "in_process", in_process)
    return Process


def opened(open_page, run_id):
    test = open_page(PAGE, id=run_id, part="Files")
    assert not test.exception
    return test


def press(test, label="Make the file"):
    next(button for button in test.button if button.label == label).click().run()
    assert not test.exception


def ended(test, run_id):
    """The page once the task has ended."""
    task = tasks.tasks().get(f"export {run_id}")
    for _ in range(400):
        if task is None or task.state != "running":
            break
        task.stop.wait(0.05)
    test.run()
    assert not test.exception


def downloads(test):
    return [button.label for button in test.get("download_button")]


def table(test):
    return "".join(element.proto.body for element in test.main if element.type == "html")


@pytest.mark.slow
def test_a_chosen_format_is_made_and_can_be_downloaded(open_page, run_id, process):
    test = opened(open_page, run_id)
    assert not any("LiteRT" in label for label in downloads(test))
    test.selectbox(key="export_format").select(("tflite", "int8")).run()
    press(test)
    ended(test, run_id)
    assert process.asked == [("make_download_at_home", run_id, "tflite", "int8")]
    assert "LiteRT, int8 (1.5 kB)" in downloads(test)
    for shown in ("LiteRT, int8", "80.10 %", "80.80 %", "100.00 %", "0.31 ms", "20, cifar10 test"):
        assert shown in table(test)


@pytest.mark.slow
def test_while_it_is_made_there_is_a_bar_and_no_second_button(open_page, run_id, process):
    import threading

    process.hold = threading.Event()
    test = opened(open_page, run_id)
    press(test)
    try:
        assert "Make the file" not in [button.label for button in test.button]
        assert "Cancel" in [button.label for button in test.button]
    finally:
        process.hold.set()
    ended(test, run_id)
    assert "Make the file" in [button.label for button in test.button]


@pytest.mark.slow
def test_what_went_wrong_is_told_plainly_and_one_can_try_again(open_page, run_id, process):
    process.complaint = "Exporting to onnx needs more packages <b>: pip install tf2onnx"
    test = opened(open_page, run_id)
    press(test)
    ended(test, run_id)
    (error,) = test.error
    assert "pip install tf2onnx" in error.value
    assert "\\<b\\>" in error.value
    process.complaint = ""
    press(test)
    ended(test, run_id)
    assert not test.error
    assert "ONNX (1.5 kB)" in downloads(test)


def test_a_record_outlives_the_file(open_page, run_id):
    resources.store().record_export(run_id, **EXPORT)
    test = opened(open_page, run_id)
    assert "LiteRT" in table(test)
    assert not any("LiteRT" in label for label in downloads(test))


@pytest.mark.parametrize(
    "make", [live_runs.queued, lambda store: live_runs.running(store, 1), live_runs.failed]
)
def test_only_a_finished_run_has_the_section(open_page, make):
    test = opened(open_page, make(resources.store()))
    assert "Export" not in [element.value for element in test.subheader]


def test_whoever_may_only_look_downloads_and_makes_nothing(open_page, run_id, process, monkeypatch):
    test = opened(open_page, run_id)
    monkeypatch.setattr(access, "role", lambda: access.Role.LOOK)
    press(test)  # the press of a page that was drawn before
    assert process.asked == []
    assert tasks.tasks().get(f"export {run_id}") is None
    (button,) = [button for button in test.button if button.label == "Make the file"]
    assert button.disabled
    assert "Model" in downloads(test)


def test_one_export_at_a_time_and_one_that_waits_can_be_cancelled(process):
    import threading

    process.hold = threading.Event()
    kept = tasks.Tasks()
    first = kept.start("a", export._making("base_cnn-aaaaaa", ("onnx", None)))
    for _ in range(400):
        if process.asked:
            break
        first.stop.wait(0.05)
    second = kept.start("b", export._making("base_cnn-bbbbbb", ("onnx", None)))
    second.cancel()
    for _ in range(400):
        if second.state != "running":
            break
        first.stop.wait(0.05)
    assert (first.state, second.state) == ("running", "cancelled")
    assert [asked[1] for asked in process.asked] == ["base_cnn-aaaaaa"]
    process.complaint = "no store here"
    process.hold.set()


@pytest.mark.slow
def test_what_goes_wrong_in_the_process_is_the_tasks_error(home):  # noqa: ARG001
    task = tasks.Task("export base_cnn-ffffff")
    tasks._run(task, tasks.in_process(export.make_download_at_home, "base_cnn-ffffff", "onnx", None))
    assert task.state == "failed"
    assert task.error.startswith("No run 'base_cnn-ffffff'")


@pytest.mark.slow
def test_a_task_in_a_process_reports_and_can_be_cancelled():
    kept = tasks.Tasks()
    assert ended_task(kept.start("done", tasks.in_process(child_calls.chatty, 3))).text == "step 2"
    task = kept.start("cancelled", tasks.in_process(child_calls.hanging))
    for _ in range(400):
        if task.text == "hanging":
            break
        task.stop.wait(0.05)
    task.cancel()
    assert ended_task(task).state == "cancelled"


def ended_task(task):
    for _ in range(400):
        if task.state != "running":
            break
        time.sleep(0.05)
    assert task.state != "running"
    return task

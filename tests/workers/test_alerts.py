"""The webhook: who is told of what, and that nothing of it harms a run or gives the address away."""

import http.server
import json
import os
import threading
import time

import pytest

from cifar_core.errors import RunStateError, TrainingError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.training import alerts
from cifar_core.training.failures import recorded_end
from cifar_core.workers.supervisor import Supervisor
from tests.pages import live_runs

SECRET = "T0KEN"


@pytest.fixture
def store(home):  # noqa: ARG001
    with RunStore() as opened:
        yield opened


@pytest.fixture
def hook(monkeypatch):
    """A local server as webhook; (requests that it got, its answer's status, seconds until it answers)."""
    received, answer = [], {"status": 200, "after": 0.0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append((self.path, self.headers, body))
            time.sleep(answer["after"])
            self.send_response(answer["status"])
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(alerts.WEBHOOK_VARIABLE, f"http://127.0.0.1:{server.server_port}/{SECRET}")
        yield received, answer
        server.shutdown()


def test_a_finished_run_is_told_in_words_that_slack_and_ntfy_understand(store, hook):
    run_id = live_runs.finished(store)
    alerts.announce(store, run_id)
    ((path, headers, body),) = hook[0]
    assert path == f"/{SECRET}"
    assert headers["X-Message"] == "{{.text}}"
    accuracy = store.get(run_id).metrics["accuracy"]
    assert body["title"] == f"{run_id} finished"
    assert body["text"].startswith(f"{run_id} finished: test accuracy {100 * accuracy:.2f} %, 5 epochs")


def test_a_failure_names_its_reason(store, hook):
    run_id = live_runs.failed(store, reason="The loss is no longer a finite number in epoch 2, step 7.")
    alerts.announce(store, run_id)
    assert (
        hook[0][0][2]["text"] == f"{run_id} failed: The loss is no longer a finite number in epoch 2, step 7."
    )


def test_a_stop_and_what_goes_on_are_not_told(store, hook):
    queued, running = live_runs.queued(store), live_runs.running(store, 1)
    store.request_stop(queued)
    for run_id in (queued, running):
        alerts.announce(store, run_id)
    assert hook[0] == []


def test_each_end_is_told_once_whoever_trains(store, hook):
    done, failed, lost = (live_runs.running(store, 1, seed=seed) for seed in range(3))
    with recorded_end(store, done):
        store.finish(done, metrics={"accuracy": 0.5})
    with pytest.raises(TrainingError), recorded_end(store, failed):
        raise ValueError("odd")
    store.fail(lost, "told by the process that has it")
    with pytest.raises(RunStateError), recorded_end(store, lost):
        raise RunStateError("another process has it")
    assert [body["title"] for _, _, body in hook[0]] == [f"{done} finished", f"{failed} failed"]


def test_without_a_webhook_nothing_is_sent(store, hook, monkeypatch):
    monkeypatch.delenv(alerts.WEBHOOK_VARIABLE)
    alerts.announce(store, live_runs.finished(store))
    assert hook[0] == []


def test_a_crash_that_the_supervisor_notices_is_told(store, hook):
    run_id = store.create_run(TrainConfig())
    assert store.claim(run_id, pid=2**22 + 1, device="cpu")  # no such process
    supervisor = Supervisor(store, reserve=False)
    supervisor.tick()
    assert store.get(run_id).state is RunState.CRASHED
    deadline = time.monotonic() + 10
    while not hook[0] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert hook[0][0][2]["state"] == "crashed"


@pytest.mark.parametrize(
    "address", [None, f"http://{SECRET}.invalid/x", f"file:///{SECRET}", f"http://a:{SECRET}@:x/"]
)
def test_a_webhook_that_fails_is_logged_without_its_address(store, hook, monkeypatch, caplog, address):
    hook[1]["status"] = 500
    if address:
        monkeypatch.setenv(alerts.WEBHOOK_VARIABLE, address)
    alerts.announce(store, live_runs.finished(store))
    assert "was not sent" in caplog.text
    assert SECRET not in caplog.text


def test_a_webhook_that_hangs_delays_nothing_for_long(store, hook, monkeypatch):
    monkeypatch.setattr(alerts, "TIMEOUT_S", 0.1)
    hook[1]["after"] = 1.0
    run_id = live_runs.finished(store)
    began = time.monotonic()
    alerts.announce(store, run_id)
    assert time.monotonic() - began < 0.9


@pytest.mark.slow
def test_a_worker_tells_of_the_run_that_it_has_trained(store, hook):
    from cifar_core.workers.worker import run_worker

    quick = {
        "dataset": "synthetic",
        "train_limit": 200,
        "test_limit": 50,
        "epochs": 1,
        "precision": "float32",
    }
    run_id = store.create_run(TrainConfig(**quick))
    assert run_worker(store, run_id, device=str(os.getpid())) == 1
    assert [body["title"] for _, _, body in hook[0]] == [f"{run_id} finished"]

"""A class that watches while two runs train: how quick the pages stay, what that costs, what it keeps.

    python -m tests.load.classroom                     # 20 people, 10,000 runs in the store, about 12 minutes
    python -m tests.load.classroom --week              # a week of one page's polls, as fast as they go

It starts a server in a home of its own and talks to it as browsers do (the app's own messages over
its websocket, polling at the times that each page asks for), so that twenty real browsers do not
take the processor from what is measured. Rounds with and without people alternate, since the machine
is rarely quiet. No figure here passes or fails: docs/reliability.md says what was measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from cifar_core.cli.bench.variants_store import fill
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore

CHECKOUT = Path(__file__).parents[2]
TRAINING = {
    "model": "base_cnn",
    "dataset": "synthetic",
    "epochs": 1000,
    "precision": "float32",
    "batch_size": 64,
}
MOST_MESSAGE = 64_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="of each half of a round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--runs", type=int, default=10_000, help="finished ones in the store")
    parser.add_argument("--week", action="store_true", help="only a week of polls of one live page")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["CIFAR_LAB_HOME"] = home
        store = RunStore()
        if given.week:
            print(json.dumps(week(store), indent=1))
            return
        fill(store, given.runs)
        print(f"{len(store.runs()):,} runs in the store", flush=True)
        with trainings(store) as (first, second), server() as (url, process):
            measured = asyncio.run(rounds(given, store, url, process, (first, second)))
    print(
        json.dumps(
            {**measured, "machine": machine(), "runs": given.runs, "sessions": given.sessions}, indent=1
        )
    )


# --- The store and the trainings ------------------------------------------------------------------


@contextmanager
def trainings(store: RunStore):
    """Two that train until the end of the context, each in a process of its own, niced as the app does."""
    ids = [store.create_run(TrainConfig(**TRAINING, seed=seed)) for seed in (1, 2)]
    code = (
        "import os, sys; from cifar_core.store import RunStore; "
        "from cifar_core.training.run import carry_out; "
        "store = RunStore(); store.claim(sys.argv[1], pid=os.getpid()); carry_out(store, sys.argv[1])"
    )
    processes = [subprocess.Popen(["nice", "-n", "10", sys.executable, "-c", code, run_id]) for run_id in ids]
    try:
        while any(store.get(run_id).epochs_done < 1 for run_id in ids):
            if any(process.poll() is not None for process in processes):
                raise RuntimeError("a training ended before its first epoch")
            time.sleep(0.5)
        yield ids
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def server():
    """The app on a free port; its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    process = subprocess.Popen(
        [*command, "--server.headless", "true"],
        cwd=CHECKOUT,
        env={**os.environ, "CIFAR_LAB_SUPERVISE": "0"},
        stdout=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


# --- People ---------------------------------------------------------------------------------------


class Visitor:
    """One browser tab: it opens a page and then polls what the page asks to be polled.

    One request is on its way at a time, as the server would join two; what was due meanwhile waits, and
    its time counts from when it was due.
    """

    def __init__(self, url: str, page: str, query: str) -> None:
        self.url, self.page, self.query = url, page, query
        self.updates: list[float] = []
        self.opened_s = float("nan")
        self.opened = asyncio.Event()
        self._page_hash = ""
        self._due: dict[str, tuple[float, float]] = {}
        """By fragment: its interval and when it is due."""

    async def stay(self, bell: asyncio.Event, seconds: float) -> None:
        """Open the page at once; poll from the bell on."""
        async with websockets.connect(
            f"ws://{self.url}/_stcore/stream",
            origin=f"http://{self.url}",
            subprotocols=["streamlit"],
            max_size=MOST_MESSAGE,
        ) as socket:
            began = time.monotonic()
            await self._ask(socket)
            self.opened_s = time.monotonic() - began
            self.opened.set()
            await bell.wait()
            end = time.monotonic() + seconds
            for fragment, (interval, _) in self._due.items():
                self._due[fragment] = (interval, time.monotonic() + interval * random.random())
            while (now := time.monotonic()) < end:
                if not self._due:
                    raise RuntimeError(f"{self.page} asks for no polling")
                fragment, (interval, due) = min(self._due.items(), key=lambda item: item[1][1])
                if due > now:
                    await asyncio.sleep(min(due, end) - now)
                    continue
                await self._ask(socket, fragment)
                self.updates.append(time.monotonic() - due)
                if fragment in self._due:
                    self._due[fragment] = (interval, max(due + interval, time.monotonic()))

    async def _ask(self, socket, fragment: str = "") -> None:
        """Ask for a run of the page or of one fragment, and read until it is done."""
        message = BackMsg()
        state = message.rerun_script
        state.query_string = self.query
        if fragment:
            state.fragment_id, state.is_auto_rerun, state.page_script_hash = fragment, True, self._page_hash
        else:
            state.page_name = self.page
        await socket.send(message.SerializeToString())
        while True:
            answer = ForwardMsg()
            answer.ParseFromString(await socket.recv())
            kind = answer.WhichOneof("type")
            if kind == "new_session":
                self._page_hash = answer.new_session.page_script_hash
                if not fragment:
                    self._due.clear()
            elif kind == "auto_rerun":
                asked = answer.auto_rerun
                self._due[asked.fragment_id] = (asked.interval, time.monotonic() + asked.interval)
            elif kind == "stop_auto_rerun":
                self._due.clear()
            elif kind == "script_finished":
                return


def visitors(url: str, number: int, ids: tuple[str, str]) -> list[Visitor]:
    """On the pages that poll, in turn."""
    both = "&".join(f"runs={run_id}" for run_id in ids)
    pages = (
        ("runs", both),
        ("run", f"id={ids[0]}"),
        ("runs", f"runs={ids[1]}"),
        ("leaderboard", ""),
        ("", ""),
    )
    return [Visitor(url, *pages[place % len(pages)]) for place in range(number)]


async def rounds(given, store: RunStore, url: str, process: psutil.Process, ids: tuple[str, str]) -> dict:
    await watched(visitors(url, 1, ids), store, ids, 3)  # the first visit loads the server's modules
    quiet, busy, updates, opened, memory, cores, own = [], [], [], [], [], [], []
    for number in range(1, given.rounds + 1):
        quiet.append(await speed(store, ids, given.seconds))
        people = visitors(url, given.sessions, ids)
        before, mine = sum(process.cpu_times()[:2]), time.process_time()
        busy.append(await watched(people, store, ids, given.seconds))
        cores.append(round((sum(process.cpu_times()[:2]) - before) / given.seconds, 2))
        own.append(round((time.process_time() - mine) / given.seconds, 2))
        updates += [seconds for person in people for seconds in person.updates]
        opened += [person.opened_s for person in people]
        memory.append(round(process.memory_info().rss / 1e6))
        print(
            f"round {number}: {quiet[-1]:.0f} images/s alone, {busy[-1]:.0f} watched; "
            f"load {os.getloadavg()[0]:.1f}; app {memory[-1]} MB, {cores[-1]} cores; "
            f"{len(updates)} updates, p95 {ms(updates, 0.95)} ms",
            flush=True,
        )
    return {
        "updates": len(updates),
        "update_ms": {"median": ms(updates, 0.5), "p95": ms(updates, 0.95), "worst": ms(updates, 1)},
        "open_ms": {"median": ms(opened, 0.5), "p95": ms(opened, 0.95)},
        "images_per_second": {"alone": [round(v) for v in quiet], "watched": [round(v) for v in busy]},
        "training_slowed_by": round(1 - statistics.median(busy) / statistics.median(quiet), 3),
        "app_cores_opening_and_watched": cores,
        "cores_of_the_visitors": own,
        "app_mb_after_each_round": memory,
    }


async def watched(people: list[Visitor], store: RunStore, ids: tuple[str, str], seconds: float) -> float:
    """Training's speed while these people, who have all opened their page, watch."""
    bell = asyncio.Event()
    stays = asyncio.gather(*(person.stay(bell, seconds) for person in people))
    opened = asyncio.gather(*(person.opened.wait() for person in people))
    await asyncio.wait([stays, opened], return_when=asyncio.FIRST_COMPLETED)
    if stays.done():
        await stays  # somebody could not open the page: it says why
    bell.set()
    measured = await speed(store, ids, seconds)
    await stays
    return measured


async def speed(store: RunStore, ids: tuple[str, str], seconds: float) -> float:
    """Images per second that both trained together in the next seconds."""
    before, began = _steps(store, ids), time.monotonic()
    await asyncio.sleep(seconds)
    steps = _steps(store, ids) - before
    return steps * TRAINING["batch_size"] / (time.monotonic() - began)


def _steps(store: RunStore, ids: tuple[str, str]) -> int:
    records = [store.get(run_id) for run_id in ids]
    return sum(record.epochs_done * (record.steps or 0) + (record.step or 0) for record in records)


# --- A week ---------------------------------------------------------------------------------------


def week(store: RunStore, *, polls: int = 7 * 24 * 3600) -> dict:
    """As many polls as a live page makes in a week, one a second, of a run that goes on meanwhile."""
    from cifar_core.store.watch import Watch

    run_id = store.create_run(TrainConfig(model="base_cnn", epochs=1000), claim_for=os.getpid())
    store.begin(run_id, environment={}, dataset={"name": "cifar10"}, parameters=1, total_steps=10_000)
    watch, process, memory = Watch(store.runs().to_dict("records")), psutil.Process(), []
    every, began = polls // 1000, time.monotonic()
    for poll in range(polls):
        if poll % every == 0 and poll // every < 1000:
            store.record_epoch(run_id, poll // every + 1, {"val_accuracy": 0.5, "seconds": 600.0})
        watch.update(store)
        if poll % (polls // 8) == 0:
            memory.append(round(process.memory_info().rss / 1e6, 1))
            print(f"{poll:,} polls, {memory[-1]} MB, {time.monotonic() - began:.0f} s", flush=True)
    return {"polls": polls, "epochs": len(watch.runs[run_id].epochs), "mb": memory}


# --- Words ----------------------------------------------------------------------------------------


def quantile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else float("nan")


def ms(values: list[float], share: float) -> int:
    return round(1000 * quantile(values, share))


def machine() -> str:
    from cifar_core.base.devices import cpu_name, usable_cores

    return f"{cpu_name()}, {usable_cores()} cores"


if __name__ == "__main__":
    main()

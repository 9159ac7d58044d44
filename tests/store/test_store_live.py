"""Reading by cursor: everything once, nothing twice."""

import os
import random

import pytest

from cifar_core.store import RunState


class Reader:
    """A page: keeps what it was told, by the rules in `Live`."""

    def __init__(self, store, ids):
        self.store, self.ids, self.cursor = store, ids, None
        self.runs, self.epochs, self.steps = {}, {}, {}
        self.received = 0

    def poll(self):
        news, self.cursor = self.store.live(self.ids, self.cursor)
        self.received += len(news.epochs) + len(news.steps)
        for gone in (*news.missing, *news.restarted):
            self.runs.pop(gone, None)
            self.epochs = {key: row for key, row in self.epochs.items() if key[0] != gone}
            self.steps = {key: row for key, row in self.steps.items() if key[0] != gone}
        self.runs |= {row["id"]: row for row in news.runs}
        self.epochs |= {(row["run_id"], row["epoch"]): row["loss"] for row in news.epochs}
        self.steps |= {(row["run_id"], row["epoch"], row["step"]): row["loss"] for row in news.steps}
        self.steps = {key: loss for key, loss in self.steps.items() if key[:2] not in self.epochs}
        return news


def test_a_poll_brings_only_what_is_new(store, begin):
    run_id = begin()
    reader = Reader(store, [run_id])
    assert [row["state"] for row in reader.poll().runs] == ["running"]
    store.record_step(run_id, 1, 1, 2, {"loss": 3.0})
    store.record_step(run_id, 1, 2, 2, {"loss": 2.0})
    assert [row["step"] for row in reader.poll().steps] == [1, 2]
    assert reader.poll().steps == []
    store.record_epoch(run_id, 1, {"loss": 1.0})
    news = reader.poll()
    assert [row["epoch"] for row in news.epochs] == [1]
    assert news.runs[0]["epochs_done"] == 1
    assert reader.steps == {}
    store.finish(run_id, metrics={"accuracy": 0.5})
    assert reader.poll().runs[0]["state"] == RunState.FINISHED
    assert reader.received == 3


def test_a_poll_is_silent_about_other_runs_and_where_nothing_happened(store, begin):
    mine, other = begin(), begin()
    reader = Reader(store, [mine])
    reader.poll()
    store.record_epoch(other, 1, {"loss": 1.0})
    news = reader.poll()
    assert (news.runs, news.epochs, news.steps, news.missing) == ([], [], [], [])
    before = reader.cursor
    reader.poll()
    assert reader.cursor == before == store.cursor()


def test_a_deleted_run_is_missing_and_a_cut_one_is_told_again(store, begin, finish):
    gone, cut = finish(0.5), begin()
    for epoch in (1, 2, 3):
        store.record_epoch(cut, epoch, {"loss": float(epoch)})
    reader = Reader(store, [gone, cut])
    reader.poll()
    store.delete(gone)
    store.stopped(cut)
    store.requeue(cut)
    store.claim(cut, pid=os.getpid())
    store.begin(cut, environment={}, dataset={}, parameters=1, epochs_kept=1)
    store.record_epoch(cut, 2, {"loss": 20.0})
    news = reader.poll()
    assert (news.missing, news.restarted) == ([gone], [cut])
    assert reader.epochs == {(cut, 1): 1.0, (cut, 2): 20.0}


@pytest.mark.parametrize("seed", range(3))
def test_a_reader_that_polls_at_random_ends_with_the_truth(store, begin, seed):
    draw = random.Random(seed)
    ids = [begin(), begin()]
    reader, truth, done = Reader(store, ids), {}, dict.fromkeys(ids, 0)
    for _ in range(60):
        run_id = draw.choice(ids)
        if draw.random() < 0.6:
            store.record_step(run_id, done[run_id] + 1, draw.randrange(1, 50), 50, {"loss": draw.random()})
        else:
            done[run_id] += draw.random() < 0.8
            epoch = max(1, done[run_id])
            truth[run_id, epoch] = draw.random()
            store.record_epoch(run_id, epoch, {"loss": truth[run_id, epoch]})
        if draw.random() < 0.3:
            reader.poll()
    reader.poll()
    assert reader.epochs == truth
    assert reader.steps == {
        (row["run_id"], row["epoch"], row["step"]): row["loss"]
        for row in store.live(ids)[0].steps
        if (row["run_id"], row["epoch"]) not in truth
    }
